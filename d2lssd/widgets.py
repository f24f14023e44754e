"""The book's moving figures in a notebook, computed by the package itself.

They need ipywidgets; each function gives a widget that JupyterLab shows.
"""
import base64
import io
from html import escape

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from d2lssd.anchors import multibox_prior
from d2lssd.boxes import box_iou
from d2lssd.detection import nms
from d2lssd.losses import focal_loss, smooth_l1
from d2lssd.plotting import COLORS, show_bboxes, to_pixels
from d2lssd.prediction import weights_card

__all__ = ['anchors', 'curves', 'focal', 'iou', 'smooth', 'suppression']

MAPS = [(1, 1), (2, 3), (4, 6), (6, 9), (8, 12)]


def _ipywidgets():
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError('d2lssd.widgets needs ipywidgets, which is not '
                          'installed: pip install ipywidgets') from error
    return ipywidgets


def _slider(label, value, low, high, step):
    kind = 'IntSlider' if isinstance(value, int) else 'FloatSlider'
    return getattr(_ipywidgets(), kind)(
        value=value, min=low, max=high, step=step, description=label,
        style={'description_width': '7em'}, layout={'width': '30em'})


def _choice(label, options):
    return _ipywidgets().Dropdown(
        options=options, description=label,
        style={'description_width': '7em'}, layout={'width': '30em'})


def _axes(width=5, height=3.3, **settings):
    # No pyplot: a figure that it knows would be shown a second time.
    axes = Figure(figsize=(width, height), layout='constrained').subplots()
    axes.set(**settings)
    return axes


def _picture_axes(image):
    axes = _axes()
    axes.imshow(to_pixels(image))
    axes.axis('off')
    return axes


def _panel(draw, limit=lambda **_: {}, **controls):
    """Controls above a picture that is drawn anew when one of them moves.

    `draw` takes their values by name, and gives axes and a line of numbers;
    `limit` takes them too, and gives the greatest value that some may have.
    """
    widgets = _ipywidgets()
    picture, line = widgets.HTML(), widgets.HTML()

    def values():
        return {name: control.value for name, control in controls.items()}

    def renew(_=None):
        for name, greatest in limit(**values()).items():
            controls[name].max = greatest
        axes, text = draw(**values())
        buffer = io.BytesIO()
        axes.figure.savefig(buffer, format='png', dpi=100)
        code = base64.b64encode(buffer.getvalue()).decode()
        picture.value = (f'<img alt="{escape(text)}" '
                         f'src="data:image/png;base64,{code}">')
        line.value = f'<p role="status">{escape(text)}</p>'

    for control in controls.values():
        control.observe(renew, names='value')
    renew()
    return widgets.VBox([*controls.values(), picture, line])


def iou():
    """Two boxes to move, and their intersection over union.

    Returns:
        A widget.
    """
    def draw(x, y, width, height):
        A = torch.tensor([[1., 1, 5, 5]])
        B = torch.tensor([[x, y, x + width, y + height]])
        axes = _axes(xlim=(0, 11), ylim=(7, 0), aspect='equal')
        axes.grid(alpha=0.4)
        show_bboxes(axes, torch.cat([A, B]), ['A', 'B'])
        axes.patches[1].set_linestyle('--')
        left, right = torch.max(A, B)[0, :2], torch.min(A, B)[0, 2:]
        w, h = (right - left).clamp(0).tolist()
        axes.add_patch(Rectangle(left.tolist(), w, h, hatch='//', alpha=0.4))
        both, value = w * h, box_iou(A, B).item()
        union = 16 + width * height - both
        return axes, (f'shared {both:.2f} ÷ together {union:.2f} = '
                      f'IoU {value:.3f}')

    def limit(x, y, **_):  # B stays on the grid
        return {'width': min(7, round(11 - x, 1)),
                'height': min(6, round(7 - y, 1))}
    return _panel(draw, limit, x=_slider('left edge of B', 3.0, 0, 7, 0.1),
                  y=_slider('top edge of B', 2.0, 0, 5, 0.1),
                  width=_slider('width of B', 4.0, 0.5, 7, 0.1),
                  height=_slider('height of B', 4.0, 0.5, 6, 0.1))


def anchors(image, boxes):
    """One anchor box on a picture: map, unit, size and ratio to choose.

    Args:
        image: the picture; see `to_pixels`.
        boxes: float tensor ``(m, 4)``, the true boxes, corner format, in
            pixels.

    Returns:
        A widget.
    """
    h, w = to_pixels(image).shape[:2]

    def draw(size, power, grid, y, x):
        rows, columns = grid
        ratio = 2**power
        row, column = (min(int(share * count), count - 1) for share, count in
                       ((y, rows), (x, columns)))
        prior = multibox_prior(torch.zeros(rows, columns), [size], [ratio])
        box = prior[0, row * columns + column] * torch.tensor([w, h, w, h])
        centers = (prior[0, :, :2] + prior[0, :, 2:]) / 2
        axes = _picture_axes(image)
        axes.plot(centers[:, 0] * w, centers[:, 1] * h, 'k+')
        show_bboxes(axes, boxes, colors='w')
        show_bboxes(axes, [box], colors=COLORS[1])
        axes.patches[-1].set_linestyle('--')
        axes.set(xlim=(0, w), ylim=(h, 0))
        best = box_iou(box[None], boxes).max().item()
        width, height = (box[2:] - box[:2]).tolist()
        return axes, (f'row {row}, column {column}, ratio {ratio:.2f}: '
                      f'{width:.0f} × {height:.0f} pixels, best IoU '
                      f'{best:.3f}')
    maps = [(f'{rows} × {columns} units', (rows, columns))
            for rows, columns in MAPS]
    grid = _choice('feature map', maps)
    grid.value = MAPS[3]
    return _panel(draw, size=_slider('size', 0.2, 0.05, 1, 0.01),
                  power=_slider('log₂ of ratio', 0.0, -2, 2, 0.25),
                  grid=grid, y=_slider('down', 0.4, 0, 1, 0.01),
                  x=_slider('across', 0.4, 0, 1, 0.01))


def suppression(image, boxes, scores, classes):
    """Non-maximum suppression, one decision at a time.

    Args:
        image: the picture; see `to_pixels`.
        boxes: float tensor ``(n, 4)``, corner format, in pixels.
        scores: float tensor ``(n,)``.
        classes: int tensor ``(n,)``.

    Returns:
        A widget.
    """
    def limit(threshold, **_):
        return {'step': len(nms(boxes, scores, threshold))}

    def draw(step, threshold):
        keep = nms(boxes, scores, threshold)
        past = keep[:step].tolist()
        near = box_iou(boxes[past], boxes).gt(threshold).any(0)
        gone = [i for i in near.nonzero()[:, 0].tolist() if i not in past]
        axes = _picture_axes(image)
        for i, box in enumerate(boxes):
            mark = '✓' if i in past else '✗' if i in gone else ''
            show_bboxes(axes, [box], f'{i}: {scores[i]:.2f} {mark}',
                        COLORS[int(classes[i]) % len(COLORS)])
            axes.patches[-1].set_linestyle('-' if i in past else '--')
            axes.patches[-1].set_alpha(0.4 if i in gone else 1)
        return axes, (f'step {step} of {len(keep)}: kept {past}, struck out '
                      f'{gone}')
    return _panel(draw, limit, step=_slider('step', 0, 0, len(boxes), 1),
                  threshold=_slider('IoU threshold', 0.5, 0.05, 0.95, 0.05))


def _loss(function, xs, at, parameter, reference, limits, xlabel):
    """A loss and its slope over `xs`, and both at one point."""
    xs = xs.requires_grad_()
    ys = function(xs, parameter)
    slopes, = torch.autograd.grad(ys.sum(), xs)
    xs = xs.detach()
    axes = _axes(ylim=limits, xlabel=xlabel)
    axes.plot(xs, function(xs, reference), ':', color='0.5')
    axes.plot(xs, ys.detach(), label='loss', color=COLORS[0], lw=2)
    axes.plot(xs, slopes, '--', label='gradient', color=COLORS[1], lw=2)
    x = torch.tensor(at, requires_grad=True)
    y = function(x, parameter)
    slope, = torch.autograd.grad(y, x)
    axes.axvline(at, color='k', lw=1)
    axes.grid(alpha=0.4)
    axes.legend()
    return axes, f'at {at:.2f}: loss {y.item():.3f}, gradient {slope:.3f}'


def smooth():
    """Smooth L1 with its σ; dotted: L1.

    Returns:
        A widget.
    """
    def draw(power, x):
        sigma = 10**power
        axes, text = _loss(smooth_l1, torch.arange(-2, 2, 0.01), x, sigma,
                           1e3, (-1.1, 2.1), 'prediction minus truth')
        return axes, f'σ = {sigma:.2f}; {text}'
    return _panel(draw, power=_slider('log₁₀ of σ', 0.0, -0.5, 1, 0.05),
                  x=_slider('miss', 0.5, -2, 1.99, 0.01))


def focal():
    """Focal loss with its γ; dotted: cross-entropy.

    Returns:
        A widget.
    """
    def draw(gamma, p):
        return _loss(lambda x, gamma: focal_loss(gamma, x),
                     torch.arange(0.01, 1, 0.01), p, gamma, 0, (-5, 5),
                     'probability given to the right class')
    return _panel(draw, gamma=_slider('γ', 2.0, 0, 5, 0.1),
                  p=_slider('probability', 0.9, 0.01, 0.99, 0.01))


def curves(recipes=('source', 'balanced')):
    """The runs recorded beside the shipped weights, epoch by epoch.

    Args:
        recipes: names of recipes whose weights ship with the package.

    Returns:
        A widget.
    """
    def limit(recipe, **_):
        return {'epoch': len(weights_card(recipe)['history'])}

    def draw(recipe, measure, epoch):
        history = weights_card(recipe)['history']
        values = [row[measure] for row in history]
        axes = _axes(xlabel='epoch', ylabel=measure, yscale='log')
        axes.plot(range(1, len(values) + 1), values, '.-', color=COLORS[0])
        axes.plot([epoch], values[epoch - 1:epoch], 'o', ms=10, mfc='w',
                  color='k')
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.4, which='both')
        return axes, (f'epoch {epoch} of {len(values)}: {measure} '
                      f'{values[epoch - 1]:.3g}')
    longest = max(len(weights_card(name)['history']) for name in recipes)
    return _panel(draw, limit, recipe=_choice('recipe', list(recipes)),
                  measure=_choice('measure',
                                  ['class error', 'bbox mae', 'loss']),
                  epoch=_slider('epoch', 1, 1, longest, 1))
