"""What data do in shares and pieces of a layer: registers followed one by one, and sizes worked by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, plain
from test_engine_activity import follow, zeros_among_products

import accelsim
from accelsim.config.loader import load_config, parse_config
from accelsim.config.memory import Buffer, Buffers, Cores, Memory
from accelsim.config.model import Array, HardwareConfig
from accelsim.engine import ENGINES
from accelsim.engine.contract import Activity, OperandActivity
from accelsim.engine.piecewise import added, piecewise_activity
from accelsim.mapping.plan import plan_operands
from accelsim.memory.contract import LayerNeeds, TensorNeed, Windows
from accelsim.memory.network import network_time
from accelsim.memory.pieces import Piece, array_pieces


def small(dataflow="ws", split="output_channels", count=1, buffer_bytes=64, **array):
    some = Buffer(size_bytes=buffer_bytes)
    return HardwareConfig(
        name="small",
        clock_mhz=100.0,
        array=Array(**{"rows": 2, "cols": 2, "dataflow": dataflow, **array}),
        buffers=Buffers(weight=Buffer(size_bytes=4096), activation=some, output=some, accumulator=some),
        memory=Memory(passes="split"),
        cores=Cores(count=count, split=split),
    )


def needs_of(operands, config, windows=None):
    plan, shape = plan_operands(operands, config), operands.shape
    x = TensorNeed("x", 8 * shape.batch * shape.m * shape.k)
    w = TensorNeed("w", 8 * shape.batch * shape.k * shape.n)
    return LayerNeeds("l", plan, (x,), w, 0, TensorNeed("y", 8 * shape.batch * shape.m * shape.n), windows=windows)


def pieces_of(operands, config, windows=None, images=1):
    needs = needs_of(operands, config, windows)
    (shares,) = network_time([needs], config, images=images).shares
    return array_pieces(shares, needs.plan), shares


def ones(batch, m, k, n):
    operands = plain(np.ones((m, k), int), np.ones((k, n), int))
    return operands if batch == 1 else repeated(operands, batch)


def repeated(operands, batch):
    return replace(
        operands,
        a=np.repeat(operands.a, batch, 0),
        w=np.repeat(operands.w, batch, 0),
        bias=np.repeat(operands.bias, batch, 0),
    )


# -- which pieces -----------------------------------------------------------------------------------------------------


def lists(pieces):
    return [(piece.products.tolist(), piece.rows.tolist(), piece.columns.tolist()) for piece in pieces]


def test_columns_are_dealt_out_one_after_another():
    pieces, _ = pieces_of(ones(1, 4, 2, 5), small("os", count=2))
    assert lists(pieces) == [([0], [0, 1, 2, 3], [0, 1]), ([0], [0, 1, 2, 3], [2, 3, 4])]


def test_products_are_dealt_out_where_there_are_few_columns():
    pieces, _ = pieces_of(ones(5, 3, 2, 1), small("os", count=2))
    assert lists(pieces) == [([0, 1], [0, 1, 2], [0]), ([2, 3, 4], [0, 1, 2], [0])]


def test_rows_are_those_of_the_same_lines_of_every_image():
    """Two images of 3 x 2 results: rows 0 to 5 and 6 to 11; one core has the first line of each, the other the rest."""
    windows = Windows(2, 3, 2, 3, 2, (1, 1), (1, 1), (0, 0), (1, 1))
    pieces, _ = pieces_of(ones(1, 12, 2, 3), small("os", "rows", 2), windows, images=2)
    assert [piece.rows.tolist() for piece in pieces] == [[0, 1, 6, 7], [2, 3, 4, 5, 8, 9, 10, 11]]


def test_inferences_are_whole_images():
    windows = Windows(3, 2, 2, 2, 2, (1, 1), (1, 1), (0, 0), (1, 1))
    pieces, _ = pieces_of(ones(1, 12, 2, 3), small("os", "batch", 2), windows, images=3)
    assert [piece.rows.tolist() for piece in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]]


def test_a_stream_that_is_cut_enters_in_pieces():
    """32 bytes, half of the activation buffer, take 4 rows of 8."""
    pieces, (share,) = pieces_of(ones(1, 10, 8, 2), small("ws"))
    assert share.tiling.entries == -(-10 // share.tiling.tile_m) > 1
    assert [piece.rows.size for piece in pieces][:-1] == [share.tiling.tile_m] * (share.tiling.entries - 1)
    assert np.concatenate([piece.rows for piece in pieces]).tolist() == list(range(10))


def test_columns_stream_past_stationary_activations():
    config = small("is").model_copy(
        update={"buffers": Buffers(**{name: Buffer(size_bytes=64) for name in ("weight", "output", "accumulator")})}
    )
    pieces, (share,) = pieces_of(ones(1, 2, 8, 10), config)
    assert share.tiling.entries == -(-10 // share.tiling.tile_n) > 1
    assert np.concatenate([piece.columns for piece in pieces]).tolist() == list(range(10))
    assert all(piece.rows.tolist() == [0, 1] for piece in pieces)


def test_a_layer_in_one_piece_is_none():
    assert pieces_of(ones(1, 4, 2, 2), small("ws", buffer_bytes=4096))[0] is None
    assert pieces_of(ones(1, 4, 64, 2), small("os"))[0] is None  # tiles of K go on where they stopped


# -- what their data do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["fast", "stepped"])
def test_a_cut_stream_by_hand(engine):
    """One PE holds w = 1 and sees x = 15, 15. At once: 0 15 15 0, 8 toggles, and w is loaded and unloaded, 2. In two
    pieces: 0 15 0 15 0, 16 toggles, and w is loaded twice, 4.
    """
    config, operands = small(rows=1, cols=1), plain([[15], [15]], [[1]])
    everything = np.arange(1)
    whole = [Piece(everything, np.arange(2), everything)]
    halves = [Piece(everything, np.array([row]), everything) for row in (0, 1)]
    at_once, cut = (piecewise_activity(operands, pieces, config, ENGINES[engine]) for pieces in (whole, halves))
    assert (at_once.stream.toggles, at_once.other.toggles, at_once.other.latches) == (8, 2, 1)
    assert (cut.stream.toggles, cut.other.toggles, cut.other.latches) == (16, 4, 2)
    assert cut.products == at_once.products == 2


@pytest.mark.parametrize("kind", ["integers", *[kind for kind in KINDS if kind != "integers"][:3]])
def test_pieces_are_layers_of_their_own(kind):
    """Operands sliced by hand, every register of every piece followed."""

    @given(KINDS[kind], st.data())
    @settings(max_examples=12)
    def check(layer, data):
        operands, config = layer
        shape = operands.shape
        at = [data.draw(st.integers(0, size)) for size in (shape.batch, shape.m, shape.n)]
        halves = [
            [part for part in (np.arange(cut), np.arange(cut, size)) if part.size]
            for cut, size in zip(at, (shape.batch, shape.m, shape.n), strict=True)
        ]
        pieces = [Piece(*each) for each in itertools.product(*halves)]
        x, y, zeros = [0, 0], [0, 0], 0
        for piece in pieces:
            own = piece.of(operands)
            np.testing.assert_array_equal(own.a, operands.a[np.ix_(piece.products, piece.rows)])
            np.testing.assert_array_equal(
                own.w.swapaxes(1, 2), operands.w.swapaxes(1, 2)[np.ix_(piece.products, piece.columns)]
            )
            registers = follow(own, plan_operands(own, config))
            for found, of_one in zip((x, y), registers, strict=True):
                found[0] += of_one.toggles
                found[1] += of_one.changes
            zeros += zeros_among_products(own)
        fast, stepped = (piecewise_activity(operands, pieces, config, ENGINES[name]) for name in ("fast", "stepped"))
        for found in (fast, stepped):
            assert [found.stream.toggles, found.stream.changes] == x
            assert [found.other.toggles, found.other.changes] == y
            assert found.zero_products == zeros == zeros_among_products(operands)
        if fast.accumulator_toggles is not None:
            assert fast == stepped
            # Each accumulator sees the same additions, whoever makes them.
            alone = ENGINES["fast"].run(operands, plan_operands(operands, config), activity=True).activity
            assert fast.accumulator_toggles == alone.accumulator_toggles

    check()


def test_what_is_unknown_of_one_piece_is_unknown():
    operand = OperandActivity(8, 4, 3, 2)
    one = Activity(5, 1, operand, operand, 32, 7, 9)
    other = Activity(6, 2, operand, operand, 32, None, 1)
    assert added([one, one]) == Activity(10, 2, *[OperandActivity(8, 8, 6, 4)] * 2, 64, 14, 18)
    assert (added([one, other]).psum_toggles, added([one, other]).accumulator_toggles) == (None, 10)
    with pytest.raises(ValueError, match=r"operands of \[4, 8\] bits do not add up"):
        added([one, Activity(5, 1, operand, OperandActivity(4, 1, 1, 1), 32, 7, 9)])
    with pytest.raises(ValueError, match="no activity to add up"):
        added([])


# -- in a run ---------------------------------------------------------------------------------------------------------

CASES = [
    ("int8_ws", "rows", "digits_cnn_int8"),
    ("int8_is", "output_channels", "digits_cnn_int8"),
    ("int8_os", "batch", "digits_cnn_int8"),
    ("int8_ws", "layers", "digits_encoder_int8"),
]


@pytest.mark.parametrize(("name", "split", "network"), CASES)
def test_a_run_on_cores_measures_what_its_actions_count(project_root, name, split, network):
    values = load_config(project_root / "configs" / f"{name}.yaml").model_dump(mode="json")
    trace = accelsim.load_trace(project_root / "traces" / f"{network}.npz").head(3)
    sizes = {"weight": 4096, "activation": 2048, "output": 1024, "accumulator": 4096}
    around = {
        "cores": {"count": 2, "split": split},
        "memory": {"passes": "split"},
        "buffers": {name: {"size_bytes": size} for name, size in sizes.items()},
    }
    run, alone = (
        accelsim.simulate(parse_config({**values, **more}), trace, watch=False, activity=True) for more in (around, {})
    )
    assert [layer.output_digest for layer in run.layers] == [layer.output_digest for layer in alone.layers]
    for mine, theirs in zip(run.layers, alone.layers, strict=True):
        found, whole = mine.activity, theirs.activity
        assert (found is None) == (whole is None)
        if found is None:
            continue
        counted = {"mult": 0, "register_write": 0}
        for action, count in mine.actions.items():
            if action.component in ("mac", "register") and action.operation in counted:
                counted[action.operation] += count * (action.params[0] if action.operation == "register_write" else 1)
        assert found.products == counted["mult"] == whole.products
        assert found.zero_products == whole.zero_products
        assert found.accumulator_toggles == whole.accumulator_toggles
        operand_bits = sum(each.latches * each.bits for each in (found.stream, found.other))
        if name == "int8_os":  # moves of psums that drain are in none of these numbers
            assert operand_bits + found.psum_bits < counted["register_write"]
        else:
            assert operand_bits + found.psum_bits == counted["register_write"]
