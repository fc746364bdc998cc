"""What every test shares: quiet logs, the data folder, a fixed seed."""

import contextlib
import gc
import os
import pathlib

# Read when TensorFlow is imported, which the first test module does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Nearly all of the time goes into tracing and compiling programs that run once.
QUICK = "--xla_backend_optimization_level=0"
QUICK += " --xla_llvm_disable_expensive_passes=true"

if os.environ.get("KERAS_BACKEND") == "jax":
    import jax

    # For oracles in float64, which JAX computes only when told so, before
    # anything else. What users run, float32, is asked for where it is tested.
    jax.config.update("jax_enable_x64", True)
    # The options above.
    jax.config.update("jax_disable_most_optimizations", True)
else:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"

# Not Keras: the process that starts others (`-n 2`) needs none, and importing
# TensorFlow takes seconds.
import pytest  # noqa: E402

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


def compile_eagerly(monkeypatch):
    """From now on, `compile` makes models that run step by step."""
    import keras

    # JAX compiles each step by itself, which takes longer than all at once.
    if keras.config.backend() == "jax":
        return
    # Keras checks whether a model overrides `compile`.
    owner = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    compile_model = owner.compile

    def compile_and_set(model, *args, **kwargs):
        compile_model(model, *args, **kwargs)
        model.run_eagerly = True

    monkeypatch.setattr(owner, "compile", compile_and_set)


@pytest.fixture
def eagerly(monkeypatch):
    """Runs steps eagerly: for a few steps, tracing takes most of the time."""
    compile_eagerly(monkeypatch)


@pytest.fixture(scope="module")
def eager_fixtures():
    """Wrap training in module fixtures in `with eager_fixtures():`."""

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            compile_eagerly(patch)
            yield

    return patched


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
