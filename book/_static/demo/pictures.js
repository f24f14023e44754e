/* Pictures: those that a reader brings, and new ones put together here. */
import {resize} from './resize.js';

const MAX_PIXELS = 89_478_485;  // what the package's reader takes, too
const MAX_BYTES = 200e6;
const VIEW = 1200;  // pixels: longest side of what is kept for showing

/** A fault of the picture, in words for the reader. */
export class BadPicture extends Error {}

function canvasOf(width, height, options) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d', options);
  // Transparent parts are white, as in Python.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  return {canvas, context};
}

/* Width and height, read without decoding the picture. */
function measure(url) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done([image.naturalWidth, image.naturalHeight]);
    image.onerror = failed;
    image.src = url;
  });
}

async function bitmapOf(blob, name) {
  const url = URL.createObjectURL(blob);
  try {
    const [width, height] = await measure(url);
    if (width * height > MAX_PIXELS) {
      throw new BadPicture(`${name} has ${width} × ${height} pixels. At most `
        + `${Math.round(MAX_PIXELS / 1e6)} million can be taken; make it `
        + 'smaller first.');
    }
    // Turned as its EXIF data say; the numbers in the file, not those that a
    // colour profile makes of them.
    return await createImageBitmap(blob, {
      imageOrientation: 'from-image', colorSpaceConversion: 'none'});
  } catch (error) {
    if (error instanceof BadPicture) throw error;
    throw new BadPicture(`${name} is not a picture that this browser can `
      + 'read, or it is damaged. JPEG, PNG and WebP always work.');
  } finally {
    URL.revokeObjectURL(url);
  }
}

/* What the network sees of a picture, and a copy of it to show. */
function prepare(source, name, boxes) {
  const {width, height} = source;
  let context;
  const square = resize((y, rows) => {
    context ??= canvasOf(width, rows, {willReadFrequently: true}).context;
    context.fillRect(0, 0, width, rows);
    context.drawImage(source, 0, -y);
    return context.getImageData(0, 0, width, rows).data;
  }, width, height);
  // Of a film there are many, and some devices have little room for canvases.
  context.canvas.width = context.canvas.height = 0;
  const scale = Math.min(1, VIEW / Math.max(width, height));
  const view = canvasOf(Math.max(1, Math.round(width * scale)),
    Math.max(1, Math.round(height * scale)));
  view.context.imageSmoothingQuality = 'high';
  view.context.drawImage(source, 0, 0, view.canvas.width, view.canvas.height);
  return {name, width, height, square, boxes, view: view.canvas};
}

/**
 * Read a picture.
 *
 * @param {Blob} blob  a file, or what came from one.
 * @param {string} name of it, for messages.
 * @param {number[][]} [boxes] what is known to be on it, relative.
 * @returns {Promise<{name: string, width: number, height: number, square:
 *     Float32Array, boxes: number[][] | undefined, view: HTMLCanvasElement}>}
 * @throws {BadPicture} with the reason.
 */
export async function readPicture(blob, name, boxes) {
  if (blob.size > MAX_BYTES) {
    throw new BadPicture(`${name} has ${Math.round(blob.size / 1e6)} MB; at `
      + `most ${MAX_BYTES / 1e6} can be taken.`);
  }
  const bitmap = await bitmapOf(blob, name);
  try {
    return prepare(bitmap, name, boxes);
  } catch {
    throw new BadPicture(`${name}, ${bitmap.width} × ${bitmap.height} pixels, `
      + 'is too large for this browser.');
  } finally {
    bitmap.close();
  }
}

/**
 * What a film shows at this moment, as `readPicture` gives a picture.
 *
 * @param {HTMLVideoElement} video that plays.
 * @param {string} name of it.
 * @throws {BadPicture} if it shows nothing.
 */
export async function readFrame(video, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(video);
    return prepare(bitmap, name);
  } catch {
    throw new BadPicture('The camera gives no picture any more.');
  } finally {
    bitmap?.close();
  }
}

const between = (low, high) => low + Math.random() * (high - low);
const pick = (list) => list[Math.floor(Math.random() * list.length)];

/* Where something shows on a canvas: [left, top, right, bottom] in pixels. */
function extent(context, side) {
  const {data} = context.getImageData(0, 0, side, side);
  const box = [side, side, 0, 0];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (data[(y * side + x) * 4 + 3] > 127) {
        box[0] = Math.min(box[0], x);
        box[1] = Math.min(box[1], y);
        box[2] = Math.max(box[2], x + 1);
        box[3] = Math.max(box[3], y + 1);
      }
    }
  }
  return box;
}

const apart = (a, b) => a[2] < b[0] || b[2] < a[0] || a[3] < b[1]
  || b[3] < a[1];

/**
 * Lay bananas on a photograph, in places that are known because they were
 * chosen here.
 *
 * @param {ImageBitmap} photo
 * @param {ImageBitmap[]} cutouts bananas on transparent ground.
 * @param {number} side of the new picture, in pixels.
 * @returns {ReturnType<typeof prepare>}
 */
export function compose(photo, cutouts, side = 512) {
  const {canvas, context} = canvasOf(side, side);
  const cut = Math.min(photo.width, photo.height) * between(0.7, 1);
  context.drawImage(photo, between(0, photo.width - cut),
    between(0, photo.height - cut), cut, cut, 0, 0, side, side);

  const scratch = document.createElement('canvas');
  scratch.width = scratch.height = side;
  const draft = scratch.getContext('2d', {willReadFrequently: true});
  const count = 1 + Math.floor(Math.random() * 4);
  const boxes = [];
  for (let tries = 0; boxes.length < count && tries < 40; tries++) {
    const banana = pick(cutouts);
    const length = side * Math.exp(between(Math.log(0.18), Math.log(0.62)));
    const scale = length / Math.max(banana.width, banana.height);
    draft.setTransform(1, 0, 0, 1, 0, 0);
    draft.clearRect(0, 0, side, side);
    draft.translate(side / 2, side / 2);
    draft.rotate(between(0, 2 * Math.PI));
    draft.scale(scale * pick([-1, 1]), scale);
    draft.drawImage(banana, -banana.width / 2, -banana.height / 2);

    const [left, top, right, bottom] = extent(draft, side);
    const x = Math.round(between(-left, side - right));
    const y = Math.round(between(-top, side - bottom));
    const box = [left + x, top + y, right + x, bottom + y];
    if (!boxes.every((other) => apart(box, other))) continue;
    boxes.push(box);
    context.save();
    context.shadowColor = 'rgb(0 0 0 / 0.45)';
    context.shadowBlur = side / 40;
    context.shadowOffsetX = context.shadowOffsetY = side / 100;
    context.drawImage(scratch, x, y);
    context.restore();
  }
  return prepare(canvas, 'the new picture',
    boxes.map((box) => box.map((v) => v / side)));
}
