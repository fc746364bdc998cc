"""The causal language model: at once, in pieces, and token by token."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo import masks
from keras_topo.models import causal_lm

VOCABULARY, LENGTH = 11, 7
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH))
TOKENS = TOKENS.astype("int32")

MODELS = {
    "decay": {},
    "gated-positions": {"mask": "gated", "positions": "learned"},
    "table": {"mask": "table"},
    "softmax": {"mask": None, "similarity": "softmax"},
    "table-softmax": {"mask": "table", "similarity": "softmax"},
    "product": {"mask": masks.get("gated") * masks.get("decay")},
    "table-times-gated": {
        "mask": masks.get("table") * masks.get("gated"),
        "similarity": "hedgehog",
    },
    "favor": {"similarity": "favor"},
}


def make(name="decay", **options):
    options = {**MODELS[name], **options}
    model = causal_lm(
        VOCABULARY, 8, 2, max_length=LENGTH, seed=1, **{"depth": 2, **options}
    )
    model.build((None, None))
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(ref.numpy(weight) + random.normal(size=weight.shape) / 4)
    return model


@pytest.mark.few(
    "gated-positions", "softmax", "table", "table-times-gated", "favor"
)
@pytest.mark.few_on_jax("gated-positions")
@pytest.mark.parametrize("name", MODELS)
def test_pieces_and_steps_are_the_whole(name):
    """Eager and compiled; the state at the end is the same."""
    model = make(name)
    tokens = ref.tensor(TOKENS)
    expected = ref.numpy(ref.staged(lambda x: model(x))(tokens))
    tolerance = 1e-4 if name == "favor" else 2e-5

    def in_pieces(tokens):
        state, found = model.initial_state(2, LENGTH), []
        for start, stop in ((0, 1), (1, 5), (5, LENGTH)):
            y, state = model.extend(tokens[:, start:stop], state)
            found.append(y)
        return ops.concatenate(found, 1), state

    def in_steps(tokens):
        state, found = model.initial_state(2, LENGTH), []
        for k in range(LENGTH):
            y, state = step(tokens[:, k], state)
            found.append(y)
        return ops.stack(found, 1), state

    step = model.step
    results = [ref.staged(f)(tokens) for f in (in_pieces, in_steps)]
    if name in ("gated-positions", "softmax") and not ref.on_jax:
        # One program for all steps.
        step = ref.compiled(model.step)
        results.append(in_steps(tokens))
    for y, _ in results:
        ref.assert_close(y, expected, tolerance)
    keras.tree.map_structure(
        lambda a, b: ref.assert_close(a, ref.numpy(b), tolerance),
        results[0][1],
        results[1][1],
    )


def test_no_logits_know_later_tokens():
    other = TOKENS.copy()
    other[:, 5:] = (other[:, 5:] + 3) % VOCABULARY
    for name in ("gated-positions",) if ref.on_jax else MODELS:
        call = ref.staged(make(name).__call__)
        first, second = (
            ref.numpy(call(ref.tensor(x))) for x in (TOKENS, other)
        )
        ref.assert_close(second[:, :5], first[:, :5], 1e-5, name)
        assert np.abs(second[:, 5:] - first[:, 5:]).max() > 1e-3


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", ["gated-positions", "table-softmax"])
def test_generation_follows_the_logits(name):
    model = make(name)
    prompt = TOKENS[:, :3]
    found = model.generate(prompt, 4, temperature=0)
    assert found.shape == (2, LENGTH) and found.dtype == np.int32
    np.testing.assert_array_equal(found[:, :3], prompt)
    for length in range(3, LENGTH):
        logits = ref.numpy(model(found[:, :length]))[:, -1]
        np.testing.assert_array_equal(found[:, length], logits.argmax(-1))
    # With one candidate, the most likely token is drawn.
    again = model.generate(prompt, 4, top_k=1, seed=3)
    np.testing.assert_array_equal(again, found)
    drawn = [model.generate(prompt, 4, 5.0, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert drawn[0].max() < VOCABULARY and drawn[0].min() >= 0


@pytest.mark.slow_on_jax
def test_top_k_and_temperature_draw_from_the_logits():
    model = make()
    prompt = np.repeat(TOKENS[:1, :4], 4000, axis=0)
    logits = ref.numpy(model(prompt[:1]))[0, -1].astype("float64") / 0.7
    likely = np.argsort(logits)[-3:]
    share = np.exp(logits[likely] - logits[likely].max())
    share = share / share.sum()
    drawn = model.generate(prompt, 1, temperature=0.7, top_k=3, seed=0)[:, -1]
    counts = [np.mean(drawn == token) for token in likely]
    # Five standard deviations.
    np.testing.assert_allclose(counts, share, atol=5 * 0.5 / 4000**0.5)
    assert np.isin(drawn, likely).all()


@pytest.mark.slow_on_jax
def test_it_trains_and_saves(tmp_path):
    """It learns a sequence in which each token determines the next."""
    model = make("gated-positions", dropout=0.1, depth=1)
    random = np.random.default_rng(0)
    starts = random.integers(0, VOCABULARY, (16, 1))
    text = (starts + 2 * np.arange(LENGTH + 1)) % VOCABULARY
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    history = model.fit(
        text[:, :-1], text[:, 1:], batch_size=16, epochs=30, verbose=0
    ).history["loss"]
    assert history[-1] < 0.5 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    ref.assert_close(again(TOKENS), ref.numpy(model(TOKENS)), 1e-6)
    np.testing.assert_array_equal(
        again.generate(TOKENS[:, :2], 4, seed=2),
        model.generate(TOKENS[:, :2], 4, seed=2),
    )


@pytest.mark.slow_on_jax
def test_a_text_longer_than_the_table():
    model = make("table")
    tokens = np.tile(TOKENS, (1, 2))
    expected = ref.numpy(model(tokens))
    state = model.initial_state(2, 2 * LENGTH)
    y, _ = model.extend(ref.tensor(tokens), state)
    ref.assert_close(y, expected, 1e-5)


def test_errors():
    model = make("gated-positions")
    cases = [
        (lambda: causal_lm(channels=10, num_heads=4), "`channels`.*10"),
        (lambda: causal_lm(positions="sine"), "`positions`.*'sine'"),
        (lambda: causal_lm(positions="learned"), "`max_length`"),
        (lambda: causal_lm(mask="tabel"), "`mask`.*'tabel'"),
        (lambda: causal_lm(dropout=1.0), "`dropout`.*1.0"),
        (lambda: model.initial_state(1, LENGTH + 1), "`max_tokens`.*8"),
        (lambda: model(np.zeros((1, LENGTH + 1), "int32")), "`tokens`.*8"),
        (lambda: model.generate(TOKENS[0], 1), "`prompt`"),
        (lambda: model.generate(TOKENS[:, :0], 1), "`prompt`"),
        (lambda: model.generate(TOKENS, 0), "`max_new_tokens`.*0"),
        (lambda: model.generate(TOKENS, 1, temperature=-1.0), "`temperature`"),
        (lambda: model.generate(TOKENS, 1, top_k=0), "`top_k`.*0"),
        (lambda: model.extend(TOKENS, None), "`state`.*NoneType"),
        (lambda: model.extend(TOKENS[0], {}), r"`tokens`.*\(batch, tokens\)"),
        (lambda: model.step(TOKENS, {}), r"`tokens`.*\(batch,\)"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    last = model.vocabulary_size - 1
    for prompt, received in (
        ([[last + 1]], f"{last + 1} to {last + 1}"),
        ([[0, -5]], "-5 to 0"),
        ([[3.9]], "float"),
        ([[1], [1, 2]], "inhomogeneous"),
        ("hello", "dtype"),
    ):
        with pytest.raises(
            ValueError,
            match=f"`prompt` expects ints from 0 to {last}.*{received}",
        ):
            model.generate(prompt, 1)
    with pytest.raises(ValueError, match="`max_length`.*TableMask"):
        causal_lm(mask="table")
    with pytest.raises(ValueError, match="`max_length`.*ProductMask"):
        causal_lm(mask=masks.TableMask() * masks.DecayMask())
    assert causal_lm(mask=masks.TableMask(reach=(8,)) * masks.DecayMask())
