"""The rules of Chrome's trace JSON (Trace Event Format, JSON Object Format), as far as a timeline uses it."""

import math
from collections import defaultdict
from itertools import pairwise

METADATA = {
    "process_name": "name",
    "thread_name": "name",
    "process_sort_index": "sort_index",
    "thread_sort_index": "sort_index",
}
KEYS = {"X": {"ts", "dur", "cat"}, "C": {"ts"}, "M": {"ts"}}


def problems(document):
    """Return every breach of the rules, as sentences; an empty list: valid."""
    found = []
    if not isinstance(document.get("traceEvents"), list):
        return ["traceEvents is not a list"]
    if document.get("displayTimeUnit") not in ("ns", "ms"):
        found.append("displayTimeUnit is neither ns nor ms")
    processes, threads, slices, counters = set(), set(), defaultdict(list), defaultdict(list)
    for index, event in enumerate(document["traceEvents"]):
        where, phase = f"event {index}", event.get("ph")
        if phase not in KEYS:
            found.append(f"{where}: ph is {phase!r}")
            continue
        expected = {"ph", "name", "pid", "tid", "args"} | KEYS[phase]
        if set(event) != expected:
            found.append(f"{where}: keys {sorted(set(event) ^ expected)}")
            continue
        if not (isinstance(event["pid"], int) and isinstance(event["tid"], int) and isinstance(event["args"], dict)):
            found.append(f"{where}: pid, tid or args")
        if not isinstance(event["name"], str) or not event["name"]:
            found.append(f"{where}: no name")
        for key in ("ts", "dur"):
            value = event.get(key, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                found.append(f"{where}: {key} is {value!r}")
        if phase == "M":
            if event["args"].keys() != {METADATA.get(event["name"])}:
                found.append(f"{where}: metadata {event['name']!r} with {sorted(event['args'])}")
            if event["name"] == "process_name":
                processes.add(event["pid"])
            if event["name"] == "thread_name":
                threads.add((event["pid"], event["tid"]))
        elif phase == "X":
            if event["dur"] <= 0:
                found.append(f"{where}: a slice of no length")
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], index))
        else:
            if not event["args"] or any(
                isinstance(v, bool) or not isinstance(v, int | float) for v in event["args"].values()
            ):
                found.append(f"{where}: a counter of {event['args']}")
            counters[event["pid"], event["name"]].append(event["ts"])
    found += [f"thread {track} has slices and no name" for track in slices if track not in threads]
    used = {process for process, _ in (*slices, *counters)}
    found += [f"process {process} has no name" for process in used - processes]
    for track, spans in slices.items():
        spans.sort()
        for (_, end, one), (start, _, other) in pairwise(spans):
            if start < end - 1e-9 * max(1.0, end):
                found.append(f"events {one} and {other} of {track} overlap")
    found += [f"counter {name} goes back in time" for name, times in counters.items() if times != sorted(set(times))]
    return found
