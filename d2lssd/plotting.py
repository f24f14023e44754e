"""Pictures with boxes, and a curve that grows while the network learns."""
import sys

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours: told apart by colour-blind eyes too.
COLORS = ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00']
LINES = ['-', '--', '-.', ':']


def set_figsize(figsize=(3.5, 2.5)):
    """Set the size of the figures to come, in inches."""
    plt.rcParams['figure.figsize'] = figsize


def bbox_to_rect(bbox, color):
    """Make matplotlib's rectangle of a box.

    Args:
        bbox: four numbers, ``(x_min, y_min, x_max, y_max)``, in the unit of
            the axes.
        color: of its edge.

    Returns:
        An unfilled `matplotlib.patches.Rectangle`.
    """
    x1, y1, x2, y2 = (float(v) for v in bbox)
    return plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False,
                         edgecolor=color, linewidth=2)


def show_bboxes(axes, bboxes, labels=None, colors=None):
    """Draw boxes on axes, each with its label.

    Args:
        axes: matplotlib axes.
        bboxes: n boxes, corner format, in the unit of the axes.
        labels: None, one string, or n strings.
        colors: None for the book's colours in turn, one colour, or several.
    """
    labels = [labels] if isinstance(labels, str) else labels or []
    colors = [colors] if isinstance(colors, str) else colors or COLORS
    for i, bbox in enumerate(bboxes):
        color = colors[i % len(colors)]
        rect = bbox_to_rect(bbox, color)
        rect.set_path_effects([withStroke(linewidth=3.5, foreground='k')])
        axes.add_patch(rect)
        if i < len(labels):
            axes.annotate(
                labels[i], rect.get_xy(), xytext=(1, 2), va='bottom',
                textcoords='offset points', color='w', fontsize=9,
                parse_math=False,  # a class may be called $x
                bbox={'facecolor': '#222', 'pad': 1.5, 'lw': 0})


def show_images(images, num_rows, num_cols, scale=1.5, titles=None):
    """Show pictures in a grid.

    Args:
        images: sequence of pictures; see `to_pixels`.
        num_rows, num_cols: of the grid.
        scale: inches a picture.
        titles: None, or a string for each picture.

    Returns:
        Flat array of the axes.
    """
    figure, axes = plt.subplots(
        num_rows, num_cols, layout='constrained', squeeze=False,
        figsize=(num_cols * scale, num_rows * scale))
    for ax in axes.flat:
        ax.axis('off')
    for i, (ax, image) in enumerate(zip(axes.flat, images)):
        ax.imshow(to_pixels(image))
        if titles:
            ax.set_title(titles[i], fontsize=9, parse_math=False)
    return axes.ravel()


def display(img, output, threshold, classes=None):
    """Show an image with the boxes that reach a score.

    Args:
        img: the picture, ``(h, w, 3)`` or ``(3, h, w)``, 0–255.
        output: float tensor ``(n, 6)``, rows ``(class, score, box)``, boxes
            relative to the image; see `predict`.
        threshold: least score of a box that is drawn.
        classes: names to write beside the scores, as `classes_of` gives them.
    """
    img = to_pixels(img)
    axes = plt.imshow(img).axes
    axes.axis('off')
    h, w = img.shape[:2]
    for row in output:
        if (score := float(row[1])) >= threshold:
            box = row[2:6].cpu() * row.new_tensor([w, h, w, h]).cpu()
            name = f'{classes[int(row[0])]} ' if classes else ''
            show_bboxes(axes, [box], f'{name}{score:.2f}', 'w')


def plot_precision_recall(axes, curves, threshold=0.5):
    """Draw precision over recall, a curve for each detector.

    Args:
        axes: matplotlib axes.
        curves: dict of what `precision_recall_curve` gives, by name.
        threshold: score that is marked by a dot on each curve, if the curve
            gets as far; None for no dot.
    """
    for i, (name, (precision, recall, score)) in enumerate(curves.items()):
        line, = axes.plot(recall, precision, LINES[i % 4], lw=2, label=name,
                          color=COLORS[i % 6])
        above = 0 if threshold is None else int((score >= threshold).sum())
        if above:
            axes.plot(recall[above - 1], precision[above - 1], 'os^D'[i % 4],
                      color=line.get_color(), mec='k', ms=9)
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1.02),
             ylim=(0, 1.04))
    axes.grid(alpha=0.4)
    if len(curves) > 1:
        axes.legend()


def plot_score_iou(axes, score, iou, threshold=0.5, iou_threshold=0.5):
    """Draw the score of each detection over its IoU with the truth.

    Args:
        axes: matplotlib axes.
        score, iou: float tensors ``(n,)``; see `best_iou`.
        threshold, iou_threshold: where the lines stand that part sure
            detections from unsure ones, and boxes that fit from those that
            do not; dots are boxes that reach this IoU, crosses the others.
    """
    good = iou >= iou_threshold
    axes.scatter(iou[~good], score[~good], s=24, c=COLORS[5], marker='x',
                 lw=1.2, label=f'IoU below {iou_threshold:g}')
    axes.scatter(iou[good], score[good], s=24, c=COLORS[0], marker='o',
                 alpha=0.6, lw=0, label=f'IoU at least {iou_threshold:g}')
    axes.axvline(iou_threshold, color='#1f2328', ls='--', lw=1)
    axes.axhline(threshold, color='#1f2328', ls='--', lw=1)
    axes.set(xlabel='IoU with the nearest true box', ylabel='score',
             xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def to_pixels(image):
    """Bring a picture into the form that matplotlib shows.

    Args:
        image: tensor or array ``(3, h, w)`` or ``(h, w, 3)``, or ``(h, w)``,
            0–255.

    Returns:
        uint8 array ``(h, w, 3)`` or ``(h, w)``.
    """
    if hasattr(image, 'detach'):
        image = image.detach().cpu()
    image = np.asarray(image).clip(0, 255).astype(np.uint8)
    if image.ndim == 3 and len(image) in (1, 3) and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    return image


class Animator:
    """A plot that is drawn again whenever a point is added.

    In a notebook it takes the place of what the cell showed before; elsewhere
    it waits for ``plt.show()``.

    Args:
        xlabel, ylabel: of the axes.
        legend: a name for each curve.
        xlim, ylim: pairs of numbers, or None.
        xscale, yscale: 'linear' or 'log'.
        figsize: in inches.
    """

    def __init__(self, xlabel=None, ylabel=None, legend=(), xlim=None,
                 ylim=None, xscale='linear', yscale='linear',
                 figsize=(5, 3)):
        self.figure, self.axes = plt.subplots(figsize=figsize,
                                              layout='constrained')
        self.style = {'xlabel': xlabel, 'ylabel': ylabel, 'xlim': xlim,
                      'ylim': ylim, 'xscale': xscale, 'yscale': yscale}
        self.legend = legend
        self.points = []
        self.handle = None

    def add(self, x, y):
        """Add one point to each curve.

        Args:
            x: a number, also as a tensor of one.
            y: a number, or one for each curve; None leaves a curve out.
        """
        single = getattr(y, 'ndim', None) == 0 or not hasattr(y, '__len__')
        for i, value in enumerate([y] if single else y):
            while len(self.points) <= i:
                self.points.append(([], []))
            if value is not None:
                for numbers, number in zip(self.points[i], (x, value)):
                    numbers.append(number.item() if hasattr(number, 'item')
                                   else number)
        self.draw()

    def draw(self):
        """Draw all curves anew."""
        ax = self.axes
        ax.clear()
        for i, (x, y) in enumerate(self.points):
            name = self.legend[i] if i < len(self.legend) else None
            ax.plot(x, y, LINES[i % 4], marker='.', label=name,
                    color=COLORS[i % 6])
        ax.set(**{k: v for k, v in self.style.items()
                  if v is not None and (k[1:] != 'lim' or v[0] != v[1])})
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.4)
        if self.legend:
            ax.legend()
        if 'ipykernel' in sys.modules:
            self._refresh()

    def _refresh(self):
        from IPython.display import display

        if self.handle is None:
            self.handle = display(self.figure, display_id=True)
            plt.close(self.figure)  # or the cell would show it once more
        else:
            self.handle.update(self.figure)
