"""Timelines worked out by hand; the first one is the worked example of docs/memory.md."""

import re

import numpy as np
import pytest
from timeline_cases import tiling

from accelsim.mapping.contract import CycleCounts
from accelsim.memory.causes import core_spells, make_timeline
from accelsim.memory.machine import Ports, Surroundings
from accelsim.memory.processes import run_processes
from accelsim.memory.program import Stage, make_program
from accelsim.memory.schedule import run_recurrence
from accelsim.memory.timeline import run_timeline

NAMES = {"weight": "weights", "activation": "activations", "store": "outputs", "tile": "tile"}
EXAMPLE = tiling(
    tiles=3,
    weight_bits=[1024, 0, 0],
    activation_bits=[512, 512, 512],
    store_bits=[256, 256, 256],
    fill=[10, 10, 10],
    compute=[20, 20, 20],
)
"""128 bytes of weights once; each tile 64 bytes in, 30 cycles of work, 32 bytes out."""


def dram(engines=1):
    return Surroundings(
        engines=engines, setup_cycles=2, latency_cycles=10, bytes_per_cycle=8.0, burst_bytes=32, channels=1
    )


@pytest.fixture
def tables(project_root):
    text = (project_root / "docs" / "memory.md").read_text().split("### Worked example")[1]
    rows = re.findall(r"^\| (weights|activations|tile|outputs) (\d) \| ([^|]*) \| ([^|]*) \| (\d+) \|$", text, re.M)
    assert len(rows) == 20
    return {1: rows[:10], 2: rows[10:]}


@pytest.mark.parametrize("run", [run_recurrence, run_processes])
@pytest.mark.parametrize("engines", [1, 2])
def test_the_page_shows_what_happens(tables, engines, run):
    schedule = run(make_program([Stage(0, 0, EXAMPLE)], dram(engines)), "next tile")
    program = schedule.program
    found = [
        (
            NAMES[program.kinds[n]],
            str(program.tiles[n]),
            str(schedule.begins[n]),
            "-" if program.kinds[n] == "tile" else str(schedule.moves[n]),
            str(schedule.ends[n]),
        )
        for n in sorted(range(len(program)), key=lambda n: (schedule.moves[n], n))
    ]
    assert found == tables[engines]


@pytest.mark.parametrize(
    ("engines", "makespan", "cycles"),
    [
        (1, 160, CycleCounts(fill=30, compute=60, dram=64, dma=6)),
        # Weights wait for their latency while the first activations wait for theirs: one wait less, twice.
        (2, 142, CycleCounts(fill=30, compute=60, dram=48, dma=4)),
    ],
)
def test_where_the_cycles_of_the_example_go(engines, makespan, cycles):
    timeline = run_timeline([Stage(0, 0, EXAMPLE)], ["conv"], dram(engines))
    assert timeline.makespan_cycles == makespan == cycles.total
    assert timeline.cores == (cycles,)
    assert timeline.layers[0].cycles == cycles
    assert timeline.layers[0].core_cycles == makespan
    assert (timeline.dram_read_bits, timeline.dram_write_bits) == (1024 + 3 * 512, 3 * 256)
    assert timeline.dram_busy_cycles == 16 + 3 * 8 + 3 * 4
    assert timeline.transfers == 7


def test_without_a_second_half_nothing_hides():
    """One byte a cycle; 10 bytes in, 10 cycles of work, twice: in, work, in, work."""
    for depth, makespan in ((1, 40), (2, 30)):
        each = tiling(tiles=2, depth=depth, activation_bits=[80, 80], compute=[10, 10])
        program = make_program(
            [Stage(0, 0, each)], Surroundings(bytes_per_cycle=1.0, ports={"activation": Ports(ping_pong=depth > 1)})
        )
        assert run_recurrence(program, "eager").makespan_cycles == makespan


def test_the_output_buffer_makes_the_array_wait():
    """Tiles of 4 cycles, stores of 10: with room for one tile's outputs each tile waits for the store before it."""
    for depth, makespan in ((1, 4 + 10 + 4 + 10 + 4 + 10), (2, 4 + 10 + 10 + 10)):
        each = tiling(tiles=3, depth=depth, store_bits=[80] * 3, compute=[4] * 3)
        timeline = run_timeline([Stage(0, 0, each)], ["l"], Surroundings(bytes_per_cycle=1.0))
        assert timeline.makespan_cycles == makespan
        assert timeline.cores[0] == CycleCounts(compute=12, dram=makespan - 12)


def test_sums_that_were_sent_away_come_back_after_they_left():
    """k outside, m inside: two tiles spill 5 bytes each, the next two take them back."""
    each = tiling(tiles=4, spill_bits=[40, 40, 0, 0], refill_bits=[0, 0, 40, 40], compute=[1] * 4)
    program = make_program([Stage(0, 0, each)], Surroundings(bytes_per_cycle=1.0))
    found = run_recurrence(program, "eager")
    spills, refills = ([n for n in range(len(program)) if program.kinds[n] == kind] for kind in ("spill", "refill"))
    # The first sums' room is free when they have left, so they can come back before the second ones leave.
    assert [found.moves[n] for n in spills] == [1, 11]
    assert [found.moves[n] for n in refills] == [6, 16]
    assert all(program.waits[refill][0] == spill for spill, refill in zip(spills, refills, strict=True))
    assert found.makespan_cycles == 22


def test_the_next_layers_weights_arrive_while_this_one_computes():
    """Layer 2 needs 50 bytes of weights, and layer 1's output (8 bytes, through DRAM)."""
    first = tiling("a", tiles=1, weight_bits=[80], compute=[100], store_bits=[64])
    second = tiling("b", tiles=1, weight_bits=[400], activation_bits=[64], compute=[10])
    stages = [Stage(0, 0, first), Stage(0, 1, second, activation_after=(0,))]
    timeline = run_timeline(stages, ["a", "b"], Surroundings(bytes_per_cycle=1.0), record=True)
    moves = {each.name: (each.start_cycle, each.end_cycle) for each in timeline.slices if each.track == "dram"}
    assert moves == {
        "a weights 0": (0, 10),
        "b weights 0": (10, 60),
        "a outputs 0": (110, 118),
        "b activations 0": (118, 126),
    }
    assert [(layer.start_cycle, layer.end_cycle) for layer in timeline.layers] == [(0, 110), (110, 136)]
    assert timeline.layers[1].cycles == CycleCounts(compute=10, dram=16)
    # In a buffer of 55 bytes the two do not fit together: the weights wait for the end of layer a.
    small = Surroundings(bytes_per_cycle=1.0, ports={"weight": Ports(size_bits=440)})
    assert run_timeline(stages, ["a", "b"], small).makespan_cycles == 110 + 8 + 50 + 8 + 10


def test_two_cores_share_the_dram():
    each = tiling(tiles=1, activation_bits=[512], compute=[10])
    timeline = run_timeline([Stage(0, 0, each), Stage(1, 0, each)], ["l"], Surroundings(bytes_per_cycle=8.0), 2)
    assert timeline.makespan_cycles == 26
    assert timeline.cores == (CycleCounts(dram=8, compute=10, sync=8), CycleCounts(dram=16, compute=10))
    assert timeline.layers[0].cycles == timeline.cores[1]  # of the core that finished last


def test_a_core_waits_for_another_one():
    """Core 1 needs what core 0 makes: 30 cycles of work and 8 of storing; then it loads for 8 and works for 5."""
    first, second = tiling(tiles=1, compute=[30], store_bits=[64]), tiling(tiles=1, activation_bits=[64], compute=[5])
    stages = [Stage(0, 0, first), Stage(1, 1, second, activation_after=(0,))]
    timeline = run_timeline(stages, ["a", "b"], Surroundings(bytes_per_cycle=1.0), 2)
    assert timeline.makespan_cycles == 51
    assert timeline.cores[0] == CycleCounts(compute=30, dram=8, sync=13)
    assert timeline.cores[1] == CycleCounts(sync=30, dram=16, compute=5)


def test_ports_that_are_too_narrow_stretch_a_tile():
    """8 bits a cycle: the array reads 100 bits in a tile of 10 cycles (13 needed); behind it 16 bits arrive (15)."""
    reads = {"activation": np.array([100, 100])}
    each = tiling(tiles=2, activation_bits=[16, 16], compute=[10, 10])
    ports = {"activation": Ports(width_bits=8, ports=1)}
    timeline = run_timeline([Stage(0, 0, each, array_bits=reads)], ["l"], Surroundings(ports=ports))
    # The first load takes 2 cycles of the port, for which the array waits.
    assert timeline.cores[0] == CycleCounts(compute=20, buffer=2 + 5 + 3)
    two = Surroundings(ports={"activation": Ports(width_bits=8, ports=2)})
    assert run_timeline([Stage(0, 0, each, array_bits=reads)], ["l"], two).cores[0] == CycleCounts(compute=20, buffer=2)
    assert run_timeline([Stage(0, 0, each, array_bits=reads)], ["l"], Surroundings()).makespan_cycles == 20


def test_bursts_and_channels():
    machine = Surroundings(bytes_per_cycle=4.0, burst_bytes=32, channels=2)
    bits = np.array([8, 256, 264, 512, 520])
    # 1 byte is a burst of 32: 8 cycles on one channel; 33 bytes are two bursts, one a channel; 65 bytes are three.
    assert machine.dram_cycles(bits).tolist() == [8, 8, 8, 8, 16]
    assert Surroundings().dram_cycles(bits).tolist() == [0] * 5


def test_a_layer_that_only_looks_at_another_takes_no_time():
    first = tiling("a", tiles=1, compute=[10], store_bits=[64])
    view, last = tiling("view", tiles=0), tiling("b", tiles=1, activation_bits=[64], compute=[5])
    stages = [Stage(0, 0, first), Stage(0, 1, view, activation_after=(0,)), Stage(0, 2, last, activation_after=(1,))]
    timeline = run_timeline(stages, ["a", "view", "b"], Surroundings(bytes_per_cycle=1.0))
    assert [layer.end_cycle - layer.start_cycle for layer in timeline.layers] == [10, 0, 8 + 8 + 5]


def test_the_ppu_and_the_vector_unit_have_their_own_cycles():
    each = tiling(tiles=1, load=[1], fill=[2], compute=[3], drain=[4], ppu=[5], vector=[6])
    schedule = run_processes(make_program([Stage(0, 0, each)], Surroundings()), "eager")
    (spells,) = core_spells(schedule)
    assert [(spell.cause, spell.end - spell.start) for spell in spells] == [
        ("load", 1), ("fill", 2), ("compute", 3), ("drain", 4), ("ppu", 5), ("vector", 6),
    ]  # fmt: skip
    assert make_timeline(schedule, ("l",), (spells,)).cores[0].total == 21
