import assert from "node:assert/strict";
import { test } from "node:test";
import { fromScores, fromValues, ofGroup } from "../src/colours.js";
import * as features from "../src/features.js";
import { farthestPoints, groups, nearestPoints } from "../src/geometry.js";
import { describe, encodedTokens, sameCheckpoint } from "../src/model_file.js";
import { normalised, prepare, random, sampleSurface, shuffled, turns } from "../src/prepare.js";

const close = (a, b, most = 1e-6) => {
  assert.equal(a.length, b.length);
  a.forEach((value, i) => assert.ok(Math.abs(value - b[i]) <= most, `${value} and ${b[i]} at ${i}`));
};
const draws = (count, seed) => Float64Array.from({ length: count }, ((next) => () => next() - 0.5)(random(seed)));
const raw = (points, triangles = []) => ({ points: Float64Array.from(points), triangles });

test("clouds have mean 0 and largest norm 1, whatever the place and size", () => {
  const points = draws(300, 1);
  const plain = normalised(points, 100);
  close(plain, normalised(points.map((value, i) => 7 * value + [1e3, -5, 2][i % 3]), 100), 1e-6);
  const norms = Array.from({ length: 100 }, (_, i) => Math.hypot(...plain.subarray(3 * i, 3 * i + 3)));
  assert.ok(Math.abs(Math.max(...norms) - 1) < 1e-6);
  assert.throws(() => normalised(new Float64Array(9).fill(4), 3), /differ/);
});

test("the file's up axis becomes the model's", () => {
  for (const [i, from] of ["x", "y", "z"].entries()) {
    const points = [0, 0, 0];
    points[i] = 2;
    const { points: found } = prepare(raw(points), { normalise: false, up: "y", points: null }, { up: from });
    assert.deepEqual(Array.from(found), [0, 2, 0]);
  }
  assert.equal(turns(null, "z"), 0);
});

test("a model reads a random subset, and all points are shown scaled alike", () => {
  const points = draws(600, 2);
  const preparation = { normalise: true, up: "z", points: 50 };
  const { points: found, read } = prepare(raw(points), preparation);
  assert.equal(read, 50);
  assert.equal(found.length, 600);
  const mean = [0, 1, 2].map((axis) => found.subarray(0, 150).filter((_, i) => i % 3 === axis).reduce((a, b) => a + b) / 50);
  close(mean, [0, 0, 0], 1e-6);
  close(found, prepare(raw(points), preparation).points, 0);
  assert.notDeepEqual(found, prepare(raw(points), preparation, { seed: 1 }).points);
  const sorted = (values) => Array.from(values).sort((a, b) => a - b);
  assert.deepEqual(sorted(shuffled(points, 200, 0)), sorted(points));
  assert.throws(() => prepare(raw(points), preparation, { least: 201 }), /at least 201 points/);
});

test("meshes give points on their surface, more on larger faces", () => {
  const corners = Float64Array.from([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5, 3, 0, 5, 0, 1, 5]);
  const found = sampleSurface(corners, Uint32Array.from([0, 1, 2, 3, 4, 5]), 4000, 0);
  let high = 0;
  for (let i = 0; i < found.length; i += 3) {
    const [x, y, z] = found.subarray(i, i + 3);
    assert.ok(x >= 0 && y >= 0 && (z > 1 ? x / 3 : x) + y <= 1 + 1e-9);
    assert.ok(z < 1e-9 || Math.abs(z - 5) < 1e-9);
    if (z > 1) high += 1;
  }
  assert.ok(Math.abs(high / 4000 - 0.75) < 0.03);
  assert.throws(() => sampleSurface(corners, Uint32Array.from([0, 0, 0]), 5, 0), /area/);
});

test("sampling starts at point 0 and ties go to the lowest index", () => {
  const square = Float32Array.from([0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0]);
  assert.deepEqual(Array.from(farthestPoints(square, 4)), [0, 3, 1, 2]);
  assert.deepEqual(Array.from(farthestPoints(new Float32Array(9), 3)), [0, 0, 0]);
  assert.deepEqual(Array.from(nearestPoints(square.subarray(9, 12), square, 4)), [3, 4, 1, 2]);
});

test("neighbours are those of a full sort, and neighbourhoods are relative", () => {
  const points = Float32Array.from(draws(240, 3));
  const { centers, neighborhoods } = groups(points, 6, 5, 0.5);
  const index = nearestPoints(centers, points, 5);
  for (let c = 0; c < 6; c++) {
    const away = (i) => [0, 1, 2].reduce((sum, a) => sum + (points[3 * i + a] - centers[3 * c + a]) ** 2, 0);
    const sorted = Array.from({ length: 80 }, (_, i) => i).sort((a, b) => away(a) - away(b));
    assert.deepEqual(Array.from(index.subarray(5 * c, 5 * c + 5)), sorted.slice(0, 5));
    close(neighborhoods.subarray(15 * c, 15 * c + 3), [0, 0, 0], 0);
    const last = sorted[4];
    const offset = [0, 1, 2].map((a) => (points[3 * last + a] - centers[3 * c + a]) / 0.5);
    close(neighborhoods.subarray(15 * c + 12, 15 * c + 15), offset);
  }
});

/** Features of points by the definition: interpolated, one row per point. */
function dense(share, tokens, width) {
  const found = new Float64Array((share.index.length / 3) * width);
  share.index.forEach((token, i) => {
    for (let k = 0; k < width; k++) found[Math.floor(i / 3) * width + k] += share.weight[i] * tokens[token * width + k];
  });
  return found;
}

test("weights of a point sum to one, and its token weighs most where it lies", () => {
  const [points, centers] = [Float32Array.from(draws(150, 4)), Float32Array.from(draws(21, 5))];
  const { index, weight } = features.shares(points, centers);
  for (let p = 0; p < 50; p++) {
    const sum = weight[3 * p] + weight[3 * p + 1] + weight[3 * p + 2];
    assert.ok(Math.abs(sum - 1) < 1e-6);
    assert.equal(new Set(index.subarray(3 * p, 3 * p + 3)).size, 3);
  }
  assert.ok(features.shares(centers, centers).weight[0] > 0.999);
  const two = features.shares(points, centers.subarray(0, 6));
  close(two.weight.filter((_, i) => i % 3 === 2), new Float32Array(50), 0);
});

test("similarity from products of tokens is the cosine of interpolated features", () => {
  const [points, centers] = [Float32Array.from(draws(150, 6)), Float32Array.from(draws(24, 7))];
  const tokens = Float32Array.from(draws(80, 8));
  const share = features.shares(points, centers);
  const all = dense(share, tokens, 10);
  const row = (i) => all.subarray(10 * i, 10 * i + 10);
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const expected = Array.from({ length: 50 }, (_, i) => dot(row(i), row(9)) / Math.sqrt(dot(row(i), row(i)) * dot(row(9), row(9))));
  const found = features.similarity(share, features.gram(tokens, 8), 9);
  close(found, expected, 1e-5);
  close(features.rowSimilarity(Float32Array.from(all), 10, 9), expected, 1e-5);
  assert.ok(Math.abs(found[9] - 1) < 1e-6);
});

test("main directions are those of the covariance", () => {
  const spread = [9, 3, 1, 0.01];
  const tokens = Float32Array.from(draws(4 * 40, 9), (value, i) => value * spread[i % 4] + 100);
  const scores = features.mainDirections(features.gram(tokens, 40));
  const column = (k) => Array.from({ length: 40 }, (_, i) => scores[3 * i + k]);
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const power = [0, 1, 2].map((k) => dot(column(k), column(k)));
  assert.ok(power[0] > power[1] && power[1] > power[2]);
  for (const [a, b] of [[0, 1], [0, 2], [1, 2]]) {
    assert.ok(Math.abs(dot(column(a), column(b))) < 1e-3 * power[0]);
  }
  let total = 0;
  for (let k = 0; k < 4; k++) {
    const values = tokens.filter((_, i) => i % 4 === k);
    const mean = values.reduce((a, b) => a + b) / 40;
    total += values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  }
  assert.ok(Math.abs(power[0] + power[1] + power[2] - total) < 0.01 * total);
  close(features.mainDirections(features.gram(new Float32Array(12).fill(2), 4)), new Float64Array(12), 1e-3);
});

test("softmax and the largest of each row", () => {
  close(features.softmax([1000, 1000 + Math.log(3)]), [0.25, 0.75], 1e-9);
  assert.deepEqual(Array.from(features.largest(Float32Array.from([1, 5, 2, 7, 0, 7]), 3)), [1, 0]);
});

test("colours lie in [0, 1] and follow their values", () => {
  const colours = [fromScores(draws(90, 10)), fromValues(draws(30, 11), -0.5, 0.5), fromValues([2, 2], 2, 2)];
  for (const found of colours) assert.ok(found.every((value) => value >= 0 && value <= 1));
  const [low, high] = [fromValues([0], 0, 1), fromValues([1], 0, 1)];
  assert.ok(high[0] > low[0] && high[1] > low[1]);
  const used = new Set(Array.from({ length: 32 }, (_, i) => ofGroup(i).join()));
  assert.equal(used.size, 32);
});

test("a file that is no export is refused by name", () => {
  for (const bytes of [[], [1, 2, 3], [0x72, 4, 10, 0, 18, 0], [0xff, 0xff]]) {
    assert.throws(() => describe("a.onnx", Uint8Array.from(bytes)), /^Error: a\.onnx: expected an \.onnx/);
  }
});

test("tokens that a file encodes, and files of one checkpoint", () => {
  const about = { kind: "student", groups: 64, width: 384, supertokens: 16, budget: {}, source: { run: "a" } };
  assert.equal(encodedTokens({ ...about, supertokens: null }), 64);
  assert.equal(encodedTokens(about), 16);
  assert.equal(encodedTokens({ ...about, budget: { token_budget: 32 } }), 32);
  assert.ok(sameCheckpoint(about, { ...about, budget: { token_budget: 32 } }));
  assert.ok(!sameCheckpoint(about, { ...about, source: { run: "b" } }));
});
