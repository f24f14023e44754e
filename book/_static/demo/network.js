/* The network and its judge: fetched when they are asked for, and run on this
   device. */
import {clipped} from './boxes.js';
import {hear} from './judge.js';

/* Fetch a file and say how far it is. Its size is known beforehand: the
   length that a server announces may be that of the compressed file. */
async function fetchBytes(url, size, advance) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
  const bytes = new Uint8Array(size);
  let filled = 0;
  const reader = answer.body.getReader();
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    bytes.set(value, filled);
    filled += value.length;
    advance(value.length);
  }
  if (filled !== size) throw new Error(`${url} is cut short`);
  return bytes;
}

/**
 * Fetch the runtime and both models.
 *
 * @param {URL} base folder of the demo's files.
 * @param {object} about what the build wrote about them, demo.json.
 * @param {(share: number) => void} progress called with 0–1.
 * @returns {Promise<{see: function, judge: function}>} two that run on a
 *     square picture. `see` gives {scores, offsets, anchors}, Float32Arrays;
 *     `judge`, told these, the boxes that the judge has scored, by falling
 *     score: {kind, score, box}[].
 */
export async function loadNetwork(base, about, progress) {
  const {runtime, model, judge} = about;
  let done = 0;
  const advance = (bytes) => {
    done += bytes;
    progress(done / (runtime.bytes + model.bytes + judge.bytes));
  };
  const [ort, wasm, ...weights] = await Promise.all([
    import(new URL(runtime.script, base)),
    fetchBytes(new URL(runtime.wasm, base), runtime.bytes, advance),
    ...[model, judge].map(({file, bytes}) =>
      fetchBytes(new URL(file, base), bytes, advance)),
  ]);
  ort.env.wasm.numThreads = 1;  // more need headers that few servers send
  ort.env.wasm.wasmBinary = wasm;
  const sessions = [];
  for (const bytes of weights) {  // the runtime starts once
    sessions.push(await ort.InferenceSession.create(bytes, {
      executionProviders: ['wasm'],
    }).catch((error) => {  // and tries only once
      throw Object.assign(new Error(error.message ?? error), {reload: true});
    }));
  }
  const [seeing, judging] = sessions;
  const tensor = (values, ...shape) =>
    new ort.Tensor('float32', Float32Array.from(values), shape);
  const picture = (square) =>
    tensor(square, 1, 3, model.side, model.side);

  async function see(square) {
    const outputs = await seeing.run({image: picture(square)});
    return Object.fromEntries(Object.entries(outputs).map(
      ([name, {data}]) => [name, data]));
  }

  async function decide(square, outputs) {
    const heard = hear(outputs, model.classes.length, judge);
    if (!heard.length) return [];
    const flat = (name) => heard.flatMap((one) => one[name]);
    const {scores} = await judging.run({
      image: picture(square), boxes: tensor(flat('box'), heard.length, 4),
      facts: tensor(flat('facts'), heard.length, heard[0].facts.length)});
    const found = heard.map(({kind, box}, i) => (
      {kind, score: scores.data[i], box}));
    return clipped(found).sort((a, b) => b.score - a.score);
  }
  return {see, judge: decide};
}
