"""Moving figures say what the package says, to every hand and eye."""
import contextlib
import io
import json
import re

import pytest
import torch
from torchvision.ops import batched_nms

import d2lssd

with contextlib.redirect_stdout(io.StringIO()):
    import figures

INSTEAD = "document.querySelector('#{} .moving-numbers').textContent"


@pytest.fixture(scope='module')
def address():
    with figures.served(figures.FIGURES,
                        all=figures.page(figures.KINDS)) as address:
        yield f'{address}/all.html'


def opened(browser, address, script=True, **settings):
    """A new page with all figures, and the faults that it reports."""
    context = browser.new_context(java_script_enabled=script, **settings)
    page = context.new_page()
    page.faults = []
    page.on('pageerror', lambda fault: page.faults.append(fault))
    page.goto(address)
    if script:
        page.evaluate('movingFigures.ready')
    return page


@pytest.fixture(scope='module')
def sheet(browser, address):
    """A page for what leaves no trace on it."""
    page = opened(browser, address)
    yield page
    assert page.faults == []
    page.context.close()


@pytest.fixture
def page(browser, address):
    page = opened(browser, address, viewport={'width': 900, 'height': 800})
    yield page
    assert page.faults == []
    page.context.close()


def numbers(page, kind):
    return page.locator(f'#{kind} .moving-numbers').inner_text()


def some_boxes(count):
    torch.manual_seed(0)
    corner = torch.rand(count, 2) * 300
    return torch.cat([corner, corner + torch.rand(count, 2) * 120 + 5], 1)


# The numbers are the package's

def test_overlap_is_that_of_the_package(sheet):
    boxes = some_boxes(40)
    ours = sheet.evaluate('boxes => boxes.map(a => boxes.map(b => '
                          'movingFigures.maths.iou(a, b)))', boxes.tolist())
    torch.testing.assert_close(torch.tensor(ours),
                               d2lssd.box_iou(boxes, boxes))


@pytest.mark.parametrize(('h', 'w'), [(1, 1), (2, 3), (6, 9), (8, 12)])
def test_an_anchor_is_that_of_the_package(sheet, h, w):
    for size, ratio in [(0.2, 1), (0.05, 0.25), (1, 4), (0.37, 1.68)]:
        ours = sheet.evaluate(
            '([map, size, ratio]) => [...Array(map[0] * map[1]).keys()].map('
            'i => movingFigures.maths.anchor(map, size, ratio, '
            'Math.floor(i / map[1]), i % map[1]))', [[h, w], size, ratio])
        there = d2lssd.multibox_prior(torch.zeros(h, w), [size], [ratio])
        torch.testing.assert_close(torch.tensor([ours]), there)


@pytest.mark.parametrize('threshold', [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize('by_class', [False, True])
def test_suppression_keeps_what_the_package_keeps(sheet, threshold, by_class):
    boxes, classes = some_boxes(60), torch.arange(60) % 3
    scores = torch.rand(60)
    steps = sheet.evaluate(
        '([b, s, t, c]) => movingFigures.maths.suppress(b, s, t, c)',
        [boxes.tolist(), scores.tolist(), threshold,
         classes.tolist() if by_class else None])
    there = (batched_nms(boxes, scores, classes, threshold) if by_class
             else d2lssd.nms(boxes, scores, threshold))
    assert [step['keep'] for step in steps] == there.tolist()
    judged = [i for step in steps for i in (step['keep'], *step['struck'])]
    assert sorted(judged) == list(range(60))


def assert_same_curve(sheet, name, x, y, parameter):
    """A loss of the page, and its slope, at x are those of the package."""
    slope, = torch.autograd.grad(y.sum(), x)
    order = 'x, p' if name == 'smoothL1' else 'p, x'
    there = sheet.evaluate(
        f"""([xs, p]) => xs.map(x => ['{name}', '{name}Slope'].map(
            name => movingFigures.maths[name]({order})))""",
        [x.tolist(), parameter])
    torch.testing.assert_close(torch.tensor(there, dtype=torch.float64),
                               torch.stack([y.detach(), slope], 1))


@pytest.mark.parametrize('sigma', [0.32, 0.5, 1, 3.16, 10])
def test_smooth_l1_and_its_slope_are_those_of_the_package(sheet, sigma):
    x = torch.linspace(-2, 2, 81, dtype=torch.float64, requires_grad=True)
    assert_same_curve(sheet, 'smoothL1', x, d2lssd.smooth_l1(x, sigma), sigma)


@pytest.mark.parametrize('gamma', [0, 0.7, 2, 5])
def test_focal_loss_and_its_slope_are_those_of_the_package(sheet, gamma):
    p = torch.linspace(0.01, 0.99, 50, dtype=torch.float64,
                       requires_grad=True)
    assert_same_curve(sheet, 'focal', p, d2lssd.focal_loss(gamma, p), gamma)


def test_the_data_are_those_of_the_chapters_and_the_shipped_weights():
    there = figures.stored()
    nothing = there['training']['nothing']['source']
    with contextlib.redirect_stdout(io.StringIO()):
        assert figures.data(nothing) == there, 'run tools/figures.py'
    notebook = json.loads((figures.BOOK / 'training.ipynb').read_text('utf-8'))
    said = ''.join(next(
        cell['outputs'][0]['text'] for cell in notebook['cells']
        if cell['id'] == 'finds-nothing'))
    assert re.findall(r'\d\.\d+e-\d+', said) == [
        f'{value:.2e}' for value in nothing.values()]


# The still figure is the first frame of the moving one

@pytest.mark.parametrize('kind', figures.KINDS)
def test_a_still_figure_is_the_first_frame(sheet, kind):
    still = (figures.FIGURES / f'moving-{kind}.svg').read_text('utf-8')
    assert figures.first_frame(sheet, kind) == still, 'run tools/figures.py'


def test_without_javascript_one_sees_the_still_figures(browser, address):
    page = opened(browser, address, script=False)
    for kind in figures.KINDS:
        assert page.locator(f'#{kind} img').is_visible()
    assert page.locator('.moving-stage').count() == 0
    page.context.close()


def test_paper_shows_the_still_figures(page):
    assert not page.locator('#iou img').is_visible()
    page.emulate_media(media='print')
    for kind in figures.KINDS:
        assert page.locator(f'#{kind} img').is_visible()
        assert not page.locator(f'#{kind} .moving-stage').is_visible()


def test_figures_work_on_a_page_opened_from_a_folder(browser, tmp_path):
    folder = figures.FIGURES.as_uri() + '/'
    path = tmp_path / 'page.html'
    path.write_text(re.sub(r'(src|href)="(?=moving)', rf'\1="{folder}',
                           figures.page(figures.KINDS)), encoding='utf-8')
    page = opened(browser, path.as_uri())
    assert page.locator('.moving-stage').count() == len(figures.KINDS)
    assert page.faults == []
    page.context.close()


# Hands: mouse, finger, keys

def box_of(page, name):
    label = page.locator(f'[data-box={name}]').get_attribute('aria-label')
    return [float(v) for v in re.findall(r'\d+(?:\.\d+)?', label)]


def said_overlap(page):
    """What the figure says, and what the package says of the same boxes."""
    boxes = torch.tensor([box_of(page, 'A'), box_of(page, 'B')])
    there = d2lssd.box_iou(boxes[:1], boxes[1:]).item()
    return float(numbers(page, 'iou').split()[-1]), pytest.approx(
        there, abs=5e-4)


def center(locator):
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box['x'] + box['width'] / 2, box['y'] + box['height'] / 2


def test_a_box_follows_the_mouse(page):
    assert said_overlap(page)[0] == pytest.approx(6 / 26, abs=5e-4)
    x, y = center(page.locator('[data-box=B]'))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 35, y + 11, steps=5)
    page.mouse.up()
    left, top, right, bottom = box_of(page, 'B')
    assert left > 3.3
    assert top > 2
    assert (right - left, bottom - top) == pytest.approx((4, 4))
    said, there = said_overlap(page)
    assert said == there
    page.mouse.move(x, y)  # let go, it stays
    assert box_of(page, 'B') == [left, top, right, bottom]


def test_a_corner_follows_the_mouse(page):
    x, y = center(page.locator('[data-grip=A]'))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y - 500, steps=4)
    page.mouse.up()
    left, top, right, bottom = box_of(page, 'A')
    assert (left, top) == (1, 1)
    assert right < 5
    assert bottom == 1.5  # never turned inside out
    said, there = said_overlap(page)
    assert said == there


def touching(page):
    """A function that touches the screen."""
    finger = page.context.new_cdp_session(page)

    def touch(kind, *points):
        finger.send('Input.dispatchTouchEvent', {
            'type': kind, 'touchPoints': [{'x': x, 'y': y}
                                          for x, y in points]})
    return touch


def test_a_box_follows_the_finger(browser, address):
    page = opened(browser, address, has_touch=True, is_mobile=True,
                  viewport={'width': 390, 'height': 800})
    x, y = center(page.locator('[data-box=A]'))
    touch = touching(page)
    touch('touchStart', (x - 30, y - 30))
    for i in range(1, 6):
        touch('touchMove', (x - 30 + 8 * i, y - 30 + 4 * i))
    touch('touchEnd')
    # Chromium hands the moves on a frame at a time.
    page.wait_for_function(
        "document.querySelector('[data-box=A]').getAttribute('x') >= 80")
    left, top, _, _ = box_of(page, 'A')
    assert left >= 2
    assert top > 1.2
    said, there = said_overlap(page)
    assert said == there
    page.context.close()


def drag_to(page, locator, dx, dy):
    x, y = center(locator)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()


def test_a_box_inside_another_can_be_grasped_and_let_go(page):
    B = page.locator('[data-box=B]')
    B.focus()
    page.keyboard.press('ArrowLeft')
    drag_to(page, page.locator('[data-grip=B]'), 400, 400)  # larger than A
    drag_to(page, B, -400, -400)  # and over it
    assert box_of(page, 'B')[:2] == [0, 0]
    A = page.locator('[data-box=A]')
    drag_to(page, A, 60, 0)
    assert box_of(page, 'B')[:2] == [0, 0]
    assert box_of(page, 'A')[0] > 1
    before = box_of(page, 'A'), box_of(page, 'B')
    x, y = center(A)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(5, 5)
    page.mouse.up()
    moved = box_of(page, 'A'), box_of(page, 'B')
    assert moved != before
    page.mouse.move(x, y, steps=4)  # no button is pressed
    assert (box_of(page, 'A'), box_of(page, 'B')) == moved


@pytest.mark.parametrize('kind', ['anchors', 'curves'])
def test_a_finger_that_scrolls_past_a_figure_leaves_it_alone(
        browser, address, kind):
    page = opened(browser, address, has_touch=True, is_mobile=True,
                  viewport={'width': 390, 'height': 800})
    drawing = page.locator(f'#{kind} .moving-stage > svg')
    x, y = center(drawing)
    before = numbers(page, kind)
    at = page.evaluate('scrollY')
    touch = touching(page)
    way = 15 if at else -15
    touch('touchStart', (x - 60, y))
    for i in range(1, 13):
        touch('touchMove', (x - 60, y + i * way))
        page.wait_for_timeout(30)
    touch('touchEnd')
    page.wait_for_function('(at) => scrollY !== at', arg=at)
    assert numbers(page, kind) == before
    box = drawing.bounding_box()
    page.touchscreen.tap(box['x'] + 0.8 * box['width'],
                         box['y'] + 0.4 * box['height'])
    assert numbers(page, kind) != before
    page.context.close()


def test_a_box_follows_the_arrow_keys(page):
    page.locator('[data-box=A]').focus()
    for key in ['ArrowRight', 'ArrowRight', 'ArrowDown']:
        page.keyboard.press(key)
    assert box_of(page, 'A') == [2, 1.5, 6, 5.5]
    page.keyboard.press('Shift+ArrowLeft')
    assert box_of(page, 'A') == [2, 1.5, 5.5, 5.5]
    for _ in range(40):
        page.keyboard.press('ArrowUp')
    assert box_of(page, 'A') == [2, 0, 5.5, 4]  # not off the grid
    said, there = said_overlap(page)
    assert said == there


def test_tab_reaches_every_box_and_control(page):
    page.locator('#iou').evaluate('node => node.scrollIntoView()')
    reached = set()
    stops = page.evaluate(
        """() => [...document.querySelectorAll('figure.moving '
            + ':is(button, input, [tabindex="0"])')]
        .filter(e => !e.disabled && e.checkVisibility()
                && (e.type !== 'radio' || e.checked))
        .map((e, i) => { e.dataset.stop = i; return String(i); })""")
    assert len(stops) > len(figures.KINDS)
    page.evaluate('document.body.focus()')
    for _ in range(len(stops) + 20):
        page.keyboard.press('Tab')
        reached.add(page.evaluate('document.activeElement.dataset.stop'))
    assert reached >= set(stops)


def slide(page, kind, label, value):
    page.locator(f'#{kind}').get_by_role(
        'slider', name=label, exact=True).evaluate(
        '(input, value) => { input.value = value; '
        'input.dispatchEvent(new Event("input")); }', str(value))


def value(page, label):
    return page.locator('#anchors').get_by_role(
        'slider', name=label, exact=True).input_value()


def test_the_anchor_says_the_overlap_that_the_package_computes(page):
    cat = figures.stored()['cat']
    scale = torch.tensor([cat['width'], cat['height']] * 2)
    slide(page, 'anchors', 'size s', 0.3)
    slide(page, 'anchors', 'ratio r', 0.5)
    slide(page, 'anchors', 'row', 4)
    slide(page, 'anchors', 'column', 5)
    box = d2lssd.multibox_prior(torch.zeros(6, 9), [0.3], [1.41])[
        0, 4 * 9 + 5] * scale
    best = d2lssd.box_iou(box[None], torch.tensor(cat['boxes'])).max().item()
    assert f'IoU {best:.3f}' in numbers(page, 'anchors')
    page.locator('#anchors [role=application]').focus()
    page.keyboard.press('ArrowUp')
    assert value(page, 'row') == '3'


def test_a_tap_on_the_picture_chooses_the_unit(page):
    picture = page.locator('#anchors .moving-stage image')
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    page.mouse.click(box['x'] + 0.99 * box['width'],
                     box['y'] + 0.01 * box['height'])
    assert (value(page, 'row'), value(page, 'column')) == ('0', '8')


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9])
def test_suppression_goes_step_by_step(page, threshold):
    cat = figures.stored()['cat']
    keep = d2lssd.nms(torch.tensor(cat['found']), torch.tensor(cat['scores']),
                      threshold).tolist()
    slide(page, 'suppression', 'IoU threshold', threshold)
    next_step = page.get_by_role('button', name='Next step')
    for i, best in enumerate(keep):
        next_step.click()
        assert f'Step {i + 1} of {len(keep)}: keep {best} ' in numbers(
            page, 'suppression')
    assert next_step.is_disabled()
    kept = page.locator('#suppression [data-state=kept]').evaluate_all(
        'nodes => nodes.map(node => Number(node.dataset.finding))')
    assert sorted(kept) == sorted(keep)
    page.get_by_role('button', name='Start again').click()
    assert page.locator('#suppression [data-state=open]').count() == 7


def test_the_losses_say_what_the_package_computes(page):
    slide(page, 'smooth-l1', 'σ', 0.3)  # ten to the power of it: 2
    slide(page, 'smooth-l1', 'miss x', -0.15)
    x = torch.tensor(-0.15, requires_grad=True)
    y = d2lssd.smooth_l1(x, 2)
    y.backward()
    assert (f'loss {y.item():.3f}, gradient −{-x.grad.item():.3f}'
            in numbers(page, 'smooth-l1'))
    slide(page, 'focal', 'γ', 5)
    loss = d2lssd.focal_loss(5, torch.tensor([0.1, 0.9])) * torch.tensor(
        [26, 5418])
    share = 100 * (loss[1] / loss.sum()).item()
    assert f'{share:.2f} %' in numbers(page, 'focal')


def test_training_curves_have_a_point_for_each_epoch(page):
    figure = page.locator('#curves')
    for recipe in figures.stored()['training']['runs']:
        history = d2lssd.weights_card(recipe)['history']
        figure.get_by_label(recipe).check()
        assert figure.locator('[data-epoch]').count() == len(history)
        slide(page, 'curves', 'epoch', 3)
        words = numbers(page, 'curves')
        assert f'Epoch 3 of {len(history)}' in words
        said = [float(v) for v in re.findall(r'\d\.\d+', words)]
        assert said == pytest.approx([history[2][name] for name in (
            'loss', 'class error', 'bbox mae')], rel=5e-3)


# Eyes and ears

def test_numbers_are_spoken_once_the_hand_rests(page):
    spoken = page.locator('#focal [role=status]')
    before = spoken.inner_text()
    slide(page, 'focal', 'γ', 1)
    assert spoken.inner_text() == before
    page.wait_for_function(
        'document.querySelector("#focal [role=status]").textContent === '
        + INSTEAD.format('focal'))
    assert spoken.inner_text() != before
    assert spoken.get_attribute('aria-live') == 'polite'


def test_every_slider_says_its_value_in_words(sheet):
    sliders = sheet.locator('input[type=range]')
    assert sliders.count() >= len(figures.KINDS)
    for i in range(sliders.count()):
        slider = sliders.nth(i)
        name = slider.get_attribute('id')
        assert sheet.locator(f'label[for={name}]').inner_text().strip()
        assert slider.get_attribute('aria-valuetext')


def test_on_a_phone_nothing_overflows_and_letters_stay_legible(
        browser, address):
    page = opened(browser, address, viewport={'width': 390, 'height': 800})
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    smallest = page.evaluate(
        'Math.min(...[...document.querySelectorAll(".moving-stage svg text")]'
        '.map(t => parseFloat(getComputedStyle(t).fontSize) * '
        't.getScreenCTM().a))')
    assert 12 <= smallest < 100
    page.context.close()
