"""Make slides of the chapters, to be shown without a network.

    python tools/slides.py

One page a chapter in _build/slides, from the chapters' own cells: code with
what it printed, figures, formulas, boxes and questions become slides; the
prose between them goes to the speaker's notes (press S). A cell with
`"slideshow": {"slide_type": "skip"}` in its metadata is left out.
"""
import ast
import base64
import html
import math
import re
import shutil
import textwrap
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Template
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from notebooks import ROOT, tidy
from PIL import Image
from plain import ADMONITIONS, Labels, book_pages, inline, plain, split
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

SLIDES = ROOT / '_build' / 'slides'
PICTURES = {'image/svg+xml': 'svg', 'image/png': 'png', 'image/jpeg': 'jpg'}
# Pixels of a slide of 1280 x 720: room for code below a title, what a line of
# the lead takes of it, and the sizes between which letters may be chosen.
WIDTH, HEIGHT, LEAD_LINE = 1120, 530, 46
LARGEST, SMALLEST, SMALLEST_WITH_OUTPUT = 26, 15, 17
# Of the size of letters: the height of a line, the width of a letter.
LINE, LETTER = 1.4, 0.605
# What a box and a question leave for their text.
BOX, QUESTION = 470, 360
# A picture higher than so much of its width has its caption beside it.
TALL = 0.85
# Letters of a lead, in all and on a line; printed lines.
LEAD, LEAD_COLUMNS = 170, 82
PRINTED = 16
ITEM = r'\s*([-*]|\d+\.)\s'


@dataclass
class Slide:
    """A slide: title and lead as HTML, what it shows, what is said to it."""
    title: str
    lead: str = ''
    body: str = ''
    kind: str = ''
    notes: list = field(default_factory=list)


def to_html(markdown):
    return markdown2html_mistune(markdown.strip()).strip()


def one_line(markdown):
    return re.sub(r'^<p>|</p>$', '', to_html(markdown).strip())


def sentences(text):
    """The sentences of a paragraph; formulas and code are not torn."""
    text = ' '.join(text.split())
    return re.split(r'(?<=[.!?])\s+(?=[A-Z*`$"(])', text)


def blocks(text):
    """Paragraphs, lists, formulas, fences of a plain text, in order."""
    found, kept, until = [], [], None
    for line in text.splitlines():
        bare = line.strip()
        if until is None and not bare:
            if kept:
                found.append('\n'.join(kept))
                kept = []
            continue
        if until is None and bare.startswith('#'):
            found += ['\n'.join(kept)] if kept else []
            found.append(bare)
            kept = []
            continue
        kept.append(line)
        if until is not None:
            until = None if bare.startswith(until) else until
        elif bare.startswith('```'):
            until = '```'
        elif bare.startswith('$$') and not (len(bare) > 2
                                            and bare.endswith('$$')):
            until = '$$'
    return found + (['\n'.join(kept)] if kept else [])


def prose(markdown, height=HEIGHT):
    """A text in letters as large as there is room for, at most 28 pixels."""
    for pixels in (28, 26, 24, 22, 20, 18):
        columns = WIDTH / pixels / 0.52
        lines = 0
        for block in blocks(markdown):
            rows = block.splitlines()
            if block.startswith('|'):
                lines += sum(0.35 + math.ceil(1.3 * len(row) / columns)
                             for row in rows if set(row) - set('|-: '))
            elif block.startswith(('$$', '```')):
                lines += len(rows) - 1
            elif re.match(ITEM, block):
                lines += sum(0.3 + math.ceil(len(row) / columns) for row in
                             re.sub(r'\n(?=\s+\S)', ' ', block).splitlines())
            else:
                lines += math.ceil(len(' '.join(rows)) / columns)
            lines += 0.4
        if lines * pixels * 1.45 <= height:
            break
    return (f'<div class="words" style="font-size:{pixels}px">'
            f'{to_html(markdown)}</div>')


def rows_apart(table, most=6):
    """A table as tables of so many rows, each with the head."""
    head, rule, *rows = table.strip().splitlines()
    for i in range(0, len(rows), most):
        yield '\n'.join([head, rule, *rows[i:i + most]])


def joined(parts):
    """A list whose items stand apart is still one list."""
    result = []
    for part in parts:
        if result and re.match(ITEM, part) and re.match(ITEM, result[-1]):
            result[-1] += '\n' + part
        else:
            result.append(part)
    return result


def size(lines, height, width=WIDTH):
    """Size of letters in which lines fit into a box, in pixels."""
    columns = max(map(len, lines), default=1) or 1
    return min(LARGEST, width / LETTER / columns,
               height / LINE / max(1, len(lines)))


def pre(content, kind, pixels):
    return (f'<pre class="{kind}" style="font-size:{pixels:.1f}px">'
            f'{content}</pre>')


def printed(lines, pixels):
    return pre(html.escape('\n'.join(lines)), 'printed', pixels)


def colored(source):
    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


def pieces(source, most):
    """Code in pieces of so many lines at most, torn at empty lines."""
    lines = source.rstrip().splitlines()
    while len(lines) > most:
        empty = [i for i, line in enumerate(lines[:most]) if not line.strip()]
        tops = [i for i, line in enumerate(lines[1:most], 1)
                if line[:1].strip()]
        at = (empty or tops or [most])[-1]
        yield '\n'.join(lines[:at]).rstrip()
        lines = lines[at:]
        while lines and not lines[0].strip():
            lines.pop(0)
    yield '\n'.join(lines)


def is_aside(cell):
    """Imports, settings and checks belong to a notebook, not on a slide."""
    if 'remove-cell' in cell.metadata.get('tags', []):
        return True
    statements = ast.parse(re.sub(r'(?m)^\s*[%!].*$', 'pass',
                                  cell.source)).body
    asserts = any(isinstance(node, ast.Assert) for node in statements)
    return (asserts and not cell.outputs) or all(
        isinstance(node, ast.Import | ast.ImportFrom)
        for node in statements)


class Deck:
    """The slides of one chapter."""

    def __init__(self, page, labels, folder):
        self.page, self.labels, self.folder = page, labels, folder
        self.heading, self.said, self.slides = '', [], []
        self.opened = self.pictures = 0

    def add(self, body, kind='', title=None, lead=True):
        """A slide that shows `body`; what was said goes to its notes."""
        self.slides.append(Slide(
            self.heading if title is None else title,
            one_line(self.lead()) if lead else '', body, kind,
            [to_html(said) for said in self.said]))
        self.said = []

    def lead(self):
        """The sentence that leads to what comes next, if it is short."""
        if not self.said:
            return ''
        last = [sentence for sentence in sentences(self.said[-1])
                if not sentence.startswith('(')] or ['']
        return last[-1] if len(last[-1]) <= LEAD else ''

    def room(self, lead=True):
        """Height that is left for code."""
        lines = math.ceil(len(self.lead()) / LEAD_COLUMNS) if lead else 0
        return HEIGHT - LEAD_LINE * lines

    def close(self):
        """Before a new heading: nothing said may be lost."""
        if not self.said:
            return
        if len(self.slides) > self.opened:
            self.slides[-1].notes += map(to_html, self.said)
            self.said = []
        elif self.heading:
            points = [sentences(said)[0] for said in self.said[:5]]
            self.add(prose('\n'.join(f'- {p}' for p in points)), 'text',
                     lead=False)

    def markdown(self, source):
        for part in split(source):
            if isinstance(part, str):
                for block in joined(blocks(inline(part, self.labels))):
                    self.block(block)
            else:
                self.directive(part)

    def block(self, block):
        bare = block.strip()
        if bare.startswith('# '):
            self.heading = ''
            number = self.page.number
            self.slides.append(Slide(
                one_line(bare[2:]), kind='title',
                lead=f'Chapter {number}' if number else ''))
        elif bare.startswith('#'):
            self.close()
            self.heading = one_line(bare.lstrip('# '))
            self.opened = len(self.slides)
        elif bare.startswith('<'):
            pass
        elif bare.startswith('```'):
            lines = bare.splitlines()[1:-1]
            self.add(pre(html.escape('\n'.join(lines)), 'code',
                         size(lines, self.room())), 'code')
        elif bare.startswith('$$'):
            self.add(to_html(bare), 'math')
        elif bare.startswith('|') and '\n|' in bare:
            for i, table in enumerate(rows_apart(bare)):
                self.add(prose(table, self.room()), 'text', lead=i == 0)
        elif re.match(ITEM, bare):
            self.add(prose(bare, self.room()), 'text')
        elif self.slides and self.slides[-1].kind == 'title' and (
                not self.slides[-1].body):
            self.slides[-1].body = to_html(bare)
        else:
            self.said.append(bare)

    def directive(self, part):
        title = one_line(inline(part.title, self.labels))
        if part.name == 'figure':
            self.figure_file(part)
        elif part.name == 'exercise':
            number = self.labels[part.options.get('label', '')]
            self.add(prose(plain(part.body, self.labels)), 'text',
                     title=f'{number}: {title}', lead=False)
        elif part.folded:
            if title == 'Hint':
                self.slides[-1].notes.append(
                    to_html(plain(part.body, self.labels)))
                return
            self.add(f'<p class="question">{title}</p><div class="fragment">'
                     f'{prose(plain(part.body, self.labels), QUESTION)}'
                     '</div>', 'text', lead=False)
        elif part.name == 'admonition' or part.name in ADMONITIONS:
            self.add(prose(plain(part.body, self.labels), BOX), 'text box',
                     title=title, lead=False)
        elif part.name == 'math':
            self.add(to_html(f'$$\n{part.body}\n$$'), 'math')
        elif part.name in ('code-block', 'code'):
            lines = part.body.splitlines()
            self.add(pre(html.escape(part.body), 'code',
                         size(lines, self.room())), 'code')

    def figure_file(self, part):
        source = (self.page.path.parent / part.argument).resolve()
        if not source.exists():
            source = ROOT / 'book' / part.argument.lstrip('/')
        shutil.copy(source, self.folder / 'figures')
        self.figure(source.name, part.options.get('alt', ''),
                    plain(part.body, self.labels),
                    self.labels[part.options.get('name', '')])

    def picture(self, data, kind):
        """Write a stored picture to a file; return its name."""
        self.pictures += 1
        name = f'{self.page.path.stem}-{self.pictures}.{PICTURES[kind]}'
        content = (data.encode() if kind == 'image/svg+xml'
                   else base64.b64decode(data))
        (self.folder / 'figures' / name).write_bytes(content)
        return name

    def figure(self, name, alt, caption, number='', code=''):
        words = ' '.join(sentences(caption)[:2])
        if number:
            words = f'**{number}.** {words}'
        image = (f'<img src="figures/{name}" alt="{html.escape(alt)}">')
        caption = (f'<figcaption>{one_line(words)}</figcaption>'
                   if words else '')
        kind = ('beside' if code else 'tall'
                if self.aspect(name) > TALL else 'figure')
        self.add(f'{code}<figure>{image}{caption}</figure>', kind)

    def aspect(self, name):
        """Height of a picture by its width."""
        path = self.folder / 'figures' / name
        if path.suffix == '.svg':
            *_, width, height = re.search(
                r'viewBox="([^"]+)"', path.read_text('utf-8'))[1].split()
            return float(height) / float(width)
        with Image.open(path) as image:
            return image.height / image.width

    def code(self, cell):
        if is_aside(cell):
            return
        tags = cell.metadata.get('tags', [])
        source = cell.source.rstrip()
        if {'hide-input', 'remove-input', 'hide-cell'} & set(tags):
            source = ''
        source = re.sub(r'\n{3,}', '\n\n', source)
        text, pictures = self.outputs(cell)
        lines = source.splitlines()
        half = size(lines, HEIGHT - LEAD_LINE * 2, WIDTH / 2)
        if source and pictures and not text and half >= SMALLEST:
            self.pictured(cell, pictures,
                          pre(colored(source), 'code', min(20, half)))
            return
        # Two lines for the space between code and output.
        together = size([*lines, '', '', *text], self.room())
        if source and text and together >= SMALLEST_WITH_OUTPUT:
            self.add(pre(colored(source), 'code', together)
                     + printed(text, together), 'code')
        else:
            if source:
                self.listing(source)
            if text:
                self.add(printed(text, size(text, self.room(not source))),
                         'code', lead=not source)
        if pictures:
            self.pictured(cell, pictures)

    def listing(self, source):
        most = int(self.room() / LINE / SMALLEST)
        for i, piece in enumerate(pieces(source, most)):
            self.add(pre(colored(piece), 'code',
                         size(piece.splitlines(), self.room())),
                     'code', lead=i == 0)

    def outputs(self, cell):
        """Printed lines, and the names of picture files."""
        text, pictures = [], []
        for output in tidy(cell.outputs):
            if output.output_type == 'stream':
                if output.name == 'stdout':
                    text += output.text.rstrip().splitlines()
                continue
            if output.output_type not in ('execute_result', 'display_data'):
                continue
            kinds = [kind for kind in PICTURES if kind in output.data]
            if kinds:
                pictures.append(self.picture(output.data[kinds[0]],
                                             kinds[0]))
            elif 'text/plain' in output.data:
                text += output.data['text/plain'].rstrip().splitlines()
        if len(text) > PRINTED:
            text = [*text[:PRINTED - 1], '…']
        return [textwrap.shorten(line, 118, placeholder=' …')
                if len(line) > 118 else line for line in text], pictures

    def pictured(self, cell, pictures, code=''):
        shown = cell.metadata.get('mystnb', {})
        figure, alt = shown.get('figure', {}), shown.get('image', {})
        for name in pictures:
            self.figure(name, alt.get('alt', ''),
                        inline(figure.get('caption', ''), self.labels),
                        self.labels[figure.get('name', '')], code)
            code = ''

    def build(self):
        for cell in self.page.cells:
            kind = cell.metadata.get('slideshow', {}).get('slide_type')
            if kind == 'skip':
                continue
            if kind == 'notes':
                self.said.append(plain(cell.source, self.labels))
            elif cell.cell_type == 'markdown':
                self.markdown(cell.source)
            elif cell.cell_type == 'code':
                self.code(cell)
        self.close()
        return self.slides


def chapters(pages):
    """The pages that are taught: notebooks with a number, no solutions."""
    return [page for page in pages
            if page.number is not None and page.path.suffix == '.ipynb'
            and not any('solution' in cell.metadata.get('d2lssd', {})
                        for cell in page.cells)]


def copy_program(folder):
    """reveal.js and MathJax, from the packages that carry them."""
    reveal = resources.files('sphinx_revealjs') / '_static' / 'revealjs'
    mathjax = resources.files('sphinx-mathjax-offline') / 'static' / 'mathjax'
    target = folder / 'program'
    target.mkdir(parents=True)
    for source in (reveal / 'dist' / 'reset.css', reveal / 'dist' /
                   'reveal.css', reveal / 'dist' / 'reveal.js',
                   reveal / 'plugin' / 'notes' / 'notes.js',
                   reveal / 'plugin' / 'zoom' / 'zoom.js',
                   reveal / 'LICENSE', mathjax / 'tex-svg.js'):
        (target / source.name).write_bytes(source.read_bytes())
    style = HtmlFormatter(style='a11y-high-contrast-light')
    css = (ROOT / 'tools' / 'slides.css').read_text(encoding='utf-8')
    (target / 'slides.css').write_text(
        css + style.get_style_defs('pre.code'), encoding='utf-8')


def make(pages, folder):
    """Write the slides of some pages; returns {page: number of slides}."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / 'figures').mkdir(parents=True)
    copy_program(folder)
    labels = Labels(pages)
    page_html, index_html = (
        Template((ROOT / 'tools' / name).read_text(encoding='utf-8'),
                 trim_blocks=True, lstrip_blocks=True)
        for name in ('slides.html', 'slides_index.html'))
    counts = {}
    decks = chapters(pages)
    for page in decks:
        slides = Deck(page, labels, folder).build()
        counts[page.path.stem] = len(slides)
        (folder / f'{page.path.stem}.html').write_text(
            page_html.render(title=page.title, slides=slides),
            encoding='utf-8')
    (folder / 'index.html').write_text(index_html.render(
        chapters=[(page, counts[page.path.stem]) for page in decks]),
        encoding='utf-8')
    return counts


def main():
    counts = make(book_pages(), SLIDES)
    print(f'{sum(counts.values())} slides of {len(counts)} chapters. Open\n'
          f'  {(SLIDES / "index.html").as_uri()}')


if __name__ == '__main__':
    main()
