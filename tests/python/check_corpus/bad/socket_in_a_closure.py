# runtime: StatelessnessError
"""A connection to a service, opened by whoever starts the tasks."""

import socket

from theus import TheusEngine, process


def fetch_all(engine, names):
    with socket.socket() as service:

        @process(parallel=True)
        def fetch(ctx, name):
            return name, service.fileno()  # expect: TH001

        return [engine.run(fetch, name=name) for name in names]


with TheusEngine(workers=1) as engine:
    print(fetch_all(engine, ["a"]))
