"""Pages of the book as plain Markdown, for readers that know no MyST.

Directives become quotes, folds and lists; roles become the words and numbers
that the built pages show. The assignment and the slides are made with it.
"""
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml
from notebooks import BOOK, ROOT
from pybtex.database import parse_file

OPENING = re.compile(r'(?P<fence>`{3,}|:{3,})(?:\{(?P<name>[^}\s]+)\}'
                     r'[ \t]*(?P<argument>.*)|[^`{]*)$')
OPTION = re.compile(r':(?P<key>[\w-]+):[ \t]*(?P<value>.*)$')
ROLE = re.compile(r'\{(?P<name>[a-z][\w:+.-]*)\}`(?P<text>[^`]+)`')
EXPLICIT = re.compile(r'(?P<text>.*?)\s*<(?P<target>[^<>]+)>$', re.S)
TARGET = re.compile(r'^\((?P<label>[\w-]+)\)=\s*$', re.M)
EQUATION_LABEL = re.compile(r'^\$\$[ \t]*\((?P<label>[\w-]+)\)[ \t]*$', re.M)
PAGE_LINK = re.compile(r'(?<!!)\[(?P<text>[^\]]+)\]\((?!\w+:)[^)\s]+\)')
HEADING = re.compile(r'^#\s+(?P<title>.+)$', re.M)
FORMULA = re.compile(r'(?<![$\\])\$(?P<tex>[^$\n]+)\$(?!\$)')
SIGNS = {r'\cdot': '·', r'\times': '×', r'\log': 'log', r'\sigma': 'σ',
         r'\gamma': 'γ', r'\sqrt': '√', r'\le': '≤', r'\ge': '≥',
         r'\lvert': '|', r'\rvert': '|', r'\dots': '…', r'\%': '%',
         r'\,': ' ', '^2': '²', '^3': '³', '^{-3}': '⁻³', '_0': '₀',
         '_1': '₁', '_2': '₂', '-': '−'}
ADMONITIONS = {'note', 'tip', 'hint', 'important', 'warning', 'caution',
               'attention', 'danger', 'error', 'seealso'}


@dataclass
class Directive:
    """A MyST directive: name, argument, options and the lines within."""
    name: str
    argument: str = ''
    options: dict = field(default_factory=dict)
    body: str = ''

    @property
    def folded(self):
        return (self.name == 'dropdown'
                or 'dropdown' in self.options.get('class', ''))

    @property
    def title(self):
        if self.name in ADMONITIONS:
            return {'seealso': 'See also'}.get(self.name,
                                               self.name.capitalize())
        return self.argument


def split(text):
    """Texts and directives of a Markdown text, in order."""
    parts, kept = [], []
    lines = iter(text.splitlines())
    for line in lines:
        opening = OPENING.match(line)
        if opening is None:
            kept.append(line)
            continue
        inside = []
        for inner in lines:
            closing = inner.strip()
            if (closing.startswith(opening['fence'])
                    and not closing.strip(opening['fence'][0])):
                break
            inside.append(inner)
        if opening['name'] is None:
            kept += [line, *inside, opening['fence']]
            continue
        parts.append('\n'.join(kept))
        kept = []
        options = {}
        while inside and (option := OPTION.match(inside[0])):
            options[option['key']] = option['value'].strip()
            inside.pop(0)
        parts.append(Directive(opening['name'], opening['argument'].strip(),
                               options, '\n'.join(inside).strip()))
    parts.append('\n'.join(kept))
    return [part for part in parts
            if isinstance(part, Directive) or part.strip()]


@dataclass
class Page:
    """A page of the book: its path, its number or None, its cells."""
    path: Path
    number: int | None
    cells: list

    @property
    def title(self):
        for cell in self.cells:
            if cell.cell_type == 'markdown':
                heading = HEADING.search(cell.source)
                if heading:
                    return heading['title'].strip()
        return self.path.stem


def read_cells(path):
    if path.suffix == '.ipynb':
        return nbformat.read(path, as_version=4).cells
    text = path.read_text(encoding='utf-8')
    return [nbformat.v4.new_markdown_cell(text)]


def book_pages():
    """Pages in reading order, numbered as the built book numbers them."""
    toc = yaml.safe_load((ROOT / '_toc.yml').read_text(encoding='utf-8'))
    number, pages = 0, []
    for part in toc['parts']:
        counted = part.get('numbered',
                           toc.get('defaults', {}).get('numbered', False))
        for chapter in part['chapters']:
            number += bool(counted)
            stem = ROOT / chapter['file']
            path = next((p for p in (stem.with_name(stem.name + '.ipynb'),
                                     stem.with_name(stem.name + '.md'))
                         if p.exists()), None)
            if path is not None:
                pages.append(Page(path, number if counted else None,
                                  read_cells(path)))
    return pages


class Labels:
    """What stands for each label of the book: 'Figure 5.2', a title, …"""

    def __init__(self, pages):
        self.words = {}
        for page in pages:
            self.add(page)

    def add(self, page):
        counts = {}

        def number(kind, label):
            counts[kind] = counts.get(kind, 0) + 1
            name = '.'.join(str(n) for n in (page.number, counts[kind])
                            if n is not None)
            if label:
                self.words[label] = (f'({name})' if kind == 'equation'
                                     else f'{kind} {name}')

        def walk(text):
            for part in split(text):
                if isinstance(part, str):
                    for match in EQUATION_LABEL.finditer(part):
                        number('equation', match['label'])
                    continue
                options = part.options
                if part.name == 'figure':
                    number('Figure', options.get('name'))
                elif part.name == 'exercise':
                    number('Exercise', options.get('label'))
                elif part.name == 'math' and 'label' in options:
                    number('equation', options['label'])
                elif part.name.endswith('table') and part.argument:
                    number('Table', options.get('name'))
                walk(part.body)

        for cell in page.cells:
            if cell.cell_type == 'markdown':
                for target in TARGET.finditer(cell.source):
                    after = re.search(r'^#+\s+(.+)$',
                                      cell.source[target.end():], re.M)
                    self.words[target['label']] = (
                        after[1].strip() if after else page.title)
                walk(cell.source)
            else:
                figure = cell.metadata.get('mystnb', {}).get('figure')
                if figure:
                    number('Figure', figure.get('name'))
        place = page.path
        if place.is_relative_to(BOOK):
            place = place.relative_to(BOOK)
        self.words[place.with_suffix('').as_posix()] = page.title

    def __getitem__(self, label):
        name = label.strip().lstrip('/')
        return self.words.get(name) or self.words.get(
            name.rpartition('/')[2], label)


@functools.cache
def references():
    """Citation key -> 'Liu et al., 2016'."""
    words = {}
    for key, entry in parse_file(BOOK / 'references.bib').entries.items():
        names = [' '.join(person.prelast_names + person.last_names)
                 for person in entry.persons.get('author', [])]
        who = names[0] if names else entry.fields.get('title', key)
        if len(names) == 2:
            who = ' and '.join(names)
        elif len(names) > 2:
            who += ' et al.'
        words[key] = f"{who}, {entry.fields.get('year', 'n.d.')}"
    return words


def inline(text, labels):
    """Roles, targets and links between pages in plain words."""
    def role(match):
        name, content = match['name'], match['text'].strip()
        explicit = EXPLICIT.match(content)
        target = explicit['target'] if explicit else content
        if name.startswith('cite'):
            keys = [key.strip() for key in content.split(',')]
            return f"({'; '.join(references().get(k, k) for k in keys)})"
        if name == 'eq':
            return labels[target]
        if name == 'numref':
            words = labels[target]
            if explicit:
                number = words.rpartition(' ')[2]
                return re.sub(r'%s|\{number\}', number, explicit['text'])
            return words
        if name in ('ref', 'doc', 'prf:ref'):
            return explicit['text'] if explicit else labels[target]
        if name == 'math':
            return f'${content}$'
        if name == 'abbr':
            return content.partition('(')[0].strip()
        return explicit['text'] if explicit else content

    text = TARGET.sub('', text)
    text = EQUATION_LABEL.sub('$$', text)
    text = ROLE.sub(role, text)
    # Braces behind a link or picture say how MyST shows it.
    text = re.sub(r'(?<=[)\]])\{[.#\w][^}\n]*\}', '', text)
    return PAGE_LINK.sub(lambda match: match['text'], text)


def quoted(text):
    return '\n'.join(f'> {line}'.rstrip() for line in text.splitlines())


def without_tex(text):
    """Short formulas in ordinary letters: a fold may not typeset them."""
    def spelled(match):
        words = match['tex']
        for tex, sign in SIGNS.items():
            words = re.sub(re.escape(tex) + r'(?![A-Za-z])', sign, words)
        words = re.sub(' +', ' ', words).strip()
        return match[0] if re.search(r'[\\^_{}]', words) else words
    return FORMULA.sub(spelled, text)


def plain(text, labels):
    """A MyST text as Markdown that JupyterLab and Colab show well."""
    blocks = []
    for part in split(text):
        if isinstance(part, str):
            blocks.append(inline(part, labels).strip('\n'))
            continue
        body = plain(part.body, labels)
        title = inline(part.title, labels)
        if part.folded:
            # JupyterLab with MyST draws no triangle to click at.
            blocks.append(f'<details><summary><b>{title}</b> (click to open)'
                          f'</summary>\n\n{without_tex(body)}\n\n</details>')
        elif part.name in ('figure', 'image'):
            words = labels[part.options.get('name', '')] or 'Figure'
            blocks.append(quoted(f'*{words} of the book.* {body}'))
        elif part.name == 'math':
            blocks.append(f'$$\n{part.body}\n$$')
        elif part.name in ('code-block', 'code'):
            blocks.append(f'```{part.argument}\n{part.body}\n```')
        elif part.name == 'admonition' or part.name in ADMONITIONS:
            blocks.append(quoted(f'**{title}**\n\n{body}'))
        else:
            blocks.append(body)
    return '\n\n'.join(block for block in blocks if block.strip())
