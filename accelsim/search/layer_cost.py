"""What one layer costs at one pair of widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from accelsim.report.estimates import LayerEstimate
from accelsim.search.bops import hawq_bops, uniq_bops

Cost = Literal["latency", "energy", "edp", "size", "bops"]
Range = tuple[int, int]
COSTS: tuple[Cost, ...] = ("latency", "energy", "edp", "size", "bops")


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Whether sums of products fit the registers, whatever the data; biases apart.

    psum_bits, accumulator_bits : the machine's registers
    folded_bits, sum_bits : what holds every sum of the products that one psum adds up, and of all K products of an
        output: two's complement, from the extreme codes of both operands

    >>> sums = Sums.of(576, 144, (-8, 7), (0, 15), psum_bits=16, accumulator_bits=16)  # -69120 to 60480
    >>> sums.folded_bits, sums.sum_bits, sums.overflow_possible
    (16, 18, True)
    """

    psum_bits: int
    accumulator_bits: int
    folded_bits: int
    sum_bits: int

    @classmethod
    def of(
        cls, k: int, folded: int, weight: Range, activation: Range, *, psum_bits: int, accumulator_bits: int
    ) -> Sums:
        """Return those of K products, `folded` of which a psum adds up; weight, activation: (lowest, highest) code."""
        return cls(
            psum_bits=psum_bits,
            accumulator_bits=accumulator_bits,
            folded_bits=_holding(min(k, folded), weight, activation),
            sum_bits=_holding(k, weight, activation),
        )

    @property
    def overflow_possible(self) -> bool:
        return self.folded_bits > self.psum_bits or self.sum_bits > self.accumulator_bits


def _holding(count: int, weight: Range, activation: Range) -> int:
    products = [w * a for w in weight for a in activation]
    low, high = count * min(*products, 0), count * max(*products, 0)
    return 1 + max(high.bit_length(), (-low - 1).bit_length() if low else 0)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer at one pair of widths.

    kind : "conv2d", "depthwise", "linear", "matmul"; of the vector unit, the operator
    weight_bits, activation_bits : widths of the operands (of a matmul of two activations, weight_bits is the second
        one's); None: a layer whose widths are not chosen
    output_bits : bits of one output element
    estimate : cycles by cause, energy by component, traffic and sizes
    sums : whether they fit the registers; None of the vector unit
    weight_sqnr_db, activation_sqnr_db : measured on the network's own values; None where it has none
    weight_squared_error : ||W - Q(W)||^2, of all weights of the layer together
    """

    layer: str
    kind: str
    weight_bits: int | None
    activation_bits: int | None
    output_bits: int
    estimate: LayerEstimate
    sums: Sums | None = None
    weight_sqnr_db: float | None = None
    activation_sqnr_db: float | None = None
    weight_squared_error: float | None = None

    @property
    def bops(self) -> int:
        """Bit operations as HAWQ-V3 counts them; 0 for a layer without MACs."""
        widths = self.weight_bits or 0, self.activation_bits or 0
        return hawq_bops(self.estimate.macs, *widths)

    @property
    def uniq_bops(self) -> float:
        """Bit operations as UNIQ counts them, adders included."""
        if self.weight_bits is None or self.activation_bits is None:
            return 0.0
        reduction = max(1, self.estimate.shape.k)
        return uniq_bops(self.estimate.macs, reduction, self.weight_bits, self.activation_bits)

    def value(self, cost: Cost) -> float:
        """Return latency in µs, energy in pJ, edp in pJ x µs, size (of the weights) in bytes, or bops (HAWQ-V3's)."""
        known = self.estimate
        if cost == "latency":
            return known.latency_us
        if cost == "energy":
            return known.total_energy_pj
        if cost == "edp":
            return known.total_energy_pj * known.latency_us
        return known.weight_bits / 8 if cost == "size" else float(self.bops)

    def row(self) -> dict[str, Any]:
        """Return one flat row, units in the keys."""
        known, shape = self.estimate, self.estimate.shape
        row: dict[str, Any] = {
            "layer": self.layer,
            "kind": self.kind,
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "output_bits": self.output_bits,
            "batch": shape.batch,
            "m": shape.m,
            "k": shape.k,
            "n": shape.n,
            "macs": known.macs,
        }
        row |= {f"cycles_{cause}": cycles for cause, cycles in known.cycles.by_cause().items()}
        row |= {"cycles_total": known.total_cycles, "latency_us": known.latency_us}
        row |= {f"energy_{component}_pj": energy for component, energy in known.energy_pj.items()}
        return row | {
            "energy_total_pj": known.total_energy_pj,
            "edp_pj_us": self.value("edp"),
            "dram_bytes": (known.dram_read_bits + known.dram_write_bits) / 8,
            "weight_bytes": known.weight_bits / 8,
            "activation_bytes": known.activation_bits / 8,
            "output_bytes": known.output_bits / 8,
            "bops_hawq": self.bops,
            "bops_uniq": self.uniq_bops,
            "psum_bits": None if self.sums is None else self.sums.psum_bits,
            "accumulator_bits": None if self.sums is None else self.sums.accumulator_bits,
            "psum_bits_needed": None if self.sums is None else self.sums.folded_bits,
            "accumulator_bits_needed": None if self.sums is None else self.sums.sum_bits,
            "overflow_possible": None if self.sums is None else self.sums.overflow_possible,
            "weight_sqnr_db": self.weight_sqnr_db,
            "weight_squared_error": self.weight_squared_error,
            "activation_sqnr_db": self.activation_sqnr_db,
        }
