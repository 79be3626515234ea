// Point clouds and meshes from the bytes of ply, obj and text files.
//
// A raw cloud is { points: Float64Array of 3 N coordinates, triangles: Uint32Array of 3 F indices }.

import { InputError } from "./errors.js";

const READERS = {
  ply: readPly,
  obj: readObj,
  xyz: readTable,
  txt: readTable,
  csv: readTable,
  pts: readTable,
};

export const ENDINGS = Object.keys(READERS).map((ending) => `.${ending}`);

/** The raw cloud of a file. Throws an InputError that names the file and what is wrong. */
export function readCloud(name, bytes) {
  const ending = name.split(".").pop().toLowerCase();
  if (!Object.hasOwn(READERS, ending)) {
    throw new InputError(`${name}: expected a file that ends in ${ENDINGS.join(", ")}`);
  }
  try {
    return complete(READERS[ending](bytes));
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${name}: ${error.message}`);
    throw error;
  }
}

/** Without points of NaN or infinite coordinates, which scanners write; meshes must have none. */
function complete({ points, triangles }) {
  if (points.length === 0) throw new InputError("expected points, got none");
  if (points.every(Number.isFinite)) {
    const count = points.length / 3;
    if (triangles.some((corner) => corner >= count)) {
      throw new InputError("a face refers to a vertex that the file does not have");
    }
    return { points, triangles };
  }
  if (triangles.length > 0) throw new InputError("expected finite vertices, got NaN or infinity");
  const kept = [];
  for (let i = 0; i < points.length; i += 3) {
    const row = points.subarray(i, i + 3);
    if (row.every(Number.isFinite)) kept.push(...row);
  }
  if (kept.length === 0) throw new InputError("expected finite coordinates, got none");
  return { points: Float64Array.from(kept), triangles };
}

function text(bytes) {
  return new TextDecoder().decode(bytes).replace(/^\uFEFF/, "");
}

/** Triangles of a polygon, as a fan from its first corner. */
function fan(corners, triangles) {
  for (let i = 2; i < corners.length; i++) triangles.push(corners[0], corners[i - 1], corners[i]);
}

/** Rows of numbers, the first three of each are x, y and z; a header and comments are skipped. */
export function readTable(bytes) {
  const values = [];
  let started = false;
  for (const [i, line] of text(bytes).split(/\r\n|\r|\n/).entries()) {
    const words = line.trim().split(/[\s,;]+/).filter(Boolean);
    if (words.length === 0 || /^(#|\/\/)/.test(words[0])) continue;
    const row = words.slice(0, 3).map(number);
    const usable = row.length === 3 && row.every((value) => value !== null);
    if (usable) {
      values.push(...row);
      started = true;
    } else if (started) {
      throw new InputError(`expected three numbers in line ${i + 1}, got "${line.slice(0, 40)}"`);
    }
  }
  return { points: Float64Array.from(values), triangles: new Uint32Array() };
}

/** A number, NaN and infinity included; null where the word is none. */
function number(word) {
  const value = Number(word);
  if (!Number.isNaN(value)) return value;
  return /^[+-]?(nan|inf(inity)?)$/i.test(word) ? NaN : null;
}

/** Vertices and faces of a Wavefront file; everything else in it is skipped. */
export function readObj(bytes) {
  const points = [];
  const triangles = [];
  for (const [i, line] of text(bytes).split(/\r\n|\r|\n/).entries()) {
    const [kind, ...words] = line.trim().split(/\s+/);
    if (kind === "v") {
      const row = words.slice(0, 3).map(number);
      if (row.length < 3 || row.includes(null)) {
        throw new InputError(`expected three numbers in line ${i + 1}`);
      }
      points.push(...row);
    } else if (kind === "f") {
      fan(words.map((word) => corner(word, points.length / 3, i)), triangles);
    }
  }
  return { points: Float64Array.from(points), triangles: Uint32Array.from(triangles) };
}

/** The index of a corner such as 3, 3/1 or -1, which counts from the vertices so far. */
function corner(word, count, line) {
  const index = Number.parseInt(word, 10);
  if (!index || index < -count) throw new InputError(`line ${line + 1} has a face without a vertex`);
  return index > 0 ? index - 1 : count + index;
}

const TYPES = {
  char: [1, "getInt8"], int8: [1, "getInt8"], uchar: [1, "getUint8"], uint8: [1, "getUint8"],
  short: [2, "getInt16"], int16: [2, "getInt16"], ushort: [2, "getUint16"],
  uint16: [2, "getUint16"], int: [4, "getInt32"], int32: [4, "getInt32"],
  uint: [4, "getUint32"], uint32: [4, "getUint32"], float: [4, "getFloat32"],
  float32: [4, "getFloat32"], double: [8, "getFloat64"], float64: [8, "getFloat64"],
};

/** Vertices and faces of a Stanford file, as text or binary in either byte order. */
export function readPly(bytes) {
  const { format, elements, start } = plyHeader(bytes);
  const next = format === "ascii" ? words(bytes, start) : binary(bytes, start, format);
  const points = [];
  const triangles = [];
  for (const element of elements) {
    const names = element.properties.map((property) => property.name);
    const places = ["x", "y", "z"].map((axis) => names.indexOf(axis));
    const corners = names.findIndex((name) => name === "vertex_indices" || name === "vertex_index");
    if (element.name === "vertex" && places.includes(-1)) {
      throw new InputError("expected vertices with x, y and z");
    }
    for (let i = 0; i < element.count; i++) {
      const row = element.properties.map((property) => plyValue(property, next));
      if (element.name === "vertex") points.push(...places.map((place) => row[place]));
      if (element.name === "face") fan(row[corners] ?? [], triangles);
    }
  }
  return { points: Float64Array.from(points), triangles: Uint32Array.from(triangles) };
}

function plyValue({ type, length }, next) {
  if (length === null) return next(type);
  const count = next(length);
  if (!(count >= 0 && count <= 2 ** 20)) throw new InputError("a list has an impossible length");
  return Array.from({ length: count }, () => next(type));
}

function plyHeader(bytes) {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, 2 ** 16));
  const end = /(^|\n)end_header\r?\n/.exec(head);
  if (!head.startsWith("ply") || end === null) throw new InputError("expected a ply header");
  const elements = [];
  let format = "";
  for (const line of head.slice(0, end.index).split(/\r?\n/)) {
    const [word, ...rest] = line.trim().split(/\s+/);
    if (word === "format") format = rest[0];
    if (word === "element") elements.push({ name: rest[0], count: Number(rest[1]), properties: [] });
    if (word === "property") elements.at(-1)?.properties.push(property(rest));
  }
  if (!["ascii", "binary_little_endian", "binary_big_endian"].includes(format)) {
    throw new InputError(`expected ascii or binary data, got the format "${format}"`);
  }
  for (const { name, count } of elements) {
    if (!(Number.isInteger(count) && count >= 0 && count <= bytes.length)) {
      throw new InputError(`the header declares more of ${name} than the file has bytes`);
    }
  }
  return { format, elements, start: end.index + end[0].length };
}

function property(words) {
  const list = words[0] === "list";
  const [type, name] = list ? words.slice(2) : words;
  for (const used of list ? [words[1], type] : [type]) {
    if (!Object.hasOwn(TYPES, used)) throw new InputError(`unknown type "${used}" in the header`);
  }
  return { name, type, length: list ? words[1] : null };
}

/** A function that returns the next number of a text. */
function words(bytes, start) {
  const found = text(bytes.subarray(start)).matchAll(/\S+/g);
  return () => {
    const { value, done } = found.next();
    const read = done ? null : number(value[0]);
    if (read === null) throw new InputError("the file ends before its last value");
    return read;
  };
}

/** A function that returns the next number of a type. */
function binary(bytes, start, format) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = format === "binary_little_endian";
  let at = start;
  return (type) => {
    const [size, getter] = TYPES[type];
    if (at + size > view.byteLength) throw new InputError("the file ends before its last value");
    at += size;
    return view[getter](at - size, little);
  };
}
