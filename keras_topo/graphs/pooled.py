"""`pooled_features`: graphs as vectors, for classifiers of vectors."""

from collections.abc import Sequence

import numpy as np

from keras_topo.annotations import AnyGraph
from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.preprocessor import GraphPreprocessor


def pooled_features(
    graphs: Sequence[AnyGraph] | GraphDataset, preprocessor: GraphPreprocessor
) -> np.ndarray:
    """One vector per graph: mean, deviation and maximum of node features, size.

    A classifier of these vectors, such as a support vector machine, is an
    honest baseline: a model of graphs that is no better has learned nothing
    from their structure. The preprocessor must not use the structure either,
    hence `degrees=False` and `return_steps=0` in the example. Nodes without
    labels and features then have a single one as their feature, and only the
    size of a graph tells it from others.

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

    >>> from keras_topo.graphs import GraphPreprocessor, motif_dataset
    >>> from sklearn.svm import SVC
    >>> train, test, _ = motif_dataset("cycle", sizes=(8, 4, 1))
    >>> preprocessor = GraphPreprocessor(degrees=False, return_steps=0)
    >>> vectors = pooled_features(train, preprocessor.adapt(train))
    >>> classifier = SVC().fit(vectors, train.labels)
    >>> classifier.predict(pooled_features(test, preprocessor)).shape
    (8,)
    """
    pooled = []
    for x in preprocessor.node_features(preprocessor.read(graphs)):
        x = x.astype("float64")
        size = [np.log(len(x))]
        pooled.append(np.concatenate([x.mean(0), x.std(0), x.max(0), size]))
    if not pooled:
        return np.zeros((0, 3 * preprocessor.num_features + 1), "float32")
    return np.array(pooled, "float32")
