"""Engines: what the PE array computes, in which cycle, with which overflows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelsim.engine.contract import ComputeResult, Engine, OverflowEvent, RegisterWatch
from accelsim.errors import AccelsimError, did_you_mean

__all__ = ["ENGINES", "ComputeResult", "Engine", "OverflowEvent", "RegisterWatch", "get_engine"]


class _Engines(Mapping[str, Engine]):
    """The engines by name; each is built on first use, so that importing this package stays cheap."""

    _names = ("fast", "stepped")

    def __init__(self) -> None:
        self._built: dict[str, Engine] = {}

    def __getitem__(self, name: str) -> Engine:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._built:
            from accelsim.engine.fast import FastEngine
            from accelsim.engine.stepped import SteppedEngine

            self._built[name] = FastEngine() if name == "fast" else SteppedEngine()
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


ENGINES: Mapping[str, Engine] = _Engines()


def get_engine(name: str, threads: int = 1) -> Engine:
    """Return the engine called "fast" or "stepped"; "auto" is "fast". AccelsimError for any other name.

    threads : how many share a layer's rows in the fast engine; results do not depend on it
    """
    wanted = "fast" if name == "auto" else name
    if wanted not in ENGINES:
        accepted = ["auto", *ENGINES]
        near = did_you_mean(name, accepted)
        raise AccelsimError(f"engine {name!r} is unknown{near}; use one of {', '.join(accepted)}")
    if wanted == "fast" and threads > 1:
        from accelsim.engine.fast import FastEngine

        return FastEngine(threads)
    return ENGINES[wanted]
