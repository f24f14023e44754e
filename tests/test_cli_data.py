"""The command ``data check``: what it prints, draws and returns."""
import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from d2lssd.__main__ import main

TABLE = 'img_name,label,xmin,ymin,xmax,ymax\n'
ROWS = 'a.png,pear,10,5,60,50\na.png,fig,0,0,9,9\nb.png,fig,50,0,70,40\n'


def make(folder, rows=ROWS, names=('a.png', 'b.png', 'c.png')):
    """Write a folder of flat pictures, 100 by 50 pixels, and a table."""
    (folder / 'images').mkdir(parents=True)
    for name in names:
        Image.new('RGB', (100, 50), 'white').save(folder / 'images' / name)
    (folder / 'label.csv').write_text(TABLE + rows, 'utf-8')
    return folder


def check(capsys, *args):
    """Exit status, lines of standard output, standard error."""
    status = main(['data', 'check', *map(str, args)])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_a_clean_folder_is_summed_up(tmp_path, capsys):
    status, lines, errors = check(capsys, make(tmp_path / 'mine'))
    assert status == 0
    assert lines == [
        f"note: {tmp_path / 'mine'}: no box in val of class 'pear', so how "
        'well it is found will not be known',
        f"note: {tmp_path / 'mine'}: so few pictures that the one in val was "
        'taken from train, where it goes back when others come',
        f'{tmp_path / "mine"}: 3 pictures, 1 without a box; 3 boxes',
        'splits: train 2, val 1',
        'picture sizes: least 100×50, median 100×50, most 100×50 pixels',
        'box sizes: least 9×9, median 20×40, most 50×45 pixels',
        'classes: fig 2 (train 1, val 1), pear 1 (train 1, val 0)',
        'no problems']
    assert 'reading pictures of' in errors
    assert '3/3' in errors


def test_every_bad_label_is_one_line_with_file_and_place(tmp_path, capsys):
    make(tmp_path / 'mine', ROWS + 'a.png,fig,9,0,1,9\nd.png,fig,0,0,9,9\n'
         '"b\nc.png",fig,0,0,9,9\n')
    status, lines, _ = check(capsys, tmp_path / 'mine')
    table = tmp_path / 'mine' / 'label.csv'
    assert status == 2
    assert lines[0].startswith(f'{table}, line 5: xmin 9 is right of xmax 1')
    assert lines[1].startswith(f"{table}, line 6: no picture 'd.png'")
    assert lines[2].startswith(f'{table}, line 8: no picture ')
    assert lines[3].startswith(f'{tmp_path / "mine"}: 3 pictures')
    assert 'box sizes: least 9×9, median 20×40, most 50×45 pixels' in lines
    assert lines[-1] == '3 problems'


@pytest.mark.parametrize(('labels', 'wrong'), [
    (['pear', 'fig', 'fig', '7'], [5]), (['3', '0', 'fig', '0'], [4])])
def test_of_names_and_numbers_those_that_are_fewer_are_wrong(
        labels, wrong, tmp_path, capsys):
    make(tmp_path / 'mine', ''.join(
        f'a.png,{label},0,0,9,9\n' for label in labels))
    _, lines, _ = check(capsys, tmp_path / 'mine')
    said = [line for line in lines if 'use one or the other' in line]
    assert len(said) == len(wrong)
    for line, number in zip(said, wrong):
        assert f'label.csv, line {number}: class ' in line


def test_other_commands_give_a_line_to_each_problem_of_a_folder(
        tmp_path, capsys):
    folder = make(tmp_path / 'mine', ROWS + 'e.png,fig,0,0,9,9\n'
                  'd.png,fig,0,0,9,9\n')
    for command in ['train', '--source'], ['evaluate', '--source']:
        assert main([*command, str(folder)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-3] == f'd2lssd: {folder}: 2 problems'
        assert lines[-2].startswith(f'  {folder / "label.csv"}, line 5: no pi')
        assert lines[-1].startswith(f'  {folder / "label.csv"}, line 6: no pi')


def test_a_folder_is_measured_whole(tmp_path, capsys):
    assert main(['evaluate', '--source', str(make(tmp_path / 'mine')),
                 '--count', '2']) == 2
    assert '--count: for drawn pictures only' in capsys.readouterr().err


def test_coco_is_checked_too_and_crowds_are_noted(tmp_path, capsys):
    folder = make(tmp_path / 'mine')
    (folder / 'label.csv').unlink()
    (folder / 'annotations.json').write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'a.png'}],
        'categories': [{'id': 1, 'name': 'fig'}],
        'annotations': [
            {'id': 8, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 9, 9]},
            {'id': 9, 'image_id': 1, 'category_id': 1,
             'bbox': [0, 0, 99, 49], 'iscrowd': 1},
            {'id': 10, 'image_id': 1, 'category_id': 1,
             'bbox': [60, 0, 50, 9]}]}))
    status, lines, _ = check(capsys, folder)
    assert status == 2
    assert lines[0].startswith(f'{folder / "annotations.json"}, '
                               'annotations[2]: x 60 + width 50 = 110')
    assert '(annotation 10, in a.png)' in lines[0]
    assert lines[1].startswith('note: ')
    assert '1 annotation of a crowd' in lines[1]


def test_with_json_one_object_holds_all(tmp_path, capsys):
    make(tmp_path / 'train', ROWS + 'a.png,fig,9,0,1,9\n')
    make(tmp_path / 'val', 'a.png,pear,0,0,8,8\n', ['a.png'])
    status, lines, _ = check(capsys, tmp_path, '--json')
    assert status == 2
    line, = lines
    facts = json.loads(line)
    assert facts['problems'] == [{
        'file': str(tmp_path / 'train' / 'label.csv'), 'line': 5,
        'path': None, 'text': 'xmin 9 is right of xmax 1; swap them, or '
        'is 1 the width? (in a.png)'}]
    assert (facts['pictures'], facts['boxes'], facts['empty']) == (4, 5, 1)
    assert facts['splits'] == {'train': 3, 'val': 1}
    assert facts['classes'] == {'fig': 3, 'pear': 2}
    assert facts['split_classes'] == {'train': {'fig': 3, 'pear': 1},
                                      'val': {'fig': 0, 'pear': 1}}
    assert facts['picture_sizes']['median'] == [100, 50]
    assert facts['notes'] == []


def test_a_class_that_only_validation_has_is_a_problem(tmp_path, capsys):
    make(tmp_path / 'train', 'a.png,fig,0,0,9,9\n')
    make(tmp_path / 'val', 'a.png,fig,0,0,9,9\nb.png,pear,0,0,9,9\n')
    status, lines, _ = check(capsys, tmp_path)
    assert status == 2
    assert lines[0] == (f"{tmp_path}: class 'pear' has no box in train and 1 "
                        'in val, so it is not learnt; label more of it')
    assert lines[-2:] == [
        'classes: fig 2 (train 1, val 1), pear 1 (train 0, val 1)',
        '1 problem']
    status, (line,), _ = check(capsys, tmp_path, '--json')
    assert status == 2
    assert [each['file'] for each in json.loads(line)['problems']] == [
        str(tmp_path)]


@pytest.mark.filterwarnings('default')
def test_a_note_is_told_once_and_on_one_line_when_both_splits_are_read(
        tmp_path, capsys):
    folder = make(tmp_path / 'mine')
    (folder / 'images' / 'IMG_1.HEIC').write_text('')
    assert main(['data', '--source', str(folder)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if 'left out' in line] == [
        f"d2lssd: {folder / 'images'}: 1 left out, no picture files of a "
        "known kind: 'IMG_1.HEIC'"]


def test_an_option_before_the_word_check_counts(tmp_path, capsys):
    folder = make(tmp_path / 'mine')
    assert main(['data', '--json', 'check', str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)['boxes'] == 3


def test_a_folder_that_does_not_exist_is_said_once(tmp_path, capsys):
    status, lines, errors = check(capsys, tmp_path / 'nowhere')
    assert status == 2
    assert lines[0] == f'{tmp_path / "nowhere"}: there is no such folder'
    assert errors == ''
    facts = json.loads(check(capsys, tmp_path / 'nowhere', '--json')[1][0])
    assert facts['box_sizes'] is None


def test_a_picture_that_cannot_be_read_is_a_problem(tmp_path, capsys):
    folder = make(tmp_path / 'mine')
    (folder / 'images' / 'c.png').write_text('hello')
    status, lines, _ = check(capsys, folder)
    assert status == 2
    assert lines[0].startswith(f'{folder / "images" / "c.png"}: not a pict')


def near(colour, other):
    return all(abs(a - b) < 40 for a, b in zip(colour, other))


def test_the_sheet_shows_each_class_in_a_colour_of_its_own(tmp_path, capsys):
    make(tmp_path / 'mine', 'a.png,fig,10,10,40,40\na.png,pear,60,10,90,40\n'
         'b.png,fig,10,10,40,40\nb.png,pear,60,10,90,40\n',
         ['a.png', 'b.png'])
    out = tmp_path / 'out' / 'sheet.png'
    status, *_ = check(capsys, tmp_path / 'mine', '--sheet', out)
    assert status == 0
    pixels = np.asarray(Image.open(out).convert('RGB')).reshape(-1, 3)
    colours = np.unique(pixels, axis=0).astype(int)
    # Okabe and Ito's blue and orange, for the first two classes.
    for wanted in (0, 114, 178), (230, 159, 0):
        assert any(near(each, wanted) for each in colours), wanted
    assert not any(near(each, (0, 158, 115)) for each in colours)


def test_the_sheet_takes_24_pictures_from_all_over(tmp_path, capsys,
                                                   monkeypatch):
    from d2lssd import plotting
    names = [f'{i}.png' for i in range(50)]
    make(tmp_path / 'mine', '0.png,$a^$,0,0,9,9\n', names)
    shown = []

    def show_images(images, *size, **options):
        axes = real(images, *size, **options)
        shown.append((len(images), size, axes))
        return axes

    real = plotting.show_images
    monkeypatch.setattr(plotting, 'show_images', show_images)
    check(capsys, tmp_path / 'mine', '--sheet', tmp_path / 'sheet.png')
    (count, size, axes), = shown
    assert (count, size) == (24, (4, 6))
    titles = [ax.get_title() for ax in axes]
    assert titles[:3] == ['0.png', '2.png', '4.png']
    assert titles[-1] == '47.png'
    assert axes[0].texts[0].get_text() == '$a^$'


def test_a_sheet_does_not_take_the_place_of_a_picture(tmp_path, capsys):
    make(tmp_path / 'mine', ROWS)
    picture = tmp_path / 'mine' / 'images' / 'a.png'
    before = picture.read_bytes()
    status, _, errors = check(capsys, tmp_path / 'mine', '--sheet', picture)
    assert status == 2
    assert 'lies among the pictures' in str(errors)
    assert picture.read_bytes() == before
    other = tmp_path / 'images' / 'sheet.png'  # of no labels
    check(capsys, tmp_path / 'mine', '--sheet', other)
    assert other.exists()


def test_a_sheet_that_cannot_be_drawn_comes_after_the_report(tmp_path,
                                                             capsys):
    folder = make(tmp_path / 'mine')
    (tmp_path / 'folder.png').mkdir()
    before = plt.get_fignums()
    for name, words in {
            'sheet.tiger': 'sheet.tiger: name it .png',
            'sheet': 'sheet: name it .png',
            'folder.png': 'folder.png: a folder has this name',
            'mine/label.csv/sheet.png': 'file stands where a fol'}.items():
        status, lines, errors = check(capsys, folder, '--sheet',
                                      tmp_path / name)
        assert status == 2
        assert lines[-1] == 'no problems'
        assert words in errors.splitlines()[-1]
        assert '.part' not in errors
    assert plt.get_fignums() == before


def test_boxes_beyond_all_measure_spoil_neither_sheet_nor_numbers(tmp_path,
                                                                  capsys):
    folder = make(tmp_path / 'mine')
    (folder / 'label.csv').unlink()
    (folder / 'annotations.json').write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'a.png'}],
        'categories': [{'id': 1, 'name': 'fig'}],
        'annotations': [{'image_id': 1, 'category_id': 1, 'bbox': bbox}
                        for bbox in ([0, 0, 1e308, 9], [1e308] * 4,
                                     [-1e308, 0, 9, 9], [1, 1, 8, 8])]}))
    status, lines, _ = check(capsys, folder, '--json', '--sheet',
                             tmp_path / 'sheet.png')
    assert status == 2

    def refuse(word):
        raise ValueError(word)

    facts = json.loads(lines[0], parse_constant=refuse)
    assert facts['box_sizes']['least'] == [8, 8]
    assert {each['path'] for each in facts['problems']} == {
        'annotations[0]', 'annotations[1]', 'annotations[2]'}
    assert Image.open(tmp_path / 'sheet.png').size > (100, 100)


def test_check_and_source_do_not_go_together(tmp_path, capsys):
    assert main(['data', '--source', 'd2l', 'check', str(tmp_path)]) == 2
    assert '--source d2l' in capsys.readouterr().err


def test_the_help_names_both_formats_and_the_exit_status(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['data', 'check', '--help'])
    assert caught.value.code == 0
    text = ' '.join(capsys.readouterr().out.split())
    for words in 'label.csv', 'annotations.json', 'Exit status: 0', '--sheet':
        assert words in text


def test_without_check_a_folder_is_described_as_before(tmp_path, capsys):
    folder = make(tmp_path / 'mine', names=[f'{i}.png' for i in range(8)],
                  rows='0.png,0,0,0,50,50\n')
    assert main(['data', '--source', str(folder), '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['train']['pictures'] + facts['val']['pictures'] == 8
    assert facts['folder'] == str(folder)


def test_a_split_without_boxes_has_no_mean_size_and_no_home_is_needed(
        tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('D2LSSD_HOME', '~nosuchuser/x')
    make(tmp_path / 'train', 'a.png,fig,0,0,50,25\n', ['a.png'])
    make(tmp_path / 'val', '', ['a.png'])
    command = ['data', '--source', str(tmp_path)]

    def refuse(word):
        raise ValueError(word)

    assert main([*command, '--json']) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert facts['train']['mean_size'] == [128, 128]
    assert facts['val']['mean_size'] is None
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        'train: 1 pictures, 1 boxes, mean size 128.0×128.0 of 256 pixels',
        'val: 1 pictures, 0 boxes', f'read from {tmp_path}']


def test_the_sheet_of_a_source_appears_whole_in_a_new_folder(tmp_path,
                                                             capsys):
    folder = make(tmp_path / 'mine', names=[f'{i}.png' for i in range(8)],
                  rows='0.png,0,0,0,50,50\n')
    out = tmp_path / 'new' / 'sheet.png'
    before = plt.get_fignums()
    assert main(['data', '--source', str(folder), '--sheet', str(out)]) == 0
    assert Image.open(out).size > (100, 100)
    assert [file.name for file in out.parent.iterdir()] == ['sheet.png']
    assert plt.get_fignums() == before
