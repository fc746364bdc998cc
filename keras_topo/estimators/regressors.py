"""`GraphRegressor` and `NodeRegressor`."""

from typing import Any

import numpy as np

from keras_topo.estimators.base import Found, GraphEstimator, Graphs
from keras_topo.estimators.losses import (
    KnownAbsoluteError,
    KnownSquaredError,
    StandardizedSquaredError,
)


class _Regressor(GraphEstimator[Found]):
    #: Mean and deviation of each target, two lists, once they are known.
    statistics: Any = None
    _outputs = "regression"

    def _targets(self, graphs, y):
        targets = super()._targets(graphs, y)
        if targets is None:
            return None
        # Whole numbers are numbers, not classes; a single one is a vector.
        shape = (-1,) if self.level == "graphs" else (-1, 1)
        arrays = []
        for k, target in enumerate(targets):
            if target is None:
                arrays.append(None)
                continue
            try:
                array = np.asarray(target, "float32")
            except (TypeError, ValueError):
                raise ValueError(
                    f"`y` expects numbers. Received: y[{k}]={target!r}"
                ) from None
            if self.level == "graphs" and array.ndim == 2 and len(array) == 1:
                array = array[0]  # As in PyTorch Geometric.
            if np.isinf(array).any() or array.ndim > len(shape):
                raise ValueError(
                    "`y` expects finite numbers, or NaN where unknown, "
                    + ("one" if self.level == "graphs" else "one row")
                    + f" or several for each of the {self.level}. Received: "
                    f"y[{k}] of shape {array.shape}"
                    + ", with infinity"
                    * bool(np.isinf(array).any())
                )
            short = array.ndim < len(shape)
            arrays.append(array.reshape(shape) if short else array)
        return arrays

    def _prepare(self, targets):
        values = targets.values
        if targets.of_nodes:
            known = np.concatenate(targets.known) > 0
            values = np.concatenate(values)[known]
        unknown = np.isnan(values).all(axis=0)
        if unknown.any():
            raise ValueError(
                "`y` expects a known number in each column. Received: only "
                f"NaN in column {int(np.argmax(unknown))}"
            )
        mean = np.nanmean(values, axis=0, dtype="float64")
        deviation = np.nanstd(values, axis=0, dtype="float64")
        self.statistics = (
            mean.tolist(),
            np.where(deviation > 0, deviation, 1.0).tolist(),
        )
        return values.shape[1]

    def predict(self, graphs: Graphs) -> Found:
        """Numbers, `(graphs,)` or `(graphs, values)`; for nodes a list."""
        outputs = self.predict_raw(graphs)
        if len(self.statistics[0]) > 1:
            return outputs
        return self._each(lambda x: x[:, 0], outputs)

    def _model_options(self):
        return {"target_statistics": self.statistics}

    def _loss(self):
        return StandardizedSquaredError(self.statistics[1])

    def _metrics(self):
        return [
            KnownAbsoluteError("mean_absolute_error"),
            KnownSquaredError("mean_squared_error"),
        ]

    def _state(self):
        return {"statistics": self.statistics}

    def _restore(self, saved):
        self.statistics = saved.get("statistics")


class GraphRegressor(_Regressor[np.ndarray]):
    """Predicts numbers of graphs: see `GraphClassifier`.

    `y` is a number per graph, or a vector of them with NaN where unknown.
    Predictions and metrics are in the units of `y`. The loss is the squared
    error in standard deviations of the training targets, so that no unit is
    too large or too small to learn.

    Example:

    >>> import networkx
    >>> stars = [networkx.star_graph(n) for n in range(3, 11)]
    >>> degrees = [float(n) for n in range(3, 11)]
    >>> regressor = GraphRegressor(model="gin", epochs=2, depth=1, verbose=0)
    >>> regressor.fit(stars, degrees).predict(stars).shape
    (8,)
    """

    task, level = "regression of graphs", "graphs"


class NodeRegressor(_Regressor[list[np.ndarray]]):
    """Predicts numbers of the nodes of many graphs: see `GraphRegressor`.

    `y` is an array per graph, `(nodes,)` or `(nodes, values)`, NaN where
    unknown: these values do not count.

    Example:

    >>> import networkx
    >>> paths = [networkx.path_graph(n) for n in (4, 5, 6)]
    >>> places = [np.linspace(0, 1, len(path)) for path in paths]
    >>> regressor = NodeRegressor(model="gin", epochs=2, depth=1, verbose=0)
    >>> predicted = regressor.fit(paths, places).predict(paths)
    >>> [values.shape for values in predicted]
    [(4,), (5,), (6,)]
    """

    task, level = "regression of nodes", "nodes"
