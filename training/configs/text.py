"""Language models of the Python standard library, byte by byte.

    python -m training.train text --out runs/text
    python -m training.train text --variant softmax --seed 1 \\
        --results runs/text.jsonl --out runs/text-softmax-1

Variants are models of one size that differ in what a token attends to: linear
attention with the masks `decay`, `gated`, `table` and `causal` (no mask but
causality), and softmax attention with learned positions (`softmax`) or with a
decay as its bias (`softmax-decay`). `causal` has learned positions, too: it
would know no order without them.

A run is 3,000 updates of 8 x 256 bytes. On the sources of Python 3.11.7, with
seed 0, the test files take 1.518 bits per byte with `softmax-decay`, 1.636
with `softmax`, 1.692 with `table`, 1.713 with `gated` (1.656 with `--similarity
hedgehog`), 1.748 with `decay` and 2.603 with `causal`, after 14 to 36 minutes
of training (results/text). Another version of Python has other sources.
"""

from keras_topo.training.tasks.text import TextSettings

config = TextSettings(
    epochs=10,
    updates_per_epoch=300,
    batch_size=8,
    learning_rate=2e-3,
    warmup_epochs=1,
    weight_decay=0.05,
)

variants = {
    "decay": {},
    "gated": {"mask": "gated"},
    "table": {"mask": "table"},
    "causal": {"mask": "causal", "positions": "learned"},
    "softmax": {
        "mask": "causal",
        "similarity": "softmax",
        "positions": "learned",
    },
    "softmax-decay": {"similarity": "softmax"},
}
