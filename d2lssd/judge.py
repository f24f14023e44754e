"""A judge of boxes: is this an object, and one that was not found before?

Suppression asks how much two boxes overlap, and nothing else. So it strikes
out the second of two bananas that lie across each other or, told to be
lenient, leaves doubles of one. And all that a box's score rests on is one
place of one map. A small network that is told how the boxes lie to each other,
and looks at each of them once more, enlarged to one size, decides better.

Hosang, Benenson and Schiele, "Learning non-maximum suppression" (2017), teach
a large network the first half; the second is how R-CNN (Girshick et al. 2014)
and Faster R-CNN (Ren et al. 2015) look at their proposals.
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
HEARD = 100  # boxes of an image: some networks find something everywhere
DOUBTED = 0.02  # least score of a box that is heard: a look takes its time
SAME = 0.7  # IoU above which boxes that voting has moved are one
VOTERS = 8
NEAR = 0.6, 0.8, 0.9  # IoU with boxes that may have seen the same
MEET = 0.3  # IoU of boxes that are in each other's way
FACTS = ('own score', 'score by votes',
         *(f'sum of {who} from {iou}' for who in ('scores', 'votes')
           for iou in NEAR),
         'side', 'IoU with a surer one', 'its score by votes', 'its own score',
         'ratio of areas', 'share inside', 'share of it inside',
         'second IoU', 'how many in the way',
         'width by the longer side', 'height by the longer side')
CLOSE = 48  # pixels a side of a close-up
AROUND = 1.4  # its side, by the longer one of the box
# Of the teaching.
EPOCHS, BATCH, RATE, DECAY = 12, 128, 3e-3, 0.05
LESSONS = 24  # boxes of a picture: what is kept of each takes 9 kB


class Judge(nn.Module):
    """A network that scores boxes by facts of them and by a look at each.

    Input: float tensors ``(n, 19)``, what `hear_boxes` tells, and ``(n, 64, 6,
    6)``, what the detector's first block makes of the `close_ups`. Output:
    log-odds ``(n,)`` of each box being an object that no surer box has found.
    """

    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(64, 64, kernel_size=3, padding=1), nn.BatchNorm2d(64),
            nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(64 * 3 * 3, 32), nn.ReLU())
        self.decide = nn.Sequential(
            nn.Linear(len(FACTS) + 32, 64), nn.ReLU(),
            nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, facts, seen):
        return self.decide(torch.cat([facts, self.see(seen)], 1))[:, 0]


def close_ups(image, boxes):
    """Square parts of an image, each around a box, all brought to one size.

    A part is 1.4 times as wide as the longer side of its box, so that the
    surroundings can be seen, too. What lies beyond the image is black.

    Args:
        image: float tensor ``(3, h, w)``.
        boxes: float tensor ``(n, 4)``, corner format, relative to the image.

    Returns:
        Float tensor ``(n, 3, 48, 48)``.
    """
    if not len(boxes):
        return image.new_zeros(0, 3, CLOSE, CLOSE)
    size = image.new_tensor([image.shape[2], image.shape[1]])
    low, high = boxes.to(image).nan_to_num(0, 0, 0).chunk(2, 1)
    side = AROUND * ((high - low) * size).amax(1, keepdim=True)
    place = torch.cat([torch.diag_embed(side / size),
                       # in a grid that goes from -1 to 1
                       (low + high - 1)[:, :, None]], 2)
    # Twice as large at first: of what is much larger, more is seen so.
    grid = F.affine_grid(place, (len(boxes), 3, 2 * CLOSE, 2 * CLOSE),
                         align_corners=False)
    # One below the other, so that the image need not be there for each.
    parts = F.grid_sample(image[None], grid.flatten(0, 1)[None],
                          align_corners=False)
    parts = parts.unflatten(2, (-1, 2 * CLOSE))[0].transpose(0, 1)
    return F.avg_pool2d(parts, 2)


def look_at(net, parts):
    """What the first block of a detector makes of close-ups of boxes.

    Args:
        net: a `TinySSD`, in evaluation mode.
        parts: float tensor ``(n, 3, 48, 48)``, as `close_ups` gives them.

    Returns:
        Float tensor ``(n, 64, 6, 6)``.
    """
    if not len(parts):
        return parts.new_zeros(0, 64, CLOSE // 8, CLOSE // 8)
    with torch.no_grad():
        return net.blk_0(parts.contiguous(memory_format=torch.channels_last))


def hear_boxes(rows):
    """What a judge is told of the boxes that lenient suppression has kept.

    First they are moved by one vote each, as for `fuse_boxes`, and of two
    whose IoU is above 0.7 then, the one with the lower score is dropped. What
    is left is ordered by the score of its eight best votes; classes do not
    matter. Log-odds are divided by 5; the 19 facts are

    - the log-odds of its own anchor's score, and of that by votes;
    - log(1 + the scores of all boxes within an IoU of 0.6, of 0.8 and of 0.9,
      added up), and the same of its own voters alone;
    - the root of its area;
    - of its rival, the box before it that it overlaps most: the IoU, the score
      by votes, that of its own anchor, and the log of how many times the area
      of the rival its own is;
    - of all boxes before it: the greatest share of this box that lies in one
      of them, and the greatest share of one that lies in this box; the second
      greatest IoU, and how many it overlaps by more than 0.3;
    - its width and height, by the longer of the two.

    Args:
        rows: float tensor ``(A, 6)``, what `multibox_detection` gives for one
            image. Judges have learnt from what it gives with
            ``nms_threshold=0.65``, ``pos_threshold=0.02`` and ``most=100``.

    Returns:
        Tuple of the kept rows ``(n, 6)``, moved, by falling score of eight
        votes, with the scores of their own anchors; and of the facts
        ``(n, 19)``.
    """
    kept, others, share = vote_once(rows, SAME)
    votes = mean_of_votes(share, others, VOTERS)
    order = votes.argsort(descending=True, stable=True)
    kept, share, votes = kept[order], share[order], votes[order]
    own, votes = log_odds(kept[:, 1]) / 5, votes / 5
    box, size = kept[:, 2:], kept[:, 4:] - kept[:, 2:4]
    shape = size / size.amax(1, keepdim=True)
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
             within.amax(1), around.amax(1), second, (iou > MEET).sum(1),
             *shape.t()]
    return kept, torch.stack(facts, 1).nan_to_num(0, 0, 0)


def judge_boxes(rows, net, image):
    """Place and score boxes as a judge does that has learnt from others.

    Args:
        rows: as for `hear_boxes`.
        net: a `TinySSD` that has a judge, in evaluation mode.
        image: float tensor ``(3, h, w)``, 0–255, on which the network has
            found them, where the network is.

    Returns:
        Float tensor ``(n, 6)``: the rows that were kept and have not moved to
        the same place, by falling score.
    """
    kept, facts = hear_boxes(rows)
    seen = look_at(net, close_ups(image, kept[:, 2:]))
    with torch.no_grad():
        scores = net.judge(facts.to(seen), seen).sigmoid()
    kept[:, 1] = scores.to(kept)
    return kept[kept[:, 1].argsort(descending=True, stable=True)]


def teach_judge(net, data_iter, seed=0, progress=False):
    """Teach a judge to a network, from pictures on which it shows mistakes.

    A box is right as in an examination: by falling score of eight votes, it
    takes a true box of its class with an IoU of at least 0.5 that none has
    taken. Of a picture no more than the first 24 boxes teach, so that memory
    is bounded. The network itself stays as it is.

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
    facts, right, looks, pictures = [], [], [], 0
    with evaluating(net):
        for X, Y in tqdm(data_iter, 'hearing', disable=not progress):
            X = fitting(X, net)
            check_labels(Y, net.num_classes)
            found = find_boxes(net, X, LENIENT, DOUBTED, HEARD)
            for image, rows, labels in zip(X, found, Y.cpu()):
                kept, told = hear_boxes(rows)
                facts.append(told[:LESSONS].cpu())
                right.append(match_detections(kept.cpu(), labels)[:LESSONS]
                             >= 0)
                parts = close_ups(image, kept[:LESSONS, 2:])
                looks.append(torch.stack([
                    look_at(net, some).half().cpu()
                    for some in (parts, parts.flip(3))], 1))
            pictures += len(X)
    if not pictures:
        raise ValueError('no pictures to learn from')
    facts, right, looks = map(torch.cat, (facts, right, looks))
    if right.all() or not right.any():
        raise ValueError(f'of {len(right)} boxes on {pictures} pictures '
                         f'{right.sum()} are right: nothing to tell apart')
    net.judge, loss = _taught(facts, looks, right.float(), seed, progress)
    net.judge.to(next(net.parameters()).device)
    return {'pictures': pictures, 'boxes': len(right),
            'right': int(right.sum()), 'loss': loss}


def _taught(facts, looks, right, seed, progress):
    """A judge that has learnt which boxes are right, and its loss. Of the two
    looks ``(n, 2, 64, 6, 6)`` at each box, one of them mirrored, it is shown
    one at random in each epoch."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.random.default_generator.manual_seed(seed)
        judge = Judge().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, RATE, epochs=EPOCHS,
            steps_per_epoch=math.ceil(len(facts) / BATCH))
        for _ in trange(EPOCHS, desc='judging', disable=not progress):
            total = 0.0
            for some in torch.randperm(len(facts)).split(BATCH):
                side = torch.randint(2, some.shape)
                loss = F.binary_cross_entropy_with_logits(
                    judge(facts[some], looks[some, side].float()),
                    right[some])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(some)
    return judge.eval(), total / len(facts)
