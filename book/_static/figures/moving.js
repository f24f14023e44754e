/* Figures that move. A chapter holds a still figure of the class "moving" and,
   say, "moving-iou"; this script puts a live one in its place. Without
   JavaScript, in print and in JupyterLab the still figure is what one sees.

   Plain scripts rather than modules: browsers refuse modules, and fetch, on
   pages opened from a folder, and that is how a book just built is read. */
(() => {
  'use strict';
  const here = document.currentScript.src.replace(/[^/]*$/, '');
  const FILES = {
    anchors: 'anchors', iou: 'iou', suppression: 'suppression',
    'smooth-l1': 'losses', focal: 'losses', curves: 'curves',
  };
  const kinds = {};
  const scripts = {};

  const load = (name) => scripts[name] ??= new Promise((done, failed) => {
    const script = document.createElement('script');
    script.src = here + name;
    script.onload = done;
    script.onerror = () => failed(new Error(`${script.src} did not load`));
    document.head.append(script);
  });

  const SVG = 'http://www.w3.org/2000/svg';
  const set = (node, attributes) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null) node.removeAttribute(name);
      else if (node.getAttribute(name) !== String(value)) {
        node.setAttribute(name, value);
      }
    }
    return node;
  };
  const svg = (tag, attributes = {}, ...children) => {
    const node = set(document.createElementNS(SVG, tag), attributes);
    node.append(...children);
    return node;
  };
  const html = (tag, attributes = {}, ...children) => {
    const node = set(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };

  /* A drawing on its own light card, as all figures of the book. */
  const card = (width, height, title) => svg('svg', {
    viewBox: `0 0 ${width} ${height}`, xmlns: SVG, role: 'group',
    'aria-label': title, 'font-family': 'system-ui, sans-serif',
    'font-size': 17, fill: '#1f2328',
  }, svg('rect', {width, height, rx: 8, fill: '#fff'}));

  /* Text on a picture. */
  const tag = (text, x, y, anchor = 'start') => {
    const width = 9 * text.length + 8;
    const left = anchor === 'end' ? x - width : x;
    return svg('g', {},
      svg('rect', {x: left, y, width, height: 21, rx: 3, fill: '#222'}),
      svg('text', {x: left + width / 2, y: y + 16, fill: '#fff',
        'font-size': 16, 'text-anchor': 'middle'}, text));
  };

  /* A box that shows on any ground: a dark line under a bright one. */
  const outline = (box, color, more = {}) => {
    const [x, y, right, bottom] = box;
    const frame = {x, y, width: Math.max(0, right - x),
      height: Math.max(0, bottom - y), fill: 'none'};
    return svg('g', {},
      svg('rect', {...frame, stroke: '#000', 'stroke-width': 5}),
      svg('rect', {...frame, stroke: color, 'stroke-width': 2.5, ...more}));
  };

  let names = 0;

  /* A labelled slider; `text` says the value in words. */
  const slider = (label, range, text, act) => {
    const input = html('input', {type: 'range', id: `moving-${++names}`,
      min: range.min, max: range.max, step: range.step});
    input.value = range.value;
    const shown = html('span', {class: 'moving-value', 'aria-hidden': 'true'});
    const say = () => {
      shown.textContent = text(Number(input.value));
      set(input, {'aria-valuetext': shown.textContent});
    };
    say();
    input.addEventListener('input', () => { say(); act(); });
    const node = html('div', {class: 'moving-slider'},
      html('label', {for: input.id}, label), shown, input);
    return {
      node,
      get value() { return Number(input.value); },
      set value(value) { input.value = value; say(); },
      limit(max) { set(input, {max}); say(); },
    };
  };

  const button = (label, act) => {
    const node = html('button', {type: 'button'}, label);
    node.addEventListener('click', act);
    return node;
  };

  const checkbox = (label, act) => {
    const input = html('input', {type: 'checkbox'});
    input.addEventListener('change', act);
    return {node: html('label', {class: 'moving-choice'}, input, label),
      get value() { return input.checked; }};
  };

  /* One of several, each a pair of value and label. */
  const choice = (label, options, act) => {
    const name = `moving-${++names}`;
    const node = html('fieldset', {}, html('legend', {}, label));
    for (const [value, text] of options) {
      const input = html('input', {type: 'radio', name, value});
      input.checked = value === options[0][0];
      input.addEventListener('change', act);
      node.append(html('label', {class: 'moving-choice'}, input, text));
    }
    return {node,
      get value() { return node.querySelector(':checked').value; }};
  };

  const hint = (text) => html('p', {class: 'moving-hint'}, text);

  /* The line of numbers. It is spoken once the hand rests, not at each step. */
  const numbers = () => {
    const seen = html('p', {class: 'moving-numbers', 'aria-hidden': 'true'});
    const heard = html('p', {class: 'moving-heard', role: 'status',
      'aria-live': 'polite'});
    let rest;
    return {
      nodes: [seen, heard],
      say(text) {
        const first = !seen.textContent;
        seen.textContent = text;
        clearTimeout(rest);
        if (first) heard.textContent = text;
        else rest = setTimeout(() => { heard.textContent = text; }, 400);
      },
    };
  };

  /* Drag with mouse, pen or finger. `act` gets the way since the last call
     and the place, both in the drawing's own unit; `done` is called in the
     end. A small part keeps the finger for itself; over a `large` one the page
     can still be scrolled, and until that is decided nothing happens. */
  const drag = (node, act, {large = false, done = () => {}} = {}) => {
    node.classList.add('moving-grab');
    if (large) node.ownerSVGElement.style.touchAction = 'pan-y';
    else {
      // The style touch-action does not reach parts of a drawing.
      node.addEventListener('touchstart', (event) => event.preventDefault(),
        {passive: false});
    }
    let last = null;
    let waits = false;  // a finger that may be about to scroll
    const place = (event) => {
      const drawing = node.ownerSVGElement ?? node;
      const point = new DOMPoint(event.clientX, event.clientY);
      return point.matrixTransform(drawing.getScreenCTM().inverse());
    };
    node.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      node.setPointerCapture(event.pointerId);
      last = place(event);
      waits = large && event.pointerType === 'touch';
      if (!waits) act({dx: 0, dy: 0, x: last.x, y: last.y});
      event.preventDefault();
      node.focus({preventScroll: true});
    });
    node.addEventListener('pointermove', (event) => {
      if (!last) return;
      if (!event.buttons) return stop();
      const now = place(event);
      if (waits && Math.abs(now.x - last.x) < Math.abs(now.y - last.y) + 4) {
        return;
      }
      waits = false;
      act({dx: now.x - last.x, dy: now.y - last.y, x: now.x, y: now.y});
      last = now;
    });
    const stop = () => {
      if (last) done();
      last = null;
    };
    node.addEventListener('pointerup', (event) => {
      if (last && waits) {  // a tap
        const {x, y} = place(event);
        act({dx: 0, dy: 0, x, y});
      }
      stop();
    });
    node.addEventListener('pointercancel', stop);
    node.addEventListener('lostpointercapture', stop);
  };

  const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0],
    ArrowUp: [0, -1], ArrowDown: [0, 1]};

  /* Arrow keys on a part of the drawing; Shift is passed on. */
  const arrows = (node, act) => {
    set(node, {tabindex: 0});
    node.addEventListener('keydown', (event) => {
      const way = ARROWS[event.key];
      if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      act(...way, event.shiftKey);
    });
  };

  /* Intersection over union of two boxes, as two corners. */
  const area = ([left, top, right, bottom]) =>
    Math.max(0, right - left) * Math.max(0, bottom - top);
  const shared = (a, b) => area([Math.max(a[0], b[0]), Math.max(a[1], b[1]),
    Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  const iou = (a, b) => {
    const both = shared(a, b);
    return both / (area(a) + area(b) - both);
  };

  /* Axes with grid and numbers. `x` and `y` say {min, max, ticks, label,
     log}; gives the group and two functions from value to place. */
  const plot = (frame, x, y) => {
    const scale = ({min, max, log}, from, to) => {
      const f = log ? Math.log : (v) => v;
      return (v) => from + (f(v) - f(min)) / (f(max) - f(min)) * (to - from);
    };
    const px = scale(x, frame.left, frame.right);
    const py = scale(y, frame.bottom, frame.top);
    const grid = svg('g', {stroke: '#d0d7de', 'stroke-width': 1});
    const text = svg('g', {});
    for (const tick of x.ticks) {
      grid.append(svg('path', {
        d: `M${px(tick)} ${frame.top}V${frame.bottom}`}));
      text.append(svg('text', {x: px(tick), y: frame.bottom + 19,
        'text-anchor': 'middle'}, String(tick).replace('-', '−')));
    }
    for (const tick of y.ticks) {
      grid.append(svg('path', {
        d: `M${frame.left} ${py(tick)}H${frame.right}`}));
      text.append(svg('text', {x: frame.left - 7, y: py(tick) + 5,
        'text-anchor': 'end'}, String(tick).replace('-', '−')));
    }
    text.append(
      svg('text', {x: (frame.left + frame.right) / 2, y: frame.bottom + 41,
        'text-anchor': 'middle'}, x.label),
      svg('text', {x: frame.left - 7, y: frame.top - 12}, y.label));
    return {node: svg('g', {}, grid, text), px, py};
  };

  const line = (points) => points.map(([x, y], i) =>
    `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

  const upgrade = async (figure) => {
    const kind = [...figure.classList].find((name) =>
      name.startsWith('moving-'))?.slice(7);
    await load('moving-data.js');
    await load(`moving-${FILES[kind]}.js`);
    const stage = html('div', {class: 'moving-stage'});
    kinds[kind](stage);
    figure.insertBefore(stage, figure.querySelector('figcaption'));
    figure.classList.add('is-moving');
  };

  window.movingFigures = {
    here, kinds, data: {}, svg, html, set, card, tag, outline, slider, button, checkbox,
    choice, hint, numbers, drag, arrows, area, shared, iou, plot, line,
    maths: {iou},
  };
  // A deferred script: the page is there. `ready` is for the tests.
  window.movingFigures.ready = Promise.all(
    [...document.querySelectorAll('figure.moving')].map(upgrade));
})();
