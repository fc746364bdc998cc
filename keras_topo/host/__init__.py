"""What operators prepare on the host, in NumPy and SciPy, once per graph.

- `adjacency`: checks of matrices, node ids and numbers;
- `forest`, `centroids`: rooted forests, and how they are cut at centroids;
- `distances`: distances in them, told apart and numbered;
- `diffusion_generator`, `local_order`: sparse generators of diffusion;
- `levels`: plans of resolvents.

It stands below operators and below `keras_topo.graphs`, which has the public
names.
"""
