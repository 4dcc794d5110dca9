"""K-means codebooks and TTQ's table: clustering, pruning, sizes, storage, and what today's hardware says to them."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import TraceBuilder, formats, load_trace, simulate
from accelsim.config.loader import parse_config
from accelsim.errors import FormatError, ShapeError, TraceError, UnsupportedLayerError
from accelsim.formats.codebook import huffman_bits, huffman_size_bits, kmeans
from accelsim.formats.spec import Format
from accelsim.trace.summary import size_bits

# The 4x4 weight matrix of the lectures on pruning and quantization (MIT 6.5940) and of Deep Compression.
W = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]])
INDICES = [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]
TTQ = formats.get("ttq")
finite = st.floats(allow_nan=False, allow_infinity=False)


def lloyd(values, clusters, iterations=100):
    """K-means value by value; sums are exact."""
    low, high = min(values), max(values)
    places = np.linspace(0.0, 1.0, clusters).tolist()
    centroids = [min(max(low * (1 - t) + high * t, low), high) for t in places]
    for i in range(1, clusters):
        centroids[i] = max(centroids[i], centroids[i - 1])

    def index_of(value):
        return sum(a / 2 + b / 2 < value for a, b in pairwise(centroids))

    indices = [index_of(value) for value in values]
    for _ in range(iterations):
        for cluster in range(clusters):
            members = [value for value, index in zip(values, indices, strict=True) if index == cluster]
            if members:
                exact = float(sum(map(Fraction, members))) / len(members)
                centroids[cluster] = min(max(exact, min(members)), max(members))
        moved = [index_of(value) for value in values]
        if moved == indices:
            break
        indices = moved
    return centroids, indices


@pytest.mark.parametrize("name", ["kmeans1", "kmeans4", "kmeans8", "kmeans2_int16", "kmeans3_int2"])
def test_the_format(name):
    kind = formats.get(name)
    assert isinstance(kind, Format)
    assert kind.name == name
    assert (kind.code_low, kind.code_high, kind.code_bits) == (0, 2**kind.index_bits - 1, kind.index_bits)
    assert (kind.low, kind.high) == (1 - 2 ** (kind.lane_bits - 1), 2 ** (kind.lane_bits - 1) - 1)
    assert (kind.datapath, kind.bits_per_element) == ("codebook", kind.index_bits)
    # Every code through every kind of table entry.
    codes = np.arange(2**kind.index_bits)
    table = np.random.default_rng(1).integers(kind.low, kind.high + 1, codes.size)
    tensor = formats.make_qtensor(codes, kind, 0.5, codebook=table)
    assert tensor.lanes().values.tolist() == table.tolist()
    assert tensor.dequantize().tolist() == (table / 2).tolist()
    assert tensor.size_bits == codes.size * kind.index_bits + codes.size * kind.lane_bits


def test_the_matrix_of_the_lecture():
    # Centroids start at -1.08, -0.0133, 1.0533, 2.12. By hand, the clusters and their means:
    #   (-0.98 - 1.08 - 0.91 - 1.03) / 4 = -1.00; (0.09 + 0.05 - 0.14 + 0 + 0) / 5 = 0.00;
    #   (1.48 + 1.53 + 1.49) / 3 = 1.50; (2.09 + 2.12 + 1.92 + 1.87) / 4 = 2.00. No index changes after that.
    centroids, indices = kmeans(W, 4)
    assert indices.tolist() == INDICES
    assert centroids.tolist() == pytest.approx([-1.0, 0.0, 1.5, 2.0], abs=1e-15)
    # The codebook's integers: 2 is 127, so 1.5 is 95.25 -> 95, -1 is -63.5 -> -64 (even), 0 is 0.
    tensor = formats.get("kmeans2").quantize(W)
    assert tensor.codes.tolist() == INDICES
    assert tensor.codebook.tolist() == [-64, 0, 95, 127]
    assert float(tensor.scale) == pytest.approx(2 / 127, rel=1e-15)
    assert tensor.dequantize()[0].tolist() == pytest.approx([2.0, -128 / 127, 190 / 127, 0.0], rel=1e-15)
    # 16 indices of 2 bits, and 4 integers of 8 bits.
    assert tensor.size_bits == 32 + 32


@given(
    st.lists(st.one_of(st.floats(-10, 10), st.integers(-4, 4).map(float)), min_size=1, max_size=40), st.integers(1, 9)
)
def test_kmeans_equals_lloyd_value_by_value(values, clusters):
    centroids, indices = kmeans(np.array(values), clusters)
    assert (centroids.tolist(), indices.tolist()) == lloyd(values, clusters)
    backwards, turned = kmeans(np.array(values[::-1]), clusters)
    assert (backwards.tolist(), turned[::-1].tolist()) == (centroids.tolist(), indices.tolist())
    assert np.all(np.diff(centroids) >= 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iterations", [1, 2, 5, 100])
def test_many_iterations_equal_lloyd(seed, iterations):
    x = np.random.default_rng(seed).normal(size=150) ** 3  # far from evenly spaced: the centroids travel
    centroids, indices = kmeans(x, 8, iterations)
    assert (centroids.tolist(), indices.tolist()) == lloyd(x.tolist(), 8, iterations)


@given(st.lists(finite, min_size=1, max_size=30), st.integers(1, 5))
def test_centroids_stay_within_the_values(values, clusters):
    centroids, _ = kmeans(np.array(values), clusters)
    assert min(values) <= centroids.min() <= centroids.max() <= max(values)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_more_iterations_never_lose_accuracy(values):
    x = np.array(values)
    errors = []
    for iterations in (1, 2, 3, 100):
        centroids, indices = kmeans(x, 4, iterations)
        errors.append(float(((x - centroids[indices]) ** 2).sum()))
    assert all(later <= earlier * (1 + 1e-12) + 1e-12 for earlier, later in pairwise(errors))


def test_given_centroids():
    tensor = formats.get("kmeans2").quantize([0.4, 0.5, 0.6, -3.0, 9.0], centroids=[1.0, 0.0, -1.0])
    assert tensor.codes.tolist() == [1, 1, 2, 0, 2]  # 0.5 lies between two: the smaller
    assert tensor.codebook.tolist() == [-127, 0, 127, 127]
    coarse = formats.get("kmeans2").quantize([0.4], centroids=[1.0, 0.0, -1.0], scale=0.5)
    assert coarse.codebook.tolist() == [-2, 0, 2, 2]
    again = formats.get("kmeans2").quantize(tensor.dequantize(), centroids=tensor.codebook[:3] * tensor.scale)
    assert again.codes.tolist() == tensor.codes.tolist()


def test_pruning():
    # Half of 16: the eight smallest magnitudes become 0, up to 1.03. The others start at -1.08, 0.52, 2.12 (midpoints
    # -0.28 and 1.32): -1.08 alone, none, and seven of mean 12.5 / 7 = 1.7857; then nothing moves. In units of
    # 1.7857 / 127: -1.08 is -76.8, 0.52 is 36.98.
    tensor = formats.get("kmeans2").quantize(W, sparsity=0.5)
    assert tensor.codes.tolist() == [[3, 1, 3, 1], [1, 1, 0, 3], [1, 3, 1, 1], [3, 1, 3, 3]]
    assert tensor.codebook.tolist() == [-77, 0, 37, 127]
    assert float(tensor.scale) == pytest.approx(12.5 / 7 / 127, rel=1e-15)
    # Of equal magnitudes the first go; the count is rounded down.
    equal = formats.get("kmeans2").quantize([1.0, -1.0, 1.0, 1.0, 1.0], sparsity=0.5)
    assert equal.dequantize().tolist() == [0, 0, 1, 1, 1]
    many = formats.get("kmeans2").quantize(np.where(np.arange(300) % 7 == 0, 2.0, 1.0), sparsity=0.25)
    firsts = [i for i in range(300) if i % 7][:75]
    assert np.flatnonzero(many.dequantize() == 0).tolist() == firsts


def huffman_by_search(counts):
    """The least total of count times length over all lengths that a prefix code can have (Kraft)."""
    lengths = range(1, len(counts))
    return min(
        sum(n * length for n, length in zip(counts, chosen, strict=True))
        for chosen in product(lengths, repeat=len(counts))
        if sum(Fraction(1, 2**length) for length in chosen) <= 1
    )


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_huffman_equals_the_best_prefix_code(counts):
    codes = np.repeat(np.arange(len(counts)), counts)
    assert huffman_bits(codes) == huffman_by_search(counts)


def test_huffman_by_hand():
    # The lecture's matrix: 4, 5, 3, 4 times. 3 + 4 = 7, 4 + 5 = 9, 16: 32 bits, no better than 2 bits each.
    tensor = formats.get("kmeans2").quantize(W)
    assert huffman_bits(tensor.codes) == 32
    assert huffman_size_bits(tensor) == 64
    # Pruned: 8, 7 and 1 times (one entry is never used). 1 + 7 = 8, 16: 24 bits, and the table of 4 integers.
    assert huffman_size_bits(formats.get("kmeans2").quantize(W, sparsity=0.5)) == 24 + 32
    assert huffman_bits(np.array([5, 5, 5])) == 3
    assert huffman_bits(np.array([0, 0, 0, 0, 1, 1, 2, 3])) == 4 * 1 + 2 * 2 + 3 + 3


def test_extremes():
    zeros = formats.get("kmeans4").quantize(np.zeros((2, 3)))
    assert zeros.scale == 1.0
    assert not zeros.dequantize().any()
    huge = 2.0**1023
    tensor = formats.get("kmeans1").quantize([huge, -huge, huge])  # neither differences nor sums may overflow
    assert tensor.codes.tolist() == [1, 0, 1]
    assert tensor.dequantize().tolist() == pytest.approx([huge, -huge, huge], rel=1e-15)
    assert formats.get("kmeans2").quantize(3.0).dequantize() == pytest.approx(3.0)
    assert formats.get("kmeans1").quantize([1.0, 0.5, 3.0], sparsity=0.4).dequantize().tolist() == [2.0, 0.0, 2.0]


# -- TTQ


def test_ttq_by_hand():
    # The lecture's matrix, threshold 0.05 * 2.12 = 0.106. Above: 2.09, 1.48, 2.12, 1.92, 1.87, 1.53, 1.49: 12.5 / 7.
    # Below -0.106: 0.98, 0.14, 1.08, 0.91, 1.03: 4.14 / 5 = 0.828, in units of 12.5 / 7 / 127: 58.9 -> 59.
    assert isinstance(TTQ, Format)
    tensor = TTQ.quantize(W)
    assert tensor.codes.tolist() == [[1, -1, 1, 0], [0, -1, -1, 1], [-1, 1, 0, -1], [1, 0, 1, 1]]
    assert tensor.codebook.tolist() == [-59, 0, 127]
    assert float(tensor.scale) == pytest.approx(12.5 / 7 / 127, rel=1e-15)
    assert tensor.lanes().values[0].tolist() == [127, -59, 127, 0]
    assert (tensor.size_bits, TTQ.bits_per_element) == (16 * 2 + 3 * 8, 2.0)
    # Trained scales, and a threshold of one's own: 1.0 against 0.25 is 127 against 31.75 -> 32.
    trained = TTQ.quantize([0.5, -0.5, 0.75, -2.0], threshold=0.5, positive=0.25, negative=1.0)
    assert trained.codes.tolist() == [0, 0, 1, -1]
    assert trained.codebook.tolist() == [-127, 0, 32]
    assert trained.dequantize().tolist() == pytest.approx([0, 0, 32 / 127, -1.0])
    assert TTQ.quantize([1.0, 3.0]).codebook.tolist() == [0, 0, 127]
    assert not TTQ.quantize(np.zeros(3)).dequantize().any()


# -- messages

NONE = {}


@pytest.mark.parametrize(
    ("name", "x", "arguments", "kind", "message"),
    [
        (
            "kmeans4",
            [1.0],
            {"axis": 0},
            FormatError,
            "kmeans4 has one codebook a tensor; leave out axis and channel_axis",
        ),
        ("ttq", [1.0], {"axis": 0}, FormatError, "ttq has one codebook a tensor; leave out axis and channel_axis"),
        (
            "kmeans4",
            [1.0],
            {"asymmetric": True},
            FormatError,
            "kmeans4 has no zero points; leave out zero_point and asymmetric",
        ),
        (
            "kmeans4",
            [1.0],
            {"sparsity": 1.0},
            FormatError,
            "kmeans4: sparsity is 1.0; use a fraction of at least 0 and less than 1",
        ),
        (
            "kmeans4",
            [1.0],
            {"sparsity": 0.5, "centroids": [1.0]},
            FormatError,
            "kmeans4: centroids are given, so nothing is pruned; leave out sparsity",
        ),
        (
            "kmeans1",
            [1.0],
            {"centroids": [1.0, 2.0, 3.0]},
            ShapeError,
            "kmeans1: centroids have shape (3,); pass (n,), n up to 2",
        ),
        ("kmeans4", [1.0], {"iterations": 0}, FormatError, "iterations=0: K-means needs at least one"),
        ("kmeans4", [], NONE, ShapeError, "cannot quantize an array of shape (0,): it has no elements"),
        (
            "kmeans4",
            [np.nan, 1.0],
            NONE,
            FormatError,
            "cannot quantize: 1 of 2 values are NaN or infinite, the first is nan at index (0); "
            "replace or clip them first",
        ),
        (
            "ttq",
            [1.0],
            {"negative": -2.0},
            FormatError,
            "ttq: negative is -2.0; the two scales are finite and not negative",
        ),
        (
            "ttq",
            [1.0],
            {"threshold": -1},
            FormatError,
            "quantize: threshold is -1.0; thresholds are finite and not negative",
        ),
    ],
)
def test_bad_input(name, x, arguments, kind, message):
    with pytest.raises(kind) as caught:
        formats.get(name).quantize(x, **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "codebook", "kind", "message"),
    [
        ("kmeans1", None, FormatError, "tensor: kmeans1 needs a codebook of 2 integers, one for each code"),
        (
            "kmeans1",
            [1, 2, 3],
            ShapeError,
            "tensor: codebook has shape (3,), but kmeans1 has 2 codes: (2,)",
        ),
        (
            "kmeans1",
            [1, -128],
            FormatError,
            "tensor: codebook entry -128 at index (1) is outside kmeans1's range [-127, 127]",
        ),
        ("kmeans1", [0.5, 1.0], FormatError, "tensor: codebook: dtype is float64; pass integers"),
        ("int8", [1, 2], FormatError, "tensor: codebook is given, but int8 has none; leave it out"),
    ],
)
def test_bad_codebooks(name, codebook, kind, message):
    with pytest.raises(kind) as caught:
        formats.make_qtensor([0, 1], formats.get(name), codebook=codebook)
    assert str(caught.value) == message


# -- in traces, and on hardware without a decoder


def network(weight):
    net = TraceBuilder("shared")
    x = net.input("x", formats.get("int8").quantize(np.ones((1, 4))))
    net.linear("fc", x, weight, rounding=None)
    return net


@pytest.mark.parametrize("name", ["kmeans2", "ttq"])
def test_a_trace_keeps_the_codebook(name, tmp_path):
    weight = formats.get(name).quantize(W)
    trace = load_trace(network(weight).save(tmp_path / "net.npz"))
    again = trace.tensor("fc.weight")
    assert again.format == weight.format
    for part in ("codes", "codebook", "scale"):
        assert getattr(again, part).tolist() == getattr(weight, part).tolist()
    assert again.dequantize().tolist() == weight.dequantize().tolist()
    assert size_bits(trace.tensor_meta("fc.weight")) == weight.size_bits


def test_a_trace_without_its_codebook(tmp_path):
    path = network(formats.get("kmeans2").quantize(W)).save(tmp_path / "net.npz")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if not name.endswith("/codebook")}
    np.savez(path, **arrays)
    with pytest.raises(TraceError, match=r"array 'tensors/fc\.weight/codebook' is missing: what each code of tensor"):
        load_trace(path)


@pytest.mark.parametrize("name", ["kmeans2", "ttq"])
def test_hardware_without_a_decoder(name):
    trace = network(formats.get(name).quantize(W)).build()
    config = parse_config({"name": "plain", "clock_mhz": 500, "array": {"rows": 4, "cols": 4, "dataflow": "ws"}})
    with pytest.raises(UnsupportedLayerError) as caught:
        simulate(config, trace)
    assert str(caught.value) == (
        f"layer 'fc' needs decoders of 2-bit indices for weights in {name}, but the configuration 'plain' has "
        f"array.codebook: null; set array.codebook.index_bits to 2 or more"
    )
