/* From a picture of any size to the square that the network takes.

   Python shrinks with Pillow: Image.resize((256, 256), BILINEAR,
   reducing_gap=3). A browser's own drawImage shrinks in another way, and every
   score would move with it. So the same sums are done here, in the same whole
   numbers: first along the rows, then along the columns. Where Pillow finds the
   other order quicker, the last bit may differ. */

const BITS = 22;  // of the fraction in a weight
const STRIP = 64;  // rows read at a time, about

/* Each output place is a weighted mean of the input places around it: where
   they begin, and their weights. `extent` may end within the last place; it
   is rounded as Pillow does. */
function triangles(length, extent, side) {
  const scale = Math.fround(extent) / side;
  const support = Math.max(scale, 1);
  const windows = [];
  for (let i = 0; i < side; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(length, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) {
      weights.push(Math.max(0, 1 - Math.abs(x - center + 0.5) / support));
    }
    const sum = weights.reduce((a, b) => a + b);
    windows.push({first, weights: Int32Array.from(
      weights, (weight) => Math.trunc(weight / sum * 2 ** BITS + 0.5))});
  }
  return windows;
}

/* A weighted mean of `values`, `step` apart, back in whole numbers. */
function mean({first, weights}, values, offset, step) {
  let sum = 1 << (BITS - 1);
  let place = offset + first * step;
  for (let i = 0; i < weights.length; i++, place += step) {
    sum += values[place] * weights[i];
  }
  return Math.min(255, sum >> BITS);
}

/* Means of whole blocks of across × down pixels, of one row of blocks. The
   last block of a row, and the last row, may have fewer. */
function blocks(pixels, width, rows, across, row) {
  for (let i = 0, x = 0; x < width; i++, x += across) {
    const end = Math.min(width, x + across);
    const count = (end - x) * rows;
    const factor = Math.floor(Math.fround(2 ** 24 / count));
    for (let channel = 0; channel < 3; channel++) {
      let sum = count >> 1;
      for (let y = 0; y < rows; y++) {
        for (let at = x; at < end; at++) {
          sum += pixels[(y * width + at) * 4 + channel];
        }
      }
      row[i * 3 + channel] = Math.floor(sum * factor / 2 ** 24);
    }
  }
}

/**
 * Shrink or enlarge a picture to a square.
 *
 * @param {(y: number, rows: number) => Uint8ClampedArray} read gives rows of
 *     the picture as RGBA, never more than at first, so that all of it need
 *     never lie in memory.
 * @param {number} width  of the picture.
 * @param {number} height of the picture.
 * @param {number} side   of the square.
 * @returns {Float32Array} 3 × side × side, red first, 0–255.
 */
export function resize(read, width, height, side = 256) {
  const across = Math.trunc(width / side / 3) || 1;
  const down = Math.trunc(height / side / 3) || 1;
  const columns = Math.ceil(width / across);
  const lines = Math.ceil(height / down);

  // First to `side` columns, row by row ...
  const horizontal = triangles(columns, width / across, side);
  const row = new Uint8Array(columns * 3);
  const narrow = new Uint8Array(lines * side * 3);
  const rows = down * Math.ceil(STRIP / down);
  for (let top = 0; top < height; top += rows) {
    const strip = Math.min(rows, height - top);
    const pixels = read(top, strip);
    for (let y = 0; y < strip; y += down) {
      const start = y * width * 4;
      blocks(start ? pixels.subarray(start) : pixels, width,
        Math.min(down, strip - y), across, row);
      const line = (top + y) / down;
      for (let i = 0; i < side; i++) {
        for (let channel = 0; channel < 3; channel++) {
          narrow[(line * side + i) * 3 + channel] =
            mean(horizontal[i], row, channel, 3);
        }
      }
    }
  }

  // ... then to `side` rows.
  const vertical = triangles(lines, height / down, side);
  const square = new Float32Array(3 * side * side);
  for (let i = 0; i < side; i++) {
    for (let x = 0; x < side; x++) {
      for (let channel = 0; channel < 3; channel++) {
        square[(channel * side + i) * side + x] =
          mean(vertical[i], narrow, x * 3 + channel, side * 3);
      }
    }
  }
  return square;
}
