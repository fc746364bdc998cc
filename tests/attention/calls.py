"""Masked attention by the library and by its definition."""

import keras
import numpy as np
import reference as ref
from keras import ops
from masks import kinds

from keras_topo import attention
from keras_topo.operators import (
    MaskOperator,
)

GRID, HEADS = (4, 5), 2
KINDS = kinds(GRID, HEADS)

on_jax = keras.backend.backend() == "jax"


def call(function, arrays, mask, padding_mask, **options):
    """One program on JAX, in which all tensors are arguments."""
    # Or tensors, possibly traced.
    arrays = [x if ops.is_tensor(x) else ref.tensor(x) for x in arrays]
    extra = {}
    if padding_mask is not None:
        extra["padding_mask"] = ref.tensor(padding_mask)
    if isinstance(mask, MaskOperator):
        extra["tensors"] = mask.tensors()
    elif mask is not None:
        extra["mask"] = mask if ops.is_tensor(mask) else ref.tensor(mask)

    def program(arrays, extra):
        extra = dict(extra)
        if "tensors" in extra:
            extra["mask"] = mask.with_tensors(extra.pop("tensors"))
        return function(*arrays, **extra, **options)

    return ref.staged(program)(arrays, extra)


def masked_linear_attention(q, k, v, mask=None, padding_mask=None, **options):
    function = attention.masked_linear_attention
    return call(function, (q, k, v), mask, padding_mask, **options)


def masked_softmax_attention(q, k, v, mask=None, padding_mask=None):
    function = attention.masked_softmax_attention
    return call(function, (q, k, v), mask, padding_mask)


def qkv(batch, heads, length, features, value_dim, seed=0):
    """Non-negative features, as after ReLU, and values."""
    random = np.random.default_rng(seed)
    query, key = [
        np.maximum(random.normal(size=(batch, heads, length, features)), 0)
        + 1e-3
        for _ in range(2)
    ]
    return query, key, random.normal(size=(batch, heads, length, value_dim))


def by_library(kind, implementation):
    """`(q, k, v, *mask parameters) -> output`, by the library."""

    def function(query, key, value, *parameters):
        return masked_linear_attention(
            query,
            key,
            value,
            kind.build(*parameters),
            implementation=implementation,
        )

    return function


def oracle(kind):
    """The same by its definition, for autodiff to differentiate."""

    def function(query, key, value, *parameters):
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        scores = scores * kind.dense(*parameters)
        total = ops.sum(scores, axis=-1, keepdims=True)
        return ops.matmul(scores / total, value)

    return function


def compare_implementations(kind, arrays, dtype, tolerance, jit):
    """Outputs and all gradients, with the oracle's in float64."""
    matrix = ref.staged(kind.dense)(*[ref.tensor(a) for a in arrays[3:]])
    matrix = ref.numpy(matrix)
    output = ref.linear_attention(*arrays[:3], matrix)
    upstream = np.random.default_rng(9).normal(size=output.shape)

    definition = ref.with_gradients(oracle(kind))
    if on_jax:
        definition = ref.compiled(definition)
    expected, expected_gradients = definition(
        *[ref.tensor(x, "float64") for x in (upstream, *arrays)]
    )
    ref.assert_close(expected, output, 1e-10, "the oracle itself")

    for name in ("explicit", "fast"):
        compute = ref.with_gradients(by_library(kind, name))
        if jit:
            compute = ref.compiled(compute)
        actual, gradients = compute(
            *[ref.tensor(x, dtype) for x in (upstream, *arrays)]
        )
        assert keras.backend.standardize_dtype(actual.dtype) == dtype
        ref.assert_close(actual, output, tolerance, name)
        for k, (a, e) in enumerate(
            zip(gradients, expected_gradients, strict=True)
        ):
            what = f"{name}, gradient {k}"
            # Those of parameters sum over all pairs of tokens, in float32 in
            # an order that depends on the processor.
            is_summed = dtype == "float32" and k >= 3
            bound = 1.5 * tolerance if is_summed else tolerance
            ref.assert_close(a, ref.numpy(e), bound, what)
