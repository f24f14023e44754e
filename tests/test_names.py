"""Names in the code of a page, and where they lead."""
import re
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
import names  # noqa: E402


def found(*cells):
    return names.names_of(new_notebook(cells=[
        new_markdown_cell(cell) if cell.startswith('```')
        else new_code_cell(cell) for cell in cells]))


def linked(code, *alone):
    """The words of a piece of code that lead to the package's page."""
    text = highlight(code, PythonLexer(), HtmlFormatter(nowrap=True))
    return re.findall(
        r'<a class="name" href="p.html#d2lssd\.(\w+)"><span class="n[fc]?">\1'
        '</span></a>', names.link_names(text, set(alone), 'p.html'))


def test_names_that_come_from_the_package_mean_the_package():
    assert found('from d2lssd import box_iou, nms', 'd2lssd.detect(x)',
                 '%matplotlib inline\nnms(a, b)', '```python\n'
                 'd2lssd.train()\n```', '```bash\nd2lssd.evaluate\n```') == {
        'defined': set(), 'used': {'box_iou', 'nms', 'detect', 'train'},
        'alone': {'box_iou', 'nms'}}


def test_what_a_chapter_writes_is_the_same_by_another_hand():
    assert found('class TinySSD:\n    def forward(self, X): pass',
                 'def nms(a, b):\n    sizes = a', 'd2lssd.nms') == {
        'defined': {'TinySSD', 'nms'}, 'used': set(),
        'alone': {'TinySSD', 'nms'}}


@pytest.mark.parametrize('other', [
    'sizes = 3', 'for sizes in x: pass', 'with x as sizes: pass',
    'from numpy import sizes', 'import numpy as sizes', 'import sizes',
    'from d2lssd import nms as sizes', '(sizes := 3)'])
def test_a_name_that_means_something_else_does_not_lead_there(other):
    assert 'sizes' not in found('from d2lssd import sizes', other)['alone']


def test_what_a_function_calls_so_is_nothing_to_the_rest_of_the_page():
    assert found('from d2lssd import sizes', 'def f(sizes): pass',
                 'def g():\n    sizes = 3')['alone'] == {'sizes'}


@pytest.mark.parametrize(('code', 'there'), [
    ('d2lssd.nms(boxes)', ['nms']),
    ('d2lssd.no_such_name, d2lssd.data.nms, torchvision.ops.nms', []),
    ('nms(boxes, nms, sizes=nms)', ['nms'] * 3),
    ('net.nms(nms="nms")  # nms', []),
    ('def nms(boxes):\n    return boxes', ['nms']),
    ('def f(nms):\n    return nms', []),
    ('def f():\n    nms = 1\n    return nms\n', []),
    ('def f(boxes):\n    return nms(boxes)', ['nms']),
    ('class A:\n    def nms(self):\n        return d2lssd.nms', ['nms']),
    ('predict(nms)', ['nms'])])
def test_links_are_where_a_name_means_the_package(code, there):
    assert linked(code, 'nms') == there
