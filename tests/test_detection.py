"""From the network's numbers to a short list of boxes."""
import subprocess
import sys

import pytest
import slow
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

import d2lssd
from d2lssd import detection

quick = settings(max_examples=40)
cell = st.integers(0, slow.GRID)
corners = st.lists(cell, min_size=2, max_size=2, unique=True).map(sorted)
THRESHOLDS = [0.25, 0.5, 0.75]


@st.composite
def grid_boxes(draw, most=8):
    """List of boxes with area whose corners are multiples of 1/16."""
    pairs = draw(st.lists(st.tuples(corners, corners), min_size=1,
                          max_size=most))
    return [[v / slow.GRID for v in (x[0], y[0], x[1], y[1])]
            for x, y in pairs]


@st.composite
def predictions(draw, wild=False):
    """cls_probs (B, C+1, A), offset_preds (B, 4A) and anchors (1, A, 4).

    The offsets are zero unless wild is true; then they carry boxes far out of
    the image, and to no size or a gigantic one.
    """
    anchors = torch.tensor(draw(grid_boxes()))[None]
    B, C, A = draw(st.integers(1, 3)), draw(st.integers(1, 3)), len(anchors[0])
    number = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(number)
    # Coarse logits make ties, of scores and of classes, common.
    logits = torch.randint(-3, 4, (B, C + 1, A), generator=generator)
    logits[:, 0] += draw(st.integers(-2, 5))
    offsets = torch.zeros(B, A * 4)
    if wild:
        offsets = torch.randn(B, A * 4, generator=generator) * draw(
            st.sampled_from([1, 10, 50]))
    return logits.float().softmax(1), offsets, anchors


def slowly(cls_probs, offset_preds, anchors, nms_threshold=0.5,
           pos_threshold=0.009999999, per_class=False):
    """Kept rows of each image, for offsets of zero."""
    result = []
    boxes = anchors[0].tolist()
    for probs in cls_probs.transpose(1, 2).tolist():
        rows = []
        for row, box in zip(probs, boxes, strict=True):
            score = max(row[1:])
            if score >= pos_threshold:
                rows.append([float(row[1:].index(score)), score, *box])
        kept = []
        for kind in sorted({r[0] for r in rows}) if per_class else [None]:
            own = [r for r in rows if kind in (None, r[0])]
            kept += [own[k] for k in slow.nms(
                [r[2:] for r in own], [r[1] for r in own], nms_threshold)]
        result.append(sorted(kept, key=lambda r: -r[1]))
    return result


# Suppression alone.

def test_suppression_worked_by_hand():
    # Overlaps with the first box: 1/3, 1/2 (no more than the threshold), 0.6.
    boxes = torch.tensor([[0, 0, 4, 4], [2, 0, 6, 4], [0, 0, 2, 4],
                          [1, 0, 5, 4.]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert d2lssd.nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert d2lssd.nms(boxes, scores, 0.49).tolist() == [0, 1]
    assert d2lssd.nms(boxes, scores, 0.61).tolist() == [0, 1, 2, 3]
    assert d2lssd.nms(boxes, scores.flip(0), 0.5).tolist() == [3, 2]


@quick
@given(grid_boxes(12), st.data(), st.sampled_from(THRESHOLDS))
def test_suppression_agrees_with_a_double_precision_loop(
        boxes, data, threshold):
    scores = data.draw(st.permutations(range(len(boxes))))
    kept = d2lssd.nms(torch.tensor(boxes), torch.tensor(scores).float(),
                      threshold)
    assert kept.tolist() == slow.nms(boxes, scores, threshold)


@quick
@given(grid_boxes(12), st.data(), st.sampled_from(THRESHOLDS),
       st.sampled_from([1, 2, 5]))
def test_suppression_by_chunks_agrees_with_suppression_at_once(
        boxes, data, threshold, chunk):
    # Whole scores: many are equal.
    scores = torch.tensor(data.draw(st.lists(
        st.integers(0, 3), min_size=len(boxes), max_size=len(boxes)))).float()
    boxes = torch.tensor(boxes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, 'CHUNK', chunk)
        kept = d2lssd.nms(boxes, scores, threshold)
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize('spoilt', [None, float('nan'), float('inf')])
def test_thousands_of_boxes_are_suppressed_as_torchvision_does(spoilt):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3000, 2, generator=generator)
    boxes = torch.cat([corner, corner + torch.rand(
        3000, 2, generator=generator) / 3], 1)
    boxes[10:20] = boxes[:10]
    boxes[20:30, 2:] = boxes[20:30, :2]  # without area
    if spoilt is not None:
        boxes[100:130, 2] = spoilt
    scores = torch.rand(3000, generator=generator)
    kept = d2lssd.nms(boxes, scores, 0.5)
    assert 100 < len(kept) < 2900
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, 0.5))


# Detection.

def test_a_gradient_gets_through_a_detection_of_many_boxes():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 500, 2, generator=generator)
    anchors = torch.cat([corner, corner + 0.2], 2)
    offsets = torch.zeros(1, 2000, requires_grad=True)
    probs = torch.rand(1, 2, 500, generator=generator).requires_grad_()
    rows = d2lssd.multibox_detection(probs, offsets, anchors)
    kept = rows[0, rows[0, :, 0] >= 0]
    assert detection.CHUNK < len(kept) < 500
    kept.sum().backward()
    assert offsets.grad.any(1).all()
    assert (probs.grad[0, 1] != 0).sum() == len(kept)


def test_a_detection_worked_by_hand():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4375],
                             [0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1]]])
    probs = torch.tensor([[[0.1, 0.2, 0.3, 0.995],   # background
                           [0.7, 0.1, 0.1, 0.003],
                           [0.2, 0.7, 0.6, 0.002]]])
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 16), anchors)
    assert rows.shape == (1, 4, 6)
    assert rows.dtype == torch.float32
    kept = rows[0, rows[0, :, 0] >= 0]
    # Anchor 1 lies in anchor 0 and has the same score; the first wins.
    torch.testing.assert_close(kept, torch.tensor(
        [[0, 0.7, 0, 0, 0.5, 0.5], [1, 0.6, 0.5, 0.5, 1, 1]]))
    assert rows[0, 2:, 0].tolist() == [-1, -1]
    torch.testing.assert_close(rows[0, 2:, 1], torch.tensor([0.7, 0.003]))


def test_boxes_are_the_anchors_moved_by_the_predicted_offsets():
    anchors = torch.tensor([[[0.2, 0.2, 0.6, 0.4]]])
    true = torch.tensor([[[0.3, 0.1, 0.5, 0.5]]])
    offsets = d2lssd.offset_boxes(anchors, true).flatten(1)
    probs = torch.tensor([0.1, 0.9]).reshape(1, 2, 1)
    row = d2lssd.multibox_detection(probs, offsets, anchors)[0, 0]
    torch.testing.assert_close(row[2:], true[0, 0], rtol=0, atol=1e-5)


@quick
@given(predictions(), st.sampled_from(THRESHOLDS),
       st.sampled_from([0.0, 0.01, 0.3]), st.booleans())
def test_detections_agree_with_a_double_precision_loop(
        inputs, nms_threshold, pos_threshold, per_class):
    options = (nms_threshold, pos_threshold, per_class)
    rows = d2lssd.multibox_detection(*inputs, *options)
    for found, expected in zip(rows, slowly(*inputs, *options), strict=True):
        kept = found[found[:, 0] >= 0]
        expected = torch.tensor(expected).reshape(-1, 6)
        torch.testing.assert_close(kept[:, 1], expected[:, 1])
        # Rows of one score may stand in any order.
        torch.testing.assert_close(
            torch.tensor(sorted(kept.tolist())),
            torch.tensor(sorted(expected.tolist())))


@quick
@given(predictions(wild=True), st.sampled_from(THRESHOLDS), st.booleans())
def test_what_is_kept_and_what_is_suppressed_hold_to_their_promises(
        inputs, threshold, per_class):
    probs, offsets, anchors = inputs
    rows = d2lssd.multibox_detection(*inputs, threshold, per_class=per_class)
    B, _, A = probs.shape
    boxes = d2lssd.offset_inverse(anchors, offsets.reshape(B, A, 4))
    assert rows.shape == (B, A, 6)
    for i in range(B):
        # Every anchor's box is there once, with its score.
        score, label = probs[i, 1:].max(0)
        assert sorted(rows[i, :, 1:].tolist()) == sorted(
            torch.cat([score[:, None], boxes[i]], 1).tolist())
        kept = rows[i, :, 0] >= 0
        found, rest = rows[i][kept], rows[i][~kept]
        assert kept.tolist() == [True] * len(found) + [False] * len(rest)
        assert (found[:, 1].diff() <= 0).all()
        assert (found[:, 1] >= 0.009999999).all()
        assert len(found) or not (score >= 0.01).any()
        iou = d2lssd.box_iou(found[:, 2:], found[:, 2:])
        if per_class:
            iou[found[:, :1] != found[:, 0]] = 0
        assert not (iou.fill_diagonal_(0) > threshold + 1e-5).any()
        # A sure box that is missing overlaps a kept one that is as sure.
        missing = rest[rest[:, 1] >= 0.009999999]
        iou = d2lssd.box_iou(missing[:, 2:], found[:, 2:])
        covers = (iou > threshold - 1e-5) & (found[:, 1] >= missing[:, 1:2])
        assert covers.any(1).all()


@quick
@given(predictions(wild=True), st.booleans(), st.randoms())
def test_an_image_gives_the_same_rows_in_any_minibatch(
        inputs, per_class, random):
    probs, offsets, anchors = inputs
    together = d2lssd.multibox_detection(*inputs, per_class=per_class)
    order = list(range(len(probs)))
    random.shuffle(order)
    shuffled = d2lssd.multibox_detection(
        probs[order], offsets[order], anchors, per_class=per_class)
    assert torch.equal(together[order], shuffled)
    for i in range(len(probs)):
        alone = d2lssd.multibox_detection(
            probs[i:i + 1], offsets[i:i + 1], anchors, per_class=per_class)
        assert torch.equal(together[i:i + 1], alone)


@pytest.mark.parametrize('offset', [
    [-20, -20, 0, 0],     # onto where another image's box would be moved to
    [0, 0, 80, 0],        # nine million images wide
    [0, 0, 500, 0]])      # too wide for a float
def test_a_box_far_outside_its_image_suppresses_none_of_another(offset):
    anchors = torch.tensor([[[0, 0, 1, 1], [0, 0, 0.5, 1.]]])
    probs = torch.tensor([[[0.1, 0.2], [0.9, 0.8]]])
    alone = d2lssd.multibox_detection(probs, torch.zeros(1, 8), anchors, 0.4)
    assert alone[0, :, 0].tolist() == [0, -1]
    offsets = torch.zeros(3, 8)
    offsets[1] = torch.tensor(offset * 2)
    rows = d2lssd.multibox_detection(probs.repeat(3, 1, 1), offsets, anchors,
                                     0.4)
    assert torch.equal(rows[:1], alone)
    assert torch.equal(rows[2:], alone)
    assert rows[1, 0, 0] == 0


@pytest.mark.parametrize('count', [40, 500])
@pytest.mark.parametrize('most', [0, 1, 7, 150, 1000])
def test_the_best_few_are_the_first_of_all(count, most):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator)
    anchors = torch.cat([corner, corner + 0.15], 1)[None]
    probs = torch.rand(2, 3, count, generator=generator)
    inputs = probs, torch.zeros(2, 4 * count), anchors
    every, few = (d2lssd.multibox_detection(*inputs, most=limit)
                  for limit in (None, most))
    for all_rows, rows in zip(every, few):
        kept = rows[rows[:, 0] >= 0]
        assert torch.equal(kept, all_rows[all_rows[:, 0] >= 0][:most])
        # No box is lost: what is left out stands below, as background does.
        assert torch.equal(rows[:, 1:].sort(0).values,
                           all_rows[:, 1:].sort(0).values)


def test_of_each_class_the_best_few():
    anchors = torch.tensor([[[0, 0, 0.2, 0.2], [0.3, 0, 0.5, 0.2],
                             [0.6, 0, 0.8, 0.2], [0.3, 0.5, 0.5, 0.7]]])
    probs = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.0],
                           [0.0, 0.0, 0.0, 0.6]]])
    rows, = d2lssd.multibox_detection(probs, torch.zeros(1, 16), anchors,
                                      per_class=True, most=2)
    assert rows[:, 0].tolist() == [0, 0, 1, -1]


# What is needed of torchvision, without what takes seconds

KERNEL = """
import sys
from types import SimpleNamespace
import torch
from d2lssd import detection
if sys.argv[1] == 'another folder':
    spec = SimpleNamespace(origin='/no/such/folder/__init__.py')
    detection.find_spec = lambda name: spec
boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 1.5], [1, 1, 3, 3]])
print(detection.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist(),
      'torchvision' in sys.modules)
from torchvision.ops import nms
print(nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist())
"""


@pytest.mark.parametrize(('folder', 'loaded'), [
    ('its own', False), ('another folder', True)])
def test_suppression_does_not_wait_for_all_of_torchvision(folder, loaded):
    ran = subprocess.run([sys.executable, '-c', KERNEL, folder], text=True,
                         capture_output=True)
    assert ran.stdout == f'[1, 2] {loaded}\n[1, 2]\n', ran.stderr


def test_suppression_ignores_the_class_unless_asked_not_to():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5],
                             [0, 0, 0.5, 0.5]]])
    probs = torch.tensor([[[0.1, 0.1, 0.2], [0.9, 0.1, 0.7],
                           [0.0, 0.8, 0.1]]])
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 12), anchors)
    assert rows[0, :, 0].tolist() == [0, -1, -1]
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 12), anchors,
                                     per_class=True)
    assert rows[0, :, 0].tolist() == [0, 1, -1]
    torch.testing.assert_close(rows[0, :, 1], torch.tensor([0.9, 0.8, 0.7]))


def test_suppression_by_class_agrees_with_torchvision():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(40, 2, generator=generator) * 0.6
    anchors = torch.cat([low, low + 0.3], 1)[None]
    probs = torch.rand(1, 4, 40, generator=generator).softmax(1)
    score, label = probs[0, 1:].max(0)
    kept = torchvision.ops.batched_nms(anchors[0], score, label, 0.3)
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 160), anchors, 0.3,
                                     per_class=True)[0]
    assert 3 < len(kept) < 40
    assert torch.equal(rows[:len(kept), 0], label[kept].float())
    assert torch.equal(rows[:len(kept), 1], score[kept])
    assert (rows[len(kept):, 0] == -1).all()


def test_a_score_at_the_threshold_counts_and_one_below_is_background():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]])
    probs = torch.tensor([[[0.75, 0.7501], [0.25, 0.2499]]])
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 8), anchors,
                                     pos_threshold=0.25)
    assert rows[0, :, 0].tolist() == [0, -1]


def test_background_suppresses_nothing():
    # The unsure box covers the sure one and would be the likelier banana,
    # were it not for the threshold that the other passes.
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]])
    probs = torch.tensor([[[0.8, 0.6], [0.2, 0.4]]])
    rows = d2lssd.multibox_detection(probs, torch.zeros(1, 8), anchors,
                                     pos_threshold=0.3)
    assert rows[0, :, 0].tolist() == [0, -1]
    assert rows[0, 0, 1] == probs[0, 1, 1]


def test_images_where_nothing_is_found_have_rows_of_class_minus_one():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]])
    probs = torch.tensor([1., 0]).reshape(1, 2, 1).repeat(2, 1, 2)
    rows = d2lssd.multibox_detection(probs, torch.zeros(2, 8), anchors)
    assert rows.shape == (2, 2, 6)
    assert (rows[..., 0] == -1).all()


def test_a_minibatch_of_no_images_gives_no_rows():
    rows = d2lssd.multibox_detection(
        torch.zeros(0, 2, 3), torch.zeros(0, 12), torch.rand(1, 3, 4))
    assert rows.shape == (0, 3, 6)


def test_half_precision_predictions_are_taken_too():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5],
                             [0.5, 0.5, 1, 1]]])
    probs = torch.tensor([[[0.25, 0.5, 0.25], [0.75, 0.5, 0.75]]])
    offsets = torch.zeros(1, 12)
    rows = d2lssd.multibox_detection(probs.bfloat16(), offsets.bfloat16(),
                                     anchors)
    assert torch.equal(rows, d2lssd.multibox_detection(probs, offsets,
                                                       anchors))


def test_a_vote_weighs_its_squared_score_and_its_overlap():
    rows = torch.tensor([[0, 0.8, 0, 0, 10, 10],
                         [-1, 0.4, 0, 0, 10, 8],  # IoU 0.8
                         [-1, 0.6, 0, 0, 10, 5],  # IoU 0.5: no vote
                         [0, 0.5, 50, 50, 60, 60],  # alone
                         [-1, 0.005, 50, 50, 60, 61.]])  # too low a score
    first, second = d2lssd.vote_boxes(rows)
    bottom = (0.64 * 0.5 * 10 + 0.16 * 0.3 * 8) / (0.64 * 0.5 + 0.16 * 0.3)
    torch.testing.assert_close(
        first, torch.tensor([0, 0.8, 0, 0, 10, bottom]))
    torch.testing.assert_close(second, rows[3])
    # From a lower IoU on, the third has a vote of 0.36 · 0.1.
    first, _ = d2lssd.vote_boxes(rows, 0.4)
    votes = torch.tensor([0.64 * 0.6, 0.16 * 0.4, 0.36 * 0.1])
    torch.testing.assert_close(
        first[5], votes @ torch.tensor([10., 8, 5]) / votes.sum())


def test_without_rivals_voting_changes_nothing():
    nothing = torch.zeros(0, 6)
    assert d2lssd.vote_boxes(nothing).shape == (0, 6)
    point = torch.tensor([[0, 0.9, 5, 5, 5, 5.]])  # its IoU with itself is nan
    assert torch.equal(d2lssd.vote_boxes(point), point)
    rows = torch.tensor([[1, 0.9, 0, 0, 1, 1], [-1, 0.2, 3, 3, 4, 4.]])
    assert torch.equal(d2lssd.vote_boxes(rows), rows[:1])


def test_a_voter_that_is_nowhere_has_no_vote():
    rows = torch.tensor([[0, 0.9, 0.1, 0.1, 0.5, 0.5],
                         [-1, 0.8, 0.1, 0.1, 0.5, 0.6],
                         [-1, 0.7, 0.1, 0.1, float('inf'), 0.5],
                         [-1, 0.6, float('nan'), 0.1, 0.5, 0.5]])
    assert torch.equal(d2lssd.vote_boxes(rows), d2lssd.vote_boxes(rows[:2]))


def test_voting_comes_nearer_to_the_object_than_the_best_of_many():
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([0.2, 0.3, 0.5, 0.7])
    gains = []
    for _ in range(50):
        boxes = true + 0.02 * torch.randn(30, 4, generator=generator)
        score, _ = torch.rand(30, generator=generator).sort(descending=True)
        rows = torch.cat([torch.full((30, 1), -1.), score[:, None], boxes], 1)
        rows[0, 0] = 0
        before = (rows[0, 2:] - true).abs().mean()
        after = (d2lssd.vote_boxes(rows)[0, 2:] - true).abs().mean()
        gains.append(after / before)
    assert torch.stack(gains).median() < 0.6


# One vote each.

def test_a_score_is_the_mean_of_the_log_odds_of_the_best_votes():
    rows = torch.tensor([[0, 0.9, 0, 0, 10, 10], [0, 0.2, 50, 50, 60, 60],
                         [-1, 0.6, 0, 0, 10, 10], [-1, 0.5, 0, 0, 10, 10]])
    # Odds 9, 3/2 and 1; at least 1/99.
    first, second = d2lssd.fuse_boxes(rows, 2)
    torch.testing.assert_close(first[2:], rows[0, 2:])
    for score, odds in ((first[1], (9 * 3 / 2)**(1 / 2)),
                        (second[1], (1 / 4 / 99)**(1 / 2))):
        assert score / (1 - score) == pytest.approx(odds, rel=1e-4)
    first, _ = d2lssd.fuse_boxes(rows, 4)
    assert first[1] / (1 - first[1]) == pytest.approx(
        (9 * 3 / 2 / 99)**(1 / 4), rel=1e-4)


def test_who_overlaps_two_votes_for_one():
    rows = torch.tensor([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 5, 0, 15, 10],
                         [-1, 0.7, 2, 0, 12, 10]])  # IoU 8/12 and 7/13
    first, second = d2lssd.fuse_boxes(rows, 2)
    assert second[2:].tolist() == rows[1, 2:].tolist()
    shift = 2 * 0.49 * (2 / 3 - 0.5) / (0.81 * 0.5 + 0.49 * (2 / 3 - 0.5))
    torch.testing.assert_close(
        first[2:], torch.tensor([shift, 0, 10 + shift, 10]))
    assert first[1] / (1 - first[1]) == pytest.approx(
        (9 * 7 / 3)**(1 / 2), rel=1e-4)
    assert second[1] / (1 - second[1]) == pytest.approx(
        (4 / 99)**(1 / 2), rel=1e-4)


def test_votes_tell_a_second_object_from_a_double():
    """Twice the same pair of kept boxes, with the same scores; in the second
    picture the anchors between them see one object, not two."""
    pair = torch.tensor([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 3, 0, 13, 10]])

    def picture(*places):
        return torch.cat([pair, torch.tensor([
            [-1, 0.7, x, 0, x + 10, 10] for x in places])])

    two = d2lssd.fuse_boxes(picture(0.1, 0.2, 0.3, 2.7, 2.8, 2.9), 4)
    one = d2lssd.fuse_boxes(picture(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 4)
    assert len(two) == len(one) == 2
    assert two[1, 1] > 0.7
    assert one[1, 1] < 0.1
    assert one[0, 1] > 0.7


@quick
@given(seed=st.integers(0, 2**32 - 1), voters=st.integers(1, 9),
       count=st.integers(1, 40))
def test_fusing_is_what_loops_in_double_precision_say(seed, voters, count):
    rows = slow.crowded_rows(seed, count, 0.5)
    slowly = slow.fuse(rows.tolist(), voters, detection.MOVED)
    torch.testing.assert_close(d2lssd.fuse_boxes(rows, voters),
                               torch.tensor(slowly, dtype=torch.float64))


def test_fusing_needs_no_rivals_and_heeds_nobody_who_is_nowhere():
    nothing = torch.zeros(0, 6)
    assert d2lssd.fuse_boxes(nothing, 6).shape == (0, 6)
    point = torch.tensor([[0, 0.9, 5, 5, 5, 5.]])  # its IoU with itself is nan
    assert d2lssd.fuse_boxes(point, 1)[0, 2:].tolist() == [5, 5, 5, 5]
    rows = torch.tensor([[0, 1, 0.1, 0.1, 0.5, 0.5],
                         [-1, 0.8, 0.1, 0.1, 0.5, 0.6],
                         [-1, 0.7, 0.1, 0.1, float('inf'), 0.5],
                         [-1, 0.6, float('nan'), 0.1, 0.5, 0.5]])
    fused = d2lssd.fuse_boxes(rows, 3)
    assert torch.equal(fused, d2lssd.fuse_boxes(rows[:2], 3))
    assert fused.isfinite().all()
    assert (d2lssd.fuse_boxes(rows.double(), 3)[:, 1] < 1).all()
