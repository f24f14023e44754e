/* Non-maximum suppression, one decision at a time. */
(() => {
  'use strict';
  const {svg, html, set, card, outline, tag, slider, button, checkbox,
    hint, numbers, iou, kinds, maths, data, here} = window.movingFigures;

  /* Decisions in order: which box is kept, and which it strikes out. Where
     classes are given, a box strikes out boxes of its own class only. */
  const suppress = (boxes, scores, threshold, classes = null) => {
    let left = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    const steps = [];
    while (left.length) {
      const [best, ...rest] = left;
      const struck = rest.filter((i) => iou(boxes[best], boxes[i]) > threshold
        && (!classes || classes[i] === classes[best]));
      steps.push({keep: best, struck});
      left = rest.filter((i) => !struck.includes(i));
    }
    return steps;
  };
  maths.suppress = suppress;

  // Where a box's number stands, so that none hides another.
  const PLACES = [[2, 1, 'start', -21], [0, 1, 'end', -21], [0, 3, 'end', 0],
    [2, 1, 'start', -21], [0, 1, 'end', -21], [2, 1, 'start', -21],
    [2, 3, 'start', 0]];

  kinds.suppression = (stage) => {
    const {width, height, found, scores, classes, classNames} = data.cat;
    const colors = ['#56B4E9', '#E69F00'];
    const drawing = card(width + 8, height + 8,
      'A photograph of a cat with seven findings');
    const field = svg('svg', {x: 4, y: 4, width, height,
      viewBox: `0 0 ${width} ${height}`});
    const layer = svg('g', {});
    field.append(svg('image', {href: `${here}cat.jpg`, width, height}),
      layer);
    drawing.append(field);
    const line = numbers();
    const say = (i) => `${i} (${classNames[classes[i]]}, `
      + `${scores[i].toFixed(2)})`;

    let steps = [];
    let done = 0;
    const threshold = slider('IoU threshold', {min: 0.05, max: 0.95,
      step: 0.05, value: 0.5}, (v) => v.toFixed(2), () => plan());
    const apart = checkbox('each class by itself', () => plan());
    const next = button('Next step', () => { done += 1; draw(); });
    const back = button('One back', () => { done -= 1; draw(); });
    const end = button('To the end', () => { done = steps.length; draw(); });
    const again = button('Start again', () => { done = 0; draw(); });

    // A new threshold redoes the decisions taken so far.
    const plan = () => {
      const ended = steps.length && done === steps.length;
      steps = suppress(found, scores, threshold.value,
        apart.value ? classes : null);
      done = ended ? steps.length : Math.min(done, steps.length);
      draw();
    };
    const draw = () => {
      const past = steps.slice(0, done);
      const kept = past.map((step) => step.keep);
      const struck = past.flatMap((step) => step.struck);
      const order = scores.map((_, i) => i).sort((a, b) =>
        struck.includes(b) - struck.includes(a));
      layer.replaceChildren(...order.map((i) => {
        const gone = struck.includes(i);
        const box = gone ? svg('rect', {x: found[i][0], y: found[i][1],
          width: found[i][2] - found[i][0],
          height: found[i][3] - found[i][1], fill: 'none', stroke: '#fff',
          'stroke-width': 1.5, 'stroke-dasharray': '3 4'})
          : outline(found[i], colors[classes[i]], kept.includes(i)
            ? {'stroke-width': 4} : {'stroke-dasharray': '8 5'});
        const [u, v, side, up] = PLACES[i];
        const text = tag(`${i}: ${scores[i].toFixed(2)}`
          + (kept.includes(i) ? ' ✓' : gone ? ' ✗' : ''),
        found[i][u], found[i][v] + up, side);
        if (gone) set(text, {opacity: 0.6});
        return svg('g', {'data-finding': i,
          'data-state': gone ? 'struck' : kept.includes(i) ? 'kept' : 'open'},
        box, text);
      }));
      const [last] = past.slice(-1);
      const overlaps = last?.struck.map((i) =>
        `${say(i)} overlaps it with ${iou(found[last.keep],
          found[i]).toFixed(2)}`);
      let text = `${scores.length} findings; the best goes first.`;
      if (last) {
        text = `Step ${done} of ${steps.length}: keep ${say(last.keep)}; `
          + (overlaps.length ? `strike out: ${overlaps.join(', ')}.`
            : 'strike out nothing.');
      }
      if (done === steps.length) text += ` ${kept.length} boxes are left.`;
      line.say(text);
      back.disabled = again.disabled = done === 0;
      next.disabled = end.disabled = done === steps.length;
    };
    plan();
    stage.append(hint('Take the decisions one by one. Then lower the threshold, '
      + 'and see when box 3 goes.'), drawing, ...line.nodes,
      html('div', {class: 'moving-buttons'}, next, back, end, again),
      html('div', {class: 'moving-controls'}, threshold.node, apart.node));
  };
})();
