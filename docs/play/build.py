"""Builds the files that the interactive demo loads.

    python docs/play/build.py [PRESET]

`model.onnx` comes from an image preset (default: topvit-cifar10). It maps
`images` (1, height, width, 3) to `logits`, and to the `attention` and the
`masks` of each layer and head, both (layers, heads, tokens, tokens).
`model.json` lists classes and sizes. `vendor/` holds onnxruntime-web, installed
by npm. All three stay out of the repository. The script needs
`pip install keras-topo[runtimes]`.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
import tf2onnx

import keras_topo
from keras_topo import visualize
from keras_topo.export.runtimes import know_erfc
from keras_topo.presets import find_preset
from keras_topo.presets.folders import PREPROCESSOR, read_json

HERE = pathlib.Path(__file__).parent
RUNTIME = "onnxruntime-web@1.30.0"
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
# The latest operator set that the converter supports.
OPSET = 18


def main(preset="topvit-cifar10", folder=HERE):
    """Writes the files of a preset into a folder."""
    model = keras_topo.from_preset(preset)
    write_model(model, folder / "model.onnx")
    described = read_json(find_preset(preset) / PREPROCESSOR)
    page = {
        "preset": preset,
        "classes": described["class_names"],
        "size": model.input_shape[1:3],
        "grid": grid_of(model),
    }
    (folder / "model.json").write_text(json.dumps(page) + "\n")
    vendor(folder / "vendor")


def write_model(model, path):
    """Writes the ONNX file of a model whose blocks attend to one grid."""
    layers = visualize.attention_layers(model).values()
    tapped = keras.Model(
        model.inputs, [*(layer.input for layer in layers), model.output]
    )
    masks = np.stack([dense_mask(layer) for layer in layers])

    def answers(images):
        *tokens, logits = tapped(images, training=False)
        attention = [
            layer.attention_weights(x)[0]
            for layer, x in zip(layers, tokens, strict=True)
        ]
        return {
            "logits": logits,
            "attention": tf.stack(attention),
            "masks": tf.constant(masks),
        }

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, "images")
    know_erfc()
    tf2onnx.convert.from_function(
        tf.function(answers, autograph=False),
        [spec],
        opset=OPSET,
        output_path=str(path),
    )


def dense_mask(layer):
    """The mask of each head, `(heads, tokens, tokens)`."""
    attention = getattr(layer, "attention", layer)
    operator = attention.mask_operator(layer.input.shape[1:-1])
    mask = keras.ops.convert_to_numpy(operator.to_dense())
    shape = (attention.num_heads, *mask.shape[-2:])
    return np.broadcast_to(mask.reshape(-1, *mask.shape[-2:]), shape)


def grid_of(model):
    """Rows and columns of the tokens."""
    layer, *_ = visualize.attention_layers(model).values()
    return layer.input.shape[1:-1]


def vendor(folder):
    """Copies the runtime out of its package, unless it is there."""
    if all((folder / name).is_file() for name in FILES):
        return
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            ["npm", "pack", RUNTIME, "--silent"], cwd=place, check=True
        )
        (archive,) = pathlib.Path(place).glob("*.tgz")
        shutil.unpack_archive(archive, place)
        for name in FILES:
            shutil.copy(pathlib.Path(place, "package/dist", name), folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
