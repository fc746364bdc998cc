"""Mutants of estimators and of training."""

from tests.mutant import group

# Estimators.

OF_ESTIMATORS = ("tests/test_estimators.py", "tests/test_estimator_targets.py")

add = group("keras_topo/estimators/base.py", *OF_ESTIMATORS)
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

add = group("keras_topo/estimators/classifiers.py", *OF_ESTIMATORS)
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

add = group("keras_topo/estimators/regressors.py", *OF_ESTIMATORS)
add(
    "estimators: unknown targets are in the statistics",
    "values = np.concatenate(values)[known]",
    "values = np.concatenate(values)",
)

add = group("keras_topo/estimators/losses.py", *OF_ESTIMATORS)
add(
    "losses: unknown values count as right ones",
    "ops.maximum(ops.sum(known, -1), 1.0)",
    "y_true.shape[-1]",
)

add = group("keras_topo/link_batches.py", "tests/test_link_predictor.py")
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

add = group("keras_topo/link_predictor.py", "tests/test_link_predictor.py")
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

add = group("training/folds.py", "tests/training/test_folds.py")
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

add = group("training/tasks/graphs.py", "tests/training/test_graphs.py")
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

add = group("training/assessment.py", "tests/training/test_graphs.py")
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
