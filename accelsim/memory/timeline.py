"""From stages to a timeline: the one entry to the simulation of time around the arrays."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.memory.causes import core_spells, make_timeline
from accelsim.memory.contract import Timeline
from accelsim.memory.machine import Surroundings
from accelsim.memory.processes import run_processes
from accelsim.memory.program import Prefetch, Program, Stage, make_program
from accelsim.memory.record import record as recorded
from accelsim.memory.schedule import Schedule, run_recurrence

SIMPY_OPERATIONS = 1_000
"""Programs of up to so many operations are simulated by processes, larger ones by the recurrence: the same numbers."""
PREFETCH: tuple[Prefetch, ...] = ("next tile", "eager")


def run_timeline(
    stages: Sequence[Stage],
    names: Sequence[str],
    surroundings: Surroundings,
    core_count: int = 1,
    *,
    record: bool = False,
    processes: bool = True,
) -> Timeline:
    """Return when everything of a run happens, and where every cycle of every core goes.

    stages : what each core computes, in order (see Stage); names : of the layers
    record : also fill in the timeline's slices and counters
    processes : False: never by processes, as estimates are made, of which searches want thousands
    """
    schedule = fastest(make_program(stages, surroundings, core_count), processes=processes)
    spells = core_spells(schedule)
    timeline = make_timeline(schedule, tuple(names), spells)
    return recorded(timeline, schedule, spells) if record else timeline


def fastest(program: Program, *, processes: bool = True) -> Schedule:
    """Return the schedule of the prefetch with the shorter run, the less eager one where they are equal: a compiler
    would try both.
    """
    run = run_processes if processes and len(program) <= SIMPY_OPERATIONS else run_recurrence
    return min((run(program, prefetch) for prefetch in PREFETCH), key=lambda schedule: schedule.makespan_cycles)
