"""The built pages, as a reader meets them: with eyes, keys and a slow line."""
import functools
import gzip
import html.parser
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import axe_playwright_python
import pytest
import yaml
from figures import served
from needs import lacking
from notebooks import ROOT, toc_pages

PAGES = ROOT / '_build' / 'html'
WEIGHT = 1.5e6  # bytes of a page with all that it loads, as it is sent
TEXT = {'.html', '.css', '.js', '.mjs', '.svg', '.json'}
AXE = (Path(axe_playwright_python.__file__).parent / 'axe.min.js')
NAMES = toc_pages()
# How wide a page is once all that heeds its width has done so.
SETTLED_WIDTH = """() => new Promise(done => requestAnimationFrame(
  () => requestAnimationFrame(
    () => done(document.documentElement.scrollWidth))))"""

each_page = pytest.mark.parametrize('name', NAMES)


@pytest.fixture(scope='module')
def address():
    if not (PAGES / 'book' / 'index.html').exists():
        lacking('no pages to look at: run `make book` first')
    with served(PAGES) as address:
        yield address


def opened(browser, address, name, **settings):
    """A page of the book; what it asked for stands in `page.asked`."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.asked, page.faults = [], []
    page.on('response', lambda answer: page.asked.append(answer))
    page.on('pageerror', lambda fault: page.faults.append(fault))
    page.goto(f'{address}/{name}.html')
    page.wait_for_load_state('networkidle')
    return page


@pytest.fixture(scope='module', params=NAMES)
def page(request, browser, address):
    """A page of the book, opened once for all that leaves no trace on it."""
    page = opened(browser, address, request.param, color_scheme='light')
    yield page
    page.context.close()


# Links

class Anchors(html.parser.HTMLParser):
    """Ids of a page, and what it refers to."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get('id'), attributes.get('name')}
        for key in ('href', 'src'):
            if tag != 'base' and attributes.get(key):
                self.links.append(attributes[key])


@functools.cache
def anchors(path):
    return Anchors(path)


def missing(path):
    """Links of a page that lead nowhere in the book."""
    for link in anchors(path).links:
        if re.match(r'[a-z][a-z+.-]*:|//', link, re.I) or link == '#':
            continue
        address, place = urldefrag(urljoin(path.as_uri(), link))
        target = Path(unquote(address.removeprefix('file://').split('?')[0]))
        if not target.exists():
            yield link
        elif place and target.suffix == '.html' and (
                unquote(place) not in anchors(target).ids):
            yield link


@each_page
def test_every_link_and_anchor_leads_somewhere(name):
    assert list(missing(PAGES / f'{name}.html')) == []


def test_a_lost_link_and_a_lost_anchor_are_noticed(tmp_path):
    page = tmp_path / 'a.html'
    page.write_text('<p id="x"><a href="#x">1</a><a href="#y">2</a>'
                    '<a href="b.html">3</a><a href="https://c.d">4</a>')
    assert list(missing(page)) == ['#y', 'b.html']


# Weight, faults, other hosts

@functools.cache
def sent(path):
    """Bytes of a file on the line: servers compress what is text."""
    data = (PAGES / unquote(path).strip('/')).read_bytes()
    return len(gzip.compress(data, 6) if Path(path).suffix in TEXT else data)


def test_a_page_is_light_and_asks_no_other_host(page, address):
    assert page.faults == []
    asked = [answer for answer in page.asked if answer.url.startswith('http')]
    hosts = {answer.url.split('/')[2] for answer in asked}
    assert hosts == {address.split('/')[2]}
    assert [answer.url for answer in asked if answer.status >= 400] == []
    weight = {answer.url: sent(urlsplit(answer.url).path) for answer in asked}
    heaviest = sorted(weight.items(), key=lambda item: -item[1])[:5]
    assert sum(weight.values()) <= WEIGHT, heaviest


def test_a_phone_scrolls_no_page_sideways(page):
    before = page.viewport_size
    page.set_viewport_size({'width': 390, 'height': 800})
    width = page.evaluate(SETTLED_WIDTH)
    page.set_viewport_size(before)
    assert width <= 390


# Everyone can read it

# A colour that fades into another is inherited by what fades after it.
END_FADES = '''() => {
  const fades = () => document.getAnimations()
    .filter(each => each instanceof CSSTransition);
  for (let left = 10; fades().length && left; left--)
    fades().forEach(each => each.finish());
  return fades().length;
}'''


def serious_faults(page, **options):
    page.evaluate('window.movingFigures?.ready')
    assert page.evaluate(END_FADES) == 0
    page.evaluate(AXE.read_text(encoding='utf-8'))
    found = page.evaluate('options => axe.run(document, options)',
                          {'resultTypes': ['violations'], **options})
    return [(fault['id'], [node['html'][:200] for node in fault['nodes']])
            for fault in found['violations']
            if fault['impact'] in ('serious', 'critical')]


def test_axe_has_no_serious_finding(page):
    assert page.locator('html').get_attribute('data-theme') == 'light'
    assert serious_faults(page) == []


def test_axe_has_no_serious_finding_in_the_dark(page):
    page.emulate_media(color_scheme='dark')
    try:
        page.wait_for_selector('html[data-theme=dark]', state='attached')
        # Only colours differ there.
        assert serious_faults(page, runOnly=['color-contrast']) == []
    finally:
        page.emulate_media(color_scheme='light')
        page.wait_for_selector('html[data-theme=light]', state='attached')


def test_a_term_of_the_glossary_explains_itself(browser, address):
    page = opened(browser, address, 'book/background/boxes-and-anchors')
    term = page.locator('a.term-link').first
    tip = page.locator('[role=tooltip]')
    assert not tip.is_visible()
    term.focus()
    assert tip.is_visible()
    assert tip.inner_text() == term.get_attribute('data-definition')
    assert term.get_attribute('aria-describedby') == 'term-tip'
    page.keyboard.press('Escape')
    assert not tip.is_visible()
    page.mouse.move(0, 0)
    term.hover()
    assert tip.is_visible()
    place = tip.bounding_box()
    assert place['x'] >= 0
    assert place['x'] + place['width'] <= 1280
    page.context.close()


def test_a_long_path_breaks_on_the_narrowest_screen(browser, address):
    page = opened(browser, address, 'book/teaching',
                  viewport={'width': 320, 'height': 800})
    assert page.evaluate('document.documentElement.scrollWidth') <= 320
    page.context.close()


def test_each_term_explains_itself_to_the_keyboard_when_enlarged(
        browser, address):
    page = opened(browser, address, 'book/background/boxes-and-anchors',
                  viewport={'width': 640, 'height': 400})
    tip = page.locator('[role=tooltip]')
    terms = page.locator('a.term-link')
    assert terms.count() > 5
    for i in range(terms.count()):
        terms.nth(i).focus()
        page.wait_for_function("""() => {
            const tip = document.querySelector('[role=tooltip]');
            const {top, bottom} = tip.getBoundingClientRect();
            return !tip.hidden && top >= 0 && bottom <= innerHeight + 1;
        }""")
        page.wait_for_timeout(100)  # nor does it vanish when all is still
        assert tip.is_visible(), i
    page.evaluate('document.activeElement.blur()')
    assert not tip.is_visible()
    page.context.close()


# What one looks for on a page

@pytest.fixture(scope='module')
def chapters():
    """Text of the built page of each notebook."""
    return {name: (PAGES / f'{name}.html').read_text('utf-8')
            for name in NAMES if (ROOT / f'{name}.ipynb').exists()}


def test_each_chapter_can_be_downloaded_and_launched(chapters):
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    owner = config['repository']['url'].split('github.com/')[1]
    for name, text in chapters.items():
        assert f'_sources/{name}.ipynb"' in text, name
        assert f'/github/{owner}/blob/colab/{name}.ipynb' in text, name
        assert re.search(rf'/v2/gh/{owner}/main\?urlpath=lab/tree/{name}',
                         text), name


def test_each_chapter_says_how_long_it_takes(chapters):
    for name, text in chapters.items():
        assert re.search(r'<p class="when">\d+ min to read', text), name


def test_each_chapter_has_a_next_and_a_search(chapters):
    for name, text in chapters.items():
        assert 'class="right-next"' in text, name
        assert 'search-button' in text, name


def test_a_shared_link_has_a_card(chapters):
    card = PAGES / '_static' / 'card.jpg'
    assert 0 < card.stat().st_size < 3e5
    for name, text in chapters.items():
        image = re.search(r'property="og:image" content="([^"]*)"', text)
        assert image[1].startswith('https://'), name
        assert image[1].endswith('/_static/card.jpg'), name
        assert f'/{name}.html"' in re.search(
            r'property="og:url" content="[^"]*"', text)[0]


def test_code_can_be_copied(browser, address):
    page = opened(browser, address, 'book/predictors')
    assert page.locator('.cell_input button.copybtn').count() >= 3
    page.context.close()


def test_a_name_in_code_leads_to_what_it_means(browser, address):
    page = opened(browser, address, 'book/prediction')
    name = page.locator('pre a.name', has_text='multibox_detection').first
    code = name.locator('xpath=ancestor::pre')
    assert 'import evaluating, multibox_detection' in code.inner_text()
    name.click()
    page.wait_for_url('**/book/package.html#d2lssd.multibox_detection')
    entry = page.locator('dl.py', has=page.locator(
        '[id="d2lssd.multibox_detection"]'))
    assert 'pos_threshold' in entry.inner_text()
    # It says where it is written, and leads back.
    where = entry.locator('p.when')
    assert where.inner_text().startswith('Written in Boxes and anchors. Used')
    where.locator('a').first.click()
    page.wait_for_url('**/book/background/boxes-and-anchors.html')
    assert page.locator('pre a.name', has_text='multibox_detection').count()
    page.context.close()


def test_figures_move_on_the_built_page(browser, address):
    page = opened(browser, address, 'book/background/boxes-and-anchors')
    page.evaluate('movingFigures.ready')
    assert page.locator('.moving-stage').count() == 3
    assert page.locator('figure.moving figcaption').count() == 3
    page.context.close()


def test_search_finds_a_word_without_a_server(browser):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f'{(PAGES / "search.html").as_uri()}?q=suppression')
    page.wait_for_selector('#search-results li')
    context.close()
