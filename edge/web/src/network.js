// One exported file in ONNX Runtime: from prepared points to named outputs.
//
// The runtime is handed in, so that the same code runs in a worker of the page and in Node.

import { InputError } from "./errors.js";
import { groups } from "./geometry.js";

/** The fewest points that a model can group. */
export function leastPoints(about) {
  return Math.max(about.groups, about.group_size);
}

/**
 * Inputs of a model for float32 points (N, 3).
 *
 * Where sampling is not part of the file it happens here; `centers` are null where it is.
 */
export function feeds(runtime, about, points, category) {
  const tensor = (values, ...dims) => new runtime.Tensor("float32", values, [1, ...dims]);
  const outside = about.geometry === "outside";
  const found = outside ? groups(points, about.groups, about.group_size, about.radius) : null;
  const all = {
    points: () => tensor(points, points.length / 3, 3),
    centers: () => tensor(found.centers, about.groups, 3),
    neighborhoods: () => tensor(found.neighborhoods, about.groups, about.group_size, 3),
    categories: () => new runtime.Tensor("int64", BigInt64Array.of(BigInt(category)), [1]),
  };
  const unknown = about.inputs.find((name) => !Object.hasOwn(all, name));
  if (unknown) throw new InputError(`this page does not know the model's input "${unknown}"`);
  const inputs = Object.fromEntries(about.inputs.map((name) => [name, all[name]()]));
  return { inputs, centers: found?.centers ?? null };
}

/** Outputs by name, as plain arrays: float32, and int32 for assignments. */
export async function run(session, inputs) {
  const started = performance.now();
  const results = await session.run(inputs);
  const milliseconds = performance.now() - started;
  const outputs = {};
  for (const [name, tensor] of Object.entries(results)) {
    outputs[name] =
      tensor.type === "int64" ? Int32Array.from(tensor.data, Number) : Float32Array.from(tensor.data);
    tensor.dispose?.();
  }
  return { outputs, milliseconds };
}

/** The largest difference between two sets of outputs; infinite if an assignment differs. */
export function difference(a, b) {
  let most = 0;
  for (const [name, values] of Object.entries(a)) {
    values.forEach((value, i) => {
      const gap = Math.abs(value - b[name][i]);
      const wrong = Number.isNaN(gap) || (values instanceof Int32Array && gap > 0);
      most = wrong ? Infinity : Math.max(most, gap);
    });
  }
  return most;
}
