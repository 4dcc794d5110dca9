"""Laws over random configurations: what is written can be read back; a mistake is reported where it was made."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import accelsim
from accelsim.config.accepted import accepted, alternatives, choices, section_of, walk_keys
from accelsim.config.dump import dump_config
from accelsim.config.loader import parse_config
from accelsim.config.model import ROUNDINGS, HardwareConfig
from accelsim.errors import ConfigError
from accelsim.rounding import RULES

# Any file that exists will do: what it holds is the energy stage's affair.
OWN_TABLE = Path(accelsim.__file__).parent / "energy" / "tables" / "horowitz45.yaml"
printable = st.characters(exclude_categories=("C", "Z")) | st.just(" ")


def section(required, **optional):
    return st.fixed_dictionaries(required, optional=optional)


def registers():
    return section({}, bits=st.integers(8, 64), overflow=st.sampled_from(["wrap", "saturate"]))


def ports():
    return section({}, bits=st.integers(2, 16), sign=st.sampled_from(["signed", "unsigned", "either"]))


@st.composite
def scale_units(draw):
    weight, activation = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    product = draw(st.none() | st.integers(1, weight + activation))
    return {"weight_scale_bits": weight, "activation_scale_bits": activation, "product_bits": product}


def float_units():
    align_bits = st.none() | st.integers(0, 32)
    fixed = section(
        {"accumulate": st.just("fixed")},
        fraction_bits=st.integers(-64, 128),
        rounding=st.sampled_from(["truncate", "toward_zero", "half_even"]),
        align_bits=align_bits,
    )
    return section({"accumulate": st.just("float32")}, align_bits=align_bits) | fixed


def multipliers():
    """Any kind, with ports of any width that it can be built for."""
    bricks = section({"bits": st.sampled_from([2, 4, 8, 16])})
    kinds = {
        "shift": ports(),
        "fusion": bricks,
        "bit_serial": ports(),
    }
    serial = st.sampled_from(["both", "activation", "weight"])
    return st.sampled_from(sorted(kinds)).flatmap(
        lambda kind: st.fixed_dictionaries(
            {
                "multiplier": section({"kind": st.just(kind)}, **({"serial": serial} if kind == "bit_serial" else {})),
                "weight": kinds[kind],
                "activation": kinds[kind],
            }
        )
    )


@st.composite
def machines(draw):
    """The sections `array` and `accumulator`: what a float unit adds into is its own register."""
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    only_os = {"drain_overlap": st.booleans()} if dataflow == "os" else {"double_buffered": st.booleans()}
    array = draw(
        section(
            {"rows": st.integers(1, 4096), "cols": st.integers(1, 4096), "dataflow": st.just(dataflow)},
            lanes=st.integers(1, 256),
            weight=ports(),
            activation=ports(),
            psum=registers(),
            skip_unused=st.booleans(),
            scale_unit=st.none() | scale_units(),
            popcount=st.none()
            | section(
                {"word_bits": st.sampled_from([32, 64, 128, 256])}, zero_padding=st.sampled_from(["correct", "refuse"])
            ),
            codebook=st.none()
            | section({"mode": st.sampled_from(["decode", "accumulate"])}, index_bits=st.integers(1, 8)),
            **only_os,
        )
    )
    accumulator = draw(registers())
    special = draw(st.sampled_from(["none", "multiplier", "float_unit"]))
    if special == "multiplier":
        array = {**array, **draw(multipliers()), "scale_unit": None}
    if special == "float_unit":
        array["float_unit"] = draw(float_units())
        narrow = section({"bits": st.integers(8, 48)}, overflow=st.sampled_from(["wrap", "saturate"]))
        if array["float_unit"]["accumulate"] == "float32":
            narrow = st.just({"bits": 32, "overflow": "saturate"})
        array["psum"], accumulator = draw(narrow), draw(narrow)
    return {"array": array, "accumulator": accumulator}


def buffers():
    return section(
        {"size_bytes": st.integers(64, 1 << 30)},
        width_bits=st.none() | st.integers(1, 1 << 20),
        banks=st.integers(1, 1024),
        ports=st.integers(1, 8),
        ping_pong=st.booleans(),
    )


def drams():
    kinds = st.sampled_from(["ddr3", "ddr4", "lpddr4", "lpddr5", "hbm2", "hbm2_board"])
    own = {
        "bytes_per_cycle": st.none() | st.floats(0, 1e6, exclude_min=True),
        "latency_cycles": st.none() | st.integers(0, 1_000_000),
        "burst_bytes": st.none() | st.integers(1, 65536),
        "channels": st.none() | st.integers(1, 1024),
    }
    return section({}, kind=kinds) | section({"timing": st.just("preset")}, kind=kinds, **own)


def pins():
    sizes = {key: st.none() | st.integers(1, 1 << 31) for key in "mnk"}
    orders = st.lists(st.sampled_from("bmnk"), min_size=1, unique=True).map("".join)
    names = st.none() | st.text(printable, min_size=1, max_size=200)
    pin = section({}, layer=names, order=st.none() | orders, **sizes)
    return st.lists(pin, max_size=3, unique_by=lambda pin: pin.get("layer"))


others = section(
    {
        "name": st.text(printable, min_size=1, max_size=100),
        "clock_mhz": st.floats(0, 100_000, exclude_min=True) | st.integers(1, 100_000),
    },
    ppu=section(
        {},
        lanes=st.integers(1, 4096),
        latency_cycles=st.integers(0, 1000),
        rounding=st.sampled_from(ROUNDINGS),
        multiplier_bits=st.integers(2, 32),
        vsq_guard_bits=st.integers(0, 8),
        vsq_scale_rounding=st.sampled_from(["nearest", "up"]),
        mx_scale_rule=st.sampled_from(["floor", "even", "tosa", "rceil"]),
        element_rounding=st.sampled_from(["half_even", "half_away", "toward_zero"]),
    ),
    buffers=section({}, weight=buffers(), activation=buffers(), output=buffers(), accumulator=buffers()),
    dma=section({}, engines=st.integers(1, 64), setup_cycles=st.integers(0, 1_000_000)),
    dram=drams(),
    cores=section({}, count=st.integers(1, 256), split=st.sampled_from(["output_channels", "rows", "batch", "layers"])),
    memory=section(
        {},
        objective=st.sampled_from(["traffic", "latency"]),
        passes=st.sampled_from(["whole", "split"]),
        fuse_layers=st.booleans(),
        tiling=pins(),
    ),
    energy=section({}, table=st.sampled_from(["horowitz45", str(OWN_TABLE)])),
)
configs = st.tuples(others, machines()).map(lambda parts: parse_config({**parts[0], **parts[1]}))


@given(configs)
def test_what_is_dumped_can_be_loaded(config):
    again = parse_config(dump_config(config))
    assert again == config
    assert again.digest == config.digest
    assert dump_config(again) == dump_config(config)


@given(configs)
def test_other_yaml_readers_understand_a_dump_too(config):
    assert yaml.safe_load(dump_config(config)) == config.model_dump()  # PyYAML's own rules: YAML 1.1


def test_a_whole_clock_is_dumped_as_one_would_write_it():
    config = parse_config({"name": "a", "clock_mhz": 700.0, "array": {"rows": 1, "cols": 1, "dataflow": "is"}})
    assert "\nclock_mhz: 700  " in dump_config(config)


@pytest.mark.parametrize(
    "name", ["null", "true", "Yes", "1e3", "0x1F", "~", "- a", "a: b", "#a", "é", "'", '"', "a\\b"]
)
def test_texts_that_look_like_something_else_survive(name):
    config = parse_config({"name": name, "clock_mhz": 1, "array": {"rows": 1, "cols": 1, "dataflow": "is"}})
    assert parse_config(dump_config(config)).name == name


@given(configs)
def test_a_dump_says_everything_once_in_order_with_its_description(config):
    lines = dump_config(config).splitlines()
    shown = [line.split(":")[0].strip() for line in lines]
    units = ("scale_unit", "float_unit", "popcount", "codebook")
    absent = [("array", unit) for unit in units if getattr(config.array, unit) is None]
    absent += [("energy", "scale_to")] if config.energy.scale_to is None else []
    expected = [path[-1] for path, _ in walk_keys() if len(path) == 2 or path[:2] not in absent]
    assert shown == expected
    assert all("  # " in line for line in lines)


def value_lines(text):
    """Return (line number, dotted key, whether it holds a plain value) of each line of a dump."""
    path = []
    for number, line in enumerate(text.splitlines(), start=1):
        indent, key, value = re.match(r"( *)(\w+):(.*?)  # ", line).groups()
        path = [*path[: len(indent) // 2], key]
        yield number, tuple(path), bool(value.strip())


FIELDS = dict(walk_keys())
WRONG = "{surely: wrong}"


@given(configs, st.data())
def test_one_corrupted_value_is_reported_at_its_line(config, data):
    lines = dump_config(config).splitlines()
    plain = [(number, path) for number, path, is_value in value_lines(dump_config(config)) if is_value]
    number, path = data.draw(st.sampled_from(plain))
    field = FIELDS[path]
    unit_is_off = section_of(field) is not None  # then any section is judged by its own keys
    wrong = data.draw(st.sampled_from(["[1]", "''", "-1", "1e9"])) if unit_is_off else WRONG
    key = lines[number - 1].split(":")[0]
    lines[number - 1] = f"{key}: {wrong}  # corrupted"
    with pytest.raises(ConfigError) as caught:
        parse_config("\n".join(lines), "c.yaml")
    assert str(caught.value).startswith(f"c.yaml: line {number}: {'.'.join(path)}: ")
    assert "\n" not in str(caught.value)


@given(configs, st.data())
def test_one_unknown_key_is_reported_at_its_line(config, data):
    lines = dump_config(config).splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    indent = re.match(" *", lines[number]).group()
    lines.insert(number, f"{indent}zzz: 1")
    with pytest.raises(ConfigError, match=rf"^c\.yaml: line {number + 1}: (\w+\.)*zzz: unknown key; use ") as caught:
        parse_config("\n".join(lines), "c.yaml")
    assert "\n" not in str(caught.value)


@given(configs, st.data())
def test_one_removed_key_is_reported_at_its_section(config, data):
    required = [path for path, field in walk_keys() if field.is_required() and not section_of(field)]
    path = data.draw(st.sampled_from(required))
    lines = dump_config(config).splitlines()
    number_of = {path: number for number, path, _ in value_lines(dump_config(config))}
    del lines[number_of[path] - 1]
    with pytest.raises(ConfigError) as caught:
        parse_config("\n".join(lines), "c.yaml")
    line = number_of[path[:-1]] if len(path) > 1 else 1
    assert str(caught.value) == f"c.yaml: line {line}: {'.'.join(path)}: required key is missing"


JARGON = re.compile(r"Input should|valid (dictionary|integer|string|number)|pydantic|Extra inputs|Value error|type=")
MISFITS = [None, True, -1, 0, 10**30, 8.5, float("nan"), "", "x" * 2000, "8", [], [1], {}, {"zz": 1}, {1: 2}, object()]


def outcome_of(config):
    """Return (the configuration, None), or (None, the message with which it is refused)."""
    try:
        return parse_config(config, "x"), None
    except ConfigError as error:
        return None, str(error)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
@pytest.mark.parametrize("misfit", MISFITS, ids=lambda value: repr(value)[:12])
def test_a_misfit_is_kept_as_it_is_or_refused_in_plain_words(path, misfit):
    config = {"name": "a", "clock_mhz": 1, "array": {"rows": 1, "cols": 1, "dataflow": "ws"}}
    if path[:2] == ("array", "float_unit"):  # which needs registers of its own kind
        config["accumulator"] = config["array"]["psum"] = {"bits": 32, "overflow": "saturate"}
    inner = config
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    if path[0] == "buffers" and len(path) == 3:
        inner["size_bytes"] = 64
    inner[path[-1]] = misfit
    if path[0] == "dram" and len(path) == 2 and path[1] not in ("kind", "timing"):  # the preset's numbers
        config["dram"]["timing"] = "preset"
    parsed, refusal = outcome_of(config)
    if refusal is None:  # it fits here after all: then nothing was converted on the way
        for key in path:
            parsed = getattr(parsed, key)
        assert misfit == {} or (misfit == [] and parsed == ()) or parsed == misfit
        assert isinstance(parsed, bool) == isinstance(misfit, bool)
    else:
        assert not JARGON.search(refusal)
        assert path[-1] in refusal


def test_the_rounding_rules_are_those_of_the_whole_project():
    assert ROUNDINGS[0] == "trace"
    assert list(ROUNDINGS[1:]) == list(RULES)


def test_what_is_accepted_is_said_in_words():
    said = {".".join(path): accepted(field) for path, field in walk_keys()}
    assert said["array.rows"] == "1 to 4096"
    assert said["array.dataflow"] == "os, ws, is"
    assert said["array.scale_unit"] == "a section, or null"
    assert said["array.scale_unit.product_bits"] == "1 to 24, or null"
    assert said["array.skip_unused"] == "true or false"
    assert said["array.float_unit.align_bits"] == "0 to 32, or null"
    assert said["array.popcount.word_bits"] == "32, 64, 128, 256"
    assert said["memory.tiling"] == "a list of sections"
    assert said["clock_mhz"] == "more than 0, up to 100000"
    assert said["name"] == "1 to 100 characters"
    assert said["ppu.rounding"] == ", ".join(ROUNDINGS)
    assert all(said.values()), "a field without a stated range"


def test_every_key_has_a_description():
    assert [".".join(path) for path, field in walk_keys() if not field.description] == []
    assert all(alternatives(field) for _, field in walk_keys())
    assert choices(HardwareConfig.model_fields["name"]) == ()
