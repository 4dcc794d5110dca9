"""Shapes of the networks that are measured. Facts of the papers and of SCALE-Sim's topology file; no weights.

ResNet-18: He et al., CVPR 2016. MobileNetV2: Sandler et al., CVPR 2018, table 2. Transformer layer: the encoder of
BERT-base (Devlin et al., NAACL 2019) at 128 positions.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gemm:
    """`batch` products of [m, k] by [k, n]."""

    name: str
    batch: int
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.k * self.n


@dataclass(frozen=True)
class Conv:
    """A convolution of one image; `out` is the output's height and width, padding whatever that needs."""

    name: str
    size: int
    kernel: int
    channels: int
    filters: int
    stride: int
    out: int
    groups: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        """(Before, after), along both axes; the odd one goes after."""
        needed = max(0, (self.out - 1) * self.stride + self.kernel - self.size)
        return needed // 2, needed - needed // 2

    @property
    def gemm(self) -> Gemm:
        taps = self.kernel * self.kernel * self.channels // self.groups
        return Gemm(self.name, self.groups, self.out * self.out, taps, self.filters // self.groups)

    @property
    def macs(self) -> int:
        return self.gemm.macs


def scale_sim_conv(name: str, size: int, kernel: int, channels: int, filters: int, stride: int) -> Conv:
    """Return a layer as SCALE-Sim reads it: no padding, ceil((size - kernel + stride) / stride) outputs a side."""
    out = -(-(size - kernel + stride) // stride)
    return Conv(name, size, kernel, channels, filters, stride, out)


# The 21 layers of the topology file Resnet18.csv in SCALE-Sim's repository; its layers do not pad.
SCALE_SIM_RESNET18 = tuple(
    scale_sim_conv(*row)
    for row in (
        ("Conv1", 224, 7, 3, 64, 2),
        ("Conv2_1a", 56, 3, 64, 64, 1),
        ("Conv2_1b", 56, 3, 64, 64, 1),
        ("Conv2_2a", 56, 3, 64, 64, 1),
        ("Conv2_2b", 56, 3, 64, 64, 1),
        ("Conv3_1a", 56, 3, 64, 128, 2),
        ("Conv3_1b", 28, 3, 128, 128, 1),
        ("Conv3_s", 56, 1, 64, 128, 2),
        ("Conv3_2a", 28, 3, 128, 128, 1),
        ("Conv3_2b", 28, 3, 128, 128, 1),
        ("Conv4_1a", 28, 3, 128, 256, 2),
        ("Conv4_1b", 14, 3, 256, 256, 1),
        ("Conv4_s", 28, 1, 128, 256, 2),
        ("Conv4_2a", 14, 3, 256, 256, 1),
        ("Conv4_2b", 14, 3, 256, 256, 1),
        ("Conv5_1a", 14, 3, 256, 512, 2),
        ("Conv5_1b", 7, 3, 512, 512, 1),
        ("Conv5_s", 14, 1, 256, 512, 2),
        ("Conv5_2a", 7, 3, 512, 512, 1),
        ("Conv5_2b", 7, 3, 512, 512, 1),
        ("FC", 1, 1, 512, 1000, 1),
    )
)


def resnet18() -> tuple[Conv, ...]:
    """Return ResNet-18 for 224 x 224 pixels with its padding: 1.81 GMAC."""
    layers = [Conv("conv1", 224, 7, 3, 64, 2, 112)]
    channels, size = 64, 56
    for stage, filters in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            out, name = size // stride, f"layer{stage}.{block}"
            layers.append(Conv(f"{name}.conv1", size, 3, channels, filters, stride, out))
            layers.append(Conv(f"{name}.conv2", out, 3, filters, filters, 1, out))
            if stride == 2:
                layers.append(Conv(f"{name}.downsample", size, 1, channels, filters, 2, out))
            channels, size = filters, out
    return (*layers, Conv("fc", 1, 1, 512, 1000, 1, 1))


def mobilenet_v2() -> tuple[Conv, ...]:
    """Return MobileNetV2, width 1.0, for 224 x 224 pixels: 53 layers, 0.30 GMAC."""
    layers = [Conv("conv1", 224, 3, 3, 32, 2, 112)]
    channels, size, number = 32, 112, 0
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, filters, blocks, first_stride in table:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            out, wide, name = size // stride, channels * expansion, f"block{number}"
            if expansion > 1:
                layers.append(Conv(f"{name}.expand", size, 1, channels, wide, 1, size))
            layers.append(Conv(f"{name}.depthwise", size, 3, wide, wide, stride, out, groups=wide))
            layers.append(Conv(f"{name}.project", out, 1, wide, filters, 1, out))
            channels, size, number = filters, out, number + 1
    layers.append(Conv("conv_last", 7, 1, 320, 1280, 1, 7))
    return (*layers, Conv("fc", 1, 1, 1280, 1000, 1, 1))


def transformer_layer(positions: int = 128, width: int = 768, heads: int = 12) -> tuple[Gemm, ...]:
    """Return the products of one encoder layer."""
    head = width // heads
    return (
        Gemm("query", 1, positions, width, width),
        Gemm("key", 1, positions, width, width),
        Gemm("value", 1, positions, width, width),
        Gemm("scores", heads, positions, head, positions),
        Gemm("context", heads, positions, positions, head),
        Gemm("output", 1, positions, width, width),
        Gemm("ffn_up", 1, positions, width, 4 * width),
        Gemm("ffn_down", 1, positions, 4 * width, width),
    )
