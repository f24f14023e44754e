"""Write the notebooks as Colab can run them, into _build/colab.

    python tools/colab.py

Colab opens a notebook by itself, without the repository around it. So each
copy begins with a cell that installs the package from the repository, text
that Colab cannot render becomes plain Markdown, and pictures come from the
published site. The workflow pushes the folder as a branch of its own; the
notebooks of the book stay as they are.
"""
import re
import shutil

import nbformat
import plain
from notebooks import ROOT, notebook_paths
from pages import COLAB_BRANCH, repository, site_address

TARGET = ROOT / '_build' / 'colab'
INSTALL = """\
# Colab does not know the package of this book; this installs it (a minute).
try:
    import d2lssd
except ImportError:
    %pip install -q git+{url}@{branch}"""
FIGURE = re.compile(
    r'^```\{figure\} (?:\.\./)*_static/(?P<file>\S+)\n(?P<options>(?::.*\n)*)'
    r'\n?(?P<caption>.*?)^```', re.M | re.S)
ALT = re.compile(r'^:alt: (.*)$', re.M)


def picture(match):
    """A figure directive as the picture on the published site."""
    alt = ALT.search(match['options'])
    return (f'![{alt[1] if alt else ""}]({site_address()}_static/'
            f'{match["file"]})\n\n{match["caption"]}')


def badge(path):
    """Markdown of a button that opens this notebook in Colab."""
    url, _ = repository()
    return ('[![Open in Colab](https://colab.research.google.com/assets/'
            'colab-badge.svg)](https://colab.research.google.com/github/'
            f'{url.split("github.com/")[1]}/blob/{COLAB_BRANCH}/{path})')


def prepare(path, labels):
    """A notebook of the book with its opening cells for Colab."""
    notebook = nbformat.read(path, as_version=4)
    page = path.relative_to(ROOT).with_suffix('').as_posix()
    url, branch = repository()
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            cell.source = plain.plain(FIGURE.sub(picture, cell.source),
                                      labels)
    text = (f'{badge(path.relative_to(ROOT).as_posix())}\n\n'
            f'A chapter of [the book]({site_address()}{page}.html), ready to '
            'run. Run the next cell first.')
    notebook.cells[:0] = [
        nbformat.v4.new_markdown_cell(text, id='colab-badge'),
        nbformat.v4.new_code_cell(INSTALL.format(url=url, branch=branch),
                                  id='colab-install')]
    return notebook


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    labels = plain.Labels(plain.book_pages())
    for path in notebook_paths():
        copy = TARGET / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(prepare(path, labels), copy)
        print(copy.relative_to(ROOT))


if __name__ == '__main__':
    main()
