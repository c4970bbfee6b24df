# runtime: none
# after: https://github.com/luizalabs/shared-memory-dict/issues/55
"""Closing does no harm and no good."""

import theus

with theus.TheusEngine(workers=1) as engine:
    tokens = engine.heavy.alloc("tokens", 1024, dtype="uint8")
    tokens[:5] = list(b"hello")
    tokens.shm.close()  # expect: TH010
