"""Files from strangers: read, or refused with the error that is documented.

Tables, COCO files and pictures have such tests beside their readers.
"""
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

import d2lssd
from d2lssd import training
from d2lssd.data import archive, files, folder
from d2lssd.data.archive import original_bananas
from d2lssd.data.folder import check_folder, read_folder

FEW = settings(max_examples=40, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Hundreds of files need not reach the disk."""
    monkeypatch.setattr(os, 'fsync', lambda handle: None)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """Code that a file brings along would need one of these."""
    def refuse(*args, **kwargs):
        pytest.fail('a file could run something')

    for module, name in ((os, 'system'), (subprocess, 'Popen'),
                         (pickle, 'Unpickler'), (pickle, 'loads'),
                         (pickle, 'load')):
        monkeypatch.setattr(module, name, refuse)


def garbled(data, draw):
    """Some bytes changed, taken out, put in, and perhaps the end cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(['set', 'cut', 'add', 'number']))
        if kind == 'set':
            data[place] = draw(st.integers(0, 255))
        elif kind == 'cut':
            del data[place:place + draw(st.integers(1, 40))]
        elif kind == 'add':
            data[place:place] = draw(st.binary(min_size=1, max_size=40))
        else:  # the numbers at which parsers break
            number = draw(st.sampled_from([0, 1, 2**15, 2**31 - 1, 2**32 - 1]))
            data[place:place + 4] = struct.pack('<I', number)
        data = data or bytearray(b'\0')
    return bytes(data[:draw(st.just(len(data)) | st.integers(0, len(data)))])


def attempt(read, *arguments, error=ValueError):
    """What reading gives, and what is said if it is refused."""
    try:
        return read(*arguments), None
    except error as refusal:
        return None, str(refusal)


# Archives ----------------------------------------------------------------

def small_archive():
    """The layout of the original, with two pictures in each split."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as made:
        for split in 'train', 'val':
            rows = ['img_name,label,xmin,ymin,xmax,ymax']
            for name in '0.png', '1.png':
                picture = io.BytesIO()
                Image.new('RGB', (8, 8), 'gold').save(picture, 'PNG')
                made.writestr(f'bananas_{split}/images/{name}',
                              picture.getvalue())
                rows.append(f'{name},0,1,1,6,6')
            made.writestr(f'bananas_{split}/label.csv', '\n'.join(rows))
    return buffer.getvalue()


SMALL_ARCHIVE = small_archive()


def opened(data, home):
    """Read an archive as if it had been fetched."""
    sha1 = hashlib.sha1(data).hexdigest()
    (home / f'{sha1}.zip').write_bytes(data)
    return original_bananas('train', sha1=sha1, progress=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path))
    return tmp_path


@pytest.mark.fault('a file holds anything at all')
@FEW
@given(data=st.data())
def test_a_garbled_archive_is_read_or_a_value_error(home, data):
    found, said = attempt(opened, garbled(SMALL_ARCHIVE, data.draw), home)
    if found:
        assert found[0].shape[1:] == (3, 256, 256)
        assert found[1].shape[2] == 5
    else:
        assert str(home) in said
    assert {path.parent for path in home.rglob('*') if path.is_file()} <= {
        home}


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_in_a_costly_way_is_refused(home, method):
    """LZMA says in its own header how much memory is to be taken."""
    pytest.importorskip({zipfile.ZIP_BZIP2: 'bz2', zipfile.ZIP_LZMA: 'lzma'}[
        method])
    buffer = io.BytesIO(SMALL_ARCHIVE)
    with zipfile.ZipFile(buffer, 'a', method) as made:
        made.writestr('more.csv', 'x')
    with pytest.raises(ValueError, match="'more.csv', packed in a way"):
        opened(buffer.getvalue(), home)


# Weights -----------------------------------------------------------------

def weights_file(changes=(), **header):
    state = d2lssd.TinySSD(1).state_dict()
    for name, change in changes:
        state[name] = change(state[name])
    return save(state, {'format': 'd2lssd-1', 'num_classes': '1', **header})


WEIGHTS = weights_file()


def loads(data, tmp_path):
    """The network in a file; a refusal must name the file."""
    path = tmp_path / 'w.safetensors'
    path.write_bytes(data)
    net, said = attempt(d2lssd.load_weights, path)
    assert net is not None or (str(path) in said and len(said) < 2000)
    return net


@pytest.mark.fault('a file holds anything at all')
@FEW
@given(data=st.data())
def test_a_garbled_weights_file_is_a_network_or_a_value_error(tmp_path, data):
    """Its head is where it can go wrong; the rest is numbers."""
    cut = 8 + struct.unpack('<Q', WEIGHTS[:8])[0]
    start = 8 if data.draw(st.booleans()) else 0
    head = garbled(WEIGHTS[start:cut], data.draw)
    if start:  # with its length put right
        head = struct.pack('<Q', len(head)) + head
    net = loads(head + WEIGHTS[cut:], tmp_path)
    assert net is None or isinstance(net, d2lssd.TinySSD)


@pytest.mark.fault('a file holds anything at all')
@FEW
@given(header=st.dictionaries(
    st.sampled_from(['format', 'num_classes', 'classes', 'sizes', 'side']),
    st.sampled_from(['d2lssd-1', 'd2lssd-2', '1', '2', '-1', '²', '9999',
                     '9' * 5000, '["a"]', '[1]', '{"a": 1}', '[' * 10**5])
    | st.text()))
def test_any_header_of_a_weights_file_is_understood_or_refused(
        tmp_path, header):
    net = loads(weights_file(**header), tmp_path)
    assert net is None or net.num_classes == 1


@pytest.mark.fault('a file holds anything at all')
@pytest.mark.parametrize('kind', ['bool', 'int8', 'bfloat16', 'float64',
                                  'complex64', 'float8_e4m3fn', 'uint16'])
@pytest.mark.filterwarnings('ignore:Casting complex')
def test_weights_of_any_kind_of_number_are_read_or_refused(tmp_path, kind):
    data = weights_file([('bbox_0.bias', lambda value: value.to(
        getattr(torch, kind)))])
    net = loads(data, tmp_path)
    assert net is None or all(p.dtype == torch.float32
                              for p in net.parameters())


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A network and the bytes of its file."""
    path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
    d2lssd.save_weights(d2lssd.TinySSD(1), path)
    return d2lssd.load_weights(path).state_dict(), path.read_bytes()


@pytest.mark.fault('weights are a pickle, cut short or of another network')
@FEW
@given(data=st.data())
def test_a_changed_bit_in_a_weights_file_is_noticed(saved, tmp_path, data):
    state, whole = saved
    cut = 8 + struct.unpack('<Q', whole[:8])[0]
    place = data.draw(st.integers(8, cut - 1)
                      | st.integers(cut, len(whole) - 1))
    broken = bytearray(whole)
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    net = loads(bytes(broken), tmp_path)
    assert net is None or place < cut and all(
        torch.equal(value, state[name])
        for name, value in net.state_dict().items())


# What the package keeps --------------------------------------------------

KEPT = {'what': 'a test'}


@pytest.mark.fault('a file holds anything at all')
@FEW
@given(data=st.data())
def test_a_garbled_kept_file_is_damaged_or_as_it_was(tmp_path, data):
    tensors = {'images': torch.arange(60, dtype=torch.uint8),
               'labels': torch.ones(2, 3)}
    path = tmp_path / 'kept'
    files.save_tensors(path, tensors, KEPT)
    path.write_bytes(garbled(path.read_bytes(), data.draw))
    again, said = attempt(files.load_tensors, path, KEPT,
                          error=files.DamagedFile)
    assert str(path) in said if said else all(
        torch.equal(again[key], tensors[key]) for key in tensors)


TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False)
    | st.sampled_from([torch.ones(2, 3), torch.tensor(4), torch.empty(0),
                       torch.arange(48).reshape(2, 2, 3, 4).contiguous(
                           memory_format=torch.channels_last)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text() | st.integers(), inner, max_size=4), max_leaves=12)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.stride() == b.stride()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


@FEW
@given(tree=st.dictionaries(st.text(), TREE, max_size=4))
def test_any_tree_comes_back_as_it_was_kept(tmp_path, tree):
    files.save_state(tmp_path / 'tree', tree, KEPT)
    assert same(tree, files.load_state(tmp_path / 'tree', KEPT))


@pytest.mark.fault('a file holds anything at all')
@FEW
@given(value=JSON)
def test_any_text_in_place_of_a_tree_is_damaged_or_a_tree(tmp_path, value):
    text = json.dumps(value).encode()
    files.save_tensors(tmp_path / 'tree', {'tree': torch.frombuffer(
        bytearray(text), dtype=torch.uint8)}, KEPT)
    attempt(files.load_state, tmp_path / 'tree', KEPT,
            error=files.DamagedFile)


# Checkpoints -------------------------------------------------------------

def fresh_run():
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1)
    recipe = training.find_recipe('balanced', pictures='plain')
    return training._Run(recipe, net, 0, 10, 'drawn')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('run') / 'run.checkpoint'
    run = fresh_run()
    # Without an epoch, all are the same.
    run.history.append(dict.fromkeys(training.FACTS, 1.0))
    run.save(path)
    return path.read_bytes()


def goes_on(path):
    """Whether a run goes on from a file; a refusal must name it."""
    said = attempt(fresh_run().load, path)[1]
    assert said is None or str(path) in said
    return said is None


@pytest.mark.fault('a checkpoint is damaged or of another run')
@FEW
@given(data=st.data())
def test_a_garbled_checkpoint_is_refused(checkpoint, tmp_path, data):
    cut = 8 + struct.unpack('<Q', checkpoint[:8])[0]
    head = garbled(checkpoint[:cut], data.draw)
    path = tmp_path / 'run.checkpoint'
    path.write_bytes(head + checkpoint[cut:])
    assert goes_on(path) == (head == checkpoint[:cut]) or (
        json.loads(head[8:]) == json.loads(checkpoint[8:cut]))


@pytest.mark.fault('a checkpoint is damaged or of another run')
@pytest.mark.parametrize('place', [0.1, 0.5, 0.9, 0.999])
def test_a_changed_bit_in_a_checkpoint_is_noticed(checkpoint, tmp_path, place):
    data = bytearray(checkpoint)
    data[int(place * len(data))] ^= 1
    path = tmp_path / 'run.checkpoint'
    path.write_bytes(data)
    assert not goes_on(path)


@pytest.mark.fault('a file holds anything at all')
@pytest.mark.filterwarnings('ignore:.*it goes on from the checkpoint')
@FEW
@given(data=st.data())
def test_a_checkpoint_of_any_content_goes_on_or_is_refused(
        checkpoint, tmp_path, data):
    """Well written, and with something else in it."""
    path = tmp_path / 'run.checkpoint'
    path.write_bytes(checkpoint)
    state = files.load_state(path, training.CHECKPOINT)
    inner = state
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(inner, key=str)))
        if not isinstance(inner[key], dict) or not inner[key]:
            break
        outer, inner = inner, inner[key]
    else:
        inner = outer
    inner[key] = data.draw(JSON | st.just(torch.ones(3)))
    files.save_state(path, state, training.CHECKPOINT)
    goes_on(path)


@pytest.mark.fault('a checkpoint is damaged or of another run')
@pytest.mark.parametrize('written', [
    lambda path: torch.save({'recipe': {}}, path),
    lambda path: path.write_bytes(b'\x80\x04N.'),
    lambda path: path.write_bytes(WEIGHTS),
    lambda path: files.save_state(path, {}, {'format': 'd2lssd-checkpoint-0'}),
])
def test_a_checkpoint_of_another_kind_or_version_is_refused(tmp_path, written):
    path = tmp_path / 'run.checkpoint'
    written(path)
    assert not goes_on(path)


# Folders -----------------------------------------------------------------

@pytest.fixture
def pictures(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'images' / 'a.png')
    (tmp_path / 'label.csv').write_text(
        'img_name,label,xmin,ymin,xmax,ymax\na.png,0,1,1,6,6\n')
    return tmp_path


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
@pytest.mark.parametrize('name', ['images/b.png', 'label.csv'])
def test_a_pipe_in_a_folder_is_not_waited_for(pictures, name):
    (pictures / name).unlink(missing_ok=True)
    os.mkfifo(pictures / name)
    problems = check_folder(pictures)
    assert bool(problems) == (name == 'label.csv')


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
@pytest.mark.skipif(not os.path.exists('/dev/zero'), reason='no /dev/zero')
@pytest.mark.parametrize('name', ['images/a.png', 'label.csv'])
def test_a_link_to_a_device_without_end_is_not_followed(pictures, name):
    (pictures / name).unlink()
    (pictures / name).symlink_to('/dev/zero')
    with pytest.raises(ValueError, match='a.png|label.csv'):
        read_folder(pictures, 'train', progress=False)


@pytest.mark.fault('a file holds anything at all')
@pytest.mark.parametrize('name', ['images/a.png', 'label.csv'])
def test_a_file_larger_than_any_of_its_kind_is_refused(pictures, name,
                                                       monkeypatch):
    """It would be read into memory whole."""
    monkeypatch.setattr(files, 'MAX_INPUT', 1000)
    (pictures / name).write_bytes((pictures / name).read_bytes() + bytes(1000))
    with pytest.raises(ValueError, match='larger than 1,000 bytes') as caught:
        read_folder(pictures, 'train', progress=False)
    assert name in str(caught.value)


def test_the_limits_leave_room_for_what_is_usual():
    """All boxes of COCO in one file; a photograph of 89 megapixels."""
    assert files.MAX_INPUT > 470e6
    assert archive.MAX_CONTENTS > np.prod((1100, 256, 256, 3))
    assert folder.SHOWN < 10
