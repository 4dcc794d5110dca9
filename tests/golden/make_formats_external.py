"""Remake tests/golden/formats_external.json: what other programs make of the same numbers. None of accelsim runs here.

Each program wants an environment of its own (they do not agree on versions), and fills in its own part of the file:

    pip install torch==2.13.0 torchao==0.18.0                     python make_formats_external.py torchao
    pip install tosa-tools==2026.8.0                              python make_formats_external.py tosa-tools
    pip install torch==2.13.0 amd-quark==0.13 transformers        python make_formats_external.py amd-quark

Floats are stored as the eight hexadecimal digits of their float32 bits, codes as two digits each, a block a string.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("formats_external.json")
BLOCK = 32
# What the largest magnitude of a block begins with: where the rules for choosing the scale part.
SIGNIFICANDS = [1.0, 1.25, 1.5, 1.5000001, 1.75, 1.7500001, 1.8125, 1.8125001, 1.875, 1.9375, 1.984375, 1.9921875]


def mx_inputs():
    """[14, 32]: one block a significand, at powers of two near and far; then small subnormals, and zeros."""
    random = np.random.default_rng(20)
    blocks = []
    for i, significand in enumerate(SIGNIFICANDS):
        top = np.float32(significand) * np.float32(2.0) ** [0, 8, -3, 15, -60, 40][i % 6]
        steps = random.choice([8, 16, 64, 256], BLOCK)
        ties = np.rint(random.uniform(-1, 1, BLOCK) * steps) / steps  # many lie between two codes
        block = np.where(random.random(BLOCK) < 0.7, ties, random.uniform(-1, 1, BLOCK))
        block = (block * 2.0 ** np.floor(np.log2(top))).astype(np.float32)
        block[random.integers(BLOCK)] = top if i % 2 else -top
        blocks.append(block)
    blocks.append((random.normal(size=BLOCK) * 2.0**-100).astype(np.float32))
    blocks.append(np.where(np.arange(BLOCK) % 3, 0.0, -0.0).astype(np.float32))
    return np.stack(blocks)


def nvfp4_inputs():
    """[4, 4, 16]: four tensors of four blocks, whose sizes differ by up to five orders of magnitude within a tensor."""
    random = np.random.default_rng(21)
    blocks = (
        random.normal(size=(4, 4, 16))
        * 10.0 ** random.uniform(-5, 0, (4, 4, 1))
        * 10.0 ** np.arange(-2, 2)[:, None, None]
    )
    blocks[1, 2], blocks[0, 3] = 0, blocks[0, 3] * 1e-6
    # Ties: a tensor scale of 2**-4, block scales of powers of two (the largest 448), elements between two codes.
    blocks[2] = random.choice([0.25, 0.75, -1.25, 1.75, -2.5, 3.5, -5.0], (4, 16))
    blocks[2, :, 3] = 6
    blocks[2] *= np.array([448, 64, 1, 0.25])[:, None] / 16
    return blocks.astype(np.float32)


def bits(values):
    return ["".join(f"{word:08x}" for word in row) for row in np.ascontiguousarray(values, np.float32).view(np.uint32)]


def digits(codes):
    return ["".join(f"{code & 255:02x}" for code in row) for row in np.asarray(codes, np.int64).tolist()]


def torchao():
    import torch
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
    from torchao.prototype.mx_formats.mx_tensor import to_mx
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

    types = {
        "mxfp8_e4m3": torch.float8_e4m3fn,
        "mxfp8_e5m2": torch.float8_e5m2,
        "mxfp6_e3m2": DTYPE_FP6_E3M2,
        "mxfp6_e2m3": DTYPE_FP6_E2M3,
        "mxfp4": torch.float4_e2m1fn_x2,
    }
    x, found = torch.from_numpy(mx_inputs()), {}
    for name, kind in types.items():
        for rule in ("floor", "even", "rceil"):
            scales, data = to_mx(x, kind, BLOCK, ScaleCalculationMode(rule))
            codes = data.view(torch.uint8).numpy()
            if name == "mxfp4":
                codes = unpack_nibbles(codes)
            found[f"{name} {rule}"] = {"codes": digits(codes), "scales": digits(scales.view(torch.uint8).numpy())}
    tensors = []
    for tensor in nvfp4_inputs():
        x = torch.from_numpy(tensor)
        scale = per_tensor_amax_to_scale(x.abs().max())
        scales, data = nvfp4_quantize(x, 16, scale)
        codes = unpack_nibbles(data.view(torch.uint8).numpy())
        tensors.append(
            {
                "scale": bits([[float(scale)]])[0],
                "codes": digits(codes),
                "scales": digits(scales.view(torch.uint8).numpy().reshape(-1, 1)),
            }
        )
    return {"program": f"torchao {version('torchao')}, torch {torch.__version__}", "mx": found, "nvfp4": tensors}


def unpack_nibbles(data):
    """Two codes a byte, the first one in the low nibble."""
    return np.stack([data & 15, data >> 4], axis=-1).reshape(data.shape[0], -1)


def tosa_tools():
    """CAST_TO_BLOCK_SCALED and back to float32 (the binding cannot return the narrow types): values, not codes."""
    import serializer.tosa_serializer as ts
    import tosa_reference_model
    from tosa.BlockSize import BlockSize
    from tosa.DType import DType
    from tosa.Op import Op

    types = {
        "mxint8": DType.MXINT8,
        "mxfp8_e4m3": DType.FP8E4M3,
        "mxfp8_e5m2": DType.FP8E5M2,
        "mxfp6_e3m2": DType.FP6E3M2,
        "mxfp6_e2m3": DType.FP6E2M3,
        "mxfp4": DType.FP4E2M1,
    }
    x, found = mx_inputs(), {}
    for name, kind in types.items():
        graph = ts.TosaSerializer("/tmp")
        source = graph.addPlaceholder(list(x.shape), DType.FP32, None)
        data = graph.addIntermediate(list(x.shape), kind)
        scale = graph.addIntermediate([x.shape[0], 1], DType.FP8UE8M0)
        result = graph.addOutput(list(x.shape), DType.FP32)
        to_blocks, from_blocks = ts.TosaSerializerAttribute(), ts.TosaSerializerAttribute()
        to_blocks.CastToBlockScaledAttribute(BlockSize.BLOCK_SIZE_32)
        from_blocks.CastFromBlockScaledAttribute(BlockSize.BLOCK_SIZE_32)
        graph.addOperator(Op.CAST_TO_BLOCK_SCALED, [source.name], [data.name, scale.name], to_blocks)
        graph.addOperator(Op.CAST_FROM_BLOCK_SCALED, [data.name, scale.name], [result.name], from_blocks)
        outputs, status = tosa_reference_model.run(bytes(graph.serialize()), [x])
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            sys.exit(f"{name}: the reference model says {status}")
        found[name] = bits(outputs[0])
    return {"program": f"tosa-tools {version('tosa-tools')}", "mx": found}


def amd_quark():
    """Codes, block exponent E and the bits of the pairs. MX4 is the same function with 3 bits."""
    import torch
    from quark.torch.kernel.hw_emulation.hw_emulation_interface import real_quantize_mx6_mx9

    x, found = torch.from_numpy(mx_inputs().reshape(-1, 16)), {}
    for name, width in {"mx9": 8, "mx6": 5, "mx4": 3}.items():
        out = real_quantize_mx6_mx9(x, axis=-1, block_size=16, quant_bit=width, sub_block_size=2).numpy()
        found[name] = {
            "exponents": " ".join(str(int(exponent)) for exponent in out[:, 0]),
            "pairs": digits(out[:, 1:2]),
            "codes": digits(out[:, 2:]),
        }
    return {"program": f"amd-quark {version('amd-quark')}, torch {torch.__version__}", "microexponents": found}


PARTS = {"torchao": torchao, "tosa-tools": tosa_tools, "amd-quark": amd_quark}

if __name__ == "__main__":
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    golden["inputs"] = {"mx": bits(mx_inputs()), "nvfp4": [bits(tensor) for tensor in nvfp4_inputs()]}
    for part in sys.argv[1:]:
        golden[part] = PARTS[part]()
    FILE.write_text(json.dumps({key: golden[key] for key in sorted(golden)}, indent=1) + "\n")
