"""A judge of boxes: is it one more object, or one that was found before?

Suppression asks how much two boxes overlap, and nothing else. So it strikes
out the second of two bananas that lie across each other, or, told to be
lenient, leaves doubles of one. A small network that is told more of the case
decides better. Hosang, Benenson and Schiele, "Learning non-maximum
suppression" (2017), teach a large one; this one has three thousand weights.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm, trange

from d2lssd.anchors import check_labels
from d2lssd.boxes import box_iou, share_inside
from d2lssd.detection import find_boxes, log_odds, mean_of_votes, vote_once
from d2lssd.memory import keep_memory
from d2lssd.metrics import match_detections
from d2lssd.model import evaluating, fitting

LENIENT = 0.65  # threshold of suppression: what it strikes out is lost
HEARD = 200  # boxes of an image: some networks find something everywhere
SAME = 0.7  # IoU above which boxes that voting has moved are one
VOTERS = 8
NEAR = 0.6, 0.8, 0.9  # IoU with boxes that may have seen the same
MEET = 0.3  # IoU of boxes that are in each other's way
FACTS = ('own score', 'score by votes',
         *(f'sum of {who} from {iou}' for who in ('scores', 'votes')
           for iou in NEAR),
         'side', 'IoU with a surer one', 'its score by votes', 'its own score',
         'ratio of areas', 'share inside', 'share of it inside',
         'second IoU', 'how many in the way')
# Of the teaching.
EPOCHS, BATCH, RATE = 40, 256, 5e-3


class Judge(nn.Sequential):
    """A network of two hidden layers that scores boxes by facts of them.

    Input: float tensor ``(n, 17)``, what `hear_boxes` gives. Output: log-odds
    ``(n, 1)`` of each box being an object that no surer box has found.
    """

    def __init__(self):
        super().__init__(nn.Linear(len(FACTS), 64), nn.ReLU(),
                         nn.Linear(64, 32), nn.ReLU(),
                         nn.Linear(32, 1))


def hear_boxes(rows):
    """What a judge is told of the boxes that lenient suppression has kept.

    First they are moved by one vote each, as for `fuse_boxes`, and of two
    whose IoU is above 0.7 then, the one with the lower score is dropped. What
    is left is ordered by the score of its eight best votes; classes do not
    matter. Log-odds are divided by 5; the 17 facts are

    - the log-odds of its own anchor's score, and of that by votes;
    - log(1 + the scores of all boxes within an IoU of 0.6, of 0.8 and of 0.9,
      added up), and the same of its own voters alone;
    - the root of its area;
    - of its rival, the box before it that it overlaps most: the IoU, the score
      by votes, that of its own anchor, and the log of how many times the area
      of the rival its own is;
    - of all boxes before it: the greatest share of this box that lies in one
      of them, and the greatest share of one that lies in this box; the second
      greatest IoU, and how many it overlaps by more than 0.3.

    Args:
        rows: float tensor ``(A, 6)``, what `multibox_detection` gives for one
            image.

    Returns:
        Tuple of the kept rows ``(n, 6)``, moved, by falling score of eight
        votes, with the scores of their own anchors; and of the facts
        ``(n, 17)``.
    """
    kept, others, share = vote_once(rows, SAME)
    votes = mean_of_votes(share, others, VOTERS)
    order = votes.argsort(descending=True, stable=True)
    kept, share, votes = kept[order], share[order], votes[order]
    own, votes = log_odds(kept[:, 1]) / 5, votes / 5
    box, size = kept[:, 2:], kept[:, 4:] - kept[:, 2:4]
    area = size.prod(1)
    near = box_iou(box, others[:, 2:])
    crowds = [((some > iou) * others[:, 1]).sum(1).log1p()
              for some in (near, share) for iou in NEAR]
    # With the surer ones, in (n, n); two columns for who has none of these.
    inside = share_inside(box, box)
    iou, within, around = (
        F.pad(some.nan_to_num(0).tril(-1), (0, 2))
        for some in (box_iou(box, box), inside, inside.t()))
    (first, second), (rival, _) = map(torch.t, iou.topk(2, 1))
    rival = rival.clamp(max=len(kept) - 1)
    its = [torch.where(first > 0, fact, 0) for fact in (
        votes[rival], own[rival], (area / area[rival]).log())]
    facts = [own, votes, *crowds, area.sqrt(), first, *its,
             within.amax(1), around.amax(1), second, (iou > MEET).sum(1)]
    return kept, torch.stack(facts, 1).nan_to_num(0, 0, 0)


def judge_boxes(rows, judge):
    """Place and score boxes as a judge does that has learnt from others.

    Args:
        rows: as for `hear_boxes`.
        judge: a `Judge`, where the rows are.

    Returns:
        Float tensor ``(n, 6)``: the rows that were kept and have not moved to
        the same place, by falling score.
    """
    kept, facts = hear_boxes(rows)
    with torch.no_grad():
        scores = judge(facts.to(judge[0].weight))[:, 0].sigmoid()
    kept[:, 1] = scores.to(kept)
    return kept[kept[:, 1].argsort(descending=True, stable=True)]


def teach_judge(net, data_iter, seed=0, progress=False):
    """Teach a judge to a network, from pictures on which it shows mistakes.

    A box is right as in an examination: by falling score of eight votes, it
    takes a true box of its class with an IoU of at least 0.5 that none has
    taken. The network itself stays as it is.

    Args:
        net: a `TinySSD`, which gets a ``judge``.
        data_iter: as for `evaluate`. Pictures like those that it is for, many
            without any object: not those that it has learnt from, for there
            it is too sure, and not those to measure it on.
        seed: of the judge's first weights and of the order.
        progress: show bars.

    Returns:
        dict: numbers of ``'pictures'``, of ``'boxes'`` and of those that are
        ``'right'``, and the ``'loss'``, cross-entropy, over the last epoch.

    Raises:
        ValueError: no pictures; labels that are none, or of a class that the
            network lacks; of all boxes none is right, or none is wrong. The
            network keeps the judge that it had.
    """
    keep_memory()
    facts, right, pictures = [], [], 0
    with evaluating(net):
        for X, Y in tqdm(data_iter, 'hearing', disable=not progress):
            X = fitting(X, net)
            check_labels(Y, net.num_classes)
            found = find_boxes(net, X, LENIENT, most=HEARD)
            for rows, labels in zip(found.cpu(), Y.cpu()):
                kept, told = hear_boxes(rows)
                facts.append(told)
                right.append(match_detections(kept, labels) >= 0)
            pictures += len(X)
    if not pictures:
        raise ValueError('no pictures to learn from')
    facts, right = torch.cat(facts), torch.cat(right)
    if right.all() or not right.any():
        raise ValueError(f'of {len(right)} boxes on {pictures} pictures '
                         f'{right.sum()} are right: nothing to tell apart')
    net.judge, loss = _taught(facts, right.float(), seed, progress)
    net.judge.to(next(net.parameters()).device)
    return {'pictures': pictures, 'boxes': len(right),
            'right': int(right.sum()), 'loss': loss}


def _taught(facts, right, seed, progress):
    """A judge that has learnt which boxes are right, and its loss."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.random.default_generator.manual_seed(seed)
        judge = Judge()
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, RATE, epochs=EPOCHS,
            steps_per_epoch=math.ceil(len(facts) / BATCH))
        for _ in trange(EPOCHS, desc='judging', disable=not progress):
            total = 0.0
            for some in torch.randperm(len(facts)).split(BATCH):
                loss = F.binary_cross_entropy_with_logits(
                    judge(facts[some])[:, 0], right[some])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(some)
    return judge.eval(), total / len(facts)
