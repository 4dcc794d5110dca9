"""Built, saved, loaded: the same trace; packed in any way: the same digest; read a layer at a time."""

import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_examples import INT8, builders, int8_builder, npy, repack, small_builder, unpack

from accelsim import formats
from accelsim.errors import TraceError
from accelsim.trace import metadata
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import load_trace
from accelsim.trace.writer import save


def assert_same_tensor(a, b):
    assert (a.format, a.channel_axis, a.block_axis) == (b.format, b.channel_axis, b.block_axis)
    for part in ("codes", "scale", "zero_point", "block_scales"):
        left, right = getattr(a, part), getattr(b, part)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def assert_same_array(a, b):
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@given(builders())
def test_a_saved_trace_is_the_built_one(tmp_path_factory, net):
    path = tmp_path_factory.getbasetemp() / "roundtrip.npz"
    built = net.build()
    assert net.save(path) == path
    loaded = load_trace(path)
    assert loaded.path == path
    assert loaded.meta == built.meta
    assert loaded.digest == built.digest
    assert loaded.describe() == built.describe()
    assert loaded.weight_bytes == built.weight_bytes
    assert_same_array(loaded.labels, built.labels)
    for name in built.meta.tensors:
        if name in {layer.output for layer in built.layers}:
            continue
        assert_same_tensor(loaded.tensor(name), built.tensor(name))
    for layer in built.layers:
        assert_same_array(loaded.bias(layer), built.bias(layer.name))
        mine, theirs = loaded.requantization(layer), built.requantization(layer)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.rounding == theirs.rounding
            for part in ("scale", "multiplier", "shift"):
                assert_same_array(getattr(mine, part), getattr(theirs, part))


@given(builders())
def test_what_was_given_comes_back(net):
    """Stored codes equal those of the tensors that were passed in, not only those that were saved."""
    trace = net.build()
    layer = trace.layers[-1]
    x = np.random.default_rng(5).integers(-100, 100, trace.tensor_meta(layer.output).shape)
    if layer.rounding is None:
        assert_same_array(trace.output_tensor(layer, x).codes, x.astype(np.int32))
    assert metadata.decode(metadata.encode(trace.meta)) == trace.meta


def test_weight_bytes_are_those_of_the_tensors():
    trace = small_builder().build()
    tensors = [trace.tensor(name) for name in ("conv.weight", "fc.weight")]
    assert trace.weight_bytes == sum(-(-tensor.size_bits // 8) for tensor in tensors)


def test_codes_are_stored_in_the_narrowest_type_of_their_format(tmp_path):
    _, arrays = unpack(small_builder().save(tmp_path / "a.npz"))
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    assert dtypes["tensors/x/codes"] == "uint8"
    assert dtypes["tensors/conv.weight/codes"] == dtypes["tensors/fc.weight/codes"] == "int8"
    assert dtypes["tensors/conv.out/expected"] == "int8"  # unsigned 4 bits: 0..15
    assert load_trace(tmp_path / "a.npz").tensor("x").codes.dtype == np.int32


# -- digest


def test_digest_is_independent_of_the_packing(tmp_path):
    path = small_builder().save(tmp_path / "a.npz")
    digest = load_trace(path).digest
    assert len(digest) == 16
    for options in ({}, {"reverse": True}, {"compression": zipfile.ZIP_DEFLATED}):
        again = repack(path, tmp_path / "b.npz", **options)
        assert again.read_bytes() != path.read_bytes()
        assert load_trace(again).digest == digest


@given(which=st.integers(0, 10**6), place=st.integers(0, 10**6))
def test_digest_changes_with_every_value(tmp_path_factory, which, place):
    folder = tmp_path_factory.getbasetemp()
    path = small_builder().save(folder / "digest.npz")
    _, arrays = unpack(path)
    name = sorted(arrays)[which % len(arrays)]
    array = arrays[name].copy()
    flat, index = array.reshape(-1), place % array.size
    flat[index] = flat[index] ^ 1 if array.dtype.kind in "iu" else flat[index] + 1
    changed = repack(path, folder / "digest2.npz", replace={f"{name}.npy": npy(array)})
    assert load_trace(changed).digest != load_trace(path).digest


def test_digest_changes_with_the_metadata(tmp_path):
    a, b = small_builder(), small_builder()
    b._description += "!"
    assert a.build().digest != b.build().digest
    assert a.build().digest == small_builder().build().digest


# -- the file


def test_same_content_same_bytes(tmp_path):
    first = small_builder().save(tmp_path / "a.npz").read_bytes()
    assert small_builder().save(tmp_path / "b.npz").read_bytes() == first
    assert small_builder(seed=1).save(tmp_path / "b.npz").read_bytes() != first
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpy_reads_the_file(tmp_path):
    path = int8_builder().save(tmp_path / "a.npz")
    with np.load(path) as file:
        np.testing.assert_array_equal(file["tensors/x/codes"], [[1, -2, 3], [4, 5, -6]])
        assert bytes(file["meta"]).startswith(b'{"schema":"accelsim-trace","version":1,"name":"int8"')


def test_saving_replaces_the_file_and_a_reader_keeps_its_own(tmp_path):
    path = small_builder().save(tmp_path / "a.npz")
    trace = load_trace(path)
    codes = small_builder().build().tensor("x").codes
    small_builder(seed=1).save(path)
    np.testing.assert_array_equal(trace.tensor("x").codes, codes)
    assert load_trace(path).digest != trace.digest


def test_nothing_is_left_behind_where_writing_fails(tmp_path, monkeypatch):
    path = small_builder().save(tmp_path / "a.npz")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("accelsim.trace.writer.npy_bytes", full)
    with pytest.raises(TraceError) as caught:
        small_builder(seed=1).save(path)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert os.listdir(tmp_path) == ["a.npz"]  # noqa: PTH208
    assert path.read_bytes() == before


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("accelsim.trace.writer.npy_bytes", interrupt)
    trace = small_builder().build
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a.npz", trace().meta, {"labels": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_object_arrays_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save(tmp_path / "a.npz", small_builder().build().meta, {"labels": np.array([None])})
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_and_folder_as_file(tmp_path):
    path = tmp_path / "no" / "a.npz"
    with pytest.raises(TraceError) as caught:
        small_builder().save(path)
    assert str(caught.value) == f"{path}: the folder {str(path.parent)!r} does not exist; create it first"
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    with pytest.raises(TraceError) as caught:
        small_builder().save(folder)
    assert str(caught.value) == f"{folder}: is a folder; name a .npz file in it"


@pytest.mark.parametrize("name", ["noext", "a.zip", "a.npz.bak"])
def test_names_of_traces_end_in_npz(tmp_path, name):
    with pytest.raises(TraceError) as caught:
        small_builder().save(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: names of traces end in .npz"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "kind"), [(3, "int"), (None, "NoneType"), (b"a.npz", "bytes")])
def test_what_is_no_file_name(path, kind):
    for call in (load_trace, small_builder().save):
        with pytest.raises(TraceError) as caught:
            call(path)
        assert str(caught.value) == f"path is {kind}; pass a file name"


def test_checking_a_large_array_takes_little_more_than_its_codes(tmp_path):
    size = 1 << 20
    codes = np.resize(np.arange(-128, 128, dtype=np.int8), (1, size))
    net = TraceBuilder("large")
    x = net.input("x", formats.make_qtensor(codes, formats.get("int8")))
    net.linear("fc", x, formats.make_qtensor(codes, formats.get("int8")), rounding=None)
    trace = load_trace(net.save(tmp_path / "large.npz"))
    tracemalloc.start()
    try:
        trace.check_arrays()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 7 * size  # as stored, 1 byte a code; as int32, 4; reading takes a chunk at once


def test_saved_files_can_be_read_by_others(tmp_path):
    path = small_builder().save(tmp_path / "a.npz")
    assert path.stat().st_mode & 0o777 == 0o644


# -- laziness


def _peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_one_layer(tmp_path):
    rng = np.random.default_rng(0)
    net, layers, n = TraceBuilder("deep"), 8, 512
    x = net.input("x", INT8.quantize(rng.normal(size=(1, n))))
    for i in range(layers):
        x = net.linear(f"fc{i}", x, INT8.quantize(rng.normal(size=(n, n))), output="int8", scale=1.0)
    path = net.save(tmp_path / "deep.npz")
    weights = layers * n * n
    loaded = []
    assert _peak_bytes(lambda: loaded.append(load_trace(path))) < weights / 4
    trace = loaded[0]
    assert _peak_bytes(lambda: (trace.describe(), trace.digest, trace.weight_bytes)) < weights / 4
    one = _peak_bytes(lambda: trace.tensor("fc0.weight"))

    def all_in_turn():
        for i in range(layers):
            trace.tensor(f"fc{i}.weight")

    assert _peak_bytes(all_in_turn) < 1.5 * one
