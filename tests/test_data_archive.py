"""The original archive: fetched from a server here, and bad ones refused."""
import functools
import hashlib
import http.server
import io
import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from d2lssd.data import archive
from d2lssd.data.archive import original_bananas

TABLE = 'img_name,label,xmin,ymin,xmax,ymax\n'


def picture(value):
    file = io.BytesIO()
    Image.new('RGB', (256, 256), (value, 0, 0)).save(file, 'PNG')
    return file.getvalue()


def members(top='banana-detection/'):
    """What the original holds, smaller: 5 and 2 pictures."""
    found = {}
    for folder, count in ('bananas_train', 5), ('bananas_val', 2):
        rows = [f'{i}.png,0,{10 * i},20,{10 * i + 64},84\n'
                for i in range(count)]
        found[f'{top}{folder}/label.csv'] = (TABLE + ''.join(rows)).encode()
        for i in range(count):
            found[f'{top}{folder}/images/{i}.png'] = picture(i)
    return found


def zipped(contents):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as made:
        for name, data in contents.items():
            made.writestr(name, data)
    return file.getvalue()


def sha1(data):
    return hashlib.sha1(data).hexdigest()


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('no_proxy', '*')
    return tmp_path / 'home'


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server_state, *args):
        self.state = server_state
        super().__init__(*args)

    def do_GET(self):
        self.state['requests'] += 1
        data = self.state['data']
        self.send_response(self.state['status'])
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data[:self.state['cut']])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A web server on this machine; its answers can be set."""
    state = {'data': zipped(members()), 'status': 200, 'cut': None,
             'requests': 0}
    with http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(Handler, state)) as running:
        state['url'] = f'http://127.0.0.1:{running.server_port}/bananas.zip'
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def fetch(server, split='train', **options):
    options = {'url': server['url'], 'sha1': sha1(server['data']),
               'progress': False, **options}
    return original_bananas(split, **options)


@pytest.mark.parametrize('top', ['banana-detection/', ''])
def test_an_archive_of_the_original_layout_is_read_whole(server, top):
    server['data'] = zipped(members(top))
    images, labels = fetch(server)
    assert (images.shape, images.dtype) == ((5, 3, 256, 256), torch.uint8)
    assert images[:, 0, 9, 9].tolist() == [0, 1, 2, 3, 4]
    expected = [[0, 10 * i, 20, 10 * i + 64, 84] for i in range(5)]
    assert np.allclose(labels[:, 0] * torch.tensor([1] + [256] * 4), expected)
    assert fetch(server, 'val')[0].shape == (2, 3, 256, 256)
    assert server['requests'] == 1


def test_a_second_call_reads_what_the_first_one_kept(server, home):
    first = fetch(server)
    for path in home.glob('*.zip'):
        path.unlink()
    second = fetch(server)
    assert all(map(torch.equal, first, second))
    assert server['requests'] == 1


def test_the_bar_says_what_is_fetched_and_what_is_read(server, capsys):
    fetch(server, progress=True)
    shown = capsys.readouterr().err
    assert 'fetching' in shown
    assert 'reading pictures' in shown


def test_the_address_can_be_set_in_the_environment(server, monkeypatch):
    monkeypatch.setenv('D2LSSD_ARCHIVE_URL', server['url'])
    assert len(fetch(server, 'val', url=None)[0]) == 2


def test_a_file_put_there_by_hand_needs_no_network(home, monkeypatch):
    data = zipped(members())
    monkeypatch.setattr(archive, 'ARCHIVE_SHA1', sha1(data))
    home.mkdir()
    (home / archive.ARCHIVE_NAME).write_bytes(data)
    images, _ = original_bananas('val', 'http://127.0.0.1:9/', sha1(data),
                                 progress=False)
    assert len(images) == 2


@pytest.mark.fault('a download fails')
def test_without_a_network_the_error_says_how_to_do_without(home):
    with pytest.raises(ConnectionError) as caught:
        original_bananas('train', 'http://127.0.0.1:9/b.zip', progress=False)
    message = str(caught.value)
    assert '127.0.0.1' in message
    assert "source='drawn'" in message
    assert str(home / 'banana-detection.zip') in message
    assert 'refused' in message
    assert os.listdir(home) == []


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(ConnectionError, match='bananas.invalid'):
        original_bananas('train', 'https://bananas.invalid/b.zip',
                         progress=False)


def test_an_address_that_is_none_is_named():
    with pytest.raises(ConnectionError, match='nonsense'):
        original_bananas('train', 'nonsense', progress=False)


@pytest.mark.fault('a download fails')
def test_an_answer_of_not_found_is_named(server, home):
    server['status'] = 404
    with pytest.raises(ConnectionError, match='404'):
        fetch(server)
    assert os.listdir(home) == []


@pytest.mark.fault('a download fails')
def test_a_connection_cut_midway_leaves_nothing(server, home):
    server['cut'] = len(server['data']) // 2
    with pytest.raises((ConnectionError, ValueError)):
        fetch(server)
    assert os.listdir(home) == []
    server['cut'] = None
    assert len(fetch(server)[0]) == 5


@pytest.mark.fault('a download fails')
def test_damaged_bytes_are_refused_and_nothing_kept(server, home):
    right = sha1(server['data'])
    damaged = bytearray(server['data'])
    damaged[len(damaged) // 2] ^= 1
    server['data'] = bytes(damaged)
    with pytest.raises(ValueError, match=f'SHA-1 .*, not {right}'):
        fetch(server, sha1=right)
    assert os.listdir(home) == []


@pytest.mark.fault('a download fails')
def test_a_server_that_never_ends_is_cut_off(server, home, monkeypatch):
    monkeypatch.setattr(archive, 'MAX_ARCHIVE', 1000)
    with pytest.raises(ValueError, match='more than 1,000 bytes'):
        fetch(server)
    assert os.listdir(home) == []


@pytest.mark.fault('a kept file is damaged or a pickle')
def test_a_damaged_file_at_hand_is_named_and_fetched_again(server, home):
    fetch(server, 'val')
    path, = home.glob('*.zip')
    path.write_bytes(b'damaged')
    with pytest.warns(UserWarning, match='damaged') as caught:
        images, _ = fetch(server, 'train')
    assert str(path) in str(caught[0].message)
    assert len(images) == 5


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_what_is_no_archive_is_named_and_removed(server, home):
    server['data'] = b'<html>please log in</html>'
    with pytest.raises(ValueError, match='not a zip') as caught:
        fetch(server)
    assert str(home) in str(caught.value)
    assert 'was removed' in str(caught.value)
    assert os.listdir(home) == []


@pytest.mark.fault('the disk is full')
def test_no_room_for_the_archive_is_an_error_with_a_way_out(server,
                                                           monkeypatch):
    def full(self, data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(archive._Capped, 'write', full)
    with pytest.raises(OSError, match='make room.*D2LSSD_HOME'):
        fetch(server)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
@pytest.mark.parametrize('name', [
    '../escape.png', 'bananas_train/images/../../../escape.png',
    '/etc/escape', 'C:/escape.png', 'bananas_train\\..\\escape',
    link('bananas_train/images/9.png')])
def test_an_archive_that_leads_out_of_itself_is_refused(server, home, name):
    server['data'] = zipped({**members(), name: b'/etc/passwd'})
    with pytest.raises(ValueError, match='leads out of it|is a link'):
        fetch(server)
    assert os.listdir(home) == []


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_an_archive_that_expands_without_end_is_refused(server):
    server['data'] = zipped({**members(), 'zeros': bytes(5_000_000)})
    assert len(server['data']) < 100_000
    before = archive.MAX_CONTENTS
    try:
        archive.MAX_CONTENTS = 4_000_000
        with pytest.raises(ValueError, match='expands to 5,'):
            fetch(server)
    finally:
        archive.MAX_CONTENTS = before


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_a_file_that_lies_about_its_size_is_refused(server):
    name = 'banana-detection/bananas_train/label.csv'
    data = bytearray(server['data'])
    # The size in the central directory: 24 bytes into the entry, and the
    # name 46.
    place = data.rindex(name.encode()) - 46 + 24
    data[place:place + 4] = (10).to_bytes(4, 'little')
    server['data'] = bytes(data)
    with pytest.raises(ValueError, match='label.csv'):
        fetch(server)


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_an_archive_of_too_many_files_is_refused(server, monkeypatch):
    monkeypatch.setattr(archive, 'MAX_MEMBERS', 8)
    with pytest.raises(ValueError, match='holds 9 files; at most 8'):
        fetch(server)


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_an_encrypted_archive_is_refused(server):
    data = bytearray(server['data'])
    place = data.index(b'PK\x01\x02')
    data[place + 8] |= 1
    server['data'] = bytes(data)
    with pytest.raises(ValueError, match='encrypted'):
        fetch(server)


@pytest.mark.parametrize('missing', [
    'bananas_train/label.csv', 'bananas_train/images/3.png',
    'bananas_val/label.csv'])
def test_an_archive_that_lacks_a_file_is_refused_by_its_name(server, missing):
    contents = members()
    del contents[f'banana-detection/{missing}']
    server['data'] = zipped(contents)
    with pytest.raises(ValueError, match=missing.split('/')[-1]):
        fetch(server)


@pytest.mark.fault('an archive escapes its folder, never ends or lies')
def test_other_files_in_an_archive_are_never_read(server):
    server['data'] = zipped({**members(), '__MACOSX/x': b'',
                             'setup.py': b'raise SystemExit'})
    assert len(fetch(server)[0]) == 5


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split = 'test'"):
        original_bananas('test')
