"""How good a detector is: two numbers of the source, and the usual ones."""
import json
import math

import pytest
import slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

import d2lssd
from d2lssd import evaluation
from d2lssd.evaluation import set_operating_point

quick = settings(max_examples=40)
cell = st.integers(0, slow.GRID)
corners = st.lists(cell, min_size=2, max_size=2, unique=True).map(sorted)
box = st.tuples(corners, corners).map(
    lambda p: [v / slow.GRID for v in (p[0][0], p[1][0], p[0][1], p[1][1])])

# Three true boxes of 10 × 10 and five detections. Shifted by d, one of
# these overlaps with (10 - d)/(10 + d).
TRUE = torch.tensor([[0, 0, 0, 10, 10], [0, 20, 0, 30, 10],
                     [0, 40, 0, 50, 10.]])
FOUND = torch.tensor([[0, 0.9, 0, 0, 10, 10],     # box 0 itself
                      [0, 0.8, 90, 0, 99, 10],    # nothing there
                      [0, 0.7, 21, 0, 31, 10],    # box 1, IoU 9/11 = 0.82
                      [0, 0.6, 0, 0, 10, 10],     # box 0 once more
                      [0, 0.5, 42, 0, 52, 10]])   # box 2, IoU 8/12 = 0.67
# Precision after each, where all three count: 1, 1/2, 2/3, 1/2, 3/5; recall:
# 1/3, 1/3, 2/3, 2/3, 1. Of the points 0, 0.01 … 1, 34 are at most 1/3, another
# 33 at most 2/3, and 34 remain.
AP_ALL = (34 * 1 + 33 * 2 / 3 + 34 * 3 / 5) / 101  # IoU 0.50 … 0.65
AP_TWO = (34 * 1 + 33 * 2 / 3) / 101               # IoU 0.70 … 0.80
AP_ONE = 34 / 101                                  # IoU 0.85 … 0.95
AP = (4 * AP_ALL + 3 * AP_TWO + 3 * AP_ONE) / 10
RECALL = (4 * 1 + 3 * 2 / 3 + 3 * 1 / 3) / 10


# The source's two.

def test_right_classes_and_offset_errors_worked_by_hand():
    cls_preds = torch.tensor([[[0.1, 0.2], [3, -1]], [[5, 6], [7, 8.]]])
    labels = torch.tensor([[1, 1], [0, 1]])
    assert d2lssd.cls_eval(cls_preds, labels) == 2
    assert type(d2lssd.cls_eval(cls_preds, labels)) is int
    preds = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8.]])
    masks = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1.]])
    error = d2lssd.bbox_eval(preds, torch.tensor([[0, 0, 0, 0, 6, 6, 5, 8.]]),
                             masks)
    assert error == 1 + 0 + 2 + 0
    assert isinstance(error, float)


def test_what_finding_nothing_scores_is_worked_out_by_hand():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]])
    labels = torch.tensor([[[0, 0, 0, 0.5, 0.5], [-1] * 5],
                           [[0, 0.5, 0.5, 0.75, 1], [-1] * 5]])
    error, mae = d2lssd.finds_nothing(anchors, labels)
    assert error == 2 / 4
    # Image 0: offsets 0. Image 1: 10·0.125/0.5 and 5·log 2, of 8 numbers each.
    assert mae == pytest.approx((2.5 + 5 * math.log(2)) / 16, rel=1e-4)


def test_finding_nothing_scores_what_the_evaluation_of_such_a_net_prints():
    anchors = d2lssd.multibox_prior(torch.zeros(6, 6), [0.3, 0.4], [1, 2])
    labels = torch.tensor([[[0, 0.1, 0.1, 0.4, 0.5], [1, 0.5, 0.4, 0.9, 0.9]],
                           [[0, 0.3, 0.6, 0.7, 0.9], [-1] * 5]])
    offsets, masks, classes = d2lssd.multibox_target(anchors, labels)
    background = torch.tensor([1., 0, 0]).expand(2, anchors.shape[1], 3)
    error, mae = d2lssd.finds_nothing(anchors, labels)
    assert error == pytest.approx(
        1 - d2lssd.cls_eval(background, classes) / classes.numel())
    assert mae == pytest.approx(
        d2lssd.bbox_eval(torch.zeros_like(offsets), offsets, masks)
        / offsets.numel())
    assert error > 0


@pytest.mark.parametrize('m', [0, 2])
def test_where_there_is_nothing_to_find_finding_nothing_is_perfect(m):
    anchors = d2lssd.multibox_prior(torch.zeros(3, 3), [0.3], [1])
    assert d2lssd.finds_nothing(anchors, -torch.ones(2, m, 5)) == (0, 0)


# Average precision.

def test_average_precision_of_five_boxes_worked_by_hand():
    scores = d2lssd.average_precision([FOUND], [TRUE])
    assert scores == pytest.approx({'AP': AP, 'AP50': AP_ALL, 'AP75': AP_TWO,
                                    'recall': RECALL})
    assert all(type(s) is float for s in scores.values())


def test_average_precision_looks_at_one_image_at_a_time():
    # The detection of box 1 comes with another image: it is false there.
    found = [FOUND[[0, 1, 3, 4]], FOUND[[2]]]
    true = [TRUE, TRUE[:0]]
    scores = d2lssd.average_precision(found, true)
    # TP FP FP FP TP: precision 1 and 2/5, recall 1/3 and 2/3.
    assert scores['AP50'] == pytest.approx((34 + 33 * 2 / 5) / 101)


def test_average_precision_ignores_the_order_of_detections_and_images():
    found = [FOUND[:2], FOUND[[4, 2, 3]], FOUND[:0]]
    true = [TRUE[:1], TRUE[1:], TRUE]
    one = d2lssd.average_precision(found, true)
    assert one == pytest.approx(
        d2lssd.average_precision([f.flip(0) for f in found[::-1]],
                                 [t.flip(0) for t in true[::-1]]))


def test_padding_changes_no_average_precision():
    padded = torch.cat([-torch.ones(2, 5), TRUE, -torch.ones(1, 5)])
    suppressed = FOUND[:1].clone()
    suppressed[:, 0] = -1
    found = torch.cat([suppressed, FOUND, suppressed])
    expected = d2lssd.average_precision([FOUND], [TRUE])
    assert d2lssd.average_precision([found], [padded]) == expected
    assert d2lssd.average_precision(found[None], padded[None]) == expected
    by_class = d2lssd.average_precision([found], [padded], by_class=True)
    assert list(by_class['by_class']) == [0]
    # What the network gives first may be relative to the image, too.
    found[:, 2:] /= 128
    padded[:, 1:] /= 128
    assert d2lssd.average_precision([found], [padded]) == pytest.approx(
        expected)


def test_classes_count_alike_and_do_not_mix():
    other = TRUE.clone()
    other[:, 0] = 4
    found = torch.cat([other[:2, :1], torch.ones(2, 1), other[:2, 1:]], 1)
    scores = d2lssd.average_precision(
        [torch.cat([FOUND, found])], [torch.cat([TRUE, other])],
        by_class=True)
    # Two of the three boxes of class 4, exactly: 67 of the 101 points.
    assert scores['by_class'] == pytest.approx({0: AP, 4: 67 / 101})
    assert scores['AP'] == pytest.approx((AP + 67 / 101) / 2)
    # A right box under the wrong class is no detection.
    wrong = found.clone()
    wrong[:, 0] = 0
    scores = d2lssd.average_precision([wrong], [other], by_class=True)
    assert scores['AP'] == 0
    assert scores['by_class'][4] == 0
    assert math.isnan(scores['by_class'][0])  # no such box to be found


def test_finding_everything_is_one_and_finding_nothing_zero():
    perfect = torch.cat([TRUE[:, :1], torch.ones(3, 1), TRUE[:, 1:]], 1)
    names = ('AP', 'AP50', 'AP75', 'recall')
    for found, score in ((perfect, 1), (perfect[:0], 0)):
        scores = d2lssd.average_precision([found], [TRUE])
        assert scores == pytest.approx(dict.fromkeys(names, score))


@pytest.mark.parametrize('found', [FOUND, FOUND[:0]])
@pytest.mark.parametrize('true', [TRUE[:0], -torch.ones(2, 5)])
def test_without_any_true_box_average_precision_means_nothing(found, true):
    scores = d2lssd.average_precision([found], [true])
    assert all(math.isnan(s) for s in scores.values())


def test_detections_of_a_different_number_of_images_are_refused():
    with pytest.raises(ValueError, match='detections of 2 images, labels of '
                                         '1'):
        d2lssd.average_precision([FOUND, FOUND], [TRUE])


def test_boxes_count_as_small_or_large_by_their_pixels():
    # Areas of 20², 33², 95² and 100² pixels, side by side; only the last is
    # found, and something where there is no box.
    true = torch.tensor([[0, 0, 0, 20, 20], [0, 100, 0, 133, 33],
                         [0, 0, 100, 95, 195], [0, 100, 100, 200, 200.]])
    found = torch.tensor([[0, 0.9, 100, 100, 200, 200],
                          [0, 0.8, 220, 220, 250, 250]])
    true[:, 1:] /= 256
    found[:, 2:] /= 256
    scores = d2lssd.average_precision([found], [true], side=256)
    assert scores['AP_small'] == 0
    assert scores['AP_medium'] == 0
    assert scores['AP_large'] == pytest.approx(1)
    scores = d2lssd.average_precision([found], [true[-1:]], side=256)
    assert scores['AP_large'] == pytest.approx(1)
    assert math.isnan(scores['AP_small'])
    assert set(scores) - set(d2lssd.average_precision([found], [true])) == {
        'AP_small', 'AP_medium', 'AP_large'}


def test_average_precision_takes_the_rows_of_multibox_detection():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4375],
                             [0.5, 0.5, 1, 1]]])
    probs = torch.tensor([[[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]]).repeat(2, 1, 1)
    rows = d2lssd.multibox_detection(probs, torch.zeros(2, 12), anchors)
    true = torch.tensor([[[0, 0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1, 1]],
                         [[0, 0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1, 1]]])
    assert d2lssd.average_precision(rows, true)['AP'] == pytest.approx(1)


# Hits, false alarms, misses.

def test_hits_worked_by_hand():
    assert d2lssd.hits(FOUND, TRUE) == (3, 2, 0)
    assert d2lssd.hits(FOUND, TRUE, threshold=0.7) == (2, 1, 1)
    assert d2lssd.hits(FOUND, TRUE, iou_threshold=0.7) == (2, 3, 1)
    assert d2lssd.hits(FOUND[:0], TRUE) == (0, 0, 3)
    assert d2lssd.hits(FOUND, TRUE[:0]) == (0, 5, 0)
    assert d2lssd.hits(FOUND[:0], -torch.ones(2, 5)) == (0, 0, 0)
    other = TRUE.clone()
    other[:, 0] = 1
    assert d2lssd.hits(FOUND, other) == (0, 5, 3)


@quick
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 8), box),
                max_size=6),
       st.lists(st.tuples(st.integers(-1, 1), box), max_size=4),
       st.sampled_from([0.0, 0.5]), st.sampled_from([0.25, 0.5]))
def test_hits_agree_with_a_double_precision_loop(found, true, threshold,
                                                 iou_threshold):
    found = sorted(([float(k), s / 8, *b] for k, s, b in found),
                   key=lambda row: -row[1])
    true = [[float(k), *b] for k, b in true]
    assert d2lssd.hits(
        torch.tensor(found).reshape(-1, 6), torch.tensor(true).reshape(-1, 5),
        threshold, iou_threshold) == slow.hits(found, true, threshold,
                                               iou_threshold)


def test_each_detection_is_matched_with_one_box_worked_by_hand():
    match = d2lssd.match_detections(FOUND, TRUE)
    assert match.tolist() == [0, -1, 1, -1, 2]
    assert d2lssd.match_detections(FOUND, TRUE, 0.7).tolist() == [
        0, -1, 1, -1, -1]
    padded = torch.cat([-torch.ones(1, 5), TRUE])
    assert d2lssd.match_detections(FOUND, padded).tolist() == [
        1, -1, 2, -1, 3]
    assert d2lssd.match_detections(FOUND, TRUE[:0]).tolist() == [-1] * 5


# The curve behind the number.

def test_precision_and_recall_of_five_boxes_worked_by_hand():
    precision, recall, score = d2lssd.precision_recall_curve([FOUND], [TRUE])
    assert precision.tolist() == pytest.approx([1, 1/2, 2/3, 1/2, 3/5])
    assert recall.tolist() == pytest.approx([1/3, 1/3, 2/3, 2/3, 1])
    assert score.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    best = d2lssd.interpolate_precision(precision, recall)
    assert best.tolist() == pytest.approx(
        [1] * 34 + [2/3] * 33 + [3/5] * 34)
    precision, recall, _ = d2lssd.precision_recall_curve([FOUND], [TRUE], 0.7)
    best = d2lssd.interpolate_precision(precision, recall)
    assert best.tolist() == pytest.approx(
        [1] * 34 + [2/3] * 33 + [0] * 34)


@quick
@given(st.lists(st.tuples(
    st.lists(st.tuples(st.integers(0, 40), box), max_size=6),
    st.lists(box, max_size=3)), min_size=1, max_size=4),
    st.sampled_from([0.5, 0.75]))
def test_the_area_under_the_curve_is_the_average_precision(images, least):
    """Two ways to one number: ours, and torchmetrics'."""
    taken = set()
    detections, labels = [], []
    for found, true in images:
        rows = []
        for score, b in found:
            while score in taken:  # of equals, any may come first
                score += 1
            taken.add(score)
            rows.append([0, score / 100, *b])
        detections.append(torch.tensor(rows).reshape(-1, 6))
        labels.append(torch.tensor([[0, *b] for b in true]).reshape(-1, 5))
    precision, recall, score = d2lssd.precision_recall_curve(
        detections, labels, least)
    assert (score.diff() < 0).all()
    name = {0.5: 'AP50', 0.75: 'AP75'}[least]
    expected = d2lssd.average_precision(detections, labels)[name]
    area = d2lssd.interpolate_precision(precision, recall).mean()
    if not sum(map(len, labels)):
        assert math.isnan(expected)
        assert recall.isnan().all()
    else:
        assert area == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('count', [10, 100])
def test_recalls_that_fall_on_the_steps_are_counted_as_by_the_library(count):
    """A hundred boxes give the recalls 0.01, 0.02 … as rounded."""
    true = torch.arange(count)[:, None] * torch.tensor([0, 20., 0, 20, 0])
    true += torch.tensor([0, 0, 0, 10, 10])
    found = torch.cat([true[:, :1], torch.linspace(0.9, 0.1, count)[:, None],
                       true[:, 1:]], 1)
    found[2::3, 2:] += 5  # every third is false
    precision, recall, _ = d2lssd.precision_recall_curve([found], [true])
    area = d2lssd.interpolate_precision(precision, recall).mean()
    assert area == pytest.approx(
        d2lssd.average_precision([found], [true])['AP50'], abs=1e-6)


def test_of_an_image_a_hundred_boxes_count_as_in_the_average_precision():
    wrong = torch.tensor([[0, 0.9, 60, 60, 70, 70.]]).repeat(100, 1)
    precision, recall, _ = d2lssd.precision_recall_curve(
        [torch.cat([FOUND[-1:], wrong])], [TRUE])
    assert len(precision) == 100
    assert recall[-1] == 0
    assert d2lssd.average_precision(
        [torch.cat([FOUND[-1:], wrong])], [TRUE])['recall'] == 0


def test_boxes_beyond_a_hundred_of_a_class_change_no_average_precision():
    """torchmetrics, given all of them, says the same."""
    from torchmetrics.detection import MeanAveragePrecision
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(700, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.1], 1)
    kind = torch.randint(2, (700, 1), generator=generator)
    score = torch.randint(1, 40, (700, 1), generator=generator) / 40  # ties
    found, true = torch.cat([kind, score, boxes], 1), boxes[::20]
    labels = torch.cat([kind[::20], true], 1)
    ours = d2lssd.average_precision([found], [labels], by_class=True)
    library = MeanAveragePrecision(class_metrics=True)
    library.warn_on_many_detections = False
    library.update(
        [{'boxes': boxes, 'scores': score[:, 0], 'labels': kind[:, 0]}],
        [{'boxes': true, 'labels': kind[::20, 0]}])
    theirs = library.compute()
    assert 0.01 < ours['AP'] < 0.5
    assert ours['AP'] == float(theirs['map'])
    assert ours['recall'] == float(theirs['mar_100'])
    assert list(ours['by_class'].values()) == theirs['map_per_class'].tolist()


def test_a_curve_without_detections_is_empty_and_its_area_zero():
    curve = d2lssd.precision_recall_curve([FOUND[:0]], [TRUE])
    assert [len(part) for part in curve] == [0, 0, 0]
    assert d2lssd.interpolate_precision(*curve[:2]).tolist() == [0] * 101
    with pytest.raises(ValueError, match='of 1 images, labels of 2'):
        d2lssd.precision_recall_curve([FOUND], [TRUE, TRUE])


def test_the_greatest_iou_of_each_detection_worked_by_hand():
    other = TRUE.clone()
    other[:, 0] = 1
    score, iou = d2lssd.best_iou([FOUND, FOUND[:1], FOUND[:1]],
                                 [TRUE, TRUE[:0], other])
    assert score.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.9,
                                            0.9])
    assert iou.tolist() == pytest.approx([1, 0, 9/11, 1, 8/12, 0, 0])
    with pytest.raises(ValueError, match='of 1 images, labels of 2'):
        d2lssd.best_iou([FOUND], [TRUE, TRUE])


def test_a_detection_without_area_is_a_false_alarm_beside_a_box_without():
    point = torch.tensor([0.3, 0.3, 0.3, 0.3])
    kinds = d2lssd.mistakes(torch.tensor([[0, 0.9, *point]]),
                     torch.tensor([[0, *point]]))
    assert [len(kinds[kind]) for kind in ('false alarm', 'missed')] == [1, 1]


# Kinds of mistakes.

def test_mistakes_are_sorted_by_kind_worked_by_hand():
    true = torch.tensor([[0, 0, 0, 10, 10], [0, 20, 0, 30, 10],
                         [0, 40, 0, 50, 10], [-1] * 5])
    found = torch.tensor([[0, 0.9, 0, 0, 10, 10],    # right
                          [0, 0.8, 1, 0, 11, 10],    # the same box again
                          [0, 0.7, 26, 0, 36, 10],   # IoU 4/16
                          [0, 0.6, 48.5, 0, 90, 10],  # IoU below 0.1
                          [0, 0.4, 40, 0, 50, 10],   # not sure enough
                          [-1] * 6])
    sorted_out = d2lssd.mistakes(found, true)
    assert {k: v.tolist() for k, v in sorted_out.items()} == {
        'missed': true[2:3].tolist(), 'doubled': found[1:2].tolist(),
        'badly placed': found[2:3].tolist(),
        'false alarm': found[3:4].tolist()}
    sorted_out = d2lssd.mistakes(found, true, threshold=0.3)
    assert not len(sorted_out['missed'])


@quick
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 8), box),
                max_size=6),
       st.lists(st.tuples(st.integers(-1, 1), box), max_size=4))
def test_every_false_detection_is_a_mistake_of_one_kind(found, true):
    found = sorted(([float(k), s / 8, *b] for k, s, b in found),
                   key=lambda row: -row[1])
    found = torch.tensor(found).reshape(-1, 6)
    true = torch.tensor([[float(k), *b] for k, b in true]).reshape(-1, 5)
    kinds = {k: len(v) for k, v in d2lssd.mistakes(found, true).items()}
    _, false, missed = d2lssd.hits(found, true)
    assert sum(kinds.values()) - kinds['missed'] == false
    assert missed - kinds['badly placed'] <= kinds['missed'] <= missed


# A whole evaluation.

class Parrot(nn.Module):
    """Sees in a picture's first pixel which anchor to call a banana."""
    num_classes = 1

    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1],
                             [0, 0.5, 0.5, 1]]])

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, X):
        chosen = X[:, 0, 0, :3] > 0  # (B, 3)
        logits = self.scale * torch.stack([~chosen, chosen], -1)
        return self.anchors, logits, X.new_zeros(len(X), 12)


def picture(*chosen):
    X = torch.zeros(3, 4, 4)
    X[0, 0, list(chosen)] = 255
    return X


def test_an_evaluation_worked_by_hand():
    first, second = ([0, *b] for b in Parrot.anchors[0, :2].tolist())
    none = [-1.0] * 5
    batches = [
        (torch.stack([picture(0), picture(0, 2)]),  # right; right and false
         torch.tensor([[first, none], [first, second]])),  # and one missed
        (picture()[None], torch.tensor([[none, none]]))]
    net = Parrot().train()
    scores = d2lssd.evaluate(net, batches)
    assert net.training
    assert scores['pictures'] == 3
    assert scores['objects'] == 3
    assert scores['precision'] == pytest.approx(2 / 3)
    assert scores['recall_at'] == pytest.approx(2 / 3)
    assert scores['false_alarms'] == 1
    # The false detection's score is that of the right ones.
    assert scores['recall'] == pytest.approx(2 / 3)
    assert 44 / 101 < scores['AP'] < 68 / 101
    # Half a picture is more than 96 pixels; nothing smaller was there.
    assert scores['AP_large'] == scores['AP']
    assert scores['AP_small'] is scores['AP_medium'] is None
    found, true = d2lssd.detect_all(net, batches)
    assert [rows[:, 2:].tolist() for rows in found] == [
        [first[1:]], found[1][:, 2:].tolist(), []]
    assert len(found[1]) == 2
    assert torch.equal(true[2], torch.tensor([none, none]))


def test_evaluation_keeps_memory_from_one_minibatch_to_the_next(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation, 'keep_memory', lambda: asked.append(1))
    d2lssd.evaluate(Parrot(), [(picture(0)[None], torch.full((1, 1, 5), -1))])
    assert asked == [1]


def test_what_cannot_count_is_not_looked_for_and_changes_nothing(monkeypatch):
    net = d2lssd.load_pretrained('balanced')
    batches = [d2lssd.BananasDataset(
        False, count=4, style='plain', num_bananas=(1, 6), seed=9,
        progress=False)[:]]
    few = d2lssd.detect_all(net, batches, voting=True)
    scores = d2lssd.evaluate(net, batches, voting=True)
    monkeypatch.setattr(evaluation, 'MOST', 10**4)
    every = d2lssd.detect_all(net, batches, voting=True)
    assert 150 < min(map(len, few[0])) <= max(map(len, few[0])) <= 200
    assert max(map(len, every[0])) > 300
    assert d2lssd.evaluate(net, batches, voting=True) == scores


def test_an_evaluation_without_objects_says_so_and_without_pictures_stops():
    scores = d2lssd.evaluate(Parrot(), [(picture(0)[None],
                                         -torch.ones(1, 1, 5))])
    assert scores['AP'] is scores['recall'] is scores['recall_at'] is None
    assert scores['false_alarms'] == 1
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    with pytest.raises(ValueError, match='no pictures to evaluate on'):
        d2lssd.evaluate(Parrot(), [])


def test_an_evaluation_at_a_score_that_nothing_reaches_has_no_precision():
    batches = [(picture(0)[None], torch.tensor([[[0, 0, 0, 0.5, 0.5]]]))]
    scores = d2lssd.evaluate(Parrot(), batches, threshold=0.99999)
    assert scores['precision'] is None
    assert scores['recall_at'] == 0
    assert scores['false_alarms'] == 0


def test_an_exam_is_one_of_those_that_there_are():
    net = d2lssd.load_pretrained('source')
    with pytest.raises(ValueError, match="exam 'finals': known are one bana"):
        d2lssd.examine(net, ['one banana', 'finals'])
    alone = d2lssd.examine(net, 'one banana', count=2)
    assert alone == d2lssd.examine(net, ['one banana'], count=2)


# The operating point.

class Scorer(d2lssd.TinySSD):
    """Sees in a picture's first pixels the scores of three far-off anchors."""
    anchors = Parrot.anchors

    def forward(self, X):
        logits = (X[:, 0, 0, :3].double() / 200).logit()
        shift = self.cls_0.bias[1] - self.cls_0.bias[0]
        logits = torch.stack([torch.zeros_like(logits), logits + shift], -1)
        return self.anchors, logits.float(), X.new_zeros(len(X), 12)


def scorer(*scores):
    """A network that gives these scores, and a picture; where there is a
    banana at the place of each score that is followed by True."""
    net = Scorer(1)
    with torch.no_grad():
        net.cls_0.bias.zero_()
    X, Y = torch.zeros(1, 3, 4, 4), -torch.ones(1, 3, 5)
    for i, (score, right) in enumerate(scores):
        X[0, 0, 0, i] = 200 * score
        if right:
            Y[0, i] = torch.tensor([0, *Parrot.anchors[0, i].tolist()])
    return net, [(X, Y)]


@pytest.mark.parametrize(('scores', 'precision', 'point'), [
    # Precision 1, 1, 2/3
    (((0.9, True), (0.7, True), (0.2, False)), 0.9, (0.7, 1, 1)),
    (((0.9, True), (0.7, True), (0.2, False)), 0.6, (0.2, 2 / 3, 1)),
    # Precision 0, 1/2, 2/3: low, and better further down.
    (((0.9, False), (0.7, True), (0.2, True)), 0.6, (0.2, 2 / 3, 1)),
    # Equal scores are passed together: 1/2, then 2/3.
    (((0.9, True), (0.9, False), (0.2, True)), 0.6, (0.2, 2 / 3, 1)),
    (((0.9, True), (0.7, False), (0.2, True)), 0.9, (0.9, 1, 1 / 2)),
])
def test_the_operating_point_is_the_lowest_that_is_right_enough(
        scores, precision, point):
    net, batches = scorer(*scores)
    result = set_operating_point(net, batches, precision)
    assert tuple(result.values()) == pytest.approx(point)
    # What had that score has one half now, and the rest goes with it.
    found, = d2lssd.detect_all(net, batches)[0]
    odds = point[0] / (1 - point[0])
    moved = [s / (1 - s) / odds for s, _ in scores]
    assert found[:, 1].tolist() == pytest.approx(
        sorted((odd / (1 + odd) for odd in moved), reverse=True), abs=1e-5)


@pytest.mark.parametrize('scores', [
    ((0.9, False), (0.7, True)), ((0.9, True), (0.9, False)), ()])
def test_a_precision_that_no_score_reaches_is_refused(scores):
    net, batches = scorer(*scores)
    reached = 0 if not scores else 0.5
    with pytest.raises(ValueError,
                       match=f'precision 0.9: .* {reached:.3f} at most'):
        set_operating_point(net, batches, 0.9)
    assert not net.cls_0.bias.any()


def test_the_shift_is_one_and_the_same_on_every_map_and_leaves_the_boxes():
    net = d2lssd.load_pretrained('source')
    X, Y = next(iter(DataLoader(d2lssd.BananasDataset(
        False, count=6, seed=31, progress=False), 6)))
    with d2lssd.evaluating(net):
        _, before, boxes = net(X)
        point = set_operating_point(net, [(X, Y)], 0.5)
        _, after, same = net(X)
    assert torch.equal(same, boxes)
    shift = (before - after)[..., 1] - (before - after)[..., 0]
    there = math.log(point['score'] / (1 - point['score']))
    assert torch.allclose(shift, torch.full_like(shift, there), atol=1e-4)


def test_of_several_classes_no_operating_point_can_be_set():
    with pytest.raises(ValueError, match='finds 3 classes'):
        set_operating_point(d2lssd.TinySSD(3), [], 0.9)


def test_the_command_prints_no_more_than_a_terminal_is_wide(capsys):
    from d2lssd.__main__ import print_results
    print_results({name: {'AP': 0.25} for name in d2lssd.EXAMS})
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 79 for line in lines)
    assert all(name in ' '.join(lines) for name in d2lssd.EXAMS)


def test_the_command_prints_the_results_side_by_side(capsys):
    from d2lssd.__main__ import print_results
    some = {'AP': 0.25, 'recall_at': 1.0, 'false_alarms': 12, 'objects': 500}
    print_results({'one banana': some,
                   'no banana': {**some, 'AP': None, 'objects': 0}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['one', 'banana', 'no', 'banana']
    assert lines[1].split() == ['AP', '0.250', '-']
    assert lines[2].split('5', 1)[0] == 'recall at score 0.'
    assert lines[3].split()[-2:] == ['12', '12']
    assert lines[4].split() == ['objects', '500', '0']
    assert len({len(line) for line in lines}) == 1
    assert all(len(line) <= 79 for line in lines)


@pytest.mark.parametrize(('change', 'words'), [
    (lambda X, Y: (X / 255, Y), 'up to 1; 0 to 255 is needed'),
    (lambda X, Y: (X.byte(), Y), 'torch.uint8 of shape .* floats'),
    (lambda X, Y: (X[0], Y[0]), 'as a DataLoader gives them'),
    (lambda X, Y: (X[:0], Y[:0]), 'as a DataLoader gives them'),
    (lambda X, Y: (X, torch.cat([Y[..., :1], 256 * Y[..., 1:]], 2)),
     'relative to the image, not in pixels'),
    (lambda X, Y: (X, Y[..., [0, 3, 4, 1, 2]]), 'is right of x_max')])
def test_images_and_labels_on_another_scale_are_not_evaluated(change, words):
    label = torch.tensor([[[0, *Parrot.anchors[0, 0].tolist()]]])
    X, Y = picture(0)[None], label
    with pytest.raises(ValueError, match=words):
        d2lssd.evaluate(Parrot(), [change(X, Y)])
