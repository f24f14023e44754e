"""What storing and checking the notebooks have in common."""
import os
import re
import shutil
from pathlib import Path

import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / 'book'
# Notebooks run by the tools keep their files here, never in the user's cache;
# those that run side by side, each in a folder of its own.
HOME = (Path(os.environ.get('D2LSSD_BOOK_HOME') or ROOT / '_build' / 'home')
        / os.environ.get('PYTEST_XDIST_WORKER', ''))

WIDGET = 'application/vnd.jupyter.widget-view+json'
PROGRESS_BAR = re.compile(r'[^\r\n]*(?:\d+%\|.*\||\d+it \[)[^\r\n]*')
SILENT = re.compile(r'[\s\r]*')


def toc_pages():
    """Pages of the table of contents, in order, as 'book/predictors'."""
    def walk(node):
        if 'root' in node or 'file' in node:
            yield node.get('root') or node['file']
        for key in ('parts', 'chapters', 'sections'):
            for child in node.get(key, []):
                yield from walk(child)
    text = (ROOT / '_toc.yml').read_text(encoding='utf-8')
    return list(walk(yaml.safe_load(text)))


def notebook_paths():
    """All notebooks of the book, in reading order."""
    order = {page: i for i, page in enumerate(toc_pages())}
    paths = [path for path in BOOK.rglob('*.ipynb')
             if '.ipynb_checkpoints' not in path.parts]

    def place(path):
        page = path.relative_to(ROOT).with_suffix('').as_posix()
        return order.get(page, len(order)), page
    return sorted(paths, key=place)


def set_environment(scratch):
    """Make kernels started from here the same on every machine.

    Own files in `HOME`, no settings of the user (they go to the folder
    `scratch`), and pictures drawn as Jupyter draws them.
    """
    os.environ.update(
        D2LSSD_HOME=str(HOME),
        IPYTHONDIR=str(scratch),
        MATPLOTLIBRC=os.devnull,
        MPLBACKEND='module://matplotlib_inline.backend_inline',
        # The kernel's debugger else warns about Python's frozen modules.
        PYDEVD_DISABLE_FILE_VALIDATION='1')


def forget_trained():
    """No notebook sees what an earlier one trained; drawn data stay."""
    shutil.rmtree(HOME / 'trained', ignore_errors=True)


def tidy(outputs):
    """Outputs as they are stored and compared: without progress bars.

    A bar is a widget in JupyterLab and lines on stderr elsewhere. Neither is
    a result, and both differ with every run.
    """
    kept = []
    for output in outputs:
        if output.output_type in ('display_data', 'execute_result'):
            if WIDGET in output.data:
                continue
        elif output.output_type == 'stream' and output.name == 'stderr':
            text = PROGRESS_BAR.sub('', output.text)
            if SILENT.fullmatch(text):
                continue
            output = NotebookNode(output, text=text)
        kept.append(output)
    return kept
