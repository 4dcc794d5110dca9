"""The configurations in configs/, the JSON Schema, and docs/configuration.md agree with the model."""

import json
import re

import pytest
import yaml

from accelsim import formats
from accelsim.config.accepted import accepted, section_of, walk_keys
from accelsim.config.dump import config_schema, dump_config
from accelsim.config.loader import load_config, parse_config
from accelsim.config.model import FloatUnit
from accelsim.quantize.presets import PRESETS

INTEGER = ["bitfusion", "bitserial", "bwn", "int16", "int4_vsq", "int8_is", "int8_os", "int8_reference", "int8_ws",
           "kmeans4", "po2", "ternary", "xnor"]  # fmt: skip
FLOAT = ["mx4", "mx6", "mx9", "mxfp4", "mxfp6", "mxfp8", "nvfp4"]
SHIPPED = sorted([*INTEGER, *FLOAT, "mixed"])


@pytest.fixture(params=SHIPPED)
def shipped(request, project_root):
    return project_root / "configs" / f"{request.param}.yaml"


def test_nothing_else_is_shipped(project_root):
    assert sorted(path.name for path in (project_root / "configs").iterdir()) == sorted(
        ["sweeps", *(f"{name}.yaml" for name in SHIPPED)]
    )


def test_a_shipped_configuration_says_what_it_resembles(shipped):
    config = load_config(shipped)
    comment = " ".join(line.lstrip("# ") for line in shipped.read_text().splitlines() if line.startswith("#"))
    assert config.name == shipped.stem
    assert "resemble" in comment
    assert parse_config(dump_config(config)) == config


def largest(port):
    """The largest magnitude that enters a port: all ones of an unsigned operand, or the most negative signed one."""
    return 1 << (port.bits - 1) if port.sign == "signed" else (1 << port.bits) - 1


@pytest.mark.parametrize("name", INTEGER)
def test_no_psum_of_a_shipped_configuration_can_overflow(name, project_root):
    """What the comments beside `psum` claim, worked out from the widths alone."""
    config = load_config(project_root / "configs" / f"{name}.yaml")
    array = config.array
    assert array.float_unit is None
    step = array.lanes * largest(array.weight) * largest(array.activation)
    if array.scale_unit:
        assert array.scale_unit.product_bits is None
        unit = array.scale_unit
        step *= ((1 << unit.weight_scale_bits) - 1) * ((1 << unit.activation_scale_bits) - 1)
    if array.dataflow == "os":  # the psum holds all of K: the comment gives the largest one
        assert 33025 * 255 * 255 <= array.psum.high < 33026 * 255 * 255
    else:
        assert array.rows * step <= array.psum.high
        assert name == "int4_vsq" or array.rows * step > array.psum.high >> 5, "needlessly wide"


@pytest.mark.parametrize("name", ["bitfusion", "bwn", "kmeans4", "po2", "ternary", "xnor"])
def test_narrower_operands_do_not_outgrow_the_psum(name, project_root):
    """More of them enter in a step (fusion, words of signs), but their products are smaller."""
    array = load_config(project_root / "configs" / f"{name}.yaml").array
    if array.popcount:
        assert array.rows * array.popcount.word_bits <= array.psum.high
    for bits in (2, 4, 8):
        gain = (8 // bits) ** 2 if array.multiplier.kind == "fusion" else 1
        assert array.rows * array.lanes * gain * (2**bits - 1) * 2 ** (bits - 1) <= array.psum.high


@pytest.mark.parametrize("name", FLOAT)
def test_a_block_enters_a_float_machine_in_one_step_and_is_rounded_once(name, project_root):
    config = load_config(project_root / "configs" / f"{name}.yaml")
    array, form = config.array, formats.get(PRESETS[name].weights)
    assert form == formats.get(PRESETS[name].activations)
    assert array.lanes == form.blocks.size
    assert array.float_unit == FloatUnit()  # float32, nothing aligned away
    for port in (array.weight, array.activation):
        assert port.sign == "signed"
        assert port.accepts(form.low, form.high)
        assert not port.model_copy(update={"bits": port.bits - 1}).accepts(form.low, form.high), "needlessly wide"
    assert config.ppu.rounding == "float32_half_even"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_its_configuration(name, project_root):
    assert name == "int8" or name in SHIPPED
    assert load_config(project_root / "configs" / f"{'int8_ws' if name == 'int8' else name}.yaml")


def test_what_only_one_machine_has(project_root):
    arrays = {name: load_config(project_root / "configs" / f"{name}.yaml").array for name in SHIPPED}
    assert [name for name, array in arrays.items() if array.popcount] == ["xnor"]
    assert [name for name, array in arrays.items() if array.codebook] == ["kmeans4"]
    assert [name for name, array in arrays.items() if array.float_unit] == sorted([*FLOAT, "mixed"])
    kinds = {name: array.multiplier.kind for name, array in arrays.items() if array.multiplier.kind != "parallel"}
    assert kinds == {
        "bitfusion": "fusion", "bitserial": "bit_serial", "bwn": "bit_serial", "po2": "shift", "ternary": "bit_serial"
    }  # fmt: skip
    assert arrays["bwn"].multiplier.serial == arrays["ternary"].multiplier.serial == "weight"
    assert arrays["bitserial"].multiplier.serial == "both"


def test_int8_is_differs_from_int8_ws_in_the_dataflow_alone(project_root):
    weights = load_config(project_root / "configs/int8_ws.yaml").model_dump()
    inputs = load_config(project_root / "configs/int8_is.yaml").model_dump()
    assert (weights.pop("name"), inputs.pop("name")) == ("int8_ws", "int8_is")
    assert (weights["array"].pop("dataflow"), inputs["array"].pop("dataflow")) == ("ws", "is")
    assert weights == inputs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("int8_ws", ("ws", 1, 8, 8, 32, "double_half_up_then_away", 32)),
        ("int8_os", ("os", 8, 8, 8, 32, "double_half_up_then_away", 32)),
        ("int8_reference", ("os", 8, 8, 8, 32, "trace", 32)),
        ("int8_is", ("is", 1, 8, 8, 32, "double_half_up_then_away", 32)),
        ("int4_vsq", ("ws", 16, 4, 4, 32, "half_up", 32)),
        ("int16", ("ws", 1, 16, 16, 48, "half_up_int16_multiplier", 16)),
    ],
)
def test_shipped_machines_are_what_their_names_say(project_root, name, expected):
    config = load_config(project_root / "configs" / f"{name}.yaml")
    array, ppu = config.array, config.ppu
    assert (
        array.dataflow,
        array.lanes,
        array.weight.bits,
        array.activation.bits,
        config.accumulator.bits,
        ppu.rounding,
        ppu.multiplier_bits,
    ) == expected
    assert (array.scale_unit is not None) == (name == "int4_vsq")


# -- the JSON Schema --------------------------------------------------------------------------------------------------


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


TYPES = {
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": is_number,
    "integer": lambda value: is_number(value) and value == int(value),
}
CHECKS = {
    "type": lambda value, name, _: TYPES[name](value),
    "enum": lambda value, words, _: value in words,
    "minimum": lambda value, limit, _: not is_number(value) or value >= limit,
    "maximum": lambda value, limit, _: not is_number(value) or value <= limit,
    "exclusiveMinimum": lambda value, limit, _: not is_number(value) or value > limit,
    "minLength": lambda value, limit, _: not isinstance(value, str) or len(value) >= limit,
    "maxLength": lambda value, limit, _: not isinstance(value, str) or len(value) <= limit,
    "required": lambda value, keys, _: not isinstance(value, dict) or set(keys) <= set(value),
    "items": lambda value, item, root: not isinstance(value, list) or all(valid(part, item, root) for part in value),
    "anyOf": lambda value, options, root: any(valid(value, option, root) for option in options),
    "$ref": lambda value, name, root: valid(value, root["$defs"][name.removeprefix("#/$defs/")], root),
}
ANNOTATIONS = {"title", "description", "default", "$schema", "$defs"}


def valid(value, schema, root):
    """Judge `value` by the keywords that our schema uses (JSON Schema 2020-12); an unknown keyword is an error."""
    for keyword, argument in schema.items():
        if keyword in ANNOTATIONS:
            continue
        if keyword == "properties":
            inner = argument.items() if isinstance(value, dict) else ()
            if not all(valid(value[key], part, root) for key, part in inner if key in value):
                return False
        elif keyword == "additionalProperties":
            assert argument is False
            if isinstance(value, dict) and not set(value) <= set(schema["properties"]):
                return False
        elif not CHECKS[keyword](value, argument, root):
            return False
    return True


SCHEMA = json.loads(config_schema())


def test_the_schema_says_what_it_is():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "accelsim hardware configuration"
    assert SCHEMA["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in SCHEMA["$defs"].values())
    parts = [SCHEMA, *SCHEMA["$defs"].values()]
    undescribed = [key for part in parts for key, item in part["properties"].items() if not item.get("description")]
    assert undescribed == []


def test_shipped_configurations_satisfy_the_schema(shipped):
    assert valid(yaml.safe_load(shipped.read_text()), SCHEMA, SCHEMA)
    assert valid(load_config(shipped).model_dump(), SCHEMA, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), ""),
        (("clock_mhz",), 0),
        (("clock_mhz",), "fast"),
        (("array", "rows"), 0),
        (("array", "rows"), 5000),
        (("array", "rows"), 1.5),
        (("array", "rows"), True),
        (("array", "dataflow"), "sw"),
        (("array", "colums"), 3),
        (("array", "psum", "bits"), 7),
        (("array", "scale_unit"), 4),
        (("array", "skip_unused"), "yes"),
        (("ppu", "rounding"), "nearest"),
        (("dram", "kind"), None),
        (("dram", "bytes_per_cycle"), 0),
        (("buffers", "weight", "ping_pong"), "yes"),
        (("memory", "tiling"), {}),
        (("memory", "tiling"), [{"m": 0}]),
        (("bogus",), 1),
    ],
    ids=lambda value: str(value),
)
def test_the_schema_refuses_what_the_loader_refuses(project_root, path, value):
    config = load_config(project_root / "configs/int8_ws.yaml").model_dump()
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not valid(config, SCHEMA, SCHEMA)
    with pytest.raises(Exception, match=re.escape(".".join(path))):
        parse_config(config)


def test_the_schema_requires_what_the_loader_requires(project_root):
    config = load_config(project_root / "configs/int8_ws.yaml").model_dump()
    del config["array"]["dataflow"]
    assert not valid(config, SCHEMA, SCHEMA)


# -- docs/configuration.md --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manual(project_root):
    return (project_root / "docs/configuration.md").read_text(encoding="utf-8")


def documented(manual):
    """Return {dotted key: (accepted, default)} of the manual's tables."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", manual, re.MULTILINE)
    assert len(rows) == len({key for key, _, _ in rows}), "a key is documented twice"
    return {key: (range_, default) for key, range_, default in rows}


def default_in_words(field):
    if section_of(field) is not None:
        return "required" if field.is_required() else "`null`" if field.default is None else "as below"
    if field.is_required():
        return "required"
    shown = json.dumps(field.default)
    return f"`{shown.strip(chr(34))}`"


def expected_in_manual(path, field):
    range_ = "a rule, see below" if path == ("ppu", "rounding") else accepted(field)
    default = default_in_words(field)
    if path[0] == "buffers" and len(path) == 3:  # each buffer has defaults of its own
        default = f"`{json.dumps(parse_config(MINIMAL).model_dump()['buffers'][path[1]][path[2]])}`"
    return range_, default


MINIMAL = {"name": "a", "clock_mhz": 1, "array": {"rows": 1, "cols": 1, "dataflow": "ws"}}


def test_the_manual_gives_every_key_with_its_range_and_default(manual):
    assert documented(manual) == {".".join(path): expected_in_manual(path, field) for path, field in walk_keys()}


def test_the_manual_names_every_rounding_rule(manual):
    for rule in accepted(dict(walk_keys())[("ppu", "rounding")]).split(", "):
        assert f"`{rule}`" in manual


def test_every_yaml_example_of_the_manual_loads(manual):
    examples = re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        given = yaml.safe_load(example)
        parse_config({**MINIMAL, **given, "array": {**MINIMAL["array"], **given.get("array", {})}}, example)


def test_the_message_in_the_manual_is_the_one_the_loader_gives(manual):
    source, told = re.search(r"```text\n(name: demo.*?)```.*?```text\nerror: (.*?)\n```", manual, re.DOTALL).groups()
    with pytest.raises(Exception, match="problems") as caught:
        parse_config(source, "configs/demo.yaml")
    assert str(caught.value) == told
