"""The cache of kernels: what an entry is found by."""

import functools
import importlib
import sys
import threading
import types

import numpy as np
import pytest
from cached_graphs import (
    GRAPHS,
    check,
    define,
    entries,
    power_of,
    scaled,
)

from keras_topo.graphs import (
    Graph,
    compute_kernels,
    diffusion_kernel,
    graph_random_features,
    pagerank_kernel,
    random_walk_kernel,
    return_probabilities,
)
from keras_topo.graphs import cache as cache_module
from keras_topo.graphs.code_keys import (
    UnknownState,
    _digest,
    _Hasher,
    code_key,
)


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """Notes that are shown once per process are shown once per test."""
    monkeypatch.setattr(cache_module, "_told", set())


class Scale:
    offset = 0.0

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, adjacency):
        return self.scale(adjacency)

    def scale(self, adjacency):
        return self.factor * adjacency.toarray() + self.offset


class Shifted(Scale):
    offset = 1.0


def helper_of(n):
    source = f"""
def helper(a): return inner(a) + 1
def inner(a): return a.toarray() * factor(a)
factor = lambda a: {n}
def kernel(a): return [helper(a) for _ in range(1)][0]
"""
    return define(source)


def wrapped_of(n):
    return define(
        "import functools\n@functools.lru_cache\n"
        f"def factor(): return {n}\n"
        "def kernel(a): return a.toarray() * factor()"
    )


def method_of(n):
    return define(
        "class Base:\n"
        f"    def run(self, a): return a.toarray() * {n}\n"
        "class Derived(Base): pass\n"
        "def kernel(a): return Derived().run(a)"
    )


def module_of(n):
    module = types.ModuleType("helpers")
    exec(f"def f(a): return a.toarray() * {n}", vars(module))
    return define("def kernel(a): return helpers.f(a)", helpers=module)


def lazy_module_of(n):
    """A module that makes its functions when they are asked for."""
    module = types.ModuleType("helpers")
    made = {"f": define(f"def f(a): return a.toarray() * {n}", "f")}
    module.__getattr__ = made.__getitem__
    module.__dir__ = lambda: list(made)
    return define("def kernel(a): return helpers.f(a)", helpers=module)


def global_of(value):
    return define("def kernel(a): return a.toarray() * G", G=value)


def filled_later(n):
    def kernel(a):
        return a.toarray() * later

    assert code_key(kernel) == code_key(kernel)
    later = n
    return kernel


EDIT = "def kernel(a): return a.toarray() {} 2"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda a: a.toarray() + 1, lambda a: a.toarray() + 2),
        (define(EDIT.format("*")), define(EDIT.format("+"))),
        (lambda a, n=1: a.toarray() * n, lambda a, n=2: a.toarray() * n),
        (lambda a, *, n=1: a.toarray() * n, lambda a, *, n=2: a.toarray() * n),
        (power_of(1), power_of(2)),
        (power_of(1), power_of(1.5)),
        (power_of(np.arange(2.0)[:1]), power_of(np.arange(2.0)[1:])),
        (filled_later(1), filled_later(2)),
        (functools.partial(scaled, factor=2), functools.partial(scaled)),
        (
            functools.partial(functools.partial(scaled, shift=1), factor=2),
            functools.partial(functools.partial(scaled, shift=2), factor=2),
        ),
        (functools.partial(power_of(1)), functools.partial(power_of(2))),
        (Scale(1), Scale(2)),
        (Scale(1).scale, Scale(2).scale),
        (Scale(1), Shifted(1)),
        (Scale(1).scale, Shifted(1).scale),
        (helper_of(1), helper_of(2)),
        (wrapped_of(1), wrapped_of(2)),
        (method_of(1), method_of(2)),
        (module_of(1), module_of(2)),
        (lazy_module_of(1), lazy_module_of(2)),
        (global_of(1), global_of(2)),
        (global_of([1, 2]), global_of([2, 1])),
        (global_of(np.float64(1)), global_of(np.float64(2))),
        (
            lambda a: (lambda b: b.toarray() + 1)(a),
            lambda a: (lambda b: b.toarray() + 2)(a),
        ),
        (
            lambda a: a.toarray() * (1 in {1, 3}),
            lambda a: a.toarray() * (1 in {2, 3}),
        ),
        (lambda a: a.toarray() * 2, lambda a: a.toarray() * 2.5),
        (lambda a: np.exp(a.toarray()), lambda a: np.cos(a.toarray())),
    ],
)
def test_the_key_has_the_code(tmp_path, one, other):
    graphs = [Graph(np.array([[0, 3], [2, 0]]))]
    assert check(tmp_path, one, graphs) == 1
    assert check(tmp_path, other, graphs) == 2
    assert check(tmp_path, one, graphs) == 2
    first, second = (
        compute_kernels(graphs, k, cache=False)[0] for k in (one, other)
    )
    assert not np.array_equal(first, second) or "filled" in str(one)


def test_the_key_has_what_try_covers():
    def kernel(adjacency):
        try:
            return adjacency.missing
        except AttributeError:
            return adjacency.toarray()

    code = kernel.__code__.replace(co_exceptiontable=b"")
    assert code_key(types.FunctionType(code, globals())) != code_key(kernel)


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def test_values_do_not_run_into_each_other():
    one, two, three = ([Slots(1), Slots(n)] for n in (1, 2, 2))
    assert code_key(one) != code_key(two) == code_key(three)
    # Attributes in slots are read into a dict. If it were not kept, the next
    # dict could get its address.
    hasher = _Hasher()
    hasher.visit(one)
    assert all(id(value) == key for key, (_, value) in hasher.seen.items())
    array = np.arange(6.0).reshape(2, 3)
    # Sums in another order of entries are rounded differently.
    values = [array, np.asfortranarray(array), array.ravel(), array.tolist()]
    values += ["12", "1", 12, 12.0, (12,), [12], {12}, b"12", True, 1, None]
    values += [("ab", "c"), ("a", "bc"), 0.0, -0.0, np.float32(1), np.int8(1)]
    assert len(set(map(code_key, values))) == len(values)
    assert _digest("ab", "c") != _digest("a", "bc")


@pytest.mark.parametrize(
    "source",
    [
        "from edited.part import factor",
        "from edited import part; factor = part.factor",
        "import edited.part as part; factor = part.factor",
        "import edited.part; factor = edited.part.factor",
        "import edited.other; factor = edited.part.factor",
        "from .part import factor",
        "from . import part; factor = part.factor",
    ],
)
def test_the_key_has_modules_that_are_imported_when_called(
    tmp_path, monkeypatch, source
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kernel = define(
        f"def kernel(a):\n    {source}\n    return a.toarray() * factor()",
        __package__="edited",
    )
    package = tmp_path / "edited"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").write_text("import edited.part")
    folder = tmp_path / "cache"
    for number in (1, 2, 3):
        # Before a call, none of these modules has been imported.
        for name in ("edited", "edited.part", "edited.other"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        (package / "part.py").write_text(f"def factor(): return {number}")
        found = compute_kernels(GRAPHS, kernel, cache=folder)
        np.testing.assert_array_equal(
            found[0], number * GRAPHS[0].adjacency.toarray()
        )
        assert len(entries(folder)) == number
    for name in ("edited", "edited.part", "edited.other"):
        sys.modules.pop(name, None)


def test_keys_do_not_change_between_processes_or_calls():
    kernels = {
        "random_walk_kernel": random_walk_kernel,
        "diffusion_kernel": diffusion_kernel,
        "pagerank_kernel": pagerank_kernel,
        "return_probabilities": return_probabilities,
        "graph_random_features": graph_random_features,
        "a set": lambda a: a in {"x", "y", "z"},
    }
    keys = {code_key(kernel) for kernel in kernels.values()}
    assert len(keys) == len(kernels)
    for graph in GRAPHS * 50:  # Python rewrites bytecode that runs often.
        random_walk_kernel(graph.adjacency)
    assert {code_key(kernel) for kernel in kernels.values()} == keys
    # Sets have no order, and that of strings differs between processes.
    assert list({0, 8}) != list({8, 0})
    assert code_key({0, 8}) == code_key({8, 0})


def test_functions_that_refer_to_each_other():
    source = "def kernel(n): return odd(n - 1)\ndef odd(n): return {}kernel(n)"
    one, same, other = (define(source.format(s)) for s in ("", "", "-"))
    assert code_key(one) == code_key(same) != code_key(other)

    def itself(n):
        return n and itself(n - 1)

    assert code_key(itself)


def test_a_kernel_of_unknown_state_is_not_kept(tmp_path):
    random = np.random.default_rng(0)
    lock = threading.Lock()
    for kernel in (
        lambda a: random.permuted(a.toarray().ravel()) * 0,
        functools.partial(lambda a, lock: a.toarray(), lock=lock),
        Scale(np.array([1.0, None])[:1].astype(object)),
        np.frompyfunc(lambda x: x, 1, 1),
    ):
        with pytest.raises(UnknownState):
            code_key(kernel)
    for number in (1, 2):
        with pytest.warns(UserWarning, match="no hash .*Generator"):
            compute_kernels(
                GRAPHS, lambda a, r=random: a.toarray(), cache=tmp_path
            )
        if number == 1:
            # Once: the warning would be an error.
            check(tmp_path, lambda a, r=random: a.toarray())
            cache_module._told.clear()
    assert list(tmp_path.iterdir()) == []
    nested = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(UnknownState):
        code_key(nested)
    with pytest.raises(UnknownState, match="more than"):
        code_key(list(range(200_000)))
