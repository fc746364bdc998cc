"""Masked attention against softmax attention, from 64 to 262,144 tokens.

    python -m benchmarks.attention --json FILE --plot FILE

One head, m = d = 64, float32, tokens on a square grid. For every mask there
are three rows: the explicit implementation, the fast one and what `auto`
picks; besides them unmasked linear attention, and, as the peer that all
ratios refer to, PyTorch's `scaled_dot_product_attention`.

Every figure is a ratio to that peer in the same round: the rows take turns,
round after round, so that what else the machine does falls on all of them,
and the median round is reported. Memory is the growth of the resident set at
its highest during the first call (Linux) of a fresh process, since allocators
keep what they once had; it is measured from `--memory-from` tokens. A row
stops at the length where one call would take longer than `--limit` seconds,
and the explicit rows after `--explicit-to` tokens.

The two frameworks live in processes of their own, with the same number of
threads. Keras functions run as compiled graphs, with `--jit` through XLA.
A last section times a training step of TopViT-Ti/16 at 224 x 224 against the
same ViT with `keras.layers.MultiHeadAttention`.
"""

import argparse
import functools
import gc
import math
import os
import statistics
import sys
import time

from benchmarks.workers import Worker, measure_growth, ratio_of, save, serve

LENGTHS = tuple(4**k for k in range(3, 10))
FEATURES = 64
RANK = 16
PEER = "softmax (PyTorch)"
KINDS = ("table", "separable", "decay", f"rank-{RANK}")
KERAS_ROWS = ("linear (no mask)",) + tuple(
    f"{kind} {implementation}"
    for kind in KINDS
    for implementation in ("explicit", "fast", "auto")
)
ROWS = (PEER, *KERAS_ROWS)
STEP_ROWS = ("step toeplitz", "step linear", "step softmax")


def main():
    arguments = parse_arguments()
    if arguments.worker:
        return serve(arguments.worker, measure(arguments.worker, arguments.jit))
    workers = {kind: start(kind, arguments) for kind in ("torch", "keras")}
    report = {
        "command": "python -m benchmarks.attention " + " ".join(sys.argv[1:]),
        "versions": {kind: w.versions for kind, w in workers.items()},
        "results": [],
    }
    for backward in (False, True):
        for length, row in measure_all(workers, arguments, backward):
            report["results"].append(row)
            print(format_length(length, backward, report["results"]))
            save(report, arguments.json)
    if arguments.step:
        report["training_step"] = measure_step(workers["keras"], arguments)
        print(format_step(report["training_step"]))
    for worker in workers.values():
        worker.close()
    print(format_summary(report["results"]))
    if arguments.json:
        save(report, arguments.json)
        print(f"figures: {arguments.json}")
    if arguments.plot:
        plot(report["results"], arguments.plot)
        print(f"plot: {arguments.plot}")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
    )
    parser.add_argument(
        "--lengths",
        type=lambda text: [int(x) for x in text.split(",")],
        default=LENGTHS,
        help="token counts, squares of integers",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--limit",
        type=float,
        default=30.0,
        help="seconds that one call may take",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=60.0,
        help="seconds for the rounds of one length, at least one round",
    )
    parser.add_argument("--memory-from", type=int, default=4096)
    parser.add_argument(
        "--explicit-to",
        type=int,
        default=16384,
        help="tokens up to which the explicit implementation is measured",
    )
    parser.add_argument("--jit", action="store_true", help="through XLA")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--step", action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# The side that asks.


def start(kind, arguments):
    flags = ["--jit"] if arguments.jit else []
    return Worker("benchmarks.attention", kind, arguments.threads, flags)


def measure_all(workers, arguments, backward):
    """Yields `(length, result)`; a result is one row of the table."""
    previous = {}
    for length in arguments.lengths:
        rows = [
            row
            for row in ROWS
            if expected_seconds(row, length, previous) <= arguments.limit
            and not (
                row.endswith("explicit") and length > arguments.explicit_to
            )
        ]
        for row in rows:  # compiles, and warms up
            ask_row(workers, row, length, backward)
        rounds = []
        started = time.perf_counter()
        for _ in range(arguments.rounds):
            rounds.append(
                {row: ask_row(workers, row, length, backward) for row in rows}
            )
            spent = time.perf_counter() - started
            if spent * (1 + 1 / len(rounds)) > arguments.budget:
                break
        for row in rows:
            memory = None
            if length >= arguments.memory_from:
                memory = measure_memory(arguments, row, length, backward)
            median = statistics.median(r[row]["seconds"] for r in rounds)
            previous[row] = (length, median)
            yield (
                length,
                {
                    "row": row,
                    "tokens": length,
                    "backward": backward,
                    "rounds": len(rounds),
                    "ratio": ratio_of(rounds, row, PEER),
                    "milliseconds": 1e3 * median,
                    "megabytes": memory,
                    "auto_over_best": auto_over_best(rounds, row),
                    "chosen": rounds[0][row].get("chosen"),
                },
            )


def expected_seconds(row, length, previous):
    """What a call will take, from what it took at the length before."""
    if row not in previous:
        return 0.0
    earlier, seconds = previous[row]
    quadratic = row == PEER or row.endswith("explicit")
    return seconds * (length / earlier) ** (2.0 if quadratic else 1.1)


def ask_row(workers, row, length, backward, **options):
    worker = workers["torch" if row == PEER else "keras"]
    return worker.ask(
        {"row": row, "length": length, "backward": backward, **options}
    )


def measure_memory(arguments, row, length, backward):
    """Megabytes that the first call needs, in a process of its own."""
    kind = "torch" if row == PEER else "keras"
    worker = start(kind, arguments)
    answer = ask_row({kind: worker}, row, length, backward, memory=True)
    worker.close()
    return answer["megabytes"]


def auto_over_best(rounds, row):
    """For `auto`, its time over that of the better of the two others."""
    if not row.endswith("auto"):
        return None
    kind = row.removesuffix("auto")
    others = [
        f"{kind}{implementation}"
        for implementation in ("explicit", "fast")
        if f"{kind}{implementation}" in rounds[0]
    ]
    if not others:
        return None
    best = min(
        others,
        key=lambda o: statistics.median(r[o]["seconds"] for r in rounds),
    )
    return ratio_of(rounds, row, best)


def measure_step(worker, arguments):
    """Rounds of one training step of each model, in turns."""
    rounds = [
        {
            row: worker.ask({"row": row, "length": 196, "backward": True})
            for row in STEP_ROWS
        }
        for _ in range(arguments.rounds)
    ]
    return [
        {
            "row": row,
            "ratio": ratio_of(rounds, row, "step softmax"),
            "milliseconds": 1e3
            * statistics.median(r[row]["seconds"] for r in rounds),
        }
        for row in STEP_ROWS
    ]


# What it prints.


def format_length(length, backward, results):
    """The last row; a heading before the first row of a length."""
    last = results[-1]
    lines = []
    if len(results) == 1 or (
        results[-2]["tokens"],
        results[-2]["backward"],
    ) != (length, backward):
        direction = "forward + backward" if backward else "forward"
        lines.append(
            f"\n{length:,} tokens, {direction}, {last['rounds']} rounds\n"
            f"{'':24}{'time / peer':>12}{'speed-up':>10}{'ms':>10}"
            f"{'MB':>8}{'auto / best':>13}"
        )
    ratio = last["ratio"]
    extra = last["auto_over_best"]
    chosen = f" ({last['chosen']})" if last["chosen"] else ""
    lines.append(
        f"{last['row']:24}"
        + (f"{ratio:12.3f}{1 / ratio:9.1f}x" if ratio else " " * 22)
        + f"{last['milliseconds']:10.2f}"
        + (f"{last['megabytes']:8.0f}" if last["megabytes"] else " " * 8)
        + (f"{extra:13.2f}" if extra else "")
        + chosen
    )
    return "\n".join(lines)


def format_step(rows):
    lines = ["\nTraining step, Ti/16 at 224 x 224, batch of 8"]
    for row in rows:
        lines.append(
            f"{row['row'].removeprefix('step '):24}{row['ratio']:12.3f}"
            f"{'':10}{row['milliseconds']:10.1f}"
        )
    return "\n".join(lines)


def format_summary(results):
    worst = max(
        (r for r in results if r["auto_over_best"] and not r["backward"]),
        key=lambda r: r["auto_over_best"],
        default=None,
    )
    if worst is None:
        return ""
    return (
        "\nauto, forward, against the better of explicit and fast: at most "
        f"{worst['auto_over_best']:.2f}x its time ({worst['row']} at "
        f"{worst['tokens']:,} tokens)"
    )


def plot(results, path):
    """Forward time against tokens, relative to the peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 4.2), layout="constrained"
    )
    styles = {"explicit": ":", "fast": "--", "auto": "-"}
    for panel, backward in zip(axes, (False, True), strict=True):
        direction = "forward + backward" if backward else "forward"
        panel.set_title(direction)
        for row in ROWS:
            points = [
                (r["tokens"], r["milliseconds"])
                for r in results
                if r["row"] == row and r["backward"] == backward
            ]
            if not points or row.endswith("fast"):
                continue
            if row.endswith("explicit") and not row.startswith("table"):
                continue
            kind, _, implementation = row.rpartition(" ")
            label = {
                "auto": f"{kind} (auto)",
                "explicit": "explicit, any mask",
            }.get(implementation, row)
            panel.loglog(
                *zip(*points, strict=True),
                styles.get(implementation, "-"),
                marker="o",
                markersize=3,
                linewidth=2.2 if row == PEER else 1.3,
                color="black"
                if row == PEER
                else "gray"
                if implementation == "explicit"
                else None,
                label=label,
            )
        panel.set_xlabel("tokens")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds (one head, m = d = 64)")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


# The side that measures.


def measure(kind, jit):
    """A function from requests to answers, which keeps what it compiled."""
    make = {"torch": torch_call, "keras": keras_call}[kind]
    prepared = {}

    def answer(request):
        key = tuple(request.values())
        if key not in prepared:
            # One length at a time: what is kept takes memory.
            if prepared and next(iter(prepared))[1:] != key[1:]:
                prepared.clear()
                gc.collect()
            prepared[key] = make(request, jit)
        call, chosen = prepared[key]
        if request.get("memory"):
            return {"megabytes": measure_growth(call)}
        return {"seconds": measure_seconds(call), "chosen": chosen}

    return answer


def measure_seconds(call):
    """Seconds of one call; the mean of several, if it is short."""
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    repeats = min(200, int(0.05 / max(seconds, 1e-6)))
    if repeats > 1:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = (time.perf_counter() - start) / repeats
    return seconds


def torch_call(request, jit):
    import torch

    del jit
    shape = (1, 1, request["length"], FEATURES)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for _ in range(3)]
    attention = torch.nn.functional.scaled_dot_product_attention
    if not request["backward"]:

        def call():
            with torch.no_grad():
                attention(*tensors)
    else:
        for x in tensors:
            x.requires_grad_(True)

        def call():
            torch.autograd.grad(attention(*tensors).sum(), tensors)

    return call, None


def keras_call(request, jit):
    if request["row"] in STEP_ROWS:
        return step_call(request["row"].removeprefix("step "), jit)
    import numpy as np
    from keras import ops

    from keras_topo.attention import masked, masked_linear_attention

    length = request["length"]
    random = np.random.default_rng(0)
    query, key, value = [
        ops.convert_to_tensor(random.random((1, 1, length, FEATURES), "f4"))
        for _ in range(3)
    ]
    kind, _, implementation = request["row"].rpartition(" ")
    if request["row"].startswith("linear"):
        mask, implementation = None, "auto"
    else:
        mask = make_mask(kind, length, random)
    chosen = None
    if mask is not None and implementation == "auto":
        chosen = masked.choose_implementation(mask, FEATURES, FEATURES, 1, 1)

    def attend(query, key, value, *tensors):
        operator = None if mask is None else mask.with_tensors(tensors)
        return masked_linear_attention(
            query, key, value, operator, implementation=implementation
        )

    tensors = [query, key, value] + ([] if mask is None else mask.tensors())
    compiled = compile_function(attend, tensors, request["backward"], jit)
    return functools.partial(compiled, *tensors), chosen


def make_mask(kind, length, random):
    """A random mask with positive entries on a square grid."""
    from keras import ops

    from keras_topo.operators import (
        BlockToeplitz,
        ExponentialDecay,
        Kronecker,
        LowRank,
    )

    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(
            f"--lengths expects squares of integers. Received: {length}"
        )

    def tensor(*shape):
        return ops.convert_to_tensor(random.random(shape, "f4") + 0.1)

    if kind == "table":
        table = tensor(1, 2 * side - 1, 2 * side - 1)
        return BlockToeplitz(table, (side, side))
    if kind == "separable":
        terms = [[tensor(1, 2 * side - 1) for _ in range(2)]]
        return BlockToeplitz(terms, (side, side))
    if kind == "decay":
        rates = [tensor(1) / side for _ in range(2)]
        return Kronecker([ExponentialDecay(rate, side) for rate in rates])
    return LowRank(tensor(1, length, RANK), tensor(1, length, RANK))


def compile_function(function, tensors, backward, jit):
    """`function`, or the gradient of its sum, compiled for the backend.

    Calls wait for the result.
    """
    import keras
    import numpy as np

    if keras.backend.backend() == "jax":
        import jax

        def differentiated(*tensors):
            return jax.grad(
                lambda *tensors: function(*tensors).sum(),
                argnums=tuple(range(len(tensors))),
            )(*tensors)

        compiled = jax.jit(differentiated if backward else function)
        return lambda *tensors: jax.block_until_ready(compiled(*tensors))
    import tensorflow as tf

    def differentiated(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(function(*tensors))
        return tape.gradient(total, tensors)

    compiled = tf.function(
        differentiated if backward else function, jit_compile=jit
    )
    # Traced now: what tracing takes is not what a call takes.
    compiled.get_concrete_function(*tensors)

    def call(*tensors):
        for result in tf.nest.flatten(compiled(*tensors)):
            np.asarray(result)

    return call


def step_call(attention, jit):
    """One step of training of a Ti/16, on random images."""
    import keras
    import numpy as np

    from keras_topo.models import topvit

    keras.utils.set_random_seed(0)
    model = topvit(
        "Ti", 16, (224, 224, 3), num_classes=1000, attention=attention
    )
    model.compile(
        "adamw",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    images = np.random.rand(8, 224, 224, 3).astype("float32") * 255
    labels = np.arange(8)
    return lambda: model.train_on_batch(images, labels), None


if __name__ == "__main__":
    main()
