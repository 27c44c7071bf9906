// The pixels of FlowExplorer's overlays: plain functions on arrays, without page or notebook.
// u, v: Float32Array (H*W), pixels, x right and y down, on the grid of frame 0. nan is unknown flow.

/** Writes the colour of one displacement, RGBA, to `out` at `at`: as viz/flow.py. `top` gets full colour. */
function flowColour(u, v, top, wheel, out, at) {
  out[at + 3] = 255;
  if (!Number.isFinite(u) || !Number.isFinite(v)) {
    out[at] = out[at + 1] = out[at + 2] = 0;
    return;
  }
  u /= top;
  v /= top;
  const over = Math.max(Math.sqrt(u * u + v * v), 1) * (1 + 1e-6);
  u /= over;
  v /= over;
  const count = wheel.length / 3;
  const radius = Math.sqrt(u * u + v * v);
  const place = ((Math.atan2(-v, -u) / Math.PI + 1) / 2) * (count - 1);
  const first = Math.floor(place);
  const second = (first + 1) % count;
  const part = place - first;
  for (let c = 0; c < 3; c++) {
    const hue = (1 - part) * (wheel[3 * first + c] / 255) + part * (wheel[3 * second + c] / 255);
    out[at + c] = Math.floor(255 * (1 - radius * (1 - hue)));
  }
}

function colourPixels(u, v, top, wheel) {
  const rgba = new Uint8ClampedArray(4 * u.length);
  for (let p = 0; p < u.length; p++) flowColour(u[p], v[p], top, wheel, rgba, 4 * p);
  return rgba;
}

/** Average splatting as flow/warp.py. `values`: (H*W*C), channels innermost. Gives weighted sums and weights. */
function splat(values, channels, u, v, width, height) {
  const sums = new Float32Array(values.length);
  const weights = new Float32Array(width * height);
  const land = (column, row, weight, p) => {
    if (column < 0 || column >= width || row < 0 || row >= height || weight === 0) return;
    const q = row * width + column;
    weights[q] += weight;
    for (let c = 0; c < channels; c++) sums[channels * q + c] += weight * values[channels * p + c];
  };
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p++) {
      const toX = Math.fround(x + u[p]); // float32, as torch: else holes of weight 1e-7 close
      const toY = Math.fround(y + v[p]);
      if (!(toX > -1 && toX < width && toY > -1 && toY < height)) continue; // nan, too
      const west = Math.floor(toX);
      const north = Math.floor(toY);
      const right = toX - west;
      const down = toY - north;
      land(west, north, (1 - right) * (1 - down), p);
      land(west + 1, north, right * (1 - down), p);
      land(west, north + 1, (1 - right) * down, p);
      land(west + 1, north + 1, right * down, p);
    }
  }
  return { sums, weights };
}

const HOLE = [255, 0, 255]; // as viz/flow.py
const LEAVES = [230, 159, 0];
const COLLIDES = [0, 114, 178];
const UNKNOWN = [0, 0, 0];

/** The photo carried along, holes black; or `faded`, so that holes, now magenta, stand out. */
function warpedPixels(photo, u, v, width, height, faded) {
  const { sums, weights } = splat(photo, 3, u, v, width, height);
  const rgba = new Uint8ClampedArray(4 * weights.length).fill(255);
  let holes = 0;
  for (let p = 0; p < weights.length; p++) {
    const hole = !(weights[p] > 0);
    holes += hole;
    for (let c = 0; c < 3; c++) {
      const value = hole ? 0 : sums[3 * p + c] / (weights[p] + 1e-7);
      rgba[4 * p + c] = !faded ? value : hole ? HOLE[c] : 160 + 0.37 * value;
    }
  }
  return { rgba, holes: holes / weights.length };
}

/** Pixels of frame 0 that leave the picture, or that land where others land: there the mean of what arrives differs
 * from their own flow. The bound is that of Sundaram et al., ECCV 2010, for forward against backward flow. */
function occludedPixels(photo, u, v, width, height) {
  const both = new Float32Array(2 * u.length);
  for (let p = 0; p < u.length; p++) {
    both[2 * p] = u[p];
    both[2 * p + 1] = v[p];
  }
  const { sums, weights } = splat(both, 2, u, v, width, height);
  const rgba = new Uint8ClampedArray(4 * u.length).fill(255);
  let [leave, collide] = [0, 0];
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p++) {
      const toX = Math.fround(x + u[p]);
      const toY = Math.fround(y + v[p]);
      let mark = null;
      if (!Number.isFinite(toX + toY)) mark = UNKNOWN;
      else if (toX < -0.5 || toX > width - 0.5 || toY < -0.5 || toY > height - 0.5) mark = LEAVES;
      else {
        const q = Math.min(height - 1, Math.round(toY)) * width + Math.min(width - 1, Math.round(toX));
        const meanU = sums[2 * q] / weights[q];
        const meanV = sums[2 * q + 1] / weights[q];
        const apart = (u[p] - meanU) ** 2 + (v[p] - meanV) ** 2;
        if (apart > 0.01 * (u[p] ** 2 + v[p] ** 2 + meanU ** 2 + meanV ** 2) + 0.5) mark = COLLIDES;
      }
      leave += mark === LEAVES;
      collide += mark === COLLIDES;
      for (let c = 0; c < 3; c++) rgba[4 * p + c] = mark ? mark[c] : 110 + 0.57 * photo[3 * p + c];
    }
  }
  return { rgba, leave: leave / u.length, collide: collide / u.length };
}

function photoPixels(photo) {
  const rgba = new Uint8ClampedArray((4 * photo.length) / 3).fill(255);
  for (let p = 0; p < photo.length; p++) rgba[p + Math.floor(p / 3)] = photo[p];
  return rgba;
}
