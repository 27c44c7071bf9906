// The buttons and fields of DragCanvas. It stands between page.js and drag_link.js in one module.

const TOOLS = {
  thing: [
    "Thing",
    "Click a thing, and its outline appears. Pull it to where it shall go: it moves whole.",
  ],
  drag: ["Drag", "Press and draw the way of a spot. Or click points; click the last again, or press Enter, to end."],
  anchor: ["Anchor", "Click what shall stay where it is."],
  paint: ["Paint", "Paint what may move; all else will stay still."],
  erase: ["Erase", "Take away from what is painted."],
  select: [
    "Select",
    "Click a thing, a drag or an anchor; pull it or one of its points. Keys: N next, arrows move, [ ] turn, + - scale.",
  ],
};
const MENDS = {
  add: ["Add", "Click what also belongs to the thing, or draw a line over it. Then pull the thing. Without this button: Shift and click."],
  take: ["Take away", "Click what does not belong to the thing, or draw a line over it. Then press Take away again. Without it: Alt and click."],
  box: ["Box", "Draw a box around the whole thing."],
};
const PACES = ["even", "starts slowly", "ends slowly", "starts and ends slowly"];
// What to do next: for any motion, for a thing that is chosen, for one that is not, and where the background is free.
const NEXT = "\u25B6 Preview shows this motion at once; Render clip makes the clip.";
const GRIP = "The round handle turns the thing or makes it larger.";
const MORE = "Click a thing to change its way, or another to move it as well.";
const REST = "Anchor background holds all else still.";
const VIEWS = { drawing: "what I drew", motion: "the predicted motion", photo: "nothing" };

/** A toolbar of buttons and labelled fields. Everything on the page but photo and clip. */
function controls(act) {
  const button = (label, title, does) => make("button", { textContent: label, title, type: "button", onclick: does });
  const field = (label, input, ...more) =>
    make("label.mi2v-field", { title: input.title }, make("span", { textContent: label }), input, ...more);
  const range = (min, max, step) => make("input", { type: "range", min, max, step });
  const number = (min, step, title, placeholder = "") => make("input", { type: "number", min, step, title, placeholder });
  const choice = (options) => make("select", {}, ...options.map(([value, text]) => make("option", { value, textContent: text })));
  const group = (label, ...children) => make("span.mi2v-group", { role: "group", "aria-label": label }, ...children);
  const several = (table, does) =>
    Object.fromEntries(Object.entries(table).map(([name, [label, hint]]) => [name, button(label, hint, () => does(name))]));

  const ui = {
    tools: several(TOOLS, act.tool),
    mends: several(MENDS, act.mend),
    undo: button("Undo", "Ctrl+Z", act.undo),
    redo: button("Redo", "Ctrl+Shift+Z", () => act.send("redo")),
    delete: button("Delete", "what is selected", act.remove),
    clear: button("Clear all", "things, drags, anchors and brush; can be undone", () => act.send("clear")),
    background: button("Anchor background", "holds all but what moves; can be undone", act.background),
    finish: button("Finish drag", "Enter", act.finish),
    pace: choice([["", "Speed"], ...PACES.map((pace) => [pace, pace])]),
    front: button("To the front", "before the other things", () => act.layer(+1)),
    back: button("To the back", "behind the other things", () => act.layer(-1)),
    radius: range(0, 1, 0.01),
    radiusText: make("output"),
    brush: range(1, 2, 1),
    brushText: make("output"),
    invert: button("Invert", "what may move and what stays change places", () => act.send("invert")),
    unpaint: button("No brush", "everything may move", () => act.send("unpaint")),
    preview: button("\u25B6 Preview", "moves what you drew along its paths, at once; no network is asked", act.preview),
    view: choice(Object.entries(VIEWS)),
    opacity: range(0.1, 1, 0.05),
    prompt: make("input", { type: "text", placeholder: "what happens (may be empty)" }),
    seed: number(0, 1, "another number gives another clip of the same wishes"),
    scale: number(0, 0.1, "how strongly the network follows what is drawn; 0 ignores it"),
    frames: number(2, 1, "how many frames the networks make, with the photo"),
    steps: number(1, 1, "of denoising; more take longer", "model's"),
    guidance: number(0, 0.5, "how strongly the prompt counts", "model's"),
    full: make("input", { type: "checkbox", title: "a clip as large as the photo; takes longer" }),
    fullText: make("span"),
    predict: button("Predict motion", "fills in the motion of the whole photo from what is drawn", () => act.send("predict")),
    render: button("Render clip", "makes the clip; predicts the motion first if anything has changed", () => act.send("render")),
    cancel: button("Cancel", "stops at the next step", () => act.send("cancel")),
    path: make("input", { type: "text", value: "control.json" }),
    save: button("Save", "what is drawn, beside the notebook", () => act.send("save", { path: ui.path.value })),
    load: button("Load", "what was saved", () => act.send("load", { path: ui.path.value })),
  };
  ui.opacity.value = 0.7;
  ui.preview.setAttribute("aria-pressed", false);
  ui.radiusHelp = make("div.mi2v-help", {
    textContent:
      "The radius is half the side of the dashed square around the start of a drag or an anchor. The network is told how " +
      "the pixels of this square move, and decides on the rest. Make it as large as the thing, and not larger.",
  });
  ui.radiusField = field("Radius", ui.radius, ui.radiusText);
  ui.brushFields = group("brush", field("Brush size", ui.brush, ui.brushText), ui.invert, ui.unpaint);
  ui.layers = group("order", ui.front, ui.back);
  ui.mendFields = group("outline", make("span", { textContent: "Outline:" }), ...Object.values(ui.mends));
  ui.opacityField = field("Opacity", ui.opacity);
  ui.pace.setAttribute("aria-label", "Speed");
  ui.fullField = field("Full size", ui.full, ui.fullText);
  ui.sampling = group("sampling", field("Frames", ui.frames), field("Steps", ui.steps), field("Guidance", ui.guidance));
  ui.photo = make("span");
  ui.top = make(
    "div.mi2v-bar",
    { role: "group", "aria-label": "drawing" },
    ui.photo,
    group("tools", ...Object.values(ui.tools)),
    group("history", ui.undo, ui.redo),
    group("remove", ui.delete, ui.clear),
  );
  ui.options = make(
    "div.mi2v-bar",
    {},
    ui.mendFields,
    ui.layers,
    ui.radiusField,
    ui.brushFields,
    ui.pace,
    ui.finish,
    ui.background,
    ui.preview,
    group("view", field("Over the photo", ui.view), ui.opacityField),
  );
  ui.make = make("div.mi2v-bar", {}, field("Prompt", ui.prompt), group("make", ui.predict, ui.render, ui.cancel));
  ui.settings = make(
    "details.mi2v-settings",
    {},
    make("summary", { textContent: "Settings" }),
    make("div.mi2v-bar", {}, field("Seed", ui.seed), field("Control strength", ui.scale), ui.sampling, ui.fullField),
  );
  ui.files = make("div.mi2v-bar", {}, field("File", ui.path), ui.save, ui.load);
  ui.prompt.parentElement.classList.add("mi2v-wide");
  return ui;
}
