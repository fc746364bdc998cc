"""The interactive demo in a headless browser, compared with the Keras model."""

import functools
import http.server
import importlib.util
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import keras_topo
from keras_topo import visualize

pytestmark = [pytest.mark.tensorflow_only, pytest.mark.slow]

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "play"
PRESET = "topvit-cifar10"
TOKEN = 19


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder of the page, with its model and the runtime."""
    for package in ("onnx", "onnxruntime", "tf2onnx", "playwright"):
        pytest.importorskip(package)
    for program in ("npm", "chromium"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    folder = tmp_path_factory.mktemp("site") / "play"
    shutil.copytree(PAGE, folder)
    spec = importlib.util.spec_from_file_location("build", PAGE / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.main(PRESET, folder)
    return folder


@pytest.fixture(scope="module")
def address(page):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=page)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )


def open_page(browser, address, query=""):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    log = []
    page.on("console", lambda m: m.type == "error" and log.append(m.text))
    page.on("pageerror", lambda error: log.append(str(error)))
    page.goto(f"{address}/index.html{query}")
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    assert log == []
    return page


def panels(page):
    """The largest position of each panel, by kind, layer and head."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("#panels canvas")].map(
            ({dataset: d}) => [d.kind, d.layer, d.head, d.largest])"""
    )
    return {(kind, int(a), int(b)): int(c) for kind, a, b, c in found}


def test_it_answers_as_the_model_does(page, address, browser):
    """For a photograph: classes, rows of masks and rows of attention."""
    from PIL import Image

    model = keras_topo.from_preset(PRESET)
    height, width = model.input_shape[1:3]
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    photo = photo.resize((width, height))
    photo.save(page / "flower.png")
    x = np.asarray(photo, "float32")[None]
    shares = np.exp(np.asarray(model(x))[0].astype(float))
    shares /= shares.sum()

    shown = open_page(browser, address, f"?image=flower.png&token={TOKEN}")
    found = shown.evaluate(
        """() => [...document.querySelectorAll("#classes li")].map(
            ({dataset: d}) => [d.name, Number(d.probability)])"""
    )
    about = json.loads((page / "model.json").read_text())
    names, grid = about["classes"], about["grid"]
    for name, share in found:
        assert share == pytest.approx(shares[names.index(name)], abs=1e-3)
    found = [share for _, share in found]
    assert len(found) == 10 and found == sorted(found)[::-1]

    brightest = panels(shown)
    masks = visualize.mask_rows(model, divmod(TOKEN, grid[1]))
    weights = visualize.attention_weights(model, x)
    assert len(brightest) == 2 * len(masks) * 3
    for layer, name in enumerate(masks):
        for head in range(3):
            mask = np.broadcast_to(masks[name], (3, *grid))[head].ravel()
            row = weights[name][0, head, TOKEN]
            for kind, values in (("masks", mask), ("attention", row)):
                place = brightest[kind, layer, head]
                assert values[place] >= values.max() * (1 - 1e-3)


def test_what_the_reader_does(page, address, browser):
    shown = open_page(browser, address)
    before = panels(shown)
    box = shown.locator("#image").bounding_box()
    shown.mouse.move(box["x"] + 3, box["y"] + 3)
    assert shown.inner_text("#token") == "(0, 0)"
    assert panels(shown) != before
    shown.focus("#drop")
    shown.keyboard.press("ArrowDown")
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowLeft")
    shown.keyboard.press("ArrowLeft")  # The edge.
    assert shown.inner_text("#token") == "(1, 0)"
    first = shown.inner_text("#classes")
    shown.set_input_files("#file", page / "flower.png")
    shown.wait_for_function(
        "text => document.getElementById('classes').innerText !== text",
        arg=first,
    )
    (page / "broken.png").write_bytes(b"no image")
    shown.set_input_files("#file", page / "broken.png")
    shown.wait_for_selector("#status:has-text('not an image')")
