"""Any picture in, boxes out; weights that are data and never code."""
import io
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2lssd
from d2lssd.__main__ import build_parser, main
from d2lssd.evaluation import EXAM_PICTURES
from d2lssd.prediction import SHIPPED


@pytest.fixture(scope='module')
def net():
    return d2lssd.load_pretrained()


@pytest.fixture
def picture():
    image, boxes = d2lssd.draw_scene('val', 7, seed=5)
    return Image.fromarray(image), boxes


def test_predict_leaves_every_layer_in_its_mode_and_builds_no_graph():
    net = d2lssd.TinySSD(1).train()
    net.blk_0.eval()
    before = [layer.training for layer in net.modules()]
    output = d2lssd.predict(torch.rand(1, 3, 256, 256) * 255, net)
    assert [layer.training for layer in net.modules()] == before
    assert not output.requires_grad
    with pytest.raises(RuntimeError):
        d2lssd.predict(torch.rand(1, 2, 256, 256), net)
    assert [layer.training for layer in net.modules()] == before


def test_predict_does_not_move_batch_norm_statistics():
    net = d2lssd.TinySSD(1).train()
    before = net.blk_0[0][1].running_mean.clone()
    d2lssd.predict(torch.rand(1, 3, 256, 256) * 255, net)
    assert torch.equal(net.blk_0[0][1].running_mean, before)


def test_predict_takes_one_image_and_says_so():
    with pytest.raises(ValueError, match='X holds 2 images'):
        d2lssd.predict(torch.zeros(2, 3, 256, 256), d2lssd.TinySSD(1))


def test_rows_of_predict_are_sorted_and_of_real_classes(net, picture):
    X, _ = d2lssd.read_image(picture[0])
    rows = d2lssd.predict(X, net)
    assert (rows[:, 0] == 0).all()
    assert (rows[:, 1].diff() <= 0).all()


def test_the_shipped_network_finds_a_banana_it_has_never_seen(net, picture):
    found = d2lssd.detect(picture[0], net)
    true = torch.from_numpy(picture[1]) * 256
    assert len(found) == 1
    iou = d2lssd.box_iou(torch.tensor([found[0]['box']]), true)
    assert iou > 0.5


def test_the_shipped_files_are_small_and_described():
    for file in SHIPPED.glob('*.safetensors'):
        assert file.stat().st_size <= 2.5e6
        card = json.loads(file.with_suffix('.json').read_text('utf-8'))
        assert card['recipe']['num_epochs'] == len(card['history'])
        assert {'seed', 'drawing_version', 'exams', 'crc32'} <= card.keys()


@pytest.mark.parametrize('mode', ['L', 'LA', 'P', 'RGBA', 'CMYK', '1', 'I;16'])
def test_every_kind_of_picture_is_read(net, picture, mode, tmp_path):
    image = picture[0]
    if mode == 'I;16':
        image = Image.fromarray(np.array(image.convert('L')).astype(
            np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / 'p.tif'
    image.save(path)
    X, read = d2lssd.read_image(path)
    assert X.shape == (1, 3, 256, 256)
    assert read.mode == 'RGB'
    grey = np.array(picture[0].convert('L')).mean()
    assert X.mean() == pytest.approx(grey, abs=12)


def test_a_picture_turned_by_exif_is_found_where_a_person_sees_it(
        net, picture, tmp_path):
    upright = picture[0]
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter to the left of how it is seen
    turned.save(tmp_path / 'turned.png', exif=exif)
    assert d2lssd.detect(tmp_path / 'turned.png', net) == d2lssd.detect(
        upright, net)


def transparent():
    image = Image.new('RGBA', (40, 30), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 30))
    return image


def turned():
    image = Image.new('RGB', (40, 30))
    image.paste('yellow', (0, 0, 20, 15))
    image.getexif()[0x0112] = 6
    return image


def deep():
    return Image.fromarray(np.linspace(0, 65535, 1200).astype(
        np.uint16).reshape(30, 40))


@pytest.mark.parametrize('make', [transparent, turned, deep])
def test_a_pillow_image_is_read_as_its_file_is(make, tmp_path):
    image = make()
    image.save(tmp_path / 'p.png', exif=image.getexif())
    (X, picture), (Y, same) = (d2lssd.read_image(each)
                               for each in (image, tmp_path / 'p.png'))
    assert torch.equal(X, Y)
    assert picture.size == same.size
    assert picture.tobytes() == same.tobytes()
    assert picture is not image


def test_an_array_and_a_tensor_are_read_as_the_picture_is(picture):
    expected, _ = d2lssd.read_image(picture[0])
    pixels = np.array(picture[0])
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for same in (pixels, pixels.astype(np.float64), tensor, tensor.float(),
                 tensor.bfloat16(), tensor.long()):
        assert torch.equal(d2lssd.read_image(same)[0], expected)
    black = torch.zeros(3, 8, 8)
    assert (d2lssd.read_image(black)[0] == 0).all()
    beyond = torch.tensor([-3, 260.]).repeat(3, 2, 1)  # as bicubic may give
    assert d2lssd.read_image(beyond)[1].getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize(('value', 'words'), [
    (np.ones((9, 9, 3), np.uint16), r'ndarray \(9, 9, 3\) of uint16, *'),
    (np.full((9, 9, 3), 0.7), 'of float64, from 0.7 to 0.7'),
    (np.full((9, 9, 3), np.nan), 'from nan to nan'),
    (np.zeros((3, 20, 20), np.uint8), r'\(3, 20, 20\) of uint8; \(h, w, 3\)'),
    (np.zeros((20, 20), np.uint8), r'\(20, 20\) of uint8'),
    (np.zeros((0, 5, 3), np.uint8), r'\(0, 5, 3\)'),
    (np.full((9, 9, 3), 300), 'from 300 to 300'),
    (torch.zeros(1, 3, 9, 9), r'Tensor \(1, 3, 9, 9\) of .*; \(3, h, w\)'),
    (torch.zeros(9, 9, 3), r'Tensor \(9, 9, 3\)'),
    (torch.rand(3, 9, 9), 'from .* 0 to 255, is needed'),
])
def test_numbers_that_are_no_picture_are_refused_with_what_is(value, words):
    words = words.removesuffix(', *')
    with pytest.raises(ValueError, match=f'^picture: .*{words}'):
        d2lssd.read_image(value)


@pytest.mark.parametrize('value', [None, 0, b'bytes', [[1]]])
def test_what_is_no_picture_at_all_is_refused_by_its_type(value):
    with pytest.raises(TypeError, match=type(value).__name__ + '; a path'):
        d2lssd.read_image(value)


def test_boxes_are_in_pixels_of_the_original_picture(net, picture):
    small = d2lssd.detect(picture[0], net, tiles=False)[0]['box']
    image = picture[0].resize((1024, 768), Image.Resampling.NEAREST)
    large = d2lssd.detect(image, net, tiles=False)[0]['box']
    large = torch.tensor([large]) / torch.tensor([4, 3, 4, 3])
    assert d2lssd.box_iou(large, torch.tensor([small])).item() > 0.8


def test_boxes_that_were_suppressed_have_a_vote_unless_told_otherwise(
        picture, tmp_path, capsys):
    """Where no judge has the last word."""
    net = d2lssd.load_pretrained('balanced')
    picture[0].save(tmp_path / 'picture.png')
    path = str(tmp_path / 'picture.png')
    found = {}
    for options in (), ('--no-voting',):
        assert main(['predict', path, '--json', '--no-tiles', '--weights',
                     'balanced', *options]) == 0
        found[options] = json.loads(capsys.readouterr().out)['detections']
    voted, not_voted = found.values()
    assert voted == d2lssd.detect(path, net, tiles=False)
    assert not_voted == d2lssd.detect(path, net, tiles=False, voting=False)
    assert [row['score'] for row in voted] == [
        row['score'] for row in not_voted]
    assert voted[0]['box'] != not_voted[0]['box']
    rows = d2lssd.predict(d2lssd.read_image(path)[0], net)
    np.testing.assert_allclose(not_voted[0]['box'], 256 * rows[0, 2:],
                               atol=0.06)


def test_a_picture_of_one_pixel_is_no_error(net):
    assert d2lssd.detect(Image.new('RGB', (1, 1)), net) == []


def test_weights_survive_being_saved(tmp_path):
    torch.manual_seed(3)
    net = d2lssd.TinySSD(2)
    for value in net.state_dict().values():
        if value.is_floating_point():  # no two tensors alike
            value.copy_(torch.rand_like(value) + 0.5)
    d2lssd.save_weights(net, tmp_path / 'w.safetensors')
    again = d2lssd.load_weights(tmp_path / 'w.safetensors')
    assert again.num_classes == 2
    state = again.state_dict()
    for name, value in net.state_dict().items():
        half = value.half().float() if value.is_floating_point() else value
        assert torch.equal(state[name], half), name


def test_weights_too_large_for_half_precision_survive_being_saved(tmp_path):
    net = d2lssd.TinySSD(1)
    net.blk_0[0][1].running_var.fill_(70_000)
    file = tmp_path / 'w.safetensors'
    d2lssd.save_weights(net, file)
    again = d2lssd.load_weights(file)
    assert (again.blk_0[0][1].running_var == 70_000).all()


@pytest.mark.fault('a loss or a weight is no number')
def test_weights_that_are_no_numbers_do_not_replace_those_that_are(tmp_path):
    net, file = d2lssd.TinySSD(1), tmp_path / 'w.safetensors'
    d2lssd.save_weights(net, file)
    net.state_dict()['cls_0.bias'][2] = float('nan')
    with pytest.raises(ValueError, match='w.safetensors: .*cls_0.bias is not'):
        d2lssd.save_weights(net, file)
    assert d2lssd.load_weights(file)


@pytest.mark.parametrize('name', [
    'w1.json', 'w2.checkpoint', 'lr0.1', 'w', 'w.safetensor'])
def test_weights_have_one_ending_so_that_nothing_shares_their_name(
        name, tmp_path):
    with pytest.raises(ValueError, match=f'{name}: weights need a name that '
                       f'ends in .safetensors, such as {name}.safetensors'):
        d2lssd.save_weights(d2lssd.TinySSD(1), tmp_path / name, {})
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_class_stays_on_one_line_of_the_picture(tmp_path):
    found = [{'label': 'two\nlines', 'score': 0.9, 'box': [5, 20, 30, 40]}]
    image = Image.new('RGB', (90, 60))
    d2lssd.save_picture(image, found, tmp_path / 'out.png')
    assert Image.open(tmp_path / 'out.png').size == (90, 60)
    assert image.getextrema() == ((0, 0),) * 3


def test_names_are_written_in_letters_of_many_languages(tmp_path):
    pictures = []
    for name in 'Äß', 'яб', 'ñά':
        found = [{'label': name, 'score': 0.9, 'box': [5, 40, 80, 90]}]
        d2lssd.save_picture(Image.new('RGB', (200, 100)), found,
                            tmp_path / 'out.png')
        pictures.append(Image.open(tmp_path / 'out.png').tobytes())
    assert len(set(pictures)) == 3  # letters that are missing look the same


@pytest.mark.parametrize('text', ['{"images": []}', '[1]', 'no JSON', ''])
def test_a_card_overwrites_nothing_but_a_card(tmp_path, text):
    labels, net = tmp_path / 'mine.json', d2lssd.TinySSD(1)
    labels.write_text(text)
    with pytest.raises(ValueError, match='mine.json: .*describes no weights'):
        d2lssd.save_weights(net, tmp_path / 'mine.safetensors', {})
    assert labels.read_text() == text
    assert list(tmp_path.iterdir()) == [labels]
    labels.unlink()
    for _ in range(2):
        d2lssd.save_weights(net, tmp_path / 'mine.safetensors', {})


def test_a_folder_in_a_cards_way_is_told_before_anything_is_written(tmp_path):
    (tmp_path / 'mine.json').mkdir()
    with pytest.raises(IsADirectoryError, match='mine.json: a folder'):
        d2lssd.save_weights(d2lssd.TinySSD(1), tmp_path / 'mine.safetensors',
                            {})
    assert list(tmp_path.iterdir()) == [tmp_path / 'mine.json']


@pytest.mark.fault('a loss or a weight is no number')
def test_boxes_that_are_no_numbers_are_not_detected():
    net = d2lssd.load_pretrained('balanced')
    picture = Image.new('RGB', (64, 64), 'gold')
    options = {'threshold': 0.0, 'tiles': False, 'voting': False}
    before = d2lssd.detect(picture, net, **options)
    with torch.no_grad():  # of one map; the others stay
        net.bbox_0.weight.copy_(net.bbox_0.weight.sign() * 3e38)
    found = d2lssd.detect(picture, net, **options)
    assert 0 < len(found) < len(before)
    assert np.isfinite([each['box'] for each in found]).all()


def test_the_sizes_of_the_anchors_lie_beside_the_weights(tmp_path):
    net = d2lssd.TinySSD(1).eval()
    net.sizes = [[0.1, 0.136], *d2lssd.sizes[:-1]]
    d2lssd.save_weights(net, tmp_path / 'w.safetensors')
    loaded = d2lssd.load_weights(tmp_path / 'w.safetensors')
    assert loaded.sizes == net.sizes
    X = torch.zeros(1, 3, 256, 256)
    assert torch.equal(loaded(X)[0], net(X)[0])


def test_weights_of_before_the_sizes_were_written_have_the_usual_ones(
        tmp_path):
    from safetensors.torch import save_file
    save_file(d2lssd.TinySSD(1).state_dict(), tmp_path / 'w.safetensors',
              {'format': 'd2lssd-1', 'num_classes': '1'})
    net = d2lssd.load_weights(tmp_path / 'w.safetensors')
    assert net.sizes == d2lssd.sizes
    assert net.judge is None


def test_a_judge_lies_beside_the_weights(tmp_path):
    net = d2lssd.TinySSD(1).eval()
    net.judge = d2lssd.Judge()
    d2lssd.save_weights(net, tmp_path / 'w.safetensors')
    judge = d2lssd.load_weights(tmp_path / 'w.safetensors').judge
    assert not judge.training
    for name, value in net.judge.state_dict().items():
        assert torch.equal(judge.state_dict()[name], value.half().float())


@pytest.mark.fault('weights are a pickle, cut short or of another network')
@pytest.mark.parametrize('change', ['missing', 'shape', 'more'])
def test_a_judge_of_another_version_is_left_out(tmp_path, change):
    from safetensors.torch import save_file
    net = d2lssd.TinySSD(1)
    net.judge = d2lssd.Judge()
    state = net.state_dict()
    if change == 'missing':
        del state['judge.decide.2.bias']
    elif change == 'shape':
        state['judge.decide.2.bias'] = torch.zeros(5)
    else:
        state['judge.decide.8.bias'] = torch.zeros(5)
    save_file(state, tmp_path / 'w.safetensors',
              {'format': 'd2lssd-1', 'num_classes': '1'})
    with pytest.warns(UserWarning, match='w.safetensors: its judge .* is left '
                      'out'):
        read = d2lssd.load_weights(tmp_path / 'w.safetensors')
    assert read.judge is None
    for name, value in read.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.fault('weights are a pickle, cut short or of another network')
def test_a_judge_with_a_weight_that_is_no_number_is_refused(tmp_path):
    from safetensors.torch import save_file
    net = d2lssd.TinySSD(1)
    net.judge = d2lssd.Judge()
    state = net.state_dict()
    state['judge.decide.2.bias'][3] = float('nan')
    save_file(state, tmp_path / 'w.safetensors',
              {'format': 'd2lssd-1', 'num_classes': '1'})
    with pytest.raises(ValueError, match='judge.decide.2.bias is not all'):
        d2lssd.load_weights(tmp_path / 'w.safetensors')


def test_whose_pictures_were_of_unknown_size_takes_them_as_they_are(tmp_path):
    net = d2lssd.TinySSD(1)
    d2lssd.save_weights(net, tmp_path / 'w.safetensors')
    assert d2lssd.load_weights(tmp_path / 'w.safetensors').side is None
    assert d2lssd.load_pretrained('source').side is None  # an older file
    net.side = 384
    d2lssd.save_weights(net, tmp_path / 'w.safetensors')
    assert d2lssd.load_weights(tmp_path / 'w.safetensors').side == 384


@pytest.mark.fault('weights are a pickle, cut short or of another network')
@pytest.mark.parametrize(('key', 'why', 'values'), [
    ('side', 'it learnt from pictures .* wide',
     ['', '-256', '256.0', 'wide', '0256', '127', '2049', '9' * 5000]),
    ('sizes', 'no sizes of anchors', [
        '', '7', '[[1, 1]]', '[[1]]', '[1, 1, 1, 1, 1]', 'null',
        '[' * 100_000,
        '[[0, 1], [1, 1], [1, 1], [1, 1], [1, 1]]',
        '[[NaN, 1], [1, 1], [1, 1], [1, 1], [1, 1]]',
        '[[1e300, 1], [1, 1], [1, 1], [1, 1], [1, 1]]',
        '[["1", 1], [1, 1], [1, 1], [1, 1], [1, 1]]'])])
def test_a_header_that_fits_no_network_is_refused(tmp_path, key, why, values):
    from safetensors.torch import save_file
    for value in values:
        save_file(d2lssd.TinySSD(1).state_dict(), tmp_path / 'w.safetensors',
                  {'format': 'd2lssd-1', 'num_classes': '1', key: value})
        with pytest.raises(ValueError, match='w.safetensors: its header '
                           f'(has|says that) {why}') as error:
            d2lssd.load_weights(tmp_path / 'w.safetensors')
        assert len(str(error.value)) < 400, value


class Evil:
    def __reduce__(self):
        return (open, ('ran', 'w'))


def other_network():
    from safetensors.torch import save
    state = d2lssd.TinySSD(1).state_dict()
    state['cls_0.weight'] = torch.zeros(3, 3)
    return save(state, {'format': 'd2lssd-1', 'num_classes': '1'})


def not_finite():
    from safetensors.torch import save
    state = d2lssd.TinySSD(1).state_dict()
    state['cls_0.weight'].fill_(float('nan'))
    return save(state, {'format': 'd2lssd-1', 'num_classes': '1'})


def without_header():
    from safetensors.torch import save
    return save(d2lssd.TinySSD(1).state_dict())


@pytest.mark.fault('weights are a pickle, cut short or of another network')
@pytest.mark.parametrize(('content', 'words'), [
    (lambda: pickle.dumps(Evil()), 'not a whole safetensors file'),
    (lambda: b'', 'not a whole safetensors file'),
    (lambda: (SHIPPED / 'balanced.safetensors').read_bytes()[:-99],
     'not a whole safetensors file'),
    (other_network, r'cls_0.weight has shape \(3, 3\); a TinySSD needs'),
    (not_finite, 'cls_0.weight is not all finite'),
    (without_header, 'not written by d2lssd.save_weights'),
])
def test_a_strange_weights_file_is_refused_and_nothing_in_it_runs(
        content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'w.safetensors'
    file.write_bytes(content())
    with pytest.raises(ValueError, match=words):
        d2lssd.load_weights(file)
    assert not (tmp_path / 'ran').exists()


def test_unknown_shipped_weights_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match='known are balanced'):
        d2lssd.load_pretrained('large')


def test_the_command_prints_one_object_an_image(tmp_path, picture, capsys):
    wide = picture[0].resize((512, 256))
    wide.save(tmp_path / 'wide.jpg', quality=95)
    picture[0].save(tmp_path / 'a b.png')
    names = [str(tmp_path / 'wide.jpg'), str(tmp_path / 'a b.png')]
    out = tmp_path / 'out.png'
    assert main(['predict', *names, '--json', '--save', str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r['image'] for r in rows] == names
    assert (rows[0]['width'], rows[0]['height']) == (512, 256)
    for row in rows:
        found, = row['detections']
        assert found['label'] == 'banana'
        assert 0.5 <= found['score'] <= 1
        x1, y1, x2, y2 = found['box']
        assert 0 <= x1 < x2 <= row['width']
        assert 0 <= y1 < y2 <= row['height']
    for i in (1, 2):
        assert Image.open(tmp_path / f'out-{i}.png').size == (
            rows[i - 1]['width'], rows[i - 1]['height'])


def test_an_image_that_cannot_be_read_does_not_stop_the_others(
        tmp_path, picture, capsys):
    picture[0].save(tmp_path / 'good.png')
    buffer = io.BytesIO()
    picture[0].save(buffer, 'PNG')
    (tmp_path / 'cut.png').write_bytes(buffer.getvalue()[:5000])
    (tmp_path / 'text.jpg').write_text('no picture')
    names = [str(tmp_path / n) for n in
             ('cut.png', 'none.png', 'text.jpg', 'good.png')]
    assert main(['predict', *names, '--json']) == 2
    result = capsys.readouterr()
    assert json.loads(result.out)['image'] == names[3]
    lines = result.err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, names):
        assert name in line


def test_a_folder_or_a_pattern_stands_for_its_pictures(
        tmp_path, picture, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('more').mkdir()
    for name in 'b.png', 'a.JPG', 'c[1].png', 'more/d.webp':
        picture[0].save(name)
    Path('notes.txt').write_text('not asked for')
    for names, expected in ((['.'], ['a.JPG', 'b.png', 'c[1].png']),
                            (['*.png'], ['b.png', 'c[1].png']),
                            (['c[1].png', 'more'],
                             ['c[1].png', os.path.join('more', 'd.webp')])):
        assert main(['predict', '--no-tiles', '--json', *names]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)['image'] for line in lines] == expected
    assert main(['predict', '*.gif']) == 2
    assert '*.gif: No such file' in capsys.readouterr().err


def test_a_folder_without_pictures_says_what_is_in_it(
        tmp_path, picture, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in 'empty', 'phone', 'stick/x.jpg':
        Path(name).mkdir(parents=True)
    Path('phone/IMG_1.HEIC').write_bytes(bytes(9))
    for name in '10.png', '9.png', '._9.png', 'fig.eps':
        picture[0].save(f'stick/{name}')
    Path('stick/scan.txt').write_text('')
    assert main(['predict', '--no-tiles', '--json', 'empty', 'phone',
                 'stick']) == 2
    out, errors = capsys.readouterr()
    assert [json.loads(line)['image'] for line in out.splitlines()] == [
        os.path.join('stick', name) for name in ('9.png', '10.png')]
    assert errors.splitlines() == [
        'd2lssd: empty: no picture of a known kind in this folder',
        "d2lssd: phone: no picture of a known kind in this folder, but "
        "'IMG_1.HEIC'",
        "d2lssd: stick: 2 left out, no pictures of a known kind: 'fig.eps', "
        "'scan.txt'"]


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(
        tmp_path, picture, capsys, monkeypatch):
    picture[0].save(tmp_path / 'good.png')
    (tmp_path / 'locked').mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == 'locked':
            raise PermissionError(13, 'Permission denied', str(path))
        return listed(path)
    monkeypatch.setattr(Path, 'iterdir', iterdir)
    assert main(['predict', '--no-tiles', str(tmp_path / 'locked'),
                 str(tmp_path / 'good.png')]) == 2
    out, errors = capsys.readouterr()
    assert 'good.png: ' in out
    assert 'locked: Permission denied' in errors


def test_a_link_in_a_circle_does_not_stop_the_others(
        tmp_path, picture, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture[0].save('good.png')
    try:
        os.symlink('loop', 'loop')
    except (OSError, NotImplementedError):
        pytest.skip('no rights here to make symbolic links, as on Windows')
    assert main(['predict', '--no-tiles', 'loop', 'good.png', '--save',
                 'out.png']) == 2
    assert 'good.png: ' in capsys.readouterr().out
    assert Path('out-2.png').exists()


def test_another_name_of_a_picture_is_not_overwritten_either(
        tmp_path, picture, capsys):
    picture[0].save(tmp_path / 'a.png')
    try:
        os.link(tmp_path / 'a.png', tmp_path / 'b.png')
    except OSError:
        pytest.skip('this file system has no hard links')
    before = (tmp_path / 'a.png').read_bytes()
    assert main(['predict', '--no-tiles', str(tmp_path / 'a.png'), '--save',
                 str(tmp_path / 'b.png')]) == 2
    assert 'would be lost' in capsys.readouterr().err
    assert (tmp_path / 'a.png').read_bytes() == before


@pytest.mark.parametrize(('names', 'save'), [
    (['a.png'], 'a.png'), (['a.png', 'out-1.png'], 'out.png'),
    (['a.png'], './b/../a.png')])
def test_a_picture_that_is_looked_at_is_never_overwritten(
        tmp_path, picture, capsys, monkeypatch, names, save):
    monkeypatch.chdir(tmp_path)
    Path('b').mkdir()
    for name in names:
        picture[0].save(name)
    before = [Path(name).read_bytes() for name in names]
    assert main(['predict', '--no-tiles', *names, '--save', save]) == 2
    assert 'would be lost' in capsys.readouterr().err
    assert [Path(name).read_bytes() for name in names] == before


def test_weights_overwrite_weights_alone(tmp_path):
    from safetensors.torch import save
    net, path = d2lssd.TinySSD(1), tmp_path / 'mine.safetensors'
    d2lssd.save_weights(net, path)
    d2lssd.save_weights(net, path)
    for other in save({'x': torch.zeros(3)}), b'', b'anything':
        path.write_bytes(other)
        with pytest.raises(ValueError, match='not written here'):
            d2lssd.save_weights(net, path)
        assert path.read_bytes() == other


@pytest.mark.fault('the disk is full')
@pytest.mark.skipif(sys.platform == 'win32',
                    reason='closes streams as a POSIX shell does')
@pytest.mark.parametrize(('line', 'status', 'words'), [
    ('data check {folder} >&-', 0, ''),
    ('data check {folder} 2>&-', 0, None),
    ('data check {folder} | true', 0, ''),
    ('--help | true', 0, ''),
    ('data check {folder} >/dev/full', 2, 'No space left on device'),
])
def test_a_closed_or_full_stream_gives_no_traceback(
        tmp_path, line, status, words):
    if 'full' in line and not Path('/dev/full').exists():
        pytest.skip('only Linux has /dev/full')
    (tmp_path / 'images').mkdir()
    for i in range(9):
        Image.new('RGB', (9, 9), (i, 0, 0)).save(
            tmp_path / f'images/{i}.png')
    (tmp_path / 'label.csv').write_text(
        'img_name,label,xmin,ymin,xmax,ymax\n' + ''.join(
            f'{i}.png,fig,0,0,9,9\n' for i in range(9)))
    result = subprocess.run(
        ['bash', '-o', 'pipefail', '-c',
         f'{shlex.quote(sys.executable)} -m d2lssd '
         + line.format(folder=shlex.quote(str(tmp_path)))],
        capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    errors = [text for text in result.stderr.splitlines()
              if 'reading pictures' not in text]
    if words is not None:
        said = ''.join(errors).strip()
        assert said.endswith(words) if words else not said
        assert 'Traceback' not in result.stderr
        assert 'Exception ignored' not in result.stderr


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_a_name_that_cannot_be_printed_does_not_stop_the_others(
        tmp_path, picture, monkeypatch, encoding):
    names = ['bad\udcff.png', 'ñ.png', 'two\nlines.png', 'good.png']
    try:
        for name in names:
            picture[0].save(tmp_path / name)
    except (OSError, ValueError):
        pytest.skip('this file system takes no such names')
    output = io.TextIOWrapper(io.BytesIO(), encoding, errors='strict')
    monkeypatch.setattr(sys, 'stdout', output)
    assert main(['predict', '--no-tiles',
                 *(str(tmp_path / name) for name in names)]) == 0
    lines = output.buffer.getvalue().decode(encoding).splitlines()
    lines = [line for line in lines if not line.startswith('  ')]
    for line, name in zip(lines, [
            'bad\\udcff.png', 'ñ.png' if encoding == 'utf-8' else '\\xf1.png',
            'two\\nlines.png', 'good.png'], strict=True):
        assert line.startswith(f'{tmp_path / name}: '), line


@pytest.mark.skipif(sys.platform == 'win32',
                    reason='Windows has no /dev/stdin to read from')
def test_a_picture_from_a_pipe_is_read_once_and_drawn_on(tmp_path, picture):
    file = tmp_path / 'in.png'
    picture[0].save(file)
    result = subprocess.run(
        [sys.executable, '-m', 'd2lssd', 'predict', '/dev/stdin', '--no-tiles',
         '--save', tmp_path / 'out.png'], input=file.read_bytes(),
        capture_output=True)
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / 'out.png').size == picture[0].size


def test_detections_are_printed_even_if_their_picture_cannot_be_saved(
        tmp_path, picture, capsys):
    file, folder = tmp_path / 'in.png', tmp_path / 'folder.png'
    picture[0].save(file)
    folder.mkdir()
    assert main(['predict', str(file), '--json', '--no-tiles', '--save',
                 str(folder)]) == 2
    result = capsys.readouterr()
    assert json.loads(result.out)['detections']
    assert 'folder.png: a folder has this name' in result.err


@pytest.mark.parametrize('name', ['out.tiger', 'out'])
def test_a_name_that_says_no_format_is_refused_before_any_picture(
        tmp_path, picture, capsys, name):
    picture[0].save(tmp_path / 'in.png')
    assert main(['predict', str(tmp_path / 'in.png'), '--save',
                 str(tmp_path / name)]) == 2
    result = capsys.readouterr()
    assert not result.out
    assert 'name it .png or .jpg' in result.err


@pytest.mark.parametrize(('options', 'words'), [
    ({'threshold': 50}, 'a score is from 0 to 1'),
    ({'threshold': float('nan')}, 'a score is from 0 to 1'),
    ({'classes': 'banana'}, 'a list of names is needed'),
    ({'classes': ['a', 'b']}, '2 names, and the network has 1 classes'),
    ({'net': 'mine.safetensors'}, 'such as load_pretrained or load_weights')])
def test_an_argument_of_detect_that_makes_no_sense_is_refused(
        picture, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        d2lssd.detect(picture[0], **options)


@pytest.mark.parametrize(('command', 'option', 'value'), [
    ('train', '--seed', '-1'), ('train', '--seed', '1' + 20 * '0'),
    ('train', '--lr', 'nan'), ('train', '--lr', '-1'),
    ('train', '--lr', 'inf'), ('train', '--batch-size', '9' * 30),
    ('evaluate', '--count', '0'), ('predict', '--threshold', 'nan')])
def test_a_number_out_of_bounds_is_refused_with_the_bounds(
        command, option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, option, value])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {option}: '{value}' is not a" in said
    assert re.search(r'number from [0-9.e-]+ to [0-9]+$', said, re.M)


def help_of(command, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, '--help'])
    return ' '.join(capsys.readouterr().out.split())


def test_the_help_names_what_there_is(capsys):
    train, evaluate = (help_of(each, capsys) for each in ('train', 'evaluate'))
    for name in d2lssd.RECIPES:
        assert f"'{name}'" in train.partition('--weights FILE ')[0], name
    for file in SHIPPED.glob('*.safetensors'):
        for text in train, evaluate:
            assert f"'{file.stem}'" in text.rpartition('--weights FILE ')[2]
    assert f'default: {EXAM_PICTURES}' in evaluate


@pytest.mark.parametrize('arguments', [
    [], ['predict'], ['predict', 'x.png', '--threshold', '2'], ['dance'],
    ['train', '--epochs', '0'], ['evaluate', '--weights', 'nowhere'],
    ['predict', 'x.png', '--weights', 'nowhere.safetensors'],
    ['train', '--recipe', 'sauce'], ['data', '--source', 'no folder'],
])
def test_bad_usage_ends_with_2_and_says_why(arguments, capsys):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err.strip()


def test_who_mistypes_the_name_of_weights_is_told_those_that_there_are(capsys):
    assert main(['predict', 'x.png', '--weights', 'wilde']) == 2
    assert capsys.readouterr().err == (
        'd2lssd: wilde: no such file; shipped are the weights balanced, clear,'
        ' plain, source, wild\n')


def test_the_module_runs_as_a_command():
    result = subprocess.run([sys.executable, '-m', 'd2lssd', '--help'],
                            capture_output=True, text=True, check=True)
    assert all(name in result.stdout
               for name in ('train', 'evaluate', 'predict', 'data'))


@pytest.mark.parametrize('args', [
    ['predict', ''], ['predict', 'a.png', '--save', ''],
    ['predict', 'a.png', '--weights', ''], ['train', '--save', ''],
    ['train', '--source', ''], ['export', '--output', '']], ids=str)
def test_an_empty_name_is_no_name(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert 'it is empty' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['0,5', 'abc', '1.5', '-0.1', 'nan'])
def test_a_threshold_that_is_none_is_told_what_it_may_be(text, capsys):
    with pytest.raises(SystemExit):
        main(['predict', 'a.png', f'--threshold={text}'])
    assert f"'{text}' is not a number from 0 to 1" in capsys.readouterr().err


def test_the_command_knows_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == d2lssd.__version__


def test_what_was_saved_is_named(tmp_path, capsys):
    for name in 'a.png', 'b.png':
        Image.new('RGB', (64, 64)).save(tmp_path / name)
    assert main(['predict', '--no-tiles', str(tmp_path / 'a.png'),
                 str(tmp_path / 'b.png'), '--save',
                 str(tmp_path / 'out.png')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if 'drawn in' in line] == [
        f'  drawn in {tmp_path / f"out-{i}.png"}' for i in (1, 2)]
