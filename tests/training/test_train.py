"""`python -m training.train` and `training.sample`, end to end."""

import json
import re

import keras
import numpy as np
import pytest
from keras import ops

import keras_topo.models
from keras_topo.training import configs, sample, train
from keras_topo.training.run import Run

pytestmark = pytest.mark.tensorflow_only

SMALL = {
    "length": 16,
    "stride": 16,
    "channels": 8,
    "num_heads": 2,
    "mlp_dim": 8,
    "depth": 1,
    "dropout": 0.2,
    "epochs": 3,
    "updates_per_epoch": 6,
    "batch_size": 4,
    "validation_windows": 8,
}


@keras.saving.register_keras_serializable("tests")
class LanguageModel(keras.Model):
    """A stand-in of the interface of `causal_lm`, which needs seconds."""

    def __init__(self, channels, dropout, seed, **kwargs):
        super().__init__(name=kwargs.pop("name", None))
        self.config = {"channels": channels, "dropout": dropout, "seed": seed}
        self.embedding = keras.layers.Embedding(256, channels)
        self.attention = keras.layers.MultiHeadAttention(2, channels)
        self.dropout = keras.layers.Dropout(dropout, seed=seed)
        self.logits = keras.layers.Dense(256)

    def build(self, shape):
        self.embedding.build(shape)
        shape = (*shape, self.config["channels"])
        self.attention.build(shape, shape)
        self.logits.build(shape)

    def call(self, tokens):
        x = self.embedding(tokens)
        x = x + self.attention(x, x, use_causal_mask=True)
        return self.logits(self.dropout(x))

    def get_config(self):
        return {**self.config, "name": self.name}

    def generate(
        self, prompt, max_new_tokens, temperature=1.0, top_k=None, seed=None
    ):
        # All new tokens as if each were the next one.
        logits = ops.convert_to_numpy(self(prompt))[:, -1:] / temperature
        noise = np.random.default_rng(seed).gumbel(
            size=(len(prompt), max_new_tokens, 256)
        )
        new = (logits + noise).argmax(-1).astype("int32")
        return np.concatenate([prompt, new], axis=1)


@pytest.fixture(autouse=True, scope="module")
def stand_in():
    def causal_lm(vocabulary_size, max_length=None, **arguments):
        assert vocabulary_size == 256
        names = ("channels", "dropout", "seed", "name")
        model = LanguageModel(**{name: arguments[name] for name in names})
        model.build((None, SMALL["length"]))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_topo.models, "causal_lm", causal_lm, raising=False)
        yield


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder with enough files for every split."""
    folder = tmp_path_factory.mktemp("texts")
    for k in range(40):
        (folder / f"{k}.py").write_text(f"x = {k}\n" * 6)
    return folder


def run_script(texts, out, *options, **changes):
    changes = {**SMALL, "data": texts, **changes}
    settings = [f"{name}={value}" for name, value in changes.items()]
    return train.main(
        ["--config", "text", "--out", str(out), *map(str, options)]
        + ["--set", *settings]
    )


@pytest.fixture(scope="module")
def finished_run(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = ["--variant", "softmax", "--results", folder / "results.jsonl"]
    assert run_script(texts, folder / "run", *options, seed=5) == 0
    return folder / "run", options


def test_what_a_run_leaves(finished_run, texts):
    folder, _ = finished_run
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["task"] == summary["config"] == "text"
    assert summary["variant"] == "softmax"
    assert summary["arguments"]["similarity"] == "softmax"
    assert summary["arguments"]["seed"] == summary["seed"] == 5
    assert summary["updates"] == 3 * 6
    assert 0 < summary["test_bits_per_byte"] < 9
    assert 0 <= summary["validation_accuracy"] <= 1
    assert sum(summary["data_bytes"].values()) == sum(
        path.stat().st_size + 1 for path in texts.iterdir()
    )
    assert re.fullmatch("[0-9a-f]{64}", summary["data_sha256"])
    assert summary["command"].startswith("python -m training.train --config")
    assert summary["versions"]["keras"] == keras.__version__
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    for name in ("curves.png", "sample.txt", "tensorboard"):
        assert (folder / name).exists()
    assert not (folder / "checkpoint").exists()
    model = keras.saving.load_model(folder / "model.keras")
    assert model.count_params() == summary["parameters"]
    assert not model.compiled


def test_the_saved_model_is_the_one_that_was_tested(finished_run, texts):
    folder, _ = finished_run
    summary = json.loads((folder / "metrics.json").read_text())
    config = configs.load("text")
    task = config.task(summary["arguments"])
    model = keras.saving.load_model(folder / "model.keras")
    model.compile(**task.compile_arguments())
    found = task.evaluate(model)
    assert found["test_bits_per_byte"] == pytest.approx(
        summary["test_bits_per_byte"], rel=1e-5
    )


def test_a_finished_run_has_one_line_of_results(finished_run, texts, capsys):
    folder, options = finished_run
    file = folder.parent / "results.jsonl"
    before = file.read_text()
    (line,) = map(json.loads, before.splitlines())
    summary = json.loads((folder / "metrics.json").read_text())
    for name in ("test_bits_per_byte", "arguments", "versions", "parameters"):
        assert line[name] == summary[name]
    assert str(folder) not in before
    assert run_script(texts, folder, *options, seed=5) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert file.read_text() == before
    # As if it had been killed before.
    file.write_text("")
    assert run_script(texts, folder, *options, seed=5) == 0
    assert file.read_text() == before


def test_a_resumed_run_equals_an_uninterrupted_one(
    finished_run, texts, tmp_path, monkeypatch, capsys
):
    folder, options = finished_run
    fit = LanguageModel.fit

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.now = epoch == 1

        def on_train_batch_end(self, batch, logs=None):
            if self.now and batch == 3:
                raise KeyboardInterrupt

    def interrupted(model, *args, callbacks, **kwargs):
        return fit(model, *args, callbacks=[Interrupt(), *callbacks], **kwargs)

    monkeypatch.setattr(LanguageModel, "fit", interrupted)
    assert run_script(texts, tmp_path / "run", *options, seed=5) == 130
    monkeypatch.setattr(LanguageModel, "fit", fit)
    assert run_script(texts, tmp_path / "run", *options, seed=5) == 0
    assert "after epoch 1 of 3" in capsys.readouterr().out
    folders = (folder, tmp_path / "run")
    whole, parts = [Run(each).history() for each in folders]
    for a, b in zip(whole, parts, strict=True):
        for name in ("epoch", "loss", "val_bits_per_byte", "learning_rate"):
            assert a[name] == pytest.approx(b[name], rel=1e-5), name
    models = [keras.saving.load_model(f / "model.keras") for f in folders]
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_of_other_arguments_or_data_is_refused(
    finished_run, texts, tmp_path, capsys
):
    folder, _ = finished_run
    assert run_script(texts, folder, "--variant", "softmax", seed=6) == 2
    assert "seed (then 5, now 6)" in capsys.readouterr().err
    for path in texts.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("x", "y"))
    assert run_script(tmp_path, folder, "--variant", "softmax", seed=5) == 2
    assert "data_sha256 (then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ([], {"mesk": "table"}, r"are batch_size, .*Received: mesk"),
        ([], {"epochs": 0}, r"epochs: .* positive integer. Received: '0'"),
        ([], {"channels": "None"}, r"channels: .*Received: 'None'"),
        ([], {"jit": "yes"}, r"jit: expected one of auto.*Received: 'yes'"),
        (["--variant", "tabel"], {}, r"expects one of decay.*'tabel'"),
        (["--set", "seed"], {}, r"expects name=value. Received: 'seed'"),
    ],
)
def test_what_is_refused(texts, tmp_path, capsys, options, changes, message):
    assert run_script(texts, tmp_path / "run", *options, **changes) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_values_keep_their_types(texts):
    config = configs.load("text")
    parsers = {**train.PARSERS, **config.task.parsers}
    assert configs.resolve(config, parsers) == config.arguments
    found = configs.resolve(
        config, parsers, "softmax", ["clip_norm=None", "seed=7", "seed=8"]
    )
    assert found["positions"] == "learned"
    assert found["clip_norm"] is None and found["seed"] == 8
    assert config.arguments["seed"] == 0


def test_all_variants_are_of_known_arguments():
    config = configs.load("text")
    parsers = {**train.PARSERS, **config.task.parsers}
    found = [configs.resolve(config, parsers, v) for v in config.variants]
    assert found[0] == config.arguments
    assert len({json.dumps(arguments) for arguments in found}) == len(found)


CONFIG = """
from keras_topo.training.configs import text
task = text.Text
arguments = {**text.arguments, "seed": 3}
"""


def test_a_config_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(CONFIG)
    config = configs.load("~/mine.py")
    parsers = {**train.PARSERS, **config.task.parsers}
    assert configs.resolve(config, parsers)["seed"] == 3
    with pytest.raises(ValueError, match="one of none. Received: 'table'"):
        configs.resolve(config, parsers, "table")
    del config.arguments["depth"]
    with pytest.raises(ValueError, match="expect values of depth"):
        configs.resolve(config, parsers)
    (tmp_path / "half.py").write_text("arguments = {}")
    for name, message in (
        ("~/half.py", "has no task"),
        ("~/none.py", "exists. Received"),
        ("txt", "one of text, or the path"),
    ):
        arguments = ["--config", name, "--out", str(tmp_path / "run")]
        assert train.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_sampling_from_a_run(finished_run, capsys):
    folder, _ = finished_run
    arguments = [str(folder), "--prompt", "x = ", "--bytes", "20"]
    texts = []
    for seed in ("1", "1", "2"):
        assert sample.main([*arguments, "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("x = ")
    assert texts[0] == texts[1] != texts[2]


def test_sampling_asks_for_a_run_of_a_language_model(tmp_path, capsys):
    assert sample.main([str(tmp_path)]) == 2
    assert f"Received: {tmp_path}" in capsys.readouterr().err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(
        tmp_path / "model.keras"
    )
    assert sample.main([str(tmp_path)]) == 2
    assert "has no `generate`" in capsys.readouterr().err
