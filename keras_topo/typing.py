"""Names of types in annotations.

Keras runs on several backends whose tensors share no base class, and none of
them is imported for the sake of an annotation. So `Tensor` and `TensorLike` say
to readers and editors what is meant, and a type checker takes anything for
them: dtypes and shapes are checked when the code runs.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

#: A tensor of the backend that Keras runs on: `tf.Tensor`, `jax.Array`, or a
#: `keras.KerasTensor` while a functional model is put together.
Tensor: TypeAlias = Any

#: What `keras.ops.convert_to_tensor` takes: a tensor, a variable, an array, a
#: number, or numbers in nested lists.
TensorLike: TypeAlias = Any

#: What tokens leave behind for later ones: a tensor, or a tuple or a dict of
#: tensors.
State: TypeAlias = Any

#: Sizes of axes; `None` for one that is not known before the call.
Shape: TypeAlias = tuple[int | None, ...]

#: The form of attention: `"auto"`, the cheapest; `"fast"`, the cheapest but
#: `"explicit"`; or the name of one, as `MaskOperator.explain` lists them.
Implementation: TypeAlias = (
    Literal["auto", "explicit", "fast", "columns", "low rank"] | str
)

#: An activation: its name, a function of a tensor, or `None` for none.
Activation: TypeAlias = str | Callable[[Tensor], Tensor] | None

#: A path, as a string or any object that has one.
StrPath: TypeAlias = str | os.PathLike[str]

#: A graph of some library: a `Graph`; one of networkx, PyTorch Geometric or
#: DGL; or an adjacency matrix, alone or in a pair with features of nodes.
AnyGraph: TypeAlias = Any

#: `(nodes, nodes)`, SciPy sparse, an array or nested lists; or a `Graph`.
Adjacency: TypeAlias = Any

#: What targets belong to; `"auto"` where their shape shows it.
Level: TypeAlias = Literal["auto", "graphs", "nodes"]

#: How graphs are put into a batch: see `GraphSequence`.
Batching: TypeAlias = Literal["padded", "joined", "factors"]

#: How like queries and keys are: a name, a learned feature map, or its
#: configuration. See `MaskedAttention` and `GraphKernelAttention`.
Similarity: TypeAlias = str | Any

#: A kernel that a layer holds: an array or SciPy sparse array `(nodes, nodes)`,
#: or `(kernels, nodes, nodes)`; or the pairs that `keep_largest` makes of it.
GraphKernel: TypeAlias = Any

#: Mean and variance, or deviation, of each feature or target.
Statistics: TypeAlias = Sequence[Sequence[float]]
