"""Where bananas lie: on photographs, and on surfaces of many patterns."""

import colorsys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .canvas import noise, rotate, smoothstep, tint

# Pictures that ship inside the installed packages; no split sees another's.
PHOTOGRAPHS = {
    'train': ['skimage/data/astronaut.png', 'skimage/data/coffee.png',
              'skimage/data/motorcycle_left.png',
              'skimage/data/motorcycle_right.png',
              'skimage/data/rocket.jpg', 'skimage/data/camera.png',
              'skimage/data/brick.png', 'skimage/data/grass.png',
              'skimage/data/text.png', 'skimage/data/ihc.png',
              'sklearn/datasets/images/china.jpg',
              'matplotlib/mpl-data/sample_data/grace_hopper.jpg'],
    'val': ['skimage/data/chelsea.png', 'skimage/data/gravel.png',
            'skimage/data/coins.png', 'skimage/data/page.png',
            'sklearn/datasets/images/flower.jpg'],
}


@cache
def photograph(name):
    """Return a picture of PHOTOGRAPHS as uint8 (h, w, 3) RGB, read once.

    Raises FileNotFoundError if the installed package does not hold it.
    """
    package, _, inside = name.partition('/')
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0] if spec else '') / inside
    if not path.is_file():
        raise FileNotFoundError(
            f'photograph {name!r}: no file {path}; the wheel of {package} '
            'that d2lssd was tested with holds it (see constraints.txt)')
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def colour(rng, dull=0.5):
    """Return a random colour (3,); dull 1 is greys and browns, 0 anything."""
    hue = rng.normal(0.09, 0.06) if rng.random() < dull else rng.random()
    vivid = rng.random() ** (1 + 2 * dull)
    light = rng.uniform(0.12, 1)
    return np.array(colorsys.hsv_to_rgb(hue % 1, vivid, light)) * 255


def yellow(rng):
    """Return a colour (3,) that a banana could have."""
    return np.array(colorsys.hsv_to_rgb(
        rng.uniform(0.1, 0.18), rng.uniform(0.45, 1),
        rng.uniform(0.6, 1))) * 255


# Patterns: each gives (h, w) in about 0-1, to be painted in two colours.

def smooth(rng, shape):
    return 0.5 + 0.3 * noise(rng, shape, (3, 3))


def grain(rng, shape):
    rings = noise(rng, shape, (rng.uniform(4, 14), 2.5)) * rng.uniform(2, 6)
    lines = noise(rng, shape, (shape[0] * 0.6, rng.uniform(3, 9)))
    pattern = 0.5 + 0.35 * np.sin(rings * 3) + 0.22 * lines
    if rng.random() < 0.4:
        boards = rng.integers(2, 7)
        place = np.linspace(0, boards, shape[0], dtype=np.float32)
        pattern += rng.uniform(-0.3, 0.3, boards + 1)[place.astype(int)][
            :, None].astype(np.float32)
        pattern -= (place % 1 < 0.03)[:, None] * np.float32(0.6)
    return pattern


def pile(rng, shape):
    fibre = rng.uniform(0.25, 0.8)
    fine = noise(rng, shape, (shape[0] * fibre, shape[1] * fibre))
    tufts = noise(rng, shape, (shape[0] * 0.12, shape[1] * 0.12))
    return 0.5 + 0.3 * fine + 0.18 * tufts


def weave(rng, shape):
    y, x = np.ogrid[:shape[0], :shape[1]]
    fx, fy = rng.uniform(0.3, 1.6, 2)
    cloth = np.sin(x * fx) * np.sin(y * fy) * 0.3
    return (0.5 + cloth + 0.1 * noise(rng, shape, (60, 60))).astype('f4')


def stripes(rng, shape):
    along = np.arange(shape[1]) / rng.uniform(5, 60) % 1
    bands = smoothstep(abs(along - 0.5), 0.2, 0.24).astype(np.float32)
    return np.repeat(bands[None], shape[0], 0)


def tiles(rng, shape):
    rows, cols = rng.integers(2, 14, 2)
    cells = rng.uniform(0, 1, (rows, cols)).astype(np.float32)
    cells = cells * rng.uniform(0.05, 1)
    pattern = cv2.resize(cells, shape[::-1], interpolation=cv2.INTER_NEAREST)
    joint = np.float32(rng.uniform(0.02, 0.12))
    y = np.linspace(0, rows, shape[0], dtype=np.float32)[:, None] % 1
    x = np.linspace(0, cols, shape[1], dtype=np.float32)[None] % 1
    return np.where((y < joint) | (x < joint), np.float32(rng.uniform()),
                    pattern)


def keys(rng, shape):
    rows, cols = rng.integers(4, 7), rng.integers(8, 15)
    y = abs(np.linspace(0, rows, shape[0], dtype=np.float32) % 1 - 0.5)
    x = abs(np.linspace(0, cols, shape[1], dtype=np.float32) % 1 - 0.5)
    cap = smoothstep(np.maximum(y[:, None], x[None]), 0.45, 0.36)
    mark = noise(rng, shape, (rows * 6, cols * 6)) > 0.8
    middle = np.maximum(y[:, None], x[None]) < 0.2
    return cap - (mark & middle) * np.float32(0.6)


def script(rng, shape):
    rows = int(rng.integers(6, 24))
    line = abs(np.linspace(0, rows, shape[0], dtype=np.float32) % 1 - 0.5)
    ink = noise(rng, shape, (rows, rows * rng.uniform(2, 6))) > -0.5
    ink &= noise(rng, shape, (rows * 5, rows * 8)) > -0.3
    ragged = np.linspace(0, 1, shape[1])[None] < 0.9
    return 1 - np.float32(0.8) * (ink & ragged & (line < 0.28)[:, None])


def blobs(rng, shape):
    cells = rng.uniform(4, 30)
    return smoothstep(noise(rng, shape, (cells, cells)), -0.2, 0.5)


PATTERNS = [smooth, smooth, grain, grain, pile, pile, weave, stripes, tiles,
            keys, script, blobs]


def surface(rng, shape, dull=0.6, pattern=None):
    """Return a generated texture (h, w, 3) in one or two colours."""
    pattern = pattern or PATTERNS[rng.integers(len(PATTERNS))]
    first = colour(rng, dull)
    second = colour(rng, dull) if rng.random() < 0.3 else (
        first * rng.uniform(0.45, 0.9))
    if pattern is grain and rng.random() < 0.8:
        first = np.array(colorsys.hsv_to_rgb(
            rng.uniform(0.04, 0.13), rng.uniform(0.2, 0.75),
            rng.uniform(0.35, 0.95))) * 255
        second = first * rng.uniform((0.5, 0.45, 0.35), (0.9, 0.85, 0.8))
    if pattern in (script, keys) and rng.random() < 0.7:
        first, second = rng.permutation([rng.uniform(10, 90),
                                         rng.uniform(170, 250)])
        first, second = np.full(3, first), np.full(3, second)
    amount = pattern(rng, shape)
    first, second = first.astype('f4'), second.astype('f4')
    return cv2.merge([low + (high - low) * amount
                      for low, high in zip(second, first)])


def crop(rng, photo, shape):
    """Return a random turned, flipped and scaled part (h, w, 3) of a photo,
    float32."""
    height, width = photo.shape[:2]
    rows, cols = shape
    fit = max(rows / height, cols / width)
    scale = fit * np.exp(rng.uniform(0, 1.1))
    tall, wide = rows / scale, cols / scale
    x = rng.uniform(0, width - wide)
    y = rng.uniform(0, height - tall)
    corners = np.array([[x, y], [x + wide, y], [x, y + tall]], np.float32)
    if rng.random() < 0.5:
        corners = corners[[1, 0, 2]]
        corners[2, 0] += wide
    target = np.array([[0, 0], [cols, 0], [0, rows]], np.float32)
    turn = cv2.getAffineTransform(corners, target)
    flags = cv2.INTER_LINEAR if scale > 0.7 else cv2.INTER_AREA
    return cv2.warpAffine(photo, turn, (cols, rows), flags=flags,
                          borderMode=cv2.BORDER_REFLECT).astype(np.float32)


def tilted(rng, image):
    """Return image (h, w, 3) turned and seen at a slant, mirrored edges."""
    rows, cols = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.75
    corners = rotate(corners, angle) * (1, rng.uniform(0.45, 1))
    corners[:, 0] *= 1 + rng.uniform(0, 0.35) * np.sign(corners[:, 1])
    target = ((corners + 1) / 2 * (cols, rows)).astype(np.float32)
    source = np.array([[0, 0], [cols, 0], [cols, rows], [0, rows]], 'f4')
    turn = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(image, turn, (cols, rows),
                               borderMode=cv2.BORDER_REFLECT)


def background(rng, split, shape, photos=0.5):
    """Return a background (h, w, 3) float32: a part of a photograph with
    probability photos, else a generated surface."""
    if rng.random() >= photos:
        return tilted(rng, surface(rng, shape))
    names = PHOTOGRAPHS[split]
    photo = photograph(names[rng.integers(len(names))])
    image = crop(rng, photo, shape)
    if np.ptp(photo[::50, ::50], axis=2).max() < 30:
        # A grey picture becomes cloth, stone or lawn of some colour.
        image = tint(image, (colour(rng, 0.85) / 170 + 0.3).astype('f4'))
    return image
