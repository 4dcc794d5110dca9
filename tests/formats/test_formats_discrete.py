"""Formats of a handful of values on the hardware of integers; what that hardware lacks, in words."""

import numpy as np
import pytest

from accelsim import TraceBuilder, formats, load_trace, simulate
from accelsim.config.model import Array, HardwareConfig, Port, Ppu, Register
from accelsim.errors import UnsupportedLayerError


def machine(weight_bits, dataflow="ws", activation_bits=8):
    return HardwareConfig(
        name="test",
        clock_mhz=500.0,
        array=Array(
            rows=4,
            cols=3,
            dataflow=dataflow,
            lanes=2,
            weight=Port(bits=weight_bits),
            activation=Port(bits=activation_bits),
            psum=Register(bits=40),
        ),
        accumulator=Register(bits=40),
        ppu=Ppu(rounding="half_up"),
    )


def network(name, rng):
    weights = formats.get(name)
    net = TraceBuilder("discrete")
    x = net.input("x", formats.get("int8").quantize(rng.normal(size=(2, 5, 5, 3)), asymmetric=True))
    conv = weights.quantize(rng.normal(size=(4, 3, 3, 3)), axis=0)
    y = net.conv2d("conv", x, conv, bias=rng.normal(size=4), output="uint8", scale=0.05, padding="same")
    fc = weights.quantize(rng.normal(size=(6, 100)))
    net.linear("fc", y, fc, rounding=None, flatten=True)
    return net, fc


# The widest port that each needs: ternary and Q4.4 as expected; 7 exponents and a zero reach +-64, 8 reach +-128.
@pytest.mark.parametrize(
    ("name", "port"),
    [("ternary", 2), ("q4.4", 8), ("dfp4", 4), ("dfp8", 8), ("po2_3", 4), ("po2_4", 8), ("po2_4r", 9), ("po2_5", 16)],
)
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_weights_with_int8_activations(name, port, dataflow, tmp_path):
    net, fc = network(name, np.random.default_rng(5))
    trace = load_trace(net.save(tmp_path / "net.npz"))
    report = simulate(machine(port, dataflow), trace, verify=True)
    stepped = simulate(machine(port, dataflow), trace, "stepped")
    assert [layer.verified for layer in report.layers] == [0, 0]
    for fast, slow in zip(report.layers, stepped.layers, strict=True):
        assert fast.output_codes.tolist() == slow.output_codes.tolist()
    # The second layer from real values: exact in float64, for scales that are powers of two or divided out.
    inputs = report.layers[0].output_codes.reshape(2, -1).astype(np.int64)
    integers = np.rint(fc.dequantize() / fc.scale).astype(np.int64)
    assert report.layers[1].output_codes.tolist() == (inputs @ integers.T).tolist()
    if port > 2:  # the narrowest port there is
        with pytest.raises(UnsupportedLayerError, match=f"layer 'conv' needs weights in {name} "):
            simulate(machine(port - 1, dataflow), trace)
