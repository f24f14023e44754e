"""Memory: kept where there is plenty, spared where there is little."""
import contextlib
import ctypes
import math
import os
import sys
from pathlib import Path

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from d2lssd.model import down_sample_blk

aten = torch.ops.aten
FEW = 8  # pictures that are pooled at a time
WINDOW = [2, 2], [2, 2], [0, 0], [1, 1], False  # of nn.MaxPool2d(2)


def keep_memory(room=4e9):
    """Keep freed memory for the next training step (Linux with glibc).

    A step frees some hundred large tensors, and the C library would hand each
    back to the system only to ask for it again, zeroed page by page, in the
    next step. Keeping it makes training on a processor about half as fast
    again, and the process half a gigabyte to a gigabyte larger. Where memory
    is short, it is spared instead: see ``d2lssd.memory.spare_memory``.
    Elsewhere this changes nothing.

    Args:
        room: bytes that must be free to keep any.

    Returns:
        Whether they are.
    """
    enough = _free_memory() >= room
    if enough:
        _tell_allocator((TRIM, 2**31 - 1), (MOST_MAPPED, 0))
    else:
        spare_memory()
    return enough


def spare_memory():
    """Hand back what is freed, all but small pieces (Linux with glibc).

    What was kept until now goes back, too. Between large tensors that are kept
    the C library leaves gaps, in which the next ones do not fit; hence a
    process that keeps them is up to twice as large as what it needs.

    New memory then comes in pages of two megabytes, which takes half the time,
    if PyTorch had no large tensor before: at the first it looks whether to ask
    for them.
    """
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
    libc = _tell_allocator(
        (MOST_MAPPED, 2**16), (LEAST_MAPPED, 2**22), (TRIM, 2**25))
    if libc:
        libc.malloc_trim(0)


# What mallopt calls its parameters: M_TRIM_THRESHOLD, bytes at the end of the
# heap from which they are handed back; M_MMAP_THRESHOLD, those from which a
# piece is a mapping of its own, handed back by itself; M_MMAP_MAX, how many.
TRIM, LEAST_MAPPED, MOST_MAPPED = -1, -3, -4


def _tell_allocator(*settings):
    """The C library, if it is one that listens."""
    if sys.platform != 'linux':
        return None
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL('libc.so.6')
        for setting in settings:
            libc.mallopt(*setting)
        return libc


def _free_memory(root='/'):
    """Bytes that this machine, or the container that it is, has left."""
    free = [math.inf]
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(root, 'proc/meminfo').read_text(encoding='ascii')
        free.append(1024 * int(text.partition('MemAvailable:')[2].split()[0]))
    for folder, most, used, cached in (
            ('', 'memory.max', 'memory.current', 'inactive_file'),
            ('memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes',
             'total_inactive_file')):
        folder = Path(root, 'sys/fs/cgroup', folder)
        with contextlib.suppress(OSError, ValueError):  # 'max' is no number
            most, used = (int((folder / name).read_text())
                          for name in (most, used))
            free.append(most - used)
            # Files that were read are kept as long as nobody wants the room.
            stat = dict(line.split() for line in (
                folder / 'memory.stat').read_text().splitlines())
            free[-1] += int(stat.get(cached, 0))
    return min(free)


@contextlib.contextmanager
def sparing(*blocks, twice=False):
    """Let downsampling blocks keep little of what they compute.

    To learn, a block needs most of what it computed on the way, and that of
    the first blocks, in full resolution, is most of the memory of training.
    Inside this context they keep what their convolutions gave and, of each
    pooling window, where its greatest number stood. The rest is computed into
    memory that all blocks share, and partly once more when the gradient
    arrives. Results are the same, bit for bit.

    Args:
        *blocks: of `down_sample_blk`, on a processor, with weights of 32 bits
            or more; any other module is left as it is.
        twice: compute the first convolution once more as well, and keep only
            what the second one gave.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost"
    (2016).
    """
    room = _Room()
    blocks = [block for block in blocks if _is_known(block)]
    for block in blocks:
        block.forward = _sparing(block, room, twice)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _is_known(block):
    """Whether a module computes what `_Sparing` does."""
    first = next(block.children(), None)
    if not (isinstance(first, torch.nn.Conv2d) and first.weight.dtype in (
            torch.float32, torch.float64)):
        return False  # a mean that is kept in half precision is rounded
    with torch.device('meta'):  # where nothing is drawn at random
        known = down_sample_blk(first.in_channels, first.out_channels)
    # It names the layers, with all that was chosen for them.
    return (repr(block) == repr(known)
            and not any(part._forward_hooks or part._forward_pre_hooks
                        or part._backward_hooks or part._backward_pre_hooks
                        for part in block.modules()))


def _sparing(block, room, twice):
    whole = block.forward

    def forward(X):
        if not (torch.is_grad_enabled()
                and all(part.training for part in block.modules())):
            return whole(X)
        return _Sparing.apply(X, block, room, twice, *block.parameters())
    return forward


class _Room:
    """Memory that is used again, by name."""

    def __init__(self):
        self.rooms = {}

    def like(self, tensor, dtype, name):
        """A tensor of the shape and layout of another one, not filled."""
        size = tensor.numel() * dtype.itemsize
        if name not in self.rooms or len(self.rooms[name]) < size:
            self.rooms[name] = torch.empty(size, dtype=torch.uint8)
        flat = self.rooms[name][:size].view(dtype)
        return flat.as_strided(tensor.shape, tensor.stride())


class _Sparing(torch.autograd.Function):
    """A downsampling block, and its gradient by hand."""

    @staticmethod
    def forward(ctx, X, block, room, twice, *weights):
        conv1, norm1, _, conv2, norm2, _, _ = block
        dtype = (torch.get_autocast_dtype('cpu')
                 if torch.is_autocast_enabled('cpu') else X.dtype)
        x = X.to(dtype)
        with torch.autocast('cpu', enabled=False):
            y1 = _conv(x, conv1)
            a, *stats1 = _norm(y1, norm1, room)
            if twice:
                y1 = None
            y2 = _conv(a.relu_(), conv2)
            a, *stats2 = _norm(y2, norm2, room)
        # The greatest of a window is the same before ReLU, on a map four times
        # as large, and after.
        Y, places = _pool(a, room)
        Y.relu_()
        ctx.save_for_backward(Y)
        # Not by the same: it would hold them until all is done.
        ctx.kept = (block, room, X.dtype, x, y1, stats1, y2, stats2, places)
        return Y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        block, room, dtype, x, y1, stats1, y2, stats2, places = ctx.kept
        del ctx.kept
        conv1, norm1, _, conv2, norm2, _, _ = block
        Y, = ctx.saved_tensors  # above 0 where the greatest of a window was
        grad = aten.threshold_backward(grad.to(Y.dtype), Y, 0)
        grad, *norm2_grads = _norm_backward(
            _pool_backward(grad, y2, places, room), y2, norm2, stats2)
        del y2
        if y1 is None:
            y1 = _conv(x, conv1)
        a = _norm_again(y1, norm1, stats1, room).relu_()
        grad, *conv2_grads = _conv_backward(grad, a, conv2, True)
        aten.threshold_backward.grad_input(grad, a, 0, grad_input=grad)
        grad, *norm1_grads = _norm_backward(grad, y1, norm1, stats1)
        del y1
        grad, *conv1_grads = _conv_backward(
            grad, x, conv1, ctx.needs_input_grad[0])
        return (grad if grad is None else grad.to(dtype), None, None, None,
                *conv1_grads, *norm1_grads, *conv2_grads, *norm2_grads)


def _conv(x, conv):
    return F.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype),
                    padding=conv.padding)


def _conv_backward(grad, x, conv, wanted):
    grad, weight, bias = aten.convolution_backward(
        grad, x, conv.weight.to(x.dtype), conv.bias.shape, conv.stride,
        conv.padding, conv.dilation, False, [0, 0], 1, [wanted, True, True])
    return grad, weight.to(conv.weight.dtype), bias.to(conv.bias.dtype)


def _norm(y, norm, room):
    """Batch norm, in shared memory; mean and scale of each channel."""
    a = room.like(y, y.dtype, 'a')
    mean, scale = torch.empty_like(norm.weight), torch.empty_like(norm.weight)
    norm.num_batches_tracked += 1
    aten.native_batch_norm.out(
        y, norm.weight, norm.bias, norm.running_mean, norm.running_var, True,
        norm.momentum, norm.eps, out=a, save_mean=mean, save_invstd=scale)
    return a, mean, scale


def _norm_again(y, norm, stats, room):
    """The same once more: nothing is counted or averaged a second time."""
    a = room.like(y, y.dtype, 'a')
    mean, scale = stats
    aten.native_batch_norm.out(
        y, norm.weight * scale, norm.bias, mean, torch.ones_like(scale), False,
        0, 0, out=a, save_mean=scale.new_empty(0),
        save_invstd=scale.new_empty(0))
    return a


def _norm_backward(grad, y, norm, stats):
    return aten.native_batch_norm_backward(
        grad, y, norm.weight, None, None, *stats, True, norm.eps, [True] * 3)


def _pool(a, room):
    """The greatest of each 2×2 window, and where it stands, in 16 bits.

    PyTorch names places in 64 bits, hence a few pictures at a time."""
    h, w = a.shape[2:]
    Y = torch.empty_like(a[..., :h // 2, :w // 2])
    places = torch.empty_like(
        Y, dtype=torch.uint16 if h * w <= 2**16 else torch.int32)
    for some, out, place in zip(*(t.split(FEW) for t in (a, Y, places))):
        where = room.like(out, torch.int64, 'where')
        aten.max_pool2d_with_indices.out(some, *WINDOW, out=out, indices=where)
        place.copy_(where)
    return Y, places


def _pool_backward(grad, y, places, room):
    result = room.like(y, y.dtype, 'a')
    grad = grad.contiguous(memory_format=torch.channels_last)
    for g, some, out, place in zip(
            *(t.split(FEW) for t in (grad, y, result, places))):
        where = room.like(place, torch.int64, 'where')
        aten.max_pool2d_with_indices_backward.grad_input(
            g, some, *WINDOW, where.copy_(place), grad_input=out)
    return result
