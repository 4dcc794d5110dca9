"""The cells of a table of costs: single layers, each alone in a network of its own, and equal ones estimated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from accelsim.config.model import HardwareConfig
from accelsim.errors import AccelsimError
from accelsim.estimation import estimate
from accelsim.formats.catalog import get as get_format
from accelsim.memory.needs import NetworkShapes, layer_plan
from accelsim.report.estimates import LayerEstimate
from accelsim.search.layer_cost import LayerCost, Sums
from accelsim.search.noise import ValueNoise
from accelsim.trace.schema import Conv2dMeta, Layer, MatmulMeta, Step, TensorMeta, TraceMeta, VectorMeta
from accelsim.trace.shapes import weight_name
from accelsim.trace.slots import LayerPart, layer_array

NAMELESS = "layer"
_PARTS: tuple[LayerPart, ...] = ("bias", "scale", "multiplier", "shift", "thresholds")


class Cells:
    """Estimates of single layers, each different one computed once."""

    def __init__(self, config: HardwareConfig, shapes: NetworkShapes) -> None:
        self.config, self.shapes = config, shapes
        self.pinned = {pin.layer for pin in config.memory.tiling}
        self.known: dict[str, tuple[LayerEstimate, Sums | None]] = {}

    def cell(self, layer: Layer, w: int, a: int, output: int, noise: ValueNoise) -> LayerCost:
        tensors = self.shapes.meta.tensors
        weight, given = weight_name(layer), layer.input
        # Raw accumulators stay what they are; everything else can be requantized to any width.
        raw = layer.rounding is None and layer.activation != "threshold"
        wanted = {weight: _narrowed(tensors[weight], w), given: _narrowed(tensors[given], a)}
        wanted[layer.output] = tensors[layer.output] if raw else _narrowed(tensors[layer.output], output)
        found, sums = self._estimate(layer, wanted)
        error = noise.weight(layer, wanted[weight].format)
        return LayerCost(
            layer=layer.name,
            kind=_kind(layer, tensors),
            weight_bits=w,
            activation_bits=a,
            output_bits=get_format(wanted[layer.output].format).code_bits,
            estimate=found,
            sums=sums,
            weight_sqnr_db=None if error is None else error.sqnr_db,
            weight_squared_error=None if error is None else error.squared,
            activation_sqnr_db=noise.activation_db(given, wanted[given].format),
        )

    def fixed(self, layer: VectorMeta) -> LayerCost:
        tensors = self.shapes.meta.tensors
        return LayerCost(
            layer=layer.name,
            kind=layer.operator,
            weight_bits=None,
            activation_bits=None,
            output_bits=get_format(tensors[layer.output].format).code_bits,
            estimate=self._estimate(layer, {name: tensors[name] for name in (*layer.inputs, layer.output)})[0],
        )

    def _estimate(self, layer: Step, tensors: Mapping[str, TensorMeta]) -> tuple[LayerEstimate, Sums | None]:
        alone = _alone(layer, tensors, self.shapes, named=layer.name in self.pinned)
        key = repr((alone.meta, alone.parameters, sorted((n, z.tolist()) for n, z in alone.zero_points.items())))
        if isinstance(layer, VectorMeta):
            key += repr(sorted(alone.scales.items()))
        if key not in self.known:
            try:
                self.known[key] = estimate(self.config, alone).layers[0], _sums(alone, self.config)
            except AccelsimError as error:
                raise type(error)(str(error).replace(f"layer {NAMELESS!r}", f"layer {layer.name!r}")) from None
        found, sums = self.known[key]
        return replace(found, name=layer.name), sums


def _sums(alone: NetworkShapes, config: HardwareConfig) -> Sums | None:
    """Return whether the sums of a network of one layer fit; None where it adds nothing up."""
    (layer,) = alone.meta.layers
    if isinstance(layer, VectorMeta):
        return None
    plan = layer_plan(layer, alone, config)
    forms = [get_format(alone.meta.tensors[name].format) for name in (weight_name(layer), layer.input)]
    return Sums.of(
        plan.shape.k,
        plan.group * plan.groups_per_fold,
        *((form.low, form.high) for form in forms),
        psum_bits=plan.psum_bits,
        accumulator_bits=plan.acc_bits,
    )


def _alone(
    layer: Step, tensors: Mapping[str, TensorMeta], shapes: NetworkShapes, *, named: bool = False
) -> NetworkShapes:
    """Return a network of one layer, whose names say nothing of where it comes from, so that equal ones are equal.

    tensors : what the layer takes and gives, in the formats to be tried
    named : keep the layer's name, which the configuration mentions
    """
    name = layer.name if named else NAMELESS
    renamed = {old: f"t{place}" for place, old in enumerate(tensors)}
    changes: dict[str, Any] = {"name": name, "output": renamed[layer.output]}
    if isinstance(layer, VectorMeta):
        changes["inputs"] = tuple(renamed[each] for each in layer.inputs)
    else:
        changes["input"] = renamed[layer.input]
        changes["other" if isinstance(layer, MatmulMeta) else "weight"] = renamed[weight_name(layer)]
        if layer.clamp is not None:  # its bounds are codes of the old format; ReLU6 clamps with the same hardware
            changes |= {"clamp": None, "activation": "relu6"}
    only = layer.model_copy(update=changes)
    parameters = None
    if shapes.parameters is not None and not isinstance(layer, VectorMeta):
        found = {part: shapes.parameters.get(layer_array(layer.name, part)) for part in _PARTS}
        parameters = {layer_array(name, part): shape for part, shape in found.items() if shape is not None}
    inputs = tuple(new for new in renamed.values() if new != renamed[layer.output])
    meta = TraceMeta(
        name="layer",
        tensors={renamed[old]: tensor for old, tensor in tensors.items()},
        layers=(only,),
        inputs=inputs,
        outputs=(renamed[layer.output],),
    )
    zero_points = {
        renamed[old]: np.sign(shapes.zero_points[old])  # of a narrower format it is another one; that it is, counts
        for old in tensors
        if old in shapes.zero_points and shapes.zero_points[old].any()
    }
    scales = {renamed[old]: shapes.scales[old] for old in tensors if old in shapes.scales}
    return NetworkShapes(meta, zero_points, scales, parameters)


def _narrowed(tensor: TensorMeta, bits: int) -> TensorMeta:
    """Return a tensor as plain integers of so many bits, with a sign if it had one."""
    sign = "" if get_format(tensor.format).low < 0 else "u"
    return tensor.model_copy(update={"format": f"{sign}int{bits}", "block_axis": None})


def _kind(layer: Layer, tensors: Mapping[str, TensorMeta]) -> str:
    if isinstance(layer, Conv2dMeta) and layer.groups > 1 and layer.groups == tensors[layer.input].shape[-1]:
        return "depthwise"
    return layer.op
