"""How good a detector is: two numbers of the source, and the usual ones."""
import math

import pytest
import slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import d2lssd

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


# A whole evaluation.

class Parrot(nn.Module):
    """Sees in a picture's first pixel which anchor to call a banana."""

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


def test_an_evaluation_at_a_score_that_nothing_reaches_has_no_precision():
    batches = [(picture(0)[None], torch.tensor([[[0, 0, 0, 0.5, 0.5]]]))]
    scores = d2lssd.evaluate(Parrot(), batches, threshold=0.99999)
    assert scores['precision'] is None
    assert scores['recall_at'] == 0
    assert scores['false_alarms'] == 0
