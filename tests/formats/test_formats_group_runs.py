"""Groups under groups of scales in layers: what VSQ hardware makes of one level, and float units of several."""

import numpy as np
import pytest

from accelsim import TraceBuilder, formats, load_config, simulate


def run(root, config, name, rounding):
    rng = np.random.default_rng(0)
    quantize = formats.get(name).quantize
    x, w = quantize(rng.normal(size=(3, 70))), quantize(rng.normal(size=(5, 70)), channel_axis=0)
    net = TraceBuilder("groups")
    net.linear("fc", net.input("x", x), w, output="int8", scale=0.3, rounding=rounding)
    report = simulate(load_config(root / "configs" / f"{config}.yaml"), net.build(), verify=True)
    return report.layers[0], x.dequantize() @ w.dequantize().T


def test_one_level_of_integers_runs_as_vsq(project_root):
    group, _ = run(project_root, "int4_vsq", "group_int4_g16_uint4", "half_up")
    vsq, _ = run(project_root, "int4_vsq", "vsq4", "half_up")
    assert group.verified == 0
    assert group.output_codes.tolist() == vsq.output_codes.tolist()
    assert (group.cycles, group.energy_pj) == (vsq.cycles, vsq.energy_pj)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("mx4", "group_int3_g2_e1m0_g16_e8m0"),
        ("mx9", "group_int8_g2_e1m0_g16_e8m0"),
        ("mx6", "group_int4_g16_uint4_g32_fp16"),
        ("mx6", "group_int4_g16_fp8_e4m3"),
    ],
)
def test_several_levels_run_on_a_float_unit(project_root, config, name):
    layer, exact = run(project_root, config, name, "float32_half_even")
    assert layer.verified == 0
    # Sums of float32 numbers are within a millionth; a step is 0.3.
    assert np.all(np.abs(layer.output_codes * 0.3 - exact) <= 0.15 + 1e-4)
