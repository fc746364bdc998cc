"""Sections of model cards that follow from a preset: how it is used, served.

Markdown, in which every snippet of code runs from the root of the repository.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_topo.graphs import GraphPreprocessor

# How many values of labels a card lists.
SHOWN = 40


def usage(
    name: str,
    task: str,
    preprocessor: "GraphPreprocessor | None" = None,
    input_shape: tuple[int, int] | None = None,
) -> str:
    """How a preset is loaded.

    Args:
        name: str.
        task: str, `task` of its `preprocessor.json`.
        preprocessor: `GraphPreprocessor` of models of graphs; or `None`.
        input_shape: `(nodes, features)` of models of nodes; or `None`.
    """
    if task == "images":
        lines = [
            "import keras_topo",
            "",
            f'model = keras_topo.from_preset("{name}")',
            "finer = keras_topo.from_preset(  # height, width: resampled",
            f'    "{name}", num_classes=3, image_shape=(40, 48)',
            ")",
        ]
        return _code(lines)
    if preprocessor is None:
        lines = [
            "import numpy as np",
            "",
            "import keras_topo",
            "",
            f'model = keras_topo.from_preset("{name}")',
        ]
        if input_shape is not None:
            nodes, features = input_shape
            lines += [
                "# Words of all nodes, zeros and ones, as in the data.",
                f"words = np.random.randint(0, 2, (1, {nodes}, {features}))",
                "print(model.predict(words).shape)",
            ]
        lines += [f'other = keras_topo.from_preset("{name}", num_classes=3)']
        return _code(lines)
    values = _example_values(preprocessor)
    fields = [f"    {key}={value}," for key, value in values.items()]
    imports = ["import numpy as np", ""] * ("features" in values)
    lines = [
        *imports,
        "import keras_topo",
        "from keras_topo import GraphClassifier",
        "from keras_topo.graphs import Graph",
        "",
        f'classifier = GraphClassifier.from_preset("{name}")',
        "graph = Graph.from_edges(",
        "    [(0, 1), (1, 2)],",
        "    num_nodes=3,",
        *fields,
        ")",
        "print(classifier.predict([graph]), classifier.predict_proba([graph]))",
        f'other = keras_topo.from_preset("{name}", num_classes=3)',
    ]
    return _code(lines) + (
        "\n\nIt takes lists of graphs of networkx, PyTorch Geometric, DGL and "
        "SciPy as well, and `attributes` of `from_preset` says how their "
        f"labels and features are called, in place of "
        f"`{json.dumps(preprocessor.attributes)}`."
    )


def serving(
    name: str,
    report: Mapping[str, Any],
    preprocessor: "GraphPreprocessor | None" = None,
) -> str:
    """How the SavedModel of a preset is asked.

    Args:
        name: str, of its folder in `saved_models/`.
        report: dict, of the export.
        preprocessor: `GraphPreprocessor`, or `None`.
    """
    signatures = report["signatures"]
    rows = [
        f"| `{signature}` | {_fields(parts['inputs'])} | "
        f"{_fields(parts['outputs'])} |"
        for signature, parts in signatures.items()
    ]
    table = "\n".join(
        [
            "`1/` is a SavedModel for TensorFlow Serving (`deploy/` of "
            "keras_topo says how), with these signatures:",
            "",
            "| signature | inputs | outputs |",
            "|---|---|---|",
            *rows,
        ]
    )
    parts = [table, *_meanings(signatures, report, preprocessor)]
    if preprocessor is not None:
        parts.append(_request(name, preprocessor))
    elif "ids" in signatures["serving_default"]["inputs"]:
        lines = [
            "import tensorflow as tf",
            "",
            f'served = tf.saved_model.load("saved_models/{name}/1").signatures',
            'answer = served["serving_default"](ids=tf.constant([0, 1, 2]))',
            _shown(signatures),
        ]
        parts.append(_code(lines))
    return "\n\n".join(parts)


def uploaded(
    handle: str,
    preprocessor: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    any_size: bool = False,
) -> str:
    """The whole card of a preset on a hub that came with none.

    Args:
        handle: str, `hf://user/repository` as it is loaded.
        preprocessor, metrics: as given to `keras_topo.save_preset`.
        any_size: bool, whether images may have another size than
            `image_shape` of the preprocessor.
    """
    preprocessor, metrics = preprocessor or {}, metrics or {}
    name = handle.removeprefix("hf://").partition("@")[0].partition("/")[2]
    header = "---\nlibrary_name: keras\ntags:\n- keras\n- keras_topo\n---"
    parts = [
        f"# {name}",
        "A model of [Keras](https://keras.io) with layers of keras_topo, as "
        "configuration and weights: nothing in it runs code where it is "
        "loaded.",
        _code(
            [
                "import keras_topo",
                "",
                f'model = keras_topo.from_preset("{handle}")',
            ]
        ),
    ]
    if preprocessor.get("image_shape"):
        size = " x ".join(str(n) for n in preprocessor["image_shape"])
        others = ", and of any other size" * any_size
        parts.append(f"It takes pixels from 0 to 255 of {size}{others}.")
    if preprocessor.get("class_names"):
        listed = _listed(preprocessor["class_names"])
        parts.append(f"Classes, in the order of the logits: {listed}.")
    if metrics.get("test_accuracy") is not None:
        share = metrics["test_accuracy"]
        parts.append(f"{share:.2%} of the test data are right.")
    if metrics.get("data_license"):
        parts.append(f"License of the data: {metrics['data_license']}.")
    return "\n\n".join([header, *parts]) + "\n"


def limits(task: str) -> str:
    """What a model is not for."""
    if task == "images":
        return (
            "It knows the classes of its data and nothing else: any image gets "
            "one of them. It was not tested on shifted or corrupted images."
        )
    if task == "graphs":
        return (
            "It knows the classes of its data and nothing else: any graph gets "
            "one of them."
        )
    return "It classifies the nodes of the one graph that it holds."


def replaced(card: str, used: str, served: str, limited: str) -> str:
    """A card with other sections of use, serving and limits.

    Args:
        card: str, the whole card.
        used, served, limited: what `usage`, `serving` and `limits` gave.

    Raises:
        ValueError: if the card does not have the form of `training.publish`.
    """
    begin, end = card.find("```python"), card.find("\nMade by `")
    after = card.find("\n\n", end)
    if min(begin, end, after) < 0:
        raise ValueError(
            "`card` expects a snippet of Python and, after it, a paragraph "
            "that begins with 'Made by'. Received: a card without"
        )
    # What follows: the paragraph of limits, and pictures.
    rest = card[after + 2 :]
    place = rest.find("\n\n")
    pictures = rest[place:] if place >= 0 else "\n"
    return (
        card[:begin]
        + f"{used}\n\n{served}\n"
        + card[end:after]
        + f"\n\n{limited}"
        + pictures
    )


def _meanings(signatures, report, preprocessor):
    """What inputs and outputs are, sentence by sentence."""
    found = []
    if preprocessor is not None:
        learned = preprocessor._learned()
        text = (
            "Graphs are raw: features, degrees and kernels are computed "
            "inside. "
        )
        if learned["label_values"]:
            text += (
                "Labels of nodes are the values that the data have, "
                f"{_listed(learned['label_values'])}; others are refused. "
            )
        if not learned["directed"]:
            text += "An edge counts in both directions. "
        text += (
            "-1 and -1 pad edges, and `assets.extra/graph_schema.pbtxt` says "
            "what an example holds."
        )
        found.append(text)
    elif "classify_bytes" in signatures:
        found.append(
            "`image_bytes` are whole files, JPEG, PNG, BMP, GIF or WebP, as "
            "the training reads them: turned upright by their EXIF "
            "orientation, and stretched to the size of `images`."
        )
    elif "classify_features" in signatures:
        found.append(
            "`ids` are nodes of the graph that the model holds. `nodes` are "
            "other features for all of them: words, zeros and ones, as the "
            "data have them, which are divided by their sum inside."
        )
    if "class" in signatures["serving_default"]["outputs"]:
        found.append(
            "Classes are, in the order of `logits`: "
            f"{_listed(report['class_names'])}."
        )
    return found


def _request(name, preprocessor):
    values = {
        "node_mask": "tf.constant([[True, True, True]])",
        "edges": "tf.constant([[[0, 1], [1, 2]]])",
    }
    for key, value in _example_values(preprocessor).items():
        if key == "node_labels":
            values[key] = f"tf.constant([{value}])"
        else:
            width = preprocessor._learned()["num_own_features"]
            values[key] = f"tf.zeros((1, 3, {width}))"
    lines = [
        "import tensorflow as tf",
        "",
        f'served = tf.saved_model.load("saved_models/{name}/1").signatures',
        'answer = served["serving_default"](',
        *(f"    {key}={value}," for key, value in values.items()),
        ")",
        'print(answer["class"], answer["probabilities"])',
    ]
    return _code(lines)


def _shown(signatures):
    outputs = signatures["serving_default"]["outputs"]
    first = 'answer["class"], ' if "class" in outputs else ""
    return f'print({first}answer["probabilities"])'


def _example_values(preprocessor):
    """Code for what three nodes have."""
    learned, values = preprocessor._learned(), {}
    if learned["label_values"]:
        known = learned["label_values"]
        values["node_labels"] = repr([known[0], known[0], known[-1]])
    if learned["num_own_features"]:
        values["features"] = f"np.zeros((3, {learned['num_own_features']}))"
    return values


def _listed(values):
    """All values; of a run of ints its ends."""
    first, last, whole = values[0], values[-1], isinstance(values[0], int)
    if whole and len(values) > 3 and values == list(range(first, last + 1)):
        return f"{first} to {last}"
    shown = ", ".join(f"`{value}`" for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")


def _fields(described):
    return ", ".join(f"`{key}` {text}" for key, text in described.items())


def _code(lines):
    return "\n".join(["```python", *lines, "```"])
