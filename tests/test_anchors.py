"""Anchor boxes: where they stand, and what each of them has to learn."""
import pytest
import slow
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import d2lssd

quick = settings(max_examples=60)
cell = st.integers(0, slow.GRID)


@st.composite
def grid_boxes(draw, least, most):
    """List of boxes with area whose corners are multiples of 1/16."""
    corners = st.lists(cell, min_size=2, max_size=2, unique=True).map(sorted)
    pairs = draw(st.lists(st.tuples(corners, corners), min_size=least,
                          max_size=most))
    return [[v / slow.GRID for v in (x[0], y[0], x[1], y[1])]
            for x, y in pairs]


@st.composite
def minibatches(draw):
    """Anchors (A, 4) and labels (B, m, 5) with padding, both as lists."""
    anchors = draw(grid_boxes(1, 12))
    m = draw(st.integers(1, 4))
    labels = []
    for _ in range(draw(st.integers(1, 3))):
        rows = [[float(draw(st.integers(0, 2))), *box]
                for box in draw(grid_boxes(0, m))]
        rows += [[-1.0] * 5] * (m - len(rows))
        labels.append(draw(st.permutations(rows)))
    return anchors, labels


def tensors(anchors, labels):
    return torch.tensor(anchors).reshape(-1, 4), torch.tensor(labels)


# The anchors themselves.

def test_anchors_of_a_square_map_are_those_worked_by_hand():
    anchors = d2lssd.multibox_prior(torch.zeros(1, 3, 2, 2), [0.5, 0.25],
                                    [1, 4])
    assert anchors.shape == (1, 2 * 2 * 3, 4)
    assert anchors.dtype == torch.float32
    # Around (0.25, 0.25): size 0.5, size 0.25, size 0.5 at ratio 4.
    first = torch.tensor([[0, 0, 0.5, 0.5], [0.125, 0.125, 0.375, 0.375],
                          [-0.25, 0.125, 0.75, 0.375]])
    torch.testing.assert_close(anchors[0, :3], first)
    right = torch.tensor([0.5, 0, 0.5, 0])
    torch.testing.assert_close(anchors[0, 3:6], first + right)
    torch.testing.assert_close(anchors[0, 6:9], first + right.roll(1))


@quick
@given(st.integers(1, 7), st.integers(1, 7),
       st.lists(st.floats(0.05, 1.5), min_size=1, max_size=3),
       st.lists(st.floats(0.2, 5), min_size=1, max_size=3))
def test_anchors_agree_with_a_double_precision_loop(h, w, sizes, ratios):
    anchors = d2lssd.multibox_prior(torch.zeros(2, 8, h, w), sizes, ratios)
    slowly = torch.tensor(slow.prior(h, w, sizes, ratios))
    torch.testing.assert_close(anchors[0], slowly, rtol=1e-5, atol=1e-5)


def test_an_anchor_of_ratio_one_is_square_in_units_of_the_feature_map():
    h, w = 4, 12
    box = d2lssd.multibox_prior(torch.zeros(h, w), [0.5], [1])[0, 0]
    width, height = (box[2:] - box[:2]).tolist()
    assert width * w == pytest.approx(height * h)
    assert height == pytest.approx(0.5)


def test_anchors_do_not_depend_on_the_values_or_the_type_of_the_map():
    wanted = d2lssd.multibox_prior(torch.zeros(3, 5), [0.3, 0.4], [1, 2])
    for data in (torch.full((2, 9, 3, 5), float('nan')),
                 torch.zeros(1, 1, 3, 5, dtype=torch.bfloat16),
                 torch.zeros(3, 5, dtype=torch.int64)):
        assert torch.equal(
            d2lssd.multibox_prior(data, [0.3, 0.4], [1, 2]), wanted)


@pytest.mark.parametrize(('sizes', 'ratios'), [
    ([], [1]), ([0.2], []), ([0], [1]), ([0.2, -0.1], [1]), ([0.2], [1, 0])])
def test_a_size_or_ratio_that_no_anchor_can_have_is_refused(sizes, ratios):
    with pytest.raises(ValueError, match='at least one of each') as error:
        d2lssd.multibox_prior(torch.zeros(2, 2), sizes, ratios)
    assert str(sizes) in str(error.value)
    assert str(ratios) in str(error.value)


# Who is matched with whom.

def test_matches_worked_by_hand():
    anchors = torch.tensor([[0, 0, 0.5, 0.5],    # IoU 1 with box 0
                            [0, 0, 0.5, 0.25],   # IoU 0.5 with box 0
                            [0.75, 0.75, 1, 1],  # IoU 1/4 with box 1
                            [0, 0, 0.25, 0.5],   # IoU 0.5 with box 0
                            [0.5, 0, 0.75, 0.25]])  # overlaps nothing
    labels = torch.tensor([[[1, 0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1, 1]]])
    assert d2lssd.match_anchors(anchors, labels).tolist() == [
        [0, 0, 1, 0, -1]]
    assert d2lssd.match_anchors(anchors, labels, 0.51).tolist() == [
        [0, -1, 1, -1, -1]]


def test_two_boxes_that_want_the_same_anchor_get_one_each():
    anchors = torch.tensor([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]])
    # Both overlap anchor 0 most, the second one more: it goes first.
    labels = torch.tensor([[[0, 0, 0, 0.5625, 0.5], [1, 0, 0, 0.5, 0.5]]])
    assert d2lssd.match_anchors(anchors, labels).tolist() == [[1, 0]]


def test_an_anchor_stays_with_the_box_that_needs_it():
    anchors = torch.tensor([[0, 0, 0.5, 0.5], [0.125, 0, 0.625, 0.5]])
    # Box 1 overlaps anchor 0 more than box 0 does, 0.6 against 0.25, but has
    # anchor 1 for its own; box 0 has no other.
    labels = torch.tensor([[[0, 0, 0, 0.125, 0.5], [0, 0.125, 0, 0.625, 0.5]]])
    assert d2lssd.match_anchors(anchors, labels).tolist() == [[0, 1]]


@quick
@given(minibatches(), st.sampled_from([0.25, 0.5, 0.75]))
def test_matches_agree_with_a_slow_matcher_ties_included(batch, threshold):
    anchors, labels = batch
    match = d2lssd.match_anchors(*tensors(anchors, labels), threshold)
    assert match.dtype == torch.int64
    assert match.tolist() == [slow.match(anchors, rows, threshold)
                              for rows in labels]


@pytest.mark.parametrize('seed', range(3))
def test_matches_on_the_networks_anchors_agree_with_a_slow_matcher(seed):
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.cat([d2lssd.multibox_prior(torch.zeros(n, n), *shape)
                         for n, *shape in ((8, [0.2, 0.27], [1, 2, 0.5]),
                                           (3, [0.5, 0.6], [1, 2, 0.5]))], 1)
    center = 0.2 + 0.6 * torch.rand(2, 5, 2, generator=generator)
    half = 0.05 + 0.15 * torch.rand(2, 5, 2, generator=generator)
    labels = torch.cat([torch.zeros(2, 5, 1), center - half, center + half],
                       -1)
    match = d2lssd.match_anchors(anchors[0], labels)
    assert match.tolist() == [slow.match(anchors[0].tolist(), rows)
                              for rows in labels.tolist()]


def test_of_anchors_that_fit_equally_well_the_first_is_matched():
    anchors = d2lssd.multibox_prior(torch.zeros(32, 32), [0.2, 0.272],
                                    [1, 2, 0.5])
    small = torch.tensor([[[0, 0.45, 0.45, 0.55, 0.55]]])
    iou = d2lssd.box_iou(small[0, :, 1:], anchors[0])[0]
    best = (iou == iou.max()).nonzero().flatten()
    assert len(best) > 1
    for padding in range(4):
        labels = torch.cat([small, -torch.ones(1, padding, 5)], 1)
        match = d2lssd.match_anchors(anchors[0], labels)[0]
        assert (match >= 0).nonzero().flatten().tolist() == [int(best[0])]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_any_floats_are_matched_with_a_gradient_or_without(dtype):
    anchors = d2lssd.multibox_prior(torch.zeros(4, 4), [0.25, 0.5], [1])[0]
    labels = torch.tensor([[[0, 0, 0, 0.5, 0.5], [1, 0.5, 0.25, 1, 1]]])
    expected = d2lssd.match_anchors(anchors, labels)
    assert (expected >= 0).sum() == 2
    for boxes in (anchors.to(dtype), anchors.to(dtype).requires_grad_()):
        match = d2lssd.match_anchors(boxes, labels.to(dtype))
        assert torch.equal(match, expected)


def test_more_boxes_than_anchors_leave_the_rest_without():
    anchors = torch.tensor([[0, 0, 1, 1.]])
    labels = torch.tensor([[[0, 0, 0, 0.5, 1], [1, 0, 0, 0.75, 1],
                            [2, 0, 0, 0.25, 1]]])
    assert d2lssd.match_anchors(anchors, labels).tolist() == [[1]]


def test_a_flat_index_is_not_divided_in_floating_point():
    # The anchors are upright slices of the image and each box is one of them,
    # so the only right answer is known. A·m is above 2²⁴, from where on
    # float32 skips whole numbers.
    A, m = 2**21 - 4, 9
    edge = torch.arange(A + 1) / 2**21
    zero, one = torch.zeros(A), torch.ones(A)
    anchors = torch.stack([edge[:-1], zero, edge[1:], one], 1)
    box = torch.arange(m)
    own = A - 1 - 4 * box.flip(0)
    # The fault to avoid, in either order of the pairs.
    assert (((own * m + box).float() / m).long() != own).any()
    assert (((box * A + own).float() / A).long() != box).any()
    labels = torch.cat([torch.zeros(m, 1), anchors[own]], 1)[None]
    expected = torch.full((A,), -1)
    expected[own] = box
    assert torch.equal(d2lssd.match_anchors(anchors, labels)[0], expected)


# What every anchor has to learn.

def test_targets_worked_by_hand():
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1],
                             [0.25, 0.25, 0.5, 0.5]]])
    labels = torch.tensor([[[2, 0.5, 0.5, 0.75, 1]]])
    offset, mask, classes = d2lssd.multibox_target(anchors, labels)
    # Anchor 1: centres (0.75, 0.75) and (0.625, 0.75), widths 0.5 and 0.25.
    own = torch.tensor([10 * -0.125 / 0.5, 0, -5 * 0.6931472, 0])
    torch.testing.assert_close(
        offset, torch.cat([torch.zeros(4), own, torch.zeros(4)])[None],
        rtol=1e-5, atol=2e-5)
    assert mask.tolist() == [[0] * 4 + [1] * 4 + [0] * 4]
    assert classes.tolist() == [[0, 3, 0]]
    assert (offset.dtype, mask.dtype, classes.dtype) == (
        torch.float32, torch.float32, torch.int64)


@quick
@given(minibatches())
def test_targets_agree_with_a_slow_matcher_and_offsets_one_by_one(batch):
    anchors, labels = batch
    a, y = tensors(anchors, labels)
    offset, mask, classes = d2lssd.multibox_target(a[None], y)
    B, A = len(labels), len(anchors)
    assert offset.shape == mask.shape == (B, 4 * A)
    assert classes.shape == (B, A)
    for i, rows in enumerate(labels):
        match = slow.match(anchors, rows)
        assert classes[i].tolist() == [int(rows[j][0]) + 1 if j >= 0 else 0
                                       for j in match]
        assert mask[i].tolist() == [float(j >= 0) for j in match
                                    for _ in range(4)]
        expected = [v for anchor, j in zip(anchors, match, strict=True)
                    for v in (slow.offsets(anchor, rows[j][1:])
                              if j >= 0 else [0.0] * 4)]
        torch.testing.assert_close(offset[i], torch.tensor(expected),
                                   rtol=1e-4, atol=1e-4)


@quick
@given(minibatches(), st.randoms())
def test_a_permutation_of_the_images_permutes_the_targets(batch, random):
    anchors, labels = tensors(*batch)
    order = list(range(len(labels)))
    random.shuffle(order)
    for one, other in zip(d2lssd.multibox_target(anchors[None], labels),
                          d2lssd.multibox_target(anchors[None],
                                                 labels[order]),
                          strict=True):
        assert torch.equal(one[order], other)


@quick
@given(minibatches(), st.integers(1, 3))
def test_rows_of_padding_never_change_anything(batch, count):
    anchors, labels = tensors(*batch)
    padding = -torch.ones(len(labels), count, 5)
    plain = d2lssd.multibox_target(anchors[None], labels)
    for padded in (torch.cat([labels, padding], 1),
                   torch.cat([padding, labels], 1)):
        for one, other in zip(plain, d2lssd.multibox_target(
                anchors[None], padded), strict=True):
            assert torch.equal(one, other)


@quick
@given(minibatches())
def test_every_box_that_overlaps_an_anchor_gets_one_while_there_are_any(
        batch):
    anchors, labels = batch
    assume(len(anchors) >= len(labels[0]))
    match = d2lssd.match_anchors(*tensors(anchors, labels))
    for i, rows in enumerate(labels):
        boxes = [j for j, row in enumerate(rows) if row[0] >= 0]
        # A box goes without only where others hold all that it overlaps.
        for j in boxes:
            near = [a for a, anchor in enumerate(anchors)
                    if slow.iou(rows[j][1:], anchor) > 0]
            assert (match[i] == j).any() or all(match[i, a] >= 0
                                                for a in near)


def test_padded_labels_do_not_mark_anchors():
    anchors = d2lssd.multibox_prior(torch.zeros(4, 4), [0.3, 0.4], [1, 2])
    true = torch.tensor([0, 0.1, 0.1, 0.4, 0.4])
    alone = d2lssd.multibox_target(anchors, true.reshape(1, 1, 5))
    assert 4 <= alone[1].sum() < alone[1].numel()
    # However the box of a padded row may look, it must not count.
    for padding in ([-1] * 5, [-1, 0, 0, 0, 0], [-1, 0.5, 0.5, 0.8, 0.8],
                    [-1, 0.8, 0.5, 0.2, 0.8], [-1] + [float('nan')] * 4):
        for rows in ([true.tolist(), padding], [padding, true.tolist()]):
            targets = d2lssd.multibox_target(anchors, torch.tensor([rows]))
            for one, other in zip(alone, targets, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize('m', [0, 1, 3])
def test_an_image_with_no_box_at_all_is_all_background(m):
    anchors = d2lssd.multibox_prior(torch.zeros(4, 4), [0.3, 0.4], [1, 2])
    offset, mask, classes = d2lssd.multibox_target(anchors,
                                                   -torch.ones(2, m, 5))
    A = anchors.shape[1]
    assert offset.shape == mask.shape == (2, 4 * A)
    assert classes.shape == (2, A)
    assert classes.dtype == torch.int64
    for target in (offset, mask, classes):
        assert not target.any()


def test_an_image_with_no_box_sits_in_a_minibatch_beside_one_with_a_box():
    anchors = d2lssd.multibox_prior(torch.zeros(4, 4), [0.3], [1])
    box = torch.tensor([[[1, 0.1, 0.1, 0.4, 0.4]]])
    none = -torch.ones(1, 1, 5)
    offset, mask, classes = d2lssd.multibox_target(anchors,
                                                   torch.cat([none, box]))
    assert not mask[0].any()
    assert not classes[0].any()
    assert (classes[1] == 2).sum() * 4 == mask[1].sum() > 0


def test_a_minibatch_of_no_images_gives_targets_of_no_images():
    anchors = d2lssd.multibox_prior(torch.zeros(2, 2), [0.3], [1])
    for m in (0, 2):
        offset, mask, classes = d2lssd.multibox_target(anchors,
                                                       torch.zeros(0, m, 5))
        assert offset.shape == mask.shape == (0, 16)
        assert classes.shape == (0, 4)


def test_targets_leave_the_labels_as_they_were():
    anchors = d2lssd.multibox_prior(torch.zeros(4, 4), [0.3], [1])
    labels = torch.tensor([[[0, 0.1, 0.1, 0.4, 0.4], [-1] * 5]])
    before = labels.clone()
    d2lssd.multibox_target(anchors, labels)
    assert torch.equal(labels, before)


@pytest.mark.parametrize('dtype', [torch.int64, torch.half, torch.double])
def test_labels_of_another_type_give_the_same_targets(dtype):
    anchors = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.9, 1]]])
    labels = torch.tensor([[[0, 0.0, 0, 1, 1]]])
    for a, b in zip(d2lssd.multibox_target(anchors, labels),
                    d2lssd.multibox_target(anchors, labels.to(dtype))):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_offsets_of_targets_applied_to_the_anchors_give_the_boxes_back():
    anchors = d2lssd.multibox_prior(torch.zeros(8, 8), [0.3, 0.4], [1, 2])
    labels = torch.tensor([[[0, 0.1, 0.15, 0.4, 0.5],
                            [1, 0.5, 0.5, 0.95, 0.8]]])
    offset, _, classes = d2lssd.multibox_target(anchors, labels)
    boxes = d2lssd.offset_inverse(anchors, offset.reshape(1, -1, 4))
    for kind in (0, 1):
        found = boxes[classes == kind + 1]
        assert len(found)
        torch.testing.assert_close(
            found, labels[0, kind, 1:].expand_as(found), rtol=0, atol=1e-5)


# Labels that no image can have.

@pytest.mark.parametrize(('row', 'fault'), [
    ([0, 0.7, 0.2, 0.4, 0.9], 'x_min 0.7 is right of x_max 0.4'),
    ([0, 0.2, 0.9, 0.4, 0.1], 'y_min 0.9 is below y_max 0.1'),
    ([-2, 0.1, 0.1, 0.4, 0.4], 'class -2'),
    ([0.5, 0.1, 0.1, 0.4, 0.4], 'class 0.5'),
    ([0, 26, 38, 76, 90], 'outside [0, 1]'),
    ([0, -0.2, 0.1, 0.4, 0.4], 'outside [0, 1]'),
    ([0, 0.1, 0.1, 0.4, 1.2], 'outside [0, 1]'),
    ([0, 0.1, float('nan'), 0.4, 0.4], 'not all finite'),
    ([0, 0.1, 0.1, float('inf'), 0.4], 'not all finite'),
    ([float('nan'), 0.1, 0.1, 0.4, 0.4], 'not all finite'),
    ([float('inf'), 0.1, 0.1, 0.4, 0.4], 'not all finite')])
def test_a_malformed_label_is_refused_by_image_row_and_value(row, fault):
    labels = torch.tensor([0, 0.1, 0.1, 0.4, 0.4]).repeat(5, 3, 1)
    labels[:, 2] = -1
    labels[3, 1] = torch.tensor(row)
    anchors = d2lssd.multibox_prior(torch.zeros(2, 2), [0.3], [1])
    for refuse in (lambda: d2lssd.check_labels(labels),
                   lambda: d2lssd.multibox_target(anchors, labels)):
        with pytest.raises(ValueError, match=r'^labels\[3, 1\] = ') as error:
            refuse()
        assert fault in str(error.value)
        assert str([float(v) for v in row]) in str(error.value)


def test_a_class_beyond_the_last_is_refused_where_their_number_is_known():
    labels = torch.tensor([[[3, 0.1, 0.1, 0.4, 0.4]]])
    d2lssd.check_labels(labels)
    d2lssd.check_labels(labels, num_classes=4)
    with pytest.raises(ValueError, match=r'labels\[0, 0\].*class 3.*below 3'):
        d2lssd.check_labels(labels, num_classes=3)


@pytest.mark.parametrize('shape', [(3, 5), (2, 3, 4), (2, 3, 6), (5,)])
def test_labels_of_another_shape_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError, match='shape') as error:
        d2lssd.check_labels(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_images_with_no_row_of_labels_match_nothing():
    match = d2lssd.match_anchors(torch.rand(5, 4), torch.zeros(2, 0, 5))
    assert torch.equal(match, torch.full((2, 5), -1))


def test_padding_of_any_content_and_boxes_up_to_the_edge_are_good_labels():
    d2lssd.check_labels(torch.tensor(
        [[[0, 0, 0, 1, 1], [-1] * 5], [[-1, 0.9, 0.9, 0.1, 0.1],
                                       [7, 0.5, 0.5, 0.5, 0.5]]]))
    d2lssd.check_labels(torch.zeros(0, 3, 5))
    d2lssd.check_labels(torch.zeros(4, 0, 5))


@pytest.mark.parametrize('power', [0, 0.5, 1])
def test_weights_of_an_objects_anchors_worked_by_hand(power):
    # Three anchors match the first object, one the second, one nothing.
    anchors = torch.tensor([[[0, 0, .4, .4], [0, 0, .4, .44], [0, 0, .44, .4],
                             [.6, .6, .9, .9], [.5, 0, .6, .1]]])
    labels = torch.tensor([[[0, 0, 0, .4, .4], [0, .6, .6, .9, .9],
                            [-1, -1, -1, -1, -1]]])
    weights = d2lssd.object_weights(anchors, labels, power)
    mean = (3 * 3**-power + 1) / 4
    torch.testing.assert_close(weights, torch.tensor(
        [[3**-power / mean] * 3 + [1 / mean, 1]]))


@pytest.mark.parametrize('ignored', [None, 0.3])
def test_without_objects_all_weights_are_one(ignored):
    anchors = torch.rand(1, 5, 4).sort(-1).values[..., [0, 1, 2, 3]]
    for labels in torch.full((2, 1, 5), -1.0), torch.zeros(2, 0, 5):
        weights = d2lssd.object_weights(anchors, labels, 0.5, ignored)
        assert weights.equal(torch.ones(2, 5))


def test_anchors_that_nearly_match_weigh_nothing():
    # Of the first image's object 0.6, 0.45, 0.35, 0.24 and 0; of the other's,
    # which takes the best, 0.32, 0.27, 0.23, 0.18 and 0.
    anchors = torch.tensor([[0, 0, 0.1 * x, 1] for x in (6, 4.5, 3.5, 2.4)]
                           + [[1., 0, 1, 1]])[None]
    labels = torch.tensor([[[0, 0, 0, 1, 1]], [[0, 0, 0, 1, 0.4]]])
    kinds = d2lssd.multibox_target(anchors, labels)[2]
    assert kinds.tolist() == [[1, 0, 0, 0, 0]] * 2
    weights = d2lssd.object_weights(anchors, labels, 0, 0.25)
    assert weights.tolist() == [[1, 0, 0, 1, 1], [1, 0, 1, 1, 1]]


def test_anchors_between_two_objects_stay_background():
    # The first two match the halves; then 0.44 of both, 0.42 and 0.13, and
    # 0.4 and 0.
    anchors = torch.tensor([[0, .5], [.5, 1], [.1, .9], [.25, .6], [0, .2]])
    anchors = torch.stack([anchors[:, 0], torch.zeros(5),
                           anchors[:, 1], torch.ones(5)], 1)[None]
    labels = torch.tensor([[[0, 0, 0, .5, 1], [0, .5, 0, 1, 1],
                            [-1, -1, -1, -1, -1]]])
    assert d2lssd.multibox_target(anchors, labels)[2].tolist() == [
        [1, 1, 0, 0, 0]]
    for ignored, expected in ((0.35, [1, 1, 1, 0, 0]),
                              (0.1, [1, 1, 1, 1, 0])):
        weights = d2lssd.object_weights(anchors, labels, 0, ignored)
        assert weights.tolist() == [expected]
