"""Tasks of `training.train`: one file each.

A task is a class that says what is trained on what; see `Task`.
`keras_topo.training.tasks.text` is an example to copy.
"""


class Task:
    """What a training asks of a task.

    `training.train` makes one of the settings of a run, and asks it for all
    that it does not know itself. A task reads its data when it is made.

    Args:
        settings: instance of the task's dataclass, a
            `keras_topo.training.settings.Settings`.
        split: dict from `"train"`, `"validation"` and `"test"` to ids of
            items, or `None` for the task's own.

    Attributes:
        name: str, goes into `metrics.json`.
        contents: dict from names of files that `finish` writes to what they
            hold.
        monitor: the metric by which epochs and settings are chosen, and
            whether more of it is better.
        tie_breaker: a metric, less of which is better, that chooses between
            epochs of equal `monitor`; `None`: the first of them counts.
        shares_batches: bool, whether several devices can share out a batch.
        is_quick: bool, whether an epoch is too short for a line of output.
        seconds_between_checkpoints: float, at least.
        facts: dict of values of JSON, what identifies the data. Compared when
            a run resumes, so it never goes on with other data.
        title: str, one line, for pictures.
        steps_per_epoch: int.
        first_epoch: int, finished epochs after which the training begins: 0 but
            in a later stage.
        num_training: int, training examples; `None` for many.

    Raises:
        ValueError: if the data cannot be read, or do not fit the settings.
    """

    name = None
    contents = {}
    monitor = ("accuracy", True)
    tie_breaker = None
    shares_batches = False
    is_quick = False
    first_epoch = 0
    seconds_between_checkpoints = 0.0

    def __init__(self, settings, split=None):
        if split is not None:
            raise ValueError(
                f"--splits expects a task that folds are made for. Received: "
                f"a task of {self.name}"
            )
        self.settings = settings
        self.facts, self.title, self.steps_per_epoch = {}, "", 1
        self.num_training = None

    @classmethod
    def labels(cls, settings):
        """The classes of all items, from which folds are drawn, `(items,)`."""
        raise ValueError(
            "--splits expects a task that folds are made for. Received: a "
            f"task of {cls.name}"
        )

    def describe(self):
        """Lines about the data, a str."""
        return ""

    def build_model(self):
        """An untrained Keras model, the same one each time: the global seed
        was set before."""
        raise NotImplementedError

    def compile(self, model, jit_compile):
        """Compiles a model for training."""
        raise NotImplementedError

    def stages(self, model, finished):
        """Trainings that a run is made of, one after the other.

        Args:
            model: what `build_model` returned.
            finished: int, epochs of the run that are finished. Stages that
                ended before are left out; the one that ended there is not, for
                the weights are in its checkpoint.

        Returns:
            An iterable of pairs of a task, whose `settings.epochs` is its last
            epoch, and the model that it compiles and fits. The epochs of all
            stages are counted through.
        """
        return [(self, model)]

    def training_data(self, start_epoch):
        """What `fit` takes: batches of the epochs from `start_epoch`, counted
        from 0, to the last one.

        They depend on the seed and the epoch only: then a run that was
        interrupted resumes on the batches that it would have seen.
        """
        raise NotImplementedError

    def validation_data(self):
        """What `fit` takes for validation; or `None`."""
        raise NotImplementedError

    def callbacks(self):
        """More callbacks for `fit`, a list."""
        return []

    def evaluate(self, model, parts=("validation", "test")):
        """Metrics of a compiled model.

        Args:
            model: the model.
            parts: names of the data, `"validation"`, `"test"` or both; what is
                not named is not looked at.

        Returns:
            A dict of floats such as `validation_accuracy`, `test_accuracy`.
        """
        raise NotImplementedError

    def finish(self, folder, model, untrained):
        """Writes the preset, exports and draws.

        Args:
            folder: `pathlib.Path`, of the run.
            model: the trained model as it is used, without an optimizer.
            untrained: the same before training.

        Returns:
            A dict of values of JSON for `metrics.json`.
        """
        return {}

    def count_steps(self):
        """Batches of an epoch, an int."""
        return self.steps_per_epoch or 1

    def final_weights(self, model, untrained):
        """The weights that are kept of a trained model, a list."""
        return model.get_weights()

    def report(self, summary):
        """The result in one sentence."""
        return f"Test accuracy {summary['test_accuracy']:.2%}"
