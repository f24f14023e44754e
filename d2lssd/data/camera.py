"""The light on a scene, and the camera that takes its picture."""

import cv2
import numpy as np

from .canvas import Light, paint, tint


def lamp(rng, gentle=False):
    """Return a random Light, mostly from above; gentle is bright and even."""
    angle = rng.normal(-np.pi / 2, 0.8 if gentle else 1.5)
    strength = rng.uniform(0.55, 0.85) if gentle else rng.uniform(0.2, 1)
    return Light((np.cos(angle), np.sin(angle), rng.uniform(0.5, 1.3)),
                 ambient=rng.uniform(0.9, 1.15) - 0.7 * strength,
                 strength=strength, shine=rng.uniform(0.1, 0.9),
                 shadow=rng.uniform(0.15, 0.6))


def develop(rng, image, rough=1.0):
    """Return the photograph, uint8 (h, w, 3), that a camera takes of an
    image, float32 (h, w, 3) in about 0-255; rough 0 is a studio, 1 any
    webcam."""
    image = expose(rng, image, rough)
    image = defocus(rng, image, rough)
    image = sensor(rng, image, rough)
    if rng.random() < 0.5 * rough:
        image = compress(image, int(rng.integers(25, 92)))
    return np.ascontiguousarray(image)


def expose(rng, image, rough):
    """White balance, exposure, saturation, contrast and uneven light."""
    warm = rng.normal(0, 0.1) * np.array([1, 0.1, -1])
    cast = 1 + rough * (rng.normal(0, 0.06, 3) + warm)
    gain = np.exp(rough * rng.normal(-0.04, 0.27))
    image = tint(image, (cast * gain).astype(np.float32))
    if rng.random() < 0.5 * rough:
        red, green, blue = cv2.split(image)
        grey = paint((red + green + blue) / 3)
        image = grey + (image - grey) * np.float32(rng.uniform(0.45, 1.3))
    if rng.random() < 0.4 * rough:
        black, white = rng.uniform(0, 35), rng.uniform(200, 275)
        image = np.float32(black) + image * np.float32((white - black) / 255)
    if rng.random() < 0.4 * rough:
        height, width = image.shape[:2]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        across, down, corners = rng.uniform((-0.4, -0.4, 0), (0.4, 0.4, 0.3))
        fall = across * x + down * y - corners * (x * x + y * y)
        image *= paint(np.exp(fall).astype(np.float32))
    return image


def defocus(rng, image, rough):
    """Blur of a lens out of focus, of a moving hand, of few pixels."""
    kind = rng.random() / max(rough, 1e-6)
    if kind < 0.3:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if kind < 0.4:
        reach = int(rng.integers(3, 11))
        x, y = rng.integers(0, reach, 2).tolist()
        streak = np.zeros((reach, reach), np.float32)
        cv2.line(streak, (x, y), (reach - 1 - x, reach - 1 - y), 1.0)
        return cv2.filter2D(image, -1, streak / streak.sum())
    if kind < 0.55:
        height, width = image.shape[:2]
        part = rng.uniform(0.42, 0.95)
        few = cv2.resize(image, None, fx=part, fy=part,
                         interpolation=cv2.INTER_AREA)
        return cv2.resize(few, (width, height))
    if kind < 0.65:
        # A cheap camera sharpens, with halos along the edges.
        soft = cv2.GaussianBlur(image, (0, 0), 1.2)
        return image + (image - soft) * np.float32(rng.uniform(0.5, 1.8))
    return image


def sensor(rng, image, rough):
    """Noise, a soft shoulder where light is too bright, and 8 bits."""
    grit = rng.uniform(1, 3) + rough * rng.uniform(0, 18) * rng.random() ** 2
    static = np.frombuffer(rng.bytes(image.size), np.uint8)
    static = static.reshape(image.shape).astype(np.float32)
    if rng.random() < 0.5:
        static = cv2.blur(static, (2, 2)) * 2 - 127.5
    static -= 127.5
    static *= np.float32(grit / 74)
    static += image
    shoulder = static * np.float32(0.55)
    shoulder += 110
    np.minimum(static, shoulder, out=static)
    return static.clip(0, 255, out=static).astype(np.uint8)


def compress(image, quality):
    """What JPEG leaves of an image, uint8 (h, w, 3)."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode('.jpg', image[..., ::-1], flags)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
