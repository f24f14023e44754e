"""Slides made of the chapters: what is on them, and that it fits."""
import re
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from needs import lacking

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import browser  # noqa: E402
import plain  # noqa: E402
import slides  # noqa: E402


def deck(tmp_path, *cells):
    page = plain.Page(ROOT / 'book' / 'page.ipynb', 4, list(cells))
    (tmp_path / 'figures').mkdir()
    return slides.Deck(page, plain.Labels([page]), tmp_path).build()


def seen(slide):
    return re.sub(r'<[^>]+>', '', slide.body)


def test_code_and_what_it_printed_share_a_slide_with_the_last_sentence(
        tmp_path):
    slide, = deck(
        tmp_path,
        new_markdown_cell('## Adding\n\nOne is less than two. Add them:'),
        new_code_cell('1 + 2', outputs=[new_output(
            'execute_result', {'text/plain': '3'}, execution_count=1)]))
    assert (slide.title, slide.lead) == ('Adding', 'Add them:')
    assert seen(slide) == '1 + 2\n3'
    assert slide.notes == ['<p>One is less than two. Add them:</p>']


def test_imports_settings_and_checks_are_left_out(tmp_path):
    assert deck(
        tmp_path,
        new_code_cell('import torch\nfrom torch import nn'),
        new_code_cell('x = 1', metadata={'tags': ['remove-cell']}),
        new_code_cell('assert 1 < 2'),
        new_code_cell('y = 2', metadata={
            'slideshow': {'slide_type': 'skip'}})) == []


def test_a_figure_whose_code_is_folded_stands_alone(tmp_path):
    dot = ('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhf'
           'DwAChwGA60e6kgAAAABJRU5ErkJggg==')
    slide, = deck(tmp_path, new_code_cell(
        'plot()', metadata={
            'tags': ['hide-input'], 'mystnb': {
                'figure': {'caption': 'A dot. Look. Third.', 'name': 'fig-d'},
                'image': {'alt': 'One dot.'}}},
        outputs=[new_output('display_data', {'image/png': dot})]))
    assert 'plot' not in slide.body
    assert 'alt="One dot."' in slide.body
    assert seen(slide) == 'Figure 4.1. A dot. Look.'
    assert len(list((tmp_path / 'figures').iterdir())) == 1


def test_a_question_comes_before_its_answer(tmp_path):
    slide, = deck(tmp_path, new_markdown_cell(
        '## Check yourself\n\n:::{dropdown} Why?\nBecause.\n:::'))
    question, answer = slide.body.split('class="fragment"')
    assert 'Why?' in question
    assert 'Because.' in answer


def test_an_exercise_has_a_slide_and_its_hint_is_in_the_notes(tmp_path):
    slide, = deck(tmp_path, new_markdown_cell(
        '::::{exercise} Twice ★\n:label: twice\n\nDouble it.\n::::\n\n'
        ':::{dropdown} Hint\nAdd.\n:::'))
    assert slide.title == 'Exercise 4.1: Twice ★'
    assert seen(slide).strip() == 'Double it.'
    assert 'Add.' in slide.notes[-1]


@pytest.mark.parametrize(('count', 'pieces'), [(20, 1), (30, 2), (60, 3)])
def test_long_code_is_torn_at_empty_lines(count, pieces):
    source = '\n'.join('' if i % 5 == 4 else f'x{i} = {i}'
                       for i in range(count))
    torn = list(slides.pieces(source, 25))
    assert len(torn) == pieces
    assert '\n\n'.join(torn) == source.rstrip()


def test_no_paragraph_of_a_section_is_lost(tmp_path):
    made = deck(tmp_path, new_markdown_cell(
        '## One\n\nFirst. More.\n\nSecond.\n\n## Two\n\nThird.'))
    assert [slide.title for slide in made] == ['One', 'Two']
    assert [len(slide.notes) for slide in made] == [2, 1]


# In a browser

MEASURE = """() => {
  const found = [], scale = Reveal.getScale();
  const frame = document.querySelector('.slides').getBoundingClientRect();
  for (let i = 0; i < Reveal.getTotalSlides(); i++) {
    Reveal.slide(i, 0, 99);
    const slide = Reveal.getCurrentSlide();
    const say = what => found.push(`slide ${i + 1}: ${what}`);
    for (const part of slide.querySelectorAll('*:not(aside, aside *)')) {
      if (part.closest('svg')) continue;
      const box = part.getBoundingClientRect();
      if (box.width && (box.top < frame.top + 20 * scale
          || box.left < frame.left + 20 * scale
          || box.bottom > frame.top + 700 * scale
          || box.right > frame.left + 1260 * scale))
        say(`<${part.tagName}> ${part.textContent.slice(0, 40)} sticks out`);
      if (parseFloat(getComputedStyle(part).fontSize) < 14)
        say(`small letters in <${part.tagName}>`);
      if (part.tagName == 'IMG' && !part.naturalWidth)
        say(`no picture ${part.src}`);
    }
    const body = slide.querySelector('.body');
    if (body && body.scrollHeight > body.clientHeight + 1)
      say('more than fits');
  }
  return found;
}"""


def test_every_slide_fits_and_asks_no_other_host(tmp_path):
    if browser.find_chromium() is None:
        lacking(browser.MISSING)
    folder = tmp_path / 'slides'
    counts = slides.make(plain.book_pages(), folder)
    assert len(counts) >= 8
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={'width': 1280, 'height': 720})
        asked, failed = [], []
        page.on('request', lambda request: asked.append(request.url))
        page.on('requestfailed', lambda request: failed.append(request.url))
        for name, count in counts.items():
            page.goto((folder / f'{name}.html').as_uri())
            page.wait_for_function('window.MathJax?.startup?.promise')
            page.evaluate('() => MathJax.startup.promise')
            assert page.evaluate('Reveal.getTotalSlides()') == count
            assert page.evaluate(MEASURE) == [], name
        # On paper each slide is a page; a taller one would need two.
        page.goto((folder / 'blocks.html').as_uri() + '?print-pdf')
        page.wait_for_selector('.pdf-page >> nth=-1', state='attached')
        heights = page.eval_on_selector_all(
            '.pdf-page', 'pages => pages.map(page => page.offsetHeight)')
        assert len(heights) == counts['blocks']
        assert max(heights) <= 720
        page.goto((folder / 'index.html').as_uri())
        assert page.locator('li a').count() == len(counts)
    assert failed == []
    assert all(url.startswith(('file:', 'data:')) for url in asked)
