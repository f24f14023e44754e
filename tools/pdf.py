"""Print the built pages as one PDF: _build/book.pdf.

    python tools/pdf.py

Chromium prints each page with the site's own style sheet for paper; then come
a title page, a table of contents, page numbers and bookmarks, and links
between chapters are made links within the file.
"""
import html
import io
from urllib.parse import urlparse

import yaml
from browser import chromium
from figures import served
from notebooks import ROOT, toc_pages
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, NameObject, NullObject, NumberObject

PAGES = ROOT / '_build' / 'html'
TARGET = ROOT / '_build' / 'book.pdf'
MARGIN = {'top': '18mm', 'bottom': '22mm', 'left': '18mm', 'right': '18mm'}
# No answer folded, nothing lazy, every formula set. And a link to each place
# of the page, too small to be seen: Chromium notes where a place lies on paper
# only if something on the same page leads to it. `mend_links` removes them.
PREPARE = """async () => {
  document.documentElement.dataset.theme = 'light';
  for (const details of document.querySelectorAll('details:not(.hide)')) {
    details.open = true;
  }
  for (const folded of document.querySelectorAll('.toggle-hidden')) {
    folded.classList.remove('toggle-hidden');
  }
  const places = document.createElement('div');
  places.style.cssText = 'font-size: 1px; line-height: 1px';
  for (const {id} of document.querySelectorAll('.bd-article [id]')) {
    const link = document.createElement('a');
    link.href = `#${id}`;
    link.textContent = '.';
    places.append(link);
  }
  document.querySelector('.bd-article').append(places);
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image =>
    image.decode().catch(() => {})));
  await window.MathJax?.startup?.promise;
}"""
STYLE = """<style>
  body { font: 11pt/1.5 system-ui, sans-serif; margin: 0 }
  h1 { font-size: 32pt; line-height: 1.15; margin: 55mm 0 8mm }
  h2 { font-size: 20pt; break-before: page }
  a { color: inherit; text-decoration: none; display: flex; gap: 1ex }
  a.chapter { font-weight: bold; margin-top: 3mm }
  a.section { margin-left: 6mm }
  a i { flex: 1; border-bottom: 1px dotted #888; margin-bottom: .35em }
  .number { height: 297mm; position: relative; break-after: page }
  .number b { position: absolute; bottom: 10mm; width: 100%;
    text-align: center; font: 9pt system-ui, sans-serif; color: #444 }
</style>"""


HEADINGS = """() => [...document.querySelectorAll(
    '.bd-article :is(h1, h2, h3, h4, h5, h6)')]
  .filter(heading => heading.getClientRects().length)
  .map(heading => {
    const copy = heading.cloneNode(true);
    copy.querySelector('.headerlink')?.remove();
    return [Number(heading.tagName[1]), copy.textContent.trim()];
  })"""


def bookmarked(reader):
    """Pages of all headings, in order, from the bookmarks of Chromium."""
    def walk(items):
        for item in items:
            if isinstance(item, list):
                yield from walk(item)
            else:
                yield reader.get_destination_page_number(item)
    return list(walk(reader.outline))


def front(config, contents):
    """Title page and table of contents; links lead to http://page/NUMBER."""
    rows = ''.join(
        f'<a class="{"section" if level > 1 else "chapter"}" '
        f'href="http://page/{page}"><span>{html.escape(title)}</span><i></i>'
        f'<span>{page}</span></a>' for level, title, page in contents)
    return (f'<html lang="en"><title>{config["title"]}</title>{STYLE}'
            f'<h1>{config["title"]}</h1><p>{config["author"]}</p>'
            '<p>Text and figures CC BY-SA 4.0, code MIT</p>'
            f'<h2>Contents</h2>{rows}')


def print_html(sheet, text, **options):
    sheet.set_content(text)
    return PdfReader(io.BytesIO(sheet.pdf(
        format='A4', print_background=True, **options)))


def link_to(annotation, page, top=None):
    """Make a link lead to a page of this file."""
    annotation.pop('/A', None)
    annotation[NameObject('/Dest')] = ArrayObject(
        [page.indirect_reference, NameObject('/XYZ'), NullObject(),
         NullObject() if top is None else NumberObject(top), NullObject()])


def print_pages(browser, address):
    """A PDF of each page of the book, and its headings: level, text, page."""
    parts, headings = {}, {}
    for name in toc_pages():
        # A fresh page each: a long one leaves much memory behind.
        sheet = browser.new_page()
        sheet.goto(f'{address}/{name}.html')
        sheet.wait_for_load_state('networkidle')
        sheet.emulate_media(media='print', reduced_motion='reduce')
        sheet.evaluate(PREPARE)
        parts[name] = PdfReader(io.BytesIO(sheet.pdf(
            format='A4', margin=MARGIN, print_background=True, outline=True,
            tagged=True)))
        texts, places = sheet.evaluate(HEADINGS), bookmarked(parts[name])
        if len(texts) != len(places):
            raise SystemExit(f'{name} has {len(texts)} headings, and its '
                             f'print {len(places)}')
        headings[name] = [(level, text, place) for (level, text), place
                          in zip(texts, places) if level < 3]
        sheet.close()
        print(f'  {name}: {len(parts[name].pages)} pages', flush=True)
    return parts, headings


def mend_links(writer, parts, starts, address):
    """Lead links between and within chapters to places in this file, and
    remove those that lead to what only the web pages have."""
    for name, reader in parts.items():
        for i, page in enumerate(reader.pages):
            there, kept = writer.pages[starts[name] + i], ArrayObject()
            for old, new in zip(page.get('/Annots') or [],
                                there.get('/Annots') or []):
                if mended(old.get_object(), new.get_object(), name, parts,
                          starts, writer, address):
                    kept.append(new)
            there[NameObject('/Annots')] = kept


def mended(old, new, name, parts, starts, writer, address):
    """Mend one link of a chapter, if it needs to be; whether it is kept."""
    left, bottom, right, top = map(float, old['/Rect'])
    if top - bottom < 2:  # points; those of PREPARE
        return False
    if '/Dest' in old:
        place = str(old['/Dest'])
    else:
        parsed = str(old.get('/A', {}).get('/URI', ''))
        if not parsed.startswith(address):
            return True
        parsed = urlparse(parsed)
        name = parsed.path.strip('/').removesuffix('.html')
        if name not in starts:
            return False
        place = f'/{parsed.fragment}'
    reader, number, top = parts[name], 0, None
    if place := reader.named_destinations.get(place):
        number = reader.get_destination_page_number(place)
        top = place.top and int(place.top)
    link_to(new, writer.pages[starts[name] + number], top)
    return True


def main():
    if not (PAGES / 'index.html').exists():
        raise SystemExit('No pages to print: run `make book` first.')
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    print('== the book on paper', flush=True)
    writer = PdfWriter()
    with served(PAGES) as address, chromium() as browser:
        parts, headings = print_pages(browser, address)
        sheet = browser.new_page()
        opening, count = None, 1
        # Page numbers depend on how many pages the contents take.
        while opening is None or len(opening.pages) != count:
            count = len(opening.pages) if opening else 2
            starts, contents, at = {}, [], count
            for name, reader in parts.items():
                starts[name] = at
                contents += [(level, title, at + page + 1)
                             for level, title, page in headings[name]]
                at += len(reader.pages)
            opening = print_html(sheet, front(config, contents),
                                 margin=MARGIN)
        numbers = print_html(sheet, f'<html lang="en">{STYLE}' + ''.join(
            f'<div class="number"><b>{n + 1}</b></div>'
            for n in range(at)))
    for reader in (opening, *parts.values()):
        writer.append(reader, import_outline=False)
    for i, page in enumerate(writer.pages):
        if i:
            page.merge_page(numbers.pages[i])
    mend_links(writer, parts, starts, address)
    for page in writer.pages[:count]:
        for annotation in page.get('/Annots') or []:
            annotation = annotation.get_object()
            target = str(annotation.get('/A', {}).get('/URI', ''))
            if target.startswith('http://page/'):
                number = int(target.rpartition('/')[2])
                link_to(annotation, writer.pages[number - 1])
    chapter = None
    for level, title, page in contents:
        mark = writer.add_outline_item(
            title=title, page_number=page - 1,
            parent=chapter if level > 1 else None)
        chapter = chapter if level > 1 else mark
    writer.add_metadata({'/Title': config['title'],
                         '/Author': config['author']})
    writer.write(TARGET)
    print(f'{TARGET.relative_to(ROOT)}: {at} pages, '
          f'{TARGET.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
