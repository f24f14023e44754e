"""The loop, its recipes and its checkpoints."""
import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import d2lssd
from d2lssd import distributed, evaluation, judge, training
from d2lssd.__main__ import main
from d2lssd.data import drawn
from d2lssd.data.files import load_state, save_state
from d2lssd.training import FITTING, batches, find_recipe, num_steps

SMALL = {'num_epochs': 2, 'batch_size': 4}


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch, tmp_path):
    """Let an epoch be twelve pictures, drawn on the spot."""
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path))
    monkeypatch.setattr(drawn, 'COUNTS', {'train': 12, 'val': 4})
    monkeypatch.setattr('d2lssd.training.EPOCH', 12)
    monkeypatch.setattr('d2lssd.data.drawn.num_workers', lambda: 0)


@pytest.fixture
def one_thread():
    """Let sums be added up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(**changes):
    return d2lssd.train(**{'recipe': 'source', 'progress': False, **SMALL,
                           **changes})


def weights(net):
    return torch.cat([v.flatten().double() for v in net.state_dict().values()])


def test_an_unknown_recipe_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="'sauce': known are source, "):
        find_recipe('sauce')


@pytest.mark.parametrize(('change', 'words'), [
    ({'epochs': 3}, 'no epochs; it has average, balance, batch_size'),
    ({'loss': 'least'}, "loss = 'least': known are mean, balanced, focal"),
    ({'pictures': 'mild'}, "pictures = 'mild': known are plain, small, "),
    ({'flips': 'no'}, "flips = 'no': known are True, False"),
    ({'loss': []}, r'loss = \[\]: known are mean'),
    ({'side': 64}, 'side = 64: a whole number from 128 to 2048'),
    ({'side': 10**6}, 'side = 1000000: a whole number from 128 to 2048'),
    ({'batch_size': 0}, 'batch_size = 0: a whole number, at least 1'),
    ({'batch_size': True}, 'batch_size = True: a whole number, at least 1'),
    ({'num_epochs': 1.5}, 'num_epochs = 1.5: a whole number'),
    ({'num_pictures': 0}, 'num_pictures = 0: a whole number, at least 1'),
    ({'lr': 0}, 'lr = 0: a number above 0 is needed'),
    ({'lr': float('nan')}, 'lr = nan: a number above 0 is needed'),
    ({'lr': '1e-3'}, "lr = '1e-3': a number above 0 is needed"),
    ({'sigma': 0}, 'sigma = 0: a number above 0 is needed'),
    ({'gamma': -1}, 'gamma = -1: a number, at least 0, is needed'),
    ({'weight_decay': None}, 'weight_decay = None: a number, at least 0,'),
    ({'average': 1}, 'average = 1: a number between 0 and 1 is needed'),
    ({'ignored': 0}, 'ignored = 0: a number between 0 and 1 is needed'),
])
def test_a_change_that_no_recipe_has_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        find_recipe('source', **change)


def test_all_recipes_and_none_where_it_means_none_are_taken():
    for recipe in d2lssd.RECIPES:
        find_recipe(recipe, sigma=None, average=None, num_pictures=None)


def test_the_source_recipe_is_the_one_of_the_source():
    recipe = find_recipe('source')
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == (
        'sgd', 0.2, 5e-4)
    assert (recipe.num_epochs, recipe.batch_size) == (20, 32)


@pytest.mark.parametrize('weight_decay', [5e-4, 0.5])
def test_a_step_is_that_of_plain_sgd_in_double_precision(weight_decay):
    """One step of `train`, against the update rule written out by hand."""
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1)
    slow = d2lssd.TinySSD(1)
    slow.load_state_dict(net.state_dict())
    slow.double()
    recipe = find_recipe('source', num_epochs=1, batch_size=12,
                         weight_decay=weight_decay, bfloat16=False)
    (X, Y), = next(iter(batches(recipe)))
    anchors, cls_preds, bbox_preds = slow(X.double())
    bbox_labels, bbox_masks, cls_labels = d2lssd.multibox_target(
        anchors.float(), Y)
    d2lssd.calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels.double(),
                     bbox_masks.double()).mean().backward()
    before = {name: p.detach() for name, p in slow.named_parameters()}
    steps = {name: 0.2 * (p.grad + weight_decay * p.detach())
             for name, p in slow.named_parameters()}
    d2lssd.train(recipe, net=net, progress=False)
    for name, p in net.named_parameters():
        gap = before[name] - p.detach().double() - steps[name]
        assert gap.norm() <= 0.05 * steps[name].norm(), name


def test_bfloat16_is_a_part_of_the_recipe_that_can_be_left_out(monkeypatch):
    wanted = []

    def autocast(device, wish):
        wanted.append(wish)
        return torch.autocast('cpu', enabled=False)
    monkeypatch.setattr('d2lssd.training.autocast', autocast)
    for choice in True, False:
        d2lssd.train('source', num_epochs=1, num_pictures=2, batch_size=2,
                     bfloat16=choice, progress=False)
    assert wanted == [True, False]
    assert find_recipe('source').bfloat16


def test_a_run_that_is_resumed_ends_with_the_same_weights(
        tmp_path, one_thread):
    whole, history = run()
    file = tmp_path / 'run.checkpoint'
    cut_off(file, after=1)
    resumed, again = run(checkpoint=file)
    assert torch.equal(weights(whole), weights(resumed))
    assert [h['loss'] for h in history] == [h['loss'] for h in again]


def cut_off(checkpoint, after, **changes):
    """Stop a run when it has saved so many epochs."""
    save = training._Run.save

    def save_and_stop(self, path):
        save(self, path)
        if len(self.history) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Run, 'save', save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=checkpoint, **changes)


@pytest.mark.fault('a checkpoint is damaged or of another run')
@pytest.mark.parametrize('damage', [b'', b'PK\x03\x04', b'\x80\x02K\x01.'])
def test_a_damaged_checkpoint_is_named_and_kept(tmp_path, damage):
    file = tmp_path / 'run.checkpoint'
    file.write_bytes(damage)
    with pytest.raises(ValueError, match='run.checkpoint: not a whole check'):
        run(checkpoint=file)
    assert file.read_bytes() == damage


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / 'run.checkpoint'
    run(checkpoint=file, num_epochs=1)
    with pytest.raises(ValueError, match='another run .*num_epochs 1, not 2'):
        run(checkpoint=file)


def test_so_is_one_of_pictures_of_another_style(tmp_path):
    file = tmp_path / 'run.checkpoint'
    run(checkpoint=file)
    with pytest.raises(ValueError, match="pictures 'plain', not 'small'"):
        run(checkpoint=file, pictures='small')


def test_pictures_that_another_version_drew_are_noted(tmp_path):
    file = tmp_path / 'run.checkpoint'
    _, history = run(checkpoint=file)
    change_run(file, lambda said: said.update(drawing=0))
    with pytest.warns(UserWarning, match='another version of the package'):
        assert run(checkpoint=file)[1] == history


@pytest.mark.parametrize('history', ['abc', 7, {'a': 1}, [1, 2], [{}],
                                     [{'loss': 'low'}]])
def test_a_checkpoint_whose_history_is_none_is_refused(tmp_path, history):
    file = tmp_path / 'run.checkpoint'
    run(checkpoint=file)
    state = load_state(file, training.CHECKPOINT)
    save_state(file, state | {'history': history}, training.CHECKPOINT)
    with pytest.raises(ValueError, match='not a whole checkpoint .its hist'):
        run(checkpoint=file)


def test_a_second_training_with_the_same_checkpoint_is_refused(tmp_path):
    file = tmp_path / 'run.checkpoint'
    with (training._alone(file),
          pytest.raises(ValueError, match='another training goes on with it')):
        run(checkpoint=file)
    assert not file.exists()
    run(checkpoint=file)
    assert file.exists()


@pytest.mark.fault('two runs at once')
def test_where_no_lock_can_be_made_training_does_without(
        tmp_path, monkeypatch):
    def fail():
        raise FileNotFoundError('no usable temporary directory')
    monkeypatch.setattr('tempfile.gettempdir', fail)
    assert len(run(checkpoint=tmp_path / 'run.checkpoint')[1]) == 2


def change_run(file, change):
    """Rewrite what a checkpoint says of its run."""
    state = load_state(file, training.CHECKPOINT)
    change(state['run'])
    save_state(file, state, training.CHECKPOINT)


def test_anchors_of_a_recipe_become_those_of_the_network(tmp_path):
    changes = {'num_epochs': 1, 'num_pictures': 4, 'batch_size': 2,
               'pictures': 'plain', 'progress': False}
    net, _ = d2lssd.train('own', sizes=FITTING, **changes)
    assert net.sizes == FITTING
    more, _ = d2lssd.train('own', net, **changes)
    assert more.sizes == FITTING  # none asked for: those of the network
    usual, _ = d2lssd.train('own', **changes)
    assert usual.sizes == d2lssd.sizes


def test_a_checkpoint_with_other_anchors_is_of_another_run(tmp_path):
    path = tmp_path / 'run.checkpoint'
    changes = {'num_epochs': 1, 'num_pictures': 4, 'batch_size': 2,
               'pictures': 'plain', 'progress': False, 'checkpoint': path}
    d2lssd.train('own', sizes=FITTING, **changes)
    with pytest.raises(ValueError, match=r'another run \(sizes \[\[0.1, '):
        d2lssd.train('own', **changes)


@pytest.mark.parametrize('sizes', [
    3, [], [[0.1, 0.2]] * 4, [[0.1]] * 5, [[0, 0.1]] * 5, [['a', 'b']] * 5])
def test_sizes_of_anchors_are_checked_before_anything_is_drawn(sizes):
    with pytest.raises(ValueError, match='five pairs of numbers are needed'):
        find_recipe('own', sizes=sizes)


def test_a_checkpoint_of_an_older_version_goes_on(tmp_path):
    file = tmp_path / 'run.checkpoint'
    _, history = run(checkpoint=file)
    change_run(file, lambda said: [said.pop(key)
                                   for key in ('bfloat16', 'sizes', 'start',
                                               'drawing')])
    # The checksum of the pictures had the name of their style.
    change_run(file, lambda said: said.update(pictures=said.pop('checksum')))
    assert run(checkpoint=file)[1] == history
    with pytest.raises(ValueError, match='bfloat16 True, not False'):
        run(checkpoint=file, bfloat16=False)


@pytest.mark.fault('a checkpoint is damaged or of another run')
def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path):
    file = tmp_path / 'run.checkpoint'
    run(checkpoint=file)
    change_run(file, lambda said: said.update(dropout=0.5))
    with pytest.raises(ValueError, match='dropout 0.5, not None'):
        run(checkpoint=file)


def test_a_checkpoint_with_no_epoch_in_it_is_of_any_run(tmp_path):
    file = tmp_path / 'run.checkpoint'
    with pytest.raises(FloatingPointError):
        run(checkpoint=file, lr=1e30)
    assert file.exists()
    assert len(run(checkpoint=file)[1]) == SMALL['num_epochs']


def test_who_goes_on_learning_loses_the_judge_that_knew_it_before():
    net = d2lssd.load_pretrained('plain')
    assert net.judge
    trained, _ = d2lssd.train('source', net, num_epochs=1, num_pictures=2,
                              average=0.9, progress=False)
    assert trained.judge is None
    assert set(trained.state_dict()) == set(d2lssd.TinySSD(1).state_dict())


def test_pictures_for_a_judge_are_others_a_third_of_them_without_bananas():
    recipe = find_recipe('plain', num_pictures=12)
    images, labels = training.read_pictures(recipe, progress=False)
    pictures = training.judge_pictures(recipe, count=6)
    assert len(pictures) == 9
    others = training.other_pictures(recipe, count=12)
    for i, (X, Y) in enumerate(pictures):
        assert not (i >= 6 and (Y[:, 0] >= 0).any())
        for known in images, others.images:
            assert not any(torch.equal(X, image.float()) for image in known)
    assert any((Y[:, 0] >= 0).any() for _, Y in pictures)


def test_other_pictures_are_of_the_kind_but_in_no_epoch():
    recipe = find_recipe('plain', num_pictures=12)
    images, labels = training.read_pictures(recipe, progress=False)
    others = training.other_pictures(recipe, count=12)
    assert len(others) == 12
    assert others[0][1].shape == labels[0].shape
    assert not any(torch.equal(X, image.float())
                   for X, _ in others for image in images)


def test_the_command_sets_the_operating_point_and_notes_it(
        monkeypatch, tmp_path):
    net, history = d2lssd.load_pretrained('source'), [
        {'loss': 1, 'class error': 1, 'bbox mae': 1, 'seconds': 1}]
    before = net.cls_0.bias.clone()
    monkeypatch.setattr(training, 'train', lambda *_, **__: (net, history))
    monkeypatch.setattr(training, 'EPOCH', 8)
    file = tmp_path / 'found.safetensors'
    command = ['train', '--recipe', 'source', '--save', str(file)]
    assert main([*command, '--precision', '0.5']) == 0
    card = json.loads(file.with_suffix('.json').read_text())
    point = card['operating point']
    assert point['precision'] >= 0.5
    there = math.log(point['score'] / (1 - point['score']))
    shift = d2lssd.load_weights(file).cls_0.bias - before
    assert shift[0::2].tolist() == pytest.approx([there] * 4, abs=0.01)
    assert not shift[1::2].any()


def test_weights_are_kept_if_no_score_reaches_the_precision(
        monkeypatch, capsys, tmp_path):
    def refuse(*_, **__):
        raise ValueError('0.9 at most')
    history = [{'loss': 1, 'class error': 1, 'bbox mae': 1, 'seconds': 1}]
    net = d2lssd.load_pretrained('source')
    monkeypatch.setattr(training, 'train', lambda *_, **__: (net, history))
    monkeypatch.setattr(evaluation, 'set_operating_point', refuse)
    file = tmp_path / 'kept.safetensors'
    assert main(['train', '--save', str(file), '--precision', '1']) == 2
    message = capsys.readouterr().err
    assert '--precision: 0.9 at most' in message
    assert str(file) in message
    assert torch.equal(d2lssd.load_weights(file).cls_0.bias, net.cls_0.bias)


def test_the_command_teaches_a_judge_and_notes_it(
        monkeypatch, capsys, tmp_path):
    history = [{'loss': 1, 'class error': 1, 'bbox mae': 1, 'seconds': 1}]
    net = d2lssd.load_pretrained('plain')
    net.judge, before, taught = None, net.cls_0.bias.clone(), []
    monkeypatch.setattr(training, 'train', lambda *_, **__: (net, history))
    monkeypatch.setattr(training, 'EPOCH', 25)  # 50 pictures a minibatch
    teach = judge.teach_judge

    def teach_and_note(net, *rest, **options):
        facts = teach(net, *rest, **options)
        taught.append(copy.deepcopy(net.judge))
        return facts

    monkeypatch.setattr(judge, 'teach_judge', teach_and_note)
    file = tmp_path / 'judged.safetensors'
    command = ['train', '--recipe', 'plain', '--save', str(file)]
    assert main([*command, '--judge', '0.9', '--precision', '0.8']) == 0
    card = json.loads(file.with_suffix('.json').read_text())
    assert card['judge']['pictures'] == 300
    assert 0 < card['judge']['right'] < card['judge']['boxes']
    points = card['operating point'], card['judge']['operating point']
    assert points[0]['precision'] >= 0.8
    assert points[1]['precision'] >= 0.9
    again = d2lssd.load_weights(file)
    assert again.judge
    # The judge got its point, and the anchors had theirs before.
    odds = [math.log(point['score'] / (1 - point['score']))
            for point in points]
    shift = again.cls_0.bias - before
    assert shift[0::2].tolist() == pytest.approx([odds[0]] * 4, abs=0.01)
    assert not shift[1::2].any()
    learnt = taught[0].decide[-1].bias.item()
    assert again.judge.decide[-1].bias.item() == pytest.approx(
        learnt - odds[1], abs=0.01)
    # One that finds nothing has nothing to be judged.
    with torch.no_grad():
        for scale in range(5):
            getattr(net, f'cls_{scale}').bias[0::2] += 100
    net.judge = None
    assert main([*command, '--judge']) == 2
    message = capsys.readouterr().err
    assert '--judge: of 0 boxes on 300 pictures 0 are right' in message
    assert str(file) in message
    assert d2lssd.load_weights(file).judge is None


def test_a_training_says_beforehand_which_weights_it_will_replace(
        monkeypatch, capsys, tmp_path):
    history = [{'loss': 1, 'class error': 1, 'bbox mae': 1, 'seconds': 1}]
    net = d2lssd.load_pretrained('source')
    monkeypatch.setattr(training, 'train', lambda *_, **__: (net, history))
    file = tmp_path / 'w.safetensors'
    said = []
    for place in 0, 0, 1:  # of this process, were it one of two
        monkeypatch.setattr(distributed, 'on_this_machine',
                            lambda at=place: (2, at))
        assert main(['train', '--save', str(file)]) == 0
        said.append(capsys.readouterr().err)
    assert said == ['', f'{file}: will be replaced when the training is done; '
                    '--save names another file\n', '']


@pytest.mark.parametrize('option', [['--precision', '1'], ['--judge']])
def test_what_follows_on_training_takes_drawn_pictures_alone(
        option, capsys, tmp_path):
    assert main(['train', '--source', str(tmp_path), *option]) == 2
    assert f'{option[0]}: ' in capsys.readouterr().err


def test_a_run_from_other_weights_says_so(tmp_path):
    file = tmp_path / 'run.checkpoint'
    first, _ = run(checkpoint=file, net=d2lssd.TinySSD(1))
    with pytest.warns(UserWarning, match='started from other weights'):
        again, _ = run(checkpoint=file, net=d2lssd.TinySSD(1))
    assert torch.equal(weights(first), weights(again))


def test_measuring_on_the_way_does_not_change_what_is_learnt(one_thread):
    plain, measured = (run(recipe='balanced', validate=validate)[0]
                       for validate in (False, True))
    assert torch.equal(weights(plain), weights(measured))


def test_fresh_pictures_are_mirrored_alike_after_a_stop(one_thread, tmp_path):
    file = tmp_path / 'run.checkpoint'
    options = {'recipe': 'balanced', 'num_epochs': 3}
    whole, _ = run(**options)
    cut_off(file, after=2, **options)
    resumed, _ = run(checkpoint=file, **options)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize('wanted', [True, False])
def test_bfloat16_is_not_asked_for_where_pytorch_lacks_the_question(
        monkeypatch, wanted):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    monkeypatch.setattr(torch.ops, 'mkldnn', None)
    with training.autocast(torch.device('cpu'), wanted):
        assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize(('mkldnn', 'wide', 'units', 'fast'), [
    (True, True, True, True), (True, True, False, False),
    (True, False, False, True), (False, True, False, False)])
def test_bfloat16_is_not_taken_where_the_processor_only_emulates_it(
        monkeypatch, mkldnn, wide, units, fast):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(torch.ops, 'mkldnn', SimpleNamespace(
        _is_mkldnn_bf16_supported=lambda: mkldnn))
    monkeypatch.setattr(torch.cpu, '_is_avx512_supported', lambda: wide)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: units)
    with training.autocast(torch.device('cpu')):
        assert torch.is_autocast_enabled('cpu') == fast


@pytest.mark.parametrize('wrong', [{'seed': -1}, {'seed': 1.5},
                                   {'num_pictures': 0}])
def test_numbers_that_no_run_can_have_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        run(**wrong)


def test_only_a_stock_that_was_drawn_is_taken_in_parts():
    folder = torch.zeros(24, 1), torch.zeros(24, 1)
    assert num_steps(find_recipe('wild', batch_size=4), folder) == 6
    recipe = find_recipe('wild', batch_size=4, num_pictures=24)
    assert num_steps(recipe, folder) == 3


@pytest.mark.fault('a loss or a weight is no number')
def test_a_loss_that_is_no_number_stops_with_the_minibatch_named():
    with pytest.raises(FloatingPointError, match='epoch 1, minibatch'):
        run(lr=1e30, num_epochs=3)


@pytest.mark.fault('a loss or a weight is no number')
def test_weights_that_are_no_numbers_are_not_kept(monkeypatch, tmp_path):
    file, step = tmp_path / 'run.checkpoint', training._Run.step

    def spoil(self, X, Y):
        facts = step(self, X, Y)
        if self.history:
            self.net.blk_0[0][1].running_var[0] = math.inf
        return facts
    monkeypatch.setattr(training._Run, 'step', spoil)
    with pytest.raises(FloatingPointError, match='after epoch 2: try a lower '
                       'lr than 0.2; first remove .*run.checkpoint'):
        run(checkpoint=file)
    assert len(load_state(file, training.CHECKPOINT)['history']) == 1


def test_a_finished_command_is_not_in_the_way_of_the_next(tmp_path):
    file = tmp_path / 'mine.safetensors'
    command = ['train', '--recipe', 'source', '--save', str(file)]
    for epochs in '1', '2':
        assert main([*command, '--epochs', epochs, '--batch-size', '4']) == 0
        card = json.loads(file.with_suffix('.json').read_text())
        assert len(card['history']) == int(epochs)


def test_losses_looked_at_now_and_then_are_the_same(monkeypatch, one_thread):
    # As on a GPU, which must not be waited for in every step.
    assert training.look_after(torch.device('cpu')) == 1
    assert training.look_after(torch.device('cuda')) > 1
    net, history = run(batch_size=1)
    monkeypatch.setattr(training, 'look_after', lambda device: 4)
    other, again = run(batch_size=1)
    assert torch.equal(weights(net), weights(other))
    for row in (*history, *again):
        del row['seconds']
    assert history == again
    said = set()
    for every in 1, 4:
        monkeypatch.setattr(training, 'look_after', lambda _, n=every: n)
        with pytest.raises(FloatingPointError, match='minibatch') as caught:
            run(lr=1e30, batch_size=1)
        said.add(str(caught.value))
    assert len(said) == 1  # the same minibatch, although seen later


def test_plain_descent_gets_no_momentum_from_its_schedule():
    recipe = find_recipe('source', schedule='one-cycle')
    made = training._Run(recipe, d2lssd.TinySSD(1), 0, 5, 'drawn')
    assert made.optimizer.param_groups[0]['momentum'] == 0


def test_fresh_pictures_are_never_seen_twice_and_go_on_where_they_were():
    recipe = find_recipe('balanced', num_epochs=2, batch_size=6, num_bananas=1)
    seen = [X for epoch in batches(recipe) for X, _ in epoch]
    assert len(seen) == 2 * num_steps(recipe) == 4
    flat = torch.cat(seen).flatten(1)
    assert len(flat.unique(dim=0)) == 24
    later = [X for epoch in batches(recipe, start=1) for X, _ in epoch]
    assert all(torch.equal(a, b) for a, b in zip(seen[2:], later))


def test_fresh_pictures_come_in_the_styles_that_were_asked_for():
    def sides(pictures):
        recipe = find_recipe('balanced', num_epochs=1, batch_size=12,
                             num_bananas=1, pictures=pictures)
        (_, Y), = next(iter(batches(recipe)))
        return ((Y[:, 0, 3:] - Y[:, 0, 1:3]).amax(1) * 256).round()
    plain, small, both = (sides(name) for name in (
        'fresh plain', 'fresh small', 'fresh'))
    assert 34 <= plain.min() <= plain.max() <= 75
    assert 22 <= small.min() <= small.max() <= 50
    assert both.max() > 80


def test_enlarged_pictures_reach_the_network_at_that_size(
        monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        d2lssd.TinySSD, 'forward', watch(d2lssd.TinySSD.forward, seen))
    net, _ = run(num_epochs=1, side=128, validate=True)
    assert set(seen) == {(128, 128)}
    # And whenever it is used, also when it was saved.
    file = tmp_path / 'small.safetensors'
    d2lssd.save_weights(net, file)
    for one in net, d2lssd.load_weights(file):
        d2lssd.detect(np.zeros((40, 60, 3), np.uint8), one)
        d2lssd.evaluate(one, [(torch.zeros(1, 3, 256, 256),
                               -torch.ones(1, 1, 5))], tiles=True)
    assert set(seen) == {(128, 128)}
    run(num_epochs=1, net=net)
    assert net.side == 256
    picture = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    large = training.enlarge(picture, 8)
    assert large.shape == (1, 3, 8, 8)
    assert torch.equal(large[..., ::2, ::2], picture)
    assert training.enlarge(picture, 4) is picture


def watch(forward, seen):
    """A network's forward that notes the size of what it is given."""
    def watched(self, X):
        seen.append(tuple(X.shape[2:]))
        return forward(self, X)
    return watched


def test_the_focal_loss_takes_the_place_of_hard_negatives():
    runs = {key: run(num_epochs=1, lr=1e-3, **changes)[1][0]['loss']
            for key, changes in {
                'focal': {'loss': 'focal', 'gamma': 0},
                'all': {'loss': 'balanced', 'negative_ratio': 5444},
                'steep': {'loss': 'focal', 'gamma': 2}}.items()}
    assert runs['focal'] == pytest.approx(runs['all'], rel=0.01)
    assert runs['steep'] < runs['focal'] / 2


def test_anchors_that_nearly_match_add_nothing_to_the_loss():
    all_, fewer, none = (run(num_epochs=1, lr=1e-4, loss='balanced',
                             negative_ratio=5444, ignored=ignored)[1][0]
                         for ignored in (None, 0.1, 1e-9))
    assert none['loss'] < fewer['loss'] < all_['loss']
    assert all_['class error'] == pytest.approx(fewer['class error'], rel=.1)


def test_the_balanced_recipe_learns_six_pictures_by_heart(monkeypatch):
    """It must find the bananas of the pictures that it is trained on."""
    monkeypatch.setattr(drawn, 'COUNTS', {'train': 6, 'val': 4})
    monkeypatch.setattr('d2lssd.training.EPOCH', 6)
    net, history = d2lssd.train(
        'balanced', progress=False, pictures='plain', num_bananas=1,
        num_epochs=60, batch_size=6, flips=False, average=None)
    images, labels = d2lssd.read_data_bananas(True)
    result = d2lssd.evaluate(net, [(images.float(), labels)])
    assert history[-1]['loss'] < history[0]['loss'] / 2
    assert result['AP50'] > 0.9


def test_accumulator_and_timer_add_up():
    sums = d2lssd.Accumulator(2)
    sums.add(1, torch.tensor(2.0))
    sums.add(3, 4)
    assert (sums[0], sums[1]) == (4, 6)
    sums.reset()
    assert sums[1] == 0
    timer = d2lssd.Timer()
    laps = [timer.stop(), timer.stop()]
    assert math.isclose(timer.sum(), sum(laps))
    assert timer.avg() * 2 == pytest.approx(timer.sum())


def test_many_pictures_are_seen_some_an_epoch_and_all_in_turn():
    recipe = find_recipe('wild', num_epochs=6, batch_size=5, num_pictures=36)
    images = torch.arange(3.0 * training.EPOCH)[:, None]
    epochs = [torch.cat([X[:, 0] for X, _ in epoch])
              for epoch in batches(recipe, pictures=(images, images))]
    assert [len(epoch) for epoch in epochs] == [training.EPOCH] * 6
    for first in 0, 3:
        seen = torch.cat(epochs[first:first + 3])
        assert seen.sort().values.equal(images[:, 0])
    assert not epochs[0].equal(epochs[3])
    assert num_steps(recipe, (images, images)) == math.ceil(
        training.EPOCH / 5)
    resumed = next(batches(recipe, 4, pictures=(images, images)))
    assert next(resumed)[0][:, 0].equal(epochs[4][:5])


def test_the_wild_recipe_draws_its_styles_in_turn(monkeypatch):
    asked = {}

    def read(*args, **options):
        asked.update(options)
    monkeypatch.setattr(training, 'read_data_bananas', read)
    training.read_pictures(find_recipe('wild'))
    assert set(asked['style']) == {'wild', 'sizes', 'plain', 'odd', 'bruised'}
    assert asked['count'] == find_recipe('wild').num_pictures
    assert asked['num_bananas'] == find_recipe('wild').num_bananas
