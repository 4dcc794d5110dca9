"""docs/trace.md: its examples run, and its tables say what the schema says."""

import doctest

import pytest
from trace_examples import small_builder

from accelsim import formats
from accelsim.trace import archive, schema
from accelsim.trace.slots import array_slots


@pytest.fixture
def page(project_root):
    return project_root / "docs" / "trace.md"


def test_the_examples_run(page, project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(project_root)  # configs/ lies there
    results = doctest.testfile(
        str(page),
        module_relative=False,
        globs={"folder": tmp_path},
        optionflags=doctest.ELLIPSIS,
    )
    assert results.attempted > 20
    assert results.failed == 0


def test_every_key_of_the_schema_is_explained(page):
    text = page.read_text()
    models = (
        schema.TraceMeta,
        schema.TensorMeta,
        schema.Clamp,
        schema.Conv2dMeta,
        schema.LinearMeta,
        schema.MatmulMeta,
    )
    for model in models:
        for name, field in model.model_fields.items():
            key = field.alias or name
            assert f"`{key}`" in text or f'"{key}":' in text, f"{model.__name__}.{key}"


def test_every_array_is_explained(page):
    text = page.read_text()
    trace = small_builder().build()
    known = {name: formats.get(meta.format) for name, meta in trace.meta.tensors.items()}
    producers = {layer.output: layer.name for layer in trace.layers}
    parts = {name.split("/")[-1] for name in array_slots(trace.meta, known, producers)}
    assert parts >= {"codes", "block_scales", "expected", "bias", "multiplier", "shift", "labels"}
    for part in parts:
        assert f"/{part}`" in text or f"`{part}`" in text, part


def test_the_limits_are_as_documented(page):
    text = page.read_text()
    assert archive.SIZE_LIMIT_BYTES == 4 << 30
    assert "(4 GiB unless" in text
    assert (archive._BOMB_RATIO, archive._BOMB_BYTES) == (500, 64 << 20)
    assert "more than 500 times, above\n64 MiB" in text
    assert f"**version {schema.VERSION}**" in text
