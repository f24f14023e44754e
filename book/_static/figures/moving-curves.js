/* The recorded training runs, a point for each epoch. */
(() => {
  'use strict';
  const {svg, html, card, slider, choice, hint, numbers, drag, plot, line: path,
    kinds, data} = window.movingFigures;
  const FRAME = {left: 62, right: 458, top: 40, bottom: 296};
  const MEASURES = [['class error', 'class error'], ['bbox mae', 'box MAE'],
    ['loss', 'loss']];

  /* Round numbers that span the values, about four to a factor of ten. */
  const span = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)) - 1;
      10 ** power <= high * 10; power++) {
      for (const digit of [1, 1.5, 2, 3, 5, 7]) {
        ticks.push(Number((digit * 10 ** power).toPrecision(2)));
      }
    }
    const from = ticks.filter((tick) => tick <= low).pop();
    const to = ticks.find((tick) => tick >= high);
    const between = ticks.filter((tick) => tick >= from && tick <= to);
    return {min: from, max: to, ticks: between.length > 8
      ? between.filter((tick) => !/[.0]*(15|7)0*$/.test(String(tick)))
      : between};
  };

  kinds.curves = (stage) => {
    const {runs, nothing} = data.training;
    const names = Object.keys(runs);
    const drawing = card(474, 350, 'Training curve');
    const layer = svg('g', {});
    const here = svg('g', {'pointer-events': 'none'});
    const catcher = svg('rect', {x: FRAME.left - 12, y: FRAME.top - 12,
      width: FRAME.right - FRAME.left + 24,
      height: FRAME.bottom - FRAME.top + 24, fill: 'transparent'});
    drawing.append(layer, here, catcher);
    const line = numbers();
    const recipe = choice('Recipe', names.map((name) =>
      [name, `${name}, ${runs[name].loss.length} epochs`]), () => draw(true));
    const measure = choice('Measure', MEASURES, () => draw(false));
    const epoch = slider('epoch', {min: 1, max: 20, step: 1, value: 1},
      String, () => point());
    let axes;
    const draw = (renew) => {
      const run = runs[recipe.value];
      const values = run[measure.value];
      const count = values.length;
      const yardstick = nothing[recipe.value]?.[measure.value];
      epoch.limit(count);
      if (renew) epoch.value = count;
      const step = [1, 2, 5, 10, 20].find((s) => count / s <= 8) ?? 50;
      const ticks = [1];
      for (let tick = step; tick <= count; tick += step) {
        if (tick > 1) ticks.push(tick);
      }
      axes = plot(FRAME, {min: 1, max: count, ticks, label: 'epoch'},
        {...span(yardstick ? [...values, yardstick] : values), log: true,
          label: measure.value === 'loss' ? 'loss, mean of the epoch'
            : MEASURES.find(([key]) => key === measure.value)[1]});
      const points = values.map((v, i) => [axes.px(i + 1), axes.py(v)]);
      layer.replaceChildren(axes.node,
        svg('path', {d: path(points), fill: 'none', stroke: '#0072B2',
          'stroke-width': 2}),
        ...points.map(([cx, cy]) => svg('circle', {cx, cy,
          r: count > 40 ? 3 : 4.5, fill: '#0072B2', 'data-epoch': ''})));
      if (yardstick) {
        layer.append(
          svg('path', {d: `M${FRAME.left} ${axes.py(yardstick)}`
            + `H${FRAME.right}`, stroke: '#B35900', 'stroke-width': 2.5,
          'stroke-dasharray': '8 5'}),
          svg('text', {x: FRAME.right, y: axes.py(yardstick) - 8,
            'text-anchor': 'end', fill: '#8a4500'}, 'finds nothing'));
      }
      point();
    };
    const point = () => {
      const run = runs[recipe.value];
      const i = epoch.value - 1;
      const [x, y] = [axes.px(i + 1), axes.py(run[measure.value][i])];
      here.replaceChildren(
        svg('path', {d: `M${x} ${FRAME.top}V${FRAME.bottom}`,
          stroke: '#1f2328'}),
        svg('circle', {cx: x, cy: y, r: 7, fill: '#fff',
          stroke: '#1f2328', 'stroke-width': 2.5}));
      line.say(`Epoch ${i + 1} of ${run.loss.length}: loss `
        + `${run.loss[i].toPrecision(3)}, class error `
        + `${run['class error'][i].toPrecision(3)}, box MAE `
        + `${run['bbox mae'][i].toPrecision(3)}.`);
    };
    drag(catcher, ({x}) => {
      const count = runs[recipe.value].loss.length;
      const share = (x - FRAME.left) / (FRAME.right - FRAME.left);
      epoch.value = Math.min(Math.max(Math.round(1 + share * (count - 1)), 1),
        count);
      point();
    }, {large: true});
    draw(true);
    stage.append(hint('Slide through the epochs, or drag on the plot.'), drawing,
      ...line.nodes, html('div',
      {class: 'moving-controls'}, epoch.node, recipe.node, measure.node));
  };
})();
