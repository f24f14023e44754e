/* Terms of the glossary say what they mean when one points at them. */
(() => {
  'use strict';
  const tip = document.createElement('div');
  tip.id = 'term-tip';
  tip.setAttribute('role', 'tooltip');
  tip.hidden = true;
  document.body.append(tip);
  let shown = null;

  const hide = () => {
    tip.hidden = true;
    shown?.removeAttribute('aria-describedby');
    shown = null;
  };
  const place = () => {
    const at = shown.getBoundingClientRect();
    tip.hidden = at.bottom < 0 || at.top > window.innerHeight;
    if (tip.hidden) return;
    const width = document.documentElement.clientWidth;
    const left = Math.min(at.left, width - tip.offsetWidth - 8);
    const below = at.bottom + tip.offsetHeight + 8 < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? at.bottom + 2
      : at.top - tip.offsetHeight - 2}px`;
  };
  const show = (term) => {
    hide();
    shown = term;
    tip.textContent = term.dataset.definition;
    term.setAttribute('aria-describedby', tip.id);
    place();
  };
  for (const term of document.querySelectorAll('a.term-link')) {
    term.addEventListener('mouseenter', () => show(term));
    term.addEventListener('focus', () => show(term));
    term.addEventListener('blur', hide);
    // One may move onto the explanation itself.
    term.addEventListener('mouseleave', (event) => {
      if (event.relatedTarget !== tip) hide();
    });
  }
  tip.addEventListener('mouseleave', hide);
  // Whoever comes by the keyboard brings the page to scroll.
  document.addEventListener('scroll', () => {
    if (shown && shown === document.activeElement) place();
    else hide();
  }, {passive: true});
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') hide();
  });
})();
