"""A training step of TopViT-Ti/16 against the same ViT with softmax attention.

    python -m benchmarks.training_step --json FILE

Images of 224 x 224 in batches of 8, AdamW, `train_on_batch`. The peer has
`keras.layers.MultiHeadAttention`. The mode is how Keras compiles the step: as a
TensorFlow graph, with XLA, or with JAX. All models of all modes take turns. The
run takes a few minutes, mostly for compilation; also `python -m
benchmarks.attention --step`.
"""

import sys

from benchmarks.harness import (
    MODES,
    Report,
    Workers,
    add_modes,
    format_table,
    make_parser,
    prepare_and_take_turns,
    ratio_of,
    seconds_of,
)
from benchmarks.measure import answer_calls, serve

MODULE = "benchmarks.training_step"
PEER = "softmax (Keras)"
#: Arguments of `topvit`.
MODELS = {
    PEER: {"attention": "softmax"},
    "no mask": {"attention": "linear"},
    "table": {"attention": "toeplitz", "mask": "table"},
    "decays": {
        "attention": "toeplitz",
        "mask": "separable",
        "separable_terms": "decay",
    },
}
SIZE, BATCH = 224, 8


def main():
    parser = make_parser(__doc__, rounds=5)
    add_modes(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        jit = arguments.worker != "tensorflow"
        return serve(
            answer_calls(lambda request: (make_step(request, jit), {}), ())
        )
    report = Report(
        arguments.json,
        MODULE,
        {"rounds": arguments.rounds, "threads": arguments.threads},
        MODES,
        ("training_step",),
    )
    measure_steps(report, arguments)
    return 0


def measure_steps(report, arguments):
    """Adds the records that the report lacks, and prints the table."""
    if not report.records("training_step"):
        report.add(measure_models(arguments), "training_step")
    print(format_steps(report.records("training_step")))


def measure_models(arguments):
    """A record for each model in each mode."""
    rows = [(name, mode) for mode in arguments.modes for name in MODELS]
    with Workers(MODULE, arguments.threads) as workers:

        def ask(row, **flags):
            name, mode = row
            return workers.ask(mode, {"model": name, **flags})

        first, rounds, failures = prepare_and_take_turns(
            ask, rows, arguments.rounds
        )
    return [
        {
            "row": name,
            "mode": mode,
            "rounds": len(rounds),
            "ratio": ratio_of(rounds, (name, mode), (PEER, mode)),
            "milliseconds": 1e3 * seconds_of(rounds, (name, mode)),
            "first": first[name, mode]["first"],
        }
        for name, mode in rows
        if (name, mode) not in failures
    ] + [
        {"row": name, "mode": mode, "failed": why}
        for (name, mode), why in failures.items()
    ]


def format_steps(records):
    """A row for each model; ratios to the peer in the same mode."""
    modes = list(dict.fromkeys(r["mode"] for r in records))
    cells = {
        (r["row"], r["mode"]): r["failed"].strip().splitlines()[-1]
        if "failed" in r
        else f"{r['milliseconds']:,.0f} ms"
        + (f" ({r['ratio']:.2f})" if r["ratio"] else "")
        for r in records
    }
    rows = [
        [name, *(cells.get((name, mode), "") for mode in modes)]
        for name in MODELS
    ]
    return (
        f"\nTraining step, Ti/16 at {SIZE} x {SIZE}, batch of {BATCH} (time / "
        f"{PEER}):\n\n" + format_table(["", *modes], rows, markdown=True)
    )


def make_step(request, jit):
    """A call that takes one step of training on random images."""
    import keras
    import numpy as np

    from keras_topo.models import topvit

    keras.utils.set_random_seed(0)
    model = topvit(
        "Ti",
        16,
        (SIZE, SIZE, 3),
        num_classes=1000,
        **MODELS[request["model"]],
    )
    model.compile(
        "adamw",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, 3), "float32")
    images, labels = 255 * images, np.arange(BATCH)
    # The loss is a number on the host, so the step has finished.
    return lambda: model.train_on_batch(images, labels)


if __name__ == "__main__":
    sys.exit(main())
