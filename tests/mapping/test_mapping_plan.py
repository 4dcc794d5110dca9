"""The plan's closed forms against a counter that walks every pass, cycle and PE as docs/timing.md defines them."""

from collections import Counter
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_cases import machine

from accelsim.actions import Action
from accelsim.errors import ShapeError, UnsupportedLayerError
from accelsim.mapping.contract import INTEGERS, CycleCounts, GemmShape, Tally
from accelsim.mapping.counts import array_tally, edge_traffic, step_contents
from accelsim.mapping.passes import layer_passes
from accelsim.mapping.plan import group_size, plan_layer
from accelsim.mapping.tally import Datapath, array_actions

# -- the counter ------------------------------------------------------------------------------------------------------


class Walk:
    """Walks a layer; `counts` are the fields of Tally, `cycles` by cause, `edge` the fields of EdgeTraffic."""

    def __init__(self, shape, config, k_valid, block):
        self.array, self.ppu, self.block = config.array, config.ppu, block
        self.lanes = config.array.lanes
        group = max(self.lanes, block)
        self.k_valid = list(k_valid) + [False] * (-len(k_valid) % group)
        self.steps = len(self.k_valid) // self.lanes
        self.span = group // self.lanes  # steps that feed one psum addition
        self.counts, self.cycles, self.edge = Counter(), Counter(), Counter()
        self.cycles["ppu"] = config.ppu.latency_cycles
        m, n = (shape.n, shape.m) if config.array.dataflow == "is" else (shape.m, shape.n)
        walk = self.output_stationary if config.array.dataflow == "os" else self.operand_stationary
        walk(shape.batch, m, n)

    def elements(self, step):
        """How many elements of K a lane step really has."""
        return sum(self.k_valid[step * self.lanes : (step + 1) * self.lanes])

    def blocks(self, step):
        """Elements in each block that a step completes; nothing without blocks."""
        if not self.block:
            return []
        ends = range(step * self.lanes + 1, (step + 1) * self.lanes + 1)
        return [sum(self.k_valid[end - self.block : end]) for end in ends if end % self.block == 0]

    def scales(self, step):
        return sum(1 for elements in self.blocks(step) if elements)

    def work(self, step):
        """One PE performs one lane step."""
        elements = self.elements(step)
        self.counts["products"] += elements
        self.counts["scaled_blocks"] += self.scales(step)
        if self.block and self.block <= self.lanes:
            self.counts["tree_adds"] += sum(elements - 1 for elements in self.blocks(step) if elements)
            self.counts["block_sum_adds"] += max(0, self.scales(step) - 1)
        else:
            self.counts["tree_adds"] += max(0, elements - 1)
        first = step // self.span * self.span
        if self.span > 1 and elements and any(self.elements(s) for s in range(first, step)):
            self.counts["block_adds"] += 1
        self.counts["psum_adds" if step == first + self.span - 1 else "block_latches"] += 1

    def extents(self, rows, cols):
        return (rows, cols) if self.array.skip_unused else (self.array.rows, self.array.cols)

    def output_stationary(self, batch, m, n):
        chain_left = []  # causes of the cycles that the shadow chain still needs
        for _ in range(batch):
            for m0 in range(0, m, self.array.rows):
                for n0 in range(0, n, self.array.cols):
                    rows, cols = min(self.array.rows, m - m0), min(self.array.cols, n - n0)
                    r, c = self.extents(rows, cols)
                    for step in range(self.steps):
                        self.edge["stream"] += rows * self.elements(step)
                        self.edge["stream_scales"] += rows * self.scales(step)
                        self.edge["other"] += cols * self.elements(step)
                        self.edge["other_scales"] += cols * self.scales(step)
                    t, far_corner = 0, 0
                    while far_corner < self.steps:
                        for i in range(r):
                            for j in range(c):
                                self.os_pe(t - i - j, i < rows, j < cols)
                        worked = t - (r - 1) - (c - 1) >= 0
                        far_corner += worked
                        self.cycles["compute" if worked else "fill"] += 1
                        chain_left = chain_left[1:]
                        t += 1
                    self.wait(chain_left)  # the chain must be empty before it takes the next results
                    per_row = -(-cols // self.ppu.lanes)
                    chain_left = ["drain"] * r + ["ppu"] * rows * (per_row - 1)
                    for i in range(rows):
                        self.counts["psum_latches"] += cols * (r - 1 - i)
                    self.counts["acc_adds"] += rows * cols
                    if not self.array.drain_overlap:
                        self.wait(chain_left)
                        chain_left = []
        self.wait(chain_left)

    def wait(self, causes):
        for cause in causes:
            self.cycles[cause] += 1

    def os_pe(self, step, row_used, col_used):
        if not 0 <= step < self.steps:
            return
        self.counts["stream_hops"] += row_used * self.elements(step)
        self.counts["stream_scale_hops"] += row_used * self.scales(step)
        self.counts["other_hops"] += col_used * self.elements(step)
        self.counts["other_scale_hops"] += col_used * self.scales(step)
        if row_used and col_used:
            before = self.counts["psum_adds"]
            self.work(step)
            self.counts["psum_latches"] += self.counts["psum_adds"] - before

    def operand_stationary(self, batch, streamed, n):
        loaded = 0  # rows of the next stationary tile that are in the chain already
        for _ in range(batch):
            for n0 in range(0, n, self.array.cols):
                for k0 in range(0, self.steps, self.array.rows):
                    rows, cols = min(self.array.rows, self.steps - k0), min(self.array.cols, n - n0)
                    r, c = self.extents(rows, cols)
                    self.cycles["load"] += max(0, r - loaded)
                    for t in range(r):  # in cycle t the row r - 1 - t enters; all others move down one row
                        for i in range(t + 1):
                            row = r - 1 - (t - i)
                            if row < rows:
                                self.counts["other_hops"] += cols * self.elements(k0 + row)
                                self.counts["other_scale_hops"] += cols * self.scales(k0 + row)
                    for row in range(rows):
                        self.edge["other"] += cols * self.elements(k0 + row)
                        self.edge["other_scales"] += cols * self.scales(k0 + row)
                        self.edge["stream"] += streamed * self.elements(k0 + row)
                        self.edge["stream_scales"] += streamed * self.scales(k0 + row)
                    t, far_corner, loaded = 0, 0, 0
                    while far_corner < streamed:
                        for i in range(r):
                            for j in range(c):
                                if 0 <= t - i - j < streamed:
                                    self.ws_pe(k0 + i if i < rows else None, j < cols, i == r - 1)
                        worked = t - (r - 1) - (c - 1) >= 0
                        far_corner += worked
                        self.cycles["compute" if worked else "fill"] += 1
                        loaded += self.array.double_buffered
                        t += 1
                    if k0 + rows == self.steps:
                        self.cycles["ppu"] += streamed * (-(-cols // self.ppu.lanes) - 1)

    def ws_pe(self, step, col_used, bottom):
        if step is not None:
            self.counts["stream_hops"] += self.elements(step)
            self.counts["stream_scale_hops"] += self.scales(step)
        if col_used:
            self.counts["psum_latches"] += 1
            self.counts["acc_adds"] += bottom
            if step is not None:
                self.work(step)


# -- random layers ----------------------------------------------------------------------------------------------------


@st.composite
def problems(draw):
    """(shape, machine, k_valid, block): ragged in every direction, V < L, V = L and V > L."""
    block = draw(st.sampled_from([0, 0, 1, 2, 3, 4, 8]))
    lanes = draw(st.sampled_from([n for n in (1, 2, 3, 4, 8) if not block or block % n == 0 or n % block == 0]))
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    rows = max(1, block // lanes) * draw(st.integers(1, 3)) if dataflow != "os" else draw(st.integers(1, 5))
    config = machine(
        dataflow=dataflow, rows=rows, cols=draw(st.integers(1, 5)), lanes=lanes,
        double_buffered=dataflow != "os" and draw(st.booleans()),
        drain_overlap=dataflow == "os" and draw(st.booleans()),
        skip_unused=draw(st.booleans()), ppu_lanes=draw(st.integers(1, 4)), ppu_latency=draw(st.integers(0, 3)),
    )  # fmt: skip
    channels, taps = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    tap = [True] * channels + [False] * (-channels % block if block else 0)
    shape = GemmShape(draw(st.integers(1, 2)), draw(st.integers(1, 9)), taps * len(tap), draw(st.integers(1, 9)))
    return shape, config, np.array(tap * taps), block


def plan_of(shape, config, k_valid=None, block=0):
    bits = {"a_scale_bits": 3, "w_scale_bits": 5} if block else {}
    return plan_layer(shape, config, a_bits=7, w_bits=6, k_valid=k_valid, block_size=block, **bits)


@given(problems())
@settings(max_examples=300)
def test_closed_forms_equal_the_walk(problem):
    shape, config, k_valid, block = problem
    walk = Walk(*problem)
    plan = plan_of(*problem)
    assert plan.cycles.by_cause() == {cause: walk.cycles[cause] for cause in plan.cycles.by_cause()}
    passes = layer_passes(shape, walk.steps, config)
    contents = step_contents(shape.k, k_valid, config.array.lanes, block, group_size(config.array.lanes, block))
    tally = array_tally(shape, passes, contents, INTEGERS, config)
    assert asdict(tally) == {field.name: walk.counts[field.name] for field in fields(Tally)}
    assert asdict(edge_traffic(shape, passes, contents, config)) == dict.fromkeys(asdict(plan.edge), 0) | walk.edge
    assert asdict(plan.edge) == asdict(edge_traffic(shape, passes, contents, config))
    datapath = Datapath(plan.widths, plan.multiplier, plan.product, plan.summation)
    assert plan.actions == array_actions(tally, datapath, shape, transposed=config.array.dataflow == "is")


# -- worked by hand ---------------------------------------------------------------------------------------------------


def cycles_of(config, m, k, n, batch=1):
    return plan_of(GemmShape(batch, m, k, n), config).cycles


def test_three_by_three_output_stationary():
    # docs/timing.md draws it: K = 2 steps, PE(i, j) works in cycles i+j and i+j+1. The far corner (2, 2) works in
    # cycles 4 and 5, so 4 cycles of fill, 2 of compute, then 3 rows drain.
    cycles = cycles_of(machine("os"), m=3, k=2, n=3)
    assert cycles == CycleCounts(load=0, fill=4, compute=2, drain=3, ppu=0)
    assert cycles.total == 9


@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_three_by_three_operand_stationary(dataflow):
    # docs/timing.md draws it: 3 cycles of load; 2 rows streamed; PE(i, j) works in cycles 3+i+j and 4+i+j.
    m, n = (2, 3) if dataflow == "ws" else (3, 2)
    cycles = cycles_of(machine(dataflow), m=m, k=3, n=n)
    assert cycles == CycleCounts(load=3, fill=4, compute=2, drain=0, ppu=0)
    assert cycles.total == 9


def test_three_by_three_events():
    # m=3, k=2, n=3 on os: 9 outputs of 2 products. X: 6 elements each pass 3 columns; W: 6 each pass 3 rows. Psums are
    # latched 18 times by additions; row 0's three move down twice, row 1's once: 9 more. One accumulator addition each.
    # Accumulators (32 bits): 9 biases and 9 sums written, 9 read for the addition and 9 by the PPU.
    actions = dict(plan_of(GemmShape(1, 3, 2, 3), machine("os")).actions.items())
    assert actions == {
        Action("mac", "mult", (6, 7)): 18,
        Action("mac", "add", (32,)): 18,
        Action("register", "register_write", (7,)): 18,
        Action("register", "register_write", (6,)): 18,
        Action("register", "register_write", (32,)): 27,
        Action("accumulator", "add", (32,)): 9,
        Action("buffer", "sram_write", (65536, 64, 1)): 18 * 32,
        Action("buffer", "sram_read", (65536, 64, 1)): 18 * 32,
    }
    # m=2, k=3, n=3 on ws: 6 outputs of 3 products. X: 2 rows of 3 elements pass 3 columns. W: the rows of three load
    # through 1, 2 and 3 registers: 18. Every psum is latched in each of 3 rows.
    actions = dict(plan_of(GemmShape(1, 2, 3, 3), machine("ws")).actions.items())
    assert actions[Action("mac", "mult", (6, 7))] == 18
    assert actions[Action("register", "register_write", (7,))] == 18
    assert actions[Action("register", "register_write", (6,))] == 18
    assert actions[Action("register", "register_write", (32,))] == 18
    assert actions[Action("accumulator", "add", (32,))] == 6


def test_input_stationary_prices_the_operand_that_moves():
    # m=1, k=4, n=5 on 2 x 3, `is`, 2 lanes, blocks of 2: W streams, X stays. Two rows hold K. The 5 rows of W (of 4
    # elements and 2 scales) pass 3 columns: 60 and 30 latches of 6 and 5 bits. X's two lane steps load through 1 and 2
    # registers: 2 + 4 elements of 7 bits, 1 + 2 scales of 3 bits.
    config = machine("is", rows=2, cols=3, lanes=2)
    actions = plan_of(GemmShape(1, 1, 4, 5), config, block=2).actions
    registers = {action.params: count for action, count in actions.items() if action.component == "register"}
    assert registers == {(6,): 60, (5,): 30, (7,): 6, (3,): 3, (32,): 5 * 2}
    # 10 blocks; a scale product has 5 + 3 bits, a dot product 7 + 6 and one more for the sum of two.
    assert actions[Action("scale_unit", "mult", (5, 3))] == actions[Action("scale_unit", "mult", (14, 8))] == 10


def test_options_by_hand():
    # Two passes of 3x3 with P=2 each: 6 cycles of array work, 3 of drain. Overlapped, the first drain hides.
    assert cycles_of(machine("os"), 6, 2, 3) == CycleCounts(load=0, fill=8, compute=4, drain=6, ppu=0)
    overlapped = machine("os", drain_overlap=True)
    assert cycles_of(overlapped, 6, 2, 3) == CycleCounts(load=0, fill=8, compute=4, drain=3, ppu=0)
    # Unused rows skipped: the second pass has one PE, works 1 cycle, and hides 1 of the first one's 3 drain cycles; its
    # own single row drains in 1.
    skipping = machine("os", drain_overlap=True, skip_unused=True, cols=1)
    assert cycles_of(skipping, 4, 1, 1) == CycleCounts(load=0, fill=2, compute=2, drain=2 + 1, ppu=0)
    # ws, two column folds, 2 rows streamed: 6 cycles of array work hide the second load of 3.
    assert cycles_of(machine("ws"), 2, 3, 6).load == 6
    assert cycles_of(machine("ws", double_buffered=True), 2, 3, 6).load == 3
    # Unused rows skipped, one row streamed, passes of 5, 1, 5 and 1 rows, which work 5, 1, 5 and 1 cycles: the third
    # load shows 5 - 1 of its cycles, the second and fourth none.
    narrow = machine("ws", rows=5, cols=1, double_buffered=True, skip_unused=True)
    assert cycles_of(narrow, 1, 6, 2).load == 5 + 0 + 4 + 0


def test_slow_ppu_by_hand():
    # os: rows of 3 results, 2 a cycle: 2 cycles each instead of 1, so 3 rows wait 3 cycles; the pipeline adds 4 once.
    cycles = cycles_of(machine("os", ppu_lanes=2, ppu_latency=4), 3, 2, 3)
    assert cycles == CycleCounts(load=0, fill=4, compute=2, drain=3, ppu=3 + 4)
    # Overlapped, 2 passes: drain and PPU need 6 cycles, which hide behind the second pass's 6; the last do not.
    cycles = cycles_of(machine("os", ppu_lanes=2, drain_overlap=True), 6, 2, 3)
    assert cycles == CycleCounts(load=0, fill=8, compute=4, drain=3, ppu=3)
    # With one lane a row takes 3 cycles, 9 in all: 3 of them show after the second pass, and they are the PPU's.
    cycles = cycles_of(machine("os", ppu_lanes=1, drain_overlap=True), 6, 2, 3)
    assert cycles == CycleCounts(load=0, fill=8, compute=4, drain=3, ppu=3 + 6)
    # ws, two K folds: only the second has final results; its 2 rows wait 1 cycle each.
    assert cycles_of(machine("ws", ppu_lanes=2), 2, 6, 3).ppu == 2


@given(
    st.sampled_from(["os", "ws", "is"]), st.integers(1, 9), st.integers(1, 9),
    st.builds(GemmShape, st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
)  # fmt: skip
def test_scale_sim_formulas(dataflow, rows, cols, shape):
    # SCALE-Sim v2/v3: os T + R + C - 2 (no drain), ws and is T + 2R + C - 2, for each fold of full extents.
    cycles = plan_of(shape, machine(dataflow, rows, cols)).cycles
    m, k, n = shape.m, shape.k, shape.n
    down, across, streamed = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    folds = -(-down // rows) * -(-across // cols)
    per_fold = streamed + (1 if dataflow == "os" else 2) * rows + cols - 2
    assert cycles.load + cycles.fill + cycles.compute == shape.batch * folds * per_fold


def test_the_table_of_the_manual():
    # docs/timing.md, per pass: os P + 2R + C - 2; ws and is T + 2R + C - 2. Here R=4, C=5, L=2, K=12 (P=6), M=7, N=3.
    assert cycles_of(machine("os", 4, 5, 2), 4, 12, 5).total == 6 + 2 * 4 + 5 - 2
    assert cycles_of(machine("ws", 6, 5, 2), 7, 12, 5).total == 7 + 2 * 6 + 5 - 2
    assert cycles_of(machine("is", 6, 7, 2), 7, 12, 3).total == 3 + 2 * 6 + 7 - 2


# -- laws -------------------------------------------------------------------------------------------------------------


def changed(config, **array):
    ppu = {name: array.pop(name) for name in ("lanes_of_ppu",) if name in array}
    config = config.model_copy(update={"array": config.array.model_copy(update=array)})
    if ppu:
        config = config.model_copy(update={"ppu": config.ppu.model_copy(update={"lanes": ppu["lanes_of_ppu"]})})
    return config


@given(problems(), st.integers(1, 4))
def test_laws(problem, more):
    shape, config, k_valid, block = problem
    plan = plan_of(*problem)
    cycles = plan.cycles
    assert cycles.total == cycles.load + cycles.fill + cycles.compute + cycles.drain + cycles.ppu

    def total(other):
        return plan_of(shape, other, k_valid, block).cycles.total

    assert total(changed(config, lanes_of_ppu=config.ppu.lanes + more)) <= cycles.total
    assert total(changed(config, skip_unused=True)) <= total(changed(config, skip_unused=False))
    option = "drain_overlap" if plan.dataflow == "os" else "double_buffered"
    with_option, without = changed(config, **{option: True}), changed(config, **{option: False})
    assert total(with_option) <= total(without)
    assert plan_of(shape, with_option, k_valid, block).actions == plan_of(shape, without, k_valid, block).actions
    # Useful work is the layer's, not the machine's.
    useful = shape.batch * shape.m * shape.n * int(k_valid.sum())
    assert plan.actions[Action("mac", "mult", (6, 7))] == useful
    # No array does more in a cycle than its lanes.
    assert useful <= cycles.compute * plan.rows * plan.cols * plan.lanes


@given(problems())
def test_input_stationary_is_the_transposed_weight_stationary(problem):
    shape, config, k_valid, block = problem
    if config.array.dataflow == "os":
        return
    turned_shape = GemmShape(shape.batch, shape.n, shape.k, shape.m)
    turned = changed(config, dataflow="is" if config.array.dataflow == "ws" else "ws")
    plan, twin = plan_of(shape, config, k_valid, block), plan_of(turned_shape, turned, k_valid, block)
    assert plan.cycles == twin.cycles
    assert plan.edge == twin.edge
    assert plan.transposed != twin.transposed


@given(problems())
def test_passes_cover_every_output_and_every_step_once(problem):
    shape, plan = problem[0], plan_of(*problem)
    steps = -(-shape.k // plan.group) * plan.steps_per_group
    seen = Counter()
    for p in range(len(plan.passes)):
        b, row0, rows, col0, cols = (int(getattr(plan.passes, f.name)[p]) for f in fields(plan.passes))
        assert 1 <= rows <= plan.rows
        assert 1 <= cols <= plan.cols
        for row in range(row0, row0 + rows):
            for col in range(col0, col0 + cols):
                seen[b, row, col] += 1
    down = shape.m if plan.dataflow == "os" else steps
    across = shape.m if plan.dataflow == "is" else shape.n
    assert seen == {(b, i, j): 1 for b in range(shape.batch) for i in range(down) for j in range(across)}


def test_a_big_layer_needs_no_tensors():
    # 2^20 passes of 8 x 8 over 4096 rows.
    shape = GemmShape(batch=4, m=4096, k=4096, n=4096)
    plan = plan_of(shape, machine("ws", rows=8, cols=8))
    passes = 4 * 512 * 512
    assert len(plan.passes) == passes
    assert plan.cycles == CycleCounts(load=8 * passes, fill=14 * passes, compute=4096 * passes, drain=0, ppu=0)
    assert plan.actions[Action("mac", "mult", (6, 7))] == 4 * 4096**3


# -- messages ---------------------------------------------------------------------------------------------------------


def test_block_that_does_not_fit_the_lanes():
    with pytest.raises(UnsupportedLayerError) as error:
        plan_layer(
            GemmShape(1, 2, 12, 2), machine("ws", 4, 4, lanes=8), a_bits=4, w_bits=4, block_size=12, layer="conv1"
        )
    assert str(error.value) == (
        "conv1: blocks of 12 elements do not fit 8 lanes a PE; lanes must divide the block or be a multiple of it: use "
        "one of 1, 2, 3, 4, 6, 12, 24, 36, 48, 60, 72, 84"
    )


def test_block_that_straddles_folds():
    with pytest.raises(UnsupportedLayerError) as error:
        plan_layer(
            GemmShape(1, 2, 16, 2), machine("ws", 6, 4, lanes=4), a_bits=4, w_bits=4, block_size=16, layer="conv1"
        )
    assert str(error.value) == (
        "conv1: a block of 16 elements spans 4 rows of 4 lanes, which does not divide the array's 6 rows, so a block "
        "would straddle two folds; use rows divisible by 4, 16 lanes, or dataflow 'os'"
    )
    # The remedies that it names work.
    for config in (machine("ws", 8, 4, lanes=4), machine("ws", 6, 4, lanes=16), machine("os", 6, 4, lanes=4)):
        assert plan_layer(GemmShape(1, 2, 16, 2), config, a_bits=4, w_bits=4, block_size=16).group == 16


def test_k_valid_that_does_not_fit():
    for k_valid, found in ((np.ones(2, bool), "bool (2,)"), (np.ones(3, np.int64), "int64 (3,)")):
        with pytest.raises(ShapeError) as error:
            plan_layer(GemmShape(1, 2, 3, 2), machine(), a_bits=4, w_bits=4, k_valid=k_valid, layer="conv1")
        assert str(error.value) == f"conv1: k_valid is {found}, but must be bool (3,)"
