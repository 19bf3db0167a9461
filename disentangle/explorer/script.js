"use strict";

// Every name reaches the page as text (textContent, setAttribute), never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const PIXELATED = 96; // px: images up to this size are enlarged without smoothing
const INTERVAL = 150; // ms that each value is shown while playing
const cards = [];
const starts = [];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function makeCanvas(run) {
  const attributes = { width: run.width, height: run.height, role: "img" };
  const canvas = make("canvas", attributes);
  canvas.classList.toggle("small", run.width <= PIXELATED);
  return canvas;
}

// Draws the index-th of the images that stand side by side in a strip.
function draw(canvas, strip, index) {
  if (!strip.complete) return; // its load event will draw it
  const { width, height } = canvas;
  canvas.getContext("2d").drawImage(strip, index * width, 0, width, height, 0, 0, width, height);
}

function load(view, source) {
  view.strip = new Image();
  view.strip.addEventListener("load", () => view.show());
  view.strip.src = source;
}

function makeCard(run, axis, number, id) {
  const canvas = makeCanvas(run);
  const last = data.values.length - 1;
  const slider = make("input", { type: "range", id, min: 0, max: last, step: 1 });
  slider.value = data.middle;
  const output = make("output", { for: id });
  const card = { canvas, slider, choose: (sample) => load(card, run.strips[sample][number]) };
  card.show = () => {
    const value = data.values[slider.value];
    output.textContent = value;
    slider.setAttribute("aria-valuetext", value);
    canvas.setAttribute("aria-label", `${axis.name} at ${value}`);
    draw(canvas, card.strip, Number(slider.value));
  };
  slider.addEventListener("input", card.show);
  cards.push(card);
  const line = make("p", {}, make("label", { for: id }, axis.name), output);
  return make("div", { class: "axis" }, line, canvas, slider);
}

function makeFigure(run, name, choose) {
  const canvas = makeCanvas(run);
  canvas.setAttribute("aria-label", name);
  const start = { canvas, show: () => draw(canvas, start.strip, 0) };
  start.choose = (sample) => load(start, choose(sample));
  starts.push(start);
  return make("figure", {}, canvas, make("figcaption", {}, name));
}

function makeRun(run, r) {
  const pictures = make("div", { class: "pictures" });
  for (const [name, source] of run.originals) pictures.append(makeFigure(run, name, () => source));
  pictures.append(makeFigure(run, "start", (sample) => run.starts[sample]));
  const section = make("section", { class: "run" });
  if (data.runs.length > 1) section.append(make("h2", {}, run.name));
  section.append(pictures);
  const groups = new Map();
  run.axes.forEach((axis, a) => {
    if (!groups.has(axis.group)) groups.set(axis.group, make("div", { class: "axes" }));
    groups.get(axis.group).append(makeCard(run, axis, a, `slider-${r}-${a}`));
  });
  for (const [name, axes] of groups) {
    section.append(make("fieldset", {}, make("legend", {}, name), axes));
  }
  return section;
}

function format(value) {
  if (value === null) return "";
  const small = value !== 0 && Math.abs(value) < 1e-4;
  return small ? value.toExponential(1) : value.toFixed(4);
}

function makeScores() {
  const names = new Set(data.runs.flatMap((run) => run.scores.map(([name]) => name)));
  if (!names.size) {
    return make("p", { class: "note" }, "No scores: disentangle evaluate computes those of a run.");
  }
  const head = make("tr", {}, make("th", { scope: "col" }, "metric"));
  for (const run of data.runs) {
    head.append(make("th", { scope: "col" }, data.runs.length > 1 ? run.name : "score"));
  }
  const body = make("tbody");
  for (const name of names) {
    const row = make("tr", {}, make("th", { scope: "row" }, name));
    for (const run of data.runs) {
      const found = run.scores.find(([other]) => other === name);
      row.append(make("td", {}, found ? format(found[1]) : ""));
    }
    body.append(row);
  }
  return make("table", {}, make("caption", {}, "Scores"), make("thead", {}, head), body);
}

function shade(cell, share) {
  const [from, to] = [[255, 255, 255], [8, 69, 148]];
  const mixed = from.map((channel, i) => Math.round(channel + share * (to[i] - channel)));
  cell.style.backgroundColor = `rgb(${mixed.join(",")})`;
  cell.style.color = share > 0.5 ? "#fff" : "#1a1a1a";
}

function makeMap(map) {
  const largest = Math.max(0, ...map.values.flat());
  const head = make("tr", {}, make("td"));
  for (const name of map.columns) head.append(make("th", { scope: "col" }, name));
  const body = make("tbody");
  map.values.forEach((values, k) => {
    const row = make("tr", {}, make("th", { scope: "row" }, map.rows[k]));
    for (const value of values) {
      const cell = make("td", {}, value === null ? "" : value.toFixed(2));
      shade(cell, largest ? value / largest : 0);
      row.append(cell);
    }
    body.append(row);
  });
  return make("table", {}, make("caption", {}, map.title), make("thead", {}, head), body);
}

function chooseSample() {
  const sample = Number(document.getElementById("sample").value);
  for (const view of [...starts, ...cards]) view.choose(sample);
}

function moveAll(index) {
  for (const card of cards) {
    card.slider.value = index;
    card.show();
  }
}

function togglePlay(button) {
  const playing = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!playing));
  button.textContent = playing ? "Play" : "Stop";
  if (playing) {
    clearInterval(togglePlay.timer);
    return;
  }
  const last = data.values.length - 1;
  let tick = 0;
  togglePlay.timer = setInterval(() => {
    moveAll(last - Math.abs(last - (tick % (2 * last)))); // forth and back
    tick += 1;
  }, INTERVAL);
}

function build() {
  const runs = document.getElementById("runs");
  runs.classList.toggle("pair", data.runs.length > 1);
  data.runs.forEach((run, r) => runs.append(makeRun(run, r)));
  const numbers = document.getElementById("numbers");
  numbers.append(makeScores());
  for (const run of data.runs) {
    if (run.maps.length && data.runs.length > 1) numbers.append(make("h3", {}, run.name));
    numbers.append(...run.maps.map(makeMap));
  }
  const picker = document.getElementById("sample");
  data.runs[0].starts.forEach((_, s) => picker.append(make("option", { value: s }, `${s + 1}`)));
  picker.addEventListener("change", chooseSample);
  const play = document.getElementById("play");
  play.addEventListener("click", () => togglePlay(play));
  document.getElementById("reset").addEventListener("click", () => {
    if (play.getAttribute("aria-pressed") === "true") togglePlay(play);
    moveAll(data.middle);
  });
  chooseSample();
}

build();
