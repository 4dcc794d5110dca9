"""Three kernels against Verilator on the same array: registers moved, everything watched, values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from accelsim.config.model import Register
from accelsim.mapping.contract import GemmOperands, LayerPlan
from accelsim.mapping.plan import plan_operands
from benchmarks import engines
from benchmarks.measure import Timed, cpu_timer, in_turns, wall_timer
from benchmarks.peers import NotInstalledError, verilator
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Gemm
from benchmarks.workloads import integers, machine

LAYER = Gemm("gemm", 1, 512, 512, 512)
PSUM = Register(bits=18, overflow="saturate")  # random int8 over K = 512 overflows it now and then
PEERS: dict[str, tuple[verilator.Array, verilator.Build]] = {
    "Verilator": ("array", "recommended"),
    "Verilator -march=native": ("array", "native"),
    "Verilator, lean array": ("lean", "recommended"),
}
GOAL_PEER = "Verilator"  # the same array, with Verilator's own flags; the harder peers are shown beside it
SHARED_REPEATS = 15  # of what takes time on the wall
WATCHED_GOALS = {16: 16.0, 32: 22.0}
THREADS_GOAL = 1.8  # of one thread's
EVERY_CYCLE = "everything watched, with the history of every cycle"
Pick = Callable[[GemmOperands, LayerPlan], engines.Work]


def _layer(dataflow: verilator.Dataflow, size: int, *, narrow: bool) -> tuple[GemmOperands, LayerPlan, int]:
    """Return the layer and its PE-cycles."""
    operands = integers(LAYER)
    plan = plan_operands(operands, machine(size, size, dataflow, psum=PSUM if narrow else None))
    return operands, plan, (plan.cycles.total - plan.cycles.ppu) * size * size


def _peers(run: Run, dataflow: verilator.Dataflow, size: int) -> tuple[dict[str, Timed], int, str]:
    """Return Verilator's timers, the PE-cycles that each does, and what is missing."""
    tiles = max(1, 100_000 * 256 // (size * size) // (LAYER.k + 3 * size)) // (4 if run.quick else 1)
    timers: dict[str, Timed] = {}
    pe_cycles = 0
    try:
        for name in [GOAL_PEER] if run.quick else PEERS:
            array, build = PEERS[name]
            run.say(f"{name}, {dataflow} {size} x {size}: built if it is not, and checked against NumPy")
            work = verilator.stimulus(array, dataflow, size, LAYER.k, max(1, tiles))
            timers[name] = verilator.timer(array, dataflow, size, build, work)
            pe_cycles = work.cycles * size * size
    except NotInstalledError as error:
        return {}, 0, str(error)
    return timers, pe_cycles, ""


def _sizes(run: Run) -> tuple[int, ...]:
    return (16,) if run.quick else (16, 32)


def _check(work: engines.Work, operands: GemmOperands, plan: LayerPlan, *, narrow: bool) -> None:
    """RuntimeError where what is about to be timed does not compute the layer."""
    expected = engines.fast(operands, plan, watch=True)().acc if narrow else operands.a.astype(np.int64) @ operands.w
    if not np.array_equal(work().acc, expected):
        raise RuntimeError("the kernel gives other values than the reference")


def _against_verilator(
    run: Run, case: str, what: str, pick: Pick, goals: dict[int, float], *, narrow: bool
) -> Iterator[Row]:
    dataflows: tuple[verilator.Dataflow, ...] = ("os", "ws")
    for size in _sizes(run):
        goal = Goal("ratio", goals[size])
        for dataflow in dataflows:
            name = f"{what}, {dataflow} {size} x {size}"
            operands, plan, pe_cycles = _layer(dataflow, size, narrow=narrow)
            work = pick(operands, plan)
            _check(work, operands, plan, narrow=narrow)
            peers, peer_work, missing = _peers(run, dataflow, size)
            samples = in_turns({"ours": cpu_timer(work), **peers}, run.repeats)
            common = {"work": float(pe_cycles), "work_unit": "PE-cycle", "macs": LAYER.macs}
            for peer in peers:
                against_goal = peer == GOAL_PEER
                yield timed_row(
                    case,
                    name if against_goal else f"{name}, {peer.removeprefix('Verilator').strip(' ,')} peer",
                    samples["ours"],
                    peer=samples[peer],
                    peer_work=peer_work,
                    against=peer,
                    goal=goal if against_goal else None,
                    **common,
                )
            if missing:
                yield timed_row(case, name, samples["ours"], goal=goal, missing=f"the peer: {missing}", **common)


def _registers(run: Run) -> Iterable[Row]:
    return _against_verilator(run, "registers", "every register moved", engines.registers, {16: 4, 32: 7}, narrow=False)


def _watched(run: Run) -> Iterator[Row]:
    def pick(operands: GemmOperands, plan: LayerPlan) -> engines.Work:
        return engines.watched(operands, plan, history=True)

    yield from _against_verilator(run, "watched", EVERY_CYCLE, pick, WATCHED_GOALS, narrow=True)
    for size in _sizes(run):
        for dataflow in ("os", "ws"):
            yield _totals(run, dataflow, size)
    for size in _sizes(run):
        for dataflow in ("os", "ws"):
            yield _two_threads_against_verilator(run, dataflow, size)
            yield from _two_threads(run, dataflow, size)


def _totals(run: Run, dataflow: verilator.Dataflow, size: int) -> Row:
    """Return the row of what a run needs: totals, overflows of each output, and the first event's place and cycle."""
    operands, plan, pe_cycles = _layer(dataflow, size, narrow=True)
    both = {"totals": engines.watched(operands, plan), "history": engines.watched(operands, plan, history=True)}
    samples = in_turns({name: cpu_timer(work) for name, work in both.items()}, run.repeats)
    return timed_row(
        "watched",
        f"everything watched, {dataflow} {size} x {size}, totals and first events",
        samples["totals"],
        work=float(pe_cycles),
        work_unit="PE-cycle",
        peer=samples["history"],
        against="with the history of every cycle",
    )


def _two_threads_against_verilator(run: Run, dataflow: verilator.Dataflow, size: int) -> Row:
    """Return the row of one layer on two threads: our time on the wall, against Verilator's, which has one thread."""
    operands, plan, pe_cycles = _layer(dataflow, size, narrow=True)
    peers, peer_work, missing = _peers(run, dataflow, size)
    timers: dict[str, Timed] = {"ours": wall_timer(engines.watched(operands, plan, threads=2, history=True))}
    if peers:
        timers[GOAL_PEER] = peers[GOAL_PEER]
    samples = in_turns(timers, run.repeats)
    return timed_row(
        "watched",
        f"{EVERY_CYCLE}, {dataflow} {size} x {size}, 2 threads against Verilator",
        samples["ours"],
        work=float(pe_cycles),
        work_unit="PE-cycle",
        peer=samples.get(GOAL_PEER),
        peer_work=peer_work,
        against=GOAL_PEER if peers else "",
        goal=Goal("ratio", round(THREADS_GOAL * WATCHED_GOALS[size], 1)),
        missing=f"the peer: {missing}" if missing else "",
        note="time on the wall; needs two idle cores",
    )


def _two_threads(run: Run, dataflow: verilator.Dataflow, size: int) -> Iterator[Row]:
    """Yield the row of a layer that two threads share, and what two threads reach that share nothing: a layer each."""
    what = f"everything watched, {dataflow} {size} x {size}"
    operands, plan, pe_cycles = _layer(dataflow, size, narrow=True)
    one, two = engines.watched(operands, plan), engines.watched(operands, plan, threads=2)
    with ThreadPoolExecutor(2) as pool:

        def both() -> None:
            for future in [pool.submit(one), pool.submit(one)]:
                future.result()

        timers = {"one": wall_timer(one), "two": wall_timer(two), "both": wall_timer(both)}
        samples = in_turns(timers, max(run.repeats, SHARED_REPEATS))
    rows = (
        ("two", "2 threads", 1, Goal("ratio", THREADS_GOAL), "needs two idle cores"),
        ("both", "2 layers at once, a thread each", 2, None, "what this machine and Python allow"),
    )
    for timer, name, layers, goal, note in rows:
        yield timed_row(
            "watched",
            f"{what}, {name}",
            samples[timer],
            work=float(layers * pe_cycles),
            work_unit="PE-cycle",
            peer=samples["one"],
            peer_work=float(pe_cycles),
            against="1 thread",
            goal=goal,
            note=f"time on the wall, since CPU times of threads add up; {note}",
        )


def _values(run: Run) -> Iterable[Row]:
    def pick(operands: GemmOperands, plan: LayerPlan) -> engines.Work:
        return engines.fast(operands, plan, watch=False)

    return _against_verilator(run, "values", "values only", pick, {16: 80, 32: 100}, narrow=False)


CASES = (
    Case(
        "registers",
        "every register of every PE moved in every cycle, against RTL simulation of the same array",
        "4x Verilator at 16 x 16, 7x at 32 x 32",
        _registers,
    ),
    Case(
        "watched",
        "saturation, every overflow with place and cycle, accumulator toggles, against RTL that watches nothing",
        "16x Verilator at 16 x 16, 22x at 32 x 32; on two threads 1.8x that, and 1.8x one thread",
        _watched,
    ),
    Case(
        "values",
        "values only, overflow proved impossible, against RTL simulation of the same array",
        "80x Verilator at 16 x 16, 100x at 32 x 32",
        _values,
    ),
)
