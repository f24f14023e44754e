"""Your own pictures: a folder with ``images/`` and ``label.csv``.

The table has the columns of the original banana archive::

    img_name,label,xmin,ymin,xmax,ymax
    kitchen.jpg,0,31,112,96,170

Boxes are in pixels of the picture as one sees it, from its upper left corner.
A picture with several objects has several rows. One with none has a row with
nothing after its name, or no row at all. Classes are whole numbers from 0, or
names. Two such folders named ``train`` and ``val`` (or, as in the original,
``bananas_train`` and ``bananas_val``) are the two splits; a single one is
divided by its file names, so that a picture stays in its split for good.

The same reader serves a folder on the disk and one inside a ZIP archive,
which is why paths here are used only as far as both kinds go.
"""
import csv
import hashlib
import io
import math
import re
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from .drawn import num_workers, pad_labels
from .pictures import SIZE, is_picture_name, open_image, to_square

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
COLUMNS = ('img_name', 'label', *CORNERS)
FOLDERS = ({'train': 'train', 'val': 'val'},
           {'train': 'bananas_train', 'val': 'bananas_val'})
MAX_CLASSES = 1000
MAX_BOXES = 10_000  # in one picture; every picture's rows are filled up to it
SHOWN = 5  # problems that an error message spells out
# What reading a member of a damaged ZIP archive raises, and a bad disk.
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error,
              NotImplementedError, RuntimeError)


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a folder: the file, the line or 0, and what."""

    file: str
    line: int
    text: str

    def __str__(self):
        line = f', line {self.line}' if self.line else ''
        return f'{self.file}{line}: {self.text}'


@dataclass(frozen=True)
class Row:
    """One object in ``label.csv``; the class is still the text there."""

    line: int
    label: str
    box: tuple  # 4 floats, pixels


@dataclass
class Part:
    """One folder with ``images/`` and ``label.csv``, as far as understood."""

    folder: object
    rows: dict = field(default_factory=dict)  # picture name -> list of Row
    problems: list = field(default_factory=list)

    @property
    def table(self):
        return str(self.folder / 'label.csv')

    def complain(self, line, text):
        self.problems.append(Problem(self.table, line, text))


def read_folder(path, split, classes=None, val_fraction=0.1, progress=True):
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
        ValueError: anything wrong in the folder, with file, line and value;
            ``check_folder`` lists all of it.
    """
    if split not in ('train', 'val'):
        raise ValueError(f"split = {split!r}: 'train' or 'val' is known")
    path = _as_path(path)
    parts = _read_parts(path)
    names = _number_classes(parts, classes)
    problems = [each for part in parts.values() for each in part.problems]
    if problems:
        raise _refusal(path, problems)
    part = parts.get(split) or parts['all']
    chosen = list(part.rows)
    if 'all' in parts:
        chosen = [name for name in chosen if (split == 'val') == (
            name in _validation_names(chosen, val_fraction))]
    if not chosen:
        raise ValueError(f'{part.folder}: no picture is left for the split '
                         f'{split!r}; add pictures, change val_fraction = '
                         f'{val_fraction}, or make folders train and val')
    width = max(len(rows) for each in parts.values()
                for rows in each.rows.values())
    return _read_pictures(part, chosen, names, width, progress)


def check_folder(path, classes=None, progress=False):
    """Look at every line and every picture of a folder.

    Args:
        path, classes: as in ``read_folder``.
        progress: whether to show a bar.

    Returns:
        List of ``Problem``, by file and line; empty if all is well.
    """
    path = _as_path(path)
    parts = _read_parts(path)
    _number_classes(parts, classes)
    for part in parts.values():
        for _ in _squares(part, list(part.rows), progress):
            pass
    return sorted({each for part in parts.values() for each in part.problems})


def class_names(path, classes=None):
    """Names of the classes in a folder, in the order of their numbers.

    Args:
        path, classes: as in ``read_folder``.

    Returns:
        List of strings; numbers as text where the table has numbers.
    """
    path = _as_path(path)
    return _number_classes(_read_parts(path), classes)


def _as_path(path):
    return path if isinstance(path, zipfile.Path) else Path(path)


def _refusal(path, problems):
    problems = sorted(set(problems))
    count = len(problems)
    lines = [str(each) for each in problems[:SHOWN]]
    if count > SHOWN:
        lines.append(f'... and {count - SHOWN} more; '
                     'd2lssd.data.check_folder lists them all')
    plural = 'problem' if count == 1 else 'problems'
    return ValueError('\n'.join([f'{path}: {count} {plural}', *lines]))


# The table ---------------------------------------------------------------

def _read_parts(path):
    """The parts of a folder, by split, or as 'all' if it is undivided."""
    for folders in FOLDERS:
        if any((path / name).is_dir() for name in folders.values()):
            return {split: _read_part(path / name)
                    for split, name in folders.items()}
    return {'all': _read_part(path)}


def _read_part(folder):
    part = Part(folder)
    present = _present(part)
    try:
        text = _decode((folder / 'label.csv').read_bytes())
    except FileNotFoundError:
        part.complain(0, 'there is no such file; it lists the boxes, under '
                      f'the heading {",".join(COLUMNS)}')
    except ValueError as error:
        part.complain(0, str(error))
    except UNREADABLE as error:
        part.complain(0, f'cannot be read ({error})')
    else:
        _read_table(part, text, present)
    for name in sorted(present, key=_natural):
        if is_picture_name(name):
            part.rows.setdefault(name, [])
    if not part.rows and not part.problems:
        part.complain(0, 'no picture is listed, and none lies in images')
    return part


def _present(part):
    """Names of the files in ``images/``."""
    folder = part.folder / 'images'
    try:
        if folder.is_dir():
            return {entry.name for entry in folder.iterdir()}
        reason = 'there is no such folder; the pictures belong in it'
    except UNREADABLE as error:
        reason = f'cannot be read ({error})'
    part.problems.append(Problem(str(folder), 0, reason))
    return set()


def _natural(name):
    """A key that sorts 2.png before 10.png."""
    return [(part.isdigit(), part.zfill(20) if part.isdigit() else part)
            for part in re.split('([0-9]+)', name)]


def _decode(data):
    if data.startswith((b'\xff\xfe', b'\xfe\xff')):
        raise ValueError('is UTF-16 text; save it as CSV in UTF-8')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise ValueError(
            f'is not UTF-8 text: byte {data[error.start]:#x} in line {line}; '
            'save it as CSV in UTF-8') from error


def _read_table(part, text, present):
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    place = None  # column name -> position
    try:
        for fields in reader:
            if not any(each.strip() for each in fields):
                continue
            if place is None:
                place = _heading(part, reader.line_num, fields)
                if place is None:
                    return
                width = len(fields)
            elif len(fields) != width:
                part.complain(reader.line_num, f'has {len(fields)} fields, '
                              f'and the heading has {width}')
            else:
                row = {name: fields[i] for name, i in place.items()}
                _read_row(part, reader.line_num, row, present)
    except csv.Error as error:
        part.complain(reader.line_num, f'is not CSV ({error})')
    if place is None:
        part.complain(0, 'is empty; the first line should be '
                      f'{",".join(COLUMNS)}')


def _heading(part, line, fields):
    names = [each.strip() for each in fields]
    missing = [name for name in COLUMNS if name not in names]
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if missing:
        hint = ''
        if len(names) == 1:
            hint = '; columns are separated by commas'
        part.complain(line, f'no column {", ".join(missing)} in the heading '
                      f'{_short(",".join(names))}; it should be '
                      f'{",".join(COLUMNS)}{hint}')
    if twice:
        part.complain(line, f'column {", ".join(twice)} appears twice')
    if missing or twice:
        return None
    return {name: names.index(name) for name in COLUMNS}


def _read_row(part, line, row, present):
    name = row['img_name']
    name = name if name in present else name.strip()
    wrong = _wrong_name(name, present)
    if wrong:
        part.complain(line, wrong)
        return
    rows = part.rows.setdefault(name, [])
    label = row['label'].strip()
    texts = [row[corner].strip() for corner in CORNERS]
    if not label and not any(texts):
        return  # a picture without an object
    if not label:
        part.complain(line, 'label is empty and the box is not')
    numbers = [number(text) for text in texts]
    for corner, text, value in zip(CORNERS, texts, numbers, strict=True):
        if value is None:
            part.complain(line, f'{corner} is {_short(text)}, which is not '
                          'a number; a number of pixels is needed')
    if not label or None in numbers or len(rows) > MAX_BOXES:
        return
    rows.append(Row(line, label, tuple(numbers)))
    if len(rows) > MAX_BOXES:
        part.complain(line, f'is box {len(rows):,} of {_short(name)}; at '
                      f'most {MAX_BOXES:,} in a picture are read')


def _wrong_name(name, present):
    if not name:
        return 'img_name is empty'
    if (name in ('.', '..') or PurePosixPath(name).name != name
            or PureWindowsPath(name).name != name):
        return (f'img_name {_short(name)} leads out of the folder; pictures '
                'lie in images and are named without a folder')
    if name in present:
        return None
    near = [other for other in present if other.lower() == name.lower()
            or other.rpartition('.')[0] == name]
    hint = f'; {min(near)!r} is' if near else ''
    return f'no picture {_short(name)} is in images{hint}'


def number(text):
    """A finite number written in plain digits, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and '_' not in text else None


def _short(text):
    return repr(text if len(text) <= 60 else text[:57] + '...')


# The classes -------------------------------------------------------------

def _number_classes(parts, classes):
    """Complain of bad classes; return the class names in order."""
    if classes is not None:
        classes = _checked_classes(classes)
    texts = {row.label for part in parts.values()
             for rows in part.rows.values() for row in rows}
    by_name = not any(number(text) is not None for text in texts)
    names = classes
    if names is None and by_name:
        names = sorted(texts)
    if names is None:
        known = [value for value in map(_whole, texts)
                 if value is not None and value < MAX_CLASSES]
        names = [str(i) for i in range(max(known, default=0) + 1)]
    for part in parts.values():
        for rows in part.rows.values():
            for row in rows:
                if _class_number(row.label, names) is None:
                    part.complain(row.line,
                                  _bad_class(row.label, names, classes))
    return names


def _checked_classes(classes):
    if isinstance(classes, str):
        raise ValueError(f'classes = {classes!r}: a list of names is needed, '
                         f'as [{classes!r}]')
    classes = list(classes)
    if not classes or not all(isinstance(each, str) for each in classes):
        raise ValueError(f'classes = {classes}: a list of names is needed')
    if len(set(classes)) < len(classes):
        raise ValueError(f'classes = {classes}: a name appears twice')
    return classes


def _whole(text):
    """A class number; tables made with pandas may write 1 as 1.0."""
    match = re.fullmatch(r'([0-9]{1,9})(\.0*)?', text)
    return int(match[1]) if match else None


def _class_number(text, names):
    if text in names:
        return names.index(text)
    value = _whole(text)
    return value if value is not None and value < len(names) else None


def _bad_class(text, names, given):
    if given:
        return (f'class {_short(text)} is unknown; one of '
                f'{_short(", ".join(names))} or a number from 0 to '
                f'{len(names) - 1} is needed')
    if number(text) is None:
        return (f'class {_short(text)} is a name and other lines have '
                'numbers; use one or the other, or give a list of classes')
    return (f'class {_short(text)} is out of range; a whole number from 0 to '
            f'{MAX_CLASSES - 1} is needed')


# The pictures ------------------------------------------------------------

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
    data = hashlib.blake2b(name.encode('utf-8', 'surrogateescape'),
                           digest_size=8).digest()
    return int.from_bytes(data, 'big') / 2**64


def _read_pictures(part, chosen, names, width, progress):
    import torch
    images = np.empty((len(chosen), 3, SIZE, SIZE), np.uint8)
    boxes = []
    for i, (square, size) in enumerate(_squares(part, chosen, progress)):
        if square is not None:
            images[i] = square
        rows = part.rows[chosen[i]]
        boxes.append(np.array([row.box for row in rows], np.float64)
                     .reshape(-1, 4) / (*size, *size))
    if part.problems:
        raise _refusal(part.folder, part.problems)
    classes = [[_class_number(row.label, names) for row in part.rows[name]]
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
            unit='picture', disable=not progress)


def _square(part, name):
    picture = part.folder / 'images' / name
    try:
        image = open_image(io.BytesIO(picture.read_bytes()), str(picture))
    except ValueError as error:
        text = str(error).removeprefix(f'{picture}: ')
        part.problems.append(Problem(str(picture), 0, text))
        return None, (1, 1)
    except UNREADABLE as error:
        part.problems.append(Problem(str(picture), 0,
                                     f'cannot be read ({error})'))
        return None, (1, 1)
    for row in part.rows[name]:
        for text in _wrong_box(row.box, image.size):
            part.complain(row.line, f'{text} (in {name})')
    return to_square(image), image.size


def _wrong_box(box, size):
    """What is wrong with a box in pixels, as a list of texts."""
    found = []
    for axis, length, word in ((0, size[0], 'wide'), (1, size[1], 'high')):
        low, high = box[axis], box[axis + 2]
        name_low, name_high = CORNERS[axis], CORNERS[axis + 2]
        for name, value in ((name_low, low), (name_high, high)):
            if not 0 <= value <= length:
                found.append(f'{name} {value:g} is outside the picture, '
                             f'which is {length} pixels {word}')
        if low > high:
            side = 'right of' if axis == 0 else 'below'
            found.append(f'{name_low} {low:g} is {side} {name_high} {high:g};'
                         ' swap them')
        elif high - low < 1:
            found.append(f'{name_low} {low:g} to {name_high} {high:g} is less '
                         'than one pixel; boxes are in pixels, not shares')
    return found
