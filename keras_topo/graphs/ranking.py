"""How well scores rank positive examples above negative ones."""

import numpy as np
from numpy.typing import ArrayLike


def average_precision(
    positive_scores: ArrayLike, negative_scores: ArrayLike
) -> float:
    """The area under precision over recall, as a sum of steps.

        AP = sum_k (R_k - R_k-1) P_k

    with the precision `P_k` and recall `R_k` of what scores as high as the
    `k`-th of the different scores, or higher; examples of equal score count
    together, as in scikit-learn's `average_precision_score`.

    Args:
        positive_scores, negative_scores: one axis of finite numbers each.

    Returns:
        A float in (0, 1]; of random scores the share of positive examples, in
        the mean.

    Raises:
        ValueError: if there are no positive examples or no negative ones, or
            scores have another number of axes or are not finite.

    *Complexity*: `O(examples log examples)`.

    Example:

    >>> round(average_precision([0.9, 0.4], [0.6, 0.1]), 3)
    0.833
    """
    truth, groups = _ranked(positive_scores, negative_scores)
    hits = np.cumsum(truth)[groups]
    precision = hits / (groups + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def roc_auc(positive_scores: ArrayLike, negative_scores: ArrayLike) -> float:
    """The share of pairs of examples, one of each kind, in the right order.

    Equal scores are half right. This is the area under the ROC curve.

    Args:
        positive_scores, negative_scores: as in `average_precision`.

    Returns:
        A float in [0, 1]; 0.5 of random scores, in the mean.

    Raises:
        ValueError: as `average_precision`.

    *Complexity*: `O(examples log examples)`.

    Example:

    >>> roc_auc([0.9, 0.4], [0.6, 0.1])
    0.75
    """
    truth, groups = _ranked(positive_scores, negative_scores)
    hits = np.cumsum(truth)[groups]
    misses = groups + 1 - hits
    heights = hits - np.diff(hits, prepend=0) / 2
    area = np.sum(np.diff(misses, prepend=0) * heights)
    return float(area / (hits[-1] * misses[-1]))


def hits_at(
    k: int, positive_scores: ArrayLike, negative_scores: ArrayLike
) -> float:
    """The share of positive examples above the `k`-th best negative one.

    Hits@k as the Open Graph Benchmark defines it (Hu et al., 2020): a positive
    example that ties with that negative one is no hit, and with fewer than `k`
    negative examples all are.

    Args:
        k: int, positive.
        positive_scores, negative_scores: as in `average_precision`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if `k` is not a positive int; or as `average_precision`.

    *Complexity*: `O(examples)`.

    Example:

    >>> hits_at(1, [0.9, 0.4], [0.6, 0.1])
    0.5
    """
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(f"`k` expects a positive int. Received: k={k!r}")
    positive = _scores(positive_scores, "positive_scores")
    negative = _scores(negative_scores, "negative_scores")
    if len(negative) < k:
        return 1.0
    bound = np.partition(negative, len(negative) - int(k))[-int(k)]
    return float(np.mean(positive > bound))


def _ranked(positive_scores, negative_scores):
    """Whether examples are positive, best first, and where groups of equal
    scores end."""
    parts = (
        _scores(positive_scores, "positive_scores"),
        _scores(negative_scores, "negative_scores"),
    )
    scores = np.concatenate(parts)
    truth = np.repeat([1, 0], [len(part) for part in parts])
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    groups = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    return truth, groups


def _scores(values, name):
    values = np.asarray(values)
    if (
        values.ndim != 1
        or not values.size
        or values.dtype.kind not in "biuf"
        or not np.isfinite(values).all()
    ):
        raise ValueError(
            f"`{name}` expects finite numbers along one axis, at least one. "
            f"Received: {name} of shape {values.shape} and dtype "
            f"{values.dtype}"
        )
    return values.astype("float64")
