"""A host that forks while an engine starts: multiprocessing's pools do, when they like."""

from __future__ import annotations

from pathlib import Path

from programs import run_text

# The children hold every descriptor that was open when they were forked, for as long as they
# live: also what the library had open just then to learn whether its process has started.
FORKS_WHILE_ENGINES_START = """
import os, threading, warnings
from theus import TheusEngine

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
TheusEngine(workers=1).close()  # the library is loaded
hold, release = os.pipe()
children, starting = [], threading.Event()

def fork_on():
    while not starting.is_set() and len(children) < 150:
        child = os.fork()
        if child == 0:
            os.close(release)
            os.read(hold, 1)
            os._exit(0)
        children.append(child)

for _ in range(6):
    starting.clear()
    forking = threading.Thread(target=fork_on)
    forking.start()
    with TheusEngine(workers=1) as engine:
        assert engine.run(pow, 2, 3) == 8
    starting.set()
    forking.join()
    os.close(release)
    for child in children:
        os.waitpid(child, 0)
    children.clear()
    os.close(hold)
    hold, release = os.pipe()
print("all started")
"""


def test_engines_start_while_the_host_forks(tmp_path: Path) -> None:
    ended = run_text(FORKS_WHILE_ENGINES_START, cwd=tmp_path)
    assert ended == (0, "all started\n", "")
