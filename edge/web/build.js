// Builds the page into dist/: every file it needs, from node_modules, so that it works offline.

import { build } from "esbuild";
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const runtime = join(here, "node_modules", "onnxruntime-web", "dist");

rmSync(dist, { recursive: true, force: true });
mkdirSync(join(dist, "ort"), { recursive: true });
await build({
  entryPoints: { page: join(here, "src/page.js"), worker: join(here, "src/worker.js") },
  outdir: dist,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "linked",
  logLevel: "warning",
});
cpSync(join(here, "public"), dist, { recursive: true });
for (const name of [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
]) {
  cpSync(join(runtime, name), join(dist, "ort", name));
}
cpSync(join(here, "node_modules/three/LICENSE"), join(dist, "LICENSE.three"));
