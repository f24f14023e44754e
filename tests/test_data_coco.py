"""COCO JSON: what a table says too, read the same and refused the same."""
import json
import warnings
import zipfile

import pytest
import torch
from folders import assert_read_or_refused, problem_of, read_all
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2lssd.data import labels as labels_module
from d2lssd.data.folder import (
    check_folder,
    class_names,
    read_folder,
    survey_folder,
)

# Two pictures of 100 by 50 pixels with three boxes, as one writes it by hand.
BY_HAND = """
{"info": {"year": 2024}, "licenses": [],
 "images": [{"id": 700, "file_name": "a.png", "width": 100, "height": 50},
            {"id": "b", "file_name": "images/b.png"}],
 "categories": [{"id": 9, "name": "pear", "supercategory": "fruit"},
                {"id": 3, "name": "apple"},
                {"id": 0, "name": "never seen"}],
 "annotations": [
  {"id": 1, "image_id": 700, "category_id": 9, "bbox": [10, 5, 50, 45]},
  {"id": 2, "image_id": "b", "category_id": 3, "bbox": [0, 0, 100, 25],
   "iscrowd": 0, "area": 2500, "segmentation": []},
  {"id": 3, "image_id": 700, "category_id": 3, "bbox": [0.5, 0, 2, 1]}]}
"""
SAME_TABLE = """img_name,label,xmin,ymin,xmax,ymax
a.png,pear,10,5,60,50
b.png,apple,0,0,100,25
a.png,apple,0.5,0,2.5,1
"""


def make(folder, content=BY_HAND, names=('a.png', 'b.png'), size=(100, 50)):
    """Write a folder of flat pictures and a file of boxes."""
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new('RGB', size, (i, 100, 200)).save(folder / 'images' / name)
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    (folder / 'annotations.json').write_bytes(content)
    return folder


def content(*annotations, **changes):
    """What such a file holds: one class, the two pictures, these boxes."""
    return {'images': [{'id': 1, 'file_name': 'a.png'},
                       {'id': 2, 'file_name': 'b.png'}],
            'categories': [{'id': 5, 'name': 'fig'}],
            'annotations': list(annotations), **changes}


def box(*bbox, **changes):
    return {'id': 17, 'image_id': 1, 'category_id': 5, 'bbox': list(bbox),
            **changes}


def test_a_file_written_by_hand_is_read(tmp_path):
    make(tmp_path / 'train')
    make(tmp_path / 'val', content(box(0, 0, 9, 9)))
    assert check_folder(tmp_path) == []
    images, labels = read_folder(tmp_path, 'train', progress=False)
    assert images[:, 0, 0, 0].tolist() == [0, 1]
    assert torch.allclose(labels, torch.tensor([
        [[2, 0.1, 0.1, 0.6, 1], [0, 0.005, 0, 0.025, 0.02]],
        [[0, 0, 0, 1, 0.5], [-1] * 5]]))
    assert class_names(tmp_path) == ['apple', 'fig', 'pear']


def test_a_table_and_coco_give_the_same(tmp_path):
    make(tmp_path / 'coco')
    make(tmp_path / 'csv')
    (tmp_path / 'csv' / 'annotations.json').unlink()
    (tmp_path / 'csv' / 'label.csv').write_text(SAME_TABLE)
    for options in {}, {'classes': ['fig', 'pear', 'apple']}:
        one, other = (read_all(tmp_path / name, **options)
                      for name in ('coco', 'csv'))
        assert all(map(torch.equal, one, other))
        assert class_names(tmp_path / 'coco', **options) == class_names(
            tmp_path / 'csv', **options)


def test_one_split_may_be_a_table_and_the_other_coco(tmp_path):
    make(tmp_path / 'train')
    make(tmp_path / 'val')
    (tmp_path / 'val' / 'annotations.json').unlink()
    (tmp_path / 'val' / 'label.csv').write_text(SAME_TABLE)
    one, other = (read_folder(tmp_path, split, progress=False)
                  for split in ('train', 'val'))
    assert all(map(torch.equal, one, other))


def test_it_is_read_from_a_zip_archive_too(tmp_path):
    make(tmp_path / 'coco')
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for file in (tmp_path / 'coco').rglob('*.*'):
            archive.write(file, file.relative_to(tmp_path))
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        inside = zipfile.Path(archive, 'coco/')
        for one, other in zip(read_all(inside), read_all(tmp_path / 'coco')):
            assert torch.equal(one, other)


def test_pictures_that_are_not_listed_have_no_object(tmp_path):
    make(tmp_path, names=('a.png', 'b.png', 'c.png'))
    assert len(read_all(tmp_path)[0]) == 3


@pytest.mark.parametrize('names', [['1', '0'], ['100', 'coin'], ['7', 'a'],
                                   ['5', '10'], ['2023', '2024']])
def test_a_category_may_be_called_by_a_number(tmp_path, names):
    make(tmp_path, content(
        box(0, 0, 9, 9, category_id=0), box(9, 9, 9, 9, category_id=1),
        categories=[{'id': i, 'name': name}
                    for i, name in enumerate(names)]))
    assert class_names(tmp_path) == sorted(names)
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert survey.pictures[0].classes == [
        sorted(names).index(name) for name in names]
    _, labels = read_folder(tmp_path, 'train', val_fraction=0,
                            progress=False)
    assert labels[0, :, 0].tolist() == survey.pictures[0].classes


def test_a_category_called_by_a_number_is_no_place_in_a_list(tmp_path):
    make(tmp_path, content(box(0, 0, 9, 9),
                           categories=[{'id': 5, 'name': '0'}]))
    problem = problem_of(tmp_path, classes=['fig', 'pear'])
    assert problem.text.startswith(
        "class '0' is unknown; one of 'fig, pear' is needed")
    assert survey_folder(tmp_path, ['fig', 'pear']).pictures[0].classes == [
        None]


def test_numbers_in_a_table_beside_names_in_coco_are_refused(tmp_path):
    make(tmp_path / 'train', content(box(0, 0, 9, 9)))
    make(tmp_path / 'val')
    (tmp_path / 'val' / 'annotations.json').unlink()
    (tmp_path / 'val' / 'label.csv').write_text(
        'img_name,label,xmin,ymin,xmax,ymax\na.png,0,0,0,9,9\n')
    problem = problem_of(tmp_path)
    assert problem.file.endswith('label.csv')
    assert "class '0' is a number and others are names" in problem.text


NFC, NFD = 'caf\xe9', 'cafe\u0301'  # é as one letter, or as e and accent


def test_names_of_classes_are_the_same_in_both_forms_of_unicode(tmp_path):
    make(tmp_path / 'train', content(box(0, 0, 9, 9), categories=[
        {'id': 5, 'name': NFD}]))
    make(tmp_path / 'val', content(box(0, 0, 9, 9), categories=[
        {'id': 5, 'name': NFC}]))
    assert class_names(tmp_path) == [NFC]
    assert read_all(tmp_path, classes=[NFD])[1].max(0)[0][0, 0] == 0
    make(tmp_path / 'val', content(categories=[
        {'id': 1, 'name': NFC}, {'id': 2, 'name': NFD}]))
    assert 'appears twice' in problem_of(tmp_path).text


@pytest.mark.parametrize(('there', 'listed'), [(NFC, NFD), (NFD, NFC)])
def test_a_picture_is_found_in_the_other_form_of_unicode(tmp_path, there,
                                                         listed):
    make(tmp_path, content(box(0, 0, 9, 9), images=[
        {'id': 1, 'file_name': f'{listed}.png'}]), [f'{there}.png'])
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert [(each.path.name, each.classes) for each in survey.pictures] == [
        (f'{there}.png', [0])]


@pytest.mark.parametrize('name', [
    '..\\..\\label-studio\\media\\upload\\4\\a.png',
    '/data/upload/1/a.png', 'day1/a.png', '../a.png', 'C:\\a.png',
    'images/../../a.png'])
def test_of_a_path_the_last_part_is_taken_with_a_note(tmp_path, name):
    Image.new('RGB', (3, 3)).save(tmp_path / 'a.png')  # never looked at
    folder = make(tmp_path / 'mine' / 'deep', content(
        box(0, 0, 90, 9), images=[{'id': 1, 'file_name': name},
                                  {'id': 2, 'file_name': 'b.png'}]))
    survey = survey_folder(folder)
    assert survey.problems == []
    assert [each.path for each in survey.pictures] == [
        folder / 'images' / 'a.png', folder / 'images' / 'b.png']
    note = survey.notes[0]
    assert note.startswith(f'{folder / "annotations.json"}: 1 file_name with '
                           'folders, as ')
    assert repr(name)[1:] in note


def test_two_paths_may_not_end_alike(tmp_path):
    make(tmp_path, content(images=[{'id': 1, 'file_name': 'day1/a.png'},
                                   {'id': 2, 'file_name': 'day2/a.png'}]))
    problem = problem_of(tmp_path)
    assert problem.path == 'images[1]'
    assert problem.text == ("file_name 'day2/a.png' means 'a.png', which is "
                            'that of images[0] too')


@pytest.mark.parametrize(('same', 'words'), [
    (box(0, 0, 9, 9), 'remove one'),
    (box(0, 0, 9, 9, category_id=6),
     "it is 'pear' here and 'fig' there, so remove one")])
def test_the_same_box_twice_in_a_picture_is_a_problem(tmp_path, same, words):
    make(tmp_path, content(
        box(0, 0, 9, 9), box(0, 0, 9, 9, image_id=2), same,
        categories=[{'id': 5, 'name': 'fig'}, {'id': 6, 'name': 'pear'}]))
    problem = problem_of(tmp_path)
    assert problem.path == 'annotations[2]'
    assert problem.text == (f'same box as annotations[0]; {words} '
                            '(annotation 17, in a.png)')


def test_crowds_are_left_out_with_a_note(tmp_path):
    make(tmp_path, content(box(0, 0, 9, 9), box(0, 0, 99, 49, iscrowd=1),
                           {'iscrowd': 1, 'segmentation': {'counts': []}}))
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert [len(each.boxes) for each in survey.pictures] == [1, 0]
    assert '2 annotations of a crowd' in survey.notes[0]
    with pytest.warns(UserWarning, match='2 annotations of a crowd') as seen:
        read_folder(tmp_path, 'train', progress=False)
    assert seen[0].filename == __file__


def test_where_nothing_is_left_out_nothing_is_noted(tmp_path):
    make(tmp_path / 'train')
    make(tmp_path / 'val')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_all(tmp_path)
    assert survey_folder(tmp_path).notes == []


def test_sums_of_rounded_numbers_may_touch_the_border(tmp_path):
    make(tmp_path, content(box(73.87, 0.1, 26.14, 49.9)))
    assert check_folder(tmp_path) == []
    labels = read_all(tmp_path)[1]
    assert labels.max() == 1
    assert 73.87 + 26.14 > 100


@pytest.mark.parametrize(('annotation', 'words'), [
    (box(60, 0, 50, 9), ['x 60 + width 50 = 110', '100 pixels wide']),
    (box(0, 5, 9, 50), ['y 5 + height 50 = 55', '50 pixels high']),
    (box(-2, 0, 9, 9), ['x -2 is outside']),
    (box(9, 9, -4, 9), ['width -4 is less than one pixel']),
    (box(9, 9, 4, 0), ['height 0 is less than one pixel']),
    (box(0, 0, 9, 0.5), ['height 0.5', 'not shares']),
    (box(0, 0, 9), ['bbox is [0, 0, 9]', 'four numbers', 'width, height']),
    (box(0, 0, 9, '9'), ["bbox[3] is '9'", 'number of pixels']),
    (box(0, 0, 9, True), ['bbox[3] is True']),
    (box(0, 0, 9, None), ['bbox[3] is None']),
    (box(0, 0, float('nan'), 9), ['bbox[2] is nan']),
    (box(float('inf'), 0, 9, 9), ['bbox[0] is inf']),
    (box(0, 0, 10**400, 9), ['bbox[2] is 1000']),
    (box(0, 0, 9, 9, bbox={}), ['bbox is {}']),
    (box(0, 0, 9, 9, image_id=3), ['image_id is 3', 'one of 2 images']),
    (box(0, 0, 9, 9, image_id='1'), ["image_id is '1'"]),
    (box(0, 0, 9, 9, image_id=[1]), ['image_id is [1]']),
    (box(0, 0, 9, 9, category_id=0), ['category_id is 0', '1 categories']),
    (box(0, 0, 9, 9, iscrowd='no'), ["iscrowd is 'no'", '0 or 1']),
    ({'id': 17, 'image_id': 1, 'category_id': 5}, ['has no bbox']),
    ({'id': 17, 'bbox': [0, 0, 9, 9], 'category_id': 5}, ['no image_id']),
])
def test_a_bad_annotation_is_named_by_place_id_and_value(
        tmp_path, annotation, words):
    make(tmp_path, content(box(0, 0, 9, 9), annotation))
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path / 'annotations.json')
    assert (problem.line, problem.path) == (0, 'annotations[1]')
    assert 'annotation 17' in problem.text
    assert all(word in problem.text for word in words), problem.text
    assert str(problem).startswith(f'{problem.file}, annotations[1]: ')


@pytest.mark.parametrize(('image', 'words'), [
    ({'id': 1, 'file_name': 'c.png'}, ["'c.png'", 'no picture']),
    ({'id': 1, 'file_name': 'B.PNG'}, ["'b.png' is"]),
    ({'id': 1, 'file_name': '../c.png'}, [
        "'../c.png' is a path; no picture 'c.png' is in images"]),
    ({'id': 1, 'file_name': 'x/B.png'}, ["'x/B.png' is a path", "'b.png' is"]),
    ({'id': 1, 'file_name': 'images/'}, ["'images/' is a folder"]),
    ({'id': 1, 'file_name': '/etc/passwd'}, ["no picture 'passwd'"]),
    ({'id': 1, 'file_name': 'C:\\c.png'}, ["no picture 'c.png'"]),
    ({'id': 1, 'file_name': '..'}, ["no picture '..' is in images"]),
    ({'id': 1, 'file_name': ''}, ['file_name is empty']),
    ({'id': 1, 'file_name': 4}, ['file_name is 4', 'a text']),
    ({'id': 1}, ['has no file_name']),
    ({'file_name': 'a.png'}, ['has no id']),
    ({'id': False, 'file_name': 'a.png'}, ['id is False', 'a number']),
    ({'id': [], 'file_name': 'a.png'}, ['id is []']),
    ({'id': 2, 'file_name': 'a.png'}, ['id 2 appears twice']),
    ({'id': 1, 'file_name': 'b.png'}, ['b.png', 'that of images[0] too']),
    ({'id': 1, 'file_name': 'a.png', 'width': 50, 'height': 100},
     ['width 50, height 100', 'a.png is 100 by 50 pixels']),
    (7, ['is 7', 'an object is needed']),
])
def test_a_bad_image_is_named_once_whatever_lies_on_it(tmp_path, image,
                                                       words):
    boxes = [box(0, 0, 9, 9)] if image != 7 and image.get('id') == 1 else []
    make(tmp_path, content(*boxes, images=[
        {'id': 2, 'file_name': 'b.png'}, image]))
    problem = problem_of(tmp_path)
    assert problem.path == 'images[1]'
    assert all(word in problem.text for word in words), problem.text


@pytest.mark.parametrize(('category', 'words'), [
    ({'id': 5}, ['has no name']),
    ({'id': 5, 'name': ' '}, ["name is ' '"]),
    ({'id': 5, 'name': 3}, ['name is 3', 'a text']),
    ({'name': 'fig'}, ['has no id']),
    ({'id': 1, 'name': 'fig'}, ['id 1 appears twice']),
    ({'id': 5, 'name': 'date'}, ["'date' appears twice"]),
    ('fig', ["is 'fig'", 'an object']),
])
def test_a_bad_category_is_named(tmp_path, category, words):
    make(tmp_path, content(categories=[{'id': 1, 'name': 'date'}, category]))
    problem = problem_of(tmp_path)
    assert problem.path == 'categories[1]'
    assert all(word in problem.text for word in words), problem.text


@pytest.mark.parametrize(('data', 'line', 'words'), [
    ('', 1, ['not JSON']),
    ('{"images": [],\n "annotations": [,]}', 2, ['not JSON', 'column']),
    ('[1, 2]', 0, ['is [1, 2]', 'images, categories, annotations']),
    (b'\xff\xfe{\0}\0', 0, ['UTF-16']),
    (b'{"a":\n"\xe9"}', 0, ['0xe9', 'line 2']),
    ('{"id": ' + '9' * 5000 + '}', 0, ['not JSON that can be read']),
    (content(annotations={}), 0, ['no list annotations']),
    ({'images': [], 'categories': []}, 0, ['no list annotations']),
])
def test_a_file_that_is_not_coco_is_refused(tmp_path, data, line, words):
    problem = problem_of(make(tmp_path, data))
    assert problem.line == line
    assert all(word in problem.text for word in words), problem.text


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path):
    assert problem_of(make(tmp_path, '[' * 200_000)).text


def test_a_byte_order_mark_changes_nothing(tmp_path):
    make(tmp_path, b'\xef\xbb\xbf' + BY_HAND.encode())
    assert check_folder(tmp_path) == []


def test_problems_come_in_the_order_of_the_file(tmp_path):
    make(tmp_path, content(*[box(i, 0, 0, 9) for i in range(12)]))
    paths = [each.path for each in check_folder(tmp_path)]
    assert paths == [f'annotations[{i}]' for i in range(12)]


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
def test_more_boxes_than_any_picture_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_module, 'MAX_BOXES', 3)
    make(tmp_path, content(*[box(i, 0, 9, 9) for i in range(6)]))
    problem = problem_of(tmp_path)
    assert problem.path == 'annotations[3]'
    assert 'at most 3' in problem.text


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory):
    return make(tmp_path_factory.mktemp('fuzzed'), names=('a.png', 'b.png'),
                size=(20, 20))


LEAVES = st.sampled_from([0, 1, 2, 5, 9, -1, 1.5, 1e308, 1e999, 10**400,
                          True, None, '', 'a.png', '../a.png', '1', 'é',
                          '\ud800', '\0']) | st.text(max_size=4)
VALUES = st.recursive(LEAVES, lambda more: st.lists(more, max_size=5)
                      | st.dictionaries(st.text(max_size=3), more,
                                        max_size=3), max_leaves=6)
BOXES = st.lists(st.integers(0, 12) | st.floats(0, 20), min_size=4,
                 max_size=4)


def objects(*keys, **more):
    fields = {key: st.sampled_from([0, 1, 'a.png', 'b.png', '3'])
              | VALUES for key in keys}
    return st.fixed_dictionaries({}, optional={**fields, **more}) | VALUES


FILES = st.fixed_dictionaries({}, optional={
    'images': st.lists(objects('id', 'file_name', 'width', 'height'),
                       max_size=3) | VALUES,
    'categories': st.lists(objects('id', 'name'), max_size=3) | VALUES,
    'annotations': st.lists(objects('id', 'image_id', 'category_id',
                                    'iscrowd', bbox=BOXES | VALUES),
                            max_size=3) | VALUES})
SOUND = st.builds(
    lambda boxes: content(*[box(*each) for each in boxes]),
    st.lists(BOXES, max_size=3))


@pytest.mark.fault('a file holds anything at all')
@settings(max_examples=100, deadline=None)
@given(data=(FILES | SOUND | VALUES).map(lambda value: json.dumps(
    value).encode()) | st.binary(max_size=40))
@pytest.mark.filterwarnings('ignore:.*of a crowd')
def test_any_file_is_read_or_refused_with_a_value_error(fuzzed, data):
    assert_read_or_refused(fuzzed, 'annotations.json', data)
