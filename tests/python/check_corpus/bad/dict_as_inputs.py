# runtime: TypeError
"""Default values where names belong."""

from theus import process


@process(inputs=["domain.rate", {"rate": 0.5}], parallel=True)  # expect: TH005
def scale(ctx):
    return ctx.domain.rate
