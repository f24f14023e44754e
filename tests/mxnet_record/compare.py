"""Compare d2lssd with what MXNet gave, and write the appendix's table.

    python tests/mxnet_record/compare.py

Reads `record.npz` beside this file, so MXNet is not needed. Writes
`book/appendix/mxnet_comparison.csv`.
"""
import csv
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER.parents[1] / 'book' / 'appendix' / 'mxnet_comparison.csv'
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

import inputs  # noqa: E402

import d2lssd  # noqa: E402
from d2lssd import (  # noqa: E402
    TinySSD,
    base_net,
    calc_loss,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    forward,
    multibox_target,
)
from d2lssd.prediction import read_image  # noqa: E402

TOLERANCE = 1e-4

NAMES = {
    ('shapes', 'shapes'): 'shapes of the eight examples',
    ('prior', 'anchors'): '`multibox_prior`: anchors of six feature maps',
    ('target', 'offsets'): '`multibox_target`: offsets',
    ('target', 'masks'): '`multibox_target`: masks',
    ('target', 'classes'): '`multibox_target`: classes',
    ('detection', 'rows'): '`multibox_detection`: rows kept, in order',
    ('network', 'anchors'): '`TinySSD`: anchors',
    ('network', 'cls_preds'): '`TinySSD`: class logits',
    ('network', 'bbox_preds'): '`TinySSD`: offsets',
    ('network', 'best_rows'): '`predict`: the best twenty rows',
    ('losses', 'calc_loss'): '`calc_loss`',
    ('losses', 'cls_eval'): '`cls_eval`',
    ('losses', 'bbox_eval'): '`bbox_eval`',
    ('smooth_l1', 'values'): '`smooth_l1`, σ = 10, 1, 0.5',
    ('focal_loss', 'values'): '`focal_loss`, γ = 0, 1, 5',
    ('training', 'loss'): 'two steps of SGD: loss of each image',
    ('training', 'cls_eval'): 'two steps of SGD: right classes',
    ('training', 'bbox_eval'): 'two steps of SGD: summed offset error',
    ('training', 'weights'):
        'two steps of SGD: change of the weights, relative',
    ('training', 'running_mean'):
        'two steps of SGD: change of the running means, relative',
    ('training', 'running_var'):
        'one step of SGD: running variances, rescaled as told below',
    ('pictures', 'X'): 'a picture of 256×256, read from a PNG file',
    ('pictures', 'boxes'): '`display`: corners of the boxes, in pixels',
    ('pictures', 'labels'): '`display`: labels',
}


def load_record():
    """The record: parts, in each its cases, in each its named arrays."""
    record = {}
    with np.load(FOLDER / 'record.npz') as file:
        for name in file.files:
            part, case, key = name.split('/', 2)
            cases = record.setdefault(part, {})
            cases.setdefault(case, {})[key] = file[name]
    return record


def load_versions():
    """What the record was made with: the dict in `record.json`."""
    return json.loads((FOLDER / 'record.json').read_text())


def difference(theirs, ours):
    """Largest difference: absolute up to 1, relative for greater numbers.

    Infinite where the shapes differ or a number is none.
    """
    theirs, ours = np.float64(theirs), np.float64(ours)
    if theirs.shape != ours.shape:
        return float('inf')
    gap = np.abs(theirs - ours) / np.maximum(1, np.abs(theirs))
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0))


def tensors(*arrays):
    """Tensors of some arrays."""
    return [torch.from_numpy(np.array(a)) for a in arrays]


def examples():
    """Run each piece once; a dict of the shapes that come out."""
    Y1 = forward(torch.zeros(2, 8, 20, 20), cls_predictor(8, 5, 10))
    Y2 = forward(torch.zeros(2, 16, 10, 10), cls_predictor(16, 3, 10))
    small, image = torch.zeros(2, 3, 20, 20), torch.zeros(2, 3, 256, 256)
    anchors, cls_preds, bbox_preds = forward(image, TinySSD(num_classes=1))
    outputs = {
        'Y1': Y1, 'Y2': Y2, 'both': concat_preds([Y1, Y2]),
        'down_sample_blk': forward(small, down_sample_blk(3, 10)),
        'base_net': forward(image, base_net()), 'anchors': anchors,
        'cls_preds': cls_preds, 'bbox_preds': bbox_preds}
    return {name: Y.shape for name, Y in outputs.items()}


def compare_shapes(case):
    for name, shape in examples().items():
        yield 'shapes', case[name], list(shape)


def compare_prior(case):
    data = torch.zeros(1, 1, int(case['height']), int(case['width']))
    ours = d2lssd.multibox_prior(data, case['sizes'].tolist(),
                                 case['ratios'].tolist())
    yield 'anchors', case['anchors'], ours[0]


def compare_target(case):
    anchors, labels = tensors(case['anchors'], case['labels'])
    ours = d2lssd.multibox_target(anchors[None], labels)
    for name, value in zip(('offsets', 'masks', 'classes'), ours):
        yield name, case[name], value


def compare_detection(case):
    probs, offsets, anchors = tensors(case['probs'], case['offsets'],
                                      case['anchors'])
    for name in filter(re.compile('rows').match, case):
        nms, pos, per_class = re.findall(r'=(\S+)', name)
        ours = d2lssd.multibox_detection(
            probs, offsets, anchors[None], float(nms), float(pos),
            per_class == 'True')
        for mine, theirs in zip(ours, case[name]):
            yield 'rows', theirs[theirs[:, 0] >= 0], mine[mine[:, 0] >= 0]


def drawn_net(num_classes):
    """TinySSD with the drawn weights, ready to predict."""
    net = TinySSD(num_classes)
    state = net.state_dict()
    weights = inputs.weights({
        name: tuple(value.shape) for name, value in state.items()
        if not name.endswith('num_batches_tracked')})
    net.load_state_dict({name: torch.from_numpy(value)
                         for name, value in weights.items()}, strict=False)
    return net.eval(), weights


def compare_network(case):
    net, _ = drawn_net(int(case['num_classes']))
    X = torch.from_numpy(inputs.images(str(case['name']), *case['shape']))
    with torch.no_grad():
        ours = net(X)
    for name, value in zip(('anchors', 'cls_preds', 'bbox_preds'), ours):
        yield name, case[name], value
    rows = d2lssd.predict(X[:1], net)
    yield 'best_rows', case['best_rows'], rows[:len(case['best_rows'])]


def compare_losses(case):
    args = tensors(*(case[name] for name in (
        'cls_preds', 'cls_labels', 'bbox_preds', 'bbox_labels',
        'bbox_masks')))
    args[1] = args[1].long()
    yield 'calc_loss', case['calc_loss'], d2lssd.calc_loss(*args)
    yield 'cls_eval', case['cls_eval'], d2lssd.cls_eval(*args[:2])
    yield 'bbox_eval', case['bbox_eval'], d2lssd.bbox_eval(*args[2:])


def compare_smooth_l1(case):
    x = torch.from_numpy(case['x'])
    for scalar in ('10', '1', '0.5'):
        yield 'values', case[scalar], d2lssd.smooth_l1(x, float(scalar))


def compare_focal_loss(case):
    x = torch.from_numpy(case['x'])
    for gamma in ('0', '1', '5'):
        yield 'values', case[gamma], d2lssd.focal_loss(float(gamma), x)


def new_trainer(net, lr, wd):
    """Plain SGD; ``wd`` is Gluon's ``wd``."""
    return torch.optim.SGD(net.parameters(), lr=lr, weight_decay=wd)


def train_epoch(net, train_iter, trainer):
    """Train on every batch once; yield loss and both measures of each."""
    device = next(net.parameters()).device
    net.train()
    for features, target in train_iter:
        X, Y = features.to(device), target.to(device)
        trainer.zero_grad()
        anchors, cls_preds, bbox_preds = net(X)
        bbox_labels, bbox_masks, cls_labels = multibox_target(anchors, Y)
        loss = calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels,
                         bbox_masks)
        loss.mean().backward()
        trainer.step()
        with torch.no_grad():
            yield (loss, d2lssd.cls_eval(cls_preds, cls_labels),
                   d2lssd.bbox_eval(bbox_preds, bbox_labels, bbox_masks))


def train_two_steps(case):
    """Do what MXNet did, in double precision as it did.

    Returns:
        Measures of each step, the first weights, the state after each step.
    """
    net, before = drawn_net(num_classes=2)
    net.double()
    data = [(torch.from_numpy(inputs.images(f'step {i}', *case['shape'])), Y)
            for i, Y in enumerate(tensors(*case['labels']))]
    data = [(X.double(), Y) for X, Y in data]
    trainer = new_trainer(net, inputs.LEARNING_RATE, inputs.WEIGHT_DECAY)
    measures, states = [], []
    for loss, *counts in train_epoch(net, data, trainer):
        measures.append((loss.tolist(), *counts))
        states.append({name: value.numpy().copy()
                       for name, value in net.state_dict().items()})
    return measures, before, states


def compare_training(case):
    measures, before, states = train_two_steps(case)
    for name, value in zip(('loss', 'cls_eval', 'bbox_eval'),
                           zip(*measures)):
        yield name, case[name], value
    for key in filter(re.compile('change').match, case):
        name = key.split('/')[-1]
        change = inputs.sample(name, states[-1][name] - before[name])
        kind = 'running_mean' if 'running' in name else 'weights'
        scale = np.abs(case[key]).max()
        yield kind, case[key] / scale, change / scale
    for key in filter(re.compile('first step').match, case):
        # PyTorch divides by n - 1 in its running variance, MXNet by n.
        name = key.split('/')[-1]
        n = values_per_channel(name, case['shape'])
        start = 0.9 * before[name]
        ours = start + (states[0][name] - start) * (n - 1) / n
        yield 'running_var', case[key], ours


def values_per_channel(name, shape):
    """How many values of a batch a batch norm of TinySSD averages over."""
    batch, height, width = shape
    block, *inner = name.split('.')
    halvings = int(inner[0]) if block == 'blk_0' else 2 + int(block[-1])
    return batch * (height >> halvings) * (width >> halvings)


def read(name, height, width):
    """What d2lssd makes of a drawn picture that lies in a file."""
    img = inputs.images(name, 1, height, width)[0].transpose(1, 2, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'picture.png'
        path.write_bytes(inputs.png(img.astype('uint8')))
        X, _ = read_image(path)
    return img, inputs.sample(name, X.numpy(), most=512)


def compare_pictures(case):
    img, X = read('picture', 256, 256)
    if 'X' in case:
        yield 'X', case['X'], X
        return
    figure = plt.figure()
    d2lssd.display(img, *tensors(case['output']), threshold=0.9)
    axes = figure.gca()
    yield 'boxes', case['boxes'], [p.get_bbox().extents for p in axes.patches]
    same = case['labels'].tolist() == [t.get_text() for t in axes.texts]
    yield 'labels', np.zeros(len(case['labels'])), np.full(
        len(case['labels']), 0.0 if same else np.inf)
    plt.close(figure)


COMPARE = {'shapes': compare_shapes, 'prior': compare_prior,
           'target': compare_target, 'detection': compare_detection,
           'network': compare_network, 'losses': compare_losses,
           'smooth_l1': compare_smooth_l1, 'focal_loss': compare_focal_loss,
           'training': compare_training, 'pictures': compare_pictures}


def compare(record, part):
    """Compare one part, case by case.

    Yields:
        Tuples of the case's name, the quantity's name, MXNet's array, ours.
    """
    for name, case in record[part].items():
        for quantity, theirs, ours in COMPARE[part]({**case, 'name': name}):
            yield name, quantity, theirs, np.asarray(ours)


def table(record):
    """Rows of the appendix's table: what, how many numbers, how far apart."""
    rows = {}
    for part in COMPARE:
        for _, quantity, theirs, ours in compare(record, part):
            name = NAMES[part, quantity]
            count, worst = rows.get(name, (0, 0))
            rows[name] = (count + theirs.size,
                          max(worst, difference(theirs, ours)))
    return [(name, *row) for name, row in rows.items()]


def write_table(rows):
    """Write `book/appendix/mxnet_comparison.csv`."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with open(TABLE, 'w', newline='', encoding='utf-8') as file:
        out = csv.writer(file, lineterminator='\n')
        out.writerow(['What', 'Numbers', 'Largest difference'])
        for name, count, worst in rows:
            out.writerow([name, f'{count:,}'.replace(',', '\xa0'),
                          f'{worst:.0e}' if worst else '0'])


def read_table():
    """Read it back: what `table` gives, differences rounded."""
    with open(TABLE, newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))[1:]
    return [(name, int(count.replace('\xa0', '')), float(worst))
            for name, count, worst in rows]


def single_precision_gap(case, step=0):
    """How far PyTorch's gradient in single precision lies from double's.

    Args:
        case: training that was recorded; its labels are taken.
        step: number of the minibatch; on some, on some processors, no unit
            stands so near the fence that the last bit tips it.

    Returns:
        The greatest ratio, over the parameters, of the length of the
        difference to the length of the gradient.
    """
    gradients = []
    for dtype in (torch.float32, torch.float64):
        net, _ = drawn_net(num_classes=2)
        net.to(dtype).train()
        X = torch.from_numpy(inputs.images(f'step {step}', *case['shape']))
        anchors, *preds = net(X.to(dtype))
        bbox_labels, bbox_masks, cls_labels = multibox_target(
            anchors, *tensors(case['labels'][0]))
        calc_loss(preds[0], cls_labels, preds[1], bbox_labels,
                  bbox_masks).mean().backward()
        # A convolution's bias before a batch norm has no gradient at all.
        gradients.append([p.grad.double() for p in net.parameters()
                          if p.ndim == 4])
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12))
               for a, b in zip(*gradients))


def main():
    record = load_record()
    rows = table(record)
    write_table(rows)
    for name, count, worst in rows:
        print(f'{worst:8.1e}  {count:8,d}  {name}')
    gap = max(single_precision_gap(record['training']['two steps'], step)
              for step in range(4))
    print(f'{gap:8.1e}  PyTorch with itself: a gradient in single precision, '
          'against double')
    return 0 if max(row[2] for row in rows) < TOLERANCE else 1


if __name__ == '__main__':
    sys.exit(main())
