"""Files that are not traces, or no longer: each gets one clear message, and nothing is unpickled or overrun."""

import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trace_examples import INT8, int8_builder, message, npy, pack, repack, small_builder, unpack

from accelsim.errors import TraceError
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import load_trace


@pytest.fixture
def good(tmp_path):
    return small_builder().save(tmp_path / "good.npz")


# -- not a trace at all


def test_missing_file(tmp_path):
    assert message(tmp_path / "no.npz") == "no such file"


def test_folder(tmp_path):
    assert message(tmp_path) == "is a folder; a trace is one .npz file"


def test_empty_file(tmp_path):
    path = tmp_path / "empty.npz"
    path.touch()
    assert message(path) == "is empty (0 bytes)"


def test_pipe_is_refused_instead_of_waited_for(tmp_path):
    path = tmp_path / "pipe.npz"
    os.mkfifo(path)
    assert message(path) == "is not a regular file; a trace is one .npz file"


def test_text_file(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("hello, world")
    assert message(path) == "is not a .npz (zip) file; it begins with b'hello, w'"


def test_single_array(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert message(tmp_path / "one.npy") == "is a single .npy array; a trace is a .npz of many (see docs/trace.md)"


def test_npz_of_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    expected = "entry 'meta.npy' is missing; this .npz is not an accelsim trace (see docs/trace.md)"
    assert message(tmp_path / "other.npz") == expected


# -- damage


def test_truncated_file(good):
    good.write_bytes(good.read_bytes()[:-30])
    assert message(good) == "is truncated: the zip directory, which ends the file, is missing"


def test_damaged_directory(good):
    data = bytearray(good.read_bytes())
    data[data.index(b"PK\x01\x02")] ^= 0xFF
    good.write_bytes(data)
    assert message(good) == "the zip directory is damaged: Bad magic number for central directory"


def _body_range(path, entry):
    """Return where an entry's (packed) bytes lie in the file."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(entry)
    data = path.read_bytes()
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    start = info.header_offset + 30 + name + extra
    return start, start + info.compress_size


def test_a_damaged_body_is_found_when_it_is_read_and_named(tmp_path):
    net = TraceBuilder("large")
    x = net.input("x", INT8.quantize(np.arange(6000.0).reshape(2, 3000)))
    net.linear("fc", x, INT8.quantize(np.ones((4, 3000))), rounding=None)
    path = repack(net.save(tmp_path / "good.npz"), tmp_path / "stored.npz")
    data = bytearray(path.read_bytes())
    _, end = _body_range(path, "tensors/x/codes.npy")
    data[end - 1] ^= 1
    path.write_bytes(data)
    trace = load_trace(path)  # opening reads no bodies
    assert trace.describe()[0]["macs"] == 2 * 3000 * 4
    trace.tensor("fc.weight")
    expected = f"{path}: array 'tensors/x/codes' is damaged: Bad CRC-32 for file 'tensors/x/codes.npy'"
    with pytest.raises(TraceError) as caught:
        trace.tensor("x")
    assert str(caught.value) == expected
    with pytest.raises(TraceError) as caught:
        trace.check_arrays()
    assert str(caught.value) == expected


def test_damaged_metadata_body(good, tmp_path):
    path = repack(good, tmp_path / "stored.npz")
    data = bytearray(path.read_bytes())
    _, end = _body_range(path, "meta.npy")
    data[end - 1] ^= 1
    path.write_bytes(data)
    assert message(path) == "array 'meta' is damaged: Bad CRC-32 for file 'meta.npy'"


def _directory_field(path, entry, offset, code, value):
    """Overwrite a field of an entry's record in the zip directory (offsets of the zip specification, 4.3.12)."""
    data = bytearray(path.read_bytes())
    name = data.rindex(entry.encode())  # the directory ends the file
    struct.pack_into(code, data, name - 46 + offset, value)
    path.write_bytes(data)


def test_newer_zip_version(good):
    _directory_field(good, "labels.npy", 6, "<H", 99)
    assert message(good) == "the zip directory is damaged: zip file version 9.9"


def test_a_size_that_deflate_cannot_reach(good):
    with zipfile.ZipFile(good) as archive:
        packed = archive.getinfo("labels.npy").compress_size
    _directory_field(good, "labels.npy", 24, "<I", 2000 * packed)
    expected = f"entry 'labels.npy' unpacks {packed} bytes to {2000 * packed} (2000 times): a zip bomb?"
    assert message(good) == expected


def test_an_entry_that_ends_too_soon(tmp_path):
    net = TraceBuilder("large")
    x = net.input("x", INT8.quantize(np.random.default_rng(0).normal(size=(4, 3000))))
    net.linear("fc", x, INT8.quantize(np.ones((4, 3000))), rounding=None)
    path = net.save(tmp_path / "good.npz")
    _directory_field(path, "tensors/x/codes.npy", 20, "<I", 6000)  # of some 11,000 packed bytes
    trace = load_trace(path)
    with pytest.raises(
        TraceError, match=r"array 'tensors/x/codes' is damaged: (\d+ bytes are missing|Bad CRC-32 for .*)$"
    ):
        trace.tensor("x")


def test_encrypted_entry(good):
    data = bytearray(good.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    good.write_bytes(data)
    assert message(good) == "entry 'labels.npy' is encrypted; a trace holds plain arrays"


def test_other_compression(good, tmp_path):
    path = repack(good, tmp_path / "bz.npz", compression=zipfile.ZIP_BZIP2)
    lines = message(path).splitlines()
    assert lines[1] == "  entry 'labels.npy' has zip compression method 12; use 0 (stored) or 8 (deflate)"


@pytest.mark.parametrize("name", ["../x.npy", "/etc/x.npy", "tensors/../../x.npy", "a\\b.npy"])
def test_names_that_leave_the_archive(good, tmp_path, name):
    path = repack(good, tmp_path / "bad.npz", add={name: npy(np.zeros(2))})
    expected = "the name leaves the archive's folder; entries are named like 'tensors/<tensor>/codes.npy'"
    assert message(path) == f"entry {name!r}: {expected}"


def test_entry_that_is_no_array(good, tmp_path):
    assert (
        message(repack(good, tmp_path / "a.npz", add={"notes.txt": b"hi"})) == "entry 'notes.txt' is not a .npy array"
    )


def test_entry_twice(good, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = repack(good, tmp_path / "twice.npz", add={"labels.npy": npy(np.zeros(2, int))})
    assert message(path) == "entry 'labels.npy' occurs twice"


def test_zip_bomb(good, tmp_path):
    bomb = npy(np.zeros((1 << 27), np.uint8))
    path = repack(good, tmp_path / "bomb.npz", add={"bomb.npy": bomb}, compression=zipfile.ZIP_DEFLATED)
    text = message(path)
    assert text.startswith("entry 'bomb.npy' unpacks 13")
    assert text.endswith("to 134217856 (1028 times): a zip bomb?")


def test_overlapping_entries(good):
    """The directory claims that every entry is as long as the file: each alone is plausible, all of them are not."""
    data = bytearray(good.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<II", data, at + 20, len(data) - 1, len(data) - 1)
        at = data.find(b"PK\x01\x02", at + 4)
    good.write_bytes(data)
    assert "more than the file holds: they overlap" in message(good)


def test_limit_on_one_array(good):
    with pytest.raises(TraceError) as caught:
        load_trace(good, size_limit_bytes=3000)
    assert (
        "array 'tensors/fc.weight/codes' declares shape (10, 320) of int8: 3200 bytes, more than the limit of 3000"
        in (str(caught.value))
    )
    with pytest.raises(
        TraceError, match=r"array 'tensors/conv.out/reference' declares .* more than the limit of 4000 "
    ):
        load_trace(good, size_limit_bytes=4000)


# -- headers


def _header(text, version=b"\x01\x00"):
    padded = text.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(padded)) + padded


HEADERS = {
    b"not an array": (
        "has a malformed .npy header: the magic string is not correct; expected b'\\x93NUMPY', got b'not an'"
    ),
    b"": "has a malformed .npy header: EOF: reading magic string, expected 8 bytes got 0",
    _header("{'descr': '<i4', 'shape': (2,)}"): (
        "has a malformed .npy header: Header does not contain the correct keys: ['descr', 'shape']"
    ),
    _header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (2,)}"): (
        "has a malformed .npy header: descr is not a valid dtype descriptor: 'nonsense'"
    ),
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (-2,)}"): "has a malformed .npy header: shape (-2,)",
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (True, 2)}") + bytes(8): (
        "has a malformed .npy header: shape (True, 2)"
    ),
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}") + bytes(4): (
        "declares shape (2,) of int32: 8 bytes, but its entry holds 4"
    ),
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}") + bytes(9): (
        "declares shape (2,) of int32: 8 bytes, but its entry holds 9"
    ),
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (65536, 65536)}"): (
        "declares shape (65536, 65536) of int32: 17179869184 bytes, more than the limit of 4294967296 bytes an array"
    ),
    _header("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}") + bytes(16): (
        "has object dtype (pickled Python objects), which is never loaded; store plain numbers"
    ),
    _header("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}") + bytes(16): (
        "has dtype <U4; a trace holds integers and floats"
    ),
    _header("{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}", b"\x03\x00") + bytes(4): (
        "has .npy version 3.0; use 1.0 or 2.0"
    ),
}


@pytest.mark.parametrize("data", HEADERS, ids=range(len(HEADERS)))
def test_malformed_headers(good, tmp_path, data):
    path = repack(good, tmp_path / "bad.npz", replace={"labels.npy": data})
    assert message(path) == f"array 'labels' {HEADERS[data]}"


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': (",
        "{[]: 1}",
        "{1: 2, 'a': 3}",
        "(" * 3000,
        "-" * 3000 + "1",
        "{'a': \n  1\n 2}",
        "\x00",
        "1e999",
        "[" + "1," * 1500,
    ],
)
def test_headers_that_are_no_dictionary(good, tmp_path, text):
    path = repack(good, tmp_path / "bad.npz", replace={"labels.npy": _header(text)})
    assert message(path).startswith("array 'labels' has a malformed .npy header: ")


def test_a_pickle_is_never_run(good, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    trapped = npy(np.array([Trap(), Trap()], object), allow_pickle=True)
    for entry in ("labels.npy", "meta.npy"):
        path = repack(good, tmp_path / "trap.npz", replace={entry: trapped})
        name = entry.removesuffix(".npy")
        assert message(path).startswith(
            f"array {name!r} has object dtype (pickled Python objects), which is never loaded"
        )
    assert not (tmp_path / "sprung").exists()


def test_every_damaged_entry_is_reported_at_once(good, tmp_path):
    damaged = {"labels.npy": b"x", "layers/fc/bias.npy": b"y"}
    lines = message(repack(good, tmp_path / "bad.npz", replace=damaged)).splitlines()
    assert lines[0] == "2 problems"
    assert lines[1].startswith("  array 'labels' has a malformed .npy header")
    assert lines[2].startswith("  array 'layers/fc/bias' has a malformed .npy header")


# -- honest files that others write


def test_fortran_order_big_endian_and_version_2_are_read(tmp_path):
    good = int8_builder().save(tmp_path / "good.npz")
    _, arrays = unpack(good)
    replace = {
        "tensors/x/codes.npy": npy(np.asfortranarray(arrays["tensors/x/codes"])),
        "tensors/fc.weight/codes.npy": npy(arrays["tensors/fc.weight/codes"].astype(">i2"), version=(2, 0)),
    }
    trace = load_trace(repack(good, tmp_path / "odd.npz", replace=replace))
    np.testing.assert_array_equal(trace.tensor("x").codes, [[1, -2, 3], [4, 5, -6]])
    np.testing.assert_array_equal(trace.tensor("fc.weight").codes, [[1, 2, 3], [-4, 5, 6], [7, 8, 9], [1, 0, 1]])
    trace.check_arrays()


def test_plain_savez_makes_a_trace_with_the_same_digest(good, tmp_path):
    meta_and_arrays = unpack(good)
    with np.load(good) as file:
        text = bytes(file["meta"])
    again = pack(tmp_path / "again.npz", text, meta_and_arrays[1])
    assert load_trace(again).digest == load_trace(good).digest


# -- fuzz: `message` lets only a TraceError pass, or a trace that checks


@pytest.fixture(scope="module")
def packed_and_stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    packed = int8_builder().save(folder / "packed.npz")
    return packed.read_bytes(), repack(packed, folder / "stored.npz").read_bytes(), folder / "fuzzed.npz"


flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)


@given(stored=st.booleans(), flips=flips)
def test_flipped_bytes(packed_and_stored, stored, flips):
    data = bytearray(packed_and_stored[stored])
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    packed_and_stored[2].write_bytes(data)
    message(packed_and_stored[2], read=True)


@given(stored=st.booleans(), start=st.floats(0, 1), stop=st.floats(0, 1), drop=st.booleans())
@example(stored=True, start=0.0, stop=0.999, drop=False)
def test_cut_files(packed_and_stored, stored, start, stop, drop):
    data = packed_and_stored[stored]
    a, b = sorted((int(start * len(data)), int(stop * len(data))))
    packed_and_stored[2].write_bytes(data[:a] + data[b:] if drop else data[a:b])
    message(packed_and_stored[2], read=True)


def test_single_bit_flips_of_the_directory_and_headers(packed_and_stored):
    """Where structure lies: the directory, and the first 40 bytes of each entry."""
    data = packed_and_stored[0]
    places = set(range(data.index(b"PK\x01\x02"), len(data)))
    at = data.find(b"PK\x03\x04")
    while at >= 0:
        places.update(range(at, at + 40))
        at = data.find(b"PK\x03\x04", at + 4)
    for place in sorted(places)[::5]:  # a fifth of the places, all bits
        for bit in range(8):
            spoiled = bytearray(data)
            spoiled[place] ^= 1 << bit
            packed_and_stored[2].write_bytes(spoiled)
            message(packed_and_stored[2], read=True)


@given(text=st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789eE.-ntf\\u', max_size=60).map(str.encode))
def test_any_metadata_text(packed_and_stored, text):
    pack(packed_and_stored[2], text, {"labels": np.zeros(2)})
    message(packed_and_stored[2], read=True)
