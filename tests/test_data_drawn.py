"""The drawn data set: made once, kept, checked, the same everywhere."""
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

from d2lssd.data import drawing, drawn, files
from d2lssd.data.drawn import drawn_bananas


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home'


@pytest.fixture
def sketches(monkeypatch):
    """Replace the slow drawing by flat colours; gives the calls made."""
    calls = []

    def draw_scene(split, index, seed=0, style='plain', num_bananas=1):
        calls.append((split, index, seed, style, num_bananas))
        if style != 'plain':
            raise ValueError(f'style = {style!r}')
        number = num_bananas
        if isinstance(num_bananas, tuple):
            number = num_bananas[0]
        colour = (index % 256, seed, split == 'val')
        image = np.broadcast_to(np.uint8(colour), (256, 256, 3))
        boxes = np.float32([[0.1, 0.2, 0.3, 0.4 + 0.01 * i]
                            for i in range(number)]).reshape(-1, 4)
        return image, boxes

    monkeypatch.setattr(drawing, 'draw_scene', draw_scene)
    return calls


def test_pictures_and_labels_have_the_shapes_that_the_book_states(sketches):
    images, labels = drawn_bananas('val', 3, seed=7, progress=False)
    assert (images.shape, images.dtype) == ((3, 3, 256, 256), torch.uint8)
    assert (labels.shape, labels.dtype) == ((3, 1, 5), torch.float32)
    assert images[:, :, 5, 9].tolist() == [[0, 7, 1], [1, 7, 1], [2, 7, 1]]
    assert torch.allclose(labels[2, 0],
                          torch.tensor([0, 0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize(('num_bananas', 'rows', 'filled'), [
    (0, 1, 0), (1, 1, 1), (4, 4, 4), ((2, 5), 5, 2), ((0, 3), 3, 0)])
def test_labels_are_filled_up_with_minus_one(sketches, num_bananas, rows,
                                             filled):
    _, labels = drawn_bananas('train', 2, num_bananas=num_bananas)
    assert labels.shape == (2, rows, 5)
    assert (labels[:, :filled, 0] == 0).all()
    assert (labels[:, filled:] == -1).all()


def test_the_sizes_of_the_two_splits_are_the_originals():
    assert drawn.COUNTS == {'train': 1000, 'val': 100}


def test_a_second_call_reads_what_the_first_one_kept(sketches, home, capsys):
    first = drawn_bananas('train', 4)
    assert 'drawing 4 training pictures, kept for next time' in (
        capsys.readouterr().err)
    sketches.clear()
    second = drawn_bananas('train', 4)
    assert sketches == []
    assert capsys.readouterr().err == ''
    assert all(map(torch.equal, first, second))
    assert len(os.listdir(home)) == 1


@pytest.mark.parametrize('other', [
    {'seed': 1}, {'num_bananas': 2}, {'count': 5}, {'split': 'val'}])
def test_other_pictures_are_kept_apart(sketches, home, other):
    usual = {'split': 'train', 'count': 4}
    drawn_bananas(**usual)
    sketches.clear()
    drawn_bananas(**{**usual, **other})
    assert sketches
    assert len(os.listdir(home)) == 2


@pytest.mark.parametrize('several', [False, True])
def test_a_style_of_ones_own_is_drawn_and_kept_apart(home, several):
    large, small = (drawing.Style(size=size) for size in ((99, 99), (30, 30)))
    for style, other in (large, small), (small, large):
        style = (style, other) if several else style
        _, labels = drawn_bananas('val', 2, style=style, progress=False)
        _, again = drawn_bananas('val', 2, style=style, progress=False)
        assert torch.equal(labels, again)
        sides = (labels[0, 0, 3:] - labels[0, 0, 1:3]) * 256
        assert (sides.max() > 60) == (large == (
            style[0] if several else style))
    assert len(os.listdir(home)) == 2


def test_a_new_version_of_the_drawing_draws_anew(sketches, monkeypatch):
    drawn_bananas('train', 2)
    sketches.clear()
    monkeypatch.setattr(drawing, 'DRAWING_VERSION', -5)
    drawn_bananas('train', 2)
    assert len(sketches) == 2


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_a_damaged_file_is_named_and_drawn_anew(sketches, home):
    first = drawn_bananas('train', 2)
    path, = home.iterdir()
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match='damaged') as caught:
        second = drawn_bananas('train', 2)
    assert path.name in str(caught[0].message)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, drawn_bananas('train', 2)))


def test_without_the_cache_nothing_is_read_or_written(sketches, home, capsys):
    drawn_bananas('train', 2, cache=False)
    assert not home.exists()
    assert 'kept' not in capsys.readouterr().err


def test_no_bar_is_shown_when_none_is_wanted(sketches, capsys):
    drawn_bananas('train', 2, progress=False)
    assert capsys.readouterr().err == ''


def test_pictures_that_cannot_be_kept_are_still_given(sketches, tmp_path,
                                                      monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'file' / 'home'))
    with pytest.warns(UserWarning, match='not kept for next time'):
        images, _ = drawn_bananas('train', 2)
    assert len(images) == 2


@pytest.mark.fault('a folder is read-only, or there is no home')
def test_a_user_without_home_still_gets_pictures(sketches, monkeypatch):
    def cache_folder():
        raise OSError('no home folder found')

    monkeypatch.setattr(files, 'cache_folder', cache_folder)
    with pytest.warns(UserWarning, match='no home folder'):
        images, _ = drawn_bananas('train', 2)
    assert len(images) == 2


@pytest.mark.parametrize('count', [0, -3, 2.5, '7', True, None.__class__])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match='count = .*1 or more'):
        drawn_bananas('train', count)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split = 'test'"):
        drawn_bananas('test', 2)


@pytest.mark.parametrize('style', ['cubist', '../../escape'])
def test_an_unknown_style_is_refused_and_nothing_kept(home, style):
    with pytest.raises(ValueError, match='style'):
        drawn_bananas('train', 2, style=style, progress=False)
    assert not home.exists()


def test_workers_draw_the_same_as_one_process(monkeypatch):
    monkeypatch.setattr(drawn, 'CHUNK', 2)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 2)
    many = drawn_bananas('val', 7, num_bananas=(0, 2), progress=False)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 1)
    alone = drawn_bananas('val', 5, num_bananas=(0, 2), progress=False)
    assert torch.equal(many[0][:5], alone[0])
    assert torch.equal(many[1][:5], alone[1])


@pytest.mark.fault('memory runs out')
def test_there_are_never_more_workers_than_fit_in_memory(monkeypatch):
    for processors, workers in (1, 1), (2, 2), (96, 8):
        monkeypatch.setattr(joblib, 'cpu_count', lambda n=processors: n)
        assert drawn.num_workers() == workers


@pytest.mark.parametrize('error', [OSError, BrokenExecutor, ImportError])
@pytest.mark.parametrize('when', ['at once', 'later', 'while drawing'])
def test_when_workers_fail_one_process_goes_on(sketches, monkeypatch, error,
                                               when):
    def send(indices, recipe, workers):
        assert workers == 1
        job = Future()
        jobs.append(job)
        if when == 'while drawing' and len(jobs) == 3:
            job.set_exception(error('no more processes'))
        elif when == 'at once' or len(jobs) == 3:
            raise error('no more processes')
        elif len(jobs) != 2:  # the second one never comes
            job.set_result(drawn._draw_chunk(indices, recipe))
        return job

    jobs = []
    monkeypatch.setattr(drawn, '_send', send)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 2)
    monkeypatch.setattr(drawn, 'CHUNK', 3)
    with pytest.warns(UserWarning, match='in one process.*no more processes'):
        images, _ = drawn_bananas('train', 20, progress=False)
    assert images[:, 0, 0, 0].tolist() == list(range(20))
    assert sorted(call[1] for call in sketches) == list(range(20))
    assert len(jobs) == (1 if when == 'at once' else 3)


def test_a_worker_that_fails_without_a_word_is_named_by_its_kind(
        sketches, monkeypatch):
    def send(*arguments):
        raise BrokenExecutor
    monkeypatch.setattr(drawn, '_send', send)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 2)
    with pytest.warns(UserWarning, match='slowly: BrokenExecutor'):
        drawn_bananas('train', 60, progress=False)


def test_what_nobody_waits_for_any_more_is_not_drawn(sketches, monkeypatch):
    jobs = []

    def send(indices, recipe, workers):
        jobs.append(Future())
        if len(jobs) == 1:
            jobs[0].set_result(drawn._draw_chunk(indices, recipe))
        return jobs[-1]
    monkeypatch.setattr(drawn, '_send', send)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 2)
    monkeypatch.setattr(drawn, 'CHUNK', 2)
    chunks = drawn.draw_chunks(range(20), ('train', 0, 'plain', 1))
    next(chunks)
    chunks.close()
    assert [job.cancelled() for job in jobs] == [False, True]


def test_this_process_draws_while_the_others_start(sketches, monkeypatch):
    jobs = {}

    def send(indices, recipe, workers):
        job = Future()
        jobs[job] = indices, recipe
        return job

    def wait(sent, return_when):
        assert len(sketches) == 16  # all but what the other was asked for
        for job, asked in jobs.items():
            job.set_result(drawn._draw_chunk(*asked))
    monkeypatch.setattr(drawn, '_send', send)
    monkeypatch.setattr(drawn, 'wait', wait)
    monkeypatch.setattr(drawn, 'num_workers', lambda: 2)
    monkeypatch.setattr(drawn, 'CHUNK', 2)
    images, _ = drawn_bananas('train', 20, progress=False)
    assert images[:, 0, 0, 0].tolist() == list(range(20))
    assert len(sketches) == 20


def test_a_script_without_a_main_guard_may_draw(tmp_path, home):
    # And this process draws the same at the same time, as two first runs may.
    script = tmp_path / 'script.py'
    script.write_text("""
print('begin')
from d2lssd.data import drawn
drawn.CHUNK, drawn.num_workers = 2, lambda: 2
images, labels = drawn.drawn_bananas('val', 6, progress=False)
print(int(images.long().sum()), len(labels))
""")
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
    running = subprocess.Popen(
        [sys.executable, script], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': path})
    images, _ = drawn_bananas('val', 6, progress=False)
    output, errors = running.communicate(timeout=120)
    assert output == f'begin\n{int(images.long().sum())} 6\n', errors
    assert 'in one process' not in errors
    assert len(os.listdir(home)) == 1


def test_a_worker_needs_no_pytorch():
    code = ('import sys, d2lssd.data.drawn, d2lssd.data.drawing; '
            'sys.exit("torch" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code],
                          cwd=Path(__file__).parents[1]).returncode == 0
