"""Guides and pages of the site: what they say is what happens."""

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from documented import MODULES, blocks, cells, check_printed, slug

from keras_topo import GraphClassifier

pytestmark = pytest.mark.tensorflow_only
ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GUIDES = sorted(DOCS.glob("guides/*.py"))
PAGES = sorted(DOCS.glob("**/*.md"))
DOCUMENTS = [
    *ROOT.glob("*.md"),
    ROOT / "deploy" / "README.md",
    *ROOT.glob("results/**/*.md"),
    *PAGES,
    *GUIDES,
]
#: Packages that a guide may need besides the extras of `make test`.
OPTIONAL = {
    "ai_edge_litert",
    "onnxruntime",
    "tf2onnx",
    "torch",
    "torch_geometric",
    "transformers",
}


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide(guide, tmp_path):
    """Cells that need missing packages are left out."""
    code = "\n".join(
        cell
        for cell in cells(guide.read_text(encoding="utf-8"))
        if not any(
            importlib.util.find_spec(name) is None
            for name in OPTIONAL & set(MODULES.findall(cell))
        )
    )
    script = tmp_path / guide.name
    script.write_text(code, encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths = os.pathsep.join(paths)
    found = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    check_printed(code, found.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))],
    ids=lambda path: path.stem,
)
def test_page(page, tmp_path, monkeypatch):
    """Blocks run one after the other; those without comments print freely."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for block in blocks(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, names)
        if "  # (" in block:
            check_printed(block, printed.getvalue())


def test_every_guide_says_what_it_prints():
    assert len(GUIDES) >= 12
    for guide in GUIDES:
        for cell in cells(guide.read_text(encoding="utf-8")):
            printing = re.findall(r"^ *print\(", cell, re.MULTILINE)
            checked = re.findall(r"\)  # \S", cell)
            assert len(checked) >= len(printing), (guide.name, cell)


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(document):
    """Links point to existing files of the repository and to their sections."""
    text = re.sub(
        r"^(# )?```.*?^(# )?```",
        "",
        document.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    if document.suffix == ".py":
        text = "\n".join(
            line for line in text.splitlines() if line.startswith("#")
        )
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
        if re.match(r"\w+:", target):
            continue
        path = document.parent / target if target else document
        if "/reference/" in path.as_posix():
            assert path.is_file()
            continue
        assert path.exists(), target
        if anchor:
            titles = re.findall(
                r"^(?:# )?#+ (.*)$", path.read_text(encoding="utf-8"), re.M
            )
            assert anchor in {slug(title) for title in titles}, anchor


def test_examples_of_graphs_are_short():
    text = (DOCS / "guides" / "graphs.py").read_text(encoding="utf-8")
    for example in cells(text):
        lines = [
            line
            for line in example.splitlines()
            if line.strip() and not line.startswith(("import ", "from "))
        ]
        assert len(lines) <= 12


def test_what_is_printed_is_compared():
    example = "print(a)  # [0 1]\nprint(b)  # above 0.5\n"
    example += "print(\n    c\n)  # below 2\n"
    check_printed(example, "[0 1]\n0.6\n[1.5]\n")
    for wrong in (
        "[1 1]\n0.6\n1\n",
        "[0 1]\n0.4\n1\n",
        "[0 1]\n0.6\n3\n",
        "[0 1]\n0.6\n",
    ):
        with pytest.raises(AssertionError):
            check_printed(example, wrong)


@pytest.mark.slow
def test_what_looks_like_pyg():
    """Paths and rings as in the guide, without torch."""
    graphs = []
    for k in range(80):
        nodes, ring = 5 + k // 2 % 8, k % 2
        source = np.arange(nodes - 1 + ring)
        edges = np.stack([source, (source + 1) % nodes])
        edges = np.concatenate([edges, edges[::-1]], axis=1)
        graphs.append(
            types.SimpleNamespace(
                edge_index=edges, num_nodes=nodes, y=np.array([ring])
            )
        )
    model = GraphClassifier(epochs=10, depth=1, verbose=0).fit(graphs[:60])
    assert model.predict(graphs[60:64]).tolist() == [0, 1, 0, 1]
