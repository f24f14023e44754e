"""Examinations: a detector before pictures that it has never seen."""
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from d2lssd.anchors import check_labels
from d2lssd.classes import classes_of
from d2lssd.data import BananasDataset
from d2lssd.data.drawing import SIDE
from d2lssd.memory import keep_memory
from d2lssd.metrics import (
    MOST,
    average_precision,
    hits,
    precision_recall_curve,
)
from d2lssd.model import evaluating, fitting, judge_of
from d2lssd.tiles import join_tiles, look, tiles_of_batch

# Drawn validation pictures, in numbers and with seeds of their own.
EXAMS = {
    'one banana': {'style': 'plain', 'num_bananas': 1, 'seed': 101},
    'any size': {'style': 'wild', 'num_bananas': 1, 'seed': 102},
    'one to six': {'style': 'wild', 'num_bananas': (1, 6), 'seed': 103},
    'no banana': {'style': 'wild', 'num_bananas': 0, 'seed': 104},
    # Scattered, every third touches another or lies across it; in the next
    # exam, every second does, for many are put where another lies.
    'scattered': {'style': 'plain', 'num_bananas': (1, 6), 'seed': 107},
    'plain, 1-6': {'style': 'touching', 'num_bananas': (1, 6), 'seed': 105},
    'plain, none': {'style': 'plain', 'num_bananas': 0, 'seed': 106},
    # The same scenes again, but bananas of 24 to 235 pixels.
    'sizes, one': {'style': 'sizes', 'num_bananas': 1, 'seed': 108},
    'sizes, 1-6': {'style': 'sizes', 'num_bananas': (1, 6), 'seed': 109},
}
EXAM_PICTURES = 500


def examine(net, names=tuple(EXAMS), count=EXAM_PICTURES, progress=False,
            tiles=False, voting=False):
    """Put a banana detector through some or all of the `EXAMS`.

    Args:
        net: a `TinySSD`.
        names: of the exams, or one name.
        count: pictures an exam. Those of whole exams, of 500, are
            kept on disk, 98 MB each; others are drawn anew.
        progress: show bars.
        tiles, voting: see `evaluate`.

    Returns:
        dict: what `evaluate` gives, by the exam's name.

    Raises:
        ValueError: unknown name.
    """
    names = [names] if isinstance(names, str) else names
    if unknown := [name for name in names if name not in EXAMS]:
        raise ValueError(f'exam {unknown[0]!r}: known are {", ".join(EXAMS)}')
    results = {}
    for name in names:
        pictures = BananasDataset(False, count=count, progress=progress,
                                  cache=count == EXAM_PICTURES, **EXAMS[name])
        results[name] = evaluate(net, DataLoader(pictures, 50),
                                 progress=progress, tiles=tiles,
                                 voting=voting)
    return results


def detect_all(net, data_iter, progress=False, tiles=False, voting=False):
    """Detections on all pictures, beside their labels.

    Pictures get the size of those that the network learnt from, if it is
    known. As in training, memory is kept (see `keep_memory`): otherwise half
    of the network's time goes into wiping it anew for each minibatch.

    Args:
        net, data_iter, progress, tiles, voting: as for `evaluate`.

    Returns:
        Tuple of two lists with an item for each picture, as
        `average_precision` takes them: detections ``(n_i, 6)``, by falling
        score, from each look 200 at most for each class of the network, and
        labels ``(m, 5)``.

    Raises:
        ValueError: images or labels are none; see `check_labels`.
    """
    keep_memory()
    found, true = [], []
    # Twice what counts, for some may have moved to the same object.
    most = 2 * MOST * net.num_classes
    with evaluating(net):
        for X, Y in tqdm(data_iter, 'evaluating', disable=not progress):
            X = fitting(X, net)
            check_labels(Y)
            rows = look(X, net, voting, most=most)
            if tiles:
                nearer = zip(*(look(part, net, voting, most=most)
                               for part in tiles_of_batch(X)))
                rows = map(join_tiles, rows, nearer)
            found += [row.cpu() for row in rows]
            true += Y
    return found, true


def evaluate(net, data_iter, threshold=0.5, progress=False, tiles=False,
             voting=False):
    """Measure a detector on labelled pictures.

    Args:
        net: a `TinySSD`.
        data_iter: yields images ``(B, 3, h, w)``, 0–255, and labels ``(B, m,
            5)``, as `load_data_bananas` does.
        threshold: score from which on a box counts as a detection.
        progress: show a bar.
        tiles: look at enlarged parts of each picture, too, as `detect` does.
        voting: place each box by `vote_boxes` or, where the network has a
            judge, place and score it by `judge_boxes`, as `detect` does. The
            numbers of `weights_card` are with it.

    Returns:
        dict: the numbers of `average_precision`, by size too, as if
        pictures were 256 pixels wide; at the threshold ``'precision'`` and
        ``'recall_at'`` (IoU 0.5) and ``'false_alarms'``, the number of
        pictures with at least one false detection; beside them
        ``'pictures'`` and ``'objects'``, and for a network of several classes
        ``'by_class'``, the AP of each by its name. What cannot be said, such
        as the AP of large objects where there is none, is None.

    Raises:
        ValueError: there are no pictures, or labels of a class that the
            network does not have.
    """
    found, true = detect_all(net, data_iter, progress, tiles, voting)
    if not true:
        raise ValueError('no pictures to evaluate on')
    names = classes_of(net)
    most = max((int(rows[:, 0].max()) for rows in true if len(rows)),
               default=-1)
    if most >= len(names):
        raise ValueError(f'labels of class {most}, and the network finds '
                         f'{", ".join(names)}, numbered from 0')
    counts = [hits(f, t, threshold) for f, t in zip(found, true)]
    right, false, missed = (sum(c) for c in zip(*counts))
    several = len(names) > 1
    scores = average_precision(found, true, by_class=several, side=SIDE)
    if several:
        by_class = scores['by_class']
        scores['by_class'] = {name: by_class.get(i)
                              for i, name in enumerate(names)}
    return {**_none_for_nan(scores),
            'precision': right / (right + false) if right + false else None,
            'recall_at': right / (right + missed) if right + missed else None,
            'false_alarms': sum(c[1] > 0 for c in counts),
            'pictures': len(true), 'objects': right + missed}


def set_operating_point(net, data_iter, precision, progress=False):
    """Shift the scores until, from 0.5 on, so much of what is found is right.

    Those of the network's judge, if it has one; else those of the anchors:
    the logit of background gets a constant. The order of the scores stays,
    and so do the boxes, up to what `vote_boxes` makes of them and to those
    near the least score that counts.

    Args:
        net: a `TinySSD` of one class, which is changed.
        data_iter: as for `evaluate`; pictures to choose the point on, and not
            those to measure it on.
        precision: least share of right detections, at IoU 0.5.
        progress: show a bar.

    Returns:
        dict: the ``'score'`` that has become 0.5, and the ``'precision'``
        and ``'recall'`` of the boxes from 0.5 on.

    Raises:
        ValueError: so much is right at no score; several classes, whose order
            a shift would change. The network is as it was then.
    """
    if net.num_classes > 1:
        raise ValueError(f'the network finds {net.num_classes} classes; an '
                         'operating point can be set for one')
    right, recall, score = precision_recall_curve(
        *detect_all(net, data_iter, progress, voting=True))
    # Of equal scores only the last counts them all.
    last = torch.ones_like(score, dtype=torch.bool)
    last[:-1] = score[1:] < score[:-1]
    enough = (last & (right >= precision)).nonzero()[:, 0]
    if not len(enough):
        best = float(max(right[last], default=0))
        raise ValueError(f'precision {precision:g}: this network reaches '
                         f'{best:.3f} at most')
    i = enough[-1]
    _shift(net, float(score[i].logit(3e-8)))
    return {'score': float(score[i]), 'precision': float(right[i]),
            'recall': float(recall[i])}


def _shift(net, amount):
    """Lower the log-odds of all scores."""
    with torch.no_grad():
        if judge := judge_of(net):
            judge.decide[-1].bias -= amount
            return
        for scale in range(5):
            bias = getattr(net, f'cls_{scale}').bias
            bias.view(-1, 2)[:, 0] += amount


def _none_for_nan(scores):
    """Scores as JSON has them: None where there is none."""
    return {name: _none_for_nan(value) if isinstance(value, dict)
            else None if value != value else value
            for name, value in scores.items()}
