"""How good is a detector? The source's two numbers, and average precision."""
import torch
from torch.nn import functional as F

from d2lssd.anchors import multibox_target
from d2lssd.boxes import box_iou

MOST = 100  # boxes an image, as in the COCO challenge
SIZES = ('small', 'medium', 'large')  # COCO's, below 32², up to 96², above


def cls_eval(cls_preds, cls_labels):
    """Number of anchors whose class is predicted right.

    Args:
        cls_preds: float tensor ``(B, A, q+1)``, logits.
        cls_labels: int64 tensor ``(B, A)``.

    Returns:
        int, from 0 to B·A.
    """
    return (cls_preds.argmax(dim=-1) == cls_labels).sum().item()


def bbox_eval(bbox_preds, bbox_labels, bbox_masks):
    """Summed absolute error of the offsets of matched anchors.

    Args:
        bbox_preds, bbox_labels, bbox_masks: float tensors ``(B, 4A)``.

    Returns:
        float ≥ 0, in offset units.
    """
    return torch.abs((bbox_labels - bbox_preds) * bbox_masks).sum().item()


def finds_nothing(anchors, labels):
    """Class error and box MAE of a detector that never finds anything.

    It calls every anchor background and predicts zero offsets.

    Args:
        anchors: float tensor ``(1, A, 4)``.
        labels: float tensor ``(B, m, 5)``; see `multibox_target`.

    Returns:
        Tuple of two floats, comparable with what training prints.
    """
    bbox_labels, bbox_masks, cls_labels = multibox_target(anchors, labels)
    error = (cls_labels > 0).float().mean()
    mae = (bbox_labels * bbox_masks).abs().mean()
    return float(error), float(mae)


def match_detections(found, true, iou_threshold=0.5):
    """Find out which detections of one image are right.

    By falling score, each detection takes the true box of its class that it
    overlaps most and that none has taken yet.

    Args:
        found: float tensor ``(n, 6)``, rows ``(class, score, box)``, by
            falling score.
        true: float tensor ``(m, 5)``, rows ``(class, box)``; class -1 pads.
        iou_threshold: least IoU of a right detection.

    Returns:
        int64 tensor ``(n,)``: the row in `true` of each detection's box, or
        -1 for a false detection.

    Source: the COCO detection challenge.
    """
    iou = iou_by_class(found, true)
    match = torch.full((len(found),), -1)
    for i in range(len(found) if len(true) else 0):
        best = iou[i].argmax()
        if iou[i, best] >= iou_threshold:
            match[i] = best
            iou[:, best] = 0
    return match


def iou_by_class(found, true):
    """IoU of each detection with each true box of its class.

    Args:
        found, true: as for `match_detections`, in any order.

    Returns:
        Float tensor ``(n, m)``, 0 where the classes differ.
    """
    iou = box_iou(found[:, 2:], true[:, 1:]).nan_to_num()  # of no area: 0
    other = (found[:, :1] != true[:, 0]) | (true[:, 0] < 0)
    return iou.masked_fill(other, 0)


def hits(found, true, threshold=0.5, iou_threshold=0.5):
    """Count right, false and missed detections of one image.

    Args:
        found, true, iou_threshold: as for `match_detections`.
        threshold: detections with a lower score do not count.

    Returns:
        Tuple of ints: right detections, false ones, missed boxes.
    """
    found = found[(found[:, 0] >= 0) & (found[:, 1] >= threshold)]
    right = int((match_detections(found, true, iou_threshold) >= 0).sum())
    total = int((true[:, 0] >= 0).sum())
    return right, len(found) - right, total - right


def mistakes(found, true, threshold=0.5, iou_threshold=0.5):
    """Sort the mistakes on one image by kind.

    Args:
        found, true, threshold, iou_threshold: as for `hits`.

    Returns:
        dict of tensors: rows of `true` that are ``'missed'``; rows of `found`
        that are ``'doubled'`` (the box has a better detection already),
        ``'badly placed'`` (IoU from 0.1 up to the threshold; the box does
        not count as missed then) or a ``'false alarm'`` (below 0.1).

    Source: TIDE, section 2.2, for one class.
    """
    found = found[(found[:, 0] >= 0) & (found[:, 1] >= threshold)].cpu()
    true = true[true[:, 0] >= 0].cpu()
    match = match_detections(found, true, iou_threshold)
    # A column of zeros, for pictures without any box.
    iou, nearest = F.pad(iou_by_class(found, true), (0, 1)).max(1)
    wrong, placed = match < 0, iou >= iou_threshold
    badly = wrong & (iou >= 0.1) & ~placed
    seen = torch.cat([match, nearest[badly]])
    return {'missed': true[~torch.isin(torch.arange(len(true)), seen)],
            'doubled': found[wrong & placed],
            'badly placed': found[badly],
            'false alarm': found[wrong & (iou < 0.1)]}


def precision_recall_curve(detections, labels, iou_threshold=0.5):
    """Precision and recall as the score threshold falls.

    Args:
        detections, labels: as for `average_precision`; all classes count
            together, and of each image the 100 boxes of highest score.
        iou_threshold: least IoU of a right detection.

    Returns:
        Tuple of float64 tensors ``(n,)``, by falling score: precision, recall
        and score. Point i counts the i+1 detections of highest score. Recall
        is ``nan`` where there is no true box.

    Raises:
        ValueError: the numbers of images differ.
    """
    _check_pairs(detections, labels)
    rows = [torch.empty(0, 2)]
    for found, true in zip(detections, labels):
        found = found[found[:, 0] >= 0]
        found = found[found[:, 1].argsort(descending=True, stable=True)]
        found = found[:MOST].cpu()
        right = match_detections(found, true.cpu(), iou_threshold) >= 0
        rows.append(torch.stack([found[:, 1], right], 1))
    score, right = torch.cat(rows).double().T
    order = score.argsort(descending=True, stable=True)
    right = right[order].cumsum(0)
    total = sum(int((true[:, 0] >= 0).sum()) for true in labels)
    count = torch.arange(1, len(right) + 1)
    return right / count, right / (total or float('nan')), score[order]


def interpolate_precision(precision, recall):
    """Best precision that still reaches each of 101 recalls, 0 to 1.

    Their mean is the average precision at one IoU threshold.

    Args:
        precision, recall: float tensors ``(n,)``; see
            `precision_recall_curve`.

    Returns:
        Float tensor ``(101,)``; 0 at recalls that are not reached.

    Source: the COCO detection challenge.
    """
    best = precision.flip(0).cummax(0).values.flip(0)
    at = torch.searchsorted(recall, torch.linspace(0, 1, 101).to(recall))
    return torch.cat([best, best.new_zeros(1)])[at]


def best_iou(detections, labels):
    """Score of each detection, and its greatest IoU with a true box.

    Args:
        detections, labels: as for `average_precision`.

    Returns:
        Tuple of two float tensors ``(n,)``, the images one after another; the
        IoU is 0 where no box of the class is in the image.

    Raises:
        ValueError: the numbers of images differ.
    """
    _check_pairs(detections, labels)
    detections = [found[found[:, 0] >= 0] for found in detections]
    iou = [F.pad(iou_by_class(found, true), (0, 1)).amax(1)
           for found, true in zip(detections, labels)]
    return torch.cat([found[:, 1] for found in detections]), torch.cat(iou)


def average_precision(detections, labels, by_class=False, side=None):
    """COCO's average precision of detections against true boxes.

    Args:
        detections: one float tensor ``(n_i, 6)`` an image, rows ``(class,
            score, x_min, y_min, x_max, y_max)``; rows of class -1 are passed
            over, as `multibox_detection` pads with them.
        labels: one float tensor ``(m_i, 5)`` an image, or ``(N, m, 5)``, in
            the same unit; class -1 pads.
        by_class: add ``'by_class'``: the AP of each class, a dict.
        side: how many pixels the unit of the boxes is, to add the AP of small
            boxes (below 32² pixels of area), middling and large ones (above
            96²): ``'AP_small'``, ``'AP_medium'``, ``'AP_large'``.

    Returns:
        dict of floats in [0, 1]: ``'AP'`` (mean over IoU 0.50 … 0.95),
        ``'AP50'``, ``'AP75'``, ``'recall'`` (greatest, 100 boxes an image);
        ``nan`` where there is no true box at all.

    Raises:
        ValueError: the numbers of images differ.

    Source: the COCO detection challenge; computed by torchmetrics.
    """
    from torchmetrics.detection import MeanAveragePrecision

    _check_pairs(detections, labels)
    # Of processes that train together, each measures for itself.
    metric = MeanAveragePrecision(class_metrics=by_class,
                                  sync_on_compute=False)
    metric.warn_on_many_detections = False
    for found, true in zip(detections, labels):
        found, true = _best(found), true[true[:, 0] >= 0]
        metric.update(
            [{'boxes': found[:, 2:] * (side or 1), 'scores': found[:, 1],
              'labels': found[:, 0].long()}],
            [{'boxes': true[:, 1:] * (side or 1),
              'labels': true[:, 0].long()}])
    result = metric.compute()
    names = {'AP': 'map', 'AP50': 'map_50', 'AP75': 'map_75',
             'recall': 'mar_100'}
    if side:
        names |= {f'AP_{size}': f'map_{size}' for size in SIZES}
    scores = {name: _or_nan(result[key]) for name, key in names.items()}
    if by_class:
        scores['by_class'] = dict(zip(
            result['classes'].reshape(-1).tolist(),
            map(_or_nan, result['map_per_class'].reshape(-1))))
    return scores


def _best(found):
    """The boxes that count, by class; torchmetrics would sort out the others,
    but only after it has copied each."""
    found = found[found[:, 1].argsort(descending=True, stable=True)]
    return torch.cat([found[found[:, 0] == kind][:MOST]
                      for kind in found[:, 0].unique()
                      if kind >= 0] or [found[:0]])


def _check_pairs(detections, labels):
    if len(detections) != len(labels):
        raise ValueError(f'detections of {len(detections)} images, labels of '
                         f'{len(labels)}')


def _or_nan(score):
    """Make a float of a score, which is -1 where it means nothing."""
    return float(score) if score >= 0 else float('nan')
