"""Brushes: noise, light, and the two shapes that every drawn thing is made of.

A *tube* is a round body along a curved centreline: a banana, a finger, a
cable, a lemon. A *panel* is a flat quadrilateral: a book, a desk, a ruler.
Coordinates are pixels, x to the right, y down, z towards the viewer; colours
are float32 in 0-255.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np


class Patch(NamedTuple):
    """A small picture with its place: rgb (h, w, 3), alpha (h, w), x, y."""

    rgb: np.ndarray
    alpha: np.ndarray
    x: int
    y: int


class Tube(NamedTuple):
    """What tube() knows about each pixel of a round body; all (h, w).

    s runs from 0 to 1 along the body, angle from -pi/2 to pi/2 around it;
    tangent (h, w, 2) points along it, slope is its change of radius.
    """

    x: int
    y: int
    alpha: np.ndarray
    s: np.ndarray
    angle: np.ndarray
    slope: np.ndarray
    tangent: np.ndarray


@dataclass(frozen=True)
class Light:
    """One lamp and the light all round; direction points to the lamp."""

    direction: tuple = (-0.4, -0.6, 0.7)
    ambient: float = 0.45
    strength: float = 0.75
    shine: float = 0.5
    shadow: float = 0.4


def noise(rng, shape, cells):
    """Return smooth noise (h, w), mean 0, about +-1, with cells (rows, cols)
    bumps down and across."""
    rows, cols = (max(2, round(n)) for n in cells)
    height, width = shape
    coarse = rng.uniform(-1.7, 1.7, (min(rows, height), min(cols, width)))
    return cv2.resize(coarse.astype(np.float32), (width, height),
                      interpolation=cv2.INTER_CUBIC)


def smoothstep(x, low, high):
    """Return a soft step from 0 at low to 1 at high, elementwise."""
    low, high = float(low), float(high)
    x = np.clip((x - low) * (1 / (high - low)), 0, 1)
    return x * x * (3 - 2 * x)


# NumPy stretches a last axis of one or three slowly, value by value; the
# following say the same to it in long rows.

def paint(amount, colour=(1, 1, 1)):
    """Return amount (h, w) times colour (3,): (h, w, 3)."""
    if not amount.size:
        return np.empty((*amount.shape, 3), amount.dtype)
    return cv2.merge([amount * part for part in colour])


def tint(image, colour):
    """Return image (h, w, 3) times colour (3,)."""
    height, width = image.shape[:2]
    rows = image.reshape(height, 3 * width) * np.tile(colour, width)
    return rows.reshape(image.shape)


def bent_path(length, turn, points=48, lean=0.5, focus=0.0):
    """Return a centreline (points, 2) `length` long, its ends balanced
    around the origin, that turns by `turn` radians, most of it around the
    fraction `lean`; focus 0 is an arc, 1 a sharp knee."""
    s = np.linspace(0, 1, points)
    bend = 1 - focus + focus * np.exp(-((s - lean) / 0.08) ** 2)
    heading = np.cumsum(bend) / bend.sum() * turn - turn / 2
    path = np.stack([np.cos(heading), np.sin(heading)], 1)
    path = np.cumsum(path, 0) * length / (points - 1)
    return path - (path[0] + path[-1]) / 2


def profile(knots, points=48):
    """Return a smooth radius (points,) through (s, radius) knots."""
    s, radius = np.array(knots, float).T
    fine = np.interp(np.linspace(0, 1, points), s, radius)
    padded = np.pad(fine, 1, mode='edge')
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def rotate(path, angle):
    """Return path (n, 2) turned clockwise on the screen by angle radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return path @ np.array([[cos, sin], [-sin, cos]])


def tube(path, radius, frame=None):
    """Return the Tube around a centreline path (n, 2) with radius (n,);
    frame (height, width) leaves out what lies outside a canvas."""
    path = np.asarray(path, np.float32)
    radius = np.asarray(radius, np.float32)
    margin = float(radius.max()) + 2
    low = np.floor(path.min(0) - margin).astype(int)
    high = np.ceil(path.max(0) + margin).astype(int)
    if frame is not None:
        low = np.clip(low, 0, np.array(frame[::-1]) - 1)
        high = np.clip(high, low + 1, frame[::-1])
    x0, y0 = low.tolist()
    width, height = (high - low).tolist()
    # The maps are smooth, so a large body is measured on some pixels only.
    step = max(1, max(width, height) // 80)
    cols, rows = -(-width // step), -(-height // step)
    x = (np.arange(cols, dtype=np.float32) + 0.5) * step - 0.5 + x0
    y = (np.arange(rows, dtype=np.float32) + 0.5) * step - 0.5 + y0

    across = (x[:, None] - path[:, 0]) ** 2
    down = (y[:, None] - path[:, 1]) ** 2
    nearest = np.concatenate([  # (rows, cols), as much at once as caches hold
        (down[row:row + 8, None] + across).argmin(2)
        for row in range(0, rows, 8)])
    tangents = np.gradient(path, axis=0)
    spacing = np.sqrt((tangents ** 2).sum(1)).clip(1e-3)
    tangents /= spacing[:, None]
    tangent, gap = tangents.take(nearest, 0), spacing.take(nearest)
    dx = x - path[:, 0].take(nearest)
    dy = y[:, None] - path[:, 1].take(nearest)
    along = (dx * tangent[..., 0] + dy * tangent[..., 1]) / gap
    offset = dy * tangent[..., 0] - dx * tangent[..., 1]
    last = len(path) - 1
    s = nearest.astype(np.float32) + along
    beyond = np.maximum(-s, s - last) * gap
    s = s.clip(0, last)
    index = np.minimum(s.astype(int), last - 1)
    part = s - index
    here, there = radius.take(index), radius.take(index + 1)
    r = here * (1 - part) + there * part
    slope = ((there - here) / gap).clip(-2, 2)
    inside = np.minimum((r - abs(offset)) / np.hypot(1, slope), -beyond)
    maps = np.stack([s / last, offset / r.clip(0.3), inside, slope], 2)
    maps = maps.astype(np.float32)
    if step > 1:
        full = (cols * step, rows * step)
        maps = cv2.resize(maps, full)[:height, :width]
        tangent = cv2.resize(tangent, full)[:height, :width]
    return Tube(x0, y0, np.clip(maps[..., 2] + 0.5, 0, 1), maps[..., 0],
                np.arcsin(np.clip(maps[..., 1], -1, 1)), maps[..., 3],
                tangent)


def facet(angle, roll, depth, sides=5):
    """Return angle flattened towards `sides` soft faces; depth 0 is round,
    1 is angular; roll turns the faces around the body."""
    return angle - depth / sides * np.sin(sides * (angle - roll))


def shade(shape, albedo, light, angle=None, gloss=0.5, flat=0.0):
    """Return the lit colours (h, w, 3) of a Tube with albedo (h, w, 3).

    angle replaces the round cross-section (see facet); gloss 0-1 is how
    much it shines; flat 0-1 takes the roundness away.
    """
    angle = shape.angle if angle is None else angle
    side, up = np.sin(angle), np.cos(angle)
    tx, ty = shape.tangent[..., 0], shape.tangent[..., 1]
    length = np.sqrt(1 + shape.slope ** 2)
    nx = (-ty * side - shape.slope * tx) / length
    ny = (tx * side - shape.slope * ty) / length
    nz = up / length
    lamp = np.array(light.direction, np.float32)
    lamp /= np.linalg.norm(lamp)
    facing = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
    # Wrapped diffuse light and a sky that is brighter above than below.
    diffuse = np.clip((facing + 0.25) / 1.25, 0, None)
    sky = light.ambient * (0.8 + 0.2 * nz - 0.15 * ny)
    bright = sky + light.strength * diffuse
    bright += flat * (light.ambient + light.strength * 0.7 - bright)
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    glance = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1)
    glance *= glance
    glance *= glance
    shine = glance * glance * 0.25 + (glance * glance) ** 4 * 0.75
    shine *= 110 * gloss * light.shine * light.strength * (1 - flat)
    # The eye's and the camera's curve; shadows lose blue first, since the
    # body reflects its own colour into them.
    root = np.array([0.7, 0.5, 0.1], np.float32)
    lit = paint(np.sqrt(bright), root) + paint(bright, 1 - root)
    return albedo * lit + paint(shine)


def tube_patch(path, radius, colour, light, gloss=0.5, flat=0.0,
               texture=None, frame=None):
    """Return the Patch of a tube in one colour (3,), times a texture
    (h, w[, 3]) wrapped around it if given; frame as for tube()."""
    shape = tube(path, radius, frame)
    albedo = np.full((*shape.s.shape, 3), colour, np.float32)
    if texture is not None:
        wrapped = sample(texture, shape.s, shape.angle)
        albedo *= wrapped.reshape(*shape.s.shape, -1)
    return Patch(shade(shape, albedo, light, gloss=gloss, flat=flat),
                 shape.alpha, shape.x, shape.y)


def sample(texture, s, angle):
    """Look texture (h, w[, 3]) up: w goes with s in 0-1, h once round with
    angle in radians."""
    height, width = texture.shape[:2]
    column = np.clip(s * width - 0.5, 0, width - 1).astype(np.float32)
    row = (angle * (height / (2 * np.pi)) - 0.5) % height
    return cv2.remap(texture, column, row.astype(np.float32),
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def panel(corners, face):
    """Return a Patch of a flat face (h, w, 3) stretched over four corners
    (4, 2), clockwise from its top left."""
    corners = np.asarray(corners, np.float32)
    low = np.floor(corners.min(0)).astype(int) - 1
    width, height = np.ceil(corners.max(0)).astype(int) + 2 - low
    h, w = face.shape[:2]
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
    turn = cv2.getPerspectiveTransform(source, corners - low.astype('f4'))
    size = (int(width), int(height))
    rgb = cv2.warpPerspective(face, turn, size, flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)
    alpha = np.zeros((height, width), np.uint8)
    points = np.round((corners - low) * 16).astype(np.int32)
    cv2.fillConvexPoly(alpha, points, 255, cv2.LINE_AA, 4)
    return Patch(rgb, alpha.astype(np.float32) / 255, int(low[0]),
                 int(low[1]))


class Canvas:
    """A picture in the making, and the visible part of each banana in it.

    image is float32 (h, w, 3); masks holds a float32 (h, w) for each banana,
    least the area in pixels that it must keep.
    """

    def __init__(self, image):
        self.image = image.astype(np.float32)
        self.masks = []
        self.least = []

    @property
    def frame(self):
        return self.image.shape[:2]

    def copy(self):
        twin = Canvas(self.image)
        twin.masks = [mask.copy() for mask in self.masks]
        twin.least = list(self.least)
        return twin

    def window(self, patch):
        """Return the slices of the canvas and of the patch that overlap."""
        spans = []
        for start, length, limit in zip(
                (patch.y, patch.x), patch.alpha.shape, self.frame):
            low = min(max(0, start), limit)
            high = max(low, min(limit, start + length))
            spans.append((slice(low, high), slice(low - start, high - start)))
        return tuple(zip(*spans))

    def shadow(self, patch, light, height):
        """Darken what lies behind a patch that floats `height` pixels up."""
        reach = int(height * 2) + 4
        dark = cv2.resize(patch.alpha, None, fx=0.5, fy=0.5,
                          interpolation=cv2.INTER_AREA)
        dark = cv2.copyMakeBorder(dark, *[reach] * 4, cv2.BORDER_CONSTANT)
        dark = cv2.GaussianBlur(dark, (0, 0), 0.7 + height / 5)
        dark = cv2.resize(dark, None, fx=2, fy=2)
        x, y, z = light.direction
        throw = height / max(z, 0.4)
        fall = Patch(None, dark, patch.x - 2 * reach - round(throw * x),
                     patch.y - 2 * reach - round(throw * y))
        here, there = self.window(fall)
        self.image[here] *= paint(1 - light.shadow * dark[there])

    def paste(self, patch):
        """Lay a patch over the picture, unless it would hide a banana more
        than that allows; return whether it was done."""
        here, there = self.window(patch)
        clear = 1 - patch.alpha[there]
        for mask, least in zip(self.masks, self.least):
            lost = (mask[here] * (1 - clear)).sum()
            if lost and mask.sum() - lost < least:
                return False
        for mask in self.masks:
            mask[here] *= clear
        self.image[here] *= paint(clear)
        self.image[here] += patch.rgb[there] * paint(1 - clear)
        return True

    def add(self, patch, keep):
        """Paste a banana, of which the fraction keep must stay visible;
        return whether that was done."""
        here, there = self.window(patch)
        mask = np.zeros(self.frame, np.float32)
        mask[here] = patch.alpha[there]
        least = keep * patch.alpha.sum()
        if mask.sum() < least or not self.paste(patch):
            return False
        self.masks.append(mask)
        self.least.append(least)
        return True

    def warp(self, matrix, size, always=False):
        """Move the picture by an affine matrix (2, 3) onto a new size
        (width, height), black where nothing was, unless that would hide a
        banana more than it allows; return whether it was done."""
        masks = [cv2.warpAffine(mask, matrix, size) for mask in self.masks]
        scale = abs(np.linalg.det(matrix[:, :2]))
        least = [area * scale for area in self.least]
        if not always and any(
                m.sum() < area for m, area in zip(masks, least)):
            return False
        self.image = cv2.warpAffine(self.image, matrix, size)
        self.masks, self.least = masks, least
        return True

    def boxes(self):
        """Return the tight boxes (m, 4) of the visible bananas, float32,
        corner format relative to the picture, in 0-1."""
        height, width = self.frame
        boxes = np.zeros((len(self.masks), 4), np.float32)
        for box, mask in zip(boxes, self.masks):
            columns = np.flatnonzero(mask.max(0) > 0.5)
            rows = np.flatnonzero(mask.max(1) > 0.5)
            box[:] = (columns[0] / width, rows[0] / height,
                      (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        return boxes
