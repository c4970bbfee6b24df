"""Runs zygote_process.py: ``python -I zygote.py 3``.

Python compiles a script each time that it is run, and a module only once.
"""

import importlib.util
import os
import sys


def main() -> None:
    """Load the module by its file: where the theus package is found is not known yet."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "zygote_process.py")
    spec = importlib.util.spec_from_file_location("theus.worker.zygote_process", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(sys.argv[1:])


if __name__ == "__main__":
    main()
