"""One training on several processes, on one machine or on many.

`torchrun --nproc-per-node=N -m d2lssd train` starts N processes, and each of
them runs the same loop. Four things make of them one:

- each reads its own `part` of every minibatch, and no other;
- `wrap` lets batch normalization average over all parts, and gradients be
  averaged over all processes (`DistributedDataParallel`);
- `gather` puts the predictions of all parts together, so that the loss is that
  of the whole minibatch, whatever it sorts, counts or divides by;
- `rand` draws for the whole minibatch, so that all generators stay alike.

The result is that of one process, up to rounding. Without torchrun nothing
here does anything.
"""
import atexit
import contextlib
import os
import re
import signal
import threading

import torch
import torch.distributed as dist
from torch import nn

LOST = re.compile('gloo|nccl|connection|peer|socket', re.IGNORECASE)


def launched():
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def join():
    """Join the other processes, if torchrun started this one."""
    if launched() and not dist.is_initialized():
        backend = 'gloo'
        if device().type == 'cuda':
            torch.cuda.set_device(device())
            backend = 'cpu:gloo,cuda:nccl'
        dist.init_process_group(backend)
        atexit.register(dist.destroy_process_group)


def world_size():
    """Number of processes that train together; 1 without torchrun."""
    joined = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if joined else 1


def rank():
    """Number of this process, from 0; the first one writes and reports."""
    return dist.get_rank() if world_size() > 1 else 0


def on_this_machine():
    """Number of processes on this machine, and of this one among them."""
    if not launched():
        return 1, 0
    return int(os.environ['LOCAL_WORLD_SIZE']), int(os.environ['LOCAL_RANK'])


def device():
    """A GPU for each process of a machine, or the CPU for all of them."""
    number, own = on_this_machine()
    if torch.cuda.device_count() >= number:
        return torch.device('cuda', own)
    return torch.device('cpu')


def part(batch):
    """The part of a minibatch that this process reads.

    Args:
        batch: what can be sliced, such as a range or a tensor of indices.

    Returns:
        A slice of it; the slices of all processes are disjoint, follow each
        other and differ in length by one at most.
    """
    n, k, i = len(batch), world_size(), rank()
    return batch[n * i // k:n * (i + 1) // k]


def check_share(batch_size, num_pictures):
    """Make sure that no minibatch leaves a process without a picture.

    Args:
        batch_size: pictures in a minibatch of all processes.
        num_pictures: in an epoch, whose last minibatch may be small.

    Raises:
        ValueError: one would.
    """
    size = num_pictures % batch_size or batch_size
    if size < world_size():
        raise ValueError(
            f'batch_size = {batch_size} makes a minibatch of {size}, too few '
            f'for {world_size()} processes; choose another')


def wrap(net):
    """What to run in place of a network, so that all processes learn alike.

    Args:
        net: a module, on the device where it will learn. Its batch
            normalization is changed in place.

    Returns:
        A module of the same parameters; without torchrun, `net` itself.
    """
    if world_size() == 1:
        return net
    if next(net.parameters()).is_cuda:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    else:
        for layer in net.modules():
            if type(layer) is nn.BatchNorm2d:
                layer.__class__ = SharedBatchNorm  # which adds no attribute
    return nn.parallel.DistributedDataParallel(net)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is one too."""

    @staticmethod
    def forward(ctx, value):
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.forward(ctx, gradient)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the pictures of all processes, on the CPU.

    PyTorch's own `SyncBatchNorm` runs on GPUs alone.
    """

    def forward(self, X):
        if not self.training or world_size() == 1:
            return super().forward(X)
        Y = X.to(self.weight.dtype)
        own = torch.cat([Y.sum((0, 2, 3)), Y.new_tensor([X[:, 0].numel()])])
        total = _Sum.apply(own)
        mean, n = total[:-1] / total[-1], total[-1].detach()
        Y = Y - mean[:, None, None]
        # The squares of what is left, and not of Y: for the sake of rounding.
        var = _Sum.apply((Y * Y).sum((0, 2, 3))) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        Y = Y * scale[:, None, None] + self.bias[:, None, None]
        return Y.to(X.dtype)


def gather(*tensors):
    """Put the parts of a minibatch together.

    Args:
        tensors: of this process, ``(b, m, …)``.

    Returns:
        List of tensors ``(B, M, …)``: B pictures of all processes, in order,
        and rows of -1 where one has fewer than M. Gradients flow to the own
        rows only, so that each process has its part of the gradient of a loss
        that all of them compute.
    """
    return [_gather(tensor) if world_size() > 1 else tensor
            for tensor in tensors]


def _gather(tensor):
    shapes = _from_all(*tensor.shape[:2])
    own = tensor.new_full((*map(max, zip(*shapes)), *tensor.shape[2:]), -1)
    own[:tensor.shape[0], :tensor.shape[1]] = tensor
    parts = [torch.empty_like(own) for _ in shapes]
    dist.all_gather(parts, own.detach())
    parts[rank()] = own
    return torch.cat([part[:b] for part, (b, _) in zip(parts, shapes)])


def backward(loss):
    """Add the gradient of a loss that all processes have computed.

    `DistributedDataParallel` averages over the processes what is to be summed.
    """
    (loss * world_size()).backward()


def rand(rows, n):
    """Random numbers for own pictures, as one process would draw them.

    Args:
        rows: how many for a picture.
        n: pictures in the own part.

    Returns:
        Float tensor ``(rows, n)`` on the CPU, uniform in [0, 1).
    """
    if world_size() == 1:
        return torch.rand(rows, n)
    sizes = [size for size, in _from_all(n)]
    start = sum(sizes[:rank()])
    return torch.rand(rows, sum(sizes))[:, start:start + n]


def _from_all(*numbers):
    """Whole numbers from each process, as a list of lists."""
    own = torch.tensor(numbers)
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    return [each.tolist() for each in found]


def check_same(number, what):
    """Make sure that all processes start from the same place.

    Raises:
        ValueError: they do not; `what` says what differs.
    """
    if world_size() > 1 and _from_all(number) != [[number]] * world_size():
        raise ValueError(f'{what} is not the same on all machines: each must '
                         'see the same files')


@contextlib.contextmanager
def one_goes_first():
    """Let one process of each machine through before the others.

    What it draws or fetches, the others find.
    """
    waits = on_this_machine()[1] > 0
    if waits:
        _from_all(0)
    yield
    if world_size() > 1 and not waits:
        _from_all(0)


@contextlib.contextmanager
def naming_the_lost(checkpoint=None):
    """Say in plain words that another process ended too early.

    Args:
        checkpoint: file to go on from, if there is one.

    Raises:
        ConnectionError: one was killed, or its machine cannot be reached.
    """
    if world_size() == 1:
        yield
        return
    advice = (f'The same command goes on from {checkpoint}, with any number '
              'of processes.' if checkpoint else
              'With a checkpoint, it could go on from the last epoch.')
    text = (f'process {rank()} of {world_size()} stops, since another one '
            f'has ended or all are told to. {advice}')

    def told_to_stop(*args):  # by torchrun, which has noticed one missing
        raise ConnectionError(text)

    in_main = threading.current_thread() is threading.main_thread()
    after = in_main and signal.signal(signal.SIGTERM, told_to_stop)
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        # The process ends by itself: no signal may cut its last words off.
        after = signal.SIG_IGN
        raise ConnectionError(text) from error
    except ConnectionError:
        after = signal.SIG_IGN
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, after)
