"""Your own pictures: a folder with ``images/`` and a file of boxes.

The file is ``label.csv``, the table of the original banana archive (see
``table``), or ``annotations.json``, the COCO format that labelling tools
export (see ``coco``). Boxes are in pixels of the picture as one sees it, from
its upper left corner. A picture that the file does not mention has no object.
Two such folders named ``train`` and ``val`` (or, as in the original,
``bananas_train`` and ``bananas_val``) are the two splits; a single one is
divided by its file names, so that a picture stays in its split for good
(unless there are so few that none would be for validation: then one is taken,
which goes back when others come).
What else lies there is left out, with a note if it looks like data.

The same reader serves a folder on the disk and one inside a ZIP archive,
which is why paths here are used only as far as both kinds go.
"""
import hashlib
import io
import reprlib
import warnings
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import coco, table
from .drawn import num_workers, pad_labels
from .files import read_input
from .labels import Part, Problem, natural, nfc, number_classes, short, some
from .pictures import SIDE, is_picture_name, open_image, to_square

FOLDERS = ({'train': 'train', 'val': 'val'},
           {'train': 'bananas_train', 'val': 'bananas_val'})
READERS = (table, coco)
VAL_FRACTION = 0.2
SHOWN = 5  # problems that an error message spells out
# What reading a member of a damaged ZIP archive raises, and a bad disk.
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error,
              NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Picture:
    """One picture of a folder, as labelled.

    ``size`` is (width, height) in pixels, None if it cannot be read;
    ``classes`` holds numbers, None where a class is unknown; ``boxes`` is
    float64 ``(m, 4)``, corner format, in pixels.
    """

    path: object
    split: str  # 'train' or 'val', as training will have it
    size: tuple | None
    classes: list
    boxes: np.ndarray


@dataclass(frozen=True)
class Survey:
    """Everything that is in a folder, right or wrong."""

    problems: list  # of Problem, by file and place
    gaps: list  # of Problem: what sound files lack for training
    notes: list  # of strings: what is left out, and why; what looks odd
    classes: list  # names, in the order of their numbers
    pictures: list  # of Picture


def read_folder(path, split, classes=None, val_fraction=VAL_FRACTION,
                progress=True):
    """Read one split of a folder of labelled pictures.

    Args:
        path: the folder; see the head of this module for what lies in it.
        split: 'train' or 'val'.
        classes: names of the classes, in order. If not given, names are
            numbered in alphabetical order; see ``class_names``.
        val_fraction: share of the pictures of an undivided folder that are
            for validation, at least 0 and below 1.
        progress: whether to show a bar.

    Returns:
        uint8 tensor ``(N, 3, 256, 256)``, the pictures stretched to squares,
        and float32 tensor ``(N, m, 5)`` of class and corner box relative to
        the picture, filled up with rows of -1.

    Raises:
        ValueError: anything wrong in the folder, with file, place and value;
            ``check_folder`` lists all of it.
    """
    if split not in ('train', 'val'):
        raise ValueError(f"split = {split!r}: 'train' or 'val' is known")
    path = _as_path(path)
    parts = _read_parts(path)
    number_classes(parts.values(), classes)
    problems = [each for part in parts.values() for each in part.problems]
    if problems:
        raise _refusal(path, problems)
    key = split if split in parts else 'all'
    part = parts[key]
    sides = _sides(key, part.rows, val_fraction)
    chosen = [name for name in part.rows if sides[name] == split]
    if not chosen:
        raise ValueError(f'{part.folder}: {_none_left(split, val_fraction)}')
    for note in part.notes:
        warnings.warn(note, stacklevel=2)
    width = max(len(rows) for each in parts.values()
                for rows in each.rows.values())
    return _read_pictures(part, chosen, width, progress)


def check_folder(path, classes=None, progress=False):
    """Look at every line and every picture of a folder.

    Args:
        path, classes: as in ``read_folder``.
        progress: whether to show a bar.

    Returns:
        List of ``Problem``, by file and place; empty if all is sound.
        Whether there is enough to learn from, ``survey_folder`` says.
    """
    return survey_folder(path, classes, progress).problems


def survey_folder(path, classes=None, progress=False):
    """Look at every line and every picture of a folder, and tell all.

    Args:
        path, classes: as in ``read_folder``.
        progress: whether to show a bar.

    Returns:
        ``Survey``; its pictures are those of the file of boxes in its order,
        then the others.
    """
    path = _as_path(path)
    parts = _read_parts(path)
    names = number_classes(parts.values(), classes)
    pictures, places = [], {}
    for key, part in parts.items():
        sides = _sides(key, part.rows, VAL_FRACTION)
        squares = _squares(part, list(part.rows), progress)
        for (name, rows), (square, size) in zip(part.rows.items(), squares,
                                                strict=True):
            boxes = np.array([row.box for row in rows], np.float64)
            path_of = part.folder / 'images' / name
            if square is not None and (square != square[:, :1, :1]).any():
                digest = hashlib.blake2b(square).digest()
                places.setdefault(digest, []).append((sides[name], path_of))
            pictures.append(Picture(
                path_of, sides[name],
                None if square is None else size,
                [part.numbers[row.label] for row in rows],
                boxes.reshape(-1, 4)))
    problems = sorted({each for part in parts.values()
                       for each in part.problems})
    notes = [note for part in parts.values() for note in part.notes]
    # What is wrong may be all that is missing, so it is mended first.
    if problems:
        return Survey(problems, [], notes, names, pictures)
    gaps, odd = _find_gaps(path, pictures, names)
    twins, more = _find_twins(path, places.values())
    rows = parts['all'].rows if 'all' in parts else ()
    if len(rows) > 1 and min(map(_place, rows)) >= VAL_FRACTION:
        odd.append(f'{path}: so few pictures that the one in val was taken '
                   'from train, where it goes back when others come')
    return Survey([], gaps + twins, notes + odd + more, names, pictures)


def _find_twins(path, places):
    """Pictures that are there more than once: as ``Problem`` if training and
    validation have the same, else as a note."""
    both, alike = [], []
    for same in places:
        train, val = ([picture for side, picture in same if side == split]
                      for split in ('train', 'val'))
        if train and val:
            both += [Problem(
                str(picture), 0, f'the same picture as {train[0]}, which is '
                'for training; what was learnt by heart would be found, so '
                'remove one of them') for picture in val]
        else:
            alike += [picture.name for _, picture in same[1:]]
    notes = [f'{path}: {len(alike):,} the same as another picture: '
             f'{some(sorted(alike, key=natural))}'] if alike else []
    return sorted(both), notes


def _find_gaps(path, pictures, names):
    """What training on these pictures could not learn, as ``Problem``; and
    notes of what validation could not measure."""
    count = {split: Counter(number for each in pictures
                            if each.split == split for number in each.classes)
             for split in ('train', 'val')}
    train, val = count.values()
    texts = [_none_left(split, VAL_FRACTION) for split in count
             if all(each.split != split for each in pictures)]
    if not train:
        where = 'train' if val else 'it'
        texts.append(f'no box in {where}, so there is nothing to learn')
    else:
        texts += [f'class {short(names[number])} has no box in train and '
                  f'{val[number]:,} in val, so it is not learnt; label more '
                  'of it' for number in sorted(val.keys() - train.keys())]
    unseen = [names[number] for number in sorted(train.keys() - val.keys())]
    notes = [f'{path}: no box in val of class {some(unseen)}, so how well it '
             'is found will not be known'] if unseen and not texts else []
    return [Problem(str(path), 0, text) for text in texts], notes


def class_names(path, classes=None):
    """Names of the classes in a folder, in the order of their numbers.

    Args:
        path, classes: as in ``read_folder``.

    Returns:
        List of strings; numbers as text where the table has numbers.

    Raises:
        ValueError: anything wrong in the labels, for it may be why a class
            is missing, or there.
    """
    parts = _read_parts(_as_path(path)).values()
    names = number_classes(parts, classes)
    problems = [each for part in parts for each in part.problems]
    if problems:
        raise _refusal(path, problems)
    return names


def _as_path(path):
    return path if isinstance(path, zipfile.Path) else Path(path)


def _refusal(path, problems):
    problems = sorted(set(problems))
    count = len(problems)
    lines = [str(each) for each in problems[:SHOWN]]
    if count > SHOWN:
        lines.append(f'... and {count - SHOWN} more; '
                     f'`python -m d2lssd data check {path}` lists them all, '
                     'and looks into the pictures, too')
    plural = 'problem' if count == 1 else 'problems'
    lines.insert(0, f'{path}: {count} {plural}')
    error = ValueError('\n'.join(lines))
    error.lines = lines
    return error


# The parts ---------------------------------------------------------------

def _read_parts(path):
    """The parts of a folder, by split, or as 'all' if it is undivided."""
    for folders in FOLDERS:
        if any((path / name).is_dir() for name in folders.values()):
            parts = {split: _read_part(path / name)
                     for split, name in folders.items()}
            _note_beside(parts['train'], path, folders.values())
            return parts
    return {'all': _read_part(path)}


def _read_part(folder):
    part = Part(folder)
    if not folder.is_dir():
        part.complain('is a file; a folder is needed' if folder.exists()
                      else f'there is no such folder{_other_name(folder)}')
        return part
    if folder.name == 'images' and any(
            (folder.parent / reader.NAME).is_file() for reader in READERS):
        part.complain('holds the pictures alone; give the folder around it, '
                      f'{folder.parent}')
        return part
    images = folder / 'images'
    beside, _ = _names_in(part, folder)
    loose = [name for name in beside if is_picture_name(name)]
    hint = (f'; the pictures lie in {folder}, move them into {images}'
            if loose else '')
    files, others = _names_in(part, images, 'there is no such folder'
                              + (hint or '; the pictures belong in it'))
    part.reader = _find_reader(part, beside)
    if part.reader:
        present = ({nfc(name): name for name in sorted(files)}
                   | {name: name for name in files})
        try:
            data = read_input(folder / part.reader.NAME)
            part.reader.read(part, data, present)
        except ValueError as error:
            part.complain(str(error))
        except UNREADABLE as error:
            part.complain(f'cannot be read ({error})')
    part.check_twins()
    for name in sorted(files, key=natural):
        if is_picture_name(name):
            part.rows.setdefault(name, [])
    if not part.rows and not part.problems:
        part.complain(f'no picture is listed, and none lies in images{hint}')
    _note_left_out(part, images, (files - part.rows.keys()) | others,
                   'no picture files of a known kind')
    if part.rows:
        _note_left_out(part, folder, loose, 'beside images')
    return part


def _other_name(folder):
    """A hint for who calls a folder as other tools do."""
    for name in 'valid', 'validation':
        if folder.name == 'val' and (folder.parent / name).is_dir():
            return f'; rename {name} to val'
    return ''


def _note_beside(part, path, folders):
    """Note what would be read if it were not for the folders of splits."""
    files, others = _names_in(part, path)
    known = {'images', *(reader.NAME for reader in READERS)}
    _note_left_out(part, path, [name for name in files | others
                                if name in known or is_picture_name(name)],
                   f'beside {" and ".join(folders)}')


def _note_left_out(part, folder, names, why):
    names = sorted((name for name in names if not name.startswith('.')),
                   key=natural)
    if names:
        part.notes.append(
            f'{folder}: {len(names):,} left out, {why}: {some(names)}')


def _names_in(part, folder, missing='there is no such folder'):
    """Names of the files in a folder, and of what else is in it."""
    files, others = set(), set()
    try:
        if folder.is_dir():
            for each in folder.iterdir():
                # A pipe or a device would be read without end.
                (files if each.is_file() else others).add(each.name)
            return files, others
        reason = missing
    except UNREADABLE as error:
        reason = f'cannot be read ({error})'
    part.problems.append(Problem(str(folder), 0, reason))
    return set(), set()


def _find_reader(part, inside):
    """The reader of the one file of boxes among the names of files; None,
    with a reason, if there is not exactly one."""
    found = [reader for reader in READERS if reader.NAME in inside]
    if len(found) == 1:
        return found[0]
    names = [reader.NAME for reader in READERS]
    if found:
        part.complain(f'holds both {" and ".join(names)}, and the two may '
                      'differ; keep one')
    else:
        # Some labelling tools put the file one folder down.
        below = part.folder / 'annotations'
        if below.is_dir():
            inside = inside | {f'annotations/{name}'
                               for name in _names_in(part, below)[0]}
        others = sorted((name, known) for name in inside for known in names
                        if name.lower().endswith(Path(known).suffix))
        hint = ''
        if others:
            name, known = others[0]
            advice = 'put it here as' if '/' in name else 'rename it to'
            hint = f'; if {name!r} is one, {advice} {known}'
        part.complain(f'holds neither {" nor ".join(names)}; one of them '
                      f'must list the boxes{hint}')
    return None


# The pictures ------------------------------------------------------------

def _sides(key, names, fraction):
    """The split of each name: that of its folder, or by its hash."""
    if key != 'all':
        return dict.fromkeys(names, key)
    for_val = _validation_names(names, fraction)
    return {name: 'val' if name in for_val else 'train' for name in names}


def _none_left(split, fraction):
    return (f'no picture is left for the split {split!r}; add pictures, '
            f'change val_fraction = {fraction}, or make folders train and '
            'val')


def _validation_names(names, fraction):
    """The names whose hash falls below ``fraction``; at least one of two."""
    if (isinstance(fraction, bool) or not isinstance(fraction, (int, float))
            or not 0 <= fraction < 1):
        raise ValueError(f'val_fraction = {fraction!r}: a number from 0 to '
                         'below 1 is needed')
    place = {name: _place(name) for name in names}
    chosen = {name for name in names if place[name] < fraction}
    if len(names) > 1 and fraction:
        if not chosen:
            chosen = {min(names, key=place.get)}
        elif len(chosen) == len(names):
            chosen.discard(max(names, key=place.get))
    return chosen


def _place(name):
    """Where a name falls in [0, 1), the same on every machine."""
    data = hashlib.blake2b(nfc(name).encode('utf-8', 'surrogateescape'),
                           digest_size=8).digest()
    return int.from_bytes(data, 'big') / 2**64


def _read_pictures(part, chosen, width, progress):
    import torch
    images = np.empty((len(chosen), 3, SIDE, SIDE), np.uint8)
    boxes = []
    for i, (square, size) in enumerate(_squares(part, chosen, progress)):
        if square is not None:
            images[i] = square
        rows = part.rows[chosen[i]]
        some = np.array([row.box for row in rows], np.float64)
        boxes.append((some.reshape(-1, 4) / (*size, *size)).clip(0, 1))
    if part.problems:
        raise _refusal(part.folder, part.problems)
    classes = [[part.numbers[row.label] for row in part.rows[name]]
               for name in chosen]
    labels = pad_labels(boxes, classes, width)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _squares(part, chosen, progress):
    """Yield each picture as a square and its size; complain on the way.

    A picture that cannot be read gives None and the size (1, 1).
    """
    from tqdm.auto import tqdm
    with ThreadPoolExecutor(num_workers()) as pool:
        yield from tqdm(
            pool.map(lambda name: _square(part, name), chosen),
            total=len(chosen), desc=f'reading pictures of {part.folder}',
            unit='picture', disable=not (progress and chosen))


def _square(part, name):
    picture = part.folder / 'images' / name
    try:
        image = open_image(io.BytesIO(read_input(picture)), str(picture))
    except ValueError as error:
        text = str(error).removeprefix(f'{picture}: ')
        part.problems.append(Problem(str(picture), 0, text))
        return None, (1, 1)
    except UNREADABLE as error:
        part.problems.append(Problem(str(picture), 0,
                                     f'cannot be read ({error})'))
        return None, (1, 1)
    stated, path, line = part.sizes.get(name, (image.size, '', 0))
    if stated != image.size:
        width, height = map(reprlib.repr, stated)
        part.complain(f'width {width}, height {height}: {name} is '
                      f'{image.width} by {image.height} pixels as one sees '
                      'it, and its boxes must be too', line, path)
    for row in part.rows[name]:
        part.check_box(name, row, image.size)
    return to_square(image), image.size
