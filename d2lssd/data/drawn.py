"""The default data set: bananas that are drawn once and kept.

Drawing goes to several processes at once, this one among them. joblib's loky
starts the others afresh rather than as copies of this one, so that it works in
notebooks, in scripts without a ``__main__`` guard, and beside the threads of
PyTorch, on every system.
"""
import dataclasses
import hashlib
import json
import operator
import warnings
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait

import numpy as np

COUNTS = {'train': 1000, 'val': 100}
WORDS = {'train': 'training', 'val': 'validation'}
CHUNK = 10  # pictures that a worker draws between two messages
MAX_WORKERS = 8  # each holds all photographs, some hundred megabytes
IDLE = 10  # seconds after which a worker without work ends


def drawn_bananas(split, count=None, seed=0, style='plain', num_bananas=1,
                  progress=True, cache=True):
    """Pictures with drawn bananas and their boxes.

    Picture *i* depends on the split, *i*, the seed, the style and the number
    of bananas alone, so the first ten of a hundred are the ten of ten.

    Args:
        split: 'train' or 'val', which share no photograph and no banana.
        count: how many pictures; 1000 or 100 if not said.
        seed: whole number; another one draws other pictures.
        style, num_bananas: as in ``d2lssd.data.drawing.draw_scene``.
        progress: whether to show a bar while drawing.
        cache: whether to look for them in, and keep them in, the user's cache
            folder (see ``d2lssd.data.files.cache_folder``).

    Returns:
        uint8 tensor ``(count, 3, 256, 256)`` and float32 tensor
        ``(count, m, 5)`` of class 0 and corner boxes relative to the picture;
        rows of -1 fill up where a picture has fewer than m objects.

    Raises:
        ValueError: an unknown split or style, a count below 1.
    """
    from . import drawing, files
    if split not in COUNTS:
        raise ValueError(f"split = {split!r}: 'train' or 'val' is known")
    count = (COUNTS[split] if count is None
             else number_of_pictures('count', count))
    what = {'split': split, 'count': count, 'seed': seed, 'style': style,
            'num_bananas': num_bananas, 'drawing': drawing.DRAWING_VERSION}
    description = {'drawn bananas': json.dumps(what, default=_as_json)}
    path = None
    if cache:
        path = _path(description, split, count)
        kept = path and files.recall(path, description)
        if kept:
            return kept['images'], kept['labels']
    images, labels = _draw(split, count, seed, style, num_bananas, progress,
                           kept=path is not None)
    if path is not None:
        files.keep(path, {'images': images, 'labels': labels}, description)
    return images, labels


def _as_json(value):
    """What JSON has no word for: a `Style`, and the numbers of NumPy."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return operator.index(value)


def number_of_pictures(name, value):
    """Check a number of pictures that someone asked for.

    Args:
        name: of the argument, for the message.
        value: what was given.

    Returns:
        int, 1 or more.

    Raises:
        ValueError: it is no such number.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f'{name} = {value!r}: a whole number of pictures, '
                         '1 or more, is needed')
    return number


def _path(description, split, count):
    """Where the pictures are kept; None, with a warning, if nowhere."""
    from . import files
    text = json.dumps(description, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        folder = files.cache_folder()
    except OSError as error:
        warnings.warn(f'not kept for next time: {error}', stacklevel=3)
        return None
    return folder / f'drawn-{split}-{count}-{key}.safetensors'


def _draw(split, count, seed, style, num_bananas, progress, kept):
    import torch
    from tqdm.auto import tqdm

    from .drawing import SIDE
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    boxes = []
    text = f'drawing {count} {WORDS[split]} pictures'
    text += ', kept for next time' if kept else ''
    with tqdm(total=count, desc=text, unit='picture',
              disable=not progress) as bar:
        for some_images, some_boxes in draw_chunks(
                range(count), (split, seed, style, num_bananas)):
            start = len(boxes)
            boxes += some_boxes
            images[start:len(boxes)] = some_images
            bar.update(len(some_boxes))
    most = max(num_bananas) if np.ndim(num_bananas) else num_bananas
    labels = pad_labels(boxes, width=most)
    return torch.from_numpy(images), torch.from_numpy(labels)


def draw_chunks(indices, recipe, share=1):
    """Draw pictures, in parallel if it pays.

    This process draws too: it would have to wait while the others start.

    Args:
        indices: numbers of the pictures.
        recipe: split, seed, style and number of bananas, as `drawn_bananas`
            takes them.
        share: how many processes besides this one have workers draw.

    Yields:
        Of some pictures after the other: uint8 array ``(k, 3, 256, 256)`` and
        their k arrays of boxes.
    """
    chunks = [indices[start:start + CHUNK]
              for start in range(0, len(indices), CHUNK)]
    workers = min(num_workers() // share, len(chunks) // 2) - 1
    todo, sent, done = deque(range(len(chunks))), {}, {}
    try:
        for number in range(len(chunks)):
            while number not in done:
                try:
                    while todo and len(sent) < 2 * workers:
                        sent[_send(chunks[todo[0]], recipe, workers)] = todo[0]
                        todo.popleft()
                    if not todo:
                        wait(sent, return_when=FIRST_COMPLETED)
                    for job in [job for job in sent if job.done()]:
                        done[sent[job]] = job.result()
                        del sent[job]
                except (OSError, ImportError, BrokenExecutor) as error:
                    why = str(error) or type(error).__name__
                    warnings.warn('drawing goes on in one process, more '
                                  f'slowly: {why.splitlines()[0]}',
                                  stacklevel=2)
                    todo.extendleft(sorted(sent.values(), reverse=True))
                    sent, workers = {}, 0
                if todo and number not in done:
                    draw = _draw_in_a_thread if sent else _draw_chunk
                    done[todo[0]] = draw(chunks[todo[0]], recipe)
                    todo.popleft()
            yield done.pop(number)
    finally:
        for job in sent:
            job.cancel()


def num_workers():
    """How many processes to run at once: what this one may use, at most 8.

    On a rented machine that is often less than its processors: joblib looks
    at affinity and at the quota of a container too.
    """
    from joblib import cpu_count
    return min(cpu_count(), MAX_WORKERS)


def _send(indices, recipe, workers):
    """Have one of some workers draw; the `Future` of what it will give."""
    from joblib.externals.loky import get_reusable_executor
    pool = get_reusable_executor(workers, timeout=IDLE)
    return pool.submit(_draw_in_a_thread, indices, recipe)


def _draw_chunk(indices, recipe):
    """Draw some pictures: uint8 array ``(k, 3, 256, 256)`` and their boxes."""
    from .drawing import draw_scene
    split, seed, style, num_bananas = recipe
    images, boxes = [], []
    for index in indices:
        image, some = draw_scene(split, index, seed=seed, style=style,
                                 num_bananas=num_bananas)
        images.append(image.transpose(2, 0, 1))
        boxes.append(np.asarray(some, np.float32).reshape(-1, 4))
    return np.stack(images), boxes


def _draw_in_a_thread(indices, recipe):
    """The same in one thread: other processes keep the other cores busy."""
    import cv2
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _draw_chunk(indices, recipe)
    finally:
        cv2.setNumThreads(threads)


def pad_labels(boxes, classes=None, width=1):
    """Boxes of several pictures in one array, filled up with rows of -1.

    Args:
        boxes: for each picture, an array ``(m_i, 4)``.
        classes: for each picture, its m_i classes; all 0 if not given.
        width: rows per picture, at least.

    Returns:
        float32 array ``(number of pictures, m, 5)`` of class and box.
    """
    width = max([width, 1, *map(len, boxes)])
    labels = np.full((len(boxes), width, 5), -1, np.float32)
    for i, some in enumerate(boxes):
        if len(some):
            labels[i, :len(some), 0] = 0 if classes is None else classes[i]
            labels[i, :len(some), 1:] = some
    return labels
