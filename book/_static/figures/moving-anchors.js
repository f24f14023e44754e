/* One anchor box on a picture: map, unit, size and ratio to choose. */
(() => {
  'use strict';
  const {svg, set, card, outline, slider, hint, numbers, drag, arrows, iou, kinds,
    maths, data, here} = window.movingFigures;
  const MAPS = [[1, 1], [2, 3], [4, 6], [6, 9], [8, 12]];

  /* As multibox_prior: relative corners of the anchor at a unit. */
  const anchor = ([h, w], size, ratio, row, column) => {
    const x = (column + 0.5) / w;
    const y = (row + 0.5) / h;
    const wide = size * Math.sqrt(ratio) * h / w / 2;
    const high = size / Math.sqrt(ratio) / 2;
    return [x - wide, y - high, x + wide, y + high];
  };
  maths.anchor = anchor;

  kinds.anchors = (stage) => {
    const {width, height, boxes, names} = data.cat;
    const unit = [width, height, width, height];
    const drawing = card(width + 8, height + 8,
      'A photograph of a cat with one anchor box');
    const field = svg('svg', {x: 4, y: 4, width, height,
      viewBox: `0 0 ${width} ${height}`});
    const crosses = svg('path', {stroke: '#000', 'stroke-width': 2,
      fill: 'none'});
    const halo = svg('path', {stroke: '#fff', 'stroke-width': 4.5,
      fill: 'none', opacity: 0.8});
    const truth = svg('g', {}, ...boxes.map((box) => outline(box, '#fff')));
    const shown = svg('g', {role: 'application',
      'aria-roledescription': 'movable anchor box'});
    field.append(svg('image', {href: `${here}cat.jpg`, width, height}),
      halo, crosses, truth, shown);
    drawing.append(field);
    const line = numbers();

    const ratioOf = (v) => Number((2 ** v).toFixed(2));
    const map = slider('feature map', {min: 0, max: MAPS.length - 1, step: 1,
      value: 3}, (i) => `${MAPS[i][0]} × ${MAPS[i][1]} units`, () => {
      const [h, w] = MAPS[map.value];
      // Stay at about the same place of the picture.
      const y = (row.value + 0.5) / rows;
      const x = (column.value + 0.5) / columns;
      [rows, columns] = [h, w];
      row.limit(h - 1);
      column.limit(w - 1);
      row.value = Math.floor(y * h);
      column.value = Math.floor(x * w);
      draw();
    });
    let [rows, columns] = MAPS[3];
    const size = slider('size s', {min: 0.05, max: 1, step: 0.01, value: 0.2},
      (v) => v.toFixed(2), () => draw());
    const ratio = slider('ratio r', {min: -2, max: 2, step: 0.25, value: 0},
      (v) => String(ratioOf(v)), () => draw());
    const row = slider('row', {min: 0, max: 5, step: 1, value: 2}, String,
      () => draw());
    const column = slider('column', {min: 0, max: 8, step: 1, value: 3},
      String, () => draw());

    const draw = () => {
      const dots = [];
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          const x = (j + 0.5) / columns * width;
          const y = (i + 0.5) / rows * height;
          dots.push(`M${x - 5} ${y}H${x + 5}M${x} ${y - 5}V${y + 5}`);
        }
      }
      set(crosses, {d: dots.join('')});
      set(halo, {d: dots.join('')});
      const box = anchor([rows, columns], size.value, ratioOf(ratio.value),
        row.value, column.value).map((v, i) => v * unit[i]);
      shown.replaceChildren(outline(box, '#E69F00', {
        'stroke-dasharray': '9 5', 'stroke-width': 3}));
      const overlaps = boxes.map((truth) => iou(box, truth));
      const best = Math.max(...overlaps);
      const k = overlaps.indexOf(best);
      const wide = (box[2] - box[0]).toFixed(0);
      const high = (box[3] - box[1]).toFixed(0);
      set(shown, {'aria-label': `Anchor box in row ${row.value}, column `
        + `${column.value}, ${wide} by ${high} pixels. Arrow keys move it.`});
      const verdict = best === 0 ? 'It meets no true box: background.'
        : `Best IoU ${best.toFixed(3)}, with box ${k} (${names[k]}): `
          + (best >= 0.5 ? 'the anchor learns it.' : 'too little, background.');
      line.say(`${wide} × ${high} pixels. ${verdict}`);
    };
    drag(field, ({x, y}) => {
      const place = (v, count) =>
        Math.min(Math.max(Math.floor(v * count), 0), count - 1);
      column.value = place((x - 4) / width, columns);
      row.value = place((y - 4) / height, rows);
      draw();
    }, {large: true});
    arrows(shown, (dx, dy) => {
      column.value += dx;
      row.value += dy;
      draw();
    });
    draw();
    const controls = window.movingFigures.html('div',
      {class: 'moving-controls'});
    controls.append(size.node, ratio.node, map.node, row.node, column.node);
    stage.append(hint('Tap or drag on the picture, or use the sliders. Can '
      + 'you catch the nose (box 2) with an IoU of 0.5?'), drawing, ...line.nodes, controls);
  };
})();
