"""Your own pictures: read right, or refused with file, line and value."""
import io
import math
import zipfile

import numpy as np
import pytest
import torch
from folders import assert_read_or_refused, problem_of, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2lssd.data import folder as folder_module
from d2lssd.data import labels as labels_module
from d2lssd.data.folder import (
    check_folder,
    class_names,
    read_folder,
    survey_folder,
)

HEADING = 'img_name,label,xmin,ymin,xmax,ymax\n'


def make(folder, rows='', names=('a.png', 'b.png'), size=(100, 50),
         heading=HEADING):
    """Write a folder of flat pictures and a table."""
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new('RGB', size, (i, 100, 200)).save(folder / 'images' / name)
    data = heading + rows
    if isinstance(data, str):
        data = data.encode()
    (folder / 'label.csv').write_bytes(data)
    return folder


def test_boxes_in_pixels_become_shares_of_the_picture(tmp_path):
    make(tmp_path / 'train', 'a.png,0,10,5,60,50\n', ['a.png'])
    make(tmp_path / 'val', 'b.png,0,0,0,100,25\n', ['b.png'])
    images, labels = read_folder(tmp_path, 'train', progress=False)
    assert (images.shape, images.dtype) == ((1, 3, 256, 256), torch.uint8)
    assert labels.dtype == torch.float32
    assert torch.allclose(labels, torch.tensor([[[0, 0.1, 0.1, 0.6, 1]]]))
    _, labels = read_folder(tmp_path, 'val', progress=False)
    assert torch.allclose(labels, torch.tensor([[[0, 0, 0, 1, 0.5]]]))


def test_the_folders_of_the_original_archive_are_splits(tmp_path):
    make(tmp_path / 'bananas_train', '', ['a.png', 'b.png', 'c.png'])
    make(tmp_path / 'bananas_val', '', ['d.png'])
    assert len(read_folder(tmp_path, 'train', progress=False)[0]) == 3
    assert len(read_folder(tmp_path, 'val', progress=False)[0]) == 1


def test_a_square_of_colour_stays_under_its_box(tmp_path):
    make(tmp_path, 'a.png,0,30,10,70,40\n', [])
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[10:40, 30:70] = 255
    Image.fromarray(pixels).save(tmp_path / 'images' / 'a.png')
    images, labels = read_folder(tmp_path, 'train', progress=False)
    x0, y0, x1, y1 = (labels[0, 0, 1:] * 256).round().int().tolist()
    inside = images[0, :, y0 + 3:y1 - 3, x0 + 3:x1 - 3]
    assert inside.min() > 250
    images[0, :, y0 - 3:y1 + 3, x0 - 3:x1 + 3] = 0
    assert images.max() < 5


def test_boxes_lie_on_a_turned_picture_as_one_sees_it(tmp_path):
    make(tmp_path, 'a.jpg,0,0,0,50,100\n', [])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (100, 50)).save(tmp_path / 'images' / 'a.jpg', exif=exif)
    assert check_folder(tmp_path) == []


def test_several_rows_are_several_objects_and_short_ones_are_filled_up(
        tmp_path):
    make(tmp_path / 'train',
         'a.png,1,0,0,10,10\nb.png,0,5,5,9,9\na.png,0,20,20,30,30\n')
    make(tmp_path / 'val', 'a.png,2,0,0,10,10\n')
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert labels[:, :, 0].tolist() == [[1, 0], [0, -1]]
    assert (labels[1, 1] == -1).all()
    # Both splits have as many rows, so that their batches look alike.
    _, labels = read_folder(tmp_path, 'val', progress=False)
    assert labels.shape == (2, 2, 5)


def test_a_picture_without_an_object_may_be_listed_or_not(tmp_path):
    make(tmp_path, 'b.png,,,,,\n', ['a.png', 'b.png', 'c.png'])
    images, labels = read_all(tmp_path)
    assert len(images) == 3
    assert (labels == -1).all()


@pytest.mark.filterwarnings('ignore:.*no box is of class')
def test_numbers_as_pandas_writes_them_are_read(tmp_path):
    make(tmp_path, 'a.png,1.0,1.5,2.0,30.25,40.0\nb.png,,,,,\n')
    labels = read_all(tmp_path)[1]
    row = labels[labels[:, 0, 0] == 1][0, 0]
    assert torch.allclose(row, torch.tensor([1, .015, .04, .3025, .8]))


def test_names_of_classes_are_numbered_by_the_alphabet(tmp_path):
    make(tmp_path / 'train', 'a.png,pear,0,0,9,9\nb.png,apple,0,0,9,9\n')
    make(tmp_path / 'val', 'a.png,fig,0,0,9,9\n', ['a.png'])
    assert class_names(tmp_path) == ['apple', 'fig', 'pear']
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert labels[:, 0, 0].tolist() == [2, 0]
    assert read_folder(tmp_path, 'val', progress=False)[1][0, 0, 0] == 1


def test_a_list_of_classes_gives_the_order(tmp_path):
    make(tmp_path, 'a.png,pear,0,0,9,9\nb.png,apple,0,0,9,9\n')
    classes = ['pear', 'fig', 'apple']
    labels = read_all(tmp_path, classes=classes)[1]
    assert sorted(labels[:, 0, 0].tolist()) == [0, 2]
    assert class_names(tmp_path, classes) == classes


def test_classes_that_are_numbers_keep_them(tmp_path):
    make(tmp_path, 'a.png,3,0,0,9,9\nb.png,0,0,0,9,9\n')
    assert class_names(tmp_path) == ['0', '1', '2', '3']


def test_class_numbers_that_no_row_has_are_noted(tmp_path):
    make(tmp_path, 'a.png,1,0,0,9,9\nb.png,7,0,0,9,9\n')
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert survey.notes[0] == (
        f"{tmp_path / 'label.csv'}: no box is of class '0', '2', '3' and 3 "
        'more; classes that are numbers count from 0, and the network learns '
        '8 of them')
    assert not any('no box is of class' in note for note in survey_folder(
        tmp_path, [*'abcdefgh']).notes)


@pytest.mark.parametrize('classes', [[], 'banana', [1, 2], ['a', 'a']])
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, classes):
    make(tmp_path)
    with pytest.raises(ValueError, match='classes = '):
        read_folder(tmp_path, 'train', classes, progress=False)


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
def test_a_formula_is_just_a_name(tmp_path):
    make(tmp_path, 'a.png,"=HYPERLINK(""x"")",0,0,9,9\n', ['a.png'])
    assert class_names(tmp_path) == ['=HYPERLINK("x")']


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
@pytest.mark.parametrize('change', [
    lambda data: b'\xef\xbb\xbf' + data,
    lambda data: data.replace(b'\n', b'\r\n'),
    lambda data: data.replace(b'\n', b'\r'),
    lambda data: data.replace(b'a.png', b'"a.png"'),
    lambda data: data.replace(b',', b' , '),
    lambda data: data.replace(b'\n', b'\n\n'),
    lambda data: data.rstrip(),
    lambda data: data,
], ids=['BOM', 'CRLF', 'CR', 'quotes', 'spaces', 'blank lines', 'no newline',
        'as it is'])
def test_tables_from_any_program_read_the_same(tmp_path, change):
    make(tmp_path, 'a.png,0,10,5,60,50\n', ['a.png'])
    table = tmp_path / 'label.csv'
    table.write_bytes(change(table.read_bytes()))
    assert check_folder(tmp_path) == []
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert torch.allclose(labels, torch.tensor([[[0, 0.1, 0.1, 0.6, 1]]]))


def test_columns_may_come_in_any_order_and_with_others(tmp_path):
    make(tmp_path, '50,0,a.png,60,note,10,5\n', ['a.png'],
         heading='ymax,label,img_name,xmax,remark,xmin,ymin\n')
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert torch.allclose(labels, torch.tensor([[[0, 0.1, 0.1, 0.6, 1]]]))


def test_a_name_with_a_comma_or_a_line_break_may_be_quoted(tmp_path):
    make(tmp_path, '"a, b.png",0,0,0,9,9\n', ['a, b.png'])
    assert check_folder(tmp_path) == []


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
def test_a_thousand_boxes_in_a_picture_are_read(tmp_path):
    rows = [f'a.png,0,{i % 90},{i // 90},{i % 90 + 5},{i // 90 + 5}\n'
            for i in range(1000)]
    make(tmp_path, ''.join(rows), ['a.png'])
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert labels.shape == (1, 1000, 5)
    assert (labels[0, :, 0] == 0).all()


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
def test_more_boxes_than_any_picture_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_module, 'MAX_BOXES', 3)
    make(tmp_path, ''.join(
        f'a.png,0,{i},0,9,9\n' for i in range(6)), ['a.png'])
    problem = problem_of(tmp_path)
    assert problem.line == 5
    assert 'at most 3' in problem.text


@pytest.mark.fault('a table has a formula, a BOM, CRLF or a thousand boxes')
@pytest.mark.parametrize(('row', 'words'), [
    ('a.png,-1,0,0,9,9', ['class', "'-1'", '0 to 999']),
    ('a.png,1.5,0,0,9,9', ['class', "'1.5'"]),
    ('a.png,5000,0,0,9,9', ['class', "'5000'", '0 to 999']),
    ('a.png,nan,0,0,9,9', ['class', "'nan'"]),
    ('a.png,pear,0,0,9,9', ['class', "'pear'", 'numbers']),
    ('a.png,0,60,0,20,9', ['xmin 60', 'right of xmax 20', 'swap']),
    ('a.png,0,0,40,9,30', ['ymin 40', 'below ymax 30', 'swap']),
    ('a.png,0,0,0,101,9', ['xmax 101', 'outside', '100 pixels wide']),
    ('a.png,0,0,0,9,51', ['ymax 51', 'outside', '50 pixels high']),
    ('a.png,0,-2,0,9,9', ['xmin -2', 'outside']),
    ('a.png,0,0,5,9,5', ['ymin 5 to ymax 5', 'less than one pixel']),
    ('a.png,0,0.1,5,0.7,9', ['xmin 0.1 to xmax 0.7', 'not shares']),
    ('a.png,0,ten,0,9,9', ['xmin', "'ten'", 'number']),
    ('a.png,0,0,nan,9,9', ['ymin', "'nan'", 'number']),
    ('a.png,0,0,0,inf,9', ['xmax', "'inf'", 'number']),
    ('a.png,0,0,0,1_0,9', ['xmax', "'1_0'", 'number']),
    ('a.png,0,=1+1,0,9,9', ['xmin', "'=1+1'", 'number']),
    ('a.png,0,0,0,,9', ['xmax', "''", 'number']),
    ('a.png,,0,0,9,9', ['label is empty']),
    ('a.png,0,0,0,9', ['5 fields', '6']),
    ('a.png,0,0,0,9,9,9', ['7 fields', '6']),
    (',0,0,0,9,9', ['img_name is empty']),
    ('c.png,0,0,0,9,9', ['no picture', "'c.png'", 'images']),
    ('A.PNG,0,0,0,9,9', ["'A.PNG'", "'a.png' is"]),
    ('a,0,0,0,9,9', ["'a'", "'a.png' is"]),
    ('../label.csv,0,0,0,9,9', ['../label.csv', 'is a path']),
    ('/etc/passwd,0,0,0,9,9', ['/etc/passwd', 'is a path']),
    ('..,0,0,0,9,9', ["no picture '..'"]),
    ('C:a.png,0,0,0,9,9', ["no picture 'C:a.png'"]),
    ('..\\a.png,0,0,0,9,9', ['is a path', "without a folder: 'a.png'"]),
    ('sub/a.png,0,0,0,9,9', ['is a path', "without a folder: 'a.png'"]),
    ('b.png,0,0,0,9,9', ['same box as line 2; remove one (in b.png)']),
    ('b.png,1,0,0,9.0,9', ["same box as line 2; it is '1' here and '0' there"
                           ', so remove one']),
    ('"a.png,0,0,0,9,9', ['not CSV']),
])
def test_a_bad_row_is_named_by_file_line_and_value(tmp_path, row, words):
    make(tmp_path, f'b.png,0,0,0,9,9\n{row}\n')
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path / 'label.csv')
    assert problem.line == 3
    assert all(word in problem.text for word in words), problem.text


def test_the_folder_around_the_pictures_is_asked_for(tmp_path):
    make(tmp_path, 'a.png,0,0,0,9,9\n')
    problem = problem_of(tmp_path / 'images')
    assert str(problem) == (f"{tmp_path / 'images'}: holds the pictures alone;"
                            f' give the folder around it, {tmp_path}')


def test_a_size_in_the_table_must_be_that_of_the_picture(tmp_path):
    heading = 'img_name,width,height,label,xmin,ymin,xmax,ymax\n'
    make(tmp_path, 'a.png,100,50,0,0,0,9,9\nb.png,,,0,0,0,9,9\n',
         heading=heading)
    assert check_folder(tmp_path) == []
    make(tmp_path, 'a.png,100,50,0,0,0,9,9\nb.png,200.0,100,0,0,0,9,9\n',
         heading=heading)
    problem = problem_of(tmp_path)
    assert (problem.file, problem.line) == (str(tmp_path / 'label.csv'), 3)
    assert problem.text.startswith(
        'width 200, height 100: b.png is 100 by 50 pixels')


def test_a_class_beyond_the_given_ones_is_named(tmp_path):
    make(tmp_path, 'a.png,0,0,0,9,9\nb.png,1,0,0,9,9\n')
    problem = problem_of(tmp_path, classes=['banana'])
    assert (problem.line, "'1'" in problem.text) == (3, True)
    assert "'banana'" in problem.text


@pytest.mark.parametrize(('heading', 'words'), [
    ('img_name,xmin,ymin,xmax,ymax\n', ['label']),
    ('img_name,label\n', ['xmin, ymin, xmax, ymax']),
    ('img_name;label;xmin;ymin;xmax;ymax\n', ['img_name', 'commas']),
    ('a.png,0,0,0,9,9\n', ['no column img_name']),
    ('img_name,label,label,xmin,ymin,xmax,ymax\n', ['label appears twice']),
    ('', ['is empty', 'img_name,label']),
    ('\n\n', ['is empty']),
])
def test_a_bad_heading_is_named(tmp_path, heading, words):
    make(tmp_path, heading=heading)
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path / 'label.csv')
    assert all(word in problem.text for word in words), problem.text


@pytest.mark.parametrize(('data', 'words'), [
    (b'\xff\xfei\0m\0', ['UTF-16', 'UTF-8']),
    (HEADING.encode() + b'\xe9.png,0,0,0,9,9\n', ['0xe9', 'line 2']),
])
def test_a_table_in_another_encoding_is_refused(tmp_path, data, words):
    make(tmp_path)
    (tmp_path / 'label.csv').write_bytes(data)
    problem = problem_of(tmp_path)
    assert all(word in problem.text for word in words), problem.text


def test_a_folder_without_a_file_of_boxes_is_told_what_is_missing(tmp_path):
    make(tmp_path)
    (tmp_path / 'label.csv').rename(tmp_path / 'labels.csv')
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path)
    assert 'neither label.csv nor annotations.json' in problem.text
    assert "'labels.csv' is one, rename it to label.csv" in problem.text


def test_a_folder_with_two_files_of_boxes_must_choose(tmp_path):
    make(tmp_path, 'a.png,0,0,0,9,9\n')
    (tmp_path / 'annotations.json').write_text('{}')
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path)
    assert 'both label.csv and annotations.json' in problem.text


def test_a_missing_folder_of_pictures_is_named(tmp_path):
    (tmp_path / 'label.csv').write_text(HEADING)
    assert problem_of(tmp_path).file.endswith('images')


def test_a_missing_split_is_named(tmp_path):
    make(tmp_path / 'train', 'a.png,0,0,0,9,9\n')
    problem = problem_of(tmp_path)
    assert problem.file == str(tmp_path / 'val')
    assert 'no such folder' in problem.text


def test_a_folder_without_pictures_is_refused(tmp_path):
    assert 'no picture' in problem_of(make(tmp_path, names=[])).text


def test_a_folder_that_does_not_exist_is_a_problem_too(tmp_path):
    problem = problem_of(str(tmp_path / 'nowhere'))
    assert str(problem) == f'{tmp_path / "nowhere"}: there is no such folder'
    (tmp_path / 'file').write_text('')
    assert 'a folder is needed' in problem_of(tmp_path / 'file').text


def test_a_side_may_be_off_by_what_rounding_to_two_decimals_does(tmp_path):
    make(tmp_path, 'a.png,0,-0.01,0,100.01,50.005\n', ['a.png'])
    assert check_folder(tmp_path) == []
    _, labels = read_folder(tmp_path, 'train', progress=False)
    assert labels.tolist() == [[[0, 0, 0, 1, 1]]]


@pytest.mark.parametrize(('content', 'words'), [
    (b'', 'empty file'), (b'hello', "'hello'"),
    (b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR', 'damaged or cut short')])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, content, words):
    make(tmp_path, 'a.png,0,0,0,9,9\n')
    (tmp_path / 'images' / 'b.png').write_bytes(content)
    problems = check_folder(tmp_path)
    assert [problem.file for problem in problems] == [
        str(tmp_path / 'images' / 'b.png')]
    assert words in problems[0].text
    assert 'b.png' not in problems[0].text
    with pytest.raises(ValueError, match='b.png: '):
        read_all(tmp_path)


def test_every_problem_is_listed_and_an_error_shows_the_first(tmp_path):
    rows = ''.join(f'a.png,0,{60 + i},0,20,9\n' for i in range(9))
    make(tmp_path, rows, ['a.png'])
    problems = check_folder(tmp_path)
    assert [problem.line for problem in problems] == list(range(2, 11))
    with pytest.raises(ValueError, match='9 problems') as caught:
        read_folder(tmp_path, 'train', progress=False)
    assert 'line 2: xmin 60' in str(caught.value)
    assert '4 more' in str(caught.value)
    assert f'data check {tmp_path}` lists them all' in str(caught.value)


def test_of_endless_problems_the_first_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_module, 'MAX_PROBLEMS', 3)
    make(tmp_path, 'x\n' * 9, ['a.png'])
    problems = check_folder(tmp_path)
    assert len(problems) == 4
    assert 'more is wrong than these 3' in ''.join(map(str, problems))


def test_more_classes_than_can_be_learnt_are_one_problem(
        tmp_path, monkeypatch):
    monkeypatch.setattr(labels_module, 'MAX_CLASSES', 3)
    make(tmp_path, ''.join(
        f'a.png,name {i},0,{i},9,9\n' for i in range(4)), ['a.png'])
    problem = problem_of(tmp_path)
    assert "4 different classes, as 'name 0'" in problem.text
    assert 'at most 3 can be learnt' in problem.text
    with pytest.raises(ValueError, match='at most 3 can be learnt'):
        read_folder(tmp_path, 'train', classes=list('abcd'), progress=False)


def test_files_that_are_no_pictures_are_passed_over(tmp_path):
    make(tmp_path, 'a.png,0,0,0,9,9\n', ['a.png'])
    for name in 'IMG_1.HEIC', '.DS_Store', 'notes.txt', 'a.mp4':
        (tmp_path / 'images' / name).write_text('no')
    (tmp_path / 'images' / 'day1').mkdir()
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    note = (f"{tmp_path / 'images'}: 4 left out, no picture files of a known "
            "kind: 'IMG_1.HEIC', 'a.mp4', 'day1' and 1 more")
    assert note in survey.notes
    with pytest.warns(UserWarning, match='4 left out'):
        read_folder(tmp_path, 'train', progress=False)


def test_pictures_and_labels_beside_train_and_val_are_noted(tmp_path):
    for folder in tmp_path / 'train', tmp_path / 'val', tmp_path:
        make(folder, 'a.png,fig,0,0,9,9\n')
    Image.new('RGB', (9, 9)).save(tmp_path / 'c.png')
    (tmp_path / 'README.txt').write_text('mine')
    survey = survey_folder(tmp_path)
    assert survey.problems == survey.gaps == []
    assert survey.notes == [f'{tmp_path}: 3 left out, beside train and val: '
                            "'c.png', 'images', 'label.csv'"]


def test_pictures_beside_images_are_noted(tmp_path):
    make(tmp_path, 'a.png,0,0,0,9,9\n')
    Image.new('RGB', (9, 9)).save(tmp_path / 'c.png')
    assert f"{tmp_path}: 1 left out, beside images: 'c.png'" in survey_folder(
        tmp_path).notes


def test_the_layout_of_roboflow_is_told_what_to_rename_and_move(tmp_path):
    for name in 'train', 'valid':
        (tmp_path / name).mkdir()
        (tmp_path / name / '_annotations.coco.json').write_text('{}')
        Image.new('RGB', (9, 9)).save(tmp_path / name / 'a.png')
    train = tmp_path / 'train'
    assert [str(each) for each in check_folder(tmp_path)] == [
        f'{train}: holds neither label.csv nor annotations.json; one of them '
        "must list the boxes; if '_annotations.coco.json' is one, rename it "
        'to annotations.json',
        f'{train / "images"}: there is no such folder; the pictures lie in '
        f'{train}, move them into {train / "images"}',
        f'{tmp_path / "val"}: there is no such folder; rename valid to val']


NFC, NFD = 'caf\xe9', 'cafe\u0301'  # é as one letter, or as e and accent


@pytest.mark.parametrize(('there', 'listed'), [(NFC, NFD), (NFD, NFC)])
def test_names_mean_the_same_in_both_forms_of_unicode(tmp_path, there,
                                                      listed):
    make(tmp_path, f'{listed}.png,{there},0,0,9,9\n'
         f'{there}.png,{listed},9,9,19,19\n', [f'{there}.png'])
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert survey.classes == [NFC]
    assert [each.classes for each in survey.pictures] == [[0, 0]]


def test_two_pictures_whose_names_look_alike_stay_two(tmp_path):
    names = [f'{NFC}.png', f'{NFD}.png']
    picture = io.BytesIO()
    Image.new('RGB', (100, 50)).save(picture, 'PNG')
    # In an archive, for some disks take both for one.
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for name in names:
            archive.writestr(f'images/{name}', picture.getvalue())
        archive.writestr('label.csv', f'{HEADING}{NFC}.png,a,0,0,9,9\n'
                         f'{NFD}.png,b,0,0,9,9\n')
    assert {each.path.name: each.classes for each in survey_folder(
        zipfile.Path(tmp_path / 'a.zip')).pictures} == {
            names[0]: [0], names[1]: [1]}


def test_a_picture_keeps_its_split_in_either_form_of_unicode():
    names = [f'{NFC}{i}.png' for i in range(50)]
    other = [f'{NFD}{i}.png' for i in range(50)]
    chosen = folder_module._validation_names(names, 0.3)
    assert folder_module._validation_names(other, 0.3) == {
        other[i] for i, name in enumerate(names) if name in chosen}


@pytest.mark.parametrize(('train', 'val', 'words'), [
    ('fig', 'fig', None),
    ('fig', 'pear', "class 'pear' has no box in train and 2 in val, so"),
    ('', 'fig', 'no box in train, so there is nothing to learn'),
    ('', '', 'no box in it, so there is nothing to learn'),
])
def test_what_training_could_not_learn_is_a_gap(tmp_path, train, val, words):
    for split, label in ('train', train), ('val', val):
        row = ',,,,' if not label else f'{label},0,0,9,9'
        make(tmp_path / split, ''.join(
            f'{name}.png,{row}\n' for name in 'ab'))
    survey = survey_folder(tmp_path)
    assert survey.problems == []
    assert [str(each).startswith(f'{tmp_path}: {words}')
            for each in survey.gaps] == ([True] if words else [])


def test_a_class_that_validation_lacks_is_noted(tmp_path):
    make(tmp_path / 'train', 'a.png,fig,0,0,9,9\nb.png,pear,0,0,9,9\n')
    make(tmp_path / 'val', 'a.png,fig,0,0,9,9\n')
    survey = survey_folder(tmp_path)
    assert survey.gaps == []
    assert survey.notes == [f"{tmp_path}: no box in val of class 'pear', so "
                            'how well it is found will not be known']


def noise(path, seed):
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)).save(path)


def test_a_picture_for_training_and_for_validation_is_a_gap(tmp_path):
    for seed, split in enumerate(('train', 'val')):
        make(tmp_path / split, 'a.png,fig,0,0,9,9\n', [])
        noise(tmp_path / split / 'images/a.png', seed)
    assert survey_folder(tmp_path).gaps == []
    noise(tmp_path / 'val/images/twin.png', 0)
    noise(tmp_path / 'val/images/again.png', 0)
    gaps = survey_folder(tmp_path).gaps
    assert [gap.file for gap in gaps] == [
        str(tmp_path / 'val/images' / name)
        for name in ('again.png', 'twin.png')]
    for gap in gaps:
        assert f"as {tmp_path / 'train/images/a.png'}, which" in gap.text


def test_pictures_that_are_there_twice_are_noted(tmp_path):
    make(tmp_path / 'val', 'b.png,fig,0,0,9,9\n', ['b.png'])
    make(tmp_path / 'train', 'a1.png,fig,0,0,9,9\n', [])
    for name in 'a1.png', 'a2.png', 'a10.png':
        noise(tmp_path / 'train/images' / name, 0)
    survey = survey_folder(tmp_path)
    assert survey.gaps == []
    assert survey.notes == [
        f"{tmp_path}: 2 the same as another picture: 'a2.png', 'a10.png'"]


def test_a_heap_too_small_to_be_divided_for_good_is_noted(tmp_path):
    names = [name for name in (f'{i}.png' for i in range(99))
             if folder_module._place(name) >= 0.2][:4]
    make(tmp_path, f'{names[0]},fig,0,0,9,9\n', names)
    assert any('so few pictures' in note
               for note in survey_folder(tmp_path).notes)
    name = next(name for name in (f'{i}.png' for i in range(99))
                if folder_module._place(name) < 0.2)
    make(tmp_path, f'{names[0]},fig,0,0,9,9\n', [name])
    assert not any('so few pictures' in note
                   for note in survey_folder(tmp_path).notes)


def test_one_picture_alone_is_a_gap_as_training_would_refuse_it(tmp_path):
    make(tmp_path, 'a.png,fig,0,0,9,9\n', ['a.png'])
    gap, = survey_folder(tmp_path).gaps
    with pytest.raises(ValueError, match='no picture is left') as caught:
        read_folder(tmp_path, 'val', progress=False)
    assert str(caught.value) == str(gap)


def test_a_survey_divides_a_folder_as_reading_does(tmp_path):
    names = [f'{i}.png' for i in range(20)]
    make(tmp_path, '', names, size=(4, 4))
    survey = survey_folder(tmp_path)
    for split in 'train', 'val':
        images, _ = read_folder(tmp_path, split, progress=False)
        assert images[:, 0, 0, 0].tolist() == [
            int(each.path.stem) for each in survey.pictures
            if each.split == split]


def test_gaps_are_left_for_when_the_files_are_sound(tmp_path):
    make(tmp_path, 'c.png,fig,0,0,9,9\n')
    survey = survey_folder(tmp_path)
    assert len(survey.problems) == 1
    assert survey.gaps == []


def test_a_picture_stays_in_its_split_when_others_come(tmp_path):
    names = [f'{i}.png' for i in range(200)]
    before = folder_module._validation_names(names, 0.1)
    after = folder_module._validation_names(names + ['x', 'y'], 0.1)
    assert before == after & set(names)
    assert 8 <= len(before) <= 35


@pytest.mark.parametrize('count', range(2, 12))
def test_an_undivided_folder_gives_both_splits_a_picture(count):
    names = [f'{i}.png' for i in range(count)]
    for fraction in 0.001, 0.1, 0.5, 0.999:
        chosen = folder_module._validation_names(names, fraction)
        assert 0 < len(chosen) < count


def test_the_splits_share_no_picture_and_lose_none(tmp_path):
    names = [f'{i}.png' for i in range(12)]
    make(tmp_path, '', names, size=(4, 4))
    images, _ = read_all(tmp_path, val_fraction=0.4)
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(12))


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    names = ['10.png', '9.png', '2.png']
    make(tmp_path, '', names)
    images, _ = read_folder(tmp_path, 'train', val_fraction=0,
                            progress=False)
    assert images[:, 0, 0, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize('fraction', [-0.1, 1, 1.5, 'half', None, True,
                                      math.nan])
def test_a_share_for_validation_that_is_none_is_refused(tmp_path, fraction):
    make(tmp_path)
    with pytest.raises(ValueError, match='val_fraction = '):
        read_folder(tmp_path, 'train', val_fraction=fraction, progress=False)


def test_an_empty_split_is_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match="no picture is left.*'val'"):
        read_folder(tmp_path, 'val', val_fraction=0, progress=False)


def test_the_bar_says_what_is_read(tmp_path, capsys):
    make(tmp_path)
    read_folder(tmp_path, 'train')
    assert f'reading pictures of {tmp_path}' in capsys.readouterr().err


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory):
    return make(tmp_path_factory.mktemp('fuzzed'))


CELLS = st.sampled_from([
    'a.png', 'b.png', '0', '1', '9', '50', '', 'nan', '-1', '1e999', '../a',
    '"', ',', '\r', '\0', '0' * 5000, 'é']) | st.text(max_size=5)
ROWS = st.lists(st.lists(CELLS, min_size=4, max_size=7).map(','.join),
                max_size=6).map('\n'.join)


@pytest.mark.fault('a file holds anything at all')
@settings(max_examples=80, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=ROWS.map(lambda rows: (HEADING + rows).encode('utf-8', 'ignore'))
       | st.binary(max_size=60)
       | st.binary(max_size=60).map(lambda rows: HEADING.encode() + rows))
@pytest.mark.filterwarnings('ignore:.*no box is of class')
def test_any_table_is_read_or_refused_with_a_value_error(fuzzed, data):
    assert_read_or_refused(fuzzed, 'label.csv', data)
