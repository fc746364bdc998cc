"""Generating text: masks with a state against softmax with a cache.

    python -m benchmarks.sampling --json docs/sampling.json

For each number of tokens, this measures the seconds that `generate` of a
language model with random weights takes to add them to a prompt of one token,
and the tokens per second. The models have the sizes of
`training/configs/text.py`. The peer attends to a cache of all earlier keys and
values, so its cost per token grows. With a state, the cost is constant. All
models of a mode take turns, and ratios are to the peer in the same mode. A
model is left out once a call would take longer than `--limit` seconds, or has
failed.
"""

import sys

from benchmarks.harness import (
    Forecast,
    Report,
    Workers,
    format_table,
    make_parser,
    parse_names,
    prepare_and_take_turns,
    ratio_of,
    seconds_of,
)
from benchmarks.measure import answer_calls, serve

MODULE = "benchmarks.sampling"
MODES = ("tensorflow", "jax")
PEER = "softmax, cache"
#: Arguments of `causal_lm`.
MODELS = {
    PEER: {"mask": "causal", "similarity": "softmax"},
    "no mask": {"mask": "causal"},
    "decay": {"mask": "decay"},
    "gated": {"mask": "gated"},
}
SIZES = {"channels": 128, "num_heads": 4, "mlp_dim": 256, "depth": 4}
TOKENS = (100, 1_000, 10_000)


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--modes", type=parse_names(MODES), default=list(MODES))
    parser.add_argument(
        "--tokens",
        type=lambda text: [int(size) for size in text.split(",")],
        default=list(TOKENS),
        help="numbers of tokens to add, with commas between them",
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300)
    arguments = parser.parse_args()
    if arguments.worker:
        return serve(answer_calls(make_call, ("model",)))
    report = Report(
        arguments.json,
        MODULE,
        {
            name: getattr(arguments, name)
            for name in ("rounds", "threads", "batch", "limit")
        },
        MODES,
    )
    report.drop_failed()
    measure_sampling(report, arguments)
    return 0


def measure_sampling(report, arguments):
    """Adds the records that the report lacks, and prints the table."""
    with Workers(MODULE, arguments.threads) as workers:
        for mode in arguments.modes:
            forecast = Forecast(arguments.limit)
            for tokens in sorted(arguments.tokens):
                found = report.records(mode=mode, tokens=tokens)
                if not found:
                    found = measure_models(
                        workers, mode, tokens, arguments, forecast
                    )
                    report.add(found)
                for record in found:
                    forecast.learn(
                        record["model"],
                        tokens,
                        record.get("seconds", float("inf")),
                    )
    print(format_sampling(report.records()))


def measure_models(workers, mode, tokens, arguments, forecast):
    """A record for each model, in one mode and for one number of tokens."""

    def ask(name, **flags):
        request = {"model": name, "tokens": tokens, "batch": arguments.batch}
        return workers.ask(mode, {**request, **flags})

    rows = [
        name
        for name in MODELS
        if forecast.allows(name, tokens, 2 if name == PEER else 1)
    ]
    left_out = [name for name in MODELS if name not in rows]
    first, rounds, failures = prepare_and_take_turns(
        ask, rows, arguments.rounds
    )
    failures |= dict.fromkeys(left_out, "left out")
    head = {"mode": mode, "tokens": tokens}
    return [
        {
            **head,
            "model": name,
            "rounds": len(rounds),
            "seconds": seconds_of(rounds, name),
            "tokens_per_second": arguments.batch
            * tokens
            / seconds_of(rounds, name),
            "ratio": ratio_of(rounds, name, PEER),
            **first[name],
        }
        for name in rows
        if name not in failures
    ] + [
        {**head, "model": name, "failed": why} for name, why in failures.items()
    ]


def format_sampling(records):
    """A table per mode: tokens per second, and time relative to the peer."""
    return "\n".join(
        f"\nSampling, {mode}: tokens per second (time / {PEER}):\n\n"
        + format_mode(records, mode)
        for mode in dict.fromkeys(r["mode"] for r in records)
    )


def format_mode(records, mode):
    """The table of one mode."""
    records = [r for r in records if r["mode"] == mode]
    sizes = sorted({r["tokens"] for r in records})
    cells = {(r["model"], r["tokens"]): format_cell(r) for r in records}
    rows = [
        [name, *(cells.get((name, size), "") for size in sizes)]
        for name in MODELS
    ]
    header = ["", *(f"{size:,} tokens" for size in sizes)]
    return format_table(header, rows, markdown=True)


def format_cell(record):
    if "failed" in record:
        return record["failed"].strip().splitlines()[-1]
    ratio = f" ({record['ratio']:.2f})" if record["ratio"] else ""
    return f"{record['tokens_per_second']:,.0f}{ratio}"


def make_call(request):
    """A call that adds tokens to a prompt of one, and the facts."""
    import keras
    import numpy as np

    from keras_topo.models import causal_lm

    keras.utils.set_random_seed(0)
    model = causal_lm(256, **SIZES, seed=0, **MODELS[request["model"]])
    prompt = np.zeros((request["batch"], 1), "int32")

    def call():
        # The tokens are on the host, so the call has finished.
        return np.asarray(
            model.generate(prompt, request["tokens"], top_k=40, seed=0)
        )

    return call, {"parameters": model.count_params()}


if __name__ == "__main__":
    sys.exit(main())
