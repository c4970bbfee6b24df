"""Other libraries have engines with the same methods."""

import theus


class Database:
    def execute(self, statement, data=None):
        return {"statement": statement}

    def run(self, function, data):
        return function(data)


engine = Database()
engine.execute("select 1")
print(engine.execute("select 1")["statement"], theus.__version__)
