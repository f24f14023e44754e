"""Write the notebooks as Colab can run them, into _build/colab.

    python tools/colab.py

Colab opens a notebook by itself, without the repository around it. So each
copy begins with a cell that installs the package from the repository and
fetches the records that the notebook reads, text that Colab cannot render
becomes plain Markdown, and pictures come from the published site. The
workflow pushes the folder as a branch of its own; the notebooks of the book
stay as they are.
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
RECORDS = """

# The book's records that this chapter reads, to where it looks for them.
from pathlib import Path
from urllib.request import urlopen

for path, address in {records}.items():
    if not Path(path).exists():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(urlopen(address).read())"""
RECORD = re.compile(r'(?P<quote>[\'"])(?P<path>(?:\.\./)*_data/[^\'"\n]+)'
                    r'(?P=quote)')
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


def records(path, notebook):
    """{as the code names it: address} of files below _data that it reads."""
    url, branch = repository()
    found = {match['path']: (path.parent / match['path']).resolve()
             for cell in notebook.cells if cell.cell_type == 'code'
             for match in RECORD.finditer(cell.source)}
    for file in found.values():
        if not file.exists():
            raise FileNotFoundError(f'{path} reads {file}, which is not there')
    return {name: f'{url}/raw/{branch}/{file.relative_to(ROOT).as_posix()}'
            for name, file in found.items()}


def setup(path, notebook):
    """The cell that Colab needs to have run first."""
    url, branch = repository()
    text = INSTALL.format(url=url, branch=branch)
    if needed := records(path, notebook):
        lines = ''.join(f'    {name!r}:\n        {address!r},\n'
                        for name, address in needed.items())
        text += RECORDS.format(records='{\n' + lines + '}')
    return text


def prepare(path, labels):
    """A notebook of the book with its opening cells for Colab."""
    notebook = nbformat.read(path, as_version=4)
    page = path.relative_to(ROOT).with_suffix('').as_posix()
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            cell.source = plain.plain(FIGURE.sub(picture, cell.source),
                                      labels)
    text = (f'{badge(path.relative_to(ROOT).as_posix())}\n\n'
            f'A chapter of [the book]({site_address()}{page}.html), ready to '
            'run. Run the next cell first.')
    notebook.cells[:0] = [
        nbformat.v4.new_markdown_cell(text, id='colab-badge'),
        nbformat.v4.new_code_cell(setup(path, notebook), id='colab-install')]
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
