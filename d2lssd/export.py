"""Export: the network as one file that runs where there is no PyTorch."""
import copy
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from d2lssd.classes import classes_of
from d2lssd.data.files import replacing
from d2lssd.judge import DOUBTED, FACTS, HEARD, LENIENT, close_ups
from d2lssd.model import judge_of

NEEDED = ['onnx', 'onnxruntime', 'onnxscript']
# What goes in and comes out, and the names of the axes that are left open.
NETWORK = {'image': ['batch', '', 'height', 'width'],
           'scores': ['batch', 'anchors', ''],
           'offsets': ['batch', 'anchors', ''],
           'anchors': ['', 'anchors', '']}
JUDGE = {'image': ['', '', 'height', 'width'], 'boxes': ['boxes', ''],
         'facts': ['boxes', ''], 'scores': ['boxes']}
TOLERANCE = 1e-4
# Batch, height and width on which an exported file is compared: the size of
# the training pictures, then others, some that do not divide evenly.
TRIALS = [(1, 256, 256), (2, 256, 256), (1, 288, 352), (3, 130, 201)]
BOXES = 1, 2, 30  # on which a judge is compared, on images of batch 1


class Exported(nn.Module):
    """What is exported: from images to scores, offsets and anchors.

    Input: float tensor ``(B, 3, h, w)``, 0–255. Output: class probabilities
    ``(B, A, num_classes+1)``, 0 is background; offsets ``(B, A, 4)``; anchors
    ``(1, A, 4)``.

    Args:
        net: a `TinySSD`; it is copied.
    """

    name = 'TinySSD'

    def __init__(self, net):
        super().__init__()
        self.net = copy.deepcopy(net).cpu()
        self.net.judge = None
        self.eval()

    def forward(self, image):
        anchors, cls_preds, bbox_preds = self.net(image)
        return (F.softmax(cls_preds, dim=2), bbox_preds.unflatten(1, (-1, 4)),
                anchors)


class ExportedJudge(nn.Module):
    """What is exported of a judge: from boxes on an image to their scores.

    Input: float tensors ``(1, 3, h, w)``, 0–255, ``(n, 4)``, corner format,
    relative to the image, and ``(n, 19)``, what `hear_boxes` tells. Output:
    the score of each box ``(n,)``.

    Args:
        net: a `TinySSD` with a judge; the judge and the first block are
            copied.
    """

    name = 'judge of a TinySSD'

    def __init__(self, net):
        super().__init__()
        self.block = copy.deepcopy(net.blk_0).cpu()
        self.judge = copy.deepcopy(net.judge).cpu()
        self.eval()

    def forward(self, image, boxes, facts):
        seen = self.block(close_ups(image[0], boxes))
        return self.judge(facts, seen).sigmoid()


def export_onnx(net, path, half=True):
    """Write a network as an ONNX file, and check it against PyTorch.

    The file takes ``image``, float32 ``(B, 3, h, w)``, RGB, 0–255, h and w at
    least 128, and those at which the network learnt (the shipped ones: 256),
    or it finds nothing. It gives ``scores``, probabilities
    ``(B, A, num_classes+1)``, 0 is background; ``offsets`` ``(B, A, 4)``, for
    `offset_inverse`; and ``anchors`` ``(1, A, 4)``, corner format, relative to
    the image, scale by scale, row by row. Decoding and suppression are left to
    the caller, so that thresholds can change without another run. A judge, as
    the shipped 'wild' has one, goes into a file of its own: `export_judge`.

    Args:
        net: a `TinySSD`; the names of its classes go into the file.
        path: of the file; it appears whole or not at all.
        half: store the weights in half precision; the file computes in single
            precision all the same. Weights that `load_weights` reads were
            stored so, hence nothing is lost.

    Returns:
        dict: ``'bytes'``, the size of the file; ``'difference'``, the greatest
        between its outputs and PyTorch's, of every output and trial size.

    Raises:
        ModuleNotFoundError: onnx, onnxruntime or onnxscript is missing.
        ValueError: the file does not compute what the network computes; it is
            not kept.
        OSError: the file cannot be written.
    """
    _check_needed()
    images = [_picture(*shape) for shape in TRIALS]
    return _export(Exported(net), NETWORK, [{'image': X} for X in images],
                   {'classes': json.dumps(classes_of(net))}, path, half)


def export_judge(net, path, half=True):
    """Write the judge of a network as an ONNX file, and check it.

    The file takes ``image``, float32 ``(1, 3, h, w)``, RGB, 0–255, the one
    that the network has seen; and ``boxes``, float32 ``(n, 4)``, and
    ``facts``, float32 ``(n, 19)``, the places and the facts that `hear_boxes`
    gives for what the network has found there. It gives ``scores`` ``(n,)``.
    The close-ups are cut out inside. How boxes are heard is left to the
    caller: the page :ref:`chap-in-the-browser` does it in JavaScript. The
    arguments for `multibox_detection` before it are noted in the file.

    Args:
        net: a `TinySSD` with a judge.
        path, half: as for `export_onnx`.

    Returns:
        dict: as `export_onnx` gives it.

    Raises:
        ModuleNotFoundError, OSError: as for `export_onnx`.
        ValueError: the network has no judge, or the file does not compute what
            it computes; it is not kept.
    """
    _check_needed()
    if not judge_of(net):
        raise ValueError(f'{path}: not written, for the network has no judge '
                         "('wild', 'clear' and 'plain' have one)")
    random = torch.Generator().manual_seed(0)
    trials = []
    for (_, *size), count in itertools.product(TRIALS, BOXES):
        corner, side = 0.8 * torch.rand(2, count, 2, generator=random)
        facts = torch.randn(count, len(FACTS), generator=random)
        trials.append({'image': _picture(1, *size), 'facts': facts,
                       'boxes': torch.cat([corner, corner + side], 1)})
    return _export(ExportedJudge(net), JUDGE, trials,
                   {'facts': json.dumps(FACTS), 'suppression': json.dumps({
                       'nms_threshold': LENIENT, 'pos_threshold': DOUBTED,
                       'most': HEARD})}, path, half)


def _check_needed():
    missing = [name for name in NEEDED
               if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'to export, {" and ".join(missing)} must be installed: '
            f'pip install {" ".join(NEEDED)}', name=missing[0])


def _picture(batch, height, width):
    """Coarse noise: flat patches and edges, nearer to pictures than grain."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 9, 9, generator=random)
    return 255 * F.interpolate(coarse, (height, width))


def _export(module, axes, trials, about, path, half):
    """Write a module as a file, if it gives on all trials, dicts of inputs,
    what the module gives; return what `export_onnx` does."""
    data = _convert(module, axes, trials[-1], about, half)
    difference = _compare(data, module, trials)
    if not difference <= TOLERANCE:
        advice = ('; its weights need single precision: half=False'
                  if half else '')
        raise ValueError(f'{path}: not written, for it would differ from '
                         f'PyTorch by {difference:.1e}, more than '
                         f'{TOLERANCE:g}{advice}')
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data)
    return {'bytes': len(data), 'difference': difference}


def _convert(module, axes, inputs, about, half):
    """The bytes of an ONNX file, axes that have a name left open."""
    import onnx
    import onnxscript.optimizer
    size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module, (), kwargs=inputs, dynamo=True, optimize=False,
        input_names=list(inputs),
        output_names=[name for name in axes if name not in inputs],
        dynamic_shapes={name: {i: size for i, axis in enumerate(axes[name])
                               if axis} for name in inputs},
        external_data=False, verbose=False)
    model = program.model_proto
    if half:
        _halve(model.graph, module.state_dict())
    # After that, for it merges weights into others that half precision holds
    # no longer.
    model = onnxscript.optimizer.optimize(model)
    graph = model.graph
    # Each node remembers the line of Python it came from, with the path on
    # this machine: of no use to anyone else.
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input,
                 *graph.output):
        part.ClearField('doc_string')
        part.ClearField('metadata_props')
    graph.ClearField('value_info')
    graph.name = module.name
    for value in (*graph.input, *graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim,
                              axes[value.name]):
            if name:
                axis.dim_param = name
    onnx.helper.set_model_props(model, {**about, 'image': 'RGB, 0 to 255'})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _halve(graph, weights):
    """Store weights in half precision, and widen each before it is used.

    Other numbers, such as the sizes of the anchors, stay as they are.
    """
    import onnx
    for weight in graph.initializer:
        if (weight.name not in weights
                or weight.data_type != onnx.TensorProto.FLOAT):
            continue
        name = weight.name
        values = onnx.numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, f'{name}.half'))
        graph.node.insert(0, onnx.helper.make_node(
            'Cast', [f'{name}.half'], [name], to=onnx.TensorProto.FLOAT))


def _compare(data, module, trials):
    """The greatest difference from PyTorch over all outputs and trials."""
    import onnxruntime
    session = onnxruntime.InferenceSession(
        data, providers=['CPUExecutionProvider'])
    worst = 0.0
    for inputs in trials:
        with torch.no_grad():
            expected = module(**inputs)
        if isinstance(expected, torch.Tensor):
            expected = [expected]
        found = session.run(None, {name: value.numpy()
                                   for name, value in inputs.items()})
        for a, b in zip(expected, found):
            difference = (a - torch.from_numpy(b)).abs().max().item()
            # A NaN is more than any tolerance.
            worst = max(worst, difference if difference == difference
                        else float('inf'))
    return worst
