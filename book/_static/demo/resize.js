/* From a picture of any size to the square that the network takes.

   Python shrinks with Pillow: Image.resize((256, 256), BILINEAR,
   reducing_gap=3). A browser's own drawImage shrinks in another way, and every
   score would move with it. So the same sums are done here, in the same whole
   numbers and the same order. */

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

/* Every row of `values`, RGB and `columns` wide, through the windows. */
function alongRows(values, columns, windows) {
  const lines = values.length / (columns * 3);
  const out = new Uint8Array(lines * windows.length * 3);
  let at = 0;
  for (let y = 0; y < lines; y++) {
    for (const window of windows) {
      for (let channel = 0; channel < 3; channel++) {
        out[at++] = mean(window, values, y * columns * 3 + channel, 3);
      }
    }
  }
  return out;
}

/* Every column, likewise. */
function alongColumns(values, columns, windows) {
  const step = columns * 3;
  const out = new Uint8Array(windows.length * step);
  let at = 0;
  for (const window of windows) {
    for (let x = 0; x < step; x++) {
      out[at++] = mean(window, values, x, step);
    }
  }
  return out;
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

  // First means of whole blocks, a strip of rows at a time ...
  const small = new Uint8Array(lines * columns * 3);
  const rows = down * Math.ceil(STRIP / down);
  for (let top = 0; top < height; top += rows) {
    const strip = Math.min(rows, height - top);
    const pixels = read(top, strip);
    for (let y = 0; y < strip; y += down) {
      const start = (top + y) / down * columns * 3;
      blocks(pixels.subarray(y * width * 4), width,
        Math.min(down, strip - y), across,
        small.subarray(start, start + columns * 3));
    }
  }

  // ... then along the rows and along the columns. A picture that is much too
  // tall is made lower first: Pillow finds that quicker.
  const horizontal = triangles(columns, width / across, side);
  const vertical = triangles(lines, height / down, side);
  const tall = lines > side && lines - side > 2 * (columns - side);
  const square = tall
    ? alongRows(alongColumns(small, columns, vertical), columns, horizontal)
    : alongColumns(alongRows(small, columns, horizontal), side, vertical);

  const planes = new Float32Array(3 * side * side);
  for (let i = 0; i < square.length; i++) {
    planes[(i % 3) * side * side + Math.trunc(i / 3)] = square[i];
  }
  return planes;
}
