"""Pickles of arrays, sparse matrices and dicts of lists, read as data.

A pickle is a program: it names functions and calls them. Here each name that
occurs in pickles of arrays stands for a class that keeps what it is called with
and does nothing; every other name is refused. Arrays are made from what was
kept, after it has been checked.
"""

import io
import math
import pickle
import re
from typing import Any

import numpy as np
import scipy.sparse


def read_pickle(content: bytes, file: str) -> Any:
    """Reads a pickle without calling anything that it names.

    Args:
        content: `bytes`, of any protocol, of Python 2 as well.
        file: str, its name, for errors.

    Returns:
        A NumPy array, a `scipy.sparse.csr_array`, or a dict of ints to lists
        of ints.

    Raises:
        ValueError: if it holds, or calls, anything else, or is damaged.
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        if isinstance(found, _Matrix | _Array):
            return found.value()
        if isinstance(found, dict):
            return {_integer(key): _integers(found[key]) for key in found}
        raise TypeError(f"it holds {_described(found)}")
    except Exception as error:
        # A damaged or hostile pickle fails in any way it likes.
        raise ValueError(
            f"{file} expects a pickle of a numeric array, a CSR matrix, or a "
            "dict of lists of integers. Received: something else "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error


class _Kept:
    """What a name in a pickle stands for: keeps arguments and state."""

    arguments: tuple
    state: Any

    def __new__(cls, *arguments):
        self = object.__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __setstate__(self, state):
        self.state = state


class _Array(_Kept):
    """`_reconstruct(ndarray, (0,), b"b")` with a state."""

    def value(self):
        _, shape, dtype, is_fortran, content = self.state
        return _as_array(content, dtype, shape, "F" if is_fortran else "C")


class _Buffer(_Array):
    """`_frombuffer(content, dtype, shape, order)`, of protocol 5."""

    def value(self):
        return _as_array(*self.arguments)


class _Dtype(_Kept):
    """`dtype("f4", False, True)` with a state that has the byte order."""

    def value(self):
        code = self.arguments[0]
        if not re.fullmatch("[biuf][1248]", code):
            raise TypeError(f"it holds an array of dtype {code!r}")
        order = "=" if self.state is None else self.state[1]
        return np.dtype({"<": "<", ">": ">"}.get(order, "=") + code)


class _Scalar(_Kept):
    """`scalar(dtype, content)`."""

    def value(self):
        return _as_array(self.arguments[1], self.arguments[0], (), "C").item()


class _Encoded(_Kept):
    """`encode(text, "latin1")`: bytes, by Python 3 in old protocols."""

    def value(self):
        text, encoding = self.arguments
        if encoding != "latin1":
            raise ValueError(f"it holds text in {encoding!r}")
        return text.encode("latin1")


class _Matrix(_Kept):
    """`csr_matrix` with the attributes of its object."""

    def value(self):
        data, indices, indptr = (
            self.state[name].value() for name in ("data", "indices", "indptr")
        )
        for array in (indices, indptr):
            if array.dtype.kind not in "iu":
                raise TypeError(f"it holds indices of dtype {array.dtype}")
        shape = tuple(_integer(n) for n in self.state["_shape"])
        matrix = scipy.sparse.csr_array((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
        return matrix


class _Reconstructed:
    """`_reconstructor(csr_matrix, object, None)`, of old protocols."""

    def __new__(cls, kind, *_):
        if kind is not _Matrix:
            raise TypeError(f"it makes an object of {_described(kind)}")
        return _Matrix()


class _Dict(dict):
    """`defaultdict(list)`."""

    def __init__(self, *_):
        super().__init__()

    def __setstate__(self, state):
        raise TypeError("it gives a dict a state")


class _Unused(_Kept):
    """What is only an argument; or `bytes()`, which is empty."""


# Where NumPy, SciPy and Python have had them.
MODULES = {
    "numpy": {"ndarray": _Unused, "dtype": _Dtype},
    "numpy.core.multiarray": {"_reconstruct": _Array, "scalar": _Scalar},
    "numpy.core.numeric": {"_frombuffer": _Buffer},
    "scipy.sparse.csr": {"csr_matrix": _Matrix, "csr_array": _Matrix},
    "collections": {"defaultdict": _Dict},
    "_codecs": {"encode": _Encoded},
    "copyreg": {"_reconstructor": _Reconstructed},
    "builtins": {"list": _Unused, "object": _Unused, "bytes": _Unused},
}
RENAMED = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "scipy.sparse._csr": "scipy.sparse.csr",
    "copy_reg": "copyreg",
    "__builtin__": "builtins",
}


# The one in Python: that in C makes room for as many objects as a pickle says
# it has, which may be billions.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module, name):
        found = MODULES.get(RENAMED.get(module, module), {}).get(name)
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return found

    def get_extension(self, code):
        raise pickle.UnpicklingError(f"it names the extension {code}")


def _as_array(content, dtype, shape, order):
    shape = tuple(_integer(n) for n in shape)
    dtype, content = dtype.value(), _bytes(content)
    if min(shape, default=0) < 0:
        raise ValueError(f"it holds an array of shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(
            f"it holds {len(content)} bytes for an array of shape {shape} and "
            f"dtype {dtype}"
        )
    array = np.frombuffer(content, dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="))


def _bytes(content):
    if isinstance(content, _Encoded):
        return content.value()
    if isinstance(content, _Unused):
        return b""
    # The strings of Python 2 come as text.
    return content.encode("latin1") if isinstance(content, str) else content


def _integer(value):
    value = value.value() if isinstance(value, _Scalar) else value
    if type(value) is not int:
        raise TypeError(f"it holds {_described(value)} in place of an int")
    return value


def _integers(values):
    if type(values) is not list:
        raise TypeError(f"it holds {_described(values)} in place of a list")
    return [_integer(value) for value in values]


def _described(value):
    return f"an object of type {type(value).__name__.strip('_')}"
