"""Small objects: a second look, from nearer, at nine parts of the picture.

A detector that sees a picture as 256×256 pixels cannot tell a banana of 16.
Cut into overlapping parts of half its width, each enlarged to 256×256, the
same picture shows the same banana twice as large. The idea is old; Akyon,
Altinuc and Temizel, "Slicing Aided Hyper Inference" (2022), measure it.
"""
import torch
from torch.nn import functional as F

from d2lssd.boxes import box_iou, share_inside
from d2lssd.detection import LEAST, find_boxes, nms, vote_boxes
from d2lssd.judge import DOUBTED, HEARD, LENIENT, judge_boxes
from d2lssd.model import judge_of

SHARE = 0.5  # of the picture's width and height
CORNERS = [(x / 4, y / 4) for y in range(3) for x in range(3)]

EDGE = 0.02  # of a tile: what comes nearer to a cut is cut itself
LONGEST = 0.45  # of a tile: the whole picture shows longer ones well enough
SURE = 0.8  # least score: nine parts are nine more chances to be wrong
INSIDE = 0.7  # share of its area that makes a box a part of another
SAME = 0.6  # IoU above which boxes that voting has moved are one


def look(X, net, voting=False, least=LEAST, most=None):
    """What one look at some images finds.

    Args:
        X: float tensor ``(B, 3, h, w)``, 0–255, where the network is.
        net: a `TinySSD`, in evaluation mode.
        voting: place the boxes by `vote_boxes`, and suppress those that meet
            on their way; or, if the network has a judge, place and score them
            by `judge_boxes`.
        least: score of a box that counts, 0.01 at least; the others still
            have a vote. Without a judge, it is done the sooner, the fewer
            there are.
        most: boxes an image, the best by the scores of their own anchors;
            None: all that count. A judge hears of 100 at most, and of none
            below 0.02.

    Returns:
        List of B float tensors ``(n_i, 6)``, rows ``(class, score, x_min,
        y_min, x_max, y_max)``, by falling score.
    """
    if voting and judge_of(net):  # which changes the scores
        found = find_boxes(net, X, LENIENT, DOUBTED, HEARD)
        judged = (judge_boxes(rows, net, x) for rows, x in zip(found, X))
        return [rows[rows[:, 1] >= max(least, LEAST)] for rows in judged]
    found = find_boxes(net, X, pos_threshold=least, most=most)
    if not voting:
        return [rows[rows[:, 0] >= 0] for rows in found]
    # Two boxes may have moved to the same object.
    voted = map(vote_boxes, found)
    return [rows[nms(rows[:, 2:], rows[:, 1], SAME)] for rows in voted]


def boxes_of_tiles(w, h):
    """The nine parts of a picture, ``(x_min, y_min, x_max, y_max)`` each."""
    return [(x * w, y * h, (x + SHARE) * w, (y + SHARE) * h)
            for x, y in CORNERS]


def tiles_of_batch(X):
    """Cut images ``(B, 3, h, w)``, sides multiples of 4, into nine parts,
    each enlarged to the same shape."""
    return [F.interpolate(X[:, :, int(top):int(bottom), int(left):int(right)],
                          size=X.shape[2:], mode='bilinear')
            for left, top, right, bottom in boxes_of_tiles(*X.shape[:1:-1])]


def join_tiles(rows, tile_rows, nms_threshold=0.5):
    """Add to what was found on a picture what its parts alone show.

    Args:
        rows: float tensor ``(n, 6)``, rows ``(class, score, x_min, y_min,
            x_max, y_max)``, relative to the picture. Among themselves they
            stay as they are.
        tile_rows: nine such tensors, relative to the tiles.
        nms_threshold: IoU above which of two boxes, at least one of them from
            a tile, the one with the lower score is suppressed.

    Returns:
        Float tensor ``(N, 6)``, relative to the picture, by falling score.
    """
    found = []
    for (x, y), tile in zip(CORNERS, tile_rows, strict=True):
        box = tile[:, 2:]
        cut = ((box[:, 0] < EDGE) & (x > 0) | (box[:, 1] < EDGE) & (y > 0)
               | (box[:, 2] > 1 - EDGE) & (x + SHARE < 1)
               | (box[:, 3] > 1 - EDGE) & (y + SHARE < 1))
        long = (box[:, 2:] - box[:, :2]).amax(1) > LONGEST
        tile = tile[~cut & ~long & (tile[:, 1] >= SURE)].clone()
        tile[:, 2:] = tile[:, 2:] * SHARE + tile.new_tensor([x, y, x, y])
        found.append(tile)
    found = torch.cat(found)
    found = found[~_seen(found[:, 2:], rows[rows[:, 1] >= SURE, 2:])]
    found = found[nms(found[:, 2:], found[:, 1], nms_threshold)]
    # Boxes of one look have been suppressed, and may touch more than that.
    meet = box_iou(found[:, 2:], rows[:, 2:]) > nms_threshold  # (t, n)
    better = found[:, 1:2] > rows[:, 1]
    stay = ~(meet & ~better).any(1)
    rows = torch.cat([rows[~(meet & better)[stay].any(0)], found[stay]])
    return rows[rows[:, 1].argsort(descending=True, stable=True)]


def _seen(boxes, others):
    """Which boxes are one of the others, or a part of one."""
    inside = share_inside(boxes, others) > INSIDE
    return (inside | (box_iou(boxes, others) > 0.5)).any(1)
