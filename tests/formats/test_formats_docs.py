"""docs/formats.md: its examples run, and its table says what the catalog says."""

import doctest
import re

import pytest

from accelsim import formats
from accelsim.errors import FormatError
from accelsim.ppu.stage import OutputStage, output_path


@pytest.fixture
def page(project_root):
    return project_root / "docs" / "formats.md"


def test_the_examples_run(page):
    results = doctest.testfile(
        str(page), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted > 8
    assert results.failed == 0


def rows(page):
    """The catalog's rows: names, and the other cells."""
    table = page.read_text().split("## The catalog")[1].split("## Names")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            names = re.findall("`([^`]+)`", cells[0])
            if ".." in cells[0]:
                prefix, first, suffix = re.fullmatch(r"([a-z]+)(\d+)(n?)", names[0]).groups()
                last = int(re.fullmatch(r"[a-z]+(\d+)n?", names[1])[1])
                names = [f"{prefix}{bits}{suffix}" for bits in range(int(first), last + 1)]
                cells[1] = ", ".join(str(bits) for bits in range(int(first), last + 1))
            yield names, cells[1:]


def test_the_table_names_the_whole_catalog(page):
    named = [name for names, _ in rows(page) for name in names]
    assert sorted(named) == sorted(formats.names())


def test_the_table_says_what_the_catalog_says(page):
    for names, (bits, blocks, _, span, datapath, ppu, _) in rows(page):
        widths, spans = bits.split(", "), span.split(", ")
        assert len(widths) == len(names)
        for i, name in enumerate(names):
            kind = formats.get(name)
            assert kind.bits_per_element == float(widths[i]), name
            assert kind.datapath == datapath, name
            found = "" if kind.blocks is None else f"{kind.blocks.size} x {kind.blocks.scale_bits}"
            assert blocks == found, name
            try:
                path = output_path(OutputStage(rounding=None, format=kind))
            except FormatError:
                path = "none"
            assert ppu == path, name
            one = spans[i] if len(spans) == len(names) else span
            if one.startswith("±") and one[1:].isdigit():
                assert (kind.low, kind.high) == (-int(one[1:]), int(one[1:])), name


def test_groups_with_scales_above_scales_leave_no_ppu():
    one, two = formats.get("group_int4_g16_uint4"), formats.get("group_int4_g16_uint4_g32_fp16")
    assert output_path(OutputStage(rounding=None, format=one)) == "integers"
    with pytest.raises(FormatError, match="the PPU cannot emit group_int4_g16_uint4_g32_fp16"):
        output_path(OutputStage(rounding=None, format=two))
