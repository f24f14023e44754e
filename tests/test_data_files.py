"""Files that the package keeps: whole, or not there at all."""
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import platformdirs
import pytest
import torch

from d2lssd.data import files

DESCRIPTION = {'what': 'a test'}
POSIX = pytest.mark.skipif(os.name != 'posix', reason='POSIX only')
NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, 'geteuid') or os.geteuid() == 0,
    reason='root may write everywhere')


def some_tensors(value=1, size=1000):
    return {'images': torch.full((size, 7), value, dtype=torch.uint8),
            'labels': torch.rand(3, 1, 5)}


def run_python(code, *arguments, **options):
    return subprocess.Popen([sys.executable, '-c', code, *map(str, arguments)],
                            cwd=Path(__file__).parents[1],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **options)


def test_the_variable_names_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'mine'))
    assert files.cache_folder() == tmp_path / 'mine'
    assert not (tmp_path / 'mine').exists()


def test_an_empty_variable_counts_as_none(monkeypatch):
    monkeypatch.setenv('D2LSSD_HOME', ' ')
    assert files.cache_folder() == platformdirs.user_cache_path(
        'd2lssd', appauthor=False)


def test_a_relative_name_and_a_tilde_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('D2LSSD_HOME', 'here')
    assert files.cache_folder() == tmp_path / 'here'
    monkeypatch.setenv('D2LSSD_HOME', '~/there')
    assert files.cache_folder() == Path.home() / 'there'


@pytest.mark.fault('a folder is read-only, or there is no home')
@pytest.mark.parametrize('answer', [Path('~/.cache/d2lssd'), RuntimeError])
def test_a_user_without_home_is_told_what_to_set(monkeypatch, answer):
    def user_cache_path(*args, **kwargs):
        if answer is RuntimeError:
            raise RuntimeError('could not determine home directory')
        return answer

    monkeypatch.delenv('D2LSSD_HOME', raising=False)
    monkeypatch.setattr(platformdirs, 'user_cache_path', user_cache_path)
    with pytest.raises(OSError, match='no home folder.*D2LSSD_HOME'):
        files.cache_folder()


def test_an_unknown_user_in_the_variable_is_named(monkeypatch):
    monkeypatch.setenv('D2LSSD_HOME', '~nosuchuser/x')
    with pytest.raises(OSError, match='D2LSSD_HOME is ~nosuchuser/x.*set'):
        files.cache_folder()


def test_what_was_saved_is_read_back(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'a.safetensors'
    tensors = some_tensors()
    files.save_tensors(path, tensors, DESCRIPTION)
    back = files.load_tensors(path, DESCRIPTION)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in back)
    assert os.listdir(path.parent) == ['a.safetensors']


def test_an_empty_tensor_is_kept_too(tmp_path):
    path = tmp_path / 'a.safetensors'
    files.save_tensors(path, {'none': torch.zeros(0, 5)}, DESCRIPTION)
    assert files.load_tensors(path, DESCRIPTION)['none'].shape == (0, 5)


@POSIX
def test_others_may_read_a_kept_file_if_the_umask_says_so(tmp_path):
    usual = tmp_path / 'usual'
    usual.touch()
    files.save_tensors(tmp_path / 'a', some_tensors(), DESCRIPTION)
    assert (tmp_path / 'a').stat().st_mode == usual.stat().st_mode


def test_writing_to_a_tensor_read_back_leaves_the_file_alone(tmp_path):
    path = tmp_path / 'a.safetensors'
    files.save_tensors(path, some_tensors(1), DESCRIPTION)
    files.load_tensors(path, DESCRIPTION)['images'].fill_(9)
    assert (files.load_tensors(path, DESCRIPTION)['images'] == 1).all()


def test_a_changed_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / 'a.safetensors'
    tensors = some_tensors(size=20)
    files.save_tensors(path, tensors, DESCRIPTION)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            back = files.load_tensors(path, DESCRIPTION)
        except files.DamagedFile:
            continue
        # A bit of the header that changes nothing, such as a space.
        assert all(torch.equal(back[key], tensors[key]) for key in back)


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_a_file_cut_short_anywhere_is_noticed(tmp_path):
    path = tmp_path / 'a.safetensors'
    files.save_tensors(path, some_tensors(size=20), DESCRIPTION)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(files.DamagedFile):
            files.load_tensors(path, DESCRIPTION)


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    files.save_tensors(path, some_tensors(), {'what': 'another test'})
    with pytest.raises(files.DamagedFile, match="'another test', not"):
        files.load_tensors(path, DESCRIPTION)


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_a_pickle_in_place_of_a_kept_file_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'boom'),)

    path = tmp_path / 'a.safetensors'
    torch.save(Bomb(), path)
    with pytest.raises(files.DamagedFile):
        files.load_tensors(path, DESCRIPTION)
    assert not (tmp_path / 'boom').exists()


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_recalling_a_damaged_file_warns_in_one_line_and_removes_it(tmp_path):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(b'nonsense')
    with pytest.warns(UserWarning, match='damaged') as caught:
        assert files.recall(path, DESCRIPTION) is None
    message = str(caught[0].message)
    assert str(path) in message
    assert '\n' not in message
    assert not path.exists()


def test_recalling_what_was_never_kept_gives_nothing(tmp_path):
    assert files.recall(tmp_path / 'a.safetensors', DESCRIPTION) is None


def write_half_and_raise(path, error):
    with files.replacing(path) as temporary:
        temporary.write_text('half')
        raise error


@pytest.mark.parametrize('error', [KeyError, KeyboardInterrupt, SystemExit])
def test_an_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'a'
    path.write_text('old')
    with pytest.raises(error):
        write_half_and_raise(path, error())
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a']


@pytest.mark.fault('the disk is full')
def test_no_room_is_an_error_that_says_where_and_what_to_do(tmp_path):
    with pytest.raises(OSError, match='make room') as caught:
        write_half_and_raise(tmp_path / 'a', OSError(errno.ENOSPC, 'full'))
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(caught.value)
    assert 'or name a file elsewhere' in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.fault('the disk is full')
def test_where_the_cache_has_no_room_the_variable_names_another(
        monkeypatch, tmp_path):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'home'))
    with pytest.raises(OSError, match='make room.*D2LSSD_HOME'):
        write_half_and_raise(tmp_path / 'home' / 'data' / 'a',
                             OSError(errno.ENOSPC, 'full'))


@POSIX
def test_a_file_that_cannot_grow_leaves_nothing(tmp_path):
    # A real limit of the system, met in the middle of a real write.
    child = run_python("""
import resource, signal, sys
import numpy as np
from safetensors.numpy import save_file
from d2lssd.data import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with files.replacing(sys.argv[1]) as temporary:
        save_file({'x': np.zeros(1_000_000)}, temporary)
except OSError as error:
    print(error)
""", tmp_path / 'a')
    output, errors = child.communicate(timeout=60)
    assert 'cannot write a in' in output, errors
    assert 'make room' in output
    assert os.listdir(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of one megabyte, where this user may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder],
            capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip('may not mount a disk here')
    yield folder
    subprocess.run(['umount', folder], check=True)


@pytest.mark.fault('the disk is full')
def test_a_full_disk_is_named_and_stays_tidy(tiny_disk):
    with pytest.raises(OSError, match='make room') as caught:
        files.save_tensors(tiny_disk / 'a', {'x': torch.zeros(1_000_000)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tiny_disk) == []


@pytest.mark.fault('the disk is full')
def test_a_full_disk_only_warns_where_keeping_is_a_convenience(tiny_disk):
    with pytest.warns(UserWarning, match='not kept for next time.*make room'):
        files.keep(tiny_disk / 'a', {'x': torch.zeros(1_000_000)}, {})


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'home').write_text('')
    for path in tmp_path / 'home' / 'a', tmp_path / 'home' / 'b' / 'a':
        with pytest.raises(OSError, match='file stands where a folder'):
            files.save_tensors(path, some_tensors(), DESCRIPTION)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(IsADirectoryError,
                       match=f'write {tmp_path / "a"}: a folder has'):
        files.save_tensors(tmp_path / 'a', some_tensors(), DESCRIPTION)
    assert os.listdir(tmp_path) == ['a']


@pytest.mark.fault('a folder is read-only, or there is no home')
@NOT_ROOT
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match='may not write there'):
        files.save_tensors(tmp_path / 'a', some_tensors(), DESCRIPTION)


@pytest.mark.fault('a folder is read-only, or there is no home')
def test_a_read_only_disk_is_named(monkeypatch, tmp_path):
    def mkdir(*args, **kwargs):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(Path, 'mkdir', mkdir)
    with pytest.raises(OSError, match='may not write there.*elsewhere'):
        files.save_tensors(tmp_path / 'a', some_tensors(), DESCRIPTION)


def test_an_error_that_is_not_the_disks_is_passed_on_as_it_is(tmp_path):
    with pytest.raises(ConnectionError, match='^gone$'):
        write_half_and_raise(tmp_path / 'a', ConnectionError('gone'))


@pytest.mark.fault('training is killed at any moment')
def test_leftovers_of_killed_writers_go_after_a_day(tmp_path):
    old, new = tmp_path / '.a.1234.part', tmp_path / '.a.5678.part'
    for each in old, new:
        each.mkdir()
        (each / 'a').write_text('half')
    past = time.time() - 2 * files.DAY
    os.utime(old, (past, past))
    with files.replacing(tmp_path / 'a') as temporary:
        temporary.write_text('whole')
    assert sorted(os.listdir(tmp_path)) == ['.a.5678.part', 'a']


WRITER = """
import sys
from d2lssd.data import files
value = int(sys.argv[2])
while True:
    value = (value + 2) % 200
    with files.replacing(sys.argv[1]) as temporary:
        with open(temporary, 'wb') as file:
            for _ in range(20):
                file.write(bytes([value]) * 100_000)
    print('wrote', flush=True)
"""


def value_of_whole_file(path):
    content = path.read_bytes()
    assert content == content[:1] * 2_000_000
    return content[0]


@pytest.mark.fault('training is killed at any moment')
@POSIX
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / 'a'
    draw = random.Random(5)
    for _ in range(3):
        writer = run_python(WRITER, path, 0)
        assert writer.stdout.readline() == 'wrote\n', writer.stderr.read()
        for _ in range(20):
            time.sleep(draw.uniform(0, 0.01))
            writer.send_signal(signal.SIGSTOP)  # finds what a kill would
            value_of_whole_file(path)
            writer.send_signal(signal.SIGCONT)
        writer.kill()
        writer.communicate()
        value_of_whole_file(path)
    with files.replacing(path) as temporary:
        temporary.write_text('the next run writes as ever')
    assert path.read_text() == 'the next run writes as ever'


@pytest.mark.fault('two runs at once')
@POSIX
def test_two_writers_at_once_leave_the_file_of_one(tmp_path):
    path = tmp_path / 'a'
    writers = [run_python(WRITER, path, value) for value in (0, 1)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == 'wrote\n'
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            seen.add(value_of_whole_file(path) % 2)
            time.sleep(0.002)
    finally:
        for writer in writers:
            writer.kill()
        problems = [writer.communicate()[1] for writer in writers]
    assert seen == {0, 1}
    assert problems == ['', '']


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_a_file_that_cannot_be_opened_is_not_called_damaged(
        tmp_path, monkeypatch):
    files.save_tensors(tmp_path / 'kept', {'a': torch.ones(2)}, {'kind': 'a'})

    def full(*arguments):
        raise OSError(errno.EMFILE, 'Too many open files', 'kept')
    with monkeypatch.context() as patch:
        patch.setattr('builtins.open', full)
        with pytest.raises(OSError, match='Too many open files'):
            files.load_tensors(tmp_path / 'kept', {'kind': 'a'})
        assert files.recall(tmp_path / 'kept', {'kind': 'a'}) is None
    assert files.recall(tmp_path / 'kept', {'kind': 'a'})['a'].sum() == 2


def test_a_tensor_may_be_named_once_in_a_tree(tmp_path):
    """Each mention takes memory: a small file could fill it."""
    one = {'tensor': '0', 'channels_last': False}
    for tree, sound in (([one], True), ([one, one], False)):
        text = json.dumps({'items': [['a', tree]]}).encode()
        files.save_tensors(tmp_path / 'tree', {
            '0': torch.ones(2), 'tree': torch.frombuffer(
                bytearray(text), dtype=torch.uint8)}, {'kind': 'a'})
        if sound:
            assert files.load_state(tmp_path / 'tree', {'kind': 'a'})
        else:
            with pytest.raises(files.DamagedFile, match='no tree'):
                files.load_state(tmp_path / 'tree', {'kind': 'a'})
