// The model's side of the page: files are read, prepared and encoded here, so turning stays smooth.
//
// Requests { id, do, ... } are answered one after the other by { id, ...answer } or { id, error }.

import { InputError } from "./errors.js";
import { gram, interpolate, largest, mainDirections, shares } from "./features.js";
import { readCloud } from "./formats.js";
import { describe, encodedTokens, sameCheckpoint } from "./model_file.js";
import { difference, feeds, leastPoints, run } from "./network.js";
import { prepare } from "./prepare.js";

const MOST_SHOWN = 200_000;
const TOLERANCE = 1e-3; // of WebGPU's outputs against the CPU's; else the CPU is used

const ASKED = new URL(self.location.href).searchParams;
const DEVICE = ASKED.get("device"); // cpu, webgpu, or whichever is faster

let models = []; // { name, about, bytes, cpu, gpu }
let cloud = null; // { name, raw }
let runtime = null;

/** ONNX Runtime: the form with WebGPU where the browser offers a graphics processor. */
async function start() {
  if (runtime) return runtime;
  const gpu = await graphics();
  const file = gpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const library = await import(new URL(`ort/${file}`, self.location.href).href);
  library.env.wasm.wasmPaths = new URL("ort/", self.location.href).href;
  library.env.wasm.numThreads = threads();
  library.env.logLevel = "error";
  runtime = { library, gpu };
  return runtime;
}

/** Whether to try WebGPU; not where a processor imitates it, unless the page's address asks. */
async function graphics() {
  if (DEVICE === "cpu" || !navigator.gpu) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter !== null && (DEVICE === "webgpu" || !adapter.info?.isFallbackAdapter);
}

/** As many as the page's address asks for, else half the cores, at most 4; 1 without isolation. */
function threads() {
  if (!self.crossOriginIsolated) return 1;
  const asked = Number(ASKED.get("threads"));
  return asked >= 1 ? Math.floor(asked) : Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2));
}

async function openModels({ files }) {
  const opened = files.map(({ name, bytes }) => {
    const array = new Uint8Array(bytes);
    return { name, bytes: array, about: describe(name, array), cpu: null, gpu: undefined };
  });
  opened.sort((a, b) => encodedTokens(a.about) - encodedTokens(b.about));
  const other = opened.find(({ about }) => !sameCheckpoint(about, opened[0].about));
  if (other) {
    throw new InputError(`${other.name} and ${opened[0].name} are of different checkpoints; open one`);
  }
  models = opened;
  return { models: models.map(({ name, about, bytes }) => ({ name, about, size: bytes.length })) };
}

function openCloud({ name, bytes }) {
  cloud = { name, raw: readCloud(name, new Uint8Array(bytes)) };
  return {};
}

async function session(model, provider) {
  const { library } = await start();
  try {
    return await library.InferenceSession.create(model.bytes, {
      executionProviders: [provider],
      logSeverityLevel: 3,
    });
  } catch (error) {
    throw new InputError(`${model.name}: the runtime cannot load it (${firstLine(error)})`);
  }
}

/** Outputs of a model, and the median time of several runs. */
async function encode(model, inputs) {
  model.cpu ??= await session(model, "wasm");
  const best = model.gpu ?? model.cpu;
  const { outputs } = await run(best, inputs); // the first run also makes room for its tensors
  const times = [];
  for (let spent = 0; times.length < 5 && spent < 300; spent += times.at(-1)) {
    times.push((await run(best, inputs)).milliseconds);
  }
  times.sort((a, b) => a - b);
  return { outputs, milliseconds: times[times.length >> 1] };
}

/** A session on WebGPU, if it agrees with the CPU and is faster; null otherwise. */
async function tryGraphics(model, inputs) {
  try {
    const gpu = await session(model, "webgpu");
    await run(gpu, inputs); // compiles its shaders
    const [there, here] = [await run(gpu, inputs), await run(model.cpu, inputs)];
    const agrees = difference(here.outputs, there.outputs) <= TOLERANCE;
    if (agrees && (DEVICE === "webgpu" || there.milliseconds < here.milliseconds)) return gpu;
    await gpu.release();
    if (!agrees) console.warn(`${model.name}: WebGPU differs from the CPU and is not used`);
  } catch (error) {
    console.warn(`${model.name}: WebGPU is not used, ${firstLine(error)}`);
  }
  return null;
}

function place(model) {
  if (model.gpu) return "WebGPU";
  const threads = runtime.library.env.wasm.numThreads;
  return threads > 1 ? `CPU, ${threads} threads` : "CPU, 1 thread";
}

async function encodeCloud({ model: number, up, category }) {
  const model = models[number] ?? models.at(-1);
  const { about } = model;
  await start();
  const began = performance.now();
  const parts = about.outputs.includes("features") ? null : about.parts;
  const least = leastPoints(about);
  let prepared;
  try {
    prepared = prepare(cloud.raw, about.preparation, { up, least });
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${cloud.name}: ${error.message}`);
    throw error;
  }
  const read = prepared.points.slice(0, 3 * prepared.read);
  const shown = parts ? read : prepared.points.slice(0, 3 * MOST_SHOWN);
  const { inputs, centers } = feeds(runtime.library, about, read, category);
  const preparation = performance.now() - began;
  const { outputs, milliseconds } = await encode(model, inputs);
  if (runtime.gpu && model.gpu === undefined) {
    later(async () => (model.gpu = await tryGraphics(model, inputs)));
  }
  if (Object.values(outputs).some((values) => values.some(Number.isNaN))) {
    throw new InputError(`${cloud.name}: the model returns NaN for it`);
  }
  const tokens = outputs.centers ?? centers;
  return {
    cloud: cloud.name,
    file: model.name,
    about,
    points: shown,
    total: prepared.points.length / 3,
    read: prepared.read,
    outputs: { ...outputs, ...(tokens ? { centers: tokens } : {}) },
    view: parts ? byPoint(outputs.logits, parts.length) : byToken(outputs, tokens, shown),
    times: { preparation, network: milliseconds },
    place: place(model),
  };
}

/** What the page draws of a model that returns tokens. */
function byToken({ features, assignment }, centers, points) {
  const count = centers.length / 3;
  const share = shares(points, centers);
  const products = gram(features, count);
  const groups = assignment ?? Int32Array.from({ length: count }, (_, i) => i);
  return {
    share,
    products,
    scores: interpolate(share, mainDirections(products), 3),
    groups: Int32Array.from({ length: points.length / 3 }, (_, p) => groups[share.index[3 * p]]),
  };
}

/** What the page draws of a model that returns parts: every point is its own token. */
function byPoint(logits, width) {
  return { share: null, products: null, scores: null, groups: largest(logits, width) };
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 200);
}

const ACTIONS = { openModels, openCloud, encodeCloud };
let last = Promise.resolve();

/** Does something when all that was asked for before is done. */
function later(action) {
  last = last.then(action);
}

self.addEventListener("message", ({ data }) =>
  later(async () => {
    try {
      self.postMessage({ id: data.id, answer: await ACTIONS[data.do](data) });
    } catch (error) {
      if (!(error instanceof InputError)) console.error(error);
      self.postMessage({ id: data.id, error: firstLine(error) });
    }
  }),
);
