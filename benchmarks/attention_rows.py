"""The rows of `benchmarks.attention`, in the processes that measure them.

All rows of a shape have the same queries, keys and values: contiguous float32
numbers from 0 to 1. Queries and keys are features already, so no feature map is
timed. Mask parameters differ by head and are the same for all examples, except
gates, which differ by example too.
"""

import functools
import inspect
import math

import numpy as np

FEATURES = 64
RANK = 16

PEER = "softmax (PyTorch)"
CAUSAL_PEER = "causal softmax (PyTorch)"
PLAIN_SOFTMAX = "softmax, as written"
LINEAR = "linear (no mask)"
KINDS = (
    "table",
    "separable",
    "decay product",
    f"rank {RANK}",
    "decay",
    "causal decay",
    "gated decay",
    "two snakes",
    "causal ones",
)
IMPLEMENTATIONS = ("explicit", "fast", "auto")


class Missing(Exception):
    """A row needs something that this version of the package lacks."""


def split_row(row):
    """`(kind, implementation)` of a row; the latter is empty without one."""
    kind, _, implementation = row.rpartition(" ")
    return (kind, implementation) if kind in KINDS else (row, "")


def random_inputs(shape):
    """Queries, keys and values `(3, batch, heads, tokens, FEATURES)`."""
    random = np.random.default_rng(0)
    return random.random((3, *shape, FEATURES), "float32")


@functools.lru_cache(maxsize=1)
def keras_inputs(shape):
    """`random_inputs` as tensors, shared by the rows of a shape."""
    from keras import ops

    return [ops.convert_to_tensor(x) for x in random_inputs(shape)]


def make_call(kind, request):
    """`(call, facts)` of a request `{"row", "shape", "backward"}` in a process
    of a kind; see `benchmarks.measure.answer_calls`."""
    make = torch_call if kind == "torch" else keras_call
    try:
        return make(request, kind == "xla")
    except Missing as missing:
        return (lambda: None), {"missing": str(missing)}


def torch_call(request, jit):
    import torch

    del jit
    causal = request["row"] == CAUSAL_PEER
    tensors = [torch.from_numpy(x) for x in random_inputs(request["shape"])]

    def attention():
        return torch.nn.functional.scaled_dot_product_attention(
            *tensors, is_causal=causal
        )

    if request["backward"]:
        for x in tensors:
            x.requires_grad_(True)
        return (lambda: torch.autograd.grad(attention().sum(), tensors)), {}

    def forward():
        with torch.no_grad():
            return attention()

    return forward, {}


def keras_call(request, jit):
    from benchmarks.measure import compile_call
    from keras_topo.attention import masked_linear_attention

    shape = request["shape"]
    kind, implementation = split_row(request["row"])
    mask, facts = None, {}
    if kind in KINDS:
        mask = make_mask(kind, *shape)
        if implementation == "auto":
            facts["chosen"] = chosen_form(mask, *shape)

    def attend(query, key, value, *tensors):
        if kind == PLAIN_SOFTMAX:
            return plain_softmax(query, key, value)
        return masked_linear_attention(
            query,
            key,
            value,
            mask and mask.with_tensors(list(tensors)),
            implementation=implementation or "auto",
        )

    tensors = keras_inputs(tuple(shape))
    tensors = tensors + ([] if mask is None else mask.tensors())
    return compile_call(attend, tensors, request["backward"], jit), facts


def plain_softmax(query, key, value):
    """Softmax attention, written by its equation."""
    from keras import ops

    scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
    weights = ops.softmax(scores / math.sqrt(query.shape[-1]), axis=-1)
    return ops.matmul(weights, value)


def make_mask(kind, batch, heads, tokens):
    """A mask with positive entries, on a sequence or a square grid.

    Raises:
        Missing: if the package has no such mask.
    """
    from keras import ops

    from keras_topo import operators

    random = np.random.default_rng(1)
    side = math.isqrt(tokens)

    def tensor(*shape, scale=1.0):
        values = scale * (random.random(shape, "float32") + 0.1)
        return ops.convert_to_tensor(values.astype("float32"))

    def find(name):
        if not hasattr(operators, name):
            raise Missing(f"keras_topo.operators.{name}")
        return getattr(operators, name)

    if kind == "table":
        table = tensor(heads, 2 * side - 1, 2 * side - 1)
        return operators.BlockToeplitz(table, (side, side))
    if kind == "separable":
        terms = [[tensor(heads, 2 * side - 1) for _ in range(2)]]
        return operators.BlockToeplitz(terms, (side, side))
    if kind == "decay product":
        return operators.Kronecker(
            [
                operators.ExponentialDecay(tensor(heads, scale=1 / side), side)
                for _ in range(2)
            ]
        )
    if kind == f"rank {RANK}":
        factors = [tensor(heads, tokens, RANK) for _ in range(2)]
        return operators.LowRank(*factors)
    if kind == "decay":
        return operators.ExponentialDecay(tensor(heads, scale=0.1), tokens)
    if kind == "causal decay":
        decay = operators.ExponentialDecay
        if "causal" not in inspect.signature(decay).parameters:
            raise Missing("ExponentialDecay(causal=True)")
        return decay(tensor(heads, scale=0.1), tokens, causal=True)
    if kind == "gated decay":
        rates = tensor(batch, heads, tokens, scale=0.1)
        return find("GatedDecay")(rates)
    if kind == "two snakes":
        rates = tensor(heads, 2, scale=0.1)
        curves = ("rows", "columns")
        return find("curve_decay")((side, side), rates, curves)
    return operators.Causal(tokens)


def chosen_form(mask, batch, heads, tokens):
    """The name of the form that `implementation="auto"` picks."""
    if not hasattr(mask, "forms"):  # Up to version 1.
        from keras_topo.attention.masked import choose_implementation

        return choose_implementation(mask, FEATURES, FEATURES, batch, heads)
    from keras_topo.operators.forms import Problem, choose

    problem = Problem(batch, heads, tokens, FEATURES, FEATURES)
    return choose(mask.forms(problem)).name
