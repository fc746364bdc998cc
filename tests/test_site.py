"""The site builds strictly, its links lead somewhere, it loads nothing else."""

import functools
import html.parser
import http.server
import importlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NEEDED = ("jupytext", "latex2mathml", "material", "mkdocs", "mkdocstrings")

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="the site needs the extra `docs`",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # As on a fresh clone, without the copy of an earlier build.
    shutil.rmtree(ROOT / "build" / "site", ignore_errors=True)
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    assert "WARNING" not in found.stderr
    return folder


class Page(html.parser.HTMLParser):
    """The ids of a page, and its links."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.ids.add(attributes.get("name"))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") not in ("canonical",):
            self.loaded.append(attributes["href"])
        if attributes.get("src"):
            self.loaded.append(attributes["src"])


def test_links_lead_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    checked = 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in (*page.links, *page.loaded):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                name = urllib.parse.unquote(parts.path)
                target = pathlib.Path(os.path.normpath(path.parent / name))
                if target.is_dir():
                    target /= "index.html"
            assert target.is_file(), (path.name, link)
            if parts.fragment and target in pages:
                anchor = urllib.parse.unquote(parts.fragment)
                assert anchor in pages[target].ids, (path.name, link)
            checked += 1
    assert checked > 1000


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for loaded in Page(path).loaded:
            assert not urllib.parse.urlsplit(loaded).netloc, (path, loaded)
    for path in site.rglob("*.css"):
        found = re.findall(
            r"(?:url\(|@import)\s*[\"']?(https?:|//)", path.read_text()
        )
        assert not found, path


def test_formulas_are_drawn_without_a_script(site):
    text = (site / "concepts" / "attention.html").read_text(encoding="utf-8")
    assert text.count("<math") > 30
    assert "arithmatex" not in text


def test_guides_are_pages_and_notebooks(site):
    for guide in ROOT.glob("docs/guides/*.py"):
        page = site / "guides" / f"{guide.stem}.html"
        assert f'href="{guide.stem}.ipynb"' in page.read_text(encoding="utf-8")
        notebook = json.loads(page.with_suffix(".ipynb").read_text())
        kinds = {cell["cell_type"] for cell in notebook["cells"]}
        assert kinds == {"code", "markdown"}
        assert (site / "guides" / guide.name).read_text() == guide.read_text()


def test_tables_of_speeds_are_there(site):
    text = (site / "benchmarks.html").read_text(encoding="utf-8")
    assert text.count("<td>causal decay</td>") >= 3


@pytest.mark.parametrize(
    "module",
    [
        "attention",
        "estimators",
        "export",
        "graph_tensors",
        "graphs",
        "layers",
        "linearize",
        "masks",
        "models",
        "operators",
        "presets",
        "testing",
        "visualize",
    ],
)
def test_the_reference_has_what_is_public(site, module):
    public = importlib.import_module(f"keras_topo.{module}")
    page = "keras_topo" if module == "estimators" else module
    ids = Page(site / "reference" / f"{page}.html").ids
    documented = {name.rpartition(".")[2] for name in ids if name}
    names = {n for n in public.__all__ if callable(getattr(public, n))}
    assert names and names <= documented


def is_to_play(path):
    """Whether a page loads the model that docs/play/build.py makes."""
    return path.name == "playing.html" or path.parent.name == "play"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=site)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_in_a_browser(site, address, width):
    """No errors, no foreign requests, no missing pictures, no wide pages."""
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        log = []
        plays = (site / "play" / "model.json").is_file()
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and log.append(m.text),
        )
        page.on("pageerror", lambda error: log.append(str(error)))
        page.on(
            "request",
            lambda r: (
                r.url.startswith((address, "data:", "blob:"))
                or log.append(r.url)
            ),
        )
        for path in sorted(site.rglob("*.html")):
            if path.name == "404.html" or not plays and is_to_play(path):
                continue
            page.goto(f"{address}/{path.relative_to(site).as_posix()}")
            found = page.evaluate(
                """() => [document.documentElement.scrollWidth,
                    [...document.images].filter(
                        image => image.complete && !image.naturalWidth
                    ).map(image => image.src)]"""
            )
            assert found == [width, []], path
            assert not log, (path, log)
        page.goto(f"{address}/index.html")
        if width < 1000:
            page.locator(".md-header__button[for=__search]").click()
        page.locator("input[name=query]").fill("centroid")
        page.locator(".md-search-result__link").first.wait_for()
        browser.close()
