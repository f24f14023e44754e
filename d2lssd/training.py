"""Training: the loop, and recipes for it."""
import contextlib
import copy
import dataclasses
import hashlib
import itertools
import json
import math
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import ConcatDataset, DataLoader
from tqdm.auto import tqdm

from d2lssd import distributed
from d2lssd.anchors import multibox_target, object_weights
from d2lssd.classes import adapt, classes_in, classes_of
from d2lssd.data import BananasDataset, read_data_bananas
from d2lssd.data.drawing import DRAWING_VERSION, SIDE, whole
from d2lssd.data.drawn import draw_chunks, pad_labels
from d2lssd.data.files import checksum, load_state, save_state
from d2lssd.data.labels import some
from d2lssd.evaluation import evaluate
from d2lssd.losses import balanced_loss, calc_loss
from d2lssd.memory import keep_memory, sparing
from d2lssd.model import SIDES, TinySSD, check_sizes, enlarge, sizes


class Timer:
    """A stopwatch that remembers its laps, in seconds."""

    def __init__(self):
        self.times = []
        self.start()

    def start(self):
        """Start a lap."""
        self.tik = time.perf_counter()

    def stop(self):
        """End the lap and return its length."""
        self.times.append(time.perf_counter() - self.tik)
        return self.times[-1]

    def sum(self):
        """Length of all laps together."""
        return sum(self.times)

    def avg(self):
        """Mean length of a lap."""
        return sum(self.times) / len(self.times)


class Accumulator:
    """Running sums of n numbers."""

    def __init__(self, n):
        self.data = [0.0] * n

    def add(self, *args):
        """Add one number to each sum."""
        self.data = [a + float(b) for a, b in zip(self.data, args)]

    def reset(self):
        """Set all sums to zero."""
        self.data = [0.0] * len(self.data)

    def __getitem__(self, i):
        return self.data[i]


def try_gpu(i=0):
    """Device of the i-th GPU, or the CPU where there is none."""
    if torch.cuda.device_count() > i:
        return torch.device(f'cuda:{i}')
    return torch.device('cpu')


def autocast(device, wanted=True):
    """Let convolutions compute in bfloat16 where the hardware can.

    Args:
        device: a `torch.device`.
        wanted: False to stay with float32 all the same.

    Returns:
        Context manager; without bfloat16 units in the processor or card, it
        changes nothing.
    """
    if device.type == 'cuda':
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == 'cpu' and _has_bfloat16_units()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast and wanted)


def _has_bfloat16_units():
    # PyTorch for Macs has no such question, and no answer.
    if not (torch.backends.mkldnn.is_available()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # That is also said of units of 512 bits that have to convert to float32
    # and back, which takes longer than float32 itself.
    return (torch.cpu._is_avx512_bf16_supported()
            or not torch.cpu._is_avx512_supported())


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What training does, part by part.

    Attributes:
        num_epochs: passes over the pictures (1000 fresh ones count as one).
        batch_size: pictures a step.
        loss: 'mean', the source's `calc_loss`; 'balanced'; or 'focal', the
            same with `focal_loss` in place of hard negatives.
        negative_ratio: hard negatives for each positive; see `balanced_loss`.
        gamma: of the focal loss.
        sigma: of `smooth_l1`; None for plain L1.
        bbox_weight: of the offsets' loss beside that of the classes.
        balance: power of `object_weights`, so that an object with many
            anchors does not outweigh one with few; 0 for none.
        ignored: IoU from which on a background anchor counts for nothing, for
            it nearly matches an object, unless it so nearly matches two; None
            for all to count.
        optimizer: 'sgd' or 'adamw'.
        lr: its learning rate, the highest with 'one-cycle'.
        weight_decay: of the optimizer.
        schedule: 'constant' or 'one-cycle'.
        pictures: 'plain', 'touching', 'small', 'sizes' and 'wild' are styles
            of drawn pictures, seen again every epoch; 'mixed' are wild,
            'sizes' and plain ones in turn; half of 'motley' ones are 'odd',
            three of eight 'worn' ones 'bruised', and half of 'clear' ones
            'heaped', the others 'sizes'; 'fresh plain' and
            'fresh small' ones are never seen again, nor are 'fresh' ones,
            which are plain and wild.
        num_pictures: how many drawn pictures, if they are seen again; of a
            multiple of a thousand, each epoch takes the next thousand. None
            for 1000. Of another source all are taken.
        side: pixels a side to which pictures are enlarged, in training and
            whenever the network is used.
        num_bananas: on a drawn picture, a number or (low, high).
        flips: mirror and turn half of the pictures.
        sizes: of the anchors, as in `sizes`; None for those of the network.
        average: decay of a running mean of the weights, which then takes
            their place; None for none.
        bfloat16: let convolutions compute in it where they can; see
            `autocast`.
    """

    num_epochs: int = 20
    batch_size: int = 32
    loss: str = 'mean'
    negative_ratio: float = 3
    gamma: float = 2
    sigma: float | None = 1.0
    bbox_weight: float = 1.0
    balance: float = 0
    ignored: float | None = None
    optimizer: str = 'sgd'
    lr: float = 0.2
    weight_decay: float = 5e-4
    schedule: str = 'constant'
    pictures: str = 'plain'
    side: int = SIDE
    num_bananas: int | tuple = 1
    num_pictures: int | None = None
    flips: bool = False
    sizes: tuple | None = None
    average: float | None = None
    bfloat16: bool = True


EPOCH = 1000
# Anchors of up to 70 pixels stand on the first map of TinySSD, whose predictor
# sees 52, and up to 114 on the second, whose predictor sees 108. Here each
# pair of sizes lies one map further on, and the first map has a smaller one.
FITTING = ((0.1, 0.136), *map(tuple, sizes[:-1]))
RECIPES = {
    'source': Recipe(),
    # For a hundred or so pictures of one's own, and weights to start from.
    'own': Recipe(
        num_epochs=20, batch_size=8, loss='balanced', optimizer='adamw',
        lr=3e-3, weight_decay=0.01, schedule='one-cycle', flips=True),
    'balanced': Recipe(
        num_epochs=72, batch_size=16, loss='balanced', optimizer='adamw',
        lr=3e-3, weight_decay=0.01, schedule='one-cycle', pictures='fresh',
        num_bananas=(0, 4), flips=True, average=0.998),
    # What 'finer' starts from, 'fitted' from that, 'odd' from that; 'worn' and
    # 'touching' from 'odd', and 'wild' and 'heaped' from 'worn': each goes on
    # from earlier weights.
    'varied': Recipe(
        num_epochs=120, batch_size=16, loss='balanced', balance=0.5,
        optimizer='adamw', lr=3e-3, weight_decay=0.01, schedule='one-cycle',
        pictures='mixed', num_bananas=(0, 5), num_pictures=16 * EPOCH,
        flips=True, average=0.998),
    # Smaller steps and more of them, on twice as many pictures.
    'finer': Recipe(
        num_epochs=128, batch_size=4, loss='balanced', balance=0.5,
        optimizer='adamw', lr=1e-3, weight_decay=0.01, schedule='one-cycle',
        pictures='mixed', num_bananas=(0, 5), num_pictures=32 * EPOCH,
        flips=True, average=0.999),
}
RECIPES['fitted'] = dataclasses.replace(
    RECIPES['finer'], num_epochs=180, sizes=FITTING)
RECIPES['odd'] = dataclasses.replace(
    RECIPES['fitted'], num_epochs=160, pictures='motley')
# Real bananas are bruised, and some have long stems.
RECIPES['worn'] = dataclasses.replace(
    RECIPES['odd'], num_epochs=88, pictures='worn', num_pictures=22 * EPOCH)
# The background taken most for bananas is anchors that nearly match one; where
# these count for nothing, what is no banana gets its turn.
RECIPES['wild'] = dataclasses.replace(
    RECIPES['worn'], num_epochs=120, num_bananas=(0, 4), ignored=0.35)
# For bananas of one size in good light, as in the data set, but up to eight.
# Ten negatives for one positive: what is no banana should rarely score much.
RECIPES['touching'] = dataclasses.replace(
    RECIPES['odd'], num_epochs=110, pictures='touching',
    num_bananas=(0, 6), num_pictures=22 * EPOCH, negative_ratio=10)
# What is missed are bananas that lie on others, so there are more of them.
RECIPES['crowded'] = dataclasses.replace(
    RECIPES['touching'], num_epochs=88, num_bananas=(0, 8))
RECIPES['plain'] = dataclasses.replace(
    RECIPES['crowded'], num_epochs=66, pictures='piled', num_bananas=(0, 7))
# The same good light, but bananas of all sizes; it goes on from 'worn'.
RECIPES['heaped'] = dataclasses.replace(
    RECIPES['worn'], num_epochs=48, pictures='clear', num_bananas=(0, 6),
    num_pictures=24 * EPOCH, negative_ratio=10)
RECIPES['clear'] = dataclasses.replace(
    RECIPES['heaped'], num_epochs=150, num_pictures=32 * EPOCH, ignored=0.35)
# Bytes that must be free for each pixel of a minibatch, so that training keeps
# memory: 6 GB for 32 pictures.
ROOM = 6e9 / (32 * SIDE**2)
# What may differ from the checkpoint's run, with a word about it.
NOTED = {'start': 'this run started from other weights, or those given have '
                  'learnt since',
         'checksum': 'its pictures or labels have changed since this run was '
                     'stopped',
         'drawing': 'another version of the package drew its pictures'}
CHECKPOINT = {'format': 'd2lssd-checkpoint-1'}
FACTS = 'loss', 'class error', 'bbox mae', 'seconds'  # of each epoch
# What the fields of a recipe may be.
CHOICES = {'loss': ('mean', 'balanced', 'focal'),
           'optimizer': ('sgd', 'adamw'),
           'schedule': ('constant', 'one-cycle'),
           'flips': (True, False), 'bfloat16': (True, False)}
COUNT = int, lambda n: n >= 1, 'a whole number, at least 1,'
REAL = int, float
ABOVE = REAL, lambda x: 0 < x < math.inf, 'a number above 0'
FROM = REAL, lambda x: 0 <= x < math.inf, 'a number, at least 0,'
NUMBERS = {
    'num_epochs': COUNT, 'batch_size': COUNT, 'num_pictures': COUNT,
    'side': (int, lambda n: SIDES[0] <= n <= SIDES[1],
             f'a whole number from {SIDES[0]} to {SIDES[1]}'),
    'lr': ABOVE, 'sigma': ABOVE, 'negative_ratio': FROM, 'gamma': FROM,
    'bbox_weight': FROM, 'balance': FROM, 'weight_decay': FROM,
    'average': (REAL, lambda x: 0 < x < 1, 'a number between 0 and 1'),
    'ignored': (REAL, lambda x: 0 < x < 1, 'a number between 0 and 1')}
OPTIONAL = 'num_pictures', 'sigma', 'ignored', 'average'  # may be None


# Pictures that no epoch repeats: their styles, in turn.
FRESH = {'fresh': ('plain', 'wild', 'wild'), 'fresh plain': ('plain',),
         'fresh small': ('small',)}
# Pictures that come again: a style, or several in turn.
AGAIN = {'plain': 'plain', 'small': 'small', 'touching': 'touching',
         'sizes': 'sizes', 'wild': 'wild', 'piled': ('touching', 'piled'),
         'clear': ('sizes', 'heaped'),
         'mixed': ('wild', 'sizes', 'wild', 'plain',
                   'wild', 'sizes', 'wild', 'wild'),
         'motley': ('wild', 'odd', 'sizes', 'odd',
                    'plain', 'odd', 'wild', 'odd'),
         'worn': ('wild', 'bruised', 'sizes', 'bruised',
                  'plain', 'odd', 'wild', 'bruised')}


# Of these, so many are drawn at a time. Drawing and learning take turns: side
# by side they would wait for each other, since both can use every core.
AHEAD = 320


def draw_batches(recipe, epoch, seed=0):
    """Draw the minibatches of an epoch whose pictures are never seen again.

    Args:
        recipe, seed: as for `batches`.
        epoch: its number, from 0.

    Yields:
        Pairs ``(X, Y)`` as `load_data_bananas` gives them.
    """
    size, steps = recipe.batch_size, num_steps(recipe)
    own = [distributed.part(range(size * i, size * (i + 1)))
           for i in range(steps * epoch, steps * (epoch + 1))]
    share, _ = distributed.on_this_machine()
    some = max(1, AHEAD // len(own[0]))
    for first in range(0, steps, some):
        parts = own[first:first + some]
        images, boxes = zip(*draw_chunks(
            list(itertools.chain(*parts)),
            ('train', seed, FRESH[recipe.pictures], recipe.num_bananas),
            share))
        images = np.concatenate(images)
        boxes = list(itertools.chain(*boxes))
        for part in parts:
            X, images = np.split(images, [len(part)])
            yield (torch.from_numpy(X).float(),
                   torch.from_numpy(pad_labels(boxes[:len(part)])))
            del boxes[:len(part)]


def flip(X, Y):
    """Mirror and turn half of a minibatch, labels with it.

    Args:
        X: float tensor ``(B, 3, s, s)``.
        Y: float tensor ``(B, m, 5)``; see `multibox_target`.

    Returns:
        Both, changed: half mirrored, half turned by a quarter.
    """
    X, Y = X.clone(), Y.clone()
    real = Y[..., :1] >= 0
    mirror, turn = (chosen.nonzero()[:, 0].to(X.device, non_blocking=True)
                    for chosen in distributed.rand(2, len(X)) < 0.5)
    X[mirror] = X[mirror].flip(3)
    x1, y1, x2, y2 = Y[mirror, :, 1:].unbind(-1)
    Y[mirror, :, 1:] = torch.stack([1 - x2, y1, 1 - x1, y2], -1)
    X[turn] = X[turn].transpose(2, 3)
    Y[turn, :, 1:] = Y[turn][..., [2, 1, 4, 3]]
    return X, torch.where(real, Y, -1)


def read_pictures(recipe, source='drawn', progress=True):
    """All training pictures of a recipe.

    Args:
        recipe, source: as for `batches`.
        progress: show a bar.

    Returns:
        What `read_data_bananas` gives; None where pictures are drawn afresh.
    """
    if recipe.pictures in FRESH and source == 'drawn':
        return None
    options = _options(recipe, source)
    if source == 'drawn':
        options['count'] = recipe.num_pictures or EPOCH
    return read_data_bananas(True, source, progress=progress, **options)


def batches(recipe, start=0, source='drawn', seed=0, pictures=None):
    """Yield the minibatches of a recipe, epoch after epoch.

    What an epoch holds depends on the recipe, its number and the seed alone,
    so a run that is resumed sees what it would have seen.

    Args:
        recipe: a `Recipe`.
        start: epoch to start from.
        source: see `load_data_bananas`; only drawn pictures can be fresh.
        seed: of the drawing and of the order.
        pictures: what `read_pictures` gave, so as not to read them again.

    Yields:
        For each epoch, an iterator of pairs ``(X, Y)`` as `load_data_bananas`
        gives them.
    """
    size, epochs = recipe.batch_size, range(start, recipe.num_epochs)
    pictures = pictures or read_pictures(recipe, source)
    if not pictures:
        yield from (draw_batches(recipe, epoch, seed) for epoch in epochs)
        return
    images, labels = pictures
    whole = _whole(recipe, images)
    for epoch in epochs:
        turn, part = divmod(epoch * whole, len(images))
        rng = torch.Generator().manual_seed(1000 * seed + turn)
        order = torch.randperm(len(images), generator=rng).to(images.device)
        own = map(distributed.part, order[part:part + whole].split(size))
        yield ((images[index].float(), labels[index]) for index in own)


def other_pictures(recipe, seed=0, count=None):
    """Drawn training pictures of a recipe that no epoch shows.

    Their photographs and bananas are those that the recipe learns from, in
    other arrangements.

    Args:
        recipe: a `Recipe`.
        seed: that of the training.
        count: how many; None for a thousand.

    Returns:
        A `BananasDataset`.
    """
    return BananasDataset(True, count=count or EPOCH, seed=seed + 1,
                          cache=False, **_options(recipe, 'drawn'))


def judge_pictures(recipe, seed=0, count=None):
    """Drawn training pictures to teach a judge from; see `teach_judge`.

    Args:
        recipe, seed: as for `other_pictures`, but none of these are among
            them.
        count: how many, None for eight thousand; and half as many without
            bananas, from which it learns what false alarms look like.

    Returns:
        A dataset of images and labels, as `BananasDataset` gives them, the
        number of labels changing where those without bananas begin.
    """
    count, options = count or 8 * EPOCH, _options(recipe, 'drawn')
    return ConcatDataset([
        BananasDataset(True, count=some, seed=seed + 2, cache=False,
                       **options | change)
        for some, change in ((count, {}), (count // 2, {'num_bananas': 0}))])


def _options(recipe, source):
    if source != 'drawn':
        return {}
    style = AGAIN.get(recipe.pictures) or FRESH[recipe.pictures][-1]
    return {'style': style, 'num_bananas': recipe.num_bananas}


def _check_classes_seen(source, labels, classes):
    """Refuse to learn from no box, and warn of classes without any."""
    missing = [name for number, name in enumerate(classes)
               if not (labels[..., 0] == number).any()]
    if len(missing) == len(classes):
        raise ValueError(f'{source}: no box in its training pictures, so '
                         'there is nothing to learn')
    if missing:
        warnings.warn(f'{source}: no box of class {some(missing)} in its '
                      'training pictures, so it is not learnt', stacklevel=3)


def _on_card(pictures, device):
    """Pictures and labels, where a GPU need not fetch them in every epoch, if
    they fill no more than half of what it has left."""
    if device.type != 'cuda' or (2 * sum(part.nbytes for part in pictures)
                                 > torch.cuda.mem_get_info(device)[0]):
        return pictures
    return [part.to(device) for part in pictures]


def num_steps(recipe, pictures=None):
    """Minibatches an epoch, of what `read_pictures` gave."""
    if pictures:
        return math.ceil(_whole(recipe, pictures[0]) / recipe.batch_size)
    return max(1, EPOCH // recipe.batch_size)


def _whole(recipe, images):
    """Pictures an epoch: all, but a thousand of a stock of thousands."""
    stock = len(images) == recipe.num_pictures and len(images) % EPOCH == 0
    return EPOCH if stock else len(images)


def train(recipe='source', net=None, source='drawn', seed=0, device=None,
          checkpoint=None, progress=True, validate=False, **changes):
    """Train a TinySSD on bananas, or on whatever a folder shows.

    Args:
        recipe: name of one of `RECIPES`, or a `Recipe`.
        net: what to go on from, changed to the classes of the source if need
            be (see `adapt`); None for a new `TinySSD`.
        source: of the pictures; see `load_data_bananas`. A folder's classes
            become those of the network.
        seed: of weights, drawing and order.
        device: a `torch.device` or its name; None for the GPU where there is
            one.
        checkpoint: file to save to after every epoch and to resume from if it
            is there; None for neither. Nothing in it is ever run.
        progress: show a bar with the time left.
        validate: measure average precision after every epoch.
        **changes: fields of the recipe to change, as in ``num_epochs=5``.

    Returns:
        Tuple of the network, on the device, and the history: a list with a
        dict for each epoch of ``'loss'``, ``'class error'``, ``'bbox mae'``,
        ``'seconds'`` and, if asked for, of what `evaluate` gives. Who presses
        stop in a notebook gets both as they are then, or the network of the
        best epoch, where each is measured, with a warning. Where there is a
        checkpoint, where no epoch was done, and in a script,
        `KeyboardInterrupt` is passed on.

    Raises:
        ValueError: unknown recipe or change; a checkpoint of another recipe,
            or with which another training goes on; a source that cannot be
            read.
        FloatingPointError: the loss is no longer a number.
        ConnectionError: of several processes (see ``d2lssd.distributed``), one
            ended.
    """
    recipe, seed = find_recipe(recipe, **changes), whole('seed', seed)
    distributed.join()
    device = torch.device(device or distributed.device())
    with distributed.naming_the_lost(checkpoint), _alone(checkpoint):
        return _train(recipe, net, source, seed, device, checkpoint, progress,
                      validate)


@contextlib.contextmanager
def _alone(checkpoint):
    """Refuse a second training with the same checkpoint, while this one goes
    on: each would write over what the other has done."""
    if not checkpoint or distributed.rank() > 0:
        yield
        return
    name = hashlib.sha1(os.fsencode(Path(checkpoint).resolve())).hexdigest()
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(tempfile.gettempdir())
            stack.enter_context(FileLock(folder / f'd2lssd-{name}.lock',
                                         timeout=0))
        except Timeout as error:
            raise ValueError(f'{checkpoint}: another training goes on with '
                             'it; stop that one, or give another checkpoint'
                             ) from error
        except (OSError, NotImplementedError):
            pass  # no place for a lock, or none of this kind: without it
        yield


def _train(recipe, net, source, seed, device, checkpoint, progress, validate):
    plenty = keep_memory(ROOM * recipe.batch_size * recipe.side**2)
    spare = device.type == 'cpu' and distributed.world_size() == 1
    with distributed.one_goes_first():
        pictures = read_pictures(recipe, source, progress)
    distributed.check_share(recipe.batch_size, _whole(
        recipe, pictures[0]) if pictures else recipe.batch_size)
    classes = classes_in(source)
    if pictures:
        _check_classes_seen(source, pictures[1], classes)
    torch.manual_seed(seed)
    net = adapt(net or TinySSD(len(classes)), classes)
    net.sizes = recipe.sizes or net.sizes
    net.side = recipe.side
    net.judge = None  # it knew the network as it was
    net.to(device, memory_format=torch.channels_last)
    steps = num_steps(recipe, pictures)
    run = _Run(recipe, net, seed, steps, source,
               None if source in ('drawn', 'd2l') else checksum(
                   dict(zip(('images', 'labels'), pictures))))
    if checkpoint and Path(checkpoint).exists():
        run.load(checkpoint)
        if progress and run.history and distributed.rank() == 0:
            print(f'{checkpoint}: goes on after epoch {len(run.history)} of '
                  f'{recipe.num_epochs}', file=sys.stderr)
    # Weights, not epochs: of two files both may be whole, and of other runs.
    distributed.check_same(int(run.weights(), 16),
                           f'what lies in {checkpoint}')
    pictures = pictures and _on_card(pictures, device)
    epochs = batches(recipe, len(run.history), source, seed, pictures)
    bar = tqdm(total=recipe.num_epochs * steps, unit='step',
               initial=len(run.history) * steps,
               desc='training', disable=not progress or distributed.rank() > 0)
    # A loader draws a number even if it has nothing to shuffle: not from those
    # that mirror the training pictures.
    validation = validate and DataLoader(BananasDataset(
        False, source, progress=progress, **_options(recipe, source)), 50,
        generator=torch.Generator())
    # The maps of the first blocks are the largest.
    blocks = (*net.blk_0.children(), net.blk_1) if spare else ()
    with bar, sparing(*blocks, twice=not plenty):
        try:
            if checkpoint and distributed.rank() == 0:
                run.save(checkpoint)  # no room, no rights: say so at once
            for epoch in epochs:
                run.one_epoch(epoch, device, bar)
                if validate:
                    run.note(evaluate(run.result(), validation))
                if checkpoint and distributed.rank() == 0:
                    run.save(checkpoint)
        except KeyboardInterrupt:
            run.stopped(checkpoint)
        except FloatingPointError as error:
            if not run.history or not checkpoint:
                raise
            raise FloatingPointError(f'{error}; first remove {checkpoint}, '
                                     'which goes on as before') from error
    return run.result(), run.history


def find_recipe(recipe, **changes):
    """The recipe of a name, with changes.

    Raises:
        ValueError: unknown name, field or value, with those that are known.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f'recipe {recipe!r}: known are '
                             f'{", ".join(RECIPES)}')
        recipe = RECIPES[recipe]
    known = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := set(changes) - known:
        raise ValueError(f'a recipe has no {", ".join(sorted(unknown))}; it '
                         f'has {", ".join(sorted(known))}')
    recipe = dataclasses.replace(recipe, **changes)
    choices = CHOICES | {'pictures': (*AGAIN, *FRESH)}
    for name, values in choices.items():
        value = getattr(recipe, name)
        if not isinstance(value, (str, bool)) or value not in values:
            raise ValueError(f'{name} = {value!r}: known are '
                             f'{", ".join(map(str, values))}')
    for name, (kind, fits, needed) in NUMBERS.items():
        value = getattr(recipe, name)
        if value is None and name in OPTIONAL:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or (
                not fits(value)):
            raise ValueError(f'{name} = {value!r}: {needed} is needed')
    if recipe.sizes is not None:
        check_sizes(recipe.sizes)
    return recipe


def look_after(device):
    """Steps after which losses are looked at.

    To look waits for all that a GPU has to do, and meanwhile nothing new is
    sent to it.
    """
    return 1 if device.type == 'cpu' else 20


class _Run:
    """All that changes while a network learns."""

    def __init__(self, recipe, net, seed, steps, source, pictures=None):
        self.recipe, self.net = recipe, net
        self.seed, self.steps = seed, steps
        self.checksum = pictures  # that of a folder's
        self.source = os.path.normpath(source)
        self.start = self.weights()
        self.history = []
        self.best = None  # epoch, AP and weights
        kind = {'sgd': torch.optim.SGD, 'adamw': torch.optim.AdamW}
        self.optimizer = kind[recipe.optimizer](
            net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        total = recipe.num_epochs * steps
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.lr, total_steps=total + 1,
            cycle_momentum=recipe.optimizer != 'sgd'  # it has none
        ) if recipe.schedule == 'one-cycle' else None
        self.mean = AveragedModel(
            net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average),
            use_buffers=True) if recipe.average else None
        self.learner = distributed.wrap(net)

    def one_epoch(self, epoch, device, bar):
        """Go once through the minibatches of an epoch."""
        timer, rows, unseen, anchors = Timer(), [], [], 0
        self.net.train()

        def look():
            for row in torch.stack(unseen).tolist() if unseen else []:
                rows.append(row)
                if not math.isfinite(row[0]):
                    raise FloatingPointError(
                        f'the loss became {row[0]} in epoch '
                        f'{len(self.history) + 1}, minibatch {len(rows)}: try '
                        f'a lower lr than {self.recipe.lr}')
            unseen.clear()
            bar.set_postfix(loss=f'{rows[-1][0]:.3f}', refresh=False)

        for X, Y in epoch:
            X = enlarge(X, self.recipe.side)
            X = X.to(device, memory_format=torch.channels_last,
                     non_blocking=True)
            Y = Y.to(device, non_blocking=True)
            if self.recipe.flips:
                X, Y = flip(X, Y)
            facts, count = self.step(X, Y)
            unseen.append(facts)
            anchors += count
            if len(unseen) == look_after(device):
                look()
            bar.update()
        look()
        if not torch.stack([value.isfinite().all() for value
                            in self.net.state_dict().values()]).all():
            raise FloatingPointError(
                f'the weights are no finite numbers after epoch '
                f'{len(self.history) + 1}: try a lower lr than '
                f'{self.recipe.lr}')
        loss, right, error = map(sum, zip(*rows))
        self.history.append({
            'loss': loss / len(rows), 'class error': 1 - right / anchors,
            'bbox mae': error / (4 * anchors), 'seconds': timer.stop()})

    def step(self, X, Y):
        """Learn from one minibatch.

        Returns:
            Float tensor of its loss, its anchors whose class was right and
            the sum of its offsets' errors; and how many anchors it has.
        """
        recipe = self.recipe
        with autocast(X.device, recipe.bfloat16):
            anchors, cls_preds, bbox_preds = self.learner(X)
        cls_preds, bbox_preds, Y = distributed.gather(cls_preds, bbox_preds, Y)
        bbox_labels, bbox_masks, cls_labels = multibox_target(anchors, Y)
        both = (cls_preds.float(), cls_labels, bbox_preds.float(),
                bbox_labels, bbox_masks)
        if recipe.loss == 'mean':
            loss = calc_loss(*both).mean()
        else:
            loss = balanced_loss(
                *both, recipe.negative_ratio, recipe.sigma,
                recipe.bbox_weight,
                recipe.gamma if recipe.loss == 'focal' else None,
                object_weights(anchors, Y, recipe.balance, recipe.ignored)
                if recipe.balance or recipe.ignored else None)
        self.optimizer.zero_grad()
        distributed.backward(loss)
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()
        if self.mean:
            self.mean.update_parameters(self.net)
        with torch.no_grad():  # `cls_eval` and `bbox_eval`, unasked
            right = (cls_preds.argmax(-1) == cls_labels).sum()
            error = ((bbox_labels - bbox_preds) * bbox_masks).abs().sum()
            facts = torch.stack([loss, right.float(), error.float()])
        return facts, cls_labels.numel()

    def note(self, measured):
        """Keep what was measured after an epoch, and the best weights."""
        self.history[-1] |= measured
        score = measured['AP'] or 0
        if not self.best or score > self.best[1]:
            self.best = len(self.history), score, copy.deepcopy(
                self.result().state_dict())

    def stopped(self, checkpoint):
        """Someone pressed stop: say what becomes of the work."""
        where = (f'training stopped in epoch {len(self.history) + 1} of '
                 f'{self.recipe.num_epochs}')
        if checkpoint and Path(checkpoint).exists():
            raise KeyboardInterrupt(
                f'{where}; the same call goes on from {checkpoint}') from None
        if not self.history:
            raise KeyboardInterrupt(
                f'{where}, with nothing to keep') from None
        if not hasattr(sys, 'ps1'):  # a script that may record the result
            raise KeyboardInterrupt(where) from None
        when = 'then'
        if self.best:
            epoch, score, weights = self.best
            self.result().load_state_dict(weights)
            when = f'after epoch {epoch}, the best so far (AP {score:.3f})'
        warnings.warn(f'{where}: the network is as it was {when}, and its '
                      'history ends with the last whole epoch', stacklevel=3)

    def result(self):
        """The network that the recipe promises: the mean, if it keeps one."""
        return self.mean.module if self.mean else self.net

    def weights(self):
        """A checksum of what the network knows."""
        return checksum({name: tensor.cpu() for name, tensor
                         in self.net.state_dict().items()})

    def parts(self):
        parts = {'net': self.net, 'optimizer': self.optimizer,
                 'scheduler': self.scheduler, 'mean': self.mean}
        return {name: part for name, part in parts.items() if part}

    def what(self):
        """What tells this run from another."""
        return {**dataclasses.asdict(self.recipe), 'sizes': self.net.sizes,
                'seed': self.seed, 'source': self.source,
                'start': self.start, 'classes': classes_of(self.net),
                'steps': self.steps, 'checksum': self.checksum,
                'drawing': DRAWING_VERSION if self.source == 'drawn' else None}

    def save(self, path):
        """Write a checkpoint, in one step."""
        save_state(path, {
            'run': self.what(), 'history': self.history,
            'rng': torch.get_rng_state(), 'parts': {
                name: part.state_dict()
                for name, part in self.parts().items()}}, CHECKPOINT)

    def load(self, path):
        """Go on from a checkpoint."""
        try:
            state = load_state(path, CHECKPOINT)
            if not state['history']:
                return  # of whatever run: there is nothing in it
            _check_history(state['history'])
            mine, theirs = json.loads(json.dumps(self.what())), state['run']
            if 'checksum' not in theirs:  # an older version's name for it
                theirs |= {'checksum': theirs.get('pictures'),
                           'pictures': mine['pictures']}
            other = _differences(mine, theirs)
            if not other:
                for name, part in self.parts().items():
                    part.load_state_dict(state['parts'][name])
                torch.set_rng_state(state['rng'])
                self.history = state['history']
        except OSError:
            raise
        except Exception as error:
            reason = str(error).removeprefix(f'{path}: ').partition('\n')[0]
            raise ValueError(f'{path}: not a whole checkpoint ({reason}); '
                             'give it another name, or, if it is an old '
                             'checkpoint, remove it to start anew') from error
        if other:
            raise ValueError(f'{path}: a checkpoint of another run ({other}); '
                             'give it another name, or remove it')
        for key, words in NOTED.items():
            if theirs.get(key, mine[key]) != mine[key]:
                warnings.warn(f'{path}: {words}; it goes on from the '
                              'checkpoint, and anew once that is removed',
                              stacklevel=3)


def _check_history(history):
    """Refuse what `one_epoch` does not write."""
    if not isinstance(history, list) or not all(
            isinstance(epoch, dict) and all(
                isinstance(epoch.get(name), (int, float)) for name in FACTS)
            for epoch in history):
        raise ValueError('its history is none')


def _differences(mine, theirs):
    """In which parts a checkpoint's run is another one, in words.

    What a recipe of an older version did not name was as it is by default.
    """
    usual = dataclasses.asdict(Recipe(sizes=sizes))
    theirs = {**{key: usual[key] for key in usual if key in mine}, **theirs}
    return ', '.join(f'{key} {theirs.get(key)!r}, not {mine.get(key)!r}'
                     for key in {**mine, **theirs}
                     if key not in NOTED and theirs.get(key) != mine.get(key))


def describe_run(recipe, seed, source):
    """What someone needs in order to train the same weights again."""
    return {'recipe': dataclasses.asdict(recipe), 'seed': seed,
            'source': source, 'drawing_version': DRAWING_VERSION,
            'torch': torch.__version__, 'machine': platform.machine(),
            'threads': torch.get_num_threads()}
