"""A machine for the question what a choice of number formats does to accuracy, before any hardware is chosen."""

from __future__ import annotations

from accelsim.config.model import HardwareConfig

_MACHINE = {
    "name": "any_format",
    "clock_mhz": 500,
    "array": {
        "rows": 2,
        "cols": 16,
        "dataflow": "ws",
        "lanes": 32,
        "weight": {"bits": 16, "sign": "either"},
        "activation": {"bits": 16, "sign": "either"},
        "psum": {"bits": 32, "overflow": "saturate"},
        "float_unit": {"accumulate": "float32", "align_bits": 24},
        "scale_unit": {"weight_scale_bits": 12, "activation_scale_bits": 12},
        "codebook": {"index_bits": 8, "mode": "decode"},
    },
    "accumulator": {"bits": 32, "overflow": "saturate"},
    "ppu": {"lanes": 16, "latency_cycles": 6, "rounding": "float32_half_even"},
}


def any_format() -> HardwareConfig:
    """Return a machine with ports, adders and scale units for every format of the catalog; its PPU computes in float32,
    its registers have 32 bits. Cycles and energy of it mean nothing.
    """
    return HardwareConfig.model_validate(_MACHINE)
