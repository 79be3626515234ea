// What an exported file says about itself: the entry `foundry3d` of its ONNX metadata.

import { InputError } from "./errors.js";

const METADATA = 14; // field of ModelProto: entries { key = 1, value = 2 }

/** Fields { number, bytes } of a protobuf message; numbers and floats are skipped. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      if (at >= bytes.length || shift > 2 ** 63) throw new InputError("damaged");
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, kind] = [Math.floor(key / 8), key % 8];
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new InputError("damaged");
      yield { number, bytes: bytes.subarray(at, at + length) };
      at += length;
    } else throw new InputError("damaged");
  }
}

function entries(bytes) {
  const decoder = new TextDecoder();
  const found = {};
  for (const field of fields(bytes)) {
    if (field.number !== METADATA) continue;
    const [key, value] = [...fields(field.bytes)].map((part) => decoder.decode(part.bytes));
    found[key] = value;
  }
  return found;
}

/** The description of an exported model. Throws an InputError for any other file. */
export function describe(name, bytes) {
  let found;
  try {
    found = JSON.parse(entries(bytes).foundry3d);
  } catch {
    throw new InputError(`${name}: expected an .onnx file that foundry3d export has written`);
  }
  if (found?.format !== "foundry3d-export" || found.version !== 1) {
    throw new InputError(`${name}: expected version 1 of foundry3d-export, got ${found?.version}`);
  }
  return found;
}

/** The number of tokens that are encoded, as far as the description says. */
export function encodedTokens({ budget, supertokens, groups }) {
  return budget?.token_budget ?? budget?.supertokens ?? supertokens ?? groups;
}

/** Whether two descriptions can be of one checkpoint, with different budgets. */
export function sameCheckpoint(a, b) {
  const key = ({ kind, groups, group_size, width, source, classes, parts, preparation }) =>
    JSON.stringify([kind, groups, group_size, width, source, classes, parts, preparation]);
  return key(a) === key(b);
}
