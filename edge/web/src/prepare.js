// From a raw cloud to the points that a model reads: a subset, axes, mean and scale.

import { InputError } from "./errors.js";

const AXES = ["x", "y", "z"];

/** Random numbers in [0, 1), the same ones for the same seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` points (3 count) drawn evenly from the surface of a mesh. */
export function sampleSurface(points, triangles, count, seed) {
  const faces = triangles.length / 3;
  const sums = new Float64Array(faces);
  let total = 0;
  for (let f = 0; f < faces; f++) sums[f] = total += area(points, triangles, f);
  if (!(total > 0 && total < Infinity)) throw new InputError("expected faces with an area");
  const draw = random(seed);
  const found = new Float64Array(3 * count);
  for (let i = 0; i < count; i++) {
    const face = firstAbove(sums, draw() * total);
    const root = Math.sqrt(draw());
    const second = draw();
    const shares = [1 - root, root * (1 - second), root * second];
    for (let axis = 0; axis < 3; axis++) {
      for (let corner = 0; corner < 3; corner++) {
        const vertex = triangles[3 * face + corner];
        found[3 * i + axis] += shares[corner] * points[3 * vertex + axis];
      }
    }
  }
  return found;
}

function area(points, triangles, face) {
  const [a, b, c] = triangles.subarray(3 * face, 3 * face + 3);
  const u = AXES.map((_, i) => points[3 * b + i] - points[3 * a + i]);
  const v = AXES.map((_, i) => points[3 * c + i] - points[3 * a + i]);
  const normal = AXES.map((_, i) => {
    const [j, k] = [(i + 1) % 3, (i + 2) % 3];
    return u[j] * v[k] - u[k] * v[j];
  });
  return Math.hypot(...normal) / 2;
}

/** The first index whose sum is larger than a value; sums never decrease. */
function firstAbove(sums, value) {
  let [low, high] = [0, sums.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Points in random order of which the first `count` are a random subset. */
export function shuffled(points, count, seed) {
  const rows = points.length / 3;
  const order = Uint32Array.from({ length: rows }, (_, i) => i);
  const draw = random(seed);
  for (let i = 0; i < Math.min(count, rows - 1); i++) {
    const other = i + Math.floor(draw() * (rows - i));
    [order[i], order[other]] = [order[other], order[i]];
  }
  const found = new Float64Array(points.length);
  order.forEach((row, i) => found.set(points.subarray(3 * row, 3 * row + 3), 3 * i));
  return found;
}

/** By how many places axes are rolled so that the up axis of a file becomes that of the model. */
export function turns(fileUp, modelUp) {
  return fileUp === null ? 0 : (AXES.indexOf(modelUp) - AXES.indexOf(fileUp) + 3) % 3;
}

/**
 * A raw cloud as a model reads it.
 *
 * Returns { points, read }: float32 coordinates, of which the model reads the first `read` points.
 * All are moved and scaled alike, so that the others can be shown. Arithmetic is in float64.
 */
export function prepare(raw, preparation, { up = null, seed = 0, samples = 16384, least = 1 } = {}) {
  let points = raw.points;
  if (raw.triangles.length > 0) points = sampleSurface(points, raw.triangles, samples, seed);
  const rows = points.length / 3;
  if (rows < least) {
    throw new InputError(`expected at least ${least} points, as many as the model groups, got ${rows}`);
  }
  const read = Math.min(rows, preparation.points ?? rows);
  if (read < rows) points = shuffled(points, read, seed);
  const turn = turns(up, preparation.up);
  const turned = new Float64Array(points.length);
  for (let i = 0; i < points.length; i++) {
    turned[i - (i % 3) + ((i + turn) % 3)] = points[i];
  }
  return { points: preparation.normalise ? normalised(turned, read) : Float32Array.from(turned), read };
}

/** Float32 points moved and scaled so that the first `read` have mean 0 and largest norm 1. */
export function normalised(points, read) {
  const mean = [0, 0, 0];
  for (let i = 0; i < 3 * read; i++) mean[i % 3] += points[i];
  for (let axis = 0; axis < 3; axis++) mean[axis] /= read;
  let square = 0;
  for (let i = 0; i < 3 * read; i += 3) {
    const [x, y, z] = [points[i] - mean[0], points[i + 1] - mean[1], points[i + 2] - mean[2]];
    square = Math.max(square, x * x + y * y + z * z);
  }
  const radius = Math.sqrt(square);
  if (!(radius > 0 && radius < Infinity)) throw new InputError("expected points that differ");
  return Float32Array.from(points, (value, i) => (value - mean[i % 3]) / radius);
}
