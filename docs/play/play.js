// An image model in the browser: classes, rows of masks, rows of attention.
//
// `?image=URL` opens an image, `&token=27` points at one of its cells.

import * as ort from "./vendor/ort.wasm.min.mjs";

const at = (path) => new URL(path, import.meta.url).href;
const element = (id) => document.getElementById(id);

// One thread: more threads need headers that not every server sends.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = at("vendor/");

// Pixels of a cell, and the color of the frame around the token.
const CELL = 12;
const MARK = "#ff1744";

const picture = element("image");
const state = { page: null, session: null, answer: null, token: 0 };

async function load() {
  const [page, session] = await Promise.all([
    fetch(at("model.json")).then((response) => response.json()),
    ort.InferenceSession.create(at("model.onnx")),
  ]);
  Object.assign(state, { page, session });
  element("model").textContent = page.preset;
  const [rows, columns] = page.grid;
  const query = new URLSearchParams(location.search);
  const middle = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const asked = Number(query.get("token") ?? middle);
  state.token = Math.min(Math.max(asked | 0, 0), rows * columns - 1);
  listen();
  if (query.has("image")) {
    await open(query.get("image"));
  } else {
    await show(drawing());
  }
}

// Images.

async function open(source) {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    element("status").textContent = "This file is not an image that the browser can read.";
    return;
  }
  await show(image);
}

// The initial image: a ship under the sun.
function drawing() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const pen = canvas.getContext("2d");
  const fill = (color, ...points) => {
    pen.fillStyle = color;
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x, y));
    pen.fill();
  };
  fill("#9cc4e4", [0, 0], [64, 0], [64, 44], [0, 44]);
  fill("#2b5d8a", [0, 44], [64, 44], [64, 64], [0, 64]);
  fill("#7a2e22", [8, 40], [56, 40], [48, 52], [16, 52]);
  fill("#f4f1e8", [18, 28], [44, 28], [44, 40], [18, 40]);
  fill("#333333", [34, 14], [40, 14], [40, 28], [34, 28]);
  fill("#f7d354", [4, 4], [12, 4], [12, 12], [4, 12]);
  return canvas;
}

// The pixels of an image, stretched to the size of the model.
function pixels(image) {
  const [height, width] = state.page.size;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "black";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const found = new Float32Array(height * width * 3);
  for (let k = 0; k < height * width; k++) {
    found.set(data.subarray(4 * k, 4 * k + 3), 3 * k);
  }
  return [found, canvas];
}

async function show(image) {
  const [values, small] = pixels(image);
  const images = new ort.Tensor("float32", values, [1, ...state.page.size, 3]);
  const began = performance.now();
  state.answer = await state.session.run({ images });
  const spent = performance.now() - began;
  state.small = small;
  element("status").textContent =
    `${state.page.size.join(" x ")} pixels, ${spent.toFixed(0)} ms.`;
  drawImage();
  drawClasses();
  drawRows();
  document.body.dataset.ready = "yes";
}

// Drawing.

function drawImage() {
  const pen = picture.getContext("2d");
  const [rows, columns] = state.page.grid;
  const [height, width] = [picture.height / rows, picture.width / columns];
  pen.imageSmoothingEnabled = false;
  pen.drawImage(state.small, 0, 0, picture.width, picture.height);
  const row = Math.floor(state.token / columns);
  const column = state.token % columns;
  pen.strokeStyle = MARK;
  pen.lineWidth = 3;
  pen.strokeRect(column * width, row * height, width, height);
}

function softmax(logits) {
  const top = Math.max(...logits);
  const shares = Array.from(logits, (value) => Math.exp(value - top));
  const sum = shares.reduce((a, b) => a + b);
  return shares.map((share) => share / sum);
}

function drawClasses() {
  const shares = softmax(state.answer.logits.data);
  const order = shares.map((_, k) => k).sort((a, b) => shares[b] - shares[a]);
  const list = element("classes");
  list.replaceChildren(...order.map((k) => {
    const item = document.createElement("li");
    item.dataset.probability = shares[k];
    const [name, track, share] = ["span", "div", "span"].map((tag) =>
      document.createElement(tag));
    name.textContent = item.dataset.name = state.page.classes[k];
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.width = `${100 * shares[k]}%`;
    track.append(bar);
    share.className = "share";
    share.textContent = `${(100 * shares[k]).toFixed(1)}%`;
    item.append(name, track, share);
    return item;
  }));
}

function drawRows() {
  const [rows, columns] = state.page.grid;
  const { masks, attention } = state.answer;
  const [layers, heads, tokens] = masks.dims;
  const row = Math.floor(state.token / columns);
  element("token").textContent = `(${row}, ${state.token % columns})`;
  const panels = element("panels");
  if (!panels.childElementCount) build(panels, layers, heads, rows, columns);
  for (const canvas of panels.querySelectorAll("canvas")) {
    const { kind, layer, head } = canvas.dataset;
    const start =
      ((Number(layer) * heads + Number(head)) * tokens + state.token) * tokens;
    const values = state.answer[kind].data.subarray(start, start + tokens);
    paint(canvas, values, columns);
    canvas.title = `${kind === "masks" ? "mask" : "attention"}, layer ` +
      `${Number(layer) + 1}, head ${Number(head) + 1}: at most ` +
      Math.max(...values).toPrecision(3);
  }
}

function build(panels, layers, heads, rows, columns) {
  for (let layer = 0; layer < layers; layer++) {
    const line = document.createElement("div");
    line.className = "layer";
    const label = document.createElement("span");
    label.textContent = `Layer ${layer + 1}`;
    const all = document.createElement("div");
    all.className = "heads";
    for (let head = 0; head < heads; head++) {
      const pair = document.createElement("div");
      pair.className = "pair";
      for (const kind of ["masks", "attention"]) {
        const canvas = document.createElement("canvas");
        canvas.width = columns * CELL;
        canvas.height = rows * CELL;
        Object.assign(canvas.dataset, { kind, layer, head });
        pair.append(canvas);
      }
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = `head ${head + 1}`;
      figure.append(pair, caption);
      all.append(figure);
    }
    line.append(label, all);
    panels.append(line);
  }
}

// Stops of a color map of evenly falling brightness, yellow to violet: that
// of the pictures of keras_topo.visualize.
const COLORS = [
  [253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84],
];

function color(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLORS.length - 1);
  const k = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[k].map((low, i) =>
    low + (place - k) * (COLORS[k + 1][i] - low));
}

function paint(canvas, values, columns) {
  const pen = canvas.getContext("2d");
  const top = Math.max(...values) || 1;
  const corner = (k) => [CELL * (k % columns), CELL * Math.floor(k / columns)];
  values.forEach((value, k) => {
    pen.fillStyle = `rgb(${color(value / top).map(Math.round).join(" ")})`;
    pen.fillRect(...corner(k), CELL, CELL);
  });
  pen.strokeStyle = MARK;
  pen.lineWidth = 2;
  const [x, y] = corner(state.token);
  pen.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
  canvas.dataset.largest = values.indexOf(Math.max(...values));
}

// User input.

function listen() {
  const drop = element("drop");
  const [rows, columns] = state.page.grid;
  const point = (token) => {
    if (!state.answer || token === state.token) return;
    state.token = token;
    drawImage();
    drawRows();
  };
  drop.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const clamp = (x, n) => Math.min(Math.max(Math.floor(x * n), 0), n - 1);
    const row = clamp((event.clientY - box.top) / box.height, rows);
    const column = clamp((event.clientX - box.left) / box.width, columns);
    point(row * columns + column);
  });
  const steps = {
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  };
  drop.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const row = Math.floor(state.token / columns) + step[0];
    const column = state.token % columns + step[1];
    if (row >= 0 && row < rows && column >= 0 && column < columns) {
      point(row * columns + column);
    }
  });
  const take = async (file) => {
    if (!file) return;
    const address = URL.createObjectURL(file);
    await open(address);
    URL.revokeObjectURL(address);
  };
  element("file").addEventListener("change", (event) =>
    take(event.target.files[0]));
  element("draw").addEventListener("click", () => show(drawing()));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, () => drop.classList.remove("over"));
  }
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) =>
    take(event.clipboardData.files[0]));
}

load().catch((error) => {
  element("status").textContent = `The model could not be loaded: ${error}`;
  document.body.dataset.ready = "no";
});
