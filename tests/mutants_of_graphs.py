"""Mutants of graphs, their kernels, and what they are read from."""

from tests.mutant import group

# Graphs and what they are read from.

add = group(
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

add = group(
    "keras_topo/graphs/tu_dataset.py", "tests/graphs/test_graph_datasets.py"
)
add(
    "archives: edges listed once are not symmetrised",
    "            if not directed:\n",
    "            if directed is None:\n",
)

add = group(
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

add = group("keras_topo/graphs/cache.py", "tests/graphs/test_cache.py")
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

add = group("keras_topo/graphs/cache_files.py", "tests/graphs/test_cache.py")
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

add = group("keras_topo/graphs/code_keys.py", "tests/graphs/test_cache_keys.py")
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

add = group("keras_topo/graphs/kernels.py", "tests/graphs/test_kernels.py")
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

add = group(
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

add = group("keras_topo/graphs/features.py", "tests/graphs/test_graph.py")
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

add = group("keras_topo/graphs/encodings.py", "tests/graphs/test_sequence.py")
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

add = group("keras_topo/graphs/fields.py", "tests/graphs/test_sequence.py")
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

add = group(
    "keras_topo/graphs/preprocessor.py", "tests/graphs/test_sequence.py"
)
add(
    "preprocessor: statistics of the first graph alone",
    "            self.node_features(graphs)\n",
    "            self.node_features(graphs[:1])\n",
)

add = group(
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

add = group("keras_topo/graphs/cache.py", "tests/graphs/test_labeled_walks.py")
add(
    "cache: key without labels",
    "digest.update(repr(values).encode())",
    "digest.update(b'')",
)

add = group("keras_topo/graphs/factors.py", "tests/graphs/test_factors.py")
add(
    "factors: other nodes are left out",
    "visits[:, -1] = 1.0",
    "visits[:, -1] = 1e-9",
)

# Batches and targets.

add = group("keras_topo/graphs/collate.py", "tests/graphs/test_sequence.py")
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

add = group("keras_topo/graphs/common.py", "tests/graphs/test_sequence.py")
add(
    "preprocessor: statistics over graphs, not over nodes",
    "    mean = total / count\n",
    "    mean = sum(x.mean(axis=0) for x in features) / len(features)\n",
)

add = group(
    "keras_topo/graphs/targets.py",
    "tests/graphs/test_sequence.py",
    "tests/test_estimators.py",
)
add(
    "targets: unknown numbers of nodes count as zeros",
    "values[share == 0] = 0.0\n    return values, share",
    "return np.nan_to_num(values), share + (share == 0)",
)

add = group(
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

add = group("keras_topo/graphs/links.py", "tests/graphs/test_links.py")
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

add = group("keras_topo/graphs/link_scores.py", "tests/graphs/test_links.py")
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

add = group("keras_topo/graphs/ranking.py", "tests/graphs/test_links.py")
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

add = group(
    "keras_topo/layers/graph_pooling.py",
    "tests/models/test_graph_baselines.py",
    "tests/layers/test_graph_layers.py",
)
add(
    "pooling: means over padded nodes",
    "count = ops.sum(ops.cast(visible, nodes.dtype), axis=1)",
    "count = ops.sum(ops.ones_like(nodes[..., :1]), axis=1)",
)
add(
    "pooling: the last node belongs to the next graph",
    'side="right"',
    'side="left"',
)
add(
    "pooling: zeros of padding are the maximum",
    "ops.where(visible, nodes, HIDDEN), axis=1",
    "ops.where(visible, nodes, 0.0), axis=1",
)

add = group(
    "keras_topo/layers/graph_isomorphism.py",
    "tests/models/test_graph_baselines.py",
)
add(
    "isomorphism: a node counts twice",
    "ops.cast(self.eps, x.dtype) * x",
    "(1 + ops.cast(self.eps, x.dtype)) * x",
)

add = group(
    "keras_topo/layers/graph_propagation.py",
    "tests/models/test_graph_baselines.py",
)
add(
    "propagation: steps go back to the last, not to the first",
    "share * ops.cast(start, x.dtype)",
    "share * x",
)

add = group(
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

add = group(
    "keras_topo/layers/graph_inputs.py", "tests/layers/test_graph_layers.py"
)
add(
    "layers: kernels alternate between heads",
    "ops.repeat(x, num_heads // kernels, axis=1)",
    "ops.concatenate([x] * (num_heads // kernels), axis=1)",
)

add = group(
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
