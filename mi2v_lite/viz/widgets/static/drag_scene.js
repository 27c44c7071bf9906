// What DragCanvas draws over the photo, and what lies under the pointer. It stands between drag_controls.js and
// drag_canvas.js in one module.

/** Draws paths, anchors, the brush under way and the keyboard's cross. `at` maps photo pixels to CSS pixels. */
function paintScene(context, { scene, at, scale, selected, ghosts, cursor }) {
  const rimmed = (width, colour, trace) => {
    for (const [line, style] of [[width + 3, "#141414"], [width, colour]]) {
      context.beginPath();
      trace();
      context.lineWidth = line;
      context.strokeStyle = style;
      context.stroke();
    }
  };
  const disc = ([x, y], radius, colour) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = "#141414";
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
    context.beginPath();
    ghost.points.map(at).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (ghost.points.length === 1) context.lineTo(...at(ghost.points[0]));
    context.lineWidth = ghost.size ? ghost.size * scale : 2;
    context.strokeStyle = ghost.erase ? "rgba(25, 35, 60, 0.6)" : ghost.size ? "rgba(255, 255, 255, 0.6)" : "#ffffff";
    context.stroke();
  }
  scene.drags.forEach((drag, index) => {
    const chosen = selected?.kind === "drag" && selected.index === index;
    if (chosen) block(drag.points[0], drag.half);
    const path = drag.path.map(at);
    rimmed(2.5, drag.colour, () => path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y))));
    path.slice(1, -1).forEach((point) => disc(point, 2.2, drag.colour));
    const [tip, back] = [path.at(-1), path.findLast((p) => Math.hypot(p[0] - path.at(-1)[0], p[1] - path.at(-1)[1]) > 8)];
    const angle = Math.atan2(tip[1] - (back ?? path[0])[1], tip[0] - (back ?? path[0])[0]);
    context.beginPath();
    for (const turn of [0, 2.5, -2.5]) {
      context.lineTo(tip[0] + 10 * Math.cos(angle + turn), tip[1] + 10 * Math.sin(angle + turn));
    }
    context.closePath();
    context.fillStyle = drag.colour;
    context.lineWidth = 1.5;
    context.strokeStyle = "#141414";
    context.fill();
    context.stroke();
    disc(path[0], 9, drag.colour);
    context.fillStyle = "#141414";
    context.font = "bold 12px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(index + 1, ...path[0]);
    if (chosen) drag.points.slice(1).forEach((point) => disc(at(point), 6, "#ffffff"));
  });
  scene.anchors.forEach((anchor, index) => {
    if (selected?.kind === "anchor" && selected.index === index) block(anchor.point, anchor.half);
    const [x, y] = at(anchor.point);
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#141414";
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

/** The thing of the scene at a place (CSS pixels), its points before its line: {kind, index, number} or null. */
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
