"""When every operation of a program happens: the recurrence that the program's fixed orders make of it.

A transfer passes, one after another: its turn on its core's next DMA engine, the set-up, the latency, and its turn on
the channels, in the program's order. A tile begins when all that it waits for has ended. Every time is the latest of
some earlier times plus a constant, so one pass over the operations finds them all; the SimPy processes of
accelsim.memory.processes find the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.memory.program import Prefetch, Program


@dataclass(frozen=True)
class Schedule:
    """Cycles of every operation of a program; lists have one entry an operation.

    begins : a tile starts to compute; a DMA engine takes up a transfer
    moves : the first beat of a transfer's data (a tile's begin)
    ends : exclusive
    engines : of the core's DMA engines the one that did it; of tiles 0
    served : transfers in the order in which the channels served them
    """

    program: Program
    prefetch: Prefetch
    begins: list[int]
    moves: list[int]
    ends: list[int]
    engines: list[int]
    served: list[int]

    @property
    def makespan_cycles(self) -> int:
        return max(self.ends, default=0)


def run_recurrence(program: Program, prefetch: Prefetch) -> Schedule:
    """Return when everything happens, in closed form."""
    count = len(program)
    begins, moves, ends, engines = [0] * count, [0] * count, [0] * count, [0] * count
    machine = program.surroundings
    setup, latency, engine_count = machine.setup_cycles, machine.latency_cycles, machine.engines
    engine_free = [[0] * engine_count for _ in range(program.core_count)]
    turn = [0] * program.core_count
    channels_free = 0
    served = []
    kinds, cores, waits, spans, stalls = (
        program.kinds, program.cores, program.waits, program.spans, program.buffer_stalls,
    )  # fmt: skip
    for number in program.orders[prefetch]:
        ready = 0
        for other in waits[number]:
            if ends[other] > ready:
                ready = ends[other]
        if kinds[number] == "tile":
            begins[number] = moves[number] = ready
            ends[number] = ready + spans[number] + stalls[number]
            continue
        core = cores[number]
        engine = turn[core]
        turn[core] = (engine + 1) % engine_count
        begins[number] = max(ready, engine_free[core][engine])
        moves[number] = max(begins[number] + setup + latency, channels_free)
        channels_free = ends[number] = moves[number] + spans[number]
        engine_free[core][engine] = channels_free
        engines[number] = engine
        served.append(number)
    return Schedule(program, prefetch, begins, moves, ends, engines, served)
