"""Verilator on a register-level systolic array written for this benchmark (benchmarks/rtl)."""

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


def version() -> str:
    """Return Verilator's version. NotInstalledError if it, a compiler or make is missing."""
    if any(shutil.which(tool) is None for tool in ("verilator", "g++", "make")):
        raise NotInstalledError(HOW)
    return subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def build(dataflow: Dataflow, size: int, optimize: Build) -> Path:
    """Return the simulator of an array of size x size PEs; built once, kept in the user's cache."""
    sources = [RTL / f"{dataflow}_array.sv", RTL / "driver.cpp"]
    key = [version(), *FLAGS, OPTIMIZE[optimize], str(size), dataflow, *(source.read_text() for source in sources)]
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    program = cache_folder("verilator") / f"{dataflow}{size}-{optimize}-{digest}"
    if program.exists():
        return program
    top = f"{dataflow}_array"
    macros = f"-DROWS={size} -DCOLS={size} -DARRAY_HEADER='\"V{top}.h\"' -DARRAY_CLASS=V{top}"
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
    """

    records: np.ndarray
    where: np.ndarray
    expected: np.ndarray

    @property
    def cycles(self) -> int:
        return len(self.records)


def stimulus(dataflow: Dataflow, size: int, length: int, tiles: int) -> Stimulus:
    """Return random int8 tiles: `length` steps of K (os) or streamed rows (ws) each, on size x size PEs."""
    rng = np.random.default_rng(0)
    make = _os_tile if dataflow == "os" else _ws_tile
    parts = [make(rng, size, length) for _ in range(tiles)]
    period = len(parts[0].records)
    where = [part.where + np.array([number * period, 0]) for number, part in enumerate(parts)]
    records = np.concatenate([part.records for part in parts])
    return Stimulus(records, np.concatenate(where), np.concatenate([part.expected for part in parts]))


def _os_tile(rng: np.random.Generator, size: int, length: int) -> Stimulus:
    a, b = _random(rng, (size, length)), _random(rng, (length, size))
    last = length + 2 * size - 2  # the edge at which the far corner adds its last product
    records = np.zeros((last + 1 + size, 1 + 2 * size), np.int8)
    records[last + 1 :, 0] = 1  # drain
    for i in range(size):
        records[i : i + length, 1 + i] = a[i]
        records[i : i + length, 1 + size + i] = b[:, i]
    row, column = np.divmod(np.arange(size * size), size)
    where = np.stack([last + size - 1 - row, column], axis=1)  # row size - 1 shows first
    return Stimulus(records.view(np.uint8), where, (_wide(a) @ _wide(b)).ravel())


def _ws_tile(rng: np.random.Generator, size: int, length: int) -> Stimulus:
    a, w = _random(rng, (length, size)), _random(rng, (size, size))
    records = np.zeros((size + length + 2 * size - 2, 1 + 2 * size), np.int8)
    records[:size, 0] = 1  # load
    records[:size, 1 + size :] = w[::-1]
    for i in range(size):
        records[size + i : size + i + length, 1 + i] = a[:, i]
    row, column = np.divmod(np.arange(length * size), size)
    where = np.stack([size + row + size - 1 + column, column], axis=1)
    return Stimulus(records.view(np.uint8), where, (_wide(a) @ _wide(w)).ravel())


def _random(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(-128, 128, shape, np.int8)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32)


def simulate(program: Path, work: Stimulus) -> tuple[float, np.ndarray]:
    """Return the CPU seconds of the simulation loop alone, and the results that left the array."""
    size = (work.records.shape[1] - 1) // 2
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "in", Path(folder) / "out"
        work.records.tofile(given)
        child = checked(run_child([program, given, got, str(work.cycles)]), program.name)
        bottom = np.fromfile(got, np.int32).reshape(work.cycles, size)
    return float(child.stdout), bottom[work.where[:, 0], work.where[:, 1]]


def timer(dataflow: Dataflow, size: int, optimize: Build, work: Stimulus) -> Timed:
    """Return what times the array on `work`. RuntimeError if its results are not NumPy's; NotInstalledError."""
    program = build(dataflow, size, optimize)
    _, found = simulate(program, work)
    if not np.array_equal(found, work.expected):
        wrong = int(np.count_nonzero(found != work.expected))
        raise RuntimeError(f"the {dataflow} array of {size} x {size} gives {wrong} results that are not NumPy's")
    return lambda: simulate(program, work)[0]
