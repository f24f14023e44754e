"""The moving figures of a notebook, computed by the package."""
import re
import sys

import pytest

import d2lssd
from d2lssd import widgets

pytest.importorskip('ipywidgets', reason='ipywidgets is not installed')
import torch  # noqa: E402

IMAGE = torch.full((40, 60, 3), 200, dtype=torch.uint8)
BOXES = torch.tensor([[5., 5, 25, 25], [8, 5, 28, 25], [35, 10, 55, 30]])
SCORES = torch.tensor([0.8, 0.9, 0.7])
CLASSES = torch.tensor([0, 0, 1])


def said(panel):
    return re.sub('<[^>]*>', '', panel.children[-1].value)


def control(panel, label):
    return next(child for child in panel.children
                if getattr(child, 'description', None) == label)


def test_overlap_follows_the_sliders():
    panel = widgets.iou()
    assert said(panel).endswith('IoU 0.231')
    control(panel, 'left edge of B').value = 1
    control(panel, 'top edge of B').value = 1
    assert said(panel).endswith('IoU 1.000')


def test_an_anchor_follows_the_sliders():
    panel = widgets.anchors(IMAGE, BOXES)
    control(panel, 'size').value = 0.5
    control(panel, 'feature map').value = (2, 3)
    control(panel, 'down').value = 0
    control(panel, 'across').value = 0
    anchor = d2lssd.multibox_prior(torch.zeros(2, 3), [0.5], [1])[0, :1]
    best = d2lssd.box_iou(anchor * torch.tensor([60, 40, 60, 40]),
                          BOXES).max()
    assert f'20 × 20 pixels, best IoU {best:.3f}' in said(panel)


def test_suppression_takes_a_decision_a_step():
    panel = widgets.suppression(IMAGE, BOXES, SCORES, CLASSES)
    control(panel, 'step').value = 1
    assert said(panel) == 'step 1 of 2: kept [1], struck out [0]'
    control(panel, 'IoU threshold').value = 0.9
    assert said(panel) == 'step 1 of 3: kept [1], struck out []'


def test_sliders_end_where_what_they_move_ends():
    panel = widgets.suppression(IMAGE, BOXES, SCORES, CLASSES)
    step = control(panel, 'step')
    assert step.max == 2
    control(panel, 'IoU threshold').value = 0.9
    step.value = 3
    control(panel, 'IoU threshold').value = 0.5
    assert (step.value, step.max) == (2, 2)
    assert said(panel).startswith('step 2 of 2')
    panel = widgets.iou()
    control(panel, 'left edge of B').value = 7
    assert control(panel, 'width of B').max == 4
    panel = widgets.curves()
    control(panel, 'recipe').value = 'balanced'
    epoch = control(panel, 'epoch')
    epoch.value = epoch.max
    control(panel, 'recipe').value = 'source'
    assert said(panel).startswith(f'epoch {epoch.value} of {epoch.max}')


def test_losses_are_those_of_the_package():
    panel = widgets.smooth()
    control(panel, 'miss').value = 0.05
    control(panel, 'log₁₀ of σ').value = 0.3
    loss = d2lssd.smooth_l1(torch.tensor(0.05), 10**0.3)
    assert f'loss {loss:.3f}' in said(panel)
    panel = widgets.focal()
    control(panel, 'γ').value = 1
    loss = d2lssd.focal_loss(1, torch.tensor(0.9))
    assert f'at 0.90: loss {loss:.3f}' in said(panel)


def test_curves_are_those_beside_the_weights():
    panel = widgets.curves()
    control(panel, 'epoch').value = 5
    history = d2lssd.weights_card('source')['history']
    assert said(panel) == (f'epoch 5 of {len(history)}: class error '
                           f'{history[4]["class error"]:.3g}')


def test_a_picture_has_the_numbers_as_its_alt_text():
    panel = widgets.iou()
    alt = re.search('alt="([^"]*)"', panel.children[-2].value)[1]
    assert alt == said(panel)


def test_without_ipywidgets_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match='pip install ipywidgets'):
        widgets.iou()
