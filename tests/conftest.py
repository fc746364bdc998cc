"""What every test shares: the data folder, a fixed seed."""

import gc
import os
import pathlib

import pytest

# Whether TensorFlow has its seed.
SEEDED = []


def check_few(items):
    """Selections must match: a name that no test has would select nothing."""
    known = {}
    for item in items:
        for name in ("few", "few_on_jax"):
            marker = item.get_closest_marker(name)
            if marker:
                key = (item.nodeid.partition("[")[0], marker.args)
                known.setdefault(key, set()).add(item.callspec.id)
    for (test, chosen), ids in known.items():
        # If a single parameter is run by name, this cannot be checked.
        if len(ids) > len(chosen) and not set(chosen) <= ids:
            raise pytest.UsageError(
                f"{test}: expects parameters among {sorted(ids)}. Received: "
                f"{sorted(set(chosen) - ids)}"
            )


def pytest_collection_modifyitems(items):
    import keras

    check_few(items)
    backend = keras.config.backend()
    reasons = {}
    if backend != "tensorflow":
        reasons["tensorflow_only"] = f"tensorflow_only, on {backend}"
    # Only `make test-all` runs them, because CI is limited to minutes.
    if not os.environ.get("KERAS_TOPO_SLOW"):
        reasons["slow"] = "slow; run by make test-all"
        if backend == "jax":
            reasons["slow_on_jax"] = "slow on JAX; run by make test-all"
    for item in items:
        for marker, reason in reasons.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
        for marker, reason in (("few", "slow"), ("few_on_jax", "slow_on_jax")):
            few = item.get_closest_marker(marker)
            if few and reason in reasons and item.callspec.id not in few.args:
                item.add_marker(pytest.mark.skip(reason=reasons[reason]))


def pytest_collection_finish():
    """Freezes existing objects, so that the garbage collector skips them.

    Keras collects garbage for each layer that it quantizes, which takes a
    quarter of a second where all of TensorFlow is looked at.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data():
    """The data folder of the README; without it, the test is skipped."""
    beside = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("KERAS_TOPO_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder} (set KERAS_TOPO_DATA)")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed():
    import keras

    with pytest.MonkeyPatch.context() as patch:
        if SEEDED:
            # Once: it forgets every kernel and what was made ready to serve, so
            # that each test would prepare its models anew. Keras draws by
            # seeds of its own.
            patch.setattr("tensorflow.random.set_seed", lambda seed: None)
        keras.utils.set_random_seed(0)
    if keras.config.backend() == "tensorflow":
        SEEDED.append(True)


@pytest.fixture
def in_this_process(monkeypatch):
    """Verifies exports in this process: a clean one takes seconds to start.

    That one answers is tested once for images, raw graphs and each kind of
    published model.
    """
    from export_models import answers_with

    from keras_topo.export import saved_models

    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
