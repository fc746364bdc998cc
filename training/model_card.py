"""The card of a published model, in Markdown with the header of model hubs."""

from pathlib import Path

from keras_topo.graphs import GraphPreprocessor
from keras_topo.presets.cards import limits, serving, usage
from keras_topo.presets.folders import PREPROCESSOR, read_json

PIPELINES = {
    "images": "image-classification",
    "graphs": "graph-ml",
    "nodes": "graph-ml",
}
CLASSIFIERS = {
    "images": "An image classifier",
    "graphs": "A graph classifier",
    "nodes": "A node classifier",
}


def card(folder, metrics, title, notes):
    """The model card, Markdown with a YAML header."""
    task, name = metrics["task"], folder.name
    data = Path(metrics["arguments"]["data"]).stem
    accuracy = metrics["test_accuracy"]
    header = f"""---
library_name: keras
license: apache-2.0
pipeline_tag: {PIPELINES[task]}
tags:
- keras
- tensorflow
- keras_topo
- linear-attention
datasets:
- {data}
metrics:
- accuracy
model-index:
- name: {name}
  results:
  - task:
      type: {PIPELINES[task]}
    dataset:
      name: {data}
      type: {data}
    metrics:
    - type: accuracy
      value: {accuracy:.4f}
---
"""
    paragraphs = [f"# {title}", describe(metrics, data)]
    paragraphs += list(notes)
    preprocessor = read_json(folder / PREPROCESSOR).get("graph_preprocessor")
    if preprocessor is not None:
        preprocessor = GraphPreprocessor.from_config(preprocessor)
    paragraphs += [
        usage(name, task, preprocessor),
        serving(name, metrics["export"], preprocessor),
    ]
    paragraphs += [origin(metrics), limits(task)]
    pictures = [
        f"![{text}]({file})"
        for file, text in (
            ("masks.png", "Learned masks by layer and head"),
            ("kernels.png", "Kernels of one test graph per class"),
            ("attention.png", "Attention of one token by layer and head"),
            ("curves.png", "Loss and accuracy by epoch"),
        )
        if (folder / file).exists()
    ]
    return header + "\n" + "\n\n".join([*paragraphs, *pictures]) + "\n"


def attention(task, arguments):
    """What a model attends with, in words.

    Args:
        task: str.
        arguments: dict, the settings of its training.
    """
    if task != "images":
        return "graph kernel attention (GKAT)"
    kind = arguments.get("attention", "toeplitz")
    mask = arguments.get("mask", "none" if kind == "softmax" else "table")
    masked = kind != "linear" and mask != "none"
    if kind == "softmax":
        return f"{'masked ' * masked}softmax attention (ViT)"
    if masked:
        return "topologically masked linear attention (TopViT)"
    return "linear attention without masks (Performer)"


def describe(metrics, data):
    counts = metrics.get("images") or metrics.get("graphs") or {}
    items = metrics["task"]
    tested = f"test {items}"
    if counts:
        tested = f"{counts['test']:,} test {items}"
    arguments = metrics["arguments"]
    text = (
        f"{CLASSIFIERS[items]} with {attention(items, arguments)} and "
        f"{metrics['parameters']:,} parameters, trained on {data}. Its "
        f"accuracy on {tested} is **{metrics['test_accuracy']:.2%}**."
    )
    if metrics.get("runs", 1) > 1:
        text += (
            f" This is the mean over {metrics['runs']} seeds, with a deviation "
            f"of {metrics['test_deviation']:.2%}. The file holds the model of "
            "the first seed, with "
            f"{metrics['test_accuracy_of_the_file']:.2%}."
        )
    sizes = [
        f"{accuracy:.2%} at {size} x {size}"
        for name, accuracy in metrics.items()
        if (size := name.partition("test_accuracy_at_")[2])
    ]
    if sizes:
        file = ", of the file," * (metrics.get("runs", 1) > 1)
        text += f" The accuracy{file} is {', '.join(sizes)} pixels."
    if metrics.get("failed"):
        count = len(metrics["failed"])
        verb = "counts" if count == 1 else "count"
        text += f" {count} of the seeds diverged and {verb} as 0 in the mean."
    if counts:
        once = "; the model was tested once"
        held_out = (
            f"{counts['validation']:,}" if counts["validation"] else "none"
        )
        text += (
            f" Training used {counts['train']:,} {items}, and validation "
            # Models that another one continues may have been tested before.
            f"{held_out}{'' if arguments.get('preset') else once}. The "
            "standard error of the accuracy is "
            f"{metrics['test_standard_error']:.1%}."
        )
    for remark in metrics.get("data_remarks", ()):
        text += f" {remark[0].upper()}{remark[1:]}."
    return text


def origin(metrics):
    versions = ", ".join(f"{k} {v}" for k, v in metrics["versions"].items())
    seconds = metrics["training_seconds"]
    start = metrics["arguments"].get("preset")
    made = f"Made from `{start}`" if start else "Made"
    text = (
        f"{made} by `{metrics['command']}` in {seconds:,.0f} seconds of "
        f"training ({versions}). `metrics.json` lists all arguments."
    )
    if metrics.get("data_license"):
        text += f" License of the data: {metrics['data_license']}."
    return text
