"""Examinations: a detector before pictures that it has never seen."""
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from d2lssd.data import BananasDataset
from d2lssd.detection import multibox_detection
from d2lssd.metrics import average_precision, hits
from d2lssd.model import evaluating

# Drawn validation pictures, in numbers and with seeds of their own.
EXAMS = {
    'one banana': {'style': 'plain', 'num_bananas': 1, 'seed': 101},
    'any size': {'style': 'wild', 'num_bananas': 1, 'seed': 102},
    'one to six': {'style': 'wild', 'num_bananas': (1, 6), 'seed': 103},
    'no banana': {'style': 'wild', 'num_bananas': 0, 'seed': 104},
}
EXAM_PICTURES = 500


def examine(net, names=tuple(EXAMS), count=EXAM_PICTURES, progress=False):
    """Put a banana detector through some or all of the `EXAMS`.

    Args:
        net: a `TinySSD`.
        names: of the exams.
        count: pictures an exam.
        progress: show bars.

    Returns:
        dict: what `evaluate` gives, by the exam's name.
    """
    results = {}
    for name in names:
        pictures = BananasDataset(False, count=count, progress=progress,
                                  **EXAMS[name])
        results[name] = evaluate(net, DataLoader(pictures, 50),
                                 progress=progress)
    return results


def evaluate(net, data_iter, threshold=0.5, progress=False):
    """Measure a detector on labelled pictures.

    Args:
        net: a `TinySSD`.
        data_iter: yields images ``(B, 3, h, w)``, 0–255, and labels ``(B, m,
            5)``, as `load_data_bananas` does.
        threshold: score from which on a box counts as a detection.
        progress: show a bar.

    Returns:
        dict: the numbers of `average_precision`, and at the threshold
        ``'precision'`` and ``'recall_at'`` (IoU 0.5) and ``'false_alarms'``,
        the number of pictures with at least one false detection; beside them
        ``'pictures'`` and ``'objects'``.

    Raises:
        ValueError: there are no pictures.
    """
    found, true, counts = [], [], []
    device = next(net.parameters()).device
    with evaluating(net):
        for X, Y in tqdm(data_iter, 'evaluating', disable=not progress):
            anchors, cls_preds, bbox_preds = net(X.to(device))
            found += multibox_detection(
                cls_preds.softmax(-1).transpose(1, 2), bbox_preds,
                anchors).cpu()
            true += Y
    if not true:
        raise ValueError('no pictures to evaluate on')
    found = [rows[rows[:, 0] >= 0] for rows in found]
    counts = [hits(f, t, threshold) for f, t in zip(found, true)]
    right, false, missed = (sum(c) for c in zip(*counts))
    return {**average_precision(found, true),
            'precision': right / (right + false) if right + false else None,
            'recall_at': right / (right + missed) if right + missed else None,
            'false_alarms': sum(c[1] > 0 for c in counts),
            'pictures': len(true), 'objects': right + missed}
