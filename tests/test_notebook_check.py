"""`make notebooks` turns red when a stored output no longer fits."""
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
PLOT = """\
import matplotlib.pyplot as plt
from tqdm.auto import tqdm
for i in tqdm(range(3)):
    plt.plot([0, 1, 2], [0, i, 2 * i])
plt.show()"""
LIVE = """\
from IPython import display
shown = display.display('first', display_id=True)
shown.update('second')
for i in range(3):
    display.clear_output(wait=True)
    print(f'epoch {i}, 12.3 examples/sec on cpu')"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True,
        text=True, timeout=300)


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """A notebook as `make execute` stores it."""
    path = tmp_path_factory.mktemp('book') / 'page.ipynb'
    cells = [new_code_cell(source, id=f'cell-{i}')
             for i, source in enumerate(['print(1 + 1)\n1 + 2;', PLOT, LIVE])]
    nbformat.write(new_notebook(cells=cells), path)
    done = run('tools/execute.py', str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_a_notebook_is_stored_with_results_only(stored):
    cells = nbformat.read(stored, as_version=4).cells
    assert [cell.id for cell in cells] == ['cell-0', 'cell-1', 'cell-2']
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert all(cell.metadata == {} for cell in cells)
    kinds = [[output.output_type for output in cell.outputs]
             for cell in cells]
    assert kinds == [['stream'], ['display_data'], ['stream']]
    assert cells[2].outputs[0].text == 'epoch 2, 12.3 examples/sec on cpu\n'


def test_a_notebook_that_fails_is_left_as_it_was(stored, tmp_path):
    path = tmp_path / 'fails.ipynb'
    notebook = nbformat.read(stored, as_version=4)
    notebook.cells[0].source = 'raise ValueError("no such banana")'
    nbformat.write(notebook, path)
    before = path.read_bytes()
    done = run('tools/execute.py', str(path))
    assert done.returncode == 1
    assert 'no such banana' in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Changes to the stored notebook: which of its cells should then fail?

def nothing(cells):
    pass


def other_speed_and_device(cells):
    text = 'epoch 2, 9876.5 examples/sec on cuda:0\n'
    cells[2].outputs[0].text = text


def changed_text(cells):
    cells[0].outputs[0].text = '3\n'


def changed_epoch(cells):
    cells[2].outputs[0].text = 'epoch 1, 12.3 examples/sec on cpu\n'


def changed_curve(cells):
    cells[1].source = cells[1].source.replace('2 * i]', '1.8 * i]')


def missing_picture(cells):
    cells[1].outputs = []


def failing_code(cells):
    cells[0].source = 'assert 1 + 1 == 3'


FAILS = {nothing: [], other_speed_and_device: [], changed_text: [0],
         changed_epoch: [2], changed_curve: [1], missing_picture: [1],
         failing_code: [0]}


@pytest.fixture(scope='module')
def report(stored, tmp_path_factory):
    """What one run over all the changed notebooks says."""
    folder = tmp_path_factory.mktemp('changed')
    for change in FAILS:
        notebook = nbformat.read(stored, as_version=4)
        change(notebook.cells)
        nbformat.write(notebook, folder / f'{change.__name__}.ipynb')
    done = run('-m', 'pytest', '--color=no', '--keep-data', '-rA', '-p',
               'tools.nbval_book', str(folder))
    assert done.returncode == 1
    return done.stdout


@pytest.mark.parametrize('change', FAILS, ids=lambda change: change.__name__)
def test_a_stored_output_that_no_longer_fits_fails(report, change):
    found = re.findall(
        rf'^(PASSED|FAILED) .*/{change.__name__}\.ipynb::Cell (\d)', report,
        re.M)
    assert len(found) == 3, report
    failed = [int(cell) for outcome, cell in found if outcome == 'FAILED']
    assert failed == FAILS[change], report
