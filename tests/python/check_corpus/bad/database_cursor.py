# runtime: StatelessnessError
"""A cursor belongs to its connection, and that to its process."""

import sqlite3

from theus import TheusEngine, process

db = sqlite3.connect(":memory:")
rows = db.cursor()


@process(parallel=True)
def answer(ctx):
    return rows.execute("select 42").fetchone()  # expect: TH001


with TheusEngine(workers=1) as engine:
    print(engine.run(answer))
