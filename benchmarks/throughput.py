"""Images per second of masked models against the same models with softmax.

    python -m benchmarks.throughput --json docs/throughput.json

The blocks are those of `--variant cifar10` of `training/configs/images.py`, at
32 x 32 with pixels as tokens (1,024) and at 128 x 128 with patches of 2 x 2
(4,096). Training is `train_on_batch` with AdamW; serving is the signature
`serving_default` of the exported SavedModel. All models of a mode take turns.
Ratios are to the peer with `keras.layers.MultiHeadAttention`, in the same mode
and of the same kind.
"""

import functools
import sys
import tempfile

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

MODULE = "benchmarks.throughput"
PEER = "softmax (Keras)"
#: Arguments of `topvit`.
MODELS = {
    PEER: {"attention": "softmax"},
    "no mask": {"attention": "linear"},
    "decay": {"mask": "decay"},
    "curves": {"mask": "curves"},
    "table": {"mask": "table"},
}
SIZE = (96, 3, 160, 2)
#: Side of the images, patch size, images of a batch.
CASES = ((32, 1, 8), (128, 2, 2))
#: SavedModels are TensorFlow's.
SERVING = ("tensorflow",)


def main():
    parser = make_parser(__doc__, rounds=5)
    add_modes(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        jit = arguments.worker != "tensorflow"
        make = functools.partial(make_call, jit=jit)
        return serve(answer_calls(make, ("case", "kind")))
    report = Report(
        arguments.json,
        MODULE,
        {"rounds": arguments.rounds, "threads": arguments.threads},
        MODES,
    )
    report.drop_failed()
    measure_throughput(report, arguments)
    return 0


def measure_throughput(report, arguments):
    """Adds the records that the report lacks, and prints the table."""
    with Workers(MODULE, arguments.threads) as workers:
        for case in CASES:
            for kind in ("training", "serving"):
                for mode in arguments.modes:
                    if kind == "serving" and mode not in SERVING:
                        continue
                    head = {"case": list(case), "kind": kind, "mode": mode}
                    if not report.records(**head):
                        report.add(measure_models(workers, head, arguments))
    print(format_throughput(report.records()))


def measure_models(workers, head, arguments):
    """A record for each model, in one case, kind and mode."""

    def ask(name, **flags):
        request = {"case": head["case"], "kind": head["kind"], "model": name}
        return workers.ask(head["mode"], {**request, **flags})

    first, rounds, failures = prepare_and_take_turns(
        ask, list(MODELS), arguments.rounds
    )
    *_, batch = head["case"]
    return [
        {
            **head,
            "model": name,
            "rounds": len(rounds),
            "images_per_second": batch / seconds_of(rounds, name),
            "ratio": ratio_of(rounds, PEER, name)
            if PEER in rounds[0]
            else None,
            "first": first[name]["first"],
        }
        for name in MODELS
        if name not in failures
    ] + [
        {**head, "model": name, "failed": why} for name, why in failures.items()
    ]


def format_throughput(records):
    """A table per case, with what it shows."""
    return "\n".join(
        f"\n{side} x {side}, patches of {patch} x {patch}, "
        f"{(side // patch) ** 2:,} tokens, {batch} images per batch: "
        f"images per second (times that of {PEER}):\n\n"
        + format_case(records, (side, patch, batch))
        for side, patch, batch in CASES
    )


def format_case(records, case):
    """A table of images per second, and the ratios to the peer."""
    some = [r for r in records if r["case"] == list(case)]
    columns = list(dict.fromkeys((r["kind"], r["mode"]) for r in some))
    cells = {(r["model"], r["kind"], r["mode"]): format_cell(r) for r in some}
    rows = [
        [name, *(cells.get((name, *column), "") for column in columns)]
        for name in MODELS
    ]
    header = ["", *(", ".join(column) for column in columns)]
    return format_table(header, rows, markdown=True)


def format_cell(record):
    if "failed" in record:
        return record["failed"].strip().splitlines()[-1]
    cell = f"{record['images_per_second']:,.1f}"
    return cell + (f" ({record['ratio']:.2f})" if record["ratio"] else "")


def make_call(request, jit):
    """A call that trains on, or serves, one batch of random images."""
    import keras
    import numpy as np

    from keras_topo.models import topvit

    side, patch, batch = request["case"]
    keras.utils.set_random_seed(0)
    model = topvit(SIZE, patch, (side, side, 3), **MODELS[request["model"]])
    images = np.random.default_rng(0).random((batch, side, side, 3), "float32")
    images *= 255
    if request["kind"] == "serving":
        return serve_model(model, images), {}
    model.compile(
        "adamw",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    labels = np.arange(batch) % 10
    # The loss is a number on the host, so the step has finished.
    return lambda: model.train_on_batch(images, labels), {}


def serve_model(model, images):
    """A call of the exported model that waits for the answer."""
    import tensorflow as tf

    import keras_topo

    with tempfile.TemporaryDirectory() as folder:
        keras_topo.export(model, f"{folder}/1")
        served = tf.saved_model.load(f"{folder}/1")
    answer = served.signatures["serving_default"]
    images = tf.constant(images)

    def call():
        # Keep the model alive as long as its signature.
        assert served is not None
        return answer(images=images)["logits"].numpy()

    return call


if __name__ == "__main__":
    sys.exit(main())
