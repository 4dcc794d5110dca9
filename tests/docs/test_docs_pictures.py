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
