"""Laws of time around the arrays, on random tilings, machines and numbers of cores."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timeline_cases import PARTS, stage_lists, surroundings, tiling

from accelsim.memory.causes import core_spells, make_timeline
from accelsim.memory.machine import Ports, Surroundings
from accelsim.memory.processes import run_processes
from accelsim.memory.program import Stage, make_program
from accelsim.memory.schedule import run_recurrence
from accelsim.memory.timeline import shortest

PREFETCH = ("eager", "next tile")
CORES = 3


def schedule(stages, machine, prefetch="eager", cores=CORES):
    return run_recurrence(make_program(stages, machine, cores), prefetch)


def array_cycles(stages):
    return sum(int(getattr(stage.tiling, part).sum()) for stage in stages for part in PARTS)


@pytest.mark.parametrize("prefetch", PREFETCH)
@given(stages=stage_lists(CORES), machine=surroundings)
def test_the_processes_find_what_the_recurrence_finds(prefetch, stages, machine):
    program = make_program(stages, machine, CORES)
    assert run_processes(program, prefetch) == run_recurrence(program, prefetch)


@pytest.mark.parametrize("prefetch", PREFETCH)
@given(stages=stage_lists(CORES), machine=surroundings)
def test_every_cycle_of_every_core_has_one_cause(prefetch, stages, machine):
    found = schedule(stages, machine, prefetch)
    for core, spells in enumerate(core_spells(found)):
        clock = 0
        for spell in spells:
            assert spell.start == clock < spell.end
            clock = spell.end
        assert clock == found.makespan_cycles
        for part in PARTS:
            spent = sum(spell.end - spell.start for spell in spells if spell.cause == part)
            assert spent == sum(int(getattr(stage.tiling, part).sum()) for stage in stages if stage.core == core)


@given(stages=stage_lists(CORES), machine=surroundings)
def test_the_layers_add_up(stages, machine):
    found = schedule(stages, machine)
    spells = core_spells(found)
    timeline = make_timeline(found, tuple(str(stage.layer) for stage in stages), spells)
    assert timeline.makespan_cycles == found.makespan_cycles == timeline.layers[-1].end_cycle
    clock = 0
    for layer in timeline.layers:
        assert layer.start_cycle == clock <= layer.end_cycle
        clock = layer.end_cycle
        assert layer.cycles in layer.cores
        assert {core.total for core in layer.cores} == {layer.end_cycle - layer.start_cycle}
    for core, mine in enumerate(spells):
        total = sum((layer.cores[core] for layer in timeline.layers[1:]), timeline.layers[0].cores[core])
        for cause, cycles in total.by_cause().items():
            assert cycles == sum(spell.end - spell.start for spell in mine if spell.cause == cause)


@given(stages=stage_lists(1))
def test_a_memory_that_takes_no_time_leaves_the_arrays_own_cycles(stages):
    found = schedule(stages, Surroundings(), cores=1)
    assert found.makespan_cycles == array_cycles(stages)
    (spells,) = core_spells(found)
    assert {spell.cause for spell in spells} <= set(PARTS)


@given(stages=stage_lists(CORES), machine=surroundings)
def test_nothing_is_faster_than_its_parts(stages, machine):
    found = schedule(stages, machine)
    busy = [0] * CORES
    for stage in stages:
        busy[stage.core] += sum(int(getattr(stage.tiling, part).sum()) for part in PARTS)
    moving = sum(found.ends[number] - found.moves[number] for number in found.served)
    assert found.makespan_cycles >= max(*busy, moving)


FASTER = {
    "bytes_per_cycle": lambda machine, n: replace(machine, bytes_per_cycle=machine.bytes_per_cycle * (1 + n / 7)),
    "latency_cycles": lambda machine, n: replace(machine, latency_cycles=max(0, machine.latency_cycles - n)),
    "setup_cycles": lambda machine, n: replace(machine, setup_cycles=max(0, machine.setup_cycles - n)),
    "channels": lambda machine, n: replace(machine, channels=machine.channels + n),
    "engines": lambda machine, n: replace(machine, engines=machine.engines + n),
    "burst_bytes": lambda machine, n: replace(machine, burst_bytes=1),
    "width_bits": lambda machine, n: _ports(machine, width_bits=lambda p: p.width_bits and p.width_bits + n),
    "banks": lambda machine, n: _ports(machine, banks=lambda p: p.banks + n),
    "ports": lambda machine, n: _ports(machine, ports=lambda p: p.ports + n),
}


def _ports(machine, **changes):
    return replace(
        machine,
        ports={
            name: replace(ports, **{key: change(ports) for key, change in changes.items()})
            for name, ports in machine.ports.items()
        },
    )


@pytest.mark.parametrize("what", FASTER)
@settings(max_examples=25)
@given(stages=stage_lists(CORES), machine=surroundings, n=st.integers(1, 9))
def test_a_faster_part_never_costs_time(what, stages, machine, n):
    faster = FASTER[what](machine, n)
    for prefetch in PREFETCH:
        slow, fast = (schedule(stages, each, prefetch) for each in (machine, faster))
        assert all(one <= other for one, other in zip(fast.ends, slow.ends, strict=True))
    best = [shortest([stages], each, CORES)[1].makespan_cycles for each in (machine, faster)]
    assert best[1] <= best[0]


@given(stages=stage_lists(CORES), machine=surroundings)
def test_nothing_begins_before_what_it_waits_for(stages, machine):
    found = schedule(stages, machine, "next tile")
    program = found.program
    for number, waits in enumerate(program.waits):
        assert all(other < number for other in waits)
        assert all(found.ends[other] <= found.begins[number] for other in waits)
    last = -1
    for number in found.served:  # one after another, and never two at once
        assert found.moves[number] >= last
        last = found.ends[number]
    for core in range(CORES):
        tiles = [n for n, kind in enumerate(program.kinds) if kind == "tile" and program.cores[n] == core]
        assert all(found.ends[a] <= found.begins[b] for a, b in pairwise(tiles))


@given(stages=stage_lists(1), machine=surroundings)
def test_buffers_never_hold_more_than_their_depth_and_their_size(stages, machine):
    program = make_program(stages, machine, 1)
    found = run_recurrence(program, "eager")
    for kind in ("weight", "activation"):
        loads = [n for n in range(len(program)) if program.kinds[n] == kind]
        for place, load in enumerate(loads):
            tiling = stages[program.stages[load]].tiling
            depth = getattr(tiling, f"{kind}_depth")
            held = [n for n in loads[:place] if found.ends[program.ends_use[n]] > found.begins[load]]
            assert len([n for n in held if program.stages[n] == program.stages[load]]) < depth
            size = machine.buffer(kind).size_bits
            if size is not None and held:
                resident = [getattr(stages[program.stages[n]].tiling, f"{kind}_resident_bits")[program.tiles[n]]
                            for n in [*held, load]]  # fmt: skip
                assert sum(resident) <= size


def test_traffic_of_a_layer_is_that_of_its_tiling():
    each = tiling(tiles=2, weight_bits=[8, 0], activation_bits=[16, 24], store_bits=[0, 32], compute=[5, 5])
    for bandwidth in (1.0, 8.0, float("inf")):
        program = make_program([Stage(0, 0, each)], Surroundings(bytes_per_cycle=bandwidth, ports={"weight": Ports(4)}))
        moved = {kind: sum(b for b, k in zip(program.bits, program.kinds, strict=True) if k == kind)
                 for kind in ("weight", "activation", "store")}  # fmt: skip
        assert moved == {"weight": 8, "activation": 40, "store": 32}
        assert np.sum(program.bits) == each.dram_read_bits + each.dram_write_bits
