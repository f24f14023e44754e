"""The judge: what it is told, what it learns, and what it leaves alone."""
import copy
import math

import pytest
import slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import d2lssd
from d2lssd import judge as judging
from d2lssd.evaluation import set_operating_point

quick = settings(max_examples=40)
hear_boxes = judging.hear_boxes


def facts_of(rows):
    """Facts by name, each with a number for each box."""
    kept, facts = d2lssd.hear_boxes(rows)
    assert facts.shape == (len(kept), len(judging.FACTS))
    return kept, dict(zip(judging.FACTS, facts.t().tolist()))


def odds(p):
    return math.log(p / (1 - p))


def test_a_box_by_itself_has_no_surer_one():
    rows = torch.tensor([[0, 0.9, 0.1, 0.1, 0.5, 0.5],
                         [-1, 0.6, 0.1, 0.1, 0.5, 0.5],  # IoU 1
                         [-1, 0.4, 0.1, 0.1, 0.5, 0.4],  # 0.75
                         [-1, 0.3, 0.6, 0.6, 0.9, 0.9]])  # of nobody
    kept, facts = facts_of(rows)
    assert kept[:, :2].tolist() == rows[:1, :2].tolist()
    near = {'0.6': 0.9 + 0.6 + 0.4, '0.8': 0.9 + 0.6, '0.9': 0.9 + 0.6}
    # The third has drawn the box a little upwards: 0.75 is 0.77 now.
    votes = [0.9, 0.6, 0.4] + [0.01] * 5
    side = math.sqrt(0.4 * (float(kept[0, 5]) - 0.1))
    assert {name: value for name, (value,) in facts.items()} == pytest.approx({
        'own score': odds(0.9) / 5,
        'score by votes': sum(map(odds, votes)) / 8 / 5,
        **{f'sum of {who} from {iou}': math.log1p(total)
           for who in ('scores', 'votes') for iou, total in near.items()},
        'side': side, 'IoU with a surer one': 0, 'its score by votes': 0,
        'its own score': 0, 'ratio of areas': 0, 'share inside': 0,
        'share of it inside': 0, 'second IoU': 0, 'how many in the way': 0,
        'width by the longer side': 1,
        'height by the longer side': side**2 / 0.4**2,
    }, rel=1e-5)


def test_who_has_fewer_votes_is_compared_with_who_has_more():
    # Boxes of 10 x 10 and, inside, of 5 x 10; 30 more, far from both.
    rows = torch.tensor([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 5, 0, 10, 10],
                         [0, 0.7, 30, 0, 40, 10],
                         [-1, 0.6, 5, 0, 10, 10], [-1, 0.5, 5, 0, 10, 10]])
    rows[:, 2:] /= 64
    kept, facts = facts_of(rows)
    # By their own scores the large one is surer, by votes the small one.
    assert kept[:, 1].tolist() == pytest.approx([0.8, 0.9, 0.7])
    votes = [sum(map(odds, best + [0.01] * (8 - len(best)))) / 8
             for best in ([0.8, 0.6, 0.5], [0.9], [0.7])]
    assert facts['score by votes'] == pytest.approx([v / 5 for v in votes])
    for name, value in {
            'IoU with a surer one': 0.5, 'its score by votes': votes[0] / 5,
            'its own score': odds(0.8) / 5, 'ratio of areas': math.log(2),
            'share inside': 0.5, 'share of it inside': 1,
            'second IoU': 0, 'how many in the way': 1}.items():
        assert facts[name] == pytest.approx([0, value, 0], abs=1e-6), name


@quick
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
def test_a_judge_is_told_what_loops_in_double_precision_say(seed, count):
    rows = slow.crowded_rows(seed, count, judging.LENIENT)
    kept, facts = d2lssd.hear_boxes(rows)
    slowly = slow.hear(rows.tolist(), judging.VOTERS, judging.SAME,
                       judging.NEAR, judging.MEET)
    torch.testing.assert_close(
        torch.cat([kept, facts], 1),
        torch.tensor(slowly, dtype=torch.float64).reshape(
            -1, 6 + len(judging.FACTS)))


def network():
    """One with a judge that has learnt nothing, and an image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = d2lssd.TinySSD(3).eval()
        net.judge = d2lssd.Judge().eval()
        return net, torch.rand(3, 128, 128) * 255


def test_nothing_and_what_is_no_box_have_facts_that_are_numbers():
    net, image = network()
    for rows in (torch.zeros(0, 6), torch.tensor([[-1, 0.9, 0, 0, 1, 1.]])):
        kept, facts = d2lssd.hear_boxes(rows)
        assert kept.shape == (0, 6)
        assert facts.shape == (0, len(judging.FACTS))
        assert d2lssd.judge_boxes(rows, net, image).shape == (0, 6)
    nan, inf = float('nan'), float('inf')
    rows = torch.tensor([[0, 1, 0.1, 0.1, 0.5, 0.5], [0, 0.9, 5, 5, 5, 5],
                         [0, 0.8, 0.1, nan, 0.5, 0.5],
                         [0, 0.7, 0.1, 0.1, inf, 0.5],
                         [0, 0.6, 0.5, 0.5, 0.1, 0.1]])
    for kind in torch.float32, torch.float64:
        kept, facts = d2lssd.hear_boxes(rows.to(kind))
        assert facts.isfinite().all()
        scores = d2lssd.judge_boxes(rows.to(kind), net, image)[:, 1]
        assert scores.isfinite().all()
        assert scores.dtype == kind


def test_judged_boxes_keep_class_and_place_and_fall_in_score():
    rows = torch.rand(40, 6, generator=torch.Generator().manual_seed(3))
    rows[:, 4:] += rows[:, 2:4]
    rows[:, 0] = torch.arange(40) % 3 - 1
    rows = rows[rows[:, 1].argsort(descending=True)]
    before = rows.clone()
    net, image = network()
    kept, facts = d2lssd.hear_boxes(rows)
    judged = d2lssd.judge_boxes(rows, net, image)
    with torch.no_grad():
        parts = d2lssd.close_ups(image, kept[:, 2:])
        expected = net.judge(facts, net.blk_0(parts)).sigmoid()
    assert torch.equal(rows, before)
    order = expected.argsort(descending=True, stable=True)
    torch.testing.assert_close(judged[:, 1], expected[order])
    assert torch.equal(judged[:, [0, 2, 3, 4, 5]],
                       kept[order][:, [0, 2, 3, 4, 5]])


def test_a_judge_looks_at_the_picture():
    net, image = network()
    rows = torch.tensor([[0, 0.9, 0.1, 0.1, 0.5, 0.5],
                         [0, 0.8, 0.6, 0.6, 0.9, 0.9]])
    before = d2lssd.judge_boxes(rows, net, image)
    image[:, 80:] = 0  # where the second is, and the first is not
    after = d2lssd.judge_boxes(rows, net, image)
    changed = {tuple(row[2:].tolist()): row[1].item() for row in before}
    changed = {place: changed[place] != row[1].item() for row in after
               for place in [tuple(row[2:].tolist())]}
    assert [changed[tuple(row[2:].tolist())] for row in rows] == [False, True]


@quick
@given(seed=st.integers(0, 2**32 - 1), w=st.integers(20, 200),
       h=st.integers(20, 200))
def test_a_close_up_shows_what_lies_around_the_box(seed, w, h):
    """Of an image whose colours are its coordinates, in pixels."""
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5,
                          indexing='ij')
    image = torch.stack([x, y, torch.ones_like(x)])
    rng = torch.Generator().manual_seed(seed)
    ends = torch.rand(4, 2, 2, generator=rng).sort(1).values
    ends[0] = torch.tensor([[0.4, 0.45], [0.6, 0.55]])
    parts = d2lssd.close_ups(image, ends.flatten(1))
    assert parts.shape == (4, 3, 48, 48)
    for i, ((low, high), part) in enumerate(zip(
            ends * torch.tensor([w, h]), parts)):
        side = 1.4 * (high - low).max()
        steps = ((torch.arange(48) + 0.5) / 48 - 0.5) * side
        inside = part[2] > 0.9999
        for axis in 0, 1:
            expected = (low + high)[axis] / 2 + steps
            expected = expected.expand(48, 48)
            if axis:
                expected = expected.t()
            # At the border, half a pixel is drawn out.
            near = (expected > 1.5) & (expected < (w, h)[axis] - 1.5) & inside
            assert near.any() or i > 0  # others may lie at the border
            torch.testing.assert_close(part[axis][near], expected[near],
                                       rtol=0, atol=0.05)
    assert (d2lssd.close_ups(image, torch.tensor([[2., 2, 3, 3]])) == 0).all()


def test_of_what_is_much_larger_a_close_up_shows_a_mean():
    stripes = 255.0 * (torch.arange(256) % 2).expand(3, 256, 256)
    part, = d2lssd.close_ups(stripes, torch.tensor([[0.1, 0.1, 0.9, 0.9]]))
    inside = part[:, 8:40, 8:40]
    assert inside.mean() == pytest.approx(127.5, abs=3)


def test_of_boxes_everywhere_only_the_best_are_heard(monkeypatch):
    """A network that calls nothing background would keep a judge for long."""
    net = d2lssd.TinySSD(1).eval()
    told = []
    monkeypatch.setattr(judging, 'hear_boxes', lambda rows: told.append(
        int((rows[:, 0] >= 0).sum())) or hear_boxes(rows))
    with pytest.raises(ValueError, match='0 are right'):
        d2lssd.teach_judge(net, [(torch.rand(2, 3, 256, 256) * 255,
                                  -torch.ones(2, 1, 5))])
    net.judge = d2lssd.Judge().eval()
    d2lssd.detect(torch.rand(3, 256, 256) * 255, net, tiles=False)
    assert told == [judging.HEARD] * 3


# Teaching one.

def pictures(count, num_bananas, seed):
    return d2lssd.BananasDataset(
        False, count=count, style='touching', num_bananas=num_bananas,
        seed=seed, progress=False)


@pytest.fixture(scope='module')
def taught():
    """A network with a judge that saw few pictures, and what was noted."""
    net = d2lssd.load_pretrained('plain')
    net.judge = None
    batches = list(DataLoader(pictures(150, 5, 401), 50))
    state = torch.get_rng_state()
    result = d2lssd.teach_judge(net, batches)
    assert torch.equal(torch.get_rng_state(), state)
    return net, result


def test_a_judge_finds_more_where_as_much_is_right(taught):
    net, result = taught
    assert result['pictures'] == 150
    assert 0.9 * 750 < result['right'] <= 750 < result['boxes']
    assert result['loss'] < 0.15
    batches = [pictures(100, 5, 402)[:]]
    alone = copy.deepcopy(net)
    alone.judge = None
    recall = []
    for one in net, alone:
        right, found, _ = d2lssd.precision_recall_curve(
            *d2lssd.detect_all(one, batches, voting=True))
        recall.append(float(found[(right >= 0.98).nonzero()[-1, 0]]))
    assert recall[0] > recall[1] + 0.01


def test_the_same_pictures_and_seed_teach_the_same_judge():
    net = d2lssd.load_pretrained('plain')
    batches = DataLoader(pictures(20, 5, 403), 20)
    judges = []
    for seed in 0, 0, 1:
        d2lssd.teach_judge(net, batches, seed)
        judges.append(torch.cat([value.flatten() for value
                                 in net.judge.state_dict().values()]))
        assert not net.judge.training
        assert all(p.requires_grad for p in net.judge.parameters())
    assert torch.equal(judges[0], judges[1])
    assert not torch.equal(judges[0], judges[2])


def test_to_teach_changes_nothing_of_the_network():
    net = d2lssd.load_pretrained('plain').train()
    before = {name: value.clone() for name, value in net.state_dict().items()
              if not name.startswith('judge')}
    d2lssd.teach_judge(net, [pictures(10, 4, 404)[:]])
    assert net.training
    for name, value in before.items():
        assert torch.equal(net.state_dict()[name], value)
    X = pictures(1, 4, 405)[0][0][None]
    net.eval()
    with torch.no_grad():
        judged = net(X)
        net.judge = None
        for one, other in zip(judged, net(X)):
            assert torch.equal(one, other)


def test_who_hears_of_nothing_right_learns_nothing():
    net = d2lssd.load_pretrained('plain')
    before = net.judge
    X, Y = pictures(4, 3, 406)[:]
    other = torch.where(Y[..., :1] == 0, Y + torch.tensor([3, 0, 0, 0, 0]), Y)
    for batches, why in [
            ([], 'no pictures to learn from'),
            ([(X, -torch.ones_like(Y))], '0 are right: nothing to tell apart'),
            ([(X, other)], 'class 3 is not a whole number below 1'),
            ([(X, Y * 9)], 'box outside')]:
        with pytest.raises(ValueError, match=why):
            d2lssd.teach_judge(net, batches)
        assert net.judge is before


def test_the_operating_point_of_a_judge_is_moved_and_nothing_else(taught):
    net = copy.deepcopy(taught[0])
    anchors = {name: value.clone() for name, value in net.state_dict().items()
               if not name.startswith('judge')}
    batches = [pictures(60, 5, 407)[:]]
    before, _ = d2lssd.detect_all(net, batches, voting=True)
    point = set_operating_point(net, batches, 0.98)
    after, _ = d2lssd.detect_all(net, batches, voting=True)
    for pair in zip(before, after):
        count = min(map(len, pair))  # some have come down to 0.01
        rows, moved = (rows[:count] for rows in pair)
        sure = rows[:, 1] < 0.999  # above, float32 has few digits
        shift = moved[:, 1].logit() - rows[:, 1].logit()
        torch.testing.assert_close(
            shift[sure], torch.full_like(shift[sure], -odds(point['score'])),
            rtol=0, atol=2e-3)
        assert torch.equal(rows[:, 2:], moved[:, 2:])
    reached = d2lssd.evaluate(net, batches, threshold=0.499, voting=True)
    assert reached['precision'] >= 0.98
    assert reached['recall_at'] == pytest.approx(point['recall'], abs=0.003)
    for name, value in anchors.items():
        assert torch.equal(net.state_dict()[name], value)


def test_a_judge_hears_of_pictures_as_large_as_the_network_learnt_from():
    net = d2lssd.load_pretrained('plain')
    X, Y = pictures(20, 5, 408)[:]
    small = d2lssd.teach_judge(net, [(X, Y)])
    net.side = 256
    large = torch.nn.functional.interpolate(X, scale_factor=2, mode='bilinear')
    same = d2lssd.teach_judge(net, [(large, Y)])
    assert same['right'] > 0.9 * small['right']
    with pytest.raises(ValueError, match='up to 1; 0 to 255 is needed'):
        d2lssd.teach_judge(net, [(X / 255, Y)])
