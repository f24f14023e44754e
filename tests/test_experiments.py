"""The book's experiments: run one after another, recorded, never repeated."""
import copy
import json
import sys
from pathlib import Path

import pytest
import torch

from d2lssd.data import drawn
from d2lssd.training import RECIPES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import experiments  # noqa: E402
from experiments import EXPERIMENTS, Run  # noqa: E402

METRICS = {'AP': 0.25, 'AP50': 0.5}


def row(run, **changes):
    """What a run would leave in the record."""
    return {**run._asdict(), 'recipe': json.loads(json.dumps(
        vars(run.recipe))), 'metrics': METRICS, 'history': [],
        'seconds': 100.0, 'drawing_version': experiments.DRAWING_VERSION,
        'torch': '2', **changes}


@pytest.fixture(autouse=True)
def record(monkeypatch, tmp_path):
    """A record of its own, and a file name in which it lies."""
    monkeypatch.setattr(experiments, 'RECORD', tmp_path / 'experiments.json')
    return experiments.RECORD


@pytest.fixture
def two(monkeypatch):
    """Two small experiments that share a variant."""
    monkeypatch.setattr(experiments, 'EXPERIMENTS', {
        'one': {'base': {}, 'sgd': {'optimizer': 'sgd'}},
        'other': {'flips': {'flips': False}, 'as it was': {}}})
    monkeypatch.setattr(experiments, 'SEEDS', (0, 1))


@pytest.fixture
def performed(monkeypatch):
    """Instead of training, note what was to be run."""
    runs = []

    def perform(run):
        runs.append(str(run))
        return row(run)
    monkeypatch.setattr(experiments, 'perform', perform)
    return runs


def run_all(*arguments):
    experiments.main(list(arguments))
    return experiments.read_record()


def names(rows):
    return {(r['experiment'], r['variant'], r['seed']) for r in rows}


def test_every_variant_is_a_recipe_with_the_same_budget():
    for run in experiments.all_runs():
        assert run.recipe.num_epochs == experiments.NUM_EPOCHS
        assert run.recipe.num_bananas == 1
    assert set(EXPERIMENTS) == {'ingredients', 'anchors', 'ignored', 'sigma',
                                'focal', 'negatives', 'weights', 'precision',
                                'small'}


def test_no_two_variants_of_an_experiment_are_the_same():
    for name, variants in EXPERIMENTS.items():
        keys = {Run(name, variant, 0).key for variant in variants}
        assert len(keys) == len(variants)


def test_an_ingredient_taken_away_is_one_change_of_the_recipe():
    base = vars(experiments.BASE)
    for variant, changes in EXPERIMENTS['ingredients'].items():
        recipe = vars(Run('ingredients', variant, 0).recipe)
        changed = {key for key in base if recipe[key] != base[key]}
        assert changed <= set(changes)
        if variant == 'SGD, one cycle':
            assert changed == {'optimizer', 'lr'}
        elif 'SGD' in variant:
            assert changed == {'optimizer', 'lr', 'weight_decay', 'schedule'}
        elif variant == 'batches of 32':
            assert changed == {'batch_size', 'average'}
        elif variant == 'no cycle, lower rate':
            assert changed == {'schedule', 'lr'}
        elif variant not in ('balanced', "the source's recipe"):
            assert len(changed) == 1, variant
    source = Run('ingredients', "the source's recipe", 0).recipe
    assert {**vars(source), 'num_epochs': 20} == vars(RECIPES['source'])


def test_rows_stand_in_the_order_in_which_pages_show_them(monkeypatch):
    runs = experiments.all_runs()
    rows = experiments.share([row(run) for run in runs[::-1]])
    assert [experiments.name_of(r) for r in rows] == runs
    monkeypatch.undo()  # the book's own record
    rows = experiments.read_record()
    assert [experiments.name_of(r) for r in rows] == runs


def test_what_the_book_has_recorded_is_not_dropped(monkeypatch):
    monkeypatch.undo()  # the book's own record
    rows = experiments.read_record()
    assert experiments.share(rows) == rows
    assert not experiments.missing(EXPERIMENTS, rows)


def test_a_variant_of_several_experiments_is_run_once(two, performed):
    rows = run_all()
    assert performed == ['one: base, seed 0', 'one: sgd, seed 0',
                         'one: base, seed 1', 'one: sgd, seed 1',
                         'other: flips, seed 0', 'other: flips, seed 1']
    assert names(rows) == set(experiments.all_runs())
    assert len(rows) == 8
    shared = [r for r in rows if r['seed'] == 1 and r['variant'] in (
        'base', 'as it was')]
    assert shared[0]['recipe'] == shared[1]['recipe']


def test_stopped_in_the_middle_it_goes_on_where_it_was(
        two, performed, monkeypatch):
    perform = experiments.perform

    def stop_at_the_third(run):
        if len(performed) == 2:
            raise KeyboardInterrupt
        return perform(run)
    monkeypatch.setattr(experiments, 'perform', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_all()
    # The two that were finished, and the one that shares its run.
    assert len(experiments.read_record()) == 3
    monkeypatch.setattr(experiments, 'perform', perform)
    assert len(run_all()) == 8
    assert len(performed) == len(set(performed)) == 6
    run_all()
    assert len(performed) == 6


def test_one_experiment_alone_can_be_run(two, performed):
    rows = run_all('--only', 'other')
    assert performed == [f'other: {variant}, seed {seed}' for seed in (0, 1)
                         for variant in ('flips', 'as it was')]
    # The shared variant of the other experiment has its result, too.
    assert ('one', 'base', 1) in names(rows)
    assert ('one', 'sgd', 1) not in names(rows)


def test_a_run_of_another_recipe_or_drawing_is_overtaken(two, performed):
    rows = run_all()
    old = copy.deepcopy(rows)
    for r in old:
        if r['variant'] == 'sgd' and r['seed'] == 0:
            r['recipe']['lr'] = 7.0
        if r['variant'] == 'flips' and r['seed'] == 1:
            r['drawing_version'] = 0
    experiments.write_record(old)
    performed.clear()
    again = run_all()
    assert performed == ['one: sgd, seed 0', 'other: flips, seed 1']
    assert len(again) == 8
    assert all(r['recipe'].get('lr') != 7 and r['drawing_version']
               for r in again)


def test_a_field_that_recipes_gained_since_makes_no_run_obsolete(
        two, performed):
    rows = run_all()
    for r in rows:
        del r['recipe']['gamma'], r['recipe']['side'], r['recipe']['sizes']
    experiments.write_record(rows)
    performed.clear()
    run_all()
    assert not performed


def test_results_of_experiments_that_are_no_more_are_kept_and_named(
        two, performed, capsys):
    experiments.write_record([row(Run('one', 'base', 0), variant='gone')])
    rows = run_all()
    assert ('one', 'gone', 0) in names(rows)
    capsys.readouterr()
    experiments.main(['--list'])
    text = capsys.readouterr().out
    assert 'one: gone, seed 0' in text
    assert 'base                     2 of 2 runs, AP 0.250' in text


def test_a_dry_run_says_what_is_missing_and_how_long_it_takes(
        two, performed, capsys):
    experiments.main(['--dry-run'])
    first = capsys.readouterr().out
    assert 'one: sgd, seed 1: about 2 min' in first
    assert '6 runs to do, 9 min in all' in first
    experiments.write_record([
        row(run, seconds=600.0) for run in experiments.all_runs()
        if run != Run('one', 'sgd', 1)])
    experiments.main(['--dry-run'])
    second = capsys.readouterr().out
    assert second.splitlines() == ['one: sgd, seed 1: about 10 min',
                                   '1 runs to do, 10 min in all']
    assert not performed


def test_enlarged_pictures_are_expected_to_take_four_times_as_long():
    small, large = (experiments.estimate(Run('small', variant, 0), [])
                    for variant in ('256', '512'))
    assert large == 4 * small


@pytest.mark.parametrize('text', ['', '[', '{}x', '[1]', '[{"seed": 0}]'])
def test_a_record_that_cannot_be_read_is_named_and_kept(record, text):
    record.write_text(text)
    with pytest.raises(SystemExit, match='experiments.json: not what this'):
        experiments.main(['--dry-run'])
    assert record.read_text() == text


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--only', 'sugar'], 'no experiment sugar; there are ingredients, anch'),
    (['--threads', '0'], '--threads 0: at least 1'),
])
def test_what_is_not_understood_is_refused(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        experiments.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


# A run in earnest, of a few pictures.

@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path))
    monkeypatch.setattr(drawn, 'COUNTS', {'train': 4, 'val': 2})
    monkeypatch.setattr('d2lssd.training.EPOCH', 4)
    monkeypatch.setattr('d2lssd.data.drawn.num_workers', lambda: 0)
    monkeypatch.setattr(experiments, 'EXAM', {'count': 2, 'seed': 105})
    monkeypatch.setattr(experiments, 'SEEDS', (0,))
    experiments.exam_pictures.cache_clear()
    yield
    experiments.exam_pictures.cache_clear()


def test_a_run_is_recorded_with_all_that_it_gave(tiny, monkeypatch):
    few = {'num_epochs': 1, 'batch_size': 4, 'num_pictures': 4}
    monkeypatch.setattr(experiments, 'EXPERIMENTS', {'one': {
        'small': {**few, 'pictures': 'small', 'side': 128},
        'diverging': {**few, 'optimizer': 'sgd', 'lr': 1e30,
                      'num_epochs': 3}}})
    threads = torch.get_num_threads()
    try:
        rows = run_all()
    finally:
        torch.set_num_threads(threads)
    good, bad = rows
    assert set(good) == {'experiment', 'variant', 'seed', 'recipe', 'metrics',
                         'history', 'seconds', 'drawing_version',
                         'torch'}
    assert good['recipe']['side'] == 128
    assert good['metrics']['objects'] == 2
    assert 0 <= good['metrics']['AP'] <= good['metrics']['AP50'] <= 1
    assert len(good['history']) == 1
    assert good['seconds'] > 0
    assert bad['metrics'] is None
    assert 'the loss became' in bad['error']
    # Neither is run again.
    assert not experiments.missing(['one'], rows)


def test_a_run_that_was_stopped_is_no_result(tiny, monkeypatch):
    """Training gives back what it had, and that is not what was promised."""
    monkeypatch.setattr(experiments, 'train',
                        lambda recipe, seed: (None, [{'loss': 1.0}]))
    with pytest.raises(KeyboardInterrupt):
        experiments.perform(Run('ingredients', 'balanced', 0))
