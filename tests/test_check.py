"""The checks of the exercises: what passes, what does not, and what is said.
"""
import inspect
import json
import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import d2lssd
from d2lssd import check
from d2lssd.check import core

# The source's listing makes tensors of tensors.
pytestmark = pytest.mark.filterwarnings('ignore:Converting a tensor')

VALUES = [name for name in check.__all__
          if isinstance(getattr(check, name), core.Value)]
CODES = [name for name in check.__all__
         if isinstance(getattr(check, name), core.Code)]


def missed(name, answer):
    """What a check says of a wrong answer, in one line."""
    with pytest.raises(check.Miss) as caught:
        getattr(check, name)(answer)
    return ' '.join(str(caught.value).split())


# Right answers, written another way than the checks' own.

def right_iou(boxes1, boxes2):
    a, b = boxes1[:, None], boxes2[None]
    side = F.relu(torch.minimum(a[..., 2:], b[..., 2:])
                  - torch.maximum(a[..., :2], b[..., :2]))
    shared = side[..., 0] * side[..., 1]
    area = [(x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)]
    return shared / (area[0] + area[1] - shared)


def right_mirror(images, labels):
    turn = torch.tensor([0., 1, 1, 1, 1], device=labels.device)
    turned = labels[..., [0, 3, 2, 1, 4]]
    sign = turn.new_tensor([1., -1, 1, -1, 1]).to(labels)
    turned = turned * sign + sign.lt(0).to(labels)
    return (torch.flip(images, [3]),
            torch.where((labels[..., 0] == -1)[..., None], labels, turned))


def right_mirror_by_mask(images, labels):
    labels = labels.clone()
    real = labels[..., 0] != -1
    boxes = labels[real]
    labels[real] = torch.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2],
                                1 - boxes[:, 1], boxes[:, 4]], 1)
    return images[..., torch.arange(images.shape[-1] - 1, -1, -1)], labels


def right_counts(labels, num_classes):
    kinds = torch.arange(num_classes, device=labels.device)
    return (labels[..., 0].reshape(-1, 1) == kinds).sum(0)


def right_logit_map(pred, i, j, num_classes):
    B, _, h, w = pred.shape
    a = pred.shape[1] // (num_classes + 1)
    return pred.reshape(B, a, num_classes + 1, h, w)[:, i, j]


def right_place(row, shapes, num_anchors):
    places = [(s, y, x, i) for s, (h, w) in enumerate(shapes) for y, x, i in
              product(range(h), range(w), range(num_anchors))]
    if not 0 <= row < len(places):
        raise ValueError(f'no row {row}')
    return places[row]


class RightBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, padding=1)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1, stride=2)
        self.norm1, self.norm2 = nn.BatchNorm2d(b), nn.BatchNorm2d(b)

    def forward(self, X):
        Y = self.norm1(self.conv1(X)).relu()
        return self.norm2(self.conv2(Y)).relu()


def right_smooth_l1(data, scalar):
    size = data.abs()
    low = size.clamp(max=1 / scalar**2)
    return (scalar * low)**2 / 2 + (size - low)


@torch.no_grad()
def right_predict_batch(X, net):
    modes = {m: m.training for m in net.modules()}
    net.eval()
    anchors, cls_preds, bbox_preds = net(X)
    for m, training in modes.items():
        m.training = training
    output = d2lssd.multibox_detection(
        cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors)
    return tuple(rows[rows[:, 0] != -1] for rows in output)


def right_focal(cls_preds, cls_labels, gamma):
    ce = F.cross_entropy(cls_preds.movedim(-1, 1), cls_labels,
                         reduction='none')
    return (1 - torch.exp(-ce))**gamma * ce


def right_threshold(scores, right, least):
    at = scores.sort().values
    shown = scores >= at[:, None]  # (n, n)
    good = (shown & right).sum(1) >= least * shown.sum(1)
    return at.where(good, torch.inf).amin() if len(at) else torch.inf


def right_threshold_in_python(scores, right, least):
    shown, best = [], float('inf')
    pairs = sorted(zip(scores.tolist(), right.tolist()), reverse=True)
    for i, (score, hit) in enumerate(pairs):
        shown.append(hit)
        last = i + 1 == len(pairs) or pairs[i + 1][0] < score
        if last and sum(shown) >= least * len(shown):
            best = score
    return best


def right_nms_by_chunks(boxes, scores, threshold, chunk):
    from torchvision.ops import box_iou, nms
    kept = torch.zeros(0, dtype=torch.int64)
    for best in scores.argsort(descending=True).split(chunk):
        if len(best):
            iou = box_iou(boxes[kept], boxes[best])
            best = best[~(iou > threshold).any(0)]
            kept = torch.cat([kept, best[nms(boxes[best], scores[best],
                                             threshold)]])
    return kept


def right_corners(boxes, width, height):
    x, y, w, h = boxes.unbind(1)
    x1, x2 = (v.clamp(0, width) / width for v in (x, x + w))
    y1, y2 = (v.clamp(0, height) / height for v in (y, y + h))
    keep = (x2 > x1) & (y2 > y1)
    return torch.stack([x1, y1, x2, y2], 1)[keep], keep


RIGHT = {
    'pairwise_iou': [right_iou, d2lssd.box_iou],
    'mirror': [right_mirror, right_mirror_by_mask],
    'class_counts': [right_counts],
    'logit_map': [right_logit_map],
    'place_of_row': [right_place],
    'strided_blk': [RightBlock, lambda a, b: conv_twice(a, b, bias=False)],
    'smooth_l1': [right_smooth_l1, d2lssd.smooth_l1],
    'predict_batch': [right_predict_batch],
    'focal_loss_of_logits': [right_focal],
    'lowest_threshold': [right_threshold, right_threshold_in_python],
    'nms_by_chunks': [right_nms_by_chunks],
    'to_corners': [right_corners],
    'ap_by_hand': [0.441, torch.tensor(0.44130)],
    'two_gains': [2.25, 2.247, np.float64(2.2472)],
    'how_many_pictures': [450, 450., torch.tensor(450),
                          int(0.9 * (1 - 0.9) * (2 / 0.02)**2 / 2)],
    'matching_by_hand': [[1, 1, 0, -1, 2], torch.tensor([1, 1, 0, -1, 2]),
                         (1, 1, 0, -1, 2)],
    'smallest_match': [67, 66.98, 0.37 * 256 / 2**0.5],
    'predictor_cost': [518900, torch.tensor(518900)],
    'row_of_anchor': [4454, np.int64(4454), 4454.],
    'receptive_field': [22, np.float32(22)],
    'class_loss': [0.032, torch.tensor(0.03199)],
    'nms_by_hand': [[1, 5, 2, 0], np.array([1, 5, 2, 0])],
    'sigma_for_a_pixel': [1.6, torch.tensor(1.6)],
}


# Wrong ones, as students write them, each with words that it must meet.

def loop_smooth_l1(data, scalar):  # the listing of the source
    out = []
    for i in data:
        if abs(i) < 1 / (scalar ** 2):
            out.append(((scalar * i) ** 2) / 2)
        else:
            out.append(abs(i) - 0.5 / (scalar ** 2))
    return torch.tensor(out)


def stacked_smooth_l1(data, scalar):
    out = [(scalar * x)**2 / 2 if x.abs() < 1 / scalar**2
           else x.abs() - 0.5 / scalar**2 for x in data.reshape(-1)]
    return (torch.stack(out) if out else data.clone()).reshape(data.shape)


def masked_in_place(data, scalar):
    small = data.abs() < 1 / scalar**2
    result = data.abs() - 0.5 / scalar**2
    data[small] = (scalar * data[small])**2 / 2
    return torch.where(small, data, result)


def overwritten_smooth_l1(data, scalar):
    far = data.abs()
    near = far**2
    far -= 0.5 / scalar**2
    return torch.where(data.abs() < 1 / scalar**2, scalar**2 * near / 2, far)


def cpu_smooth_l1(data, scalar):
    edge = torch.tensor([1 / scalar**2], dtype=data.dtype)
    return torch.where(data.abs() < edge, (scalar * data)**2 / 2,
                       data.abs() - edge / 2)


def nan_smooth_l1(data, scalar):
    # The square root has no finite slope at 0, taken or not.
    size = (data**2).sqrt()
    return torch.where(size < 1 / scalar**2, (scalar * data)**2 / 2,
                       size - 0.5 / scalar**2)


def one_pair_at_a_time(boxes1, boxes2):
    rows = [torch.cat([right_iou(a[None], b[None])[0] for b in boxes2])
            for a in boxes1] if len(boxes1) and len(boxes2) else []
    return torch.stack(rows) if rows else boxes1.new_zeros(
        len(boxes1), len(boxes2))


def iou_with(epsilon, boxes1, boxes2):
    iou = right_iou(boxes1, boxes2)
    area = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes1, boxes2)]
    union = (area[0][:, None] + area[1]) / (1 + iou)
    return iou * union / (union + epsilon)


def square_iou(boxes1, boxes2):
    side = (torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
            - torch.maximum(boxes1[:, None, :2], boxes2[:, :2]))
    shared = side.prod(2)
    area = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes1, boxes2)]
    return shared / (area[0][:, None] + area[1] - shared)


def mirrored_in_place(images, labels):
    real = labels[..., 0] >= 0
    left = labels[..., 1].clone()
    labels[..., 1] = torch.where(real, 1 - labels[..., 3], left)
    labels[..., 3] = torch.where(real, 1 - left, labels[..., 3])
    return images.flip(-1), labels


def padding_as_box(images, labels):
    x1, x2 = 1 - labels[..., 3], 1 - labels[..., 1]
    return images.flip(-1), torch.stack(
        [labels[..., 0], x1, labels[..., 2], x2, labels[..., 4]], -1)


def swapped_place(row, shapes, num_anchors):
    scale, y, x, i = right_place(row, shapes, num_anchors)
    return scale, x, y, i


def unguarded_place(row, shapes, num_anchors):
    for scale, (h, w) in enumerate(shapes):
        if row >= h * w * num_anchors:
            row -= h * w * num_anchors
            continue
        unit, i = divmod(row, num_anchors)
        return scale, *divmod(unit, w), i
    raise ValueError(row)


def unbounded_place(row, shapes, num_anchors):
    scale = 0
    while row >= 0:  # never ends for a row of the first scale
        h, w = shapes[scale]
        if row >= h * w * num_anchors:
            row -= h * w * num_anchors
            scale += 1
    return scale, 0, 0, 0


def conv_twice(a, b, stride=(1, 2), pool=False, bias=True):
    blk = [nn.Conv2d(a, b, 3, stride[0], 1, bias=bias), nn.BatchNorm2d(b),
           nn.ReLU(), nn.Conv2d(b, b, 3, stride[1], 1, bias=bias),
           nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*blk, *[nn.MaxPool2d(2)] * pool)


def careless_batch(X, net):
    net.eval()
    anchors, cls_preds, bbox_preds = net(X)
    output = d2lssd.multibox_detection(
        cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors)
    return [rows[rows[:, 0] != -1].detach() for rows in output]


def graph_batch(X, net):
    modes = {m: m.training for m in net.modules()}
    rows = _attached(X, net)
    for m, training in modes.items():
        m.training = training
    return rows


def _attached(X, net):
    net.eval()
    anchors, cls_preds, bbox_preds = net(X)
    output = d2lssd.multibox_detection(
        cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors)
    return [rows[rows[:, 0] != -1] for rows in output]


def all_trained_batch(X, net):
    training = net.training
    rows = careless_batch(X, net)
    net.train(training)
    return rows


def training_batch(X, net):
    with torch.no_grad():
        anchors, cls_preds, bbox_preds = net(X)
    output = d2lssd.multibox_detection(
        cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors)
    return [rows[rows[:, 0] != -1] for rows in output]


def softmax_focal(cls_preds, cls_labels, gamma):
    p = torch.softmax(cls_preds, -1)
    p = torch.take_along_dim(p, cls_labels[..., None], -1).squeeze(-1)
    return -(1 - p)**gamma * torch.log(p)


def clamped_focal(cls_preds, cls_labels, gamma):
    p = torch.softmax(cls_preds, -1)
    p = torch.take_along_dim(p, cls_labels[..., None], -1).squeeze(-1)
    p = p.clamp(1e-7)
    return -(1 - p)**gamma * torch.log(p)


def detached_focal(cls_preds, cls_labels, gamma):
    return right_focal(cls_preds.detach(), cls_labels, gamma)


def half_detached_focal(cls_preds, cls_labels, gamma):
    ce = F.cross_entropy(cls_preds.movedim(-1, 1), cls_labels,
                         reduction='none')
    return (1 - torch.exp(-ce.detach()))**gamma * ce


def float_focal(cls_preds, cls_labels, gamma):
    return right_focal(cls_preds.float(), cls_labels, gamma)


def unsorted_threshold(scores, right, least):
    share = right.cumsum(0) / torch.arange(1, len(right) + 1)
    good = scores[share >= least]
    return good.min() if len(good) else torch.inf


def early_threshold(scores, right, least):
    order = scores.argsort(descending=True)
    best = float('inf')
    for n in range(1, len(order) + 1):
        if right[order[:n]].double().mean() < least:
            break
        best = scores[order[n - 1]]
    return best


def tied_threshold(scores, right, least):
    order = scores.argsort(descending=True, stable=True)
    share = right[order].cumsum(0) / torch.arange(1, len(right) + 1)
    good = scores[order][share >= least]
    return good.min() if len(good) else torch.inf


def looped_threshold(scores, right, least):
    good = [t for t in scores if right[scores >= t].double().mean() >= least]
    return min(good, default=float('inf'))


def settled_alone(boxes, scores, threshold, chunk):
    from torchvision.ops import nms
    order = scores.argsort(descending=True)
    kept = [some[nms(boxes[some], scores[some], threshold)]
            for some in order.split(chunk)]
    return torch.cat(kept)


def at_once(boxes, scores, threshold, chunk):
    from torchvision.ops import nms
    return nms(boxes, scores, threshold)


def all_with_all(boxes, scores, threshold, chunk):
    order = scores.argsort(descending=True)
    struck = d2lssd.box_iou(boxes[order], boxes[order]) > threshold
    stay = []
    for i, row in enumerate(struck.tolist()):
        if not any(row[j] for j in stay):
            stay.append(i)
    return order[torch.tensor(stay, dtype=torch.int64)]


def one_at_a_time(boxes, scores, threshold, chunk):
    rest, kept = scores.argsort(descending=True), []
    while len(rest):
        kept.append(rest[:1])
        iou = d2lssd.box_iou(boxes[rest[:1]], boxes[rest[1:]])[0]
        rest = rest[1:][iou <= threshold]
    return torch.cat(kept) if kept else rest


def stuck_on_many(boxes, scores, threshold, chunk):
    if len(boxes) > 1000:
        raise ValueError('too many')
    return right_nms_by_chunks(boxes, scores, threshold, chunk)


def corners_in_place(boxes, width, height):
    boxes[:, 2:] += boxes[:, :2]
    boxes /= boxes.new_tensor([width, height] * 2)
    boxes.clamp_(0, 1)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[keep], keep


def corners_on_cpu(boxes, width, height):
    boxes = boxes / torch.tensor([width, height] * 2).to(boxes.dtype)
    return right_corners(boxes, 1, 1)


WRONG = {
    'pairwise_iou': [
        (square_iou, 'two numbers below 0 multiply'),
        (lambda a, b: d2lssd.box_iou(
            d2lssd.box_center_to_corner(a), d2lssd.box_center_to_corner(b)),
         'Corner and centre mixed up'),
        (lambda a, b: right_iou(b, a), 'lies on its side'),
        (one_pair_at_a_time, 'is right but loops'),
        (lambda a, b: torch.tensor(right_iou(a, b).tolist(), dtype=a.dtype)
         .reshape(len(a), len(b)), 'no gradient gets through'),
        (lambda a, b: right_iou(a, b).float(),
         'float32, expected float64, as the input is'),
        (lambda a, b: iou_with(1e-6, a, b), 'added to the union'),
        (lambda a, b: iou_with(1e-7, a, b), 'added to the union'),
    ],
    'mirror': [
        (padding_as_box, 'Padding was mirrored like a box'),
        (mirrored_in_place, 'changes its input `labels` in place'),
        (lambda images, labels: (images.flip(-2),
                                 right_mirror(images, labels)[1]),
         'stand on their head'),
        (lambda images, labels: (images.flip(-1), labels), 'still lie where'),
        (lambda images, labels: images.flip(-1), 'expected a tuple of 2'),
        (lambda images, labels: (
            images.flip(-1), right_mirror(images, labels)[1].float()),
         'float32, expected float64'),
        (lambda images, labels: right_mirror(images.float(), labels),
         'float32, expected uint8'),
    ],
    'class_counts': [
        (lambda y, q: torch.bincount((y[..., 0] + 1).long().flatten(),
                                     minlength=q + 1),
         'Padding is counted as background'),
        (lambda y, q: right_counts(y.clamp(0), q),
         'counted as an object of class 0'),
        (lambda y, q: torch.bincount(y[y[..., 0] != -1][:, 0].long()),
         'its number is 0'),
        (lambda y, q: F.one_hot(y[..., 0].long() % q, q).sum((0, 1)),
         'of the last class'),
        (lambda y, q: torch.stack([(y[..., 0] == k).sum() for k in range(q)])
         .float(), 'float32, expected int64. Read on'),
        (lambda y, q: torch.tensor([[int(k) for k in y[..., 0].flatten()]
                                    .count(c) for c in range(q)]),
         'is right but loops'),
    ],
    'logit_map': [
        (lambda p, i, j, q: p[:, i * q + j], 'Background has a channel too'),
        (lambda p, i, j, q: p[:, j * (p.shape[1] // (q + 1)) + i],
         'class by class'),
        (lambda p, i, j, q: p[:, i * (q + 1) + j:i * (q + 1) + j + 1],
         'not with a slice'),
        (lambda p, i, j, q: p.detach()[:, i * (q + 1) + j],
         'no gradient gets through'),
        (lambda p, i, j, q: right_logit_map(p, i, j, q)[0], 'shape'),
    ],
    'place_of_row': [
        (swapped_place, 'Line and column are swapped'),
        (unguarded_place, 'A row below 0 does not exist'),
        (lambda r, s, a: (right_place(r, s, a)[0] + 1,
                          *right_place(r, s, a)[1:]), 'counted from 1'),
        (lambda r, s, a: right_place(r, s, a) if 0 <= r < sum(
            h * w for h, w in s) * a else None, 'expected a ValueError'),
        (lambda r, s, a: right_place(r, s, a)[1:], 'expected a tuple of 4'),
        (lambda r, s, a: right_place(r, [(w, h) for h, w in s], a),
         'Height and width are mixed up'),
    ],
    'strided_blk': [
        (lambda a, b: conv_twice(a, b, (2, 1)), 'first convolution has'),
        (lambda a, b: conv_twice(a, b, pool=True), 'halved twice'),
        (lambda a, b: conv_twice(a, b, (1, 1), pool=True),
         'halving is done by pooling'),
        (lambda a, b: conv_twice(a, b)[:-1], 'ReLU after the second'),
        (lambda a, b: nn.Sequential(*conv_twice(a, b), nn.BatchNorm2d(b),
                                    nn.ReLU()), 'number of parameters'),
        (lambda a, b: nn.Sequential(*conv_twice(a, b)[:2],
                                    *conv_twice(b, b, (2, 1))[:3]),
         'ReLU after the first'),
        (lambda a, b: nn.Sequential(*[
            nn.BatchNorm2d(b, affine=False)
            if isinstance(layer, nn.BatchNorm2d) else layer
            for layer in conv_twice(a, b)]), 'number of parameters'),
        (lambda a, b: conv_twice(a, b).requires_grad_(False),
         'Parameters without a gradient'),
        (lambda a, b: conv_twice(b, a), 'Came RuntimeError'),
        (lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3), nn.ReLU()),
         'The shape for an input (2, 3, 8, 12)'),
        (lambda a, b: None, 'is there a `return`?'),
    ],
    'smooth_l1': [
        (lambda x, s: torch.where(x.abs() < s, (s * x)**2 / 2,
                                  x.abs() - 0.5 / s**2),
         'σ and 1/σ² look swapped'),
        (lambda x, s: right_smooth_l1(x, 1 / s), 'σ and 1/σ² look swapped'),
        (lambda x, s: torch.where(x.abs() < 1 / s**2, (s * x)**2,
                                  x.abs() - 0.5 / s**2), 'is it halved?'),
        (lambda x, s: torch.where(x.abs() < 1 / s**2, (s * x)**2 / 2,
                                  x.abs()), 'must be lowered'),
        (loop_smooth_l1, 'It happened here: if abs(i) < 1'),
        (lambda x, s: loop_smooth_l1(x.reshape(-1), s).reshape(x.shape)
         .to(x), 'no gradient gets through'),
        (stacked_smooth_l1, 'is right but loops'),
        (masked_in_place, 'changes its input `data` in place'),
        (cpu_smooth_l1, 'shape'),
        (nan_smooth_l1, 'wrong gradient'),
        (overwritten_smooth_l1, 'Do not change a tensor in place'),
        (lambda x, s: right_smooth_l1(x.float(), s),
         'float32, expected float64'),
        (lambda x, s: right_smooth_l1(x.detach(), s),
         'no gradient gets through'),
        (lambda x, s: torch.zeros_like(x), 'numbers differ'),
        (lambda x, s: right_smooth_l1(x, s).numpy(), 'expected'),
        (lambda x, s: right_smooth_l1(x, s).mean(), 'leave out the mean'),
    ],
    'predict_batch': [
        (careless_batch, 'put back what you found'),
        (graph_batch, 'hold the graph'),
        (all_trained_batch, 'frozen before'),
        (training_batch, 'in training mode'),
        (lambda X, net: [d2lssd.predict(x[None], net) for x in X],
         'ran once for each picture'),
        (lambda X, net: [], 'The number of pictures'),
        (lambda X, net: torch.stack([d2lssd.predict(x[None], net)
                                     for x in X]), 'expected a list'),
        (lambda X, net: None, 'is there a `return`?'),
    ],
    'focal_loss_of_logits': [
        (softmax_focal, 'log of 0'),
        (clamped_focal, 'A clamp keeps the log of 0 away'),
        (lambda x, y, g: right_focal(x, y, g).mean(), 'A mean was taken'),
        (lambda x, y, g: torch.exp(-right_focal(x, y, 0))**g
         * right_focal(x, y, 0), 'turns down the hard'),
        (detached_focal, 'no gradient gets through'),
        (half_detached_focal, 'cut off from the graph'),
        (float_focal, 'float32, expected float64'),
        (lambda x, y, g: -right_focal(x, y, g), 'sign is missing'),
    ],
    'lowest_threshold': [
        (unsorted_threshold, 'picture by picture'),
        (early_threshold, 'Precision has teeth'),
        (tied_threshold, 'pass a threshold together'),
        (looped_threshold, 'is right but loops'),
        (lambda s, r, p: right_threshold(s, r, p + 1e-6), 'at least*'),
        (lambda s, r, p: right_threshold(s, r, p) if len(s) else 1.,
         'which no score reaches'),
        (lambda s, r, p: t if (t := right_threshold(s, r, p)) < 1 else None,
         'which no score reaches'),
        (lambda s, r, p: s[right_threshold(s, r, p) <= s],
         'expected 0.4'),
        (lambda s, r, p: s.max(), 'not the lowest'),
        (lambda s, r, p: s.min(), 'or recall?'),
    ],
    'nms_by_chunks': [
        (settled_alone, 'Each chunk was settled on its own'),
        (at_once, 'it gave 1200 to `nms` at once'),
        (all_with_all, 'it made a tensor of'),
        (one_at_a_time, 'a loop over single boxes'),
        (stuck_on_many, 'ValueError: too many'),
        (lambda b, s, t, c: right_nms_by_chunks(b, s, t, c).sort().values,
         'order of falling scores'),
        (lambda b, s, t, c: b[right_nms_by_chunks(b, s, t, c)],
         'Asked for are their places'),
        (lambda b, s, t, c: right_nms_by_chunks(b, s, t - 1e-6, c),
         'also not between two chunks'),
        (lambda b, s, t, c: right_nms_by_chunks(b, -s, t, c), 'misses on'),
        (lambda b, s, t, c: right_nms_by_chunks(b, s, t, c).tolist(),
         'expected a int64 tensor'),
    ],
    'to_corners': [
        (lambda b, w, h: right_corners(
            torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1), w, h),
         'taken for the lower right corner'),
        (lambda b, w, h: right_corners(b, h, w), 'are mixed up'),
        (lambda b, w, h: right_corners(b.clamp(min=0), w, h),
         'add first, then cut'),
        (lambda b, w, h: right_corners(b, w, h)[0], 'a tuple of 2'),
        (lambda b, w, h: (right_corners(b, w, h)[0],
                          (b[:, 2:] > 0).all(1)), 'came True at [1]'),
        (lambda b, w, h: right_corners(b.float(), w, h),
         'float32, expected float64'),
        (corners_in_place, 'changes its input `boxes` in place'),
        (corners_on_cpu, 'works on the CPU only'),
        (lambda b, w, h: tuple(
            torch.cat(part) for part in zip(
                (b.new_zeros(0, 4), torch.zeros(0).bool()),
                *(right_corners(row[None], w, h) for row in b))),
         'is right but loops'),
    ],
    'ap_by_hand': [
        (0.588, 'its IoU is too low'),
        (0.490, 'Sort them all together'),
        (0.4297, 'at this recall *or beyond*'),
        (0.4388, '101 recalls'),
        (0.77, 'those that no box ever claims'),
        (0.5615, 'however well it fits'),
        (0.9, 'a row for each box'),
    ],
    'two_gains': [
        (40, 'Each holds for its share'),
        (0.445, 'how many times as fast'),
        (1.61, 'of the targets alone'),
        (8.95, 'What adds up is time'),
        (3, 'take 100 ms'),
    ],
    'how_many_pictures': [
        (900, 'A picture has two of them'),
        (150, 'with the *root* of n'),
        (113, 'for one standard deviation'),
        (400, 'How many are there then?'),
        (77, 'solve for n'),
    ],
    'matching_by_hand': [
        ([1, 1, -1, -1, -1], 'rule 2 alone'),
        ([1, -1, 0, -1, 2], 'rule 1 alone'),
        ([0, 1, -1, -1, 2], 'greatest IoU of the whole table'),
        ([1, 1, -1, -1, 2], 'two boxes took the same anchor'),
        ([2, 2, 1, 0, 3], 'counted from 1'),
        ([1, 1, 0, -1], 'Cover the table'),
        (3, 'expected a list of five'),
    ],
    'smallest_match': [
        (0.37 * 128, 'IoU compares areas'),
        (0.2616, 'In pixels'),
        (94.7, 'An IoU of 0.5 is enough'),
        (50, 'What is the union'),
    ],
    'predictor_cost': [
        (sum(p.numel() for c in [64, 128, 128, 128, 128] for p in [
            *d2lssd.cls_predictor(c, 4, 19).parameters(),
            *d2lssd.bbox_predictor(c, 4).parameters()]),
         'background needs a logit'),
        (518400, 'The biases are missing'),
        (435876, 'bounding box predictors are missing'),
        (123, 'compare with the 4616'),
    ],
    'row_of_anchor': [
        (4096 + (9 * 16 + 5) * 4 + 2, 'swapped'),
        ((5 * 16 + 9) * 4 + 2, 'first scale come before'),
        (1024 + (5 * 16 + 9) * 4 + 2, 'four rows for each'),
        (7, 'three steps'),
    ],
    'receptive_field': [
        (15, 'The stride is missing'),
        (36, 'three blocks'),
        (64, 'do not multiply'),
        (30, 'what a predictor behind it'),
        (21.5, 'a line for each layer'),
    ],
    'class_loss': [
        (174.2, 'This is the sum'),
        (0.0139, 'base of 10'),
        (0.01, 'Only background counts'),
        (1, 'Two groups'),
    ],
    'nms_by_hand': [
        ([1, 5, 0], 'struck out itself'),
        ([1, 5, 2, 4], 'not above it'),
        ([0, 1, 2, 5], 'highest score goes first'),
        ([1], 'by falling score'),
    ],
    'sigma_for_a_pixel': [
        (2.56, 'σ is squared'),
        (0.625, 'one over σ'),
        (5.06, 'factor 10'),
        (3, 'First the offset'),
    ],
}

each_right = pytest.mark.parametrize(
    ('name', 'answer'), [pytest.param(name, answer, id=f'{name}-{i}')
                         for name, answers in RIGHT.items()
                         for i, answer in enumerate(answers)])
each_wrong = pytest.mark.parametrize(
    ('name', 'answer', 'words'),
    [pytest.param(name, answer, words, id=f'{name}-{words}')
     for name, answers in WRONG.items() for answer, words in answers])
each_check = pytest.mark.parametrize('name', VALUES + CODES)
each_code = pytest.mark.parametrize('name', CODES)


def test_every_check_meets_right_answers_and_typical_wrong_ones():
    assert set(VALUES + CODES) == set(check.__all__) - {'Miss'}
    assert set(RIGHT) == set(WRONG) == set(VALUES + CODES)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@each_right
def test_a_right_answer_passes_with_one_line(name, answer, capsys):
    assert getattr(check, name)(answer) is None
    out = capsys.readouterr().out
    assert out.startswith(f'Right: {name} ')
    assert out.count('\n') == 1


@each_wrong
def test_a_wrong_answer_meets_its_own_words(name, answer, words):
    said = missed(name, answer)
    assert words in said
    assert name in said
    assert 'Read on: "' in said


@each_wrong
def test_a_wrong_answer_is_never_told_the_solution(name, answer, words):
    said = missed(name, answer)
    task = getattr(check, name)
    if name in CODES:
        source = inspect.getsource(task.right)
        source = source.replace(task.right.__doc__ or '\0', '')
        lines = [' '.join(line.split()) for line in source.splitlines()]
        lines = [line for line in lines if len(line) >= 16][1:]
        assert lines
        assert not any(line in said for line in lines)
        return
    right = task.right()
    forms = ([str(right)] if isinstance(right, list) else
             {f'{right:.3g}', f'{right:.6g}', f'{right:.2f}'})
    for form in forms:
        assert not re.search(rf'(?<![\d.]){re.escape(form)}(?!\d)', said)


@each_check
def test_the_known_mistakes_are_mistakes_with_words_of_their_own(name):
    task = getattr(check, name)
    if name in VALUES:
        for words, wrong in task.mistakes.items():
            said = missed(name, wrong() if callable(wrong) else wrong)
            assert words in said
        return
    for mistake in task.mistakes:
        words = ' '.join(inspect.getdoc(mistake).split())
        assert words in missed(name, mistake)


@each_code
def test_no_gradient_check_or_loop_check_is_left_out_unseen(name):
    task = getattr(check, name)
    inputs = task.inputs()
    assert len(inputs) >= 3
    tensors = [a for args in inputs for a in args
               if isinstance(a, torch.Tensor)]
    if tensors:
        # A right answer may use reshape(B, -1, …), which fails on nothing.
        assert name == 'logit_map' or any(
            0 in t.shape for t in tensors), 'nothing empty'
    if any(t.is_floating_point() for t in tensors) and task.facts is None:
        assert torch.float64 in {t.dtype for t in tensors}


# Answers that are no answers.

@each_check
@pytest.mark.parametrize('answer', [None, ...], ids=['None', 'dots'])
def test_no_answer_is_told_what_is_expected(name, answer):
    said = missed(name, answer)
    assert 'has no answer yet; expected' in said


@pytest.mark.parametrize('name', VALUES)
@pytest.mark.parametrize('answer', ['22', True, {}, object(), float('nan'),
                                    [None], ['a'], lambda: 22, 1j])
def test_a_value_of_another_kind_is_refused_kindly(name, answer):
    assert 'expected' in missed(name, answer) or 'is not it' in missed(
        name, answer)


@each_code
@pytest.mark.parametrize('answer', [3, 'smooth', torch.zeros(3), [len]])
def test_a_result_in_place_of_a_function_is_told_so(name, answer):
    said = missed(name, answer)
    assert f'check.{name}({name}), without calling it' in said


@each_code
def test_a_function_that_raises_is_told_where(name):
    def broken(*args):
        nothing = {}
        return nothing['no such key']
    said = missed(name, broken)
    assert "KeyError: 'no such key'" in said
    assert "return nothing['no such key']" in said


@each_code
@pytest.mark.parametrize('error', [SystemExit, RecursionError, MemoryError,
                                   GeneratorExit, check.Miss])
def test_even_an_exit_is_only_a_wrong_answer(name, error):
    def broken(*args):
        raise error
    assert missed(name, broken)


@each_code
@pytest.mark.parametrize('result', [None, 0, 'text', [], (), torch.zeros(0),
                                    torch.zeros(2, 2), np.zeros(3), nn.ReLU()])
def test_a_function_that_gives_something_else_is_refused(name, result):
    said = missed(name, lambda *args: result)
    assert 'misses on' in said


@each_code
def test_a_function_of_other_arguments_is_told_so(name):
    assert 'takes 0 positional arguments' in missed(name, lambda: None)


# Loops without an end.

def endless(*args):
    while True:
        pass


def endless_with_except(*args):
    while True:
        try:
            time.sleep(0.001)
        except:  # noqa: E722
            pass


def asleep(*args):
    time.sleep(3600)


@each_code
def test_an_endless_loop_is_stopped(name, monkeypatch):
    monkeypatch.setattr(core, 'SECONDS', 0.2)
    said = missed(name, endless)
    assert 'did not come back within 0.2 seconds' in said
    assert 'loop that never ends' in said


def test_a_loop_that_is_endless_only_with_a_gradient_is_stopped(monkeypatch):
    monkeypatch.setattr(core, 'SECONDS', 0.5)
    said = missed('smooth_l1', lambda x, s: (
        endless() if x.requires_grad else right_smooth_l1(x, s)))
    assert 'did not come back within 0.5 seconds' in said


def test_the_thread_of_an_endless_loop_ends(monkeypatch):
    import threading
    monkeypatch.setattr(core, 'SECONDS', 0.2)
    before = set(threading.enumerate())
    missed('smooth_l1', endless)
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_a_loop_that_cannot_be_stopped_does_not_stop_the_notebook():
    code = '''
import sys
sys.path.insert(0, {folder!r})
from d2lssd import check
from d2lssd.check import core
from test_check import asleep, endless_with_except
core.SECONDS = 0.2
for answer in asleep, endless_with_except:
    try:
        check.smooth_l1(answer)
    except check.Miss as miss:
        print(miss)
print('the end')
'''
    done = subprocess.run(
        [sys.executable, '-c', code.format(folder=str(Path(__file__).parent))],
        capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('did not come back') == 2
    assert done.stdout.endswith('the end\n')


def test_an_endless_loop_for_large_inputs_alone_is_stopped(monkeypatch):
    monkeypatch.setattr(core, 'SECONDS', 0.5)

    def slow(data, scalar):
        while data.numel() > 100:
            pass
        return right_smooth_l1(data, scalar)
    assert 'loop' in missed('smooth_l1', slow)


# What must not be let through, and what must.

def test_a_function_that_knows_the_first_input_alone_fails():
    data, scalar = check.smooth_l1.inputs()[0]

    def learnt(x, s):
        if torch.equal(x, data):
            return right_smooth_l1(x, s)
        return x.abs()
    assert missed('smooth_l1', learnt)


def test_a_tensor_made_on_the_cpu_is_found_without_another_device():
    def stays(images, labels):
        one = torch.ones(labels.shape[-1], dtype=labels.dtype)
        images, labels = right_mirror(images, labels)
        return images, labels * one
    assert 'works on the CPU only' in missed('mirror', stays)


def test_a_right_answer_may_print_and_use_random_numbers(capsys):
    def talks(data, scalar):
        print('so far', data.shape, torch.rand(1).shape)
        return right_smooth_l1(data, scalar)
    check.smooth_l1(talks)
    assert 'so far' in capsys.readouterr().out


def test_a_check_works_without_gradients_and_leaves_the_random_state():
    torch.manual_seed(0)
    with torch.no_grad():
        for name in CODES:
            before = torch.get_rng_state()
            getattr(check, name)(RIGHT[name][0])
            if name != 'strided_blk':  # its answer draws weights itself
                assert torch.equal(torch.get_rng_state(), before)


def test_a_check_is_found_through_the_package_and_has_a_help_text():
    assert d2lssd.check is check
    for name in VALUES + CODES:
        assert name in getattr(check, name).__doc__


def test_a_miss_shows_its_text_alone_in_a_notebook():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.testing.globalipapp import start_ipython
    shell = start_ipython() or InteractiveShell.instance()
    result = shell.run_cell(
        'from d2lssd import check; check.receptive_field(15)')
    assert isinstance(result.error_in_exec, check.Miss)
    shown = '\n'.join(result.error_in_exec._render_traceback_())
    assert shown.startswith('receptive_field: 15 is not it.')
    assert 'Traceback' not in shown
    assert issubclass(check.Miss, AssertionError)


# The answers by hand, worked out by a machine.

def slow_match(table, rule1=True, threshold=0.5):
    """Rows of an IoU table are anchors: the two rules, word by word."""
    match = [-1] * len(table)
    for a, row in enumerate(table):
        if max(row) >= threshold:
            match[a] = row.index(max(row))
    pairs = sorted(((iou, b, a) for a, row in enumerate(table)
                    for b, iou in enumerate(row)), reverse=True)
    used = set(), set()
    for iou, b, a in pairs:
        if rule1 and iou > 0 and b not in used[0] and a not in used[1]:
            match[a] = b
            used[0].add(b)
            used[1].add(a)
    return match


def slow_nms(scores, overlaps, threshold=0.5):
    left = sorted(scores, key=scores.get, reverse=True)
    keep = []
    while left:
        best = left.pop(0)
        keep.append(best)
        left = [box for box in left
                if overlaps.get(frozenset({best, box}), 0) <= threshold]
    return keep


def exercise_text(chapter, name):
    path = Path(__file__).parents[1] / 'book' / f'{chapter}.ipynb'
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        if cell['metadata'].get('d2lssd', {}).get('exercise') == name:
            return ''.join(cell['source'])
    pytest.fail(f'{chapter} has no exercise {name}')


def test_the_matches_by_hand_are_those_of_the_table_in_the_book():
    text = exercise_text('background/boxes-and-anchors', 'matching-by-hand')
    table = [[float(v) for v in row.split('|')] for row in
             re.findall(r'\| anchor \d \| (.*) \|', text)]
    assert len(table) == 5
    assert check.matching_by_hand.right() == slow_match(table)
    wrong = list(check.matching_by_hand.mistakes.values())
    assert wrong[0] == slow_match(table, rule1=False)
    assert wrong[1] == slow_match(table, threshold=2)
    assert wrong[4] == slow_match(table, threshold=0.1)
    alone = slow_match(table, rule1=False)  # then each box takes its best
    for box, column in enumerate(zip(*table)):
        alone[column.index(max(column))] = box
    assert wrong[3] == alone


def test_the_boxes_kept_by_hand_are_those_of_the_table_in_the_book():
    text = exercise_text('prediction', 'nms-by-hand')
    scores = re.search(r'\| score \| (.*) \|', text)[1].split('|')
    scores = dict(enumerate(map(float, scores)))
    pairs = re.findall(r'(\d) and (\d) with\s+(?:an\s+IoU\s+of |exactly )?'
                       r'(0\.\d+)', text)
    assert len(pairs) == 5
    overlaps = {frozenset({int(a), int(b)}): float(iou)
                for a, b, iou in pairs}
    assert check.nms_by_hand.right() == slow_nms(scores, overlaps)
    wrong = list(check.nms_by_hand.mistakes.values())
    assert wrong[1] == slow_nms(scores, overlaps, 0.499)
    assert wrong[5] != wrong[4] == slow_nms(scores, overlaps, 1)


def test_the_area_by_hand_is_that_of_the_table_in_the_book():
    """A box inside a banana's box, of a part of its width, has that IoU."""
    text = exercise_text('beyond/average-precision', 'ap-by-hand')
    rows = re.findall(r'\| (\d) \| (0\.\d+) \| ([a-g–]) \| (0\.\d+) \|',
                      text)
    assert len(rows) == 8
    places = {1: 'abc', 2: 'defg'}

    def box(place, width=1):
        x = 2. * 'abcdefg–'.index(place)
        return [x, 0, x + width, 1]
    true = {p: [[0, *box(b)] for b in on] for p, on in places.items()}
    found = {p: [[0, float(score), *box(b, float(iou) or 1)]
                 for q, score, b, iou in rows if int(q) == p] for p in places}

    def area(found, true):
        return d2lssd.average_precision(
            [torch.tensor(boxes) for boxes in found.values()],
            [torch.tensor(boxes) for boxes in true.values()])['AP50']
    assert check.ap_by_hand.right() == pytest.approx(area(found, true))
    wrong = [w() if callable(w) else w
             for w in check.ap_by_hand.mistakes.values()]
    alone = [area({p: found[p]}, {p: true[p]}) for p in places]
    assert wrong[4] == pytest.approx(sum(alone) / 2)
    del true[2][1:]
    assert wrong[6] == pytest.approx(area(found, true))


def test_the_pictures_by_hand_keep_chance_within_two_points():
    pictures = check.how_many_pictures.right()
    draw = np.random.default_rng(0)
    share = draw.binomial(2 * pictures, 0.9, 100_000) / (2 * pictures)
    assert 2 * share.std() == pytest.approx(0.02, rel=0.02)
    assert (abs(share - 0.9) < 0.0201).mean() == pytest.approx(0.955, abs=0.01)


def test_the_numbers_to_compute_agree_with_networks_that_were_built():
    net = d2lssd.TinySSD(20)
    heads = [p for name, p in net.named_parameters()
             if name.startswith(('cls_', 'bbox_'))]
    assert check.predictor_cost.right() == sum(p.numel() for p in heads)

    deeper = nn.Sequential(*[nn.Sequential(
        *[nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)], nn.MaxPool2d(2))
        for _ in range(2)])
    for parameter in deeper.parameters():
        parameter.data.fill_(1)
    X = torch.rand(512, 1, 64, 64, requires_grad=True)
    deeper(X)[:, :, 8, 8].sum().backward()
    seen = X.grad.abs().sum((0, 1, 2)) > 0
    assert check.receptive_field.right() == int(seen.sum())

    anchors = [d2lssd.multibox_prior(torch.zeros(n, n), s, r) for n, s, r in
               zip([32, 16, 8, 4, 1], d2lssd.sizes, d2lssd.ratios)]
    here = torch.cat(anchors, 1)[0, check.row_of_anchor.right()]
    assert torch.equal(here, anchors[1].reshape(16, 16, 4, 4)[5, 9, 2])

    side = check.smallest_match.right() / 256
    for size, matched in (side * 0.999, False), (side * 1.001, True):
        center = (here[:2] + here[2:]) / 2
        box = torch.cat([center - size / 2, center + size / 2])[None]
        iou = d2lssd.box_iou(box, anchors[1][0])
        assert bool((iou >= 0.5).any()) == matched

    logits = torch.tensor([0.99, 0.01]).log().expand(1, 5444, 2)
    labels = (torch.arange(5444) < 26).long()[None]
    zeros = torch.zeros(1, 4 * 5444)
    assert check.class_loss.right() == pytest.approx(float(
        d2lssd.calc_loss(logits, labels, zeros, zeros, zeros)), rel=1e-4)

    anchor = torch.tensor([100., 100, 151.2, 151.2])
    moved = anchor + torch.tensor([2., 0, 2, 0])
    miss = d2lssd.offset_boxes(anchor, moved)[0]
    sigma = check.sigma_for_a_pixel.right()
    for factor, slope in (0.98, 0.98), (1.02, 1):
        x = (factor * miss).requires_grad_()
        grad, = torch.autograd.grad(d2lssd.smooth_l1(x, sigma), x)
        assert float(grad) == pytest.approx(slope, rel=1e-3)
