"""Drawn pictures: what they promise, checked without their own code."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from d2lssd.data import banana, clutter, drawing, scenery
from d2lssd.data.canvas import Canvas, Light, Patch, paint, tint, tube
from d2lssd.data.drawing import (
    MODELS,
    PHOTOGRAPHS,
    STYLES,
    compose,
    draw_banana,
    draw_scene,
)

PHOTO = np.zeros((99, 99, 3), np.uint8)

DIGEST = '''
import hashlib, sys
from d2lssd.data.drawing import draw_scene
image, boxes = draw_scene('val', 7, seed=3, style='wild', num_bananas=(1, 3))
print(hashlib.sha256(image.tobytes() + boxes.tobytes()).hexdigest())
print(sorted({'torch', 'skimage', 'sklearn', 'matplotlib'} & {*sys.modules}))
'''


def digest(image, boxes):
    return hashlib.sha256(image.tobytes() + boxes.tobytes()).hexdigest()


def spy(seen, function):
    def watched(argument):
        seen.add(argument)
        return function(argument)
    return watched


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_picture_has_the_promised_form(split, style):
    image, boxes = draw_scene(split, 0, style=style)
    assert (image.shape, image.dtype) == ((256, 256, 3), np.uint8)
    assert image.flags['C_CONTIGUOUS']
    assert (boxes.shape, boxes.dtype) == ((1, 4), np.float32)


def test_a_picture_is_the_same_in_another_process_and_order():
    draw_scene('train', 1, style='wild')
    here = draw_scene('val', 7, seed=3, style='wild', num_bananas=(1, 3))
    run = subprocess.run([sys.executable, '-c', DIGEST], check=True,
                         capture_output=True, text=True)
    there, loaded = run.stdout.split('\n')[:2]
    assert there == digest(*here)
    assert loaded == '[]', 'drawing should not wait for these to load'


def test_split_index_seed_and_style_each_give_another_picture():
    digests = {style: [digest(*draw_scene(split, index, seed=seed, style=style,
                                          num_bananas=3))
                       for split in ('train', 'val') for index in (0, 1)
                       for seed in (0, 1)] for style in STYLES}
    assert all(len({*eight}) == 8 for eight in digests.values())
    assert len({*map(tuple, digests.values())}) == len(STYLES)


def test_touching_is_plain_but_for_the_bananas_that_touch_and_piled_more_so():
    styles = 'plain', 'touching', 'piled'
    for index in range(4):
        one = {digest(*draw_scene('val', index, style=style))
               for style in styles}
        assert len(one) == 1
    plain, touching, piled = (
        sum(int((box_iou(boxes, boxes).triu(1) > 0.1).sum())
            for index in range(40)
            for boxes in [torch.tensor(draw_scene(
                'val', index, style=style, num_bananas=4)[1])])
        for style in styles)
    assert touching > 1.5 * plain
    assert piled > 1.5 * touching


def test_heaped_bananas_are_those_of_all_sizes_and_touch_more_often():
    one = {digest(*draw_scene('val', 0, style=style))
           for style in ('sizes', 'heaped')}
    assert len(one) == 1
    sizes, heaped = (
        [torch.tensor(draw_scene('val', index, style=style,
                                 num_bananas=4)[1]) * 256
         for index in range(40)] for style in ('sizes', 'heaped'))
    for some in sizes, heaped:
        longest = torch.cat([(boxes[:, 2:] - boxes[:, :2]).amax(1)
                             for boxes in some])
        assert longest.min() < 32
        assert longest.max() > 200
    meet = [sum(int((box_iou(boxes, boxes).triu(1) > 0.1).sum())
                for boxes in some) for some in (sizes, heaped)]
    assert meet[1] > 1.3 * meet[0]


def test_plain_boxes_have_the_statistics_of_the_original_labels():
    boxes = np.concatenate([draw_scene('train', i)[1] for i in range(100)])
    boxes = boxes * 256
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.mean(0) == pytest.approx([50.7, 50.4], rel=0.05)
    assert (sides.min(0) >= [34, 32]).all()
    assert (sides.max(0) <= [68, 73]).all()
    assert boxes.min() >= 5
    assert boxes.max() <= 250


def test_wild_bananas_come_in_all_sizes():
    calm = replace(STYLES['wild'], photos=0, furniture=0, people=0,
                   below=(0, 0), above=(0, 0), held=0, cut=0, turned=0)
    boxes = np.concatenate([draw_scene('train', i, style=calm)[1]
                            for i in range(60)]) * 256
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1)
    assert longest.min() >= 22
    assert longest.max() <= 238
    for low, high in [(22, 50), (50, 110), (110, 238)]:
        assert ((low <= longest) & (longest < high)).mean() > 0.15


@pytest.mark.parametrize('seed', range(12))
def test_a_box_fits_the_banana_to_the_pixel(seed):
    # On a dark blue photograph, what is more red than blue is banana.
    photo = np.full((180, 240, 3), (0, 0, 45), np.uint8)
    image, boxes = compose(photo, 'train', seed, 1, size=(30, 150))
    rows, columns = np.nonzero(image[..., 0] > image[..., 2])
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert boxes[0] * [240, 180, 240, 180] == pytest.approx(seen, abs=1.01)


def test_a_box_holds_only_what_shows():
    canvas = Canvas(np.zeros((40, 60, 3)))
    solid = np.zeros((20, 30, 3), np.float32)
    full = np.ones((20, 30), np.float32)
    assert canvas.add(Patch(solid, full, 10, 10), keep=0.4)
    assert canvas.paste(Patch(solid, full, 25, 10)), 'hides half of it'
    assert not canvas.paste(Patch(solid, full, 14, 10)), 'would hide more'
    assert not canvas.add(Patch(solid, full, 50, 30), 0.4), 'mostly outside'
    box = canvas.boxes()[0] * [60, 40, 60, 40]
    assert box == pytest.approx([10, 10, 25, 30], abs=1e-4)


def test_a_straight_tube_covers_its_rectangle():
    path = np.stack([np.linspace(10, 50, 30), np.full(30, 20)], 1)
    shape = tube(path, np.full(30, 6.0))
    assert shape.alpha.sum() == pytest.approx(40 * 12, rel=0.03)
    inside = shape.alpha == 1
    across = np.abs(np.sin(shape.angle[inside]))
    rows = np.nonzero(inside)[0] + shape.y
    assert across == pytest.approx(np.abs(rows - 20) / 6, abs=0.02)


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('count', [0, 1, 4])
def test_as_many_boxes_as_bananas_were_asked_for(style, count):
    for index in range(4):
        _, boxes = draw_scene('val', index, style=style, num_bananas=count)
        assert boxes.shape == (count, 4)
        assert boxes.dtype == np.float32
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()


def test_a_range_of_bananas_reaches_both_ends():
    counts = {len(draw_scene('train', i, num_bananas=(0, 2))[1])
              for i in range(25)}
    assert counts == {0, 1, 2}


def test_train_and_val_share_no_photograph_and_no_banana():
    train, val = (
        {hashlib.sha256(scenery.photograph(name).tobytes()).digest()
         for name in PHOTOGRAPHS[split]} for split in ('train', 'val'))
    assert not train & val
    assert not set(MODELS['train']) & set(MODELS['val'])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_picture_uses_only_what_belongs_to_its_split(split, monkeypatch):
    photographs, models = set(), set()

    monkeypatch.setattr(scenery, 'photograph', spy(photographs,
                                                    scenery.photograph))
    monkeypatch.setattr(drawing, 'grow', spy(models, banana.grow))
    for index in range(15):
        draw_scene(split, index)
    assert photographs
    assert photographs <= set(PHOTOGRAPHS[split])
    assert models
    assert models <= set(MODELS[split])


def test_a_banana_ripens_from_green_over_yellow_to_brown():
    colours = []
    for ripeness in (0, 0.3, 1):
        image = draw_banana(model=5, ripeness=ripeness)
        colours.append(image[image[..., 3] == 255][:, :3].mean(0))
    green, yellow, brown = colours
    assert green[1] > green[0] > green[2]
    assert yellow[0] > yellow[1] > 1.5 * yellow[2]
    assert brown.mean() < 0.6 * yellow.mean()


def test_one_banana_alone_is_cut_out_of_its_background():
    image = draw_banana(model=9, size=120, light=Light((1, -1, 1)))
    assert image.dtype == np.uint8
    alpha = image[..., 3]
    rim = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert (rim == 0).all()
    assert 0.1 < (alpha == 255).mean() < 0.8


def test_composing_leaves_the_photograph_and_what_is_far_from_bananas():
    photo = np.random.default_rng(0).integers(0, 256, (150, 400, 3), 'u1')
    before = photo.copy()
    image, boxes = compose(photo, seed=1, num_bananas=3, size=(40, 60))
    assert (photo == before).all()
    assert (image.shape, image.dtype, len(boxes)) == (photo.shape, 'u1', 3)
    far = np.ones(photo.shape[:2], bool)
    for x0, y0, x1, y1 in (boxes * [400, 150, 400, 150]).astype(int):
        far[max(0, y0 - 30):y1 + 30, max(0, x0 - 30):x1 + 30] = False
    assert far.any()
    assert (image[far] == photo[far]).all()


@pytest.mark.parametrize(('name', 'arguments'), [
    ('split', {'split': 'test', 'index': 0}),
    ('index', {'split': 'train', 'index': -1}),
    ('index', {'split': 'train', 'index': 1.5}),
    ('seed', {'split': 'train', 'index': 0, 'seed': '0'}),
    ('style', {'split': 'train', 'index': 0, 'style': 'fancy'}),
    ('style', {'split': 'train', 'index': 0, 'style': []}),
    ('num_bananas', {'split': 'train', 'index': 0, 'num_bananas': -1}),
    ('num_bananas', {'split': 'train', 'index': 0, 'num_bananas': (3, 1)}),
    ('num_bananas', {'split': 'train', 'index': 0, 'num_bananas': (1, 2, 3)}),
])
def test_a_bad_argument_is_named(name, arguments):
    with pytest.raises(ValueError, match=f'^{name}'):
        draw_scene(**arguments)


@pytest.mark.parametrize(('name', 'arguments'), [
    ('photo', {'photo': np.zeros((100, 100), np.uint8)}),
    ('photo', {'photo': np.zeros((100, 100, 3))}),
    ('photo', {'photo': np.zeros((20, 100, 3), np.uint8)}),
    ('size', {'photo': PHOTO, 'size': (60, 40)}),
    ('size', {'photo': PHOTO, 'size': 40}),
    ('size', {'photo': PHOTO, 'size': (40, 120)}),
    ('split', {'photo': PHOTO, 'split': 'both'}),
    ('num_bananas', {'photo': PHOTO, 'num_bananas': 9, 'size': (90, 99)}),
])
def test_a_bad_argument_of_compose_is_named(name, arguments):
    with pytest.raises(ValueError, match=f'^{name}'):
        compose(**arguments)


def test_no_oddity_could_be_a_banana():
    rng = np.random.default_rng(0)
    stoutest = max(banana.grow(number).girth
                   for models in MODELS.values() for number in models)
    for _ in range(100):
        assert min(clutter.oddity(rng).slim) > 1.5 * stoutest


def test_bruises_only_darken_and_more_of_them_darken_more():
    for number in range(8):
        # The black tip is drawn after the bruises, a little elsewhere.
        skins = [banana.peel(banana.grow(number), 0.4, 120,
                             np.random.default_rng(number), bruises)[:, :110]
                 for bruises in (0, 0.2, 0.6, 1)]
        sound = skins[0]
        dark = [(skin.mean(2) < 0.6 * sound.mean(2)).mean()
                for skin in skins]
        assert dark[0] == 0
        assert dark == sorted(dark)
        assert dark[-1] > 0.5
        assert all((skin <= sound + 1).mean() > 0.99 for skin in skins)


def test_a_long_stem_is_longer_and_thinner_than_most():
    rng = np.random.default_rng(0)
    thin = []
    for number in range(64):
        one = banana.grow(number)
        for each in one, banana.long_stemmed(one, rng):
            radius = banana.body(each)[1][:banana.POINTS // 2]
            thin.append((radius < 0.45 * one.girth).mean())
    assert sum(thin[1::2]) > 1.5 * sum(thin[::2])


@pytest.mark.parametrize('shape', [(3, 5), (1, 4), (0, 4), (2, 0)])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_colours_are_laid_on_as_numpy_would(shape, dtype):
    rng = np.random.default_rng(0)
    amount = rng.random(shape).astype(dtype)
    colour = rng.random(3).astype(np.float32)
    image = rng.random((*shape, 3)).astype(dtype)
    for ours, theirs in ((paint(amount, colour), amount[..., None] * colour),
                         (tint(image, colour), image * colour)):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()


def test_a_missing_photograph_is_named():
    with pytest.raises(FileNotFoundError, match='no_such.png'):
        scenery.photograph('skimage/data/no_such.png')


def test_a_squashed_scene_ends_square_though_rounding_hides_a_little():
    image, boxes = draw_scene('train', 454, style='wild', num_bananas=(0, 4))
    assert image.shape == (256, 256, 3)
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_a_tuple_of_styles_is_taken_in_turn():
    styles = 'plain', 'sizes'
    for index in range(4):
        image, boxes = draw_scene('val', index, style=styles)
        alone, same = draw_scene('val', index, style=styles[index % 2])
        assert (image == alone).all()
        assert (boxes == same).all()
