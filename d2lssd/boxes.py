"""Boxes: two ways to write one down, how much two overlap, and offsets."""
import torch


def box_corner_to_center(boxes):
    """Rewrite boxes from two corners to centre, width and height.

    Args:
        boxes: float tensor ``(..., 4)``, rows
            ``(x_min, y_min, x_max, y_max)``.

    Returns:
        Float tensor ``(..., 4)``, rows ``(x_center, y_center, width, height)``
        in the same unit.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1)


def box_center_to_corner(boxes):
    """Rewrite boxes from centre, width and height to two corners.

    Args:
        boxes: float tensor ``(..., 4)``, rows
            ``(x_center, y_center, width, height)``.

    Returns:
        Float tensor ``(..., 4)``, rows ``(x_min, y_min, x_max, y_max)`` in the
        same unit.
    """
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)


def box_iou(boxes1, boxes2):
    """Intersection over union of every pair of boxes.

    What torchvision's function of this name gives, bit for bit in single and
    double precision, several times as fast on a processor: each coordinate by
    itself, which it does many at a time, and a few boxes at a time, so that
    all in between stays in its cache.

    Args:
        boxes1: float tensor ``(n, 4)``, corner format.
        boxes2: float tensor ``(m, 4)``, corner format; best the longer one.

    Returns:
        Float tensor ``(n, m)``, 0–1; ``nan`` for two boxes without area.
    """
    x1, y1, x2, y2 = boxes2.t().contiguous()
    area = (x2 - x1) * (y2 - y1)
    rows = []
    for some in boxes1.split(32):
        left, top, right, bottom = some[:, :, None].unbind(1)  # (32, 1)
        w = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp(min=0)
        h = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp(min=0)
        both = w * h
        rows.append(both / (area + (right - left) * (bottom - top) - both))
    return torch.cat(rows)


def share_inside(boxes1, boxes2):
    """How much of a box lies in another, for every pair of boxes.

    Args:
        boxes1: float tensor ``(n, 4)``, corner format.
        boxes2: float tensor ``(m, 4)``.

    Returns:
        Float tensor ``(n, m)``, 0–1: the common area as a share of that of
        the first; ``nan`` where this has none.
    """
    start = torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    end = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    area = (boxes1[:, 2:] - boxes1[:, :2]).prod(1)
    return (end - start).clamp(min=0).prod(2) / area[:, None]


def columns_of(boxes):
    """Boxes as `iou_of_columns` wants them.

    Args:
        boxes: float tensor ``(n, 4)``, corner format.

    Returns:
        Float tensor ``(5, n)``: x_min, y_min, x_max, y_max and the area.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])


@torch.no_grad()
def iou_of_columns(columns1, columns2, room=None):
    """What `box_iou` gives, of a few boxes and without a gradient.

    Args:
        columns1: float tensor ``(5, n)`` of `columns_of`; n times m should be
            so small that the result stays in the processor's cache.
        columns2: float tensor ``(5, m)``.
        room: where to compute, a tensor ``(3, n or more, m or more)``; new
            memory is slower than all the sums.

    Returns:
        Float tensor ``(n, m)``, 0–1, a part of `room`; ``nan`` for two boxes
        without area.
    """
    n, m = columns1.shape[1], columns2.shape[1]
    room = columns1.new_empty(3, n, m) if room is None else room
    both, h, other = room[:, :n, :m]
    left, top, right, bottom, area = columns1[..., None]
    x1, y1, x2, y2, area2 = columns2
    torch.minimum(right, x2, out=both).sub_(torch.maximum(left, x1, out=other))
    torch.minimum(bottom, y2, out=h).sub_(torch.maximum(top, y1, out=other))
    both.clamp_(min=0).mul_(h.clamp_(min=0))
    return both.div_(torch.add(area, area2, out=h).sub_(both))


def offset_boxes(anchors, assigned_bb, eps=1e-6):
    """Say where true boxes lie, seen from the anchor boxes matched to them.

    Centre differences are divided by the anchor's size and multiplied by 10;
    of the size ratios the logarithm is taken and multiplied by 5, so that
    typical offsets have a spread near one (SSD, section 2.2).

    Args:
        anchors: float tensor ``(..., 4)``, corner format.
        assigned_bb: float tensor that broadcasts against it: the true box of
            each anchor.
        eps: keeps the logarithm finite for a box without area.

    Returns:
        Float tensor ``(..., 4)``, rows ``(dx, dy, dw, dh)``, without unit.
    """
    anchor = box_corner_to_center(anchors)
    box = box_corner_to_center(assigned_bb)
    xy = 10 * (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    wh = 5 * torch.log(eps + box[..., 2:] / anchor[..., 2:])
    return torch.cat([xy, wh], -1)


def offset_inverse(anchors, offset_preds):
    """Apply predicted offsets to anchor boxes: `offset_boxes` undone.

    Args:
        anchors: float tensor ``(..., 4)``, corner format.
        offset_preds: float tensor that broadcasts against it, rows
            ``(dx, dy, dw, dh)``.

    Returns:
        Float tensor ``(..., 4)``: the predicted boxes, corner format.
    """
    anchor = box_corner_to_center(anchors)
    xy = offset_preds[..., :2] * anchor[..., 2:] / 10 + anchor[..., :2]
    wh = torch.exp(offset_preds[..., 2:] / 5) * anchor[..., 2:]
    return box_center_to_corner(torch.cat([xy, wh], -1))
