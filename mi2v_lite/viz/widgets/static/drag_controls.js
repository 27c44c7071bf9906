// The buttons and fields of DragCanvas. This is the first part of one module: drag_scene.js and drag_canvas.js follow.

const TOOLS = {
  drag: ["Drag", "Press and draw the way of a thing. Or click points; click the last again, or press Enter, to end."],
  anchor: ["Anchor", "Click what shall stay where it is."],
  paint: ["Paint", "Paint what may move; all else will stay still."],
  erase: ["Erase", "Take away from what is painted."],
  select: ["Select", "Click a drag or an anchor; pull it or one of its points. Keys: N next, arrows, Delete."],
};

/** A DOM element: tag.class, properties, children. */
function make(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes.map((each) => `mi2v-${each}`));
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A toolbar of buttons and labelled fields. Everything on the page but the photo. */
function controls(act) {
  const button = (label, title, does) => make("button", { textContent: label, title, type: "button", onclick: does });
  const field = (label, input, ...more) => make("label.field", {}, make("span", { textContent: label }), input, ...more);
  const range = (min, max, step) => make("input", { type: "range", min, max, step });
  const tools = Object.fromEntries(
    Object.entries(TOOLS).map(([name, [label, hint]]) => [name, button(label, hint, () => act.tool(name))]),
  );
  const ui = {
    tools,
    undo: button("Undo", "Ctrl+Z", act.undo),
    redo: button("Redo", "Ctrl+Shift+Z", () => act.send("redo")),
    delete: button("Delete", "the selected drag or anchor", act.remove),
    clear: button("Clear all", "drags, anchors and brush; can be undone", () => act.send("clear")),
    background: button("Anchor background", "holds all but what is dragged; can be undone", () => act.send("background")),
    finish: button("Finish drag", "Enter", act.finish),
    radius: range(0, 1, 0.01),
    radiusText: make("output"),
    brush: range(1, 2, 1),
    brushText: make("output"),
    invert: button("Invert", "what may move and what stays change places", () => act.send("invert")),
    unpaint: button("No brush", "everything may move", () => act.send("unpaint")),
    flow: make("input", { type: "checkbox", checked: true }),
    prompt: make("input", { type: "text", placeholder: "what happens (may be empty)" }),
    seed: make("input", { type: "number", min: 0, step: 1 }),
    scale: make("input", { type: "number", min: 0, step: 0.1 }),
    predict: button("Predict motion", "fills in the field from what is drawn", () => act.send("predict")),
    render: button("Render clip", "makes the clip of the motion", () => act.send("render")),
    path: make("input", { type: "text", value: "control.json" }),
    save: button("Save", "what is drawn, beside the notebook", () => act.send("save", { path: ui.path.value })),
    load: button("Load", "what was saved", () => act.send("load", { path: ui.path.value })),
  };
  ui.predict.classList.add("mi2v-main");
  ui.render.classList.add("mi2v-main");
  const group = (label, ...children) => make("span.group", { role: "group", "aria-label": label }, ...children);
  ui.radiusField = field("Radius", ui.radius, ui.radiusText);
  ui.brushFields = group("brush", field("Brush size", ui.brush, ui.brushText), ui.invert, ui.unpaint);
  ui.top = make(
    "div.bar",
    { role: "group", "aria-label": "drawing" },
    group("tools", ...Object.values(tools)),
    group("history", ui.undo, ui.redo),
    group("remove", ui.delete, ui.clear),
    group("background", ui.background),
  );
  ui.options = make("div.bar", {}, ui.radiusField, ui.brushFields, field("Show flow", ui.flow), ui.finish);
  ui.make = make(
    "div.bar",
    {},
    field("Prompt", ui.prompt),
    field("Seed", ui.seed),
    field("Control strength", ui.scale),
    group("make", ui.predict, ui.render),
  );
  ui.files = make("div.bar", {}, field("File", ui.path), ui.save, ui.load);
  ui.prompt.parentElement.classList.add("mi2v-wide");
  return ui;
}
