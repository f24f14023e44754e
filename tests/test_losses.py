"""Losses, held to their formulas in double precision."""
import math

import pytest
import slow
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import d2lssd

quick = settings(max_examples=40)


def predictions(B=2, A=5, q=2, seed=0, matched=0.4, dtype=torch.float64):
    """The five arguments of a loss, with offsets off every kink."""
    draw = torch.Generator().manual_seed(seed)
    cls_preds = torch.randn(B, A, q + 1, generator=draw, dtype=dtype)
    cls_labels = torch.randint(1, q + 1, (B, A), generator=draw)
    cls_labels[torch.rand(B, A, generator=draw) >= matched] = 0
    bbox_preds, bbox_labels = torch.randn(2, B, 4 * A, generator=draw,
                                          dtype=dtype)
    masks = (cls_labels > 0).repeat_interleave(4, 1).to(dtype)
    return cls_preds, cls_labels, bbox_preds, bbox_labels, masks


def slow_smooth_l1(x, sigma):
    if abs(x) < 1 / sigma**2:
        return (sigma * x)**2 / 2
    return abs(x) - 0.5 / sigma**2


# The source's loss.

def test_the_loss_of_one_image_worked_by_hand():
    # Two anchors: logits (0, 0) give log 2 whatever the label; logits
    # (0, log 3) give the object 3/4. Offsets of the first anchor are
    # background's and do not count, those of the second miss by 1, 2, 0, 1.
    loss = d2lssd.calc_loss(
        torch.tensor([[[0, 0], [0, math.log(3)]]]), torch.tensor([[0, 1]]),
        torch.tensor([[9, 9, 9, 9, 1, 0, 5, 1.]]),
        torch.tensor([[0, 0, 0, 0, 0, 2, 5, 2.]]),
        torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1.]]))
    expected = (math.log(2) + math.log(4 / 3)) / 2 + 4 / 8
    torch.testing.assert_close(loss, torch.tensor([expected]))


@quick
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3),
       st.integers(0, 999))
def test_the_loss_agrees_with_its_formula_in_double_precision(B, A, q, seed):
    args = predictions(B, A, q, seed)
    cls_preds, cls_labels, *boxes = (a.tolist() for a in args)
    expected = []
    for i in range(B):
        cls = sum(slow.cross_entropy(*pair)
                  for pair in zip(cls_preds[i], cls_labels[i])) / A
        box = sum(abs(p - t) * m for p, t, m in
                  zip(*(b[i] for b in boxes))) / (4 * A)
        expected.append(cls + box)
    torch.testing.assert_close(d2lssd.calc_loss(*args),
                               torch.tensor(expected, dtype=torch.float64))


def test_the_loss_of_an_image_does_not_depend_on_its_minibatch():
    args = predictions(B=3)
    together = d2lssd.calc_loss(*args)
    assert together.shape == (3,)
    for i in range(3):
        alone = d2lssd.calc_loss(*(a[i:i + 1] for a in args))
        torch.testing.assert_close(together[i:i + 1], alone)
    shuffled = d2lssd.calc_loss(*(a[[2, 0, 1]] for a in args))
    torch.testing.assert_close(together[[2, 0, 1]], shuffled)


def test_offsets_of_unmatched_anchors_do_not_count():
    cls_preds, cls_labels, preds, labels, masks = predictions(B=3)
    assert 0 < masks.sum() < masks.numel()
    moved = preds + 100 * (1 - masks)
    for loss in (d2lssd.calc_loss, d2lssd.balanced_loss):
        assert torch.equal(loss(cls_preds, cls_labels, preds, labels, masks),
                           loss(cls_preds, cls_labels, moved, labels, masks))


def test_a_perfect_prediction_costs_nothing():
    _, cls_labels, _, labels, masks = predictions()
    certain = 100 * F.one_hot(cls_labels, 3).double()
    for loss in (d2lssd.calc_loss, d2lssd.balanced_loss):
        cost = loss(certain, cls_labels, labels, labels, masks)
        assert (cost.abs() < 1e-12).all()


@pytest.mark.parametrize('loss', ['calc_loss', 'balanced_loss'])
def test_gradients_of_the_loss_are_those_of_finite_differences(loss):
    cls_preds, cls_labels, preds, labels, masks = predictions()
    assert torch.autograd.gradcheck(
        lambda c, b: getattr(d2lssd, loss)(c, cls_labels, b, labels, masks),
        (cls_preds.requires_grad_(), preds.requires_grad_()))


# Its rivals.

@pytest.mark.parametrize(('sigma', 'x', 'expected'), [
    (1, 0, 0), (1, 0.5, 0.125), (1, 2, 1.5), (1, -2, 1.5), (10, 1, 0.995),
    (10, 0.005, 0.00125), (0.5, 2, 0.5), (0.5, -6, 4)])
def test_smooth_l1_worked_by_hand(sigma, x, expected):
    found = d2lssd.smooth_l1(torch.tensor([x], dtype=torch.float64), sigma)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize('sigma', [10, 1, 0.5])
def test_smooth_l1_is_pytorchs_with_beta_one_over_sigma_squared(sigma):
    x = torch.arange(-2, 2, 0.01, dtype=torch.float64)
    ours = d2lssd.smooth_l1(x, sigma)
    assert ours.shape == x.shape
    torch.testing.assert_close(ours, F.smooth_l1_loss(
        x, torch.zeros_like(x), reduction='none', beta=1 / sigma**2))


@pytest.mark.parametrize('sigma', [10, 1, 0.5])
def test_smooth_l1_is_smooth_where_its_pieces_meet(sigma):
    edge = 1 / sigma**2
    x = torch.tensor([edge * (1 - 1e-9), edge, edge * (1 + 1e-9)],
                     dtype=torch.float64, requires_grad=True)
    y = d2lssd.smooth_l1(x, sigma)
    y.sum().backward()
    torch.testing.assert_close(y, torch.full_like(y, edge / 2))
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_focal_loss_worked_by_hand():
    half = torch.tensor([0.5], dtype=torch.float64)
    for gamma in (0, 1, 2, 5):
        assert d2lssd.focal_loss(gamma, half).item() == pytest.approx(
            0.5**gamma * math.log(2))
    assert d2lssd.focal_loss(2, torch.ones(3)).tolist() == [0, 0, 0]


def test_focal_loss_with_gamma_zero_is_cross_entropy():
    logits = torch.randn(20, 3, dtype=torch.float64)
    label = torch.randint(0, 3, (20,))
    true = logits.softmax(1)[torch.arange(20), label]
    torch.testing.assert_close(
        d2lssd.focal_loss(0, true),
        F.cross_entropy(logits, label, reduction='none'))


@pytest.mark.parametrize('gamma', [0, 0.5, 1, 2, 5])
def test_focal_loss_agrees_with_torchvision(gamma):
    logits = torch.linspace(-4, 4, 50, dtype=torch.float64)
    for label in (torch.ones(50), torch.zeros(50)):
        true = torch.where(label > 0, logits, -logits).sigmoid()
        torch.testing.assert_close(
            d2lssd.focal_loss(gamma, true),
            torchvision.ops.sigmoid_focal_loss(
                logits, label.double(), alpha=-1, gamma=gamma))


def test_focal_loss_falls_as_gamma_or_the_probability_grows():
    x = torch.arange(0.01, 1, 0.01)
    losses = torch.stack([d2lssd.focal_loss(g, x) for g in (0, 1, 2, 5)])
    assert (losses.diff(dim=0) < 0).all()
    assert (losses.diff(dim=1) < 0).all()


def test_gradients_of_the_rivals_are_those_of_finite_differences():
    x = torch.tensor([-1.7, -0.3, 0.2, 0.9], dtype=torch.float64,
                     requires_grad=True)
    for sigma in (1, 0.8):
        assert torch.autograd.gradcheck(
            lambda x, s=sigma: d2lssd.smooth_l1(x, s), x)
    p = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64,
                     requires_grad=True)
    for gamma in (0, 1, 5):
        assert torch.autograd.gradcheck(
            lambda p, g=gamma: d2lssd.focal_loss(g, p), p)


# The balanced loss.

@quick
@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 999),
       st.sampled_from([0, 0.2, 0.5, 1]), st.sampled_from([0, 1, 1.5, 3]),
       st.sampled_from([None, 1.0, 2.0]), st.sampled_from([0.5, 2.0]))
def test_the_balanced_loss_agrees_with_a_slow_one(
        B, A, seed, matched, negative_ratio, sigma, weight):
    args = predictions(B, A, 2, seed, matched)
    cls_preds, cls_labels, preds, labels, masks = (
        a.flatten(0, 1).tolist() for a in args)
    ce = [slow.cross_entropy(*pair) for pair in zip(cls_preds, cls_labels)]
    positive = [c for c, label in zip(ce, cls_labels) if label > 0]
    negative = sorted((c for c, label in zip(ce, cls_labels) if label == 0),
                      reverse=True)
    n = max(1, len(positive))
    hard = negative[:math.ceil(negative_ratio * n)]
    box = sum(abs(p - t) if sigma is None else slow_smooth_l1(p - t, sigma)
              for p, t, m in zip(preds, labels, masks) if m)
    expected = (sum(positive) + sum(hard) + weight * box) / n
    loss = d2lssd.balanced_loss(*args, negative_ratio=negative_ratio,
                                sigma=sigma, bbox_weight=weight)
    assert loss.shape == ()
    torch.testing.assert_close(loss, torch.tensor(expected).double())


@pytest.mark.parametrize('gamma', [0, 0.5, 1, 2])
def test_with_gamma_each_anchor_counts_by_its_focal_loss(gamma):
    args = predictions(B=2, A=9)
    cls_preds, cls_labels, *boxes = args
    total = 0
    for logits, label in zip(cls_preds.flatten(0, 1).tolist(),
                             cls_labels.flatten().tolist()):
        p = math.exp(-slow.cross_entropy(logits, label))
        total -= (1 - p)**gamma * math.log(p)
    preds, labels, masks = boxes
    total += 2 * ((preds - labels).abs() * masks).sum().item()
    loss = d2lssd.balanced_loss(*args, sigma=None, bbox_weight=2, gamma=gamma)
    assert loss.item() == pytest.approx(total / (cls_labels > 0).sum().item())


def test_with_gamma_zero_the_focal_loss_keeps_all_negatives():
    args = predictions(B=2, A=30, matched=0.1)
    torch.testing.assert_close(
        d2lssd.balanced_loss(*args, gamma=0),
        d2lssd.balanced_loss(*args, negative_ratio=60))


@pytest.mark.parametrize('gamma', [0, 0.5, 1, 2])
@pytest.mark.parametrize('sure', [30.0, 300.0])
def test_certain_anchors_right_or_wrong_have_a_finite_gradient(gamma, sure):
    cls_preds = torch.tensor([[[sure, 0], [0, sure]]], requires_grad=True)
    loss = d2lssd.balanced_loss(
        cls_preds, torch.tensor([[0, 0]]), *torch.zeros(3, 1, 8),
        gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert cls_preds.grad.isfinite().all()
    # The second anchor is wrong, and the surer it is the more it must learn.
    torch.testing.assert_close(cls_preds.grad[0, 1], torch.tensor([-1., 1.]))


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('matched', [0, 1, 3])
def test_exactly_three_negatives_count_for_each_matched_anchor(ties, matched):
    # A network that knows nothing gives all anchors the same loss.
    cls_preds = torch.zeros(2, 40, 2) if ties else torch.randn(2, 40, 2)
    cls_preds.requires_grad_()
    cls_labels = torch.zeros(2, 40, dtype=torch.int64)
    cls_labels[1, :matched] = 1
    d2lssd.balanced_loss(cls_preds, cls_labels, *torch.zeros(3, 2, 160),
                         negative_ratio=3).backward()
    counted = cls_preds.grad.any(-1)
    assert counted[cls_labels > 0].all()
    assert counted[cls_labels == 0].sum() == 3 * max(1, matched)


def test_the_balanced_loss_of_images_without_objects_is_finite():
    cls_preds, *_ = predictions(B=2, A=6, matched=0)
    cls_preds.requires_grad_()
    loss = d2lssd.balanced_loss(
        cls_preds, torch.zeros(2, 6, dtype=torch.int64),
        *torch.zeros(3, 2, 24).double())
    loss.backward()
    assert loss > 0
    assert cls_preds.grad.isfinite().all()


def test_the_source_loss_of_images_without_objects_is_their_cross_entropy():
    cls_preds, *_, preds, labels, _ = predictions(B=2, A=6)
    background = torch.zeros(2, 6, dtype=torch.int64)
    loss = d2lssd.calc_loss(cls_preds, background, preds, labels,
                            torch.zeros_like(preds))
    torch.testing.assert_close(
        loss, -cls_preds.log_softmax(-1)[..., 0].mean(1))


def test_weights_of_anchors_scale_what_each_adds_to_the_balanced_loss():
    torch.manual_seed(0)
    logits, offsets = torch.randn(1, 3, 2), torch.randn(1, 12)
    labels = torch.tensor([[1, 0, 1]])
    masks = labels.repeat_interleave(4, 1).float()
    weights = torch.tensor([[2.0, 1.0, 0.5]])
    loss = d2lssd.balanced_loss(logits, labels, offsets, torch.zeros(1, 12),
                                masks, weights=weights)
    expected = 0
    for i, (label, weight) in enumerate(zip([1, 0, 1], [2.0, 1.0, 0.5])):
        expected -= weight * F.log_softmax(logits[0, i], 0)[label]
        for x in offsets[0, 4 * i:4 * i + 4].tolist() if label else []:
            expected += weight * (x**2 / 2 if abs(x) < 1 else abs(x) - 0.5)
    torch.testing.assert_close(loss, expected / 2)


@pytest.mark.parametrize('gamma', [None, 2])
def test_the_loss_is_as_if_anchors_of_weight_nothing_were_not_there(gamma):
    args = predictions(B=2, A=40, matched=0.1)
    some = torch.rand(2, 40) < 0.4
    some |= args[1] > 0  # matched ones count
    args = [arg.double() if arg.is_floating_point() else arg for arg in args]
    loss = d2lssd.balanced_loss(*args, gamma=gamma, weights=some.double())
    kept = []
    for arg in args:
        width = arg[0].numel() // 40
        kept.append(arg.reshape(80, width)[some.flatten()])
    cls_preds, cls_labels, *boxes = kept
    expected = d2lssd.balanced_loss(
        cls_preds[None], cls_labels.flatten()[None],
        *(part.reshape(1, -1) for part in boxes), gamma=gamma)
    torch.testing.assert_close(loss, expected)
    assert loss < d2lssd.balanced_loss(*args, gamma=gamma)
