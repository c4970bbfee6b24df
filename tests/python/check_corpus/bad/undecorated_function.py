# runtime: StatelessnessError
"""A plain function goes to the workers as well."""

import threading

import theus

ready = threading.Event()


def work(n):
    ready.wait(1)  # expect: TH001
    return n


with theus.TheusEngine(workers=1) as engine:
    print(engine.submit(work, 3).result())
