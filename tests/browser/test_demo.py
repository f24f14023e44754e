"""The detector on the page finds what Python finds, and stays usable."""
import filecmp
import functools
import http.server
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from needs import lacking
from PIL import Image

import d2lssd
from d2lssd.data.scenery import photograph
from d2lssd.detection import find_boxes
from d2lssd.judge import DOUBTED, HEARD, LENIENT, hear_boxes, judge_boxes
from d2lssd.model import evaluating, num_anchors
from d2lssd.tiles import SAME

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / '_build' / 'html'
PREFIX = '/some/folder'  # pages need not lie at the root of their host
PAGE = 'book/beyond/in-the-browser.html'
SOURCES = ROOT / 'book' / '_static' / 'demo'
BUILT = PAGES / '_static' / 'demo'
PATIENCE = 120_000  # ms: a slow machine is no failure
LISTEN = """window.addEventListener('found',
    ({detail}) => { window.found = detail; }, true)"""
WATCH = """window.streams = [];
    const get = navigator.mediaDevices.getUserMedia.bind(
        navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await window.prompted;
        const stream = await get(wanted);
        window.streams.push(stream);
        return stream;
    }"""
LEAST, EDGE, NEAR_SCORE, NEAR_PIXELS = 0.3, 0.01, 0.01, 1


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files below PREFIX, nothing else, and no log."""

    def translate_path(self, path):
        inside = path.startswith(f'{PREFIX}/')
        return super().translate_path(
            path.removeprefix(PREFIX) if inside else '/no such file')

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def site():
    """Address of the built pages, on a plain static server."""
    if not (PAGES / 'index.html').exists():
        lacking('the pages are not built; `make book` builds them')
    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=PAGES))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}{PREFIX}'
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope='module')
def about(site):
    """What the build wrote about the demo; the pages must be up to date."""
    if not (PAGES / PAGE).exists():
        lacking(f'{PAGE} is not built; `make book` builds it')
    old = [path.name for path in SOURCES.iterdir()
           if not filecmp.cmp(path, BUILT / path.name, shallow=False)]
    if old:
        pytest.fail(f'the built pages hold older {", ".join(old)}: make book')
    about = json.loads((BUILT / 'demo.json').read_text('utf-8'))
    if 'runtime' not in about:
        pytest.skip(f'the pages were built without the demo: '
                    f'{about["missing"]}')
    return about


@pytest.fixture
def fresh(browser, site, about):
    """Opens the page, as a reader does; options are those of the window."""
    contexts = []

    def open_page(prepare=lambda page: None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(LISTEN)
        prepare(page)
        page.goto(f'{site}/{PAGE}')
        return page
    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope='module')
def started(browser, site, about):
    """The page after the reader has pressed the button."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(LISTEN)
    page.goto(f'{site}/{PAGE}')
    after(page, page.locator('.demo-start').click)
    yield page
    page.close()


@pytest.fixture(scope='module')
def net():
    return d2lssd.load_pretrained()


def after(page, act):
    """What is found once an act has led to another run of the network."""
    runs = page.evaluate('window.found?.runs ?? 0')
    act()
    page.wait_for_function('(runs) => (window.found?.runs ?? 0) > runs',
                           arg=runs)
    return page.evaluate('window.found')


def look(page, path):
    return after(page, lambda: page.set_input_files('#demo [type=file]', path))


def slide(page, name, value):
    page.locator(f'#demo [name={name}]').evaluate("""(input, value) => {
        input.value = value;
        input.dispatchEvent(new Event('input', {bubbles: true}));
    }""", value)
    return page.evaluate('window.found')


def twenty_pictures(folder):
    """Paths of 20 pictures: drawn, photographed, large, small, transparent,
    turned, and in three formats."""
    def save(name, image, **options):
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        image.save(folder / name, **options)

    for i in range(8):
        save(f'drawn-{i}.png', d2lssd.draw_scene(
            'val', i, 11, 'wild', (1, 3))[0])
    scenes = []
    for i, name in enumerate(['sklearn/datasets/images/flower.jpg',
                              'skimage/data/chelsea.png',
                              'skimage/data/gravel.png']):
        scene = d2lssd.compose(photograph(name), 'val', i, 3, (80, 200))[0]
        scenes.append(Image.fromarray(scene))
        save(f'photo-{i}.jpg', scene, quality=90)
    save('large.jpg', scenes[0].resize((3000, 2000)), quality=92)
    save('tall.jpg', scenes[1].resize((450, 2400)), quality=92)
    for turn in (3, 5, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = turn
        save(f'turned-{turn}.jpg', scenes[turn % 3].crop((0, 0, 450, 300)),
             quality=90, exif=exif)
    save('transparent.png', d2lssd.draw_banana(4100, 180))
    save('other-format.webp', scenes[2], quality=90)
    save('small.png', scenes[0].resize((120, 90)))
    return sorted(folder.iterdir())


def voted(rows, overlap):
    """Boxes where voting puts them, those that meet taken as one."""
    rows = d2lssd.vote_boxes(rows)
    return rows[d2lssd.nms(rows[:, 2:], rows[:, 1], max(SAME, overlap))]


def in_python(path, net, judge):
    """Detections at three overlaps around the slider's: those that all three
    give must be found; those that one gives may be. Of a judge, what it makes
    of one overlap must be found, and nothing else."""
    X, picture = d2lssd.read_image(path)
    unit = torch.tensor([picture.width, picture.height] * 2)
    if judge:
        with evaluating(net):
            rows, = find_boxes(net, X, LENIENT, DOUBTED, HEARD)
            rows = judge_boxes(rows, net, X[0])
        pairs = [(float(row[1]), (row[2:].clamp(0, 1) * unit).tolist())
                 for row in rows]
        return picture.size, [one for one in pairs
                              if one[0] >= LEAST + EDGE], pairs
    with evaluating(net):
        anchors, cls_preds, bbox_preds = net(X)
    sets = []
    for overlap in (0.5, 0.5 - EDGE, 0.5 + EDGE):
        rows = d2lssd.multibox_detection(
            cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors,
            overlap, LEAST - EDGE)[0]
        rows = voted(rows, overlap)
        sets.append([(float(row[1]), (row[2:].clamp(0, 1) * unit).tolist())
                     for row in rows])
    sure = [one for one in sets[0] if one[0] >= LEAST + EDGE
            and all(one in other for other in sets)]
    return picture.size, sure, [one for each in sets for one in each]


def nearest(score, box, others):
    """Differences of score and of corners, in pixels, to the best partner."""
    pairs = [(abs(score - s), max(abs(a - b) for a, b in zip(box, c)))
             for s, c in others]
    return min(pairs, key=lambda pair: pair[0] / NEAR_SCORE
               + pair[1] / NEAR_PIXELS, default=(1, float('inf')))


def set_judge(page, judge):
    """Tick or untick the judge's box."""
    page.locator('.demo-judge input').set_checked(judge)


@pytest.mark.parametrize('judge', [True, False], ids=['judge', 'no judge'])
def test_the_page_finds_what_python_finds_on_twenty_pictures(
        judge, started, net, tmp_path, capsys):
    slide(started, 'least', LEAST)
    set_judge(started, judge)
    paths = twenty_pictures(tmp_path)
    assert len(paths) == 20
    lines, boxes, faults = [], 0, []
    for path in paths:
        size, sure, possible = in_python(path, net, judge)
        result = look(started, path)
        assert (result['width'], result['height']) == size, path.name
        found = [(one['score'], one['box']) for one in result['found']]
        # Each way round: nothing is missed, nothing is made up.
        pairs = [nearest(*one, found) for one in sure]
        pairs += [nearest(*one, possible) for one in found
                  if one[0] >= LEAST + EDGE]
        score, pixels = (max((pair[i] for pair in pairs), default=0)
                         for i in (0, 1))
        boxes += len(found)
        lines.append(f'{path.name:18}{size[0]:5} ×{size[1]:5}'
                     f'{len(found):7}{score:12.5f}{pixels:10.3f}')
        if score > NEAR_SCORE or pixels > NEAR_PIXELS:
            faults.append(path.name)
    with capsys.disabled():
        print(f'\n{"browser, Python":18}{"pixels":>12}{"boxes":>7}'
              f'{"score by":>12}{"box by":>10}', *lines, sep='\n')
    assert not faults
    assert boxes >= 10, 'too few to compare'


def test_pictures_shrink_to_the_very_bytes_of_python(started):
    for width, height in [(256, 256), (1, 1), (300, 200), (97, 511),
                          (1600, 1300), (2000, 777), (770, 2311),
                          (450, 2400)]:
        found = started.evaluate("""async ([width, height]) => {
            const {resize} = await import(new URL(
                '../../_static/demo/resize.js', location.href));
            const value = (i) => Math.imul(i, 2654435761) >>> 24;
            const read = (y, rows) => Uint8ClampedArray.from(
                {length: width * rows * 4}, (_, i) =>
                    value(y * width * 4 + i));
            return JSON.stringify([...resize(read, width, height)]);
        }""", [width, height])  # as text: values one by one take seconds
        found = np.array(json.loads(found)).reshape(3, 256, 256)
        numbers = np.arange(width * height * 4, dtype=np.uint64)
        pixels = ((numbers * 2654435761) % 2**32 >> 24).astype(np.uint8)
        pixels = pixels.reshape(height, width, 4)[..., :3].copy()
        expected, _ = d2lssd.read_image(pixels)
        np.testing.assert_array_equal(found, expected[0].numpy(),
                                      f'{width}×{height}')


def some_outputs(random, chances):
    """Scores of two classes, offsets and anchors, many at one place."""
    corner = random.uniform(0, 0.7, (60, 2))
    anchors = np.hstack([corner, corner + random.uniform(0.1, 0.3, (60, 2))])
    anchors = np.tile(anchors, (5, 1)).astype(np.float32)  # so they overlap
    offsets = random.normal(0, 0.5, (300, 4)).astype(np.float32)
    return random.dirichlet(chances, 300).astype(np.float32), offsets, anchors


def test_boxes_are_decoded_suppressed_and_moved_as_in_python(started):
    scores, offsets, anchors = some_outputs(
        np.random.default_rng(0), [1, 1, 1])
    for least, overlap, voting in [
            (0.01, 0.5, False), (0.4, 0.3, True), (0.2, 0, False),
            (0.3, 1, True), (0.001, 0.5, True)]:
        found = started.evaluate("""async ([outputs, ...options]) => {
            const {detect} = await import(new URL(
                '../../_static/demo/boxes.js', location.href));
            const floats = Object.entries(outputs).map(
                ([name, values]) => [name, Float32Array.from(values)]);
            return detect(Object.fromEntries(floats), 2, ...options);
        }""", [{'scores': scores.ravel().tolist(),
                'offsets': offsets.ravel().tolist(),
                'anchors': anchors.ravel().tolist()}, least, overlap, voting])
        rows = d2lssd.multibox_detection(
            torch.from_numpy(scores.T[None].copy()),
            torch.from_numpy(offsets.reshape(1, -1)),
            torch.from_numpy(anchors[None]), overlap, least)[0]
        rows = voted(rows, overlap) if voting else rows[rows[:, 0] >= 0]
        rows[:, 2:].clamp_(0, 1)
        mine = np.array([[one['kind'], one['score'], *one['box']]
                         for one in found])
        np.testing.assert_allclose(mine, rows, atol=1e-5)


def test_the_judge_is_told_what_python_tells_it(started, about):
    random = np.random.default_rng(1)
    for chances in ([1, 1, 1], [30, 1, 1], [9, 0.1, 0.1]):
        scores, offsets, anchors = some_outputs(random, chances)
        heard = started.evaluate("""async ([outputs, settings]) => {
            const {hear} = await import(new URL(
                '../../_static/demo/judge.js', location.href));
            const floats = Object.entries(outputs).map(
                ([name, values]) => [name, Float32Array.from(values)]);
            return hear(Object.fromEntries(floats), 2, settings);
        }""", [{'scores': scores.ravel().tolist(),
                'offsets': offsets.ravel().tolist(),
                'anchors': anchors.ravel().tolist()}, about['judge']])
        rows, facts = hear_boxes(d2lssd.multibox_detection(
            torch.from_numpy(scores.T[None].copy()),
            torch.from_numpy(offsets.reshape(1, -1)),
            torch.from_numpy(anchors[None]), LENIENT, DOUBTED,
            most=HEARD)[0])
        assert len(rows) > 5
        mine = np.array([[one['kind'], one['score'], *one['box'],
                          *one['facts']] for one in heard])
        np.testing.assert_allclose(mine, torch.cat([rows, facts], 1),
                                   atol=1e-4)


def test_the_judge_has_the_say_until_it_is_not_asked(started, tmp_path):
    image, _ = d2lssd.draw_scene('val', 4, 11, 'wild', 3)
    Image.fromarray(image).save(tmp_path / 'scene.png')
    slide(started, 'least', 0.05)
    set_judge(started, True)
    judged = look(started, tmp_path / 'scene.png')
    assert judged['found']
    others = started.locator('[name=overlap], .demo-voting input')
    assert not any(one.is_enabled() for one in others.all())
    assert 'the judge after it' in started.locator('.demo-times').inner_text()
    set_judge(started, False)
    alone = started.evaluate('window.found')
    assert alone['found'] != judged['found']
    assert alone['runs'] == judged['runs']
    assert all(one.is_enabled() for one in others.all())
    set_judge(started, True)
    assert started.evaluate('window.found')['found'] == judged['found']


def test_sliders_act_without_another_run(started, tmp_path):
    image = d2lssd.compose(photograph('skimage/data/chelsea.png'), 'val', 1,
                           3, (80, 150))[0]
    Image.fromarray(image).save(tmp_path / 'cat.png')
    slide(started, 'least', 0.5)
    set_judge(started, True)
    judged = look(started, tmp_path / 'cat.png')
    more = slide(started, 'least', 0.01)
    assert len(more['found']) > len(judged['found'])
    assert slide(started, 'least', 0.5)['found'] == judged['found']
    set_judge(started, False)
    before = started.evaluate('window.found')
    many = slide(started, 'least', 0.01)
    assert len(many['found']) > len(before['found'])
    all_of_them = slide(started, 'overlap', 1)
    assert len(all_of_them['found']) > len(many['found'])
    none = slide(started, 'least', 0.99)
    assert all(one['score'] >= 0.99 for one in none['found'])
    assert none['runs'] == before['runs']
    slide(started, 'overlap', 0.5)
    again = slide(started, 'least', 0.5)
    assert again['found'] == before['found']
    started.locator('.demo-voting input').click()
    unmoved = started.evaluate('window.found')
    assert unmoved['runs'] == before['runs']
    scores = [[one['score'] for one in each['found']]
              for each in (unmoved, before)]
    assert scores[0] == scores[1]
    assert unmoved['found'] != before['found']
    started.locator('.demo-voting input').click()
    assert started.evaluate('window.found')['found'] == before['found']


def test_the_heat_of_each_scale_is_that_of_its_best_anchors(
        started, net, about, tmp_path):
    image, _ = d2lssd.draw_scene('val', 2, 11, 'wild', 2)
    Image.fromarray(image).save(tmp_path / 'scene.png')
    heats = look(started, tmp_path / 'scene.png')['heats']
    rows = d2lssd.read_image(image)[0]
    with evaluating(net):
        logits = net(rows)[1]
    best = logits.softmax(2)[0, :, 1:].amax(1)
    best = best.reshape(-1, num_anchors).amax(1).tolist()
    assert [len(heat) for heat in heats] == [
        height * width for height, width in about['model']['grids']]
    assert sum(heats, []) == pytest.approx(best, abs=1e-4)
    shown = started.locator('.demo-heats canvas').evaluate_all(
        '(all) => all.map(({height, width}) => [height, width])')
    assert shown == about['model']['grids']


def test_a_heat_map_lies_over_the_picture_when_chosen(started):
    def canvas():
        return started.locator('.demo-stage canvas').evaluate(
            '(canvas) => canvas.toDataURL()')
    plain = canvas()
    choice = started.get_by_role('radio', name='8 × 8')
    choice.check()
    assert canvas() != plain
    started.get_by_role('radio', name='none').check()
    assert canvas() == plain


def test_a_new_picture_has_bananas_where_it_says(started):
    found = after(started, started.get_by_role(
        'button', name='Draw me another').click)
    assert 1 <= len(found['truth']) <= 4
    for left, top, right, bottom in found['truth']:
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
    started.get_by_label('true boxes').check()
    started.get_by_text('It holds').wait_for()
    started.get_by_label('true boxes').uncheck()


def test_true_boxes_enclose_what_was_laid_down(started):
    """Red bars on blue ground: their extent can be read off the picture."""
    boxes, seen = started.evaluate("""async () => {
        const {compose} = await import(new URL(
            '../../_static/demo/pictures.js', location.href));
        const plain = (color, width, height) => {
            const canvas = new OffscreenCanvas(width, height);
            const context = canvas.getContext('2d');
            context.fillStyle = color;
            context.fillRect(0, 0, width, height);
            return canvas.transferToImageBitmap();
        };
        const {boxes, view} = compose(plain('#00f', 600, 500),
            [plain('#f00', 200, 60)]);
        const {width, height} = view;
        const {data} = view.getContext('2d').getImageData(
            0, 0, width, height);
        const seen = [1, 1, 0, 0];
        for (let i = 0; i < data.length; i += 4) {
            if (data[i] < 128) continue;
            const x = i / 4 % width, y = Math.floor(i / 4 / width);
            seen[0] = Math.min(seen[0], x / width);
            seen[1] = Math.min(seen[1], y / height);
            seen[2] = Math.max(seen[2], (x + 1) / width);
            seen[3] = Math.max(seen[3], (y + 1) / height);
        }
        return [boxes, seen];
    }""")
    corners = np.array(boxes)
    joined = [*corners[:, :2].min(0), *corners[:, 2:].max(0)]
    assert joined == pytest.approx(seen, abs=2 / 512)


def test_pictures_can_be_dropped_and_pasted(started, about):
    make = """async (name) => {
        const answer = await fetch(new URL('../../_static/demo/' + name,
            location.href));
        window.parcel = new DataTransfer();
        window.parcel.items.add(new File([await answer.blob()], 'mine.webp',
            {type: 'image/webp'}));
    }"""
    started.evaluate(make, about['samples'][1]['file'])
    dropped = after(started, lambda: started.evaluate(
        """() => document.querySelector('.demo-stage').dispatchEvent(
            new DragEvent('drop', {bubbles: true, cancelable: true,
                dataTransfer: window.parcel}))"""))
    pasted = after(started, lambda: started.evaluate(
        """() => document.dispatchEvent(new ClipboardEvent('paste',
            {clipboardData: window.parcel}))"""))
    assert dropped['name'] == pasted['name'] == 'mine.webp'
    assert dropped['found'] == pasted['found'] != []


def test_of_several_files_the_first_picture_is_taken(started, tmp_path):
    (tmp_path / 'notes.txt').write_text('no picture')
    for name in 'first.png', 'second.png':
        Image.new('RGB', (90, 60), 'red').save(tmp_path / name)
    started.locator('#demo [type=file]').evaluate(
        '(input) => { input.multiple = true; }')
    found = after(started, lambda: started.set_input_files(
        '#demo [type=file]', [tmp_path / name for name in (
            'notes.txt', 'first.png', 'second.png')]))
    assert found['name'] == 'first.png, the first of 2 pictures'


@pytest.fixture(scope='module')
def filmed(browser, tmp_path_factory):
    """A browser whose camera shows a drawn scene, which is asked for nothing;
    and the scene."""
    image, boxes = d2lssd.draw_scene('val', 1, 11, 'plain', 2)
    frame = io.BytesIO()
    Image.fromarray(image).resize((640, 640)).save(frame, 'JPEG', quality=95)
    film = tmp_path_factory.mktemp('film') / 'film.mjpeg'
    film.write_bytes(10 * frame.getvalue())
    import browser as tool
    other = browser.browser_type.launch(
        executable_path=tool.find_chromium(), args=[
            '--no-sandbox', '--use-fake-device-for-media-stream',
            '--use-fake-ui-for-media-stream',
            f'--use-file-for-fake-video-capture={film}'])
    yield other, boxes
    other.close()


@pytest.fixture
def before_camera(filmed, site, about):
    """The page in a browser with a camera, and what the camera shows."""
    context = filmed[0].new_context(permissions=['camera'])
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(LISTEN)
    page.add_init_script(WATCH)
    page.goto(f'{site}/{PAGE}')
    yield page, filmed[1]
    context.close()


@pytest.fixture
def filming(before_camera):
    """The same once it has seen a picture."""
    page, boxes = before_camera
    after(page, page.get_by_role('button', name='Use the camera').click)
    return page, boxes


def assert_put_away(page, cameras=1):
    """No camera is on, and no more pictures are looked at."""
    page.get_by_role('button', name='Use the camera').wait_for()
    assert page.evaluate("""streams.map((stream) =>
        stream.getVideoTracks()[0].readyState)""") == cameras * ['ended']
    runs = page.evaluate('window.found.runs')
    page.wait_for_timeout(2000)
    assert page.evaluate('window.found.runs') == runs


def test_what_the_camera_sees_is_found_again_and_again(filming):
    page, boxes = filming
    page.wait_for_function('window.found.runs > 2')
    found = page.evaluate('window.found')
    assert found['name'] == "the camera's picture"
    places = torch.tensor([one['box'] for one in found['found']])
    places = places / torch.tensor([found['width'], found['height']] * 2)
    iou = d2lssd.box_iou(torch.tensor(boxes).float(), places)
    assert (iou.amax(1) > 0.5).all()
    said = page.get_by_role('status')
    said.get_by_text("On the camera's picture: 2 bananas found.").wait_for()
    assert page.locator('#demo[aria-busy]').count() == 0
    page.get_by_role('button', name='Stop the camera').click()
    assert_put_away(page)
    assert page.get_by_role('alert').count() == 0


def test_who_chooses_a_picture_ends_the_film(filming):
    page, _ = filming
    page.get_by_role('button', name='Sample 2').click()
    page.wait_for_function("window.found.name === 'sample 2'")
    page.wait_for_timeout(500)
    assert_put_away(page)
    assert page.evaluate('window.found.name') == 'sample 2'


def test_who_chooses_while_asked_for_the_camera_wants_no_film(before_camera):
    page, _ = before_camera
    page.evaluate("""() => {
        window.prompted = new Promise((done) => { window.allow = done; });
    }""")
    page.get_by_role('button', name='Use the camera').click()
    page.get_by_role('button', name='Waiting for the camera').wait_for()
    after(page, page.get_by_role('button', name='Sample 2').click)
    page.evaluate('window.allow()')
    page.wait_for_function('window.streams.length === 1')
    assert_put_away(page)
    assert page.evaluate('window.found.name') == 'sample 2'


def test_a_page_that_is_hidden_does_not_film(filming):
    page, _ = filming
    page.evaluate("""() => {
        Object.defineProperty(document, 'hidden', {value: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    assert_put_away(page)
    page.get_by_role('button', name='Use the camera').click()
    page.wait_for_function('window.streams.length === 2')
    assert_put_away(page, 2)  # it opened, and at once was put away


def test_who_stops_before_all_is_loaded_can_start(before_camera):
    page, _ = before_camera
    page.route('**/model.onnx', lambda route: None)  # never comes
    page.get_by_role('button', name='Use the camera').click()
    page.get_by_role('button', name='Stop the camera').click()
    page.get_by_role('button', name='Use the camera').wait_for()
    assert page.locator('.demo-start').is_visible()


def test_a_camera_that_is_lost_or_gives_nothing_is_told(filming):
    page, _ = filming
    page.evaluate("""() => {
        const [track] = streams[0].getVideoTracks();
        track.stop();
        track.dispatchEvent(new Event('ended'));
    }""")
    alert = page.get_by_role('alert')
    alert.get_by_text('The camera was taken away.').wait_for()
    assert_put_away(page)
    page.evaluate("""() => {
        window.createImageBitmap = () => Promise.reject(new Error('no'));
    }""")
    page.get_by_role('button', name='Use the camera').click()
    alert.get_by_text('gives no picture any more').wait_for()
    assert_put_away(page, 2)


def test_a_camera_that_may_not_be_used_is_no_mystery(fresh):
    page = fresh()
    button = page.get_by_role('button', name='Use the camera')
    button.click()
    page.get_by_role('alert').get_by_text('camera').wait_for()
    assert button.is_enabled()
    for error, words in [('NotAllowedError', 'allow it for this page'),
                         ('NotFoundError', 'No camera was found'),
                         ('NotReadableError', 'Another program may'),
                         ('OddError', 'did not start: what a camera')]:
        page.evaluate("""(name) => {
            navigator.mediaDevices.getUserMedia = () => Promise.reject(
                Object.assign(new Error('what a camera'), {name}));
        }""", error)
        button.click()
        page.get_by_role('alert').get_by_text(words).wait_for()
        assert page.evaluate('window.found') is None
    page.evaluate("""() => Object.defineProperty(
        navigator, 'mediaDevices', {value: undefined})""")
    button.click()
    alert = page.get_by_role('alert')
    alert.get_by_text('another browser may').wait_for()
    page.evaluate("""() => Object.defineProperty(
        window, 'isSecureContext', {value: false})""")
    button.click()
    alert.get_by_text('neither over https').wait_for()


def test_what_is_no_picture_is_refused_in_words(started, tmp_path):
    png = io.BytesIO()
    Image.new('RGB', (300, 300), 'red').save(png, 'PNG')
    Image.new('1', (12_000, 9_000)).save(tmp_path / 'poster.png')
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'half.png').write_bytes(b'\x89PNG' + bytes(40))
    message = started.get_by_role('alert')
    before = started.evaluate('window.found')
    for name, words in {'notes.txt': 'not a picture',
                        'half.png': 'not a picture',
                        'poster.png': '12000 × 9000 pixels. At most 89 '
                        'million'}.items():
        started.set_input_files('#demo [type=file]', tmp_path / name)
        message.get_by_text(f'{name} ').get_by_text(words).or_(
            message.filter(has_text=words)).first.wait_for()
        assert name in message.inner_text()
    assert started.evaluate('window.found') == before
    (tmp_path / 'good.png').write_bytes(png.getvalue())
    look(started, tmp_path / 'good.png')
    assert message.is_hidden()


def test_before_the_start_little_is_loaded_and_no_other_host_asked(
        fresh, site):
    asked, weight = [], []

    def watch(page):
        page.on('request', lambda request: asked.append(request.url))
        page.on('requestfinished', lambda request: weight.append(
            ('/demo/' in request.url) * request.sizes()['responseBodySize']))
    page = fresh(watch)
    page.locator('.demo-start').wait_for()
    page.locator('.demo-samples').scroll_into_view_if_needed()
    page.wait_for_load_state('networkidle')
    assert not [url for url in asked if '/ort.' in url or '.onnx' in url]
    assert 0 < sum(weight) <= 300_000
    after(page, page.locator('.demo-start').click)
    after(page, page.locator('.demo-another').click)
    assert [url for url in asked if url.endswith('/ort.wasm')]
    strange = [url for url in asked
               if not url.startswith((f'{site}/', 'blob:', 'data:'))]
    assert not strange


def test_the_keyboard_is_enough(fresh):
    page = fresh()
    page.locator('.demo-start').focus()
    after(page, lambda: page.keyboard.press('Enter'))
    page.get_by_role('status').get_by_text('found').wait_for()
    slider = page.get_by_role('slider', name='Least score')
    slider.focus()
    page.keyboard.press('ArrowRight')
    assert slider.input_value() == '0.51'
    judge = page.get_by_role('checkbox', name='Ask the judge')
    judge.focus()
    page.keyboard.press('Space')
    assert not judge.is_checked()
    for role, name in [('slider', 'Most overlap'), ('button', 'Sample 2'),
                       ('button', 'Draw me another'), ('radio', '32 × 32')]:
        control = page.get_by_role(role, name=name)
        assert control.evaluate('(e) => e.tabIndex') >= 0, name
        control.focus()
        assert control.evaluate('(e) => e === document.activeElement')
    after(page, lambda: (page.get_by_role('button', name='Sample 2').focus(),
                         page.keyboard.press('Enter')))


def long_name(folder):
    path = folder / f'IMG_{"0" * 60}.png'
    Image.new('RGB', (90, 60), 'red').save(path)
    return path


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_phone(fresh, scheme, tmp_path):
    page = fresh(viewport={'width': 390, 'height': 800}, color_scheme=scheme)
    after(page, page.locator('.demo-start').click)
    look(page, long_name(tmp_path))
    page.get_by_role('status').get_by_text('IMG_0000').wait_for()
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    for part in ('.demo-stage canvas', '.demo-controls', '.demo-heats'):
        box = page.locator(part).bounding_box()
        assert box['x'] >= 0
        assert box['x'] + box['width'] <= 390
        assert box['width'] > 200


def test_a_download_that_fails_can_be_tried_again(fresh):
    page = fresh(lambda page: page.route(
        '**/ort.wasm', lambda route: route.abort(), times=1))
    page.locator('.demo-start').click()
    page.get_by_role('alert').get_by_text('did not run').or_(
        page.get_by_role('alert').filter(has_text='did not run')
    ).first.wait_for()
    after(page, page.locator('.demo-start').click)
    assert page.get_by_role('alert').is_hidden()


def test_while_it_works_the_page_says_so(fresh):
    page = fresh()
    after(page, page.locator('.demo-start').click)
    working = page.locator('.demo-busy')
    assert working.is_hidden()
    held = []
    page.route('**/banana-1.webp', lambda route: held.append(route))
    with page.expect_request('**/banana-1.webp'):
        page.locator('.demo-another').click()
    while not held:
        page.wait_for_timeout(20)
    assert working.is_visible()
    after(page, lambda: held[0].continue_())
    working.wait_for(state='hidden')


def test_without_its_first_picture_the_demo_starts_all_the_same(fresh):
    faults = []

    def prepare(page):
        page.on('pageerror', lambda fault: faults.append(fault))
        page.route('**/sample-1.webp', lambda route: route.abort(), times=1)
    page = fresh(prepare)
    page.locator('.demo-start').wait_for()
    page.get_by_role('img', name='No picture yet').wait_for()
    assert page.locator('.demo-slider span').first.inner_text() == '0.50'
    after(page, page.get_by_role('button', name='Sample 2').click)
    assert not faults


def test_a_runtime_that_does_not_start_asks_for_a_new_page(fresh):
    page = fresh(lambda page: page.route(
        '**/ort.wasm', lambda route: route.fulfill(
            body=bytes((BUILT / 'ort.wasm').stat().st_size))))
    page.locator('.demo-start').click()
    page.get_by_role('alert').filter(has_text='Reload the page').wait_for()


def leave_out(page):
    page.route('**/demo.json', lambda route: route.fulfill(
        json={'missing': 'no network'}))


@pytest.mark.parametrize(('prepare', 'words'), [
    (leave_out, 'left out of these pages: no network'),
    (lambda page: page.route('**/demo.json', lambda r: r.fulfill(status=404)),
     'not built into these pages'),
    (lambda page: page.add_init_script('delete window.WebAssembly'),
     'needs WebAssembly'),
    (lambda page: page.add_init_script(
        'window.WebAssembly.validate = () => false'), 'SIMD'),
    (lambda page: page.route('**/network.js', lambda r: r.abort()),
     'needs JavaScript')],
    ids=['left out', 'not built', 'no WebAssembly', 'no SIMD', 'no script'])
def test_without_the_demo_the_still_picture_says_why(fresh, prepare, words):
    page = fresh(prepare)
    page.get_by_text(words).wait_for()
    assert page.locator('.demo-still img').is_visible()
    assert page.locator('.demo-live').is_hidden()


def test_without_scripts_and_in_print_there_is_a_still_picture(fresh):
    page = fresh(java_script_enabled=False)
    assert page.locator('.demo-still img').is_visible()
    page.get_by_text('needs JavaScript').wait_for()
    page = fresh()
    page.locator('.demo-start').wait_for()
    page.emulate_media(media='print')
    assert page.locator('.demo-still img').is_visible()
    assert page.locator('.demo-live').is_hidden()
