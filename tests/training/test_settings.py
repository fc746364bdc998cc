"""Settings: what their types admit, and what is said of other values."""

import dataclasses
from typing import Literal

import pytest

from keras_topo.layers import HedgehogFeatureMap
from keras_topo.training import options
from keras_topo.training.assessment import Assessment
from keras_topo.training.image_settings import build_classifier, describe
from keras_topo.training.machine import retracing_in_silence
from keras_topo.training.settings import (
    CosineSettings,
    NaturalFloat,
    PositiveInt,
    Rate,
    Settings,
    as_arguments,
    with_changes,
)


@dataclasses.dataclass(frozen=True)
class Mine(Settings):
    sizes: tuple[PositiveInt, ...] = (1, 2)
    rate: Rate = 0.5
    kind: Literal["a", "b"] | None = None
    decay: NaturalFloat | None = 0.0
    many: bool = True
    name: str = "x"


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": (3,)},
        {"sizes": [4, 5]},
        {"rate": 0},
        {"kind": "b"},
        {"decay": None},
        {"many": False},
        {"learning_rate": 1},
        {"patience": 3, "choose_epoch": "validation"},
    ],
)
def test_what_is_admitted(changes):
    found = as_arguments(with_changes(Mine(), changes))
    for name, value in changes.items():
        expected = list(value) if name == "sizes" else value
        assert found[name] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (1, 0)}, "`sizes` expects each to be a positive integer"),
        ({"sizes": 3}, "a tuple"),
        ({"rate": 1}, r"a number in \[0, 1\)"),
        ({"rate": "0.5"}, r"a number in \[0, 1\)"),
        ({"rate": float("nan")}, "a number"),
        ({"kind": "c"}, r"one of \('a', 'b'\) or None"),
        ({"decay": -1.0}, "a non-negative number or None"),
        ({"many": 1}, "True or False"),
        ({"name": 1}, "a text"),
        ({"epochs": 1.0}, "a positive integer"),
        ({"epochs": True}, "a positive integer"),
        ({"learning_rate": float("inf")}, "a positive number"),
        ({"jit": "yes"}, "one of"),
        ({"patience": 3}, "choose_epoch='validation'"),
        ({"ratio": 1}, "Received: ratio"),
    ],
)
def test_what_is_not(changes, message):
    with pytest.raises(ValueError, match=message):
        with_changes(Mine(), changes)


def test_a_warm_up_is_recorded_as_it_is_used():
    settings = CosineSettings(epochs=10, warmup_epochs=2)
    assert settings.used() is settings
    short = dataclasses.replace(settings, epochs=2)
    assert short.used().warmup_epochs == 0
    assert dataclasses.replace(settings, warmup_epochs=10).used() == (
        dataclasses.replace(settings, warmup_epochs=3)
    )


@pytest.mark.tensorflow_only
def test_retracing_is_not_told_where_it_is_meant(caplog):
    import tensorflow as tf

    logger = tf.get_logger()
    caplog.set_level("WARNING", logger.name)
    logger.addHandler(caplog.handler)

    def retrace(function):
        for _ in range(8):
            tf.function(function)(tf.ones(2))

    try:
        with retracing_in_silence():
            retrace(lambda x: 2 * x)
            logger.warning("something else")
        assert {r.getMessage() for r in caplog.records} == {"something else"}
        retrace(lambda x: 3 * x)
        assert "triggered tf.function retracing" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


OWN_CONFIG = """
from __future__ import annotations
import dataclasses
from keras_topo.training.settings import PositiveInt, Settings

class Nothing:
    name = "nothing"

@dataclasses.dataclass(frozen=True)
class Own(Settings):
    task = Nothing
    width: PositiveInt = 3

config = Own()
variants = {"wide": {"width": 9}}
"""


@pytest.mark.tensorflow_only
def test_a_config_file_may_have_a_dataclass_of_its_own(tmp_path):
    file = tmp_path / "json.py"  # Like a module, whose place it leaves alone.
    file.write_text(OWN_CONFIG)
    argv = [str(file), "--out", "-"]
    settings = options.parse([*argv, "--epochs", "2"])[2]
    assert (settings.width, settings.epochs) == (3, 2)
    assert options.parse([*argv, "--variant", "wide"])[2].width == 9
    with pytest.raises(ValueError, match="`width` expects a positive integer"):
        options.parse([*argv, "--width", "0"])


def test_the_features_of_an_image_model():
    argv = ["images", "--out", "run", "--model", "16,2,16,1"]
    settings = options.parse([*argv, "--feature-map", "hedgehog"])[2]
    assert "features hedgehog" in describe(settings)
    model = build_classifier(settings, (8, 8, 3), 2)
    attention = model.get_layer("block_1").attention
    assert isinstance(attention.similarity, HedgehogFeatureMap)


@pytest.mark.parametrize(
    "argv",
    [
        ["images", "--mask", "decay", "--attention", "linear"],
        ["images", "--mask-initial", "ones", "--attention", "softmax"],
        ["images", "--mask-initial", "ones", "--mask", "none"],
        ["images", "--feature-map", "elu", "--attention", "softmax"],
        ["linearize", "--mask-initial", "ones", "--mask=none", "--from", "run"],
        ["graphs", "--kernel", "diffusion", "--model", "gin"],
        ["graphs", "--attention-dropout", "0.1", "--model", "gcn"],
        ["graphs", "--kernel-sizes", "2", "--kernel", "ones"],
        ["graphs", "--learned-kernel", "True", "--kernel", "ones"],
        ["graphs", "--edges", "--model", "gcn", "--data", "mine.zip"],
        ["graphs", "--edges", "--data", "cycles"],
        ["graphs", "--data-dir", "folder"],
        ["graphs", "--kernel", "ones", "--model=gin", "--select", "depth=1,2"],
        [
            *("graphs", "--kernel", "ones", "--compare", "model=gin,gcn"),
            *("--select", "depth=1,2"),
        ],
        ["motifs", "--local", "True"],
        ["motifs", "--local", "True", "--model", "ones"],
        ["motifs", "--learned-kernel", "True", "--model", "ones"],
        ["motifs", "--heads", "2", "--model", "gin"],
        ["motifs", "--match", "--model", "ones"],
        ["nodes", "--heads", "3", "--model", "sgc"],
        ["nodes", "--key-dim", "7", "--model", "sgc"],
        ["nodes", "--halt", "0.1", "--model", "gcn"],
        ["nodes", "--temperature", "0.2", "--model", "gkat-propagation"],
        ["nodes", "--data-dir", "folder"],
        ["text", "--pattern", "*.txt"],
        ["linearize", "--split", *"111", "--updates", *"111", "--from", "run"],
        ["linearize", "--budget", "0.2", "--updates", *"111", "--from", "run"],
        [
            *("linearize", "--label-smoothing", "0.2", "--teacher-weight", "1"),
            *("--from", "run"),
        ],
        ["motifs", "--kernel", "diffusion", "--model", "ones"],
        ["nodes", "--kernel-top", "8", "--model", "gcn"],
        ["nodes", "--walks", "8"],
        ["nodes", "--nodes", "500"],
    ],
    ids=" ".join,
)
def test_an_option_without_a_reader_is_refused(argv):
    with pytest.raises(ValueError, match=f"{argv[1]} has no effect with "):
        options.parse([*argv, "--out", "run"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--model", "gin", "--select", "kernel=ones,random_walk"],
            "--select kernel has no effect with model='gin'. Received: "
            r"kernel=\['ones', 'random_walk'\]",
        ),
        (
            ["--select", "kernel=ones,steps", "--compare", "model=gin,gcn"],
            "--select kernel has no effect with model='gin' or model='gcn'",
        ),
        (
            ["--form", "dense", "--compare", "anchors=4,8"],
            "--compare anchors has no effect with form='dense'",
        ),
    ],
)
def test_choices_without_a_reader_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        options.parse(["graphs", *argv, "--out", "run"])


@pytest.mark.tensorflow_only
def test_choices_that_a_trained_model_has_made_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    argv = ["images", "--from", str(tmp_path), "--out", "run"]
    options.parse([*argv, "--select", "keep=0,0.5"])
    with pytest.raises(ValueError, match="has fixed. Received: --pooling"):
        options.parse([*argv, "--compare", "pooling=gap,token"])


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ("images", "limit=9,99"),
        ("images", "classes=1 2,3 4"),
        ("motifs", "size=6,9"),
        ("nodes", "nodes=100,200"),
        ("text", "pattern=*.py,*.txt"),
    ],
)
def test_items_are_not_chosen_on_validation_items(config, choice):
    own = {"nodes": ["--data", "beacons"], "text": ["--data", "."]}
    argv = [config, *own.get(config, []), "--select", choice, "--out", "run"]
    _, run, settings = options.parse(argv)
    name = choice.partition("=")[0]
    with pytest.raises(ValueError, match=f"--select expects .*: {name}$"):
        Assessment(run, settings)
    run = dataclasses.replace(run, select=(), compare=run.select)
    Assessment(run, settings)


@pytest.mark.parametrize(
    "argv",
    [
        ["graphs", "--kernel", "diffusion", "--compare", "model=gkat,gin"],
        ["graphs", "--compare", "model=gkat,gin", "--select", "kernel=ones"],
        ["graphs", "--edges", "--local", "True"],
        ["motifs", "--compare", "model=gkat,gin", "--heads", "2"],
        ["nodes", "--temperature", "0.2", "--model", "gkat-consistency"],
        ["graphs", "--attention-dropout", "0.1", "--model", "gat"],
        ["images", "--attention", "softmax"],
    ],
    ids=" ".join,
)
def test_an_option_that_one_of_several_models_reads(argv):
    options.parse([*argv, "--out", "run"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cutmix", "0.7", "--mixup", "0.7"], "at most 1 together"),
        (["--distort", "0.5", "--no-augment"], "augment=True"),
        (["--unmixed-epochs", "2"], "expects cutmix or mixup"),
        (["--cutmix", "0.5", "--unmixed-epochs", "30"], "fewer than `epochs`"),
        (["--average", "0.9", "--choose-epoch", "validation"], "choose_epoch"),
        (["--average", "0.9", "--stem", "residual"], "batch normalization"),
        (
            ["--train-on-validation", "--choose-epoch", "validation"],
            "expects choose_epoch='last'",
        ),
        (["--train-on-validation", "--per-class", "9"], "per_class=9"),
        (["--average-with", "runs/a"], "--average-with expects --from"),
        (["--model", "96,3,160"], "CHANNELS,HEADS,MLP_UNITS,BLOCKS"),
        (["--model", "96,3,160,two"], "CHANNELS,HEADS,MLP_UNITS,BLOCKS"),
    ],
)
def test_recipes_of_images_that_cannot_be(argv, message):
    with pytest.raises(ValueError, match=message):
        options.parse(["images", *argv, "--out", "run"])
