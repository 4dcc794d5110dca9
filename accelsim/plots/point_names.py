"""Names beside points: where one covers no other name and no other point, and none where there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.plots.common import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 4
"""Between a point and its name, in points of 1/72 inch; points that are closer to one another share a name."""
# To the right below, where the eye looks first; then above, and the same on the left.
PLACES: tuple[tuple[tuple[int, int], Any, Any], ...] = (
    ((GAP, -1), "left", "top"),
    ((GAP, 1), "left", "bottom"),
    ((-GAP, -1), "right", "top"),
    ((-GAP, 1), "right", "bottom"),
)


def name_points(axes: Axes, points: Sequence[tuple[float, float, str]], font_size: float = 7.0) -> int:
    """Write a name beside every point that has room for it, where those that come first choose first.

    points : (x, y, name) in units of the data; the axes have their final scales and limits. Points at one place share
        the name of the first: "conv1, +2"

    Returns how many names were left out.
    """
    from matplotlib.transforms import Bbox

    pixels = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    frame = axes.get_window_extent()
    taken = [text.get_window_extent() for text in axes.texts]
    where = [axes.transData.transform((x, y)) for x, y, _ in points]
    half = GAP * pixels * 0.8
    markers = [Bbox([place - half, place + half]) for place in where]
    left_out = 0
    for place, names in _together([(float(x), float(y)) for x, y in where], GAP * pixels).items():
        text = axes.annotate(
            shortened(points[place][2]) + (f", +{names - 1}" if names > 1 else ""),
            points[place][:2],
            xytext=PLACES[0][0],
            textcoords="offset points",
            fontsize=font_size,
        )
        for offset, across, up in PLACES:
            text.set(position=offset, horizontalalignment=across, verticalalignment=up)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not box.count_overlaps(taken + markers):
                taken.append(box)
                break
        else:
            text.remove()
            left_out += names
    return left_out


def _together(where: Sequence[tuple[float, float]], near: float) -> dict[int, int]:
    """Return {the first of the points at one place: how many they are}."""
    found: dict[int, int] = {}
    for each, (x, y) in enumerate(where):
        first = next((one for one in found if max(abs(x - where[one][0]), abs(y - where[one][1])) < near), each)
        found[first] = found.get(first, 0) + 1
    return found
