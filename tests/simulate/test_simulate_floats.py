"""Whole networks in numbers with exponents: every dataflow and way to sum, both engines, and the slow reference."""

from pathlib import Path

import pytest

import accelsim
from accelsim import load_config, simulate
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.network_file import load_network

ROOT = Path(__file__).parents[2]
PAIRS = [
    ("mxfp8_e5m2", "mxfp8_e5m2"),
    ("fp16", "fp16"),
    ("bf16", "mxfp4"),
    ("mxfp4", "bf16"),
    ("mxint8", "mxint8"),
    ("fp8_e4m3", "fp8_e5m2"),
]
SUMS = {
    "float32": {"align_bits": 24},
    "fixed": {"align_bits": 20, "accumulate": "fixed", "fraction_bits": 12, "rounding": "half_even"},
}


@pytest.fixture(scope="module")
def network():
    return load_network(ROOT / "traces" / "digits_cnn_float.npz").head(1)


def machine(dataflow, **unit):
    document = load_config(ROOT / "configs" / "mxfp8.yaml").model_dump(mode="json")
    port = {"bits": 16, "sign": "either"}
    document["array"] |= {"dataflow": dataflow, "weight": port, "activation": port,
                          "double_buffered": False, "drain_overlap": False}  # fmt: skip
    document["array"]["float_unit"] |= unit
    return accelsim.HardwareConfig.model_validate(document, strict=False)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize(("weights", "activations"), PAIRS)
def test_both_engines_and_the_reference_agree(network, weights, activations, sums, dataflow):
    trace = quantize_network(network, weights=weights, activations=activations)
    config = machine(dataflow, **SUMS[sums])
    fast = simulate(config, trace, verify=True)
    assert fast.totals.verified == 0
    stepped = simulate(config, trace, engine="stepped")
    for one, other in zip(fast.layers, stepped.layers, strict=True):
        assert (one.output_codes == other.output_codes).all()
        assert (one.cycles, one.actions, one.overflow) == (other.cycles, other.actions, other.overflow)
    assert accelsim.RunReport.from_json(fast.to_json()).totals == fast.totals


def test_a_block_meets_a_number_without_one_and_no_scale_is_latched_for_it(network):
    trace = quantize_network(network, weights="mxfp4", activations="bf16")
    report = simulate(machine("os", align_bits=24), trace)
    conv = report.layer("conv2")
    assert all(bits > 0 for action, _ in conv.actions.items() for bits in action.params)
    assert conv.overflow.psum.sufficient_bits is None
    assert isinstance(conv.overflow.psum.high, float)
