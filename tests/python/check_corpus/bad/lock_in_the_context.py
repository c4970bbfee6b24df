# runtime: StatelessnessError
"""What seeds the state must be able to leave the process."""

import threading

from theus import TheusEngine

engine = TheusEngine({"domain": {"n": 0, "lock": threading.Lock()}}, workers=1)  # expect: TH002
