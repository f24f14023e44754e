"""Training under faults: killed, interrupted, out of room, out of range."""
import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import d2lssd
from d2lssd import training
from d2lssd.__main__ import main
from d2lssd.data import drawn
from d2lssd.data.files import load_state

ROOT = Path(__file__).parents[1]
POSIX = pytest.mark.skipif(os.name != 'posix', reason='POSIX only')

# Trains once undisturbed, then is killed twenty times: on whatever it does at
# that moment. Processes are copied and not started, which takes seconds.
KILLED = '''
import json, os, random, signal, sys, time
import torch
from d2lssd import training
from d2lssd.data.files import load_state, load_tensors

folder, EPOCHS = sys.argv[1], 6
torch.set_num_threads(1)
rng = torch.Generator().manual_seed(7)
images = torch.randint(256, (3, 3, 128, 128), generator=rng,
                       dtype=torch.uint8)
labels = torch.tensor([[0, 0.2, 0.3, 0.6, 0.7]]).expand(3, 1, 5)
training.read_pictures = lambda *args: (images, labels)
one_epoch = training._Run.one_epoch


def logged(self, *args):
    os.write(log, b'%d ' % len(self.history))  # epochs done when one starts
    one_epoch(self, *args)


def train(name):
    """The weights and the last rate, written when all is done."""
    net, _ = training.train(
        'balanced', pictures='plain', num_epochs=EPOCHS, batch_size=3,
        progress=False, checkpoint=f'{folder}/{name}')
    torch.save(net.state_dict(), f'{folder}/{name}.done')


def fork(name):
    child = os.fork()
    if not child:
        status = 1
        try:
            train(name)
            status = 0
        finally:
            os._exit(status)
    return child


training._Run.one_epoch = logged
# What an optimizer imports, two seconds' worth, is copied too.
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
os.fsync = lambda handle: None  # a killed process loses nothing of that
log = os.open(f'{folder}/log', os.O_CREAT | os.O_RDWR | os.O_APPEND)
start = time.monotonic()
assert os.waitpid(fork('whole'), 0)[1] == 0
length = time.monotonic() - start
whole = torch.load(f'{folder}/whole.done')
draw = random.Random(5)
runs = kills = 0
seen = []


def started_since(place):
    """The epochs that began, by number."""
    return [int(n) for n in os.pread(log, 10**6, place).split()]


def compare(name):
    again = torch.load(f'{folder}/{name}.done')
    assert again.keys() == whole.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


while kills < 20:
    name = f'killed-{runs}'
    before = os.lseek(log, 0, os.SEEK_END)
    child = fork(name)
    # A moment within some epoch, or before the first; on a machine that other
    # work slows down, a time since the start may be any of them.
    epochs, ended, status = draw.randrange(4), 0, 0
    while not ended and len(started_since(before)) < epochs:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    time.sleep(draw.uniform(0, length / EPOCHS))
    if not ended:
        os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
    started = started_since(before)
    if status == signal.SIGKILL:
        kills += 1
    else:
        assert status == 0, status
        compare(name)
        runs += 1
    try:
        state = load_state(f'{folder}/{name}', training.CHECKPOINT)
        done = len(state['history'])
    except FileNotFoundError:
        done = 0
    seen.append((name, started, done))
if not os.path.exists(f'{folder}/{name}.done'):
    assert os.waitpid(fork(name), 0)[1] == 0
    compare(name)
left = [name for name in os.listdir(folder) if name.endswith('.part')]
print(json.dumps({'length': length, 'seen': seen, 'left': left}))
'''


@pytest.mark.fault('training is killed at any moment')
@POSIX
def test_a_run_killed_at_twenty_moments_ends_with_the_same_weights(tmp_path):
    """Bit for bit, on one thread; at most one epoch is done again."""
    done = subprocess.run(
        [sys.executable, '-c', KILLED, tmp_path], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    kept = {}
    for name, started, after in result['seen']:
        before = kept.get(name, 0)
        # Every epoch that was started follows those that were kept, and at
        # most the last of them was lost.
        assert started == list(range(before, before + len(started)))
        assert before + len(started) - after in (0, 1)
        kept[name] = after
    assert [name for name, started, after in result['seen']
            if started and started[0] and after < 6], 'killed too early'


# In this process, on twelve small pictures. ------------------------------

SMALL = {'num_epochs': 3, 'batch_size': 4, 'progress': False}


@pytest.fixture
def small(monkeypatch):
    """Let an epoch be three minibatches of four small pictures."""
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(256, (12, 3, 128, 128), generator=rng,
                           dtype=torch.uint8)
    labels = torch.tensor([[0, 0.2, 0.3, 0.6, 0.7]]).expand(12, 1, 5)
    monkeypatch.setattr(training, 'read_pictures',
                        lambda *args: (images, labels))
    return monkeypatch


def at_step(monkeypatch, number, what):
    """Let something else happen in a step, counted from 1."""
    step, count = training._Run.step, iter(range(1, 1000))

    def changed(self, *args):
        return what() if next(count) == number else step(self, *args)

    monkeypatch.setattr(training._Run, 'step', changed)


def press_stop():
    raise KeyboardInterrupt


def epochs_in(checkpoint):
    return len(load_state(checkpoint, training.CHECKPOINT)['history'])


@pytest.mark.fault('a cell or a command is interrupted')
def test_who_presses_stop_gets_the_network_so_far(small):
    small.setattr(sys, 'ps1', 'In [1]: ', raising=False)  # as in a notebook
    at_step(small, 8, press_stop)
    with pytest.warns(UserWarning, match='stopped in epoch 3 of 3: the netw'):
        net, history = d2lssd.train('source', **SMALL)
    assert len(history) == 2
    with torch.no_grad():
        anchors, cls_preds, _ = net(torch.zeros(1, 3, 128, 128))
    assert torch.isfinite(cls_preds).all()


@pytest.mark.fault('a cell or a command is interrupted')
@pytest.mark.parametrize('average', [None, 0.9])
def test_who_presses_stop_gets_the_best_network_that_was_measured(
        small, average):
    seen = []

    def measure(net, pictures):
        seen.append({name: value.clone()
                     for name, value in net.state_dict().items()})
        return {'AP': [None, 0.2, 0.1][len(seen) - 1]}

    small.setattr(sys, 'ps1', 'In [1]: ', raising=False)
    small.setattr(training, 'BananasDataset', lambda *args, **options: [])
    small.setattr(training, 'evaluate', measure)
    at_step(small, 11, press_stop)
    with pytest.warns(UserWarning, match=r'4 of 4: .* was after epoch 2, the '
                      r'best so far \(AP 0.200\), and'):
        net, history = d2lssd.train('source', **SMALL | {
            'num_epochs': 4, 'validate': True, 'average': average})
    assert [facts['AP'] for facts in history] == [None, 0.2, 0.1]
    state = net.state_dict()
    assert all(torch.equal(state[name], value)
               for name, value in seen[1].items())
    assert not torch.equal(seen[1]['cls_0.bias'], seen[2]['cls_0.bias'])


@pytest.mark.fault('a cell or a command is interrupted')
def test_a_script_that_is_stopped_gets_no_half_trained_network(small):
    """It might write its measurements down as those of a whole run."""
    small.delattr(sys, 'ps1', raising=False)
    at_step(small, 8, press_stop)
    with pytest.raises(KeyboardInterrupt, match='stopped in epoch 3 of 3$'):
        d2lssd.train('source', **SMALL)


@pytest.mark.fault('a cell or a command is interrupted')
def test_who_stops_in_the_first_epoch_is_told_that_nothing_is_kept(small):
    at_step(small, 2, press_stop)
    with pytest.raises(KeyboardInterrupt, match='epoch 1 of 3, with nothing'):
        d2lssd.train('source', **SMALL)


@pytest.mark.fault('a cell or a command is interrupted')
def test_who_stops_a_run_with_a_checkpoint_can_go_on(small, tmp_path):
    """A loop over several runs must end, and none of them is lost."""
    file = tmp_path / 'run.checkpoint'
    at_step(small, 5, press_stop)
    with pytest.raises(KeyboardInterrupt, match='2 of 3; the same call goes'
                       ' on from .*run.checkpoint'):
        d2lssd.train('source', **SMALL, checkpoint=file)
    assert epochs_in(file) == 1
    assert len(d2lssd.train('source', **SMALL, checkpoint=file)[1]) == 3


CELL = """
import torch, d2lssd
from d2lssd import training
torch.set_num_threads(1)
training.read_pictures = lambda *args: (
    torch.zeros(2, 3, 128, 128, dtype=torch.uint8),
    torch.tensor([[0, 0.2, 0.3, 0.6, 0.7]]).expand(2, 1, 5))
save = training._Run.one_epoch


def loud(self, *args):
    save(self, *args)
    print(len(self.history), 'done', flush=True)


training._Run.one_epoch = loud
net, history = d2lssd.train('source', num_epochs=100_000, batch_size=2,
                            progress=False)
"""


@pytest.mark.fault('a cell or a command is interrupted')
def test_the_stop_button_of_a_notebook_leaves_the_kernel_usable():
    """A real kernel, interrupted as JupyterLab does it."""
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(kernel_name='python3')
    try:
        client.execute(CELL, allow_stdin=False)
        told = text_until(client, '2 done')
        manager.interrupt_kernel()
        told += text_until(client, None)
        assert 'training stopped in epoch' in told
        client.execute('print(type(net).__name__, len(history) > 1)')
        assert 'TinySSD True' in text_until(client, None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def text_until(client, mark):
    """What a kernel prints until it prints `mark`, or is idle again."""
    text = ''
    while mark is None or mark not in text:
        try:
            message = client.get_iopub_msg(timeout=120)
        except queue.Empty:
            pytest.fail(f'the kernel is silent after {text!r}')
        content = message['content']
        if message['msg_type'] == 'stream':
            text += content['text']
        elif message['msg_type'] == 'error':
            pytest.fail('\n'.join(content['traceback']))
        elif content.get('execution_state') == 'idle':
            return text
    return text


@pytest.mark.fault('a loss or a weight is no number')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_no_number_is_named_and_the_last_epoch_kept(
        small, tmp_path, value):
    file = tmp_path / 'run.checkpoint'
    at_step(small, 5, lambda: (torch.tensor([value, 0, 0]), 1))
    with pytest.raises(FloatingPointError,
                       match=f'loss became {value} in epoch 2, minibatch 2'):
        d2lssd.train('source', **SMALL, checkpoint=file)
    assert epochs_in(file) == 1


@pytest.fixture
def little_room(monkeypatch):
    """Let no file grow beyond a megabyte, as on a full disk."""
    resource = pytest.importorskip('resource')

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: limit(2**20)
    limit(before[0])


@pytest.mark.fault('the disk is full')
def test_no_room_for_a_checkpoint_is_said_before_the_first_epoch(
        small, tmp_path, little_room):
    little_room()
    at_step(small, 1, lambda: pytest.fail('trained for nothing'))
    with pytest.raises(OSError, match='cannot write run.checkpoint.*room'):
        d2lssd.train('source', **SMALL, checkpoint=tmp_path / 'run.checkpoint')
    assert os.listdir(tmp_path) == []


@pytest.mark.fault('the disk is full')
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
        small, tmp_path, little_room):
    file = tmp_path / 'run.checkpoint'
    save = training._Run.save

    def save_and_fill(self, path):
        save(self, path)
        if len(self.history) == 1:
            little_room()

    small.setattr(training._Run, 'save', save_and_fill)
    with pytest.raises(OSError, match='cannot write run.checkpoint.*room'):
        d2lssd.train('source', **SMALL, checkpoint=file)
    assert epochs_in(file) == 1
    assert os.listdir(tmp_path) == ['run.checkpoint']


@pytest.mark.fault('a folder is read-only, or there is no home')
def test_the_command_says_in_one_line_that_it_may_not_write(
        small, tmp_path, monkeypatch, capsys):
    """A home that is missing, read-only or, as here, no folder at all."""
    (tmp_path / 'home').write_text('')
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'home'))
    assert main(['train', '--recipe', 'source', '--epochs', '1']) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('d2lssd: cannot write')
    assert 'D2LSSD_HOME' in line


@pytest.mark.fault('a folder is read-only, or there is no home')
def test_weights_that_cannot_be_saved_are_told_before_the_training(
        small, tmp_path, monkeypatch, capsys):
    (tmp_path / 'folder').write_text('')  # root may write to any real one
    monkeypatch.setattr(training, 'train', lambda *args, **kwargs: pytest.fail(
        'trained for nothing'))
    assert main(['train', '--recipe', 'source', '--checkpoint',
                 str(tmp_path / 'run.checkpoint'), '--save',
                 str(tmp_path / 'folder' / 'w.safetensors')]) == 2
    assert capsys.readouterr().err.startswith(
        f'd2lssd: cannot write w.safetensors in {tmp_path / "folder"}')
    assert os.listdir(tmp_path) == ['folder']


FIRST_RUN = """
import sys, torch
from d2lssd.data.drawn import drawn_bananas
print(flush=True)
sys.stdin.readline()
images, labels = drawn_bananas('train', 3, progress=False)
print(int(images.sum()), float(labels.sum()))
"""


@pytest.mark.fault('two runs at once')
def test_two_first_runs_at_once_draw_the_same_and_keep_it_once(tmp_path):
    both = [subprocess.Popen(
        [sys.executable, '-c', FIRST_RUN], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'D2LSSD_HOME': str(tmp_path)}) for _ in range(2)]
    for each in both:
        each.stdout.readline()
    for each in both:
        each.stdin.write('go\n')
        each.stdin.flush()
    said = [each.communicate() for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert said[0] == said[1]
    assert [errors for _, errors in said] == ['', '']
    kept, = os.listdir(tmp_path)
    images, labels = drawn.drawn_bananas('train', 3, cache=False,
                                         progress=False)
    assert said[0][0] == f'{int(images.sum())} {float(labels.sum())}\n'
    assert kept.startswith('drawn-train-3-')


@pytest.mark.fault('a clock is set back')
def test_a_clock_set_back_changes_nothing(small, tmp_path, monkeypatch):
    """Files seem to come from the future, and time runs backwards."""
    file = tmp_path / 'run.checkpoint'
    leftover = tmp_path / '.run.checkpoint.1234.part'
    leftover.mkdir()
    at_step(small, 5, press_stop)
    with pytest.raises(KeyboardInterrupt):
        d2lssd.train('source', **SMALL, checkpoint=file)
    future = time.time() + 10 * 365 * 24 * 3600
    for path in file, leftover:
        os.utime(path, (future, future))
    backwards = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, 'time', lambda: next(backwards))
    net, history = d2lssd.train('source', **SMALL, checkpoint=file)
    assert len(history) == 3
    assert all(each['seconds'] >= 0 for each in history)
    assert epochs_in(file) == 3
