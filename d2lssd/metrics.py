"""How good is a detector? The source's two numbers, and average precision."""
import torch

from d2lssd.anchors import multibox_target
from d2lssd.boxes import box_iou


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


def average_precision(detections, labels, by_class=False):
    """COCO's average precision of detections against true boxes.

    Args:
        detections: one float tensor ``(n_i, 6)`` an image, rows ``(class,
            score, x_min, y_min, x_max, y_max)``; rows of class -1 are passed
            over, as `multibox_detection` pads with them.
        labels: one float tensor ``(m_i, 5)`` an image, or ``(N, m, 5)``, in
            the same unit; class -1 pads.
        by_class: add ``'by_class'``: the AP of each class, a dict.

    Returns:
        dict of floats in [0, 1]: ``'AP'`` (mean over IoU 0.50 … 0.95),
        ``'AP50'``, ``'AP75'``, ``'recall'`` (greatest, 100 boxes an image);
        ``nan`` where there is no true box at all.

    Raises:
        ValueError: the numbers of images differ.

    Source: the COCO detection challenge; computed by torchmetrics.
    """
    from torchmetrics.detection import MeanAveragePrecision

    if len(detections) != len(labels):
        raise ValueError(f'detections of {len(detections)} images, labels of '
                         f'{len(labels)}')
    metric = MeanAveragePrecision(class_metrics=by_class)
    metric.warn_on_many_detections = False
    for found, true in zip(detections, labels):
        found, true = found[found[:, 0] >= 0], true[true[:, 0] >= 0]
        metric.update(
            [{'boxes': found[:, 2:], 'scores': found[:, 1],
              'labels': found[:, 0].long()}],
            [{'boxes': true[:, 1:], 'labels': true[:, 0].long()}])
    result = metric.compute()
    names = {'AP': 'map', 'AP50': 'map_50', 'AP75': 'map_75',
             'recall': 'mar_100'}
    scores = {name: _or_nan(result[key]) for name, key in names.items()}
    if by_class:
        scores['by_class'] = dict(zip(
            result['classes'].reshape(-1).tolist(),
            map(_or_nan, result['map_per_class'].reshape(-1))))
    return scores


def _or_nan(score):
    """Make a float of a score, which is -1 where it means nothing."""
    return float(score) if score >= 0 else float('nan')


def hits(found, true, threshold=0.5, iou_threshold=0.5):
    """Count right, false and missed detections of one image.

    By falling score, each detection takes the true box of its class that it
    overlaps most and that none has taken yet.

    Args:
        found: float tensor ``(n, 6)``, rows ``(class, score, box)``, by
            falling score.
        true: float tensor ``(m, 5)``, rows ``(class, box)``; class -1 pads.
        threshold: detections with a lower score do not count.
        iou_threshold: least IoU of a right detection.

    Returns:
        Tuple of ints: right detections, false ones, missed boxes.
    """
    found = found[(found[:, 0] >= 0) & (found[:, 1] >= threshold)]
    true = true[true[:, 0] >= 0]
    iou = box_iou(found[:, 2:], true[:, 1:])
    iou[found[:, :1] != true[:, 0]] = 0
    right = 0
    for row in iou if iou.numel() else ():
        if (best := row.argmax()) >= 0 and row[best] >= iou_threshold:
            iou[:, best] = 0
            right += 1
    return right, len(found) - right, len(true) - right
