"""The original banana archive, fetched only when it is asked for.

It is never unpacked to the disk: pictures are read straight out of it, so
that no name inside can lead anywhere. Its list of contents is still checked
first, against links, odd names and sizes that no banana needs.
"""
import contextlib
import hashlib
import os
import stat
import warnings
import zipfile
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from . import BANANA_CLASSES, files

ARCHIVE_NAME = 'banana-detection.zip'
ARCHIVE_URL = ('https://d2l-data.s3-accelerate.amazonaws.com/'
               'banana-detection.zip')
ARCHIVE_SHA1 = '5de26c8fce5ccdea9f91267273464dc968d20d72'
URL_VARIABLE = 'D2LSSD_ARCHIVE_URL'
MAX_ARCHIVE = 512 * 2**20  # bytes that are fetched
MAX_CONTENTS = 2**30  # bytes of all files in the archive together
MAX_MEMBERS = 10_000
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
TIMEOUT = 30  # seconds without a byte


def original_bananas(split, url=None, sha1=ARCHIVE_SHA1, progress=True):
    """The pictures and boxes of the original archive.

    Args:
        split: 'train' (1000 pictures) or 'val' (100).
        url: where to fetch the archive; by default the environment variable
            ``D2LSSD_ARCHIVE_URL``, or else the original's address.
        sha1: its SHA-1 in hex digits.
        progress: whether to show bars.

    Returns:
        uint8 tensor ``(N, 3, 256, 256)`` and float32 tensor ``(N, 1, 5)``, as
        ``d2lssd.data.drawn.drawn_bananas`` returns them.

    Raises:
        ConnectionError: the archive cannot be fetched.
        ValueError: what came is not the archive, or is unsafe to open.
        OSError: it cannot be kept.
    """
    from .folder import read_folder
    if split not in ('train', 'val'):
        raise ValueError(f"split = {split!r}: 'train' or 'val' is known")
    sha1 = sha1.lower()
    kept_path = files.cache_folder() / f'd2l-{split}-{sha1}.safetensors'
    description = {'original bananas': f'{sha1} {split}'}
    kept = files.recall(kept_path, description)
    if kept:
        return kept['images'], kept['labels']
    path = fetch_archive(url, sha1, progress)
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = read_folder(safe_root(archive), split,
                                         BANANA_CLASSES, progress=progress)
    except (zipfile.BadZipFile, ValueError, RuntimeError,
            NotImplementedError) as error:
        path.unlink(missing_ok=True)
        raise ValueError(f'{path}: {error}\nThe archive was removed; the '
                         'next try fetches it again.') from error
    files.keep(kept_path, {'images': images, 'labels': labels}, description)
    return images, labels


def fetch_archive(url=None, sha1=ARCHIVE_SHA1, progress=True):
    """Fetch the archive into the cache folder, unless it is there.

    Args and errors: as in ``original_bananas``.

    Returns:
        Path of the archive, whose SHA-1 is right.
    """
    name = ARCHIVE_NAME if sha1 == ARCHIVE_SHA1 else f'{sha1}.zip'
    path = files.cache_folder() / name
    if path.exists():
        found = _sha1(path)
        if found == sha1:
            return path
        warnings.warn(f'{path} is damaged (SHA-1 {found}, not {sha1}): '
                      'removed, to be fetched again', stacklevel=2)
        path.unlink()
    url = url or os.environ.get(URL_VARIABLE) or ARCHIVE_URL
    with files.replacing(path) as temporary:
        _download(url, path, temporary, progress)
        found = _sha1(temporary)
        if found != sha1:
            raise ValueError(f'{url}: what came is damaged or not the archive'
                             f' (SHA-1 {found}, not {sha1}); nothing was '
                             'kept, try again')
    return path


def _sha1(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha1').hexdigest()


class _Capped:
    """A file that refuses to grow beyond what the archive could be."""

    def __init__(self, file, url):
        self.file, self.url, self.left = file, url, MAX_ARCHIVE

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f'{self.url}: sends more than {MAX_ARCHIVE:,} '
                             'bytes, so it is not the archive')
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def _download(url, path, temporary, progress):
    import pooch
    import requests
    from tqdm.auto import tqdm
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(temporary, 'wb'))
        # pooch puts the true total in; without one, a bar has no truth value.
        bar = progress and stack.enter_context(tqdm(
            desc=f'fetching {path.name}, kept for next time', total=1,
            unit='B', unit_scale=True))
        fetch = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT)
        try:
            fetch(url, _Capped(file, url), None)
        except requests.RequestException as error:
            host = urlsplit(url).hostname or url
            raise ConnectionError(
                f'cannot fetch {url} from {host} ({_reason(error)}). Without '
                "it: source='drawn' needs no network. By hand: put the file "
                f'at {path} and call again.') from error


def _reason(error):
    """The innermost reason in one line; requests wraps it several times."""
    response = getattr(error, 'response', None)
    if response is not None:
        return f'HTTP status {response.status_code} {response.reason}'
    while error.__context__ or error.__cause__:
        error = error.__cause__ or error.__context__
    text = str(error).splitlines() or [type(error).__name__]
    return text[0]


def safe_root(archive):
    """The folder in an archive that holds the two splits.

    Args:
        archive: ``zipfile.ZipFile``, open for reading.

    Returns:
        ``zipfile.Path``.

    Raises:
        ValueError: a name that leads out of the archive, a link, too many or
            too large files, or no ``bananas_train`` inside.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ValueError(f'holds {len(members):,} files; at most '
                         f'{MAX_MEMBERS:,} are expected')
    total = sum(member.file_size for member in members)
    if total > MAX_CONTENTS:
        raise ValueError(f'expands to {total:,} bytes; at most '
                         f'{MAX_CONTENTS:,} are expected')
    for member in members:
        _check_member(member)
    inside = {PurePosixPath(member.filename) for member in members}
    tables = [name.parents[1] for name in inside
              if name.parts[-2:] == ('bananas_train', 'label.csv')]
    if len(tables) != 1:
        raise ValueError('should hold bananas_train/label.csv once, and holds '
                         f'it {len(tables)} times')
    return zipfile.Path(archive).joinpath(*tables[0].parts)


def _check_member(member):
    name = member.filename
    parts = PurePosixPath(name).parts
    if (name.startswith('/') or '..' in parts or '\\' in member.orig_filename
            or any(':' in part for part in parts)):
        raise ValueError(f'holds {name!r}, a name that leads out of it')
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f'holds {name!r}, which is a link or a device and '
                         'not a file')
    if member.compress_type not in PACKED:
        # Some others take gigabytes of memory to open a small file.
        raise ValueError(f'holds {name!r}, packed in a way that is not read '
                         'here; stored and deflated files are')
    if member.flag_bits & 1:
        raise ValueError(f'holds {name!r}, which is encrypted')
