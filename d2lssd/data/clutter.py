"""What lies around bananas and is none: things, furniture, hands, people."""

from typing import NamedTuple

import numpy as np

from .canvas import bent_path, noise, panel, profile, rotate, tube_patch
from .scenery import PATTERNS, colour, smooth, surface, tiles, yellow


class Thing(NamedTuple):
    """A round thing: radius as a fraction of length, turn in radians, knots
    of its profile, maker of its colour; gloss, flat as for canvas.shade;
    knee as focus for canvas.bent_path; pattern of its skin."""

    slim: tuple
    turn: tuple
    knots: list
    paint: object
    gloss: float = 0.5
    flat: float = 0.0
    knee: float = 0.0
    pattern: object = None


def orange(rng):
    return rng.uniform((200, 90, 15), (250, 150, 60))


def green(rng):
    return rng.uniform((40, 90, 25), (140, 170, 70))


def brown(rng):
    return rng.uniform((110, 70, 30), (200, 150, 90))


ROUND = [(s, 2 * np.sqrt(s * (1 - s)))
         for s in np.sin(np.linspace(0, np.pi / 2, 24)) ** 2]
ROD = [(0, 0.9), (0.01, 1), (0.99, 1), (1, 0.9)]
PEN = [(0, 0.1), (0.06, 0.5), (0.09, 0.9), (0.3, 1), (1, 1)]
LEMON = [(0, 0.12), (0.06, 0.3), (0.16, 0.66), (0.3, 0.92), (0.5, 1),
         (0.7, 0.92), (0.84, 0.66), (0.94, 0.28), (1, 0.1)]
PEAR = [(0, 0.05), (0.08, 0.08), (0.1, 0.3), (0.25, 0.5), (0.5, 0.7),
        (0.75, 1), (0.9, 0.85), (0.97, 0.5), (1, 0.2)]
MOON = [(0, 0), (0.25, 0.7), (0.5, 1), (0.75, 0.7), (1, 0)]
CONE = [(0, 0.5), (0.03, 1), (0.5, 0.75), (0.95, 0.2), (1, 0.02)]
CUP = [(0, 0.75), (0.02, 0.78), (0.95, 1), (1, 1)]
BOTTLE = [(0, 0.35), (0.2, 0.35), (0.35, 1), (0.98, 1), (1, 0.9)]
SAUSAGE = [(0, 0.2), (0.03, 0.7), (0.09, 1), (0.91, 1), (0.97, 0.7),
           (1, 0.2)]

THINGS = {
    'lemon': Thing((0.3, 0.42), (0, 0.2), LEMON, yellow),
    'pear': Thing((0.3, 0.36), (0, 0.3), PEAR, yellow),
    'ball': Thing((0.5, 0.5), (0, 0), ROUND, yellow),
    'apple': Thing((0.5, 0.5), (0, 0), ROUND, colour, 0.7),
    'corn': Thing((0.12, 0.17), (0, 0.2), LEMON, yellow, 0.4, pattern=tiles),
    'marker': Thing((0.05, 0.12), (0, 0), ROD, yellow, 0.8),
    'pen': Thing((0.02, 0.05), (0, 0), PEN, colour, 0.8),
    'boomerang': Thing((0.07, 0.12), (1.2, 2), ROD, yellow, 0, 1, 0.97),
    'crescent': Thing((0.08, 0.16), (1.8, 3), MOON, yellow, 0, 1),
    'croissant': Thing((0.14, 0.2), (1, 2.6), MOON, brown, 0.2,
                       pattern=tiles),
    'carrot': Thing((0.08, 0.14), (0, 0.4), CONE, orange),
    'cucumber': Thing((0.08, 0.13), (0, 0.5), SAUSAGE, green),
    'sausage': Thing((0.08, 0.13), (0, 0.9), SAUSAGE, brown),
    'cup': Thing((0.35, 0.5), (0, 0), CUP, colour, 0.8),
    'yellow cup': Thing((0.35, 0.5), (0, 0), CUP, yellow, 0.8),
    'bottle': Thing((0.14, 0.2), (0, 0), BOTTLE, colour, 1),
    'cable': Thing((0.006, 0.02), (-5, 5), ROD, colour, 0.6),
    'hose': Thing((0.05, 0.2), (-2, 2), ROD, colour),
}


def choose(rng, options):
    return options[rng.integers(len(options))]


def oddity(rng):
    """Return a Thing of no known kind, too stout for a banana."""
    among = np.sort(rng.uniform(0.05, 0.95, rng.integers(1, 5)))
    ends = rng.uniform(0, 1, 2) * rng.integers(2, size=2)
    knots = [(0, ends[0]), *((x, rng.uniform(0.4, 1)) for x in among),
             (1, ends[1])]
    if rng.random() < 0.4:
        knots = ROUND
    return Thing(
        (0.2, 0.5), (0, rng.uniform(0, 1.2)), knots,
        yellow if rng.random() < 0.25 else colour,
        flat=float(rng.integers(2)),
        pattern=PATTERNS[rng.integers(len(PATTERNS))]
        if rng.random() < 0.5 else None)


def round_outline(rng, place, size, thing):
    """Return the centreline and radius in pixels of a thing, turned at
    random, about size pixels long, its middle at place (2,)."""
    length = size * rng.uniform(0.7, 1.1)
    if thing is THINGS['cable']:
        length *= 2.5
    path = bent_path(length, rng.uniform(*thing.turn), focus=thing.knee)
    path = rotate(path, rng.uniform(0, 2 * np.pi)) + place
    return path, profile(thing.knots) * max(
        1, length * rng.uniform(*thing.slim))


def round_patch(rng, path, radius, thing, light, frame):
    """Return the Patch of a thing along its outline."""
    texture = None
    if thing.pattern:
        texture = 0.75 + 0.3 * thing.pattern(rng, (48, 96))
    elif rng.random() < 0.5:
        texture = 1 + 0.12 * noise(rng, (40, 40), rng.uniform(3, 30, 2))
    return tube_patch(path, radius, thing.paint(rng), light,
                      thing.gloss * rng.uniform(0.4, 1.5), thing.flat,
                      texture, frame)


def flat_patch(rng, place, size, slant=0.2, pattern=None):
    """Return the Patch of a book, box, sheet, ruler, screen or keyboard of
    size (height, width) pixels; slant distorts its corners."""
    height, width = size
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    corners = corners * (width, height)
    corners *= 1 + rng.uniform(-slant, slant, (4, 2))
    angle = rng.normal(0, 0.1)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
    shape = np.clip(size, 8, 160).astype(int)
    face = surface(rng, tuple(shape), dull=0.5, pattern=pattern)
    if rng.random() < 0.15:
        face = face.mean(2, keepdims=True) * yellow(rng) / 200
    return panel(rotate(corners, angle) + place, face.astype(np.float32))


def furnish(rng, canvas):
    """Put a wall with furniture behind the surface that fills the canvas."""
    height, width = canvas.frame
    left, right = rng.uniform(0.15, 0.75, 2) * height
    wall = surface(rng, (64, 64), pattern=smooth if rng.random() < 0.7
                   else None)
    canvas.paste(panel([[-1, -1], [width, -1], [width, right], [-1, left]],
                       wall))
    for _ in range(rng.integers(0, 6)):
        place = rng.uniform((0, -0.2), (1, 0.8)) * (width, min(left, right))
        size = rng.uniform(0.1, 0.6, 2) * canvas.frame
        canvas.paste(flat_patch(rng, place, size, 0.05))


SKIN = np.array([[255, 224, 196], [240, 196, 165], [214, 160, 128],
                 [168, 114, 84], [112, 74, 54], [72, 48, 38]])


def skin(rng):
    """Return a skin colour (3,)."""
    tone = rng.uniform(0, len(SKIN) - 1)
    return np.array([np.interp(tone, range(len(SKIN)), band)
                     for band in SKIN.T]) * rng.uniform(0.85, 1.05)


FINGER = [(0, 0.9), (0.3, 1), (0.5, 0.93), (0.62, 1), (0.85, 0.86),
          (0.93, 0.7), (0.98, 0.42), (1, 0.1)]
PALM = [(0, 0.4), (0.08, 0.75), (0.3, 1), (0.7, 1), (0.92, 0.75), (1, 0.4)]
ARM = [(0, 0.85), (0.3, 1), (1, 1.45)]


def finger_skin(rng):
    """Return a texture (24, 24, 3) with creases at the joints and a nail."""
    texture = 1 + 0.05 * noise(rng, (24, 24), (8, 12))
    texture = np.repeat(texture[..., None], 3, 2)
    texture[:, [9, 15]] *= 0.9
    if rng.random() < 0.6:
        texture[-3:, 20:23] *= (1.12, 1.06, 1.1)
        texture[:3, 20:23] *= (1.12, 1.06, 1.1)
    return texture.astype(np.float32)


def limb(rng, points, thick, knots, paint, light, frame, texture=None):
    """Return the Patch of a finger, palm or arm, thick pixels in radius,
    along the curve that three points (3, 2) pull."""
    t = np.linspace(0, 1, 24)[:, None]
    a, b, c = points
    path = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t * t * c
    if texture is None:
        texture = 1 + 0.04 * noise(rng, (24, 24), (6, 6))
    return tube_patch(path, profile(knots, 24) * thick, paint, light, 0.12,
                      0, texture, frame)


def hand(rng, path, radius, light, frame):
    """Return (behind, before): lists of patches of a hand that holds the
    body of that outline, to be pasted before and after it."""
    tone = colour(rng) if rng.random() < 0.06 else skin(rng)
    sleeve = colour(rng) if rng.random() < 0.5 else tone
    finger = radius.max() * rng.uniform(0.42, 0.66)
    where = int(rng.uniform(0.08, 0.92) * (len(path) - 1))
    along = path[min(where + 1, len(path) - 1)] - path[max(where - 1, 0)]
    along = along / np.linalg.norm(along)
    out = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
    middle, thick = path[where], radius[where]

    def piece(points, width, knots, paint=tone, texture=None):
        return limb(rng, [middle + x * along + y * out for x, y in points],
                    width, knots, paint, light, frame, texture)

    def digit(points, width):
        return piece(points, width, FINGER, texture=finger_skin(rng))

    count = int(rng.integers(2, 5))
    palm = (count + 0.6) * finger
    hub = thick + 1.5 * finger
    lean = rng.normal(0, 0.6)
    wrist = (lean * 4 * finger, hub + 3 * finger)
    elbow = (lean * 40 * finger, hub + 40 * finger)
    mid = (lean * 12 * finger, hub + 12 * finger)
    behind = [piece([wrist, mid, elbow], rng.uniform(2.7, 3.6) * finger, ARM,
                    sleeve),
              piece([(0, hub - finger), (0, hub), wrist], 3.4 * finger,
                    [(0, 0.9), (1, 0.9)]),
              piece([(-palm, hub), (0, hub + 0.8 * finger), (palm, hub)],
                    rng.uniform(2.2, 3) * finger, PALM)]
    if rng.random() < 0.5:
        reach = rng.uniform(-1, 0.6) * thick
    else:
        reach = -thick - rng.uniform(0, 1) * finger
    before = []
    slope = rng.normal(0, 0.7) * finger
    for i in range(count):
        x = (2 * i - count + 1) * finger * 0.97
        tip = reach + rng.normal(0, 0.3) * finger
        before.append(digit(
            [(x, hub + rng.uniform(0, 0.8) * finger),
             (x + slope * 0.2, thick * 0.6), (x + slope, tip)],
            finger * rng.uniform(0.92, 1.05)))
    if rng.random() < 0.6:
        x = rng.choice([-1, 1]) * (count + 0.5) * finger
        before.append(digit([(x * 1.3, hub), (x * 1.2, 0),
                             (x * rng.uniform(0.3, 1), -thick * 0.6)],
                            finger * 1.2))
    return behind, before


def person(rng, canvas, light):
    """Put the head and shoulders of somebody on the canvas."""
    height, width = canvas.frame
    tone, hair, shirt = skin(rng), colour(rng, 0.9) * 0.5, colour(rng)
    size = rng.uniform(0.1, 0.32) * height
    face = rng.uniform((0.1, 0.2), (0.9, 0.6)) * (width, height)
    wide = rng.uniform(0.68, 0.8)

    def part(x, y, dx, dy, thick, knots, paint, gloss=0.15):
        ends = np.array([[x - dx, y - dy], [x, y], [x + dx, y + dy]])
        canvas.paste(limb(rng, ends * size + face, thick * size, knots,
                          paint, light, canvas.frame))

    part(0, 3.3, 2.1, 0, 1.9, ROUND, shirt)
    part(0, 0.9, 0, 0.6, 0.42, ROD, tone * 0.85)
    part(0, -0.2, 0, 1, wide * 1.15, ROUND, hair)
    part(0, 0.1, 0, 1, wide, ROUND, tone)
    for side in (-1, 1):
        part(0.3 * side, -0.05, 0.11, 0, 0.06, ROUND, hair * 0.5)
        part(0.3 * side, -0.24, 0.16, 0, 0.04, ROUND, hair)
    part(0, 0.3, 0, 0.16, 0.1, CONE, tone * 1.02)
    part(0, 0.6, 0.22, 0, 0.06, ROUND, (150, 70, 65))
