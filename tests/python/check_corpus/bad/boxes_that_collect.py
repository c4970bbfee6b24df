# runtime: none
# after: https://github.com/joblib/joblib/issues/717
"""Windows in which something was found, kept in a list of the enclosing function."""

from theus import TheusEngine, process


def search(engine, windows):
    boxes = []

    @process(parallel=True)
    def classify(ctx, window):
        if window % 2:
            boxes.append((window, window + 8))  # expect: TH003

    list(engine.map(classify, windows))
    return boxes


with TheusEngine(workers=1) as engine:
    assert search(engine, range(6)) == []
