"""Anchor boxes: where they stand, and what each of them has to learn."""
import torch
from torch.nn import functional as F

from d2lssd.boxes import (
    columns_of,
    iou_of_columns,
    offset_boxes,
)

FEW = 160  # boxes that are compared with all anchors at once


def multibox_prior(data, sizes, ratios):
    """Centre anchor boxes of several shapes on every unit of a feature map.

    A unit gets each size with the first ratio, then the first size with each
    other ratio. A box of size ``s`` and ratio ``r`` has width ``s·√r·h/w`` and
    height ``s/√r``; boxes that stick out of the image are not clipped.

    Args:
        data: tensor ``(..., h, w)``; only its height, width and device matter.
        sizes: n numbers, relative to the image, in ``(0, 1]`` as a rule.
        ratios: m numbers, width to height, positive.

    Returns:
        Float tensor ``(1, h·w·(n+m-1), 4)``, corner format, relative to the
        image: row by row, unit by unit, shape by shape.

    Raises:
        ValueError: a size or ratio is not positive, or there is none.

    Source: SSD, section 2.2; Dive into Deep Learning, "Anchor Boxes".
    """
    h, w = data.shape[-2:]
    if not (len(sizes) and len(ratios) and min(*sizes, *ratios) > 0):
        raise ValueError(f'sizes {sizes} and ratios {ratios}: at least one '
                         'of each, all positive')
    shapes = ([(s, ratios[0]) for s in sizes]
              + [(sizes[0], r) for r in ratios[1:]])
    half = torch.tensor([(s * r**0.5 * h / w / 2, s / r**0.5 / 2)
                         for s, r in shapes], device=data.device)  # (a, 2)
    x = (torch.arange(w, device=data.device) + 0.5) / w
    y = (torch.arange(h, device=data.device) + 0.5) / h
    center = torch.cartesian_prod(y, x).flip(1)[:, None]  # (h·w, 1, 2)
    boxes = torch.cat([center - half, center + half], -1)  # (h·w, a, 4)
    return boxes.reshape(1, -1, 4)


@torch.no_grad()
def match_anchors(anchors, labels, iou_threshold=0.5):
    """Match anchor boxes with true boxes, for a whole minibatch at once.

    First each true box takes its best free anchor, the pair of greatest IoU
    going first. Then an anchor left over takes the box it overlaps most, if
    their IoU reaches the threshold. Of equals the first counts.

    Args:
        anchors: float tensor ``(A, 4)``, corner format.
        labels: float tensor ``(B, m, 5)``, rows ``(class, box)``; class -1
            pads and matches nothing. m may be 0.
        iou_threshold: the least IoU at which a left-over anchor is matched.

    Returns:
        int64 tensor ``(B, A)``: the row in `labels` of each anchor's box, or
        -1 for background.

    Source: SSD, section 2.2, "Matching strategy".
    """
    B, m, A = *labels.shape[:2], len(anchors)
    if m == 0:
        return torch.full((B, A), -1, device=labels.device)
    boxes = labels[..., 1:].masked_fill(labels[..., :1] < 0, 0)
    columns = columns_of(anchors)
    match, best, place = _best_pairs(boxes, columns, iou_threshold)
    # Each box asks for its best anchor; of those that ask for the same one
    # the best keeps it, and the others ask for their next best.
    first = torch.ones(m, m, device=boxes.device).tril(-1).bool()
    refused = []
    while m > 1:
        mine, theirs = best[:, :, None], best[:, None]  # (B, m, m)
        beaten = (theirs > mine) | (theirs == mine) & first
        same = place[:, :, None] == place[:, None]
        lost = (beaten & same).any(2) & (best > 0)
        if not lost.any():
            break
        refused.append(lost * (place + 1) - 1)  # (B, m), -1 for none
        iou = iou_of_columns(columns_of(boxes[lost]), columns)
        for places in refused:
            struck = places[lost]
            iou[struck >= 0, struck[struck >= 0]] = 0
        best[lost], place[lost] = _greatest(iou)
    taken = torch.where(best > 0, place, A)
    box = torch.arange(m, device=boxes.device).expand(B, m)
    return F.pad(match, (0, 1)).scatter(1, taken, box)[:, :A]


def _best_pairs(boxes, columns, iou_threshold):
    """For each anchor the box it overlaps most, if that is enough, or -1; and
    for each box its greatest IoU, and the first anchor that has it.

    On a processor a few images at a time, so that their pairs stay in its
    cache, and without a look at pairs that do not overlap enough; to ask which
    those are would make a training loop wait for a GPU once more.
    """
    B, m, A = *boxes.shape[:2], columns.shape[1]
    on_cpu = boxes.device.type == 'cpu'
    few = max(1, FEW // m) if on_cpu else B
    room = boxes.new_empty(3, few * m, A)
    result = []
    for some in boxes.split(few):
        iou = iou_of_columns(columns_of(some.flatten(0, 1)), columns, room)
        iou = iou.reshape(-1, m, A)
        if on_cpu:
            match = torch.full((len(some), A), -1)
            i, a = (iou.amax(1) >= iou_threshold).nonzero(as_tuple=True)
            match[i, a] = iou[i, :, a].argmax(1)
        else:
            best, match = iou.max(1)
            match.masked_fill_(best < iou_threshold, -1)
        result.append((match, *_greatest(iou)))
    return [torch.cat(parts) for parts in zip(*result)]


def _greatest(iou):
    """Greatest IoU of each box, and the first anchor that has it."""
    if iou.device.type != 'cpu' or iou.dtype == torch.bfloat16:
        return iou.max(-1)
    # NumPy finds it ten times as fast.
    place = torch.from_numpy(iou.numpy().argmax(-1))
    return iou.gather(-1, place[..., None])[..., 0], place


def multibox_target(anchors, labels):
    """Label every anchor box of a minibatch: its class and its offsets.

    Args:
        anchors: float tensor ``(1, A, 4)``, corner format.
        labels: float tensor ``(B, m, 5)``, rows ``(class, x_min, y_min, x_max,
            y_max)``; class -1 pads. m may be 0: then all is background.

    Returns:
        Tuple of float tensors ``bbox_offset`` and ``bbox_mask``, each
        ``(B, 4A)``, and the int64 tensor ``class_labels`` ``(B, A)``: 0 for
        background, else the class plus one. The mask is 1 at the four offsets
        of a matched anchor; offsets are 0 where it is 0.

    Raises:
        ValueError: a label is malformed; see `check_labels`.

    Source: SSD, section 2.2.
    """
    check_labels(labels)
    labels = labels.to(anchors.dtype)
    if labels.shape[1] == 0:
        labels = F.pad(labels, (0, 0, 0, 1), value=-1)
    match = match_anchors(anchors[0], labels)  # (B, A)
    if match.device.type == 'cpu':
        i, a = (match >= 0).nonzero(as_tuple=True)
        rows = labels[i, match[i, a]]
        class_labels = torch.zeros_like(match)
        class_labels[i, a] = rows[:, 0].long() + 1
        bbox_offset, bbox_mask = labels.new_zeros(2, *match.shape, 4)
        bbox_offset[i, a] = offset_boxes(anchors[0, a], rows[:, 1:])
        bbox_mask[i, a] = 1
    else:  # all anchors, so that the loop need not wait to know which
        matched = (match >= 0)[..., None]  # (B, A, 1)
        rows = labels.gather(1, match.clamp(0)[..., None].expand(-1, -1, 5))
        class_labels = torch.where(matched[..., 0], rows[..., 0].long() + 1, 0)
        bbox_offset = torch.where(
            matched, offset_boxes(anchors, rows[..., 1:]), 0)
        bbox_mask = matched.expand(-1, -1, 4).to(anchors.dtype)
    return bbox_offset.flatten(1), bbox_mask.flatten(1), class_labels


def object_weights(anchors, labels, power, ignored=None):
    """Weigh matched anchors so that small and slender objects count too.

    Dozens of anchors match an object of their own size and shape, and one to
    four match most others; a sum over anchors hardly sees those.

    Args:
        anchors, labels: as for `multibox_target`.
        power: an anchor weighs ``n**-power``, if n anchors match its object:
            0 makes all anchors equal, 1 all objects.
        ignored: background anchors weigh nothing whose IoU with one object
            is at least this, and with no second one; None for all to weigh 1.
            Those between two stay background, for a box there is a mistake.

    Returns:
        Float tensor ``(B, A)``: 1 on the average of matched anchors, and 1 for
        background, or 0 where it is ignored.

    Source: Faster R-CNN, section 3.1.2, for anchors that are neither.
    """
    match = match_anchors(anchors[0], labels)  # (B, A)
    matched = match >= 0
    same = match.new_zeros(len(match), labels.shape[1] + 1)
    same.scatter_add_(1, match + 1, torch.ones_like(match))
    weights = same.gather(1, match + 1).float() ** -power
    scale = (weights * matched).sum() / matched.sum()
    near = torch.zeros_like(match)  # how many objects
    if ignored is not None:
        columns = columns_of(anchors[0])
        boxes = labels[..., 1:].masked_fill(labels[..., :1] < 0, 0)
        for some in boxes.unbind(1):  # one of each image
            near += iou_of_columns(columns_of(some), columns) >= ignored
    return torch.where(matched, weights / scale, (near != 1).float())


def check_labels(labels, num_classes=None):
    """Refuse labels that no image can have.

    Labels on an accelerator are taken as they are: to look at them would make
    the training loop wait.

    Args:
        labels: tensor ``(B, m, 5)``, rows ``(class, box)``, corner format,
            relative to the image; class -1 pads.
        num_classes: if given, the classes are ``0 … num_classes-1``.

    Raises:
        ValueError: the shape is wrong, a class is no class, or a box has its
            corners swapped, is not finite or lies outside the image. It names
            the image, the row and the value.
    """
    if labels.ndim != 3 or labels.shape[2] != 5:
        raise ValueError(f'labels of shape {tuple(labels.shape)}: expected '
                         '(batch, boxes an image, 5), rows class and box')
    if labels.device.type != 'cpu' or not labels.numel():
        return
    kind, box = labels[..., 0], labels[..., 1:]
    real = kind != -1
    top = float('inf') if num_classes is None else num_classes
    faults = (
        (~labels.isfinite().all(-1), 'not all finite numbers'),
        ((kind < 0) | (kind >= top) | (kind != kind.floor()),
         'class {0:g} is not a whole number '
         + (f'below {num_classes}' if num_classes else 'from 0 up')
         + ', nor the padding -1'),
        (box[..., 0] > box[..., 2], 'x_min {1:g} is right of x_max {3:g}'),
        (box[..., 1] > box[..., 3], 'y_min {2:g} is below y_max {4:g}'),
        ((box < -0.01).any(-1) | (box > 1.01).any(-1),
         'box outside [0, 1]: it is relative to the image, not in pixels'))
    for wrong, text in faults:
        if (wrong := wrong & real).any():
            i, j = wrong.nonzero()[0].tolist()
            row = labels[i, j].tolist()
            raise ValueError(f'labels[{i}, {j}] = '
                             f'{[round(v, 4) for v in row]}: '
                             + text.format(*row))
