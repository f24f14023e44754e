"""Export: the network as one file that runs where there is no PyTorch."""
import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from d2lssd.classes import classes_of
from d2lssd.data.files import replacing

NEEDED = ['onnx', 'onnxruntime', 'onnxscript']
INPUT = 'image'
OUTPUTS = ['scores', 'offsets', 'anchors']
TOLERANCE = 1e-4
# Batch, height and width on which an exported file is compared: the size of
# the training pictures, then others, some that do not divide evenly.
TRIALS = [(1, 256, 256), (2, 256, 256), (1, 288, 352), (3, 130, 201)]


class Exported(nn.Module):
    """What is exported: from images to scores, offsets and anchors.

    Input: float tensor ``(B, 3, h, w)``, 0–255. Output: class probabilities
    ``(B, A, num_classes+1)``, 0 is background; offsets ``(B, A, 4)``; anchors
    ``(1, A, 4)``.

    Args:
        net: a `TinySSD`; it is copied.
    """

    def __init__(self, net):
        super().__init__()
        self.net = copy.deepcopy(net).cpu()
        self.net.judge = None
        self.eval()

    def forward(self, image):
        anchors, cls_preds, bbox_preds = self.net(image)
        return (F.softmax(cls_preds, dim=2), bbox_preds.unflatten(1, (-1, 4)),
                anchors)


def export_onnx(net, path, half=True):
    """Write a network as an ONNX file, and check it against PyTorch.

    The file takes ``image``, float32 ``(B, 3, h, w)``, RGB, 0–255, h and w at
    least 128, and those at which the network learnt (the shipped ones: 256),
    or it finds nothing. It gives ``scores``, probabilities
    ``(B, A, num_classes+1)``, 0 is background; ``offsets`` ``(B, A, 4)``, for
    `offset_inverse`; and ``anchors`` ``(1, A, 4)``, corner format, relative to
    the image, scale by scale, row by row. Decoding and suppression are left to
    the caller, so that thresholds can change without another run; a judge, as
    'plain' has one, stays behind.

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
    missing = [name for name in NEEDED
               if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'to export, {" and ".join(missing)} must be installed: '
            f'pip install {" ".join(NEEDED)}', name=missing[0])
    data = _convert(Exported(net), classes_of(net), half)
    difference = _compare(data, net)
    if not difference <= TOLERANCE:
        advice = ('; its weights need single precision: half=False'
                  if half else '')
        raise ValueError(f'{path}: not written, for it would differ from '
                         f'PyTorch by {difference:.1e}, more than '
                         f'{TOLERANCE:g}{advice}')
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data)
    return {'bytes': len(data), 'difference': difference}


def _convert(module, classes, half):
    """The bytes of an ONNX file, batch and image size left open."""
    import onnx
    import onnxscript.optimizer
    size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module, (torch.zeros(2, 3, 288, 352),), dynamo=True, optimize=False,
        input_names=[INPUT], output_names=OUTPUTS,
        dynamic_shapes={'image': {0: size, 2: size, 3: size}},
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
    graph.name = 'TinySSD'
    names = {'image': ['batch', '', 'height', 'width'],
             'scores': ['batch', 'anchors', ''],
             'offsets': ['batch', 'anchors', ''],
             'anchors': ['', 'anchors', '']}
    for value in (*graph.input, *graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim,
                              names[value.name]):
            if name:
                axis.dim_param = name
    onnx.helper.set_model_props(model, {
        'classes': json.dumps(classes), 'image': 'RGB, 0 to 255'})
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


def _compare(data, net):
    """The greatest difference from PyTorch over all outputs and trials."""
    import onnxruntime
    session = onnxruntime.InferenceSession(
        data, providers=['CPUExecutionProvider'])
    reference = Exported(net)
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for shape in TRIALS:
        # Coarse noise: flat patches and edges, nearer to pictures than grain.
        coarse = torch.rand(shape[0], 3, 9, 9, generator=random)
        image = 255 * F.interpolate(coarse, shape[1:])
        with torch.no_grad():
            expected = reference(image)
        found = session.run(OUTPUTS, {INPUT: image.numpy()})
        for a, b in zip(expected, found):
            difference = (a - torch.from_numpy(b)).abs().max().item()
            # A NaN is more than any tolerance.
            worst = max(worst, difference if difference == difference
                        else float('inf'))
    return worst
