"""The trace file: valid by the format's rules, and true to the timeline it came from."""

import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from timeline_cases import stage_lists, surroundings, tiling
from trace_format import problems

from accelsim.memory.causes import core_spells, make_timeline
from accelsim.memory.chrome_trace import chrome_trace
from accelsim.memory.machine import Surroundings
from accelsim.memory.program import Stage, make_program
from accelsim.memory.record import record
from accelsim.memory.schedule import run_recurrence
from accelsim.memory.timeline import run_timeline

CORES = 2


def recorded(stages, machine):
    schedule = run_recurrence(make_program(stages, machine, CORES), "eager")
    spells = core_spells(schedule)
    return record(make_timeline(schedule, tuple(f"l{s.layer}" for s in stages), spells), schedule, spells)


@settings(max_examples=40)
@given(stages=stage_lists(CORES), machine=surroundings)
def test_any_timeline_is_a_valid_trace(stages, machine):
    timeline = recorded(stages, machine)
    document = json.loads(chrome_trace(timeline, 700.0, "a title"), parse_constant=pytest.fail)
    assert problems(document) == []
    assert document["otherData"]["makespan_cycles"] == timeline.makespan_cycles


@settings(max_examples=40)
@given(stages=stage_lists(CORES), machine=surroundings)
def test_slices_cover_what_happened(stages, machine):
    timeline = recorded(stages, machine)
    length = defaultdict(int)
    for each in timeline.slices:
        length[each.track] += each.end_cycle - each.start_cycle
        assert 0 <= each.start_cycle < each.end_cycle <= timeline.makespan_cycles
    for core, cycles in enumerate(timeline.cores):
        waits = cycles.dram + cycles.dma + cycles.buffer + cycles.sync
        assert length[f"core {core}"] == cycles.array + cycles.ppu + waits
        posts = sum(int(stage.tiling.post.sum()) for stage in stages if stage.core == core)
        assert length[f"ppu {core}"] == posts >= cycles.ppu
        assert length[f"vector {core}"] == cycles.vector
    assert length["dram"] == timeline.dram_busy_cycles


def test_counters_say_what_the_buffers_hold():
    """Three tiles of 64, 32 and 8 bits of weights, one byte a cycle: 8 + 4 + 1 cycles; each tile computes for 20."""
    each = tiling(tiles=3, weight_bits=[64, 32, 8], compute=[20, 20, 20], store_bits=[16, 16, 0])
    timeline = run_timeline([Stage(0, 0, each)], ["l"], Surroundings(bytes_per_cycle=1.0), record=True)
    counters = dict(timeline.counters)
    # The tiles compute in [8, 28), [28, 48) and [48, 68). The third load waits for the first tile's room, and its turn:
    # behind the store in [28, 30) the only DMA engine takes it up in cycle 30.
    assert counters["core 0 weight buffer, bytes"] == ((0, 8.0), (8, 12.0), (28, 4.0), (30, 5.0), (48, 1.0), (68, 0.0))
    # Outputs: 2 bytes from the start of a tile to the end of its store, [28, 30) and [48, 50).
    assert counters["core 0 output buffer, bytes"] == ((8, 2.0), (28, 4.0), (30, 2.0), (50, 0.0))
    assert counters["DRAM read, bytes per cycle"] == ((0, 1.0), (8, 1.0), (12, 0.0), (30, 1.0), (31, 0.0))
    assert counters["DRAM write, bytes per cycle"] == ((0, 0.0), (28, 1.0), (30, 0.0), (48, 1.0), (50, 0.0))


def slice_at(start, end, track=1):
    return {"ph": "X", "name": "a", "cat": "core", "pid": 1, "tid": track, "ts": start, "dur": end - start, "args": {}}


NAMES = [
    {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "p"}},
    {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": "t"}},
]


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([slice_at(0, 2), slice_at(1, 3)], "overlap"),
        ([slice_at(0, 2, track=2)], "no name"),
        ([slice_at(0, 0)], "no length"),
        ([slice_at(-1, 2)], "ts is -1"),
        ([slice_at(0, 2) | {"dur": float("nan")}], "dur is nan"),
        ([slice_at(0, 2) | {"ph": "Q"}], "ph is 'Q'"),
        ([slice_at(0, 2) | {"id": 1}], "keys ['id']"),
        ([{"ph": "C", "name": "c", "pid": 1, "tid": 0, "ts": 0, "args": {"x": "1"}}], "a counter of"),
        ([{"ph": "C", "name": "c", "pid": 1, "tid": 0, "ts": t, "args": {"x": 1}} for t in (2, 1)], "back in time"),
        ([{"ph": "C", "name": "c", "pid": 7, "tid": 0, "ts": 0, "args": {"x": 1}}], "process 7 has no name"),
    ],
)
def test_the_validator_can_fail(events, word):
    assert problems({"traceEvents": [*NAMES, slice_at(5, 6)], "displayTimeUnit": "ns"}) == []
    found = problems({"traceEvents": [*NAMES, *events], "displayTimeUnit": "ns"})
    assert len(found) == 1, found
    assert word in found[0]
