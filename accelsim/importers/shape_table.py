"""Tables of layer shapes (``.csv``): SCALE-Sim's topologies, convolutions or matrix products, as a network of shapes.

Such a network has no numbers, and its layers stand side by side: each reads its own input from memory, since a table
does not say whose output it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import ModelError, did_you_mean, problem_list
from accelsim.formats.catalog import get
from accelsim.formats.spec import Format
from accelsim.trace.schema import Conv2dMeta, LinearMeta, MatmulMeta, Step, TensorMeta, TraceMeta

MAX_SIZE, MAX_LAYERS, MAX_BYTES = 1 << 31, 100_000, 1 << 24
RULE = "half_up"
GEMM = ("name", "m", "n", "k")
CONV = ("name", "ifmap height", "ifmap width", "filter height", "filter width", "channels", "num filter", "strides")
OPTIONAL = ("batch", "count", "weights", "activations", "stride width", "groups", "activations twice")
SYNONYMS = {
    "layer": "name",
    "layer name": "name",
    "stride": "strides",
    "stride height": "strides",
    "num filters": "num filter",
    "channel": "channels",
    "batch size": "batch",
}


@dataclass(frozen=True)
class ShapeRow:
    """One line of the table: its number in the file, and the values by column."""

    line: int
    name: str
    values: Mapping[str, str]

    def size(self, column: str, default: int | None = None) -> int:
        raw = self.values.get(column, "").strip()
        if not raw and default is not None:
            return default
        if not re.fullmatch(r"\d{1,12}", raw) or not 1 <= int(raw) <= MAX_SIZE:
            raise ModelError(f"line {self.line} ({self.name}): {column} is {raw or 'missing'}; use 1 to {MAX_SIZE}")
        return int(raw)


def read_shapes(
    path: str | Path, *, weights: str = "int8", activations: str = "int8", output: str | None = None
) -> TraceMeta:
    r"""Return a table's layers as a network of shapes.

    Columns, by their titles in the first line, in any order: ``name, M, N, K`` (products [M, K] x [K, N], SCALE-Sim's
    GEMM topologies), or ``name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides``
    (convolutions, as SCALE-Sim takes them: without padding, ceil((size - filter + stride) / stride) outputs a side; a
    name with "DP" in it is depthwise). Besides: ``batch`` (products of that shape), ``count`` (layers of that shape),
    ``groups``, ``weights`` and ``activations`` (formats of the row), ``activations twice`` (1: both operands are
    activations, as in attention). An empty last column is SCALE-Sim's custom.

    weights, activations : formats, where the row names none; output: of the results, default those of the activations

    Raises ModelError with the line and what would be accepted; FormatError for an unknown format.

    >>> size = Path("shapes.csv").write_text("name,M,N,K\nq,16,64,32\nff,16,128,64\n")
    >>> meta = read_shapes("shapes.csv", weights="int4")
    >>> [(layer.name, meta.tensors[layer.weight].format, meta.tensors[layer.weight].shape) for layer in meta.layers]
    [('q', 'int4', (64, 32)), ('ff', 'int4', (128, 64))]
    """
    source = Path(path)
    rows = _rows(source)
    tensors: dict[str, TensorMeta] = {}
    layers: list[Step] = []
    problems = []
    for row in rows:
        try:
            layers.extend(_layer(row, name, tensors, weights, activations, output) for name in _names(row))
        except ModelError as error:
            problems.append(str(error))
    if problems:
        raise ModelError(problem_list(str(source), problems[:20]))
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise ModelError(f"{source}: it has {len(layers):,} layers; use 1 to {MAX_LAYERS:,}")
    constants = {layer.weight for layer in layers if isinstance(layer, Conv2dMeta | LinearMeta)}
    outputs = tuple(layer.output for layer in layers)
    inputs = tuple(name for name in tensors if name not in constants and name not in set(outputs))
    return TraceMeta(
        name=re.sub(r"[^A-Za-z0-9_.\-]", "_", source.stem) or "shapes",
        description="shapes alone; its layers stand side by side",
        tensors=tensors,
        layers=tuple(layers),
        inputs=inputs,
        outputs=outputs,
    )


def _rows(path: Path) -> list[ShapeRow]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: larger than 16 MiB; a table of shapes has a line a layer")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    numbered = [
        (number, [cell.strip() for cell in line]) for number, line in enumerate(csv.reader(text.splitlines()), 1)
    ]
    lines = [(number, cells) for number, cells in numbered if any(cells)]
    if not lines:
        raise ModelError(f"{path}: it is empty; the first line names the columns, such as name,M,N,K")
    titles = [SYNONYMS.get(title.lower(), title.lower()) for title in lines[0][1]]
    needed = GEMM if {"m", "n", "k"} & set(titles) else CONV
    _check_titles(path, titles, needed)
    rows = []
    for number, cells in lines[1:]:
        if any(cells[len(titles) :]):
            raise ModelError(f"{path}: line {number} has {len(cells)} cells, the first line has {len(titles)} columns")
        values = dict(zip(titles, cells, strict=False))
        _check_dense(path, number, values.get("sparsity", ""))
        rows.append(ShapeRow(number, values.get("name", "") or f"layer{number}", values))
    return rows


def _check_titles(path: Path, titles: Sequence[str], needed: Sequence[str]) -> None:
    missing = [title for title in needed if title not in titles]
    if len(missing) == len(needed):
        found = ",".join(titles)
        raise ModelError(
            f"{path}: its first line, {found[:60]!r}, names none of the columns; a table begins with a line of titles, "
            f"between commas: {', '.join(GEMM)} for products, {', '.join(CONV)} for convolutions"
        )
    if missing:
        raise ModelError(
            f"{path}: columns are missing: {', '.join(missing)}; a table of products has {', '.join(GEMM)}, one of "
            f"convolutions {', '.join(CONV)}"
        )
    twice = [title for title in titles if title and titles.count(title) > 1]
    if twice:
        raise ModelError(f"{path}: the column {twice[0]!r} is there {titles.count(twice[0])} times; keep one")
    known = (*needed, *OPTIONAL, "sparsity", "")
    unknown = [title for title in titles if title not in known]
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ModelError(f"{path}: unknown column {unknown[0]!r}{near}; known besides are {', '.join(OPTIONAL)}")


def _check_dense(path: Path, line: int, sparsity: str) -> None:
    """Raise ModelError for a sparse layer: SCALE-Sim's N:M, of which N = M is dense."""
    kept, _, of = sparsity.partition(":")
    if sparsity and kept.strip() != of.strip():
        raise ModelError(
            f"{path}: line {line}: sparsity is {sparsity!r}; structured sparsity is not modelled: use 1:1, or leave it "
            f"empty"
        )


def _names(row: ShapeRow) -> Iterator[str]:
    base = re.sub(r"[^A-Za-z0-9_.\-]", "_", row.name).lstrip(".-") or f"layer{row.line}"
    count = row.size("count", 1)
    if count > MAX_LAYERS:
        raise ModelError(f"line {row.line} ({row.name}): count is {count:,}; use up to {MAX_LAYERS:,}")
    for place in range(count):
        yield base[:180] if count == 1 else f"{base[:170]}.{place}"


def _layer(
    row: ShapeRow, name: str, tensors: dict[str, TensorMeta], weights: str, activations: str, output: str | None
) -> Step:
    w = get(row.values.get("weights") or weights)
    a = get(row.values.get("activations") or activations)
    y = get(output) if output is not None else a
    unique = name
    while f"{unique}.in" in tensors:
        unique += "_"
    if "m" in row.values:
        return _product(row, unique, tensors, w, a, y)
    return _convolution(row, unique, tensors, w, a, y)


def _product(row: ShapeRow, name: str, tensors: dict[str, TensorMeta], w: Format, a: Format, y: Format) -> Step:
    batch, m, n, k = row.size("batch", 1), row.size("m"), row.size("n"), row.size("k")
    twice = row.values.get("activations twice", "") in ("1", "true", "yes")
    if batch == 1 and not twice:
        tensors[f"{name}.in"] = _tensor(a, ("row", "feature"), (m, k))  # M need not be a batch: tokens
        tensors[f"{name}.weight"] = _tensor(w, ("out", "in"), (n, k))
        tensors[f"{name}.out"] = _tensor(y, ("row", "feature"), (m, n))
        return LinearMeta(name=name, input=f"{name}.in", weight=f"{name}.weight", output=f"{name}.out", rounding=RULE)
    tensors[f"{name}.in"] = _tensor(a, ("batch", "row", "feature"), (batch, m, k))
    tensors[f"{name}.other"] = _tensor(a if twice else w, ("batch", "column", "feature"), (batch, n, k))
    tensors[f"{name}.out"] = _tensor(y, ("batch", "row", "feature"), (batch, m, n))
    return MatmulMeta(
        name=name,
        input=f"{name}.in",
        other=f"{name}.other",
        transpose_other=True,
        output=f"{name}.out",
        rounding=RULE,
    )


def _convolution(row: ShapeRow, name: str, tensors: dict[str, TensorMeta], w: Format, a: Format, y: Format) -> Step:
    height, width = row.size("ifmap height"), row.size("ifmap width")
    kernel = row.size("filter height"), row.size("filter width")
    channels, filters = row.size("channels"), row.size("num filter")
    stride = row.size("strides"), row.size("stride width", row.size("strides"))
    depthwise = "DP" in row.name
    groups = channels if depthwise else row.size("groups", 1)
    if depthwise:
        filters *= channels  # SCALE-Sim runs every channel with this many filters
    if channels % groups or filters % groups:
        raise ModelError(
            f"line {row.line} ({row.name}): groups={groups} must divide {channels} channels and {filters} filters"
        )
    for what, size, taps in (("height", height, kernel[0]), ("width", width, kernel[1])):
        if taps > size:
            raise ModelError(
                f"line {row.line} ({row.name}): the filter's {what} {taps} is larger than the input's {size}"
            )
    sides = [-(-(size - taps + step) // step) for size, taps, step in zip((height, width), kernel, stride, strict=True)]
    over = [
        (out - 1) * step + taps - size
        for out, step, taps, size in zip(sides, stride, kernel, (height, width), strict=True)
    ]
    dims = ("batch", "height", "width", "channel")
    batch = row.size("batch", 1)
    tensors[f"{name}.in"] = _tensor(a, dims, (batch, height, width, channels))
    shape = (filters, *kernel, channels // groups)
    tensors[f"{name}.weight"] = _tensor(w, ("out", "height", "width", "in"), shape)
    tensors[f"{name}.out"] = _tensor(y, dims, (batch, sides[0], sides[1], filters))
    return Conv2dMeta(
        name=name,
        input=f"{name}.in",
        weight=f"{name}.weight",
        output=f"{name}.out",
        rounding=RULE,
        stride=stride,
        padding=((0, max(0, over[0])), (0, max(0, over[1]))),
        groups=groups,
    )


def _tensor(form: Format, dims: tuple[str, ...], shape: tuple[int, ...]) -> TensorMeta:
    return TensorMeta(
        format=form.name, dims=dims, shape=shape, block_axis=None if form.blocks is None else len(shape) - 1
    )
