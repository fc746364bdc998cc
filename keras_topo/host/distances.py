"""Distances in trees, told apart although they are rounded sums."""

import math

import numpy as np

# Entries of dense plans for weights without a common step.
MOST_ENTRIES = 2**26
# Distances that differ by less, relative to the longest, are one: they are
# sums of float64.
SAME = 2.0**-46


def common_step(weights):
    """The largest number that all weights are multiples of, to within the
    rounding of float32; `None` without."""
    if weights is None or not (weights > 0).any():
        return 1.0
    positive = np.unique(weights[weights > 0])
    if positive[-1] < 2**53 and (positive == np.rint(positive)).all():
        return float(np.gcd.reduce(positive.astype(np.int64)))
    # Euclid, with the rounding of float32 or of float64.
    as_float32 = positive.astype("float32").astype("float64")
    rounding = 1e-6 if (positive == as_float32).all() else 1e-12
    step, tolerance = 0.0, rounding * positive[-1]
    if positive[0] <= tolerance:
        return None
    for weight in positive:
        while weight > tolerance:
            step, weight = weight, math.fmod(step, weight)
            if step - weight < tolerance:
                weight = 0.0
        if positive[-1] > 2**20 * step:
            return None
    # The step that fits all of them best, if it fits each of them.
    multiples = np.rint(positive / step)
    step = (multiples @ positive) / (multiples @ multiples)
    misfit = np.abs(multiples * step - positive)
    return float(step) if (misfit <= rounding * positive).all() else None


class Numbers:
    """Numbers distinct distances, which differ by rounding."""

    def __init__(self):
        self._found, self.entries = [np.zeros(1)], 0

    def count(self, entries):
        self.entries += entries
        if self.entries > MOST_ENTRIES:
            raise ValueError(
                "`edge_weights` expects multiples of a common step that is not "
                "far shorter than they are, or few distinct distances from "
                "each centroid. Received: weights that need more than "
                f"{MOST_ENTRIES:,} values of f; round them to a longer step"
            )

    def add(self, distances):
        self._found.append(np.unique(distances))

    def finish(self):
        found = np.unique(np.concatenate(self._found))
        close = np.append(True, np.diff(found) > SAME * found[-1])
        self.distances = found[close]
        return self.distances

    def index(self, distances):
        """The number of the nearest one; nan gets some number."""
        above = np.searchsorted(self.distances, distances)
        above = np.clip(above, 1, max(len(self.distances) - 1, 1))
        above = np.minimum(above, len(self.distances) - 1)
        below = np.maximum(above - 1, 0)
        nearer = np.abs(self.distances[below] - distances) <= np.abs(
            self.distances[above] - distances
        )
        return np.where(nearer, below, above)


def ranks(group, distance):
    """Distinct distances of each group.

    Returns:
        The rank of each node's distance in its group, the distinct distances,
        ordered by group, and their groups.
    """
    order = np.lexsort((distance, group))
    g, d = group[order], distance[order]
    scale = SAME * float(distance.max())
    new = np.append(True, (g[1:] != g[:-1]) | (d[1:] - d[:-1] > scale))
    number = np.cumsum(new) - 1
    owner = g[new]
    start = np.searchsorted(owner, np.arange(int(group.max()) + 1))
    place = np.empty(len(group), np.int64)
    place[order] = number - start[g]
    return place, d[new], owner
