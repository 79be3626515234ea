import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../src/errors.js";
import { readCloud } from "../src/formats.js";

const bytes = (text) => new TextEncoder().encode(text);
const points = (name, content) => Array.from(readCloud(name, content).points);
const refused = (name, content, pattern) =>
  assert.throws(
    () => readCloud(name, content),
    (error) => error instanceof InputError && error.message.startsWith(name) && pattern.test(error.message),
  );

const ASCII = `ply
format ascii 1.0
comment made by hand
element vertex 4
property float nx
property double x
property float y
property float z
element face 1
property list uchar float texcoord
property list uchar int vertex_indices
end_header
9 0 0 0
9 1 0 0
9 1 1 0
9 0 1 0.5
2 0 0 4 0 1 2 3
`;

/** One float vertex and one short property behind it, in either byte order. */
function binary(little) {
  const head = bytes(
    `ply\r\nformat binary_${little ? "little" : "big"}_endian 1.0\r\nelement vertex 2\r\n` +
      "property float x\r\nproperty float y\r\nproperty float z\r\nproperty short i\r\nend_header\r\n",
  );
  const body = new DataView(new ArrayBuffer(28));
  [1.5, 2, 3, 4, 5, -6].forEach((value, i) => body.setFloat32(4 * i + (i > 2 ? 2 : 0), value, little));
  return Uint8Array.from([...head, ...new Uint8Array(body.buffer)]);
}

test("ply as text: columns by name, polygons as fans, other lists skipped", () => {
  const cloud = readCloud("a.ply", bytes(ASCII));
  assert.deepEqual(Array.from(cloud.points), [0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0.5]);
  assert.deepEqual(Array.from(cloud.triangles), [0, 1, 2, 0, 2, 3]);
});

test("binary ply in both byte orders, at any offset of its buffer", () => {
  for (const little of [true, false]) {
    const file = binary(little);
    const moved = new Uint8Array(file.length + 3);
    moved.set(file, 3);
    assert.deepEqual(points("a.ply", moved.subarray(3)), [1.5, 2, 3, 4, 5, -6]);
  }
});

test("text tables: headers, comments, separators, further columns", () => {
  const table = "# scan\nx,y,z,label\n1,2,3,9\n\n4;5;6;9\r\n7 8\t9e-1 9\n";
  assert.deepEqual(points("a.xyz", bytes(table)), [1, 2, 3, 4, 5, 6, 7, 8, 0.9]);
  assert.deepEqual(points("a.pts", bytes("2\n1 2 3\n4 5 6")), [1, 2, 3, 4, 5, 6]);
});

test("obj: vertices, faces with normals and negative corners", () => {
  const mesh = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 3//1\nf -3 -2 -1\n";
  const cloud = readCloud("a.OBJ", bytes(mesh));
  assert.equal(cloud.points.length, 9);
  assert.deepEqual(Array.from(cloud.triangles), [0, 1, 2, 0, 1, 2]);
});

test("points of NaN or infinite coordinates are left out", () => {
  assert.deepEqual(points("a.xyz", bytes("nan 0 0\n1 2 3\ninf 1 1\n")), [1, 2, 3]);
});

test("what cannot be read is one sentence that names the file", () => {
  refused("a.glb", bytes(""), /expected a file that ends in \.ply/);
  refused("a.ply", bytes("no"), /ply header/);
  refused("a.ply", bytes(ASCII.slice(0, -12)), /ends before its last value/);
  refused("a.ply", binary(true).slice(0, -1), /ends before its last value/);
  refused("a.ply", bytes(ASCII.replace("vertex 4", "vertex 999999999")), /more of vertex/);
  refused("a.ply", bytes(ASCII.replace("double x", "double q")), /x, y and z/);
  refused("a.ply", bytes(ASCII.replace("float nx", "half nx")), /unknown type "half"/);
  refused("a.ply", bytes(ASCII.replace("0 1 2 3\n", "0 1 2 7\n")), /does not have/);
  refused("a.xyz", bytes("1 2 3\n1 2\n"), /line 2/);
  refused("a.xyz", bytes("# nothing\n"), /got none/);
  refused("a.obj", bytes("v 0 0 0\nf 1 2 0\n"), /without a vertex/);
});
