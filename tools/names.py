"""A Sphinx extension: names of the package lead to what they mean.

In code cells, and in the text where they are written with `d2lssd.` before
them, names link to the page on the package; each entry there says which
chapters write it and which use it.
"""
import ast
import re

import nbformat
from docutils import nodes
from notebooks import ROOT, notebook_paths

import d2lssd

PAGE = 'book/package'
# Not its modules, and not what it only passes on.
NAMES = set(d2lssd.__all__) - {'check', 'data', 'widgets', 'plt'}
QUALIFIED = re.compile(r'd2lssd\.(\w+)(?:\(.*\))?')
# As Pygments writes it: `d2lssd.name`, or a name alone that is neither an
# attribute nor a keyword.
IN_CODE = re.compile(
    r'(?P<before><span class="n">d2lssd</span><span class="o">\.</span>|'
    r'(?<!<span class="o">\.</span>))'
    r'<span class="n">(?P<name>\w+)</span>(?!<span class="o">=</span>)')


def parsed(notebook):
    """The code of a notebook, cell by cell, without what is not Python."""
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            try:
                yield ast.parse(
                    re.sub(r'^[%!].*$', '', cell.source, flags=re.M))
            except SyntaxError:
                pass


def names_of(notebook):
    """Names of the package in the code of a notebook: those that it defines;
    those that come from the package; those imported that nothing else is
    called by."""
    defined, bound, imported, used = set(), set(), set(), set()
    for cell in parsed(notebook):
        defined |= {node.name for node in cell.body if isinstance(
            node, ast.FunctionDef | ast.ClassDef)}
        for node in ast.walk(cell):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    bound.add(name)
                case ast.ImportFrom(module='d2lssd', names=names):
                    imported |= {each.name for each in names
                                 if not each.asname}
                case ast.Attribute(value=ast.Name(id='d2lssd'), attr=name):
                    used.add(name)
    return {'defined': defined & NAMES, 'used': (used | imported) & NAMES,
            'plain': imported & NAMES - defined - bound}


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
        name = QUALIFIED.fullmatch(literal.astext())
        if name and name[1] in NAMES and not isinstance(
                literal.parent, (nodes.reference, nodes.title)):
            link = nodes.reference('', '', internal=True,
                                   refuri=f'{page}#d2lssd.{name[1]}')
            literal.replace_self(link)
            link += literal


def link_code(app, pagename, templatename, context, doctree):
    """Link names in code that stand for those of the package."""
    if app.builder.format != 'html' or doctree is None or pagename == PAGE:
        return
    plain = app.names_by_page.get(pagename, {}).get('plain', ())
    page = app.builder.get_relative_uri(pagename, PAGE)

    def link(match):
        name = match['name']
        if name not in (NAMES if match['before'] else plain):
            return match[0]
        return (f'{match["before"]}<a class="name" href="{page}#d2lssd.'
                f'{name}"><span class="n">{name}</span></a>')
    context['body'] = re.sub(
        r'<pre>.*?</pre>', lambda pre: IN_CODE.sub(link, pre[0]),
        context['body'], flags=re.S)


def say_where(app, doctree, docname):
    """Under each entry of the page: the chapters that write and use it."""
    if docname != PAGE:
        return
    for entry in doctree.findall(lambda node: node.tagname == 'desc'):
        name = entry[0]['ids'][0].removeprefix('d2lssd.') if (
            entry[0]['ids']) else None
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
