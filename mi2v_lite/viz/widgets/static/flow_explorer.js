// FlowExplorer's page: elements, keys, pointer and time. page.js, flow_pixels.js and flow_drawing.js stand before this
// file, in one module.

/** The clock of `playing`: one for each explorer, however often it is shown. */
function initialize({ model }) {
  let timer = null;
  const tick = () => {
    model.set("frame", (model.get("frame") + 1) % (model.get("_shape")[0] + 1));
    model.save_changes();
  };
  const follow = () => {
    clearInterval(timer);
    timer = model.get("playing") ? setInterval(tick, 1000 / model.get("fps")) : null;
  };
  for (const name of ["playing", "fps"]) model.on(`change:${name}`, follow);
  follow();
  return () => clearInterval(timer);
}

function slider(model, trait, label, limits) {
  const input = make("input", { type: "range", ...limits, ariaLabel: label });
  input.addEventListener("input", () => put(model, { [trait]: Number(input.value) }));
  return { input, show: () => (input.value = model.get(trait)) };
}

function put(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

function render({ model, el }) {
  const data = dataOf(model);
  const { width, height, count } = data;

  const canvas = make("canvas", { className: "canvas", tabIndex: 0 });
  const nominal = NOMINAL / Math.max(width, height);
  const larger = model.get("_sharp");
  // Toys of a few pixels are enlarged by a whole number; a photo need not be.
  const enlarged = nominal < 1 || larger?.byteLength ? nominal : Math.floor(nominal);
  canvas.style.width = `${Math.round(width * enlarged)}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  canvas.setAttribute("role", "img");
  const play = make("button", { type: "button", className: "play" });
  const frame = slider(model, "frame", "frame", { min: 0, max: count, step: 1 });
  const frameText = make("span", { className: "frame-text" });
  const overlay = make("select", { ariaLabel: "overlay" });
  for (const [value, textContent] of Object.entries(OVERLAYS)) overlay.append(make("option", { value, textContent }));
  const opacity = slider(model, "opacity", "opacity of the colours", { min: 0, max: 1, step: 0.05 });
  const density = slider(model, "density", "points along the longer side", { min: 4, max: 64, step: 1 });
  const scale = slider(model, "scale", "length of the arrows", { min: 0.25, max: 8, step: 0.25 });
  const [opacityText, densityText, scaleText, wheelText] = [0, 1, 2, 3].map(() => make("span", { className: "value" }));
  const wheel = make("canvas", { className: "wheel", ariaLabel: "Legend: hue is direction, saturation is length." });
  const readout = make("output", { className: "readout" });
  const notes = make("div", { className: "notes" });
  const row = (text, control, value = "") => make("label", {}, make("span", { textContent: text }), control, value);
  const rows = {
    opacity: row("opacity", opacity.input, opacityText),
    density: row("points", density.input, densityText),
    scale: row("arrow length", scale.input, scaleText),
  };

  const root = make(
    "div",
    { className: "flow-explorer" },
    make("div", { className: "stage" }, canvas, make("div", { className: "time" }, play, frame.input, frameText)),
    make(
      "div",
      { className: "side" },
      row("overlay", overlay),
      rows.opacity,
      rows.density,
      rows.scale,
      make("div", { className: "legend" }, wheel, wheelText),
      readout,
      notes,
    ),
  );
  root.dataset.lmSuppressShortcuts = "true"; // or JupyterLab would take our keys
  el.append(root);

  let sharpPhoto = null; // the photo itself, where it is larger than the field
  if (larger?.byteLength) {
    createImageBitmap(new Blob([larger], { type: "image/jpeg" })).then((bitmap) => {
      sharpPhoto = bitmap;
      schedule();
    });
  }

  // Pictures that are kept: those of the present overlay, by frame, and the legend's disc, by its size.
  const [bases, discs] = [new Map(), new Map()];
  let kept = "";
  const remembered = (store, key, produce) => store.get(key) ?? store.set(key, produce()).get(key);

  function draw() {
    const began = performance.now();
    const now = model.get("frame");
    const chosen = model.get("overlay");
    const top = model.get("max_flow");
    const ratio = window.devicePixelRatio || 1;
    const shown = canvas.clientWidth || parseFloat(canvas.style.width);
    const size = [Math.round(shown * ratio), Math.round((shown * ratio * height) / width)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const overPhoto = ["photo", "arrows", "tracks"].includes(chosen);
    if (kept !== `${chosen} ${top}`) bases.clear();
    kept = `${chosen} ${top}`;
    const base = remembered(bases, overPhoto ? 0 : now, () => baseOf(data, chosen, now, top));
    const context = canvas.getContext("2d");
    const zoom = canvas.width / width;
    const unit = 1.6 * ratio;
    // A photo is shown smoothly; values, and toys of a few pixels, are shown pixel by pixel.
    context.imageSmoothingEnabled = overPhoto && zoom < 10 * ratio;
    context.imageSmoothingQuality = "high";
    const opaque = chosen === "colours" ? model.get("opacity") : 1;
    const marks = [...base.notes];
    if (opaque < 1) {
      const under = sharpPhoto ?? remembered(bases, "photo", () => baseOf(data, "photo", now, top)).canvas;
      context.drawImage(under, 0, 0, ...size);
    }
    context.globalAlpha = opaque;
    context.drawImage(overPhoto && sharpPhoto ? sharpPhoto : base.canvas, 0, 0, ...size);
    context.globalAlpha = 1;
    const settings = { density: model.get("density"), scale: model.get("scale"), top };
    if (chosen === "arrows" || chosen === "tracks") {
      const shortest = drawGrid(context, data, chosen, now, settings, zoom, unit);
      if (now) marks.push([null, `left out: what moves less than ${shortest.toPrecision(2)} px`]);
    }
    const [wide, high] = model.get("_photo_size");
    if (wide !== width || high !== height) {
      marks.push([null, `the photo has ${wide} x ${high} pixels, the field ${width} x ${height}`]);
    }
    const hovered = model.get("hovered");
    if (hovered) drawPoint(context, data, hovered, now, zoom, unit);
    tell(now, chosen, top, hovered, marks);
    const flow = hovered && flowAt(now, hovered);
    const disc = remembered(discs, ratio, () => wheelOf(data.wheel, Math.round(110 * ratio)));
    drawWheel(wheel, disc, flow, top, ratio);
    root.dataset.drawn = [chosen, now].join();
    root.dataset.milliseconds = (performance.now() - began).toFixed(1);
  }

  /** [u, v] of a pixel; null where it is unknown. */
  function flowAt(now, { x, y }) {
    const flow = ["u", "v"].map((part) => data.fields[now][part][y * width + x]);
    return flow.every(Number.isFinite) ? flow : null;
  }

  function tell(now, chosen, top, hovered, marks) {
    play.textContent = model.get("playing") ? "❚❚" : "▶";
    play.ariaLabel = model.get("playing") ? "pause" : "play";
    frameText.textContent = `frame ${now} of ${count}`;
    overlay.value = chosen;
    for (const each of [frame, opacity, density, scale]) each.show();
    rows.opacity.hidden = chosen !== "colours"; // only what has an effect is there
    rows.density.hidden = !["arrows", "tracks"].includes(chosen);
    rows.scale.hidden = chosen !== "arrows";
    opacityText.textContent = `${Math.round(100 * model.get("opacity"))} %`;
    densityText.textContent = model.get("density");
    scaleText.textContent = `x ${model.get("scale")}`;
    wheelText.textContent = `centre: 0 px\nrim: ${Number(top.toPrecision(3))} px`;
    canvas.ariaLabel = `Motion from frame 0 to ${now}: ${OVERLAYS[chosen]}. Arrow keys move the point.`;
    notes.replaceChildren(
      ...marks.map(([colour, text]) => {
        if (!colour) return make("div", {}, text);
        const patch = make("span", { className: "patch" });
        patch.style.background = `rgb(${colour.join()})`;
        return make("div", {}, patch, text);
      }),
    );
    const lines = [["(x, y)", hovered ? `${hovered.x}, ${hovered.y}` : "hover the picture"]];
    const flow = hovered && flowAt(now, hovered);
    if (hovered && !flow) lines.push(["(u, v)", "unknown"]);
    if (flow) {
      const [u, v] = flow;
      lines.push(["(u, v)", `${u.toFixed(2)}, ${v.toFixed(2)} px`], ["length", `${Math.hypot(u, v).toFixed(2)} px`]);
      lines.push(["lands at", `${(hovered.x + u).toFixed(2)}, ${(hovered.y + v).toFixed(2)}`]);
    }
    const line = ([name, text]) => make("div", {}, make("span", {}, name), make("b", {}, text));
    readout.replaceChildren(...lines.map(line));
  }

  let waiting = 0;
  const schedule = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  };
  function hover(x, y) {
    x = Math.min(width - 1, Math.max(0, x));
    y = Math.min(height - 1, Math.max(0, y));
    const before = model.get("hovered");
    if (before && before.x === x && before.y === y) return;
    const now = model.get("frame");
    const [u, v] = flowAt(now, { x, y }) ?? [null, null];
    put(model, { hovered: { frame: now, x, y, u, v } });
  }
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    hover(
      Math.floor(((event.clientX - box.left) / box.width) * width),
      Math.floor(((event.clientY - box.top) / box.height) * height),
    );
  });
  canvas.addEventListener("pointerdown", () => canvas.focus());
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const far = event.shiftKey ? 10 : 1;
    const step = { ",": -1, ".": 1 }[event.key];
    if (moves[event.key]) {
      const from = model.get("hovered") ?? { x: width >> 1, y: height >> 1 };
      hover(from.x + far * moves[event.key][0], from.y + far * moves[event.key][1]);
    } else if (event.key === " ") put(model, { playing: !model.get("playing") });
    else if (step) put(model, { frame: Math.min(count, Math.max(0, model.get("frame") + step)) });
    else return;
    event.preventDefault();
  });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  overlay.addEventListener("change", () => put(model, { overlay: overlay.value }));
  play.addEventListener("click", () => put(model, { playing: !model.get("playing") }));

  const traits = ["frame", "overlay", "opacity", "density", "scale", "max_flow", "hovered", "playing"];
  for (const name of traits) model.on(`change:${name}`, schedule);
  const resized = new ResizeObserver(schedule);
  resized.observe(canvas);
  draw();
  return () => {
    for (const name of traits) model.off(`change:${name}`, schedule);
    resized.disconnect();
    cancelAnimationFrame(waiting);
  };
}

export default { initialize, render };
