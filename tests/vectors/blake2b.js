// BLAKE2b (RFC 7693) with key and personalization, in plain JavaScript. For tests: slow, and not
// constant in time.

const MASK = (1n << 64n) - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const COLUMNS_AND_DIAGONALS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const rotate = (word, bits) => ((word >> bits) | (word << (64n - bits))) & MASK;

function mix(v, [a, b, c, d], x, y) {
  v[a] = (v[a] + v[b] + x) & MASK;
  v[d] = rotate(v[d] ^ v[a], 32n);
  v[c] = (v[c] + v[d]) & MASK;
  v[b] = rotate(v[b] ^ v[c], 24n);
  v[a] = (v[a] + v[b] + y) & MASK;
  v[d] = rotate(v[d] ^ v[a], 16n);
  v[c] = (v[c] + v[d]) & MASK;
  v[b] = rotate(v[b] ^ v[c], 63n);
}

function compress(state, block, length, last) {
  const words = Array.from({ length: 16 }, (_, index) => block.readBigUInt64LE(8 * index));
  const v = [...state, ...IV];
  v[12] ^= BigInt(length);
  if (last) v[14] ^= MASK;
  for (let round = 0; round < 12; round += 1) {
    const order = SIGMA[round % 10];
    COLUMNS_AND_DIAGONALS.forEach((lanes, index) => {
      mix(v, lanes, words[order[2 * index]], words[order[2 * index + 1]]);
    });
  }
  return state.map((word, index) => word ^ v[index] ^ v[index + 8]);
}

/** The digest of `message`, `size` bytes. `key`: up to 64 bytes. `personal`: 16 bytes. */
export function blake2b(message, { key, personal, size }) {
  const parameters = Buffer.alloc(64);
  parameters.set([size, key.length, 1, 1]);
  parameters.set(personal, 48);
  let state = IV.map((word, index) => word ^ parameters.readBigUInt64LE(8 * index));
  const keyBlock = Buffer.alloc(key.length ? 128 : 0);
  keyBlock.set(key);
  const input = Buffer.concat([keyBlock, message]);
  for (let at = 0; at === 0 || at < input.length; at += 128) {
    const block = Buffer.alloc(128);
    input.copy(block, 0, at, at + 128);
    const end = Math.min(at + 128, input.length);
    state = compress(state, block, end, end === input.length);
  }
  const digest = Buffer.alloc(64);
  state.forEach((word, index) => digest.writeBigUInt64LE(word, 8 * index));
  return digest.subarray(0, size);
}
