"""One banana: how it grew, how ripe it is, and what it looks like."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .canvas import (
    Patch,
    facet,
    noise,
    paint,
    profile,
    rotate,
    sample,
    shade,
    smoothstep,
    tube,
    tube_patch,
)

# A banana model is a number; no model serves both splits.
MODELS = {'train': range(4096), 'val': range(4096, 5120)}

POINTS = 64     # along a centreline


@dataclass(frozen=True)
class Banana:
    """The shape of one individual; lengths are fractions of its own length.

    bend is the turn from neck to tip in radians, lean where along the body
    it bends most; curl is the turn of the stem.
    """

    number: int
    girth: float
    bend: float
    lean: float
    stem: float
    stem_girth: float
    curl: float
    neck: float
    taper: float
    nub: float
    ridge: float
    roll: float
    hue: float


def grow(number):
    """Return the Banana of a model number; the same number, the same one."""
    rng = np.random.default_rng([7, number])
    between = rng.uniform
    return Banana(
        number,
        girth=between(0.074, 0.105) * (1.2 if rng.random() < 0.1 else 1),
        bend=between(0.45, 1.75) * (0.5 if rng.random() < 0.1 else 1),
        lean=between(0.3, 0.55),
        stem=between(0.08, 0.2),
        stem_girth=between(0.26, 0.42),
        curl=between(-0.35, 0.5),
        neck=between(0.08, 0.16),
        taper=between(0.13, 0.26),
        nub=between(0.2, 0.36),
        ridge=between(0.4, 1.35),
        roll=between(0, 2 * np.pi),
        hue=between(-1, 1),
    )


def long_stemmed(banana, rng):
    """Return the same Banana on a long and thin stem."""
    return replace(banana, stem=rng.uniform(0.18, 0.32),
                   stem_girth=rng.uniform(0.17, 0.3),
                   curl=rng.uniform(-0.9, 0.9))


def body(banana):
    """Return the centreline (POINTS, 2) from stem to tip, length 1, chord
    along x, bulging towards positive y, and the radius (POINTS,)."""
    s = np.linspace(0, 1, POINTS)
    start = banana.stem + banana.neck / 2
    along = np.clip((s - start) / (1 - start), 0, 1)
    flesh = (s > start) * (0.35 + np.exp(-((along - banana.lean) / 0.3) ** 2))
    stalk = np.exp(-((s - banana.stem * 0.7) / (0.45 * banana.stem)) ** 2)
    turn = flesh / flesh.sum() * banana.bend
    turn += stalk / stalk.sum() * banana.curl
    heading = -np.cumsum(turn)
    path = np.stack([np.cos(heading), np.sin(heading)], 1)
    path = np.cumsum(path, 0) / POINTS
    chord = path[-1] - path[0]
    path = rotate(path - path[0], -np.arctan2(chord[1], chord[0]))
    path -= (path.min(0) + path.max(0)) / 2

    thin, end = banana.stem_girth, banana.stem
    radius = profile([
        (0, thin * 1.2), (end * 0.3, thin), (end, thin * 1.02),
        (end + banana.neck * 0.5, 0.62), (end + banana.neck, 0.83),
        (end + banana.neck + 0.13, 0.97), (0.58, 1),
        (1 - banana.taper, 0.9), (1 - banana.taper * 0.5, 0.7),
        (0.955, 0.46), (0.975, banana.nub), (0.993, banana.nub * 0.9),
        (1, banana.nub * 0.6)], POINTS) * banana.girth
    return path, radius


def outline(banana, size, angle=0.0, tilt=0.0, yaw=0.0):
    """Return the centreline and radius in pixels of a banana in a pose.

    size is its length in pixels before the pose shortens it. tilt swings
    it about its length (the bend seems to straighten), yaw turns its tip
    towards the viewer (it seems shorter), angle turns it on the screen; all
    in radians.
    """
    path, radius = body(banana)
    depth = path[:, 1] * np.sin(tilt) + path[:, 0] * np.sin(yaw)
    seen = np.stack([path[:, 0] * np.cos(yaw)
                     - path[:, 1] * np.sin(tilt) * np.sin(yaw) * 0.5,
                     path[:, 1] * np.cos(tilt)], 1)
    near = 1 + 0.3 * depth
    return (rotate(seen * near[:, None], angle) * size,
            radius * near * size)


def rim(path, radius):
    """Return the points (2n, 2) on both sides of an outline."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1)[:, None]
    across = along[:, ::-1] * (-1, 1) * radius[:, None]
    return np.concatenate([path + across, path - across])


RIPE = np.array([0, 0.14, 0.3, 0.5, 0.72, 0.88, 1.0])
PEEL = np.array([[126, 158, 58], [190, 196, 78], [240, 212, 84],
                 [243, 200, 60], [226, 172, 56], [150, 100, 48],
                 [66, 46, 32]], np.float32)
GREEN = np.array([150, 170, 70], np.float32)
BROWN = np.array([92, 58, 30], np.float32)
BLACK = np.array([46, 34, 26], np.float32)


def mix(albedo, colour, amount):
    """Blend albedo (h, w, 3) in place towards colour (3,) by (h, w)."""
    height, width = albedo.shape[:2]
    rows = np.tile(colour, width) - albedo.reshape(height, 3 * width)
    albedo += rows.reshape(albedo.shape) * paint(amount)


def peel(banana, ripeness, size, rng, bruises=0):
    """Return the unrolled skin (h, w, 3): stem to tip across, round down.

    ripeness 0 is green, 0.3 yellow, 0.6 spotted, 1 black; bruises 0 is none,
    1 nearly all over.
    """
    width = int(np.clip(size, 24, 320))
    height = max(12, int(width * banana.girth * 2 * np.pi))
    shape = (height, width)
    s = np.linspace(0, 1, width, dtype=np.float32)[None]
    turn = np.linspace(0, 2 * np.pi, height, dtype=np.float32)[:, None]
    ripe = ripeness + 0.05 * noise(rng, shape, (3, 5))
    # The ends are the last to turn yellow.
    ends = smoothstep(abs(s - 0.52), 0.26, 0.48)
    ripe -= (0.24 - 0.3 * ripeness) * ends
    albedo = np.stack([np.interp(ripe, RIPE, band) for band in PEEL.T], 2)
    albedo = albedo.astype(np.float32)
    albedo += banana.hue * np.array([4, -9, -10], np.float32)
    albedo *= paint(1 + 0.035 * noise(rng, shape, (14, 6)))

    ridges = np.exp(-(np.sin(2.5 * turn) / 0.12) ** 2)
    mix(albedo, BROWN, ridges * (0.08 + 0.2 * ripeness)
        * smoothstep(noise(rng, shape, (5, 12)), -0.9, 1.2))
    # Spots: freckles first, then ragged blotches, then scars along the peel.
    spotty = smoothstep(ripeness, 0.28, 0.8) * rng.uniform(0.2, 1.2)
    cells = rng.uniform(40, 110)
    fine = noise(rng, shape, (height * 0.5, width * 0.5))
    freckles = noise(rng, shape, (cells * 0.5, cells)) + 0.35 * fine
    edge = 2.1 - 1.5 * spotty
    mix(albedo, BROWN, 0.9 * smoothstep(freckles, edge, edge + 0.4))
    ragged = 0.5 * noise(rng, shape, (16, 32)) + 0.15 * fine
    blotches = noise(rng, shape, (5, 11)) + ragged
    edge = 2.2 - 1.6 * spotty * rng.random()
    mix(albedo, BROWN, rng.uniform(0.4, 0.9)
        * smoothstep(blotches, edge, edge + rng.uniform(0.2, 0.8)))
    scars = noise(rng, shape, (26, 7)) + ragged
    mix(albedo, BROWN, 0.45 * smoothstep(scars, 1.5, 2.2))
    if rng.random() < 0.12:
        label(rng, albedo)

    stalk = 1 - smoothstep(s, banana.stem * 0.85, banana.stem + 0.05)
    mix(albedo, GREEN * (1 - 0.3 * ripeness) + 12 * banana.hue,
        stalk * (0.75 - 0.6 * ripeness))
    mix(albedo, BROWN * 1.3, stalk * smoothstep(ripeness, 0.3, 1) * 0.8)
    if bruises:
        bruise(rng, albedo, bruises, stalk, ends)
    cut = 1 - smoothstep(s, 0.012, 0.03)
    mix(albedo, BLACK * 1.6, np.repeat(cut, height, 0) * 0.8)
    burnt = s + 0.006 * noise(rng, shape, (7, 2))
    mix(albedo, BLACK, smoothstep(burnt, 0.962, 0.98) * 0.92)
    return albedo.clip(8, 250)


def bruise(rng, albedo, bruises, stalk, ends):
    """Darken a skin (h, w, 3) in place: its stalk and ends first, then in
    patches with ragged edges and round dots, from a few to nearly all."""
    shape = height, width = albedo.shape[:2]
    fine = noise(rng, shape, (height * 0.5, width * 0.5))
    dark = BLACK + (BROWN - BLACK) * rng.uniform(0, 0.8)
    dots = noise(rng, shape, (height * 0.3, width * 0.3)) + 0.3 * fine
    patches = noise(rng, shape, rng.uniform((2, 3), (7, 16)))
    patches += 0.6 * noise(rng, shape, (14, 28)) + 0.2 * fine
    patches += 1.2 * bruises * ends
    for marks, edge in ((dots, 2 - 1.6 * bruises), (patches, 2 - 3 * bruises)):
        soft = rng.uniform(0.15, 0.7)
        mix(albedo, dark * rng.uniform(0.9, 1.3), rng.uniform(0.7, 0.97)
            * smoothstep(marks, edge, edge + soft))
    mix(albedo, dark * 1.2, stalk * smoothstep(bruises, 0, 0.6) * 0.9)


def label(rng, albedo):
    """Stick a fruit seller's oval label on a skin (h, w, 3), in place."""
    height, width = albedo.shape[:2]
    middle = int(width * rng.uniform(0.35, 0.75)), int(height * rng.random())
    axes = int(width * 0.055) + 1, int(width * 0.04) + 1
    paper, print_ = rng.uniform(20, 250, (2, 3)).tolist()
    cv2.ellipse(albedo, middle, axes, 0, 0, 360, paper, -1, cv2.LINE_AA)
    axes = axes[0] * 2 // 3, axes[1] * 2 // 3
    cv2.ellipse(albedo, middle, axes, 0, 0, 360, print_, 1, cv2.LINE_AA)


def render(banana, path, radius, ripeness, light, rng, bruises=0):
    """Return the Patch of a banana along the outline given in pixels."""
    shape = tube(path, radius)
    size = np.sqrt((np.diff(path, axis=0) ** 2).sum(1)).sum()
    skin = peel(banana, ripeness, size, rng, bruises)
    albedo = sample(skin, shape.s, shape.angle + banana.roll)
    # Faces fade towards the round ends.
    depth = banana.ridge * smoothstep(0.5 - abs(shape.s - 0.5), 0.05, 0.2)
    angle = facet(shape.angle, -banana.roll, depth)
    gloss = 0.55 * (1 - max(ripeness, bruises) * 0.7)
    rgb = shade(shape, albedo, light, angle, gloss)
    return Patch(rgb, shape.alpha, shape.x, shape.y)


def crown(stems, thick, ripeness, light, frame):
    """Return the Patch of what joins the stems of a bunch, their ends given
    as points (2,), for bananas of `thick` pixels in radius."""
    stems = np.array(stems)
    low, high = stems.min(0) - 0.3 * thick, stems.max(0) + 0.3 * thick
    path = np.linspace(low, high, 8)
    colour = GREEN + (BROWN - GREEN) * min(1, 0.2 + ripeness)
    radius = np.full(8, 0.55 * thick)
    return tube_patch(path, radius, colour, light, 0.2, frame=frame)
