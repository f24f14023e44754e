"""The classes that a network finds: their names, and how to change them."""
import copy
import math
import warnings

import torch

from d2lssd.data import BANANA_CLASSES, class_names
from d2lssd.data.labels import checked_classes, class_number, short
from d2lssd.model import cls_predictor, num_anchors


def classes_of(net):
    """Names of the classes that a network finds.

    Args:
        net: a `TinySSD`.

    Returns:
        List of strings, in the order of the class numbers. Training and
        `load_weights` note them in ``net.classes``; a network without them
        finds bananas if it has one class, else its classes are numbers.
    """
    names = getattr(net, 'classes', None)
    if names is None:
        names = (BANANA_CLASSES if net.num_classes == len(BANANA_CLASSES)
                 else [str(i) for i in range(net.num_classes)])
    return list(names)


def classes_in(source):
    """Names of the classes in a source of pictures.

    Args:
        source: as for `load_data_bananas`.

    Returns:
        List of strings, in the order of their numbers.

    Raises:
        ValueError: a folder in which no object is labelled.
    """
    if source in ('drawn', 'd2l'):
        return list(BANANA_CLASSES)
    names = class_names(source)
    if not names:
        raise ValueError(f'{source}: no box in it, so there is nothing to '
                         f'learn; `python -m d2lssd data check {source}` '
                         'shows what is read')
    return names


def check_classes(net, source):
    """Make sure that a network knows the classes of a source by their names.

    Args:
        net: a `TinySSD`.
        source: as for `load_data_bananas`.

    Returns:
        List of strings: the network's classes, for `read_data_bananas`.

    Raises:
        ValueError: a class of the source that the network cannot find.
    """
    known = classes_of(net)
    strange = [name for name in classes_in(source)
               if class_number(name, known) is None]
    if source in ('drawn', 'd2l') and known != BANANA_CLASSES:
        strange = BANANA_CLASSES  # whose numbers are fixed
    if strange:
        raise ValueError(
            f'{source}: labels {", ".join(map(short, strange))}, and these '
            f'weights find {", ".join(map(short, known))}; take weights that '
            'were trained on such pictures')
    if numbers := [name for name in classes_in(source) if name not in known]:
        warnings.warn(f'{source}: ' + ', '.join(
            f'class {short(name)} is taken for '
            f'{short(known[class_number(name, known)])}'
            for name in numbers[:5]) + ', …' * (len(numbers) > 5),
            stacklevel=2)
    return known


def adapt(net, classes):
    """Let a trained network learn other classes, with all that still fits.

    Blocks and box predictors say nothing about classes and are kept. So are
    the class predictors' channels of the background and of each class whose
    name the network knows. A new class starts as the mean of the classes
    known so far, on which it is a fair first guess that here is *something*;
    k new classes share its score, each lowered by log k. So if none of the old
    classes is kept, the background stays about as likely as it was.

    Args:
        net: a `TinySSD`.
        classes: list of names, in the order of the class numbers.

    Returns:
        The network itself if it finds these classes in this order, or if its
        classes have no names and are as many; else a new `TinySSD` on the
        same device, in the same mode.
    """
    classes = checked_classes(classes)
    named = hasattr(net, 'classes')
    if (classes_of(net) == classes if named
            else net.num_classes == len(classes)):
        net.classes = classes
        return net
    known = classes_of(net)
    new = copy.deepcopy(net)
    new.num_classes, new.classes = len(classes), classes
    lower = math.log(max(1, len(set(classes) - set(known))))
    for i in range(5):
        old = getattr(net, f'cls_{i}')
        layer = cls_predictor(old.in_channels, num_anchors, len(classes))
        with torch.no_grad():
            layer.weight.copy_(_rearranged(old.weight, known, classes, 0))
            layer.bias.copy_(_rearranged(old.bias, known, classes, lower))
        layer.weight.requires_grad_(old.weight.requires_grad)
        layer.bias.requires_grad_(old.bias.requires_grad)
        setattr(new, f'cls_{i}', layer.to(old.weight).train(old.training))
    return new


def _rearranged(values, known, classes, lower):
    """The class predictor's numbers ``(a·(q+1), ...)`` for other classes."""
    old = values.unflatten(0, (num_anchors, -1))  # (a, q+1, ...)
    strange = old[:, 1:].mean(1) - lower
    parts = [old[:, 0]] + [
        old[:, 1 + known.index(name)] if name in known else strange
        for name in classes]
    return torch.stack(parts, 1).flatten(0, 1)
