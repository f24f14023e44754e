"""Draw pictures of bananas, with the box of every banana in them.

Each picture is a function of its arguments alone: no order, no process and
no earlier call changes a byte of it.
"""

import operator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .banana import (
    MODELS,
    RIPE,
    crown,
    grow,
    long_stemmed,
    outline,
    render,
    rim,
)
from .camera import develop, lamp
from .canvas import Canvas, Light
from .clutter import (
    THINGS,
    choose,
    flat_patch,
    furnish,
    hand,
    oddity,
    person,
    round_outline,
    round_patch,
)
from .pictures import SIDE
from .scenery import PHOTOGRAPHS, background

__all__ = ['DRAWING_VERSION', 'MODELS', 'PHOTOGRAPHS', 'STYLES', 'Style',
           'compose', 'draw_banana', 'draw_scene']

# Raise it whenever a pixel changes: cached data sets carry it.
DRAWING_VERSION = 1

SPLITS = ('train', 'val')

# The original labels, in pixels: boxes 34-68 wide and 32-73 high (mean 50.7
# by 50.4), between 5 and 250. Here both sides keep to the narrower range.
PLAIN_SIDES = 34, 68
PLAIN_BORDERS = 5, 250
# So many places are tried in a row before a picture counts as full.
MISSES = 200


@dataclass(frozen=True)
class Style:
    """What a scene is made of; unless said, each is a chance from 0 to 1.

    size is (low, high), the longest side of a box in pixels, or None for
    the sizes and places of the original labels; view the spread of tilt and
    yaw in radians; ripeness and the numbers of things below and above the
    bananas are (low, high); odd the chance that such a thing is of no known
    kind; bruised and stemmed those of dark patches and of a long stem; keep
    is the part of a banana that must show.
    """

    size: tuple | None = None
    ripeness: tuple = (0.2, 0.6)
    view: float = 0.3
    keep: float = 0.7
    photos: float = 0.65
    blurred: float = 0.2
    furniture: float = 0.3
    people: float = 0.0
    below: tuple = (0, 3)
    above: tuple = (0, 0)
    odd: float = 0.0
    held: float = 0.0
    bunch: float = 0.0
    bruised: float = 0.0
    stemmed: float = 0.0
    touch: float = 0.0
    cut: float = 0.0
    squashed: float = 0.0
    turned: float = 0.0
    gentle: bool = True
    rough: float = 0.35


STYLES = {
    'plain': Style(),
    'small': Style(size=(24, 48)),
    'sizes': Style(size=(24, 235), ripeness=(0.1, 0.7), touch=0.3),
    'wild': Style(
        size=(24, 235), ripeness=(0, 1), view=0.5, keep=0.4, photos=0.45,
        blurred=0.3, furniture=0.5, people=0.15, below=(0, 6), above=(0, 2),
        held=0.3, bunch=0.3, touch=0.3, cut=0.25, squashed=0.3, turned=0.1,
        gentle=False, rough=1),
}
STYLES['touching'] = replace(STYLES['plain'], touch=0.3)
STYLES['piled'] = replace(STYLES['plain'], touch=0.6)
STYLES['heaped'] = replace(STYLES['sizes'], touch=0.6)
STYLES['odd'] = replace(STYLES['wild'], odd=0.7, photos=0.6)
STYLES['bruised'] = replace(STYLES['odd'], bruised=0.7, stemmed=0.4)


def draw_scene(split, index, seed=0, style='plain', num_bananas=1):
    """Draw picture number `index` of a split.

    Args:
        split: 'train' or 'val'; they share no photograph and no banana.
        index, seed: whole numbers from 0.
        style: 'plain', one size of banana in good light; 'touching', the
            same, and some touch; 'piled', the same, and most do; 'small', half
            the size; 'sizes', all sizes, and some touch; 'heaped', the same,
            and most do; 'wild', all sizes, views and cameras; 'odd', the same
            among things of no known kind; 'bruised', the same with dark
            patches on most and long stems on some; a style of your own, a
            ``d2lssd.data.drawing.Style``; or a tuple of these, which the
            pictures take in turn.
        num_bananas: a number, or (low, high), both possible.

    Returns:
        The image, uint8 array ``(256, 256, 3)``, RGB, and the boxes, float32
        array ``(m, 4)``: the visible part of each banana, corner format,
        relative to the image.

    Raises:
        ValueError: an argument is none of these, or there is no room for so
            many bananas; the message names it.
    """
    if isinstance(style, (tuple, list)) and style:
        style = style[whole('index', index) % len(style)]
    if not isinstance(style, Style):
        if not isinstance(style, str) or style not in STYLES:
            raise ValueError(f'style={style!r}: expected a Style or one of '
                             f'{tuple(STYLES)}')
        style = STYLES[style]
    rng = generator(split, index=index, seed=seed)
    count = how_many(rng, num_bananas)
    canvas, light = set_scene(rng, split, style)
    canvas = lay_bananas(rng, canvas, light, split, style, count)
    for _ in range(between(rng, style.above)):
        strew(rng, canvas, light, style.odd)
    frame(rng, canvas, style)
    rough = style.rough * rng.uniform(0.3, 1)
    return develop(rng, canvas.image, rough), canvas.boxes()


def compose(photo, split='val', seed=0, num_bananas=(2, 4), size=(40, 90)):
    """Lay drawn bananas on a photograph.

    Args:
        photo: uint8 array ``(h, w, 3)``, RGB, at least 64 pixels each way.
        split, seed, num_bananas: as for `draw_scene`.
        size: least and greatest longest side of a banana, in pixels.

    Returns:
        The new image, uint8 array ``(h, w, 3)``, and the boxes, float32
        array ``(m, 4)``, corner format, relative to the image.

    Raises:
        ValueError: an argument is none of these; the message names it.
    """
    photo = np.asarray(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or (
            min(photo.shape[:2]) < 64):
        raise ValueError(f'photo: {photo.dtype} of shape {photo.shape}; '
                         'expected uint8 (h, w, 3), h and w at least 64')
    try:
        low, high = size
    except TypeError:
        low = high = 0
    if not 16 <= low <= high <= min(photo.shape[:2]):
        raise ValueError(f'size={size!r}: expected (low, high) in pixels, '
                         f'16 <= low <= high <= {min(photo.shape[:2])}')
    rng = generator(split, seed=seed)
    style = replace(STYLES['plain'], size=(low, high), keep=0.9)
    canvas = lay_bananas(rng, Canvas(photo), lamp(rng, gentle=True), split,
                         style, how_many(rng, num_bananas))
    return canvas.image.clip(0, 255).astype(np.uint8), canvas.boxes()


def draw_banana(model=0, size=230, angle=0.5, tilt=0.0, yaw=0.0,
                ripeness=0.4, light=None, seed=0):
    """Draw one banana alone.

    Args:
        model: which individual, a number of ``MODELS``.
        size: its length in pixels.
        angle, tilt, yaw: turn it on the screen, about its length and towards
            the viewer, in radians.
        ripeness: 0 is green, 0.3 yellow, 0.6 spotted, 1 black.
        light: a ``d2lssd.data.canvas.Light``; None for one from above.
        seed: of the spots.

    Returns:
        uint8 array ``(h, w, 4)``: RGB and alpha.
    """
    rng = np.random.default_rng([seed, model])
    banana = grow(model)
    path, radius = outline(banana, size, angle, tilt, yaw)
    patch = render(banana, path, radius, ripeness, light or Light(), rng)
    rgba = np.dstack([patch.rgb, patch.alpha * 255])
    return rgba.clip(0, 255).round().astype(np.uint8)


def whole(name, value):
    """Return value as an int; raise ValueError unless it is one, 0 or up."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f'{name}={value!r}: expected a whole number from 0')
    return number


def generator(split, **numbers):
    """Return the random generator of a split and named whole numbers."""
    if split not in SPLITS:
        raise ValueError(f'split={split!r}: expected one of {SPLITS}')
    numbers = [whole(name, value) for name, value in numbers.items()]
    return np.random.default_rng(
        np.random.SeedSequence([SPLITS.index(split), *numbers]))


def how_many(rng, num_bananas):
    """Return a number of bananas from an int or (low, high)."""
    if isinstance(num_bananas, (tuple, list)) and len(num_bananas) == 2:
        low, high = (whole('num_bananas', n) for n in num_bananas)
    else:
        low = high = whole('num_bananas', num_bananas)
    if low > high:
        raise ValueError(f'num_bananas={num_bananas!r}: {low} is more than '
                         f'{high}')
    return between(rng, (low, high))


def between(rng, bounds):
    return int(rng.integers(bounds[0], bounds[1] + 1))


def set_scene(rng, split, style):
    """Return a canvas with all that lies below the bananas, and the light.

    A squashed scene is wider or higher than the picture, as when a
    photograph of another shape is made square.
    """
    shape = [SIDE, SIDE]
    if rng.random() < style.squashed:
        shape[rng.integers(2)] = int(SIDE * rng.uniform(1, 1.4))
    light = lamp(rng, style.gentle)
    canvas = Canvas(background(rng, split, tuple(shape), style.photos))
    if rng.random() < style.furniture:
        furnish(rng, canvas)
    if rng.random() < style.people:
        person(rng, canvas, light)
    if rng.random() < style.blurred:
        canvas.image = cv2.GaussianBlur(canvas.image, (0, 0),
                                        rng.uniform(0.6, 4))
    for _ in range(between(rng, style.below)):
        strew(rng, canvas, light, style.odd)
    return canvas, light


def strew(rng, canvas, light, odd=0):
    """Lay one thing that is no banana somewhere on the canvas."""
    place = rng.uniform(0, 1, 2) * canvas.frame[::-1]
    size = min(canvas.frame) * np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
    if odd and rng.random() < odd:
        pile(rng, canvas, light, place, size)
        return
    after = []
    if rng.random() < 0.6:
        thing = THINGS[choose(rng, list(THINGS))]
        path, radius = round_outline(rng, place, size, thing)
        if rng.random() < 0.08:
            before, after = hand(rng, path, radius.clip(0, 0.12 * size),
                                 light, canvas.frame)
            for patch in before:
                canvas.paste(patch)
        patch = round_patch(rng, path, radius, thing, light, canvas.frame)
    else:
        patch = flat_patch(rng, place, size * rng.uniform(0.25, 1, 2))
    if rng.random() < 0.7 and not after:
        canvas.shadow(patch, light, rng.uniform(1, 6))
    canvas.paste(patch)
    for patch in after:
        canvas.paste(patch)


def pile(rng, canvas, light, place, size):
    """Lay oddities one upon another, each smaller than the last, as the parts
    of an eye, a flower or a wheel lie."""
    for lower in range(rng.integers(1, 4)):
        thing = oddity(rng)
        path, radius = round_outline(rng, place, size, thing)
        patch = round_patch(rng, path, radius, thing, light, canvas.frame)
        if rng.random() < 0.7 and not lower:
            canvas.shadow(patch, light, rng.uniform(1, 6))
        canvas.paste(patch)
        size *= rng.uniform(0.3, 0.8)
        place = place + rng.normal(0, 0.05, 2) * size


def frame(rng, canvas, style):
    """Bring the canvas to its final size, now and then askew."""
    scale = SIDE / np.array(canvas.frame[::-1])
    askew = rng.uniform(-0.6, 0.6)
    if rng.random() < style.turned and bring(canvas, scale, askew):
        return
    if (scale != 1).any():
        # Nothing leaves the picture here: only rounding can seem to hide.
        bring(canvas, scale, 0, always=True)


def bring(canvas, scale, angle, always=False):
    """Scale and turn the canvas about its middle onto the final size, if its
    bananas allow it; return whether that was done."""
    turn = np.array([[np.cos(angle), -np.sin(angle)],
                     [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, SIDE / 2)
    matrix = np.column_stack([turn * scale, middle - turn @ middle])
    return canvas.warp(matrix, (SIDE, SIDE), always)


def lay_bananas(rng, canvas, light, split, style, count):
    """Return the canvas with count more bananas on it.

    Raises ValueError if there is no room for so many.
    """
    placed = misses = 0
    while placed < count and misses < MISSES:
        group = 1
        if rng.random() < style.bunch:
            group = min(count - placed, between(rng, (2, 4)))
        bunch = gather(rng, split, style, group)
        bunch = place(rng, canvas, style, bunch, 0.97 ** misses)
        trial = bunch and paint(rng, canvas.copy(), light, style, bunch)
        if trial:
            canvas, placed, misses = trial, placed + group, 0
        else:
            misses += 1
    if placed < count:
        raise ValueError(f'num_bananas: room for {placed} of {count} on a '
                         f'picture of {canvas.frame[1]}x{canvas.frame[0]}')
    return canvas


def gather(rng, split, style, group):
    """Return bananas with their outlines at length 1: one, or a bunch that
    shares its stem end."""
    angle = rng.uniform(0, 2 * np.pi)
    tilt, yaw = rng.normal(0, style.view, 2).clip(-1.1, 1.1)
    tilt += np.pi * rng.integers(2)
    spread = rng.uniform(0.12, 0.5)
    bunch = []
    for i in range(group):
        banana = grow(choose(rng, MODELS[split]))
        if style.stemmed and rng.random() < style.stemmed:
            banana = long_stemmed(banana, rng)
        path, radius = outline(
            banana, 1, angle + spread * (i - (group - 1) / 2),
            tilt + 0.1 * i, yaw)
        if group > 1:
            path = path - path[0] + rng.normal(0, 0.015, 2)
        bunch.append((banana, path, radius))
    return bunch


def place(rng, canvas, style, bunch, shrink):
    """Return the bunch moved and scaled to its place on the canvas, or None
    if it is too large for it."""
    rims = np.concatenate([rim(path, radius) for _, path, radius in bunch])
    low, high = rims.min(0), rims.max(0)
    span, edge = high - low, np.array(canvas.frame[::-1])
    first, last = np.zeros(2), edge
    if style.size is None:
        scale = rng.normal(52, 6) / np.sqrt(span.prod())
        least, most = PLAIN_SIDES
        if (span * scale < least + 1).any() or (
                span * scale > most - 1).any():
            return None
        first, last = PLAIN_BORDERS + np.array([1, -1])
    else:
        longest = np.exp(rng.uniform(*np.log(style.size))) * shrink
        # What counts is the side in the picture, not on a squashed canvas.
        squash = SIDE / edge if style.squashed else 1
        scale = max(longest, style.size[0]) / max(span * squash)
    low, high = low * scale, high * scale
    middle = (low + high) / 2
    if rng.random() < style.cut:
        first, last = middle - low, edge + middle - high
    if rng.random() < style.touch and canvas.masks:
        near = canvas.boxes()[-1].reshape(2, 2).mean(0) * edge
        spot = near + rng.normal(0, 0.4, 2) * (high - low) - middle
    elif (high - low > last - first).any():
        return None
    else:
        spot = rng.uniform(first - low, last - high)
    return [(banana, path * scale + spot, radius * scale)
            for banana, path, radius in bunch]


def paint(rng, canvas, light, style, bunch):
    """Return the canvas with the bunch painted on it, or None if too little
    of a banana would show."""
    low, high = style.ripeness
    ripeness = low + (high - low) * rng.beta(2.2, 2.4)
    bruises = 0
    if style.bruised and rng.random() < style.bruised:
        bruises = rng.random()
        ripeness = max(ripeness, RIPE[2])
    thick = max(radius.max() for _, _, radius in bunch)
    # A small banana must show more, or nobody could tell.
    keep = float(np.interp(thick, [3, 9], [0.8, style.keep]))
    before = []
    if rng.random() < style.held:
        _, path, radius = choose(rng, bunch)
        behind, before = hand(rng, path, radius, light, canvas.frame)
        for patch in behind:
            canvas.paste(patch)
    if len(bunch) > 1:
        canvas.paste(crown([path[0] for _, path, _ in bunch], thick,
                           ripeness, light, canvas.frame))
    height = thick * rng.uniform(0.2, 0.9)
    for banana, path, radius in bunch:
        patch = render(banana, path, radius, ripeness, light, rng, bruises)
        if not before:
            canvas.shadow(patch, light, height)
        if not canvas.add(patch, keep):
            return None
    for patch in before:
        canvas.paste(patch)
    return canvas
