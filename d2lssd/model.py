"""TinySSD: five feature maps, and on each of them two predictors."""
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from d2lssd.anchors import multibox_prior

sizes = [[0.2, 0.272], [0.37, 0.447], [0.54, 0.619], [0.71, 0.79],
         [0.88, 0.961]]
ratios = [[1, 2, 0.5]] * 5
num_anchors = len(sizes[0]) + len(ratios[0]) - 1
SIDES = 128, 2048  # least and greatest width and height of its pictures


def cls_predictor(num_inputs, num_anchors, num_classes):
    """Class prediction layer: logits of every anchor at every unit.

    Args:
        num_inputs: channels of the feature map.
        num_anchors: anchors at a unit.
        num_classes: q object classes; background is added.

    Returns:
        Convolution ``(B, num_inputs, h, w) → (B, num_anchors·(q+1), h, w)``;
        channel ``i·(q+1)+j`` is class j (0 = background) of anchor i.
    """
    return nn.Conv2d(num_inputs, num_anchors * (num_classes + 1),
                     kernel_size=3, padding=1)


def bbox_predictor(num_inputs, num_anchors):
    """Bounding box prediction layer: four offsets of every anchor.

    Args:
        num_inputs: channels of the feature map.
        num_anchors: anchors at a unit.

    Returns:
        Convolution ``(B, num_inputs, h, w) → (B, num_anchors·4, h, w)``.
    """
    return nn.Conv2d(num_inputs, num_anchors * 4, kernel_size=3, padding=1)


def forward(x, block):
    """Run one block on one input.

    Args:
        x: tensor that the block takes.
        block: a module.

    Returns:
        What the block gives.
    """
    return block(x)


def flatten_pred(pred):
    """Flatten a prediction map, channels innermost.

    Args:
        pred: tensor ``(B, c, h, w)``.

    Returns:
        Tensor ``(B, h·w·c)``: what belongs to one unit lies side by side.
    """
    return torch.flatten(pred.permute(0, 2, 3, 1), start_dim=1)


def concat_preds(preds):
    """Join the flattened prediction maps of all scales.

    Args:
        preds: list of tensors ``(B, c_i, h_i, w_i)``.

    Returns:
        Tensor ``(B, Σ h_i·w_i·c_i)``.
    """
    return torch.cat([flatten_pred(p) for p in preds], dim=1)


def down_sample_blk(in_channels, out_channels):
    """Downsampling block: two 3×3 convolutions, then half the size.

    Args:
        in_channels, out_channels: of the feature maps.

    Returns:
        Module ``(B, in_channels, h, w) → (B, out_channels, h/2, w/2)``; an
        output unit sees 6×6 input units.
    """
    blk = []
    for channels in (in_channels, out_channels):
        blk += [nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
                nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*blk, nn.MaxPool2d(2))


def base_net():
    """Base network: ``(B, 3, h, w) → (B, 64, h/8, w/8)``."""
    channels = [3, 16, 32, 64]
    return nn.Sequential(*[down_sample_blk(a, b)
                           for a, b in zip(channels, channels[1:])])


def get_blk(i):
    """Block i of the five that TinySSD is made of, i in 0 … 4."""
    if i == 0:
        return base_net()
    if i == 1:
        return down_sample_blk(64, 128)
    if i == 4:
        return nn.AdaptiveMaxPool2d((1, 1))
    return down_sample_blk(128, 128)


def blk_forward(X, blk, size, ratio, cls_predictor, bbox_predictor):
    """Run one block and predict on the feature map that it gives.

    Args:
        X: tensor ``(B, c, h, w)``, the previous block's output.
        blk: the block.
        size, ratio: of this scale's anchors; see `multibox_prior`.
        cls_predictor, bbox_predictor: the two layers of this scale.

    Returns:
        Tuple ``(Y, anchors, cls_preds, bbox_preds)``: the feature map, its
        anchors ``(1, A, 4)`` and the two prediction maps.
    """
    Y = blk(X)
    anchors = multibox_prior(Y, size, ratio)
    return Y, anchors, cls_predictor(Y), bbox_predictor(Y)


def check_sizes(sizes):
    """Make sure that a network can have anchors of these sizes.

    Raises:
        ValueError: not five pairs of numbers above 0, at most 2.
    """
    try:
        fit = torch.tensor(sizes).shape == (5, 2)
        fit = fit and all(0 < size <= 2 for pair in sizes for size in pair)
    except (TypeError, ValueError, RuntimeError):
        fit = False
    if not fit:
        raise ValueError(f'sizes = {str(sizes)[:100]}: five pairs of numbers '
                         'are needed, each above 0 and at most 2')


class TinySSD(nn.Module):
    """A small single-shot multibox detector (SSD, figure 2, made tiny).

    Input: float tensor ``(B, 3, 256, 256)``, RGB, 0–255. Other heights and
    widths from 128 on give more or fewer anchors, but what a network learnt at
    one size it finds at that size alone. Output: anchors ``(1, A, 4)``, corner
    format, relative to the image; class logits ``(B, A, num_classes+1)``, 0 is
    background; offsets ``(B, 4A)``. A is 5444 for 256×256.

    Args:
        num_classes: object classes, background not counted.

    ``net.sizes`` are those of its anchors, `sizes` at first; others may take
    their place, five pairs relative to the image. ``net.side``, where it
    is known, is the width and height of the pictures that it learnt from, to
    which `detect` and `evaluate` bring others. ``net.judge``, where there is
    one, scores boxes in place of their anchors, see `teach_judge`; what the
    network gives is the same with it.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.sizes = sizes
        for i, channels in enumerate([64, 128, 128, 128, 128]):
            setattr(self, f'blk_{i}', get_blk(i))
            setattr(self, f'cls_{i}',
                    cls_predictor(channels, num_anchors, num_classes))
            setattr(self, f'bbox_{i}', bbox_predictor(channels, num_anchors))

    def forward(self, X):
        anchors, cls_preds, bbox_preds = [None] * 5, [None] * 5, [None] * 5
        for i in range(5):
            X, anchors[i], cls_preds[i], bbox_preds[i] = blk_forward(
                X, getattr(self, f'blk_{i}'), self.sizes[i], ratios[i],
                getattr(self, f'cls_{i}'), getattr(self, f'bbox_{i}'))
        cls_preds = concat_preds(cls_preds)
        return (torch.cat(anchors, dim=1),
                cls_preds.reshape(len(cls_preds), -1, self.num_classes + 1),
                concat_preds(bbox_preds))


def judge_of(net):
    """The ``net.judge``, or None, where there is none."""
    return getattr(net, 'judge', None)


def side_of(net):
    """The ``net.side``, or None, if nobody says."""
    return getattr(net, 'side', None)


def fitting(X, net):
    """Bring images to where a network is, and to the size of those that it
    learnt from, if that is known.

    Args:
        X: float tensor ``(B, 3, h, w)``, 0–255.
        net: a `TinySSD`.

    Returns:
        Float tensor ``(B, 3, h', w')``.

    Raises:
        ValueError: it is something else, or seems to be from 0 to 1.
    """
    check_images(X)
    return enlarge(X.to(next(net.parameters()).device),
                   side_of(net) or X.shape[-1])


def check_images(X):
    """Refuse images that no network here can have learnt from.

    Args:
        X: float tensor ``(B, 3, h, w)``, 0–255.

    Raises:
        ValueError: it is something else, or seems to be from 0 to 1.
    """
    what = f'images: {X.dtype} of shape {tuple(X.shape)}'
    if not (X.ndim == 4 and X.shape[1] == 3 and len(X)
            and X.is_floating_point()):
        raise ValueError(f'{what}; floats (B, 3, h, w), from 0 to 255, are '
                         'needed, as a DataLoader gives them')
    if 0 < X.max() <= 1:
        raise ValueError(f'{what}, up to {X.max():g}; 0 to 255 is needed')


def enlarge(X, side):
    """Enlarge square pictures; labels, being relative, stay as they are.

    Args:
        X: float tensor ``(B, 3, s, s)``.
        side: pixels a side.

    Returns:
        Float tensor ``(B, 3, side, side)``; X itself if it has this size.
    """
    if X.shape[-1] == side:
        return X
    return F.interpolate(X, size=(side, side), mode='bilinear')


@contextmanager
def evaluating(net):
    """Run a network as it is, for prediction: no dropout, batch norm fixed.

    Inside the ``with`` block no graph is built; afterwards every layer is in
    the mode in which it was before, whatever happened.

    Args:
        net: a module.
    """
    modes = [(layer, layer.training) for layer in net.modules()]
    if any(training for _, training in modes):
        net.eval()
    try:
        with torch.no_grad():
            yield net
    finally:
        for layer, training in modes:
            if layer.training != training:  # to set it takes its time
                layer.training = training
