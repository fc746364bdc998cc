"""The process of a benchmark that measures.

`serve` answers the requests of a `benchmarks.harness.Worker`. Each process
imports only the framework of its kind.
"""

import ctypes
import gc
import json
import os
import statistics
import sys
import time
import traceback
from pathlib import Path


def serve(answer):
    """Answers requests, one JSON line each, until standard input ends.

    An exception becomes the answer to its request and does not end the process.

    Args:
        answer: function from a request, a dict, to an answer, another.
    """
    use_cores(num_threads())
    # Frameworks may print on import; keep that apart from the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception:
            found = {"exception": traceback.format_exc(limit=-3)}
        answers.write(json.dumps(found) + "\n")
        answers.flush()
    return 0


def num_threads():
    return int(os.environ.get("BENCHMARK_THREADS", "1"))


def use_cores(count):
    """Confines the process to its first cores, where the system can.

    It is the one setting that all frameworks follow: XLA has as many threads
    as there are cores.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:count])


class Kept(dict):
    """What was prepared for one group of requests, and only that: what is
    kept takes memory, while others measure."""

    def __init__(self):
        super().__init__()
        self._group = None

    def enter(self, group):
        """Drops the contents of another group."""
        if self._group != group:
            self.clear()
            release_memory()
            self._group = group


def answer_calls(make, group):
    """Answers for benchmarks of calls.

    A request with `"prepare"` makes the call and calls it once: the answer has
    what that took, `"first"`, and the facts. One with `"memory"` answers by
    how many megabytes the resident set grows in the first call. Any other one
    answers `"seconds"`.

    Args:
        make: function from a request to `(call, facts)`. The call is without
            arguments and waits for its result; the facts are a dict.
        group: names of the fields of a request that are the same in a group.
    """
    kept = Kept()

    def answer(request):
        flags = ("prepare", "memory")
        fields = {k: v for k, v in request.items() if k not in flags}
        kept.enter(json.dumps([fields[name] for name in group]))
        key = json.dumps(fields, sort_keys=True)
        found = {}
        if key not in kept:
            call, facts = make(fields)
            if request.get("memory"):
                return {"megabytes": measure_growth(call), **facts}
            found = {"first": _time(call), **facts}
            kept[key] = call
        if not request.get("prepare"):
            found["seconds"] = measure_seconds(kept[key])
        return found

    return answer


def measure_seconds(call, span=0.06):
    """Seconds of one call: the median of as many, up to 200, as fit in
    `span` seconds, and of one at least.

    The first call of a turn finds the caches as others left them. It does not
    count, unless it is long, when that matters less and time more.
    """
    seconds = [_time(call)]
    if seconds[0] < 5 * span:
        seconds = []
        began = time.perf_counter()
        while not seconds or (
            len(seconds) < 200 and time.perf_counter() - began < span
        ):
            seconds.append(_time(call))
    return statistics.median(seconds)


def _time(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_growth(call):
    """The largest growth of the resident set during a call, in megabytes."""
    gc.collect()
    # Resets the high-water mark.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_status("VmRSS")
    call()
    return memory_status("VmHWM") - before


def memory_status(field):
    """A field of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {field}")


def release_memory():
    """Returns free memory to the system while other processes measure."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def compile_call(function, tensors, backward=False, jit=False):
    """A call without arguments of a function that is compiled for the backend.

    The call waits for its results and returns them, uncopied.

    Args:
        function: from tensors to a tensor, in `keras.ops`.
        tensors: list of its arguments.
        backward: bool; the gradients of the sum of the result with respect to
            all floating arguments take its place.
        jit: bool, through XLA (TensorFlow; JAX always is).
    """
    import keras

    floating = [
        k
        for k, x in enumerate(tensors)
        if keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(x.dtype)
        )
    ]
    if keras.backend.backend() == "jax":
        return _compile_jax(function, tensors, backward and floating)
    return _compile_tensorflow(function, tensors, backward and floating, jit)


def _compile_jax(function, tensors, sources):
    """`sources`: places of the arguments that have gradients, or `False`."""
    import jax

    def differentiated(*tensors):
        return jax.grad(lambda *x: function(*x).sum(), sources)(*tensors)

    compiled = jax.jit(differentiated if sources else function)
    return lambda: jax.block_until_ready(compiled(*tensors))


def _compile_tensorflow(function, tensors, sources, jit):
    import tensorflow as tf

    def differentiated(*tensors):
        watched = [tensors[k] for k in sources]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            total = tf.reduce_sum(function(*tensors))
        return tape.gradient(total, watched)

    compiled = tf.function(
        differentiated if sources else function,
        jit_compile=jit,
        autograph=False,
    )
    # Trace now, so that a call does not include tracing.
    compiled.get_concrete_function(*tensors)

    def call():
        results = compiled(*tensors)
        for result in tf.nest.flatten(results, expand_composites=True):
            if result is not None:
                memoryview(result)  # Waits, without a copy.
        return results

    return call
