/* TinySSD in the browser. The scripts beside this one do the work; this one
   connects them with what the reader does. Nothing is loaded but a few sample
   pictures until the reader starts, and nothing ever leaves the device. */
import {detect, heat} from './boxes.js';
import {openCamera} from './camera.js';
import {loadNetwork} from './network.js';
import {PANEL} from './panel.js';
import {BadPicture, compose, readPicture} from './pictures.js';

const here = new URL('.', import.meta.url);
const root = document.querySelector('#demo');
const find = (selector) => root.querySelector(selector);
const state = {about: null, network: null, camera: null, opening: false,
  picture: null, outputs: null, judged: [], heats: [], found: [], times: {},
  runs: 0, turn: 0, heat: null, hover: null};

const element = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
const number = (value) => value.toFixed(2);
const megabytes = (bytes) => `${Math.max(1, Math.round(bytes / 1e6))} MB`;

// --- Loading

/* The picture as it is in print stays, with a word on why. */
function leaveOut(reason) {
  root.classList.remove('is-live');
  find('.demo-why').textContent = reason;
}

async function fetchPart(name) {
  const answer = await fetch(new URL(name, here));
  if (!answer.ok) throw new Error(`${answer.status} for ${name}`);
  return answer.blob();
}

/* The network, fetched at the first call; after a failure, at the next. */
function network() {
  find('.demo-start').hidden = true;
  if (!state.network) {
    const bar = find('.demo-loading');
    bar.hidden = false;
    state.network = loadNetwork(here, state.about, (share) => {
      bar.querySelector('progress').value = share;
    }).catch((error) => {
      state.network = null;
      find('.demo-start').hidden = false;
      throw error;
    }).finally(() => { bar.hidden = true; });
  }
  return state.network;
}

// --- From a picture to boxes

function complain(text) {
  find('.demo-message').textContent = text;
  find('.demo-message').hidden = !text;
}

/* Let the page be painted before work that stops it. */
const painted = () => new Promise((done) => {
  requestAnimationFrame(() => setTimeout(done));
  setTimeout(done, 100);  // a page in the background is not painted
});

/* Take the picture that `make` gives, and find what is on it; say whether this
   was done. Whoever asks for another one meanwhile gets that. Of a film, given
   the camera, it is one of many, and nobody waits for it. */
async function take(make, camera = null) {
  const turn = ++state.turn;
  if (state.camera !== camera) putAway();
  if (!camera) {
    complain('');
    root.setAttribute('aria-busy', 'true');
  }
  try {
    const run = network();
    run.catch(() => {});  // heard of below, even if the picture is bad
    await painted();
    const picture = await make();
    if (turn !== state.turn) return false;
    const {see, judge} = await run;
    if (turn !== state.turn) return false;
    const start = performance.now();
    const outputs = await see(picture.square);
    if (turn !== state.turn) return false;
    const seen = performance.now();
    const judged = await judge(picture.square, outputs);
    if (turn !== state.turn) return false;
    state.times = {prepare: picture.ms, run: seen - start,
      judge: performance.now() - seen};
    state.runs++;
    Object.assign(state, {picture, outputs, judged});
    const {classes, grids, anchors} = state.about.model;
    state.heats = heat(outputs.scores, classes.length, grids, anchors);
    find('.demo-heats').hidden = find('.demo-answers').hidden = false;
    paintHeats();
    update();
    return true;
  } catch (error) {
    if (turn !== state.turn) return false;
    if (error instanceof BadPicture) complain(error.message);
    else {
      complain(`The detector did not run: ${error.message ?? error}. `
        + `${error.reload ? 'Reload the page'
          : 'Check the network and start again'}; an up-to-date browser helps, `
        + 'too.');
    }
    return false;
  } finally {
    if (turn === state.turn) root.removeAttribute('aria-busy');
  }
}

async function timed(make) {
  const start = performance.now();
  const picture = await make();
  return Object.assign(picture, {ms: performance.now() - start});
}

/* Of several files, the first that may be a picture. */
function takeFiles(files) {
  const pictures = [...files].filter(({type}) => type.startsWith('image/'));
  const file = pictures[0] ?? files[0];
  const name = (file.name || 'the picture')
    + (pictures.length > 1 ? `, the first of ${pictures.length} pictures` : '');
  return take(() => timed(() => readPicture(file, name)));
}

const takeSample = (i) => take(async () => {
  const {file, boxes} = state.about.samples[i];
  const blob = await fetchPart(file);
  return timed(() => readPicture(blob, `sample ${i + 1}`, boxes));
});

let parts = null;  // photographs and bananas, once fetched
const takeAnother = () => take(async () => {
  const bitmaps = (names) => Promise.all(names.map(
    async (name) => createImageBitmap(await fetchPart(name))));
  const {grounds, cutouts} = state.about;
  parts ??= Promise.all([bitmaps(grounds), bitmaps(cutouts)]);
  parts.catch(() => { parts = null; });
  const [photos, bananas] = await parts;
  const photo = photos[Math.floor(Math.random() * photos.length)];
  return timed(() => compose(photo, bananas));
});

/* One frame after the other, until the reader stops or asks for a picture. */
async function film() {
  if (state.opening) return;
  const {turn} = state;
  const button = find('.demo-camera');
  state.opening = true;
  button.textContent = 'Waiting for the camera…';
  complain('');
  let camera;
  try {
    camera = await openCamera((why) => {
      stopFilming();
      complain(why);
    });
  } catch (error) {
    return complain(error.message);
  } finally {
    state.opening = false;
    button.textContent = 'Use the camera';
  }
  if (document.hidden || turn !== state.turn) return camera.stop();
  state.camera = camera;
  button.textContent = 'Stop the camera';
  let more = true;
  while (more && state.camera === camera) {
    more = await take(() => timed(camera.frame), camera);
  }
  if (state.camera === camera) putAway();
}

function putAway() {
  if (!state.camera) return;
  state.camera.stop();
  state.camera = null;
  find('.demo-camera').textContent = 'Use the camera';
}

/* The frame that is being looked at no longer counts. */
function stopFilming() {
  if (!state.camera) return;
  state.turn++;
  putAway();
  find('.demo-start').hidden = Boolean(state.outputs);
}

/* Which boxes are found, at the thresholds as they stand: no new run. */
function update() {
  for (const slider of root.querySelectorAll('.demo-slider')) {
    slider.querySelector('span').textContent =
      number(slider.querySelector('input').valueAsNumber);
  }
  const judging = find('.demo-judge input').checked;
  const [overlap, voting] = ['[name=overlap]', '.demo-voting input'].map(find);
  overlap.disabled = voting.disabled = judging;
  if (state.outputs) {
    const least = find('[name=least]').valueAsNumber;
    const start = performance.now();
    state.found = judging
      ? state.judged.filter(({score}) => score >= least)
      : detect(state.outputs, state.about.model.classes.length, least,
        overlap.valueAsNumber, voting.checked);
    state.times.boxes = performance.now() - start;
    report();
  }
  draw();
}

// --- Words

let speaking;

function report() {
  const {picture, found, times, about} = state;
  const {classes} = about.model;
  const several = (count, word) =>
    `${count || 'no'} ${word}${count === 1 ? '' : 's'}`;
  const word = classes.length === 1 ? classes[0] : 'object';
  let text = `On ${picture.name}: ${several(found.length, word)} found`;
  if (found.length && !state.camera) {
    const scores = found.slice(0, 6).map(({score}) => number(score));
    text += `, score${found.length > 1 ? 's' : ''} ${scores.join(', ')}`
      + (found.length > 6 ? ' and less' : '');
  }
  text += '.';
  const truth = find('.demo-truth');
  truth.hidden = !picture.boxes;
  if (picture.boxes && truth.querySelector('input').checked) {
    text += ` It holds ${several(picture.boxes.length, 'banana')}.`;
  }
  // A reader who drags a slider need not hear every step, and of a film, where
  // the pictures do not end, a word now and then.
  state.text = text;
  const say = () => {
    speaking = null;
    const said = find('.demo-found');
    if (said.textContent !== state.text) said.textContent = state.text;
  };
  if (!state.camera || !speaking) {
    clearTimeout(speaking);
    speaking = setTimeout(say, state.camera ? 2000 : 300);
  }
  find('canvas').setAttribute('aria-label', text);

  const ms = (value) => value < 1 ? 'under 1 ms' : `${Math.round(value)} ms`;
  const after = find('.demo-judge input').checked
    ? `the judge after it ${ms(times.judge)}`
    : `boxes and suppression after it ${ms(times.boxes)}`;
  find('.demo-times').textContent = `The network took ${ms(times.run)}, the `
    + `picture before it ${ms(times.prepare)}, ${after}.`;

  const pixels = found.map(({kind, score, box}) => ({
    label: classes[kind], score, box: box.map((v, i) =>
      v * (i % 2 ? picture.height : picture.width))}));
  find('.demo-answers ol').replaceChildren(...pixels.map(
    ({label, score, box}) => {
      const [left, top, right, bottom] = box.map((v) => v.toFixed(1));
      return element('li', {}, `${label}, score ${score.toFixed(3)}, x `
        + `${left} to ${right}, y ${top} to ${bottom}`);
    }));
  root.dispatchEvent(new CustomEvent('found', {detail: {
    name: picture.name, width: picture.width, height: picture.height,
    truth: picture.boxes ?? null, found: pixels, runs: state.runs,
    heats: state.heats.map(({values}) => [...values])}}));
}

// --- Pictures

const STOPS = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64],
  [240, 249, 33]];

function heatColor(value) {
  const place = Math.min(value, 0.9999) * (STOPS.length - 1);
  const i = Math.floor(place);
  return STOPS[i].map((low, c) => low + (STOPS[i + 1][c] - low) * (place - i));
}

/* A heat map as a canvas with a pixel for each unit. */
function heatCanvas({height, width, values}, canvas, opacity) {
  Object.assign(canvas, {width, height});
  const image = new ImageData(width, height);
  values.forEach((value, i) => {
    image.data.set([...heatColor(value), opacity(value)], 4 * i);
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

function paintHeats() {
  root.querySelectorAll('.demo-heats canvas').forEach((canvas, i) => {
    heatCanvas(state.heats[i], canvas, () => 255);
    canvas.nextElementSibling.lastElementChild.textContent =
      `up to ${number(Math.max(...state.heats[i].values))}`;
  });
}

function outline(context, box, size, color, dashes = []) {
  const [left, top, right, bottom] = box.map((v, i) => v * size[i % 2]);
  const frame = [left, top, right - left, bottom - top];
  context.lineWidth = 5 * size.unit;
  context.strokeStyle = '#000';
  context.setLineDash([]);
  if (dashes.length) context.globalAlpha = 0.5;
  context.strokeRect(...frame);
  context.globalAlpha = 1;
  context.lineWidth = 2.5 * size.unit;
  context.strokeStyle = color;
  context.setLineDash(dashes.map((dash) => dash * size.unit));
  context.strokeRect(...frame);
}

function label(context, text, [left, top], size) {
  const {unit} = size;
  context.font = `${14 * unit}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 10 * unit;
  const x = Math.max(0, Math.min(left * size[0], size[0] - width));
  const y = Math.max(0, top * size[1] - 20 * unit);
  context.fillStyle = '#222';
  context.fillRect(x, y, width, 20 * unit);
  context.fillStyle = '#fff';
  context.fillText(text, x + 5 * unit, y + 15 * unit);
}

function draw() {
  const {picture, found, about} = state;
  if (!picture) return;
  const canvas = find('canvas');
  canvas.style.setProperty('--shape', picture.width / picture.height);
  const unit = Math.min(3, window.devicePixelRatio || 1);
  const {width, height} = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(width * unit));
  canvas.height = Math.max(1, Math.round(height * unit));
  const size = Object.assign([canvas.width, canvas.height], {unit});
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture.view, 0, 0, ...size);
  const shown = state.hover ?? state.heat;
  if (shown !== null && state.outputs) {
    context.imageSmoothingEnabled = false;
    context.drawImage(heatCanvas(state.heats[shown], element('canvas'),
      (value) => 80 + 150 * value), 0, 0, ...size);
  }
  for (const {box} of found) outline(context, box, size, '#ffd400');
  if (find('.demo-truth input').checked) {
    for (const box of picture.boxes ?? []) {
      outline(context, box, size, '#56b4e9', [8, 6]);
    }
  }
  for (const {kind, score, box} of [...found].reverse()) {
    label(context, `${about.model.classes[kind]} ${number(score)}`, box, size);
  }
}

// --- What the reader does

function listen() {
  find('.demo-start').addEventListener('click', () => takeSample(0));
  find('.demo-another').addEventListener('click', takeAnother);
  find('.demo-camera').addEventListener('click', () => {
    if (state.camera) stopFilming();
    else film();
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) stopFilming();
  });
  find('[type=file]').addEventListener('change', ({target}) => {
    if (target.files.length) takeFiles(target.files);
    target.value = '';  // the same file may be chosen again
  });
  root.addEventListener('input', ({target}) => {
    if (target.type !== 'file') update();
  });
  find('.demo-samples').addEventListener('click', ({target}) => {
    const button = target.closest('button');
    if (button) takeSample(Number(button.value));
  });

  const heats = find('.demo-heats');
  heats.addEventListener('change', ({target}) => {
    state.heat = target.value === '' ? null : Number(target.value);
    state.hover = null;
    draw();
  });
  for (const type of ['pointerover', 'pointerout']) {
    heats.addEventListener(type, ({target, pointerType}) => {
      const scale = type === 'pointerover' && pointerType === 'mouse'
        ? target.closest('label')?.querySelector('input').value : '';
      state.hover = scale ? Number(scale) : null;
      draw();
    });
  }

  for (const type of ['dragenter', 'dragover']) {
    root.addEventListener(type, (event) => {
      event.preventDefault();
      root.classList.add('is-over');
    });
  }
  root.addEventListener('dragleave', ({relatedTarget}) => {
    if (!root.contains(relatedTarget)) root.classList.remove('is-over');
  });
  root.addEventListener('drop', (event) => {
    event.preventDefault();
    root.classList.remove('is-over');
    const {files} = event.dataTransfer;
    if (files.length) takeFiles(files);
    else {
      complain('That was no picture file. Save the picture on your device '
        + 'first; this page asks no other site for it.');
    }
  });
  document.addEventListener('paste', (event) => {
    const files = event.clipboardData?.files ?? [];
    if (!files.length) return;
    event.preventDefault();
    takeFiles(files);
  });
  new ResizeObserver(draw).observe(find('.demo-stage'));
}

function furnish() {
  const {samples, model, judge, runtime} = state.about;
  find('.demo-start span').textContent =
    `loads ${megabytes(runtime.bytes + model.bytes + judge.bytes)}, once`;
  find('.demo-samples').append(...samples.map(({file, boxes}, i) => element(
    'button', {type: 'button', value: i}, element('img', {
      src: new URL(file, here), width: 64, height: 64, loading: 'lazy',
      alt: `Sample ${i + 1}, ${boxes.length || 'no'} `
        + `banana${boxes.length === 1 ? '' : 's'}`}))));
  const option = (value, ...children) => element('label', {},
    element('input', {type: 'radio', name: 'heat', value,
      checked: value === ''}), ...children);
  find('.demo-heats').append(
    ...model.grids.map(([height, width], i) => option(i,
      element('canvas', {width, height}), element('span', {},
        `${height} × ${width} `, element('small')))),
    option('', element('span', {}, 'none')));
  find('.demo-truth').hidden = true;
}

/* The smallest program with a 128-bit number: a function that gives one. */
const SIMD = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,  // '\0asm', version 1
  1, 5, 1, 0x60, 0, 1, 0x7b,  // types: one, from nothing to v128
  3, 2, 1, 0,  // functions: one, of that type
  10, 22, 1, 20, 0, 0xfd, 12, ...Array(16).fill(0), 0x0b,  // v128.const 0
]);

async function main() {
  let about;
  try {
    about = JSON.parse(await (await fetchPart('demo.json')).text());
  } catch {
    return leaveOut('The demo was not built into these pages. In a clone of '
      + 'the book, `make book` adds it.');
  }
  if (!about.runtime) {
    return leaveOut(`The demo was left out of these pages: ${about.missing}. `
      + 'In a clone of the book and with a network, `make book` adds it.');
  }
  if (typeof WebAssembly !== 'object') {
    return leaveOut('The demo needs WebAssembly, which this browser does not '
      + 'have or which has been turned off.');
  }
  if (!WebAssembly.validate(SIMD)) {
    return leaveOut('The demo needs WebAssembly with 128-bit numbers (SIMD), '
      + 'which this browser does not have. Those since 2021 do; Safari since '
      + '2023.');
  }
  state.about = about;
  find('.demo-live').innerHTML = PANEL;
  furnish();
  listen();
  root.classList.add('is-live');
  find('canvas').setAttribute('aria-label', 'Sample 1, not yet looked at');
  update();
  const [{file, boxes}] = about.samples;
  try {
    const first = await readPicture(await fetchPart(file), 'sample 1', boxes);
    state.picture ??= first;
    update();
  } catch {  // the start asks for it once more, and says what is wrong
    if (!state.picture) {
      find('canvas').setAttribute('aria-label', 'No picture yet');
    }
  }
}

main();
