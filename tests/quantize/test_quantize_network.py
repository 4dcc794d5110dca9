"""Float networks: their structure, their file, and their float values."""

import io
import json
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_networks import attention, small

from accelsim.errors import NetworkError
from accelsim.quantize.evaluate import evaluate, ordered_product
from accelsim.quantize.layers import Conv2d, Linear, Matmul
from accelsim.quantize.network import FloatLayer, FloatNetwork
from accelsim.quantize.network_file import load_network, save_network

# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", [small(description="tiny"), small("sign"), attention()], ids=["relu", "sign", "attention"]
)
def test_a_saved_network_comes_back(network, tmp_path):
    found = load_network(save_network(tmp_path / "n.npz", network))
    assert (found.name, found.description) == (network.name, network.description)
    assert [layer.meta for layer in found.layers] == [layer.meta for layer in network.layers]
    for mine, theirs in zip(network.layers, found.layers, strict=True):
        for part in ("weight", "bias"):
            before, after = getattr(mine, part), getattr(theirs, part)
            assert (before is None) == (after is None)
            if before is not None:
                assert before.dtype == after.dtype
                np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(found.inputs, network.inputs)
    np.testing.assert_array_equal(found.calibration, network.calibration)
    assert (found.labels is None) == (network.labels is None)
    assert found.labels is None or found.labels.tolist() == network.labels.tolist()


def test_equal_networks_give_equal_bytes(tmp_path):
    first, second = (save_network(tmp_path / f"{i}.npz", small()).read_bytes() for i in range(2))
    assert first == second


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, changes):
    """Replace (or with None, remove) entries of a saved network."""
    found = entries(path) | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in found.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def with_meta(path, edit):
    with np.load(path) as arrays:
        meta = json.loads(arrays["meta"].tobytes())
    edit(meta)
    return rewritten(path, {"meta.npy": npy(np.frombuffer(json.dumps(meta).encode(), np.uint8))})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input.npy": None}, ["array 'input' is missing"]),
        ({"layers/conv1/weigth.npy": npy(np.ones(3))}, ["'layers/conv1/weigth' is unknown", "did you mean"]),
        ({"layers/fc/weight.npy": npy(np.ones((5, 3)))}, ["layer 'fc'", "weight takes 3 inputs"]),
        ({"layers/fc/weight.npy": None}, ["layer 'fc'", "weight is missing"]),
        ({"layers/fc/bias.npy": npy(np.ones(4))}, ["layer 'fc'", "bias has shape (4,)", "5 output channels"]),
        ({"input.npy": npy(np.full((2, 4, 4, 1), np.nan))}, ["input: 32 of 32 values are NaN", "(0, 0, 0, 0)"]),
        ({"layers/conv2/bias.npy": npy(np.full(32, np.inf))}, ["layer 'conv2': bias: 32 of 32", "infinite"]),
        ({"calibration.npy": npy(np.ones((2, 4, 5, 1)))}, ["calibration", "only the first axis may differ"]),
        ({"labels.npy": npy(np.arange(5))}, ["labels", "one for each of the 6 inputs"]),
        ({"labels.npy": npy(np.arange(6) - 1)}, ["labels", "from 0"]),
        ({"meta.npy": None}, ["not an accelsim float network", "docs/quantize.md"]),
        ({"input.npy": npy(np.array([{}], object))}, ["pickled", "never loaded"]),
        ({"meta.npy": npy(np.frombuffer(b"{", np.uint8))}, ["meta: is not UTF-8 JSON"]),
        ({"meta.npy": npy(np.frombuffer(b"[]", np.uint8))}, ["schema is None", "not a float network"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_file_gets_one_clear_message(tmp_path, changes, words):
    path = rewritten(save_network(tmp_path / "n.npz", small()), changes)
    with pytest.raises(NetworkError) as caught:
        load_network(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda meta: meta.update(version=2), ["version is 2", "reads 1"]),
        (lambda meta: meta.update(schema="accelsim-trace"), ["'accelsim-trace'", "not a float network"]),
        (lambda meta: meta.update(layers=[]), ["layers", "at least 1"]),
        (lambda meta: meta.update(extra=1), ["extra: unknown key"]),
        (lambda meta: meta["layers"][0].update(op="conv"), ["layers[0]: op is 'conv'", "did you mean 'conv2d'?"]),
        (lambda meta: meta["layers"][1].pop("op"), ["layers[1]: op is None"]),
        (lambda meta: meta["layers"][1].update(strid=[1, 1]), ["layers[1]: strid: unknown key", "'stride'"]),
        (lambda meta: meta["layers"][1].update(stride=[0, 1]), ["layers[1]: stride[0]: found 0", "at least 1"]),
        (lambda meta: meta["layers"][1].update(stride="2"), ["layers[1]: stride", "must be"]),
        (lambda meta: meta["layers"][2].update(activation="gelu"), ["layers[2]: activation: found 'gelu'", "'sign'"]),
        (lambda meta: meta["layers"][2].update(name="a/b"), ["layers[2]: name: 'a/b' is not a name"]),
    ],
)
def test_wrong_metadata_gets_one_clear_message(tmp_path, edit, words):
    path = with_meta(save_network(tmp_path / "n.npz", small()), edit)
    with pytest.raises(NetworkError) as caught:
        load_network(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_what_is_no_network_at_all_is_named(tmp_path, project_root):
    with pytest.raises(NetworkError, match="is a folder; a float network is one"):
        load_network(tmp_path)
    with pytest.raises(NetworkError, match="no such file"):
        load_network(tmp_path / "none.npz")
    with pytest.raises(NetworkError, match="this is not a float network"):
        load_network(project_root / "traces" / "digits_cnn_int8.npz")
    whole = save_network(tmp_path / "n.npz", small()).read_bytes()
    (tmp_path / "n.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NetworkError, match="truncated"):
        load_network(tmp_path / "n.npz")


def test_a_network_is_saved_whole_or_not_at_all(tmp_path):
    with pytest.raises(NetworkError, match=r"names of float networks end in \.npz"):
        save_network(tmp_path / "n.trace", small())
    with pytest.raises(NetworkError, match="does not exist"):
        save_network(tmp_path / "none" / "n.npz", small())
    assert list(tmp_path.iterdir()) == []


# -- structure --------------------------------------------------------------------------------------------------------

ONES = np.ones((2, 2))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], ["no layers"]),
        ([FloatLayer(Linear(name="a"), ONES), FloatLayer(Linear(name="a"), ONES)], ["'a'", "has this name"]),
        ([FloatLayer(Linear(name="input"), ONES)], ["'input'", "has this name"]),
        ([FloatLayer(Linear(name="a", input="b"), ONES), FloatLayer(Linear(name="b"), ONES)], ["order of computation"]),
        ([FloatLayer(Linear(name="a", input="inptu"), ONES)], ["takes 'inptu'", "did you mean 'input'?"]),
        ([FloatLayer(Matmul(name="a", other="input"), ONES)], ["takes two activations and no weight"]),
        ([FloatLayer(Linear(name="a"), np.array([["x"]]))], ["layer 'a': weight: has dtype"]),
        ([FloatLayer(Linear(name="a"), np.zeros((0, 2)))], ["no elements"]),
        (
            [
                FloatLayer(Linear(name="a", activation="relu"), np.ones((4, 2))),
                FloatLayer(Conv2d(name="b", pad_value=1), np.ones((2, 1, 1, 4))),
            ],
            ["layer 'b'", "4 dimensions"],
        ),
    ],
)
def test_a_wrong_structure_is_refused(layers, words):
    with pytest.raises(NetworkError) as caught:
        FloatNetwork("bad", np.ones((3, 2)), layers)
    for word in ["'bad'", *words]:
        assert word in str(caught.value)


def test_only_signs_are_padded_with_ones():
    conv = FloatLayer(Conv2d(name="conv", pad_value=1), np.ones((1, 1, 1, 1)))
    with pytest.raises(NetworkError, match=r"pad_value=1 is for inputs that are signs; use 0"):
        FloatNetwork("bad", np.ones((1, 2, 2, 1)), [conv])


def test_head_takes_the_first_inputs_and_keeps_the_calibration():
    network = small()
    cut = network.head(2)
    assert (len(cut.inputs), len(cut.labels), len(cut.calibration)) == (2, 2, 9)
    np.testing.assert_array_equal(cut.inputs, network.inputs[:2])
    for count in (0, 7):
        with pytest.raises(NetworkError, match=f"batch of 6 inputs; {count} were asked for"):
            network.head(count)


# -- float values -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30), st.integers(0, 10**6))
def test_a_product_is_one_rounded_addition_after_the_other(m, n, k, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    expected = np.zeros((m, n))
    for row in range(m):
        for column in range(n):
            total = 0.0
            for a, b in zip(x[row].tolist(), w[column].tolist(), strict=True):
                total += a * b  # Python floats: two roundings, this order
            expected[row, column] = total
    assert ordered_product(x, w).tobytes() == expected.tobytes()


def test_many_rows_are_computed_in_parts(monkeypatch):
    network = small()
    before = evaluate(network, network.inputs)
    monkeypatch.setattr("accelsim.quantize.evaluate._ROWS_BYTES", 1)  # one image at once
    after = evaluate(network, network.inputs)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def exact_conv(meta, x, w, b):
    """The definition, tap by tap, in fractions: nested lists [batch][height][width][out]."""
    (top, _), (left, _) = meta.padding
    batch, height, width, _ = x.shape
    outputs, kernel_h, kernel_w, depth = w.shape
    reach = [meta.dilation[i] * (w.shape[1 + i] - 1) + 1 for i in range(2)]
    sizes = [(x.shape[1 + i] + sum(meta.padding[i]) - reach[i]) // meta.stride[i] + 1 for i in range(2)]
    y = np.zeros((batch, *sizes, outputs))
    for at in np.ndindex(y.shape):
        image, row, column, out = at
        first = out // (outputs // meta.groups) * depth
        total = Fraction(float(b[out]))
        for i, j, c in np.ndindex(kernel_h, kernel_w, depth):
            r = row * meta.stride[0] + i * meta.dilation[0] - top
            q = column * meta.stride[1] + j * meta.dilation[1] - left
            inside = 0 <= r < height and 0 <= q < width
            value = x[image, r, q, first + c] if inside else meta.pad_value
            total += Fraction(float(value)) * Fraction(float(w[out, i, j, c]))
        y[at] = float(total)
    return y


@pytest.mark.parametrize(
    ("options", "kernel", "channels"),
    [
        ({}, (3, 3), (2, 4)),
        ({"stride": (2, 1), "padding": ((1, 2), (0, 1))}, (3, 2), (3, 2)),
        ({"dilation": (1, 2), "padding": ((2, 0), (2, 2)), "stride": (1, 3)}, (2, 3), (1, 3)),
        ({"groups": 2, "padding": ((1, 1), (1, 1))}, (3, 3), (4, 6)),
        ({"groups": 3, "stride": (3, 2)}, (2, 2), (3, 3)),
    ],
)
def test_convolutions_are_what_the_definition_says(options, kernel, channels):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 6, 7, channels[0]))
    meta = Conv2d(name="conv", **options)
    weight, bias = (
        rng.standard_normal((channels[1], *kernel, channels[0] // meta.groups)),
        rng.standard_normal(channels[1]),
    )
    network = FloatNetwork("one", x, [FloatLayer(meta, weight, bias)])
    np.testing.assert_allclose(evaluate(network, x)["conv"], exact_conv(meta, x, weight, bias), rtol=1e-12, atol=1e-13)


def test_signs_are_padded_with_what_the_layer_says():
    network = small("sign")
    values = evaluate(network, network.inputs)
    assert set(np.unique(values["conv1"])) == {-1.0, 1.0}
    layer = network.layers[1]
    expected = np.maximum(exact_conv(layer.meta, values["conv1"], layer.weight, layer.bias), 0)
    np.testing.assert_allclose(values["conv2"], expected, rtol=1e-12, atol=1e-12)


def test_the_other_operations():
    network = attention()
    values = evaluate(network, network.inputs)
    queries = network.inputs @ network.layers[0].weight.T + network.layers[0].bias
    keys = network.inputs @ network.layers[1].weight.T
    np.testing.assert_allclose(values["scores"], queries @ keys.transpose(0, 2, 1), rtol=1e-12)
    x = np.array([[-3.0, -0.0, 0.0, 5.0, 7.0]])
    for activation, expected in (
        ("none", x[0]),
        ("relu", [0, 0, 0, 5, 7]),
        ("relu6", [0, 0, 0, 5, 6]),
        ("sign", [-1, 1, 1, 1, 1]),
    ):
        one = FloatNetwork("one", x, [FloatLayer(Linear(name="fc", activation=activation), np.eye(5))])
        assert evaluate(one, x)["fc"].tolist() == [list(expected)]


def test_values_beyond_float64_are_refused():
    network = FloatNetwork("huge", np.full((1, 2), 1e300), [FloatLayer(Linear(name="fc"), np.full((1, 2), 1e300))])
    with pytest.raises(NetworkError, match="layer 'fc' computes values beyond float64"):
        evaluate(network, network.inputs)
