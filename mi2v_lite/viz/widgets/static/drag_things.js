// Things on DragCanvas: cut out of the photo, drawn where they go, found under the pointer, moved and turned by it. It
// stands between drag_picture.js and drag_scene.js in one module.
//
// A pose [a, b, x, y] takes the photo's pixel z, a complex number, to (a + ib) z + (x + iy).

const SHADE = "rgba(25, 35, 60, 0.62)"; // lies over the place that a thing leaves; as viz/drawing.py
const INK = "#141414";

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const minus = ([a, b], [c, d]) => [a - c, b - d];
const plus = ([a, b], [c, d]) => [a + c, b + d];
const over = ([a, b], [c, d]) => times([a, b], [c / (c * c + d * d), -d / (c * c + d * d)]);
const posed = ([a, b, x, y], place) => plus(times([a, b], place), [x, y]);
const unposed = ([a, b, x, y], place) => over(minus(place, [x, y]), [a, b]);
/** The pose that turns and scales by `factor` and takes `from` to `to`. */
const poseOf = ([a, b], from, to) => [a, b, ...minus(to, times([a, b], from))];

/** The pose at a time from 0, the photo, to 1, the last frame. */
function poseAt(poses, time) {
  const at = time * (poses.length - 1);
  const first = Math.min(Math.floor(at), poses.length - 1);
  const second = Math.min(first + 1, poses.length - 1);
  return poses[first].map((value, i) => value + (at - first) * (poses[second][i] - value));
}

/** What a hand that holds a thing makes of its last pose. `hold`: {index, how, from, to}, see drag_canvas.js. */
function heldPose(thing, hold, [width, height]) {
  const end = thing.poses.at(-1);
  const tip = posed(end, thing.middle);
  if (hold.how === "turn") {
    const factor = over(minus(hold.to, tip), minus(hold.from, tip));
    return poseOf(times(factor, end), thing.middle, tip);
  }
  if (hold.how === "point") return end;
  const start = hold.how === "carry" ? thing.middle : tip;
  const [x, y] = plus(start, minus(hold.to, hold.from));
  const inside = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  return poseOf(end, thing.middle, inside);
}

/** A mask as bitmap, its pixels, and what it cuts out of the photo. `width`: of the photo in its own pixels. */
async function cutOut(bytes, photo, { box, colour }, width) {
  const mask = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const [left, top, right, bottom] = box;
  const filled = (paint) => {
    const canvas = make("canvas", { width: mask.width, height: mask.height });
    const context = canvas.getContext("2d", { willReadFrequently: !paint });
    context.drawImage(mask, 0, 0);
    context.globalCompositeOperation = "source-in";
    paint?.(context, canvas);
    return canvas;
  };
  const scale = photo.naturalWidth / width;
  const source = [left, top, right - left, bottom - top].map((value) => value * scale);
  const plain = filled();
  return {
    mask,
    box,
    colour,
    pixels: plain.getContext("2d").getImageData(0, 0, mask.width, mask.height).data,
    cut: filled((context, canvas) => context.drawImage(photo, ...source, 0, 0, canvas.width, canvas.height)),
    shade: filled((context, canvas) => {
      context.fillStyle = SHADE;
      context.fillRect(0, 0, canvas.width, canvas.height);
    }),
    rim: null,
  };
}

/** The outline of a mask, `wide` CSS pixels outside of it, on a canvas that is larger by `margin` mask pixels. */
function rimOf({ mask, box, colour }, scale, wide) {
  const unit = mask.width / ((box[2] - box[0]) * scale); // mask pixels in a CSS pixel
  const margin = Math.ceil((wide + 2) * unit);
  const ring = (reach, paint) => {
    const canvas = make("canvas", { width: mask.width + 2 * margin, height: mask.height + 2 * margin });
    const context = canvas.getContext("2d");
    for (let turn = 0; turn < 16; turn++) {
      const [x, y] = [Math.cos((turn * Math.PI) / 8), Math.sin((turn * Math.PI) / 8)];
      context.drawImage(mask, margin + reach * unit * x, margin + reach * unit * y);
    }
    context.globalCompositeOperation = "source-in";
    context.fillStyle = paint;
    context.fillRect(0, 0, canvas.width, canvas.height);
    return canvas;
  };
  const canvas = ring(wide + 1.2, INK);
  const context = canvas.getContext("2d");
  context.drawImage(ring(wide, colour), 0, 0);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, margin, margin);
  return { canvas, margin, scale, wide };
}

/** Draws with a pose, in the photo's pixels. Pixel centres are whole numbers, so edges lie half a pixel beside them. */
function inPose(context, pose, scale, draw) {
  context.save();
  context.scale(scale, scale);
  context.translate(0.5, 0.5);
  const [a, b, x, y] = pose;
  context.transform(a, b, -b, a, x, y);
  context.translate(-0.5, -0.5);
  draw();
  context.restore();
}

/** Draws all things. `poseFor(index)`: where each is shown; null leaves it where it is in the photo. */
function paintThings(context, { things, pieces, poseFor, scale, selected, outlined }) {
  const drawn = (image, [left, top, right, bottom], mask, margin = 0) => {
    const unit = (right - left) / mask.width;
    const more = margin * unit;
    const tall = margin * ((bottom - top) / mask.height);
    context.drawImage(image, left - more, top - tall, right - left + 2 * more, bottom - top + 2 * tall);
  };
  pieces.forEach((piece, index) => {
    if (piece && poseFor(index)) inPose(context, [1, 0, 0, 0], scale, () => drawn(piece.shade, piece.box, piece.mask));
  });
  pieces.forEach((piece, index) => {
    if (!piece || things[index]?.ground) return;
    const pose = poseFor(index);
    const wide = selected === index ? 2.5 : 1.5;
    if (piece.rim?.wide !== wide || Math.abs(piece.rim.scale / scale - 1) > 0.1) piece.rim = rimOf(piece, scale, wide);
    inPose(context, pose ?? [1, 0, 0, 0], scale, () => {
      if (pose) drawn(piece.cut, piece.box, piece.mask);
      if (outlined) drawn(piece.rim.canvas, piece.box, piece.mask, piece.rim.margin);
    });
  });
}

/** The nearest thing at a pixel of the photo, as it is shown; -1 for none, or for the background. */
function thingAt(things, pieces, poseFor, place) {
  for (let index = pieces.length - 1; index >= 0; index--) {
    if (!pieces[index] || things[index].ground) continue;
    const { mask, box, pixels } = pieces[index];
    const pose = poseFor(index);
    const [x, y] = pose ? unposed(pose, place) : place;
    const column = Math.floor(((x + 0.5 - box[0]) / (box[2] - box[0])) * mask.width);
    const row = Math.floor(((y + 0.5 - box[1]) / (box[3] - box[1])) * mask.height);
    const inside = column >= 0 && row >= 0 && column < mask.width && row < mask.height;
    if (inside && pixels[4 * (row * mask.width + column) + 3] > 127) return index;
  }
  return -1;
}

/** Where the handle of a thing is that turns and scales it, in CSS pixels: beyond the middle of a side of its box. */
function handleOf(thing, pose, at, [wide, high]) {
  const [left, top, right, bottom] = thing.box;
  const [x, y] = [(left + right - 1) / 2, (top + bottom - 1) / 2];
  const centre = at(posed(pose, [x, y]));
  const handles = [[x, top], [right - 1, y], [x, bottom - 1], [left, y]].map((side) => {
    const edge = at(posed(pose, side));
    const off = minus(edge, centre);
    const length = Math.hypot(...off) || 1;
    return { edge, handle: plus(edge, off.map((value) => (value / length) * 28)) };
  });
  const fits = ({ handle: [px, py] }) => px > 12 && py > 12 && px < wide - 12 && py < high - 12;
  return handles.find(fits) ?? { edge: centre, handle: plus(centre, [30, 30]) };
}

function paintHandle(context, { edge, handle }) {
  for (const [line, style] of [[4, INK], [2, "#ffffff"]]) {
    context.lineWidth = line;
    context.strokeStyle = style;
    context.beginPath();
    context.moveTo(...edge);
    context.lineTo(...handle);
    context.stroke();
  }
  context.beginPath();
  context.arc(...handle, 9, 0, 7);
  context.fillStyle = "#ffffff";
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = INK;
  context.stroke();
  context.beginPath(); // an arrow that turns
  context.arc(...handle, 4.5, -2.4, 2);
  context.stroke();
  const [x, y] = plus(handle, [4.5 * Math.cos(2), 4.5 * Math.sin(2)]);
  context.beginPath();
  context.moveTo(x - 3.5, y - 1.5);
  context.lineTo(x + 0.5, y + 0.5);
  context.lineTo(x + 1.5, y - 3.5);
  context.stroke();
}
