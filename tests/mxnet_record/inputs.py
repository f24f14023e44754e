"""What both frameworks are given: drawn by rule, the same on either side.

NumPy alone, Python 3.8 or later. `RandomState` is used on purpose: its
streams are frozen, where those of newer generators may change.
"""
import hashlib
import struct
import zlib

import numpy as np

LEARNING_RATE, WEIGHT_DECAY, STEPS = 0.2, 5e-4, 2

# Decisions (which box is matched, which is suppressed) have to hang on more
# than the last bits of a float32, or two correct programs could disagree.
MARGIN = 1e-4


def rng(name):
    """A generator of its own for every name, so that order does not matter."""
    return np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002


def weights(shapes):
    """Draw a network's weights, each from a seed that is its name.

    Args:
        shapes: dict of PyTorch state names to shapes.

    Returns:
        Dict of the same names to float32 arrays: convolutions keep the size
        of what flows through them, and no batch norm is near its start.
    """
    drawn = {}
    for name, shape in shapes.items():
        u = rng(name).random_sample(shape)
        if len(shape) == 4:
            values = (2 * u - 1) * np.sqrt(6 / np.prod(shape[1:]))
            if shape[1] == 3:
                values /= 128  # it sees pixels, up to 255
            if not name.startswith('blk'):
                values /= 4  # so that no score comes near 1
        elif name.endswith('running_var'):
            values = 0.5 + u
        elif name.endswith('weight'):
            values = 0.8 + 0.4 * u
        else:
            values = 0.4 * u - 0.2
        drawn[name] = values.astype(np.float32)
    return drawn


def images(name, batch, height, width):
    """Draw pictures ``(batch, 3, height, width)``, float32, whole, 0–255.

    Coarse squares under fine noise, so that every scale has something to see.
    """
    draw = rng(name)
    coarse = draw.randint(0, 224, (batch, 3, height // 16, width // 16))
    fine = draw.randint(0, 32, (batch, 3, height, width))
    return (np.kron(coarse, np.ones((16, 16))) + fine).astype(np.float32)


def sample(name, array, most=64):
    """At most so many numbers of an array, the same places every time."""
    index = rng(f'places in {name}').permutation(array.size)[:most]
    return array.ravel()[index]


def png(pixels):
    """Encode ``(h, w, 3)`` uint8 pixels as a PNG file, without loss."""
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data
                + struct.pack('>I', zlib.crc32(kind + data)))

    h, w, _ = pixels.shape
    rows = b''.join(b'\0' + row.tobytes() for row in pixels)
    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>2I5B', w, h, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def digest(arrays):
    """SHA-256 over names, shapes and bytes of a dict of arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f'{name}{array.shape}{array.dtype}'.encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def iou(a, b):
    """Pairwise IoU ``(n, m)`` of corner boxes ``(n, 4)`` and ``(m, 4)``."""
    a, b = np.float64(a)[:, None], np.float64(b)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(
        a[..., :2], b[..., :2])
    inter = np.clip(sides, 0, None).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return inter / (areas[0] + areas[1] - inter)


def matching_margin(anchors, boxes):
    """By how much IoU would have to change to change the matching.

    Plays the matching through on ``(A, 4)`` anchors and ``(n, 4)`` boxes and
    returns the closest call.
    """
    overlap = iou(anchors, boxes)
    two = np.sort(overlap, 1)[:, ::-1]
    margin = np.abs(two[:, 0] - 0.5).min()
    if len(boxes) > 1:
        near = two[:, 0] > 0.5 - MARGIN
        margin = min([margin, *(two[near, 0] - two[near, 1])])
    for _ in boxes:
        first, second = np.sort(overlap, None)[:-3:-1]
        if first < MARGIN:  # a box that no free anchor overlaps
            return 0
        margin = min(margin, first - second)
        anchor, box = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[anchor], overlap[:, box] = -1, -1
    return margin


def labels(name, anchors, batch, rows, classes, crowd=False):
    """Draw padded labels ``(batch, rows, 5)`` with a clear matching.

    Args:
        name: names the random stream.
        anchors: ``(A, 4)``, to tell whether the matching is clear.
        batch, rows, classes: how many; image i has ``1 + i % rows`` boxes.
        crowd: the boxes of an image are near copies of one another, so that
            they compete for the same anchors.
    """
    draw = rng(name)
    out = np.full((batch, rows, 5), -1, np.float32)
    for i in range(batch):
        n = 1 + i % rows
        margin = 0
        while margin < MARGIN:
            side = draw.uniform(0.15, 0.6, (1 if crowd else n, 2))
            low = draw.random_sample(side.shape) * (1 - side)
            boxes = np.concatenate([low, low + side], 1)
            if crowd:
                boxes = boxes + draw.uniform(-0.02, 0.02, (n, 4))
            boxes = boxes.clip(0, 1).astype(np.float32)
            margin = matching_margin(anchors, boxes)
        out[i, :n, 0] = draw.randint(0, classes, n)
        out[i, :n, 1:] = boxes
    return out


def decode(anchors, offsets):
    """Boxes ``(A, 4)`` that offsets ``(A, 4)`` make of anchors ``(A, 4)``."""
    size = anchors[:, 2:] - anchors[:, :2]
    center = (anchors[:, 2:] + anchors[:, :2]) / 2 + offsets[:, :2] / 10 * size
    half = np.exp(offsets[:, 2:] / 5) * size / 2
    return np.concatenate([center - half, center + half], 1)


def detection_margin(scores, boxes, nms_thresholds, pos_thresholds):
    """By how much a score or an IoU would have to change to change the rows.

    Args:
        scores: ``(C, A)``, without background.
        boxes: ``(A, 4)``.
        nms_thresholds, pos_thresholds: that will be used.
    """
    top = np.sort(scores, 0)[::-1]
    gaps = [np.diff(np.sort(top[0]))]
    if len(top) > 1:
        gaps.append(top[0] - top[1])
    gaps += [np.abs(top[0] - t) for t in pos_thresholds]
    pairs = iou(boxes, boxes)[np.triu_indices(len(boxes), 1)]
    gaps += [np.abs(pairs - t) for t in nms_thresholds]
    return min(gap.min() for gap in gaps)


def detections(name, batch, classes, anchors, nms_thresholds, pos_thresholds):
    """Draw what `multibox_detection` takes, with clear decisions.

    Returns:
        Tuple of probabilities ``(batch, classes+1, A)``, summing to 1, and
        offsets ``(batch, 4A)``, float32.
    """
    draw, A = rng(name), len(anchors)
    all_probs, all_offsets = [], []
    while len(all_probs) < batch:
        best = (draw.permutation(A) + 0.3) / A
        probs = np.zeros((classes + 1, A))
        probs[1:] = (0.9 * draw.random_sample((classes, A))
                     * np.minimum(best, (1 - best) / classes))
        probs[draw.randint(1, classes + 1, A), np.arange(A)] = best
        probs[0] = 1 - probs.sum(0)
        offsets = draw.uniform(-1.5, 1.5, (A, 4))
        if detection_margin(probs[1:], decode(anchors, offsets),
                            nms_thresholds, pos_thresholds) > MARGIN:
            all_probs.append(probs)
            all_offsets.append(offsets.ravel())
    return np.float32(all_probs), np.float32(all_offsets)
