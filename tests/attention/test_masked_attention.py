"""Masked attention: every way to compute it, against matrices."""

import keras
import numpy as np
import pytest
import reference as ref
from calls import (
    GRID,
    HEADS,
    KINDS,
    compare_implementations,
    masked_linear_attention,
    masked_softmax_attention,
    on_jax,
    qkv,
)
from keras import ops
from masks import kinds, with_prefix

from keras_topo import attention
from keras_topo.operators import (
    BlockToeplitz,
    Causal,
    Dense,
    ExponentialDecay,
    LowRank,
    Ones,
)


@pytest.mark.few_on_jax(
    "table-fft-2", "separable-2", "decay-2", "low-rank-2", "causal-2"
)
@pytest.mark.parametrize("prefix", [2] if on_jax else [0, 2])
@pytest.mark.parametrize("name", KINDS)
def test_implementations_agree_in_float64(name, prefix):
    kind = with_prefix(KINDS[name], prefix)
    length = GRID[0] * GRID[1] + prefix
    arrays = [*qkv(3, HEADS, length, 3, 4), *kind.parameters()]
    compare_implementations(kind, arrays, "float64", 1e-10, jit=on_jax)


# Real layers: TopViT-Ti on 224 x 224 pixels with a class token, and a grid
# that is not square. Compilation takes most of the time, so only some compile.
SQUARE = ((14, 14), 1)
OBLONG = ((12, 20), 0)
COMPILED = {
    *[(*SQUARE, name) for name in ("table-fft", "low-rank")],
    *[(*OBLONG, name) for name in ("distance", "separable")],
}
REAL = [
    (*size, name, jit)
    for size in (SQUARE, OBLONG)
    for name in KINDS
    for jit in (False, True)
    if (not on_jax if not jit else on_jax or (*size, name) in COMPILED)
]
if on_jax:
    REAL = [
        case
        for case in REAL
        if case[:3] in COMPILED or case[1:3] == (1, "decay")
    ]


@pytest.mark.few_on_jax(
    "14x14+1-table-fft-jit", "14x14+1-low-rank-jit", "12x20+0-separable-jit"
)
@pytest.mark.parametrize(
    ("grid", "prefix", "name", "jit"),
    [
        # A second size, without compilation.
        pytest.param(
            *case,
            marks=[pytest.mark.slow]
            * (
                (case[:2] == OBLONG and not case[3])
                or (
                    not on_jax
                    and case[2:] in (("low-rank", 1), ("distance", 1))
                )
            ),
        )
        for case in REAL
    ],
    ids=[
        f"{a}x{b}+{prefix}-{name}-{'jit' if jit else 'eager'}"
        for (a, b), prefix, name, jit in REAL
    ],
)
def test_implementations_agree_on_real_layers_in_float32(
    grid, prefix, name, jit
):
    kind = with_prefix(kinds(grid, 3)[name], prefix)
    length = grid[0] * grid[1] + prefix
    arrays = [*qkv(1, 3, length, 64, 64), *kind.parameters()]
    compare_implementations(kind, arrays, "float32", 1e-5, jit)


def test_causal_attention_is_a_running_sum():
    query, key, value = qkv(2, 2, 9, 3, 4)
    context = np.cumsum(key[..., :, None] * value[..., None, :], axis=2)
    total = np.cumsum(key, axis=2)
    expected = np.einsum("bhif,bhifd->bhid", query, context)
    expected /= np.einsum("bhif,bhif->bhi", query, total)[..., None]
    for implementation in ("explicit", "fast"):
        y = masked_linear_attention(
            query, key, value, Causal(9), implementation=implementation
        )
        ref.assert_close(y, expected, 1e-10)


# Padding.


@pytest.mark.few_on_jax(
    "table-fft-explicit", "table-fft-fast", "low-rank-fast", "None-auto"
)
@pytest.mark.parametrize("implementation", ["explicit", "fast", "auto"])
@pytest.mark.parametrize("name", ["table-fft", "separable", "low-rank", None])
def test_padded_keys_are_removed_exactly(name, implementation):
    length = GRID[0] * GRID[1]
    arrays = qkv(3, HEADS, length, 3, 2)
    padding = np.ones((3, length), bool)
    padding[0, 3:9] = False
    padding[1, 10:] = False
    mask, matrix = None, 1.0
    if name is not None:
        kind = KINDS[name]
        parameters = [ref.tensor(p) for p in kind.parameters()]
        mask, matrix = (
            kind.build(*parameters),
            ref.numpy(kind.dense(*parameters)),
        )
    expected = ref.linear_attention(*arrays, matrix, padding)
    for mask_dtype in ("bool", "float32"):
        y = masked_linear_attention(
            *arrays,
            mask,
            padding_mask=padding.astype(mask_dtype),
            implementation=implementation,
        )
        ref.assert_close(y, expected, 1e-10)


def test_padding_is_the_shorter_sequence():
    """In every example: loops off by one have left the last one unmasked."""
    length, real = 10, 6
    query, key, value = qkv(3, 2, length, 4, 3)
    padding = np.zeros((3, length), bool)
    padding[:, :real] = True
    table = np.random.default_rng(1).uniform(0.2, 1, (2, 2 * length - 1))
    short_table = table[:, length - real : length + real - 1]
    short = [x[:, :, :real] for x in (query, key, value)]
    for attend in (masked_linear_attention, masked_softmax_attention):
        y = attend(
            query,
            key,
            value,
            BlockToeplitz(table, (length,)),
            padding_mask=padding,
        )
        expected = attend(*short, BlockToeplitz(short_table, (real,)))
        ref.assert_close(y[:, :, :real], ref.numpy(expected), 1e-10)


@pytest.mark.few_on_jax("table")
@pytest.mark.parametrize("masked_by", ["table", "low-rank", None])
def test_a_fully_padded_example_gives_zeros(masked_by):
    length = GRID[0] * GRID[1]
    arrays = [x.astype("float32") for x in qkv(2, HEADS, length, 3, 2)]
    padding = np.ones((2, length), bool)
    padding[1] = False
    mask = None
    if masked_by:
        kind = KINDS[masked_by]
        mask = kind.build(
            *[ref.tensor(p, "float32") for p in kind.parameters()]
        )

    def linear(implementation):
        return lambda *x: masked_linear_attention(
            *x, mask, padding_mask=padding, implementation=implementation
        )

    def softmax(*x):
        return masked_softmax_attention(*x, mask, padding_mask=padding)

    tensors = [ref.tensor(x) for x in arrays]
    for function in (linear("explicit"), linear("fast"), softmax):
        upstream = ops.ones_like(tensors[2])
        y, gradients = ref.with_gradients(function)(upstream, *tensors)
        y = ref.numpy(y)
        assert np.all(y[1] == 0) and np.all(y[0] != 0)
        assert all(np.isfinite(ref.numpy(g)).all() for g in gradients)


# Arguments.


def test_every_form_is_the_same_and_auto_is_one_of_them():
    arrays = qkv(1, HEADS, 20, 3, 2)
    for name, kind in KINDS.items():
        if on_jax and name not in ("table-fft", "low-rank"):
            continue
        mask = kind.operator("float64")
        explanation = mask.explain(3, 2, 1, HEADS)
        names = [form.name for form in explanation.forms]
        assert explanation.form == names[0] and "explicit" in names
        assert f": {explanation.form}" in str(explanation)
        weights = [form.weight for form in explanation.forms]
        assert weights == sorted(weights)
        expected = masked_linear_attention(
            *arrays, mask, implementation="explicit"
        )
        for form in (*names, "fast", "auto"):
            y = masked_linear_attention(*arrays, mask, implementation=form)
            ref.assert_close(y, ref.numpy(expected), 1e-11, f"{name}, {form}")


def test_auto_is_explicit_for_few_tokens_and_not_for_many():
    few, many = np.ones((27, 27)), np.ones((1023, 1023))
    small = BlockToeplitz(few.astype("float32"), (14, 14))
    assert small.explain(64, 64).form == "explicit"
    for mask in (
        BlockToeplitz(many.astype("float32"), (512, 512)),
        BlockToeplitz([[np.ones(1023, "float32")] * 2], (512, 512)),
        LowRank(np.ones((65536, 16), "float32")),
    ):
        assert mask.explain(64, 64).form != "explicit"


def test_no_mask_is_a_mask_of_ones():
    arrays = qkv(2, 3, 12, 4, 5)
    expected = ref.linear_attention(*arrays)
    for mask in (None, Ones(12), np.ones((12, 12)), Dense(np.ones((12, 12)))):
        y = masked_linear_attention(*arrays, mask)
        ref.assert_close(y, expected, 1e-12)


@pytest.mark.few_on_jax("fast")
@pytest.mark.parametrize("implementation", ["explicit", "fast"])
def test_batch_axes_of_the_mask(implementation):
    """`(L, L)`, `(heads, L, L)`, `(batch, 1, L, L)`, `(batch, heads, L, L)`."""
    arrays = qkv(2, 3, 6, 2, 2)
    random = np.random.default_rng(0)
    for batch in ((), (1,), (3,), (2, 1), (2, 3), (1, 3)):
        table = random.uniform(0.2, 1, (*batch, 11))
        matrix = ref.block_toeplitz(table, (6,))
        for mask in (
            BlockToeplitz(table, (6,), "fft"),
            BlockToeplitz(table, (6,), "dense"),
            matrix,
        ):
            y = masked_linear_attention(
                *arrays, mask, implementation=implementation
            )
            expected = ref.linear_attention(*arrays, matrix)
            ref.assert_close(y, expected, 1e-10)
        if implementation == "fast":
            u = random.uniform(0.2, 1, (*batch, 6, 2))
            y = masked_linear_attention(*arrays, LowRank(u))
            expected = ref.linear_attention(*arrays, ref.low_rank(u, u))
            ref.assert_close(y, expected, 1e-10)


@pytest.mark.slow_on_jax
def test_one_head_and_several_examples():
    """TensorFlow's CPU product of this shape by one matrix is broken (see
    `_backend.matmul`) and must not run."""
    arrays = [x.astype("float32") for x in qkv(4, 1, 16, 16, 16)]
    random = np.random.default_rng(0)
    matrix = random.uniform(0.2, 1, (1, 16, 16)).astype("float32")
    u = random.uniform(0.2, 1, (1, 16, 16)).astype("float32")
    masks = {
        "dense": (Dense(matrix), matrix),
        "low rank": (LowRank(u), ref.low_rank(u, u)),
        "decay": (
            ExponentialDecay(np.full(1, 0.5, "float32"), 16),
            ref.decay(np.full(1, 0.5), 16),
        ),
    }
    tensors = [ref.tensor(x) for x in arrays]
    for name, (mask, dense) in masks.items():
        for implementation in ("explicit", "fast"):

            def attend(q, k, v, mask=mask, implementation=implementation):
                return masked_linear_attention(
                    q, k, v, mask, implementation=implementation
                )

            y, gradients = ref.with_gradients(attend)(
                ops.ones_like(tensors[2]), *tensors
            )
            expected = ref.linear_attention(*arrays, dense)
            ref.assert_close(y, expected, 1e-5, name)
            assert all(np.isfinite(ref.numpy(g)).all() for g in gradients)


def test_a_mask_in_float64_with_float32_features():
    """NumPy's random numbers are float64, and other tensors are float32."""
    arrays = [x.astype("float32") for x in qkv(1, HEADS, 20, 3, 2)]
    for name in ("table", "table-fft", "separable", "decay", "low-rank"):
        kind = KINDS[name]
        mask = kind.build(
            *[ref.tensor(p, "float64") for p in kind.parameters()]
        )
        matrix = ref.dense(mask)
        for implementation in ("explicit", "fast"):
            y = masked_linear_attention(
                *arrays, mask, implementation=implementation
            )
            assert keras.backend.standardize_dtype(y.dtype) == "float32"
            expected = ref.linear_attention(*arrays, matrix)
            ref.assert_close(y, expected, 1e-5, name)


@pytest.mark.few_on_jax("float16")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_accumulated_in_float32(dtype):
    """The normaliser of 4096 keys by 64 unit features exceeds float16."""
    length = 4096
    ones = ops.ones((1, 1, length, 64), dtype)
    value = ops.ones((1, 1, length, 2), dtype)
    u = np.ones((length, 1), "float32")
    masks = (
        None,
        LowRank(u),
        BlockToeplitz(np.ones((127, 127), "float32"), (64, 64)),
    )
    for mask in masks:
        y = masked_linear_attention(ones, ones, value, mask)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        ref.assert_close(y, np.ones((1, 1, length, 2)), 1e-2)
    y = masked_softmax_attention(
        ones[:, :, :64], ones[:, :, :64], value[:, :, :64]
    )
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    ref.assert_close(y, np.ones((1, 1, 64, 2)), 1e-2)


def test_the_output_has_the_dtype_of_the_values():
    query, key, value = qkv(1, 1, 5, 2, 2)
    for dtype in ("float32", "bfloat16"):
        y = masked_linear_attention(
            query.astype("float32"), key, ops.cast(value, dtype)
        )
        assert keras.backend.standardize_dtype(y.dtype) == dtype


def test_a_single_token():
    arrays = qkv(2, 1, 1, 3, 4)
    for mask in (None, Ones(1), Causal(1), BlockToeplitz(np.ones(1), (1,))):
        for implementation in ("explicit", "fast"):
            y = masked_linear_attention(
                *arrays, mask, implementation=implementation
            )
            ref.assert_close(y, arrays[2], 1e-6)


X = np.ones((1, 2, 6, 3), "float32")
linear = attention.masked_linear_attention
softmax = attention.masked_softmax_attention
ERRORS = {
    "implementation": (
        lambda: linear(X, X, X, implementation="slow"),
        "`implementation`",
    ),
    "query": (lambda: linear(X[0], X, X), "`query_features`"),
    "key": (lambda: linear(X, X[0], X), "`key_features`"),
    "value": (lambda: linear(X, X, X[0]), "`value`"),
    "features": (
        lambda: linear(X, X[..., :2], X),
        "`query_features` and `key_features`",
    ),
    "tokens": (
        lambda: linear(X, X[:, :, :5], X),
        "`query_features` and `key_features`",
    ),
    "values": (
        lambda: linear(X, X, X[:, :, :5]),
        "`value`",
    ),
    "heads": (
        lambda: linear(X, X[:, :1], X),
        "`query_features` and `key_features`",
    ),
    "batch": (
        lambda: linear(X, X, np.ones((2, 2, 6, 3), "float32")),
        "`value`",
    ),
    "mask-heads": (
        lambda: linear(X, X, X, Ones(6) + Dense(np.ones((3, 6, 6)))),
        "batch axes of `mask`",
    ),
    "mask-tokens": (
        lambda: linear(X, X, X, Ones(5)),
        "`mask`",
    ),
    "mask-rank": (
        lambda: linear(X, X, X, np.ones((1, 1, 2, 6, 6))),
        "`mask`",
    ),
    "mask-oblong": (
        lambda: linear(X, X, X, np.ones((6, 5))),
        "`matrix`",
    ),
    "padding": (
        lambda: linear(X, X, X, None, np.ones((1, 1, 6))),
        "`padding_mask`",
    ),
    "softmax-mask": (
        lambda: softmax(X, X, X, Ones(5)),
        "`mask`",
    ),
    "softmax-query": (
        lambda: softmax(X[0], X, X),
        "`query`",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, argument = ERRORS[name]
    with pytest.raises(ValueError, match=argument) as caught:
        call()
    assert " Received: " in str(caught.value)
