"""`python -m training.train` and `training.sample`, end to end."""

import json
import re

import docstring_parser
import keras
import numpy as np
import pytest
from keras import ops

import keras_topo.models
from keras_topo.training import configs, options, sample, train
from keras_topo.training.run import Run
from keras_topo.training.settings import with_changes

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
    settings = []
    for name, value in changes.items():
        settings += [f"--{name.replace('_', '-')}", str(value)]
    return train.main(
        ["text", "--out", str(out), *map(str, options), *settings]
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
    assert summary["arguments"]["warmup_epochs"] == 1
    assert 0 < summary["test_bits_per_byte"] < 9
    assert 0 <= summary["validation_accuracy"] <= 1
    assert sum(summary["data_bytes"].values()) == sum(
        path.stat().st_size + 1 for path in texts.iterdir()
    )
    assert re.fullmatch("[0-9a-f]{64}", summary["data_sha256"])
    assert summary["command"].startswith("python -m training.train text --out")
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
    config = configs.load("text").config
    task = config.task(with_changes(config, summary["arguments"]))
    model = keras.saving.load_model(folder / "model.keras")
    task.compile(model, "auto")
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
    assert "Nothing to train" in capsys.readouterr().out
    assert file.read_text() == before
    # As if it had been killed before, or while it was written.
    file.write_text(before[:20])
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
        ([], {"mesk": "table"}, r"Unrecognized options: --mesk.*--mask"),
        ([], {"epochs": 0}, r"`epochs` expects a positive integer.*epochs=0"),
        ([], {"channels": "None"}, r"--channels: .*'None'"),
        ([], {"jit": "yes"}, r"invalid choice 'yes'.*--jit"),
        ([], {"mask": "tables"}, r"`mask` expects table, .*'tables'"),
        ([], {"stride": 99}, r"`stride` expects at most `length`"),
        (["--variant", "tabel"], {}, r"expects one of decay.*'tabel'"),
        (["--splits", "5"], {}, r"--splits expects a task that supports folds"),
        (["--folds", "1"], {}, r"expects --splits. Received: none"),
        (["--compare", "depht=1"], {}, r"--compare expects NAME=.*depht=1"),
        (["--compare", "depth=x"], {}, r"--compare depth: .*: 'x'"),
        (["--compare", "seed=1,2"], {}, r"than seed. Received: seed"),
        (["--distribute", "mirrored"], {}, r"can split batches"),
        (["--distribute", "foo"], {}, r"invalid choice 'foo'"),
        (
            ["--splits", "5", "--distribute", "mirrored"],
            {},
            r"--splits expects no --distribute.* Received: mirrored",
        ),
        (
            ["--compare", "depth=1", "--distribute", "mirrored"],
            {},
            r"--compare expects no --distribute.* Received: mirrored",
        ),
        (
            ["--splits", "5", "--results", "r.jsonl"],
            {},
            r"--splits expects no --results.* Received: r.jsonl",
        ),
        (
            ["--compare", "depth=1", "--results", "r.jsonl"],
            {},
            r"--compare expects no --results.* Received: r.jsonl",
        ),
        (
            ["--compare", "depth=1", "depth=2"],
            {},
            r"--compare expects all values .* Received: depth twice",
        ),
        (
            ["--splits", "5", "--select", "depth=1,2", "--compare", "depth=3"],
            {},
            r"different settings. Received: depth in both",
        ),
    ],
)
def test_what_is_refused(texts, tmp_path, capsys, options, changes, message):
    assert run_script(texts, tmp_path / "run", *options, **changes) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_script_says_what_it_expects(capsys):
    assert train.main([]) == 2
    assert "expects a config first, one of" in capsys.readouterr().err
    for arguments, expected in (
        (["--help"], "Trains language models of bytes"),
        (["text", "--help"], "--validation-windows"),
    ):
        with pytest.raises(SystemExit) as end:
            train.main(arguments)
        assert end.value.code == 0
        assert expected in capsys.readouterr().out


def test_help_texts_break_only_at_the_end_of_a_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        train.main(["text", "--help"])
    printed = capsys.readouterr().out
    for cls in (options.RunOptions, type(configs.load("text").config)):
        texts = docstring_parser.parse_from_object(cls).params
        assert texts
        for text in texts:
            assert " ".join(text.description.split()) in printed


MY_CONFIG = """
import dataclasses
from typing import Annotated
import tyro
from keras_topo.training.tasks.text import TextSettings

@dataclasses.dataclass(frozen=True)
class Mine(TextSettings):
    strength: float = 0.5  # how strong
    helped: Annotated[int, tyro.conf.arg(help="a text of its own")] = 3

@dataclasses.dataclass(frozen=True)
class Keyword(TextSettings):
    must: int = dataclasses.field(kw_only=True)
    \"\"\"what it must\"\"\"

config = Mine()
variants = {}
"""


def test_help_texts_of_a_user_config(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(MY_CONFIG)
    with pytest.raises(SystemExit) as end:
        train.main([str(file), "--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert "how strong" in printed and "a text of its own" in printed
    text = MY_CONFIG.replace("config = Mine()", "config = Keyword(must=3)")
    file = tmp_path / "keyword.py"
    file.write_text(text)
    with pytest.raises(SystemExit) as end:
        train.main([str(file), "--help"])
    assert end.value.code == 0
    assert "what it must" in capsys.readouterr().out


def parse(*arguments):
    return options.parse(["text", "--out", "-", *arguments])[2]


def test_values_keep_their_types():
    config = configs.load("text").config
    assert parse() == config
    found = parse("--variant", "softmax", "--clip-norm", "None", "--seed=8")
    assert found.positions == "learned"
    assert found.clip_norm is None and found.seed == 8
    assert config.seed == 0
    with pytest.raises(ValueError, match="`positions` expects one of"):
        with_changes(config, {"positions": "leraned"})
    with pytest.raises(ValueError, match="Settings .* Received: postions"):
        with_changes(config, {"postions": "learned"})


def test_all_variants_are_of_known_settings():
    module = configs.load("text")
    found = [configs.variant_of(module, name) for name in module.variants]
    assert found[0] == module.config
    assert len(set(found)) == len(found)


CONFIG = """
from keras_topo.training.tasks.text import TextSettings
config = TextSettings(seed=3)
"""


def test_a_config_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(CONFIG)
    (tmp_path / "half.py").write_text("config = {}")
    module = configs.load("~/mine.py")
    assert configs.variant_of(module).seed == 3
    with pytest.raises(ValueError, match="one of none. Received: 'table'"):
        configs.variant_of(module, "table")
    for name, message in (
        ("~/half.py", "an instance of"),
        ("~/none.py", "exists. Received"),
        ("txt", "text, or the path"),
    ):
        assert train.main([name, "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_in_use_is_refused(finished_run, texts, capsys):
    folder, given = finished_run
    with Run(folder) as other:
        other.open(json.loads((folder / "arguments.json").read_text()))
        (folder / "arguments.json").unlink()
        (folder / "arguments.json").write_text("{}")
        assert run_script(texts, folder, *given, seed=5) == 2
    assert "another process uses" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_refused(texts, tmp_path, capsys):
    """Before the training."""
    (tmp_path / "file").touch()
    file = tmp_path / "file" / "results.jsonl"
    out = tmp_path / "run"
    assert run_script(texts, out, "--results", file) == 2
    error = capsys.readouterr().err
    assert (
        f"--results expects a file that can be written. Received: {file}"
        in (error)
    )
    assert not out.exists()


def test_a_damaged_line_of_results_is_named_and_kept(texts, tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    file.write_text('{"a": 1}\n{"a": 2\n{"a": 3}\n')
    given = ["--results", file]
    assert run_script(texts, tmp_path / "run", *given) == 2
    assert f"{file}, line 2 expects" in capsys.readouterr().err
    assert len(file.read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_best_epoch_counts_also_after_a_resume(
    texts, tmp_path, monkeypatch
):
    """Its weights are kept, whether the run was interrupted or not."""
    scores = iter([])
    evaluate = LanguageModel.evaluate

    def scored(model, *args, **kwargs):
        found = evaluate(model, *args, **kwargs)
        if kwargs.get("_use_cached_eval_dataset"):
            found["bits_per_byte"] = next(scores)
        return found

    monkeypatch.setattr(LanguageModel, "evaluate", scored)
    options = ["--choose-epoch", "validation", "--patience", "2"]
    scores = iter([3.0, 2.0, 2.5, 2.6, 1.0])
    assert run_script(texts, tmp_path / "whole", *options, epochs=6) == 0
    summary = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert summary["epoch"] == 2 and summary["epochs"] == 4

    fit = LanguageModel.fit

    def interrupted(model, *args, callbacks, **kwargs):
        stop = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: 1 / (3 - epoch)
        )
        return fit(model, *args, callbacks=[*callbacks, stop], **kwargs)

    scores = iter([3.0, 2.0, 2.5])
    monkeypatch.setattr(LanguageModel, "fit", interrupted)
    with pytest.raises(ZeroDivisionError):
        run_script(texts, tmp_path / "parts", *options, epochs=6)
    scores = iter([2.6])
    monkeypatch.setattr(LanguageModel, "fit", fit)
    assert run_script(texts, tmp_path / "parts", *options, epochs=6) == 0
    summary = json.loads((tmp_path / "parts" / "metrics.json").read_text())
    assert summary["epoch"] == 2 and summary["epochs"] == 4
    models = [
        keras.saving.load_model(tmp_path / name / "model.keras")
        for name in ("whole", "parts")
    ]
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_more_seeds(texts, tmp_path, capsys):
    """Each seed is a line; the model is that of the first."""
    assert run_script(texts, tmp_path / "run", "--seeds", 2, epochs=1) == 0
    file = tmp_path / "run" / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1]
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert summary["arguments"]["warmup_epochs"] == 0  # Of a single epoch.
    scores = [line["test_bits_per_byte"] for line in lines]
    assert summary["test_bits_per_byte"] == pytest.approx(np.mean(scores))
    assert summary["test_bits_per_byte_of_the_file"] == scores[0]
    assert len(set(scores)) == 2
    assert summary["training_seconds"] == pytest.approx(
        sum(line["training_seconds"] for line in lines)
    )
    assert "failed" not in summary
    assert run_script(texts, tmp_path / "run", "--seeds", 2, epochs=1) == 0
    assert "Nothing to train" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_of_settings(texts, tmp_path):
    given = ["--compare", "channels=4,8", "dropout=0,0.5", "--seeds", 2]
    assert run_script(texts, tmp_path / "run", *given, epochs=1) == 0
    file = tmp_path / "run" / "runs.jsonl"
    assert len(file.read_text().splitlines()) == 2 * 2 * 2
    text = (tmp_path / "run" / "folds.md").read_text()
    assert "| channels | dropout | test bits per byte | parameters |" in text
    assert text.count("\n| 8 | 0.5 | ") == 1
    assert (tmp_path / "run" / "table.png").exists()
    # All is done, and the same comes out.
    assert run_script(texts, tmp_path / "run", *given, epochs=1) == 0
    assert len(file.read_text().splitlines()) == 2 * 2 * 2
    assert (tmp_path / "run" / "folds.md").read_text() == text


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
