"""What earlier versions did not write down, from what they did.

Metrics of a run hold the arguments of its script, and these say how its model
was built. `training.publish --convert` uses it on folders with a
`model.keras`.
"""

import types

from keras_topo.presets.configurations import are_alike
from keras_topo.training import graphs, images, nodes
from keras_topo.training.graph_data import FeatureRecipe


def preprocessor_of(metrics):
    """What `preprocessor.json` of a run holds: see `keras_topo.save_preset`.

    Args:
        metrics: dict, the summary of the run.

    Returns:
        A dict, or `None` for no metrics.
    """
    if "task" not in metrics:
        return None
    names = metrics.get("class_names") or metrics.get("export", {}).get(
        "class_names"
    )
    found = {
        "task": metrics["task"],
        "image_shape": metrics.get("image_shape"),
        "features": metrics.get("features"),
        "class_names": names,
    }
    return {key: value for key, value in found.items() if value is not None}


def built_again(model, metrics):
    """A model of a builder that is the same but for weights, or `None`.

    Arguments of the metrics that the model contradicts are corrected there.

    Args:
        model: the trained model of the run.
        metrics: dict, its summary.
    """
    # What it was fine-tuned from has its architecture.
    arguments = {**metrics["arguments"], "preset": None}
    make = {"images": _images, "graphs": _graphs, "nodes": _nodes}
    again = make[metrics["task"]](model, metrics, arguments)
    return again if are_alike(again, model) else None


def _images(model, metrics, arguments):
    stem = "patches"
    if any(layer.name == "stem_1" for layer in model.layers):
        stem = "convolutions"
    metrics["arguments"]["stem"] = arguments["stem"] = stem
    data = types.SimpleNamespace(
        image_shape=tuple(metrics["image_shape"]),
        class_names=metrics["class_names"],
    )
    return images.build_model(arguments, data)


def _graphs(model, metrics, arguments):
    classifier = model.layers[-1]
    statistics = None
    for layer in classifier.layers:
        if layer.name == "standardisation":
            config = layer.get_config()
            statistics = config["mean"], config["variance"]
    task = types.SimpleNamespace(
        num_features=classifier.input["nodes"].shape[-1],
        dataset=types.SimpleNamespace(num_classes=model.output_shape[-1]),
        recipe=FeatureRecipe(**metrics["features"]),
    )
    classifier = graphs.build_model(arguments, task, statistics)
    return graphs.whole_model(arguments, task, classifier)


def _nodes(model, metrics, arguments):
    kernels = [
        layer.get_config()["fixed_kernel"]
        for layer in model.layers
        if "fixed_kernel" in layer.get_config()
    ]
    data = types.SimpleNamespace(
        graph=types.SimpleNamespace(
            features=types.SimpleNamespace(shape=model.input_shape[1:])
        ),
        num_classes=model.output_shape[-1],
    )
    return nodes.build_model(arguments, data, kernels[0])
