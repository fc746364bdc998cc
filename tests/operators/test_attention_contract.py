"""What every operator owes to attention, against its dense form.

Every form of attention and its gradients, exact zeros, sizes that a traced
function does not know, empty batches, second derivatives, weights near the
smallest number, operators as arguments of compiled functions.
"""

import re

import keras
import numpy as np
import pytest
import reference as ref
from cases import CASES, parametrize
from keras import ops

from keras_topo.attention import masked_linear_attention
from keras_topo.operators import MaskOperator
from keras_topo.operators.forms import Problem

FEATURES, VALUES = 2, 3
on_jax = keras.backend.backend() == "jax"

# Of twins, the one with a batch axis: heads.
HEADS = [c for c in CASES if c.shapes and len(c.matrix().shape) <= 4]
HEADS = [c for c in HEADS if c.name + "-batch2" not in {d.name for d in CASES}]
ALL = HEADS + [c for c in CASES if not c.shapes]
# JAX compiles each step by itself: a few kinds, whose code differs there.
FEW = (
    "block_toeplitz-3x4-fft|curves|decay-70|gated-70|gated-causal-70|sum-decays"
    "|kronecker-decays|bordered-block|windows|pairs-each|factors-two|low_rank-two"
    "|diffusion-l|resolvent-acyclic|resolvent-3x4|forest-trees|permuted-batch"
)
SOME = ALL
if on_jax:
    SOME = [c for c in ALL if re.match(FEW, c.name)]


# All of whose parameters have the batch axes of the mask, and these may be
# unknown.
ONE_BATCH = [
    c
    for c in HEADS
    if not any(
        word in c.name for word in ("factors", "broadcast", "shared", "by-head")
    )
]


def leading(matrix, batch=2):
    """Batch and heads that suit a matrix."""
    found = (1, 1, *matrix.shape[:-2])[-2:]
    return tuple(
        default if n == 1 else n
        for n, default in zip(found, (batch, 2), strict=True)
    )


def qkv(lead, length, seed=0):
    random = np.random.default_rng(seed)
    query, key = random.uniform(0.1, 1.0, (2, *lead, length, FEATURES))
    return [query, key, random.normal(size=(*lead, length, VALUES))]


def oracle(query, key, value, matrix):
    scores = np.einsum("...im,...jm->...ij", query, key) * matrix
    value = np.concatenate([value, np.ones_like(value[..., :1])], -1)
    return scores @ value


def names_of_forms(operator, lead):
    length = operator.num_tokens
    problem = Problem(*lead, length, FEATURES, VALUES)
    return [form.name for form in operator.forms(problem)]


@parametrize(SOME)
def test_every_form_and_its_gradients(case):
    matrix = case.matrix()
    lead, length = leading(matrix), matrix.shape[-1]
    arrays = qkv(lead, length)
    names = names_of_forms(case.operator(), lead)
    assert "explicit" in names and len(set(names)) == len(names)
    assert case.operator().explain(FEATURES, VALUES, *lead).form in names
    alone = case.operator().explain(FEATURES, VALUES).forms[0]
    assert 0 < case.operator().attend_cost(FEATURES, VALUES) == alone.cost
    expected = oracle(*arrays, matrix)
    parameters = case.parameters()
    upstream = np.random.default_rng(1).normal(size=expected.shape)

    def attend(name, tensors):
        query, key, value, *parameters = tensors
        operator = case.build(*(parameters or [query.dtype]))
        parts = operator.attend(query, key, value, name)
        return ops.concatenate(parts, axis=-1)

    gradients = {}
    for name in names:
        function = ref.with_gradients(lambda *t, n=name: attend(n, t))
        y, found = ref.staged(function)(
            *[ref.tensor(x) for x in (upstream, *arrays, *parameters)]
        )
        ref.assert_close(y, expected, 1e-11, name)
        gradients[name] = [ref.numpy(g) for g in found]
    for name in names:
        pairs = zip(gradients[name], gradients["explicit"], strict=True)
        for k, (found, wanted) in enumerate(pairs):
            ref.assert_close(found, wanted, 1e-10, f"{name}, gradient {k}")


@parametrize(SOME)
def test_zeros_are_zeros(case):
    """In rows, which softmax attention takes for visible where they are not
    zero."""
    matrix = case.matrix()
    length = matrix.shape[-1]
    start, order = length // 3, np.arange(length, dtype="int32")[::-1]

    def rows(parameters, start):
        operator = case.build(*(parameters or ["float32"]))
        prepared = operator._for_rows()
        size = length - length // 3
        return (
            operator.to_dense(),
            prepared._rows(start, size),
            prepared._rows_at(order.copy()),
        )

    parameters = [ref.tensor(p, "float32") for p in case.parameters()]
    found = ref.staged(rows)(parameters, ref.tensor(start, "int32"))
    wanted = matrix, matrix[..., start:, :], matrix[..., order, :]
    for actual, expected in zip(found, wanted, strict=True):
        actual = np.broadcast_to(ref.numpy(actual), expected.shape)
        # Of an inverse, the oracle knows zeros up to rounding.
        rounding = 1e-13 if "resolvent" in case.name else 0.0
        hidden = np.abs(expected) <= rounding * np.abs(matrix).max()
        np.testing.assert_array_equal(actual == 0, hidden)


@pytest.mark.skipif(on_jax, reason="JAX knows all sizes")
@pytest.mark.parametrize("unknown", ["heads", "both"])
@parametrize(ONE_BATCH)
def test_unknown_batch_and_heads(case, unknown):
    """Of queries and of parameters of one mask per example or head."""
    import tensorflow as tf

    matrix = case.matrix()
    lead, length = leading(matrix), matrix.shape[-1]
    arrays = [x.astype("float32") for x in qkv(lead, length)]
    arrays += [p.astype("float32") for p in case.parameters()]
    rank = matrix.ndim - 2
    hidden = {"heads": (1,), "both": (0, 1)}[unknown]

    def spec(x, axes):
        """`axes`: how many of its leading axes are batch axes."""
        shape = [
            None if k < axes and k + 2 - axes in hidden and n != 1 else n
            for k, n in enumerate(x.shape)
        ]
        return tf.TensorSpec(shape, x.dtype)

    signature = [spec(x, 2) for x in arrays[:3]]
    signature += [spec(x, min(rank, x.ndim)) for x in arrays[3:]]

    for implementation in ("explicit", "fast"):

        @tf.function(input_signature=signature)
        def attend(query, key, value, *parameters, name=implementation):
            operator = case.build(*parameters)
            return ops.concatenate(
                operator.attend(query, key, value, name), axis=-1
            )

        ref.assert_close(
            attend(*arrays), oracle(*arrays[:3], matrix), 5e-5, implementation
        )


@parametrize(SOME)
def test_an_empty_batch(case):
    operator = case.operator("float32")
    matrix = case.matrix()
    if matrix.ndim == 4 and matrix.shape[0] != 1:
        pytest.skip("its masks are one per example")
    _, heads = leading(matrix)
    length = operator.num_tokens
    arrays = [x.astype("float32") for x in qkv((0, heads), length)]
    for name in names_of_forms(operator, (1, heads)):
        y = masked_linear_attention(*arrays, operator, implementation=name)
        assert tuple(y.shape) == (0, heads, length, VALUES)
    x = np.zeros((0, *matrix.shape[:-2], length, 2), "float32")
    assert tuple((operator @ x).shape) == x.shape


@parametrize([c for c in SOME if c.shapes])
def test_hessian_vector_products(case):
    """Of a loss of the product, by differences of its gradient."""
    matrix = case.matrix()
    random = np.random.default_rng(2)
    x = random.normal(size=(*matrix.shape[:-1], 2))
    point = [x, *case.parameters()]
    direction = [random.normal(size=p.shape) for p in point]
    # Differences of the cubes of large numbers would say nothing.
    scale = 1.0 / np.abs(matrix @ x).max()

    def loss(tensors):
        x, *parameters = tensors
        y = scale * (case.build(*parameters) @ x)
        # Not a function of Keras, which knows no float64 on JAX.
        return ops.sum(y - y * y * y / 6)

    if on_jax:
        import jax

        gradient = jax.jit(jax.grad(loss))
        hvp = jax.jit(
            lambda p, d: jax.grad(
                lambda p: sum(
                    ops.sum(g * v)
                    for g, v in zip(jax.grad(loss)(p), d, strict=True)
                )
            )(p)
        )
    else:
        import tensorflow as tf

        @tf.function
        def gradient(tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                y = loss(tensors)
            return tape.gradient(y, tensors)

        @tf.function
        def hvp(tensors, direction):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                pairs = zip(gradient(tensors), direction, strict=True)
                y = sum(tf.reduce_sum(g * v) for g, v in pairs)
            return tape.gradient(y, tensors)

    def shifted(step):
        return [
            ref.tensor(p + step * d)
            for p, d in zip(point, direction, strict=True)
        ]

    step = 1e-5
    found = hvp(shifted(0.0), [ref.tensor(d) for d in direction])
    above, below = gradient(shifted(step)), gradient(shifted(-step))
    for k, (h, a, b) in enumerate(zip(found, above, below, strict=True)):
        wanted = (ref.numpy(a) - ref.numpy(b)) / (2 * step)
        ref.assert_close(h, wanted, 1e-6, f"argument {k}")


@parametrize(SOME)
def test_tiny_weights(case):
    """Rows are averages, however small their weights."""
    matrix = case.matrix()
    lead, length = leading(matrix), matrix.shape[-1]
    operator = case.operator()
    arrays = qkv(lead, length)
    expected = oracle(*arrays, matrix)
    with np.errstate(invalid="ignore"):
        expected = expected[..., :-1] / expected[..., -1:]
    expected = np.nan_to_num(expected)  # a token that sees none has zeros

    def attend(tensors, arrays):
        tiny = 1e-200 * operator.with_tensors(tensors)
        return masked_linear_attention(*arrays, tiny, implementation="auto")

    y = ref.staged(attend)(operator.tensors(), list(map(ref.tensor, arrays)))
    ref.assert_close(y, expected, 1e-10)


@parametrize([c for c in SOME if c.shapes])
def test_operators_are_arguments(case):
    """Of compiled functions, which are traced once and return them."""
    operator = case.operator()
    x = ref.tensor(np.ones((operator.num_tokens, 1)))
    traced = []

    def multiply(operator, x):
        assert isinstance(operator, MaskOperator)
        traced.append(operator)
        return operator @ x, operator

    if on_jax:
        import jax

        multiply = jax.jit(multiply)
    else:
        import tensorflow as tf

        multiply = tf.function(multiply)
    y, same = multiply(operator, x)
    ref.assert_close(
        y, case.matrix() @ np.ones((operator.num_tokens, 1)), 1e-11
    )
    twice, _ = multiply(same.with_tensors(operator.tensors()), x)
    assert len(traced) == 1 and type(same) is type(operator)
    ref.assert_close(twice, ref.numpy(y), 1e-12)


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
