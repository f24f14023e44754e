"""What every way of listing boxes has in common: rows, parts, complaints.

A reader (``table`` for ``label.csv``, ``coco`` for ``annotations.json``)
turns its file into a ``Part``: a list of ``Row`` for each picture, and a
``Problem`` for each thing that is wrong. It never stops at the first.
"""
import math
import re
import unicodedata
from dataclasses import dataclass, field

MAX_CLASSES = 1000
MAX_PROBLEMS = 1000  # of a part: a file of nothing else would fill the memory
MAX_BOXES = 2000  # in one picture; every picture's rows are filled up to it
SLACK = 0.02  # pixels that rounding to two decimals may put a side off
FEW = 3  # of many names, those that a message spells out


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

    @property
    def place(self):
        """Where it stands in the file."""
        return self.path or f'line {self.line}'


@dataclass
class Part:
    """A folder with ``images/`` and a list of boxes, as far as understood."""

    folder: object
    reader: object = None  # the module that read it
    rows: dict = field(default_factory=dict)  # picture name -> list of Row
    sizes: dict = field(default_factory=dict)  # name -> size, path, line
    numbers: dict = field(default_factory=dict)  # class -> number or None
    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    @property
    def file(self):
        """The file that lists the boxes; the folder if there is none."""
        return str(self.folder / self.reader.NAME if self.reader
                   else self.folder)

    @property
    def named(self):
        """Whether classes are names here, even if they look like numbers."""
        return bool(self.reader and self.reader.NAMED)

    def complain(self, text, line=0, path=''):
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.file, line, text, path))
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append(Problem(
                self.file, 0, f'more is wrong than these {MAX_PROBLEMS:,} '
                'things; the rest is told when they are mended'))

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

    def check_twins(self):
        """Complain of each box that its picture has already."""
        for picture, rows in self.rows.items():
            first = {}
            for row in rows:
                other = first.setdefault(row.box, row)
                if other is row:
                    continue
                name = f'{row.name}, ' if row.name else ''
                advice = 'remove one' if row.label == other.label else (
                    f'it is {short(row.label)} here and {short(other.label)} '
                    'there, so remove one')
                self.complain(f'same box as {other.place}; {advice} '
                              f'({name}in {picture})', row.line, row.path)

    def labels(self):
        """The classes in it, as they stand in the file."""
        return {row.label for rows in self.rows.values() for row in rows}


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


def nfc(text):
    """A text in one of the two forms in which Unicode spells an é."""
    return unicodedata.normalize('NFC', text)


def last_part(name):
    """What comes after the folders in a name, of whichever system."""
    return re.split(r'[/\\]', name)[-1]


def find_picture(name, present):
    """The file that a name in a list means, or None.

    Args:
        name: as it stands in the list.
        present: the names of the files in ``images/``, each by itself and by
            its NFC form.
    """
    return present.get(name) or present.get(nfc(name))


def wrong_name(field, name, present):
    """What is wrong with a name in ``field`` that no picture has."""
    if not name:
        return f'{field} is empty'
    last = last_part(name)
    if not last:
        return (f'{field} {short(name)} is a folder; the name of a picture '
                'is needed')
    said = '' if last == name else f'{field} {short(name)} is a path; '
    found = find_picture(last, present)
    if found:
        return (f'{said}pictures lie in images and are named without a '
                f'folder: {short(found)}')
    near = [other for other in present.values()
            if other.lower() == last.lower()
            or other.rpartition('.')[0] == last]
    hint = f'; {min(near)!r} is' if near else ''
    return f'{said}no picture {short(last)} is in images{hint}'


def natural(name):
    """A key that sorts 2.png before 10.png."""
    return [(part.isdigit(), part.zfill(20) if part.isdigit() else part)
            for part in re.split('([0-9]+)', name)]


def short(text):
    """The repr of a text, cut if it is long."""
    return repr(text if len(text) <= 60 else text[:57] + '...')


def some(names):
    """The first few of many names, for a message."""
    shown = ', '.join(short(name) for name in names[:FEW])
    more = len(names) - FEW
    return f'{shown} and {more:,} more' if more > 0 else shown


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
    """Give each class its number, and complain of bad ones.

    COCO names every class on purpose: even '5' is a name there. In a table,
    classes are numbers as soon as one of them looks like a number.

    Args:
        parts: of `Part`; their ``numbers`` are filled in.
        classes: names, in order; None to take those in the parts.

    Returns:
        List of names, in the order of their numbers.
    """
    named = {text for part in parts if part.named for text in part.labels()}
    listed = {text for part in parts if not part.named
              for text in part.labels()}
    digits = {text for text in listed if number(text) is not None}
    rows = [row.label in digits for part in parts if not part.named
            for some in part.rows.values() for row in some]
    # Where some are names, what there is less of is the slip.
    numbered = bool(digits) and not named and 2 * sum(rows) >= len(rows)
    if classes is not None:
        names = checked_classes(classes)
    elif numbered:
        names = _numbers(parts, digits)
    else:
        names = sorted(named | (listed - digits))
    if len(names) > MAX_CLASSES:
        next(part for part in parts if part.labels()).complain(
            f'{len(names):,} different classes, as {some(names)}; at most '
            f'{MAX_CLASSES:,} can be learnt')
        for part in parts:
            part.numbers = dict.fromkeys(part.labels())
        return names[:MAX_CLASSES]
    for part in parts:
        # Numbers stand for the names of a list, too, but not for COCO's.
        by_number = (numbered or classes is not None) and not part.named
        look_up = class_number if by_number else _position
        part.numbers = {text: look_up(text, names) for text in part.labels()}
        for rows in part.rows.values():
            for row in rows:
                if part.numbers[row.label] is None:
                    part.complain(
                        _bad_class(row.label, names, classes, part.named),
                        row.line, row.path)
    return names


def _numbers(parts, texts):
    """The numbers up to the greatest in tables, with a note of the unused."""
    used = {value for value in map(whole, texts)
            if value is not None and value < MAX_CLASSES}
    names = [str(i) for i in range(max(used, default=0) + 1)]
    unused = [name for i, name in enumerate(names) if i not in used]
    if used and unused:
        part = next(part for part in parts if part.labels())
        part.notes.append(
            f'{part.file}: no box is of class {some(unused)}; classes that '
            'are numbers count from 0, and the network learns '
            f'{len(names):,} of them')
    return names


def _position(text, names):
    return names.index(text) if text in names else None


def checked_classes(classes):
    """Names of classes, as a list of different ones.

    Raises:
        ValueError: they are none.
    """
    if isinstance(classes, str):
        raise ValueError(f'classes = {classes!r}: a list of names is needed, '
                         f'as [{classes!r}]')
    classes = list(classes)
    if not classes or not all(
            isinstance(each, str) and each for each in classes):
        raise ValueError(f'classes = {classes}: a list of names is needed')
    if len(classes) > MAX_CLASSES:
        raise ValueError(f'classes = {some(classes)}: at most '
                         f'{MAX_CLASSES:,} can be learnt')
    classes = [nfc(each) for each in classes]
    if len(set(classes)) < len(classes):
        raise ValueError(f'classes = {classes}: a name appears twice')
    return classes


def class_number(text, names):
    """The number of a class that is a name or a number; None if unknown."""
    if text in names:
        return names.index(text)
    value = whole(text)
    return value if value is not None and value < len(names) else None


def _bad_class(text, names, given, named):
    if given:
        number_too = '' if named else (' or a number from 0 to '
                                       f'{len(names) - 1}')
        return (f'class {short(text)} is unknown; one of '
                f'{short(", ".join(names))}{number_too} is needed')
    if number(text) is None:
        return (f'class {short(text)} is a name and others are numbers; use '
                'one or the other')
    if whole(text) is not None and whole(text) < MAX_CLASSES:
        return (f'class {short(text)} is a number and others are names; use '
                'one or the other')
    return (f'class {short(text)} is out of range; a whole number from 0 to '
            f'{MAX_CLASSES - 1} is needed')
