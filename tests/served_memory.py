"""Run in a process of its own: growth of its peak memory, in MiB.

    python served_memory.py SAVED_MODEL REQUEST ...

Each `REQUEST` is a file of a pickled pair: the name of a signature and a dict
of arrays. Prints a line for each: the growth over what the process took after
a first request, the bytes of the request, and how it was answered. Nothing is
imported but TensorFlow.
"""

import pickle
import resource
import sys

import tensorflow as tf


def peak():
    """Of the whole life of the process, in MiB (kilobytes, but on macOS)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def ask(signatures, file):
    with open(file, "rb") as opened:
        name, inputs = pickle.load(opened)
    size = sum(
        sum(map(len, x)) if x.dtype == object else x.nbytes
        for x in inputs.values()
    )
    try:
        answer = signatures[name](
            **{key: tf.constant(x) for key, x in inputs.items()}
        )
        said = sorted(answer)
    except tf.errors.InvalidArgumentError as error:
        said = f"refused: {error.message[:200]}"
    return size, said


def main():
    folder, first, *files = sys.argv[1:]
    signatures = tf.saved_model.load(folder).signatures
    ask(signatures, first)
    before = peak()
    for file in files:
        size, said = ask(signatures, file)
        print(f"{peak() - before:.0f} {size} {said}", flush=True)
    assert "keras_topo" not in sys.modules


if __name__ == "__main__":
    main()
