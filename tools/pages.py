"""A Sphinx extension: what the pages of this book have beyond the theme's.

Moving figures, glossary terms that explain themselves, an estimate of time
for each chapter, a card for those who share a link, and a Colab button whose
notebook installs the package.
"""
import html
import re
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import yaml
from docutils import nodes
from notebooks import ROOT, notebook_paths
from sphinx import addnodes

GLOSSARY = 'book/glossary'
CARD = 'card.jpg'
# The branch that holds the notebooks as Colab can run them; see colab.py.
COLAB_BRANCH = 'colab'
WORDS_A_MINUTE = 200
CODE_LINES_A_MINUTE = 20
NOT_PROSE = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference,
             nodes.caption, nodes.term, nodes.math, nodes.raw, nodes.rubric,
             addnodes.desc)
SUMMARY = ('Build an object detector from nothing, train it on a laptop and '
           'see it find bananas: a book of notebooks.')


def repository():
    """Address and branch of the repository, from their only home."""
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    url = config['repository']['url']
    if not re.fullmatch(r'https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)', url):
        raise ValueError(f'_config.yml: repository: url is {url!r}; links to '
                         'the book need it as https://github.com/OWNER/NAME, '
                         'with nothing behind NAME')
    return url, config['repository']['branch']


def site_address():
    """Where GitHub Pages shows the book of this repository."""
    owner, name = urlparse(repository()[0]).path.strip('/').split('/')
    host = f'{owner.lower()}.github.io'
    return f'https://{host}/' if name == host else f'https://{host}/{name}/'


# Times

def reading_minutes(notebook):
    """An estimate, from the words of the text and the lines of code."""
    words = lines = 0
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            words += len(re.findall(r'\w+', cell.source))
        elif cell.cell_type == 'code' and 'remove-cell' not in (
                cell.metadata.get('tags', [])):
            lines += sum(bool(line.strip())
                         for line in cell.source.splitlines())
    return words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE


def in_words(notebook):
    """(minutes to read, how long it runs), as a reader is told them."""
    minutes = max(5, 5 * round(reading_minutes(notebook) / 5))
    measured = notebook.metadata.get('running_time')
    if not measured:
        return f'{minutes} min', None
    seconds = measured['seconds']
    took = (f'{max(5, 5 * round(seconds / 5))} s' if seconds < 100
            else f'{round(seconds / 60)} min')
    cores = measured['cores']
    return (f'{minutes} min',
            f'{took} on {cores} processor core{"s" * (cores != 1)}')


def times():
    """What `in_words` says of each chapter, by page name."""
    return {path.relative_to(ROOT).with_suffix('').as_posix():
            in_words(nbformat.read(path, as_version=4))
            for path in notebook_paths()}


def say_times(app, config):
    """Make `{{ time_training }}` and its like known to all pages."""
    app.chapter_times = times()
    config.myst_substitutions = dict(config.myst_substitutions, **{
        'time_' + re.sub(r'\W', '_', page.rpartition('/')[2]): reading
        for page, (reading, _) in app.chapter_times.items()})


def add_time(app, doctree, docname):
    """Put the estimate under the title of a chapter."""
    if docname not in app.chapter_times:
        return
    reading, running = app.chapter_times[docname]
    text = f'{reading} to read' + (f' · runs in {running}' if running else '')
    title = next(doctree.findall(nodes.title), None)
    if title is not None:
        line = nodes.paragraph('', text, classes=['when'])
        title.parent.insert(title.parent.index(title) + 1, line)


# Glossary

def glossary(app):
    """{term in lower case: (anchor, definition)} of the glossary's page."""
    if GLOSSARY not in app.env.found_docs:
        return {}
    terms = {}
    for item in app.env.get_doctree(GLOSSARY).findall(
            nodes.definition_list_item):
        definition = next(item.findall(nodes.definition)).astext()
        for term in item.findall(nodes.term):
            terms[term.astext().lower()] = (
                term['ids'][0], ' '.join(definition.split()))
    return terms


def explain_terms(app, doctree, docname):
    """Link the first use of each term on a page, with its definition."""
    if app.builder.format != 'html' or docname == GLOSSARY or (
            not docname.startswith('book/')):
        return
    if not hasattr(app, 'glossary_terms'):
        app.glossary_terms = glossary(app)
    terms = dict(app.glossary_terms)
    if not terms:
        return
    pattern = re.compile(r'(?<![\w-])(' + '|'.join(
        re.escape(term) for term in sorted(terms, key=len, reverse=True))
        + r')(?:e?s)?(?![\w-])', re.I)
    page = app.builder.get_relative_uri(docname, GLOSSARY)
    for text in list(doctree.findall(nodes.Text)):
        if not is_prose(text):
            continue
        new, end = [], 0
        for match in pattern.finditer(text):
            anchor, definition = terms.pop(match[1].lower(), (None, None))
            if anchor is None:
                continue
            new += [nodes.Text(text[end:match.start()]), nodes.raw(
                '', f'<a class="reference internal term-link" '
                f'href="{page}#{anchor}" data-definition='
                f'"{html.escape(definition)}">{html.escape(match[0])}</a>',
                format='html')]
            end = match.end()
        if new:
            text.parent.replace(text, [*new, nodes.Text(text[end:])])


def is_prose(text):
    """Whether a text stands in a paragraph of the page itself."""
    node, paragraph = text.parent, False
    while node is not None:
        if isinstance(node, NOT_PROSE):
            return False
        if isinstance(node, nodes.Element) and {
                'sd-card', 'when', 'cell_output', 'exercise'} & set(
                    node.get('classes', ())):
            return False
        paragraph = paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return paragraph


# The head of a page

def add_to_page(app, pagename, templatename, context, doctree):
    """Scripts where they are needed, and the card of a shared link."""
    if doctree is not None:
        if any('moving' in figure['classes']
               for figure in doctree.findall(nodes.figure)):
            app.add_css_file('figures/moving.css')
            app.add_js_file('figures/moving.js', loading_method='defer')
        if 'data-definition' in context.get('body', ''):
            app.add_js_file('terms.js', loading_method='defer')
    here = site_address()
    title = html.escape(re.sub(r'<[^>]+>', '', context.get('title', '')))
    tags = {
        'og:type': 'article', 'og:title': title,
        'og:site_name': html.escape(app.config.html_title),
        'og:description': SUMMARY,
        'og:url': f'{here}{pagename}.html',
        'og:image': f'{here}_static/{CARD}',
        'og:image:width': '1200', 'og:image:height': '630',
        'og:image:alt': 'A photograph with bananas in boxes, and the title '
        'of the book.'}
    context['metatags'] = context.get('metatags', '') + ''.join(
        f'\n<meta property="{name}" content="{value}">'
        for name, value in tags.items()) + (
        f'\n<meta name="description" content="{SUMMARY}">'
        '\n<meta name="twitter:card" content="summary_large_image">')
    for kind in ('script_files', 'css_files'):
        # The theme brings Thebe, twice over, and nothing here uses it.
        context[kind] = [entry for entry in context[kind]
                         if 'thebe' not in str(entry).lower()]
    if 'body' in context:
        # docutils gives citations roles that they cannot have.
        context['body'] = re.sub(
            r'(<div class="citation" id="[^"]*") role="doc-biblioentry"',
            r'\1', context['body'].replace(
                '<div role="list" class="citation-list">',
                '<div class="citation-list">'))
    for group in context.get('header_buttons', []):
        for button in group.get('buttons', []):
            if button.get('text') == 'Colab':
                button['url'] = button['url'].replace(
                    f'/blob/{repository()[1]}/', f'/blob/{COLAB_BRANCH}/')


def lighten(app, exception):
    """Take out a script of half a megabyte that draws the theme's icons.

    Its style sheet has them all as a font, and that is loaded anyway.
    """
    if exception is None and app.builder.format == 'html':
        for path in Path(app.outdir).rglob('*.html'):
            text = path.read_text(encoding='utf-8')
            less = re.sub(r'<(?:script|link)[^>]*fontawesome\.js[^>]*>'
                          r'(?:</script>)?', '', text)
            if less != text:
                path.write_text(less, encoding='utf-8')


def setup(app):
    app.connect('config-inited', say_times)
    app.connect('doctree-resolved', add_time)
    app.connect('doctree-resolved', explain_terms)
    # After the theme, which makes the buttons.
    app.connect('html-page-context', add_to_page, priority=900)
    app.connect('build-finished', lighten)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
