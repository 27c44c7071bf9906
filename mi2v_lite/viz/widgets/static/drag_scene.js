// What DragCanvas draws over the photo: paths, anchors, the preview, the motion; and which of it lies under the pointer.
// It stands between drag_things.js and drag_canvas.js in one module.

/** Draws the squares of drags where they are at a time from 0 to 1, cut out of the photo. */
function paintSquares(context, { scene, photo, width, at, scale, time }) {
  const zoom = photo.naturalWidth / width;
  for (const drag of scene.drags) {
    const [x, y] = drag.points[0].map((value) => value + 0.5 - drag.half);
    const side = 2 * drag.half;
    const shift = minus(poseAt(drag.path, time), drag.points[0]);
    const place = at(plus([x - 0.5, y - 0.5], shift));
    context.drawImage(photo, x * zoom, y * zoom, side * zoom, side * zoom, ...place, side * scale, side * scale);
  }
}

/** Draws the motion over the whole photo, and its legend. `field`: as Runner.field, its pictures decoded. */
function paintField(context, { field, time, opacity, size: [wide, high] }) {
  const tall = field.strip.height / field.frames;
  const frame = Math.min(field.frames - 1, Math.max(0, Math.ceil(time * field.frames) - 1));
  context.globalAlpha = opacity;
  if (time > 0) context.drawImage(field.strip, 0, frame * tall, field.strip.width, tall, 0, 0, wide, high);
  context.globalAlpha = 1;
  const side = 64;
  const [x, y] = [wide - side - 8, high - side - 8];
  context.fillStyle = "rgba(255, 255, 255, 0.9)";
  context.fillRect(x - 4, y - 22, side + 8, side + 26);
  context.drawImage(field.wheel, x, y, side, side);
  context.fillStyle = INK;
  context.font = "12px sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(`rim ${field.longest.toPrecision(3)} px`, x + side / 2, y - 10);
}

/** Strokes what `trace` draws, in a colour with a dark rim. */
function stroked(context, width, colour, trace) {
  for (const [line, style] of [[width + 3, INK], [width, colour]]) {
    context.beginPath();
    trace();
    context.lineWidth = line;
    context.strokeStyle = style;
    context.stroke();
  }
}

/** Draws paths, anchors, the brush under way and the keyboard's cross. `at` maps photo pixels to CSS pixels. */
function paintScene(context, { scene, at, scale, selected, ghosts, cursor }) {
  const rimmed = (width, colour, trace) => stroked(context, width, colour, trace);
  const disc = ([x, y], radius, colour) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = INK;
    context.stroke();
  };
  const block = (point, half) => {
    const [x, y] = at(point);
    const side = half * scale;
    context.setLineDash([5, 4]);
    rimmed(1, "#ffffff", () => context.rect(x - side, y - side, 2 * side, 2 * side));
    context.setLineDash([]);
  };
  context.lineCap = context.lineJoin = "round";
  for (const ghost of ghosts) {
    if (ghost.box) {
      const [from, to] = [ghost.box[0], ghost.box.at(-1)].map(at);
      context.setLineDash([5, 4]);
      rimmed(1.5, "#ffffff", () => context.rect(...from, ...minus(to, from)));
      context.setLineDash([]);
      continue;
    }
    context.beginPath();
    ghost.points.map(at).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (ghost.points.length === 1) context.lineTo(...at(ghost.points[0]));
    context.lineWidth = ghost.size ? ghost.size * scale : 2;
    context.strokeStyle = ghost.erase ? "rgba(25, 35, 60, 0.6)" : ghost.size ? "rgba(255, 255, 255, 0.6)" : "#ffffff";
    context.stroke();
  }
  const way = ({ path, points, colour }, chosen, name) => {
    path = path.map(at);
    rimmed(2.5, colour, () => path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y))));
    path.slice(1, -1).forEach((point) => disc(point, 2.2, colour));
    const [tip, back] = [path.at(-1), path.findLast((p) => Math.hypot(p[0] - path.at(-1)[0], p[1] - path.at(-1)[1]) > 8)];
    const angle = Math.atan2(tip[1] - (back ?? path[0])[1], tip[0] - (back ?? path[0])[0]);
    context.beginPath();
    for (const turn of [0, 2.5, -2.5]) {
      context.lineTo(tip[0] + 10 * Math.cos(angle + turn), tip[1] + 10 * Math.sin(angle + turn));
    }
    context.closePath();
    context.fillStyle = colour;
    context.lineWidth = 1.5;
    context.strokeStyle = INK;
    context.fill();
    context.stroke();
    disc(path[0], 9, colour);
    context.fillStyle = INK;
    context.font = "bold 12px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(name, ...path[0]);
    if (chosen) points.slice(1).forEach((point) => disc(at(point), 4.5, "#ffffff"));
  };
  const isChosen = (kind, index) => selected?.kind === kind && selected.index === index;
  scene.things.forEach((thing, index) => {
    if (thing.path.length) way(thing, isChosen("thing", index), thing.name);
  });
  scene.drags.forEach((drag, index) => {
    if (isChosen("drag", index)) block(drag.points[0], drag.half);
    way(drag, isChosen("drag", index), index + 1);
  });
  scene.anchors.forEach((anchor, index) => {
    if (isChosen("anchor", index)) block(anchor.point, anchor.half);
    const [x, y] = at(anchor.point);
    context.fillStyle = "#ffffff";
    context.strokeStyle = INK;
    context.lineWidth = 2;
    context.fillRect(x - 8, y - 8, 16, 16);
    context.strokeRect(x - 8, y - 8, 16, 16);
    context.beginPath();
    for (const [dx, dy] of [[5, 0], [0, 5]]) {
      context.moveTo(x - dx, y - dy);
      context.lineTo(x + dx, y + dy);
    }
    context.stroke();
  });
  if (cursor) {
    const [x, y] = at(cursor);
    rimmed(1.5, "#ffffff", () => {
      for (const [dx, dy] of [[12, 0], [0, 12]]) {
        context.moveTo(x - dx, y - dy);
        context.lineTo(x + dx, y + dy);
      }
    });
  }
}

/** Draws by which marks the outline of a thing was found. `marks`: lists of points and lines on it and beside it. */
function paintMarks(context, { marks, at }) {
  for (const [points, lines, isOn] of [
    [marks.points, marks.scribbles, true],
    [marks.not_points, marks.not_scribbles, false],
  ]) {
    for (const line of [...points.map((point) => [point]), ...lines]) {
      const places = line.map(at);
      const trace = () => places.forEach((place, i) => (i ? context.lineTo(...place) : context.moveTo(...place)));
      stroked(context, 2.5, "#ffffff", trace);
      const [x, y] = places[0];
      context.beginPath();
      context.arc(x, y, 7, 0, 7);
      context.fillStyle = "#ffffff";
      context.fill();
      context.lineWidth = 1.5;
      context.strokeStyle = INK;
      context.stroke();
      context.lineWidth = 2;
      context.beginPath(); // a plus or a minus
      for (const [dx, dy] of [[4, 0], ...(isOn ? [[0, 4]] : [])]) {
        context.moveTo(x - dx, y - dy);
        context.lineTo(x + dx, y + dy);
      }
      context.stroke();
    }
  }
}

/** The drag or anchor at a place (CSS pixels), its points before its line: {kind, index, number} or null. */
function hit(scene, at, [x, y], near, selected) {
  const far = (point) => Math.hypot(at(point)[0] - x, at(point)[1] - y);
  const found = [];
  scene.anchors.forEach(({ point }, index) => found.push({ kind: "anchor", index, off: far(point) }));
  scene.drags.forEach((drag, index) => {
    const chosen = selected?.kind === "drag" && selected.index === index;
    drag.points.forEach((point, number) => {
      const last = number === drag.points.length - 1;
      if (chosen || last) found.push({ kind: "drag", index, number, off: far(point) - (chosen ? 2 : 0) });
    });
    found.push({ kind: "drag", index, off: far(drag.points[0]) - (chosen ? -1 : 1) });
    drag.path.forEach((point) => found.push({ kind: "drag", index, off: far(point) + 3 }));
  });
  const best = found.sort((a, b) => a.off - b.off)[0];
  return best && best.off <= near + 3 ? best : null;
}
