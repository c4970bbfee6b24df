"""Nobody copies: what /proc says about the pages under an array, read from another process.

The program's own account of its bytes proves nothing. The kernel's does: a page that was copied is
anonymous memory, one that is shared belongs to a memory file. Of inputs and results, which only one
process maps, `Anonymous` alone is looked at: their pages count as `Private_Dirty`, copied or not.
Whether the file is that which the other side wrote to is told by its inode.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import jobs
import theus
from gate import Gate
from jobs import checksum
from processes import Region, descendants, proportional_size, region_of
from theus import LargeArgumentWarning, TheusEngine

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def engine(shared_engine: TheusEngine) -> TheusEngine:
    return shared_engine


def numbers(count: int) -> Any:
    """Values that leave no page without a byte that is not zero."""
    return np.arange(1, count + 1, dtype=np.float64)


def records(count: int) -> Any:
    array = np.zeros(count, dtype=[("name", "S5"), ("x", "<f4"), ("when", "<M8[s]")])
    array["name"] = b"abc"
    array["x"] = np.arange(1, count + 1)
    array["when"] = np.datetime64("2024-02-29")
    return array


KINDS = {
    "doubles": numbers(400_000),
    "two dimensions": numbers(300_000).reshape(600, 500).astype(np.float32),
    "fortran order": np.asfortranarray(numbers(300_000).reshape(600, 500)),
    "records": records(120_000),
    "dates": np.datetime64("1999-12-31", "ns") + np.arange(200_000).astype("m8[h]"),
    "complex": numbers(100_000) * (1 + 2j),
    "truths": np.ones(2_000_000, dtype=bool),
    "small": numbers(100),
    "one": np.array(7.5),
}


def assert_shared_and_untouched(region: Region, nbytes: int) -> None:
    """All pages were read through this mapping, and none of them is a copy."""
    assert region.is_shared_memory, region
    assert region.amounts["Rss"] >= nbytes
    assert region.amounts["Anonymous"] == 0
    assert region.amounts["Private_Dirty"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_worker_reads_in_place(engine: TheusEngine, kind: str) -> None:
    source = KINDS[kind]
    published = engine.heavy.put(kind, source)
    seen = engine.run(jobs.read_all, kind)
    assert seen["pid"] != os.getpid()
    assert seen["checksum"] == checksum(source)
    region = region_of(seen["pid"], seen["address"])
    assert_shared_and_untouched(region, source.nbytes)
    assert region.access == "r--s"
    del published, engine.heavy[kind]


def test_worker_reads_what_was_filled_in_place(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("filled", (512, 1024))
    array[:] = numbers(512 * 1024).reshape(512, 1024)
    array.publish()
    seen = engine.run(jobs.read_all, "filled")
    assert seen["checksum"] == checksum(array)
    assert_shared_and_untouched(region_of(seen["pid"], seen["address"]), array.nbytes)
    del array, engine.heavy["filled"]


def test_host_reads_in_place(engine: TheusEngine) -> None:
    array = engine.heavy.put("x", numbers(300_000))
    view = engine.heavy["x"]
    checksum(view)
    region = region_of("self", jobs.address(view))
    assert_shared_and_untouched(region, view.nbytes)
    assert region.access == "r--s"
    # The array that was filled keeps its address, but nobody can reach others through it.
    own = region_of("self", jobs.address(array))
    assert own.is_shared_memory
    assert own.amounts["Anonymous"] == 0
    assert own.access.endswith("p")
    del array, view, engine.heavy["x"]


@pytest.mark.parametrize("kind", ["doubles", "fortran order", "records"])
def test_layout_survives(engine: TheusEngine, kind: str) -> None:
    source = KINDS[kind]
    engine.heavy.put(kind, source)
    expected = source.shape, source.strides, source.dtype, False
    assert engine.run(jobs.shape_of, kind) == expected
    del engine.heavy[kind]


@pytest.mark.parametrize("shape", [0, (0, 5), (3, 0, 2)])
def test_arrays_without_elements(engine: TheusEngine, shape: Any) -> None:
    array = engine.heavy.alloc("empty", shape, np.int16)
    array.publish()
    found_shape, _, dtype, writable = engine.run(jobs.shape_of, "empty")
    assert (found_shape, dtype, writable) == (array.shape, np.dtype(np.int16), False)
    assert engine.heavy["empty"].size == 0
    del array, engine.heavy["empty"]


def test_large_input_is_mapped_and_writable(engine: TheusEngine, gate: Gate) -> None:
    source = np.arange(MIB // 4, dtype=np.int64)
    with pytest.warns(LargeArgumentWarning, match=r"engine\.heavy"):
        future = engine.submit(jobs.take_input, source, reports=gate.reports, gate=gate.path)
    (seen,) = gate.arrived(1)
    assert seen["checksum"] == checksum(source)
    region = region_of(seen["pid"], seen["address"])
    assert region.is_shared_memory
    assert region.access == "rw-p"
    assert region.amounts["Rss"] >= source.nbytes
    assert region.amounts["Anonymous"] == 0
    gate.open()
    assert future.result(60) == checksum(source + 1)
    assert source[1] == 1, "the worker wrote to the caller's array"


def test_large_result_is_mapped_and_writable(engine: TheusEngine) -> None:
    result = engine.run(jobs.make_result, MIB // 4)
    assert result.nbytes == 2 * MIB
    assert type(result) is np.ndarray
    assert not theus.is_shared(result)
    assert checksum(result) == checksum(np.arange(1, MIB // 4 + 1, dtype=np.float64))
    region = region_of("self", jobs.address(result))
    assert region.is_shared_memory
    assert region.access == "rw-p"
    assert region.amounts["Rss"] >= result.nbytes
    assert region.amounts["Anonymous"] == 0
    result[0] = -1.0
    assert result[0] == -1.0
    assert region_of("self", jobs.address(result)).amounts["Anonymous"] == PAGE


def test_a_result_lies_where_its_worker_wrote_it(engine: TheusEngine, gate: Gate) -> None:
    result = engine.run(jobs.make_result_and_tell, MIB // 4, gate.reports)
    (written,) = gate.arrived(1)
    assert written["pid"] != os.getpid()
    assert region_of("self", jobs.address(result)).inode == written["inode"]


def test_an_output_lies_where_its_worker_wrote_it(engine: TheusEngine, gate: Gate) -> None:
    """For the one that made it, for the host, and for whoever reads it later."""
    length = MIB // 4
    result = engine.run(jobs.heavy_output_and_tell, length, gate.reports)
    (written,) = gate.arrived(1)
    places = [("self", result), ("self", engine.heavy["made"])]
    inodes = [region_of(pid, jobs.address(array)).inode for pid, array in places]
    assert inodes == [written["inode"]] * len(places)
    readers = [
        engine.submit(jobs.read_and_wait, "made", reports=gate.reports, gate=gate.path)
        for _ in range(2)
    ]
    _, *seen = gate.arrived(3)
    assert len({report["pid"] for report in seen}) == 2, "one of them did not make it"
    for report in seen:
        assert report["checksum"] == checksum(np.arange(length, dtype=np.float64))
        assert region_of(report["pid"], report["address"]).inode == written["inode"]
    gate.open()
    for reader in readers:
        reader.result(60)
    del result, places, engine.heavy["made"]


def test_several_results_in_one(engine: TheusEngine) -> None:
    length = MIB // 4
    result = engine.run(jobs.make_results, length)
    assert result["note"] == "small"
    expected = jobs.make_results(length)
    for name in ("up", "down"):
        np.testing.assert_array_equal(result[name], expected[name])
        region = region_of("self", jobs.address(result[name]))
        assert region.is_shared_memory
        assert region.amounts["Anonymous"] == 0
    view = result["down"][::1000]
    del result
    np.testing.assert_array_equal(view, expected["down"][::1000])


def test_a_slice_from_before_publish_reaches_nobody(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("frozen", 1000)
    array[:] = 1.0
    subview = array[10:20]
    plain = np.asarray(array)[30:40]
    array.publish()
    early = engine.heavy["frozen"]
    with pytest.raises(ValueError, match="frozen"):
        subview[:] = 2.0
    plain[:] = 3.0
    assert plain[0] == 3.0, "the view is valid, and private"
    for reader in (early, engine.heavy["frozen"], engine.state.heavy["frozen"]):
        assert reader.min() == reader.max() == 1.0
    assert engine.run(jobs.peek, "frozen") == [1.0] * 1000
    del array, subview, plain, early, reader, engine.heavy["frozen"]


def test_a_gigabyte_is_there_once(gate: Gate) -> None:
    workers, length = 4, 1 << 27
    others = set(descendants(os.getpid()))
    with TheusEngine(workers=workers) as engine:
        engine.heavy.put("small", numbers(10))
        assert len(list(engine.map(jobs.read_all_of_small, range(64)))) == 64
        family = [os.getpid(), *set(descendants(os.getpid())) - others]
        assert len(family) == workers + 2, "the host, the zygote and the workers"
        before = sum(map(proportional_size, family))

        array = engine.heavy.alloc("gigabyte", length)
        array[:] = 1.5
        array.publish()
        tasks = [
            engine.submit(jobs.read_and_wait, "gigabyte", reports=gate.reports, gate=gate.path)
            for _ in range(workers)
        ]
        seen = gate.arrived(workers)
        assert len({report["pid"] for report in seen}) == workers
        assert len({report["checksum"] for report in seen}) == 1
        after = sum(map(proportional_size, family))
        for report in seen:
            region = region_of(report["pid"], report["address"])
            assert_shared_and_untouched(region, array.nbytes)
        gate.open()
        for task in tasks:
            task.result(60)
        assert after - before <= array.nbytes + workers * 30 * 10**6
        assert after - before > 0.99 * array.nbytes, "the account missed the array"
