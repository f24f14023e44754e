"""Boxes in a table: ``label.csv``.

The columns are those of the original banana archive::

    img_name,label,xmin,ymin,xmax,ymax
    kitchen.jpg,0,31,112,96,170

A picture with several objects has several rows. One with none has a row with
nothing after its name, or no row at all. Classes are whole numbers from 0, or
names. Width and height, if there are columns for both, must be those of the
picture; other columns are left out.
"""
import csv
import io

from .labels import (
    SLACK,
    Row,
    decode,
    find_picture,
    nfc,
    number,
    short,
    wrong_name,
)

NAME = 'label.csv'
NAMED = False  # classes may be numbers
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
COLUMNS = ('img_name', 'label', *CORNERS)
SIZE = ('width', 'height')  # of the picture: need not be there


def read(part, data, present):
    """Fill a part with the rows of a table; see `coco.read`."""
    reader = csv.reader(io.StringIO(decode(data), newline=''), strict=True)
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
                part.complain(f'has {len(fields)} fields, and the heading '
                              f'has {width}', reader.line_num)
            else:
                row = {name: fields[i] for name, i in place.items()}
                _read_row(part, reader.line_num, row, present)
    except csv.Error as error:
        part.complain(f'is not CSV ({error})', reader.line_num)
    if place is None:
        part.complain(f'is empty; the first line should be '
                      f'{",".join(COLUMNS)}')


def _heading(part, line, fields):
    names = [each.strip() for each in fields]
    missing = [name for name in COLUMNS if name not in names]
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if missing:
        hint = ''
        if len(names) == 1:
            hint = '; columns are separated by commas'
        part.complain(f'no column {", ".join(missing)} in the heading '
                      f'{short(",".join(names))}; it should be '
                      f'{",".join(COLUMNS)}{hint}', line)
    if twice:
        part.complain(f'column {", ".join(twice)} appears twice', line)
    if missing or twice:
        return None
    return {name: names.index(name) for name in COLUMNS + SIZE
            if name in names}


def _read_row(part, line, row, present):
    text = row['img_name']
    name = (find_picture(text, present)
            or find_picture(text.strip(), present))
    if not name:
        part.complain(wrong_name('img_name', text.strip(), present), line)
        return
    part.rows.setdefault(name, [])
    size = [number(row.get(side, '')) for side in SIZE]
    if None not in size:
        size = tuple(int(n) if n.is_integer() else n for n in size)
        part.sizes.setdefault(name, (size, '', line))
    label = nfc(row['label'].strip())
    texts = [row[corner].strip() for corner in CORNERS]
    if not label and not any(texts):
        return  # a picture without an object
    if not label:
        part.complain('label is empty and the box is not', line)
    numbers = [number(text) for text in texts]
    for corner, text, value in zip(CORNERS, texts, numbers, strict=True):
        if value is None:
            part.complain(f'{corner} is {short(text)}, which is not a '
                          'number; a number of pixels is needed', line)
    if label and None not in numbers:
        part.add(name, Row(label, tuple(numbers), line))


def wrong_box(box, size):
    """What is wrong with a box in pixels, as a list of texts.

    Args:
        box: four finite numbers, corner format.
        size: (width, height) of the picture in pixels.
    """
    found = []
    for axis, length, word in ((0, size[0], 'wide'), (1, size[1], 'high')):
        low, high = box[axis], box[axis + 2]
        name_low, name_high = CORNERS[axis], CORNERS[axis + 2]
        for name, value in ((name_low, low), (name_high, high)):
            if not -SLACK <= value <= length + SLACK:
                found.append(f'{name} {value:g} is outside the picture, '
                             f'which is {length} pixels {word}')
        if low > high:
            side = 'right of' if axis == 0 else 'below'
            found.append(f'{name_low} {low:g} is {side} {name_high} {high:g};'
                         f' swap them, or is {high:g} the '
                         f'{"width" if axis == 0 else "height"}?')
        elif high - low < 1 - SLACK:
            found.append(f'{name_low} {low:g} to {name_high} {high:g} is less '
                         'than one pixel; boxes are in pixels, not shares')
    return found
