"""The machine as SimPy processes: loads, arrays, PPUs and stores that wait for each other, DMA engines and DRAM.

Each core has one process that computes its tiles. Post-processing a tile is a process of its own, which holds the
core's PPU while results leave the array; the array has nowhere else to put them, and goes on when the last one is
taken. Each transfer of a tile is a process too: weights, activations, unfinished sums that come back, stores,
unfinished sums that leave. It waits until its data or its room is there, and then asks one of the core's DMA engines;
the engine sets it up, waits for DRAM's latency and then for the channels, which serve all cores in the program's fixed
order. Nothing here computes a time: the clock is SimPy's.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from accelsim.memory.program import Prefetch, Program
from accelsim.memory.schedule import Schedule

if TYPE_CHECKING:
    import simpy


def run_processes(program: Program, prefetch: Prefetch) -> Schedule:
    """Return when everything happens, by letting the processes run."""
    return _Machine(program, prefetch).run()


class _Machine:
    def __init__(self, program: Program, prefetch: Prefetch) -> None:
        import simpy

        self.program, self.prefetch = program, prefetch
        self.env = env = simpy.Environment()
        count = len(program)
        self.begins, self.moves, self.ends, self.engines = ([0] * count for _ in range(4))
        self.asked = {n: env.event() for n in range(count) if program.kinds[n] != "tile"}
        self.done = [env.event() for _ in range(count)]
        self.served = [number for number in program.orders[prefetch] if program.kinds[number] != "tile"]
        self.before: dict[int, int | None] = dict(zip(self.served, [None, *self.served], strict=False))
        self.channels = simpy.Resource(env, capacity=1)
        self.ppus = [simpy.Resource(env, capacity=1) for _ in range(program.core_count)]

    def run(self) -> Schedule:
        program, env = self.program, self.env
        engine_count = program.surroundings.engines
        for number in self.served:
            env.process(self._transfer(number))
        for core in range(program.core_count):
            env.process(self._tiles(core))
            mine = [number for number in self.served if program.cores[number] == core]
            for engine in range(engine_count):
                env.process(self._engine(engine, mine[engine::engine_count]))
        env.run()
        return Schedule(program, self.prefetch, self.begins, self.moves, self.ends, self.engines, self.served)

    def _needs(self, number: int) -> simpy.Event:
        return self.env.all_of([self.done[other] for other in self.program.waits[number]])

    def _tiles(self, core: int) -> Generator[Any, Any, None]:
        """Compute one tile after another, each until the PPU has taken its last result."""
        program, env = self.program, self.env
        for number in range(len(program)):
            if program.kinds[number] != "tile" or program.cores[number] != core:
                continue
            yield self._needs(number)
            self.begins[number] = self.moves[number] = int(env.now)
            tiling = program.stage_list[program.stages[number]].tiling
            post = int(tiling.post[program.tiles[number]])
            yield env.timeout(program.spans[number] + program.buffer_stalls[number] - post)
            yield env.process(self._post_process(core, post))
            self._end(number)

    def _post_process(self, core: int, cycles: int) -> Generator[Any, Any, None]:
        """Take a tile's results, from the first to the last one."""
        with self.ppus[core].request() as turn:
            yield turn
            yield self.env.timeout(cycles)

    def _transfer(self, number: int) -> Generator[Any, Any, None]:
        """Ask for a transfer as soon as its data or its room is there."""
        yield self._needs(number)
        self.asked[number].succeed()

    def _engine(self, engine: int, numbers: list[int]) -> Generator[Any, Any, None]:
        """Work off the transfers that fall to one DMA engine."""
        env, machine = self.env, self.program.surroundings
        for number in numbers:
            yield self.asked[number]
            self.begins[number], self.engines[number] = int(env.now), engine
            yield env.timeout(machine.setup_cycles)
            yield env.timeout(machine.latency_cycles)
            before = self.before[number]
            if before is not None:
                yield self.done[before]
            with self.channels.request() as turn:
                yield turn
                self.moves[number] = int(env.now)
                yield env.timeout(self.program.spans[number])
                self._end(number)

    def _end(self, number: int) -> None:
        self.ends[number] = int(self.env.now)
        self.done[number].succeed()
