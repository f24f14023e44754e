"""Record what MXNet gives, so that it need not be installed to compare.

    python tests/mxnet_record/record.py

Runs under Python 3.8 with the requirements in this folder and writes
`record.npz` and `record.json` beside itself. `make mxnet-record` does it all.
"""
import json
import os
import platform
import tempfile
from pathlib import Path
from unittest import mock

os.environ['OMP_NUM_THREADS'] = '1'  # one order of summation, every time
os.environ['MPLBACKEND'] = 'agg'

import inputs  # noqa: E402
import matplotlib  # noqa: E402
import mxnet as mx  # noqa: E402
import numpy  # noqa: E402
import tinyssd_mxnet as ssd  # noqa: E402
from mxnet import np, npx  # noqa: E402

FOLDER = Path(__file__).resolve().parent


def record_settings():
    yield 'settings/scales/sizes', ssd.sizes
    yield 'settings/scales/ratios', ssd.ratios
    for name, shape in ssd.examples().items():
        yield f'shapes/examples/{name}', shape


def prior(height, width, sizes, ratios):
    """MXNet's anchors of a feature map, a NumPy array ``(A, 4)``."""
    data = np.zeros((1, 1, height, width))
    return npx.multibox_prior(data, sizes=sizes, ratios=ratios)[0].asnumpy()


def record_prior():
    cases = {
        'one unit': (1, 1, [0.88, 0.961], [1, 2, 0.5]),
        'square': (4, 4, [0.37, 0.447], [1, 2, 0.5]),
        'wide': (3, 5, [0.2, 0.272], [1, 2, 0.5]),
        'tall': (7, 2, [0.54, 0.619], [1, 2, 0.5]),
        'first ratio is not 1': (4, 6, [0.3, 0.6, 0.9], [2, 0.5, 3]),
        'one shape': (9, 16, [0.5], [1]),
    }
    for name, case in cases.items():
        arrays = zip(('height', 'width', 'sizes', 'ratios'), case)
        yield from ((f'prior/{name}/{k}', v) for k, v in arrays)
        yield f'prior/{name}/anchors', prior(*case)


def target(anchors, labels):
    """MXNet's three targets; its third argument serves mining alone."""
    shape = (len(labels), int(labels[..., 0].max()) + 2, len(anchors))
    out = npx.multibox_target(np.array(anchors[None]), np.array(labels),
                              np.zeros(shape))
    return zip(('offsets', 'masks', 'classes'), (o.asnumpy() for o in out))


def record_target():
    two_maps = numpy.concatenate([
        prior(6, 9, ssd.sizes[1], ssd.ratios[1]),
        prior(3, 4, ssd.sizes[3], ssd.ratios[3])])
    five_maps = numpy.concatenate([
        prior(n, n, *shapes) for n, *shapes in zip(
            (32, 16, 8, 4, 1), ssd.sizes, ssd.ratios)])
    cases = {
        'one class': (two_maps, 4, 3, 1, False),
        'several classes': (two_maps, 10, 5, 4, False),
        'boxes that compete': (two_maps, 8, 4, 3, True),
        'anchors of TinySSD': (five_maps, 3, 3, 2, False),
    }
    for name, (anchors, *how) in cases.items():
        labels = inputs.labels(name, anchors, *how)
        yield f'target/{name}/anchors', anchors
        yield f'target/{name}/labels', labels
        for key, value in target(anchors, labels):
            yield f'target/{name}/{key}', value


def detection(probs, offsets, anchors, **how):
    return npx.multibox_detection(
        np.array(probs), np.array(offsets), np.array(anchors[None]),
        **how).asnumpy()


def record_detection():
    thresholds = [(0.5, 0.01), (0.3, 0.3), (0.7, 0.01), (0.5, 0.6)]
    anchors = prior(3, 5, ssd.sizes[1], ssd.ratios[1])
    for name, classes in (('one class', 1), ('three classes', 3)):
        probs, offsets = inputs.detections(name, 3, classes, anchors,
                                           *zip(*thresholds))
        yield f'detection/{name}/anchors', anchors
        yield f'detection/{name}/probs', probs
        yield f'detection/{name}/offsets', offsets
        for nms, pos in thresholds:
            for per_class in (False, True):
                rows = detection(probs, offsets, anchors, clip=False,
                                 nms_threshold=nms, threshold=pos,
                                 force_suppress=not per_class)
                yield (f'detection/{name}/rows nms={nms} pos={pos} '
                       f'per_class={per_class}', rows)


def names(net):
    """Dict of PyTorch's name of each parameter to Gluon's structural one.

    The names differ in batch norm alone; those are the names that
    `save_parameters` writes.
    """
    return {name.replace('gamma', 'weight').replace('beta', 'bias'): name
            for name in net._collect_params_with_prefix()}


def drawn_net(num_classes):
    """TinySSD with the drawn weights; returns it and the weights."""
    net = ssd.TinySSD(num_classes)
    net.initialize()
    net(np.zeros((1, 3, 128, 128)))  # only now are all shapes known
    shapes = {name: p.shape for name, p in parameters(net).items()}
    weights = inputs.weights(shapes)
    gluon = {theirs: np.array(weights[ours])
             for ours, theirs in names(net).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'weights.params')
        npx.save(path, gluon)
        net.load_parameters(path)
    return net, weights


def parameters(net):
    """Dict of PyTorch's names to Gluon's parameters."""
    params = net._collect_params_with_prefix()
    return {ours: params[theirs] for ours, theirs in names(net).items()}


def record_network():
    for name, classes, shape in (('square', 1, (1, 256, 256)),
                                 ('wide', 2, (2, 128, 192))):
        net, weights = drawn_net(classes)
        X = inputs.images(name, *shape)
        case = f'network/{name}'
        yield f'{case}/num_classes', classes
        yield f'{case}/shape', shape
        yield f'{case}/weights_sha256', inputs.digest(weights)
        yield f'{case}/images_sha256', inputs.digest({'X': X})
        outputs = net(np.array(X))
        for key, value in zip(('anchors', 'cls_preds', 'bbox_preds'),
                              outputs):
            yield f'{case}/{key}', value.asnumpy()
        rows = ssd.predict(np.array(X), net).asnumpy()
        yield f'{case}/best_rows', clear_rows(rows, *outputs)


def clear_rows(rows, anchors, cls_preds, bbox_preds):
    """The best rows of a prediction, as many as no near tie decides about."""
    scores = npx.softmax(cls_preds)[0].asnumpy().T[1:]
    boxes = inputs.decode(anchors[0].asnumpy(),
                          bbox_preds[0].asnumpy().reshape(-1, 4))
    for k in range(20, 2, -1):
        top = scores.max(0) >= rows[k - 1, 1]
        if inputs.detection_margin(scores[:, top], boxes[top], [0.5],
                                   []) > inputs.MARGIN / 10:
            print(f'the best {k} rows of {len(rows)}, of {top.sum()} boxes')
            return rows[:k]
    raise SystemExit('near ties among the best boxes: draw other weights')


def record_losses():
    draw = inputs.rng('losses')
    B, A, C = 4, 30, 3
    cls_preds = draw.normal(size=(B, A, C)).astype('float32')
    cls_labels = draw.randint(0, C, (B, A)).astype('float32')
    bbox = draw.normal(size=(2, B, 4 * A)).astype('float32')
    masks = (cls_labels > 0).repeat(4, 1).astype('float32')
    args = {'cls_preds': cls_preds, 'cls_labels': cls_labels,
            'bbox_preds': bbox[0], 'bbox_labels': bbox[1],
            'bbox_masks': masks}
    yield from ((f'losses/drawn/{k}', v) for k, v in args.items())
    args = [np.array(v) for v in args.values()]
    yield 'losses/drawn/calc_loss', ssd.calc_loss(*args).asnumpy()
    yield 'losses/drawn/cls_eval', ssd.cls_eval(*args[:2])
    yield 'losses/drawn/bbox_eval', ssd.bbox_eval(*args[2:])
    x = np.arange(-2, 2, 0.1)
    p = np.arange(0.01, 1, 0.01)
    yield 'smooth_l1/drawn/x', x.asnumpy()
    yield 'focal_loss/drawn/x', p.asnumpy()
    for scalar in (10, 1, 0.5):
        yield (f'smooth_l1/drawn/{scalar}',
               ssd.smooth_l1(x, scalar).asnumpy())
    for gamma in (0, 1, 5):
        yield f'focal_loss/drawn/{gamma}', ssd.focal_loss(gamma, p).asnumpy()


def double(array):
    return np.array(array, dtype='float64')


def single_inside(name):
    """Let an operator that knows single precision alone take double too."""
    operator = getattr(npx, name)

    def call(*args, **options):
        return operator(*(a.astype('float32') for a in args), **options)

    return mock.patch.object(npx, name, call)


def record_training():
    """Two steps of SGD from the drawn weights, on drawn pictures.

    In double precision: which side of zero a ReLU's input lies on, and which
    of four numbers is greatest, hangs on the last bits for some of a million
    units, and in single precision the gradient with it.
    """
    with single_inside('multibox_prior'), single_inside('multibox_target'):
        yield from two_steps()


def two_steps():
    net, _ = drawn_net(num_classes=2)
    net.cast('float64')
    shape = (4, 128, 128)
    before = {name: p.data().asnumpy() for name, p in parameters(net).items()}
    anchors, *_ = net(double(inputs.images('step 0', *shape)))
    data = [(inputs.images(f'step {i}', *shape),
             inputs.labels(f'step {i}', anchors[0].asnumpy(), 4, 3, 2))
            for i in range(inputs.STEPS)]
    trainer = ssd.new_trainer(net, inputs.LEARNING_RATE, inputs.WEIGHT_DECAY)
    batches = [(double(X), double(Y)) for X, Y in data]
    case = 'training/two steps'
    yield f'{case}/shape', shape
    yield f'{case}/labels', [Y for _, Y in data]
    measures = []
    for i, step in enumerate(ssd.train_epoch(net, batches, trainer)):
        measures.append(step)
        for name, p in parameters(net).items():
            change = p.data().asnumpy() - before[name]
            if i == 0 and name.endswith('running_var'):
                yield f'{case}/first step/{name}', p.data().asnumpy()
            elif i == inputs.STEPS - 1 and not name.endswith('running_var'):
                yield f'{case}/change/{name}', inputs.sample(name, change)
    for key, values in zip(('loss', 'cls_eval', 'bbox_eval'), zip(*measures)):
        yield f'{case}/{key}', [v.asnumpy() if hasattr(v, 'asnumpy') else v
                                for v in values]


def read(name, height, width):
    """What MXNet makes of a drawn picture that lies in a file."""
    img = inputs.images(name, 1, height, width)[0].transpose(1, 2, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'picture.png'
        path.write_bytes(inputs.png(img.astype('uint8')))
        X = ssd.read_image(str(path)).asnumpy()
    return img, inputs.sample(name, X, most=512)


def record_pictures():
    """A picture read from a file, and boxes drawn on it."""
    img, X = read('picture', 256, 256)
    yield 'pictures/read/X', X
    output = np.array([[0, 0.97, 0.1, 0.2, 0.5, 0.7],
                       [0, 0.91, 0.4, 0.3, 1.1, 0.8],
                       [0, 0.89, 0.0, 0.0, 0.2, 0.2]])
    axes = ssd.display(np.array(img, dtype='uint8'), output, threshold=0.9)
    yield 'pictures/shown/output', output.asnumpy()
    yield 'pictures/shown/boxes', [
        patch.get_bbox().extents for patch in axes.patches]
    yield 'pictures/shown/labels', [text.get_text() for text in axes.texts]


def record_differences():
    """Cases built by hand in which the two are known not to agree."""
    whole, half = [0, 0, 1, 1], [0, 0, 0.5, 1]
    pad = [-1] * 5
    cases = {
        'an IoU of exactly one half': ([whole, half], [[0, *whole]]),
        'no box in the image': ([whole, half], [pad]),
        'a box after a padded row': ([whole, half],
                                     [[0, *whole], pad, [1, *half]]),
    }
    for name, (anchors, labels) in cases.items():
        anchors, labels = numpy.float32(anchors), numpy.float32([labels])
        yield f'difference/{name}/anchors', anchors
        yield f'difference/{name}/labels', labels
        for key, value in target(anchors, labels):
            yield f'difference/{name}/{key}', value
    probs = numpy.float32([[[0.1, 0.2], [0.9, 0.8]]])
    none = numpy.zeros((1, 8), 'float32')
    # They overlap by a third, and by 0.6 once cut off at the edge.
    beyond = [[-0.5, 0, 0.5, 1], [0, 0, 0.3, 1]]
    cases = {
        'an IoU of exactly the threshold': ([whole, half], {'clip': False}),
        'boxes cut off at the edge': (beyond, {'clip': True}),
    }
    for name, (anchors, how) in cases.items():
        anchors = numpy.float32(anchors)
        yield f'difference/{name}/anchors', anchors
        yield f'difference/{name}/probs', probs
        yield f'difference/{name}/offsets', none
        yield f'difference/{name}/rows', detection(
            probs, none, anchors, force_suppress=True, **how)
    # Its default, where ours lets any box suppress any other.
    probs = numpy.float32([[[0.1, 0.1], [0.9, 0.1], [0, 0.8]]])
    anchors = numpy.float32([whole, [0, 0, 0.9, 1]])
    case = 'difference/boxes of two classes'
    yield f'{case}/anchors', anchors
    yield f'{case}/probs', probs
    yield f'{case}/offsets', none
    yield f'{case}/rows', detection(probs, none, anchors)
    yield 'difference/a picture that shrinks/X', read('large', 512, 768)[1]
    preds = numpy.float32([[[1, 2, 0], [0, 1, 3]]])
    classes = np.array([[-1, -1]])
    case = 'difference/class -1 in the loss'
    yield f'{case}/preds', preds
    yield f'{case}/loss', ssd.cls_loss(np.array(preds), classes).asnumpy()
    yield f'{case}/cls_eval', ssd.cls_eval(np.array(preds), classes)
    norm = ssd.nn.BatchNorm(in_channels=1)
    norm.initialize()
    case = 'difference/a running variance'
    x = numpy.float32([1, 2, 3, 6]).reshape(4, 1, 1, 1)
    yield f'{case}/x', x
    with ssd.autograd.record():
        y = norm(np.array(x))
    yield f'{case}/after forward', norm.running_var.data().asnumpy()
    y.backward()
    yield f'{case}/after backward', norm.running_var.data().asnumpy()


def versions():
    return {
        'mxnet': mx.__version__, 'numpy': numpy.__version__,
        'matplotlib': matplotlib.__version__,
        'python': platform.python_version(),
        'machine': f'{platform.system()} {platform.machine()}',
        'features': sorted(f.name for f in mx.runtime.feature_list()
                           if f.enabled)}


def main():
    record = {}
    for part in (record_settings, record_prior, record_target,
                 record_detection, record_network, record_losses,
                 record_training, record_pictures, record_differences):
        for key, value in part():
            record[key] = numpy.asarray(value)
    path = FOLDER / 'record.npz'
    numpy.savez_compressed(path, **record)
    about = {**versions(), 'arrays': len(record),
             'sha256': inputs.digest(record)}
    (FOLDER / 'record.json').write_text(json.dumps(about, indent=2) + '\n')
    print(f'{len(record)} arrays, {path.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
