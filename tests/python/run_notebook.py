"""Runs the cells of a notebook as Jupyter does, in a program of its own.

Reads a JSON list of the cells' sources from standard input. The last line that it prints is a JSON
list with what each cell showed: ``[["stdout", text], ["result", text], ["error", text], …]``. It
does not stop at errors. What the kernel's processes print goes to its standard output as well.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import nbclient
import nbformat


def shown(output: Any) -> list[str]:
    """One output of a cell as its kind and its text."""
    if output.output_type == "stream":
        return [output.name, output.text]
    if output.output_type == "error":
        return ["error", f"{output.ename}: {output.evalue}"]
    return ["result", output.data.get("text/plain", "")]


def main() -> None:
    """See the module."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
    client = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", allow_errors=True, resources={}
    )
    # The kernel warns of itself at its start: that it is reached over TCP.
    client.extra_arguments = ["--log-level=ERROR"]
    client.execute()
    print(json.dumps([[shown(output) for output in cell.outputs] for cell in notebook.cells]))


if __name__ == "__main__":
    main()
