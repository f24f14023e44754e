"""Files that the package keeps: where they lie, and how none is ever half.

A file is written under another name, pushed to the disk, and only then given
its own name, which is one step for the operating system. Whoever opens the
file finds the whole old one or the whole new one, whatever was killed when.
Two processes that write the same file need no lock: the last one stays.
"""
import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import warnings
import zlib
from pathlib import Path

HOME_VARIABLE = 'D2LSSD_HOME'
DAY = 24 * 60 * 60  # seconds
MAX_INPUT = 2**29  # bytes of a picture or a list of boxes


class DamagedFile(ValueError):
    """A file of ours that does not hold what was written to it."""


def cache_folder():
    """The folder for what is made or fetched once; it need not exist yet.

    Returns:
        Absolute path: the environment variable ``D2LSSD_HOME`` if it is set,
        else the cache folder that the operating system gives the user.

    Raises:
        OSError: there is no home folder to put it in.
    """
    named = os.environ.get(HOME_VARIABLE, '').strip()
    try:
        if named:
            return Path(named).expanduser().absolute()
        from platformdirs import user_cache_path
        folder = user_cache_path('d2lssd', appauthor=False)
    except (RuntimeError, KeyError) as error:
        reason = f'{HOME_VARIABLE} is {named}' if named else error
        raise OSError(errno.ENOENT, f'no home folder found ({reason}); '
                      f'{_name_another()}') from error
    if not folder.is_absolute():  # what is left of an unknown ~
        raise OSError(errno.ENOENT, f'no home folder found (got {folder}); '
                      f'{_name_another()}')
    return folder


def _name_another():
    return (f'set the environment variable {HOME_VARIABLE} to a folder that '
            'you may write to')


def refuse_folder(path):
    """Make sure that a file can have this name.

    Raises:
        IsADirectoryError: a folder has it.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, f'cannot write {path}: a folder '
                                'has this name; name a file')


@contextlib.contextmanager
def replacing(path):
    """Write a file so that it appears whole or not at all.

    Use as ``with replacing(path) as temporary:`` and make the file
    ``temporary``, which lies in a hidden folder beside ``path``. When the
    block ends well it becomes ``path``; when it ends in an error it is
    removed, and an older ``path`` stays as it was. Folders that are missing
    are made.

    Raises:
        OSError: with the folder, the reason and the way out in its text.
    """
    path = Path(path)
    with _workplace(path) as workplace:
        temporary = workplace / path.name
        yield temporary
        _finish(temporary, workplace)
        os.replace(temporary, path)
        _sync_folder(path.parent)


def check_writable(path):
    """Make sure that a file can be written, before long work that ends in it.

    Raises:
        OSError: as for `replacing`.
    """
    with _workplace(Path(path)):
        pass


@contextlib.contextmanager
def _workplace(path):
    """A hidden folder beside a file that is to be written, and errors of the
    disk in clearer words."""
    refuse_folder(path)
    # A folder and not just a file: whatever the writer makes beside it
    # (safetensors has a temporary file of its own) is cleared away too.
    workplace = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace.mkdir()
        _remove_abandoned(path, workplace)
        yield workplace
    except Exception as error:
        clearer = _cannot_write(path, error)
        if clearer is None:
            raise
        raise clearer from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _remove_abandoned(path, newest):
    """Remove what killed writers of ``path`` left, if it is a day old."""
    now = newest.stat().st_mtime  # the clock of the disk, not of this machine
    for other in path.parent.glob(f'.{glob.escape(path.name)}.*.part'):
        with contextlib.suppress(OSError):
            if now - other.stat().st_mtime > DAY:
                shutil.rmtree(other, ignore_errors=True)


def _finish(temporary, workplace):
    """Push a file to the disk, with the rights that new files have here."""
    if os.name == 'posix':  # some writers make files for the owner alone
        os.chmod(temporary, workplace.stat().st_mode & 0o666)
    with open(temporary, 'r+b') as file:
        os.fsync(file.fileno())


def _sync_folder(folder):
    if os.name == 'posix':  # elsewhere a folder cannot be opened
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


MAKE_ROOM = 'make room there, or '
NO_RIGHTS = 'you may not write there: '
NO_FOLDER = 'a file stands where a folder should: '
WAYS_OUT = {
    errno.ENOSPC: MAKE_ROOM, errno.EDQUOT: MAKE_ROOM, errno.EFBIG: MAKE_ROOM,
    errno.EACCES: NO_RIGHTS, errno.EPERM: NO_RIGHTS, errno.EROFS: NO_RIGHTS,
    errno.ENOTDIR: NO_FOLDER, errno.EEXIST: NO_FOLDER, errno.EIO: '',
    errno.ENOENT: 'no file can be made there: ',
}


def _cannot_write(path, error):
    """The error to raise if the disk is behind ``error``, else None."""
    number = getattr(error, 'errno', None)
    if type(error).__name__ == 'SafetensorError':
        # Its only trace of the system's error is the number in its text.
        found = re.search(r'os error (\d+)', str(error))
        number = int(found[1]) if found else None
    if number not in WAYS_OUT:
        return None
    return OSError(number, f'cannot write {path.name} in {path.parent} '
                   f'({os.strerror(number)}): {WAYS_OUT[number]}'
                   + (_name_another() if _is_ours(path)
                      else 'name a file elsewhere'))


def _is_ours(path):
    """Whether a file is to lie in the folder that the variable names."""
    with contextlib.suppress(OSError):
        return path.absolute().is_relative_to(cache_folder())
    return False


def one_line(text):
    """A text with all that could break its line, or a terminal, escaped."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1]
                   for c in str(text))


def read_input(path):
    """The bytes of a file that may come from anywhere.

    Args:
        path: ``pathlib.Path`` or ``zipfile.Path``.

    Raises:
        ValueError: it has more than ``MAX_INPUT`` of them.
        OSError: it cannot be read.
    """
    with path.open('rb') as file:
        data = file.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise ValueError(f'is larger than {MAX_INPUT:,} bytes')
    return data


def checksum(tensors):
    """CRC-32 of the bytes of tensors, names and all, as eight hex digits.

    It is there to notice a bad disk or a cut file, for which 32 bits will do.
    A stronger digest would not stop anyone, since whoever can change the file
    can change the digest in it, and takes seconds on a slow processor.

    Args:
        tensors: dictionary of contiguous CPU tensors.
    """
    import torch
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f'{name} {tensor.dtype} {tuple(tensor.shape)}'
                           .encode(), value)
        if tensor.numel():
            flat = tensor.reshape(-1).view(torch.uint8)
            value = zlib.crc32(flat.numpy().data, value)
    return f'{value:08x}'


def save_tensors(path, tensors, description):
    """Write tensors to one safetensors file, with a checksum, in one step.

    Args:
        path: the file.
        tensors: dictionary of contiguous CPU tensors.
        description: dictionary of strings that says what they are.

    Raises:
        OSError: no room, no rights; nothing half-written stays.
    """
    from safetensors.torch import save_file
    header = {**description, 'crc32': checksum(tensors)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_tensors(path, description):
    """Read back what ``save_tensors`` wrote, and check it.

    Args:
        path: the file.
        description: what the file must say that it holds.

    Returns:
        Dictionary of tensors. They are mapped from the file: memory is used
        for what is looked at, and writing to them leaves the file alone.

    Raises:
        OSError: the file cannot be opened, or there is none.
        DamagedFile: it is no safetensors file, is cut short, holds something
            else, or its checksum is wrong.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file
    path = Path(path)
    with open(path, 'rb'):
        pass  # a file that cannot be opened may be whole
    try:
        with safe_open(path, 'pt') as file:
            header = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedFile(f'{path}: cannot be read ({error})') from error
    wanted = {**description, 'crc32': checksum(tensors)}
    for key, value in wanted.items():
        if header.get(key) != value:
            raise DamagedFile(
                f'{path}: {key} is {header.get(key)!r}, not {value!r}')
    return tensors


def save_state(path, state, description):
    """Write a tree of tensors, numbers and texts, with a checksum, in one
    step.

    Args:
        path: the file.
        state: dictionary of dictionaries, lists, tensors and what JSON knows,
            such as the state of an optimizer. A tuple comes back as a list.
        description: dictionary of strings that says what it is.

    Raises:
        OSError: no room, no rights; nothing half-written stays.
        TypeError: the tree holds something else.
    """
    import torch
    tensors = {}
    text = json.dumps(_take_tensors(state, tensors))
    # As a tensor, since the checksum covers these and no more.
    tensors['tree'] = torch.frombuffer(bytearray(text.encode()),
                                       dtype=torch.uint8)
    save_tensors(path, tensors, description)


def load_state(path, description):
    """Read back what ``save_state`` wrote, and check it.

    Args and errors: as in ``load_tensors``.
    """
    tensors = load_tensors(path, description)
    try:
        text = tensors.pop('tree').numpy().tobytes()
        return _put_tensors(json.loads(text), tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedFile(f'{path}: holds no tree that can be read '
                          f'({error!r})') from error


def _take_tensors(value, tensors):
    """What JSON can say of a tree, its tensors put into ``tensors``."""
    import torch
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A copy: no two tensors of a file may share their memory.
        tensors[name] = value.detach().cpu().clone(
            memory_format=torch.contiguous_format)
        last = value.dim() == 4 and not value.is_contiguous()
        return {'tensor': name, 'channels_last': last}
    if isinstance(value, dict):  # JSON has keys of text alone
        return {'items': [[key, _take_tensors(each, tensors)]
                          for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(each, tensors) for each in value]
    return value


def _put_tensors(value, tensors):
    """Undo ``_take_tensors``."""
    import torch
    if isinstance(value, list):
        return [_put_tensors(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if 'tensor' in value:
        # Named once, for each takes memory; and a copy of its own, for a file
        # in use cannot be replaced on Windows.
        return tensors.pop(value['tensor']).clone(
            memory_format=torch.channels_last if value['channels_last']
            else torch.contiguous_format)
    return {key: _put_tensors(each, tensors) for key, each in value['items']}


def recall(path, description):
    """Tensors kept in an earlier run, or None where they must be made anew.

    A damaged file is removed with a warning that names it; a folder that
    cannot be read counts as empty.
    """
    try:
        return load_tensors(path, description)
    except DamagedFile as error:
        warnings.warn(f'kept file is damaged and is made anew: {error}',
                      stacklevel=2)
        with contextlib.suppress(OSError):
            Path(path).unlink()
    except OSError:
        pass
    return None


def keep(path, tensors, description):
    """Keep tensors for the next run; warn, and carry on, if that fails."""
    try:
        save_tensors(path, tensors, description)
    except OSError as error:
        warnings.warn(f'not kept for next time: {error}', stacklevel=2)
