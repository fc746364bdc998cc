"""Memory of masked attention: a million tokens, and explicit scores on grids.

    python -m benchmarks.training_memory --json FILE

Two measurements, each in fresh processes on Linux; also `python -m
benchmarks.attention --memory-training`.

- One forward and backward step of attention with a decay, 1,048,576 tokens,
  one head, m = d = 64, in every mode: the peak memory of the process, including
  inputs and gradients of queries, keys and values.
- The explicit implementation with a table, forward, 4,096 tokens, m = d = 8:
  the growth of the resident set in the first call, which compiles, on grids of
  several shapes.
"""

import sys

from benchmarks.harness import (
    MODES,
    Report,
    WorkerError,
    Workers,
    add_modes,
    format_table,
    make_parser,
)
from benchmarks.measure import (
    compile_call,
    measure_growth,
    memory_status,
    serve,
)

MODULE = "benchmarks.training_memory"
TOKENS = 2**20
#: Batch, heads and grid of the explicit calls.
GRIDS = (
    (1, 1, (64, 64)),
    (1, 1, (1, 4096)),
    (4, 4, (1, 4096)),
    (4, 4, (4, 32, 32)),
)


def main():
    parser = make_parser(__doc__, rounds=1)
    add_modes(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        jit = arguments.worker == "xla"
        return serve(lambda request: measure(request, jit))
    report = Report(
        arguments.json,
        MODULE,
        {"threads": arguments.threads},
        MODES,
        ("training_memory",),
    )
    measure_memory(report, arguments)
    return 0


def measure_memory(report, arguments):
    """Adds the records that the report lacks, and prints the table."""
    requests = [{"shape": [1, 1, TOKENS, 64], "backward": True}]
    requests += [
        {"shape": [batch, heads, 4096, 8], "grid": list(grid)}
        for batch, heads, grid in GRIDS
    ]
    with Workers(MODULE, arguments.threads) as workers:
        for request in requests:
            for mode in arguments.modes:
                fields = {"mode": mode, **request}
                if report.records("training_memory", **fields):
                    continue
                try:
                    found = workers.ask_fresh(mode, request)
                except WorkerError as error:
                    found = {"failed": str(error)}
                report.add([{**fields, **found}], "training_memory")
    print(format_memory(report.records("training_memory")))


def format_memory(records):
    rows = []
    for r in records:
        batch, heads, tokens, features = r["shape"]
        what = f"{batch} x {heads} x {tokens:,} x {features}"
        if "grid" in r:
            what += f", explicit on {tuple(r['grid'])}"
        else:
            what += ", decay, forward + backward"
        if "failed" in r:
            reason = r["failed"].strip().splitlines()[-1]
            rows.append([what, r["mode"], "", reason])
            continue
        numbers = [r["growth"], r["resident"]]
        rows.append([what, r["mode"], *(f"{n:,.0f} MB" for n in numbers)])
    header = ["", "mode", "growth", "resident at most"]
    return "\n" + format_table(header, rows, markdown=True, left=2)


# The process that measures.


def measure(request, jit):
    """The growth of the resident set in a call, and its peak, in megabytes."""
    import numpy as np
    from keras import ops

    from keras_topo.attention import masked_linear_attention
    from keras_topo.operators import BlockToeplitz, ExponentialDecay

    random = np.random.default_rng(0)
    batch, heads, tokens, features = request["shape"]

    def tensor(*shape):
        return ops.convert_to_tensor(random.random(shape, "float32"))

    tensors = [tensor(batch, heads, tokens, features) for _ in range(3)]
    backward = request.get("backward", False)
    if backward:
        mask = ExponentialDecay(tensor(heads) + 0.01, tokens)
        implementation = "auto"
    else:
        grid = request["grid"]
        mask = BlockToeplitz(tensor(heads, *(2 * n - 1 for n in grid)), grid)
        implementation = "explicit"

    def attend(query, key, value, *parameters):
        return masked_linear_attention(
            query,
            key,
            value,
            mask.with_tensors(list(parameters)),
            implementation=implementation,
        )

    tensors += mask.tensors()
    call = compile_call(attend, tensors, backward, jit)
    return {
        "growth": measure_growth(call),
        "resident": memory_status("VmHWM"),
    }


if __name__ == "__main__":
    sys.exit(main())
