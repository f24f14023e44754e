"""Training in little memory learns the same."""
import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch

import d2lssd
from d2lssd import memory, training
from d2lssd.memory import recomputing


@pytest.mark.parametrize(('platform', 'free', 'expected'), [
    ('linux', 5e9, [(-1, 2**31 - 1), (-4, 0)]),
    ('linux', 3e9, [(-3, 2**20), (-1, 2**20)]), ('darwin', 5e9, [])])
def test_memory_is_kept_where_there_is_room_and_handed_back_where_not(
        monkeypatch, platform, free, expected):
    calls = []

    class Library:
        def mallopt(self, *arguments):
            calls.append(arguments)

    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda name: Library())
    monkeypatch.setattr(memory.sys, 'platform', platform)
    monkeypatch.setattr(memory, '_free_memory', lambda: free)
    assert memory.keep_memory() == (free > 4e9)
    assert calls == expected


@pytest.mark.parametrize(('files', 'free'), [
    ({}, float('inf')),
    ({'proc/meminfo': 'MemTotal: 9 kB\nMemAvailable:   5000 kB\n'}, 5120000),
    ({'proc/meminfo': 'MemAvailable: 5000 kB\n',
      'sys/fs/cgroup/memory.max': 'max\n',
      'sys/fs/cgroup/memory.current': '7'}, 5120000),
    ({'proc/meminfo': 'MemAvailable: 5000 kB\n',
      'sys/fs/cgroup/memory.max': '2000\n',
      'sys/fs/cgroup/memory.current': '500\n'}, 1500),
    ({'sys/fs/cgroup/memory/memory.limit_in_bytes': '3000',
      'sys/fs/cgroup/memory/memory.usage_in_bytes': '1000'}, 2000),
    ({'proc/meminfo': 'nothing of the kind'}, float('inf'))])
def test_free_memory_is_that_of_the_machine_or_of_its_container(
        tmp_path, files, free):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory._free_memory(tmp_path) == free


@pytest.fixture
def learner():
    """A network, and a minibatch for it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1)
    X = 255 * torch.rand(2, 3, 128, 128, generator=generator)
    Y = torch.tensor([[[0, 0.1, 0.1, 0.5, 0.6]], [[0, 0.4, 0.3, 0.9, 0.8]]])
    return net, X, Y


def learn(net, X, Y, bfloat16=False, steps=2):
    """Some steps, as in training; bytes kept for the last backward pass."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    for _ in range(steps):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            with training.autocast(X.device, bfloat16):
                anchors, cls_preds, bbox_preds = net(X)
            offsets, mask, labels = d2lssd.multibox_target(anchors, Y)
            loss = d2lssd.balanced_loss(cls_preds.float(), labels,
                                        bbox_preds.float(), offsets, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sum(kept.values())


@pytest.mark.parametrize('bfloat16', [False, True])
def test_blocks_that_compute_twice_learn_the_same_bits(learner, bfloat16):
    net, X, Y = learner
    other = copy.deepcopy(net)
    whole = learn(net, X, Y, bfloat16)
    with recomputing(*other.blk_0[:2]):
        spared = learn(other, X, Y, bfloat16)
    assert spared < 0.5 * whole
    assert net.blk_0[0][1].num_batches_tracked == 2
    for name, value in net.state_dict().items():  # counts and means as well
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize('fault', [None, KeyboardInterrupt])
def test_afterwards_blocks_are_as_they_were(learner, fault):
    net, X, _ = learner
    with contextlib.suppress(KeyboardInterrupt), recomputing(net.blk_0):
        assert 'forward' in vars(net.blk_0)
        assert net.eval()(X)[1].shape == (2, 1364, 2)
        if fault:
            raise fault
    assert 'forward' not in vars(net.blk_0)
    copy.deepcopy(net)


@pytest.mark.parametrize('free', [0, float('inf')])
def test_training_computes_twice_where_memory_is_short(
        monkeypatch, tmp_path, free):
    blocks = []

    @contextlib.contextmanager
    def watch(*some):
        blocks.extend(some)
        with recomputing(*some):
            yield
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path))
    monkeypatch.setattr(memory, '_free_memory', lambda: free)
    monkeypatch.setattr(memory, 'sys', SimpleNamespace(platform='other'))
    monkeypatch.setattr(training, 'recomputing', watch)
    net, history = d2lssd.train('source', num_epochs=1, num_pictures=4,
                                batch_size=2, progress=False)
    assert len(blocks) == (0 if free else 2)
    assert len(history) == 1
    assert not any('forward' in vars(layer) for layer in net.modules())
