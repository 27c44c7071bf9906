// AttentionExplorer's page: it sends the query, and draws the kernel's answer. All coordinates of `query` and `answer`
// are pixels of the clip; canvases are drawn larger. page.js stands before this file, in one module.

const NOMINAL = 288; // longer side of a picture on the page, CSS pixels
const CHART = { width: 430, height: 288, left: 46, bottom: 30, top: 14 };
const WARPED = "#D55E00", OWN = "#3B9BDC", WAY = "#E69F00"; // readable on light and on dark ground
const REFERENCE = "currentColor"; // that of the text

/** The frames as bitmaps of their own size. */
function pictures(model) {
  const [count, height, width] = model.get("_shape");
  const view = model.get("_frames");
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, count * height * width * 3);
  return Array.from({ length: count }, (_, frame) => {
    const image = new ImageData(width, height);
    const start = frame * height * width * 3;
    for (let i = 0; i < height * width; i++) {
      image.data.set(bytes.subarray(start + 3 * i, start + 3 * i + 3), 4 * i);
      image.data[4 * i + 3] = 255;
    }
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  });
}

function cross(context, x, y, arm, turned = false) {
  for (const [style, wide] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.beginPath();
    const [a, b] = turned ? [arm, arm] : [arm, 0];
    context.moveTo(x - a, y - b);
    context.lineTo(x + a, y + b);
    context.moveTo(x - b, y + a);
    context.lineTo(x + b, y - a);
    context.stroke();
  }
}

function line(context, points) {
  for (const [style, wide] of [["#000", 4], [WAY, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }
}

function drawChart(canvas, answer, frame) {
  const { width, height, left, bottom, top } = CHART;
  const context = sharp(canvas, width, height);
  const ink = getComputedStyle(canvas).color;
  const weights = answer.weights;
  const count = (weights.length + 1) / 2;
  const most = Math.max(...weights);
  const [base, slot] = [height - bottom, (width - left - 6) / count];
  canvas.style.width = `${width}px`;
  const y = weight => base - ((base - top) * weight) / most;
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = "rgba(128, 128, 128, 0.3)"; // the frame that asks
  context.fillRect(left + frame * slot, top, slot, base - top);
  const bar = (start, wide, weight, colour) => {
    context.fillStyle = colour;
    context.fillRect(left + start * slot, y(weight), wide * slot, base - y(weight));
  };
  bar(0.3, 0.4, weights[0], ink);
  for (let j = 1; j < count; j++) {
    bar(j + 0.12, 0.38, weights[2 * j - 1], WARPED);
    bar(j + 0.5, 0.38, weights[2 * j], OWN);
  }
  context.fillStyle = ink;
  context.textAlign = "right";
  for (const part of [0, 0.5, 1]) context.fillText((part * most).toFixed(3), left - 6, y(part * most) + 4);
  context.textAlign = "center";
  for (let j = 0; j < count; j += count > 10 ? 3 : 1) context.fillText(j, left + (j + 0.5) * slot, base + 14);
  context.fillText("weight over frames", left + (width - left) / 2, height - 3);
}

function select(model, name, options) {
  const element = make("select", { ariaLabel: name });
  for (const [value, text] of options) element.append(make("option", { value, textContent: text }));
  element.addEventListener("change", () => {
    model.set(name, name === "layer" ? element.value : Number(element.value));
    model.save_changes();
  });
  return element;
}

function render({ model, el }) {
  const [count, height, width] = model.get("_shape");
  const frames = pictures(model);
  const zoom = NOMINAL / Math.max(width, height);
  const [wide, high] = [Math.round(width * zoom), Math.round(height * zoom)];
  const centre = ([x, y]) => [(x + 0.5) * zoom, (y + 0.5) * zoom];

  const photo = make("canvas", { className: "photo", tabIndex: 0 });
  photo.setAttribute("role", "img");
  const asks = make("canvas", { className: "asks", tabIndex: 0 });
  asks.setAttribute("role", "img");
  const chart = make("canvas", { className: "chart" });
  chart.setAttribute("role", "img");
  const frame = make("input", { type: "range", min: 1, max: count - 1, step: 1, ariaLabel: "frame" });
  frame.min = 0;
  const frameText = make("span");
  const layer = select(model, "layer", model.get("layers").map((name, i) => [name, `${i}: ${name}`]));
  const step = select(model, "step", model.get("steps").map(number => [number, number]));
  const heads = [[-1, "mean"], ...Array.from({ length: model.get("heads") }, (_, i) => [i, i])];
  const head = select(model, "head", heads);
  const readout = make("output", { className: "readout" });
  const titled = (title, canvas) => make("figure", {}, make("figcaption", { textContent: title }), canvas);
  const named = (text, ...parts) => make("label", {}, make("span", { textContent: text }), ...parts);
  const asksFigure = titled("", asks);
  const root = make(
    "div",
    { className: "attention-explorer" },
    titled("photo: click a pixel to follow it", photo),
    asksFigure,
    titled("attention over time", chart),
    make("div", { className: "controls" }, named("frame", frame, frameText), named("head", head), named("step", step)),
    make("div", { className: "controls layers" }, named("layer", layer)),
    readout,
  );
  el.append(root);

  function ask(x, y, number = model.get("query")[0]) {
    const inside = (value, most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
    model.set("query", [number, inside(x, width), inside(y, height)]);
    model.save_changes();
  }

  function picture(canvas) {
    [canvas.style.width, canvas.style.height] = [`${wide}px`, `${high}px`];
    const context = sharp(canvas, wide, high);
    context.imageSmoothingEnabled = false;
    return context;
  }
  function draw() {
    const [number, x, y] = model.get("query");
    const answer = model.get("answer");
    if (!answer.weights) return;
    const left = picture(photo);
    left.drawImage(frames[0], 0, 0, wide, high);
    answer.sources.forEach((source, i) => {
      if (!source) return;
      const [cx, cy] = centre(source);
      left.globalAlpha = 0.6;
      left.fillStyle = WARPED;
      left.beginPath();
      left.arc(cx, cy, 2 + 40 * Math.sqrt(answer.weights[2 * i + 1] / Math.PI), 0, 2 * Math.PI); // area is weight
      left.fill();
      left.globalAlpha = 1;
    });
    if (answer.track.length) {
      line(left, answer.track.map(centre));
      cross(left, ...centre(answer.source), 6, true);
    }
    const right = picture(asks);
    right.drawImage(frames[number], 0, 0, wide, high);
    const [h, w] = answer.size;
    right.strokeStyle = "#fff";
    right.strokeRect((answer.place[0] * wide) / w, (answer.place[1] * high) / h, wide / w, high / h);
    if (answer.track.length) line(right, answer.track.slice(0, number + 1).map(centre));
    cross(right, ...centre([x, y]), 8);
    drawChart(chart, answer, number);

    asksFigure.firstChild.textContent = `frame ${number}: click a pixel`;
    frame.value = number;
    frameText.textContent = `${number} of ${count - 1}`;
    layer.value = model.get("layer");
    step.value = model.get("step");
    head.value = model.get("head");
    const share = value => `${Math.round(100 * value)} %`;
    const key = (colour, text) => {
      const span = make("span", { className: "key", textContent: text });
      span.style.setProperty("--colour", colour);
      return span;
    };
    const from = answer.source ? `comes from (${answer.source.join(", ")}) of the photo` : "has no source in the photo: a hole";
    const text = `Pixel (${x}, ${y}) of frame ${number} ${from}; feature pixel (${answer.place.join(", ")}) of ${w} x ${h}.`;
    readout.replaceChildren(
      make("div", { textContent: text }),
      key(REFERENCE, `photo, same place ${share(answer.reference)}`),
      key(WARPED, `photo, warped ${share(answer.warped)}`),
      key(OWN, `frames themselves ${share(answer.own)}`),
    );
    photo.setAttribute("aria-label", `The photo with the sources of pixel (${x}, ${y}). Arrow keys move the source.`);
    asks.setAttribute("aria-label", `Frame ${number}; pixel (${x}, ${y}) asks. Arrow keys move it.`);
    chart.setAttribute("aria-label", `Attention weights over ${count} frames.`);
  }

  function place(event) {
    const box = event.currentTarget.getBoundingClientRect(); // taken anew: the page may have been zoomed or scrolled
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  }
  asks.addEventListener("click", event => ask(...place(event)));
  const follow = (x, y) => model.send({ x: Math.floor(x), y: Math.floor(y) });
  photo.addEventListener("click", event => follow(...place(event)));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const steered = (canvas, from, go) =>
    canvas.addEventListener("keydown", event => {
      if (!moves[event.key]) return;
      event.preventDefault();
      event.stopPropagation(); // JupyterLab would go to another cell
      const [x, y] = from();
      go(x + moves[event.key][0], y + moves[event.key][1]);
    });
  steered(asks, () => model.get("query").slice(1), ask);
  steered(photo, () => model.get("answer").source ?? model.get("query").slice(1), follow);
  frame.addEventListener("input", () => ask(model.get("query")[1], model.get("query")[2], Number(frame.value)));
  model.on("change:answer", draw);
  const themes = new MutationObserver(draw); // the chart's colours are those of the page
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name"] });
  const resized = new ResizeObserver(draw); // also when the widget comes onto the page: before, it has no colours
  resized.observe(root);
  return () => {
    model.off("change:answer", draw);
    resized.disconnect();
    themes.disconnect();
  };
}

export default { render };
