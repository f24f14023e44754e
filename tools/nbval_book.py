"""pytest plugin: run the notebooks with nbval, compare stored outputs.

    python -m pytest -p tools.nbval_book book [-k predictors]
    python -m pytest -p tools.nbval_book -n 2 --dist loadfile book

nbval compares text. This adds what a book with pictures needs: pictures are
compared too, by eye rather than by byte; progress bars are dropped; cleared
and updated displays are followed, as a notebook page does; and every notebook
starts without weights that another one trained.
"""
import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from nbval import plugin as nbval
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import notebooks  # noqa: E402

PICTURES = ('image/png', 'image/jpeg')
# Fonts and rounding differ by a little between systems: sides may differ by
# SLACK pixels; of the 8x8 blocks, a share of at most STRAY may differ by more
# than STEP grey levels, and all together by MEAN levels on average.
SLACK, BLOCK, STEP, STRAY, MEAN = 8, 8, 16, 0.005, 1.5
# Side by side these go first, so that none is left alone at the end.
LONG = 'average-precision', 'training', 'your-own-data', 'prediction'


def pytest_addoption(parser):
    parser.addoption('--keep-data', action='store_true',
                     help='keep the data that an earlier run drew')


def pytest_configure(config):
    option = config.option
    option.nbval = option.nbval_current_env = True
    option.nbval_sanitize_with = option.nbval_sanitize_with or str(
        notebooks.ROOT / 'tests' / 'nbval_sanitize.cfg')
    option.nbval_cell_timeout = min(option.nbval_cell_timeout, 900)
    scratch = tempfile.mkdtemp()
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    notebooks.set_environment(scratch)
    if together := int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 0)):
        # Kernels side by side share the cores; threads that wait are slow.
        os.environ['OMP_NUM_THREADS'] = str(max(1, os.cpu_count() // together))
    if not option.keep_data:
        shutil.rmtree(notebooks.HOME, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    collected = yield
    return [BookNotebook.from_parent(parent, path=file_path)
            if isinstance(node, nbval.IPyNbFile) else node
            for node in collected]


def pytest_collection_modifyitems(items):
    order = {path: i for i, path in enumerate(notebooks.notebook_paths())}
    if 'PYTEST_XDIST_WORKER' in os.environ:
        order |= {path: LONG.index(path.stem) - len(LONG)
                  for path in order if path.stem in LONG}
    items.sort(key=lambda item: order.get(item.path, -len(LONG)))


def picture_difference(stored, new):
    """What sets two pictures (base64) apart, in words; '' if nothing."""
    a, b = (Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB')
            for data in (stored, new))
    if max(abs(a.width - b.width), abs(a.height - b.height)) > SLACK:
        return f'size {b.size}, stored {a.size}'
    if a.size != b.size:
        b = b.resize(a.size)
    small = [max(1, side // BLOCK) for side in a.size]
    a, b = (np.asarray(picture.resize(small, Image.Resampling.BOX), float)
            for picture in (a, b))
    apart = np.abs(a - b).max(axis=-1)
    stray = (apart > STEP).mean()
    if stray > STRAY or apart.mean() > MEAN:
        return (f'{stray:.1%} of the blocks differ visibly (at most '
                f'{STRAY:.1%}), by {apart.mean():.2f} grey levels on average '
                f'(at most {MEAN})')
    return ''


class BookNotebook(nbval.IPyNbFile):
    def collect(self):
        for cell in super().collect():
            yield BookCell.from_parent(
                self, name=cell.name, cell_num=cell.cell_num,
                cell=cell.cell, options=cell.options)

    def setup(self):
        notebooks.forget_trained()
        self.displays, self.clear_next = {}, False
        super().setup()
        self.kernel.execute_cell_input = self.execute

    def execute(self, source, allow_stdin=None):
        """Run a cell as a page does: with history, which `x;` depends on."""
        return self.kernel.kc.execute(source, allow_stdin=allow_stdin,
                                      stop_on_error=False)

    def get_kernel_message(self, timeout=None, stream='iopub'):
        """The next message; displays are cleared and updated on the way."""
        message = super().get_kernel_message(timeout, stream)
        kind, content = message['msg_type'], message['content']
        if kind == 'clear_output':
            self.clear_next = True
            if not content.get('wait'):
                self.clear()
        elif kind in ('display_data', 'update_display_data', 'stream',
                      'execute_result', 'error'):
            if self.clear_next and kind != 'update_display_data':
                self.clear()
            name = content.get('transient', {}).get('display_id')
            if kind == 'update_display_data':
                for data in self.displays.get(name, []):
                    data.clear()
                    data.update(content['data'])
            elif name is not None:
                self.displays.setdefault(name, []).append(content['data'])
        if kind in ('clear_output', 'update_display_data'):
            # nbval passes over messages of this kind.
            message = dict(message, msg_type='comm_done')
        return message

    def clear(self):
        self.running.test_outputs.clear()
        self.clear_next = False


class BookCell(nbval.IPyNbCell):
    def runtest(self):
        self.parent.running = self
        self.parent.clear_next = False
        super().runtest()

    def compare_outputs(self, test, ref, skip_compare=None):
        test, ref = notebooks.tidy(test), notebooks.tidy(ref)
        return (super().compare_outputs(test, ref, skip_compare)
                and self.compare_pictures(test, ref))

    def compare_pictures(self, test, ref):
        def pictures(outputs):
            return [output['data'][kind] for output in outputs
                    for kind in PICTURES if kind in output.get('data', {})]
        stored, new = pictures(ref), pictures(test)
        if len(stored) != len(new):
            self.comparison_traceback = [
                f'{len(new)} pictures, {len(stored)} stored']
            return False
        for i, (a, b) in enumerate(zip(stored, new, strict=True)):
            if difference := picture_difference(a, b):
                self.comparison_traceback = [
                    f'picture {i + 1} differs: {difference}',
                    f'the new one: {self.keep(b, i)}']
                return False
        return True

    def keep(self, data, i):
        """Put a picture that differs where one can look at it."""
        folder = notebooks.ROOT / '_build' / 'differs'
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f'{self.path.stem}-{self.cell_num}-{i + 1}.png'
        path.write_bytes(base64.b64decode(data))
        return path.relative_to(notebooks.ROOT)
