"""Run in a process of its own: growth of its peak memory, in MiB.

    python served_memory.py SAVED_MODEL REQUEST ...

Each `REQUEST` is a file of a pickled pair: the name of a signature and a dict
of arrays. Prints a line for each: the growth over what the process holds after
a first request, the bytes of the request, and how it was answered. Nothing is
imported but TensorFlow. For Linux.
"""

import pickle
import sys

import tensorflow as tf


def held(which):
    """`VmRSS`, or its peak `VmHWM`, in MiB."""
    with open("/proc/self/status") as status:
        (line,) = [line for line in status if line.startswith(which)]
    return int(line.split()[1]) / 2**10


def forget_peak():
    """Resets the peak: loading a model takes more memory than it keeps."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


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
    forget_peak()
    before = held("VmRSS")
    for file in files:
        size, said = ask(signatures, file)
        print(f"{held('VmHWM') - before:.0f} {size} {said}", flush=True)
    assert "keras_topo" not in sys.modules


if __name__ == "__main__":
    main()
