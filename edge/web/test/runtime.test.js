// The path of the worker in Node, with the WebAssembly of ONNX Runtime, against what torch computed.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { readCloud } from "../src/formats.js";
import { describe } from "../src/model_file.js";
import { difference, feeds, leastPoints, run } from "../src/network.js";
import { prepare } from "../src/prepare.js";

const folder = new URL("../../../tests/data/web/", import.meta.url);
const installed = existsSync(new URL("../node_modules/onnxruntime-web", import.meta.url));
const skip = installed && existsSync(folder) ? false : "npm ci was not run";

test("outputs are those of torch to 1e-4, with sampling in the file and here", { skip }, async () => {
  const runtime = await import("onnxruntime-web/wasm");
  runtime.env.wasm.numThreads = 1;
  const raw = readCloud("cloud.ply", readFileSync(new URL("cloud.ply", folder)));
  const expected = JSON.parse(readFileSync(new URL("expected.json", folder)));
  for (const [name, outputs] of Object.entries(expected)) {
    const bytes = readFileSync(new URL(`${name}.onnx`, folder));
    const about = describe(name, bytes);
    const { points } = prepare(raw, about.preparation, { least: leastPoints(about) });
    const session = await runtime.InferenceSession.create(bytes, { logSeverityLevel: 3 });
    const { inputs } = feeds(runtime, about, points, 0);
    const found = await run(session, inputs);
    assert.deepEqual(Object.keys(found.outputs).sort(), [...about.outputs].sort());
    for (const key of about.outputs) assert.equal(found.outputs[key].length, outputs[key].length);
    const gap = difference(found.outputs, outputs);
    assert.ok(gap < 1e-4, `${name}: ${gap}`);
  }
});
