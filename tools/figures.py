"""Write what the moving figures show, and the still figures in their place.

    python tools/figures.py

Boxes and scores are those of the chapter's cells, training curves those
recorded beside the shipped weights. A still figure is the first frame of the
moving one; drawing it needs Chromium.
"""
import base64
import functools
import http.server
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import nbformat
import torch
from notebooks import BOOK, HOME
from PIL import Image
from skimage.data import chelsea

import d2lssd

FIGURES = BOOK / '_static' / 'figures'
DATA = FIGURES / 'moving-data.js'
KINDS = ['anchors', 'iou', 'suppression', 'smooth-l1', 'focal', 'curves']


def run_cells(chapter, names, scope):
    """Run some cells of a chapter, and give the variables they leave."""
    notebook = nbformat.read(BOOK / f'{chapter}.ipynb', as_version=4)
    cells = {cell.id: cell.source for cell in notebook.cells}
    for name in names:
        exec(cells[name], scope)
    return scope


def plain(values, digits=6):
    """Numbers of a tensor as they are written into a file."""
    return [plain(value, digits) if isinstance(value, list)
            else float(f'{value:.{digits}g}') for value in values]


def cat():
    """The photograph's true boxes and findings, in pixels."""
    here = run_cells('background/boxes-and-anchors',
                     ['true-boxes', 'relative-boxes', 'findings'],
                     {'torch': torch, 'chelsea': chelsea})
    return {
        'width': here['w'], 'height': here['h'],
        'boxes': plain(here['pixels'].tolist()), 'names': here['names'],
        'found': plain((here['found'] * here['scale']).tolist(), 5),
        'scores': plain(here['scores'].tolist(), 3),
        'classes': here['kinds'].tolist(), 'classNames': ['eye', 'nose'],
    }


def runs():
    """Training runs as recorded beside the shipped weights."""
    found = {}
    for recipe in d2lssd.RECIPES:
        try:
            history = d2lssd.weights_card(recipe)['history']
        except (OSError, ValueError):
            continue  # a recipe without shipped weights
        found[recipe] = {name: plain(row[name] for row in history)
                         for name in ('loss', 'class error', 'bbox mae')}
    return found


def finds_nothing():
    """Errors of a detector that finds nothing, on the training pictures."""
    anchors = d2lssd.TinySSD(1)(torch.zeros(1, 3, 256, 256))[0]
    _, labels = d2lssd.read_data_bananas(is_train=True)
    scores = torch.tensor([d2lssd.finds_nothing(anchors, part)
                           for part in labels.split(100)]).mean(0)
    return dict(zip(('class error', 'bbox mae'), plain(scores.tolist())))


def data(nothing):
    """All values that the moving figures are given."""
    ratio = run_cells('exercises', ['who-fills'], {'torch': torch})
    # The other recipes draw new pictures for each epoch.
    return {'cat': cat(),
            'training': {'runs': runs(), 'nothing': {'source': nothing}},
            'anchors': {'matched': ratio['matched'], 'easy': ratio['easy']}}


def script(values):
    """The file that gives them, in the form that a page can load."""
    text = json.dumps(values, ensure_ascii=False, separators=(',', ':'))
    return ('// Written by tools/figures.py.\n'
            f'Object.assign(movingFigures.data, {text});\n')


def stored():
    """The values in that file."""
    text = DATA.read_text('utf-8')
    return json.loads(text[text.index('{'):text.rindex(')')])


def page(kinds):
    """A bare page with a figure of each kind."""
    figures = ''.join(
        f'<figure class="moving moving-{kind}" id="{kind}"><img alt="" '
        f'src="moving-{kind}.svg"><figcaption>A caption</figcaption></figure>'
        for kind in kinds)
    return ('<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            '<title>Figures</title><link rel="stylesheet" href="moving.css">'
            '<style>figure { margin: 1em 0 }</style>'
            '<script defer src="moving.js"></script>' + figures)


@contextmanager
def served(folder, **pages):
    """Serve a folder, and some pages that are not files, on this machine."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            text = pages.get(self.path.strip('/').removesuffix('.html'))
            if text is None:
                return super().do_GET()
            body = text.encode()
            self.send_response(200)
            self.send_header('Content-Type', 'text/html; charset=utf-8')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            return self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()


FIRST_FRAME = """kind => new XMLSerializer().serializeToString(
    document.querySelector(`#${kind} .moving-stage > svg`))"""


def first_frame(browser_page, kind):
    """A moving figure as it stands now, as the text of a still one."""
    text = browser_page.evaluate(FIRST_FRAME, kind)
    photo = base64.b64encode((FIGURES / 'cat.jpg').read_bytes()).decode()
    address = browser_page.evaluate('movingFigures.here') + 'cat.jpg'
    return text.replace(address, f'data:image/jpeg;base64,{photo}') + '\n'


def main():
    from browser import chromium  # only drawing needs it

    Image.fromarray(chelsea()).save(FIGURES / 'cat.jpg', quality=78,
                                    optimize=True, progressive=True)
    os.environ['D2LSSD_HOME'] = str(HOME)
    DATA.write_text(script(data(finds_nothing())), encoding='utf-8')
    with (served(FIGURES, all=page(KINDS)) as address,
          chromium() as browser):
        sheet = browser.new_page()
        sheet.goto(f'{address}/all.html')
        sheet.evaluate('movingFigures.ready')
        for kind in KINDS:
            path = FIGURES / f'moving-{kind}.svg'
            path.write_text(first_frame(sheet, kind), encoding='utf-8')
            print(Path(path).relative_to(BOOK), path.stat().st_size, 'bytes')


if __name__ == '__main__':
    main()
