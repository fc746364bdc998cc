# %% [markdown]
# # Softmax to linear attention
#
# `keras_topo.linearize` takes a trained model with softmax attention and returns the same
# model with masked linear attention. It keeps all weights and adds a feature map and a mask
# to each attention layer. The new model then learns from the old one, with a tenth of the
# updates of the original training.
#
# ## A teacher
#
# The teacher can be any functional model of `TopologicalEncoderBlock`s with softmax
# attention: one from `topvit(attention="softmax")`, or one converted from another library
# by `keras_topo.convert`. This one learns the digits of scikit-learn in thirty epochs of 45
# updates:

# %%
import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_topo

digits = load_digits()
images = (digits.images * 255 / 16).astype("float32")[..., None]
x, test_x, y, test_y = train_test_split(
    images, digits.target, test_size=0.2, random_state=0
)
keras.utils.set_random_seed(0)
teacher = keras_topo.models.topvit(
    (32, 2, 64, 2), patch_size=2, image_shape=(8, 8, 1), attention="softmax"
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(x, y, epochs=30, verbose=0)
print(teacher.evaluate(test_x, test_y, verbose=0)[1])  # above 0.93

# %% [markdown]
# ## A student
#
# The default feature map is `"hedgehog"`, exponentials of a small learned projection (Zhang
# et al., 2024). The default mask is a table that starts as decays of several scales. The
# teacher has no mask, so a table of ones is a better start here. Before training, the
# accuracy is low:

# %%
student = keras_topo.linearize(
    teacher, keras_topo.masks.TableMask(initial="ones")
)
student.compile(loss=loss, metrics=["accuracy"])
print(student.evaluate(test_x, test_y, verbose=0)[1])  # below 0.8

# %% [markdown]
# - `feature_map="elu", magnitude_aware=True` makes linear attention depend on the magnitude
#   of the queries, as softmax does (MALA, Fan et al., 2025).
# - `mask="decay"` has a constant cost per token.
# - `blocks=[1]` converts only these blocks.
#
# ## Three stages
#
# `Distillation` is a model that wraps both and trains the student. The teacher is frozen:
#
# | stage | what is matched | what is trained |
# |---|---|---|
# | `attention` | the attention of each block, on the hidden states of the teacher | the attention of the changed blocks |
# | `features` | hidden states after each block, and softened logits | everything |
# | `labels` | labels, and softened logits | everything |
#
# One epoch per stage adds up to a tenth of the teacher's updates:

# %%
from keras_topo.linearize import STAGES, Distillation

for stage in STAGES:
    model = Distillation(teacher, student, stage)
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit(x, y, epochs=1, verbose=0)
print(student.evaluate(test_x, test_y, verbose=0)[1])  # above 0.92

# %% [markdown]
# On 360 digits the accuracy of the teacher is 95.6%. That of the student is 41.1% before
# the distillation and 94.4% after it.
#
# The student is an ordinary model and works with `keras_topo.save_preset`,
# `keras_topo.export` and `from_preset(image_shape=)`.
#
# ## On the command line
#
# The training script does the same, and adds progress lines, checkpoints for resuming after
# a kill, and the accuracy after each stage. `--budget 0.1` sets the number of updates as a
# share of the teacher's, which it reads from the teacher's `metrics.json`. `--updates A F
# L` sets the updates of each stage instead.
#
# ```sh
# python -m training.train images --data-dir DIR --attention softmax \
#   --out runs/cifar-softmax
# python -m training.train linearize --from runs/cifar-softmax --data-dir DIR \
#   --out runs/cifar-linear
# ```
