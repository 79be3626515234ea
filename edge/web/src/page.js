// The page: what is open and chosen, and what follows from it.

import { connect } from "./client.js";
import { fromGroups, fromScores, fromValues } from "./colours.js";
import { rowSimilarity, similarity } from "./features.js";
import { ENDINGS } from "./formats.js";
import { $, explain, fillClouds, say, showLegend, showModel, showModels, showResult } from "./panel.js";
import { CloudView } from "./scene.js";

const SAMPLES = ["chair", "table", "lamp", "airplane", "car", "mug"].map((name) => `${name}.ply`);
const request = connect(new Worker(`worker.js${location.search}`, { type: "module" }));

const samples = SAMPLES.map((name) => ({ name, address: `samples/${name}`, up: "z" }));
let files = []; // clouds that were opened: { name, bytes } or { name, address }
let models = []; // { name, about, size }, fewest tokens first
let chosen = 0; // of the models
let opened = null; // the cloud that the worker holds
let result = null; // what it answered for the last cloud
let picked = null; // index of a point
let busy = false; // the worker is encoding
let again = false; // and something has changed since it began
let view = null;

const mode = () => document.querySelector('[name="mode"]:checked').value;

/** Runs an action; what goes wrong is said in the status line. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

async function bytesOf(entry) {
  if (entry.bytes) return entry.bytes.slice(0);
  const answer = await fetch(entry.address);
  if (!answer.ok) throw new Error(`${entry.name}: cannot be loaded (${answer.status})`);
  return answer.arrayBuffer();
}

async function openModels(entries) {
  say(entries.length > 1 ? `Loading ${entries.length} models …` : `Loading ${entries[0].name} …`);
  const loaded = await Promise.all(
    entries.map(async (entry) => ({ name: entry.name, bytes: await bytesOf(entry) })),
  );
  const answer = await request("openModels", { files: loaded }, loaded.map(({ bytes }) => bytes));
  models = answer.models;
  chosen = models.length - 1;
  showModels(models, chosen);
  await encode();
}

/** Opens a cloud: the one at a position of the menu, the user's files first. */
async function openCloud(position) {
  const entry = [...files, ...samples][position];
  fillClouds(
    [{ label: "Your files", names: files.map(({ name }) => name) }, { label: "Samples", names: SAMPLES }],
    position,
  );
  const bytes = await bytesOf(entry);
  await request("openCloud", { name: entry.name, bytes }, [bytes]);
  opened = entry;
  picked = null;
  await encode();
}

/** Encodes what is open and chosen; of many requests during an encoding, only the last counts. */
async function encode() {
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again) {
      again = false;
      await encodeOnce().catch((error) => {
        if (!again) throw error;
      });
    }
  } finally {
    busy = false;
  }
}

async function encodeOnce() {
  if (opened === null || models.length === 0) {
    $("hint").hidden = false;
    if (models.length === 0) say("Open a model that foundry3d export has written.");
    return;
  }
  say("Encoding …");
  const answer = await request("encodeCloud", {
    model: chosen,
    up: $("up").value || opened.up || null,
    category: Number($("categories").value || 0),
  });
  if (again) return;
  const same = result?.cloud === answer.cloud && result.points.length === answer.points.length;
  result = answer;
  $("hint").hidden = true;
  view?.show(result.points, result.about.preparation.up);
  if (!same) picked = null;
  showResult(result);
  paint();
  say(`${result.cloud} was encoded by ${result.file}.`);
}

/** Colours the points as the chosen mode asks. */
function paint() {
  if (result === null) return;
  $("explain").textContent = explain(mode(), result.about, picked);
  const { about, outputs, points, view: shown } = result;
  view?.mark(mode() === "similarity" ? picked : null);
  if (mode() === "groups") {
    view?.colour(fromGroups(shown.groups));
    showLegend({ groups: namesOf(shown.groups, about) });
  } else if (mode() === "similarity" && picked !== null) {
    const values = shown.share
      ? similarity(shown.share, shown.products, picked)
      : rowSimilarity(outputs.logits, about.parts.length, picked);
    const range = [values.reduce((a, b) => Math.min(a, b), 1), 1];
    view?.colour(fromValues(values, ...range));
    showLegend({ range });
  } else {
    view?.colour(shown.scores ? fromScores(shown.scores) : new Float32Array(points.length).fill(0.6));
    showLegend({});
  }
}

/** Names for the legend: parts, or the kept tokens; supertokens have none. */
function namesOf(groups, about) {
  const found = [...new Set(groups)].sort((a, b) => a - b);
  if (about.parts) return found.map((group) => ({ group, name: about.parts[group] }));
  return found.includes(-1) ? [{ group: -1, name: "not merged" }] : null;
}

function pick(index) {
  picked = index;
  document.querySelector('[name="mode"][value="similarity"]').checked = true;
  paint();
}

/** Opens what was dropped or chosen: models together, or clouds, of which the first is shown. */
async function openFiles(list) {
  const entries = await Promise.all(
    [...list].map(async (file) => ({ name: file.name, bytes: await file.arrayBuffer() })),
  );
  const isModel = ({ name }) => name.toLowerCase().endsWith(".onnx");
  const [found, clouds] = [entries.filter(isModel), entries.filter((entry) => !isModel(entry))];
  if (clouds.length > 0) files = [...clouds, ...files];
  if (found.length > 0) await openModels(found);
  if (clouds.length > 0) await openCloud(0);
}

function save() {
  const plain = Object.entries(result.outputs).map(([name, values]) => [name, Array.from(values)]);
  const { cloud, file, about, points, read } = result;
  const content = { cloud, file, about, points: Array.from(points.subarray(0, 3 * read)) };
  const text = JSON.stringify({ ...content, ...Object.fromEntries(plain) });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${cloud.replace(/\.\w+$/, "")}.features.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function listen() {
  $("cloud-file").accept = ENDINGS.join(",");
  for (const kind of ["cloud", "model"]) {
    $(`open-${kind}`).addEventListener("click", () => $(`${kind}-file`).click());
    $(`${kind}-file`).addEventListener("change", (event) =>
      attempt(async () => {
        await openFiles(event.target.files);
        event.target.value = "";
      }),
    );
  }
  $("clouds").addEventListener("change", (event) => attempt(() => openCloud(Number(event.target.value))));
  for (const id of ["up", "categories"]) $(id).addEventListener("change", () => attempt(encode));
  $("slider").addEventListener("input", (event) => {
    chosen = Number(event.target.value);
    showModel(models, chosen);
    attempt(encode);
  });
  $("modes").addEventListener("change", paint);
  $("save").addEventListener("click", save);
  const dropping = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dropping(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? dropping(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(false);
    attempt(() => openFiles(event.dataTransfer.files));
  });
}

/** Models and clouds that lie beside the page, named by its manifest. */
async function openListed() {
  const answer = await fetch("manifest.json");
  const listed = answer.ok ? await answer.json() : { models: [], clouds: [] };
  const entry = (address) => ({ address, name: decodeURIComponent(address.split("/").pop()) });
  files = listed.clouds.map(entry);
  if (listed.models.length > 0) await openModels(listed.models.map(entry));
  await openCloud(0);
}

async function start() {
  listen();
  try {
    view = new CloudView($("canvas"), pick);
  } catch {
    $("hint").textContent = "This browser does not draw in 3D (WebGL); features are still computed.";
  }
  await attempt(openListed);
}

start();
