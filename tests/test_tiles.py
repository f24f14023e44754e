"""A second look at parts of a picture, joined to the first."""
import pytest
import torch
from PIL import Image

import d2lssd
from d2lssd import tiles
from d2lssd.data.scenery import photograph
from d2lssd.judge import DOUBTED, LENIENT
from d2lssd.model import evaluating
from d2lssd.tiles import CORNERS, boxes_of_tiles, join_tiles, tiles_of_batch

NONE = torch.zeros(0, 6)


def joined(rows, **found):
    """`join_tiles` with detections on some tiles: t4 is the middle one."""
    parts = [torch.tensor(found.get(f't{i}', [])).reshape(-1, 6)
             for i in range(9)]
    return join_tiles(torch.tensor(rows).reshape(-1, 6), parts).tolist()


def test_tiles_cover_the_picture_and_overlap_by_half():
    boxes = boxes_of_tiles(400, 200)
    assert boxes[0] == (0, 0, 200, 100)
    assert boxes[4] == (100, 50, 300, 150)
    assert boxes[8] == (200, 100, 400, 200)
    seen = torch.zeros(200, 400)
    for left, top, right, bottom in boxes:
        seen[int(top):int(bottom), int(left):int(right)] += 1
    assert seen.min() == 1
    assert seen.max() == 4


def test_a_tile_of_a_batch_is_that_part_enlarged():
    X = torch.arange(64.).reshape(1, 1, 8, 8).repeat(2, 3, 1, 1)
    parts = tiles_of_batch(X)
    assert [part.shape for part in parts] == [X.shape] * 9
    for (x, y), tile in zip(CORNERS, parts, strict=True):
        x, y = int(8 * x), int(8 * y)
        part = X[:, :, y:y + 4, x:x + 4]
        # Each pixel has become four whose mean it is, away from the edge.
        means = torch.nn.functional.avg_pool2d(tile, 2)
        torch.testing.assert_close(means[..., 1:-1, 1:-1],
                                   part[..., 1:-1, 1:-1])


def test_what_a_tile_shows_is_put_where_it_is():
    row = [1, 0.9, 0.25, 0.5, 0.5, 0.75]
    (found,) = joined([], t5=[row])
    # Tile 5 begins at (1/2, 1/4).
    assert found == pytest.approx([1, 0.9, 0.625, 0.5, 0.75, 0.625])


@pytest.mark.parametrize(('tile', 'row', 'kept'), [
    (4, [0, 0.9, 0.00, 0.3, 0.2, 0.5], False),  # cut off on the left
    (4, [0, 0.9, 0.3, 0.8, 0.5, 1.0], False),   # and at the bottom
    (0, [0, 0.9, 0.00, 0.3, 0.2, 0.5], True),   # the picture ends there
    (8, [0, 0.9, 0.8, 0.8, 1.0, 1.0], True),
    (8, [0, 0.9, 0.0, 0.8, 0.2, 1.0], False),
    (4, [0, 0.9, 0.2, 0.2, 0.7, 0.4], False),   # long
    (4, [0, 0.75, 0.3, 0.3, 0.5, 0.5], False),  # not sure
    (4, [0, 0.85, 0.3, 0.3, 0.5, 0.5], True)])
def test_tiles_add_what_is_whole_small_and_sure(tile, row, kept):
    assert bool(joined([], **{f't{tile}': [row]})) == kept


def test_what_both_see_counts_once_and_the_better_score_stays():
    # The same box, seen on the whole picture and on two tiles.
    whole = [0, 0.6, 0.5, 0.5, 0.6, 0.6]
    middle = [0, 0.95, 0.5, 0.5, 0.7, 0.7]
    last = [0, 0.8, 0.05, 0.05, 0.2, 0.2]
    (found,) = joined([whole], t4=[middle], t8=[last])
    assert found == pytest.approx([0, 0.95, 0.5, 0.5, 0.6, 0.6])


def test_what_the_whole_picture_surely_shows_stays_as_it_is():
    whole = [0, 0.85, 0.5, 0.5, 0.6, 0.6]
    middle = [0, 0.95, 0.5, 0.5, 0.72, 0.7]
    (found,) = joined([whole], t4=[middle])
    assert found == pytest.approx(whole)


def test_a_part_of_something_sure_is_not_a_second_thing():
    large = [0, 0.9, 0.2, 0.2, 0.8, 0.8]
    part = [0, 0.95, 0.3, 0.3, 0.6, 0.6]
    assert len(joined([large], t4=[part])) == 1
    assert len(joined([[0, 0.4, *large[2:]]], t4=[part])) == 2
    beside = [0, 0.95, 0.05, 0.05, 0.3, 0.3]
    assert len(joined([large], t0=[beside])) == 2


def test_what_one_look_left_standing_side_by_side_stays():
    pair = [[0, 0.9, 0.1, 0.1, 0.5, 0.5], [0, 0.7, 0.1, 0.2, 0.5, 0.6]]
    assert 0.5 < d2lssd.box_iou(*(torch.tensor([row[2:]])
                                  for row in pair)).item() < tiles.SAME
    assert joined(pair) == [pytest.approx(row) for row in pair]
    small = [0, 0.85, 0.3, 0.3, 0.5, 0.5]
    assert [row[1] for row in joined(pair, t8=[small])] == [
        pytest.approx(score) for score in (0.9, 0.85, 0.7)]


def test_nothing_found_stays_nothing():
    assert join_tiles(NONE, [NONE] * 9).shape == (0, 6)


def test_tiles_find_small_bananas_that_the_whole_picture_does_not_show():
    photo = photograph('sklearn/datasets/images/china.jpg')
    unit = torch.tensor([photo.shape[1], photo.shape[0]] * 2)
    found = {True: 0, False: 0}
    for seed in range(4):  # 12 to 16 pixels, as the network sees them
        picture, boxes = d2lssd.compose(photo, 'val', seed, 3, (30, 40))
        for nearer in found:
            rows = d2lssd.detect(picture, tiles=nearer)
            assert [row['score'] for row in rows] == sorted(
                (row['score'] for row in rows), reverse=True)
            near = d2lssd.box_iou(
                torch.tensor(boxes) * unit,
                torch.tensor([row['box'] for row in rows]).reshape(-1, 4))
            found[nearer] += int((near > 0.5).any(1).sum())
    assert found[True] >= found[False] + 3


@pytest.mark.parametrize('size', [(1, 1), (3, 700), (257, 31)])
def test_any_shape_of_picture_is_cut(size):
    net = d2lssd.load_pretrained('balanced')
    assert isinstance(d2lssd.detect(Image.new('RGB', size), net), list)


def test_measured_with_tiles_or_without():
    from d2lssd.evaluation import detect_all
    net = d2lssd.load_pretrained('balanced')
    X = torch.stack([torch.from_numpy(d2lssd.draw_scene(
        'val', i, 3, 'small', 3)[0]).permute(2, 0, 1).float()
        for i in range(4)])
    Y = torch.zeros(4, 0, 5)
    plain, _ = detect_all(net, [(X, Y)])
    nearer, _ = detect_all(net, [(X, Y)], tiles=True)
    for i in range(4):
        parts = [d2lssd.predict(tile[i:i + 1], net)
                 for tile in tiles_of_batch(X)]
        torch.testing.assert_close(nearer[i], join_tiles(plain[i], parts),
                                   rtol=1e-3, atol=1e-3)
    assert any(len(a) != len(b) for a, b in zip(plain, nearer))


def test_boxes_that_meet_while_voting_are_one(monkeypatch):
    rows = torch.tensor([[[0, 0.9, 0.10, 0, 0.50, 1],
                          [0, 0.3, 0.24, 0, 0.64, 1],  # IoU 0.48 with it
                          [0, 0.8, 0.60, 0, 0.99, 1],
                          [-1, 0.8, 0.14, 0, 0.54, 1]]])
    monkeypatch.setattr(tiles, 'find_boxes', lambda *args, **options: rows)
    not_voted, = tiles.look(None, None)
    assert not_voted.tolist() == rows[0, :3].tolist()
    voted, = tiles.look(None, None, voting=True)
    moved = d2lssd.vote_boxes(rows[0])
    assert d2lssd.box_iou(moved[:1, 2:], moved[1:2, 2:]) > tiles.SAME
    assert voted.tolist() == moved[[0, 2]].tolist()


def test_the_judge_of_a_network_is_asked():
    net = d2lssd.load_pretrained('plain')
    X = torch.from_numpy(d2lssd.draw_scene(
        'val', 7, 5, 'touching', 6)[0]).permute(2, 0, 1)[None].float()
    with evaluating(net):
        anchors, cls_preds, bbox_preds = net(X)
        judged, = tiles.look(X, net, voting=True)
        alone, = tiles.look(X, net)
        rows, = d2lssd.multibox_detection(
            cls_preds.softmax(-1).transpose(1, 2), bbox_preds, anchors,
            nms_threshold=LENIENT, pos_threshold=DOUBTED)
        expected = d2lssd.judge_boxes(rows, net, X[0])
    expected = expected[expected[:, 1] >= tiles.LEAST]
    assert len(judged) >= 6
    torch.testing.assert_close(judged, expected, rtol=1e-4, atol=1e-4)
    # Not asked, each box speaks for itself.
    assert not torch.equal(alone[:6], judged[:6])
    net.judge = None
    with evaluating(net):
        rows, = tiles.look(X, net, voting=True)
    assert not torch.equal(rows[:6], judged[:6])


def test_anchors_that_see_nothing_change_nothing():
    net = d2lssd.load_pretrained('balanced')
    X = torch.stack([torch.from_numpy(d2lssd.draw_scene(
        'val', i, 6, 'wild', i)[0]).permute(2, 0, 1).float()
        for i in range(3)])
    with evaluating(net):
        anchors, cls_preds, bbox_preds = net(X)
        found = tiles.look(X, net)
    assert min(map(len, found)) > 10
    for rows, all_rows in zip(found, d2lssd.multibox_detection(
            cls_preds.softmax(-1).transpose(1, 2), bbox_preds, anchors)):
        torch.testing.assert_close(rows, all_rows[all_rows[:, 0] >= 0],
                                   rtol=0, atol=1e-5)


@pytest.mark.parametrize('least', [0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize(('voting', 'judge'), [
    (False, None), (True, None), (True, d2lssd.Judge())])
def test_what_scores_less_than_what_counts_changes_nothing_else(
        voting, judge, least):
    net = d2lssd.load_pretrained('balanced')
    net.judge = judge
    X = torch.stack([torch.from_numpy(d2lssd.draw_scene(
        'val', i, 5, 'wild', 4)[0]).permute(2, 0, 1).float()
        for i in range(3)])
    with evaluating(net):
        every = tiles.look(X, net, voting)
        some = tiles.look(X, net, voting, least)
    assert sum(map(len, every)) > 100
    for rows, fewer in zip(every, some):
        torch.testing.assert_close(fewer, rows[rows[:, 1] >= least])
