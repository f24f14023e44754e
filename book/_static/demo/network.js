/* The network: fetched when it is asked for, and run on this device. */

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
 * Fetch the runtime and the model.
 *
 * @param {URL} base folder of the demo's files.
 * @param {object} about what the build wrote about them, demo.json.
 * @param {(share: number) => void} progress called with 0–1.
 * @returns {Promise<(square: Float32Array) => Promise<{scores: Float32Array,
 *     offsets: Float32Array, anchors: Float32Array}>>} the network.
 */
export async function loadNetwork(base, about, progress) {
  const {runtime, model} = about;
  let done = 0;
  const advance = (bytes) => {
    done += bytes;
    progress(done / (runtime.bytes + model.bytes));
  };
  const [ort, wasm, weights] = await Promise.all([
    import(new URL(runtime.script, base)),
    fetchBytes(new URL(runtime.wasm, base), runtime.bytes, advance),
    fetchBytes(new URL(model.file, base), model.bytes, advance),
  ]);
  ort.env.wasm.numThreads = 1;  // more need headers that few servers send
  ort.env.wasm.wasmBinary = wasm;
  const session = await ort.InferenceSession.create(weights, {
    executionProviders: ['wasm'],
  }).catch((error) => {  // the runtime tries only once
    throw Object.assign(new Error(error.message ?? error), {reload: true});
  });
  return async (square) => {
    const image = new ort.Tensor('float32', square,
      [1, 3, model.side, model.side]);
    const outputs = await session.run({image});
    return Object.fromEntries(Object.entries(outputs).map(
      ([name, tensor]) => [name, tensor.data]));
  };
}
