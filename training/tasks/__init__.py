"""Tasks of `training.train`: one file each.

A task is a class that says what is trained on what. `training.train` makes one
from the arguments of a run and asks it for all that it does not know itself:

    class Task:
        name = "text"                   # goes into metrics.json
        parsers = {"length": positive_int, ...}  # makes values of texts
        contents = {"sample.txt": "what it holds"}

        def __init__(self, arguments):
            # Reads the data. Arguments that cannot be are a ValueError.
            self.facts = {...}          # what identifies the data, for JSON
            self.title = "..."          # one line, for pictures
            self.steps_per_epoch = 300

        def describe(self): ...         # lines about the data, as text
        def build_model(self): ...      # an untrained Keras model
        def compile_arguments(self): ...  # loss, weighted_metrics
        def training_data(self, start_epoch): ...
        def validation_data(self): ...
        def evaluate(self, model): ...  # a dict of results, for metrics.json
        def finish(self, folder, model): ...  # writes the files of `contents`
        def report(self, summary): ...  # the result in one sentence

`training_data(start_epoch)` has the batches of the epochs from `start_epoch`,
counted from 0, to the last one. They must depend on the seed and the epoch
only: then a run that was interrupted resumes on the batches that it would have
seen. `facts` are compared when a run resumes, so it never goes on with other
data. `model` of `evaluate` is compiled; that of `finish` is the bare model, as
it is saved in `model.keras`. `loss` and `accuracy` are drawn as curves.

`keras_topo.training.tasks.text.Text` is an example to copy.
"""
