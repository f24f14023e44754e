"""Prediction: from a picture to boxes, and the weights that do it."""
import contextlib
import functools
import json
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from d2lssd.classes import classes_of
from d2lssd.data.files import (
    cache_folder,
    checksum,
    one_line,
    refuse_folder,
    replacing,
)
from d2lssd.data.labels import checked_classes
from d2lssd.data.pictures import SIDE, open_image, to_rgb
from d2lssd.detection import multibox_detection
from d2lssd.judge import Judge
from d2lssd.model import SIDES, TinySSD, check_sizes, evaluating, side_of
from d2lssd.tiles import SURE, boxes_of_tiles, join_tiles, look

SHIPPED = Path(__file__).parent / 'weights'
DEFAULT = 'wild'


def predict(X, net):
    """Detect objects on one image.

    Args:
        X: float tensor ``(1, 3, h, w)``, 0–255.
        net: a `TinySSD`; it stays in the mode it is in.

    Returns:
        Float tensor ``(n, 6)``, rows ``(class, score, x_min, y_min, x_max,
        y_max)``, boxes relative to the image, by falling score.

    Raises:
        ValueError: X holds more or fewer images than one.
    """
    if len(X) != 1:
        raise ValueError(f'X holds {len(X)} images; predict takes one')
    with evaluating(net):
        device = next(net.parameters()).device
        anchors, cls_preds, bbox_preds = net(X.to(device))
        cls_probs = F.softmax(cls_preds, dim=2).permute(0, 2, 1)
        output = multibox_detection(cls_probs, bbox_preds, anchors)
    return output[0, output[0, :, 0] != -1]


def read_image(picture):
    """Bring any picture to the form that the network takes.

    Args:
        picture: a path, a binary file, a Pillow image, an array ``(h, w, 3)``
            or a tensor ``(3, h, w)``, 0–255. Of paths, files and Pillow
            images, see ``d2lssd.data.open_image``. Numbers that are not whole
            are cut to 0–255.

    Returns:
        Tuple of a float tensor ``(1, 3, 256, 256)``, 0–255, and the picture as
        a new Pillow image (RGB, its own size).

    Raises:
        ValueError: what is given is no picture; the message names it.
        TypeError: it is none of these.
        OSError: the file cannot be opened.
    """
    picture = _opened(picture)
    return _resized(picture), picture


def _opened(picture):
    """A picture of any kind as a Pillow image; see `read_image`."""
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, (torch.Tensor, np.ndarray)):
        return Image.fromarray(_pixels(picture))
    if isinstance(picture, (str, os.PathLike)) or hasattr(picture, 'read'):
        return open_image(picture)
    raise TypeError(f'picture: {type(picture).__name__}; a path, a Pillow '
                    'image, an array (h, w, 3) or a tensor (3, h, w) is '
                    'needed')


def _pixels(values):
    """An array or a tensor as uint8 array ``(h, w, 3)``."""
    what = f'{type(values).__name__} {tuple(values.shape)} of {values.dtype}'
    needed = '(h, w, 3)'
    if isinstance(values, torch.Tensor):
        needed = '(3, h, w)'
        values = values.detach().cpu()
        if values.is_floating_point():  # NumPy has no bfloat16
            values = values.float()
        values = values.numpy()
        if values.ndim == 3:
            values = values.transpose(1, 2, 0)
    kind = values.dtype.kind
    fits = (values.ndim == 3 and values.shape[2] == 3 and values.size
            and (kind in 'if' or values.dtype == np.uint8))
    if fits:
        low, high = values.min(), values.max()
        what += f', from {low:g} to {high:g}'
        # Enlarging may lead a little beyond; up to 1 is another scale.
        fits = (low == high == 0 or -256 < low and 1 < high < 512
                if kind == 'f' else 0 <= low and high <= 255)
    if not fits:
        raise ValueError(f'picture: {what}; {needed} of uint8 or floats, from '
                         '0 to 255, is needed')
    return values.clip(0, 255).astype(np.uint8)


def _resized(picture, box=None, side=SIDE):
    """A picture, or a box of it, as the network takes it."""
    small = picture.resize((side, side), Image.Resampling.BILINEAR, box,
                           reducing_gap=3)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float()


def detect(picture, net=None, threshold=0.5, classes=None, tiles=True,
           voting=True):
    """Detect objects on any picture.

    Args:
        picture: see `read_image`.
        net: a `TinySSD`; None for the shipped one.
        threshold: least score, 0–1.
        classes: names to use in place of the network's own.
        tiles: look at nine enlarged parts of the picture, too, for what is
            small; it takes some ten times as long. See ``d2lssd.tiles``.
        voting: place each box by all that were found with it, which is
            nearer to the truth; see `vote_boxes`, and `judge_boxes`, which
            scores them as well, where the network has a judge.

    Returns:
        List of dicts by falling score: ``'label'``, ``'score'`` and ``'box'``,
        ``[x_min, y_min, x_max, y_max]`` in pixels of the picture, inside it.

    Raises:
        ValueError, OSError: see `read_image`.
        ValueError: a threshold outside 0–1; not a name for each class.
        TypeError: net is no network.
    """
    net = _pretrained() if net is None else net
    if not isinstance(net, torch.nn.Module):
        raise TypeError(f'net: {str(net)[:60]!r}; a network is needed, '
                        'such as load_pretrained or load_weights gives')
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold = {threshold}: a score is from 0 to 1')
    classes = classes_of(net) if classes is None else checked_classes(classes)
    if len(classes) != net.num_classes:
        raise ValueError(f'classes = {classes}: {len(classes)} names, and the '
                         f'network has {net.num_classes} classes')
    picture = _opened(picture)
    device = next(net.parameters()).device
    boxes = [None, *boxes_of_tiles(*picture.size)] if tiles else [None]
    views = [_resized(picture, box, side_of(net) or SIDE) for box in boxes]
    with evaluating(net):
        rows, *parts = (look(view.to(device), net, voting,
                             min(threshold, SURE))[0] for view in views)
    if tiles:
        rows = join_tiles(rows, parts)
    unit = rows.new_tensor([picture.width, picture.height] * 2)
    return [{'label': classes[int(row[0])], 'score': round(float(row[1]), 4),
             'box': [round(v, 1) for v in
                     (row[2:].clamp(0, 1) * unit).tolist()]}
            for row in rows[rows.isfinite().all(1)] if row[1] >= threshold]


def load_pretrained(name=DEFAULT, device=None):
    """The trained network that comes with the package, ready to predict.

    Args:
        name: 'wild', for all kinds of pictures, real ones above all; 'plain',
            for pictures like those of the data set, with up to eight bananas;
            'clear', for such pictures with bananas of all sizes;
            'balanced', from which their training went on, with the anchors
            as taught; or 'source', what the source's recipe gives after 20
            epochs. `weights_card` says more.
        device: a `torch.device`; None for the CPU.

    Returns:
        A `TinySSD` in evaluation mode.

    Raises:
        ValueError: unknown name.
    """
    net = load_weights(_shipped(name, '.safetensors'))
    return net.to(device or 'cpu')


@functools.cache
def _pretrained():
    return load_pretrained()


def weights_card(name=DEFAULT):
    """What is known of shipped weights: recipe, seed, data, curve, metrics.

    Args:
        name: see `load_pretrained`.

    Returns:
        dict, as ``python -m d2lssd train --save`` wrote it.
    """
    return json.loads(_shipped(name, '.json').read_text(encoding='utf-8'))


def _shipped(name, suffix):
    path = SHIPPED / f'{name}{suffix}'
    if not path.exists():
        known = sorted(p.stem for p in SHIPPED.glob('*.safetensors'))
        raise ValueError(f'weights {name!r}: known are {", ".join(known)}')
    return path


def trained_weights():
    """Where the training chapter saves what the reader trains.

    Returns:
        Path in the user's cache folder; it need not exist.
    """
    return cache_folder() / 'trained' / 'tinyssd.safetensors'


def weights_path(path):
    """Make sure that a file of weights can have this name.

    Args:
        path: of the file. Its card and checkpoint are named after it, and
            are told from it by their endings.

    Returns:
        The `Path`.

    Raises:
        ValueError: it does not end in .safetensors.
        OSError: a folder has this name.
    """
    path = Path(path)
    refuse_folder(path)
    if path.suffix != '.safetensors':
        raise ValueError(f'{path}: weights need a name that ends in '
                         f'.safetensors, such as {path.name}.safetensors')
    return path


def save_weights(net, path, card=None):
    """Write the weights of a network, in half precision where they fit.

    Args:
        net: a `TinySSD`; the names of its classes are written too.
        path: of the file, NAME.safetensors; it appears whole or not at all.
        card: dict of what to remember; written beside it, as NAME.json.

    Raises:
        ValueError: another ending; weights that are no finite numbers; names
            of classes that are not all different; a file of one of the names
            that is something else.
        OSError: no room, no rights.
    """
    from safetensors.torch import save_file

    path = weights_path(path)
    refuse_stranger(path, card is not None)
    checked_classes(classes_of(net))
    state = {name: value.detach().cpu().contiguous()
             for name, value in net.state_dict().items()}
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f'{path}: not written, for {name} is not all '
                             'finite numbers')
        if value.is_floating_point():
            half = value.half()
            state[name] = half if half.isfinite().all() else value.float()
    header = {'format': 'd2lssd-1', 'num_classes': str(net.num_classes),
              'classes': json.dumps(classes_of(net)),
              'sizes': json.dumps(net.sizes)}
    if side_of(net):
        header['side'] = str(net.side)
    header['crc32'] = _checksum(state, header)
    with replacing(path) as temporary:
        save_file(state, temporary, header)
    if card is not None:
        card = {**card, 'classes': classes_of(net), 'crc32': checksum(state)}
        with replacing(path.with_suffix('.json')) as temporary:
            temporary.write_text(json.dumps(card, indent=1) + '\n', 'utf-8')


def refuse_stranger(path, with_card=True):
    """Make sure that weights overwrite nothing but weights.

    Args:
        path: where weights are to be written, NAME.safetensors.
        with_card: also that their card, NAME.json, overwrites but a card.

    Raises:
        ValueError: a file of another kind has one of the names.
    """
    from safetensors import SafetensorError, safe_open
    path = Path(path)
    if with_card:
        refuse_folder(path.with_suffix('.json'))
    if path.is_file():
        try:
            with safe_open(path, 'pt') as file:
                own = (file.metadata() or {}).get('format') == 'd2lssd-1'
        except (SafetensorError, OSError, ValueError):
            own = False
        if not own:
            raise ValueError(f'{path}: there is a file of this name that was '
                             'not written here; move it, or name the weights '
                             'otherwise')
    if not with_card:
        return
    path = path.with_suffix('.json')
    with contextlib.suppress(OSError):
        text = path.read_bytes()
        with contextlib.suppress(ValueError, RecursionError):
            card = json.loads(text)
            if isinstance(card, dict) and 'crc32' in card:
                return
        raise ValueError(f'{path}: there is a file of this name that '
                         'describes no weights; move it, or name the weights '
                         'otherwise')


def load_weights(path):
    """Read a network back.

    Args:
        path: a file that `save_weights` wrote. Nothing in it is ever run.

    Returns:
        A `TinySSD` in evaluation mode, on the CPU; `classes_of` tells what it
        finds. A judge that another version of the package made is left out,
        with a warning.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no safetensors file, is cut short or damaged, or
            holds another network; the message names it and the first
            difference.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with open(path, 'rb'):
        pass  # a missing file is reported with its name and reason
    try:
        with safe_open(path, 'pt') as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(f'{path}: not a whole safetensors file ({error})'
                         ) from error
    count = header.get('num_classes', '')
    if header.get('format') != 'd2lssd-1' or not re.fullmatch(
            '[1-9][0-9]{0,3}', count):
        raise ValueError(f'{path}: not written by d2lssd.save_weights '
                         f'(its header says {str(header)[:200]})')
    noted = header.pop('crc32', None)  # once, none was
    if noted not in (None, _checksum(state, header)):
        raise ValueError(f'{path}: damaged, for its checksum is not the '
                         f'{noted[:60]!r} of its header; copy it again')
    judged = any(name.startswith('judge.') for name in state)
    with torch.device('meta'):  # a number of classes may be a lie: no memory
        expected = _network(count, judged).state_dict()
    shapes = [{name: tuple(value.shape) for name, value in some.items()}
              for some in (expected, state)]
    other = sorted(name for name in expected.keys() | state.keys()
                   if shapes[0].get(name) != shapes[1].get(name))
    if other and all(name.startswith('judge.') for name in other):
        warnings.warn(f'{path}: its judge was made by another version of this '
                      'package and is left out, so that the scores are those '
                      'of the anchors; `teach_judge` teaches a new one',
                      stacklevel=2)
        judged, other = False, []
        state = {name: value for name, value in state.items()
                 if not name.startswith('judge.')}
    for name in other:
        mine, theirs = (some.get(name) for some in shapes)
        raise ValueError(f'{path}: {name} has shape {theirs}; '
                         f'a TinySSD needs {mine}')
    for name, value in sorted(state.items()):
        if not torch.isfinite(value.float()).all():
            raise ValueError(f'{path}: {name} is not all finite numbers')
    net = _network(count, judged)
    net.classes = _names(path, header, net)
    net.sizes = _sizes(path, header, net)
    net.side = _side(path, header)
    net.load_state_dict({name: value.float() if value.is_floating_point()
                         else value for name, value in state.items()})
    # As in training: predicting takes a third less time so.
    return net.eval().to(memory_format=torch.channels_last)


def _checksum(state, header):
    """That of weights and of what a header says of them."""
    return checksum({**state, json.dumps(header, sort_keys=True):
                     torch.empty(0)})


def _network(count, judged):
    """A network of so many classes, with or without a judge."""
    net = TinySSD(int(count))
    net.judge = Judge() if judged else None
    return net


def _names(path, header, net):
    """Names of the classes in the header of a weights file."""
    try:
        names = json.loads(header.get('classes', 'null'))
    except (ValueError, RecursionError):
        names = ()
    if names is None:  # written before the names were
        return classes_of(net)
    if not (isinstance(names, list) and len(names) == net.num_classes
            and all(isinstance(name, str) and name for name in names)
            and len(set(names)) == len(names)):
        raise ValueError(f'{path}: its header says {net.num_classes} classes '
                         f'with the names {str(header["classes"])[:60]}; as '
                         'many different names are needed, in JSON')
    return names


def _sizes(path, header, net):
    """Sizes of the anchors in the header of a weights file."""
    try:
        # Before they were written, all had the same.
        sizes = json.loads(header.get('sizes', json.dumps(net.sizes)))
        check_sizes(sizes)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: its header has no sizes of anchors '
                         f'({error})') from error
    return sizes


def _side(path, header):
    """Width and height of what the network learnt from, in the header of a
    weights file; None where it does not say."""
    side = header.get('side')
    if side is None:
        return None
    if not (re.fullmatch('[1-9][0-9]{2,3}', side)
            and SIDES[0] <= int(side) <= SIDES[1]):
        raise ValueError(f'{path}: its header says that it learnt from '
                         f'pictures {side[:60]!r} pixels wide; a whole number '
                         f'from {SIDES[0]} to {SIDES[1]} is needed')
    return int(side)


def save_picture(picture, detections, path):
    """Save a picture with its detections drawn on it.

    Args:
        picture: see `read_image`.
        detections: what `detect` gave for it.
        path: of the file; its ending says the format.

    Raises:
        ValueError: unknown ending.
        OSError: the file cannot be written.
    """
    from PIL import ImageDraw, ImageFont

    picture = read_image(picture)[1]
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 400))
    # matplotlib's letters: Pillow's own are those of English alone.
    font = ImageFont.truetype(str(Path(find_spec('matplotlib').origin).parent
                                  / 'mpl-data/fonts/ttf/DejaVuSans.ttf'),
                              8 + 7 * unit)
    for found in reversed(detections):
        text = f'{one_line(found["label"])} {found["score"]:.2f}'
        draw.rectangle(found['box'], outline='black', width=3 * unit)
        draw.rectangle(found['box'], outline='#FFD400', width=2 * unit)
        x, y = found['box'][:2]
        box = draw.textbbox((x, y), text, font, 'lb')
        drop = max(0, -box[1])
        x, y = max(0, min(x, picture.width - box[2] + box[0])), y + drop
        draw.rectangle(draw.textbbox((x, y), text, font, 'lb'), fill='#222')
        draw.text((x, y), text, 'white', font, 'lb')
    path = Path(path)
    kind = check_ending(path)
    with replacing(path) as temporary:
        picture.save(temporary, kind)


def check_ending(path):
    """The format that the ending of a picture's name says.

    Raises:
        ValueError: unknown ending.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f'{path}: name it .png or .jpg')
    return kind

