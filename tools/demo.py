"""Put what the page in the browser runs on beside its scripts: the runtime,
the model, and pictures to try it on.

    python tools/demo.py [FOLDER]

Without FOLDER it does so for the pages in _build/html. `make book` calls it.
"""
import hashlib
import io
import json
import sys
import tarfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pooch
import requests
from notebooks import ROOT
from PIL import Image

import d2lssd
from d2lssd import export, judge
from d2lssd.data.drawing import MODELS
from d2lssd.data.files import cache_folder, replacing
from d2lssd.data.scenery import PHOTOGRAPHS, photograph
from d2lssd.model import evaluating, num_anchors
from d2lssd.prediction import DEFAULT, SHIPPED, SIDE

PAGES = ROOT / '_build' / 'html'
WEIGHTS = DEFAULT

# The runtime comes as the npm package that its makers publish. An npm package
# is an archive at a fixed address, so npm itself is not needed.
RUNTIME = 'onnxruntime-web'
VERSION = '1.30.0'
SHA256 = 'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71'
ADDRESS = (f'https://registry.npmjs.org/{RUNTIME}/-/'
           f'{RUNTIME}-{VERSION}.tgz')
# Name in the package -> name in the book. Some servers do not know that .mjs
# is a script, and browsers then refuse it.
TAKEN = {'package/dist/ort.wasm.bundle.min.mjs': 'ort.js',
         'package/dist/ort-wasm-simd-threaded.wasm': 'ort.wasm'}
NOTICE = f"""{RUNTIME} {VERSION}, ort.js and ort.wasm in this folder
https://github.com/microsoft/onnxruntime
Copyright (c) Microsoft Corporation. MIT licence:

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

# What the page must know of `hear_boxes`.
HEARING = 'LENIENT', 'HEARD', 'DOUBTED', 'SAME', 'VOTERS', 'NEAR', 'MEET'
SEED = 6  # of the sample pictures
DRAWN = [16, 12, 18, 14, 11]  # their numbers
COMPOSED = {'sklearn/datasets/images/flower.jpg': 1,
            'skimage/data/chelsea.png': 2}  # photograph -> seed
# Tilt, yaw and ripeness of the bananas that the browser lays on photographs.
VIEWS = [(0, 0, 0.3), (3.1, 0.4, 0.5), (0.5, -0.5, 0.15)]


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGES
    make_demo(folder / '_static' / 'demo')


def make_demo(folder):
    """Write all that the demo needs into a folder, and demo.json about it.

    Without a network, and with no runtime in the cache from an earlier time,
    the pages are whole all the same: the demo is left out and says why.
    """
    start = time.monotonic()
    print('== the detector for the browser', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    samples = make_samples(folder)
    about = {'still': make_still(folder, samples), 'samples': samples,
             'grounds': make_grounds(folder), 'cutouts': make_cutouts(folder),
             **make_model(folder)}
    try:
        about['runtime'] = unpack_runtime(fetch_runtime(), folder)
    except (requests.RequestException, OSError, ValueError) as error:
        about['missing'] = (f'{RUNTIME} could not be fetched from '
                            'registry.npmjs.org')
        print(f'The page in the browser goes without its demo: {error}\n'
              '  With a network, `make book` adds it; the file is kept in '
              f'{cache_folder()} for next time.', file=sys.stderr)
    (folder / 'demo.json').write_text(json.dumps(about), 'utf-8')
    print(f'Made in {time.monotonic() - start:.0f} s')


def fetch_runtime():
    """Path of the npm package in the cache; fetched and checked if need be.
    """
    return pooch.retrieve(
        ADDRESS, f'sha256:{SHA256}', f'{RUNTIME}-{VERSION}.tgz',
        cache_folder(), downloader=pooch.HTTPDownloader(timeout=30))


def unpack_runtime(package, folder):
    """Take two files out of the npm package; return what demo.json says."""
    with tarfile.open(package) as archive:
        for inside, name in TAKEN.items():
            data = archive.extractfile(inside).read()
            (folder / name).write_bytes(data)
    (folder / 'ort-licence.txt').write_text(NOTICE, 'utf-8')
    return {'name': RUNTIME, 'version': VERSION, 'script': 'ort.js',
            'wasm': 'ort.wasm', 'bytes': (folder / 'ort.wasm').stat().st_size}


def make_model(folder):
    """Export the shipped weights and their judge; as long as they, the
    exporter and its libraries stay the same, the last files are taken again.

    Returns:
        What demo.json says of the network and of the judge.
    """
    digest = hashlib.sha256()
    for module in 'export', 'model', 'anchors', 'boxes', 'judge':
        digest.update((Path(export.__file__).parent
                       / f'{module}.py').read_bytes())
    digest.update((SHIPPED / f'{WEIGHTS}.safetensors').read_bytes())
    digest.update(' '.join(version(name) for name in (
        'torch', *export.NEEDED)).encode())
    net = d2lssd.load_pretrained(WEIGHTS)
    facts = []
    for name, write in (('model', export.export_onnx),
                        ('judge', export.export_judge)):
        kept = (ROOT / '_build' / 'demo'
                / f'{digest.hexdigest()[:16]}-{name}.onnx')
        card = kept.with_suffix('.json')
        if not card.exists():
            about = write(net, kept)
            with replacing(card) as temporary:
                temporary.write_text(json.dumps(about), 'utf-8')
        (folder / f'{name}.onnx').write_bytes(kept.read_bytes())
        facts.append({'file': f'{name}.onnx',
                      **json.loads(card.read_text('utf-8'))})
    network, judging = facts
    hearing = {name.lower(): getattr(judge, name) for name in HEARING}
    return {'model': {'side': SIDE, 'anchors': num_anchors,
                      'classes': d2lssd.classes_of(net), 'grids': grids(net),
                      **network},
            'judge': {**hearing, **judging}}


def grids(net):
    """Height and width of the five feature maps."""
    import torch
    sizes, X = [], torch.zeros(1, 3, SIDE, SIDE)
    with evaluating(net):
        for i in range(5):
            X = getattr(net, f'blk_{i}')(X)
            sizes.append(list(X.shape[2:]))
    return sizes


def save(image, path, **options):
    """Write a picture as WebP; return its name."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    data = io.BytesIO()
    image.save(data, 'WEBP', method=6, **{'quality': 88, **options})
    path.write_bytes(data.getvalue())
    return path.name


def make_samples(folder):
    """Pictures with bananas and without; neither photograph nor banana is one
    that the network was trained on."""
    pictures = [d2lssd.draw_scene('val', i, SEED, 'wild', (1, 4))
                for i in DRAWN]
    for name, seed in COMPOSED.items():
        photo = photograph(name)
        pictures.insert(1 + seed, d2lssd.compose(
            photo, 'val', seed, 3, (60, int(min(photo.shape[:2]) * 0.55))))
    pictures.append(d2lssd.draw_scene('val', 0, SEED, 'wild', 0))
    return [{'file': save(image, folder / f'sample-{i + 1}.webp'),
             'boxes': np.round(boxes, 4).tolist()}
            for i, (image, boxes) in enumerate(pictures)]


def make_still(folder, samples):
    """What readers see in print and where nothing can run: the first picture
    with what the page finds on it, which looks once."""
    picture = Image.open(folder / samples[0]['file'])
    net = d2lssd.load_pretrained(WEIGHTS)
    found = d2lssd.detect(picture, net, tiles=False)
    # Drawn at twice the size, so that the labels are sharp.
    large = picture.resize([2 * side for side in picture.size],
                           Image.Resampling.BICUBIC)
    for row in found:
        row['box'] = [2 * side for side in row['box']]
    drawn = folder / 'still.png'
    d2lssd.save_picture(large, found, drawn)
    name = save(Image.open(drawn), folder / 'still.webp')
    drawn.unlink()
    return name


def make_grounds(folder):
    """Photographs for new pictures; small ones would be blurred."""
    photos = map(photograph, PHOTOGRAPHS['val'])
    return [save(photo, folder / f'ground-{i + 1}.webp', quality=80)
            for i, photo in enumerate(photos) if min(photo.shape[:2]) >= 256]


def make_cutouts(folder):
    """Bananas on transparent ground, for new pictures."""
    names = []
    for model in list(MODELS['val'])[:4]:
        for tilt, yaw, ripeness in VIEWS:
            banana = d2lssd.draw_banana(
                model, 300, 0.3, tilt, yaw, ripeness, seed=len(names))
            names.append(save(
                banana, folder / f'banana-{len(names) + 1}.webp'))
    return names


if __name__ == '__main__':
    main()
