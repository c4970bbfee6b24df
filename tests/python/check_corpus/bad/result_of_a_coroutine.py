# runtime: TypeError
# after: https://github.com/martinapugliese/askademic/issues/60
"""A result is taken from what is no result yet."""

from theus import TheusEngine, process


@process(parallel=True)
def ask(ctx, question):
    return {"answer": len(question)}


with TheusEngine(workers=1) as engine:
    reply = engine.execute(ask, question="how long?")  # expect: TH017
    print(reply["answer"])
