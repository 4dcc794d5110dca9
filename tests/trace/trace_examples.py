"""Small traces that several tests share: built, unpacked, changed and packed again."""

import io
import json
import zipfile

import numpy as np
from hypothesis import strategies as st

from accelsim import formats
from accelsim.errors import TraceError
from accelsim.trace.builder import TraceBuilder
from accelsim.trace.reader import load_trace

INT8, UINT8 = formats.get("int8"), formats.get("uint8")


def small_builder(seed=0):
    """Conv (VSQ out), linear (flattened, raw accumulators out): every kind of array occurs."""
    rng = np.random.default_rng(seed)
    net = TraceBuilder("small", "two layers")
    x = net.input("x", UINT8.quantize(rng.normal(size=(2, 5, 4, 3)), asymmetric=True))
    conv = net.conv2d(
        "conv",
        x,
        INT8.quantize(rng.normal(size=(16, 3, 3, 3)), axis=0),
        bias=rng.normal(size=16),
        output="uvsq4",
        scale=0.05,
        padding="same",
        activation="relu",
        expected=np.zeros((2, 5, 4, 16), int),
        expected_block_scales=np.ones((2, 5, 4, 1), int),
        reference=rng.normal(size=(2, 5, 4, 16)),
    )
    weight = formats.get("vsq4").quantize(rng.normal(size=(10, 320)), channel_axis=0)
    net.linear("fc", conv, weight, flatten=True, rounding=None, bias=np.arange(10))
    net.labels([3, 9])
    return net


def int8_builder():
    """One linear layer of int8: the smallest trace that requantizes."""
    net = TraceBuilder("int8")
    x = net.input("x", formats.make_qtensor([[1, -2, 3], [4, 5, -6]], INT8, 0.5))
    weight = formats.make_qtensor(
        [[1, 2, 3], [-4, 5, 6], [7, 8, 9], [1, 0, 1]], INT8, [0.1, 0.2, 0.3, 0.4], channel_axis=0
    )
    net.linear("fc", x, weight, bias=[1, 2, 3, 4], output="int8", scale=0.25, zero_point=-3)
    return net


def unpack(path):
    """Return (metadata as plain JSON, {name: array}) of a trace file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(bytes(arrays.pop("meta"))), arrays


def pack(path, meta, arrays):
    """Write a trace without any of the package's help or checks."""
    text = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    np.savez(path, meta=np.frombuffer(text, np.uint8), **arrays)
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def repack(path, target, *, replace=None, add=None, compression=zipfile.ZIP_STORED, reverse=False):
    """Copy a zip entry by entry. replace, add : {entry name: bytes}."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in reversed(old.infolist()) if reverse else old.infolist():
            new.writestr(info.filename, (replace or {}).get(info.filename, old.read(info)))
        for name, data in (add or {}).items():
            new.writestr(name, data)
    return target


def message(path, read=False):
    """Return what load_trace says about a file, without the path in front; None if all is well.

    read : describe the layers and read every array, too. Whatever the file holds, the error is a TraceError that
        begins with the path.
    """
    try:
        trace = load_trace(path)
        if read:
            assert trace.describe()
            assert len(trace.digest) == 16
            trace.check_arrays()
    except TraceError as error:
        text = str(error)
    else:
        return None
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def changed(tmp_path, change, builder=small_builder):
    """Save an example, let `change(meta, arrays)` spoil it, pack it again, and return what load_trace says."""
    meta, arrays = unpack(builder().save(tmp_path / "good.npz"))
    change(meta, arrays)
    return message(pack(tmp_path / "changed.npz", meta, arrays))


@st.composite
def builders(draw):
    """Random small graphs of all operators: a chain of convolutions, then linear layers or a matrix product."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    net = TraceBuilder(draw(st.text(min_size=1, max_size=20)), draw(st.text(max_size=20)))
    batch, height, width, channels = (draw(st.integers(1, 5)) for _ in range(4))
    blocks = draw(st.booleans())
    x = net.input("x", _activations(draw, rng, (batch, height, width, channels), blocks))
    for i in range(draw(st.integers(0, 2))):
        kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        out = draw(st.integers(1, 5))
        x = net.conv2d(
            f"conv{i}",
            x,
            _weights(draw, rng, (out, *kernel, channels), blocks),
            padding=draw(st.sampled_from(["same", 2, (2, 3), ((2, 2), (2, 4))])),
            stride=draw(st.integers(1, 3)),
            **_finish(draw, rng, out, blocks),
        )
        channels = out
    kind = draw(st.sampled_from(["linear", "matmul", "raw"]))
    if kind == "matmul":
        shape = _shape(net, x)
        other = net.input("other", _activations(draw, rng, (*shape[:-2], 3, shape[-1]), blocks))
        net.matmul("mm", x, other, transpose_other=True, **_finish(draw, rng, 3, draw(st.booleans())))
    elif kind == "linear":
        net.linear("fc", x, _weights(draw, rng, (4, channels), blocks), **_finish(draw, rng, 4, draw(st.booleans())))
    else:
        net.linear("fc", x, _weights(draw, rng, (4, channels), blocks), rounding=None)
    if draw(st.booleans()):
        net.labels(rng.integers(0, 10, batch))
    return net


def _shape(net, tensor):
    return net._assembly.tensors[tensor].shape


def _activations(draw, rng, shape, blocks):
    name = draw(st.sampled_from(["vsq_int4_v2_s4"] if blocks else ["int8", "uint8", "uint4", "int16"]))
    asymmetric = {"asymmetric": True} if "vsq" not in name and draw(st.booleans()) else {}
    return formats.get(name).quantize(rng.normal(size=shape), **asymmetric)


def _weights(draw, rng, shape, blocks):
    name = draw(st.sampled_from(["vsq_int4_v2_s6", "vsq_int8_v2_s4"] if blocks else ["int8", "int4n", "int2"]))
    return formats.get(name).quantize(rng.normal(size=shape), channel_axis=draw(st.sampled_from([None, 0])))


def _finish(draw, rng, out, blocks):
    name = draw(st.sampled_from(["vsq_uint8_v2_s3"] if blocks else ["int8", "uint8", "uint4"]))
    activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    options = {"output": name, "scale": draw(st.floats(1e-3, 1e3)), "activation": activation}
    if draw(st.booleans()):
        options["bias"] = rng.normal(size=out) if draw(st.booleans()) else rng.integers(-(2**40), 2**40, out)
    if draw(st.booleans()):
        options |= {"multiplier": rng.integers(1, 2**31, out), "shift": rng.integers(1, 40, out)}
    return options
