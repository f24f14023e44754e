"""Checks of average precision, of speed, and of your own pictures."""
import importlib
import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from d2lssd.boxes import box_iou
from d2lssd.check.compare import Raised, outcome_of
from d2lssd.check.core import Code, Value

# Of eight detections by falling score, which are right; the table stands in
# the exercise.
RIGHT = [1, 0, 1, 1, 0, 0, 1, 0]


def _area(right=RIGHT, objects=7, raised=True):
    """Mean of the best precisions at the recalls 0.00, 0.01, … 1.00."""
    found, curve = 0, []
    for count, hit in enumerate(right, 1):
        found += hit
        curve.append((found, found / count))
    total = 0
    for percent in range(101):
        there = [precision for found, precision in curve
                 if 100 * found >= percent * objects]
        total += (max(there) if raised else there[0]) if there else 0
    return total / 101


ap_by_hand = Value(
    'ap_by_hand', 'beyond/average-precision', 'The threshold falls',
    right=_area, kind='a number, three digits of it', tolerance=0.001,
    mistakes={
        'The second box on banana a counts as right here. A banana is claimed '
        'once; what comes later is false, however well it fits.':
            lambda: _area([1, 0, 1, 1, 0, 1, 1, 0]),
        'The better fit has claimed banana a here. The higher score goes '
        'first, and an IoU of 0.5 is enough.':
            lambda: _area([0, 0, 1, 1, 0, 1, 1, 0]),
        'The box on banana e counts as right here; its IoU is too low.':
            lambda: _area([1, 0, 1, 1, 1, 0, 1, 0]),
        'The boxes stand picture by picture here. Sort them all together by '
        'their scores.': lambda: _area([1, 1, 0, 1, 0, 1, 0, 0]),
        'This is the mean over the two pictures. There is one list of boxes '
        'for both, and one curve.': lambda: (
            _area([1, 1, 0, 1], 3) + _area([0, 1, 0, 0], 4)) / 2,
        'The teeth are still there: each recall is given the best precision '
        'that can be had at this recall *or beyond*.':
            lambda: _area(raised=False),
        'Recall is the share of all bananas, also of those that no box '
        'ever claims.': lambda: _area(objects=4),
        'This is the area under the staircase itself. The page measures it at '
        '101 recalls, and both ends count.':
            lambda: (1 + 3 / 4 + 3 / 4 + 4 / 7) / 7,
        'This is the precision once all eight boxes are shown, one point of '
        'the curve.': 0.5,
    },
    think='Make the table of the page, a row for each box by falling score: '
          'right or false, TP, FP, precision, recall. Then the best precision '
          'from each row on.')


def _lowest(scores, right, least):
    good = [float(score) for score in scores
            if right[scores >= score].double().mean() >= least]
    return min(good, default=math.inf)


def _sorted(scores, right):
    """Scores by falling score, and the precision behind each of them."""
    scores, order = scores.sort(descending=True, stable=True)
    count = torch.arange(1, len(scores) + 1)
    return scores, right[order].cumsum(0).double() / count


def _least_of(good):
    return float(good.min()) if len(good) else math.inf


def _as_listed(scores, right, least):
    """The detections were counted in the order in which they came, picture by
    picture. A threshold lets the highest scores pass first, of whatever
    picture."""
    count = torch.arange(1, len(scores) + 1)
    return _least_of(scores[right.cumsum(0).double() / count >= least])


def _first_drop(scores, right, least):
    """The search ended where precision first fell below `least`. Precision
    has teeth: right ones further down can lift it again."""
    scores, precision = _sorted(scores, right)
    return _least_of(scores[(precision >= least).cumprod(0).bool()])


def _highest(scores, right, least):
    """This threshold is good enough, but not the lowest that is; a lower one
    finds more."""
    good = [score for score in scores.tolist()
            if _lowest(scores[scores >= score], right[scores >= score],
                       least) < math.inf]
    return max(good, default=math.inf)


def _more_than(scores, right, least):
    """A share of just `least` is enough: it says *at least*."""
    return _lowest(scores, right, least + 1e-9)


def _ties_apart(scores, right, least):
    """Equal scores pass a threshold together, all of them or none. You
    counted only some."""
    scores, precision = _sorted(scores, right)
    return _least_of(scores[precision >= least])


def _by_recall(scores, right, least):
    """That is recall, the share of the right ones that pass. Asked for is
    the share of those that pass which are right."""
    scores, precision = _sorted(scores, right)
    found = precision * torch.arange(1, len(scores) + 1)
    passed = found >= least * right.sum()
    return float(scores[passed].max()) if passed.any() else math.inf


def _any_recall(scores, right, least):
    """That is the lowest score of all. Is precision compared with `least`, or
    recall?"""
    return _least_of(scores)


def _the_share(scores, right, least):
    """That is a precision. Asked for is the score at which it is reached."""
    lowest = _lowest(scores, right, least)
    if lowest == math.inf:
        return lowest
    return float(right[scores >= lowest].double().mean())


def _the_place(scores, right, least):
    """That is a place in the sorted list. Asked for is the score there."""
    scores, precision = _sorted(scores, right)
    good = (precision >= least).nonzero()
    return int(good.max()) if len(good) else math.inf


def _instead_of_inf(answer):
    def mistake(scores, right, least):
        lowest = _lowest(scores, right, least)
        return answer(scores) if lowest == math.inf else lowest
    mistake.__doc__ = (
        'No threshold is good enough here. Say so with inf, which no score '
        'reaches: with any other answer something would be shown.')
    return mistake


def _threshold_inputs():
    draw = torch.Generator().manual_seed(11)

    def drawn(n, digits=None, dtype=torch.float32):
        scores = torch.rand(n, generator=draw, dtype=dtype)
        right = torch.rand(n, generator=draw, dtype=dtype) < scores
        return scores if digits is None else scores.round(
            decimals=digits), right

    def listed(*pairs):
        scores, right = zip(*pairs)
        return torch.tensor(scores), torch.tensor(right).bool()
    return [
        (*listed((.95, 1), (.85, 1), (.7, 0), (.6, 0), (.4, 1), (.2, 0)), .55),
        (*listed((.6, 1), (.3, 0), (.9, 0), (.8, 1), (.7, 1), (.1, 0)), .7),
        (*listed((.9, 1), (.8, 1), (.7, 1), (.5, 0), (.4, 0)), 0.75),
        (*listed((.7, 0), (.8, 1), (.9, 1), (.8, 0), (.8, 0)), 0.6),
        (*listed((.3, 0), (.9, 0), (.6, 1)), 0.85),
        (*listed((.4, 1), (.2, 1)), 1.),
        (*drawn(200), 0.77), (*drawn(150, dtype=torch.float64), 0.83),
        (*drawn(300, 2), 0.79), (torch.zeros(0), torch.zeros(0).bool(), 0.5)]


def _more_scores():
    draw = torch.Generator().manual_seed(12)
    return [(torch.rand(n, generator=draw),
             torch.rand(n, generator=draw) < 0.7, 0.8) for n in (8, 128)]


lowest_threshold = Code(
    'lowest_threshold(scores, right, least)', 'beyond/average-precision',
    'The threshold falls', _lowest, _threshold_inputs,
    [_as_listed, _ties_apart, _first_drop, _highest, _more_than, _by_recall,
     _any_recall, _the_share, _the_place,
     *map(_instead_of_inf, (lambda scores: None, lambda scores: 0,
                            lambda scores: 0., lambda scores: 1.,
                            lambda scores: float(scores.max())))],
    larger=_more_scores, devices=False)


def _times_as_fast(targets=20, convolutions=2, rest=0.25):
    return 1 / (0.4 / targets + 0.35 / convolutions + rest)


two_gains = Value(
    'two_gains', 'beyond/speed', 'Look before you mend',
    right=_times_as_fast, kind='a number of times, three digits of it',
    tolerance=0.005,
    mistakes={
        'The gains multiply here, as if each held for the whole step. Each '
        'holds for its share.': 40,
        'The gains were averaged by their shares. What adds up is time: how '
        'much of each share is left?': 0.4 * 20 + 0.35 * 2 + 0.25,
        'This is the mean of the two gains; the shares count, and so does the '
        'rest of the step.': 11,
        'This is the time that is left, as a share of the old one. Asked for '
        'is how many times as fast that is.': lambda: 1 / _times_as_fast(),
        'This is the share of the time that is saved. Asked for is how many '
        'times as fast the step is.': lambda: 1 - 1 / _times_as_fast(),
        'This is the gain of the targets alone.':
            lambda: _times_as_fast(convolutions=1),
        'This is the gain of the convolutions alone.':
            lambda: _times_as_fast(targets=1),
        'Two whole gains do not multiply: in the second one the share of the '
        'convolutions is that of the *old* step, but by then the step is '
        'shorter.': lambda: (_times_as_fast(convolutions=1)
                             * _times_as_fast(targets=1)),
        'The rest of the step takes its time as before.':
            lambda: _times_as_fast(rest=0),
        'That would be so if targets and convolutions took no time at all.':
            lambda: _times_as_fast(math.inf, math.inf),
    },
    think='Let the old step take 100 ms. How many of them does each of the '
          'three parts take afterwards?')


def _nms(boxes, scores, threshold, chunk):
    from torchvision.ops import nms  # not needed to train, and it is large
    return nms(boxes, scores, threshold)


def _chunked(boxes, scores, threshold, chunk, order=None, strike='kept',
             equal=False, reach=None, rounds=None):
    """A suppression put together from right and wrong parts.

    Args:
        order: places of the boxes as they are taken.
        strike: 'kept', 'all' or 'none' of a chunk strike boxes of the rest.
        equal: whether an IoU equal to the threshold strikes.
        reach: how many boxes of the rest are looked at, none: all.
        rounds: how many chunks are looked at, none: all.
    """
    rest, kept = order, []
    if rest is None:
        rest = scores.argsort(descending=True)
    while len(rest) and rounds != 0:
        rounds = None if rounds is None else rounds - 1
        best, rest = rest[:chunk], rest[chunk:]
        stay = best[_nms(boxes[best], scores[best], threshold, chunk)]
        kept.append(stay)
        by = {'kept': stay, 'all': best, 'none': best[:0]}[strike]
        iou = box_iou(boxes[by], boxes[rest[:reach]])
        struck = (iou >= threshold if equal else iou > threshold).any(0)
        rest = torch.cat([rest[:reach][~struck], rest[len(struck):]])
    return torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64)


def _each_alone(boxes, scores, threshold, chunk):
    """Each chunk was settled on its own. What it keeps must also strike boxes
    of the chunks that come later."""
    return _chunked(boxes, scores, threshold, chunk, strike='none')


def _struck_strike(boxes, scores, threshold, chunk):
    """Boxes that were struck themselves strike others here. Only those that
    their chunk keeps may."""
    return _chunked(boxes, scores, threshold, chunk, strike='all')


def _next_alone(boxes, scores, threshold, chunk):
    """What a chunk keeps strikes boxes of the next chunk alone. It must strike
    in all that is left."""
    return _chunked(boxes, scores, threshold, chunk, reach=chunk)


def _equal_strikes(boxes, scores, threshold, chunk):
    """An IoU equal to the threshold is not above it, and strikes nothing,
    also not between two chunks."""
    return _chunked(boxes, scores, threshold, chunk, equal=True)


def _as_given(boxes, scores, threshold, chunk):
    """The chunks were cut from the list as it came. The best boxes go first:
    sort by falling score before you cut."""
    return _chunked(boxes, scores, threshold, chunk,
                    order=torch.arange(len(boxes)))


def _worst_first(boxes, scores, threshold, chunk):
    """The lowest scores went first."""
    return _chunked(boxes, scores, threshold, chunk, order=scores.argsort())


def _last_lost(boxes, scores, threshold, chunk):
    """The boxes behind the last full chunk are lost: the last one may be
    shorter."""
    return _chunked(boxes, scores, threshold, chunk,
                    rounds=len(boxes) // chunk)


def _first_chunk(boxes, scores, threshold, chunk):
    """That is the first chunk alone. Go on with what is left."""
    return _chunked(boxes, scores, threshold, chunk, rounds=1)


def _ranks(boxes, scores, threshold, chunk):
    """These are places in the sorted list. Asked for are places in `boxes`, as
    it came."""
    order = scores.argsort(descending=True)
    return _nms(boxes[order], scores[order], threshold, chunk)


def _by_place(boxes, scores, threshold, chunk):
    """The right boxes, but in the order of their places. Asked for is the
    order of falling scores."""
    return _nms(boxes, scores, threshold, chunk).sort().values


def _kept_boxes(boxes, scores, threshold, chunk):
    """These are the boxes. Asked for are their places."""
    return boxes[_nms(boxes, scores, threshold, chunk)]


def _kept_mask(boxes, scores, threshold, chunk):
    """That is a mask. Asked for are the places, by falling score."""
    mask = torch.zeros(len(boxes), dtype=torch.bool)
    mask[_nms(boxes, scores, threshold, chunk)] = True
    return mask


def _heaps(n, side, seed, dtype=torch.float32):
    """Boxes on a square, and scores that all differ."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=draw, dtype=dtype)
    size = side * (0.5 + torch.rand(n, 2, generator=draw, dtype=dtype))
    scores = (torch.randperm(n, generator=draw) + 1) / (n + 1)
    return torch.cat([corner, corner + size], 1), scores.to(dtype)


def _chunk_inputs():
    halves = torch.tensor([[0., 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 0.75],
                           [2, 0, 3, 1]])
    return [(*_heaps(12, 0.5, 13), 0.3, 4),
            (halves, torch.tensor([0.9, 0.5, 0.8, 0.7]), 0.5, 2),
            (*_heaps(50, 0.3, 14), 0.2, 7), (*_heaps(80, 0.2, 15), 0.5, 1),
            (*_heaps(64, 0.4, 16, torch.float64), 0.35, 16),
            (*_heaps(200, 0.15, 17), 0.15, 30), (*_heaps(5, 0.9, 18), 0.1, 9),
            (torch.zeros(0, 4), torch.zeros(0), 0.5, 3)]


class _Watch(TorchDispatchMode):
    """Notes how many boxes, numbers and calls suppression takes."""

    boxes = numbers = calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.calls += 1
        if function.name() == 'torchvision::nms':
            self.boxes = max(self.boxes, len(args[0]))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


class _InChunks(Code):
    """Looks, on many boxes, at how much is done at a time."""

    def __call__(self, function):
        importlib.import_module('torchvision')  # not in the answer's time
        super().__call__(function)

    def _loop(self, clock, function):
        (args,) = self.larger()
        n, chunk = len(args[0]), args[3]
        watch = _Watch()

        def watched(*args):
            with watch:
                return function(*args)
        try:
            came = outcome_of(clock.run, (watched, *args))
        except TimeoutError:
            came, watch.calls = None, math.inf
        if isinstance(came, Raised):
            self._values(clock, function, args)
        start = (f'{self.name} keeps the right boxes, but not by chunks: of '
                 f'{n} boxes with chunk = {chunk} ')
        if watch.boxes > chunk:
            self.miss(f'{start}it gave {watch.boxes} to `nms` at once.',
                      'Let it decide a chunk at a time.')
        if watch.numbers > 4 * chunk * n:
            self.miss(f'{start}it made a tensor of {watch.numbers} numbers.',
                      'Compare no more than the boxes of one chunk with the '
                      'others; a table of all with all is what chunks avoid.')
        if watch.calls > 300 * math.ceil(n / chunk):
            self.miss(f'{start}it made ' + (
                f'{watch.calls} calls into PyTorch.' if watch.calls < math.inf
                else 'calls into PyTorch without end.'),
                'Is there a loop over single boxes? Within a chunk '
                'torchvision decides, and the whole chunk strikes at once.')


nms_by_chunks = _InChunks(
    'nms_by_chunks(boxes, scores, threshold, chunk)', 'beyond/speed',
    'The same numbers, in another order', _nms, _chunk_inputs,
    [_each_alone, _struck_strike, _next_alone, _equal_strikes, _as_given,
     _worst_first, _first_chunk, _last_lost, _ranks, _by_place, _kept_boxes,
     _kept_mask],
    larger=lambda: [(*_heaps(1200, 0.01, 19), 0.3, 150)], devices=False)


def _pictures(error=0.02, deviations=2, share=0.9, objects=2):
    return share * (1 - share) * (deviations / error)**2 / objects


how_many_pictures = Value(
    'how_many_pictures', 'beyond/your-own-data', 'Measure',
    right=lambda: round(_pictures()), kind='a whole number of pictures',
    tolerance=0.003,  # 0.1 is no binary number, and `int` cuts off
    mistakes={
        'These are objects. A picture has two of them.':
            lambda: round(_pictures(objects=1)),
        'That is for one standard deviation. Two of them are to be two '
        'percentage points.': lambda: _pictures(deviations=1),
        'That is for one standard deviation, rounded. Two of them are to be '
        'two percentage points.': lambda: round(_pictures(deviations=1) + .1),
        'These are objects, and for one standard deviation.':
            lambda: round(_pictures(deviations=1, objects=1)),
        'A third of the error does not come with three times the pictures: '
        'chance falls with the *root* of n.': 150,
        'These are the pictures to add. How many are there then?':
            lambda: round(_pictures()) - 50,
        'These are objects to add.': lambda: round(_pictures(objects=1)) - 100,
        'That is for a share of one half, the worst case. Here nine of ten '
        'are found.': lambda: round(_pictures(share=0.5)),
        'Percentage points are hundredths: two of them are 0.02.':
            lambda: _pictures(error=2),
    },
    think='Set two standard deviations equal to 0.02, and solve for n. With '
          'n = 100 the formula must give 0.06 for two of them.')


def _corners(boxes, width, height):
    size = boxes.new_tensor([width, height])
    low, high = ((corner / size).clamp(0, 1) for corner in (
        boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
    keep = (high > low).all(1)
    return torch.cat([low, high], 1)[keep], keep


def _not_added(boxes, width, height):
    """Width and height were taken for the lower right corner. The four numbers
    are *x, y, width, height*."""
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return _corners(boxes, width, height)


def _from_centre(boxes, width, height):
    """Here x and y are the centre of the box. COCO means its upper left
    corner."""
    boxes = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1)
    return _corners(boxes, width, height)


def _sides_swapped(boxes, width, height):
    """Width and height of the picture are mixed up: x is a share of its
    width."""
    return _corners(boxes, height, width)


def _still_pixels(boxes, width, height):
    """These are pixels. Labels are shares of the picture, from 0 to 1."""
    corners, keep = _corners(boxes, width, height)
    return corners * corners.new_tensor([width, height] * 2), keep


def _uncut(boxes, width, height):
    """What sticks out of the picture was not cut off: labels lie between 0
    and 1."""
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    keep = _corners(boxes, width, height)[1]
    return (corners / boxes.new_tensor([width, height] * 2))[keep], keep


def _cut_first(boxes, width, height):
    """A box that sticks out on the left or at the top keeps its right and its
    lower edge: add first, then cut."""
    boxes = torch.cat([boxes[:, :2].clamp(min=0), boxes[:, 2:]], 1)
    return _corners(boxes, width, height)


def _undropped(boxes, width, height):
    """Boxes of which nothing is left are still there. Without an area, no
    anchor can ever overlap them."""
    size = boxes.new_tensor([width, height] * 2)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) / size
    return corners.clamp(0, 1), boxes[:, 0] == boxes[:, 0]


def _one_side_enough(boxes, width, height):
    """A box without width or without height has no area, even if the other
    side is long: drop it."""
    size = boxes.new_tensor([width, height] * 2)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) / size
    corners = corners.clamp(0, 1)
    keep = (corners[:, 2:] > corners[:, :2]).any(1)
    return corners[keep], keep


def _too_strict(boxes, width, height):
    """A box that sticks out is cut, not dropped: part of the object is in the
    picture."""
    corners, keep = _corners(boxes, width, height)
    high = boxes[:, :2] + boxes[:, 2:]
    inside = ((boxes[:, :2] >= 0) & (high <= boxes.new_tensor(
        [width, height]))).all(1)
    return corners[inside[keep]], keep & inside


def _places_kept(boxes, width, height):
    """The second tensor holds places. Asked for is one bool for each box that
    came in."""
    corners, keep = _corners(boxes, width, height)
    return corners, keep.nonzero()[:, 0]


def _wrong_ones(boxes, width, height):
    """The second tensor says which boxes were dropped. Asked for is which were
    kept."""
    corners, keep = _corners(boxes, width, height)
    return corners, ~keep


def _corner_inputs():
    draw = torch.Generator().manual_seed(20)

    def drawn(n, width, height, dtype=torch.float32):
        size = torch.tensor([width, height] * 2, dtype=dtype)
        boxes = torch.rand(n, 4, generator=draw, dtype=dtype)
        boxes[:, :2] = 1.6 * boxes[:, :2] - 0.3
        return boxes * size * 0.8
    return [
        (torch.tensor([[64., 48, 320, 120], [160, 240, 96, 24],
                       [0, 0, 16, 12]]), 640, 480),
        (torch.tensor([[-20., 30, 60, 50], [80, -10, 40, 40],
                       [70, 150, 50, 100]]), 100, 200),
        (torch.tensor([[10., 10, 30, 20], [310, 10, 40, 40], [-60, 20, 50, 9],
                       [40, 50, 0, 30], [250, 200, 90, 90],
                       [305, 250, 20, 20]]), 300, 240),
        (drawn(40, 400, 300), 400, 300),
        (drawn(25, 120, 500, torch.float64), 120, 500),
        (torch.tensor([[300., 0, 5, 5]]), 300, 300),
        (torch.zeros(0, 4), 256, 256)]


def _more_corners():
    draw = torch.Generator().manual_seed(21)
    return [(100 * torch.rand(n, 4, generator=draw), 120, 90)
            for n in (4, 64)]


to_corners = Code(
    'to_corners(boxes, width, height)', 'beyond/your-own-data',
    'The list as COCO JSON', _corners, _corner_inputs,
    [_not_added, _from_centre, _sides_swapped, _still_pixels, _uncut,
     _cut_first, _undropped, _one_side_enough, _too_strict, _places_kept,
     _wrong_ones],
    larger=_more_corners)
