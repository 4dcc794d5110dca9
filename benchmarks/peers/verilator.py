"""Verilator on register-level systolic arrays written for this benchmark (benchmarks/rtl).

"array" is the array of docs/timing.md: skewed feeders at its edges, flags that travel with operands. "lean" is the
least that computes the same sums: skewed outside, zeros for what is not there, no flags.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.measure import Timed, checked, run_child
from benchmarks.peers import NotInstalledError, cache_folder

RTL = Path(__file__).resolve().parents[1] / "rtl"
HOW = "Verilator and a C++ compiler are needed: apt-get install verilator g++ make"
# What Verilator's manual recommends for speed; "native" also lets gcc use all of the processor.
FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal")
OPTIMIZE = {"recommended": "-Os", "native": "-O3 -march=native"}
Build = Literal["recommended", "native"]
Dataflow = Literal["os", "ws"]
Array = Literal["array", "lean"]
DRAIN = LOAD = 2  # bits of the control byte; the lean arrays have one, the lowest
VALID = 1


def version() -> str:
    """Return Verilator's version. NotInstalledError if it, a compiler or make is missing."""
    if any(shutil.which(tool) is None for tool in ("verilator", "g++", "make")):
        raise NotInstalledError(HOW)
    return subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def build(array: Array, dataflow: Dataflow, size: int, optimize: Build) -> Path:
    """Return the simulator of an array of size x size PEs; built once, kept in the user's cache."""
    top = f"{dataflow}_{array}"
    sources = [RTL / f"{top}.sv", *([RTL / "skew.sv"] if array == "array" else []), RTL / "driver.cpp"]
    key = [version(), *FLAGS, OPTIMIZE[optimize], str(size), top, *(source.read_text() for source in sources)]
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    program = cache_folder("verilator") / f"{top}{size}-{optimize}-{digest}"
    if program.exists():
        return program
    macros = f"-DROWS={size} -DCOLS={size} -DARRAY_HEADER='\"V{top}.h\"' -DARRAY_CLASS=V{top}"
    macros += " -DARRAY_HAS_DONE" if array == "array" else ""
    with tempfile.TemporaryDirectory() as folder:
        command = ["verilator", "--cc", "--exe", "--build", *FLAGS, "--top-module", top]
        command += [f"-GROWS={size}", f"-GCOLS={size}", "-CFLAGS", macros, "-MAKEFLAGS"]
        command += [f"OPT_FAST='{OPTIMIZE[optimize]}'", "--Mdir", folder, *map(str, sources)]
        checked(run_child(command), f"building {program.name}")
        part = program.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / f"V{top}", part)
        part.rename(program)
    return program


@dataclass(frozen=True)
class Stimulus:
    """Tiles one after another: what enters the edges in every cycle, and what must leave.

    records : uint8 [cycles, 1 + rows + cols], control, left edge, top edge
    where : int [results, 2], cycle and column of the bottom edge of each result
    expected : int32 [results]
    done : int [tiles], cycles after whose edge the array says that its far corner is about to finish; empty: it never
        says so
    """

    records: np.ndarray
    where: np.ndarray
    expected: np.ndarray
    done: np.ndarray

    @property
    def cycles(self) -> int:
        return len(self.records)


def pass_cycles(size: int, length: int) -> int:
    """Return the cycles of a pass of `length` steps of K (os), or streamed rows (ws): docs/timing.md, section 3.

    The load of the one takes as long as the drain of the other.
    """
    return length + 3 * size - 2


def stimulus(array: Array, dataflow: Dataflow, size: int, length: int, tiles: int) -> Stimulus:
    """Return random int8 tiles: `length` steps of K (os) or streamed rows (ws) each, on size x size PEs.

    A tile follows another after the cycles of a pass; the first one's first operands are in the edge's registers one
    cycle before its first cycle.
    """
    rng = np.random.default_rng(0)
    period = pass_cycles(size, length)
    records = np.zeros((tiles * period + 1, 1 + 2 * size), np.int8)
    where, expected, done = [], [], []
    for tile in range(tiles):
        own = records[tile * period : (tile + 1) * period + 1]
        fill = _os_tile if dataflow == "os" else _ws_tile
        cycles, values, last = fill(rng, own, array, size, length)
        where.append(cycles + np.array([tile * period, 0]))
        expected.append(values)
        done.append(last + tile * period)
    return Stimulus(
        records.view(np.uint8),
        np.concatenate(where),
        np.concatenate(expected),
        np.array(done if array == "array" else [], np.int64),
    )


def _os_tile(
    rng: np.random.Generator, records: np.ndarray, array: Array, size: int, length: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fill a tile's records; return where its results appear, the results, and the cycle of `done`."""
    a, b = _random(rng, (size, length)), _random(rng, (length, size))
    corner = length + 2 * size - 2  # the edge at which the far corner adds its last product
    records[corner + 1 : corner + 1 + size, 0] |= DRAIN if array == "array" else 1
    _stream(records, 1, a, array)
    _stream(records, 1 + size, b.T, array)
    row, column = np.divmod(np.arange(size * size), size)
    where = np.stack([corner + size - row, column], axis=1)  # the bottom row shows before the drain moves it
    where[:, 0] -= 1
    return where, (_wide(a) @ _wide(b)).ravel(), corner - 1


def _ws_tile(
    rng: np.random.Generator, records: np.ndarray, array: Array, size: int, length: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fill a tile's records; return where its results appear, the results, and the cycle of `done`."""
    a, w = _random(rng, (length, size)), _random(rng, (size, size))
    # Loads begin a cycle late, so that operands of the first row are in their registers when the last load has ended.
    records[1 : 1 + size, 0] |= LOAD if array == "array" else 1
    records[1 : 1 + size, 1 + size :] = w[::-1]
    late = 0 if array == "array" else 1  # the lean PEs multiply what comes in, not what they hold
    _stream(records[size + late :], 1, a.T, array)
    row, column = np.divmod(np.arange(length * size), size)
    corner = size + length + 2 * size - 2
    where = np.stack([1 + size + row + size - 1 + column, column], axis=1)
    return where, (_wide(a) @ _wide(w)).ravel(), corner - 1


def _stream(records: np.ndarray, first: int, lines: np.ndarray, array: Array) -> None:
    """Let line i enter at place first + i, from the first record on; the lean arrays are skewed here."""
    length = lines.shape[1]
    for i, line in enumerate(lines):
        skew = 0 if array == "array" else i
        records[skew : skew + length, first + i] = line
    if array == "array":
        records[:length, 0] |= VALID


def _random(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(-128, 128, shape, np.int8)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32)


def simulate(program: Path, work: Stimulus) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the CPU seconds of the simulation loop, the results that left the array, and the cycles of `done`."""
    size = (work.records.shape[1] - 1) // 2
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "in", Path(folder) / "out"
        work.records.tofile(given)
        child = checked(run_child([program, given, got, str(work.cycles)]), program.name)
        bottom = np.fromfile(got, np.int32, work.cycles * size).reshape(work.cycles, size)
        done = np.fromfile(got, np.uint8, offset=bottom.nbytes)
    return float(child.stdout), bottom[work.where[:, 0], work.where[:, 1]], np.flatnonzero(done)


def timer(array: Array, dataflow: Dataflow, size: int, optimize: Build, work: Stimulus) -> Timed:
    """Return what times the array on `work`.

    RuntimeError if its results are not NumPy's, or not in the cycles where they must be; NotInstalledError.
    """
    program = build(array, dataflow, size, optimize)
    _, found, done = simulate(program, work)
    if not np.array_equal(found, work.expected):
        wrong = int(np.count_nonzero(found != work.expected))
        raise RuntimeError(f"{program.name}: {wrong} results are not NumPy's")
    if not np.array_equal(done, work.done):
        raise RuntimeError(f"{program.name}: the far corner finishes in other cycles than the plan's")
    return lambda: simulate(program, work)[0]
