"""The learned masks of `ToeplitzAttention`: their weights and operators.

Each function pair below creates the weights of one kind of mask on a layer and
turns them into an operator on a grid. Entries of every kind are non-negative.
"""

import keras
import numpy as np
from keras import ops

from keras_topo.layers.resampling import resample_offsets
from keras_topo.operators import (
    BlockToeplitz,
    ExponentialDecay,
    Kronecker,
    Scaled,
    Sum,
)

# The logarithm of the range of a mask: beyond it, float32 sums of its entries
# would lose the smaller ones altogether.
MAX_EXPONENT = 30.0


def table_weights(layer, num_heads, grid):
    """One table of signed offsets a head, all ones at the start."""
    return [
        layer.add_weight(
            name="mask_table",
            shape=(num_heads, *(2 * n - 1 for n in grid)),
            initializer="ones",
            dtype=mask_dtype(layer),
            autocast=False,
        )
    ]


def table_operator(layer, weights, trained_grid, grid):
    """`|table|`, resampled where the grid is not the one it was made for."""
    table = resample_offsets(ops.abs(weights[0]), trained_grid, grid)
    return BlockToeplitz(table, grid)


def distance_weights(layer, num_heads, grid):
    """Coefficients of a polynomial, all zeros at the start: a mask of ones."""
    return [
        layer.add_weight(
            name="mask_coefficients",
            shape=(num_heads, layer.mask_degree + 1),
            initializer="zeros",
            dtype=mask_dtype(layer),
            autocast=False,
        )
    ]


def distance_operator(layer, weights, trained_grid, grid):
    """`exp(a_0 + a_1 x + a_2 x^2)`, `x` the L1 distance over its maximum.

    Relative distances mean the same on every grid. The exponent is clipped to
    `MAX_EXPONENT` on both sides. Of degree one the mask is separable, and its
    operator a Kronecker product: an axis is clipped to its share of the range
    that `a_0` leaves, so that the exponent is within the bounds as a whole,
    and as it was written where all of it is.
    """
    coefficients = ops.convert_to_tensor(weights[0])
    longest = max(1, sum(n - 1 for n in grid))
    offsets = [np.abs(np.arange(-(n - 1), n)) / longest for n in grid]
    if layer.mask_degree == 1:
        constant = _bounded(coefficients[:, :1])
        terms = []
        for k, distance in enumerate(offsets):
            share = float(distance.max())
            distance = ops.convert_to_tensor(distance, coefficients.dtype)
            exponent = ops.clip(
                coefficients[:, 1:] * distance,
                share * (-MAX_EXPONENT - constant),
                share * (MAX_EXPONENT - constant),
            )
            if k == 0:
                exponent = exponent + constant
            terms.append(ops.exp(exponent))
        return BlockToeplitz([terms], grid)
    distance = sum(np.meshgrid(*offsets, indexing="ij"))
    powers = np.stack([distance**p for p in range(layer.mask_degree + 1)])
    powers = ops.convert_to_tensor(powers, coefficients.dtype)
    exponent = ops.tensordot(coefficients, powers, axes=1)
    return BlockToeplitz(ops.exp(_bounded(exponent)), grid)


def separable_weights(layer, num_heads, grid):
    """`r` tables, or rates of decay, an axis and head.

    Tables start at ones, slightly perturbed when there are several terms, which
    would stay equal otherwise. Rates start between 1/8 and 8 times the inverse
    of the extent of an axis, from term to term and head to head.
    """
    rank, dtype = layer.mask_rank, mask_dtype(layer)
    if layer.separable_terms == "table":
        spread = 0.0 if rank == 1 else 0.1
        return [
            layer.add_weight(
                name=f"mask_axis_{k}",
                shape=(num_heads, rank, 2 * n - 1),
                initializer=keras.initializers.RandomUniform(
                    1.0 - spread, 1.0 + spread, seed=k
                ),
                dtype=dtype,
                autocast=False,
            )
            for k, n in enumerate(grid)
        ]
    exponents = np.linspace(-3.0, 3.0, num_heads * rank)
    rates = np.exp2(exponents).reshape(rank, num_heads).T
    # Inverse of the softplus.
    rates = np.log(np.expm1(rates)).astype("float32")
    return [
        layer.add_weight(
            name=f"mask_rate_{k}",
            shape=(num_heads, rank),
            initializer=keras.initializers.Constant(rates),
            dtype=dtype,
            autocast=False,
        )
        for k in range(len(grid))
    ] + [
        layer.add_weight(
            name="mask_scale",
            shape=(num_heads, rank),
            initializer="ones",
            dtype=dtype,
            autocast=False,
        )
    ]


def separable_operator(layer, weights, trained_grid, grid):
    """`sum_r prod_k |t_rk(o_k)|` of tables `t`, or of decays `sum_r |s_r|
    prod_k exp(-c_rk |o_k| / n_k)`, `c` being the softplus of a weight.

    Decays stay decays along each axis, for the attention in tiles.
    """
    if layer.separable_terms == "table":
        terms = [
            [
                resample_offsets(ops.abs(axis[:, r]), (old,), (new,))
                for axis, old, new in zip(
                    weights, trained_grid, grid, strict=True
                )
            ]
            for r in range(layer.mask_rank)
        ]
        return BlockToeplitz(terms, grid)
    *rates, scale = weights
    rates = [ops.softplus(rate) for rate in rates]
    scale = ops.abs(scale)
    products = [
        Scaled(
            Kronecker(
                [
                    ExponentialDecay(rate[:, r] / n, n)
                    for rate, n in zip(rates, grid, strict=True)
                ]
            ),
            scale[:, r],
        )
        for r in range(layer.mask_rank)
    ]
    return products[0] if len(products) == 1 else Sum(products)


#: name -> (create the weights, make the operator)
MASKS = {
    "table": (table_weights, table_operator),
    "distance": (distance_weights, distance_operator),
    "separable": (separable_weights, separable_operator),
}


def mask_dtype(layer):
    """Masks are kept and applied in float32 under any policy."""
    return "float64" if layer.variable_dtype == "float64" else "float32"


def _bounded(exponent):
    return ops.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)
