"""The exported file computes what the network computes, everywhere."""
import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2lssd
from d2lssd import export
from d2lssd.__main__ import main
from d2lssd.detection import find_boxes
from d2lssd.judge import DOUBTED, HEARD, LENIENT
from d2lssd.model import evaluating

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

PAGE = (Path(__file__).resolve().parent.parent / 'book' / 'beyond'
        / 'in-the-browser.md')


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The shipped weights, exported by the command, and what it said."""
    path = tmp_path_factory.mktemp('export') / 'model.onnx'
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(['export', '--output', str(path), '--judge',
                     str(path.with_name('judge.onnx')), '--json']) == 0
    return path, json.loads(said.getvalue())


@pytest.fixture(scope='module')
def session(exported):
    return onnxruntime.InferenceSession(
        exported[0], providers=['CPUExecutionProvider'])


@pytest.fixture(scope='module')
def net():
    return d2lssd.load_pretrained()


def drawn(count, height, width):
    """Drawn pictures, cut or stretched: float tensor (count, 3, h, w)."""
    pictures = [d2lssd.draw_scene('val', i, 3, 'wild')[0]
                for i in range(count)]
    resized = [np.asarray(Image.fromarray(picture).resize((width, height)))
               for picture in pictures]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize('shape', [
    (1, 256, 256), (5, 256, 256), (1, 384, 256), (2, 131, 203),
    (1, 512, 640)], ids=str)
def test_any_batch_and_image_size_gives_what_pytorch_gives(
        shape, session, net):
    images = drawn(*shape)
    scores, offsets, anchors = session.run(
        ['scores', 'offsets', 'anchors'], {'image': images.numpy()})
    with evaluating(net):
        expected_anchors, logits, bbox_preds = net(images)
    assert scores.shape == logits.shape
    np.testing.assert_allclose(scores, logits.softmax(-1), atol=1e-4, rtol=0)
    np.testing.assert_allclose(offsets.reshape(shape[0], -1), bbox_preds,
                               atol=1e-4, rtol=0)
    np.testing.assert_allclose(anchors, expected_anchors, atol=1e-6, rtol=0)


def test_what_the_file_gives_leads_to_the_detections_of_predict(
        session, net):
    image = drawn(1, 256, 256)
    scores, offsets, anchors = map(torch.from_numpy, session.run(
        None, {'image': image.numpy()}))
    rows = d2lssd.multibox_detection(
        scores.permute(0, 2, 1), offsets.flatten(1), anchors)[0]
    rows = rows[rows[:, 0] >= 0]
    expected = d2lssd.predict(image, net)
    sure = expected[expected[:, 1] > 0.05]
    assert len(sure)
    # Two that are equal but for rounding may change places, or one suppress
    # the other.
    apart = (rows[:, None] - sure).abs().amax(2).amin(0)
    assert (apart < 1e-4).float().mean() > 0.99


@pytest.mark.parametrize('shape', [(256, 256), (200, 300)], ids=str)
def test_the_judge_in_a_file_scores_as_judge_boxes_does(shape, exported, net):
    image = drawn(1, *shape)
    with evaluating(net):
        rows, = find_boxes(net, image, LENIENT, DOUBTED, HEARD)
    heard, facts = d2lssd.hear_boxes(rows)
    assert len(heard) > 3
    session = onnxruntime.InferenceSession(
        exported[1]['judge']['file'], providers=['CPUExecutionProvider'])
    how = json.loads(session.get_modelmeta().custom_metadata_map[
        'suppression'])
    with evaluating(net):
        anchors, logits, offsets = net(image)
    again = d2lssd.multibox_detection(
        logits.softmax(2).transpose(1, 2), offsets, anchors, **how)[0]
    torch.testing.assert_close(again[again[:, 0] >= 0], rows[rows[:, 0] >= 0])
    for some in slice(None), slice(1), slice(0):
        scores, = session.run(['scores'], {
            'image': image.numpy(), 'boxes': heard[some, 2:].numpy(),
            'facts': facts[some].numpy()})
        assert scores.shape == (len(heard[some]),)
        if some == slice(None):
            judged = d2lssd.judge_boxes(rows, net, image[0])
            np.testing.assert_allclose(np.sort(scores)[::-1], judged[:, 1],
                                       atol=1e-4)


def test_without_a_judge_none_is_exported(tmp_path, capsys):
    with pytest.raises(ValueError, match='the network has no judge'):
        export.export_judge(d2lssd.TinySSD(1), tmp_path / 'judge.onnx')
    assert main(['export', '--weights', 'balanced', '--output',
                 str(tmp_path / 'model.onnx'), '--judge',
                 str(tmp_path / 'judge.onnx')]) == 2
    assert '--judge: balanced has no judge' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_no_time_is_lost(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, 'export_onnx', lambda *_: pytest.fail(
        'it was exported first'))
    (tmp_path / 'file').touch()
    assert main(['export', '--output',
                 str(tmp_path / 'file' / 'model.onnx')]) == 2
    assert 'a file stands where a folder should' in capsys.readouterr().err


def test_network_and_judge_need_a_file_each(tmp_path, capsys):
    for judge, words in (('model.onnx', 'the network goes there'),
                         ('judge.txt', 'name it .onnx')):
        assert main(['export', '--output', str(tmp_path / 'model.onnx'),
                     '--judge', str(tmp_path / judge)]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_says_how_large_and_how_near_the_file_is(exported):
    path, said = exported
    assert said['file'] == str(path)
    for some in said, said['judge']:
        assert some['bytes'] == Path(some['file']).stat().st_size
        assert 0 < some['difference'] <= 1e-4


def test_weights_take_two_bytes_each(exported, net):
    parameters = sum(p.numel() for name, p in net.named_parameters()
                     if not name.startswith('judge'))  # which stays behind
    assert 2 * parameters < exported[1]['bytes'] < 2.3 * parameters
    judge = sum(p.numel() for part in (net.judge, net.blk_0)
                for p in part.parameters())
    # Beside it lie places of a grid, 110 kB.
    assert 2 * judge < exported[1]['judge']['bytes'] < 3.3 * judge


def test_the_file_names_its_classes_and_no_path_of_this_machine(exported):
    path, _ = exported
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts['classes']) == ['banana']
    for file in path, Path(exported[1]['judge']['file']):
        assert b'site-packages' not in file.read_bytes()
        assert str(Path.cwd()).encode() not in file.read_bytes()


def test_a_file_that_computes_something_else_is_not_kept(
        exported, net, tmp_path, monkeypatch):
    model = onnx.load(exported[0])
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values *= 1.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    monkeypatch.setattr(export, '_convert',
                        lambda *_: model.SerializeToString())
    with pytest.raises(ValueError, match='differ from PyTorch by'):
        export.export_onnx(net, tmp_path / 'wrong.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', export.NEEDED)
def test_a_missing_library_is_named_with_the_way_to_get_it(
        name, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda n, *rest: (
        None if n == name else find(n, *rest)))
    output = tmp_path / 'model.onnx'
    assert main(['export', '--output', str(output)]) == 2
    error = capsys.readouterr().err
    assert f'{name} must be installed: pip install onnx' in error
    assert not output.exists()


def test_the_example_of_the_page_runs_and_agrees_with_the_package(
        exported, net, tmp_path, monkeypatch, capsys):
    code = re.search(r'^```python\n(.*?)^```', PAGE.read_text('utf-8'),
                     re.M | re.S)[1]
    picture = Image.fromarray(d2lssd.draw_scene('val', 1, 3, 'wild')[0])
    picture.save(tmp_path / 'photo.jpg')
    (tmp_path / 'model.onnx').write_bytes(exported[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE.name, 'exec'), {})
    best = float(capsys.readouterr().out)
    X, _ = d2lssd.read_image(tmp_path / 'photo.jpg')
    # No shrinking here, so that the example's plain resize is the same.
    assert best == pytest.approx(float(d2lssd.predict(X, net)[0, 1]),
                                 abs=1e-3)


@pytest.mark.parametrize('name', ['w.safetensors', 'label.csv', 'noext'])
def test_a_file_of_another_kind_is_not_overwritten(
        tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    d2lssd.save_weights(d2lssd.TinySSD(1), 'w.safetensors')
    Path(name).touch()
    before = Path(name).read_bytes()
    assert main(['export', '--weights', str(tmp_path / 'w.safetensors'),
                 '--output', name]) == 2
    assert f'--output {name}: name it .onnx' in capsys.readouterr().err
    assert Path(name).read_bytes() == before
