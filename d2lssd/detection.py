"""From the network's numbers to a short list of boxes."""
import contextlib
import functools
from importlib.util import find_spec
from pathlib import Path

import torch

from d2lssd.boxes import columns_of, iou_of_columns, offset_inverse

CHUNK = 128  # boxes; from 64 on it hardly matters
LEAST = 0.009999999  # the source's
MOVED = 0.65  # IoU above which boxes that one vote each has moved are one


def multibox_detection(cls_probs, offset_preds, anchors, nms_threshold=0.5,
                       pos_threshold=LEAST, per_class=False, most=None):
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
        most: boxes of an image, or of each of its classes, that are kept: no
            more than these best are looked for. None: as many as there are.

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
    room = boxes.new_empty(3, CHUNK, A)
    # batched_nms would let a far-off box disturb the other images.
    for i in range(B):
        for kind in label[i, sure[i]].unique() if per_class else [None]:
            mine = sure[i] if kind is None else sure[i] & (label[i] == kind)
            a = mine.nonzero()[:, 0]
            best = _suppress(boxes[i, a], nms_threshold, room, most)
            keep[i, a[best[:most]]] = True
    label = label.masked_fill(~keep, -1)
    rows = torch.cat([label[..., None], score[..., None], boxes], -1)
    order = keep.sort(dim=1, descending=True, stable=True).indices
    return rows.gather(1, order[..., None].expand(-1, -1, 6))


def find_boxes(net, X, nms_threshold=0.5, pos_threshold=LEAST, most=None):
    """Run a network, and `multibox_detection` on what it gives.

    Args:
        net: a `TinySSD`, in evaluation mode.
        X: float tensor ``(B, 3, h, w)``, 0–255, where the network is.
        nms_threshold, pos_threshold, most: as for `multibox_detection`; a
            `pos_threshold` below 0.01 counts as 0.01.

    Returns:
        Float tensor ``(B, n, 6)``, as `multibox_detection` gives it, without
        anchors that see nothing on any image.
    """
    # As in training: convolutions are faster so.
    X = X.contiguous(memory_format=torch.channels_last)
    anchors, cls_preds, bbox_preds = net(X)
    probs = cls_preds.softmax(-1).transpose(1, 2)  # (B, C+1, A)
    # Of thousands of anchors a few hundred see something that could count.
    some = (probs[:, 1:] >= LEAST).any(1).any(0).nonzero()[:, 0]
    return multibox_detection(
        probs[..., some], bbox_preds.unflatten(1, (-1, 4))[:, some],
        anchors[:, some], nms_threshold, max(pos_threshold, LEAST), most=most)


def vote_boxes(rows, iou_threshold=0.5, least=0.01):
    """Box voting: move each kept box to where all that saw its object see it.

    Dozens of anchor boxes see the same object, each a little beside it, and
    suppression takes the word of one. Their mean is nearer to the truth. A
    box has a vote if it overlaps the kept one enough; the vote weighs the
    square of its score times what its IoU has above the threshold.

    Args:
        rows: float tensor ``(A, 6)``, what `multibox_detection` gives for one
            image.
        iou_threshold: IoU with the kept box above which a box has a vote.
        least: least score of a box that has a vote.

    Returns:
        Float tensor ``(n, 6)``: the rows that were kept, classes and scores as
        they were, the boxes moved.

    Source: Gidaris and Komodakis 2015, section 5, with other weights.
    """
    kept = rows[rows[:, 0] >= 0]
    voters = rows[(rows[:, 1] >= least) & rows.isfinite().all(1)]
    columns, others = columns_of(kept[:, 2:]), columns_of(voters[:, 2:])
    one = torch.ones_like(voters[:, :1])
    weighted = voters[:, 1:2]**2 * torch.cat([voters[:, 2:], one], 1)
    sums = torch.cat([  # (n, 5), a few rows at a time, as `nms` goes
        iou_of_columns(some, others).sub_(iou_threshold).clamp_(min=0)
        @ weighted for some in columns.split(CHUNK, dim=1)])
    total = sums[:, 4:]
    boxes = torch.where(total > 0, sums[:, :4] / total, kept[:, 2:])
    return torch.cat([kept[:, :2], boxes], 1)


def fuse_boxes(rows, voters, iou_threshold=0.5, least=0.01):
    """Box voting with one vote each: what tells a second object from a double.

    Every box votes for the kept one that it overlaps most, and for no other.
    Two objects that overlap have anchors of their own, which vote for each; a
    double has lost its votes to the better box. So a score can be the word of
    several: the mean of the log-odds of the best votes. A missing vote counts
    as one with the least score that has a vote. As in `vote_boxes`, classes
    do not matter: a kept box keeps its own.

    Args:
        rows: float tensor ``(A, 6)``, what `multibox_detection` gives for one
            image.
        voters: how many votes make a score; a judge hears of eight. Where
            objects have many sizes, that may be too many for some: in 'wild'
            they would cost small bananas their scores.
        iou_threshold: IoU with the kept box above which a box has a vote.
        least: least score of a box that has a vote.

    Returns:
        Float tensor ``(n, 6)``: the rows that were kept and have not moved to
        the same place, by falling score.

    Source: weighted boxes fusion (Solovyev et al. 2021) and box voting
    (Gidaris and Komodakis 2015), which weigh and average otherwise.
    """
    kept, others, share = vote_once(rows, MOVED, iou_threshold, least)
    kept[:, 1] = mean_of_votes(share, others, voters, least).sigmoid()
    return kept[kept[:, 1].argsort(descending=True, stable=True)]


def vote_once(rows, same, iou_threshold=0.5, least=0.01):
    """Move kept boxes to the weighted mean of their voters, of one vote each.

    Args:
        rows, iou_threshold, least: as for `fuse_boxes`.
        same: IoU above which of two moved boxes the one with the lower score
            is dropped.

    Returns:
        Tuple of the kept rows ``(n, 6)``, of all rows that may vote
        ``(m, 6)``, and of the IoU ``(n, m)`` of each of these with the box
        that it votes for, now that they have moved; 0 with all others.
    """
    kept = rows[rows[:, 0] >= 0]
    others = rows[(rows[:, 1] >= least) & rows.isfinite().all(1)]
    if not len(kept):
        return kept, others, kept.new_zeros(0, len(others))
    share = _one_vote(kept, others, iou_threshold)
    weight = share.sub(iou_threshold).clamp(min=0) * others[:, 1]**2
    total = weight.sum(1, keepdim=True)
    boxes = torch.where(total > 0, weight @ others[:, 2:] / total,
                        kept[:, 2:])
    kept = torch.cat([kept[:, :2], boxes], 1)
    kept = kept[nms(boxes, kept[:, 1], same)]
    return kept, others, _one_vote(kept, others, iou_threshold)


def mean_of_votes(share, others, voters, least=0.01):
    """Mean log-odds ``(n,)`` of the best votes that `vote_once` gave each
    box, those that are missing counting as `least`."""
    missing = share.new_full((len(share), voters), least)
    votes = torch.where(share > 0, others[:, 1], least)
    return log_odds(torch.cat([votes, missing], 1).topk(voters).values).mean(1)


def log_odds(scores):
    """Logarithm of the odds of scores; those above 1 - 10⁻⁶ count as that."""
    return scores.clamp(max=1 - 1e-6).logit()


def _one_vote(kept, others, iou_threshold):
    """IoU of each other box with the kept one that it overlaps most, if it is
    above the threshold; 0 elsewhere: float tensor ``(n, m)``."""
    iou = iou_of_columns(columns_of(kept[:, 2:]), columns_of(others[:, 2:]))
    iou = iou.nan_to_num(0)
    best, which = iou.max(0)
    chosen = which == torch.arange(len(kept), device=iou.device)[:, None]
    return iou * (chosen & (best > iou_threshold))


def nms(boxes, scores, iou_threshold):
    """Non-maximum suppression: keep the best box of each heap.

    By torchvision; of thousands of boxes, on a processor, 128 at a time: they
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


def _suppress(boxes, iou_threshold, room=None, most=None):
    """Which of some boxes, the best first, are kept, or more than the `most`
    first of them; room as for `iou_of_columns`."""
    nms = _kernel()
    rest = torch.arange(len(boxes), device=boxes.device)
    falling, columns, kept = -rest.to(boxes), columns_of(boxes), []
    columns[:, ~boxes.isfinite().all(1)] = 0  # these suppress nothing
    while boxes.device.type == 'cpu' and len(rest) > 2 * CHUNK:
        best, rest = rest[:CHUNK], rest[CHUNK:]
        best = best[nms(boxes[best], falling[best], iou_threshold)]
        kept.append(best)
        if most is not None and sum(map(len, kept)) >= most:
            return torch.cat(kept)
        # The greatest first: to compare all pairs takes longer than their IoU.
        iou = iou_of_columns(columns[:, best], columns[:, rest], room).amax(0)
        rest = rest[~(iou > iou_threshold)]
    kept.append(rest[nms(boxes[rest], falling[rest], iou_threshold)])
    return torch.cat(kept)


@functools.cache
def _kernel():
    """torchvision's `nms`, from its compiled part alone.

    All of torchvision also imports PyTorch's compiler, which takes seconds."""
    for path in Path(find_spec('torchvision').origin).parent.glob('_C*'):
        with contextlib.suppress(OSError):
            torch.ops.load_library(path)
    with contextlib.suppress(AttributeError):  # no such file, or it has none
        return torch.ops.torchvision.nms
    from torchvision.ops import nms
    return nms
