"""A hash of what a callable computes: its code and all that it refers to.

Of code that may be edited, `code_key` hashes bytecode, constants, defaults,
closures, and every global that it reads, functions and classes recursively.
Python, its library and installed packages count by name and version, but for
the package of the callable itself and this one. Hashes of one callable differ
between versions of Python.

Not seen is what code reaches without naming it: through a string (`getattr`,
`importlib`), a file, an environment variable.
"""

import dis
import enum
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import platform
import re
import sys
import types
from typing import Any

import numpy as np

# Part of every key. The last is read from where it has been imported already:
# what is below a package does not import it.
VERSIONED = "numpy", "scipy", "keras_topo"

# Objects that a callable may refer to: seconds of hashing.
LIMIT = 100_000

# Of what a callable is wrapped in, the attributes that make it up.
PARTS = {
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.cached_property: ("func", "attrname"),
    type(functools.cache(len)): ("__wrapped__",),
    types.MethodType: ("__func__", "__self__"),
    types.BuiltinMethodType: ("__name__", "__self__"),
    types.MethodWrapperType: ("__name__", "__self__"),
    types.MemberDescriptorType: ("__name__",),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    re.Pattern: ("pattern", "flags"),
    slice: ("start", "stop", "step"),
}

# Of a class, what does not matter to results, or follows from the rest.
UNREAD = {
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}


class UnknownState(ValueError):
    """Something has a state that cannot be read, or too large a one."""


def code_key(*values: Any) -> str:
    """A hash of callables, numbers, strings, arrays, and containers of these.

    Equal keys mean equal results. Unequal ones need not differ in theirs.

    Args:
        *values: functions, lambdas, methods, partials, callable objects; what
            they are called with.

    Returns:
        str of 64 hexadecimal digits.

    Raises:
        UnknownState: if there is something among the values, or in what they
            refer to, of which no hash tells whether it changed: a generator of
            random numbers, an open file, a lock, compiled code.

    Example:

    >>> code_key(lambda x: x + 1) == code_key(lambda x: x + 2)
    False
    """
    versions = [sys.modules[name].__version__ for name in VERSIONED]
    try:
        return _Hasher().visit((versions, values)).hex()
    except UnknownState:
        raise
    # Objects may have attributes that raise whatever they like, and be nested
    # more deeply than Python can follow.
    except Exception as error:  # noqa: BLE001
        raise UnknownState(f"{type(error).__name__}: {error}") from error


class _Hasher:
    """Visits objects, each once; every method returns a digest, bytes."""

    def __init__(self):
        # Numbers by id; the objects with them, so that ids stay theirs.
        self.seen = {}
        self.visits = 0
        # That of the function whose code is being read; first, any.
        self.package = None

    def visit(self, value):
        self.visits += 1
        if self.visits > LIMIT:
            raise UnknownState(f"more than {LIMIT:,} objects")
        kind = type(value)
        if value is None or value is Ellipsis or value is NotImplemented:
            return _digest(repr(value))
        if kind in (bool, int, float, complex, range):
            # Digits of ints beyond some thousands are refused but in hex.
            return _digest(kind, hex(value) if kind is int else repr(value))
        if kind in (str, bytes, bytearray):
            return _digest(kind, value)
        if kind is tuple:
            return _digest(kind, *map(self.visit, value))
        if kind in (set, frozenset):
            return _digest(kind, *sorted(map(self.visit, value)))
        if isinstance(value, np.generic) and value.dtype.type is kind:
            return _digest("scalar", repr(value.dtype), value.tobytes())
        if isinstance(value, np.dtype):
            return _digest("dtype", repr(value))
        if kind in (type(pathlib.Path()), type(pathlib.PurePath())):
            return _digest(kind, str(value))
        named = self.by_name(value)
        if named:
            return named
        if id(value) in self.seen:
            return _digest("seen", str(self.seen[id(value)][0]))
        self.seen[id(value)] = len(self.seen), value
        return self.visit_object(value, kind)

    def visit_object(self, value, kind):
        if kind is list:
            return _digest(kind, *map(self.visit, value))
        if kind in (dict, types.MappingProxyType):
            # In their order, which code may depend on.
            return _digest(kind, *map(self.visit, value.items()))
        if kind is np.ndarray and not value.dtype.hasobject:
            layout = repr((value.dtype, value.shape, value.strides))
            return _digest("array", layout, as_bytes(value))
        if kind is types.FunctionType:
            return self.visit_function(value)
        if kind is types.BuiltinMethodType and (
            value.__self__ is None
            or isinstance(value.__self__, types.ModuleType)
        ):
            raise UnknownState(f"compiled code, {value.__name__}")
        if kind in PARTS:
            parts = (getattr(value, name) for name in PARTS[kind])
            return _digest(kind, *map(self.visit, parts))
        if isinstance(value, enum.Enum):
            return _digest("enum", *map(self.visit, (kind, value._value_)))
        if isinstance(value, type):
            return self.visit_class(value)
        return self.visit_instance(value, kind)

    def by_name(self, value):
        """The digest of an object that a versioned module has by its name."""
        if isinstance(value, types.ModuleType):
            name, version = value.__name__, self.version(value.__name__)
            return version and _digest("module", name, version)
        name = getattr(value, "__qualname__", getattr(value, "__name__", None))
        places = [getattr(value, "__module__", None)]
        if isinstance(value, np.ufunc):  # Without a module before NumPy 2.
            places = ["numpy", "scipy.special"]
        objclass = getattr(value, "__objclass__", None)
        if isinstance(objclass, type):  # `dict.get`, `object.__init__`
            places = [objclass.__module__]
        for place in places:
            if not (isinstance(name, str) and isinstance(place, str)):
                continue
            found = sys.modules.get(place)
            for part in name.split("."):
                found = getattr(found, part, None)
            version = self.version(place) if found is value else None
            if version:
                return _digest("named", place, name, version)
        return None

    def version(self, module):
        """Of a module's package; `None` where its code is read instead."""
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names:
            return platform.python_version()
        if top in ("numpy", "scipy"):
            return "in every key"
        if self.package is None or top in (self.package, "keras_topo"):
            return None
        return _installed_version(top)

    def visit_function(self, function):
        scope = function.__globals__
        outer = self.package
        self.package = str(scope.get("__name__")).partition(".")[0]
        names = frozenset(_names(function.__code__))
        cells = [
            self.visit_named(_content(cell), names)
            for cell in function.__closure__ or ()
        ]
        own = function.__defaults__, function.__kwdefaults__, vars(function)
        found = _digest(
            "function",
            self.visit_code(function.__code__, scope, names),
            *map(self.visit, own),
            *cells,
        )
        self.package = outer
        return found

    def visit_code(self, code, scope, names):
        """Code, code within it, and the globals and imports of both."""
        own = (
            code.co_code,
            code.co_exceptiontable,
            code.co_names,
            code.co_varnames,
            code.co_cellvars,
            code.co_freevars,
            code.co_flags,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
        )
        parts = [self.visit(own)]
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                parts.append(self.visit_code(constant, scope, names))
            else:
                parts.append(self.visit(constant))
        steps = [
            s for s in dis.get_instructions(code) if s.opname != "EXTENDED_ARG"
        ]
        read = {
            s.argval
            for s in steps
            if "GLOBAL" in s.opname or s.opname == "LOAD_NAME"
        }
        for name in sorted(read & scope.keys()):
            parts += [name.encode(), self.visit_named(scope[name], names)]
        for number, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                level, members = (s.argval for s in steps[number - 2 : number])
                name = "." * level + step.argval
                if level:
                    name = importlib.util.resolve_name(
                        name, scope["__package__"]
                    )
                parts.append(self.visit_import(name, members or (), names))
        return _digest("code", *parts)

    def visit_import(self, name, members, names):
        """A module that a function imports when it is called."""
        version = self.version(name)
        if version:
            return _digest("module", name, version)
        try:
            # `import a.b` is a name for `a`.
            found = [
                importlib.import_module(name.partition(".")[0]),
                importlib.import_module(name),
            ]
            for member in members:
                if not hasattr(found[1], member):
                    importlib.import_module(f"{name}.{member}")
                found.append(getattr(found[1], member))
        except ImportError:
            return _digest("no module", name)
        return _digest("import", *(self.visit_named(m, names) for m in found))

    def visit_named(self, value, names):
        """The value of a variable of code in which there are these `names`.

        Of a module that may be edited, only what the code names is read.
        """
        if not isinstance(value, types.ModuleType) or self.by_name(value):
            return self.visit(value)
        if (id(value), names) in self.seen:
            return _digest("module", value.__name__)
        self.seen[id(value), names] = len(self.seen), value
        parts = []
        for name in sorted(names.intersection(dir(value))):
            member = getattr(value, name)
            parts += [name.encode(), self.visit_named(member, names)]
        return _digest("module", value.__name__, *parts)

    def visit_class(self, value):
        members = [
            (name, member)
            for name, member in vars(value).items()
            if name not in UNREAD
        ]
        # Of a dataclass, what `fields` and `asdict` go by.
        fields = tuple(vars(value).get("__dataclass_fields__", ()))
        parts = type(value), value.__bases__, value.__name__, fields
        return _digest("class", *map(self.visit, (*parts, members)))

    def visit_instance(self, value, kind):
        """An object that is its class and its attributes, nothing hidden."""
        hooks = "reduce_ex", "reduce", "getstate", "getnewargs", "getnewargs_ex"
        for hook in (f"__{name}__" for name in hooks):
            if getattr(kind, hook, None) is not getattr(object, hook, None):
                break
        else:
            try:
                # Refuses where C code keeps more than attributes.
                _, arguments, *state = object.__reduce_ex__(value, 2)
            except TypeError:
                arguments, state = None, []
            # Items of a list or dict come after the attributes.
            if arguments == (kind,) and not any(state[1:]):
                state = self.visit(state[0] if state else None)
                return _digest("instance", self.visit(kind), state)
        raise UnknownState(
            f"an object of type {kind.__module__}.{kind.__qualname__}"
        )


def as_bytes(array: np.ndarray) -> memoryview:
    """The bytes of the numbers of an array, in C order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _digest(tag, *parts):
    """Of parts and their lengths, so that none runs into the next."""
    found = hashlib.sha256()
    for part in (tag if isinstance(tag, str) else tag.__qualname__, *parts):
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


def _content(cell):
    """What a cell of a closure holds; one that is not filled yet, nothing."""
    try:
        return cell.cell_contents
    except ValueError:
        return NotImplemented


def _names(code):
    """All names in code and in code within it, those of attributes too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.cache
def _installed_version(package):
    """`None` unless a package has been installed, with a version."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    folders = {
        part for place in places if place for part in pathlib.Path(place).parts
    }
    if not folders & {"site-packages", "dist-packages"}:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package, ())
        versions = sorted(map(importlib.metadata.version, set(names)))
        return " ".join(versions) or None
