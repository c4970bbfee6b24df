"""Runs cells in a Jupyter kernel and interrupts those that wait, as the stop button does.

Reads a JSON list of ``[source, word]`` from standard input; a cell with a word is interrupted once
it has printed that. The last line that this prints is a JSON list of what each cell showed:
``[{"text": …, "result": …, "error": …, "delay": …}, …]``, the delay in seconds from the interrupt
to the end of the cell.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from jupyter_client.manager import start_new_kernel

PATIENCE = 60.0


def main() -> None:
    """See the module."""
    # The kernel warns of itself at its start: that it is reached over TCP.
    manager, client = start_new_kernel(kernel_name="python3", extra_arguments=["--log-level=ERROR"])
    try:
        cells = [run_cell(manager, client, *cell) for cell in json.load(sys.stdin)]
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    print(json.dumps(cells))


def run_cell(manager: Any, client: Any, source: str, word: str) -> dict[str, Any]:
    """Run one cell to its end."""
    shown: dict[str, Any] = {"text": "", "result": "", "error": "", "delay": 0.0}
    interrupted = 0.0

    def show(message: Any) -> None:
        nonlocal interrupted
        content = message["content"]
        if message["msg_type"] == "stream":
            shown["text"] += content["text"]
        elif message["msg_type"] == "execute_result":
            shown["result"] = content["data"]["text/plain"]
        elif message["msg_type"] == "error":
            shown["error"] = content["ename"]
        if word and not interrupted and word in shown["text"]:
            interrupted = time.monotonic()
            manager.interrupt_kernel()

    client.execute_interactive(source, output_hook=show, timeout=PATIENCE)
    if interrupted:
        shown["delay"] = time.monotonic() - interrupted
    return shown


if __name__ == "__main__":
    main()
