"""What a case hands back: rows, each a measurement with its peer or limit and its goal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.measure import Sample

Kind = Literal["ratio", "value"]


@dataclass(frozen=True)
class Goal:
    """What a row has to reach.

    kind : "ratio": the row's ratio is at least `limit`; "value": its value is at most `limit`
    """

    kind: Kind
    limit: float

    def reached(self, found: float) -> float:
        """Return how far `found` goes towards the goal: 1 or more meets it."""
        return found / self.limit if self.kind == "ratio" else self.limit / found


@dataclass(frozen=True)
class Row:
    """One line of the table.

    case, name : which; together they are the key that an earlier run is compared by
    value, unit : what was measured: CPU seconds (unit "s"), or bytes ("MiB"), or nothing (None)
    low, high, repeats : smallest and largest value, and of how many
    work, work_unit : how much was done, for a rate: MACs, PE-cycles
    against : the peer or limit; against_value : what it took for `against_work` of the same work, in the same unit
    ratio : how much faster than the peer, per unit of work; or as its case says
    goal : or None
    missing : why nothing was measured, and what would change that
    note : what a reader must know
    """

    case: str
    name: str
    value: float | None = None
    unit: str = "s"
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    work: float | None = None
    work_unit: str = ""
    against: str = ""
    against_value: float | None = None
    against_work: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    missing: str = ""
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.case}: {self.name}"

    @property
    def rate(self) -> float | None:
        """Work a second."""
        if self.value is None or self.work is None or self.unit != "s":
            return None
        return self.work / self.value

    @property
    def against_rate(self) -> float | None:
        work = self.work if self.against_work is None else self.against_work
        if self.against_value is None or work is None or self.unit != "s":
            return None
        return work / self.against_value

    @property
    def reached(self) -> float | None:
        """How far the goal is reached (1 or more: met); None without a goal or without what it needs."""
        found = None if self.goal is None else (self.ratio if self.goal.kind == "ratio" else self.value)
        return None if found is None or self.goal is None else self.goal.reached(found)

    @property
    def met(self) -> bool | None:
        return None if self.reached is None else self.reached >= 1

    def to_json(self) -> dict[str, Any]:
        """Return everything, what follows from the fields included."""
        document = asdict(self)
        document["rate"], document["against_rate"] = self.rate, self.against_rate
        document["reached"], document["met"] = self.reached, self.met
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Row:
        """Return the row that :meth:`to_json` wrote. KeyError or TypeError where it is none."""
        given = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        if given.get("goal") is not None:
            given["goal"] = Goal(**given["goal"])
        return cls(**given)


def timed_row(
    case: str,
    name: str,
    sample: Sample,
    *,
    work: float | None = None,
    work_unit: str = "",
    peer: Sample | None = None,
    peer_work: float | None = None,
    against: str = "",
    goal: Goal | None = None,
    missing: str = "",
    note: str = "",
    **details: Any,
) -> Row:
    """Return the row of a timed piece of work; the ratio is that of rates (without work: of times)."""
    ratio = None
    if peer is not None:
        ours = 1.0 if work is None else work
        theirs = ours if peer_work is None else peer_work
        ratio = (ours / sample.median) / (theirs / peer.median)
    return Row(
        case=case,
        name=name,
        value=sample.median,
        low=sample.low,
        high=sample.high,
        repeats=len(sample.seconds),
        work=work,
        work_unit=work_unit,
        against=against,
        against_value=None if peer is None else peer.median,
        against_work=peer_work,
        ratio=ratio,
        goal=goal,
        missing=missing,
        note=note,
        details=details,
    )
