// The map of the catalogue: draws points that the server packs, and keeps the address and the list in step.
"use strict";
(() => {
  const canvas = document.getElementById("map");
  if (!canvas) return;
  const label = document.getElementById("label");
  const context = canvas.getContext("2d");
  const view = { x: +canvas.dataset.x, y: +canvas.dataset.y, w: +canvas.dataset.w };
  const found = new Set(canvas.dataset.found ? canvas.dataset.found.split(",").map(Number) : []);
  const cards = new Map();
  let points = { rows: [], x: [], y: [], codes: [], total: 0 };
  let asked = null;
  let sampled = false;
  let colours = [];
  let hovered = -1;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const scale = document.querySelector(".legend").classList.contains("scale");
    const names = scale ? ["none", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]
      : ["none", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "other"];
    colours = names.map((name) => style.getPropertyValue("--" + name).trim());
    colours.found = style.getPropertyValue("--found").trim();
    colours.ink = style.getPropertyValue("--ink").trim();
  }

  function unpack(buffer) {
    const [count, total] = new Uint32Array(buffer, 0, 2);
    return {
      total,
      rows: new Uint32Array(buffer, 8, count),
      x: new Uint16Array(buffer, 8 + 4 * count, count),
      y: new Uint16Array(buffer, 8 + 6 * count, count),
      codes: new Uint8Array(buffer, 8 + 8 * count, count),
    };
  }

  // All points are fetched once; only of a larger catalogue, those of the window.
  async function load() {
    const part = sampled ? `&x=${view.x}&y=${view.y}&w=${view.w}` : "";
    if (part === asked) return;
    asked = part;
    const answer = await fetch(canvas.dataset.points + part);
    if (!answer.ok || part !== asked) return;
    points = unpack(await answer.arrayBuffer());
    sampled = sampled || points.rows.length < points.total;
    hovered = -1;
    canvas.dataset.drawn = points.rows.length;
    redraw();
    if (sampled && !part && view.w < 1) load();
  }

  // The square of the window fills the shorter side of the canvas.
  const side = () => Math.min(canvas.width, canvas.height);
  const toX = (x) => canvas.width / 2 + ((x / 65535 - view.x) / view.w) * side();
  const toY = (y) => canvas.height / 2 + ((y / 65535 - view.y) / view.w) * side();

  function size() {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
  }

  // Very many small points are written into the picture itself: paths take several times longer.
  function drawPixels(dots) {
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let code = 0; code < colours.length; code += 1) {
      const hex = parseInt(colours[code].slice(1), 16);
      const value = (0xff000000 | ((hex & 0xff) << 16) | (hex & 0xff00) | (hex >> 16)) >>> 0;
      for (let i = 0; i < points.rows.length; i += 1) {
        if (points.codes[i] !== code) continue;
        const x = Math.round(toX(points.x[i]) - dots / 2);
        const y = Math.round(toY(points.y[i]) - dots / 2);
        if (x < 0 || y < 0 || x + dots > canvas.width || y + dots > canvas.height) continue;
        for (let line = 0; line < dots; line += 1) {
          const first = (y + line) * canvas.width + x;
          for (let pixel = first; pixel < first + dots; pixel += 1) pixels[pixel] = value;
        }
      }
    }
    context.putImageData(image, 0, 0);
  }

  function draw() {
    const begin = performance.now();
    const ratio = window.devicePixelRatio || 1;
    const shown = Math.max(points.rows.length * view.w * view.w, 1);
    const radius = Math.min(Math.max(side() / Math.sqrt(shown) / 6, 0.8 * ratio), 5 * ratio);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (points.rows.length > 20000 && radius < 2 * ratio) drawPixels(Math.max(Math.round(2 * radius), 1));
    // One pass for each colour: changing the colour is what takes time.
    else for (let code = 0; code < colours.length; code += 1) {
      context.fillStyle = colours[code];
      context.beginPath();
      for (let i = 0; i < points.rows.length; i += 1) {
        if (points.codes[i] !== code) continue;
        const x = toX(points.x[i]);
        const y = toY(points.y[i]);
        if (x < -radius || y < -radius || x > canvas.width + radius || y > canvas.height + radius) continue;
        context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
      context.fill();
    }
    if (found.size) {
      context.fillStyle = colours.found;
      context.beginPath();
      for (let i = 0; i < points.rows.length; i += 1) {
        if (!found.has(points.rows[i])) continue;
        const x = toX(points.x[i]);
        const y = toY(points.y[i]);
        context.moveTo(x + 5 * ratio, y);
        context.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
      }
      context.fill();
    }
    if (hovered >= 0) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 2 * ratio;
      context.beginPath();
      context.arc(toX(points.x[hovered]), toY(points.y[hovered]), radius + 4 * ratio, 0, 2 * Math.PI);
      context.stroke();
    }
    canvas.dataset.milliseconds = (performance.now() - begin).toFixed(1);
  }

  let frame = 0;
  function redraw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const x = (event.clientX - box.left) * ratio;
    const y = (event.clientY - box.top) * ratio;
    let best = (12 * ratio) ** 2;
    let index = -1;
    for (let i = 0; i < points.rows.length; i += 1) {
      const distance = (toX(points.x[i]) - x) ** 2 + (toY(points.y[i]) - y) ** 2;
      if (distance < best) { best = distance; index = i; }
    }
    return index;
  }

  async function card(row) {
    if (!cards.has(row)) {
      const answer = await fetch(`/catalogue/card?row=${row}`);
      if (!answer.ok) return null;
      cards.set(row, await answer.json());
    }
    return cards.get(row);
  }

  async function hover(event) {
    const index = nearest(event);
    if (index === hovered) return;
    hovered = index;
    redraw();
    label.hidden = true;
    if (index < 0) return;
    const made = await card(points.rows[index]);
    if (!made || hovered !== index) return;
    const title = document.createElement("strong");
    title.textContent = made.title;
    label.replaceChildren(title, made.line);
    const ratio = canvas.width / canvas.clientWidth;
    const x = toX(points.x[index]) / ratio;
    label.style.left = `${Math.max(Math.min(x + 12, canvas.clientWidth - 200), 0)}px`;
    label.style.top = `${toY(points.y[index]) / ratio + 12}px`;
    label.hidden = false;
  }

  // The address and the list follow the map once it has come to rest.
  let timer = 0;
  function moved() {
    view.w = Math.min(Math.max(view.w, 0.005), 1);
    const half = view.w / 2;
    view.x = Math.min(Math.max(view.x, half), 1 - half);
    view.y = Math.min(Math.max(view.y, half), 1 - half);
    hovered = -1;
    label.hidden = true;
    redraw();
    clearTimeout(timer);
    timer = setTimeout(settle, 400);
  }

  async function settle() {
    const address = new URL(location.href);
    address.searchParams.set("x", view.x.toFixed(5));
    address.searchParams.set("y", view.y.toFixed(5));
    address.searchParams.set("w", view.w.toFixed(5));
    address.searchParams.delete("page");
    history.replaceState(null, "", address);
    if (sampled) load();
    const answer = await fetch(address);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const selector of ["#list", ".map nav"]) {
      const fresh = page.querySelector(selector);
      const old = document.querySelector(selector);
      if (fresh && old && !old.contains(document.activeElement)) old.replaceWith(fresh);
    }
  }

  let start = null;
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    start = { x: event.clientX, y: event.clientY };
    dragged = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) { hover(event); return; }
    const dx = event.clientX - start.x;
    const dy = event.clientY - start.y;
    if (!dragged && Math.hypot(dx, dy) < 5) return;
    dragged = true;
    const unit = view.w / Math.min(canvas.clientWidth, canvas.clientHeight);
    view.x -= dx * unit;
    view.y -= dy * unit;
    start = { x: event.clientX, y: event.clientY };
    moved();
  });
  canvas.addEventListener("pointerup", async (event) => {
    const tapped = start && !dragged;
    start = null;
    if (!tapped) return;
    const index = nearest(event);
    if (index < 0) return;
    // A finger has no hover: the first tap shows the title, the second opens the item.
    if (event.pointerType !== "mouse" && hovered !== index) { hover(event); return; }
    const made = await card(points.rows[index]);
    if (made) location.assign(made.address);
  });
  canvas.addEventListener("pointerleave", () => { hovered = -1; label.hidden = true; redraw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const smaller = Math.min(box.width, box.height);
    const fx = (event.clientX - box.left - box.width / 2) / smaller;
    const fy = (event.clientY - box.top - box.height / 2) / smaller;
    const before = view.w;
    view.w = Math.min(Math.max(view.w * Math.exp(event.deltaY * 0.0015), 0.005), 1);
    view.x += fx * (before - view.w);
    view.y += fy * (before - view.w);
    moved();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-0.25, 0], ArrowRight: [0.25, 0], ArrowUp: [0, -0.25], ArrowDown: [0, 0.25] };
    if (event.key in steps) {
      view.x += steps[event.key][0] * view.w;
      view.y += steps[event.key][1] * view.w;
    } else if (event.key === "+" || event.key === "=") view.w *= 0.5;
    else if (event.key === "-") view.w *= 2;
    else return;
    event.preventDefault();
    moved();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  new ResizeObserver(() => { size(); redraw(); }).observe(canvas);
  readColours();
  size();
  load();
})();
