"""A Sphinx extension: names of the package lead to what they mean.

In code cells, and in the text where they are written with `d2lssd.` before
them, names link to the page on the package; each entry there says which
chapters write it and which use it.
"""
import ast
import html
import re
import symtable

import nbformat
from docutils import nodes
from notebooks import ROOT, notebook_paths
from sphinx import addnodes

import d2lssd

PAGE = 'book/package'
# Not its modules, and not what it only passes on.
NAMES = set(d2lssd.__all__) - {'check', 'data', 'widgets', 'plt'}
QUALIFIED = re.compile(r'\bd2lssd\.(\w+)')
FENCE = re.compile(r'^```python\n(.*?)^```', re.M | re.S)
# As Pygments writes them: `d2lssd.name`; the name of a definition; and a name
# alone that is neither an attribute nor a keyword.
IN_CODE = re.compile(
    r'(?P<before><span class="n">d2lssd</span><span class="o">\.</span>|'
    r'^<span class="k">(?:def|class)</span><span class="w"> </span>|'
    r'(?<!<span class="o">\.</span>))'
    r'(?P<name><span class="n[fc]?">(?P<word>\w+)</span>)'
    r'(?!<span class="o">=</span>)', re.M)


def without_magic(source):
    return re.sub(r'^[%!].*$', '', source, flags=re.M)


def names_of(notebook):
    """Names of the package in the code of a notebook.

    Returns:
        dict: those ``'defined'`` there; those ``'used'``; and those that,
        ``'alone'``, without `d2lssd.` before them, mean the package's.
    """
    defined, imported, used, other = set(), set(), set(), set()
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            used.update(*map(QUALIFIED.findall, FENCE.findall(cell.source)))
        if cell.cell_type != 'code':
            continue
        source = without_magic(cell.source)
        tree = ast.parse(source)
        here = {node.name for node in tree.body if isinstance(
            node, ast.FunctionDef | ast.ClassDef)}
        defined |= here
        other |= bound(symtable.symtable(source, 'cell', 'exec')) - here
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module='d2lssd', names=names):
                    used |= {each.name for each in names}
                    imported |= {each.name for each in names
                                 if not each.asname}
                    other |= {each.asname for each in names}
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    other |= {each.asname or each.name for each in names}
                case ast.Attribute(value=ast.Name(id='d2lssd'), attr=name):
                    used.add(name)
    return {'defined': defined & NAMES, 'used': (used - defined) & NAMES,
            'alone': (imported | defined) & NAMES - other}


def bound(table):
    """Names that a scope binds by other means than an import."""
    return {symbol.get_name() for symbol in table.get_symbols()
            if symbol.is_assigned() or symbol.is_parameter()}


def bound_within(table):
    """Names that the functions and classes of a piece of code bind."""
    return set().union(*(bound(child) | bound_within(child)
                         for child in table.get_children()))


def read_names(app):
    app.names_by_page = {
        path.relative_to(ROOT).with_suffix('').as_posix():
        names_of(nbformat.read(path, as_version=4))
        for path in notebook_paths()}


def link_text(app, doctree, docname):
    """Link `d2lssd.name` in the text."""
    if app.builder.format != 'html':
        return
    page = app.builder.get_relative_uri(docname, PAGE)
    for literal in list(doctree.findall(nodes.literal)):
        name = re.fullmatch(QUALIFIED.pattern + r'(?:\(.*\))?',
                            literal.astext())
        if name and name[1] in NAMES and not isinstance(
                literal.parent, (nodes.reference, nodes.title)):
            link = nodes.reference('', '', internal=True,
                                   refuri=f'{page}#d2lssd.{name[1]}')
            literal.replace_self(link)
            link += literal


def link_names(code, alone, page):
    """Link the names in a piece of highlighted code.

    Args:
        code: HTML.
        alone: names that mean the package's without `d2lssd.` before them.
        page: the address of the page on the package.
    """
    try:
        source = html.unescape(re.sub(r'<[^>]+>', '', code))
        own = bound_within(symtable.symtable(
            without_magic(source), 'code', 'exec'))
    except SyntaxError:  # no Python
        own = NAMES

    def link(match):
        name = match['word']
        if name not in (NAMES if 'd2lssd' in match['before']
                        else alone - own):
            return match[0]
        return (f'{match["before"]}<a class="name" href="{page}#d2lssd.'
                f'{name}">{match["name"]}</a>')
    return IN_CODE.sub(link, code)


def link_code(app, pagename, templatename, context, doctree):
    """Link names in the code of a page."""
    if app.builder.format != 'html' or doctree is None or pagename == PAGE:
        return
    alone = app.names_by_page.get(pagename, {}).get('alone', set())
    page = app.builder.get_relative_uri(pagename, PAGE)
    context['body'] = re.sub(
        r'(<pre>(?:<span></span>)?)(.*?)(?=</pre>)',
        lambda pre: pre[1] + link_names(pre[2], alone, page),
        context['body'], flags=re.S)


def say_where(app, doctree, docname):
    """Under each entry of the page: the chapters that write and use it."""
    if docname != PAGE:
        return
    for entry in doctree.findall(addnodes.desc):
        name = ''.join(entry[0]['ids']).removeprefix('d2lssd.')
        line = nodes.paragraph('', '', classes=['when'])
        for words, which in (('Written in ', 'defined'),
                             ('Used in ', 'used')):
            pages = [page for page, found in app.names_by_page.items()
                     if name in found[which]]
            for i, page in enumerate(pages):
                line += nodes.Text(
                    ' · ' if i else '. ' * bool(len(line)) + words)
                line += nodes.reference(
                    '', app.env.titles[page].astext(), internal=True,
                    refuri=app.builder.get_relative_uri(docname, page))
        if len(line):
            entry[1].append(line)


def setup(app):
    app.connect('builder-inited', read_names)
    app.connect('doctree-resolved', link_text)
    app.connect('doctree-resolved', say_where)
    app.connect('html-page-context', link_code)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
