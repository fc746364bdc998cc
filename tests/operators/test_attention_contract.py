"""What every operator owes to attention, against its dense form.

Every form of attention and its gradients, exact zeros, sizes that a traced
function does not know, empty batches, second derivatives, weights near the
smallest number, operators as arguments of compiled functions.
"""

import re

import keras
import pytest
from cases import CASES, one_of_each_kind, parametrize

from keras_topo.operators import MaskOperator

on_jax = keras.backend.backend() == "jax"

# Of twins, the one with a batch axis: heads.
HEADS = [c for c in CASES if c.shapes and len(c.matrix().shape) <= 4]
HEADS = [c for c in HEADS if c.name + "-batch2" not in {d.name for d in CASES}]
ALL = HEADS + [c for c in CASES if not c.shapes]
# JAX compiles each step by itself: a few kinds, whose code differs there.
FEW = (
    "block_toeplitz-3x4-fft|curves|gated-causal-70|sum-decays|kronecker-decays"
    "|windows|pairs-each|factors-two|diffusion-l|resolvent-acyclic"
    "|resolvent-3x4|forest-trees|permuted-batch"
)
SOME = ALL
if on_jax:
    SOME = [c for c in ALL if re.match(FEW, c.name)]
# Of these, what differs most, for exact zeros and for second derivatives.
FEWER = "block_toeplitz|gated|forest|diffusion|windows|resolvent-acyclic"
# Of each class and form one or a few, where sizes and twins share the code.
KINDS = one_of_each_kind()
# Of each class one, and of decays both directions.
CLASSES = {type(c.operator()): c for c in reversed(KINDS)}
CLASSES = [
    c
    for c in KINDS
    if c in CLASSES.values() or re.match("gated|decay|kronecker|sum", c.name)
]
# What is more than products and sums of tensors, or has gradients of its own.
OWN = "block_toeplitz-3x4-fft|separable|decay|gated|curves|forest|diffusion"
OWN += "|resolvent|kronecker-decays|sum-decays|factors|bordered|low_rank"
OWN = [c for c in KINDS if re.match(OWN, c.name)]


# All of whose parameters have the batch axes of the mask, and these may be
# unknown.
ONE_BATCH = [
    c
    for c in HEADS
    if not any(
        word in c.name for word in ("factors", "broadcast", "shared", "by-head")
    )
]


@parametrize(SOME, KINDS)
def test_every_form_and_its_gradients(case):
    case.contract().check_attention()


@parametrize(SOME, KINDS, on_jax=FEWER)
def test_zeros_are_zeros(case):
    case.contract().check_zeros()


@pytest.mark.skipif(on_jax, reason="JAX knows all sizes")
@parametrize(ONE_BATCH, CLASSES)
def test_unknown_batch_and_heads(case):
    case.contract().check_unknown_sizes((0, 1))


@pytest.mark.skipif(on_jax, reason="JAX knows all sizes")
@parametrize([c for c in ONE_BATCH if re.match(FEW, c.name)], KINDS)
def test_unknown_heads(case):
    case.contract().check_unknown_sizes((1,))


@parametrize([c for c in SOME if c.matrix().shape[:-3] in ((), (1,))], KINDS)
def test_an_empty_batch(case):
    case.contract().check_empty_batch()


@parametrize([c for c in SOME if c.shapes], OWN, on_jax=FEWER)
def test_hessian_vector_products(case):
    case.contract().check_second_derivatives()


@parametrize(SOME, KINDS)
def test_tiny_weights(case):
    case.contract().check_tiny_weights()


@parametrize([c for c in SOME if c.shapes], CLASSES)
def test_operators_are_arguments(case):
    case.contract().check_pytree()


@pytest.mark.slow_on_jax
def test_every_kind_of_operator_has_a_case():
    """A new operator joins the suite."""
    import keras_topo.operators as operators

    kinds = {
        kind
        for kind in vars(operators).values()
        if isinstance(kind, type) and issubclass(kind, MaskOperator)
    } - {MaskOperator}
    found = set()

    def collect(operator):
        found.add(type(operator))
        for value in vars(operator).values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, MaskOperator):
                    collect(item)

    for case in CASES:
        collect(case.operator())
    missing = {kind.__name__ for kind in kinds - found}
    assert not missing, f"without a case: {sorted(missing)}"
