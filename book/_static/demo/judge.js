/* What a judge is told of the boxes on a picture: what d2lssd.hear_boxes
   does. How many boxes it hears, and what counts as near, comes with it. */
import {LEAST_VOTE, decoded, iou, suppress, vote} from './boxes.js';

/* Each voter, with the IoU, at the kept box that it overlaps most, if they
   share more than half. */
function votesOf(kept, voters) {
  const votes = kept.map(() => []);
  for (const voter of voters) {
    let [most, chosen] = [0.5, null];
    kept.forEach(({box}, i) => {
      const overlap = iou(box, voter.box);
      if (overlap > most) [most, chosen] = [overlap, i];
    });
    if (chosen !== null) votes[chosen].push({...voter, overlap: most});
  }
  return votes;
}

/* Boxes moved by one vote each; of two that meet then, the surer one
   (vote_once). */
function voteOnce(kept, voters, same) {
  const votes = votesOf(kept, voters);
  const moved = suppress(
    kept.map((one, i) => vote([one], votes[i])[0]), same);
  return [moved, votesOf(moved, voters)];
}

const logOdds = (score) => {
  const p = Math.min(score, 1 - 1e-6);
  return Math.log(p / (1 - p));
};
const sum = (values) => values.reduce((a, b) => a + b, 0);

/* Mean log-odds of the best votes, those that are missing counting as little
   as a vote can. */
function meanOfVotes(votes, voters) {
  const best = votes.map(({score}) => score).sort((a, b) => b - a);
  return sum(Array.from({length: voters},
    (_, i) => logOdds(best[i] ?? LEAST_VOTE))) / voters;
}

const sides = ([left, top, right, bottom]) => [right - left, bottom - top];
const area = (box) => sides(box)[0] * sides(box)[1];
/* The share of a box that lies in another one. */
function inside(box, other) {
  const [width, height] = sides([
    Math.max(box[0], other[0]), Math.max(box[1], other[1]),
    Math.min(box[2], other[2]), Math.min(box[3], other[3])]);
  return Math.max(0, width) * Math.max(0, height) / area(box);
}

/* The facts of one box, in the order of d2lssd.judge.FACTS, from all voters
   and the boxes that are surer than it. */
function factsOf(one, voters, surer, {near, meet}) {
  const crowd = (some) => near.map((least) => Math.log1p(sum(
    some.filter(({overlap}) => overlap > least).map(({score}) => score))));
  const everyone = voters.map((voter) => (
    {...voter, overlap: iou(one.box, voter.box)}));
  const overlaps = surer.map(({box}) => iou(one.box, box));
  const first = Math.max(0, ...overlaps);
  const rival = first > 0 ? surer[overlaps.indexOf(first)] : null;
  const [, second = 0] = [...overlaps].sort((a, b) => b - a);
  const [width, height] = sides(one.box);
  const longer = Math.max(width, height);
  return [
    one.own, one.votes, ...crowd(everyone), ...crowd(one.voters),
    Math.sqrt(area(one.box)), first,
    ...rival
      ? [rival.votes, rival.own, Math.log(area(one.box) / area(rival.box))]
      : [0, 0, 0],
    Math.max(0, ...surer.map(({box}) => inside(one.box, box))),
    Math.max(0, ...surer.map(({box}) => inside(box, one.box))),
    second, overlaps.filter((overlap) => overlap > meet).length,
    width / longer, height / longer,
  ].map((fact) => Number.isFinite(fact) ? fact : 0);
}

/**
 * The boxes that a judge hears of, and what it is told of each.
 *
 * @param {object} outputs of the network, as `detect` takes them.
 * @param {number} numClasses background not counted.
 * @param {object} settings the judge's own numbers, from demo.json.
 * @returns {{kind: number, score: number, box: number[], facts: number[]}[]}
 *     with the scores of their own anchors, by falling score of votes.
 */
export function hear(outputs, numClasses, settings) {
  const {doubted, lenient, heard, same, voters: count} = settings;
  const voters = decoded(outputs, numClasses, LEAST_VOTE);
  const kept = suppress(voters.filter(({score}) => score >= doubted), lenient);
  const [moved, votes] = voteOnce(kept.slice(0, heard), voters, same);
  const told = moved.map((one, i) => ({
    ...one, own: logOdds(one.score) / 5, voters: votes[i],
    votes: meanOfVotes(votes[i], count) / 5}));
  told.sort((a, b) => b.votes - a.votes);
  return told.map((one, i) => ({
    kind: one.kind, score: one.score, box: one.box,
    facts: factsOf(one, voters, told.slice(0, i), settings)}));
}
