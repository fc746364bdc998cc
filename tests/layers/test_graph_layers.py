"""Layers on graphs: forms of kernels, padding, permutation, files."""

import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse
from keras import ops

from keras_topo.graphs import (
    GraphBatch,
    motif_dataset,
    random_walk_kernel,
)
from keras_topo.layers import (
    DiffusionKernel,
    GraphEncoderBlock,
    GraphKernelAttention,
    GraphPooling,
    GraphPropagation,
    LogKernel,
    NodeWise,
    RandomWalkKernel,
)
from keras_topo.models import gkat_graph_classifier

SIMILARITIES = ("softmax", "additive", "relu", "favor")
LAYERS = [GraphKernelAttention, GraphEncoderBlock][ref.on_jax :]
BATCH, NODES, CHANNELS = 3, 8, 6


def graph_tensors(kernels=None, seed=0):
    """Nodes, and one mask in all forms."""
    random = np.random.default_rng(seed)
    lead = (BATCH,) if kernels is None else (BATCH, kernels)
    nodes = random.normal(size=(BATCH, NODES, CHANNELS)).astype("float32")
    factors = random.uniform(0.1, 1, (*lead, NODES, 3)).astype("float32")
    kernel = factors @ np.swapaxes(factors, -1, -2)
    full = np.stack(np.divmod(np.arange(NODES**2), NODES), 1)
    pairs = np.broadcast_to(full, (BATCH, NODES**2, 2)).astype("int32")
    values = kernel.reshape(*lead, NODES**2)
    return nodes, {
        "kernel": kernel,
        "log_kernel": {"log_kernel": np.log(kernel)},
        "pairs": {"pairs": pairs, "pair_values": values},
        "factors": {"factors": factors},
    }


def make(similarity="softmax", layer=GraphKernelAttention, **options):
    keras.utils.set_random_seed(1)
    return layer(4, 5, similarity=similarity, seed=2, **options)


@pytest.mark.slow_on_jax
def test_additive_scores_that_start_at_zero():
    """The layer starts as the average that the kernel gives."""
    nodes, kernels = graph_tensors()
    layer = make(
        "additive",
        combine="concatenate",
        attention_initializer="zeros",
        attention_regularizer=keras.regularizers.L2(0.5),
    )
    found = ops.convert_to_numpy(layer(nodes, kernels["kernel"]))
    weights = kernels["kernel"]
    weights = weights / weights.sum(-1, keepdims=True)
    values = nodes @ ops.convert_to_numpy(layer.projection_dense.kernel)
    np.testing.assert_allclose(found, weights @ values, atol=1e-5)
    # Only the vectors of the scores are regularised, and the config says so.
    again = GraphKernelAttention.from_config(layer.get_config())
    again(nodes, kernels["kernel"])
    assert len(again.losses) == 2
    again.query_scores.assign(np.ones(again.query_scores.shape))
    total = float(sum(ops.convert_to_numpy(loss) for loss in again.losses))
    assert abs(total - 0.5 * 20) < 1e-4
    # With a seed, heads still differ.
    seeded = keras.initializers.RandomNormal(seed=1)
    layer = make("additive", attention_initializer=seeded)
    layer(nodes, kernels["kernel"])
    both = (layer.query_scores, layer.key_scores)
    vectors = np.concatenate([ops.convert_to_numpy(x) for x in both])
    assert len(np.unique(vectors[:, 0, 0])) == 8


@pytest.mark.slow_on_jax
def test_layers_of_keras_between_layers_on_graphs(tmp_path):
    """In a Sequential that is called, fitted, summarised and saved."""
    nodes, forms = graph_tensors()
    graph = {
        "nodes": nodes,
        "kernel": forms["kernel"],
        "node_mask": np.ones((BATCH, NODES), bool),
    }
    model = keras.Sequential(
        [
            make(combine="concatenate"),
            NodeWise(keras.layers.ELU()),
            NodeWise(keras.layers.Dropout(0.5, seed=0)),
            NodeWise(keras.layers.Dense(7)),
            GraphEncoderBlock(1),
            GraphPooling("mean"),
        ]
    )
    assert tuple(model(graph).shape) == (BATCH, 7)
    lines = []
    model.summary(print_fn=lines.append)
    assert "node_wise" in "".join(lines)
    model.compile("sgd", "mse")
    model.fit(graph, np.zeros((BATCH, 7)), batch_size=BATCH, verbose=0)
    expected = ref.numpy(model(graph))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    ref.assert_close(again(graph), expected, 1e-6)
    # And on nodes alone.
    dense = NodeWise(keras.layers.Dense(2))
    assert tuple(dense(nodes).shape) == (BATCH, NODES, 2)
    assert dense.compute_output_shape(nodes.shape) == (BATCH, NODES, 2)
    with pytest.raises(ValueError, match="`layer` expects"):
        NodeWise("elu")


@pytest.mark.few_on_jax("2-additive", "2-relu")
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kernels", [2] if ref.on_jax else [None, 2, 4])
def test_forms_agree(similarity, kernels):
    nodes, forms = graph_tensors(kernels)
    outputs = [
        ref.numpy(make(similarity)(nodes, kernel)) for kernel in forms.values()
    ]
    for output in outputs[1:]:
        ref.assert_close(output, outputs[0], 2e-6)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", SIMILARITIES[:2])
@pytest.mark.parametrize("kernels", [2] if ref.on_jax else [None, 2])
def test_log_kernel(similarity, kernels):
    """Zeros hide nodes, also in whole rows; no node attends to padding."""
    nodes, forms = graph_tensors(kernels)
    kernel = forms["kernel"] * (forms["kernel"] > 1.0)
    kernel[1, ..., 3, :] = 0
    mask = np.arange(NODES) < np.array([[NODES], [6], [NODES]])
    nodes = np.where(mask[..., None], nodes, 0).astype("float32")
    expected = ref.numpy(make(similarity)(nodes, kernel, mask=mask))
    logs = LogKernel()(kernel, mask=mask)
    assert np.isfinite(ref.numpy(logs)).all()
    actual = ref.numpy(make(similarity)(nodes, {"log_kernel": logs}))
    ref.assert_close(actual[mask], expected[mask], 2e-6)
    graph = LogKernel()({"nodes": nodes, "kernel": kernel}, mask=mask)
    np.testing.assert_array_equal(
        ref.numpy(graph["log_kernel"]), ref.numpy(logs)
    )
    # And in a Sequential, where the mask travels with the graph.
    graph = {"nodes": nodes, "kernel": kernel, "node_mask": mask}
    layer = make(similarity)
    plain = keras.Sequential([layer, GraphPooling()])
    model = keras.Sequential([LogKernel(), layer, GraphPooling()])
    ref.assert_close(ref.numpy(model(graph)), ref.numpy(plain(graph)), 2e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("form", ["modern", "published"])
@pytest.mark.tensorflow_only
def test_padded_nodes_reach_nothing(form, policy):
    """Values at padded nodes change neither logits nor gradients."""
    import tensorflow as tf

    earlier = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = gkat_graph_classifier(CHANNELS, 2, 1, form, depth=2, seed=0)
    finally:
        keras.config.set_dtype_policy(earlier)
    nodes, forms = graph_tensors(1)
    mask = np.arange(NODES) < np.array([[NODES], [5], [NODES]])
    kernel = forms["kernel"] * mask[:, None, :, None] * mask[:, None, None]
    junk = np.where(mask[..., None], nodes, np.nan).astype("float32")
    graph = {"nodes": nodes, "kernel": kernel, "node_mask": mask}
    with tf.GradientTape() as tape:
        logits = model({**graph, "nodes": junk})
        total = tf.reduce_sum(logits**2)
    weights = [w.value for w in model.trainable_weights]
    for gradient in tape.gradient(total, weights):
        assert np.isfinite(ref.numpy(gradient)).all()
    ref.assert_close(ref.numpy(logits), ref.numpy(model(graph)), 1e-6)


@pytest.mark.parametrize(
    ("similarity", "kernels"),
    [*((s, 4) for s in SIMILARITIES[:3]), ("relu", 2)],
)
def test_definition(similarity, kernels):
    """Head by head, in NumPy, from the weights of the layer."""
    nodes, forms = graph_tensors(kernels)
    layer = make(similarity, combine="concatenate", use_bias=False)
    output = ref.numpy(layer(nodes, forms["kernel"]))
    x = nodes @ ref.numpy(layer.projection_dense.kernel)
    x = x.reshape(BATCH, NODES, 4, -1)
    for head in range(4):
        h = x[:, :, head]
        if similarity == "additive":
            s = h @ ref.numpy(layer.query_scores)[head]
            t = h @ ref.numpy(layer.key_scores)[head]
            logits = s + np.swapaxes(t, -1, -2)
            scores = np.exp(np.where(logits > 0, logits, 0.2 * logits))
            value = h
        else:
            q, k, value = np.split(h, 3, -1)
            if similarity == "softmax":
                scores = np.exp(q @ np.swapaxes(k, -1, -2) / np.sqrt(5))
            else:
                q, k = [np.maximum(a, 0) + 1e-3 for a in (q, k)]
                scores = q @ np.swapaxes(k, -1, -2)
        # Each kernel serves heads in a row.
        scores = scores * forms["kernel"][:, head * kernels // 4]
        expected = scores @ value / scores.sum(-1, keepdims=True)
        tolerance = 1e-2 if similarity == "relu" else 1e-5
        ref.assert_close(
            output[..., 5 * head : 5 * head + 5], expected, tolerance
        )


@pytest.mark.few_on_jax("GraphEncoderBlock-additive", "GraphEncoderBlock-relu")
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_padding_and_last_graph(similarity, layer):
    """A graph gets the same output alone and in any place of a batch."""
    random = np.random.default_rng(4)
    sizes = [3, 8, 5]
    nodes = np.zeros((3, 8, CHANNELS), "float32")
    kernel = np.zeros((3, 8, 8), "float32")
    mask = np.zeros((3, 8), bool)
    for k, n in enumerate(sizes):
        nodes[k, :n] = random.normal(size=(n, CHANNELS))
        kernel[k, :n, :n] = random.uniform(size=(n, n))
        mask[k, :n] = True
    layer = make(similarity, layer)
    layer.build(nodes.shape)
    # Values at padded nodes must have no effect.
    junk = np.where(mask[..., None], nodes, 1e3).astype("float32")
    call = ref.staged(lambda *graph, **options: layer(*graph, **options))
    together = ref.numpy(call(junk, kernel, mask=mask))
    for k, n in enumerate(sizes):
        alone = call(nodes[k : k + 1, :n], kernel[k : k + 1, :n, :n])
        ref.assert_close(together[k, :n], ref.numpy(alone)[0], 2e-6)
    assert np.isfinite(together).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_permutation(similarity):
    nodes, forms = graph_tensors(2)
    order = np.random.default_rng(0).permutation(NODES)
    layer = make(similarity)
    output = ref.numpy(layer(nodes, forms["kernel"]))
    kernel = forms["kernel"][:, :, order][:, :, :, order]
    permuted = ref.numpy(layer(nodes[:, order], kernel))
    ref.assert_close(permuted, output[:, order], 2e-6)


FIXED = {
    "sparse": lambda kernel: scipy.sparse.csr_array(kernel),
    "dense": lambda kernel: kernel,
    "factors": None,
}


@pytest.mark.few_on_jax("GraphEncoderBlock-sparse")
@pytest.mark.parametrize("form", FIXED)
@pytest.mark.parametrize("layer", LAYERS)
def test_graph_kernel(form, layer, tmp_path):
    """A Sequential on one graph; the file holds the graph."""
    nodes, forms = graph_tensors()
    kernel = forms["kernel"][0]
    fixed = (
        {"factors": forms["factors"]["factors"][0]}
        if form == "factors"
        else FIXED[form](kernel)
    )
    fixed_layer = make(layer=layer, graph_kernel=fixed)
    model = keras.Sequential(
        [keras.Input((NODES, CHANNELS)), fixed_layer, keras.layers.Dense(2)]
    )
    output = ref.numpy(model(nodes[:1]))
    free = make(layer=layer)
    free(nodes[:1], kernel[None])
    free.set_weights(
        [ref.numpy(w) for w in fixed_layer.weights if "fixed" not in w.path]
    )
    expected = model.layers[-1](free(nodes[:1], kernel[None]))
    ref.assert_close(output, ref.numpy(expected), 2e-6)
    trainable = [w.path for w in model.trainable_weights]
    assert not any("fixed" in path for path in trainable)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ref.numpy(loaded(nodes[:1])), output)
    with pytest.raises(ValueError, match="graph of 8 nodes"):
        loaded.layers[0](nodes[:1, :5])
    with pytest.raises(ValueError, match="made for one graph"):
        make(graph_kernel=kernel)(nodes[:1], kernel[None])


@pytest.mark.slow
@pytest.mark.slow_on_jax
def test_sequential_of_graphs(tmp_path):
    """A dict of tensors goes through a Sequential; it trains and saves."""
    train, _, _ = motif_dataset("cycle", (6, 1, 1))
    kernels = [
        random_walk_kernel(g.adjacency, [2, 4]).astype("float32")
        for g in train.graphs
    ]
    batch = GraphBatch.from_graphs(train.graphs, kernels)
    inputs = {
        "nodes": batch.nodes,
        "kernel": batch.kernel,
        "node_mask": batch.node_mask,
    }
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            GraphKernelAttention(4, 4, output_shape=8),
            GraphEncoderBlock(2),
            GraphPooling("mean+max"),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(
        inputs, batch.labels, epochs=4, batch_size=6, verbose=0, shuffle=False
    ).history["loss"]
    assert history[-1] < history[0]
    output = ref.numpy(model(inputs))
    assert output.shape == (12, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    ref.assert_close(loaded(inputs), output, 1e-6)


@pytest.mark.parametrize(
    "combine", ["project", "concatenate", "average"][2 * ref.on_jax :]
)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_configurations(combine, similarity):
    nodes, forms = graph_tensors()
    layer = make(similarity, combine=combine, output_shape=7)
    output = layer(nodes, forms["kernel"])
    channels = {"project": 7, "concatenate": 20, "average": 5}[combine]
    assert tuple(output.shape) == (BATCH, NODES, channels)
    assert layer.compute_output_shape(nodes.shape) == tuple(output.shape)
    clone = GraphKernelAttention.from_config(layer.get_config())
    clone.build(nodes.shape)
    clone.set_weights(layer.get_weights())
    ref.assert_close(clone(nodes, forms["kernel"]), ref.numpy(output), 1e-6)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_head(similarity):
    """Regression test: products of one head once read foreign memory."""
    random = np.random.default_rng(0)
    for batch, count in ((32, 40), (1, 7), (64, 92)):
        nodes = random.normal(size=(batch, count, 5)).astype("float32")
        kernel = random.uniform(size=(batch, count, count)).astype("float32")
        keras.utils.set_random_seed(1)
        layer = GraphKernelAttention(
            1, 28, similarity=similarity, combine="concatenate", seed=2
        )
        whole = ref.numpy(layer(nodes, kernel))
        last = ref.numpy(layer(nodes[-1:], kernel[-1:]))
        ref.assert_close(whole[-1:], last, 2e-6)


@pytest.mark.few_on_jax("kernel-mixed_bfloat16", "pairs-mixed_float16")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("form", ["kernel", "pairs", "factors"])
def test_mixed_precision(policy, form):
    nodes, forms = graph_tensors(2)
    expected = ref.numpy(make("softmax")(nodes, forms[form]))
    output = make("softmax", dtype=policy)(nodes, forms[form])
    assert output.dtype != "float32"
    ref.assert_close(output, expected, 3e-2)


def test_dropout_in_training_only():
    nodes, forms = graph_tensors()
    layer = make(dropout=0.5)
    still = ref.numpy(layer(nodes, forms["kernel"]))
    np.testing.assert_array_equal(
        still, ref.numpy(layer(nodes, forms["kernel"]))
    )
    moving = ref.numpy(layer(nodes, forms["kernel"], training=True))
    assert np.abs(moving - still).max() > 1e-3


def test_propagation():
    nodes, forms = graph_tensors()
    for kernel in forms.values():
        output = GraphPropagation(steps=2)(nodes, kernel)
        matrix = forms["kernel"]
        ref.assert_close(output, matrix @ (matrix @ nodes), 2e-6)
    with pytest.raises(ValueError, match="`kernel`"):
        GraphPropagation()(nodes, graph_tensors(2)[1]["kernel"])


def test_pooling():
    nodes, _ = graph_tensors()
    mask = np.ones((BATCH, NODES), bool)
    mask[1, 4:], mask[2] = False, False
    layer = GraphPooling("mean+max+sum+log_size")
    output = ref.numpy(layer(nodes, mask=mask))
    assert output.shape == layer.compute_output_shape(nodes.shape)
    some = nodes[1, :4]
    ref.assert_close(
        output[1],
        np.concatenate([some.mean(0), some.max(0), some.sum(0), [np.log(4)]]),
        1e-6,
    )
    assert (output[2] == 0).all()
    below = -1 - np.abs(nodes)
    found = ref.numpy(GraphPooling("max")(below, mask=mask))
    ref.assert_close(found[1], below[1, :4].max(0), 1e-6)
    ref.assert_close(GraphPooling()(nodes), nodes.mean(1), 1e-6)
    with pytest.raises(ValueError, match="`mode`"):
        GraphPooling("mean+median")
    # A mask by position.
    with pytest.raises(ValueError, match="`graph_sizes`.*bool"):
        GraphPooling()(nodes, mask)


N, K = np.zeros((1, 3, 2), "float32"), np.ones((1, 3, 3), "float32")
ERRORS = {
    "no-kernel": (lambda: GraphKernelAttention(1, 1)(N), "expects a kernel"),
    "two-forms": (
        lambda: GraphKernelAttention(1, 1)(N, {"kernel": K, "factors": K}),
        "exactly one form",
    ),
    "pairs-alone": (
        lambda: GraphKernelAttention(1, 1)(N, {"pairs": K}),
        "exactly one form",
    ),
    "no-nodes": (
        lambda: GraphKernelAttention(1, 1)({"kernel": K}),
        "'nodes'",
    ),
    "size": (
        lambda: GraphKernelAttention(1, 1)(N, np.ones((1, 4, 4))),
        "`kernel` expects the 3 nodes",
    ),
    "heads": (
        lambda: GraphKernelAttention(3, 1)(N, np.ones((1, 2, 3, 3))),
        "`kernel`",
    ),
    "similarity": (
        lambda: GraphKernelAttention(1, 1, similarity="cosine"),
        "`similarity`",
    ),
    "value_dim": (
        lambda: GraphKernelAttention(1, 2, 3, similarity="additive"),
        "`value_dim`",
    ),
    "kernels": (
        lambda: GraphKernelAttention(3, 1, graph_kernel=np.ones((2, 3, 3)))(N),
        "`num_heads` expects a multiple of the 2",
    ),
    "attention": (
        lambda: GraphKernelAttention(1, 2, attention_initializer="zeros"),
        "`attention_initializer`",
    ),
    "flat": (lambda: GraphKernelAttention(1, 1)(N[0], K), "nodes of shape"),
    "fixed": (
        lambda: GraphKernelAttention(1, 1, graph_kernel=[[np.nan]]),
        "`graph_kernel`",
    ),
    "lengths": (lambda: RandomWalkKernel(()), "`lengths`"),
    "times": (lambda: DiffusionKernel((np.inf,)), "`times`"),
    "learned": (
        lambda: DiffusionKernel((-1.0,), learn_times=True),
        "`times`",
    ),
    "generator": (lambda: DiffusionKernel(generator="heat"), "`generator`"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    function, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        function()


@pytest.mark.few(
    "pairs-softmax", "pairs-relu", "kernel-additive", "factors-favor"
)
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", ["kernel", "pairs", "factors"])
def test_unknown_numbers_of_nodes(form, similarity):
    """One traced function for graphs of any size."""
    import tensorflow as tf

    shapes = {
        "kernel": {"kernel": (2, None, None)},
        "pairs": {"pairs": (None, 2), "pair_values": (2, None)},
        "factors": {"factors": (2, None, 3)},
    }[form]
    inputs = {
        "nodes": keras.Input((None, CHANNELS), name="nodes"),
        **{
            key: keras.Input(
                shape,
                name=key,
                dtype="int32" if key == "pairs" else "float32",
            )
            for key, shape in shapes.items()
        },
    }
    layer = make(similarity)
    model = keras.Model(inputs, layer(inputs)["nodes"])
    traces = []

    @tf.function(reduce_retracing=True)
    def call(graph):
        traces.append(1)
        return model(graph)

    nodes, forms = graph_tensors(2)
    graph = forms[form]
    graph = graph if isinstance(graph, dict) else {"kernel": graph}
    for n in (8, 3, 5):
        # A batch of one, and of fewer nodes.
        cut = {
            "kernel": lambda x, n=n: x[:1, :, :n, :n],
            "factors": lambda x, n=n: x[:1, :, :n],
            "pairs": lambda x, n=n: np.where(
                (x[:1] < n).all(-1, keepdims=True), x[:1], 0
            ),
            "pair_values": lambda x, n=n: np.where(
                (graph["pairs"][:1, None] < n).all(-1), x[:1], 0
            ),
        }
        tensors = {key: tf.constant(cut[key](x)) for key, x in graph.items()}
        tensors["nodes"] = tf.constant(nodes[:1, :n])
        eager = layer(tensors["nodes"], {k: tensors[k] for k in graph})
        ref.assert_close(call(tensors), ref.numpy(eager), 2e-6)
    assert len(traces) <= 2
