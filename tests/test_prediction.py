"""Any picture in, boxes out; weights that are data and never code."""
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import d2lssd
from d2lssd.__main__ import main
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


def test_boxes_are_in_pixels_of_the_original_picture(net, picture):
    small = d2lssd.detect(picture[0], net, tiles=False)[0]['box']
    image = picture[0].resize((1024, 768), Image.Resampling.NEAREST)
    large = d2lssd.detect(image, net, tiles=False)[0]['box']
    large = torch.tensor([large]) / torch.tensor([4, 3, 4, 3])
    assert d2lssd.box_iou(large, torch.tensor([small])).item() > 0.8


def test_boxes_that_were_suppressed_have_a_vote_unless_told_otherwise(
        net, picture, tmp_path, capsys):
    picture[0].save(tmp_path / 'picture.png')
    path = str(tmp_path / 'picture.png')
    found = {}
    for options in (), ('--no-voting',):
        assert main(['predict', path, '--json', '--no-tiles', *options]) == 0
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


def test_the_module_runs_as_a_command():
    result = subprocess.run([sys.executable, '-m', 'd2lssd', '--help'],
                            capture_output=True, text=True, check=True)
    assert all(name in result.stdout
               for name in ('train', 'evaluate', 'predict', 'data'))
