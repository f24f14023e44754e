"""Drawn folders of things: like a person's own, down to the last file."""
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from d2lssd.data import things
from d2lssd.data.canvas import Canvas, Light
from d2lssd.data.clutter import THINGS
from d2lssd.data.folder import class_names, read_folder, survey_folder
from d2lssd.data.things import draw_things, write_folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('things') / 'made' / 'fruit'
    assert write_folder(path, count=6, progress=False) == path
    return path


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob('*') if file.is_file()}


@pytest.fixture
def sketches(monkeypatch):
    """Replace the drawing by flat colours with one box."""
    def draw(kinds, index, seed=0, split='train'):
        image = np.full((256, 256, 3), index, np.uint8)
        return image, np.float32([[0.25, 0.5, 0.75, 1]]), [0]

    monkeypatch.setattr(things, 'draw_things', draw)


def test_the_folder_reads_without_a_problem(folder):
    survey = survey_folder(folder)
    assert survey.problems == []
    assert {each.name for each in folder.iterdir()} == {'images', 'label.csv'}
    assert [each.path.name for each in survey.pictures] == [
        f'{i}.png' for i in range(6)]
    assert all(1 <= len(each.boxes) <= 3 for each in survey.pictures)
    assert survey.classes == ['carrot', 'lemon']


def test_both_formats_say_the_same(folder, tmp_path):
    write_folder(tmp_path / 'coco', count=6, format='coco', progress=False)
    assert json.loads((tmp_path / 'coco' / 'annotations.json').read_text())[
        'categories'] == [{'id': 1, 'name': 'lemon'},
                          {'id': 2, 'name': 'carrot'}]
    for one, other in zip(*(read_folder(each, 'train', progress=False)
                            for each in (folder, tmp_path / 'coco'))):
        assert torch.equal(one, other)
    assert class_names(folder) == class_names(tmp_path / 'coco')


def test_a_picture_depends_on_its_arguments_alone(folder, tmp_path):
    kinds = ('lemon', 'carrot')
    image, boxes, classes = draw_things(kinds, 4)
    assert np.array_equal(
        image, np.asarray(Image.open(folder / 'images' / '4.png')))
    table = (folder / 'label.csv').read_text().splitlines()
    assert [row for row in table if row.startswith('4.png')] == [
        ','.join(['4.png', kinds[k], *(f'{v:.0f}' for v in box * 256)])
        for box, k in zip(boxes, classes)]
    write_folder(tmp_path / 'fewer', count=2, progress=False)
    for name, data in contents(tmp_path / 'fewer').items():
        if name.endswith('.png'):
            assert (folder / name).read_bytes() == data


@pytest.mark.parametrize('other', [
    {'index': 1}, {'seed': 1}, {'split': 'val'}, {'kinds': ('cup',)}])
def test_each_argument_gives_another_picture(other):
    usual = {'kinds': ('lemon',), 'index': 0}
    one, two = (draw_things(**each)[0] for each in (usual, {**usual,
                                                            **other}))
    assert (one != two).any()


@pytest.mark.parametrize('kind', ['lemon', 'carrot', 'croissant', 'cup'])
def test_a_box_fits_its_thing_to_the_pixel(kind):
    # On black and without a shadow, whatever is bright is the thing.
    for seed in range(5):
        canvas = Canvas(np.zeros((256, 256, 3)))
        assert things._lay(np.random.default_rng(seed), canvas,
                           Light(shadow=0), THINGS[kind])
        rows, columns = np.nonzero(canvas.image.sum(2) > 4)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert canvas.boxes()[0] * 256 == pytest.approx(seen, abs=1.01)


def test_nothing_like_what_is_labelled_lies_about_unlabelled(monkeypatch):
    laid = []
    real = things.round_outline

    def round_outline(rng, place, size, thing):
        laid.append((thing, place.any()))
        return real(rng, place, size, thing)

    monkeypatch.setattr(things, 'round_outline', round_outline)
    for index in range(8):
        draw_things(('lemon', 'croissant'), index)
    # What is labelled is made at the origin, and then moved.
    shapes = [id(thing.knots) for thing, litter in laid if litter]
    assert shapes
    assert not {id(THINGS[name].knots) for name in ('lemon', 'croissant')
                } & set(shapes)


@pytest.mark.parametrize(('name', 'arguments'), [
    ('kinds', {'kinds': 'lemon'}), ('kinds', {'kinds': []}),
    ('kinds', {'kinds': ['lemon', 'lemon']}),
    ('kinds', {'kinds': ['lemon', 'tiger']}),
    ('count', {'count': 0}), ('count', {'count': 2.5}),
    ('count', {'count': True}), ('seed', {'seed': -1}),
    ('format', {'format': 'xml'}), ('split', {'split': 'test'}),
])
def test_a_bad_argument_is_named_and_nothing_written(tmp_path, name,
                                                     arguments):
    with pytest.raises(ValueError, match=f'^{name}'):
        write_folder(tmp_path / 'new', progress=False, **arguments)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(sketches,
                                                             tmp_path):
    write_folder(tmp_path / 'a', count=2, progress=False)
    before = contents(tmp_path / 'a')
    with pytest.raises(FileExistsError, match='a: is not empty; name a new'):
        write_folder(tmp_path / 'a', count=3, progress=False)
    assert contents(tmp_path / 'a') == before
    (tmp_path / 'b').mkdir()
    write_folder(tmp_path / 'b', count=2, progress=False)
    assert contents(tmp_path / 'b') == before
    (tmp_path / 'c').write_text('')
    with pytest.raises(FileExistsError, match='c: is a file'):
        write_folder(tmp_path / 'c', count=2, progress=False)
    assert sorted(os.listdir(tmp_path)) == ['a', 'b', 'c']


@pytest.mark.fault('a cell or a command is interrupted')
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_what_is_interrupted_leaves_nothing(sketches, tmp_path, monkeypatch,
                                            error):
    def fail(*arguments):
        raise error
    monkeypatch.setattr(things, '_write_table', fail)
    with pytest.raises(error):
        write_folder(tmp_path / 'a', count=2, progress=False)
    assert os.listdir(tmp_path) == []


def test_the_bar_says_what_is_drawn(sketches, tmp_path, capsys):
    write_folder(tmp_path / 'a', count=2)
    assert f'drawing pictures of {tmp_path / "a"}' in capsys.readouterr().err
