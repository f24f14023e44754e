"""Checks of the exercises: ``from d2lssd import check``.

Each check is named like its exercise and takes the answer: a number, a list
or a function. If it is right, the check says so in a line. If not, it raises
a `Miss`, whose text says on which input, what came, what was expected, and
which page explains it; the solution it never says.
"""
from d2lssd.check.background import (
    class_counts,
    matching_by_hand,
    mirror,
    pairwise_iou,
    smallest_match,
)
from d2lssd.check.beyond import (
    ap_by_hand,
    how_many_pictures,
    lowest_threshold,
    nms_by_chunks,
    to_corners,
    two_gains,
)
from d2lssd.check.core import Miss
from d2lssd.check.detector import (
    logit_map,
    place_of_row,
    predictor_cost,
    receptive_field,
    row_of_anchor,
    strided_blk,
)
from d2lssd.check.learning import (
    class_loss,
    focal_loss_of_logits,
    nms_by_hand,
    predict_batch,
    sigma_for_a_pixel,
    smooth_l1,
)

__all__ = [
    'Miss', 'ap_by_hand', 'class_counts', 'class_loss', 'focal_loss_of_logits',
    'how_many_pictures', 'logit_map', 'lowest_threshold', 'matching_by_hand',
    'mirror', 'nms_by_chunks', 'nms_by_hand', 'pairwise_iou', 'place_of_row',
    'predict_batch', 'predictor_cost', 'receptive_field', 'row_of_anchor',
    'sigma_for_a_pixel', 'smallest_match', 'smooth_l1', 'strided_blk',
    'to_corners', 'two_gains',
]
