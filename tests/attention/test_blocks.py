"""Masked attention in blocks of heads, rows and columns."""

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
from masks import with_prefix

from keras_topo.operators import (
    BlockToeplitz,
    Bordered,
    Causal,
    Dense,
    ExponentialDecay,
    Kronecker,
    Sum,
    blocks,
    columns,
    explicit,
)
from keras_topo.operators import linear as linear_forms

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


@pytest.fixture
def maps(monkeypatch):
    """Counts the blocks that are mapped over."""
    counts = []
    original = blocks.checkpointed_map

    def counted(function, tensors, shared):
        counts.append(tensors[0].shape[0])
        return original(function, tensors, shared)

    monkeypatch.setattr(blocks, "checkpointed_map", counted)
    return counts


def force_blocks(monkeypatch, elements, whole_tokens=1):
    for module in (blocks, columns, linear_forms):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(blocks, "WHOLE_TOKENS", whole_tokens)
    for name, size in (
        ("BLOCK_ELEMENTS", elements),
        ("WHOLE_ELEMENTS", whole_tokens),
        ("MOST_WHOLE_ELEMENTS", whole_tokens),
        ("LEAST_ROWS", 1),
        ("STEP_ELEMENTS", 0),
    ):
        monkeypatch.setattr(explicit, name, size)


# Blocks of one element process one token at a time, which takes seconds.
SIZES = [
    pytest.param(
        name,
        elements,
        marks=[pytest.mark.slow]
        * (elements == 1 and name in ("separable", "low-rank")),
    )
    for name in ("table-fft", "separable", "decay", "low-rank")
    for elements in (1, 700)
]


@pytest.mark.few(
    "table-fft-1-eager",
    "table-fft-700-eager",
    "separable-700-eager",
    "decay-700-eager",
    "low-rank-700-eager",
    "table-fft-700-jit",
    "decay-700-jit",
)
@pytest.mark.few_on_jax("table-fft-700-jit", "decay-700-jit")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("name", "elements"), SIZES)
def test_blocks_change_nothing(monkeypatch, maps, name, elements, jit):
    if on_jax and not jit:
        pytest.skip("slow to run eagerly on JAX")
    if jit and (
        elements == 1 or (not on_jax and name in ("decay", "low-rank"))
    ):
        pytest.skip("other cases compile the same code")
    force_blocks(monkeypatch, elements)
    kind = with_prefix(KINDS[name], 1)
    arrays = [*qkv(2, HEADS, 21, 3, 4), *kind.parameters()]
    compare_implementations(kind, arrays, "float64", 1e-10, jit)
    assert maps and max(maps) > 1


@pytest.mark.few_on_jax("bordered", "kronecker", "causal")
@pytest.mark.parametrize(
    "make",
    [
        lambda: BlockToeplitz(np.random.rand(7, 9), GRID),
        lambda: Bordered(BlockToeplitz(np.random.rand(7, 9), GRID), 3),
        lambda: Causal(23, dtype="float64"),
        # Two terms whose blocks of rows do not align.
        lambda: Sum(
            [
                Bordered(BlockToeplitz(np.random.rand(5, 9), (3, 5)), 1),
                BlockToeplitz(np.random.rand(15, 3), (8, 2)),
            ]
        ),
        lambda: Bordered(
            Kronecker(
                [np.random.rand(3, 3), ExponentialDecay(np.array(0.5), 7)]
            ),
            2,
        ),
        lambda: Dense(np.random.rand(13, 13)),
    ],
    ids=["grid", "bordered", "causal", "sum", "kronecker", "dense"],
)
def test_blocks_of_rows_cover_every_row(monkeypatch, maps, make):
    np.random.seed(1)
    mask = make()
    arrays = qkv(2, 2, mask.num_tokens, 3, 2)
    expected = ref.linear_attention(*arrays, ref.dense(mask))
    softmax = ref.softmax_attention(*arrays, ref.dense(mask))
    for elements in (1, 300):
        force_blocks(monkeypatch, elements)
        maps.clear()
        y = masked_linear_attention(*arrays, mask, implementation="explicit")
        assert maps
        ref.assert_close(y, expected, 1e-10)
        if elements == 300:
            y = masked_softmax_attention(*arrays, mask)
            ref.assert_close(y, softmax, 1e-10)
