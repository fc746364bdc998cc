"""Trained models for serving: SavedModels, LiteRT and ONNX files.

`keras_topo.export(model, path, format)` writes a model of any kind below,
tries what it wrote outside of Keras, compares the answers, and only then puts
it in place. The kind follows from the inputs of the model:

| a model of | inputs | input of `serving_default` | further signatures |
|---|---|---|---|
| images | `(batch, height, width, channels)` | `images`, float32 | `classify_bytes` of classifiers of one size |
| videos, volumes, sequences | `(batch, *grid, channels)` | `inputs`, float32 | |
| ids of tokens | `(batch, length)`, integers | `tokens`, int32 | |
| graphs | those of `with_preprocessing` or `with_edge_inputs` | what the graphs have | `serve_examples` |
| the nodes of one graph | `(batch, nodes, channels)`, and `features=` | `ids`, int32 | `classify_features` |

Images have pixels from 0 to 255: the rescaling is a layer of the model. Sizes
of grids may be open (`None`), and a model may answer for each example, or for
each pixel, frame, token or node of it. It is functional or Sequential, may
hold models, and has one output. All inputs and outputs have names, and the
batch size is free; an empty batch has an empty answer.

What the outputs mean is the task, and what is served follows from it, float32
whatever the model computes in:

| task | outputs of every signature |
|---|---|
| `"classification"` | `logits` and `probabilities`, which sum to one along the last axis; `class`, string, the name of the most probable class, if classes have names |
| `"multilabel"` | `logits` and `probabilities`, each label by itself; `labels`, string, the names of those of at least one half and `""` for others, if labels have names |
| `"regression"` | `predictions`, in their own units |
| not known | `outputs` |

A model may end in probabilities itself. For classes that is found out from its
answers to random inputs, wherever the softmax stands (no number is negative,
and rows sum to one); for labels each by itself from its last activation, a
sigmoid. What it gives is served as `probabilities` then, without `logits`.

**`classify_bytes`** takes `image_bytes`, string `(batch,)`, each an encoded
JPEG, PNG, BMP, GIF or WebP of any size, read as `python -m training.train
images` reads it: turned upright by its EXIF orientation (a damaged one counts
as upright) and stretched to the height and width of the model (bilinear,
antialiased, rounded). It answers with `classes`, string `(batch, k)`, and
`scores`, float32 `(batch, k)`, the k most probable classes, best first. It
decodes to the channels of the model. For 1 channel, colors become luma; for 3,
gray is repeated and alpha is dropped (as
`keras.utils.image_dataset_from_directory` does); for 4, an image without alpha
is opaque. Of an animated PNG or GIF the first frame counts, and 16 bits per
channel become 8: see `sample_bits`. The screen of a GIF around its first frame
is black. JPEGs of more than 128 scans (and one per 16 KiB) are refused. BMPs may have a palette of 2 to 256 colors,
or 24 or 32 bits per pixel; those that are compressed, of 16 bits or of OS/2 1,
and animated WebPs are refused. A server older than TensorFlow 2.19 refuses
every WebP.

**Graphs.** `serving_default` takes, of these, what the preprocessor uses:

- `node_mask`: bool `(batch, nodes)`, `True` for real nodes;
- `node_labels`: int32 or string `(batch, nodes)`, values of labels;
- `features`: float32 `(batch, nodes, features)`;
- `edges`: int32 `(batch, edges, 2)`, node ids, -1 and -1 for padding. Unless
  graphs are directed, an edge counts in both directions, and once: of several
  weights the largest, of several features or labels the first;
- `edge_weights`: float32 `(batch, edges)`, positive;
- `edge_labels`: int32 or string `(batch, edges)`;
- `edge_features`: float32 `(batch, edges, channels)`.

What stands at padding does not matter. `serve_examples` takes `examples`,
string `(batch,)`, serialized GraphTensors as TF-GNN writes them, of one
component each; `assets.extra/graph_schema.pbtxt` in the folder says what they
hold: see `keras_topo.graph_tensors.graph_to_example`. Models of nodes
answer with `(batch, nodes, ...)`; zeros, and empty names, stand at padding. All
names of classes, in the order of `logits`, and the preprocessor are in
`assets.extra/preprocessor.json`, which models of `with_edge_inputs` lack.

**Nodes of one graph.** The graph is in the model, and the features of its nodes
go into the artefact: a client sends `ids`, int32 `(batch,)`, in any order,
repeated or not. `classify_features` takes `nodes`, float32
`(1, nodes, features)`, other features for all of the graph's nodes, and answers
for all of them.

**What is refused**, by an `InvalidArgumentError` that names the input: tensors
of another shape than the signature says, numbers that are not finite, or so
large that an answer would not be; files that are no images, are damaged, or
have more than `max_pixels` (told from the header); edges between nodes that
are not there, graphs without nodes or of more than `max_nodes`, requests of
more than `max_elements` (before anything of that size is made), labels that
are not known (unless the preprocessor has `unknown="zeros"`), weights that are
not positive, bytes that are no example; ids of nodes that there are not, and of
tokens that the embedding of a model, or the dtype of its input, does not have.
The whole batch is refused, and the server answers the next one as before.

**LiteRT and ONNX files** have `serving_default` alone, without these checks and
without names, which are listed beside the model: in `labels.txt`, which `unzip`
takes out of a LiteRT file, and in the metadata `class_names` of an ONNX file.
They are made of a copy that computes in float32, whatever the model does, with
adapters of low rank added to the weights that they adapt, and with masks as
explicit matrices: FFTs are not among the operations of these runtimes. That is
the faster way on the few hundred tokens of an image anyway, and takes memory of
the square of their number. Batches are of any size, or of one example where the
runtime cannot do more; the report says so. Quantized weights (int8), and what a
runtime has no operation for, are refused by name: `ReturnProbabilities` of raw
graphs in LiteRT, and in ONNX some axes that a model leaves open, unless
`input_shape` gives their sizes.

Nothing here imports TensorFlow before a model is exported.
"""  # noqa: E501

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
from numpy.typing import ArrayLike

from keras_topo.annotations import StrPath
from keras_topo.arguments import one_of

if TYPE_CHECKING:
    from keras_topo.export.graph_schema import GraphTensorSpec

__all__ = [
    "export",
    "export_graph_saved_model",
    "export_litert",
    "export_node_saved_model",
    "export_onnx",
    "export_saved_model",
]

#: What the outputs of a model are.
Task: TypeAlias = Literal["classification", "multilabel", "regression"]

FORMATS = ("saved_model", "litert", "onnx")


def export(
    model: keras.Model,
    path: StrPath,
    format: Literal["saved_model", "litert", "onnx"] = "saved_model",
    *,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
    verify: bool = True,
    tolerance: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes a model for serving, and tries it outside of Keras.

    The package `keras_topo.export` says which models, signatures and answers
    there are, and what is refused. What is written holds all that an answer
    needs, preprocessing and names included, and appears under `path` complete
    or not at all: a server that polls the folder above never loads half of it.

    Args:
        model: a `keras.Model`, functional or Sequential, with one output.
        path: the folder of a SavedModel, for which TensorFlow Serving wants a
            number, the version, as in `"flowers/1"`; or a file.
        format: `"saved_model"`, `"litert"` or `"onnx"`.
        task: `"classification"`, `"multilabel"` or `"regression"`. By default
            that of the preprocessor of graphs, or of the loss that the model
            was compiled for; without one, outputs are classes if there are
            several per example, or names, and else served as they are.
        class_names: list of str, one per class or label, in the order of the
            outputs.
        overwrite: whether what was exported to `path` before is replaced.
        verify: whether to ask the result, a SavedModel in a process in which
            neither Keras nor keras_topo can be imported, and to compare its
            answers to random inputs with `model(...)`.
        tolerance: the greatest difference that passes, relative to the largest
            logit (or to 1). By default 1e-5 for SavedModels (computing in
            float16 1e-2, in bfloat16 5e-2), and 1e-4 for files.
        **options: `top_k`, `max_pixels`, `sample_bits`, `signatures` and
            `input_shape` of `export_saved_model`; `max_nodes`, `max_elements`
            and `spec` of `export_graph_saved_model`; `features` of
            `export_node_saved_model`.

    Returns:
        A dict that `json.dumps` takes: `path`, `format`, `signatures` with
        dtypes and shapes, `task`, `outputs` and `classes` (how many),
        `class_names`, `verified`, `tolerance`, and `differences` of each output
        with their largest, `max_abs_difference`.

    Raises:
        ValueError: if the model is of no kind above, or an argument does not
            fit it.
        FileExistsError: if there is something at `path` that is not replaced.
        ImportError: without the packages of LiteRT or ONNX.
        RuntimeError: if the backend is not TensorFlow, or what was written
            does not load or repeat the answers of `model`; `path` is as before.

    Example:

    >>> images = keras.Input((8, 8, 3), name="images")
    >>> logits = keras.layers.Dense(2)(keras.layers.Flatten()(images))
    >>> model, names = keras.Model(images, logits), ["daisy", "rose"]
    >>> report = keras_topo.export(model, "flowers/1", class_names=names)
    >>> report["task"], report["verified"], list(report["signatures"])
    ('classification', True, ['serving_default', 'classify_bytes'])
    """
    one_of(format, "format", FORMATS)
    check_backend()
    options |= {"task": task, "class_names": class_names}
    if format == "saved_model":
        from keras_topo.export.kinds import served
        from keras_topo.export.saved_models import write_saved_model

        found = served(model, **options)
        report = write_saved_model(found, path, overwrite, verify, tolerance)
    else:
        from keras_topo.export.runtimes import check_options, write_file

        check_options(options)
        report = write_file(
            model, path, format, options, overwrite, verify, tolerance
        )
    return {"path": report.pop("path"), "format": format, **report}


def export_saved_model(
    model: keras.Model,
    path: StrPath,
    *,
    class_names: Sequence[str] | None = None,
    top_k: int | None = None,
    max_pixels: int | None = None,
    sample_bits: int | None = None,
    signatures: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    task: Task | None = None,
    overwrite: bool = False,
    verify: bool = True,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Writes a model of images or other tensors as a TensorFlow SavedModel.

    `export` with the options of these models.

    Args:
        model: a functional or Sequential `keras.Model` with one input,
            `(batch, *grid, channels)` or ids `(batch, length)`, and one output.
        path: the folder to write.
        class_names: list of str, one per class, in the order of the logits.
            They are constants of the graph and not an asset file: a second
            copy could be edited apart from the weights it belongs to.
        top_k: how many classes `classify_bytes` answers with, at most; by
            default 5.
        max_pixels: the largest height x width that `classify_bytes` decodes; by
            default 25,000,000.
        sample_bits: how many bits, 8 to 16, the samples of PNGs of 16 bits
            fill: 12 for a camera that writes 0..4095, which is nearly black
            where 16 bits are expected. Samples become 8 bits; those beyond the
            range become white. By default 16.
        signatures: the signatures to write; `("serving_default",)` leaves
            `classify_bytes` out. By default both for classifiers of images of
            one size and of 1, 3 or 4 channels, and the first for others.
        input_shape: sizes for those that the model leaves open, such as
            `(height, width)`; files can then be resized to them.
        task, overwrite, verify, tolerance: see `export`.

    Returns, raises: see `export`.

    Example:

    >>> import tensorflow as tf
    >>> images = keras.Input((8, 8, 3), name="images")
    >>> logits = keras.layers.Dense(2)(keras.layers.Flatten()(images))
    >>> model = keras.Model(images, logits)
    >>> report = keras_topo.export_saved_model(
    ...     model, "flowers/1", class_names=["daisy", "rose"], verify=False
    ... )
    >>> loaded = tf.saved_model.load("flowers/1")
    >>> png = tf.io.encode_png(tf.zeros((50, 40, 3), "uint8"))
    >>> answer = loaded.signatures["classify_bytes"](image_bytes=png[None])
    >>> answer["classes"].shape, answer["scores"].shape
    (TensorShape([1, 2]), TensorShape([1, 2]))

    The same request to TensorFlow Serving (bytes travel as base64):

    ```shell
    curl http://localhost:8501/v1/models/flowers:predict -d '{"signature_name":
      "classify_bytes", "instances": [{"image_bytes": {"b64": "iVBORw0..."}}]}'
    ```
    """
    return export(
        model,
        path,
        task=task,
        class_names=class_names,
        overwrite=overwrite,
        verify=verify,
        tolerance=tolerance,
        top_k=top_k,
        max_pixels=max_pixels,
        sample_bits=sample_bits,
        signatures=signatures,
        input_shape=input_shape,
    )


def export_graph_saved_model(
    model: keras.Model,
    path: StrPath,
    *,
    task: Task | None = None,
    spec: "GraphTensorSpec | None" = None,
    class_names: Sequence[str] | None = None,
    max_nodes: int = 4096,
    max_elements: int = 2**20,
    overwrite: bool = False,
    verify: bool = True,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Writes a model of graphs as a TensorFlow SavedModel.

    `export` with the options of these models. A client sends graphs as they
    are: values of labels, features, edges. What the `GraphPreprocessor` does is
    computed inside, kernels included.

    Args:
        model: a functional `keras.Model` of raw graphs:
            `keras_topo.models.with_preprocessing(model, preprocessor)`, which
            `keras_topo.GraphClassifier.export` writes itself. Or one from a
            dict with `nodes` (float32, all that is known of nodes), `edges` and
            `node_mask` to outputs `(batch, outputs)`, of undirected graphs
            without weights: `keras_topo.models.with_edge_inputs`. These
            three are then the inputs of `serving_default`.
        path: the folder to write.
        task: see `export`. Defaults to classification where the preprocessor
            has classes, and to regression where the model was built with
            `target_statistics`.
        spec: for models of `with_edge_inputs`, the
            `keras_topo.graph_tensors.GraphTensorSpec` of the examples;
            defaults to one node feature, `features`.
        class_names: list of str, one per class or label; defaults to those of
            the preprocessor.
        max_nodes: int, nodes of a graph at most (padding included).
        max_elements: int, `batch * nodes^2` of a request at most, padding
            included, since memory grows with it: about 200 bytes each. A graph
            of more than 1,024 nodes needs more than the default. Also
            `batch * edges` at most.
        overwrite, verify, tolerance: see `export`.

    Returns, raises: see `export`.

    Example:

    >>> import networkx, tensorflow as tf
    >>> graphs = [networkx.path_graph(2), networkx.cycle_graph(3)]
    >>> classifier = keras_topo.GraphClassifier(
    ...     model="sgc", epochs=1, verbose=0
    ... ).fit(graphs, [0, 1])
    >>> report = classifier.export("1", verify=False)
    >>> edge = tf.saved_model.load("1").signatures["serving_default"](
    ...     edges=tf.constant([[[0, 1]]]), node_mask=tf.constant([[True] * 2])
    ... )
    >>> edge["probabilities"].shape
    TensorShape([1, 2])
    """
    from keras_topo.export.kinds import check_graphs

    own: dict[str, Any] = {} if spec is None else {"spec": spec}
    check_backend()
    check_graphs(model)
    return export(
        model,
        path,
        task=task,
        class_names=class_names,
        overwrite=overwrite,
        verify=verify,
        tolerance=tolerance,
        max_nodes=max_nodes,
        max_elements=max_elements,
        **own,
    )


def export_node_saved_model(
    model: keras.Model, path: StrPath, features: ArrayLike, **options: Any
) -> dict[str, Any]:
    """Writes a model of the nodes of one graph as a TensorFlow SavedModel.

    `export(model, path, features=features)`. Features that are not as many as
    the graph has nodes, and an id that no node has, are refused by name.

    Args:
        model: a Keras model from nodes `(batch, nodes, features)` to outputs
            `(batch, nodes, outputs)`: see
            `keras_topo.models.gkat_node_classifier`.
        path: the folder to write.
        features: `(nodes, features)`, those of the model's graph, as the model
            takes them: raw ones of models of
            `keras_topo.models.l1_normalized`.
        **options: `task` (by default that of the loss, or classification),
            `class_names`, `overwrite`, `verify` and `tolerance`: see `export`.

    Returns, raises: see `export`.

    Example:

    >>> model = keras_topo.models.gkat_node_classifier(4, 2, np.eye(5))
    >>> report = keras_topo.export_node_saved_model(
    ...     model, "nodes/1", features=np.ones((5, 4)), verify=False
    ... )
    >>> list(report["signatures"])
    ['serving_default', 'classify_features']
    """
    return export(model, path, features=features, **options)


def export_litert(
    model: keras.Model,
    path: StrPath,
    *,
    tolerance: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes a model as a LiteRT (TensorFlow Lite) file; needs ai-edge-litert.

    `export(model, path, "litert")`; a file at `path` is replaced.

    Example (needs ai-edge-litert):

    >>> model = keras_topo.models.topvit("mini", image_shape=(32, 32, 3))
    >>> report = keras_topo.export_litert(
    ...     model, "topvit.tflite"
    ... )  # doctest: +SKIP
    >>> report["format"]  # doctest: +SKIP
    'litert'
    """
    options = {"overwrite": True, **options}
    return export(model, path, "litert", tolerance=tolerance, **options)


def export_onnx(
    model: keras.Model,
    path: StrPath,
    *,
    tolerance: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes a model as an ONNX file; needs onnx, onnxruntime and tf2onnx.

    `export(model, path, "onnx")`; a file at `path` is replaced.

    Example (needs onnx, onnxruntime and tf2onnx):

    >>> model = keras_topo.models.topvit("mini", image_shape=(32, 32, 3))
    >>> report = keras_topo.export_onnx(
    ...     model, "topvit.onnx"
    ... )  # doctest: +SKIP
    >>> report["format"]  # doctest: +SKIP
    'onnx'
    """
    options = {"overwrite": True, **options}
    return export(model, path, "onnx", tolerance=tolerance, **options)


def check_backend() -> None:
    """Raises unless TensorFlow, which exports, is the backend of Keras."""
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            "`export` needs the TensorFlow backend. Save the model "
            'here with `model.save("model.keras")`, then load and export it in '
            "a process started with the environment variable "
            f"KERAS_BACKEND=tensorflow. Received: backend={backend!r}"
        )
