"""What MXNet gave, recorded in `mxnet_record`, and what d2lssd gives.

The inputs are drawn so that no decision (which box is matched, which is
suppressed) hangs on the last bits of a number. Where the two differ on
purpose, the tests at the end say so and hold both sides to it:

- an anchor with an IoU of exactly one half is matched here, not in MXNet;
- a picture without a box gives class 0 (background) here, -1 in MXNet;
- MXNet stops reading labels at the first padded row;
- at an IoU of exactly the threshold MXNet suppresses, torchvision does not;
- MXNet cuts boxes off at the edge of the image unless told otherwise, and
  lets boxes suppress only boxes of their class unless told otherwise;
- MXNet's running variance divides by n, PyTorch's by n - 1;
- pictures that have to shrink are smoothed first by Pillow, not by MXNet.
"""
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import d2lssd

FOLDER = Path(__file__).parent / 'mxnet_record'
sys.path.insert(0, str(FOLDER))
compare = importlib.import_module('compare')
inputs = importlib.import_module('inputs')
sys.path.remove(str(FOLDER))

RECORD = compare.load_record()
DIFFERENCES = RECORD['difference']


def check(part):
    results = list(compare.compare(RECORD, part))
    assert results
    for case, quantity, theirs, ours in results:
        gap = compare.difference(theirs, ours)
        assert gap < compare.TOLERANCE, (
            f'{part}, {case}: {quantity} differs from MXNet by {gap:.1e}')


@pytest.mark.parametrize('part', compare.COMPARE)
def test_d2lssd_agrees_with_what_mxnet_gave(part):
    check(part)


def test_arrays_of_different_shape_or_without_a_number_never_agree():
    assert compare.difference(np.zeros(2), np.zeros(3)) == np.inf
    assert compare.difference(np.zeros(2), np.array([0, np.nan])) == np.inf
    assert compare.difference(np.array([1000.0]), [1001.0]) == 1e-3


def test_the_scales_are_the_same_in_both_frameworks():
    scales = RECORD['settings']['scales']
    assert scales['sizes'].tolist() == d2lssd.sizes
    assert scales['ratios'].tolist() == d2lssd.ratios


def test_the_record_was_made_by_mxnet_itself_and_is_whole():
    versions = compare.load_versions()
    flat = {f'{part}/{case}/{key}': array
            for part, cases in RECORD.items() for case, arrays in cases.items()
            for key, array in arrays.items()}
    assert versions['mxnet'] == '1.9.1'
    assert inputs.digest(flat) == versions['sha256']
    assert (FOLDER / 'record.npz').stat().st_size < 2**20


@pytest.mark.parametrize('name', RECORD['network'])
def test_weights_and_pictures_are_drawn_as_they_were_for_mxnet(name):
    case = RECORD['network'][name]
    _, weights = compare.drawn_net(int(case['num_classes']))
    X = inputs.images(name, *case['shape'])
    assert inputs.digest(weights) == str(case['weights_sha256'])
    assert inputs.digest({'X': X}) == str(case['images_sha256'])


def test_the_drawn_batch_norms_are_not_at_their_start():
    net, _ = compare.drawn_net(1)
    norms = [m for m in net.modules()
             if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 12
    assert all(m.running_mean.abs().min() > 0 for m in norms)
    assert all((m.running_var - 1).abs().max() > 0.1 for m in norms)


def test_the_drawn_labels_are_padded_and_their_boxes_do_compete():
    for case in RECORD['target'].values():
        kinds = case['labels'][..., 0]
        assert (kinds == -1).any()
        assert (kinds >= 0).any(1).all()
    crowded = RECORD['target']['boxes that compete']
    contested = 0
    for labels in crowded['labels']:
        boxes = labels[labels[:, 0] >= 0, 1:]
        best = inputs.iou(crowded['anchors'], boxes).argmax(0)
        contested += len(best) - len(set(best.tolist()))
    assert contested > 0


def test_the_drawn_detections_are_suppressed_and_kept_in_every_case():
    for case in RECORD['detection'].values():
        rows = {k: v[..., 0] >= 0 for k, v in case.items()
                if k.startswith('rows')}
        assert len(rows) == 8
        for kept in rows.values():
            assert kept.any(1).all()
            assert not kept.all(1).any()


def test_two_steps_of_training_change_what_they_are_compared_by():
    case = RECORD['training']['two steps']
    assert case['loss'].shape == (2, 4)
    assert case['loss'][1].mean() < case['loss'][0].mean() / 2
    changes = [v for k, v in case.items() if k.startswith('change')]
    assert all(np.abs(change).max() > 0 for change in changes)


def test_single_precision_would_be_too_coarse_to_compare_a_gradient():
    case = RECORD['training']['two steps']
    assert any(compare.single_precision_gap(case, step) > compare.TOLERANCE
               for step in range(8))


def test_the_table_in_the_appendix_is_what_compare_would_write():
    now, then = compare.table(RECORD), compare.read_table()
    assert [row[:2] for row in now] == [row[:2] for row in then]
    assert max(row[2] for row in [*now, *then]) < compare.TOLERANCE


def targets(case):
    anchors, labels = compare.tensors(case['anchors'], case['labels'])
    offsets, masks, classes = d2lssd.multibox_target(anchors[None], labels)
    return masks[:, ::4].tolist(), classes.tolist()


def test_an_iou_of_exactly_one_half_matches_here_but_not_in_mxnet():
    case = DIFFERENCES['an IoU of exactly one half']
    assert case['classes'].tolist() == [[1, 0]]
    assert targets(case)[1] == [[1, 1]]


def test_a_picture_without_a_box_is_background_here_and_ignored_in_mxnet():
    case = DIFFERENCES['no box in the image']
    assert case['classes'].tolist() == [[-1, -1]]
    masks, classes = targets(case)
    assert classes == [[0, 0]]
    assert masks == case['masks'][:, ::4].tolist() == [[0, 0]]


def test_the_loss_of_mxnet_takes_class_minus_one_for_background():
    case = DIFFERENCES['class -1 in the loss']
    preds, = compare.tensors(case['preds'])
    background = torch.nn.functional.cross_entropy(
        preds[0], torch.zeros(2, dtype=torch.int64))
    assert case['loss'] == pytest.approx([float(background)], abs=1e-5)
    assert case['cls_eval'] == 0  # and yet calls every anchor wrong


def test_mxnet_stops_at_the_first_padded_row_and_d2lssd_reads_on():
    case = DIFFERENCES['a box after a padded row']
    assert case['classes'].tolist() == [[1, 0]]
    assert targets(case)[1] == [[1, 2]]


def detect(case, **options):
    probs, offsets, anchors = compare.tensors(
        case['probs'], case['offsets'], case['anchors'])
    rows = d2lssd.multibox_detection(probs, offsets, anchors[None],
                                     **options)[0]
    return rows[rows[:, 0] >= 0].numpy()


def test_an_iou_of_exactly_the_threshold_is_suppressed_in_mxnet_alone():
    case = DIFFERENCES['an IoU of exactly the threshold']
    assert (case['rows'][0, :, 0] >= 0).sum() == 1
    assert len(detect(case)) == 2


def test_mxnet_cuts_boxes_off_before_it_suppresses_unless_told_not_to():
    case = DIFFERENCES['boxes cut off at the edge']
    kept = case['rows'][0][case['rows'][0, :, 0] >= 0]
    assert kept[:, 2:].tolist() == [[0, 0, 0.5, 1]]
    ours = detect(case)
    assert ours[:, 2].tolist() == [-0.5, 0]


def test_mxnet_suppresses_by_class_unless_told_not_to():
    case = DIFFERENCES['boxes of two classes']
    theirs = case['rows'][0]
    assert (theirs[:, 0] >= 0).all()
    assert len(detect(case)) == 1
    np.testing.assert_allclose(detect(case, per_class=True), theirs,
                               atol=compare.TOLERANCE)


def test_a_picture_that_shrinks_is_smoothed_here_and_sampled_by_mxnet():
    theirs = DIFFERENCES['a picture that shrinks']['X']
    _, ours = compare.read('large', 512, 768)
    assert np.abs(theirs - ours).mean() > 1
    assert np.corrcoef(theirs, ours)[0, 1] > 0.9


def test_the_running_variance_of_mxnet_changes_in_the_backward_pass():
    case = DIFFERENCES['a running variance']
    x, = compare.tensors(case['x'])
    norm = torch.nn.BatchNorm2d(1)
    norm(x)
    assert case['after forward'] == 1
    assert case['after backward'] == pytest.approx(
        0.9 + 0.1 * float(x.var(correction=0)))
    assert norm.running_var.item() == pytest.approx(
        0.9 + 0.1 * float(x.var(correction=1)))


def test_the_running_variance_of_mxnet_divides_by_n():
    case = RECORD['training']['two steps']
    _, before, states = compare.train_two_steps(case)
    for name, n in (('blk_0.0.1', 4 * 128 * 128), ('blk_3.4', 4 * 4 * 4)):
        name += '.running_var'
        ours = states[0][name] - 0.9 * before[name]
        theirs = case[f'first step/{name}'] - 0.9 * before[name]
        np.testing.assert_allclose(ours / theirs, n / (n - 1), rtol=1e-4)
        assert compare.values_per_channel(name, case['shape']) == n
