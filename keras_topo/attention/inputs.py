"""What the attention functions take: checks, padding, masks."""

import keras
from keras import ops

from keras_topo._backend import divide
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.dense import Dense
from keras_topo.operators.parameters import accumulation_dtype
from keras_topo.operators.shapes import agree, check_batch


def check_inputs(**tensors):
    """Checks query, key and value, under whatever names their caller has.

    Returns them in the accumulation dtype, and the dtype of the value, or of
    the others where this is no float.
    """
    tensors = {name: ops.convert_to_tensor(x) for name, x in tensors.items()}
    for name, x in tensors.items():
        if len(x.shape) != 4:
            raise ValueError(
                f"`{name}` expects the shape (batch, heads, tokens, features)."
                f" Received: {name} of shape {tuple(x.shape)}"
            )
    query, key, value = tensors.values()
    names = list(tensors)
    if not (
        agree(query.shape, key.shape)
        and agree(query.shape[:-1], value.shape[:-1])
    ):
        received = ", ".join(
            f"{name} {tuple(x.shape)}" for name, x in tensors.items()
        )
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` expect the same shape (batch, "
            f"heads, tokens, features), and `{names[2]}` the same batch, heads "
            f"and tokens. Received: {received}"
        )
    dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
    kind = keras.backend.standardize_dtype(value.dtype)
    # Means of integers are none.
    result = value.dtype if keras.backend.is_float_dtype(kind) else dtype
    return *[ops.cast(x, dtype) for x in (query, key, value)], result


def as_operator(
    mask: MaskOperator | TensorLike | None, value: Tensor, allow_negative: bool
) -> MaskOperator | None:
    """`mask` as an operator that fits `value`; `None` stays.

    Raises:
        ValueError: if it does not, or is known to have negative entries.
    """
    if mask is None:
        return None
    if isinstance(mask, str):
        raise ValueError(
            "`mask` expects a MaskOperator, a matrix or None; layers have "
            f"masks by name. Received: mask={mask!r}"
        )
    if not isinstance(mask, MaskOperator):
        mask = Dense(mask)
    if not agree((mask.num_tokens,), value.shape[-2:-1]):
        raise ValueError(
            "`mask` expects as many tokens as `value`. Received: a mask of "
            f"{mask.num_tokens} tokens, value of shape {tuple(value.shape)}"
        )
    check_batch(mask, tuple(value.shape[:2]))
    if not allow_negative and mask.nonnegative is False:
        raise ValueError(
            "`mask` expects entries that are not negative: the sum of a row of "
            "scores, by which attention divides, may vanish otherwise. Pass "
            "`allow_negative=True` where it is known not to. Received: "
            f"mask={mask} with negative entries"
        )
    return mask


def refuse_negative(
    output: Tensor, mask: MaskOperator | None, allow_negative: bool
) -> Tensor:
    """`output`, or NaN where a traced mask has negative entries.

    Compiled functions cannot raise: what is an error elsewhere must not look
    like a result there.
    """
    if mask is None or allow_negative or mask.nonnegative is not None:
        return output
    negative = mask._traced_negative()
    if negative is None:
        return output
    nan = ops.full_like(output, float("nan"))
    return ops.where(negative, nan, output)


def drop_padding(x: Tensor, padding_mask: TensorLike | None) -> Tensor:
    """Zeros at padded tokens of `(batch, heads, L, n)`."""
    if padding_mask is None:
        return x
    visible = ops.cast(padding_axes(padding_mask, x), "bool")
    return ops.where(visible, x, ops.zeros_like(x))


def padding_axes(padding_mask: TensorLike, x: Tensor) -> Tensor:
    """`(batch, L)` to `(batch, 1, L, 1)`, in the dtype of `x`."""
    padding_mask = ops.convert_to_tensor(padding_mask)
    expected = (x.shape[0], x.shape[-2])
    found = tuple(padding_mask.shape)
    if len(found) != 2 or not (
        agree(found[1:], expected[1:])
        and (found[0] == 1 or agree(found[:1], expected[:1]))
    ):
        raise ValueError(
            "`padding_mask` expects the shape (batch, tokens), here "
            f"{expected}. Received: padding_mask of shape "
            f"{tuple(padding_mask.shape)}"
        )
    # By way of bool: other numbers than zero are all the same.
    visible = ops.cast(ops.cast(padding_mask, "bool"), x.dtype)
    return visible[:, None, :, None]


def normalize(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divides; where a row has no weight at all, the result is zero.

    Only the denominator is guarded: an epsilon in the scores would make the
    forms of attention differ. And only against zero: a row of tiny weights has
    the average that it says.
    """
    empty = denominator == 0
    safe = ops.where(empty, ops.ones_like(denominator), denominator)
    # The numerator of an empty row is zero, as its weights are.
    return divide(numerator, safe)
