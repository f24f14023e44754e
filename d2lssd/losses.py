"""Losses: the source's, its rivals, and a balanced one."""
import torch
from torch.nn import functional as F


def calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks):
    """The source's loss: mean cross-entropy plus mean masked L1, per image.

    Args:
        cls_preds: float tensor ``(B, A, q+1)``, logits.
        cls_labels: int64 tensor ``(B, A)``, 0 is background.
        bbox_preds, bbox_labels, bbox_masks: float tensors ``(B, 4A)``.

    Returns:
        Float tensor ``(B,)``. Both means run over all anchors, matched or not.
    """
    cls = F.cross_entropy(cls_preds.transpose(1, 2), cls_labels,
                          reduction='none').mean(dim=1)
    bbox = F.l1_loss(bbox_preds * bbox_masks, bbox_labels * bbox_masks,
                     reduction='none').mean(dim=1)
    return cls + bbox


def smooth_l1(data, scalar):
    """Smooth L1: a parabola near zero, straight lines beyond.

    Args:
        data: float tensor, any shape: predicted minus true.
        scalar: σ > 0; the parabola ends at ``|x| = 1/σ²``.

    Returns:
        Tensor of the same shape: ``(σx)²/2`` where ``|x| < 1/σ²``, else
        ``|x| - 0.5/σ²``.

    Source: Fast R-CNN, equation 3.
    """
    return torch.where(data.abs() < 1 / scalar**2, (scalar * data)**2 / 2,
                       data.abs() - 0.5 / scalar**2)


def focal_loss(gamma, x):
    """Focal loss of the probability given to the true class.

    Args:
        gamma: γ ≥ 0; 0 gives cross-entropy.
        x: float tensor in ``(0, 1]``.

    Returns:
        Tensor of the same shape: ``-(1-x)^γ log x``.

    Source: Lin et al. 2017, equation 4.
    """
    return -(1 - x)**gamma * torch.log(x)


def balanced_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks,
                  negative_ratio=3, sigma=1.0, bbox_weight=1.0, gamma=None,
                  weights=None):
    """The SSD paper's loss: hard negatives only, all per matched anchor.

    Of the background anchors only the worst classified count,
    `negative_ratio` of them for each matched one in the minibatch, and both
    sums are divided by the number of matched anchors.

    Args:
        cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks: as for
            `calc_loss`.
        negative_ratio: background anchors kept for each matched one.
        sigma: of `smooth_l1`; ``None`` takes plain L1.
        bbox_weight: weight of the offsets against the classes.
        gamma: if given, all anchors count, each by its `focal_loss`, and
            `negative_ratio` says nothing.
        weights: float tensor ``(B, A)`` of anchors, as from `object_weights`;
            None for 1. An anchor of weight 0 takes no other's place among the
            worst.

    Returns:
        Float tensor ``()``.

    Source: SSD, section 2.2, "Training objective" and "Hard negative mining";
    for the focal loss, Lin et al. 2017.
    """
    ce = F.cross_entropy(cls_preds.transpose(1, 2), cls_labels,
                         reduction='none')  # (B, A)
    matched = cls_labels > 0
    num_matched = matched.sum().clamp(min=1)
    if gamma is None:
        last = matched if weights is None else matched | (weights == 0)
        hard = ce.detach().masked_fill(last, -1).flatten()
        rank = hard.argsort(descending=True).argsort().reshape(ce.shape)
        cls = ce * (matched | (rank < negative_ratio * num_matched))
    else:  # `focal_loss` of exp(-ce), finite where that is 0 or 1
        cls = ce * (1 - torch.exp(-ce)).clamp(min=1e-7)**gamma
    miss = (bbox_preds - bbox_labels) * bbox_masks
    miss = miss.abs() if sigma is None else smooth_l1(miss, sigma)
    if weights is not None:
        cls = cls * weights
        miss = miss * weights.repeat_interleave(4, dim=1)
    return (cls.sum() + bbox_weight * miss.sum()) / num_matched
