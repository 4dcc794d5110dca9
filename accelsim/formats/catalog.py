"""The catalog: one line per format (or family of widths), and the grammar of names that describe further ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from accelsim.errors import FormatError, did_you_mean
from accelsim.formats.binary import BinaryFormat
from accelsim.formats.codebook import DEFAULT_LANE_BITS, MAX_INDEX_BITS, CodebookFormat
from accelsim.formats.fixed_point import FixedPointFormat
from accelsim.formats.group import MAX_GROUP_SIZE, GroupFormat
from accelsim.formats.integer import MAX_ACCUMULATOR_BITS, MAX_OPERAND_BITS, IntegerFormat
from accelsim.formats.microexponents import MicroexponentFormat
from accelsim.formats.minifloat import BF16, E2M1, E2M3, E3M2, E4M3, E5M2, FP16, MinifloatFormat
from accelsim.formats.nvfp4 import Nvfp4Format
from accelsim.formats.ocp_mx import INT8, OcpMxFormat
from accelsim.formats.power_of_two import MAX_BITS as MAX_PO2_BITS
from accelsim.formats.power_of_two import PowerOfTwoFormat
from accelsim.formats.spec import Format
from accelsim.formats.ternary import TernaryFormat, TrainedTernaryFormat
from accelsim.formats.vsq import MAX_ELEMENT_BITS, MAX_SCALE_BITS, MAX_VECTOR_SIZE, VsqFormat

_OPERAND_BITS = range(2, MAX_OPERAND_BITS + 1)

CATALOG: dict[str, Format] = {
    **{f"int{bits}": IntegerFormat(bits) for bits in _OPERAND_BITS},
    **{f"uint{bits}": IntegerFormat(bits, signed=False) for bits in _OPERAND_BITS},
    **{f"int{bits}n": IntegerFormat(bits, narrow=True) for bits in _OPERAND_BITS},
    "vsq4": VsqFormat(4, signed=True, vector_size=16, scale_bits=4),
    "vsq6": VsqFormat(6, signed=True, vector_size=16, scale_bits=4),
    "vsq8": VsqFormat(8, signed=True, vector_size=16, scale_bits=4),
    "uvsq4": VsqFormat(4, signed=False, vector_size=16, scale_bits=4),
    "uvsq6": VsqFormat(6, signed=False, vector_size=16, scale_bits=4),
    "uvsq8": VsqFormat(8, signed=False, vector_size=16, scale_bits=4),
    "fp16": MinifloatFormat(FP16),
    "bf16": MinifloatFormat(BF16),
    "fp8_e4m3": MinifloatFormat(E4M3),
    "fp8_e5m2": MinifloatFormat(E5M2),
    "fp6_e3m2": MinifloatFormat(E3M2),
    "fp6_e2m3": MinifloatFormat(E2M3),
    "fp4_e2m1": MinifloatFormat(E2M1),
    "mxint8": OcpMxFormat("mxint8", INT8),
    "mxfp8_e4m3": OcpMxFormat("mxfp8_e4m3", E4M3),
    "mxfp8_e5m2": OcpMxFormat("mxfp8_e5m2", E5M2),
    "mxfp6_e3m2": OcpMxFormat("mxfp6_e3m2", E3M2),
    "mxfp6_e2m3": OcpMxFormat("mxfp6_e2m3", E2M3),
    "mxfp4": OcpMxFormat("mxfp4", E2M1),
    "mx9": MicroexponentFormat("mx9", 8),
    "mx6": MicroexponentFormat("mx6", 5),
    "mx4": MicroexponentFormat("mx4", 3),
    "nvfp4": Nvfp4Format(),
    "binary": BinaryFormat(),
    "binary_inv": BinaryFormat(one_is_minus=True),
    "ternary": TernaryFormat(),
    "ttq": TrainedTernaryFormat(),
    "q1.7": FixedPointFormat(8, 7),
    "q4.4": FixedPointFormat(8, 4),
    "q8.8": FixedPointFormat(16, 8),
    "dfp4": FixedPointFormat(4),
    "dfp8": FixedPointFormat(8),
    "udfp8": FixedPointFormat(8, signed=False),
    "dfp16": FixedPointFormat(16),
    **{f"po2_{bits}": PowerOfTwoFormat(bits) for bits in range(2, MAX_PO2_BITS + 1)},
    **{f"po2_{bits}r": PowerOfTwoFormat(bits, with_zero=False) for bits in range(2, MAX_PO2_BITS)},
    **{f"kmeans{bits}": CodebookFormat(bits) for bits in range(1, MAX_INDEX_BITS + 1)},
}
"""Every operand format that has a short name. The tests run over all of it."""


@dataclass(frozen=True)
class _Rule:
    """A pattern of names, how messages describe it, and what builds the format from the pattern's groups."""

    pattern: re.Pattern[str]
    description: str
    build: Callable[[re.Match[str]], Format]


_NUMBER = r"([1-9][0-9]*)"  # no leading zeros: a format has one spelling
_LEVEL = rf"_g{_NUMBER}_([a-z][a-z0-9]*(?:_e[0-9]m[0-9])?)"
_GRAMMAR = (
    _Rule(
        re.compile(rf"(u?)int{_NUMBER}(n?)"),
        f"int2..int{MAX_OPERAND_BITS}, uint2..uint{MAX_OPERAND_BITS}, int2n..int{MAX_OPERAND_BITS}n (symmetric range), "
        f"int{MAX_OPERAND_BITS + 1}..int{MAX_ACCUMULATOR_BITS} (raw accumulators)",
        lambda found: IntegerFormat(int(found[2]), signed=not found[1], narrow=bool(found[3])),
    ),
    _Rule(
        re.compile(rf"vsq_(u?)int{_NUMBER}_v{_NUMBER}_s{_NUMBER}"),
        f"vsq_[u]int<2..{MAX_ELEMENT_BITS}>_v<vector size 1..{MAX_VECTOR_SIZE}>_s<scale bits 1..{MAX_SCALE_BITS}>",
        lambda found: VsqFormat(int(found[2]), not found[1], int(found[3]), int(found[4])),
    ),
    _Rule(
        re.compile(rf"group_(u?)int{_NUMBER}((?:{_LEVEL})+)"),
        f"group_[u]int<2..{MAX_ELEMENT_BITS}>_g<size 1..{MAX_GROUP_SIZE}>_<scale type>[_g<size>_<scale type>...] "
        f"(groups under groups; types uint1..uint{MAX_SCALE_BITS}, e1m0..e8m0, fp8_e4m3, fp8_e5m2, fp16, bf16)",
        lambda found: GroupFormat(
            int(found[2]), not found[1], tuple((int(size), kind) for size, kind in re.findall(_LEVEL, found[3]))
        ),
    ),
    _Rule(
        re.compile(r"(u?)q(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"),
        f"[u]q<m>.<n> (fixed point, scale 2**-n, m + n = 2..{MAX_OPERAND_BITS} with the sign in m)",
        lambda found: FixedPointFormat(int(found[2]) + int(found[3]), int(found[3]), signed=not found[1]),
    ),
    _Rule(
        re.compile(rf"(u?)dfp{_NUMBER}"),
        f"[u]dfp<2..{MAX_OPERAND_BITS}> (dynamic fixed point)",
        lambda found: FixedPointFormat(int(found[2]), signed=not found[1]),
    ),
    _Rule(
        re.compile(rf"po2_{_NUMBER}(r?)"),
        f"po2_<2..{MAX_PO2_BITS}> (powers of two), po2_<2..{MAX_PO2_BITS - 1}>r (Ristretto's, without a zero)",
        lambda found: PowerOfTwoFormat(int(found[1]), with_zero=not found[2]),
    ),
    _Rule(
        re.compile(rf"kmeans{_NUMBER}(?:_int(?!8$){_NUMBER})?"),
        f"kmeans<1..{MAX_INDEX_BITS}>[_int<2..{MAX_OPERAND_BITS}>] (codebook indices; the codebook's integers, 8 bits)",
        lambda found: CodebookFormat(int(found[1]), int(found[2] or DEFAULT_LANE_BITS)),
    ),
)


def names() -> list[str]:
    """Return the names of the catalog: operand formats, in a fixed order; :func:`get` accepts more.

    >>> names()[:4], "mxfp4" in names(), "vsq_int6_v32_s8" in names()
    (['int2', 'int3', 'int4', 'int5'], True, False)
    """
    return list(CATALOG)


@lru_cache(maxsize=1024)
def _from_grammar(name: str) -> Format | None:
    for rule in _GRAMMAR:
        found = rule.pattern.fullmatch(name)
        if found:
            return rule.build(found)
    return None


def get(name: str) -> Format:
    """Return the number format called `name`.

    Accepted: the names of :func:`names`; ``int17`` to ``int64`` (raw accumulators, not operands); and the grammar of
    docs/formats.md, e.g. ``vsq_[u]int<element bits>_v<vector size>_s<scale bits>``. A short name and the long one give
    equal formats, whose ``name`` is the long one.

    Raises FormatError, which says what is accepted.

    >>> get("int4").low, get("int4").high, get("int4").bits_per_element
    (-8, 7, 4.0)
    >>> get("vsq4") == get("vsq_int4_v16_s4")
    True
    >>> get("vsq_int6_v32_s8").bits_per_element  # 6, and 8 bits of scale for 32 elements
    6.25
    >>> get("fp8_e4m3").quantize([1.0, 500.0], scale=1.0).dequantize().tolist()  # saturates
    [1.0, 448.0]
    """
    if not isinstance(name, str):
        raise FormatError(f"a number format is named by a string, such as 'int8'; found {name!r}")
    found = CATALOG.get(name) or _from_grammar(name)
    if found is None:
        short = ", ".join(known for known in CATALOG if not _from_grammar(known))
        spelled = [*CATALOG, *(known.name for known in CATALOG.values())]
        grammar = "; ".join(rule.description for rule in _GRAMMAR)
        hint = did_you_mean(name, spelled) or "."
        raise FormatError(f"unknown number format {name!r}{hint} Accepted: {grammar}; short names {short}")
    return found
