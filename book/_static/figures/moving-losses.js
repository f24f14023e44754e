/* Smooth L1 with its sigma, focal loss with its gamma. */
(() => {
  'use strict';
  const {svg, html, set, card, slider, hint, numbers, plot, line: path, kinds,
    maths, data} = window.movingFigures;

  const smoothL1 = (x, sigma) => Math.abs(x) < 1 / sigma ** 2
    ? (sigma * x) ** 2 / 2 : Math.abs(x) - 0.5 / sigma ** 2;
  const smoothL1Slope = (x, sigma) => Math.abs(x) < 1 / sigma ** 2
    ? sigma ** 2 * x : Math.sign(x);
  const focal = (gamma, p) => -((1 - p) ** gamma) * Math.log(p);
  const focalSlope = (gamma, p) => (gamma
    ? gamma * (1 - p) ** (gamma - 1) * Math.log(p) : 0)
    - (1 - p) ** gamma / p;
  Object.assign(maths, {smoothL1, smoothL1Slope, focal, focalSlope});

  const range = (from, to, count) => Array.from({length: count + 1},
    (_, i) => from + (to - from) * i / count);
  const curve = (f, xs, {px, py}) => path(xs.map((x) => [px(x), py(f(x))]));
  const minus = (text) => text.replace('-', '−');
  const FRAME = {left: 44, right: 458, top: 40, bottom: 296};

  const label = (text, x, y, color, style = null) => svg('g', {},
    svg('path', {d: `M${x} ${y - 5}h28`, stroke: color, 'stroke-width': 3,
      ...(style ? {'stroke-dasharray': style} : {})}),
    svg('text', {x: x + 35, y}, text));

  kinds['smooth-l1'] = (stage) => {
    const drawing = card(474, 350, 'Smooth L1 and its gradient');
    const axes = plot(FRAME,
      {min: -2, max: 2, ticks: [-2, -1, 0, 1, 2],
        label: 'prediction minus truth'},
      {min: -1.1, max: 2.1, ticks: [-1, 0, 1, 2],
        label: ''});
    const xs = range(-2, 2, 200);
    const limits = svg('g', {fill: '#00674d'});
    const loss = svg('path', {fill: 'none', stroke: '#0072B2',
      'stroke-width': 3.5});
    const slope = svg('path', {fill: 'none', stroke: '#B35900',
      'stroke-width': 3, 'stroke-dasharray': '8 5'});
    const here = svg('g', {});
    drawing.append(axes.node,
      svg('path', {d: curve(Math.abs, xs, axes), fill: 'none',
        stroke: '#848d97', 'stroke-width': 1.5, 'stroke-dasharray': '2 4'}),
      slope, loss, limits, here,
      label('loss', 44, 26, '#0072B2'),
      label('gradient', 142, 26, '#B35900', '8 5'),
      label('L1', 270, 26, '#848d97', '2 4'));
    const line = numbers();
    const sigmaOf = (v) => Number((10 ** v).toFixed(2));
    const sigma = slider('σ', {min: -0.5, max: 1, step: 0.05, value: 0},
      (v) => String(sigmaOf(v)), () => draw());
    const at = slider('miss x', {min: -2, max: 2, step: 0.05, value: 0.5},
      (v) => minus(v.toFixed(2)), () => draw());
    const draw = () => {
      const s = sigmaOf(sigma.value);
      const x = at.value;
      const end = 1 / s ** 2;
      const [y, dy] = [smoothL1(x, s), smoothL1Slope(x, s)];
      set(loss, {d: curve((v) => smoothL1(v, s), xs, axes)});
      set(slope, {d: curve((v) => smoothL1Slope(v, s), xs, axes)});
      limits.replaceChildren(...(end > 2 ? [] : [-end, end].map((v) =>
        svg('path', {d: `M${axes.px(v)} ${axes.py(smoothL1(v, s)) - 8}`
          + 'l7 8-7 8-7-8z'}))));
      here.replaceChildren(
        svg('path', {d: `M${axes.px(x)} ${FRAME.top}V${FRAME.bottom}`,
          stroke: '#1f2328', 'stroke-width': 1}),
        svg('circle', {cx: axes.px(x), cy: axes.py(y), r: 6,
          fill: '#0072B2'}),
        svg('rect', {x: axes.px(x) - 6, y: axes.py(dy) - 6, width: 12,
          height: 12, fill: '#B35900'}));
      line.say(minus(`x = ${x.toFixed(2)}: `)
        + `loss ${y.toFixed(3)}, gradient ${minus(dy.toFixed(3))}. `
        + `The parabola reaches to ±${end.toFixed(2)}`
        + (end > 2 ? ', outside this plot.' : ' (diamonds).'));
    };
    draw();
    stage.append(hint('Move σ, and watch where the parabola ends. Move the '
      + 'miss, and read off what the optimiser feels there.'), drawing,
    ...line.nodes, html('div', {class: 'moving-controls'}, sigma.node,
      at.node));
  };

  kinds.focal = (stage) => {
    const {matched, easy} = data.anchors;
    const drawing = card(474, 350, 'Focal loss');
    const axes = plot(FRAME,
      {min: 0, max: 1, ticks: [0, 0.25, 0.5, 0.75, 1],
        label: 'probability given to the right class'},
      {min: 0, max: 5, ticks: [0, 1, 2, 3, 4, 5], label: 'loss'});
    const xs = range(0.01, 1, 198);
    const loss = svg('path', {fill: 'none', stroke: '#0072B2',
      'stroke-width': 3.5});
    const here = svg('g', {});
    drawing.append(
      svg('rect', {x: axes.px(0.5), y: FRAME.top,
        width: axes.px(1) - axes.px(0.5), height: FRAME.bottom - FRAME.top,
        fill: '#eef1f4'}),
      axes.node,
      svg('path', {d: curve((p) => focal(0, p), xs, axes), fill: 'none',
        stroke: '#848d97', 'stroke-width': 2, 'stroke-dasharray': '2 4'}),
      loss, here,
      label('focal loss', 130, 26, '#0072B2'),
      label('cross-entropy', 274, 26, '#848d97', '2 4'),
      svg('text', {x: axes.px(0.75), y: FRAME.top + 24,
        'text-anchor': 'middle', fill: '#59636e'}, 'right already'));
    const line = numbers();
    const gamma = slider('γ', {min: 0, max: 5, step: 0.1, value: 2},
      (v) => v.toFixed(1), () => draw());
    const at = slider('probability p', {min: 0.01, max: 0.99, step: 0.01,
      value: 0.9}, (v) => v.toFixed(2), () => draw());
    const draw = () => {
      const g = gamma.value;
      const p = at.value;
      const y = focal(g, p);
      set(loss, {d: curve((v) => focal(g, v), xs, axes)});
      here.replaceChildren(
        svg('path', {d: `M${axes.px(p)} ${FRAME.top}V${FRAME.bottom}`,
          stroke: '#1f2328', 'stroke-width': 1}),
        svg('circle', {cx: axes.px(p), cy: axes.py(y), r: 6,
          fill: '#0072B2'}));
      const many = easy * focal(g, 0.9);
      const share = 100 * many / (many + matched * focal(g, 0.1));
      line.say(`p = ${p.toFixed(2)}: loss ${y.toPrecision(3)} instead of `
        + `${focal(0, p).toPrecision(3)}. ${easy} easy anchors at 0.9 fill `
        + `${share.toFixed(2)} % of the loss beside ${matched} at 0.1.`);
    };
    draw();
    stage.append(hint('Move γ. At which value do the easy anchors lose the '
      + 'upper hand?'), drawing, ...line.nodes,
    html('div', {class: 'moving-controls'}, gamma.node, at.node));
  };
})();
