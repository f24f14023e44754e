"""A small data set of your own, drawn: lemons or carrots, not bananas.

It stands in for pictures that you took and labelled: it is written as a
folder of files, and from then on nothing knows that it was drawn. Each
picture is a function of its arguments alone, as in ``drawing``.
"""
import contextlib
import csv
import json
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from . import coco, table
from .camera import develop
from .clutter import THINGS, choose, flat_patch, round_outline, round_patch
from .drawing import MISSES, SIDE, Style, between, generator, set_scene
from .drawn import number_of_pictures

STYLE = Style(photos=0.5, below=(0, 0), rough=0.5)
NUMBER = 1, 3  # labelled things in a picture
LONGEST = 48, 150  # pixels: about the longest side of one
KEEP = 0.8  # the part of one that must show
LITTER = 0, 3  # other things below them
FORMATS = {'csv': table.NAME, 'coco': coco.NAME}


def write_folder(path, kinds=('lemon', 'carrot'), count=120, seed=0,
                 format='csv', split='train', progress=True):
    """Draw pictures of things and write them as a folder of your own.

    The folder appears whole or not at all.

    Args:
        path: the folder to make: ``images/`` and a file of boxes.
        kinds: names of what is labelled, keys of ``clutter.THINGS``.
        count: how many pictures, each with one to three labelled things.
        seed: whole number; another one draws other pictures.
        format: 'csv' for ``label.csv``, 'coco' for ``annotations.json``.
        split: 'train' or 'val', which share no photograph. For honest
            validation write two folders, named so, side by side.
        progress: whether to show a bar.

    Returns:
        The path, as ``pathlib.Path``.

    Raises:
        ValueError: an argument is none of these; the message names it.
        FileExistsError: the path is a file, or a folder that is not empty.
        OSError: it cannot be written; nothing half-written stays.
    """
    from PIL import Image
    from tqdm.auto import tqdm
    path, kinds = Path(path), _checked_kinds(kinds)
    count = number_of_pictures('count', count)
    if format not in FORMATS:
        raise ValueError(f'format = {format!r}: one of {tuple(FORMATS)} is '
                         'needed')
    generator(split, seed=seed)  # refuse bad ones before anything is written
    labels = {}
    with _new_folder(path) as temporary:
        (temporary / 'images').mkdir()
        for index in tqdm(range(count), desc=f'drawing pictures of {path}',
                          unit='picture', disable=not progress):
            image, boxes, classes = draw_things(kinds, index, seed, split)
            name = f'{index}.png'
            Image.fromarray(image).save(temporary / 'images' / name)
            pixels = (boxes * SIDE).round().astype(int).tolist()
            labels[name] = [(kinds[k], box)
                            for k, box in zip(classes, pixels, strict=True)]
        write = _write_table if format == 'csv' else _write_coco
        write(temporary / FORMATS[format], labels, kinds)
    return path


def draw_things(kinds, index, seed=0, split='train'):
    """Draw picture number ``index`` of a set of things.

    Args:
        kinds, seed, split: as for ``write_folder``.
        index: whole number from 0.

    Returns:
        The image, uint8 array ``(256, 256, 3)``, RGB; the boxes, float32
        array ``(m, 4)``, tight around what is visible, corner format,
        relative to the image; and m numbers, positions in ``kinds``.

    Raises:
        ValueError: an argument is none of these; the message names it.
    """
    kinds = _checked_kinds(kinds)
    rng = generator(split, index=index, seed=seed)
    canvas, light = set_scene(rng, split, STYLE)
    # A lemon without a box would teach that lemons are background, and so
    # would an ear of corn, which is a slim lemon here.
    shapes = [THINGS[kind].knots for kind in kinds]
    others = [name for name, thing in THINGS.items()
              if thing.knots not in shapes]
    for _ in range(between(rng, LITTER)):
        _litter(rng, canvas, light, others)
    classes = []
    wanted = between(rng, NUMBER)
    for _ in range(MISSES):
        if len(classes) == wanted:
            break
        kind = int(rng.integers(len(kinds)))
        trial = canvas.copy()
        if _lay(rng, trial, light, THINGS[kinds[kind]]):
            canvas = trial
            classes.append(kind)
    image = develop(rng, canvas.image, STYLE.rough * rng.uniform(0.3, 1))
    return image, canvas.boxes(), classes


def _litter(rng, canvas, light, names):
    """Lay something that is not labelled anywhere on the canvas."""
    place = rng.uniform(0, SIDE, 2)
    size = np.exp(rng.uniform(*np.log(LONGEST)))
    if names and rng.random() < 0.7:
        thing = THINGS[choose(rng, names)]
        path, radius = round_outline(rng, place, size, thing)
        patch = round_patch(rng, path, radius, thing, light, canvas.frame)
    else:
        patch = flat_patch(rng, place, size * rng.uniform(0.3, 1, 2))
    canvas.shadow(patch, light, rng.uniform(1, 6))
    canvas.paste(patch)


def _lay(rng, canvas, light, thing):
    """Lay a labelled thing on the canvas, all of it inside; return whether
    enough of it and of the earlier ones still shows."""
    size = np.exp(rng.uniform(*np.log(LONGEST)))
    path, radius = round_outline(rng, np.zeros(2), size, thing)
    low = (path - radius[:, None]).min(0)
    high = (path + radius[:, None]).max(0)
    if (high - low > SIDE).any():
        return False
    path = path + rng.uniform(-low, SIDE - high)
    patch = round_patch(rng, path, radius, thing, light, None)
    canvas.shadow(patch, light, radius.max() * rng.uniform(0.2, 0.9))
    return canvas.add(patch, KEEP)


def _checked_kinds(kinds):
    kinds = kinds if isinstance(kinds, str) else tuple(kinds)
    if isinstance(kinds, str) or not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f'kinds = {kinds!r}: a list of different names is '
                         'needed')
    for kind in kinds:
        if kind not in THINGS:
            raise ValueError(f'kinds = {kinds!r}: {kind!r} cannot be drawn; '
                             f'{", ".join(THINGS)} can')
    return kinds


def _write_table(file, labels, kinds):
    with open(file, 'w', newline='', encoding='utf-8') as opened:
        writer = csv.writer(opened, lineterminator='\n')
        writer.writerow(table.COLUMNS)
        for name, rows in labels.items():
            writer.writerows([name, kind, *box] for kind, box in rows)


def _write_coco(file, labels, kinds):
    images = [{'id': i, 'file_name': name, 'width': SIDE, 'height': SIDE}
              for i, name in enumerate(labels)]
    rows = [(i, kind, box) for i, rows in enumerate(labels.values())
            for kind, box in rows]
    annotations = [
        {'id': n, 'image_id': i, 'category_id': kinds.index(kind) + 1,
         'bbox': [x0, y0, x1 - x0, y1 - y0], 'area': (x1 - x0) * (y1 - y0),
         'iscrowd': 0}
        for n, (i, kind, (x0, y0, x1, y1)) in enumerate(rows)]
    categories = [{'id': i + 1, 'name': kind}
                  for i, kind in enumerate(kinds)]
    file.write_text(json.dumps({
        'images': images, 'categories': categories,
        'annotations': annotations}), 'utf-8')


@contextlib.contextmanager
def _new_folder(path):
    """Fill a folder beside ``path`` that becomes ``path`` at the end."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f'{path}: is a file; name a new folder')
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f'{path}: is not empty; name a new folder, or '
                              'remove what is in it')
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.part')
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()  # Windows puts no folder in another's place
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
