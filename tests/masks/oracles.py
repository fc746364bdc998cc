"""Masks in plain NumPy, by the formulas of their docstrings."""

import numpy as np
import reference as ref

from keras_topo.masks import Grid, Sequence


def matrix(mask, topology):
    """A built mask as a float64 matrix, `(heads or 1, L, L)`, or `(batch,
    heads, L, L)` where it depends on the tokens."""
    weights = {w.name: np.float64(ref.numpy(w)) for w in mask.weights}
    inner = ORACLES[type(mask).__name__](mask, topology, weights)
    if topology.causal:
        inner = inner * np.tril(np.ones(inner.shape[-2:]))
    return ref.bordered(inner, topology.num_prefix_tokens)


def offsets(topology):
    """`i - j` along each axis, the shorter way round where ends meet."""
    shape = topology.shape
    cells = np.unravel_index(np.arange(np.prod(shape)), shape)
    found = []
    for x, n, wraps in zip(cells, shape, topology.periodic, strict=True):
        offset = x[:, None] - x
        if wraps:
            offset = offset % n
            offset = np.where(offset > n // 2, offset - n, offset)
        found.append(offset)
    return found


def sizes(mask, topology):
    """The units of distances of masks with a `reach`."""
    return mask.reach if isinstance(topology, Sequence) else topology.shape


def units(topology):
    return (1,) if isinstance(topology, Sequence) else topology.shape


def softplus(x):
    return np.log1p(np.exp(x))


def per_head(x):
    return np.asarray(x)[..., None, None]


# Masks of offsets.


def entries(mask, topology):
    """For each axis, the shares that the entries of a table have in `M[i, j]`:
    `(L, L, entries)`. Linear interpolation on grids, and on sequences the
    entry itself, the last one going on."""
    if isinstance(topology, Sequence):
        (offset,), (reach,) = offsets(topology), mask.reach
        if topology.causal:
            return [np.eye(reach)[np.clip(offset, 0, reach - 1)]]
        index = np.clip(offset, 1 - reach, reach - 1) + reach - 1
        return [np.eye(2 * reach - 1)[index]]
    found = []
    for offset, old, n, wraps in zip(
        offsets(topology),
        mask.reach,
        topology.shape,
        topology.periodic,
        strict=True,
    ):
        if wraps:
            count, places = old, offset % n * old / n
        else:
            count = 2 * old - 1
            places = np.clip(offset * old / n + old - 1, 0, count - 1)
        low = np.floor(places + 1e-9).astype(int)
        share = (places - low)[..., None]
        eye = np.eye(count)
        # Beside the last entry of an open axis there is none.
        high = (low + 1) % count
        found.append((1 - share) * eye[low] + share * eye[high])
    return found


def table(mask, topology, weights):
    shares = entries(mask, topology)
    axes = "abc"[: len(shares)]
    terms = ",".join(f"ij{axis}" for axis in axes)
    values = np.abs(weights["table"])
    return np.einsum(f"h{axes},{terms}->hij", values, *shares)


def distance(mask, topology, weights):
    longest = max(1, sum(n - 1 for n in sizes(mask, topology)))
    x = sum(abs(offset) for offset in offsets(topology)) / longest
    polynomial = sum(
        per_head(weights["coefficients"][:, p]) * x**p
        for p in range(mask.degree + 1)
    )
    return np.exp(np.clip(polynomial, -30, 30))


def separable(mask, topology, weights):
    factors = []
    if mask.terms == "table":
        for k, shares in enumerate(entries(mask, topology)):
            values = np.abs(weights[f"table_{k}"])
            factors.append(np.einsum("hre,ije->hrij", values, shares))
    else:
        for k, (offset, n) in enumerate(
            zip(offsets(topology), sizes(mask, topology), strict=True)
        ):
            rate = per_head(softplus(weights[f"rate_{k}"]))
            factors.append(np.exp(-rate * abs(offset) / n))
        factors.append(per_head(np.abs(weights["scale"])))
    return np.prod(np.broadcast_arrays(*factors), axis=0).sum(1)


def decay(mask, topology, weights):
    exponent = 0
    for k, (offset, unit) in enumerate(
        zip(offsets(topology), units(topology), strict=True)
    ):
        rate = per_head(softplus(weights[f"rate_{k}"]))
        exponent = exponent + rate * abs(offset) / unit
    shares = np.ones((exponent.shape[0], 1))
    if mask.num_scales > 1:
        shares = np.exp(weights["scale_logits"])
        shares = shares / shares.sum(-1, keepdims=True)
    return (per_head(shares) * np.exp(-exponent)).sum(1)


def gaussian(mask, topology, weights):
    squares = sum(
        (offset / unit / per_head(softplus(weights[f"width_{k}"]))) ** 2
        for k, (offset, unit) in enumerate(
            zip(offsets(topology), units(topology), strict=True)
        )
    )
    return np.exp(-squares / 2)


# Masks along an order of the tokens.


def snake(shape):
    """Cells along the snake by rows, every second row the other way."""
    if len(shape) == 1:
        return [(i,) for i in range(shape[0])]
    inner = snake(shape[1:])
    return [
        (i, *rest)
        for i in range(shape[0])
        for rest in (inner if i % 2 == 0 else inner[::-1])
    ]


def diagonals(shape):
    cells = list(np.ndindex(*shape))
    turned = [(-1 if sum(cell) % 2 else 1) * cell[0] for cell in cells]
    keys = [(sum(cell), turn) for cell, turn in zip(cells, turned, strict=True)]
    return [cell for _, cell in sorted(zip(keys, cells, strict=True))]


def places(shape, curve):
    """The place of each cell, in row-major order, along a curve."""
    if curve == "rows":
        order = snake(shape)
    elif curve == "columns":
        order = [cell[::-1] for cell in snake(shape[::-1])]
    else:
        order = diagonals(shape)
    order = [np.ravel_multi_index(cell, shape) for cell in order]
    return np.argsort(order)


def extent(topology):
    return np.prod(units(topology)) ** (1 / len(topology.shape))


def curves(mask, topology, weights):
    rates = softplus(weights["rates"]) / extent(topology)
    terms = []
    for k, curve in enumerate(mask.curves):
        place = places(topology.shape, curve)
        distance = abs(place[:, None] - place)
        terms.append(np.exp(-per_head(rates[:, k]) * distance))
    return np.mean(terms, axis=0)


def gated(mask, topology, weights):
    x = np.float64(topology.inputs)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    rates = softplus(x @ weights["kernel"] + weights["bias"])
    heads = rates.shape[-1] // mask.num_curves
    rates = rates.reshape(*rates.shape[:2], heads, mask.num_curves)
    rates = rates.transpose(0, 2, 3, 1)
    if mask.num_curves == 1:
        along = rates[:, :, 0]
        if isinstance(topology, Grid):
            along = along / topology.shape[0]
        return ref.gated_decay(along, along)
    terms = []
    for k, curve in enumerate(("rows", "columns")):
        place = places(topology.shape, curve)
        along = rates[:, :, k][..., np.argsort(place)] / extent(topology)
        inner = ref.gated_decay(along, along)
        terms.append(inner[..., place[:, None], place])
    return np.mean(terms, axis=0)


def resolvent(mask, topology, weights):
    axes = len(topology.shape)
    steps = 1 / (1 + np.exp(-weights["step_logits"])) / axes
    corners = list(np.ndindex(*[2] * axes))
    if topology.causal:
        corners = corners[:1]
    return sum(
        ref.grid_resolvent(steps, topology.shape, corner) for corner in corners
    )


def causal(mask, topology, weights):
    return np.tril(np.ones((1, *[np.prod(topology.shape)] * 2)))


ORACLES = {
    "TableMask": table,
    "DistanceMask": distance,
    "SeparableMask": separable,
    "DecayMask": decay,
    "GaussianMask": gaussian,
    "CurvesMask": curves,
    "GatedMask": gated,
    "ResolventMask": resolvent,
    "CausalMask": causal,
}
