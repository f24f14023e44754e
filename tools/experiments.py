"""Run the book's experiments, and record what they give.

    python tools/experiments.py [--only NAME ...] [--list] [--dry-run]

An experiment changes parts of one recipe, one variant at a time. Every run
trains from nothing on the same number of drawn pictures and is measured on
pictures that no training saw. Each finished run is written down at once in
book/_data/experiments.json, from which the pages read, and is not run again:
stopped or killed, the command goes on where it was. A variant that stands in
several experiments is run once.
"""
import argparse
import dataclasses
import functools
import json
import sys
import time
from typing import NamedTuple

import torch
from notebooks import BOOK
from torch.utils.data import DataLoader

from d2lssd.data import BananasDataset
from d2lssd.data.drawing import DRAWING_VERSION
from d2lssd.data.files import replacing
from d2lssd.evaluation import evaluate
from d2lssd.model import sizes
from d2lssd.training import (
    EPOCH,
    FITTING,
    RECIPES,
    Recipe,
    enlarge,
    find_recipe,
    train,
)

RECORD = BOOK / '_data' / 'experiments.json'

# The same for all: 3000 pictures of one banana each, none seen twice. Seeds
# differ in the first weights and in the order.
NUM_EPOCHS = 3
SEEDS = (0, 1, 2)
EXAM = {'count': 200, 'seed': 105}  # of validation pictures

BASE = find_recipe(
    'balanced', num_epochs=NUM_EPOCHS, pictures='plain', num_bananas=1,
    num_pictures=NUM_EPOCHS * EPOCH,
    average=0.98)  # over 50 steps; 500, as in the long run, is all of these
SGD = {name: getattr(RECIPES['source'], name)
       for name in ('optimizer', 'lr', 'weight_decay', 'schedule')}
SOURCE = {**dataclasses.asdict(RECIPES['source']), 'num_epochs': NUM_EPOCHS}
# On the first feature map, anchors half as large.
HALF = (tuple(size / 2 for size in sizes[0]), *map(tuple, sizes[1:]))
ALL = 5444  # for each matched anchor: more negatives than there are

EXPERIMENTS = {
    # One part of the balanced recipe taken away at a time.
    'ingredients': {
        'balanced': {},
        'no hard negatives': {'negative_ratio': ALL},
        # No hard negatives, a mean over all anchors, and L1.
        "the source's loss": {'loss': 'mean'},
        "the source's SGD": SGD,
        # Its rate is for a mean over all anchors, this loss for a sum.
        'SGD, a tenth the rate': {**SGD, 'lr': SGD['lr'] / 10},
        # Optimiser and schedule by themselves. Of four rates for SGD it is the
        # best, in one run each with a seed and an exam of their own.
        'SGD, one cycle': {'optimizer': 'sgd', 'lr': 0.02},
        'no cycle': {'schedule': 'constant'},
        'no cycle, lower rate': {'schedule': 'constant', 'lr': BASE.lr / 3},
        # A mean over as many pictures: over as many steps, the first weights
        # would still be a seventh of it at the end.
        'batches of 32': {'batch_size': 32, 'average': 0.96},
        'no flips': {'flips': False},
        'no averaging': {'average': None},
        'the same 1000 pictures': {'num_pictures': EPOCH},
        'L1': {'sigma': None},
        "the source's recipe": SOURCE,
    },
    # Each pair of sizes one map further on, where units see twice as much.
    'anchors': {'balanced': {}, 'anchors that fit': {'sizes': FITTING}},
    # Background anchors that nearly match: they count, or are ignored.
    'ignored': {
        'plain': {'sizes': FITTING},
        'plain, a gap': {'sizes': FITTING, 'ignored': 0.35},
        'all sizes': {'sizes': FITTING, 'pictures': 'sizes'},
        'all sizes, a gap': {'sizes': FITTING, 'pictures': 'sizes',
                             'ignored': 0.35},
    },
    'sigma': {
        'σ = 0.5': {'sigma': 0.5}, 'σ = 1': {}, 'σ = 2': {'sigma': 2.0},
        'σ = 4': {'sigma': 4.0}, 'L1': {'sigma': None},
    },
    'focal': {
        'hard negatives': {},
        'γ = 0': {'negative_ratio': ALL},  # is what the focal loss is then
        'γ = 1': {'loss': 'focal', 'gamma': 1},
        'γ = 2': {'loss': 'focal', 'gamma': 2},
    },
    'negatives': {
        '1 for each': {'negative_ratio': 1}, '3 for each': {},
        '10 for each': {'negative_ratio': 10}, 'all': {'negative_ratio': ALL},
    },
    'weights': {
        '0.5': {'bbox_weight': 0.5}, '1': {}, '2': {'bbox_weight': 2.0},
        '4': {'bbox_weight': 4.0},
    },
    'precision': {'bfloat16': {}, 'float32': {'bfloat16': False}},
    # Bananas of 24 to 48 pixels, the same pictures enlarged, and both with
    # anchors half as large on the first feature map.
    'small': {
        '256': {'pictures': 'small'},
        '512': {'pictures': 'small', 'side': 512},
        '256, small anchors': {'pictures': 'small', 'sizes': HALF},
        '512, small anchors': {'pictures': 'small', 'side': 512,
                               'sizes': HALF},
    },
}


class Run(NamedTuple):
    """One training run with a name in an experiment."""

    experiment: str
    variant: str
    seed: int

    def __str__(self):
        return f'{self.experiment}: {self.variant}, seed {self.seed}'

    @property
    def recipe(self):
        return dataclasses.replace(
            BASE, **EXPERIMENTS[self.experiment][self.variant])

    @property
    def key(self):
        """Equal for runs that are the same under two names."""
        return key_of({'recipe': dataclasses.asdict(self.recipe),
                       'seed': self.seed, 'drawing_version': DRAWING_VERSION})


def key_of(row):
    """A row may be older than a field: then it has the field's default."""
    recipe = {**dataclasses.asdict(Recipe()), **row['recipe']}
    return json.dumps([recipe, row['seed'], row['drawing_version']],
                      sort_keys=True)


def all_runs():
    return [Run(experiment, variant, seed)
            for experiment, variants in EXPERIMENTS.items()
            for seed in SEEDS for variant in variants]


def read_record():
    """What was recorded so far, a list of dicts."""
    try:
        record = json.loads(RECORD.read_text(encoding='utf-8'))
        for row in record:
            key_of(row)
            row['experiment'], row['variant'], row['metrics']  # noqa: B018
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise SystemExit(
            f'{RECORD}: not what this command writes '
            f'({type(error).__name__}: {error}); restore it, or remove it to '
            'start anew') from error
    return record


def write_record(record):
    """Write the list, one row a line, in one step."""
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False)
            for row in record]
    with replacing(RECORD) as temporary:
        temporary.write_text('[\n' + ',\n'.join(rows) + '\n]\n', 'utf-8')


def name_of(row):
    return Run(row['experiment'], row['variant'], row['seed'])


def result_of(run, record):
    """The row that holds a run's result, under whatever name; or None."""
    for row in record:
        if run.key == key_of(row):
            return row
    return None


def share(record):
    """Give each run its row, drop rows that a new recipe overtook, and put
    all in the order of the experiments, in which pages show them."""
    rows = {run: result_of(run, record) for run in all_runs()}
    kept = [row for row in record
            if name_of(row) not in rows or rows[name_of(row)] == row]
    named = {name_of(row) for row in kept}
    kept += [{**row, **run._asdict()} for run, row in rows.items()
             if row and run not in named]
    places = {run: i for i, run in enumerate(rows)}
    return sorted(kept, key=lambda row: places.get(name_of(row), len(rows)))


@functools.cache
def exam_pictures(style):
    return BananasDataset(False, style=style, **EXAM)


def perform(run):
    """Train and measure; return the row to record."""
    recipe, start = run.recipe, time.perf_counter()
    row = {**run._asdict(), 'recipe': dataclasses.asdict(recipe),
           'metrics': None, 'history': []}
    try:
        net, history = train(recipe, seed=run.seed)
        if len(history) < recipe.num_epochs:
            raise KeyboardInterrupt  # it gives back what it had
        seconds = time.perf_counter() - start
        batches = DataLoader(exam_pictures(recipe.pictures), 20)
        metrics = evaluate(net, ((enlarge(X, recipe.side), Y)
                                 for X, Y in batches))
        row |= {'metrics': metrics, 'history': history}
    except FloatingPointError as error:  # a result, too
        seconds = time.perf_counter() - start
        row['error'] = str(error)
    row |= {'seconds': seconds, 'drawing_version': DRAWING_VERSION,
            'torch': torch.__version__}
    return rounded(row)


def rounded(value):
    """Numbers with six digits, all that anyone will read."""
    if isinstance(value, dict):
        return {name: rounded(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return float(f'{value:.6g}') if isinstance(value, float) else value


def estimate(run, record):
    """Seconds that a run will take, from those that were."""
    def work(recipe):
        recipe = {**dataclasses.asdict(Recipe()), **recipe}
        return EPOCH * recipe['num_epochs'] * (recipe['side'] / 256)**2
    mine = dataclasses.asdict(run.recipe)
    done = [row for row in record if row['metrics']]
    alike = [row for row in done if row['recipe'] == rounded(mine)]
    speeds = [row['seconds'] / work(row['recipe']) for row in alike or done]
    mean = sum(speeds) / len(speeds) if speeds else 0.03
    return mean * work(mine)


def duration(seconds):
    minutes = round(seconds / 60)
    if not minutes:
        return f'{seconds:.0f} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'


def missing(names, record):
    """Runs of some experiments that have no result, each once."""
    runs = {}
    for run in all_runs():
        if run.experiment in names and not result_of(run, record):
            runs.setdefault(run.key, run)
    return list(runs.values())


def summary(row):
    if not row['metrics']:
        return row['error']
    return '{AP:.3f} AP, {AP50:.3f} AP50'.format(**row['metrics'])


def list_results(names, record):
    for experiment in names:
        print(experiment)
        for variant in EXPERIMENTS[experiment]:
            rows = [result_of(Run(experiment, variant, seed), record)
                    for seed in SEEDS]
            rows = [row for row in rows if row]
            found = [row['metrics']['AP'] for row in rows if row['metrics']]
            text = f'  {variant:24} {len(rows)} of {len(SEEDS)} runs'
            if found:
                text += f', AP {sum(found) / len(found):.3f}'
            if len(found) < len(rows):
                text += f', {len(rows) - len(found)} diverged'
            print(text)
    known = set(all_runs())
    if others := [row for row in record if name_of(row) not in known]:
        print(f'{len(others)} recorded runs belong to no experiment above: '
              + '; '.join(sorted({f'{name_of(row)}' for row in others})))


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog='What is recorded, in '
        'book/_data/experiments.json, is not run again.')
    parser.add_argument('--only', metavar='NAME', nargs='+', default=[],
                        help='these experiments: ' + ', '.join(EXPERIMENTS))
    parser.add_argument('--list', action='store_true',
                        help='print the experiments and their results')
    parser.add_argument('--dry-run', action='store_true',
                        help='print what would be run, and how long it takes')
    parser.add_argument('--threads', type=int, default=1, metavar='N',
                        help='of each run (default: %(default)s)')
    args = parser.parse_args(argv)
    if unknown := [name for name in args.only if name not in EXPERIMENTS]:
        parser.error(f'no experiment {", ".join(unknown)}; there are '
                     + ', '.join(EXPERIMENTS))
    if args.threads < 1:
        parser.error(f'--threads {args.threads}: at least 1 is needed')
    return args


def main(argv=None):
    args = parse(argv)
    names = args.only or list(EXPERIMENTS)
    record = read_record()
    if args.list:
        return list_results(names, record)
    runs = missing(names, record)
    times = [estimate(run, record) for run in runs]
    if args.dry_run:
        for run, seconds in zip(runs, times):
            print(f'{run}: about {duration(seconds)}')
    print(f'{len(runs)} runs to do, {duration(sum(times))} in all'
          if runs else 'Nothing to do: all runs are recorded.', flush=True)
    if args.dry_run:
        return
    torch.set_num_threads(args.threads)
    if (shared := share(record)) != record:
        write_record(shared)
    for i, run in enumerate(runs):
        print(f'[{i + 1} of {len(runs)}] {run}; '
              f'{duration(sum(times[i:]))} to go', flush=True)
        row = perform(run)
        # Read again: someone may run another experiment beside this one.
        write_record(share([*read_record(), row]))
        print(f'  {summary(row)}, in {duration(row["seconds"])}', flush=True)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped; the same command goes on from here.')
    except (OSError, ValueError) as error:
        sys.exit(f'experiments: {error}')
