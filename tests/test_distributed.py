"""Two processes that train together do what one does alone."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import distributed_worker as worker  # noqa: E402

from d2lssd import distributed, training  # noqa: E402
from d2lssd.data.files import load_state  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason='no torch.distributed here')


def torchrun(*arguments):
    """Run a script in two processes; return how it ended."""
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         '--nproc-per-node=2', *map(str, arguments)],
        cwd=HERE.parent, capture_output=True, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    done = torchrun(HERE / 'distributed_worker.py', folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def both(folder):
    """What the two processes found out."""
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]


@pytest.fixture
def alone(monkeypatch):
    """This process does as the two do, but alone."""
    threads = torch.get_num_threads()
    for name in 'read_pictures', 'autocast':
        monkeypatch.setattr(training, name, getattr(training, name))
    worker.prepare()
    yield
    torch.set_num_threads(threads)


def test_both_processes_took_part(both):
    assert [each['world_size'] for each in both] == [2, 2]


def test_each_reads_its_own_part_and_together_they_read_all(both):
    joined = [[a + b for a, b in zip(*epochs)]
              for epochs in zip(*(each['stored'] for each in both))]
    assert [[len(batch) for batch in epoch] for epoch in joined] == [
        [4, 4, 2]] * 2
    for epoch in joined:
        assert sorted(sum(epoch, [])) == list(range(worker.PICTURES))


def test_the_joined_minibatches_are_those_of_one_process(both):
    joined = [[a + b for a, b in zip(*epochs)]
              for epochs in zip(*(each['stored'] for each in both))]
    assert joined == worker.stored_numbers()


def test_each_draws_its_own_pictures(both):
    first, second = (each['fresh'] for each in both)
    assert sorted(first + second) == list(range(24))
    assert first[:4] == [0, 1, 4, 5]


@pytest.mark.parametrize('loss', ['mean', 'balanced'])
def test_gradients_are_those_of_one_process(both, alone, loss):
    """Batch normalization, normalizers and hard negatives included."""
    expected = worker.first_gradient(loss=loss)
    for each in both:
        assert each[loss]['loss'] == pytest.approx(expected['loss'], rel=1e-5)
        for name, gradient in expected['gradient'].items():
            # A bias before batch normalization has no gradient but rounding.
            difference = each[loss]['gradient'][name] - gradient
            assert difference.norm() <= 1e-5 * gradient.norm() + 1e-7, name
        for name, value in expected['state'].items():
            torch.testing.assert_close(each[loss]['state'][name], value,
                                       rtol=1e-5, atol=1e-6, msg=name)


def test_both_end_with_the_same_weights_bit_for_bit(both):
    first, second = (each['whole']['state'] for each in both)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_whole_run_gives_the_curve_of_one_process(both, alone):
    """Random flips included; and minibatches that do not divide by two."""
    expected = worker.whole_run()['history']
    for each in both:
        history = each['whole']['history']
        assert len(history) == len(expected) > 0
        for mine, theirs in zip(history, expected):
            for key in 'loss', 'bbox mae':
                assert mine[key] == pytest.approx(theirs[key], rel=0.02)


def test_what_two_have_begun_one_ends(folder, both, alone):
    """The checkpoint says nothing of how many there were."""
    path = folder / 'run.checkpoint'
    state = load_state(path, training.CHECKPOINT)
    assert len(state['history']) == 2
    again = worker.whole_run(checkpoint=path)
    assert again['history'] == both[0]['whole']['history']
    for name, value in again['state'].items():
        assert torch.equal(value, both[0]['whole']['state'][name])


def test_checkpoints_of_equal_length_that_differ_are_refused(both, folder):
    for rank, each in enumerate(both):
        assert each['strangers'] == (
            f'what lies in {folder}/{rank}.checkpoint is not the same on all '
            'machines: each must see the same files')


def test_one_process_measures_without_the_other(both):
    """To wait for the answers of all would be to wait for ever."""
    assert both[0]['measured'] == pytest.approx(1)
    assert both[1]['measured'] is None


def test_a_minibatch_too_small_to_share_is_refused(both):
    for each in both:
        assert each['refusal'] == (
            'batch_size = 3 makes a minibatch of 1, too few for 2 processes; '
            'choose another')


def test_alone_nothing_is_changed():
    net = torch.nn.Linear(2, 2)
    assert distributed.wrap(net) is net
    assert distributed.part(range(7)) == range(7)
    batch = torch.rand(2, 3)
    assert distributed.gather(batch)[0] is batch
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


START = """
import os, signal, sys, time
from d2lssd import distributed, training
from d2lssd.__main__ import main

"""
KILLED = START + """
one_epoch = training._Run.one_epoch
checkpoint = sys.argv[sys.argv.index('--checkpoint') + 1]


def killed(self, *args):
    if len(self.history) == 1 and distributed.rank() == 1:
        while not training.load_state(
                checkpoint, training.CHECKPOINT)['history']:
            time.sleep(0.02)  # the other process has yet to write it
        os.kill(os.getpid(), signal.SIGKILL)
    one_epoch(self, *args)


training._Run.one_epoch = killed
sys.exit(main(sys.argv[1:]))
"""


KILLED_EARLY = START + """
read_pictures = training.read_pictures


def killed(*args):
    if distributed.rank() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_pictures(*args)


training.read_pictures = killed
sys.exit(main(sys.argv[1:]))
"""
STOPPED = START + """
save = training._Run.save


def stop(self, path):
    save(self, path)
    if len(self.history) == 1:
        raise KeyboardInterrupt


training._Run.save = stop
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path):
    """Three epochs with eight pictures of one's own."""
    from PIL import Image
    pictures = tmp_path / 'fruit'
    (pictures / 'images').mkdir(parents=True)
    rows = ['img_name,label,xmin,ymin,xmax,ymax']
    checkpoint = tmp_path / 'run.checkpoint'
    for i in range(8):
        image = Image.new('RGB', (256, 256), (20 * i, 90, 40))
        image.paste('gold', (20 + 9 * i, 60, 90 + 9 * i, 130))
        image.save(pictures / 'images' / f'{i}.png')
        rows.append(f'{i}.png,square,{20 + 9 * i},60,{90 + 9 * i},130')
    (pictures / 'label.csv').write_text('\n'.join(rows))
    command = ['train', '--source', pictures, '--weights', 'none', '--epochs',
               3, '--batch-size', 4, '--save', tmp_path / 'out.safetensors',
               '--checkpoint', checkpoint]
    return list(map(str, command))


@pytest.mark.fault('one of several processes is killed')
@pytest.mark.skipif(os.name != 'posix', reason='Windows has no SIGKILL')
def test_a_killed_process_ends_the_run_and_one_process_goes_on(
        tmp_path, command):
    from d2lssd.__main__ import main
    checkpoint = tmp_path / 'run.checkpoint'
    (tmp_path / 'killed.py').write_text(KILLED)

    done = torchrun(tmp_path / 'killed.py', *command)
    assert done.returncode != 0
    assert ('d2lssd: process 0 of 2 stops, since another one has ended or all '
            f'are told to. The same command goes on from {checkpoint}, with '
            'any number of processes.') in done.stderr
    assert 'Traceback' not in done.stderr.partition('stops, since')[0]
    assert len(load_state(checkpoint, training.CHECKPOINT)['history']) == 1
    assert not (tmp_path / 'out.safetensors').exists()

    assert main([*command, '--json']) == 0
    assert len(load_state(checkpoint, training.CHECKPOINT)['history']) == 3
    assert (tmp_path / 'out.safetensors').exists()


@pytest.mark.fault('one of several processes is killed')
@pytest.mark.skipif(os.name != 'posix', reason='Windows has no SIGKILL')
def test_the_first_process_may_be_killed_before_it_has_read_a_picture(
        tmp_path, command):
    (tmp_path / 'killed.py').write_text(KILLED_EARLY)
    done = torchrun(tmp_path / 'killed.py', *command)
    assert done.returncode != 0
    assert 'd2lssd: process 1 of 2 stops, since another one' in done.stderr
    assert 'Traceback' not in done.stderr.partition('stops, since')[0]


def test_what_one_has_begun_two_end(tmp_path, command):
    (tmp_path / 'stopped.py').write_text(STOPPED)
    subprocess.run([sys.executable, tmp_path / 'stopped.py', *command],
                   cwd=HERE.parent, check=False)
    checkpoint = tmp_path / 'run.checkpoint'
    begun = load_state(checkpoint, training.CHECKPOINT)['history']
    assert len(begun) == 1
    done = torchrun('-m', 'd2lssd', *command)
    assert done.returncode == 0, done.stderr
    assert 'goes on after epoch 1 of 3' in done.stderr
    whole = load_state(checkpoint, training.CHECKPOINT)['history']
    assert whole[:1] == begun
    assert len(whole) == 3
