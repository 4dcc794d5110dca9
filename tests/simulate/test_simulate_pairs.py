"""Which weights go with which activations: the quantizer refuses exactly what no machine multiplies."""

import numpy as np
import pytest

from accelsim import TraceBuilder, formats, load_config, simulate
from accelsim.config.model import Codebook, FloatUnit, Port, Register, ScaleUnit
from accelsim.errors import AccelsimError, NetworkError
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.layers import Linear
from accelsim.quantize.network import FloatLayer, FloatNetwork

KINDS = ("int8", "vsq4", "vsq_int4_v8_s4", "mx6", "mxfp4", "nvfp4", "fp8_e4m3", "bf16", "binary", "ternary", "po2_4")
"""One of each datapath and block size, and kmeans4 for weights."""


@pytest.fixture(scope="module")
def machine(project_root):
    """A machine with everything that a PE can have."""
    base = load_config(project_root / "configs" / "int8_reference.yaml")
    changes = {
        "lanes": 32,
        "weight": Port(bits=16),
        "activation": Port(bits=16),
        "psum": Register(bits=48, overflow="wrap"),
        "scale_unit": ScaleUnit(weight_scale_bits=12, activation_scale_bits=12),
        "float_unit": FloatUnit(align_bits=24),
        "codebook": Codebook(index_bits=8),
    }
    register = Register(bits=48, overflow="wrap")
    return base.model_copy(update={"array": base.array.model_copy(update=changes), "accumulator": register})


def by_hand(weights, activations, values, weight):
    """The same product without the quantizer: what does the machine itself say?"""
    builder = TraceBuilder("by hand")
    x = builder.input("x", formats.get(activations).quantize(values))
    builder.linear("fc", x, formats.get(weights).quantize(weight), output="int8", scale=0.1, rounding="half_up")
    return builder.build()


@pytest.mark.parametrize("weights", [*KINDS, "kmeans4"])
def test_a_pair_runs_or_is_refused_before_it_is_written(weights, machine):
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=(2, 64)), rng.normal(size=(4, 64))
    network = FloatNetwork("pair", values, [FloatLayer(Linear(name="fc"), weight, None)])
    refused, messages = set(), []
    for activations in KINDS:
        try:
            trace = quantize_network(network, weights=weights, activations=activations)
        except NetworkError as error:
            refused.add(activations)
            messages.append(str(error))
            with pytest.raises(AccelsimError):
                simulate(machine, by_hand(weights, activations, values, weight))
            continue
        assert simulate(machine, trace).network.sqnr_db > -3
    vsq, blocks_16 = {"vsq4", "vsq_int4_v8_s4"}, {"mx6", "nvfp4"}
    expected = set(KINDS) - {weights} if weights in vsq else set(vsq)
    if weights in blocks_16:
        expected |= {"mxfp4"}
    if weights == "mxfp4":
        expected |= blocks_16
    assert refused == expected
    assert all(f"no machine multiplies {formats.get(weights).name} weights by" in message for message in messages)


def test_the_message_says_what_goes_with_what(project_root):
    network = FloatNetwork("pair", np.ones((2, 32)), [FloatLayer(Linear(name="fc"), np.ones((4, 32)), None)])
    with pytest.raises(NetworkError) as caught:
        quantize_network(network, weights="vsq4", activations="mx6")
    assert str(caught.value) == (
        "layer 'fc': no machine multiplies vsq_int4_v16_s4 weights by mx6 activations: VSQ's integer scales go with "
        "VSQ of the same vector size on the other side, and with nothing else; give the layer one format for both, "
        "such as vsq_int4_v16_s4/vsq_int4_v16_s4, or mx6/mx6"
    )
