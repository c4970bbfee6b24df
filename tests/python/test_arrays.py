"""ShmArray: what it is, what it refuses, how long its memory lives, how it is pickled."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import weakref
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest

from theus.arrays import (
    Origin,
    ShmArray,
    bytes_over,
    collecting,
    descr_of,
    dtype_of,
    freeze,
    is_shared,
    memory_of,
    over_memory,
    resolving,
)
from theus.errors import SegmentGone
from theus.mapping import Mapping, map_private, map_shared

SIZE = 1 << 16


def new_map() -> Mapping:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SIZE)
        return map_shared(fd, SIZE, writable=True)
    finally:
        os.close(fd)


def new_array(
    shape: tuple[int, ...] = (10, 20), dtype: Any = float, kind: Any = "building", **origin: Any
) -> ShmArray:
    mapping = new_map()
    dtype = np.dtype(dtype)
    known = Origin(
        **{
            "key": "X",
            "segment": 5,
            "version": 3,
            "address": mapping.address,
            "nbytes": int(np.prod(shape)) * dtype.itemsize,
            "kind": kind,
            **origin,
        }
    )
    return over_memory(
        mapping.address, dtype, shape, None, writable=True, origin=known, keep=mapping
    )


class TestSubclass:
    @pytest.mark.parametrize(
        "derive",
        [
            lambda a: a[2:5],
            lambda a: a[2],
            lambda a: a[..., None],
            lambda a: a[2:5][1:],
            lambda a: a.T,
            lambda a: a.reshape(-1),
            lambda a: a.ravel(),
            lambda a: a.view("i8"),
            lambda a: a.real,
            lambda a: a.diagonal(),
            lambda a: np.swapaxes(a, 0, 1),
            lambda a: a.astype(float, copy=False),
            lambda a: np.asanyarray(a),
        ],
    )
    def test_views_stay_shared_arrays(self, derive: Any) -> None:
        view = derive(new_array())
        assert type(view) is ShmArray
        assert is_shared(view)

    @pytest.mark.parametrize(
        "derive",
        [
            lambda a: a + 1,
            lambda a: 1 - a,
            lambda a: -a,
            lambda a: a > 0,
            lambda a: a @ a.T,
            lambda a: np.sqrt(a),
            lambda a: np.modf(a)[0],
            lambda a: a.sum(axis=0),
            lambda a: a.mean(axis=1),
            lambda a: a.cumsum(),
            lambda a: np.cumsum(a),
            lambda a: a.copy(),
            lambda a: copy.copy(a),
            lambda a: copy.deepcopy(a),
            lambda a: np.array(a),
            lambda a: a.astype("f4"),
            lambda a: a[[1, 2]],
            lambda a: a[a > 0],
            lambda a: a.take([1, 2]),
            lambda a: np.take(a, [1, 2]),
            lambda a: a.T.reshape(-1),
            lambda a: a.flatten(),
            lambda a: np.sort(a),
            lambda a: a.argsort(),
            lambda a: np.concatenate([a, a]),
            lambda a: np.zeros_like(a),
            lambda a: np.empty_like(a),
            lambda a: np.where(a > 0, a, 0),
            lambda a: np.linalg.svd(a)[1],
        ],
    )
    def test_new_data_is_plain(self, derive: Any) -> None:
        made = derive(new_array())
        assert type(made) is np.ndarray
        assert not is_shared(made)
        assert made.flags.writeable

    @pytest.mark.parametrize(
        "derive", [lambda a: a.sum(), lambda a: np.mean(a), lambda a: a[1, 2], lambda a: a.max()]
    )
    def test_scalars_are_scalars(self, derive: Any) -> None:
        assert type(derive(new_array())) is np.float64

    def test_a_ufunc_writes_into_it(self) -> None:
        array = new_array()
        assert np.add(array, 1, out=array) is array
        assert array[3, 3] == 1

    def test_structured_and_empty_and_strided_arrays(self) -> None:
        fields = np.dtype([("id", "<i4"), ("at", "<M8[ns]"), ("xy", "<f4", (2,))])
        table = new_array((7,), fields)
        table["id"] = np.arange(7)
        assert type(table["id"]) is ShmArray
        assert table[3]["id"] == 3
        assert new_array((0, 4)).sum() == 0
        mapping = new_map()
        origin = Origin(address=mapping.address)
        fortran = over_memory(
            mapping.address,
            np.dtype("f8"),
            (3, 4),
            (8, 24),
            writable=True,
            origin=origin,
            keep=mapping,
        )
        assert fortran.flags.f_contiguous


class TestReadOnly:
    @pytest.mark.parametrize(
        "write",
        [
            lambda a: a.__setitem__(0, 1),
            lambda a: a.__iadd__(1),
            lambda a: a.__imul__(2),
            lambda a: a.fill(1),
            lambda a: a.sort(),
            lambda a: a.put([0], [1]),
            lambda a: a.partition(2),
            lambda a: a.setflags(write=True),
            lambda a: a[2:4].__setitem__(0, 1),
        ],
    )
    def test_writing_names_the_key_and_the_way_out(self, write: Any) -> None:
        array = new_array()
        freeze(array)
        with pytest.raises(ValueError, match=r"heavy\['X'\] is read-only") as caught:
            write(array)
        assert "ctx.heavy.cow('X')" in str(caught.value)
        assert "engine.heavy.edit('X')" in str(caught.value)
        assert not array.any()

    def test_other_value_errors_stay_what_they_are(self) -> None:
        with pytest.raises(ValueError, match="broadcast"):
            new_array()[0] = [1, 2, 3]

    def test_numpy_refuses_to_make_it_writable_again(self) -> None:
        array = new_array()
        view = array[1:]
        freeze(array)
        for stale in (array, view, view.base, np.asarray(array)):
            with pytest.raises(ValueError, match="WRITEABLE|read-only"):
                stale.flags.writeable = True

    def test_freeze_reaches_views_taken_before(self) -> None:
        array = new_array()
        views = [array[i:] for i in range(9)] + [array.T, array[1:][2:], array.reshape(-1)]
        freeze(array[3:])  # any view of it will do
        for view in (array, *views):
            assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            np.add(views[0], 1, out=views[0])

    def test_views_are_noted_without_being_kept(self) -> None:
        array = new_array()
        kept = [array[:1] for _ in range(10)]
        for _ in range(20_000):
            array[:2]
        memory = memory_of(array)
        assert memory is not None
        assert memory._views is not None
        assert len(memory._views) < 1000
        freeze(array)
        assert not any(view.flags.writeable for view in kept)

    def test_views_noted_by_many_threads_are_all_found(self) -> None:
        array = new_array()
        kept: list[list[ShmArray]] = [[] for _ in range(4)]

        def slicing(mine: list[ShmArray]) -> None:
            for i in range(3000):
                view = array[i % 7 :]
                if i % 50 == 0:
                    mine.append(view)

        threads = [threading.Thread(target=slicing, args=(mine,)) for mine in kept]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        freeze(array)
        assert not any(view.flags.writeable for mine in kept for view in mine)


class TestLifetime:
    @pytest.mark.parametrize(
        "derive",
        [
            lambda a: a[2:],
            lambda a: np.asarray(a),
            lambda a: a.view(np.ndarray)[1:],
            lambda a: memoryview(a),
            lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
            lambda a: np.broadcast_to(a, (2, 10, 20)),
            lambda a: np.from_dlpack(np.asarray(a)),
            lambda a: a.flat,
            lambda a: pickle.PickleBuffer(a),
        ],
    )
    def test_whatever_is_derived_keeps_the_memory(self, derive: Any) -> None:
        array = new_array()
        mapping = weakref.ref(memory_of(array).keep)  # type: ignore[union-attr]
        ended: list[bool] = []
        finalizer = weakref.finalize(memory_of(array), ended.append, True)
        finalizer.atexit = False
        derived = derive(array)
        del array
        gc.collect()
        assert not ended
        assert mapping() is not None
        del derived
        gc.collect()
        assert ended
        assert mapping() is None

    def test_a_map_goes_with_its_last_array(self) -> None:
        array = new_array()
        address = memory_of(array).address  # type: ignore[union-attr]
        assert is_mapped(address)
        del array
        assert not is_mapped(address)

    def test_is_shared_takes_anything(self) -> None:
        array = new_array()
        assert is_shared(memoryview(array))
        assert is_shared(np.asarray(array)[1:])
        for other in (np.zeros(3), 5, None, "text", [array]):
            assert not is_shared(other)

    def test_private_maps_are_not_shared(self) -> None:
        array = new_array(kind="private")
        assert not is_shared(array)


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        return any(line.startswith(f"{address:x}-") for line in maps)


class Recorder:
    """A resolver that tells what it was asked."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.asked: list[tuple[Any, ...]] = []

    def resolve(self, *question: Any) -> Any:
        self.asked.append(question)
        return self.array


class TestPickle:
    def test_a_published_array_is_a_small_reference(self) -> None:
        array = new_array(kind="published")
        stream = pickle.dumps(array[2:5, ::3])
        assert len(stream) < 1000
        resolver = Recorder(array)
        with resolving(resolver):
            assert pickle.loads(stream) is array
        assert resolver.asked == [(5, 2 * 160, "<f8", (3, 7), (160, 24), "X", 3)]

    def test_views_that_run_backwards(self) -> None:
        array = new_array(kind="published")
        resolver = Recorder(array)
        with resolving(resolver):
            pickle.loads(pickle.dumps(array[::-1]))
        assert resolver.asked == [(5, 9 * 160, "<f8", (10, 20), (-160, 8), "X", 3)]

    @pytest.mark.parametrize("kind", ["building", "private", "output"])
    def test_other_memory_travels_by_value(self, kind: str) -> None:
        array = new_array(kind=kind)
        array[:] = 2.5
        loaded = pickle.loads(pickle.dumps(array))
        assert type(loaded) is np.ndarray
        assert (loaded == 2.5).all()

    def test_who_pickles_decides_and_is_told(self) -> None:
        array = new_array(kind="output")
        with collecting(lambda origin: origin.kind == "output") as arrays:
            stream = pickle.dumps([array, array[1:]])
        assert [a.shape for a in arrays] == [(10, 20), (9, 20)]
        assert len(stream) < 1000

    def test_without_an_engine_it_says_that_it_was_a_reference(self) -> None:
        stream = pickle.dumps(new_array(kind="published"))
        with pytest.raises(SegmentGone, match=r"segment 5, version 3.*numpy\.array") as caught:
            pickle.loads(stream)
        assert caught.value.segment == 5

    def test_a_reference_of_another_host_is_not_resolved(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        array = new_array(kind="published")
        stream = pickle.dumps(array)
        monkeypatch.setattr("theus.identity._token", "another host")
        with resolving(Recorder(array)), pytest.raises(SegmentGone):
            pickle.loads(stream)


class TestSharedMemoryHabits:
    def test_attaching_by_name_fails_with_a_hint(self) -> None:
        array = new_array(key="large_dataset")
        with pytest.raises(FileNotFoundError) as caught:
            SharedMemory(name=array.shm.name)
        assert "theus-use-ctx.heavy-large_dataset" in str(caught.value)

    @pytest.mark.parametrize("key", ["a/b", "x" * 1000, "tab\there", "ключ"])
    def test_any_key_gives_a_name_that_can_be_asked_for(self, key: str) -> None:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name=new_array(key=key).shm.name)

    def test_unlink_names_the_owner_and_close_does_nothing(self) -> None:
        array = new_array()
        array.shm.close()
        with pytest.raises(PermissionError, match="owned by theus"):
            array.shm.unlink()
        array[:] = 1
        assert array._shm_ref.size == array.nbytes
        assert bytes(array.shm.buf[:8]) == np.float64(1).tobytes()

    def test_buf_is_as_writable_as_the_array(self) -> None:
        array = new_array()
        array.shm.buf[0] = 1
        freeze(array)
        with pytest.raises(TypeError):
            array.shm.buf[0] = 1


def test_publish_calls_whom_the_origin_names() -> None:
    published: list[int] = []
    array = new_array(publish=lambda a: published.append(id(a)) or "state")
    assert array.publish() == "state"
    assert published == [id(array)]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [("published", "heavy.edit"), ("output", "return the array"), ("private", "heavy.put")],
)
def test_publish_says_why_not(kind: str, advice: str) -> None:
    with pytest.raises(PermissionError, match=advice):
        new_array(kind=kind).publish()


@pytest.mark.parametrize(
    "dtype",
    [
        *("<f8", ">f8", "|b1", "<i2", "<c16", "<U5", "|S3", "<M8[ns]", "<m8[s]", "|V7", "<f2"),
        np.dtype([("a", "<i4"), ("b", "<f8", (2, 3)), ("c", [("d", "|S2")])]),
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
    ],
)
def test_dtypes_survive_as_text(dtype: Any) -> None:
    dtype = np.dtype(dtype)
    assert dtype_of(descr_of(dtype)) == dtype


@pytest.mark.parametrize("dtype", [object, [("a", "i4"), ("b", object)]])
def test_object_dtypes_are_refused_with_advice(dtype: Any) -> None:
    with pytest.raises(TypeError, match="fixed-size text"):
        descr_of(np.dtype(dtype))


def test_text_that_is_no_dtype() -> None:
    with pytest.raises(TypeError):
        dtype_of("[open('x')]")


def test_a_private_map_stays_private() -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SIZE)
        os.pwrite(fd, b"original", 0)
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        mapping = map_private(reader, SIZE)
        with pytest.raises(PermissionError):
            map_shared(reader, SIZE, writable=True)
        os.close(reader)
        view = bytes_over(mapping.address, 8, writable=True, keep=mapping)
        view[:] = b"changed!"
        assert os.pread(fd, 8, 0) == b"original"
    finally:
        os.close(fd)


def test_a_writable_map_is_swapped_in_place() -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SIZE)
        mapping = map_shared(fd, SIZE, writable=True)
        view = bytes_over(mapping.address, SIZE, writable=True, keep=mapping)
        view[:4] = b"seen"
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        mapping.make_private(reader)
        os.close(reader)
        assert bytes(view[:4]) == b"seen"
        view[:4] = b"gone"
        assert os.pread(fd, 4, 0) == b"seen"
    finally:
        os.close(fd)
