"""Slow answers in plain double-precision Python, to hold the fast ones to."""
import math

# Corners that are multiples of 1/16 make every overlap of two boxes exact in
# float32 and float64 alike, ties and thresholds included.
GRID = 16


def iou(a, b):
    """IoU of two boxes in corner format, given as sequences of floats."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (areas - w * h)


def prior(h, w, sizes, ratios):
    """Anchor boxes of an h × w feature map, one at a time."""
    boxes = []
    for i in range(h):
        for j in range(w):
            for s, r in ([(s, ratios[0]) for s in sizes]
                         + [(sizes[0], r) for r in ratios[1:]]):
                cx, cy = (j + 0.5) / w, (i + 0.5) / h
                bw, bh = s * math.sqrt(r) * h / w, s / math.sqrt(r)
                boxes.append([cx - bw / 2, cy - bh / 2,
                              cx + bw / 2, cy + bh / 2])
    return boxes


def match(anchors, rows, threshold=0.5):
    """Row of the box that each anchor of one image is matched with, or -1."""
    true = {j: row[1:] for j, row in enumerate(rows) if row[0] >= 0}
    pairs = sorted((-iou(box, anchor), j, i)
                   for j, box in true.items()
                   for i, anchor in enumerate(anchors))
    found = [-1] * len(anchors)
    for overlap, j, i in pairs:
        if overlap < 0 and found[i] < 0 and j not in found:
            found[i] = j
    for i, anchor in enumerate(anchors):
        if found[i] < 0 and true:
            best = max(true, key=lambda j: iou(true[j], anchor))  # noqa: B023
            if iou(true[best], anchor) >= threshold:
                found[i] = best
    return found


def offsets(anchor, box, eps=1e-6):
    """Offsets of a box, seen from an anchor."""
    aw, ah = anchor[2] - anchor[0], anchor[3] - anchor[1]
    bw, bh = box[2] - box[0], box[3] - box[1]
    return [10 * ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / aw,
            10 * ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / ah,
            5 * math.log(eps + bw / aw), 5 * math.log(eps + bh / ah)]


def nms(boxes, scores, threshold):
    """Indices of the boxes kept, by falling score; of equals the first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def crowded_rows(seed, count, threshold):
    """Random boxes, many of which overlap, as `multibox_detection` gives them,
    float64 tensor ``(count, 6)``; what is kept, loops say, too."""
    import torch
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator).mul(0.5)
    size = 0.2 + 0.3 * torch.rand(count, 2, generator=generator)
    score = torch.rand(count, generator=generator).mul(0.98)
    boxes = torch.cat([corner, corner + size], 1).double()
    score, order = score.double().sort(descending=True)
    boxes, label = boxes[order], -torch.ones(count, 1).double()
    label[nms(boxes.tolist(), score.tolist(), threshold)] = 0
    return torch.cat([label, score[:, None], boxes], 1)


def vote(rows, same, threshold=0.5, least=0.01):
    """Kept rows, each moved to the mean of the boxes that are nearest to it,
    and for each of them its voters: pairs of IoU and row."""
    kept = [list(row) for row in rows if row[0] >= 0]
    others = [row for row in rows if row[1] >= least]

    def votes():
        of = [[] for _ in kept]
        for other in others:
            overlaps = [iou(row[2:], other[2:]) for row in kept]
            best = max(overlaps)
            if best > threshold:
                of[overlaps.index(best)].append((best, other))
        return of

    for row, mine in zip(kept, votes()):
        weights = [(o - threshold) * other[1]**2 for o, other in mine]
        if sum(weights) > 0:
            row[2:] = [sum(w * other[k] for w, (_, other)
                           in zip(weights, mine)) / sum(weights)
                       for k in range(2, 6)]
    kept = [kept[i] for i in nms([row[2:] for row in kept],
                                 [row[1] for row in kept], same)]
    return kept, votes()


def log_odds(p):
    return math.log(p / (1 - p))


def mean_of_votes(votes, voters, least=0.01):
    """Mean log-odds of the best of a box's votes."""
    best = sorted((other[1] for _, other in votes), reverse=True)
    return sum(map(log_odds, (best + [least] * voters)[:voters])) / voters


def fuse(rows, voters, same):
    """Kept rows, each placed and scored by the boxes that are nearest to it,
    by falling score: lists of class, score and four coordinates."""
    kept, votes = vote(rows, same)
    for row, mine in zip(kept, votes):
        row[1] = 1 / (1 + math.exp(-mean_of_votes(mine, voters)))
    return sorted(kept, key=lambda row: -row[1])


def hear(rows, voters, same, near, meet):
    """Kept rows and what a judge is told of each, by falling score of votes:
    lists of six numbers and of 19 more."""
    def area(box):
        return (box[2] - box[0]) * (box[3] - box[1])

    def common(a, b):
        return (max(0, min(a[2], b[2]) - max(a[0], b[0]))
                * max(0, min(a[3], b[3]) - max(a[1], b[1])))

    kept, votes = vote(rows, same)
    kept = sorted(((mean_of_votes(mine, voters), row, mine)
                   for row, mine in zip(kept, votes)), key=lambda x: -x[0])
    told = []
    for i, (score, row, mine) in enumerate(kept):
        box, own = row[2:], log_odds(row[1])
        facts = [own / 5, score / 5]
        everyone = [(iou(box, other[2:]), other) for other in rows
                    if other[1] >= 0.01]
        facts += [math.log1p(sum(other[1] for o, other in some if o > least))
                  for some in (everyone, mine) for least in near]
        facts += [math.sqrt(area(box))]
        surer = [(iou(box, other[2:]), votes / 5, log_odds(other[1]) / 5,
                  math.log(area(box) / area(other[2:])))
                 for votes, other, _ in kept[:i]]
        surer.sort(key=lambda fact: -fact[0])
        facts += surer[0] if surer and surer[0][0] > 0 else [0] * 4
        both = [(common(box, other[2:]), area(other[2:]))
                for _, other, _ in kept[:i]]
        facts += [max((c / area(box) for c, _ in both), default=0),
                  max((c / a for c, a in both), default=0),
                  surer[1][0] if len(surer) > 1 else 0,
                  sum(o > meet for o, *_ in surer)]
        w, h = box[2] - box[0], box[3] - box[1]
        facts += [w / max(w, h), h / max(w, h)]
        told.append([*row, *facts])
    return told


def hits(found, true, threshold, iou_threshold):
    """Right detections, false ones and missed boxes of one image."""
    free = [t for t in true if t[0] >= 0]
    objects, right, false = len(free), 0, 0
    for kind, score, *box in found:
        if kind < 0 or score < threshold:
            continue
        own = [t for t in free if t[0] == kind]
        best = max(own, key=lambda t: iou(box, t[1:]),  # noqa: B023
                   default=None)
        if best is not None and iou(box, best[1:]) >= iou_threshold:
            free.remove(best)
            right += 1
        else:
            false += 1
    return right, false, objects - right


def cross_entropy(logits, label):
    """Cross-entropy of one row of logits, natural logarithm."""
    top = max(logits)
    return (top - logits[label]
            + math.log(sum(math.exp(v - top) for v in logits)))
