/* From the network's numbers to a short list of boxes: what
   d2lssd.multibox_detection does, for one picture. */

export const LEAST_VOTE = 0.01;  // a score below it has no vote
const SAME = 0.6;  // IoU above which boxes that voting has moved are one

/** The box that the offsets of anchor i describe (offset_inverse). */
export function decode(anchors, offsets, i) {
  const [left, top, right, bottom] = anchors.subarray(4 * i, 4 * i + 4);
  const [dx, dy, dw, dh] = offsets.subarray(4 * i, 4 * i + 4);
  const width = right - left;
  const height = bottom - top;
  // The centre moves by tenths of the anchor's size; the size is stretched.
  const x = (left + right) / 2 + dx / 10 * width;
  const y = (top + bottom) / 2 + dy / 10 * height;
  const w = Math.exp(dw / 5) * width;
  const h = Math.exp(dh / 5) * height;
  return [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
}

/** Intersection over union of two boxes. */
export function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const both = width * height;
  return both / (area(a) + area(b) - both);
}

/** Of boxes that overlap by more than `overlap`, the best (nms). */
export function suppress(found, overlap) {
  const kept = [];
  for (const candidate of found.sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => iou(other.box, candidate.box) <= overlap)) {
      kept.push(candidate);
    }
  }
  return kept;
}

/** Each kept box where all that overlap it, together, see it (vote_boxes). */
export function vote(kept, voters) {
  return kept.map((one) => {
    const sum = [0, 0, 0, 0];
    let total = 0;
    for (const {box, score} of voters) {
      const weight = score ** 2 * Math.max(0, iou(one.box, box) - 0.5);
      total += weight;
      box.forEach((v, side) => { sum[side] += weight * v; });
    }
    return total > 0 ? {...one, box: sum.map((v) => v / total)} : one;
  });
}

/** The class of anchor i that is not background, and its score. */
export function best(scores, i, numClasses) {
  let kind = 0;
  const first = i * (numClasses + 1) + 1;
  for (let j = 1; j < numClasses; j++) {
    if (scores[first + j] > scores[first + kind]) kind = j;
  }
  return {kind, score: scores[first + kind]};
}

/** The boxes with at least a score, anchor by anchor. */
export function decoded({scores, offsets, anchors}, numClasses, least) {
  const all = [];
  for (let i = 0; i < anchors.length / 4; i++) {
    const {kind, score} = best(scores, i, numClasses);
    if (score >= least) {
      all.push({kind, score, box: decode(anchors, offsets, i)});
    }
  }
  return all;
}

/** Boxes cut off at the border of the picture. */
export function clipped(found) {
  return found.map((one) => ({
    ...one, box: one.box.map((v) => Math.min(1, Math.max(0, v)))}));
}

/**
 * All that is found, by falling score. A box below the least score can
 * suppress nothing above it, so the least score may be applied first.
 *
 * @param {{scores: Float32Array, offsets: Float32Array, anchors:
 *     Float32Array}} outputs of the network, for one picture.
 * @param {number} numClasses background not counted.
 * @param {number} least   score, 0–1.
 * @param {number} overlap IoU above which the weaker box goes.
 * @param {boolean} voting whether the boxes that went have a vote.
 * @returns {{kind: number, score: number, box: number[]}[]} boxes relative to
 *     the picture, cut off at its border.
 */
export function detect(outputs, numClasses, least, overlap, voting = true) {
  const all = decoded(outputs, numClasses, Math.min(least, LEAST_VOTE));
  const kept = suppress(all.filter(({score}) => score >= least), overlap);
  const voters = all.filter(({score}) => score >= LEAST_VOTE);
  return clipped(voting
    ? suppress(vote(kept, voters), Math.max(SAME, overlap)) : kept);
}

/**
 * The scores of each scale as a map: at each unit, that of its best anchor.
 *
 * @param {Float32Array} scores as above.
 * @param {number} numClasses background not counted.
 * @param {[number, number][]} grids height and width of the feature maps.
 * @param {number} each anchors at a unit.
 * @returns {{height: number, width: number, values: Float32Array}[]}
 */
export function heat(scores, numClasses, grids, each) {
  let anchor = 0;
  return grids.map(([height, width]) => {
    const values = new Float32Array(height * width);
    for (let unit = 0; unit < values.length; unit++) {
      for (const end = anchor + each; anchor < end; anchor++) {
        values[unit] = Math.max(values[unit],
          best(scores, anchor, numClasses).score);
      }
    }
    return {height, width, values};
  });
}
