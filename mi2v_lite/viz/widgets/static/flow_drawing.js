// What FlowExplorer draws: the base picture of an overlay, arrows, tracks, the hovered point, the legend.
// flow_pixels.js stands before this file and flow_explorer.js after it, in one module.

const OVERLAYS = {
  photo: "photo",
  colours: "colours",
  arrows: "arrows",
  tracks: "tracks",
  warped: "warped photo",
  holes: "holes",
  occlusion: "occlusion",
};
const NOMINAL = 512; // CSS pixels of the longer side
const INK = "#141414";
// Shorter displacements are not drawn: pixels, and the share of the longest.
const SHORTEST = 0.5, SHORTEST_SHARE = 0.03;

/** What the model holds, decoded. */
function dataOf(model) {
  const bytes = (name) => {
    const view = model.get(name);
    return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength); // aligned for float32
  };
  const [count, height, width] = model.get("_shape");
  const all = new Float32Array(bytes("_flow"));
  const photo = new Uint8Array(bytes("_photo"));
  const size = width * height;
  const still = new Float32Array(size);
  const part = (k) => all.subarray(k * size, (k + 1) * size);
  const fields = [{ u: still, v: still }]; // frame 0: nothing has moved
  for (let i = 0; i < count; i++) fields.push({ u: part(2 * i), v: part(2 * i + 1) });
  return { count, height, width, photo, fields, wheel: new Uint8Array(bytes("_wheel")) };
}

/** An offscreen picture of the field's own size, with its note. */
function baseOf(data, overlay, frame, top) {
  const { photo, fields, width, height, wheel } = data;
  const { u, v } = fields[frame];
  const share = (part) => `${(100 * part).toFixed(1)} %`;
  let rgba, notes = [];
  if (overlay === "colours") rgba = colourPixels(u, v, top, wheel);
  else if (overlay === "warped" || overlay === "holes") {
    const seen = warpedPixels(photo, u, v, width, height, overlay === "holes");
    rgba = seen.rgba;
    notes = [[overlay === "holes" ? HOLE : [0, 0, 0], `nothing lands: ${share(seen.holes)}`]];
  } else if (overlay === "occlusion") {
    const seen = occludedPixels(photo, u, v, width, height);
    rgba = seen.rgba;
    notes = [[LEAVES, `leaves the picture: ${share(seen.leave)}`]];
    notes.push([COLLIDES, `another lands there: ${share(seen.collide)}`]);
  } else rgba = photoPixels(photo);
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return { canvas, notes };
}

/** A line through `points` with a head at its end, dark rim under the colour; `unit`: thickness. As viz/flow.py. */
function drawArrow(context, points, unit, colour) {
  const tip = points[points.length - 1];
  const far = points.map((point) => Math.hypot(tip[0] - point[0], tip[1] - point[1]));
  const head = 4 * unit;
  const enough = Math.min(head, Math.max(...far));
  let from = points.length - 1;
  while (from > 0 && far[from] < enough) from--;
  const along = [(tip[0] - points[from][0]) / (far[from] || 1), (tip[1] - points[from][1]) / (far[from] || 1)];
  const at = (forward, aside) => [
    tip[0] + along[0] * forward - along[1] * aside,
    tip[1] + along[1] * forward + along[0] * aside,
  ];
  context.lineJoin = context.lineCap = "round";
  for (const [rim, paint] of [[unit / 2, INK], [0, colour]]) {
    context.strokeStyle = context.fillStyle = paint;
    context.lineWidth = unit + 2 * rim;
    trace(context, points);
    context.stroke();
    const base = 0.4 * head - head - rim;
    const wide = 0.45 * head + 1.6 * rim;
    trace(context, [at(0.4 * head + 2 * rim, 0), at(base, wide), at(base, -wide)]);
    context.fill();
  }
}

function trace(context, points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
}

function drawDot(context, [x, y], radius, fill, rim = INK) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = rim;
  context.lineWidth = radius / 2;
  context.stroke();
}

/** Where pixel (x, y) is in frames `from` to `to`, in canvas pixels; [] where that is not known. */
function wayOf(data, x, y, from, to, zoom, scale = 1) {
  const way = [];
  for (let i = from; i <= to; i++) {
    const p = y * data.width + x;
    const [u, v] = [data.fields[i].u[p], data.fields[i].v[p]];
    if (!Number.isFinite(u + v)) return [];
    way.push([(x + 0.5 + scale * u) * zoom, (y + 0.5 + scale * v) * zoom]);
  }
  return way;
}

/** Arrows or tracks of a grid of points. Returns the length, in pixels, below which nothing is drawn. */
function drawGrid(context, data, overlay, frame, settings, zoom, unit) {
  const step = Math.max(data.width, data.height) / settings.density;
  const colour = new Uint8Array(4);
  const { u, v } = data.fields[frame];
  const shortest = Math.max(SHORTEST, SHORTEST_SHARE * settings.top);
  const places = (length) => {
    const found = [];
    for (let at = step / 2; at < length; at += step) found.push(Math.floor(at));
    return [...new Set(found)];
  };
  for (const y of places(data.height)) {
    for (const x of places(data.width)) {
      const p = y * data.width + x;
      const straight = overlay === "arrows";
      if (!(Math.hypot(u[p], v[p]) >= shortest)) continue; // unknown, too
      const way = wayOf(data, x, y, straight ? frame : 0, frame, zoom, straight ? settings.scale : 1);
      if (!way.length) continue;
      if (straight) way.unshift([(x + 0.5) * zoom, (y + 0.5) * zoom]);
      flowColour(u[p], v[p], settings.top, data.wheel, colour, 0);
      drawArrow(context, way, unit, `rgb(${colour[0]},${colour[1]},${colour[2]})`);
    }
  }
  return shortest;
}

/** The whole way of the hovered point: ring where it starts, a dot for each frame, a large one where it is now. */
function drawPoint(context, data, { x, y }, frame, zoom, unit) {
  const way = wayOf(data, x, y, 0, data.count, zoom);
  if (way.length) {
    for (const [width, colour] of [[2.5 * unit, INK], [1.2 * unit, "#ffe14d"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      trace(context, way);
      context.stroke();
    }
    way.forEach((point) => drawDot(context, point, 1.1 * unit, "#ffe14d"));
    drawDot(context, way[frame], 2.6 * unit, "#ffe14d");
  }
  const side = Math.max(zoom, 5 * unit);
  const corner = [(x + 0.5) * zoom - side / 2, (y + 0.5) * zoom - side / 2];
  for (const [width, colour] of [[2.4 * unit, INK], [unit, "#fff"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(...corner, side, side);
  }
}

/** The legend, `side` pixels: each point of the disc has the colour of the flow from the centre to it. */
function wheelOf(wheel, side) {
  const canvas = make("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  const place = (k) => (2 * (k + 0.5)) / side - 1;
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at += 4) {
      flowColour(place(x), place(y), 1, wheel, image.data, at);
      image.data[at + 3] = 255 * Math.min(1, Math.max(0, ((1 - Math.hypot(place(x), place(y))) * side) / 2));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The legend with a dot at `flow`, which may be null. `disc`: of `wheelOf`. */
function drawWheel(canvas, disc, flow, top, ratio) {
  const side = (canvas.width = canvas.height = disc.width); // also clears it
  const context = canvas.getContext("2d");
  context.drawImage(disc, 0, 0);
  if (!flow) return;
  const over = Math.max(1, Math.hypot(...flow) / top);
  drawDot(context, flow.map((part) => ((part / top / over + 1) * side) / 2), 3 * ratio, "#fff");
}
