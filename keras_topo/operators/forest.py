"""Masks on forests: functions of the distance along the edges of trees."""

import hashlib
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.backend import standardize_dtype
from numpy.typing import ArrayLike

from keras_topo._backend import constant
from keras_topo.annotations import TensorLike
from keras_topo.host.forest import Forest
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import accumulation_dtype, as_tensor
from keras_topo.operators.plan import Plan
from keras_topo.operators.scan import SegmentedScan, exponents
from keras_topo.operators.shapes import broadcast_batch


class ForestExponential(MaskOperator):
    """The mask `M[i, j] = exp(a . dist(i, j) + b)` on the nodes of a forest.

    `dist(i, j)` is the sum of the weights of the edges on the way from `i` to
    `j`, numbers or vectors, which may differ with the direction in which an
    edge is traveled. Nodes of different trees do not see each other.

    The product is two sweeps of dynamic programming, up to the roots and down
    again. They run along *heavy paths*, which go from a node to its largest
    subtree. A path is a linear recurrence, which a blocked scan solves, and
    all paths with the same number of paths above them are swept at once. That
    number is at most `log2 L`, so deep trees, a path of a million nodes
    included, take as few steps as shallow ones.

    *Complexity*: products of `O(L)` operations per column, about `70 L`
    multiply-adds, in `O(log L)` steps; preparation on the host `O(L log L)`.
    Factors of the scans take memory of some `32 L` numbers for each `a` of a
    batch, several times that with the gradient.

    Where weights *grow* by more than a factor of about 1,000 per edge, float32
    loses near nodes beside far ones: the sum over the outside of a subtree is
    the sum over everything minus the sum over the subtree.

    Args:
        parents: `(L,)`, ints on the host: the parent of each node, -1 for
            roots; or a `keras_topo.graphs.Forest`.
        edge_weights: `(L,)` or `(L, l)`, the weight of the edge between a node
            and its parent; of roots it is not used. A tuple of two, `(up,
            down)`, for travel to the parent and from it. `None` for ones.
        a: `(*batch,)`, or `(*batch, l)` for vectors: negative for masks that
            decay with the distance.
        b: `(*batch,)`.

    Raises:
        ValueError: if `parents` is not a forest, or the shapes do not match.

    Example:

    >>> mask = ForestExponential([-1, 0, 1], a=-np.log(2.0))
    >>> print(np.array(mask.to_dense()).round(2))
    [[1.   0.5  0.25]
     [0.5  1.   0.5 ]
     [0.25 0.5  1.  ]]
    """

    _fields = ("a", "b")

    def __init__(
        self,
        parents: Forest | ArrayLike,
        edge_weights: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
        a: TensorLike = -1.0,
        b: TensorLike = 0.0,
    ):
        forest = parents
        if not isinstance(forest, Forest):
            forest = Forest.from_parents(forest)
        up, down, self._vectors = check_edge_weights(edge_weights, forest)
        self.a = as_tensor(a, "a", int(self._vectors))
        if self._vectors and self.a.shape[-1] != up.shape[-1]:
            raise ValueError(
                "`a` expects the shape (..., l) with as many components as "
                f"edges have weights, {up.shape[-1]}. Received: a of shape "
                f"{tuple(self.a.shape)}"
            )
        self.b = as_tensor(b, "b", 0)
        # A number has no dtype of its own.
        if isinstance(b, (int, float)):
            self.b = ops.cast(self.b, self.a.dtype)
        elif isinstance(a, (int, float)):
            self.a = ops.cast(self.a, self.b.dtype)
        # What sums take up the tree, from `j` to `i`, has the weight of the
        # way from `i` down to `j`.
        self._tree = shared_plan(HeavyPathPlan, forest, down, up)
        batch = self.a.shape[:-1] if self._vectors else self.a.shape
        batch = broadcast_batch(tuple(batch), tuple(self.b.shape))
        length = forest.num_nodes
        dtype = self.a.dtype
        if standardize_dtype(self.b.dtype) != standardize_dtype(dtype):
            dtype = accumulation_dtype(dtype, self.b.dtype)
        super().__init__((*batch, length, length), dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan((length,), length, rows_cost=self._unit_cost)

    def _apply(self, x):
        x = ops.squeeze(x, -1)
        a = ops.cast(self.a, x.dtype)
        if not self._vectors:
            a = ops.expand_dims(a, -1)
        y = self._tree.apply(x, a)
        scale = ops.exp(ops.cast(self.b, x.dtype))
        scale = ops.reshape(scale, tuple(ops.shape(scale)) + (1, 1))
        return ops.expand_dims(y * scale, -1)

    def _transpose(self):
        clone = self.with_tensors(self.tensors())
        clone._tree = self._tree.reversed()
        return clone

    def _nonnegative(self):
        return True

    def _cost(self, columns):
        plan = self._tree
        return (
            10 * costs.LAUNCH * plan.steps
            + costs.SMALL_PRODUCT * plan.work * columns
            + 20 * costs.ELEMENT * self.num_tokens * columns
            + 4 * costs.ELEMENT * plan.work
        )


def check_edge_weights(edge_weights, forest):
    """Weights of travel up and down, `(L, l)`, and whether they are vectors."""
    nodes = forest.num_nodes
    if edge_weights is None:
        edge_weights = np.ones(nodes)
    both = edge_weights
    if not isinstance(edge_weights, tuple):
        both = (edge_weights, edge_weights)
    if len(both) != 2:
        raise ValueError(
            "`edge_weights` expects one array, or a tuple (up, down). "
            f"Received: a tuple of {len(both)}"
        )
    both = [host_array(weights) for weights in both]
    shapes = [weights.shape for weights in both]
    if (
        shapes[0] != shapes[1]
        or shapes[0][:1] != (nodes,)
        or not (1 <= len(shapes[0]) <= 2)
    ):
        raise ValueError(
            f"`edge_weights` expects the shape ({nodes},) or ({nodes}, l), the "
            "same in both directions of travel. Received: shape "
            + " and ".join(map(str, shapes[: len(set(shapes))]))
        )
    has_parent = forest.parents >= 0
    for weights in both:
        bad = has_parent & ~np.isfinite(weights).reshape(nodes, -1).all(1)
        if bad.any():
            node = int(np.argmax(bad))
            raise ValueError(
                "`edge_weights` expects finite numbers. Received: "
                f"{weights[node]} for the edge of node {node}"
            )
    vectors = len(shapes[0]) == 2
    both = [weights.reshape(nodes, -1) for weights in both]
    # What stands at a root belongs to no edge.
    both = [np.where(has_parent[:, None], weights, 0) for weights in both]
    return *both, vectors


def host_array(edge_weights):
    """`edge_weights` as a float64 array."""
    if ops.is_tensor(edge_weights) or isinstance(edge_weights, keras.Variable):
        raise ValueError(
            "`edge_weights` expects an array on the host: plans are made from "
            "it, and it is not differentiated. Received: a tensor or a "
            f"variable of shape {tuple(edge_weights.shape)}"
        )
    try:
        return np.asarray(edge_weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`edge_weights` expects numbers. Received: {edge_weights!r:.80}"
        ) from error


# Plans live as long as an operator or a layer holds them.
_PLANS = weakref.WeakValueDictionary()


def shared_plan(
    kind: Callable[..., Any], forest: Forest, *arrays: np.ndarray | None
) -> Any:
    """`kind(forest, *arrays)`, or an equal one that is in use somewhere."""
    digest = hashlib.blake2b(kind.__name__.encode())
    for array in (forest.parents, *arrays):
        if array is None:
            continue
        digest.update(str((array.dtype, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    key = digest.digest()
    plan = _PLANS.get(key)
    if plan is None:
        plan = _PLANS[key] = kind(forest, *arrays)
    return plan


class HeavyPathPlan:
    """How to sweep over a forest, level by level of its heavy paths.

    A level holds the paths with as many paths between them and their root. In
    `order` its nodes are consecutive, and so is each path, from its head
    downwards.
    """

    def __init__(self, forest, up, down):
        self._inputs = (forest, down, up)
        self._reversed = None
        level = forest.light_depth()
        self.order = np.lexsort((forest.position, level))
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(self.order))
        bounds = np.searchsorted(level[self.order], np.arange(level.max() + 2))
        # Of each node in its own level.
        place = self.rank - bounds[level]
        self.levels = [
            Level(self.order, start, stop, forest, place, up, down)
            for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
        ]

    def reversed(self):
        """The plan of travel in the other direction."""
        if self._reversed is None:
            self._reversed = shared_plan(HeavyPathPlan, *self._inputs)
        return self._reversed

    @property
    def work(self):
        """Multiply-adds a column."""
        return sum(lv.scan_up.work + lv.scan_down.work for lv in self.levels)

    @property
    def steps(self):
        return sum(lv.scan_up.steps + lv.scan_down.steps for lv in self.levels)

    def apply(self, x, a):
        """`sum_j exp(a . dist(i, j)) x_j` for `x` `(..., L, columns)` and `a`
        `(*batch, l)`."""
        x = ops.take(x, constant(self.order), axis=-2)
        own = [x[..., lv.start : lv.stop, :] for lv in self.levels]
        # Sums over the subtree of each node; in `own` over all of it but for
        # what the heavy path has below.
        below = [None] * len(own)
        for k in range(len(own) - 1, -1, -1):
            if k + 1 < len(own):
                child = self.levels[k + 1]
                own[k] = own[k] + child.sum_to_parents(below[k + 1], a, own[k])
            below[k] = self.levels[k].sweep_up(own[k], a)
        y, above = [], None
        for k, lv in enumerate(self.levels):
            above = lv.sweep_down(above, below[k], own[k], a) + below[k]
            y.append(above)
        y = ops.concatenate(y, axis=-2)
        return ops.take(y, constant(self.rank), axis=-2)


class Level:
    """Heavy paths that are swept at once.

    Args:
        order: `(L,)`, the nodes of all levels, one path after the other.
        start, stop: where the level is in `order`.
        forest: `Forest`.
        place: `(L,)`, the place of each node of the forest in its own level.
        up, down: `(L, l)`, weights of travel to the parent and from it.
    """

    def __init__(self, order, start, stop, forest, place, up, down):
        self.start, self.stop = int(start), int(stop)
        nodes = order[start:stop]
        is_head = forest.head[nodes] == nodes
        self.heads = np.flatnonzero(is_head)
        self.parents = place[forest.parents[nodes[self.heads]]]
        self.up, self.down = up[nodes], down[nodes]
        self.is_head = is_head[:, None]
        self.scan_down = SegmentedScan(self.down, ~is_head)
        # Backwards, a node comes after its heavy child.
        last = np.append(is_head[1:], True)
        child_up = np.append(self.up[1:], np.zeros_like(self.up[:1]), axis=0)
        self.scan_up = SegmentedScan(child_up[::-1], ~last[::-1])

    def sweep_up(self, own, a):
        """`S_v = own_v + e_up S_child` along each path."""
        if self.scan_up.trivial:
            return own
        y = self.scan_up.apply(ops.flip(own, -2), a)
        return ops.flip(y, -2)

    def sum_to_parents(self, below, a, like):
        """What paths give to the level above, at the parents of their heads."""
        heads = ops.take(below, constant(self.heads), axis=-2)
        heads = heads * weights(a, self.up[self.heads])
        return sum_at(heads, self.parents, like.shape[-2])

    def sweep_down(self, above, below, own, a):
        """Sums over what is outside the subtree of each node.

        Args:
            above: sums over everything, for nodes of the level above; `None`
                for the first level.
            below: sums over subtrees, of this level.
            own: the same but for what the heavy path has below.
        """
        # Its parent's subtree but for its own comes from its parent.
        before = ops.concatenate(
            [ops.zeros_like(own[..., :1, :]), own[..., :-1, :]], axis=-2
        )
        source = before * weights(a, self.down)
        is_head = constant(self.is_head)
        source = ops.where(is_head, ops.zeros_like(source), source)
        if above is not None:
            heads = ops.take(below, constant(self.heads), axis=-2)
            heads = heads * weights(a, self.up[self.heads])
            heads = ops.take(above, constant(self.parents), axis=-2) - heads
            heads = heads * weights(a, self.down[self.heads])
            source = source + sum_at(heads, self.heads, self.stop - self.start)
        return self.scan_down.apply(source, a)


def weights(a, distance):
    """`exp(a . d)`, `(*batch, edges, 1)`, for distances `(edges, l)`."""
    return ops.expand_dims(ops.exp(exponents(a, distance)), -1)


def sum_at(x, places, size):
    """Sums rows of `x` `(..., n, columns)` into `(..., size, columns)`."""
    x = ops.moveaxis(x, -2, 0)
    places = constant(places.astype("int32"))
    return ops.moveaxis(ops.segment_sum(x, places, num_segments=size), 0, -2)
