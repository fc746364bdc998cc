"""The mutants of `tests/mutants.py`: what is replaced by what, and which tests
notice it. `tests/test_mutants.py` checks that each of them still applies."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """An error to put into the code.

    Attributes:
        name: what is wrong with it.
        file: path from the root of the repository.
        source: text that the file has once.
        replacement: what stands there instead.
        tests: paths of tests, at least one of which is to fail; what is
            likely to fail comes first.
    """

    name: str
    file: str
    source: str
    replacement: str
    tests: tuple


def _group(file, *tests):
    """Makes the mutants of one file."""

    def add(name, source, replacement):
        assert name not in {mutant.name for mutant in MUTANTS}, name
        MUTANTS.append(Mutant(name, file, source, replacement, tests))

    return add


MUTANTS = []

# Graphs and what they are read from.

add = _group(
    "keras_topo/graphs/graph.py",
    "tests/graphs/test_graph.py",
    "tests/graphs/test_conversions.py",
)
add(
    "graph: edges listed once are not symmetrised",
    "        if not directed:\n            other = ends",
    "        if directed is None:\n            other = ends",
)
add(
    "graph: features of edges of weight 0 stay",
    "kept = last[weights[last] != 0]",
    "kept = last",
)
add(
    "graph: of repeated edges the first counts",
    "last, which = len(keys) - 1 - last, which[::-1]",
    "last, which = np.unique(keys, return_index=True, return_inverse=True)[1:]",
)
add(
    "graph: features of permuted edges are those of their neighbors",
    "value[numbers.data - 1]",
    "value[numbers.data - 2]",
)
add(
    "graph: rows are permuted, columns are not",
    "adjacency=self.adjacency[order][:, order]",
    "adjacency=self.adjacency[order]",
)

add = _group(
    "keras_topo/graphs/tu_dataset.py", "tests/graphs/test_graph_datasets.py"
)
add(
    "archives: edges listed once are not symmetrised",
    "            if not directed:\n",
    "            if directed is None:\n",
)

add = _group(
    "keras_topo/graphs/conversions.py", "tests/graphs/test_conversions.py"
)
add(
    "conversions: of parallel edges the last counts",
    "weights.get(pair, 0) + value",
    "value",
)
add(
    "conversions: rows of edge_index are cut into pairs",
    "edges = _array(data.edge_index).T",
    "edges = _array(data.edge_index).reshape(-1, 2)",
)

# The cache of kernels.

add = _group("keras_topo/graphs/cache.py", "tests/graphs/test_cache.py")
add(
    "cache: key without the dtype",
    "code_key(kernel, options, dtype, len(graphs))",
    "code_key(kernel, options, len(graphs))",
)
add(
    "cache: key without options",
    "code_key(kernel, options, dtype, len(graphs))",
    "code_key(kernel, dtype, len(graphs))",
)
add(
    "cache: key without weights of edges",
    "            adjacency.data,\n",
    "            adjacency.data[:0],\n",
)
add(
    "cache: key without the rows of edges",
    'np.asarray(adjacency.indptr, "int64")',
    'np.asarray(adjacency.indptr[-1:], "int64")',
)

add = _group("keras_topo/graphs/cache_files.py", "tests/graphs/test_cache.py")
add(
    "cache: one partial file for all writers",
    '        self.partial = Path(f"{path}.{secrets.token_hex(8)}.partial")\n'
    "        self.shapes, self.size, self.digest = [], 0, DIGEST()\n"
    "        try:\n"
    "            path.parent.mkdir(parents=True, exist_ok=True)\n"
    '            self.file = self.partial.open("xb", buffering=0)\n',
    '        self.partial = Path(f"{path}.{16 * str(0)}.partial")\n'
    "        self.shapes, self.size, self.digest = [], 0, DIGEST()\n"
    "        try:\n"
    "            path.parent.mkdir(parents=True, exist_ok=True)\n"
    '            self.file = self.partial.open("wb", buffering=0)\n',
)
add(
    "cache: the digest is not compared",
    "if file.read()[TRAILER.size :] != digest.digest():",
    "if not digest.digest():",
)
add(
    "cache: what was used last is removed first",
    "sorted(find_files(newest.parent))",
    "sorted(find_files(newest.parent), reverse=True)",
)

add = _group("keras_topo/graphs/code_keys.py", "tests/graphs/test_cache.py")
add(
    "cache: key without closures",
    "for cell in function.__closure__ or ()",
    "for cell in ()",
)
add(
    "cache: key without defaults",
    "own = function.__defaults__, function.__kwdefaults__, vars(function)",
    "own = function.__kwdefaults__, vars(function)",
)

# Kernels, features and positions.

add = _group("keras_topo/graphs/kernels.py", "tests/graphs/test_kernels.py")
add(
    "kernels: noise between components",
    "return np.where(component[:, None] == others, kernels, 0.0)",
    "return kernels",
)
add(
    "kernels: columns are normalised, not rows",
    "norms = np.sqrt(features.power(2).sum(axis=1))",
    "norms = np.sqrt(features.power(2).sum(axis=0))",
)
add(
    "kernels: walks are one node too short",
    "            found[step + 1] = total\n",
    "            found[step + 1] = total - power if step else total\n",
)
add(
    "kernels: degrees of entering edges are those of leaving ones",
    "incoming = adjacency.sum(axis=0)",
    "incoming = adjacency.sum(axis=1)",
)
add(
    "kernels: walks step by the degree of where they arrive",
    "scipy.sparse.csr_array(scale @ adjacency)",
    "scipy.sparse.csr_array(adjacency @ scale)",
)
add(
    "kernels: returns of walks there, and there again",
    "(a * b.T).sum(axis=1)",
    "(a * b).sum(axis=1)",
)

add = _group(
    "keras_topo/graphs/largest.py",
    "tests/graphs/test_sequence.py",
    "tests/graphs/test_kernels.py",
)
add(
    "pairs: one entry of equal ones too few",
    "(np.cumsum(equal, axis=1) <= left)",
    "(np.cumsum(equal, axis=1) < left)",
)
add(
    "pairs: edges of small entries are lost",
    "        kept |= adjacency[start:stop].toarray() != 0\n",
    "",
)
add(
    "pairs: rows of later blocks are those of the first",
    "np.concatenate([[i + start], [j], values[:, i, j]])",
    "np.concatenate([[i], [j], values[:, i, j]])",
)
add(
    "pairs: the largest of the first kernel alone",
    "highest = values.max(axis=0)",
    "highest = values[0]",
)

add = _group("keras_topo/graphs/features.py", "tests/graphs/test_graph.py")
add(
    "features: weighted degrees",
    "degrees = np.minimum(np.diff(graph.adjacency.indptr), max_degree)",
    'degrees = np.minimum(graph.degrees().astype("int64"), max_degree)',
)
add(
    "features: the smallest degrees of neighbors",
    "np.lexsort((-values, rows))",
    "np.lexsort((values, rows))",
)

add = _group("keras_topo/graphs/encodings.py", "tests/graphs/test_sequence.py")
add(
    "positions: the first eigenvector is kept, the last is not",
    "vectors = vectors[:, 1:]",
    "vectors = vectors[:, :-1]",
)
add(
    "positions: signs as the solver finds them",
    "vectors * np.where(signs == 0, 1.0, signs)",
    "vectors",
)

add = _group("keras_topo/graphs/fields.py", "tests/graphs/test_sequence.py")
add(
    "preprocessor: weighted degrees",
    "    yield np.diff(graph.adjacency.indptr)\n",
    '    yield graph.degrees().astype("int64")\n',
)
add(
    "preprocessor: features of edges at the opposite ones",
    "source * nodes + target)",
    "target * nodes + source)",
)

add = _group(
    "keras_topo/graphs/preprocessor.py", "tests/graphs/test_sequence.py"
)
add(
    "preprocessor: statistics of the first graph alone",
    "            self.node_features(graphs)\n",
    "            self.node_features(graphs[:1])\n",
)

add = _group(
    "keras_topo/graphs/labeled_walks.py", "tests/graphs/test_labeled_walks.py"
)
add(
    "labeled walks: labels count at the start alone",
    "            kernel *= equal\n",
    "",
)
add(
    "labeled walks: none from a dead end",
    "ends = np.diff(steps.indptr) == 0",
    "ends = np.diff(steps.indptr) < 0",
)

add = _group("keras_topo/graphs/cache.py", "tests/graphs/test_labeled_walks.py")
add(
    "cache: key without labels",
    "digest.update(repr(values).encode())",
    "digest.update(b'')",
)

add = _group("keras_topo/graphs/factors.py", "tests/graphs/test_factors.py")
add(
    "factors: other nodes are left out",
    "visits[:, -1] = 1.0",
    "visits[:, -1] = 1e-9",
)

# Batches and targets.

add = _group("keras_topo/graphs/collate.py", "tests/graphs/test_sequence.py")
add(
    "batches: the last graph has no mask",
    'inputs["node_mask"][k, :n] = True',
    'inputs["node_mask"][k, :n] = k + 1 < batch',
)
add(
    "batches: pairs of joined graphs begin one graph too late",
    "starts = np.cumsum(sizes) - sizes",
    "starts = np.cumsum(sizes) - sizes[0]",
)

add = _group("keras_topo/graphs/common.py", "tests/graphs/test_sequence.py")
add(
    "preprocessor: statistics over graphs, not over nodes",
    "    mean = total / count\n",
    "    mean = sum(x.mean(axis=0) for x in features) / len(features)\n",
)

add = _group(
    "keras_topo/graphs/targets.py",
    "tests/graphs/test_sequence.py",
    "tests/test_estimators.py",
)
add(
    "targets: unknown numbers of nodes count as zeros",
    "values[share == 0] = 0.0\n    return values, share",
    "return np.nan_to_num(values), share + (share == 0)",
)

add = _group(
    "keras_topo/graphs/sequence.py",
    "tests/graphs/test_sequence.py",
    "tests/test_estimators.py",
)
add(
    "sequence: the order of predictions is lost",
    "order = np.arange(len(self.graphs))",
    'order = np.argsort(self.sizes, kind="stable")',
)
add(
    "sequence: targets in another order than inputs",
    "targets, known = found.values[ids], found.known",
    "targets, known = found.values[np.sort(ids)], found.known",
)
add(
    "sequence: weights of the first graphs for all",
    "weights *= self.weights[ids]",
    "weights *= self.weights[: len(ids)]",
)
add(
    "sequence: losses of nodes are means over padding",
    "share = num_nodes * len(self.graphs) / known",
    "share = 1.0",
)
add(
    "sequence: every epoch in the order of the first",
    "seed = [self.seed, self.epoch] if self.shuffle else 0",
    "seed = [self.seed] if self.shuffle else 0",
)
add(
    "sequence: batches are larger than allowed",
    "full or total > self.max_elements",
    "full",
)

# Links.

add = _group("keras_topo/graphs/links.py", "tests/graphs/test_links.py")
add(
    "links: held-out edges stay in one direction",
    "pairs = np.concatenate([pairs, pairs[:, ::-1]])",
    "pairs = np.concatenate([pairs, pairs])",
)
add(
    "links: edges among the negatives",
    "keys[~np.isin(keys, edges)]",
    "keys",
)
add(
    "links: held-out edges among the negatives",
    "        graph, len(validation) + len(test), random, directed\n",
    "        without_edges(graph, np.concatenate([validation, test])),\n"
    "        len(validation) + len(test),\n        random,\n",
)
add(
    "links: negatives of validation and test are the same",
    "negatives[len(validation) :],",
    "negatives[: len(test)],",
)

add = _group("keras_topo/graphs/link_scores.py", "tests/graphs/test_links.py")
add(
    "link scores: edges in one direction alone",
    "matrix = scipy.sparse.csr_array(matrix + matrix.T)",
    "matrix = scipy.sparse.csr_array(matrix)",
)
add(
    "link scores: later blocks of sources are those of the first",
    "walks = walks[sources[start:stop]]",
    "walks = walks[sources[: stop - start]]",
)

add = _group("keras_topo/graphs/ranking.py", "tests/graphs/test_links.py")
add(
    "ranking: ties are hits",
    "np.mean(positive > bound)",
    "np.mean(positive >= bound)",
)
add(
    "ranking: equal scores count in their order",
    "np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)",
    "np.arange(len(scores))",
)

# Layers.

add = _group(
    "keras_topo/layers/graph_pooling.py",
    "tests/models/test_graph_baselines.py",
    "tests/layers/test_graph_layers.py",
)
add(
    "pooling: means over padded nodes",
    'count = ops.sum(ops.cast(visible, "float32"), axis=1)',
    "count = ops.sum(ops.ones_like(nodes[..., :1]), axis=1)",
)
add(
    "pooling: the last node belongs to the next graph",
    'side="right"',
    'side="left"',
)
add(
    "pooling: zeros of padding are the maximum",
    "floor = ops.full_like(nodes, -1e30)",
    "floor = ops.zeros_like(nodes)",
)

add = _group(
    "keras_topo/layers/graph_isomorphism.py",
    "tests/models/test_graph_baselines.py",
)
add(
    "isomorphism: a node counts twice",
    "ops.cast(self.eps, x.dtype) * x",
    "(1 + ops.cast(self.eps, x.dtype)) * x",
)

add = _group(
    "keras_topo/layers/graph_propagation.py",
    "tests/models/test_graph_baselines.py",
)
add(
    "propagation: steps go back to the last, not to the first",
    "share * ops.cast(start, x.dtype)",
    "share * x",
)

add = _group(
    "keras_topo/layers/graph_kernels.py",
    "tests/layers/test_graph_kernel_layers.py",
    "tests/models/test_raw_graphs.py",
)
add(
    "kernel layers: edges listed once are not symmetrised",
    "        if not self.directed:\n            other =",
    "        if self.directed is None:\n            other =",
)
add(
    "kernel layers: weighted degrees",
    'count = ops.sum(ops.cast(adjacency != 0, "int32"), axis=-1)',
    'count = ops.sum(ops.cast(adjacency, "int32"), axis=-1)',
)
add(
    "kernel layers: noise between components",
    "            kernel > NOISE * largest, kernel, ops.zeros_like(kernel)\n",
    "            kernel > 0 * largest, kernel, ops.zeros_like(kernel)\n",
)
add(
    "kernel layers: kernels without their norms",
    "            features = features / norms\n",
    "            features = features / ops.ones_like(norms)\n",
)
add(
    "kernel layers: padded nodes are seen",
    "kernel * real[:, None, :, None] * real[:, None, None, :]",
    "kernel * real[:, None, :, None]",
)

add = _group(
    "keras_topo/layers/graph_inputs.py", "tests/layers/test_graph_layers.py"
)
add(
    "layers: kernels alternate between heads",
    "ops.repeat(x, num_heads // kernels, axis=1)",
    "ops.concatenate([x] * (num_heads // kernels), axis=1)",
)

add = _group(
    "keras_topo/layers/graph_preprocessing.py",
    "tests/models/test_raw_graphs.py",
)
add(
    "preprocessing layers: an edge listed twice counts twice",
    "ops.logical_and(real, ops.take(largest, place) == rank)",
    "real",
)
add(
    "preprocessing layers: one entry of a row too many",
    "place < self.count",
    "place <= self.count",
)
add(
    "preprocessing layers: padded nodes move the eigenvectors",
    "matrix = matrix + 3 * padded[..., None] * ops.eye(nodes)",
    "matrix = matrix + 0 * padded[..., None] * ops.eye(nodes)",
)

# Estimators.

OF_ESTIMATORS = ("tests/test_estimators.py", "tests/test_estimator_targets.py")

add = _group("keras_topo/estimators/base.py", *OF_ESTIMATORS)
add(
    "estimators: trained on validation graphs",
    "            validation = self._sequence(*validation_data)\n",
    "            validation = train = self._sequence(*validation_data)\n",
)
add(
    "estimators: validated on training graphs",
    "validation_data=validation,",
    "validation_data=validation and train,",
)
add(
    "estimators: statistics of validation graphs",
    "self.preprocessor.adapt(graphs, targets, kernel, self.level)\n",
    "self.preprocessor.adapt(\n"
    "                validation_data[0] if validation_data else graphs,\n"
    "                targets,\n"
    "                kernel,\n"
    "                self.level,\n"
    "            )\n",
)
add(
    "estimators: nodes of joined graphs are cut in another order",
    "np.cumsum(sizes))[\n                    :-1\n                ]",
    "np.cumsum(sizes[::-1]))[\n                    :-1\n                ]",
)
add(
    "estimators: a warm start begins anew",
    "        if not warm_start:\n            self.model = self._build(",
    "        if builder or warm_start:\n"
    "            builder = builder or self._builder()[0]\n"
    "            self.model = self._build(",
)

add = _group("keras_topo/estimators/classifiers.py", *OF_ESTIMATORS)
add(
    "estimators: classes by their places",
    "np.array(self.classes)[logits.argmax(-1)]",
    "logits.argmax(-1)",
)
add(
    "estimators: labels from a probability of a half, read as a logit",
    "(logits > 0)",
    "(logits > 0.5)",
)
add(
    "estimators: weights of classes by their places",
    "self.class_weight.get(c, 1.0) for c in classes",
    "self.class_weight.get(c, 1.0) for c in classes[::-1]",
)

add = _group("keras_topo/estimators/regressors.py", *OF_ESTIMATORS)
add(
    "estimators: unknown targets are in the statistics",
    "values = np.concatenate(values)[known]",
    "values = np.concatenate(values)",
)

add = _group("keras_topo/estimators/losses.py", *OF_ESTIMATORS)
add(
    "losses: unknown values count as right ones",
    "ops.maximum(ops.sum(known, -1), 1.0)",
    "y_true.shape[-1]",
)

add = _group("keras_topo/link_batches.py", "tests/test_link_predictor.py")
add(
    "link predictor: kernels with the edges to predict",
    "                without_edges(graph, pairs, self.directed)\n",
    "                graph\n",
)
add(
    "link predictor: the negatives of the first epoch for all",
    "np.random.default_rng([self.seed, self.epoch, index])",
    "np.random.default_rng([self.seed, index])",
)

add = _group("keras_topo/link_predictor.py", "tests/test_link_predictor.py")
add(
    "link predictor: trained on validation edges",
    "return split.graph, (split.validation, split.validation_negatives)",
    "return graph, (split.validation, split.validation_negatives)",
)
add(
    "link predictor: statistics of validation edges",
    "self.preprocessor.adapt([known], kernel=kernel)",
    "self.preprocessor.adapt([graph], kernel=kernel)",
)
add(
    "link predictor: validated with the edges to predict",
    "ValidateLinks(self._inputs(known), *held_out)",
    "ValidateLinks(self._inputs(graph), *held_out)",
)
add(
    "link predictor: the worst epoch is taken",
    '                    mode="max",\n',
    '                    mode="min",\n',
)
add(
    "link predictor: the last epoch is taken",
    "restore_best_weights=True",
    "restore_best_weights=False",
)
add(
    "link predictor: predictions without the validation edges",
    "self._build(self._kernel(graph), directed)",
    "self._build(self._kernel(known), directed)",
)

# The evaluation: folds and the single split, `training/`.

add = _group("training/folds.py", "tests/training/test_folds.py")
add(
    "folds: chosen by test items",
    'best_of(tried, f"validation_{monitor}", greater)',
    'best_of(tried, f"test_{monitor}", greater)',
)
add(
    "folds: the worst candidate is taken",
    "(max if greater else min)",
    "(min if greater else max)",
)
add(
    "folds: all runs have the first fold",
    "train(choice, folds[fold], seed, SCORED[kind])",
    "train(choice, folds[0], seed, SCORED[kind])",
)
add(
    "folds: candidates are scored on test items",
    '"choice": ("validation",)',
    '"choice": ("validation", "test")',
)
add(
    "folds: a candidate's line serves as a final one",
    'key = {"kind": kind, "fold": fold,',
    'key = {"fold": fold,',
)
add(
    "folds: a choice that failed is made",
    '[line for line in lines if "failed" not in line]',
    "list(lines)",
)
add(
    "folds: items may be tested twice",
    "            if i in tested:",
    "            if i in ():",
)
add(
    "folds: validation items are trained on",
    'folds.append({"train": train,',
    'folds.append({"train": rest,',
)
add(
    "single split: validation items are trained on",
    'return {"train": train, "validation": validation, "test": test}',
    'return {"train": rest, "validation": validation, "test": test}',
)
add(
    "folds: the mean is that of runs",
    "scores = [fold[score] for fold in by_fold]",
    "scores = [line[score] for line in lines]",
)

add = _group("training/tasks/graphs.py", "tests/training/test_graphs.py")
add(
    "training: test graphs are trained on",
    'sequence = self.sequence("train", shuffle=True)',
    'sequence = self.sequence("test", shuffle=True)',
)
add(
    "training: statistics of all graphs",
    'graphs=self.graphs["train"])',
    "graphs=self.dataset.graphs)",
)
add(
    "training: statistics of test graphs",
    'graphs=self.graphs["train"])',
    'graphs=self.graphs["test"])',
)
add(
    "training: validated on test graphs",
    'return self.sequence("validation")',
    'return self.sequence("test")',
)
add("training: the fold is ignored", "if split is None:", "if True:")

add = _group("training/assessment.py", "tests/training/test_graphs.py")
add(
    "assessment: runs have no fold",
    "return train_once(settings, fold, parts, best)",
    "return train_once(settings, None, parts, best)",
)
add(
    "assessment: the final run is the candidate of another choice",
    "if not self._has(fold) or self._settings != settings:",
    "if not self._has(fold):",
)
add(
    "assessment: runs have no choice",
    '{**choice, "seed": seed}',
    '{"seed": seed}',
)
