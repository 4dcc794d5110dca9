"""SCALE-Sim's configuration files (``.cfg``) as ours: the array, the buffers, the bandwidth (docs/estimate.md).

SCALE-Sim v2 and v3 (Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators using
SCALE-Sim", ISPASS 2020). It has no clock, no widths and no energy: those are ours.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

from accelsim.errors import ConfigError, problem_list

CLOCK_MHZ = 1000.0
SECTION, RUN, SPARSE = "architecture_presets", "run_presets", "sparsity"
YES = ("true", "yes", "on", "1")
SIZES = {"IfmapSramSzkB": "activation", "FilterSramSzkB": "weight", "OfmapSramSzkB": "output"}
DATAFLOWS = ("os", "ws", "is")


def read_scale_sim(text: str, source: str) -> dict[str, Any]:
    """Return the configuration, as plain values for :func:`accelsim.config.loader.parse_config`.

    ArrayHeight, ArrayWidth, Dataflow : the array: int8 operands, 32-bit sums, folds one after another at full extents,
        as SCALE-Sim counts
    IfmapSramSzkB, FilterSramSzkB, OfmapSramSzkB : the buffers, in KiB; each is two halves, one of which is filled while
        the other works
    Bandwidth : words of one byte a cycle, where ``InterfaceBandwidth = USER``; with CALC memory never waits

    The clock is 1000 MHz: latencies in cycles are SCALE-Sim's, those in time are not.

    Raises ConfigError with everything that is missing or wrong.
    """
    reader = configparser.ConfigParser(interpolation=None)  # keys in any case, as SCALE-Sim reads them
    try:
        reader.read_string(text.removeprefix("\ufeff"), source)
    except configparser.Error as error:
        raise ConfigError(f"{source}: not a SCALE-Sim configuration: {str(error).splitlines()[0]}") from None
    if SECTION not in reader:
        found = ", ".join(reader.sections()) or "none"
        raise ConfigError(f"{source}: a SCALE-Sim configuration has a section [{SECTION}]; found {found}")
    section, problems = reader[SECTION], []

    def whole(key: str, low: int, high: int) -> int:
        raw = section.get(key, "").split(",")[0].strip()
        if raw.isdecimal() and low <= int(raw) <= high:
            return int(raw)
        problems.append(f"[{SECTION}] {key}: {raw or 'missing'}; use a whole number from {low} to {high}")
        return low

    rows, cols = whole("ArrayHeight", 1, 4096), whole("ArrayWidth", 1, 4096)
    buffers = {name: {"size_bytes": 1024 * whole(key, 1, 1 << 20), "ping_pong": True} for key, name in SIZES.items()}
    dataflow = section.get("Dataflow", "").strip().lower()
    if dataflow not in DATAFLOWS:
        problems.append(f"[{SECTION}] Dataflow: {dataflow or 'missing'}; use one of {', '.join(DATAFLOWS)}")
    dram: dict[str, Any] = {"timing": "ideal"}
    interface = reader.get(RUN, "InterfaceBandwidth", fallback="CALC").strip().upper()
    if interface == "USER":
        dram = {
            "timing": "preset",
            "bytes_per_cycle": float(whole("Bandwidth", 1, 1 << 20)),
            "latency_cycles": 0,
            "burst_bytes": 1,
            "channels": 1,
        }
    elif interface != "CALC":
        problems.append(f"[{RUN}] InterfaceBandwidth: {interface}; use CALC or USER")
    sparse = all(
        reader.get(SPARSE, key, fallback="").strip().lower() in YES for key in ("SparsitySupport", "OptimizedMapping")
    )
    if sparse:  # rows of weights at random; what a topology's own column asks for is checked where that is read
        problems.append(f"[{SPARSE}] OptimizedMapping: true; sparsity row by row is not modelled: use false")
    if problems:
        raise ConfigError(problem_list(source, problems))
    name = reader.get("general", "run_name", fallback="").strip().strip('"') or Path(source).stem
    return {
        "name": name[:100],
        "clock_mhz": CLOCK_MHZ,
        "array": {"rows": rows, "cols": cols, "dataflow": dataflow},
        "ppu": {"lanes": cols, "latency_cycles": 0},
        "buffers": buffers,
        "dram": dram,
    }
