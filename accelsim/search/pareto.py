"""Fronts: what nothing else is at least as good as in everything, and better in something."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import SearchError


def front(values: ArrayLike) -> NDArray[np.bool_]:
    """Return which points are on the Pareto front, bool [points].

    values : real [points, objectives], each to be small; of equal points the first one counts

    Raises SearchError for another shape or NaN.

    >>> front([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0], [2.0, 2.0]])
    array([ True,  True, False, False])
    """
    points = np.asarray(values, np.float64)
    if points.ndim != 2 or np.isnan(points).any():
        raise SearchError(f"a front is of numbers [points, objectives]; found shape {points.shape}, or NaN")
    kept = np.ones(len(points), bool)
    for index, point in enumerate(points):
        no_worse, better = (points <= point).all(axis=1), (points < point).any(axis=1)
        equal_before = (points[:index] == point).all(axis=1).any()
        kept[index] = not (no_worse & better).any() and not equal_before
    return kept
