"""Models of graphs with `fit(graphs, y)` and `predict(graphs)`.

Each estimator holds a `GraphPreprocessor` and a Keras model, and takes lists
of graphs of any library.
"""

from keras_topo.estimators.classifiers import GraphClassifier, NodeClassifier
from keras_topo.estimators.regressors import GraphRegressor, NodeRegressor

__all__ = [
    "GraphClassifier",
    "GraphRegressor",
    "NodeClassifier",
    "NodeRegressor",
]
