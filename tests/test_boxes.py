"""Boxes: two formats, overlap, offsets."""
import pytest
import slow
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

import d2lssd

quick = settings(max_examples=60)
side = st.floats(1 / 64, 2, width=32)
place = st.floats(-1, 2, width=32)


@st.composite
def boxes(draw):
    """Float tensor (n, 4), corner format, none without area."""
    rows = draw(st.lists(st.tuples(place, place, side, side), min_size=1,
                         max_size=6))
    x, y, w, h = torch.tensor(rows).unbind(1)
    return torch.stack([x, y, x + w, y + h], 1)


def test_a_box_of_two_corners_has_the_centre_and_size_worked_by_hand():
    corner = torch.tensor([[0.1, 0.2, 0.5, 1.0], [3, 4, 13, 44]])
    center = torch.tensor([[0.3, 0.6, 0.4, 0.8], [8, 24, 10, 40]])
    torch.testing.assert_close(d2lssd.box_corner_to_center(corner), center)
    torch.testing.assert_close(d2lssd.box_center_to_corner(center), corner)


@quick
@given(boxes())
def test_both_conversions_agree_with_torchvision(corner):
    center = torchvision.ops.box_convert(corner, 'xyxy', 'cxcywh')
    torch.testing.assert_close(d2lssd.box_corner_to_center(corner), center)
    torch.testing.assert_close(
        d2lssd.box_center_to_corner(center),
        torchvision.ops.box_convert(center, 'cxcywh', 'xyxy'))


@quick
@given(boxes())
def test_corner_to_centre_and_back_gives_the_same_box(corner):
    there = d2lssd.box_corner_to_center(corner)
    back = d2lssd.box_center_to_corner(there)
    torch.testing.assert_close(back, corner, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('convert', ['box_corner_to_center',
                                     'box_center_to_corner'])
def test_a_conversion_takes_any_leading_dimensions_and_keeps_its_input(
        convert):
    convert = getattr(d2lssd, convert)
    given = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    before = given.clone()
    flat = convert(given.reshape(-1, 4))
    assert torch.equal(convert(given), flat.reshape(2, 3, 5, 4))
    assert convert(given).dtype == torch.float64
    assert torch.equal(given, before)
    assert convert(torch.zeros(0, 4)).shape == (0, 4)


def test_iou_of_boxes_worked_by_hand():
    one = torch.tensor([[0, 0, 2, 2.]])
    others = torch.tensor([[0, 0, 2, 2.],    # the same: 4/4
                           [1, 1, 3, 3],     # a corner: 1/(4+4-1)
                           [0, 0, 1, 1],     # inside: 1/4
                           [2, 0, 4, 2],     # touches
                           [5, 5, 6, 6]])    # far away
    assert torch.allclose(d2lssd.box_iou(one, others),
                          torch.tensor([[1, 1 / 7, 1 / 4, 0, 0]]))


@quick
@given(boxes(), boxes())
def test_iou_agrees_with_a_double_precision_loop(a, b):
    slowly = [[slow.iou(p, q) for q in b.tolist()] for p in a.tolist()]
    iou = d2lssd.box_iou(a, b)
    torch.testing.assert_close(iou, torch.tensor(slowly), rtol=1e-4,
                               atol=1e-5)
    torch.testing.assert_close(iou, d2lssd.box_iou(b, a).T)


@quick
@given(boxes(), boxes())
def test_iou_is_that_of_torchvision_bit_for_bit(a, b):
    many = torch.cat([a, torch.rand(70, 2).repeat(1, 2) + torch.tensor(
        [0, 0, 0.3, 0.2])])
    for some in a, many, a[:0], a.double():
        iou = d2lssd.box_iou(some, b)
        assert iou.shape == (len(some), len(b))
        assert torch.equal(iou, torchvision.ops.box_iou(some, b))


def test_iou_lets_a_gradient_through():
    boxes = torch.tensor([[0, 0, 1, 1.]], requires_grad=True)
    iou = d2lssd.box_iou(boxes, torch.tensor([[0.5, 0, 1.5, 1]]))
    slope, = torch.autograd.grad(iou.sum(), boxes)
    # IoU = (x₂ − ½) / (3/2 − x₁) at x₁ = 0, x₂ = 1, as to x alone.
    torch.testing.assert_close(slope[0, [0, 2]], torch.tensor([2 / 9, 2 / 3]))


def test_offsets_worked_by_hand():
    anchor = torch.tensor([[0, 0, 0.4, 0.2]])
    box = torch.tensor([[0.2, 0.1, 0.4, 0.5]])
    # Centres (0.2, 0.1) and (0.3, 0.3); sizes 0.4×0.2 and 0.2×0.4.
    log2 = 0.6931471805599453
    expected = torch.tensor([[10 * 0.1 / 0.4, 10 * 0.2 / 0.2,
                              -5 * log2, 5 * log2]])
    torch.testing.assert_close(d2lssd.offset_boxes(anchor, box), expected,
                               rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(d2lssd.offset_inverse(anchor, expected), box)


@quick
@given(boxes(), boxes())
def test_offsets_agree_with_a_double_precision_loop(anchors, true):
    n = min(len(anchors), len(true))
    anchors, true = anchors[:n].double(), true[:n].double()
    slowly = torch.tensor([slow.offsets(a, b) for a, b in
                           zip(anchors.tolist(), true.tolist(), strict=True)],
                          dtype=torch.float64)
    torch.testing.assert_close(d2lssd.offset_boxes(anchors, true), slowly)


@quick
@given(boxes(), boxes())
def test_offsets_taken_and_applied_give_the_box_back(anchors, true):
    n = min(len(anchors), len(true))
    anchors, true = anchors[:n].double(), true[:n].double()
    offsets = d2lssd.offset_boxes(anchors, true, eps=0)
    torch.testing.assert_close(d2lssd.offset_inverse(anchors, offsets), true)
    # The guard against log 0 adds a millionth of the anchor, no more.
    offsets = d2lssd.offset_boxes(anchors, true)
    moved = (d2lssd.offset_inverse(anchors, offsets) - true).abs()
    size = (anchors[:, 2:] - anchors[:, :2]).repeat(1, 2)
    assert (moved <= 0.51e-6 * size + 1e-9).all()


@quick
@given(boxes())
def test_zero_offsets_mean_the_anchor_itself(anchors):
    torch.testing.assert_close(
        d2lssd.offset_inverse(anchors, torch.zeros_like(anchors)), anchors,
        rtol=1e-5, atol=1e-6)


def test_offsets_of_a_box_without_area_stay_finite():
    anchor = torch.tensor([[0, 0, 0.5, 0.5]])
    point = torch.tensor([[0.2, 0.2, 0.2, 0.2]])
    assert d2lssd.offset_boxes(anchor, point).isfinite().all()


def test_offsets_broadcast_one_set_of_anchors_against_a_minibatch():
    anchors = torch.tensor([[[0, 0, 1, 1], [0.5, 0.5, 1, 1]]])
    true = torch.rand(3, 2, 2)
    true = torch.cat([true, true + 0.5], -1)
    together = d2lssd.offset_boxes(anchors, true)
    assert together.shape == (3, 2, 4)
    for i in range(3):
        assert torch.equal(together[i],
                           d2lssd.offset_boxes(anchors[0], true[i]))
        torch.testing.assert_close(
            d2lssd.offset_inverse(anchors, together)[i], true[i], rtol=0,
            atol=1e-5)


def test_gradients_reach_the_offsets_that_a_network_predicts():
    anchors = torch.tensor([[0, 0, 1, 1], [0.2, 0.1, 0.5, 0.9]],
                           dtype=torch.float64)
    offsets = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda o: d2lssd.offset_inverse(anchors, o), offsets)
