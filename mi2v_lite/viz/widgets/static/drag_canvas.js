// The page of DragCanvas (widgets/drag_canvas.py). It shows what the kernel says is drawn, and asks for edits; it knows
// nothing about motion. Every message carries a number, and the scene that answers it carries the same number. This is
// the last part of one module: drag_controls.js and drag_scene.js come before it.

const SLOW = 1500; // milliseconds: the page says so when the kernel takes longer to answer
const CLICK = 4; // CSS pixels: a press that moves less than this is a click
const NEAR = { mouse: 9, pen: 12, touch: 20 }; // CSS pixels: how close a press must be to hit something

function render({ model, el }) {
  const [width, height] = model.get("_size");
  const view = Math.random().toString(36).slice(2);
  const state = { tool: "drag", selected: null, stroke: null, clicks: [], grab: null, cursor: null };
  let [number, answered, waiting, later, ghosts] = [0, 0, 0, null, []];
  let [made, slow] = [0, 0]; // the number of the last predict or render; the clock that notices a busy kernel
  let scene = model.get("_scene");
  let radius = null; // of new drags and anchors; null stands for the default

  // Messages. Trials show an edit under way; only one is on its way at a time, and the newest waits.
  function send(what, more = {}, ghost = null) {
    if (!more.trial) later = null;
    number += 1;
    if (ghost) ghosts.push({ ...ghost, number });
    if (more.trial) waiting = number;
    if (what === "predict" || what === "render") made = number;
    model.send({ do: what, view, number, ...more });
    slow ||= setTimeout(() => ((slow = -1), refresh()), SLOW);
    refresh();
  }
  function attempt(what, more) {
    if (waiting) later = [what, more];
    else send(what, { ...more, trial: true });
  }
  const settings = () =>
    send("settings", {
      prompt: ui.prompt.value,
      seed: Math.max(0, Math.floor(Number(ui.seed.value) || 0)),
      control_scale: Math.max(0, Number(ui.scale.value) || 0),
    });

  const ui = controls({ send, tool: choose, undo, remove, finish });
  const photo = make("img.layer", { alt: "", draggable: false });
  const overlay = make("img.layer", { alt: "", draggable: false });
  const canvas = make("canvas.layer.canvas", {
    tabIndex: 0,
    role: "application",
    "aria-label": "Photo to draw motion on. Arrow keys move a cross, Space sets a point, Enter ends a drag, " +
      "N selects the next thing, Delete removes it, Control Z undoes.",
    // JupyterLab's own keys would delete cells and insert others.
    "data-lm-suppress-shortcuts": "true",
  });
  const stage = make("div.stage", {}, photo, overlay, canvas);
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.width = `min(100%, ${Math.round(Math.min(640, (520 * width) / height))}px)`;
  const hint = make("div.hint", {});
  const status = make("div.status", { role: "status", "aria-live": "polite" });
  const motion = make("img", { alt: "the predicted motion: tracks, colours of four frames, and their wheel" });
  const clip = make("img", { alt: "the clip" });
  const figure = (words, image) => make("figure", { hidden: true }, image, make("figcaption", { textContent: words }));
  const results = make("div.results", {}, figure("Clip", clip), figure("Motion", motion));
  const root = make("div.canvas-widget");
  root.append(ui.top, ui.options, hint, stage, ui.make, ui.files, status, results);
  el.append(root);

  // Places. Pixel centres are whole numbers, so the photo reaches from -0.5 to its width - 0.5.
  const box = () => canvas.getBoundingClientRect();
  const at = ([x, y]) => [((x + 0.5) * canvas.clientWidth) / width, ((y + 0.5) * canvas.clientHeight) / height];
  const inside = (x, y) =>
    [[x, width], [y, height]].map(([value, length]) => Math.round(Math.min(Math.max(value, 0), length - 1) * 100) / 100);
  function place(event) {
    const { left, top, width: wide, height: high } = box();
    return inside(((event.clientX - left) / wide) * width - 0.5, ((event.clientY - top) / high) * height - 0.5);
  }
  const apart = (a, b) => Math.hypot(at(a)[0] - at(b)[0], at(a)[1] - at(b)[1]);
  const thing = () => state.selected && scene[`${state.selected.kind}s`][state.selected.index];

  function draw() {
    const ratio = window.devicePixelRatio;
    const [wide, high] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, high);
    const live = state.stroke ? [{ points: state.stroke, ...brush() }] : [];
    if (state.clicks.length) live.push({ points: state.clicks });
    const cursor = document.activeElement === canvas ? state.cursor : null;
    const scale = canvas.clientWidth / width;
    paintScene(context, { scene, at, scale, selected: state.selected, ghosts: [...ghosts, ...live], cursor });
  }
  let asked = 0;
  const redraw = () => (asked ||= requestAnimationFrame(() => ((asked = 0), draw())));

  // What the tools do.
  const painting = () => state.tool === "paint" || state.tool === "erase";
  const brush = () => (painting() ? { size: Number(ui.brush.value), erase: state.tool === "erase" } : {});
  const tolerance = () => (2 * width) / canvas.clientWidth;
  function choose(tool) {
    if (state.clicks.length > 1) finish();
    else cancel();
    state.tool = tool;
    if (tool !== "select") state.selected = null;
    refresh();
  }
  function cancel() {
    const busy = state.clicks.length || state.grab || state.stroke;
    Object.assign(state, { clicks: [], grab: null, stroke: null });
    if (busy) send("look");
    refresh();
  }
  function finish() {
    if (state.clicks.length > 1) send("drag", { points: state.clicks, radius });
    state.clicks = [];
    refresh();
  }
  /** One step back; of a drag under way, its last point. */
  function undo() {
    if (state.clicks.pop()) send("look");
    else send("undo");
  }
  function remove() {
    if (state.selected) send("delete", state.selected);
    state.selected = null;
    refresh();
  }
  /** A click, or Space at the keyboard's cross. */
  function tap(point, near = NEAR.mouse) {
    if (state.tool === "anchor") send("anchor", { point, radius });
    else if (painting()) send("paint", { points: [point], ...brush() }, { points: [point], ...brush() });
    else if (state.tool === "select") state.selected = hit(scene, at, at(point), near, state.selected);
    else if (state.clicks.length && apart(point, state.clicks.at(-1)) <= near) finish();
    else state.clicks.push(point);
    refresh();
  }

  canvas.onpointerdown = (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const point = place(event);
    state.cursor = null;
    if (state.tool === "select") {
      state.selected = hit(scene, at, at(point), NEAR[event.pointerType] ?? NEAR.mouse, state.selected);
      if (state.selected) state.grab = { ...state.selected, from: point, to: point };
    } else state.stroke = [point];
    refresh();
  };
  canvas.onpointermove = (event) => {
    if (!event.isPrimary) return;
    if (state.stroke) {
      // A pen gives many places between two frames, and all of them are kept.
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) state.stroke.push(place(each));
      if (state.tool === "drag" && !state.clicks.length && moved(state.stroke)) {
        attempt("stroke", { points: state.stroke, tolerance: tolerance(), radius });
      }
    } else if (state.grab) {
      state.grab.to = place(event);
      if (apart(state.grab.from, state.grab.to) > CLICK) attempt(...pull());
    } else if (state.clicks.length) {
      attempt("drag", { points: [...state.clicks, place(event)], radius });
    } else return;
    redraw();
  };
  canvas.onpointerup = (event) => {
    if (!event.isPrimary || !(state.stroke || state.grab)) return;
    const { stroke, grab, clicks } = state;
    Object.assign(state, { stroke: null, grab: null });
    if (grab) {
      if (apart(grab.from, grab.to) > CLICK) send(...pull(grab));
    } else if (painting()) send("paint", { points: stroke, ...brush() }, { points: stroke, ...brush() });
    else if (state.tool === "drag" && !clicks.length && moved(stroke)) {
      send("stroke", { points: stroke, tolerance: tolerance(), radius }, { points: stroke });
    } else tap(stroke.at(-1), NEAR[event.pointerType]);
    refresh();
  };
  canvas.onpointercancel = cancel;
  const moved = (points) => points.some((point) => apart(point, points[0]) > CLICK);
  function pull(grab = state.grab) {
    const { kind, index, number: which, from, to } = grab;
    if (which !== undefined) return ["point", { kind, index, number: which, to }];
    return ["move", { kind, index, by: [to[0] - from[0], to[1] - from[1]] }];
  }

  function nudge(dx, dy) {
    const step = Math.max(1, Math.round(Math.max(width, height) / 128));
    if (state.tool === "select" && state.selected) {
      const { kind, index, number: which } = state.selected;
      const [x, y] = which === undefined ? [] : thing().points[which];
      if (which === undefined) send("move", { kind, index, by: [dx * step, dy * step], merge: true });
      else send("point", { kind, index, number: which, to: inside(x + dx * step, y + dy * step), merge: true });
      return;
    }
    const [x, y] = state.cursor ?? [(width - 1) / 2, (height - 1) / 2];
    state.cursor = inside(x + dx * step, y + dy * step);
    if (state.clicks.length) attempt("drag", { points: [...state.clicks, state.cursor], radius });
  }
  function next() {
    const all = ["drag", "anchor"].flatMap((kind) => scene[`${kind}s`].map((_, index) => ({ kind, index })));
    const now = all.findIndex(({ kind, index }) => kind === state.selected?.kind && index === state.selected.index);
    if (all.length) {
      choose("select");
      state.selected = all[(now + 1) % all.length];
    }
  }
  canvas.onkeydown = (event) => {
    const far = event.shiftKey ? 8 : 1;
    const arrows = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = event.ctrlKey || event.metaKey;
    if (command && key === "z" && event.shiftKey) send("redo");
    else if (command && key === "z") undo();
    else if (command && key === "y") send("redo");
    else if (command || event.altKey) return;
    else if (arrows[key]) nudge(...arrows[key]);
    else if (key === " ") tap((state.cursor ??= inside((width - 1) / 2, (height - 1) / 2)));
    else if (key === "Enter") finish();
    else if (key === "Escape") cancel();
    else if (key === "Delete" || key === "Backspace") remove();
    else if (key === "n") next();
    else return;
    event.preventDefault();
    event.stopPropagation();
    refresh();
  };
  canvas.onfocus = canvas.onblur = redraw;

  // Fields. The radius belongs to what is selected, or else to what is drawn next.
  const chosenRadius = () => (Number(ui.radius.value) > 0 ? Number(ui.radius.value) : null);
  ui.radius.oninput = () => {
    if (thing()) attempt("radius", { ...state.selected, radius: chosenRadius() });
    else radius = chosenRadius();
    refresh();
  };
  ui.radius.onchange = () => thing() && send("radius", { ...state.selected, radius: chosenRadius() });
  ui.brush.oninput = () => refresh();
  ui.flow.onchange = () => (overlay.style.visibility = ui.flow.checked ? "visible" : "hidden");
  ui.prompt.onchange = ui.seed.onchange = ui.scale.onchange = settings;
  const shorter = Math.min(width, height);
  Object.assign(ui.radius, { max: shorter / 2, step: shorter / 256, value: 0 });
  Object.assign(ui.brush, { min: Math.max(1, Math.round(shorter / 64)), max: Math.round(shorter / 2), value: shorter / 8 });

  /** Brings all that is shown in line with scene and state. */
  function refresh() {
    if (!thing()) state.selected = null;
    for (const [name, button] of Object.entries(ui.tools)) button.setAttribute("aria-pressed", name === state.tool);
    ui.undo.disabled = !scene.undo && !state.clicks.length;
    ui.redo.disabled = !scene.redo;
    ui.delete.disabled = !state.selected;
    ui.clear.disabled = !(scene.drags.length || scene.anchors.length || scene.painted !== null);
    ui.background.disabled = !scene.drags.length;
    ui.invert.disabled = ui.unpaint.disabled = scene.painted === null;
    ui.brushFields.hidden = !painting();
    ui.radiusField.hidden = painting();
    ui.finish.hidden = state.clicks.length < 2;
    if (document.activeElement !== ui.radius) ui.radius.value = (thing() ? thing().radius : radius) ?? 0;
    ui.radiusText.textContent = chosenRadius() ? `${chosenRadius().toFixed(0)} px` : `auto (${scene.auto.toFixed(0)} px)`;
    ui.brushText.textContent = `${ui.brush.value} px`;
    const busy = model.get("_report").kind === "busy";
    ui.predict.disabled = ui.render.disabled = busy || made > answered;
    const words = [TOOLS[state.tool][1]];
    if (scene.painted !== null) words.push(`Painted: ${((100 * scene.painted) / (width * height)).toFixed(1)} %.`);
    const held = scene.drags.flatMap((drag, index) => (drag.held ? [index + 1] : []));
    if (held.length) words.push(`Not painted where it starts, so still: drag ${held.join(", ")}.`);
    if (slow < 0) words.splice(0, words.length, "The kernel is busy. What you draw now waits for it.");
    hint.textContent = words.join(" ");
    canvas.style.cursor = state.tool === "select" ? "default" : "crosshair";
    results.classList.toggle("mi2v-stale", scene.stale);
    results.title = scene.stale ? "made before the last changes" : "";
    redraw();
  }

  // What the kernel says.
  const urls = new Map();
  function picture(name, image, type) {
    const show = () => {
      const bytes = model.get(name);
      URL.revokeObjectURL(urls.get(name));
      if (image.parentElement.tagName === "FIGURE") image.parentElement.hidden = !bytes?.byteLength;
      if (!bytes?.byteLength) return;
      urls.set(name, URL.createObjectURL(new Blob([bytes], { type })));
      image.src = urls.get(name);
    };
    show();
    return [`change:${name}`, show];
  }
  let ticking = 0;
  function report() {
    const { kind, text, details } = model.get("_report");
    clearInterval(ticking);
    status.className = `mi2v-status mi2v-${kind || "quiet"}`;
    const words = make("span", { textContent: text ?? "" });
    status.replaceChildren(words);
    refresh();
    if (kind === "busy") {
      const start = performance.now();
      ticking = setInterval(() => {
        words.textContent = `${text}, ${((performance.now() - start) / 1000).toFixed(0)} s`;
      }, 1000);
    }
    if (details && kind === "error") {
      status.append(make("details", {}, make("summary", { textContent: "where" }), make("pre", { textContent: details })));
    } else if (details) status.append(make("pre", { textContent: details }));
  }
  function show() {
    scene = model.get("_scene");
    const [from, last] = scene.ack ?? [];
    if (from === view) {
      answered = last;
      if (answered === number) {
        clearTimeout(slow);
        slow = 0;
      }
      ghosts = ghosts.filter((ghost) => ghost.number > answered);
      if (answered >= waiting) waiting = 0;
      if (!waiting && later) {
        const [what, more] = later;
        later = null;
        send(what, { ...more, trial: true });
      }
    }
    refresh();
  }
  function fill() {
    const { prompt, seed, control_scale, predicts, renders } = model.get("_settings");
    for (const [input, value] of [[ui.prompt, prompt], [ui.seed, seed], [ui.scale, control_scale]]) {
      if (document.activeElement !== input) input.value = value;
    }
    ui.make.hidden = !(predicts || renders);
    ui.predict.hidden = !predicts;
    ui.render.hidden = !renders;
  }
  const listeners = [
    ["change:_scene", show],
    ["change:_report", report],
    ["change:_settings", fill],
    picture("_photo", photo, "image/jpeg"),
    picture("_overlay", overlay, "image/png"),
    picture("_motion_picture", motion, "image/png"),
    picture("_clip_picture", clip, "image/png"),
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  fill();
  report();
  refresh();
  const watcher = new ResizeObserver(redraw);
  watcher.observe(stage);
  return () => {
    watcher.disconnect();
    clearInterval(ticking);
    clearTimeout(slow);
    for (const [event, listener] of listeners) model.off(event, listener);
    for (const url of urls.values()) URL.revokeObjectURL(url);
  };
}

export default { render };
