"""Pictures from anywhere: opened as RGB of 8 bits, or refused with a reason.
"""
import contextlib
import functools
import os
import re
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

SIDE = 256  # pixels: width and height of every picture in a data set
# Pillow's own line between a large photograph and an attack on memory.
MAX_PIXELS = 89_478_485
# What Pillow may open. Others of its readers run programs that a file holds
# (EPS, and IPTC, which hands on to it), or have few users who would notice.
KINDS = ('AVIF', 'BMP', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'PCX', 'PNG', 'PPM',
         'TGA', 'TIFF', 'WEBP')
# The kinds of file that telephones write, after "ftyp" (ISO 14496-12).
HEIC = b'heic', b'heix', b'hevc', b'mif1', b'msf1'
MOVIE = b'iso', b'mp4', b'qt', b'M4V', b'3gp', b'avc1'
_quietly = threading.Lock()  # filters of warnings belong to all threads


def open_image(path_or_file, name=None):
    """Open a picture the way a person would see it.

    Turned as its EXIF data say; 16 bits scaled to 8, as if they were 12 or 8
    where none of its values needs more; transparent parts on white; of an
    animation, the first frame.

    Args:
        path_or_file: a path, or a binary file open for reading.
        name: what messages call it; by default the path.

    Returns:
        Pillow image of mode RGB.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it holds no picture, one that is cut short, or one of
            more than ``MAX_PIXELS`` pixels. The message names the file.
    """
    if not hasattr(path_or_file, 'read'):
        with open(path_or_file, 'rb') as file:
            return _open(file, name or os.fspath(path_or_file))
    name = name or getattr(path_or_file, 'name', None)
    return _open(path_or_file, name if isinstance(name, str) else 'picture')


def _open(file, name):
    try:
        with _quietly, warnings.catch_warnings():
            # Pillow warns of what is refused below.
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(file, formats=_kinds())
    except UnidentifiedImageError as error:
        raise ValueError(f'{name}: {_look(file)}') from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r'\d+', str(error))
        raise _too_large(name, int(pixels[0])) from error
    except Exception as error:  # a broken header may raise almost anything
        raise _damaged(name, error) from error
    return to_rgb(image, name)


def to_rgb(image, name='picture'):
    """Bring a Pillow image of any kind to what `open_image` gives.

    Args:
        image: Pillow image; it stays as it is.
        name: what messages call it.

    Returns:
        Pillow image of mode RGB, a new one.

    Raises:
        ValueError: see `open_image`.
    """
    if image.format in ('EPS', 'IPTC'):  # Pillow would run Ghostscript on it
        raise ValueError(f'{name}: may hold a PostScript program, which is '
                         'not run; save it as PNG or JPEG')
    if min(image.size) < 1:
        raise ValueError(f'{name}: a picture of {image.width}×{image.height} '
                         'pixels has nothing in it')
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, image.width * image.height)
    try:
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:
            raise _damaged(name, error) from error
        return _to_rgb(_upright(image), name)
    except MemoryError as error:
        raise ValueError(f'{name}: too little memory for a picture of '
                         f'{image.width}×{image.height} pixels; make it '
                         'smaller first') from error
    except (OSError, OverflowError, TypeError) as error:
        raise _damaged(name, error) from error


def _upright(image):
    """Turned as its EXIF data say; itself where they say nothing."""
    with contextlib.suppress(Exception):  # broken EXIF data turn nothing
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image, name):
    """A new picture, with no more copies on the way than it takes."""
    if image.mode.startswith('I') or image.mode == 'F':
        return _eight_bits(np.asarray(image), name).convert('RGB')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGB', image.size, 'white')
        white.paste(image, mask=image)
        return white
    return image.convert('RGB')


def _eight_bits(values, name):
    """Grey values of more than 8 bits, or floating point, as 8-bit grey."""
    whole = values.dtype.kind in 'iu'
    low, high = float(values.min()), float(values.max())
    # Of 16 bits, many cameras and tools fill but 12 or 8.
    tops = [255, 4095, 65535] if whole else [1, 255, 65535]
    # A NaN fails both comparisons.
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is None:
        raise ValueError(f'{name}: its grey values run from {low:g} to '
                         f'{high:g}; 0 to {tops[-1]} can be shown')
    grey = np.empty(values.shape, np.uint8)
    for some, rows in zip(grey, values):  # whole, it would take ten bytes each
        some[:] = np.round(rows.astype(np.float64) * (255 / top))
    return Image.fromarray(grey)


def _too_large(name, pixels):
    return ValueError(f'{name}: a picture of {pixels:,} pixels; at most '
                      f'{MAX_PIXELS:,} are read, so make it smaller first')


def _damaged(name, error):
    reason = str(error).strip() or type(error).__name__
    return ValueError(f'{name}: damaged or cut short ({reason})')


def _look(file):
    """What a file that is no picture seems to be, and what to do."""
    try:
        file.seek(0)
        start = file.read(64)
    except (OSError, ValueError):
        return 'not a picture, but something that cannot be read twice'
    if start[4:8] == b'ftyp' and start[8:12] in HEIC:
        return 'a HEIC photograph; save it as JPEG or PNG first'
    return f'not a picture, but {_kind(start)}'


def _kind(start):
    """What the first bytes of a file that is no picture say, in words."""
    if not start:
        return 'an empty file'
    known = {b'%PDF': 'a PDF document', b'PK\x03\x04': 'a ZIP archive',
             b'<svg': 'an SVG drawing', b'<!doctype html': 'a web page',
             b'<html': 'a web page', b'%!': 'a PostScript program'}
    for signature, what in known.items():
        if start.lower().startswith(signature.lower()):
            return what
    if start[4:8] == b'ftyp' and start[8:12].startswith(MOVIE):
        return 'a movie'
    try:
        start.decode('utf-8')
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # not just a cut last character
            return (f'data that begin with the bytes {start[:8].hex(" ")}; '
                    f'{", ".join(_kinds())} can be read')
    return f'text that begins with {start[:24].decode("utf-8", "replace")!r}'


def to_square(image, size=SIDE):
    """Stretch a picture to a square.

    Args:
        image: Pillow image of mode RGB.
        size: its new width and height in pixels.

    Returns:
        uint8 array ``(3, size, size)``.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC,
                             reducing_gap=3.0)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@functools.cache
def _kinds():
    """Those of `KINDS` that this Pillow was built to open."""
    Image.init()
    return [kind for kind in KINDS if kind in Image.OPEN]


@functools.cache
def _suffixes():
    kinds = Image.registered_extensions()
    return {suffix for suffix, kind in kinds.items() if kind in _kinds()}


def is_picture_name(name):
    """Whether a file of this name counts as a picture in a folder."""
    return (not name.startswith('.')
            and Path(name).suffix.lower() in _suffixes())
