"""A connection that each worker makes for itself, and keeps."""

import sqlite3

from theus import TheusEngine, process

connection = None


@process(parallel=True)
def answer(ctx):
    global connection
    if connection is None:
        connection = sqlite3.connect(":memory:")  # theus: allow
    return connection.execute("select 42").fetchone()[0]


with TheusEngine(workers=1) as engine:
    print(engine.run(answer))
