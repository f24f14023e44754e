"""Boxes as the COCO data set lists them: ``annotations.json``.

It is what most labelling tools export, an object with three lists::

    {"images": [{"id": 7, "file_name": "kitchen.jpg"}],
     "categories": [{"id": 1, "name": "banana"}],
     "annotations": [{"id": 90, "image_id": 7, "category_id": 1,
                      "bbox": [31, 112, 65, 58]}]}

A ``bbox`` is ``[x, y, width, height]`` in pixels, from the upper left corner
of the picture. An id is any number or text; only which annotation belongs
together with which image and category depends on it. Classes go by their
names, also where such a name looks like a number. Annotations of a whole
crowd, ``iscrowd`` 1, are no boxes of single objects and are left out. Of a
``file_name`` with folders in front, as labelling tools know their pictures,
the last part counts; the path itself is never followed.

Lin et al., Microsoft COCO: common objects in context, 2014, arXiv:1405.0312.
"""
import json
import math
import reprlib

from .labels import (
    SLACK,
    Row,
    decode,
    find_picture,
    last_part,
    nfc,
    short,
    wrong_name,
)

NAME = 'annotations.json'
NAMED = True  # every class has a name
LISTS = ('images', 'categories', 'annotations')
BBOX = 'a bbox is [x, y, width, height] in pixels'
MISSING = object()

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def read(part, data, present):
    """Fill a part with the annotations of a COCO file.

    Args:
        part: ``labels.Part``; what is wrong is complained of there.
        data: the bytes of the file.
        present: the files in ``images/``; see `labels.find_picture`.

    Raises:
        ValueError: the bytes are not text.
    """
    content = _parse(part, decode(data))
    if content is None:
        return
    strange = []
    names = _read_list(part, content, 'images', _image, present, {}, strange)
    classes = _read_list(part, content, 'categories', _category, set())
    crowds = 0
    for i, each in enumerate(content['annotations']):
        path = f'annotations[{i}]'
        if not isinstance(each, dict):
            part.complain(_not_object(each), path=path)
        elif each.get('iscrowd', 0) == 1:
            crowds += 1
        else:
            _annotation(part, path, each, names, classes)
    if strange:
        plural = 's' * (len(strange) > 1)
        part.notes.append(
            f'{part.file}: {len(strange):,} file_name{plural} '
            f'with folders, as {short(strange[0])}; the last part of each is '
            'looked up in images')
    if crowds:
        part.notes.append(
            f'{part.file}: {crowds:,} annotation{"s" * (crowds > 1)} of a '
            'crowd (iscrowd 1) left out: a box around many objects is none '
            'of them')


def _parse(part, text):
    """The object in the file with its three lists, or None."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        part.complain(f'is not JSON ({error.msg}, column {error.colno})',
                      error.lineno)
        return None
    except (ValueError, RecursionError) as error:  # a number, or depth
        part.complain(f'is not JSON that can be read ({error})')
        return None
    if not isinstance(content, dict):
        part.complain(f'is {_repr.repr(content)}; an object with the lists '
                      f'{", ".join(LISTS)} is needed')
        return None
    wrong = [name for name in LISTS
             if not isinstance(content.get(name), list)]
    for name in wrong:
        part.complain(f'no list {name}; an object with the lists '
                      f'{", ".join(LISTS)} is needed', path=name)
    return None if wrong else content


def _read_list(part, content, kind, read_one, *more):
    """Value of each id in a list of objects; None if there was a fault."""
    found = {}
    for i, each in enumerate(content[kind]):
        path = f'{kind}[{i}]'
        if not isinstance(each, dict):
            part.complain(_not_object(each), path=path)
            continue
        key = each.get('id', MISSING)
        if not _is_id(key):
            part.complain(_missing_or('id', key, 'a number or a text'),
                          path=path)
        elif key in found:
            part.complain(f'id {_repr.repr(key)} appears twice', path=path)
        else:
            found[key] = read_one(part, path, each, *more)
    return found


def _image(part, path, image, present, seen, strange):
    """Name of the picture, which gets an empty list of rows."""
    text = image.get('file_name', MISSING)
    if not isinstance(text, str):
        part.complain(_missing_or('file_name', text, 'a text'), path=path)
        return None
    last = last_part(text)
    name = find_picture(text, present) or find_picture(last, present)
    if not name:
        part.complain(wrong_name('file_name', text, present), path=path)
        return None
    if name in seen:
        means = '' if name == text else f' means {name!r}, which'
        part.complain(f'file_name {short(text)}{means} is that of '
                      f'{seen[name]} too', path=path)
        return None
    # Some labelling tools put just the folder in front.
    if text not in (name, last, f'images/{last}', f'images\\{last}'):
        strange.append(text)
    seen[name] = path
    part.rows[name] = []
    size = tuple(image.get(side) for side in ('width', 'height'))
    if None not in size:
        part.sizes[name] = size, path, 0
    return name


def _category(part, path, category, seen):
    """Name of the class."""
    name = category.get('name', MISSING)
    if not isinstance(name, str) or not name.strip():
        part.complain(_missing_or('name', name, 'a text'), path=path)
        return None
    name = nfc(name.strip())
    if name in seen:
        part.complain(f'name {_repr.repr(name)} appears twice', path=path)
    seen.add(name)
    return name


def _annotation(part, path, each, names, classes):
    key = each.get('id', MISSING)
    called = f'annotation {_repr.repr(key)}' if _is_id(key) else ''
    found = []
    for name, known in (('image_id', names), ('category_id', classes)):
        value = each.get(name, MISSING)
        if not _is_id(value) or value not in known:
            found.append(_missing_or(
                name, value, f'the id of one of {len(known):,} '
                + ('images' if known is names else 'categories')))
    crowd = each.get('iscrowd', 0)
    if crowd != 0:
        found.append(_missing_or('iscrowd', crowd, '0 or 1'))
    box, wrong = _corners(each.get('bbox', MISSING))
    for text in found + wrong:
        part.complain(text + (f' ({called})' if called else ''), path=path)
    if not found and box:
        picture = names[each['image_id']]
        label = classes[each['category_id']]
        # None is what has been complained of where it stands.
        if picture is not None and label is not None:
            part.add(picture, Row(label, box, path=path, name=called))


def _corners(bbox):
    """The corners of a bbox, or None, and what is wrong with it."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None, [_missing_or('bbox', bbox, 'four numbers') + f'; {BBOX}']
    wrong = [_missing_or(f'bbox[{i}]', value, 'a number of pixels')
             for i, value in enumerate(bbox) if not _is_finite(value)]
    if wrong:
        return None, wrong
    x, y, width, height = map(float, bbox)
    return (x, y, x + width, y + height), []


def _is_id(value):
    # A NaN is not even equal to itself.
    return (isinstance(value, (int, float, str))
            and not isinstance(value, bool) and value == value)


def _is_finite(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _not_object(value):
    return f'is {_repr.repr(value)}; an object is needed'


def _missing_or(name, value, wanted):
    if value is MISSING:
        return f'has no {name}; {wanted} is needed'
    return f'{name} is {_repr.repr(value)}; {wanted} is needed'


def wrong_box(box, size):
    """What is wrong with a box in pixels, as a list of texts.

    Args:
        box: four finite numbers, corner format.
        size: (width, height) of the picture in pixels.
    """
    found = []
    for axis, start, side, word in ((0, 'x', 'width', 'wide'),
                                    (1, 'y', 'height', 'high')):
        low, high, limit = box[axis], box[axis + 2], size[axis]
        length = high - low
        if not -SLACK <= low <= limit + SLACK:
            found.append(f'{start} {low:g} is outside the picture, which is '
                         f'{limit} pixels {word}')
        elif high > limit + SLACK:
            found.append(f'{start} {low:g} + {side} {length:g} = {high:g} is '
                         f'outside the picture, which is {limit} pixels '
                         f'{word}; {BBOX}')
        if length < 1 - SLACK:
            found.append(f'{side} {length:g} is less than one pixel; {BBOX}, '
                         'not shares and not corners')
    return found
