/* Two boxes to drag, and their intersection over union. */
(() => {
  'use strict';
  const {svg, set, card, hint, numbers, drag, arrows, area, shared, iou, kinds} =
    window.movingFigures;
  const UNIT = 40;
  const WIDE = 11;
  const HIGH = 7;
  const LEFT = 22;
  const TOP = 28;
  const at = (v) => v * UNIT;
  const tenth = (v) => Math.round(v * 10) / 10;

  kinds.iou = (stage) => {
    const boxes = {A: [1, 1, 5, 5], B: [3, 2, 7, 6]};
    const colors = {A: '#0072B2', B: '#B35900'};
    const drawing = card(474, 388, 'Two boxes on a grid of 11 by 7');
    const field = svg('g', {transform: `translate(${LEFT} ${TOP})`});
    const grid = svg('g', {stroke: '#d0d7de'});
    const ticks = svg('g', {'font-size': 16, fill: '#59636e'});
    for (let i = 0; i <= WIDE; i++) {
      grid.append(svg('path', {d: `M${at(i)} 0V${at(HIGH)}`}));
      ticks.append(svg('text', {x: at(i), y: -8, 'text-anchor': 'middle'},
        String(i)));
    }
    for (let i = 0; i <= HIGH; i++) {
      grid.append(svg('path', {d: `M0 ${at(i)}H${at(WIDE)}`}));
      if (i) {
        ticks.append(svg('text', {x: -6, y: at(i) + 5,
          'text-anchor': 'end'}, String(i)));
      }
    }
    const hatch = svg('defs', {}, svg('pattern', {id: 'moving-hatch',
      width: 8, height: 8, patternUnits: 'userSpaceOnUse',
      patternTransform: 'rotate(45)'},
    svg('path', {d: 'M0 0V8', stroke: '#1f2328', 'stroke-width': 2.5})));
    const overlap = svg('rect', {fill: 'url(#moving-hatch)',
      'fill-opacity': 0.55, 'pointer-events': 'none'});
    const bodies = svg('g', {});
    const letters = svg('g', {'font-size': 20, 'font-weight': 700,
      'pointer-events': 'none'});
    const grips = svg('g', {});
    field.append(hatch, grid, ticks, bodies, overlap, letters, grips);

    // How good the agreement is, from 0 to 1.
    const gauge = svg('g', {transform: `translate(${LEFT} ${TOP + 320})`});
    const level = svg('rect', {height: 14, fill: '#00674d'});
    gauge.append(svg('rect', {width: at(WIDE), height: 14,
      fill: '#e6eaef'}), level);
    for (const mark of [0, 0.5, 1]) {
      gauge.append(
        svg('path', {d: `M${at(WIDE) * mark} -4V18`, stroke: '#1f2328',
          'stroke-width': 1.5}),
        svg('text', {x: at(WIDE) * mark, y: 34, 'font-size': 16,
          'text-anchor': ['start', 'middle', 'end'][2 * mark]},
        mark === 0 ? 'IoU 0' : String(mark)));
    }
    drawing.append(field, gauge);
    const line = numbers();

    const parts = {};
    const draw = () => {
      for (const [name, box] of Object.entries(boxes)) {
        const [x1, y1, x2, y2] = box;
        const {body, letter, grip} = parts[name];
        set(body, {x: at(x1), y: at(y1), width: at(x2 - x1),
          height: at(y2 - y1), 'aria-label': `Box ${name}: left ${x1}, top `
          + `${y1}, right ${x2}, bottom ${y2}. Arrow keys move it, with `
          + 'Shift they move its lower right corner.'});
        const [lx, ly] = name === 'A' ? [x1, y1] : [x2, y2];
        set(letter, {x: at(lx) + (name === 'A' ? 10 : -24),
          y: at(ly) + (name === 'A' ? 24 : -12)});
        grip.setAttribute('transform', `translate(${at(x2)} ${at(y2)})`);
      }
      const {A, B} = boxes;
      set(overlap, {x: at(Math.max(A[0], B[0])), y: at(Math.max(A[1], B[1])),
        width: at(Math.max(0, Math.min(A[2], B[2]) - Math.max(A[0], B[0]))),
        height: at(Math.max(0, Math.min(A[3], B[3])
          - Math.max(A[1], B[1])))});
      const value = iou(A, B);
      const both = shared(A, B);
      set(level, {width: at(WIDE) * value});
      line.say(`shared ${both.toFixed(2)} ÷ together `
        + `${(area(A) + area(B) - both).toFixed(2)} = IoU `
        + value.toFixed(3));
    };

    /* The smaller box lies on top, else it could not be grasped. Of the two
       the one without the focus is moved, which would lose it. */
    const stack = () => {
      const [low, high] = Object.keys(boxes).sort(
        (a, b) => area(boxes[b]) - area(boxes[a])).map(
        (name) => parts[name].body);
      if (bodies.lastChild === high) return;
      if (high === document.activeElement) bodies.prepend(low);
      else bodies.append(high);
    };

    const move = (box, dx, dy) => {
      dx = tenth(Math.min(Math.max(dx, -box[0]), WIDE - box[2]));
      dy = tenth(Math.min(Math.max(dy, -box[1]), HIGH - box[3]));
      [dx, dy, dx, dy].forEach((d, i) => { box[i] = tenth(box[i] + d); });
      draw();
    };
    const resize = (box, right, bottom) => {
      box[2] = tenth(Math.min(Math.max(right, box[0] + 0.5), WIDE));
      box[3] = tenth(Math.min(Math.max(bottom, box[1] + 0.5), HIGH));
      draw();
    };
    for (const [name, box] of Object.entries(boxes)) {
      const body = svg('rect', {fill: colors[name], 'fill-opacity': 0.16,
        stroke: colors[name], 'stroke-width': 3,
        ...(name === 'B' ? {'stroke-dasharray': '9 5'} : {}),
        role: 'application', 'aria-roledescription': 'movable box',
        'data-box': name});
      const letter = svg('text', {fill: colors[name]}, name);
      const grip = svg('g', {'data-grip': name},
        svg('circle', {r: 22, fill: 'transparent'}),
        svg('circle', {r: 8, fill: '#fff', stroke: colors[name],
          'stroke-width': 3}));
      parts[name] = {body, letter, grip};
      bodies.append(body);
      letters.append(letter);
      grips.append(grip);
      // What rounding to tenths leaves over is kept for the next move.
      let restX = 0;
      let restY = 0;
      drag(body, ({dx, dy}) => {
        const [x, y] = box;
        const wantX = x + dx / UNIT + restX;
        const wantY = y + dy / UNIT + restY;
        move(box, wantX - x, wantY - y);
        restX = dx || dy ? wantX - box[0] : 0;
        restY = dx || dy ? wantY - box[1] : 0;
      }, {done: stack});
      drag(grip, ({x, y}) => resize(box, (x - LEFT) / UNIT,
        (y - TOP) / UNIT), {done: stack});
      arrows(body, (dx, dy, shift) => {
        if (shift) resize(box, box[2] + dx / 2, box[3] + dy / 2);
        else move(box, dx / 2, dy / 2);
        stack();
      });
    }
    draw();
    stack();
    stage.append(hint('Drag a box, or its round corner. With the keyboard: Tab '
      + 'to a box, arrow keys move it, Shift and arrows size it.'), drawing,
    ...line.nodes);
  };
})();
