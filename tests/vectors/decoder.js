// A second decoder of the protocol, written from docs/protocol.md alone and without dependencies:
// what it and schema/ agree on is the contract. Section numbers are that page's.

import { blake2b } from "./blake2b.js";

const MAX_PAYLOAD_BYTES = 16777216;
const MAX_HOPS = 64;
const MAX_BLOCKS = 1024;
const MAX_TENSORS = 4;
const MAX_RANK = 4;

export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function require(holds, code, message) {
  if (!holds) throw new Refusal(code, message);
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** Section 6. Route and payload come as hex. */
export function decodeFrame(bytes) {
  require(bytes.length >= 40, "malformed_frame", "shorter than a header");
  const header = view(bytes);
  require(bytes[0] === 0x7a && bytes[1] === 0xc0, "malformed_frame", "magic");
  require(bytes[2] === 1, "unsupported_version", "version");
  const routeBytes = header.getUint16(6, true);
  const payloadBytes = header.getUint32(36, true);
  require(payloadBytes <= MAX_PAYLOAD_BYTES, "too_large", "payload");
  require(40 + routeBytes + payloadBytes === bytes.length, "malformed_frame", "lengths");
  return {
    type: bytes[3],
    flags: bytes[4],
    hop: bytes[5],
    session: hex(bytes.subarray(8, 24)),
    step: header.getUint32(24, true),
    position: header.getUint32(28, true),
    epoch: header.getUint32(32, true),
    route: hex(bytes.subarray(40, 40 + routeBytes)),
    payload: hex(bytes.subarray(40 + routeBytes)),
  };
}

/** Section 7, without the MAC's check. */
export function decodeRoute(bytes) {
  require(bytes.length >= 52, "malformed_frame", "shorter than one hop");
  const route = view(bytes);
  const count = bytes[1];
  require(bytes[0] === 1, "malformed_frame", "version");
  require(count >= 1 && count <= MAX_HOPS, "malformed_frame", "hops");
  require(bytes.length === 40 + 12 * count, "malformed_frame", "length");
  const hops = [];
  for (let at = 24; at < 24 + 12 * count; at += 12) {
    const [start, end] = [route.getUint16(at + 8, true), route.getUint16(at + 10, true)];
    require(start < end && end <= MAX_BLOCKS, "malformed_frame", "span");
    hops.push({ peer: hex(bytes.subarray(at, at + 8)), start, end });
  }
  return {
    expires: route.getUint32(4, true),
    model_key: hex(bytes.subarray(8, 16)),
    origin: hex(bytes.subarray(16, 24)),
    hops,
    mac: hex(bytes.subarray(24 + 12 * count)),
  };
}

/** Section 7, as a relay does it. */
export function verifyRoute(bytes, session, secret) {
  const route = decodeRoute(bytes);
  const signed = Buffer.concat([session, bytes.subarray(0, bytes.length - 16)]);
  const mac = blake2b(signed, { key: secret, personal: Buffer.from("corolla-route-01"), size: 16 });
  require(hex(mac) === route.mac, "route_forged", "MAC");
  return route;
}

/** A number as the vectors write it: JSON has no infinity and no NaN, and JavaScript writes -0 as 0. */
function plain(number) {
  if (Object.is(number, -0)) return "-0";
  return Number.isFinite(number) ? number : String(number);
}

function float16(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : (sign * fraction) / 1024 / 2 ** 14;
}

function bfloat16(bits) {
  const wide = new DataView(new ArrayBuffer(4));
  wide.setUint16(0, bits);
  return wide.getFloat32(0);
}

const DTYPES = {
  1: { name: "FLOAT32", bytes: 4, read: (data, at) => plain(data.getFloat32(at, true)) },
  2: { name: "FLOAT16", bytes: 2, read: (data, at) => plain(float16(data.getUint16(at, true))) },
  3: { name: "BFLOAT16", bytes: 2, read: (data, at) => plain(bfloat16(data.getUint16(at, true))) },
  4: { name: "INT8", bytes: 1, read: (data, at) => data.getInt8(at) },
  5: { name: "INT64", bytes: 8, read: (data, at) => String(data.getBigInt64(at, true)) },
};
const ROLES = { 0: "HIDDEN", 1: "ATTENTION_MASK" };

/** Section 8: the elements a tensor of this shape has, and what it would have without its zeros. */
function elements(shape) {
  const product = (dims) => dims.reduce((all, dim) => all * BigInt(dim), 1n);
  return { count: product(shape), extent: product(shape.map((dim) => dim || 1)) };
}

/** Section 8. */
export function decodeTensors(bytes) {
  require(bytes.length >= 4, "malformed_tensor", "shorter than its count");
  require(bytes[0] <= MAX_TENSORS, "malformed_tensor", "count");
  const payload = view(bytes);
  const tensors = [];
  let at = 4;
  for (let index = 0; index < bytes[0]; index += 1) {
    require(bytes.length - at >= 4, "malformed_tensor", "ends inside a tensor's header");
    const [dtype, rank, role] = [DTYPES[bytes[at]], bytes[at + 1], ROLES[bytes[at + 2]]];
    at += 4;
    require(dtype && role, "malformed_tensor", "dtype or role");
    require(rank <= MAX_RANK && bytes.length - at >= 4 * rank, "malformed_tensor", "rank");
    const shape = Array.from({ length: rank }, (_, axis) => payload.getUint32(at + 4 * axis, true));
    at += 4 * rank;
    const { count, extent } = elements(shape);
    const size = count * BigInt(dtype.bytes);
    const fits = count > 0n || extent * BigInt(dtype.bytes) <= BigInt(MAX_PAYLOAD_BYTES);
    require(fits, "malformed_tensor", "an empty tensor of huge dimensions");
    require(((size + 3n) / 4n) * 4n <= BigInt(bytes.length - at), "malformed_tensor", "data cut off");
    const data = bytes.subarray(at, at + Number(size));
    const values = Array.from({ length: Number(count) }, (_, item) => dtype.read(view(data), item * dtype.bytes));
    tensors.push({ dtype: dtype.name, role, shape, data: hex(data), values });
    at += Math.ceil(Number(size) / 4) * 4;
  }
  require(at === bytes.length, "malformed_tensor", "something follows");
  return tensors;
}
