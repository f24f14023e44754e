"""Checks of predictors, of their concatenation, and of blocks."""
import copy

import torch
from torch import nn

from d2lssd.check.core import Code, Miss, Value
from d2lssd.model import bbox_predictor, cls_predictor, num_anchors

# The feature maps of TinySSD: channels, and units along a side.
CHANNELS = [64, 128, 128, 128, 128]
SIDES = [32, 16, 8, 4, 1]


def _parameters(layer):
    return sum(p.numel() for p in layer.parameters())


def _cost(classes=21, offsets=4, window=9, bias=1):
    """Parameters of predictors with so many answers for each anchor."""
    answers = num_anchors * (classes + offsets)
    return sum((window * c + bias) * answers for c in CHANNELS)


predictor_cost = Value(
    'predictor_cost', 'predictors', 'One small classifier, at every unit',
    right=lambda: sum(_parameters(cls_predictor(c, num_anchors, 20))
                      + _parameters(bbox_predictor(c, num_anchors))
                      for c in CHANNELS),
    kind='a whole number of parameters',
    mistakes={
        'One class is missing: background needs a logit too, so there are '
        '20 + 1.': lambda: _cost(classes=20),
        'The biases are missing: one for each channel that comes out.':
            lambda: _cost(bias=0),
        'The biases are missing, and so is a class: background needs a logit '
        'too.': lambda: _cost(classes=20, bias=0),
        'The bounding box predictors are missing.': lambda: _cost(offsets=0),
        'The class predictors are missing.': lambda: _cost(classes=0),
        'The window has 3 × 3 units, so each channel that goes in has nine '
        'weights for each that comes out.': lambda: _cost(window=1),
        'These are three weights for each pair of channels. The window is as '
        'high as it is wide: 3 × 3.': lambda: _cost(window=3),
        'Here each class has offsets of its own. The offsets of an anchor do '
        'not depend on the class.': lambda: _cost(offsets=80),
        'This is the first scale alone; there are five.':
            lambda: (9 * 64 + 1) * num_anchors * 25,
        'This gives all five maps 64 channels; only the first has 64.':
            lambda: 5 * (9 * 64 + 1) * num_anchors * 25,
    },
    think='Write down for one scale: channels in, channels out, weights, '
          'biases. Then compare with the 4616 that the page counts.')


def _logits(pred, i, j, num_classes):
    return pred[:, i * (num_classes + 1) + j]


def _no_background(pred, i, j, num_classes):
    """Background has a channel too: an anchor takes up `num_classes + 1` of
    them."""
    return pred[:, i * num_classes + j]


def _class_first(pred, i, j, num_classes):
    """This order is class by class. The channels go anchor by anchor, and
    within an anchor class by class."""
    return pred[:, j * (pred.shape[1] // (num_classes + 1)) + i]


def _shifted(pred, i, j, num_classes):
    """This is the next channel: class 0 is background, so classes are counted
    from 0 as anchors are."""
    return pred[:, (i * (num_classes + 1) + j + 1) % pred.shape[1]]


def _mixed_up(pred, i, j, num_classes):
    """Anchor and class are mixed up."""
    return pred[:, (j * (num_classes + 1) + i) % pred.shape[1]]


def _kept(pred, i, j, num_classes):
    """One channel is still a dimension: index it with a number, not with a
    slice."""
    return pred[:, i * (num_classes + 1) + j][:, None]


def _probabilities(pred, i, j, num_classes):
    """Asked for is the logit as the layer gave it, without softmax."""
    B, c, h, w = pred.shape
    table = pred.reshape(B, -1, num_classes + 1, h, w).softmax(2)
    return table[:, i, j]


def _logit_inputs():
    draw = torch.Generator().manual_seed(5)

    def pred(B, a, q, h, w, dtype=torch.float32):
        return torch.randn(B, a * (q + 1), h, w, generator=draw, dtype=dtype)
    return [(pred(1, 4, 2, 2, 3), 1, 2, 2), (pred(2, 4, 1, 5, 6), 3, 1, 1),
            (pred(3, 5, 4, 4, 4), 1, 3, 4), (pred(2, 3, 10, 1, 7), 0, 0, 10),
            (pred(2, 6, 20, 2, 2, torch.float64), 5, 20, 20)]


logit_map = Code(
    'logit_map(pred, i, j, num_classes)', 'predictors',
    'Which channel says what', _logits, _logit_inputs,
    [_no_background, _class_first, _shifted, _mixed_up, _kept,
     _probabilities], gradient=[0])


def _row(y=5, x=9, before=32 * 32 * 4, width=16, anchors=4, i=2):
    return before + (y * width + x) * anchors + i


row_of_anchor = Value(
    'row_of_anchor', 'concatenation', 'Rows of anchors', right=_row,
    kind='a whole number from 0 to 5443',
    mistakes={
        'Line and column are swapped: a map is read line by line.':
            lambda: _row(y=9, x=5),
        'The anchors of the first scale come before, all 4096 of them.':
            lambda: _row(before=0),
        'The first scale has 32 · 32 units, but four rows for each of them.':
            lambda: _row(before=32 * 32),
        'That is a map of 32 × 32. Lines of the second scale have 16 units.':
            lambda: _row(width=32),
        'That is the first scale. Scales are counted from 0 here.':
            lambda: _row(before=0, width=32),
        'That is the third scale. Scales are counted from 0 here.':
            lambda: _row(before=5120, width=8),
        'Each unit has four rows, not one.': lambda: _row(anchors=1),
        'Everything is counted from 0: the first row is row 0.':
            lambda: _row(i=3),
        'That is the first anchor of this unit. Which row has anchor 2?':
            lambda: _row(i=0),
    },
    think='Count in three steps: the scales before, the units of this scale '
          'before, the anchors of this unit before.')


def _place(row, shapes, num_anchors):
    if row >= 0:
        for scale, (h, w) in enumerate(shapes):
            if row < h * w * num_anchors:
                unit, i = divmod(row, num_anchors)
                return scale, unit // w, unit % w, i
            row -= h * w * num_anchors
    raise ValueError('no such row')


def _altered(change):
    """A mistake that changes the right place into a wrong one."""
    def mistake(row, shapes, num_anchors):
        scale, y, x, i = _place(row, shapes, num_anchors)
        return change(scale, y, x, i, row, shapes, num_anchors)
    mistake.__doc__ = change.__doc__
    return mistake


@_altered
def _x_first(scale, y, x, i, *_):
    """Line and column are swapped: asked for is (scale, y, x, i), and y is
    the line."""
    return scale, x, y, i


@_altered
def _by_height(scale, y, x, i, row, shapes, num_anchors):
    """Height and width are mixed up: a line is as long as the map is wide, so
    divide by w."""
    h, w = shapes[scale]
    unit = y * w + x
    return scale, unit // h, unit % h, i


@_altered
def _from_one(scale, y, x, i, *_):
    """The scales are counted from 1. The first one is scale 0."""
    return scale + 1, y, x, i


@_altered
def _not_subtracted(scale, y, x, i, row, shapes, num_anchors):
    """The rows of the scales before are still in the count when the line and
    the column are computed."""
    w = shapes[scale][1]
    unit = row // num_anchors
    return scale, unit // w, unit % w, i


def _unguarded(row, shapes, num_anchors):
    """There is no such row, and an answer that looks right is worse than an
    error: raise a ValueError."""
    total = sum(h * w for h, w in shapes) * num_anchors
    if 0 <= row < total:
        return _place(row, shapes, num_anchors)
    return None


def _early(row, shapes, num_anchors):
    """The first row of a scale was given to the scale before it: with n rows
    the last one is row n - 1."""
    if row < 0:
        raise ValueError
    for scale, (h, w) in enumerate(shapes):
        if row <= h * w * num_anchors:
            unit, i = divmod(row, num_anchors)
            return scale, unit // w, unit % w, i
        row -= h * w * num_anchors
    raise ValueError


def _negative(row, shapes, num_anchors):
    """A row below 0 does not exist either: raise a ValueError."""
    return _place(row, shapes, num_anchors) if row >= 0 else (
        0, *divmod(row // num_anchors, shapes[0][1]), row % num_anchors)


def _place_inputs():
    first = [(6, 10), (3, 5), (1, 1)]
    second = [(7, 4), (2, 9)]
    return [*((row, first, 4) for row in (0, 3, 4, 47, 239, 240, 271, 303)),
            *((row, second, 3) for row in (1, 50, 83, 84, 112, 137)),
            (5, [(1, 2), (0, 0), (1, 1)], 2), (304, first, 4),
            (-1, first, 4), (0, [], 4)]


place_of_row = Code(
    'place_of_row(row, shapes, num_anchors)', 'concatenation',
    'Rows of anchors', _place, _place_inputs,
    [_x_first, _by_height, _from_one, _not_subtracted, _early, _negative,
     _unguarded],
    devices=False)


def _field(convolutions=3, blocks=2, pool=2, strides=True):
    field = stride = 1
    for _ in range(blocks):
        field += (2 * convolutions + pool - 1) * stride
        stride *= 2 if strides else 1
    return field


receptive_field = Value(
    'receptive_field', 'blocks', 'What one unit sees', right=_field,
    kind='a whole number of units',
    mistakes={
        'That is two blocks of two convolutions, or one block of three taken '
        'twice. Here each has three, and in the second one a step is two '
        'units of the input.': lambda: _field(convolutions=2),
        'That is one block. There are two.': lambda: _field(blocks=1),
        'That is the base network of the page: three blocks of two '
        'convolutions.': lambda: _field(convolutions=2, blocks=3),
        'That is three blocks. There are two.': lambda: _field(blocks=3),
        'The stride is missing: behind the first pooling, neighbouring units '
        'lie two units of the input apart.': lambda: _field(strides=False),
        'The fields of the blocks do not multiply. Follow the picture layer '
        'by layer; each adds (k - 1) strides.': lambda: _field(blocks=1)**2,
        'The pooling windows look at two units, too, and so add one stride '
        'each.': lambda: _field(pool=1),
        'That is what a predictor behind it would see, with its own 3×3 '
        'window.': lambda: _field() + 8,
    },
    think='Make a table with a line for each layer: k, field, stride. For the '
          'block of the page it must end with 6.')


def _block(a, b, strides=(1, 2), padding=1, norm=True, last=(), relu=True):
    layers = []
    for c, stride in zip((a, b), strides):
        layers += [nn.Conv2d(c, b, 3, padding=padding, stride=stride)]
        layers += [nn.BatchNorm2d(b)] if norm else []
        layers += [nn.ReLU()]
    return nn.Sequential(*(layers if relu else layers[:-1]), *last)


def _first_strided(in_channels, out_channels):
    """The first convolution has the stride. Then the second one takes steps
    of two units, and the receptive field grows; it also works on a quarter of
    the units. Give the stride to the second one."""
    return _block(in_channels, out_channels, (2, 1))


def _both_strided(in_channels, out_channels):
    """Both convolutions have a stride of 2. Only the second shall halve."""
    return _block(in_channels, out_channels, (2, 2))


def _pooled(in_channels, out_channels):
    """The halving is done by pooling here. The stride of the second
    convolution shall do it instead."""
    return _block(in_channels, out_channels, (1, 1), last=[nn.MaxPool2d(2)])


def _pooled_too(in_channels, out_channels):
    """The pooling is still there, behind the stride: the map is halved
    twice."""
    return _block(in_channels, out_channels, last=[nn.MaxPool2d(2)])


def _unstrided(in_channels, out_channels):
    """Nothing halves the map: a stride of 2 is missing."""
    return _block(in_channels, out_channels, (1, 1))


def _unpadded(in_channels, out_channels):
    """Padding is missing: a 3×3 window fits around inner units only."""
    return _block(in_channels, out_channels, padding=0)


def _unnormed(in_channels, out_channels):
    """Batch norm is missing after the convolutions."""
    return _block(in_channels, out_channels, norm=False)


def _no_last_relu(in_channels, out_channels):
    """The ReLU after the second convolution is missing."""
    return _block(in_channels, out_channels, relu=False)


def _no_first_relu(in_channels, out_channels):
    """The ReLU after the first convolution is missing. Two convolutions with
    nothing but batch norm between them are no more than one."""
    blk = _block(in_channels, out_channels)
    return nn.Sequential(*blk[:2], *blk[3:])


def _gets_past(blk, X):
    """Whether something of an input gets past a batch norm that lets nothing
    through a ReLU behind it."""
    norms = [name for name, layer in blk.named_modules()
             if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    for name in norms:
        shut = copy.deepcopy(blk).eval()
        layer = shut.get_submodule(name)
        with torch.no_grad():
            layer.reset_running_stats()
            layer.bias.fill_(-1000)
            if (shut(X) - shut(X.flip(0))).abs().max() > 0.01:
                return True
    return False


def _open(blk):
    """A copy whose weights let everything through: no ReLU closes."""
    blk = copy.deepcopy(blk).eval()
    for layer in blk.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    with torch.no_grad():
        for parameter in blk.parameters():
            parameter.abs_().add_(0.1)
    return blk


def _block_facts(blk, in_channels, out_channels):
    """What can be seen of a block from outside."""
    if not isinstance(blk, nn.Module):
        raise Miss(f'Came {type(blk).__name__}, expected a module, such as '
                   'an nn.Sequential' + (': is there a `return`?'
                                         if blk is None else '') + '.')
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        X = torch.randn(2, in_channels, 8, 12)
        with torch.no_grad():
            shapes = {f'the shape for an input {tuple(x.shape)}':
                      tuple(blk(x).shape)
                      for x in (X, torch.rand(1, in_channels, 16, 16))}
            low = float(blk(X).min())
            near = float((blk(1000 * X) - blk(X)).abs().max())
        facts = {**shapes, 'the number of parameters, without the biases of '
                 'convolutions': _parameters(blk) - sum(
                     layer.bias.numel() for layer in blk.modules()
                     if isinstance(layer, nn.Conv2d)
                     and layer.bias is not None)}
        X = torch.rand(16, in_channels, 16, 16, requires_grad=True)
        Y = _open(blk)(X)
        seen = torch.autograd.grad(Y[:, :, 3, 3].sum(), X)[0].abs().sum((0, 1))
        past = _gets_past(blk, X.detach())
        blk.train()(X).square().sum().backward()
    facts['the units of the input that reach one unit, along a side'] = (
        int((seen > 0).any(0).sum()))
    facts['the output has numbers below 0'] = low < 0
    facts['an input 1000 times as large changes the output'] = near > 0.5
    facts['with one batch norm shifted far below 0, so that its ReLU gives 0, '
          'the input still changes the output'] = past
    facts['parameters without a gradient'] = sum(
        p.grad is None for p in blk.parameters())
    return facts


strided_blk = Code(
    'strided_blk(in_channels, out_channels)', 'blocks',
    'The downsampling block', _block,
    lambda: [(3, 8), (4, 4), (16, 5)],
    [_first_strided, _both_strided, _pooled, _pooled_too, _unstrided,
     _unpadded, _unnormed, _no_first_relu, _no_last_relu],
    facts=_block_facts, devices=False)
