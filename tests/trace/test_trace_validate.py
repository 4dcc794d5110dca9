"""Traces whose parts do not fit together: every problem, word for word, and all of them at once."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_examples import changed, int8_builder, message, pack, small_builder, unpack

from accelsim.errors import TraceError
from accelsim.trace.reader import load_trace


def meta_set(*keys, value):
    """Return a change that sets one place of the metadata."""

    def change(meta, arrays):
        place = meta
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def array_set(name, value):
    def change(meta, arrays):
        if value is None:
            del arrays[name]
        else:
            arrays[name] = np.asarray(value)

    return change


CONV, FC = ("layers", 0), ("layers", 1)
PROBLEMS = [
    # metadata that is not of the schema
    (
        meta_set("schema", value="other"),
        "meta: schema is 'other', but must be 'accelsim-trace': this is not an accelsim trace",
    ),
    (
        meta_set("version", value=2),
        "meta: version 2 is newer than this accelsim reads (1); update accelsim, or save it anew",
    ),
    (meta_set("version", value="1"), "meta: version: found '1', use 1"),
    (meta_set("name", value=""), "meta: name: found '', needs at least 1 character(s)"),
    (meta_set("name", value=None), "meta: name: found nothing, must be a string"),
    (meta_set("layers", value=[]), "meta: layers: found a list of 0, needs at least 1 of them"),
    (meta_set(*CONV, "strde", value=1), "meta: layers[0].strde: unknown key; did you mean 'stride'?"),
    (meta_set(*CONV, "stride", value=[0, 1]), "meta: layers[0].stride[0]: found 0, must be at least 1"),
    (meta_set(*CONV, "stride", value=[1, 1.5]), "meta: layers[0].stride[1]: found 1.5, must be a whole number"),
    (meta_set(*CONV, "stride", value=[1, 2, 3]), "meta: layers[0].stride: found a list of 3, takes 2 of them"),
    (meta_set(*CONV, "stride", value=["1", 1]), "meta: layers[0].stride[0]: found '1', must be a whole number"),
    (
        meta_set(*CONV, "clamp", value={"low": 1, "hgh": 2}),
        "meta: layers[0].clamp.hgh: unknown key; did you mean 'high'?",
    ),
    (meta_set(*CONV, "stride", value=[1]), "meta: layers[0].stride[1]: required key is missing"),
    (meta_set("name", value="x" * 300), "meta: name: found 300 characters, takes at most 200"),
    (meta_set("tensors", value=[]), "meta: tensors: found a list of 0, must be an object"),
    (meta_set(*CONV, value=7), "meta: layers[0]: found 7, must be an object"),
    (meta_set(*CONV, "stride", value=2), "meta: layers[0].stride: found 2, must be a list"),
    (
        meta_set(*CONV, "op", value="conv"),
        "meta: layers[0]: op: 'conv' is not one of conv2d, linear, matmul; did you mean 'conv2d'?",
    ),
    (
        meta_set(*CONV, "activation", value="gelu"),
        "meta: layers[0].activation: found 'gelu', use 'none', 'relu', 'relu6', 'clamp' or 'threshold'",
    ),
    (meta_set(*CONV, "clamp", value={"low": 1, "hgh": 2}), "meta: layers[0].clamp.high: required key is missing"),
    (meta_set("tensors", "x", "shape", value=[2, 0, 4, 3]), "meta: tensors.x.shape[1]: found 0, must be at least 1"),
    (
        meta_set("tensors", "x", "chanel_axis", value=3),
        "meta: tensors.x.chanel_axis: unknown key; did you mean 'channel_axis'?",
    ),
    (
        meta_set("tensors", "..", value={"format": "int8", "dims": ["a"], "shape": [1]}),
        "meta: tensors...: '..' is not a name; use 1 to 200 letters, digits, '_', '-' or '.', the first a letter, a "
        "digit or '_'",
    ),
    # tensors
    (
        meta_set("tensors", "x", "dims", value=["batch", "height", "width"]),
        "tensor 'x': 3 dims ('batch', 'height', 'width') name the 4 sizes (2, 5, 4, 3)",
    ),
    (
        meta_set("tensors", "x", "dims", value=["a", "b", "a", "c"]),
        "tensor 'x': dims ('a', 'b', 'a', 'c') name two dimensions alike",
    ),
    (
        meta_set("tensors", "conv.weight", "channel_axis", value=4),
        "tensor 'conv.weight': channel_axis=4 is not an axis of 4 dimensions; use 0..3",
    ),
    (meta_set("tensors", "x", "shape", value=[]), "tensor 'x': shape is empty; a tensor has at least one dimension"),
    (meta_set("tensors", "x", "block_axis", value=3), "tensor 'x': block_axis=3, but uint8 has no blocks"),
    (
        meta_set("tensors", "fc.weight", "block_axis", value=None),
        "tensor 'fc.weight': vsq_int4_v16_s4 has blocks; say along which axis (block_axis)",
    ),
    (
        meta_set("tensors", "fc.weight", "block_axis", value=0),
        "tensor 'fc.weight': blocks and per-channel scales both run along axis 0; use another channel_axis",
    ),
    # the graph
    (meta_set(*FC, "name", value="conv"), "layer 'conv': another layer has this name"),
    (meta_set(*FC, "output", value="conv.out"), "layer 'fc': output 'conv.out' belongs to layer 'conv'"),
    (meta_set("inputs", value=["x", "x"]), "inputs: 'x' occurs 2 times"),
    (meta_set("inputs", value=["y"]), "inputs: unknown tensor 'y'"),
    (meta_set("inputs", value=["x", "conv.out"]), "inputs: 'conv.out' is computed by layer 'conv'"),
    (meta_set("outputs", value=[]), "outputs: is empty; name at least one tensor that a layer computes"),
    (meta_set("outputs", value=["fc.outt"]), "outputs: no layer computes 'fc.outt'; did you mean 'fc.out'?"),
    (
        meta_set(*FC, "input", value="conv.oot"),
        "layer 'fc': input: unknown tensor 'conv.oot'; did you mean 'conv.out'?",
    ),
    (meta_set(*FC, "weight", value="conv.out"), "layer 'fc': weight 'conv.out' is computed by 'conv'; store it"),
    (
        meta_set("inputs", value=["x", "fc.weight"]),
        "layer 'fc': weight 'fc.weight' is listed in inputs; list activations there only",
    ),
    (meta_set("inputs", value=[]), "layer 'conv': input 'x' is neither listed in inputs nor computed"),
    (
        lambda meta, arrays: meta["layers"].reverse(),
        "layer 'fc': input 'conv.out' is used before layer 'conv' computes it; list the layers in the order of "
        "computation",
    ),
    (
        meta_set("tensors", "spare", value={"format": "int8", "dims": ["a"], "shape": [1]}),
        "tensor 'spare': no layer uses it",
    ),
    # shapes
    (
        meta_set(*CONV, "stride", value=[2, 1]),
        "layer 'conv': output 'conv.out' has shape (2, 5, 4, 16), but the layer makes (2, 3, 4, 16)",
    ),
    (
        meta_set(*CONV, "dilation", value=[4, 1]),
        "layer 'conv': a kernel of height 3 with dilation 4 does not fit the input's 5 with padding (1, 1)",
    ),
    (meta_set(*CONV, "groups", value=2), "layer 'conv': groups=2 does not divide the input's 3 channels"),
    (meta_set(*CONV, "groups", value=3), "layer 'conv': groups=3 does not divide the weight's 16 output channels"),
    (
        meta_set(*FC, "flatten", value=False),
        "layer 'fc': weight takes 320 inputs, but the input (2, 5, 4, 16) has 16 (the last axis); "
        "flatten=true would reduce all axes but the first",
    ),
    (
        lambda meta, arrays: (
            meta["layers"][0].update(padding=[[65536, 65535], [65536, 65535]]),
            meta["tensors"]["conv.out"].update(shape=[2, 131074, 131073, 16]),
        ),
        "layer 'conv': output of shape (2, 131074, 131073, 16) needs 2199073587456 bytes, more than the limit of "
        "4294967296 bytes an array",
    ),
    # operands
    (
        lambda meta, arrays: (
            meta["tensors"]["x"].update(channel_axis=3),
            arrays.update({"tensors/x/scale": np.ones(3), "tensors/x/zero_point": np.zeros(3, int)}),
        ),
        "layer 'conv': input 'x' has per-channel scales (channel_axis=3), which cannot leave the sum over channels; "
        "use one scale",
    ),
    (
        lambda meta, arrays: (
            meta["tensors"]["conv.weight"].update(channel_axis=3),
            arrays.update({"tensors/conv.weight/scale": np.ones(3)}),
        ),
        "layer 'conv': weight 'conv.weight' has scales along axis 3, but only axis 0 (output channels) can have them",
    ),
    (
        meta_set("tensors", "x", "format", value="int32"),
        "layer 'conv': input 'x' holds raw accumulators (int32), which do not enter multipliers; "
        "requantize it (set rounding) in the layer before",
    ),
    # outputs
    (
        meta_set("tensors", "fc.out", "format", value="int8"),
        "layer 'fc': rounding is null, so raw accumulators leave, but output 'fc.out' is int8; "
        "use int32 (int17..int64), or name a rounding rule",
    ),
    (
        meta_set("tensors", "conv.out", "block_axis", value=2),
        "layer 'conv': output 'conv.out' has blocks along axis 2; the PPU makes them along the last axis (3)",
    ),
    (
        meta_set(*FC, "activation", value="relu"),
        "layer 'fc': activation 'relu' needs a requantized output, but rounding is null",
    ),
    (
        meta_set(*CONV, "activation", value="clamp"),
        "layer 'conv': activation 'clamp' needs its bounds (clamp: low, high)",
    ),
    (
        meta_set(*CONV, "clamp", value={"low": 0, "high": 1}),
        "layer 'conv': clamp is given, but activation is 'relu'; use 'clamp'",
    ),
    # arrays
    (
        array_set("tensors/x/codes", None),
        "array 'tensors/x/codes' is missing: tensor 'x' is stored, no layer computes it",
    ),
    (array_set("tensors/x/scale", None), "array 'tensors/x/scale' is missing: scale of tensor 'x'"),
    (
        array_set("tensors/fc.weight/block_scales", None),
        "array 'tensors/fc.weight/block_scales' is missing: one scale for each 16 elements of tensor 'fc.weight'",
    ),
    (
        array_set("tensors/conv.out/expected_block_scales", None),
        "array 'tensors/conv.out/expected_block_scales' is missing: expected codes and block scales go together",
    ),
    (
        array_set("tensors/conv.out/expected", None),
        "array 'tensors/conv.out/expected' is missing: expected codes and block scales go together",
    ),
    (
        array_set("tensors/x/codes", np.zeros((2, 5, 4))),
        [
            "array 'tensors/x/codes' has dtype float64, but must hold integers (tensor 'x' is stored, no layer "
            "computes it)",
            "array 'tensors/x/codes' has shape (2, 5, 4), but must have (2, 5, 4, 3) (tensor 'x' is stored, no layer "
            "computes it)",
        ],
    ),
    (
        array_set("tensors/conv.weight/scale", np.ones(15)),
        "array 'tensors/conv.weight/scale' has shape (15,), but must have (16,) or () (scale of tensor 'conv.weight')",
    ),
    (
        array_set("layers/fc/bias", np.zeros(9, int)),
        "array 'layers/fc/bias' has shape (9,), but must have (10,) (bias of layer 'fc', whose operands are integers)",
    ),
    (
        array_set("layers/fc/bais", np.zeros(10, int)),
        "array 'layers/fc/bais' is unknown; did you mean 'layers/fc/bias'?",
    ),
    (
        array_set("tensors/conv.out/codes", np.zeros((2, 5, 4, 16), int)),
        "array 'tensors/conv.out/codes' is unknown; did you mean 'tensors/conv.weight/codes'?",
    ),
    (
        array_set("labels", [1, 2, 3]),
        "array 'labels' has shape (3,), but must have (2,) (the class of each input of the batch)",
    ),
]


@pytest.mark.parametrize(("change", "expected"), PROBLEMS, ids=range(len(PROBLEMS)))
def test_problem_is_said(tmp_path, change, expected):
    text = changed(tmp_path, change)
    assert text is not None, "the change went unnoticed"
    lines = [line.strip() for line in text.splitlines()]
    for sentence in [expected] if isinstance(expected, str) else expected:
        assert sentence in lines


FACTORS = [
    (
        lambda meta, arrays: arrays.pop("layers/fc/scale"),
        "layer 'fc': rounding 'double_half_up_then_away' needs requantization factors: layers/fc/scale, "
        "or layers/fc/multiplier and shift",
    ),
    (array_set("layers/fc/shift", 3), "layer 'fc': multiplier and shift go together; multiplier is missing"),
    (
        lambda meta, arrays: arrays.update({"layers/fc/shift": np.array(3), "layers/fc/multiplier": np.array(3)}),
        "layer 'fc': has a scale as well as multiplier and shift; store one of the two",
    ),
    (
        lambda meta, arrays: (
            meta["layers"][0].update(rounding="float32_half_even"),
            arrays.pop("layers/fc/scale"),
            arrays.update({"layers/fc/shift": np.array(3), "layers/fc/multiplier": np.array(3)}),
        ),
        "layer 'fc': rounding 'float32_half_even' multiplies by a float32; store scale, not multiplier and shift",
    ),
    (
        lambda meta, arrays: (meta["layers"][0].update(rounding="float32_half_even"), arrays.pop("layers/fc/scale")),
        "layer 'fc': rounding 'float32_half_even' needs requantization factors: layers/fc/scale",
    ),
    (
        meta_set("layers", 0, "rounding", value="half_upp"),
        "layer 'fc': rounding 'half_upp' is not a rule; did you mean 'half_up'? Use one of double_half_up_then_away, "
        "double_half_up, half_up, half_up_int16_multiplier, float32_half_even, float64_half_away, dyadic_half_even, "
        "half_away_17bit, truncate",
    ),
    (
        meta_set("tensors", "fc.out", "format", value="int32"),
        "layer 'fc': rounding='double_half_up_then_away' requantizes, but output 'fc.out' is int32, which holds raw "
        "accumulators; use an operand format, or rounding null",
    ),
    (
        lambda meta, arrays: meta["layers"][0].update(activation="clamp", clamp={"low": -129, "high": 3}),
        "layer 'fc': clamp [-129, 3] is not a range inside int8's [-128, 127]",
    ),
    (
        lambda meta, arrays: (
            meta["tensors"]["fc.out"].update(channel_axis=1),
            arrays.update({"tensors/fc.out/zero_point": np.array(0)}),
        ),
        "layer 'fc': output 'fc.out' has scales along axis 1; only raw accumulators (rounding null) have per-channel "
        "scales, along the last axis (1)",
    ),
]


@pytest.mark.parametrize(("change", "expected"), FACTORS, ids=range(len(FACTORS)))
def test_requantization_problem_is_said(tmp_path, change, expected):
    assert changed(tmp_path, change, int8_builder) == expected


VALUES = [
    (
        "tensors/x/codes",
        np.full((2, 3), 300),
        "tensor 'x': code 300 at index (0, 0) is outside int8's range [-128, 127]",
    ),
    ("tensors/x/scale", np.array(0.0), "tensor 'x': scale is 0.0; scales are finite and greater than 0"),
    ("tensors/fc.out/scale", np.array(np.nan), "tensor 'fc.out': scale is nan; scales are finite and greater than 0"),
    ("tensors/fc.out/zero_point", np.array(200), "tensor 'fc.out': zero_point 200 is outside int8's range [-128, 127]"),
    (
        "tensors/fc.out/expected",
        np.full((2, 4), -129),
        "tensor 'fc.out': code -129 at index (0, 0) is outside int8's range",
    ),
    (
        "tensors/fc.out/reference",
        np.array([[1, np.inf, 2, 3], [0, 0, np.nan, 0]]),
        "array 'tensors/fc.out/reference' holds 2 values that are NaN or infinite; all must be finite",
    ),
    ("layers/fc/scale", np.array([1, 1, -1, 1.0]), "array 'layers/fc/scale' holds -1.0; scales are greater than 0"),
    (
        "layers/fc/bias",
        np.full(4, 2**63, np.uint64),
        "array 'layers/fc/bias' holds 9223372036854775808, which does not fit int64",
    ),
    ("labels", np.array([3, -1]), "array 'labels' holds -1; classes count from 0"),
]


@pytest.mark.parametrize(("name", "values", "expected"), VALUES, ids=[name for name, _, _ in VALUES])
def test_values_are_checked_when_they_are_read(tmp_path, name, values, expected):
    meta, arrays = unpack(int8_builder().save(tmp_path / "good.npz"))
    path = pack(tmp_path / "changed.npz", meta, arrays | {name: values})
    trace = load_trace(path)
    with pytest.raises(TraceError) as caught:
        trace.check_arrays()
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_shift_beyond_reason(tmp_path):
    meta, arrays = unpack(int8_builder().save(tmp_path / "good.npz"))
    del arrays["layers/fc/scale"]
    arrays |= {"layers/fc/multiplier": np.array(5), "layers/fc/shift": np.array(-(2**63))}
    path = pack(tmp_path / "changed.npz", meta, arrays)
    with pytest.raises(TraceError) as caught:
        load_trace(path).requantization("fc")
    expected = "array 'layers/fc/shift' holds -9223372036854775808; shifts lie in [-256, 256]"
    assert str(caught.value) == f"{path}: {expected}"


def test_an_unknown_format_says_what_is_known(tmp_path):
    text = changed(tmp_path, meta_set("tensors", "x", "format", value="int8x"))
    assert "tensor 'x': unknown number format 'int8x'; did you mean 'int8'?" in text
    assert "int2..int16" in text


def test_all_problems_at_once(tmp_path):
    def change(meta, arrays):
        meta["layers"][0]["stride"] = [2, 2]
        meta["outputs"] = ["y"]
        arrays["labels"] = np.zeros(2)

    assert changed(tmp_path, change).splitlines() == [
        "3 problems",
        "  outputs: no layer computes 'y'",
        "  layer 'conv': output 'conv.out' has shape (2, 5, 4, 16), but the layer makes (2, 3, 2, 16)",
        "  array 'labels' has dtype float64, but must hold integers (the class of each input of the batch)",
    ]


def test_all_values_at_once(tmp_path):
    meta, arrays = unpack(int8_builder().save(tmp_path / "good.npz"))
    arrays |= {"labels": np.array([-1, 0]), "tensors/x/scale": np.array(-1.0)}
    path = pack(tmp_path / "changed.npz", meta, arrays)
    with pytest.raises(TraceError) as caught:
        load_trace(path).check_arrays()
    assert str(caught.value).splitlines() == [
        f"{path}: 2 problems",
        "  tensor 'x': scale is -1.0; scales are finite and greater than 0",
        "  array 'labels' holds -1; classes count from 0",
    ]


def test_a_flood_of_problems_is_cut(tmp_path):
    def change(meta, arrays):
        arrays.update({f"spare{i}": np.zeros(1) for i in range(80)})

    lines = changed(tmp_path, change).splitlines()
    assert lines[0] == "80 problems"
    assert len(lines) == 52
    assert lines[-1] == "  and 30 more"


TEXTS = {
    b"{": "meta: is not UTF-8 JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    b"\xff": "meta: is not UTF-8 JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    b"[1]": "meta: is a list of 1, but must be a JSON object (see docs/trace.md)",
    b"{}": "meta: schema is nothing, but must be 'accelsim-trace': this is not an accelsim trace",
    b'{"schema": "accelsim-trace", "schema": 1}': "meta: key 'schema' occurs twice in one object",
    b'{"a": NaN}': "meta: is not UTF-8 JSON: NaN is not JSON",
    b"[" * 100_000: "meta: is not UTF-8 JSON: maximum recursion depth exceeded while decoding a JSON array",
}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_metadata_that_is_not_json_of_the_schema(tmp_path, text):
    assert message(pack(tmp_path / "bad.npz", text, {})).startswith(TEXTS[text])


def test_metadata_must_be_bytes(tmp_path):
    np.savez(tmp_path / "bad.npz", meta=np.zeros(3))
    expected = "meta: is float64 of shape (3,), but must be a row of uint8 (the bytes of UTF-8 JSON)"
    assert message(tmp_path / "bad.npz") == expected


# -- random inconsistency: a TraceError or a trace that checks, never anything else


def _places(node, path=()):
    """Return the path of every node of a JSON value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 20), st.sampled_from([2**31, 2**63, 10**400, -1.5]), st.text(max_size=3),
    st.sampled_from(["x", "conv.out", "fc.weight", "int4", "int32", "vsq4", "relu", "clamp", "linear", "matmul"]),
    st.lists(st.integers(-1, 20), max_size=4), st.just({}),
)  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("junk")
    return *unpack(small_builder().save(folder / "good.npz")), folder / "junk.npz"


@settings(max_examples=300)
@given(data=st.data())
def test_junk_in_the_metadata_is_a_trace_error_or_fits(unpacked, data):
    meta, arrays, path = copy.deepcopy(unpacked[0]), dict(unpacked[1]), unpacked[2]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([place for place in _places(meta) if place]))
        node = meta
        for key in place[:-1]:
            node = node[key]
        if data.draw(st.booleans()) and isinstance(node, dict):
            del node[place[-1]]
        else:
            node[place[-1]] = data.draw(JUNK)
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), max_size=2)):
        arrays[name] = data.draw(st.sampled_from([np.zeros(()), np.zeros((1, 2), int), np.arange(16), np.full(10, -5)]))
    text = message(pack(path, meta, arrays), read=True)
    if text is not None:
        assert "pydantic" not in text
        assert "[type=" not in text
