"""From stages to a timeline: the one entry to the simulation of time around the arrays."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.memory.causes import core_spells, make_timeline
from accelsim.memory.contract import Timeline
from accelsim.memory.machine import Surroundings
from accelsim.memory.processes import run_processes
from accelsim.memory.program import Prefetch, Stage, make_program
from accelsim.memory.record import record as recorded
from accelsim.memory.schedule import Schedule, run_recurrence

SIMPY_OPERATIONS = 1_000
"""Of the chosen program: up to so many are simulated by processes, more by the recurrence, which finds the same."""
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
    return timeline_of(shortest([stages], surroundings, core_count, processes=processes)[1], names, record=record)


def shortest(
    plans: Sequence[Sequence[Stage]], surroundings: Surroundings, core_count: int, *, processes: bool = True
) -> tuple[int, Schedule]:
    """Return which of several plans has the shortest run, the first of equal ones, and its schedule.

    processes : as of :func:`run_timeline`

    Each plan is tried with each prefetch, the less eager one first, as a compiler would. Every time is the latest of
    some earlier ones plus a constant, for a plan and a prefetch; so no run becomes longer where a part becomes faster,
    and neither does the shortest one, for the plans do not depend on the parts' speed.
    """
    best: tuple[int, Schedule] | None = None
    for number, stages in enumerate(plans):
        program = make_program(stages, surroundings, core_count)
        for prefetch in PREFETCH:
            schedule = run_recurrence(program, prefetch)
            if best is None or schedule.makespan_cycles < best[1].makespan_cycles:
                best = number, schedule
    assert best is not None
    number, schedule = best
    if processes and len(schedule.program) <= SIMPY_OPERATIONS:
        schedule = run_processes(schedule.program, schedule.prefetch)
    return number, schedule


def timeline_of(schedule: Schedule, names: Sequence[str], *, record: bool = False) -> Timeline:
    """Return a schedule as a timeline; arguments as of :func:`run_timeline`."""
    spells = core_spells(schedule)
    timeline = make_timeline(schedule, tuple(names), spells)
    return recorded(timeline, schedule, spells) if record else timeline
