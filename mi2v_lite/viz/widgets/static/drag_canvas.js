// The page of DragCanvas (widgets/drag_canvas.py). It shows what the kernel says is drawn, and asks for edits. It knows
// nothing about networks; but a thing under the hand, and the preview, it moves by itself. This is the last part of one
// module.

const CLICK = 4; // CSS pixels: a press that moves less than this is a click
const NEAR = { mouse: 9, pen: 12, touch: 20 }; // CSS pixels: how close a press must be to hit something
const PREVIEW = 2000; // milliseconds: how long the preview takes to play once
const SILENCE =
  "The kernel does not answer yet. If another cell is running, this waits for it; if the kernel was restarted, run this " +
  "cell again.";
const LOST = "The kernel was restarted and no longer knows this canvas. Run this cell again, then draw.";
const EMPTY = "The clip will play here.";

function render({ model, el }) {
  let [width, height] = model.get("_size");
  let scene = model.get("_scene");
  // The tool, what is selected, the line or box under the hand, clicked points of a drag, what Select pulls, the
  // keyboard's cross, how a thing is held, what was asked of the outline, how it is mended and what the press under way
  // does to it, and the time of the preview.
  const state = { tool: "thing", selected: null, stroke: null, clicks: [], grab: null, cursor: null };
  Object.assign(state, { hold: null, settling: null, picking: null, mend: null, marks: null, time: null });
  let ghosts = []; // strokes that the kernel has not answered yet
  let made = 0; // the number of the last predict or render
  let radius = null; // of new drags and anchors; null stands for the default
  let [pieces, field] = [[], null]; // of the things, cut out; the motion
  const link = connect(model, () => refresh());

  function send(what, more = {}, ghost = null) {
    if (what === "predict" || what === "render") made = link.number + 1;
    else if (!more.trial && what !== "cancel" && what !== "settings" && ui.view.value === "motion") look("drawing");
    const number = link.send(what, more);
    if (ghost) ghosts.push({ ...ghost, number });
    redraw();
    return number;
  }
  const attempt = (what, more) => link.attempt(what, more);
  const number = (input, least, whole) => {
    if (input.value === "") return null;
    const value = Math.max(least, Number(input.value) || 0);
    return whole ? Math.floor(value) : value;
  };
  const settings = () =>
    link.send("settings", {
      prompt: ui.prompt.value,
      seed: number(ui.seed, 0, true) ?? 0,
      control_scale: number(ui.scale, 0) ?? 1,
      num_frames: number(ui.frames, 2, true) ?? 16,
      num_inference_steps: number(ui.steps, 1, true),
      guidance_scale: number(ui.guidance, 0),
      full_size: ui.full.checked,
    });

  const ui = controls({ send, tool: choose, mend: mendBy, undo, remove, finish, layer, background, preview: () => preview() });
  const photo = make("img.mi2v-layer", { alt: "", draggable: false });
  const overlay = make("img.mi2v-layer", { alt: "", draggable: false });
  const canvas = make("canvas.mi2v-layer.mi2v-canvas", {
    tabIndex: 0,
    role: "application",
    "aria-label": "Photo to draw motion on. Arrow keys move a cross, Space presses there, Enter ends a drag, " +
      "N selects the next part, brackets turn a thing, plus and minus scale it, Delete removes, Control Z undoes.",
    // JupyterLab's own keys would delete cells and insert others.
    "data-lm-suppress-shortcuts": "true",
  });
  const stage = make("div.mi2v-stage", {}, photo, overlay, canvas);
  const hint = make("div.mi2v-hint", {});
  const status = make("div.mi2v-status", { role: "status", "aria-live": "polite" });
  const video = make("video", { controls: true, loop: true, muted: true, autoplay: true, playsInline: true, hidden: true });
  video.setAttribute("aria-label", "the clip");
  const empty = make("div.mi2v-empty", { textContent: EMPTY });
  const download = make("a.mi2v-download", { textContent: "Download clip.mp4", download: "clip.mp4", hidden: true });
  const stale = make("span", { textContent: "made before the last changes", hidden: true });
  const clip = make("div.mi2v-clip", {}, empty, video, make("div.mi2v-bar", {}, download, stale));
  const root = make("div.mi2v-canvas-widget");
  // What comes and goes stands below the photo, so that the photo keeps its place under the hand.
  const drawing = make("div.mi2v-drawing", {}, stage, ui.make, status, ui.options, ui.radiusHelp);
  root.append(ui.top, hint, make("div.mi2v-view", {}, drawing, clip), ui.files, ui.settings);
  el.append(root);
  const upload = (name, bytes) => link.send("photo", { name }, [bytes]);
  ui.photo.append(pictureChooser(stage, upload, (text) => say({ kind: "error", text })));

  // Places. Pixel centres are whole numbers, so the photo reaches from -0.5 to its width - 0.5.
  const box = () => canvas.getBoundingClientRect();
  const scale = () => canvas.clientWidth / width;
  const at = ([x, y]) => [((x + 0.5) * canvas.clientWidth) / width, ((y + 0.5) * canvas.clientHeight) / height];
  const inside = (x, y) =>
    [[x, width], [y, height]].map(([value, length]) => Math.round(Math.min(Math.max(value, 0), length - 1) * 100) / 100);
  function place(event) {
    const { left, top, width: wide, height: high } = box();
    return inside(((event.clientX - left) / wide) * width - 0.5, ((event.clientY - top) / high) * height - 0.5);
  }
  const apart = (a, b) => Math.hypot(at(a)[0] - at(b)[0], at(a)[1] - at(b)[1]);
  const moved = (points) => points.some((point) => apart(point, points[0]) > CLICK);
  const chosen = () => state.selected && scene[`${state.selected.kind}s`][state.selected.index];
  const chosenThing = () => (state.selected?.kind === "thing" ? state.selected.index : -1);

  // Things. A hold is {index, how, from, to, line}: "carry" draws a path anew, "move" takes a thing from where it ends,
  // "turn" turns and scales it, "point" pulls a point of its path. It settles until the kernel's answer is there.
  function poseFor(index) {
    const thing = scene.things[index];
    if (state.time !== null) return thing.path.length ? poseAt(thing.poses, state.time) : null;
    if (mending() && index === chosenThing()) return null; // marks belong to the photo, so there it goes back to its place
    for (const hold of [state.hold, state.settling]) {
      if (hold?.index === index && hold.moved) return heldPose(thing, hold, [width, height]);
    }
    return thing.path.length ? thing.poses.at(-1) : null;
  }
  function handle() {
    const thing = scene.things[chosenThing()];
    if (!thing || state.time !== null || mending()) return null;
    for (const hold of [state.hold, state.settling]) {
      if (hold?.how !== "turn" || hold.index !== chosenThing()) continue;
      return { edge: at(posed(poseFor(hold.index), thing.middle)), handle: at(hold.to) };
    }
    const pose = poseFor(chosenThing()) ?? thing.poses[0];
    return handleOf(thing, pose, at, [canvas.clientWidth, canvas.clientHeight]);
  }
  /** What a press at a place takes hold of; null for nothing. */
  function holdAt(point, near) {
    const close = (other) => Math.hypot(...minus(at(other), at(point))) <= near + 3;
    const grip = handle();
    if (grip && Math.hypot(...minus(grip.handle, at(point))) <= near + 5) return { index: chosenThing(), how: "turn" };
    const points = chosenThing() < 0 ? [] : scene.things[chosenThing()].points.slice(0, -1);
    const which = points.findLastIndex(close);
    if (which > 0) return { index: chosenThing(), how: "point", number: which };
    const index = thingAt(scene.things, pieces, poseFor, point);
    if (index >= 0) return { index, how: scene.things[index].path.length ? "move" : "carry" };
    // The place that a thing has left: from there its path is drawn anew.
    const left = thingAt(scene.things, pieces, () => null, point);
    return left >= 0 ? { index: left, how: "carry" } : null;
  }
  function release(hold) {
    const { index, how, from, to, line } = hold;
    const by = minus(to, from);
    if (!hold.moved) return;
    let last;
    if (how === "carry") last = send("carry", { index, points: line, tolerance: tolerance() });
    else if (how === "move") last = send("move", { kind: "thing", index, by });
    else if (how === "point") last = send("point", { kind: "thing", index, number: hold.number, to });
    else last = send("turn", { index, by: hold.turn, times: hold.times });
    state.settling = { ...hold, number: last };
  }
  function pull(hold, points) {
    const tip = () => posed(scene.things[hold.index].poses.at(-1), scene.things[hold.index].middle);
    for (const point of points) {
      if (hold.how === "turn") {
        const [now, start] = [minus(point, tip()), minus(hold.from, tip())];
        const [a, b] = over(now, minus(hold.to, tip()));
        hold.turn = (hold.turn ?? 0) + Math.atan2(b, a); // small steps, so that many turns can be counted
        hold.times = Math.hypot(...now) / Math.hypot(...start);
      }
      hold.line.push(point);
      hold.to = point;
    }
    hold.moved ||= apart(hold.from, hold.to) > CLICK;
  }
  const mending = () => state.mend === "add" || state.mend === "take";
  function mendBy(how) {
    state.mend = state.mend === how ? null : how;
    refresh();
  }
  function mend(how, marks) {
    const index = chosenThing();
    state.picking = { number: send("thing", { ...marks, index: index < 0 ? null : index }), index };
    if (how === "box") state.mend = null;
  }
  function layer(by) {
    const [index, last] = [chosenThing(), scene.things.length - 1];
    const to = by > 0 ? last : Number(held()); // the background is behind all
    send("layer", { index, to });
    state.selected = { kind: "thing", index: to };
  }
  const held = () => scene.things.some((thing) => thing.ground);
  function background() {
    Object.assign(state, { picking: null, selected: null }); // the numbers of the things change
    send("background", { hold: !held() });
  }
  const cutOuts = () => {
    const masks = model.get("_masks") ?? [];
    const now = scene.things.map((thing, index) => {
      const old = pieces[index];
      const same = old && old.bytes === masks[index] && old.colour === thing.colour;
      return same ? old : null;
    });
    pieces = now;
    if (!photo.complete || !photo.naturalWidth) return;
    scene.things.forEach(async (thing, index) => {
      if (now[index]) return;
      const piece = await cutOut(masks[index], photo, thing, width);
      if (now === pieces) pieces[index] = { ...piece, bytes: masks[index] };
      redraw();
    });
  };

  function draw() {
    const size = [canvas.clientWidth, canvas.clientHeight];
    const context = sharp(canvas, ...size);
    const view = ui.view.value;
    const selected = state.time === null ? state.selected : null;
    if (view === "motion" && field) {
      paintField(context, { field, time: state.time ?? 1, opacity: Number(ui.opacity.value), size });
      return;
    }
    if (view === "photo" && state.time === null) return;
    const outlined = state.time === null;
    paintThings(context, { things: scene.things, pieces, poseFor, scale: scale(), selected: chosenThing(), outlined });
    if (!outlined) {
      paintSquares(context, { scene, photo, width, at, scale: scale(), time: state.time });
      return;
    }
    const live = [];
    if (state.stroke) live.push(state.marks === "box" ? { box: state.stroke } : { points: state.stroke, ...brush() });
    if (state.clicks.length) live.push({ points: state.clicks });
    if (state.hold?.how === "carry" && state.hold.moved) live.push({ points: state.hold.line });
    if (state.picking?.line) live.push({ points: state.picking.line });
    const cursor = document.activeElement === canvas ? state.cursor : null;
    paintScene(context, { scene, at, scale: scale(), selected, ghosts: [...ghosts, ...live], cursor });
    if (mending() && chosen()) paintMarks(context, { marks: chosen().marks, at });
    const grip = handle();
    if (grip) paintHandle(context, grip);
  }
  let asked = 0;
  const redraw = () => (asked ||= requestAnimationFrame(() => ((asked = 0), draw())));

  // The preview: time runs from 0 to 1 and again.
  function preview(on = state.time === null) {
    const start = performance.now();
    state.time = on ? 0 : null;
    const tick = () => {
      if (state.time === null || !root.isConnected) return;
      state.time = Math.min(1, (((performance.now() - start) % (1.25 * PREVIEW)) / PREVIEW)); // and rests at its end
      draw();
      requestAnimationFrame(tick);
    };
    tick();
    refresh();
  }
  function look(view) {
    ui.view.value = view;
    refresh();
  }

  // What the tools do.
  const painting = () => state.tool === "paint" || state.tool === "erase";
  const brush = () => (painting() ? { size: Number(ui.brush.value), erase: state.tool === "erase" } : {});
  const tolerance = () => (2 * width) / canvas.clientWidth;
  function choose(tool) {
    if (state.clicks.length > 1) finish();
    else cancel();
    Object.assign(state, { tool, mend: null });
    if (tool !== "select" && !(tool === "thing" && chosenThing() >= 0)) state.selected = null;
    if (ui.view.value !== "drawing") look("drawing");
    refresh();
  }
  function cancel() {
    const busy = state.clicks.length || state.grab || state.stroke || state.hold;
    Object.assign(state, { clicks: [], grab: null, stroke: null, hold: null, pulled: null, picking: null });
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
  /** A click, or Space at the keyboard's cross. `marks`: whether it adds to the outline, or takes away. */
  function tap(point, near = NEAR.mouse, marks = state.mend) {
    if (state.tool === "anchor") send("anchor", { point, radius });
    else if (painting()) send("paint", { points: [point], ...brush() }, { points: [point], ...brush() });
    else if (state.tool === "select" || state.tool === "thing") {
      if (marks === "add" || marks === "take") mark(marks, [point]);
      else if (state.tool === "select") state.selected = hit(scene, at, at(point), near, state.selected);
      else pick(point);
    } else if (state.clicks.length && apart(point, state.clicks.at(-1)) <= near) finish();
    else state.clicks.push(point);
    refresh();
  }
  /** Marks with a click or a line what belongs to the chosen thing, or does not. Marks on its cut-out mean the photo. */
  function mark(how, line) {
    const pose = poseFor(chosenThing());
    const isOnIt = (place) => pose && thingAt(scene.things, pieces, poseFor, place) === chosenThing();
    line = line.map((place) => (isOnIt(place) ? inside(...unposed(pose, place)) : place));
    const kind = `${how === "add" ? "" : "not_"}${line.length > 1 ? "scribbles" : "points"}`;
    mend(how, { [kind]: line.length > 1 ? [line] : line });
  }
  /** Asks for the thing at a place, or selects the one that is there. */
  function pick(point) {
    const index = thingAt(scene.things, pieces, poseFor, point);
    if (index >= 0) state.selected = { kind: "thing", index };
    else {
      state.selected = null;
      state.picking = { index: -1, number: send("thing", { points: [point] }) };
    }
  }

  canvas.onpointerdown = (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    if (state.time !== null) preview(false);
    if (ui.view.value !== "drawing") look("drawing");
    const point = place(event);
    const near = NEAR[event.pointerType] ?? NEAR.mouse;
    state.cursor = state.marks = null;
    if (state.tool !== "select" && state.tool !== "thing") state.stroke = [point];
    else {
      const marks = chosenThing() < 0 ? null : event.shiftKey ? "add" : event.altKey ? "take" : null;
      const found = state.tool === "select" ? hit(scene, at, at(point), near, state.selected) : null;
      const hold = found ? null : holdAt(point, near);
      // After Add a person pulls the thing next, which holds all that could be added there.
      if (hold?.index === chosenThing() && state.mend === "add") {
        state.pulled = { index: hold.index, how: "carry", from: point, to: point, line: [] };
      }
      if (marks || state.mend) state.stroke = [point];
      else if (found) {
        state.selected = found;
        state.grab = { ...found, from: point, to: point };
      } else if (hold) {
        state.selected = { kind: "thing", index: hold.index };
        state.hold = { ...hold, from: point, to: point, line: [point] };
      } else if (state.tool === "thing") {
        pick(point);
        Object.assign(state.picking, { line: [point], down: true }); // it may be pulled before its outline is there
      } else state.selected = null;
      state.marks = marks ?? state.mend;
    }
    refresh();
  };
  canvas.onpointermove = (event) => {
    if (!event.isPrimary) return;
    // A pen gives many places between two frames, and all of them are kept.
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map(place);
    if (state.hold) pull(state.hold, points);
    else if (state.picking?.down) state.picking.line.push(...points);
    else if (state.stroke) {
      state.stroke.push(...points);
      if (state.pulled && moved(state.stroke)) {
        Object.assign(state, { hold: state.pulled, pulled: null, mend: null });
        pull(state.hold, state.stroke);
        state.stroke = null;
        refresh();
      } else if (state.tool === "drag" && !state.clicks.length && moved(state.stroke)) {
        attempt("stroke", { points: state.stroke, tolerance: tolerance(), radius });
      }
    } else if (state.grab) {
      state.grab.to = points.at(-1);
      if (apart(state.grab.from, state.grab.to) > CLICK) attempt(...grabbed());
    } else if (state.clicks.length) {
      attempt("drag", { points: [...state.clicks, points.at(-1)], radius });
    } else return;
    redraw();
  };
  canvas.onpointerup = (event) => {
    if (!event.isPrimary) return;
    const { stroke, grab, clicks, hold } = state;
    Object.assign(state, { stroke: null, grab: null, hold: null, pulled: null });
    if (state.picking) state.picking.down = false;
    if (hold) release(hold);
    else if (grab) {
      if (apart(grab.from, grab.to) > CLICK) send(...grabbed(grab));
    } else if (!stroke) return;
    else if (state.tool === "thing" || state.tool === "select") {
      const [[x, y], [x2, y2]] = [stroke[0], stroke.at(-1)];
      const corners = [Math.min(x, x2), Math.min(y, y2), Math.max(x, x2), Math.max(y, y2)];
      if (state.marks === "box") moved(stroke) && mend("box", { box: corners });
      else if (state.marks && moved(stroke)) mark(state.marks, stroke);
      else tap(stroke.at(-1), NEAR[event.pointerType], state.marks);
    } else if (painting()) send("paint", { points: stroke, ...brush() }, { points: stroke, ...brush() });
    else if (state.tool === "drag" && !clicks.length && moved(stroke)) {
      send("stroke", { points: stroke, tolerance: tolerance(), radius }, { points: stroke });
    } else tap(stroke.at(-1), NEAR[event.pointerType]);
    refresh();
  };
  canvas.onpointercancel = cancel;
  function grabbed(grab = state.grab) {
    const { kind, index, number: which, from, to } = grab;
    if (which !== undefined) return ["point", { kind, index, number: which, to }];
    return ["move", { kind, index, by: [to[0] - from[0], to[1] - from[1]] }];
  }

  function nudge(dx, dy) {
    const step = Math.max(1, Math.round(Math.max(width, height) / 128));
    if (state.tool === "select" && state.selected) {
      const { kind, index, number: which } = state.selected;
      const [x, y] = which === undefined ? [] : chosen().points[which];
      if (which === undefined) send("move", { kind, index, by: [dx * step, dy * step], merge: true });
      else send("point", { kind, index, number: which, to: inside(x + dx * step, y + dy * step), merge: true });
      return;
    }
    const [x, y] = state.cursor ?? [(width - 1) / 2, (height - 1) / 2];
    state.cursor = inside(x + dx * step, y + dy * step);
    if (state.clicks.length) attempt("drag", { points: [...state.clicks, state.cursor], radius });
  }
  function next() {
    const all = ["thing", "drag", "anchor"].flatMap((kind) =>
      scene[`${kind}s`].flatMap((part, index) => (part.ground ? [] : [{ kind, index }])),
    );
    const now = all.findIndex(({ kind, index }) => kind === state.selected?.kind && index === state.selected.index);
    if (all.length) {
      choose("select");
      state.selected = all[(now + 1) % all.length];
    }
  }
  canvas.onkeydown = (event) => {
    const far = event.shiftKey ? 8 : 1;
    const arrows = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const turns = { "[": [-1, 1], "]": [1, 1], "-": [0, 1 / 1.05], "+": [0, 1.05], "=": [0, 1.05] };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = event.ctrlKey || event.metaKey;
    if (command && key === "z" && event.shiftKey) send("redo");
    else if (command && key === "z") undo();
    else if (command && key === "y") send("redo");
    else if (command || event.altKey) return;
    else if (arrows[key]) nudge(...arrows[key]);
    else if (turns[key] && chosenThing() >= 0) {
      const [by, times] = [(turns[key][0] * Math.PI) / 36, turns[key][1]];
      send("turn", { kind: "thing", index: chosenThing(), by, times, merge: true });
    } else if (key === " ") tap((state.cursor ??= inside((width - 1) / 2, (height - 1) / 2)));
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
  const hasRadius = () => state.selected && state.selected.kind !== "thing";
  ui.radius.oninput = () => {
    if (hasRadius()) attempt("radius", { ...state.selected, radius: chosenRadius() });
    else radius = chosenRadius();
    refresh();
  };
  ui.radius.onchange = () => hasRadius() && send("radius", { ...state.selected, radius: chosenRadius() });
  ui.brush.oninput = () => refresh();
  ui.view.onchange = () => refresh();
  ui.opacity.oninput = () => redraw();
  ui.pace.onchange = () => {
    if (ui.pace.value) send("pace", { kind: state.selected.kind, index: state.selected.index, pace: ui.pace.value });
    ui.pace.value = "";
  };
  for (const input of [ui.prompt, ui.seed, ui.scale, ui.frames, ui.steps, ui.guidance, ui.full]) input.onchange = settings;

  /** Brings the page to the size of the photo. */
  function fit() {
    [width, height] = model.get("_size");
    stage.style.aspectRatio = empty.style.aspectRatio = `${width} / ${height}`;
    const tallest = Math.min(560, Math.max(320, 0.55 * window.innerHeight)); // leaves room for the buttons in the window
    root.style.setProperty("--widest", `${Math.round(Math.min(640, (tallest * width) / height))}px`);
    const shorter = Math.min(width, height);
    Object.assign(ui.radius, { max: shorter / 2, step: shorter / 256, value: 0 });
    Object.assign(ui.brush, { min: Math.max(1, Math.round(shorter / 64)), max: Math.round(shorter / 2), value: shorter / 8 });
    Object.assign(state, { selected: null, clicks: [], stroke: null, hold: null, settling: null, picking: null, mend: null });
    radius = null;
    pieces = [];
  }

  /** Brings all that is shown in line with scene and state. */
  function refresh() {
    if (!chosen()) state.selected = null;
    const anything = scene.things.length || scene.drags.length || scene.anchors.length || scene.painted !== null;
    const moves = scene.drags.length || scene.things.some((thing) => thing.path.length);
    const kind = state.selected?.kind;
    if ((!anything && mending()) || painting()) state.mend = null; // a box may be the first thing that is drawn
    for (const [name, button] of Object.entries(ui.tools)) button.setAttribute("aria-pressed", name === state.tool);
    for (const [name, button] of Object.entries(ui.mends)) {
      button.setAttribute("aria-pressed", name === state.mend);
      button.disabled = name !== "box" && kind !== "thing";
    }
    ui.undo.disabled = !scene.undo && !state.clicks.length;
    ui.redo.disabled = !scene.redo;
    ui.delete.disabled = !state.selected;
    ui.clear.disabled = !anything;
    ui.background.disabled = !moves && !held();
    ui.background.setAttribute("aria-pressed", held());
    ui.preview.disabled = !moves;
    ui.preview.setAttribute("aria-pressed", state.time !== null);
    ui.preview.textContent = state.time === null ? "\u25B6 Preview" : "\u25A0 Stop";
    ui.invert.disabled = ui.unpaint.disabled = scene.painted === null;
    ui.brushFields.hidden = !painting();
    ui.mendFields.hidden = !(state.tool === "thing" || kind === "thing");
    ui.layers.hidden = kind !== "thing" || scene.things.length - Number(held()) < 2;
    ui.radiusField.hidden = !(state.tool === "drag" || state.tool === "anchor" || hasRadius());
    ui.radiusHelp.hidden = ui.radiusField.hidden;
    ui.pace.hidden = !(kind === "drag" || (kind === "thing" && chosen().path.length));
    ui.finish.hidden = state.clicks.length < 2;
    ui.opacityField.hidden = ui.view.value !== "motion";
    overlay.style.visibility = ui.view.value === "drawing" && state.time === null ? "visible" : "hidden";
    if (document.activeElement !== ui.radius) ui.radius.value = (hasRadius() ? chosen().radius : radius) ?? 0;
    ui.radiusText.textContent = chosenRadius() ? `${chosenRadius().toFixed(0)} px` : `auto (${scene.auto.toFixed(0)} px)`;
    ui.brushText.textContent = `${ui.brush.value} px`;
    const busy = model.get("_report").kind === "busy" || made > link.answered;
    ui.predict.disabled = ui.render.disabled = busy;
    ui.cancel.hidden = !busy;
    hint.textContent = words();
    hint.classList.toggle("mi2v-warning", link.silent || link.lost);
    const cursors = { select: "default", thing: "grab" };
    canvas.style.cursor = (!state.mend && cursors[state.tool]) || "crosshair";
    clip.classList.toggle("mi2v-stale", scene.stale);
    stale.hidden = !(scene.stale && !video.hidden);
    redraw();
  }
  function words() {
    if (link.lost) return LOST;
    if (link.silent) return state.picking ? `Still looking for the outline of the thing. ${SILENCE}` : SILENCE;
    if (state.picking) return "Looking for the outline of the thing.";
    if (ui.view.value === "motion" && field) {
      const goes = `The colours say where each pixel goes, as in the wheel, whose rim stands for ${field.longest.toPrecision(3)} px.`;
      return `${goes} Press on the photo to go on drawing.`;
    }
    const say = [state.mend ? MENDS[state.mend][1] : TOOLS[state.tool][1]];
    if (state.tool === "thing" && !state.mend) {
      const moving = scene.things.some((thing) => thing.path.length);
      if (chosenThing() < 0 ? moving : chosen().path.length) {
        say.splice(0, 1, NEXT, chosenThing() < 0 ? MORE : GRIP, ...(held() ? [] : [REST]));
      } else if (chosenThing() >= 0) {
        say[0] = "Now pull the thing to where it shall go. If its outline is wrong, use Add, Take away or Box below the photo.";
      }
    }
    if (held()) say.push("The background is held still.");
    if (scene.painted !== null) say.push(`Painted: ${((100 * scene.painted) / (width * height)).toFixed(1)} %.`);
    const unpainted = scene.drags.flatMap((drag, index) => (drag.held ? [index + 1] : []));
    if (unpainted.length) say.push(`Not painted where it starts, so still: drag ${unpainted.join(", ")}.`);
    return say.join(" ");
  }

  // What the kernel says.
  const urls = new Map();
  function address(name, type) {
    const bytes = model.get(name);
    URL.revokeObjectURL(urls.get(name));
    urls.set(name, bytes?.byteLength ? URL.createObjectURL(new Blob([bytes], { type })) : "");
    return urls.get(name);
  }
  function showPhoto() {
    fit();
    photo.src = address("_photo", "image/jpeg");
  }
  photo.onload = () => {
    cutOuts();
    refresh();
  };
  function showOverlay() {
    overlay.src = address("_overlay", "image/png");
  }
  async function showField() {
    const now = model.get("_field");
    field = null;
    ui.view.options[1].disabled = !now.frames;
    if (!now.frames) {
      if (ui.view.value === "motion") look("drawing");
      return;
    }
    const decoded = (bytes) => createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const [strip, wheel] = await Promise.all([decoded(now.strip), decoded(now.wheel)]);
    field = { ...now, strip, wheel };
    if (made) look("motion"); // it was asked for on this page
    redraw();
  }
  function showClip() {
    const source = address("_clip", "video/mp4");
    video.hidden = download.hidden = !source;
    empty.hidden = Boolean(source);
    if (source) video.src = download.href = source;
    else video.removeAttribute("src");
    refresh();
  }
  let [ticking, began] = [0, 0];
  const report = () => say(model.get("_report"));
  function say({ kind, text, details }) {
    clearInterval(ticking);
    status.className = `mi2v-status mi2v-${kind || "quiet"}`;
    const words = make("span", { textContent: text ?? "" });
    status.replaceChildren(words);
    refresh();
    empty.textContent = EMPTY;
    if (kind !== "busy") began = 0;
    else {
      began ||= performance.now();
      const tick = () => {
        words.textContent = `${text}, ${((performance.now() - began) / 1000).toFixed(0)} s`;
        empty.textContent = words.textContent; // where one looks for the clip; the status may be out of sight
      };
      tick();
      ticking = setInterval(tick, 1000);
    }
    if (details && kind === "error") {
      status.append(make("details", {}, make("summary", { textContent: "where" }), make("pre", { textContent: details })));
    } else if (details) status.append(make("pre", { textContent: details }));
  }
  function show() {
    scene = model.get("_scene");
    link.hear(scene.ack);
    ghosts = ghosts.filter((ghost) => ghost.number > link.answered);
    if (state.settling?.number <= link.answered) state.settling = null;
    if (state.hold && !scene.things[state.hold.index]) state.hold = null;
    cutOuts();
    if (state.picking && state.picking.number <= link.answered) picked();
    refresh();
  }
  /** The kernel has found a thing. If it was pulled meanwhile, it goes along. */
  function picked() {
    const { index: mended, line, down } = state.picking;
    const failed = model.get("_report").kind === "error";
    state.picking = null;
    if (failed) return;
    const index = mended < 0 ? scene.things.length - 1 : mended;
    state.selected = { kind: "thing", index };
    if (!line) return;
    const hold = { index, how: "carry", from: line[0], to: line[0], line: [] };
    pull(hold, line);
    if (down) state.hold = hold;
    else release(hold);
  }
  function fill() {
    const now = model.get("_settings");
    const values = [
      [ui.prompt, now.prompt], [ui.seed, now.seed], [ui.scale, now.control_scale], [ui.frames, now.num_frames],
      [ui.steps, now.num_inference_steps ?? ""], [ui.guidance, now.guidance_scale ?? ""],
    ];
    for (const [input, value] of values) if (document.activeElement !== input) input.value = value;
    ui.full.checked = now.full_size;
    ui.fullText.textContent = now.larger;
    ui.fullField.hidden = !now.larger;
    ui.sampling.hidden = !now.sampling;
    ui.make.hidden = !(now.predicts || now.renders);
    ui.predict.hidden = !now.predicts;
    ui.predict.classList.toggle("mi2v-main", !now.renders);
    ui.render.classList.add("mi2v-main");
    ui.render.hidden = clip.hidden = !now.renders;
  }
  const listeners = [
    ["change:_photo", showPhoto],
    ["change:_overlay", showOverlay],
    ["change:_scene", show],
    ["change:_report", report],
    ["change:_settings", fill],
    ["change:_field", showField],
    ["change:_clip", showClip],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  showPhoto();
  showOverlay();
  fill();
  report();
  showField();
  showClip();
  const watcher = new ResizeObserver(redraw);
  watcher.observe(stage);
  return () => {
    watcher.disconnect();
    clearInterval(ticking);
    link.close();
    for (const [event, listener] of listeners) model.off(event, listener);
    for (const url of urls.values()) URL.revokeObjectURL(url);
  };
}

export default { render };
