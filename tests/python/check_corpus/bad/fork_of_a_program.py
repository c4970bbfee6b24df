# runtime: ForkedProcessError
# after: https://github.com/grpc/grpc/issues/13873
"""A child that works on where its parent stood."""

import os
import sys

from theus import TheusEngine

engine = TheusEngine(workers=1)
pid = os.fork()  # expect: TH016
if pid == 0:
    print(engine.run(pow, 2, 3))
    os._exit(0)
_, status = os.waitpid(pid, 0)
engine.close()
sys.exit(os.waitstatus_to_exitcode(status))
