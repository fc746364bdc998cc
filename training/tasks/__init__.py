"""Tasks of `training.train`: one file each.

A task is a class that defines the data, the model and the evaluation; see
`Task`. `keras_topo.training.tasks.text` is an example to copy.
"""


class Task:
    """The interface between `training.train` and a task.

    `training.train` creates a task from the settings of a run. A task reads its
    data when it is created.

    Args:
        settings: instance of the task's dataclass, a
            `keras_topo.training.settings.Settings`.
        split: dict from `"train"`, `"validation"` and `"test"` to ids of
            items, or `None` for the task's own.

    Attributes:
        name: str, recorded in `metrics.json`.
        contents: dict from names of files that `finish` writes to their
            descriptions.
        monitor: the metric for choosing epochs and settings, and whether
            larger is better.
        tie_breaker: a metric, smaller is better, that chooses between epochs
            of equal `monitor`; `None` chooses the first of them.
        shares_batches: bool, whether a batch can be split between devices.
        is_quick: bool, whether an epoch is too short for a line of output.
        seconds_between_checkpoints: float, a minimum.
        facts: dict of JSON values that identifies the data. It is compared
            when a run resumes, so a run never continues on other data.
        title: str, one line, for plots.
        steps_per_epoch: int.
        first_epoch: int, finished epochs before this training starts; 0 except
            in later stages.
        num_training: int, training examples; `None` if not limited.

    Raises:
        ValueError: if the data cannot be read, or do not match the settings.
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
                f"--splits expects a task that supports folds. Received: "
                f"a task of {self.name}"
            )
        self.settings = settings
        self.facts, self.title, self.steps_per_epoch = {}, "", 1
        self.num_training = None

    @classmethod
    def labels(cls, settings):
        """The classes of all items, `(items,)`, for drawing folds."""
        raise ValueError(
            "--splits expects a task that supports folds. Received: a task of "
            f"{cls.name}"
        )

    def describe(self):
        """Lines about the data, a str."""
        return ""

    @classmethod
    def decided(cls, settings, others):
        """Settings that the data decide, the same for runs to be compared.

        Args:
            settings: `Settings` of one of the runs.
            others: list of the `Settings` of all of them.

        Returns:
            A dict from names of settings to values.

        Raises:
            ValueError: if nothing suits all of the runs.
        """
        return {}

    def build_model(self):
        """An untrained Keras model, the same each time: the caller sets the
        global seed before."""
        raise NotImplementedError

    def compile(self, model, jit_compile):
        """Compiles a model for training."""
        raise NotImplementedError

    def stages(self, model, finished):
        """The stages of a run, in order.

        Args:
            model: the model from `build_model`.
            finished: int, number of finished epochs. Stages that ended earlier
                are skipped. A stage that ended exactly there is not skipped,
                because its checkpoint holds the weights.

        Returns:
            An iterable of pairs: a task, whose `settings.epochs` is its last
            epoch, and the model that it compiles and fits. Epochs are counted
            across stages.
        """
        return [(self, model)]

    def training_data(self, start_epoch):
        """Training batches for `fit`, from `start_epoch` (counted from 0) to
        the last epoch.

        Batches must depend only on the seed and the epoch, so that a resumed
        run gets the same batches as an uninterrupted one.
        """
        raise NotImplementedError

    def validation_data(self):
        """Validation data for `fit`, or `None`."""
        raise NotImplementedError

    def callbacks(self):
        """Additional callbacks for `fit`, a list."""
        return []

    def evaluate(self, model, parts=("validation", "test")):
        """Metrics of a compiled model.

        Args:
            model: the model.
            parts: `"validation"`, `"test"` or both; other data are not read.

        Returns:
            A dict of floats such as `validation_accuracy`, `test_accuracy`.
        """
        raise NotImplementedError

    def finish(self, folder, model, untrained):
        """Writes the preset, exports and plots.

        Args:
            folder: `pathlib.Path` of the run.
            model: the trained model, without an optimizer.
            untrained: the same model before training.

        Returns:
            A dict of JSON values for `metrics.json`.
        """
        return {}

    def count_steps(self):
        """Batches per epoch, an int."""
        return self.steps_per_epoch or 1

    def final_weights(self, model, build):
        """The weights of a trained model that are kept, a list.

        Args:
            model: the trained model.
            build: function that returns the model before training.
        """
        return model.get_weights()

    def report(self, summary):
        """The result in one sentence."""
        return f"Test accuracy {summary['test_accuracy']:.2%}"
