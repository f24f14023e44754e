"""From the network's numbers to a short list of boxes."""
import torch

from d2lssd.boxes import columns_of, iou_of_columns, offset_inverse

CHUNK = 64  # boxes; from 48 to 128 it hardly matters


def multibox_detection(cls_probs, offset_preds, anchors, nms_threshold=0.5,
                       pos_threshold=0.009999999, per_class=False):
    """Turn predictions into boxes and suppress what is found twice.

    Args:
        cls_probs: float tensor ``(B, C+1, A)``: probability of background and
            of each of C classes, for each anchor.
        offset_preds: float tensor ``(B, 4A)``.
        anchors: float tensor ``(1, A, 4)``, corner format.
        nms_threshold: of two boxes whose IoU is above it, the one with the
            lower score is suppressed.
        pos_threshold: a box with a lower score is background.
        per_class: let boxes suppress only boxes of their own class. As in the
            source's library, the class does not matter unless asked for.

    Returns:
        Float tensor ``(B, A, 6)``, rows ``(class, score, x_min, y_min, x_max,
        y_max)``: first what is kept, by falling score, then the rest with
        class -1.

    Source: SSD, section 3; Dive into Deep Learning, "Anchor Boxes".
    """
    B, _, A = cls_probs.shape
    boxes = offset_inverse(anchors, offset_preds.reshape(B, A, 4))
    score, label = cls_probs[:, 1:].max(1)  # (B, A)
    score, order = score.sort(dim=1, descending=True, stable=True)
    label = label.gather(1, order)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    sure = score >= pos_threshold
    keep = torch.zeros_like(sure)
    # batched_nms would let a far-off box disturb the other images.
    for i in range(B):
        for kind in label[i, sure[i]].unique() if per_class else [None]:
            mine = sure[i] if kind is None else sure[i] & (label[i] == kind)
            a = mine.nonzero()[:, 0]
            keep[i, a[_suppress(boxes[i, a], nms_threshold)]] = True
    label = label.masked_fill(~keep, -1)
    rows = torch.cat([label[..., None], score[..., None], boxes], -1)
    order = keep.sort(dim=1, descending=True, stable=True).indices
    return rows.gather(1, order[..., None].expand(-1, -1, 6))


def nms(boxes, scores, iou_threshold):
    """Non-maximum suppression: keep the best box of each heap.

    By torchvision; of thousands of boxes, on a processor, 64 at a time: they
    are decided among themselves, and all that they suppress is struck before
    the next ones are looked at.

    Args:
        boxes: float tensor ``(n, 4)``, corner format.
        scores: float tensor ``(n,)``.
        iou_threshold: of two boxes whose IoU is above it, the one with the
            lower score is suppressed.

    Returns:
        int64 tensor: the places of the boxes that are kept, by falling score.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    return order[_suppress(boxes[order], iou_threshold)]


def _suppress(boxes, iou_threshold):
    """Which of some boxes, the best first, are kept."""
    from torchvision.ops import nms  # not needed to train, and it is large

    rest = torch.arange(len(boxes), device=boxes.device)
    falling = -rest.to(boxes)
    if boxes.device.type != 'cpu' or len(boxes) <= CHUNK:
        return nms(boxes, falling, iou_threshold)
    columns, kept = columns_of(boxes), []
    while len(rest):
        best, rest = rest[:CHUNK], rest[CHUNK:]
        best = best[nms(boxes[best], falling[best], iou_threshold)]
        kept.append(best)
        iou = iou_of_columns(columns[:, best], columns[:, rest])
        rest = rest[(iou > iou_threshold).any(0).logical_not_()]
    return torch.cat(kept)
