"""The command `keras-topo`: trains, exports and publishes models.

    keras-topo presets
    keras-topo train images --data DIR --out runs/mine
    keras-topo export topvit-cifar10 flowers/1
    keras-topo publish runs/mine zoo/mine

`keras-topo COMMAND --help` lists the options. Each command is also a script,
`python -m keras_topo.training.COMMAND`.
"""

import importlib
import sys

COMMANDS = {
    "train": "trains a model by a config: images, graphs, nodes, text, ...",
    "export": "exports a trained model: SavedModel, LiteRT or ONNX",
    "publish": "adds a finished run to a zoo, with a model card",
    "presets": "lists the trained models",
}
# Packages of the extra `training`, which the library does not need.
_OF_TRAINING = (
    "docstring_parser",
    "matplotlib",
    "networkx",
    "sklearn",
    "tensorboard",
    "tyro",
)


def main(argv=None):
    """Runs a command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = argv[0] if argv else None
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(_usage(), file=sys.stderr)
        print(
            f"error: expected a command. Received: {name or 'none'}",
            file=sys.stderr,
        )
        return 2
    if name == "presets":
        return _presets(argv[1:])
    try:
        script = importlib.import_module(f"keras_topo.training.{name}")
    except ModuleNotFoundError as error:
        if error.name not in _OF_TRAINING:
            raise
        print(
            f"error: keras-topo {name} needs {error.name}: "
            'pip install "keras-topo[training]"',
            file=sys.stderr,
        )
        return 2
    return script.main(argv[1:])


def _presets(argv):
    from keras_topo import presets

    if argv:
        asked = argv[0] in ("-h", "--help")
        print(
            "usage: keras-topo presets\n\nLists the trained models that "
            "keras_topo.from_preset loads by name.",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    print(presets())
    return 0


def _usage():
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: keras-topo COMMAND [OPTIONS]",
            "",
            *(f"  {name:<{width}}{text}" for name, text in COMMANDS.items()),
            "",
            "keras-topo COMMAND --help lists the options of a command.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
