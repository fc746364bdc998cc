"""What a configuration and a file of weights may hold: nothing that runs.

Keras itself refuses lambdas only as long as nobody has called
`keras.config.enable_unsafe_deserialization()`. Here the JSON is walked before
anything is made of it, so that no such setting counts. Objects may be

- public classes of Keras that are parts of models, but for those that hold
  code or read other files,
- public functions of `keras.activations`, `keras.initializers`, `keras.ops`
  and the like,
- what is registered in this process, by keras_topo or by the user, through
  `keras.saving.register_keras_serializable`.

No module is imported for a name that stands in a file.
"""

from typing import Any

import h5py
import keras

from keras_topo.annotations import StrPath

# Modules of Keras of which parts of models come.
_MODULES = (
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.ops",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
)
# The same, under the names of files: operations of functional models and
# `Functional` itself have no others.
_PREFIXES = (
    "keras.src.activations.",
    "keras.src.constraints.",
    "keras.src.dtype_policies.",
    "keras.src.initializers.",
    "keras.src.layers.",
    "keras.src.models.",
    "keras.src.ops.",
    "keras.src.quantizers.",
    "keras.src.random.",
    "keras.src.regularizers.",
)
_FUNCTIONS = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.ops",
    "keras.random",
    "keras.regularizers",
)
# Layers that hold code, or load it from elsewhere.
_CODE = (
    "FlaxLayer",
    "JaxLayer",
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "__lambda__",
)
# Values, which are of no class.
_VALUES = (
    "__bytes__",
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
)
# What layers may be told to read from a file of any name.
_PATHS = ("vocabulary", "idf_weights")


def check_configuration(config: Any, source: str) -> None:
    """Refuses a configuration that could run code or read other files.

    Args:
        config: values of JSON.
        source: str, where they are from; for the message.

    Raises:
        ValueError: naming the class, function or file that is refused.
    """
    if isinstance(config, list):
        for item in config:
            check_configuration(item, source)
    elif isinstance(config, dict):
        if "class_name" in config:
            _check_object(config, source)
        for key in _PATHS:
            if isinstance(config.get(key), str):
                raise ValueError(
                    "A preset holds all that its layers need; a configuration "
                    f"with {key} in another file is refused. Received: "
                    f"{key}={config[key]!r} in {source}"
                )
        for item in config.values():
            check_configuration(item, source)


def _check_object(config, source):
    name = config["class_name"]
    module = config.get("module")
    if name in _CODE or not isinstance(name, str):
        raise ValueError(
            "Presets hold no code: layers and functions that carry some are "
            "refused, whatever keras.config.enable_unsafe_deserialization "
            f"says. Received: {name} in {source}"
        )
    if name in _VALUES:
        return
    if name == "function":
        kind, name = "function", config.get("config")
        if _is_registered(name) or module in _FUNCTIONS:
            return
        if module == "builtins" and _is_function_of_keras(name):
            return
    else:
        kind = "class"
        if _is_registered(config.get("registered_name", name)):
            return
        text = module if isinstance(module, str) else ""
        if text in _MODULES or text.startswith(_PREFIXES):
            return
        if module is None and "module" not in config:
            # An object of Keras by its bare name, as some layers write.
            return
    raise ValueError(
        f"Presets are made of parts of Keras, and of classes and functions "
        "registered in this process: import what decorates it with "
        "keras.saving.register_keras_serializable first, if you trust it. "
        f"Received: the {kind} {name!r} of the module {module!r} in {source}"
    )


def _is_function_of_keras(name):
    """Whether Keras has it, for names that are written without a module."""
    return isinstance(name, str) and any(
        hasattr(getattr(keras, module.removeprefix("keras.")), name)
        for module in _FUNCTIONS
    )


def _is_registered(name):
    return (
        isinstance(name, str)
        and keras.saving.get_registered_object(name) is not None
    )


def check_weights(path: StrPath) -> None:
    """Refuses a file of weights that reads other files.

    HDF5 follows links to other files, and data that lies in them, and some
    versions of Keras load what it finds there.

    Raises:
        ValueError: if the file is not HDF5, or holds a link or a data set
            whose data are elsewhere.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} is no HDF5 file, or a truncated one: {error}"
        ) from error
    with file:
        _check_group(file, path, {h5py.h5o.get_info(file.id).addr})


def _check_group(group, path, seen):
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(
                "A file of weights expects no links. Received: "
                f"{group.name}/{name} in {path}, a {type(link).__name__}"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            # Two names for one group could lead in circles.
            address = h5py.h5o.get_info(item.id).addr
            if address not in seen:
                seen.add(address)
                _check_group(item, path, seen)
        elif not isinstance(item, h5py.Dataset):
            raise ValueError(
                "A file of weights expects groups and data sets. Received: "
                f"{group.name}/{name} in {path}, a {type(item).__name__}"
            )
        elif item.external or item.is_virtual:
            raise ValueError(
                "A file of weights expects all of its data inside. Received: "
                f"{group.name}/{name} in {path}, whose data are in other files"
            )
