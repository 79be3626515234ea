// From the features of c tokens to values of N points.
//
// Features of a point are means over its three nearest tokens, weighted by inverse squared distance,
// as in the Python package. They are never stored: everything shown follows from the products
// between tokens (the Gram matrix), so that a cloud of 200,000 points needs a few megabytes.

import { squaredDistance } from "./geometry.js";

/** Tokens { index, weight } (N x 3) whose features each point has; missing ones weigh nothing. */
export function shares(points, centers) {
  const [size, count] = [points.length / 3, centers.length / 3];
  const index = new Uint16Array(3 * size);
  const weight = new Float32Array(3 * size);
  for (let p = 0; p < size; p++) {
    const near = [Infinity, Infinity, Infinity];
    const at = [0, 0, 0];
    for (let c = 0; c < count; c++) {
      const d = squaredDistance(points, p, centers, c);
      if (d >= near[2]) continue;
      let place = 2;
      for (; place > 0 && near[place - 1] > d; place--) {
        near[place] = near[place - 1];
        at[place] = at[place - 1];
      }
      near[place] = d;
      at[place] = c;
    }
    const raw = near.map((d) => 1 / (d + 1e-8));
    const total = raw[0] + raw[1] + raw[2];
    for (let j = 0; j < 3; j++) {
      index[3 * p + j] = at[j];
      weight[3 * p + j] = raw[j] / total;
    }
  }
  return { index, weight };
}

/** Products (c, c) of features (c, d). */
export function gram(features, count) {
  const width = features.length / count;
  const found = new Float64Array(count * count);
  for (let a = 0; a < count; a++) {
    for (let b = 0; b <= a; b++) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += features[a * width + i] * features[b * width + i];
      found[a * count + b] = found[b * count + a] = sum;
    }
  }
  return found;
}

/** Cosine similarity (N) of the features of all points with those of point `chosen`. */
export function similarity({ index, weight }, products, chosen) {
  const count = Math.sqrt(products.length);
  const size = index.length / 3;
  const withChosen = new Float64Array(count); // of every token, with the chosen point
  for (let c = 0; c < count; c++) {
    for (let j = 3 * chosen; j < 3 * chosen + 3; j++) {
      withChosen[c] += weight[j] * products[index[j] * count + c];
    }
  }
  const found = new Float32Array(size);
  const squares = new Float64Array(size);
  for (let p = 0; p < size; p++) {
    for (let i = 3 * p; i < 3 * p + 3; i++) {
      found[p] += weight[i] * withChosen[index[i]];
      for (let j = 3 * p; j < 3 * p + 3; j++) {
        squares[p] += weight[i] * weight[j] * products[index[i] * count + index[j]];
      }
    }
  }
  const own = squares[chosen];
  return found.map((dot, p) => dot / Math.sqrt(Math.max(squares[p] * own, 1e-24)));
}

/** Cosine similarity (N) of the rows (N, width) with row `chosen`. */
export function rowSimilarity(rows, width, chosen) {
  const own = rows.subarray(chosen * width, (chosen + 1) * width);
  const norm = Math.hypot(...own);
  return Float32Array.from({ length: rows.length / width }, (_, i) => {
    const row = rows.subarray(i * width, (i + 1) * width);
    const dot = row.reduce((sum, value, j) => sum + value * own[j], 0);
    return dot / Math.max(norm * Math.hypot(...row), 1e-12);
  });
}

/** Scores (c, 3) of tokens along the three main directions of their features. */
export function mainDirections(products) {
  const count = Math.sqrt(products.length);
  const matrix = centred(products, count);
  const scores = new Float64Array(3 * count);
  for (let axis = 0; axis < 3; axis++) {
    const { value, vector } = largestEigenvector(matrix, count);
    const scale = Math.sqrt(Math.max(value, 0));
    for (let i = 0; i < count; i++) {
      scores[3 * i + axis] = scale * vector[i];
      for (let j = 0; j < count; j++) matrix[i * count + j] -= value * vector[i] * vector[j];
    }
  }
  return scores;
}

/** Products after the mean feature was subtracted from all. */
function centred(products, count) {
  const means = new Float64Array(count);
  for (let i = 0; i < products.length; i++) means[i % count] += products[i] / count;
  const mean = means.reduce((sum, value) => sum + value / count, 0);
  return products.map((v, i) => v - means[i % count] - means[Math.floor(i / count)] + mean);
}

/** By power iteration; the component of largest size is positive. */
function largestEigenvector(matrix, count) {
  let vector = Float64Array.from({ length: count }, (_, i) => Math.cos(2.4 * i + 1));
  let value = 0;
  for (let step = 0; step < 300; step++) {
    const next = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) next[i] += matrix[i * count + j] * vector[j];
    }
    const norm = Math.hypot(...next);
    if (!(norm > 1e-12)) return { value: 0, vector: new Float64Array(count) };
    const before = value;
    value = norm;
    vector = next.map((v) => v / norm);
    if (Math.abs(value - before) <= 1e-12 * value) break;
  }
  const largest = vector.reduce((best, v) => (Math.abs(v) > Math.abs(best) ? v : best), 0);
  return { value, vector: largest < 0 ? vector.map((v) => -v) : vector };
}

/** Values (N, channels) of points from those of tokens (c, channels). */
export function interpolate({ index, weight }, values, channels) {
  const size = index.length / 3;
  const found = new Float32Array(size * channels);
  for (let i = 0; i < 3 * size; i++) {
    const point = Math.floor(i / 3);
    for (let k = 0; k < channels; k++) {
      found[point * channels + k] += weight[i] * values[index[i] * channels + k];
    }
  }
  return found;
}

/** Probabilities of logits. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const raw = Array.from(logits, (value) => Math.exp(value - top));
  const total = raw.reduce((sum, value) => sum + value, 0);
  return raw.map((value) => value / total);
}

/** The index of the largest value in each row of `width` values. */
export function largest(values, width) {
  return Int32Array.from({ length: values.length / width }, (_, row) => {
    const part = values.subarray(row * width, (row + 1) * width);
    return part.indexOf(Math.max(...part));
  });
}
