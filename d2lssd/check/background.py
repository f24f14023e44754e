"""Checks of boxes and anchors, and of the banana data."""
import torch

from d2lssd.boxes import box_center_to_corner, box_iou
from d2lssd.check.core import Code, Value
from d2lssd.model import sizes

BOXES = 'background/boxes-and-anchors'
DATA = 'background/banana-data'


def _boxes(n, generator, dtype=torch.float32):
    """Boxes in the unit square, sides from 0.1 to 0.6."""
    center, size = torch.rand(2, n, 2, generator=generator, dtype=dtype)
    return box_center_to_corner(torch.cat([center, 0.1 + size / 2], 1))


# Which row of the table each anchor takes; the table stands in the exercise.
matching_by_hand = Value(
    'matching_by_hand', BOXES, 'Which anchor learns which object?',
    right=lambda: [1, 1, 0, -1, 2],
    kind='a list of five whole numbers, one for each anchor: a box, or -1',
    mistakes={
        'This is rule 2 alone. By rule 1 every box takes an anchor first, '
        'even where another box overlaps that anchor more.':
            [1, 1, -1, -1, -1],
        'This is rule 1 alone. What does rule 2 say of the anchors that are '
        'left over?': [1, -1, 0, -1, 2],
        'The boxes chose in the order of their numbers. The greatest IoU of '
        'the whole table goes first, whoever it belongs to.':
            [0, 1, -1, -1, 2],
        'Here two boxes took the same anchor, and one of them lost it. An '
        'anchor that is taken is struck out, and the box takes its next '
        'best.': [1, 1, -1, -1, 2],
        'A left-over anchor got a box that it hardly overlaps. Rule 2 has a '
        'threshold.': [1, 1, 0, 2, 2],
        'These are counted from 1, with 0 for background, as class labels '
        'are. Here the rows of the boxes are asked for: 0, 1, 2, and -1.':
            [2, 2, 1, 0, 3],
    },
    think='Cover the table with your hand, write down each pair in the order '
          'in which rule 1 takes it, and strike out its row and column.')


def _parts(boxes1, boxes2, least=0):
    low = torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    high = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    side = high - low
    shared = (side if least is None else side.clamp(min=least)).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes1, boxes2)]
    return shared, areas[0][:, None], areas[1]


def _unclamped(boxes1, boxes2):
    """Boxes that do not meet have a shared width or height below 0, and two
    numbers below 0 multiply to one above: they must not count as overlap."""
    shared, area1, area2 = _parts(boxes1, boxes2, None)
    return shared / (area1 + area2 - shared)


def _shared_twice(boxes1, boxes2):
    """The union counts the shared area twice."""
    shared, area1, area2 = _parts(boxes1, boxes2)
    return shared / (area1 + area2)


def _of_smaller(boxes1, boxes2):
    """The shared area is divided by the area of the smaller box. Then a box
    as large as the picture would agree with everything: divide by the union.
    """
    shared, area1, area2 = _parts(boxes1, boxes2)
    return shared / torch.minimum(area1, area2)


def _centers(boxes1, boxes2):
    """Corner and centre mixed up: the four numbers are two corners, not a
    centre, a width and a height."""
    return box_iou(*map(box_center_to_corner, (boxes1, boxes2)))


def _turned(boxes1, boxes2):
    """The table lies on its side: a row for each box of the first list, a
    column for each of the second."""
    return box_iou(boxes2, boxes1)


def _row_by_row(boxes1, boxes2):
    """Box i of one list met box i of the other only. All pairs are asked for:
    give one list a dimension more, `boxes1[:, None]`, and let it broadcast."""
    side = (torch.minimum(boxes1[:, 2:], boxes2[:, 2:])
            - torch.maximum(boxes1[:, :2], boxes2[:, :2])).clamp(min=0)
    shared = side.prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes1, boxes2)]
    return shared / (areas[0] + areas[1] - shared)


def _with_epsilon(small):
    def mistake(boxes1, boxes2):
        shared, area1, area2 = _parts(boxes1, boxes2)
        return shared / (area1 + area2 - shared + small)
    mistake.__doc__ = (
        'A small number is added to the union, and the IoU is no longer what '
        'it was. These boxes have an area, so nothing is divided by 0: leave '
        'it out.')
    return mistake


def _iou_inputs():
    draw = torch.Generator().manual_seed(1)
    return [(torch.tensor([[0., 0, 4, 4]]),
             torch.tensor([[2., 1, 6, 5], [3.5, -0.5, 8, 3], [6, 7, 9, 8]])),
            (_boxes(5, draw), _boxes(3, draw)),
            (_boxes(4, draw), _boxes(4, draw)),
            (_boxes(6, draw) * 256, _boxes(2, draw) * 256),
            (_boxes(3, draw, torch.float64), _boxes(7, draw, torch.float64)),
            (_boxes(0, draw), _boxes(3, draw)),
            (_boxes(3, draw), _boxes(0, draw))]


def _more_boxes():
    draw = torch.Generator().manual_seed(2)
    return [(_boxes(n, draw), _boxes(n, draw)) for n in (4, 40)]


pairwise_iou = Code(
    'pairwise_iou(boxes1, boxes2)', BOXES, 'How much do two boxes agree?',
    box_iou, _iou_inputs,
    [_unclamped, _shared_twice, _of_smaller, _centers, _turned, _row_by_row,
     *map(_with_epsilon, (1e-7, 1e-6, 1e-5))],
    gradient=[0, 1], larger=_more_boxes)


smallest_match = Value(
    'smallest_match', DATA, 'Where the matches lie',
    right=lambda: 256 * sizes[1][0] * 0.5**0.5, tolerance=0.005,
    kind='a number of pixels',
    mistakes={
        'That is half of the side of the anchor. But IoU compares areas, and '
        'half of the side makes a quarter of the area.':
            lambda: 128 * sizes[1][0],
        'That is a part of the picture. In pixels, of 256?':
            lambda: sizes[1][0] * 0.5**0.5,
        'That belongs to the larger of the two squares. The smaller one is '
        'matched sooner.': lambda: 256 * sizes[1][1] * 0.5**0.5,
        'That is the anchor itself, with an IoU of 1. An IoU of 0.5 is '
        'enough.': lambda: 256 * sizes[1][0],
        'A banana so large is matched too, but a smaller one is asked for: '
        'it may lie inside the anchor.': lambda: 256 * sizes[1][0] * 2**0.5,
        'That belongs to the first map, the one with 32 × 32 units.':
            lambda: 256 * sizes[0][0] * 0.5**0.5,
    },
    think='The banana lies inside the anchor. What is the union, then, and '
          'which part of it is shared?')


def _mirrored(images, labels):
    flipped = labels.clone()
    flipped[..., 1], flipped[..., 3] = 1 - labels[..., 3], 1 - labels[..., 1]
    real = labels[..., :1] >= 0
    return images.flip(-1), torch.where(real, flipped, labels)


def _swapped_corners(images, labels):
    """What was the left edge is now the right one: as it is, x_min is greater
    than x_max, and the boxes have a width below 0."""
    labels = labels.clone()
    real = labels[..., 0] >= 0
    labels[..., 1] = torch.where(real, 1 - labels[..., 1], labels[..., 1])
    labels[..., 3] = torch.where(real, 1 - labels[..., 3], labels[..., 3])
    return images.flip(-1), labels


def _padding_too(images, labels):
    """Padding was mirrored like a box. A row whose class is -1 is no box: the
    whole row stays -1."""
    flipped = labels.clone()
    flipped[..., 1], flipped[..., 3] = 1 - labels[..., 3], 1 - labels[..., 1]
    return images.flip(-1), flipped


def _upside_down(images, labels):
    """The pictures stand on their head. Of (N, 3, h, w) the last dimension
    runs from left to right."""
    return images.flip(-2), _mirrored(images, labels)[1]


def _upside_down_both(images, labels):
    """Pictures and boxes stand on their head. Of (N, 3, h, w) the last
    dimension runs from left to right, and of a box the x are numbers 1 and 3
    of its row."""
    flipped = labels.clone()
    flipped[..., 2], flipped[..., 4] = 1 - labels[..., 4], 1 - labels[..., 2]
    real = labels[..., :1] >= 0
    return images.flip(-2), torch.where(real, flipped, labels)


def _labels_forgotten(images, labels):
    """The pictures are mirrored, but the boxes still lie where they were."""
    return images.flip(-1), labels


def _pixels(images, labels):
    """Pixels and parts of the picture mixed up: in the labels the right edge
    of the picture is 1, not its width."""
    width = images.shape[-1]
    flipped = labels.clone()
    flipped[..., 1] = width - labels[..., 3]
    flipped[..., 3] = width - labels[..., 1]
    real = labels[..., :1] >= 0
    return images.flip(-1), torch.where(real, flipped, labels)


def _channels(images, labels):
    """All dimensions of the pictures were turned, colours and order too."""
    return images.flip((0, 1, 2, 3)), _mirrored(images, labels)[1]


def _pictures(N, m, generator, dtype=torch.float32, padded=True):
    images = torch.randint(0, 256, (N, 3, 6, 8), dtype=torch.uint8,
                           generator=generator)
    boxes = _boxes(N * m, generator, dtype).reshape(N, m, 4).clamp(0, 1)
    kinds = torch.randint(0, 3, (N, m, 1), generator=generator).to(dtype)
    labels = torch.cat([kinds, boxes], 2)
    if padded and N * m:
        labels[::2, -1] = -1
    return images, labels


def _mirror_inputs():
    draw = torch.Generator().manual_seed(3)
    images, labels = _pictures(2, 2, draw, torch.float64)
    return [_pictures(1, 1, draw, padded=False), _pictures(3, 2, draw),
            (images.double(), labels), _pictures(4, 3, draw),
            _pictures(2, 0, draw), _pictures(0, 2, draw)]


def _more_pictures():
    draw = torch.Generator().manual_seed(4)
    return [_pictures(N, m, draw) for N, m in [(2, 1), (32, 12)]]


mirror = Code(
    'mirror(images, labels)', DATA, 'Several bananas, or none', _mirrored,
    _mirror_inputs,
    [_swapped_corners, _padding_too, _upside_down, _upside_down_both,
     _labels_forgotten, _pixels, _channels], larger=_more_pictures)


def _class_counts(labels, num_classes):
    kinds = labels[..., 0]
    return kinds[kinds >= 0].long().bincount(minlength=num_classes)


def _padding_as_background(labels, num_classes):
    """Padding is counted as background. It is no object and no background,
    only what fills the tensor up; leave out the rows of class -1."""
    return (labels[..., 0].flatten().long() + 1).bincount(
        minlength=num_classes + 1)


def _padding_as_first(labels, num_classes):
    """Padding is counted as an object of class 0. Leave out the rows of class
    -1."""
    return labels[..., 0].flatten().long().clamp(0).bincount(
        minlength=num_classes)


def _padding_as_last(labels, num_classes):
    """Padding is counted as an object of the last class, for -1 is the last
    place of a tensor. Leave out the rows of class -1."""
    kinds = labels[..., 0].flatten().long() % num_classes
    return kinds.bincount(minlength=num_classes)


def _seen_alone(labels, num_classes):
    """A class without any object is left out at the end; its number is 0."""
    return _class_counts(labels, 0)


def _by_picture(labels, num_classes):
    """These are numbers for each picture. Those of all pictures together are
    asked for."""
    return torch.stack([_class_counts(one, num_classes) for one in labels])


def _counts_inputs():
    draw = torch.Generator().manual_seed(11)

    def labels(N, m, dtype=torch.float32):
        return _pictures(N, m, draw, dtype)[1]
    return [(labels(2, 2), 3), (labels(4, 3), 5), (labels(1, 6), 3),
            (labels(6, 4, torch.float64), 4), (labels(3, 0), 2),
            (labels(0, 2), 3), (torch.full((2, 3, 5), -1.), 1)]


def _more_labels():
    draw = torch.Generator().manual_seed(12)
    return [(_pictures(N, m, draw)[1], 3) for N, m in [(2, 2), (32, 12)]]


class_counts = Code(
    'class_counts(labels, num_classes)', DATA, 'Several bananas, or none',
    _class_counts, _counts_inputs,
    [_padding_as_background, _padding_as_first, _padding_as_last, _seen_alone,
     _by_picture], larger=_more_labels)
