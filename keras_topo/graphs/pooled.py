"""`pooled_features`: graphs as vectors, for classifiers of vectors."""

from collections.abc import Sequence

import numpy as np

from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.preprocessor import GraphPreprocessor
from keras_topo.typing import AnyGraph


def pooled_features(
    graphs: Sequence[AnyGraph] | GraphDataset, preprocessor: GraphPreprocessor
) -> np.ndarray:
    """One vector a graph: mean, deviation and maximum of node features, size.

    What a classifier such as a support vector machine makes of it is an honest
    baseline: a model of graphs that is no better has learned nothing from
    their structure. For that the preprocessor is to take none either, hence
    `degrees=False` and `return_steps=0` in the example. Nodes without labels
    and features have a one then, and only the size of a graph tells it from
    others.

    Args:
        graphs: list of graphs of any library, or a `GraphDataset`.
        preprocessor: `GraphPreprocessor`, adapted.

    Returns:
        `(graphs, 3 num_features + 1)`, float32: means, standard deviations
        (divided by the number of nodes), maxima, and the logarithm of the
        number of nodes.

    Raises:
        ValueError: before `adapt`, or if a graph lacks what those of `adapt`
            had, or has values that are not known.

    *Complexity*: `O(nodes num_features)` beside the node features.

    Example:

    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.svm import SVC
    >>> preprocessor = GraphPreprocessor(degrees=False, return_steps=0)
    >>> preprocessor.adapt(train)
    >>> classifier = make_pipeline(StandardScaler(), SVC())
    >>> classifier.fit(pooled_features(train, preprocessor), y)
    >>> classifier.predict(pooled_features(others, preprocessor))
    array([1, 0])
    """
    pooled = []
    for x in preprocessor.node_features(preprocessor.read(graphs)):
        x = x.astype("float64")
        size = [np.log(len(x))]
        pooled.append(np.concatenate([x.mean(0), x.std(0), x.max(0), size]))
    if not pooled:
        return np.zeros((0, 3 * preprocessor.num_features + 1), "float32")
    return np.array(pooled, "float32")
