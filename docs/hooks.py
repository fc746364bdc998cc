"""Builds the parts of the site that are not pages in this folder.

MkDocs calls these functions. They add

- documents from elsewhere in the repository (`DOCUMENTS`), with links adapted
  to the site;
- a page and a notebook for each guide, a Python file with cells;
- formulas as MathML, which browsers show without a script;
- the package in its installed layout, for the reference.
"""

import configparser
import html
import os
import pathlib
import re
import shutil

import jupytext
import latex2mathml.converter
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
#: document in the repository -> page of the site
DOCUMENTS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/README.md": "serving.md",
    "results/README.md": "results/index.md",
}
DOCUMENTS |= {
    name: name
    for path in sorted(ROOT.glob("results/**/*.md"))
    if (name := path.relative_to(ROOT).as_posix()) not in DOCUMENTS
}
SOURCES = {page: source for source, page in DOCUMENTS.items()}
CODE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
DOWNLOADS = """
<a class="md-button" href="{name}.ipynb">Notebook</a>
<a class="md-button" href="{name}.py">Python file</a>
"""


# Before mkdocstrings looks for the folder.
@event_priority(100)
def on_config(config):
    """Copies the package in the layout of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {"keras_topo": "keras_topo"}
    for line in setup["options"]["package_dir"].strip().splitlines():
        package, _, folder = line.partition("=")
        folders[package.strip().replace(".", "/")] = folder.strip()
    target = ROOT / "build" / "site"
    shutil.rmtree(target, ignore_errors=True)
    for package, folder in folders.items():
        # Editable installations have links to the other packages there.
        shutil.copytree(ROOT / folder, target / package, ignore=_no_code)
    return config


def _no_code(folder, names):
    paths = [pathlib.Path(folder, name) for name in names]
    return [
        path.name
        for path in paths
        if path.is_symlink() or path.is_file() and path.suffix != ".py"
    ]


def on_files(files, config):
    """Adds documents, the files they link to, and guides."""
    for source, page in DOCUMENTS.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
        for path in sorted(set(_targets(text, source))):
            target = site_path(path)
            if files.get_file_from_path(target) is None:
                file = str(ROOT / path)
                files.append(File.generated(config, target, abs_src_path=file))
    for path in sorted(ROOT.glob("docs/guides/*.py")):
        notebook = jupytext.read(path)
        for suffix in (".md", ".ipynb"):
            text = jupytext.writes(notebook, fmt=suffix)
            if suffix == ".md":
                text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
                # Around text with blocks of code.
                text = re.sub(
                    r"^<!-- #(end)?region -->\n", "", text, flags=re.M
                )
                text += DOWNLOADS.format(name=path.stem)
            name = f"guides/{path.stem}{suffix}"
            files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Adapts links to the site."""
    name = page.file.src_uri
    source = SOURCES.get(name, f"docs/{name}")

    def replaced(match):
        path = _in_repository(match[1], source)
        if path is None:
            return match[0]
        link = os.path.relpath(site_path(path), os.path.dirname(name) or ".")
        return f"]({link}{match[2] or ''})"

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(replaced, text) for text in parts[::2]]
    return "".join(parts)


def site_path(path):
    """The path of a repository file on the site."""
    if path in DOCUMENTS:
        return DOCUMENTS[path]
    if path.startswith("docs/"):
        path = path.removeprefix("docs/")
        return re.sub(r"^(guides/\w+)\.py$", r"\1.md", path)
    return path if path.startswith("results/") else f"files/{path}"


def _targets(text, source):
    """Files of the repository that a document links to."""
    for part in CODE.split(text)[::2]:
        for match in LINK.finditer(part):
            path = _in_repository(match[1], source)
            if path and path not in DOCUMENTS:
                yield path


def _in_repository(target, source):
    """The target of a relative link; for a run folder, its metrics."""
    if not target or re.match(r"\w+:", target):
        return None
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    if (ROOT / path / "metrics.json").is_file():
        return f"{path}/metrics.json"
    return path


def on_page_content(content, page, config, files):
    """Converts formulas to MathML."""

    def formula(match):
        tex = html.unescape(match[2]).strip()
        block = match[1] == "div"
        math = latex2mathml.converter.convert(
            tex[2:-2], display="block" if block else "inline"
        )
        return f'<div class="formula">{math}</div>' if block else math

    return re.sub(
        r'<(div|span) class="arithmatex">(.*?)</\1>',
        formula,
        content,
        flags=re.DOTALL,
    )
