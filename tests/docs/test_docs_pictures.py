"""The gallery of docs/pictures.md: every picture is there, and one of the page's own commands draws it."""

import pytest

plt = pytest.importorskip("matplotlib.pyplot")


def test_the_gallery_is_drawn_by_its_commands(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(project_root)
    monkeypatch.syspath_prepend(str(project_root / "tests"))
    import make_pictures

    pictures = make_pictures.gallery_pictures()
    assert len(pictures) == len(set(pictures)) >= 6
    make_pictures.draw(tmp_path)
    for name in pictures:
        drawn, kept = (plt.imread(folder / name) for folder in (tmp_path, project_root / "docs" / "images"))
        assert len({tuple(pixel) for pixel in drawn[:, drawn.shape[1] // 3]}) > 2, f"{name} is empty"
        height, width = (there / here for there, here in zip(kept.shape[:2], drawn.shape[:2], strict=True))
        assert 0.8 < height < 1.25, f"{name}: another picture is kept; python tests/make_pictures.py"
        assert 0.8 < width < 1.25, f"{name}: another picture is kept; python tests/make_pictures.py"


def test_the_picture_of_a_page_is_of_the_run_that_the_readme_shows(project_root, monkeypatch):
    """README's demo block is held against the program; its picture is held against the block."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(str(project_root / "tests"))
    import make_pictures

    readme = (project_root / "README.md").read_text(encoding="utf-8")
    with image.open(make_pictures.README_PICTURE) as picture:
        cycles, energy = (each.split()[0] for each in picture.text["Description"].split("; "))
    assert f" {cycles} " in readme, "python tests/make_pictures.py"
    assert f" {energy} nJ; average power" in readme, "python tests/make_pictures.py"
