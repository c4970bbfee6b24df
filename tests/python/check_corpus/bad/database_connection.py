# runtime: StatelessnessError
# after: https://taourl.com/read-1957467.html
"""One connection for the program, and a process that asks it."""

import sqlite3

from theus import TheusEngine, process

connection = sqlite3.connect(":memory:")
connection.execute("create table people (name text)")


@process(parallel=True)
def count(ctx):
    return connection.execute("select count(*) from people").fetchone()[0]  # expect: TH001


with TheusEngine(workers=1) as engine:
    print(engine.run(count))
