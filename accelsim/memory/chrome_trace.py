"""A timeline as Chrome trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

The format: "Trace Event Format" (Google, 2016), JSON Object Format: complete events ("X"), counters ("C") and metadata
("M"). Times are microseconds at the array's clock.
"""

from __future__ import annotations

import json
from typing import Any

from accelsim.memory.contract import Timeline

CHIP = 1
"""The process id of what all cores share; core n is process n + 2."""


def chrome_trace(timeline: Timeline, clock_mhz: float, title: str = "accelsim") -> str:
    """Return the JSON document of a recorded timeline.

    Each core is a process with a thread for its array, PPU, vector unit and DMA engines, and the DRAM is a process; a
    slice's args say which layer it belongs to and how many cycles it takes.
    """
    tracks = list(dict.fromkeys(each.track for each in timeline.slices))
    tracks.sort(key=_place)
    threads = {track: (_process(track), number) for number, track in enumerate(tracks, start=1)}
    processes = {_process(track) for track in tracks} | {_process(name) for name, _ in timeline.counters}
    events: list[dict[str, Any]] = []
    for process in sorted(processes):
        name = "memory" if process == CHIP else f"core {process - CHIP - 1}"
        events.append(_metadata("process_name", process, 0, name=name))
        events.append(_metadata("process_sort_index", process, 0, sort_index=process))
    for track, (process, thread) in threads.items():
        events.append(_metadata("thread_name", process, thread, name=track))
        events.append(_metadata("thread_sort_index", process, thread, sort_index=thread))
    for each in sorted(timeline.slices, key=lambda one: (one.start_cycle, one.end_cycle)):
        process, thread = threads[each.track]
        cycles = each.end_cycle - each.start_cycle
        events.append(
            {
                "ph": "X",
                "name": each.name,
                "cat": "wait" if each.name.startswith("wait: ") else each.track.split()[0],
                "pid": process,
                "tid": thread,
                "ts": each.start_cycle / clock_mhz,
                "dur": cycles / clock_mhz,
                "args": {"layer": each.layer, "start_cycle": each.start_cycle, "cycles": cycles, **dict(each.args)},
            }
        )
    for name, points in timeline.counters:
        quantity, _, unit = name.rpartition(", ")
        head = {"ph": "C", "name": quantity, "pid": _process(name), "tid": 0}
        events += [head | {"ts": cycle / clock_mhz, "args": {unit: value}} for cycle, value in points]
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"title": title, "clock_mhz": clock_mhz, "makespan_cycles": timeline.makespan_cycles},
    }
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _metadata(kind: str, process: int, thread: int, **args: str | int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "ts": 0, "args": args}


def _process(track: str) -> int:
    word, _, rest = track.partition(" ")
    if word.lower() == "dram":
        return CHIP
    return int(rest.split()[0].split(".")[0]) + CHIP + 1


def _place(track: str) -> tuple[int, int, str]:
    return _process(track), ("core", "ppu", "vector", "dma", "dram").index(track.split()[0]), track
