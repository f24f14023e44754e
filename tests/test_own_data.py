"""Own pictures, own classes: from a folder to a detector that names them."""
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

import d2lssd
from d2lssd.__main__ import main
from d2lssd.training import FITTING, find_recipe, flip, num_steps

COLOURS = {'brick': 'red', 'sky': 'blue'}


def make(folder, count=6, names=('sky', 'brick'), size=64):
    """Write pictures of one coloured square each, and their table."""
    (folder / 'images').mkdir(parents=True)
    rows = ['img_name,label,xmin,ymin,xmax,ymax']
    for i in range(count):
        name, x, y = names[i % len(names)], 4 + 5 * (i % 4), 6 + 4 * (i % 3)
        image = Image.new('RGB', (size, size), 'white')
        ImageDraw.Draw(image).rectangle([x, y, x + 23, y + 23],
                                        COLOURS.get(name, 'green'))
        image.save(folder / 'images' / f'{i}.png')
        rows.append(f'{i}.png,{name},{x},{y},{x + 24},{y + 24}')
    (folder / 'label.csv').write_text('\n'.join(rows) + '\n', 'utf-8')
    return folder


@pytest.fixture
def splits(tmp_path):
    make(tmp_path / 'mine' / 'train')
    make(tmp_path / 'mine' / 'val', 4)
    return tmp_path / 'mine'


def probabilities(net, X):
    with d2lssd.evaluating(net):
        return net(X)[1].softmax(-1)


@pytest.fixture(scope='module')
def X():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 256, 256, generator=generator) * 255


# Other classes for a network

def test_new_classes_share_the_score_of_what_was_found_before(X):
    old = d2lssd.load_pretrained()
    new = d2lssd.adapt(old, ['fig', 'pear', 'plum'])
    before, after = probabilities(old, X), probabilities(new, X)
    torch.testing.assert_close(after[..., 0], before[..., 0])
    for i in 1, 2, 3:
        torch.testing.assert_close(after[..., i], before[..., 1] / 3)
    assert (old.num_classes, d2lssd.classes_of(old)) == (1, ['banana'])


def test_a_class_that_is_known_by_name_keeps_its_own_score(X):
    old = d2lssd.adapt(d2lssd.TinySSD(3), ['fig', 'pear', 'plum'])
    new = d2lssd.adapt(old, ['plum', 'kiwi', 'fig'])
    with d2lssd.evaluating(old), d2lssd.evaluating(new):
        before, after = old(X)[1], new(X)[1]
    kept = before[..., [0, 3, 1]]
    torch.testing.assert_close(after[..., [0, 1, 3]], kept)
    torch.testing.assert_close(after[..., 2], before[..., 1:].mean(-1))


def test_an_adapted_network_is_in_the_state_of_the_old_one():
    old = d2lssd.TinySSD(1).double().eval().requires_grad_(False)
    new = d2lssd.adapt(old, ['fig', 'pear'])
    assert not any(layer.training for layer in new.modules())
    assert {(p.dtype, p.requires_grad) for p in new.parameters()} == {
        (torch.float64, False)}
    assert d2lssd.adapt(d2lssd.TinySSD(1), ['fig', 'pear']).cls_0.training


def test_the_boxes_of_an_adapted_network_are_the_old_ones(X):
    old = d2lssd.load_pretrained()
    with d2lssd.evaluating(old):
        expected = old(X)[2]
    new = d2lssd.adapt(old, ['fig', 'pear'])
    with d2lssd.evaluating(new):
        assert torch.equal(new(X)[2], expected)
    with torch.no_grad():  # what the new one learns, the old one does not
        for value in new.parameters():
            value.zero_()
    with d2lssd.evaluating(old):
        assert torch.equal(old(X)[2], expected)


def test_a_network_that_fits_is_taken_as_it_is():
    net = d2lssd.adapt(d2lssd.TinySSD(2), ['fig', 'pear'])
    assert d2lssd.adapt(net, ['fig', 'pear']) is net
    assert d2lssd.adapt(net, ['pear', 'fig']) is not net
    nameless = d2lssd.TinySSD(2)
    assert d2lssd.classes_of(nameless) == ['0', '1']
    assert d2lssd.adapt(nameless, ['fig', 'pear']) is nameless
    assert d2lssd.classes_of(nameless) == ['fig', 'pear']


def test_an_adapted_network_keeps_its_anchors():
    net = d2lssd.TinySSD(1)
    net.sizes = FITTING
    assert d2lssd.adapt(net, ['fig', 'pear']).sizes == FITTING


# Training

def test_shipped_weights_learn_two_other_classes_by_heart(splits):
    net, _ = d2lssd.train('own', d2lssd.load_pretrained(), splits,
                          num_epochs=40, batch_size=6, progress=False)
    assert d2lssd.classes_of(net) == ['brick', 'sky']
    data = d2lssd.BananasDataset(True, splits, progress=False)
    result = d2lssd.evaluate(net, [data[:]])
    assert result['AP50'] > 0.9
    assert set(result['by_class']) == {'brick', 'sky'}
    found = d2lssd.detect(splits / 'train' / 'images' / '1.png', net, 0.2,
                          tiles=False)
    assert found[0]['label'] == 'brick'
    assert np.abs(np.subtract(found[0]['box'], [9, 10, 33, 34])).max() < 4


@pytest.mark.parametrize('options', [
    {}, {'recipe': 'source'}, {'recipe': 'balanced', 'average': 0.9}])
def test_every_recipe_trains_on_a_folder_from_nothing(splits, options):
    net, history = d2lssd.train(**{'recipe': 'own', **options},
                                source=str(splits), num_epochs=2,
                                batch_size=4, progress=False)
    assert len(history) == 2
    assert math.isfinite(history[-1]['loss'])
    assert net.num_classes == 2
    assert d2lssd.classes_of(net) == ['brick', 'sky']


def test_an_epoch_of_a_folder_is_each_picture_once_for_every_recipe():
    pictures = torch.zeros(5, 3, 8, 8), torch.zeros(5, 1, 5)
    for name in d2lssd.RECIPES:
        assert num_steps(find_recipe(name, batch_size=2), pictures) == 3


def test_the_learning_rate_of_a_folder_ends_near_zero(splits, monkeypatch):
    """A schedule made for a thousand pictures would stop at its rise."""
    rates, step = [], torch.optim.AdamW.step

    def watched(self, *args):
        rates.append(self.param_groups[0]['lr'])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, 'step', watched)
    d2lssd.train('balanced', source=splits, num_epochs=5, batch_size=3,
                 progress=False)
    assert len(rates) == 10
    assert max(rates) > 0.9 * d2lssd.RECIPES['balanced'].lr
    assert rates[-1] < max(rates) / 10


def test_a_picture_may_hold_hundreds_of_boxes(tmp_path):
    make(tmp_path / 'mine', 2, ['sky'])
    rows = ''.join(f'0.png,sky,{x},{y},{x + 3},{y + 2}\n'
                   for x in range(0, 60, 3) for y in range(0, 60, 3))
    with open(tmp_path / 'mine' / 'label.csv', 'a', encoding='utf-8') as file:
        file.write(rows)
    _, history = d2lssd.train('own', source=tmp_path / 'mine', num_epochs=1,
                              progress=False)
    assert math.isfinite(history[0]['loss'])


def test_a_folder_without_any_box_is_refused(tmp_path):
    folder = make(tmp_path / 'mine', 2)
    (folder / 'label.csv').write_text('img_name,label,xmin,ymin,xmax,ymax\n')
    with pytest.raises(ValueError, match='mine: no box in it'):
        d2lssd.train('own', source=folder, progress=False)


def test_classes_stay_with_their_boxes_when_pictures_are_flipped():
    torch.manual_seed(0)
    X = torch.zeros(32, 3, 64, 64)
    X[:, 0, 10:20, 30:60] = 255
    X[:, 2, 40:60, 5:9] = 255
    Y = torch.tensor([[0, 30, 10, 60, 20], [2, 5, 40, 9, 60.]])
    Y[:, 1:] /= 64
    Y = torch.cat([Y, -torch.ones(1, 5)]).expand(32, 3, 5)
    A, B = flip(X, Y)
    corners = {tuple(rows[0, 1:].tolist()) for rows in B}
    assert len(corners) == 4  # mirrored, turned, both, neither
    assert (B[:, 2] == -1).all()
    for image, rows in zip(A, B[:, :2]):
        for channel, *box in rows.tolist():
            y, x = image[int(channel)].nonzero().T
            assert [round(v * 64) for v in box] == [
                x.min(), y.min(), x.max() + 1, y.max() + 1]


# Weights carry the names

@pytest.mark.parametrize('names', [['lemon', 'lemon'], [''], []])
def test_names_that_could_not_be_read_again_are_not_written(tmp_path, names):
    net = d2lssd.TinySSD(max(1, len(names)))
    net.classes = names
    with pytest.raises(ValueError, match='classes = '):
        d2lssd.save_weights(net, tmp_path / 'mine.safetensors')
    assert not list(tmp_path.iterdir())


def test_one_name_is_not_taken_for_a_list_of_letters():
    with pytest.raises(ValueError, match=r"as \['banana'\]"):
        d2lssd.adapt(d2lssd.TinySSD(1), 'banana')


def test_weights_and_card_carry_the_names(tmp_path):
    net = d2lssd.adapt(d2lssd.TinySSD(2), ['"a", b', 'ñandú'])
    file = tmp_path / 'mine.safetensors'
    d2lssd.save_weights(net, file, {'seed': 1})
    assert d2lssd.classes_of(d2lssd.load_weights(file)) == ['"a", b', 'ñandú']
    card = json.loads(file.with_suffix('.json').read_text('utf-8'))
    assert card['classes'] == ['"a", b', 'ñandú']


@pytest.mark.parametrize('names', [
    '', '7', '["a"]', '["a", "a"]', '["a", ""]', '["a", 2]', '[' * 100_000])
def test_names_that_do_not_fit_the_weights_are_refused(tmp_path, names):
    net = d2lssd.adapt(d2lssd.TinySSD(2), ['a', 'b'])
    file = tmp_path / 'mine.safetensors'
    d2lssd.save_weights(net, file)
    save_file(load_file(file), file, {
        'format': 'd2lssd-1', 'num_classes': '2', 'classes': names})
    with pytest.raises(ValueError, match='mine.safetensors: its header says '
                       '2 classes'):
        d2lssd.load_weights(file)


def test_the_shipped_weights_find_bananas():
    assert d2lssd.classes_of(d2lssd.load_pretrained()) == ['banana']


# Weights and folder disagree

def test_weights_are_not_measured_on_classes_that_they_do_not_know(splits):
    with pytest.raises(ValueError, match="mine: labels 'brick', 'sky', and "
                       "these weights find 'banana'; take"):
        d2lssd.check_classes(d2lssd.load_pretrained(), splits)
    mine = d2lssd.adapt(d2lssd.TinySSD(1), ['sky'])
    with pytest.raises(ValueError, match="drawn: labels 'banana', and these "
                       "weights find 'sky'"):
        d2lssd.check_classes(mine, 'drawn')


def test_a_folder_with_some_of_the_classes_is_numbered_as_the_weights(
        tmp_path):
    net = d2lssd.adapt(d2lssd.TinySSD(3), ['brick', 'cloud', 'sky'])
    folder = make(tmp_path / 'mine', 2, ['sky'])
    names = d2lssd.check_classes(net, folder)
    _, labels = d2lssd.read_data_bananas(source=folder, classes=names,
                                         progress=False)
    assert labels[0, 0, 0] == 2


def test_labels_beyond_the_last_class_are_refused_by_evaluate():
    X, Y = torch.zeros(1, 3, 256, 256), torch.tensor([[[1, 0, 0, 1, 1.]]])
    with pytest.raises(ValueError, match='labels of class 1, and the network '
                       'finds banana, numbered from 0'):
        d2lssd.evaluate(d2lssd.load_pretrained(), [(X, Y)])


# The commands

def test_the_commands_go_from_a_folder_to_named_boxes(
        splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ['train', '--source', str(splits), '--epochs', '12']
    assert main(train) == 0
    output = capsys.readouterr().out
    assert output.startswith('mine.safetensors: 12 epochs')
    assert f'{splits}, brick: AP ' in output
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        'mine', 'mine.json', 'mine.safetensors']
    card = json.loads((tmp_path / 'mine.json').read_text('utf-8'))
    assert card['classes'] == ['brick', 'sky']
    assert card['start'] == 'wild'

    picture = str(splits / 'val' / 'images' / '0.png')
    assert main(['predict', picture, '--weights', 'mine.safetensors',
                 '--threshold', '0.2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f'{picture}: ')
    assert 'object' in lines[0]
    assert lines[1].startswith(('  sky 0.', '  brick 0.'))

    assert main(['evaluate', '--weights', 'mine.safetensors', '--source',
                 str(splits), '--json']) == 0
    result = json.loads(capsys.readouterr().out)['exams'][str(splits)]
    assert result['pictures'] == 4
    assert set(result['by_class']) == {'brick', 'sky'}


def test_a_command_says_so_when_weights_and_folder_disagree(splits, capsys):
    assert main(['evaluate', '--source', str(splits)]) == 2
    error = capsys.readouterr().err
    assert "these weights find 'banana'" in error
    assert 'Traceback' not in error


def test_from_nothing_and_from_own_weights_by_command(
        splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ['train', '--source', str(splits), '--epochs', '1', '--json']
    assert main([*common, '--weights', 'none', '--save', 'a.safetensors']) == 0
    assert json.loads(capsys.readouterr().out)['start'] == 'none'
    elsewhere = str(tmp_path / 'a.safetensors')
    assert main([*common, '--weights', elsewhere]) == 0
    assert json.loads(capsys.readouterr().out)['start'] == 'a.safetensors'


def test_a_folder_whose_boxes_are_all_in_validation_is_refused(splits):
    table = splits / 'train' / 'label.csv'
    table.write_text(table.read_text().splitlines()[0])
    with pytest.raises(ValueError, match='no box in its training pictures'):
        d2lssd.train('own', source=splits, progress=False)


def test_a_class_without_a_training_box_is_told(splits):
    table = splits / 'train' / 'label.csv'
    table.write_text('\n'.join(line for line in table.read_text().splitlines()
                               if 'brick' not in line))
    with pytest.warns(UserWarning, match="no box of class 'brick' in"):
        d2lssd.train('own', source=splits, num_epochs=1, progress=False)


def test_labels_that_changed_while_a_run_was_stopped_are_told(
        splits, tmp_path, capsys):
    file = tmp_path / 'run.checkpoint'
    again = {'recipe': 'own', 'source': splits, 'checkpoint': file}
    d2lssd.train(num_epochs=1, progress=False, **again)
    d2lssd.train(num_epochs=1, **again)
    assert f'{file}: goes on after epoch 1 of 1' in capsys.readouterr().err
    table = splits / 'train' / 'label.csv'
    lines = table.read_text().splitlines()
    first = lines[1].split(',')
    first[2] = str(int(first[2]) + 1)
    table.write_text('\n'.join([lines[0], ','.join(first), *lines[2:]]))
    with pytest.warns(UserWarning, match='labels have changed since'):
        d2lssd.train(num_epochs=1, progress=False, **again)


@pytest.mark.filterwarnings('default')
def test_numbers_that_are_taken_for_names_are_told(tmp_path, capsys):
    folder = make(tmp_path / 'mine', 8, ['0'])
    assert main(['evaluate', '--source', str(folder)]) == 0
    error = capsys.readouterr().err
    assert f"d2lssd: {folder}: class '0' is taken for 'banana'\n" in error


def test_a_file_of_labels_beside_the_weights_is_not_overwritten(
        splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('d2lssd.training.train',
                        lambda *args, **more: pytest.fail('trained'))
    (tmp_path / 'mine.json').write_text('{"images": [], "annotations": []}')
    assert main(['train', '--source', str(splits)]) == 2
    assert 'mine.json: there is a file' in capsys.readouterr().err


def broken(folder):
    (folder / 'val' / 'images' / '0.png').write_text('no picture')


def empty(folder):
    (folder / 'val' / 'label.csv').write_text('img_name,label,xmin,ymin,xmax,'
                                              'ymax\n')
    for file in (folder / 'val' / 'images').iterdir():
        file.unlink()


@pytest.mark.parametrize(('spoil', 'options', 'words'), [
    (broken, [], '0.png: not a picture'),
    (empty, [], 'no picture'),
    (None, ['--save', 'w1.json'], 'w1.json: weights need a name that ends in'),
    (None, ['--save', 'w2.checkpoint'], 'w2.checkpoint.safetensors'),
    (None, ['--save', 'mine/'], 'mine: a folder has this name'),
    (None, ['--save', 'w.safetensors', '--checkpoint', 'w.safetensors'],
     '--checkpoint w.safetensors: the results go there'),
    (None, ['--save', 'w.safetensors', '--checkpoint', 'w.json'],
     '--checkpoint w.json: the results go there'),
])
def test_what_would_fail_at_the_end_is_said_before_training(
        splits, monkeypatch, capsys, spoil, options, words):
    monkeypatch.chdir(splits.parent)
    monkeypatch.setattr('d2lssd.training.train',
                        lambda *args, **more: pytest.fail('trained'))
    if spoil:
        spoil(splits)
    assert main(['train', '--source', str(splits), *options]) == 2
    assert words in capsys.readouterr().err
    assert [file.name for file in splits.parent.iterdir()] == ['mine']


def test_the_checkpoint_stays_until_the_weights_are_measured(
        splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fails(*args, **more):
        raise ValueError('a bad disk')

    command = ['train', '--source', str(splits), '--epochs', '1',
               '--weights', 'none']
    for name in 'd2lssd.prediction.load_weights', 'd2lssd.evaluation.evaluate':
        with monkeypatch.context() as broken:
            broken.setattr(name, fails)
            assert main(command) == 2
        assert (tmp_path / 'mine.checkpoint').exists()
    assert main(command) == 0
    assert not (tmp_path / 'mine.checkpoint').exists()


def test_display_writes_the_name_of_a_class_beside_its_score():
    rows = torch.tensor([[1, 0.875, 0.1, 0.1, 0.5, 0.5]])
    d2lssd.display(torch.zeros(8, 8, 3), rows, 0.5, ['fig', 'pear'])
    assert d2lssd.plt.gca().texts[0].get_text() == 'pear 0.88'


def test_an_export_that_lies_one_folder_down_is_pointed_at(tmp_path):
    folder = make(tmp_path / 'mine', 1)
    (folder / 'label.csv').unlink()
    (folder / 'annotations').mkdir()
    (folder / 'annotations' / 'instances_default.json').write_text('{}')
    with pytest.raises(ValueError, match="if 'annotations/instances_default.j"
                       "son' is one, put it here"):
        d2lssd.classes_in(folder)


def test_a_folder_that_is_not_there_is_called_that(tmp_path):
    with pytest.raises(ValueError, match='mine: there is no such folder'):
        d2lssd.check_classes(d2lssd.load_pretrained(), tmp_path / 'mine')


def test_what_is_measured_after_training_is_printed(
        tmp_path, monkeypatch, capsys):
    import d2lssd.__main__ as commands
    monkeypatch.setattr('d2lssd.training.train', lambda *args, **options: (
        d2lssd.TinySSD(1), [{'class error': 0.1, 'bbox mae': 0.2}]))
    monkeypatch.setattr(commands, 'measure', lambda *args, **options: {
        'one banana': {'AP50': 0.125 if options.get('tiles') else 0.25}})
    assert commands.main(['train', '--epochs', '1', '--exam', '--save',
                          str(tmp_path / 'w.safetensors')]) == 0
    out = capsys.readouterr().out
    one, _, two = out.partition('with a second look')
    assert '0.250' in one
    assert '0.125' in two
    assert 'measured with one look' not in out


def test_who_measures_a_folder_is_told_of_the_second_look(
        monkeypatch, capsys):
    import d2lssd.__main__ as commands
    monkeypatch.setattr(commands, 'measure', lambda *args, **options: {})
    for options, told in (([], True), (['--tiles'], False)):
        assert commands.main(['evaluate', '--source', 'mine', *options]) == 0
        assert ('with one look' in capsys.readouterr().out) == told
    assert commands.main(['evaluate']) == 0
    assert 'with one look' not in capsys.readouterr().out


def test_parts_of_exams_are_not_kept_on_disk(tmp_path, monkeypatch):
    from d2lssd.evaluation import examine
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path))
    examine(d2lssd.TinySSD(1), ['one banana'], count=2)
    assert not list(tmp_path.rglob('*.npz')) + list(tmp_path.rglob('*.npy'))
    assert sum(f.stat().st_size for f in tmp_path.rglob('*')
               if f.is_file()) < 100_000


@pytest.mark.fault('memory runs out')
def test_too_little_memory_is_told_in_a_line(monkeypatch, capsys):
    def none(*arguments, **options):
        raise MemoryError('Unable to allocate 183. GiB')
    monkeypatch.setattr('d2lssd.data.BananasDataset', none)
    monkeypatch.setattr('d2lssd.evaluation.BananasDataset', none)
    assert main(['evaluate', '--weights', 'balanced']) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == ('d2lssd: too little memory for so many or so large '
                   'pictures (Unable to allocate 183. GiB)\n')
