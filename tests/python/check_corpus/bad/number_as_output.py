# runtime: TypeError
"""Outputs are paths, too."""

from theus.contracts import process


@process(outputs=["domain.total", 0])  # expect: TH005
def total(ctx):
    return 1, 2
