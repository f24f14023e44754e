"""What every way of listing boxes has in common: rows, parts, complaints.

A reader (``table`` for ``label.csv``, ``coco`` for ``annotations.json``)
turns its file into a ``Part``: a list of ``Row`` for each picture, and a
``Problem`` for each thing that is wrong. It never stops at the first.
"""
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

MAX_CLASSES = 1000
MAX_BOXES = 10_000  # in one picture; every picture's rows are filled up to it
SLACK = 0.02  # pixels that rounding to two decimals may put a side off


@dataclass(frozen=True)
class Problem:
    """Something wrong in a folder: the file, where in it, and what.

    ``line`` counts from 1; 0 stands for the file as a whole. In JSON, whose
    lines say little, ``path`` leads to the place: ``annotations[3]``.
    """

    file: str
    line: int
    text: str
    path: str = ''

    def __str__(self):
        line = f', line {self.line}' if self.line else ''
        path = f', {self.path}' if self.path else ''
        return f'{self.file}{line}{path}: {self.text}'

    def __lt__(self, other):
        return self._key() < other._key()

    def _key(self):
        return self.file, self.line, natural(self.path), self.text


@dataclass(frozen=True)
class Row:
    """One object; the class is still the text in the file."""

    label: str
    box: tuple  # 4 floats, pixels, corner format
    line: int = 0
    path: str = ''
    name: str = ''  # what complaints call it besides


@dataclass
class Part:
    """A folder with ``images/`` and a list of boxes, as far as understood."""

    folder: object
    reader: object = None  # the module that read it
    rows: dict = field(default_factory=dict)  # picture name -> list of Row
    sizes: dict = field(default_factory=dict)  # name -> (size, path), if said
    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    @property
    def file(self):
        """The file that lists the boxes; the folder if there is none."""
        return str(self.folder / self.reader.NAME if self.reader
                   else self.folder)

    def complain(self, text, line=0, path=''):
        self.problems.append(Problem(self.file, line, text, path))

    def add(self, picture, row):
        """Take in a row of a picture, unless the picture has too many."""
        rows = self.rows[picture]
        if len(rows) > MAX_BOXES:
            return
        rows.append(row)
        if len(rows) > MAX_BOXES:
            self.complain(f'is box {len(rows):,} of {short(picture)}; at most '
                          f'{MAX_BOXES:,} in a picture are read', row.line,
                          row.path)

    def check_box(self, picture, row, size):
        """Complain if a box does not fit its picture's (width, height)."""
        for text in self.reader.wrong_box(row.box, size):
            name = f'{row.name}, ' if row.name else ''
            self.complain(f'{text} ({name}in {picture})', row.line, row.path)


def decode(data):
    """The text of a file; ValueError if it is not UTF-8."""
    if data.startswith((b'\xff\xfe', b'\xfe\xff')):
        raise ValueError('is UTF-16 text; save it in UTF-8')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise ValueError(
            f'is not UTF-8 text: byte {data[error.start]:#x} in line {line}; '
            'save it in UTF-8') from error


def wrong_name(field, name, present):
    """What is wrong with the name of a picture in ``field``, or None."""
    if not name:
        return f'{field} is empty'
    if (name in ('.', '..') or PurePosixPath(name).name != name
            or PureWindowsPath(name).name != name):
        return (f'{field} {short(name)} leads out of the folder; pictures '
                'lie in images and are named without a folder')
    if name in present:
        return None
    near = [other for other in present if other.lower() == name.lower()
            or other.rpartition('.')[0] == name]
    hint = f'; {min(near)!r} is' if near else ''
    return f'no picture {short(name)} is in images{hint}'


def natural(name):
    """A key that sorts 2.png before 10.png."""
    return [(part.isdigit(), part.zfill(20) if part.isdigit() else part)
            for part in re.split('([0-9]+)', name)]


def short(text):
    """The repr of a text, cut if it is long."""
    return repr(text if len(text) <= 60 else text[:57] + '...')


def number(text):
    """A finite number written in plain digits, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and '_' not in text else None


def whole(text):
    """A class number; tables made with pandas may write 1 as 1.0."""
    match = re.fullmatch(r'([0-9]{1,9})(\.0*)?', text)
    return int(match[1]) if match else None


# The classes -------------------------------------------------------------

def number_classes(parts, classes):
    """Complain of bad classes; return the class names in order."""
    if classes is not None:
        classes = _checked_classes(classes)
    texts = {row.label for part in parts
             for rows in part.rows.values() for row in rows}
    names = classes
    if names is None and _are_names(parts, texts):
        names = sorted(texts)
    if names is None:
        known = [value for value in map(whole, texts)
                 if value is not None and value < MAX_CLASSES]
        names = [str(i) for i in range(max(known, default=0) + 1)]
    for part in parts:
        for rows in part.rows.values():
            for row in rows:
                if class_number(row.label, names) is None:
                    part.complain(_bad_class(row.label, names, classes),
                                  row.line, row.path)
    return names


def _are_names(parts, texts):
    """Whether the classes are names, and not numbers written as text."""
    if not any(number(text) is not None for text in texts):
        return True
    # Where each class was named on purpose, '100' beside 'coin' is a name.
    return (all(part.reader and part.reader.NAMED for part in parts)
            and any(whole(text) is None for text in texts))


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


def class_number(text, names):
    """The number of a class that is a name or a number; None if unknown."""
    if text in names:
        return names.index(text)
    value = whole(text)
    return value if value is not None and value < len(names) else None


def _bad_class(text, names, given):
    if given:
        return (f'class {short(text)} is unknown; one of '
                f'{short(", ".join(names))} or a number from 0 to '
                f'{len(names) - 1} is needed')
    if number(text) is None:
        return (f'class {short(text)} is a name and others are numbers; use '
                'one or the other, or give a list of classes')
    return (f'class {short(text)} is out of range; a whole number from 0 to '
            f'{MAX_CLASSES - 1} is needed')
