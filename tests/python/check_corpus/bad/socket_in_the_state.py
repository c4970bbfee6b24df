# runtime: StatelessnessError
"""A connection that is committed to the state, for everybody to use."""

import socket

from theus import TheusEngine

with socket.socket() as service, TheusEngine(workers=1) as engine:
    data = {"domain.service": service}
    engine.compare_and_swap(engine.state.version, data=data)  # expect: TH002
