"""Checks of training, of prediction, and of the closing exercises."""
import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from d2lssd.check.core import Code, Miss, Value
from d2lssd.detection import multibox_detection
from d2lssd.losses import smooth_l1 as _smooth
from d2lssd.model import evaluating, sizes
from d2lssd.prediction import predict


def _class_loss(matched=26, background=5418, divide=5444, log=math.log):
    return -(matched * log(0.01) + background * log(0.99)) / divide


class_loss = Value(
    'class_loss', 'training', 'Two questions, two losses', right=_class_loss,
    kind='a number, three digits of it', tolerance=0.005,
    mistakes={
        'This is the sum over the anchors. The loss is their mean.':
            lambda: _class_loss(divide=1),
        'The mean runs over all anchors, matched or not.':
            lambda: _class_loss(divide=26),
        'Only background counts here. Of the matched anchors 0.99 is wrong: '
        'to their right class the network gives 0.01.':
            lambda: _class_loss(matched=0),
        'The background anchors are missing: each adds little, but there are '
        'many.': lambda: _class_loss(background=0),
        'The two groups are swapped: banana is what gets 0.01.':
            lambda: _class_loss(5418, 26),
        'The logarithm is the natural one, not that to the base of 10.':
            lambda: _class_loss(log=math.log10),
        'The logarithm is the natural one, not that to the base of 2.':
            lambda: _class_loss(log=math.log2),
        'The loss is -log p, and p is at most 1: it cannot be below 0.':
            lambda: -_class_loss(),
    },
    think='Two groups: how many anchors, and which probability for the class '
          'that is right?')


def _at_sigma(data, scalar):
    """σ and 1/σ² look swapped: your parabola does not end at 1/σ²."""
    return torch.where(data.abs() < scalar, (scalar * data)**2 / 2,
                       data.abs() - 0.5 / scalar**2)


def _all_swapped(data, scalar):
    """σ and 1/σ² look swapped, everywhere: a large σ must give L1."""
    return _smooth(data, 1 / scalar)


def _at_one_over_sigma(data, scalar):
    """Your parabola ends at 1/σ; it should end at 1/σ², where its slope has
    grown to 1."""
    return torch.where(data.abs() < 1 / scalar, (scalar * data)**2 / 2,
                       data.abs() - 0.5 / scalar**2)


def _no_half(data, scalar):
    """The parabola is twice as steep as it should be: is it halved? The two
    pieces do not meet."""
    return torch.where(data.abs() < 1 / scalar**2, (scalar * data)**2,
                       data.abs() - 0.5 / scalar**2)


def _sigma_not_squared(data, scalar):
    """In the parabola σ belongs inside the square."""
    return torch.where(data.abs() < 1 / scalar**2, scalar * data**2 / 2,
                       data.abs() - 0.5 / scalar**2)


def _unshifted(data, scalar):
    """The straight part is plain L1. It must be lowered, so that it meets the
    parabola."""
    return torch.where(data.abs() < 1 / scalar**2, (scalar * data)**2 / 2,
                       data.abs())


def _shifted_by_sigma(data, scalar):
    """σ and 1/σ² look swapped in the straight part."""
    return torch.where(data.abs() < 1 / scalar**2, (scalar * data)**2 / 2,
                       data.abs() - 0.5 * scalar**2)


def _signed(data, scalar):
    """Misses below 0 go wrong: it is the size of the miss, |x|, that decides
    between parabola and straight line, and that the straight part takes."""
    return torch.where(data < 1 / scalar**2, (scalar * data)**2 / 2,
                       data - 0.5 / scalar**2)


def _pieces_swapped(data, scalar):
    """The two pieces are swapped: the parabola is for small misses."""
    return torch.where(data.abs() >= 1 / scalar**2, (scalar * data)**2 / 2,
                       data.abs() - 0.5 / scalar**2)


def _mean(data, scalar):
    """One number came, expected one for each miss: leave out the mean or
    sum."""
    return _smooth(data, scalar).mean()


def _smooth_inputs():
    draw = torch.Generator().manual_seed(6)

    def data(*shape, width=3., dtype=torch.float32):
        return width * torch.randn(shape, generator=draw, dtype=dtype)
    return [(torch.tensor([-3., -0.4, 0.3, 0.6, 2.5]), 1),
            (torch.tensor([-5., -1., -0.2, 0., 0.2, 1.5, 5.]), 2.),
            (data(3, 4), 0.5), (data(2, 3, 5), 1.6), (data(8), 10),
            (data(6, 2, dtype=torch.float64), 0.7), (data(4, 3).T, 1.),
            (data(), 0.9), (data(0), 1), (data(2, 0, 3), 0.5)]


def _more_misses():
    draw = torch.Generator().manual_seed(7)
    return [(torch.randn(n, generator=draw), 1.) for n in (8, 128)]


smooth_l1 = Code(
    'smooth_l1(data, scalar)', 'training', 'Exercises', _smooth,
    _smooth_inputs,
    [_all_swapped, _at_sigma, _at_one_over_sigma, _no_half,
     _sigma_not_squared, _unshifted, _shifted_by_sigma, _signed,
     _pieces_swapped, _mean], gradient=[0], larger=_more_misses)


# Which of six boxes stay; scores and overlaps stand in the exercise.
nms_by_hand = Value(
    'nms_by_hand', 'background/boxes-and-anchors',
    'From predictions back to boxes', right=lambda: [1, 5, 2, 0],
    kind='a list of numbers of boxes, by falling score',
    mistakes={
        'A box that is struck out itself strikes out no other.': [1, 5, 0],
        'An IoU equal to the threshold is not above it.': [1, 5, 2, 4],
        'A box that is struck out itself strikes out no other, and an IoU '
        'equal to the threshold is not above it.': [1, 5, 4],
        'The order is that of the numbers. The highest score goes first.':
            [0, 1, 2, 5],
        'Nothing was struck out.': [1, 5, 3, 2, 0, 4],
        'These are the boxes that go.': [3, 4],
        'The lowest score went first.': [4, 2, 5],
    },
    think='Write the boxes down by falling score. The first one stays; strike '
          'out what overlaps it too much; go on with the next that is left.')


class StandIn(nn.Module):
    """Stands in for a detector: five anchors, and layers with two modes.

    In training mode its answers are off, as those of batch norm are.
    """

    def __init__(self, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        center = torch.tensor([0.2, 0.25, 0.5, 0.75, 0.8])[:, None]
        box = torch.cat([center - 0.15, center - 0.15, center + 0.15,
                         center + 0.15], 1)
        self.register_buffer('anchors', box[None])
        self.logits = nn.Parameter(
            2 * torch.randn(2, 5, 3, generator=draw))
        self.offsets = nn.Parameter(
            0.2 * torch.randn(2, 20, generator=draw))
        self.runs = 0
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()

    def forward(self, X):
        self.runs += 1
        if len(X):
            X = self.frozen(self.norm(X / 255))
        dark = X.mean((1, 2, 3))[:, None]
        logits = torch.einsum('bk,kac->bac', torch.cat(
            [dark, 1 - dark], 1), self.logits)
        offsets = torch.cat([dark, 1 - dark], 1) @ self.offsets
        return self.anchors, logits * (0.3 if self.training else 1), offsets


def _one_by_one(X, net):
    """The network ran once for each picture. It takes them all at once, which
    is what a minibatch is for: `net(X)`."""
    return [predict(x[None], net) for x in X]


def _rows(X, net, start=lambda net: net.eval(), end=None, drop=True,
          probabilities=True, together=False):
    """A `predict_batch` put together from right and wrong parts."""
    start(net)
    anchors, logits, offsets = net(X)
    probs = logits.softmax(2) if probabilities else logits
    output = multibox_detection(probs.transpose(1, 2), offsets, anchors)
    if together:
        output = output[:1].expand_as(output)
    output = output.detach() if end else output
    (end or start)(net)
    return [rows[rows[:, 0] >= 0] if drop else rows for rows in output]


def _left_evaluating(X, net):
    """The network is left in evaluation mode. In the middle of training, its
    batch norm would stop learning: put back what you found."""
    return _rows(X, net, end=lambda net: net.eval())


def _graph_kept(X, net):
    """The rows hold the graph, and with it every feature map: compute them
    without gradients."""
    modes = [(m, m.training) for m in net.modules()]

    def back(net):
        for m, mode in modes:
            m.training = mode
    rows = _rows(X, net, end=back)
    return [r.requires_grad_() for r in rows]


def _all_training(X, net):
    """Afterwards every layer trains, also one that was frozen before: put back
    the mode of each layer, not of the network as a whole."""
    training = net.training
    return _rows(X, net, end=lambda net: net.train(training))


def _still_training(X, net):
    """The network predicts in training mode: batch norm then computes with the
    mean of this very minibatch, and every picture depends on the others."""
    return _rows(X, net, start=lambda net: None, end=lambda net: None)


def _undropped(X, net):
    """Rows of class -1 are background or were suppressed: drop them."""
    return _with(X, net, drop=False)


def _with(X, net, **parts):
    """Rows with a wrong part; modes and graph as they should be."""
    with evaluating(net):
        return _rows(X, net, start=lambda net: None, **parts)


def _together(X, net):
    return _with(X, net)


def _no_softmax(X, net):
    """The scores are logits. Softmax over the classes makes probabilities of
    them."""
    return _with(X, net, probabilities=False)


def _first_only(X, net):
    """Every picture got the rows of the first one."""
    return _with(X, net, together=True)


def _batch_facts(result, X, net):
    if not isinstance(result, list | tuple):
        raise Miss(f'Came {type(result).__name__}, expected a list with one '
                   'tensor for each picture'
                   + (': is there a `return`?' if result is None else '')
                   + '.')
    tensors = [r for r in result if isinstance(r, torch.Tensor)]
    return {
        'the number of pictures': len(result),
        'the rows': [r.detach() if isinstance(r, torch.Tensor) else r
                     for r in result],
        'the rows hold a graph': any(r.requires_grad for r in tensors),
        'the layers in training mode afterwards':
            ', '.join(name or 'net' for name, layer in net.named_modules()
                      if layer.training),
        'batch norm learnt from the pictures':
            int(net.norm.num_batches_tracked) > 0,
        'the network ran more than once': net.runs > 1,
    }


def _batch_inputs():
    draw = torch.Generator().manual_seed(8)
    toys = [StandIn(seed) for seed in (1, 2, 3)]
    toys[1].eval()
    toys[2].train()
    toys[2].frozen.eval()
    toys[0].frozen.eval()

    def X(B):
        dark = torch.rand(B, 1, 1, 1, generator=draw)
        return 255 * dark * torch.rand(B, 3, 4, 4, generator=draw)
    return [(X(1), toys[0]), (X(3), toys[1]), (X(4), toys[2]),
            (X(2), copy.deepcopy(toys[0])), (X(0), toys[0])]


predict_batch = Code(
    'predict_batch(X, net)', 'prediction', 'Two faults that nobody sees',
    _together, _batch_inputs,
    [_one_by_one, _left_evaluating, _all_training, _graph_kept,
     _still_training, _undropped, _no_softmax, _first_only],
    facts=_batch_facts, devices=False)


def _sigma(pixels=2, anchor=256 * sizes[0][0], factor=10, power=-0.5):
    return (factor * pixels / anchor)**power


sigma_for_a_pixel = Value(
    'sigma_for_a_pixel', 'exercises', 'A loss for offsets that slows down',
    right=_sigma, kind='a number', tolerance=0.005,
    mistakes={
        'σ is squared: the parabola ends at 1/σ².': lambda: _sigma(power=-1),
        'That is where the parabola ends, in offsets. Which σ puts it there?':
            lambda: _sigma(power=1),
        'That is one over σ.': lambda: _sigma(power=0.5),
        'The factor 10 of the offsets is missing.': lambda: _sigma(factor=1),
        'That is for one pixel, not two; or it has the factor 5, which is '
        'for width and height.': lambda: _sigma(pixels=1),
        'The anchor has the small size of the first scale.':
            lambda: _sigma(anchor=256 * sizes[0][1]),
        'Offsets are measured in units of the anchor, not of the picture.':
            lambda: _sigma(anchor=256),
    },
    think='First the offset that belongs to two pixels, then σ.')


def _log_p(cls_preds, cls_labels):
    return F.log_softmax(cls_preds, -1).gather(
        -1, cls_labels[..., None])[..., 0]


def _focal(cls_preds, cls_labels, gamma):
    log_p = _log_p(cls_preds, cls_labels)
    return -(-torch.expm1(log_p))**gamma * log_p


def _log_of_zero(cls_preds, cls_labels, gamma):
    """This is the log of 0: softmax rounds a small probability to 0, and
    -log 0 is infinite. `log_softmax` gives log p without computing p."""
    p = cls_preds.softmax(-1).gather(-1, cls_labels[..., None])[..., 0]
    return -(1 - p)**gamma * p.log()


def _clamped(low):
    def mistake(cls_preds, cls_labels, gamma):
        p = cls_preds.softmax(-1).gather(-1, cls_labels[..., None])[..., 0]
        p = p.clamp(min=low)
        return -(1 - p)**gamma * p.log()
    mistake.__doc__ = (
        'A clamp keeps the log of 0 away, but the worst mistakes all get the '
        'same loss, and no gradient. `log_softmax` needs no clamp.')
    return mistake


def _p_to_gamma(cls_preds, cls_labels, gamma):
    """p to the power of γ turns down the hard anchors. The factor is what is
    missing to certainty."""
    log_p = _log_p(cls_preds, cls_labels)
    return -log_p.exp()**gamma * log_p


def _unfocused(cls_preds, cls_labels, gamma):
    """This is cross-entropy: the factor with γ has no effect."""
    return -_log_p(cls_preds, cls_labels)


def _times_gamma(cls_preds, cls_labels, gamma):
    """γ is a power, not a factor."""
    log_p = _log_p(cls_preds, cls_labels)
    return -(1 - log_p.exp()) * gamma * log_p


def _negative(cls_preds, cls_labels, gamma):
    """The sign is missing: log p is below 0, a loss is not."""
    return -_focal(cls_preds, cls_labels, gamma)


def _over_anchors(cls_preds, cls_labels, gamma):
    """Softmax ran over the anchors. The classes are the last dimension."""
    log_p = F.log_softmax(cls_preds, -2).gather(
        -1, cls_labels[..., None])[..., 0]
    return -(1 - log_p.exp())**gamma * log_p


def _averaged(cls_preds, cls_labels, gamma):
    """A mean was taken. Expected is the loss of each anchor."""
    return _focal(cls_preds, cls_labels, gamma).mean()


def _averaged_each(cls_preds, cls_labels, gamma):
    """A mean over the anchors was taken. Expected is the loss of each."""
    return _focal(cls_preds, cls_labels, gamma).mean(1)


def _last_class(cls_preds, cls_labels, gamma):
    """The label is not looked at: p is the probability of the class that is
    right, and for background that is class 0."""
    return _focal(cls_preds, torch.ones_like(cls_labels), gamma)


def _focal_inputs():
    draw = torch.Generator().manual_seed(9)

    def pair(B, A, C, width=2., dtype=torch.float32):
        return (width * torch.randn(B, A, C, generator=draw, dtype=dtype),
                torch.randint(0, C, (B, A), generator=draw))
    far = torch.tensor([[[200., 0], [0, 200], [-150, 150], [3, 3]]])
    return [(*pair(1, 4, 2), 2), (*pair(2, 5, 3), 1), (*pair(3, 6, 2), 0),
            (*pair(2, 4, 5, dtype=torch.float64), 5),
            (far, torch.tensor([[1, 1, 0, 1]]), 2), (*pair(2, 0, 2), 1)]


def _more_anchors():
    draw = torch.Generator().manual_seed(10)
    return [(torch.randn(B, A, 2, generator=draw),
             torch.zeros(B, A, dtype=torch.int64), 2)
            for B, A in [(1, 6), (8, 40)]]


focal_loss_of_logits = Code(
    'focal_loss_of_logits(cls_preds, cls_labels, gamma)', 'exercises',
    'A loss for classes that skips the easy ones', _focal, _focal_inputs,
    [_log_of_zero, *map(_clamped, (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-12)),
     _p_to_gamma, _unfocused, _times_gamma, _negative, _over_anchors,
     _averaged, _averaged_each, _last_class],
    gradient=[0], larger=_more_anchors)
