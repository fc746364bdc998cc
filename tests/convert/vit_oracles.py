"""Vision Transformers in NumPy, float64, by the equations of their papers and
the names and layouts of their libraries; and random weights for them."""

import json
import math

import ml_dtypes
import numpy as np
import scipy.ndimage
import scipy.special


def random_arrays(shapes, seed=0):
    """Random arrays, scaled so that signals keep their size.

    Args:
        shapes: dict from names to shapes.
        seed: int.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        spread = 0.3 if len(shape) < 2 else 0.5
        middle = 0.0
        if name.endswith("/kernel"):
            inputs = shape[:1] if len(shape) == 3 else shape[:-1]
            inputs = shape[:2] if name.endswith("out/kernel") else inputs
            spread = 1 / math.sqrt(math.prod(inputs))
        elif name.endswith("weight") and len(shape) > 1:
            spread = 1 / math.sqrt(math.prod(shape[1:]))
        elif name.endswith(("scale", "weight", "lambda1", "toeplitz_params")):
            middle = 1.0
        array = middle + spread * rng.normal(size=shape)
        arrays[name] = array.astype("float32")
    return arrays


def layer_norm(x, scale, offset, epsilon):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset


def gelu(x):
    return x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * (1 + np.tanh(inner)) / 2


def softmax(scores):
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def patches_of(images, height, width):
    """`(batch, rows, columns, height, width, channels)`; incomplete patches
    are cut off."""
    batch, *extents, channels = images.shape
    rows, columns = extents[0] // height, extents[1] // width
    images = images[:, : rows * height, : columns * width]
    images = images.reshape(batch, rows, height, columns, width, channels)
    return images.transpose(0, 1, 3, 2, 4, 5)


def torch_bicubic(values, sizes):
    """`torch.nn.functional.interpolate` with `mode="bicubic"`, one number after
    the other."""
    a = -0.75

    def weight(x):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    for axis, new in enumerate(sizes):
        old = values.shape[axis]
        rows = []
        for i in range(new):
            place = (i + 0.5) * old / new - 0.5
            first = math.floor(place)
            rows.append(
                sum(
                    weight(place - j)
                    * values.take(min(max(j, 0), old - 1), axis)
                    for j in range(first - 1, first + 3)
                )
            )
        values = np.stack(rows, axis)
    return values


# ------------------------------------------------- transformers, by old names


def transformers_shapes(config):
    """Shapes of the tensors of a ViT, a DeiT or a DINOv2 of transformers."""
    kind, c = config["model_type"], config["hidden_size"]
    dino = kind.startswith("dinov2")
    size, patch = config["image_size"], config["patch_size"]
    tokens = 2 if kind == "deit" else 1
    shapes = {
        "embeddings.cls_token": (1, 1, c),
        "embeddings.position_embeddings": (1, tokens + (size // patch) ** 2, c),
        "embeddings.patch_embeddings.projection.weight": (c, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (c,),
        "layernorm.weight": (c,),
        "layernorm.bias": (c,),
    }
    if kind == "deit":
        shapes["embeddings.distillation_token"] = (1, 1, c)
    if dino:
        shapes["embeddings.mask_token"] = (1, c)
    if kind == "dinov2_with_registers":
        registers = config["num_register_tokens"]
        shapes["embeddings.register_tokens"] = (1, registers, c)
    units = (
        int(c * config["mlp_ratio"]) if dino else config["intermediate_size"]
    )
    for k in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{k}."
        dense = {
            f"attention.attention.{name}": (c, c)
            for name in ("query", "key", "value")
        }
        dense["attention.output.dense"] = (c, c)
        if config.get("use_swiglu_ffn"):
            gated = (int(units * 2 / 3) + 7) // 8 * 8
            dense["mlp.weights_in"] = (2 * gated, c)
            dense["mlp.weights_out"] = (c, gated)
        else:
            names = ("mlp.fc1", "mlp.fc2")
            if not dino:
                names = ("intermediate.dense", "output.dense")
            dense[names[0]], dense[names[1]] = (units, c), (c, units)
        for name, shape in dense.items():
            shapes[f"{at}{name}.weight"] = shape
            shapes[f"{at}{name}.bias"] = shape[:1]
        for name in _norms(dino):
            shapes[f"{at}{name}.weight"] = shapes[f"{at}{name}.bias"] = (c,)
        if dino:
            shapes[f"{at}layer_scale1.lambda1"] = (c,)
            shapes[f"{at}layer_scale2.lambda1"] = (c,)
    return shapes


def _norms(dino):
    if dino:
        return "norm1", "norm2"
    return "layernorm_before", "layernorm_after"


def transformers_tokens(tensors, config, images):
    """`last_hidden_state` of normalized images, positions resampled."""
    w = {name: array.astype("float64") for name, array in tensors.items()}
    kind, heads = config["model_type"], config["num_attention_heads"]
    dino = kind.startswith("dinov2")
    epsilon, act = config["layer_norm_eps"], gelu
    if config.get("hidden_act") == "gelu_new":
        act = gelu_tanh

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

    kernel = w["embeddings.patch_embeddings.projection.weight"]
    x = patches_of(images.astype("float64"), *kernel.shape[2:])
    grid = x.shape[1:3]
    x = np.einsum("bhwijc,ocij->bhwo", x, kernel)
    x = x + w["embeddings.patch_embeddings.projection.bias"]
    x = x.reshape(len(x), -1, x.shape[-1])
    names = ["cls_token"] + ["distillation_token"] * (kind == "deit")
    prefix = np.concatenate([w[f"embeddings.{name}"][0] for name in names])
    positions = w["embeddings.position_embeddings"][0]
    table = positions[len(names) :]
    side = math.isqrt(len(table))
    table = table.reshape(side, side, -1)
    if (side, side) != grid:
        table = torch_bicubic(table, grid)
    x = x + table.reshape(-1, table.shape[-1])
    prefix = prefix + positions[: len(names)]
    if kind == "dinov2_with_registers":
        registers = w["embeddings.register_tokens"][0]
        prefix = np.concatenate([prefix, registers])
    x = np.concatenate([np.broadcast_to(prefix, (len(x), *prefix.shape)), x], 1)
    for k in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{k}."
        before, after = (at + name for name in _norms(dino))
        y = norm(x, before)
        q, k_, v = (
            dense(y, f"{at}attention.attention.{name}")
            .reshape(*y.shape[:2], heads, -1)
            .transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = q @ k_.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        y = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        y = dense(y, f"{at}attention.output.dense")
        x = x + y * w.get(f"{at}layer_scale1.lambda1", 1.0)
        y = norm(x, after)
        if f"{at}mlp.weights_in.weight" in w:
            gate, y = np.split(dense(y, f"{at}mlp.weights_in"), 2, -1)
            y = dense(
                gate * scipy.special.expit(gate) * y, f"{at}mlp.weights_out"
            )
        elif dino:
            y = dense(act(dense(y, f"{at}mlp.fc1")), f"{at}mlp.fc2")
        else:
            y = act(dense(y, f"{at}intermediate.dense"))
            y = dense(y, f"{at}output.dense")
        x = x + y * w.get(f"{at}layer_scale2.lambda1", 1.0)
    return norm(x, "layernorm")


def write_safetensors(path, tensors, metadata=None):
    """A file of safetensors, by the specification alone."""
    names = {
        np.dtype("float32"): "F32",
        np.dtype("float16"): "F16",
        np.dtype("int64"): "I64",
        np.dtype(ml_dtypes.bfloat16): "BF16",
    }
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_folder(folder, config, tensors, prefix=""):
    """A folder as `save_pretrained` writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    heads = ("classifier", "cls_", "distillation_c", "pooler")
    tensors = {
        name if name.startswith(heads) else prefix + name: array
        for name, array in tensors.items()
    }
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder


# ------------------------------------------------------- google-research, Flax


def flax_shapes(
    channels=32,
    heads=2,
    units=48,
    depth=2,
    patch=(4, 4),
    grid=(4, 4),
    classes=5,
    pre_logits=None,
    token=True,
    toeplitz=False,
    linen=None,
):
    """Shapes of the parameters of a ViT or a TopViT, by flat names; `linen`
    ones by default of TopViT alone."""
    c, d = channels, channels // heads
    n = (0, 1, 0) if (toeplitz if linen is None else linen) else (1, 2, 3)
    attention = f"MultiHeadDotProductAttention_{n[0]}"
    norm, mlp = f"LayerNorm_{n[1]}", f"MlpBlock_{n[2]}"
    head = "output_projection" if toeplitz else "head"
    count = grid[0] * grid[1]
    shapes = {
        "embedding/kernel": (*patch, 3, c),
        "embedding/bias": (c,),
        "Transformer/posembed_input/pos_embedding": (1, count + token, c),
        "Transformer/encoder_norm/scale": (c,),
        "Transformer/encoder_norm/bias": (c,),
    }
    if token:
        shapes["cls"] = (1, 1, c)
    for k in range(depth):
        at = f"Transformer/encoderblock_{k}/"
        for name in ("query", "key", "value"):
            shapes[f"{at}{attention}/{name}/kernel"] = (c, heads, d)
            shapes[f"{at}{attention}/{name}/bias"] = (heads, d)
        shapes[f"{at}{attention}/out/kernel"] = (heads, d, c)
        shapes[f"{at}{attention}/out/bias"] = (c,)
        for name in ("LayerNorm_0", norm):
            shapes[f"{at}{name}/scale"] = shapes[f"{at}{name}/bias"] = (c,)
        shapes[f"{at}{mlp}/Dense_0/kernel"] = (c, units)
        shapes[f"{at}{mlp}/Dense_0/bias"] = (units,)
        shapes[f"{at}{mlp}/Dense_1/kernel"] = (units, c)
        shapes[f"{at}{mlp}/Dense_1/bias"] = (c,)
        if toeplitz:
            name = f"{at}{attention}/toeplitz_params"
            shapes[name] = (heads, 4 * count)
    features = c
    if pre_logits:
        shapes["pre_logits/kernel"] = (c, pre_logits)
        shapes["pre_logits/bias"] = (pre_logits,)
        features = pre_logits
    if classes:
        shapes[f"{head}/kernel"] = (features, classes)
        shapes[f"{head}/bias"] = (classes,)
    return shapes


def flax_logits(tensors, images, old_grid):
    """The output of both models for normalized images, resampled."""
    w = {name: array.astype("float64") for name, array in tensors.items()}
    toeplitz = any("toeplitz_params" in name for name in w)
    linen = any("MultiHeadDotProductAttention_0/" in name for name in w)
    n = (0, 1, 0) if linen else (1, 2, 3)
    head = "output_projection" if toeplitz else "head"

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def norm(x, name):
        return layer_norm(x, w[f"{name}/scale"], w[f"{name}/bias"], 1e-6)

    kernel = w["embedding/kernel"]
    x = patches_of(images.astype("float64"), *kernel.shape[:2])
    grid = x.shape[1:3]
    x = np.einsum("bhwijc,ijco->bhwo", x, kernel) + w["embedding/bias"]
    x = x.reshape(len(x), -1, x.shape[-1])
    token = "cls" in w
    if token:
        x = np.concatenate([np.broadcast_to(w["cls"], x[:, :1].shape), x], 1)
    positions = w["Transformer/posembed_input/pos_embedding"][0]
    table = positions[token:].reshape(*old_grid, -1)
    zoom = [new / old for new, old in zip(grid, old_grid, strict=True)]
    table = scipy.ndimage.zoom(table, (*zoom, 1), order=1)
    table = table.reshape(-1, table.shape[-1])
    x = x + np.concatenate([positions[:token], table])
    depth = 1 + max(
        int(name.split("_")[1].split("/")[0])
        for name in w
        if name.startswith("Transformer/encoderblock_")
    )
    for k in range(depth):
        at = f"Transformer/encoderblock_{k}/"
        attention = f"{at}MultiHeadDotProductAttention_{n[0]}"
        y = norm(x, f"{at}LayerNorm_0")
        q, k_, v = (
            np.einsum("blc,chd->bhld", y, w[f"{attention}/{name}/kernel"])
            + w[f"{attention}/{name}/bias"][None, :, None]
            for name in ("query", "key", "value")
        )
        q = q / math.sqrt(q.shape[-1])
        if toeplitz:
            table = w[f"{attention}/toeplitz_params"]
            if grid != tuple(old_grid):
                table = resampled_offsets(table, old_grid, grid)
            weights = topvit_weights(q, k_, table, grid)
        else:
            weights = softmax(q @ k_.swapaxes(-1, -2))
        y = np.einsum(
            "bhld,hdc->blc", weights @ v, w[f"{attention}/out/kernel"]
        )
        x = x + y + w[f"{attention}/out/bias"]
        y = norm(x, f"{at}LayerNorm_{n[1]}")
        mlp = f"{at}MlpBlock_{n[2]}"
        x = x + dense(gelu_tanh(dense(y, f"{mlp}/Dense_0")), f"{mlp}/Dense_1")
    x = norm(x, "Transformer/encoder_norm")
    x = x[:, 0] if token else x.mean(1)
    if "pre_logits/kernel" in w:
        x = np.tanh(dense(x, "pre_logits"))
    return dense(x, head) if f"{head}/kernel" in w else x


def resampled_offsets(table, old_grid, new_grid):
    """A table of TopViT for another grid: an offset is a share of the extent,
    between two of which the entries are interpolated, and beyond the ends go
    on. (The published code has no way to change it.)"""
    sizes = [2 * n for n in old_grid]
    table = np.abs(table.reshape(len(table), *sizes)[:, 1:, 1:])
    for axis, (old, new) in enumerate(zip(old_grid, new_grid, strict=True), 1):
        wanted = np.arange(1 - new, new) * old / new
        known = np.arange(1 - old, old)
        rows = np.moveaxis(table, axis, -1)
        shape = rows.shape[:-1]
        rows = rows.reshape(-1, len(known))
        rows = np.stack([np.interp(wanted, known, row) for row in rows])
        table = np.moveaxis(rows.reshape(*shape, -1), -1, axis)
    table = np.pad(table, [(0, 0), (1, 0), (1, 0)])
    return table.reshape(len(table), -1)


def topvit_weights(q, k, table, grid):
    """Attention weights of the published TopViT, a class token in front."""
    scores = (np.maximum(q, 0) + 1e-8) @ (np.maximum(k, 0) + 1e-8).swapaxes(
        -1, -2
    )
    rows, columns = grid
    mask = np.ones((len(table), 1 + rows * columns, 1 + rows * columns))
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    for a, (i, j) in enumerate(cells):
        for b, (s, t) in enumerate(cells):
            index = (i - s + rows) * 2 * columns + j - t + columns
            mask[:, 1 + a, 1 + b] = table[:, index]
    weights = scores * np.abs(mask) + 1e-8
    return weights / weights.sum(-1, keepdims=True)
