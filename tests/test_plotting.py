"""Pictures with boxes, and curves that grow."""
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

import d2lssd
from d2lssd.plotting import COLORS


def corners(patch):
    """Corner format of a drawn rectangle."""
    return [*patch.get_xy(), patch.get_x() + patch.get_width(),
            patch.get_y() + patch.get_height()]


def test_the_size_of_the_figures_to_come_can_be_set():
    with mpl.rc_context():
        d2lssd.set_figsize((6, 2))
        assert plt.figure().get_size_inches().tolist() == [6, 2]


def test_a_rectangle_lies_where_its_box_does():
    for bbox in ([3, 4, 10, 24], torch.tensor([3, 4, 10, 24.])):
        rect = d2lssd.bbox_to_rect(bbox, 'red')
        assert rect.get_xy() == (3, 4)
        assert (rect.get_width(), rect.get_height()) == (7, 20)
        assert rect.get_edgecolor() == to_rgba('red')
        assert not rect.get_fill()


def test_boxes_are_drawn_in_order_each_with_its_label_and_colour():
    axes = plt.figure().subplots()
    boxes = torch.tensor([[0, 0, 2, 3], [1, 1, 4, 5], [2, 2, 3, 3.]])
    d2lssd.show_bboxes(axes, boxes, ['one', 'two', 'three'], ['r', 'b'])
    assert [corners(p) for p in axes.patches] == boxes.tolist()
    assert [p.get_edgecolor() for p in axes.patches] == [
        to_rgba(c) for c in 'rbr']
    assert [t.get_text() for t in axes.texts] == ['one', 'two', 'three']
    assert [t.xy for t in axes.texts] == [(0, 0), (1, 1), (2, 2)]


def test_boxes_without_labels_take_the_books_colours_in_turn():
    axes = plt.figure().subplots()
    d2lssd.show_bboxes(axes, torch.rand(len(COLORS) + 1, 4))
    colors = [p.get_edgecolor() for p in axes.patches]
    assert colors[0] == colors[-1]
    assert len(set(colors)) == len(COLORS)
    assert not axes.texts


def test_one_label_and_one_colour_need_no_list():
    axes = plt.figure().subplots()
    d2lssd.show_bboxes(axes, [[0, 0, 1, 1]], 'banana', 'w')
    assert [t.get_text() for t in axes.texts] == ['banana']
    assert axes.patches[0].get_edgecolor() == to_rgba('w')


def test_no_boxes_draw_nothing():
    axes = plt.figure().subplots()
    d2lssd.show_bboxes(axes, torch.zeros(0, 4))
    assert not axes.patches


# A picture of its own in each corner, to see which way up it is shown.
COLUMNS, ROWS = np.meshgrid(np.arange(5), np.arange(4))
PIXELS = np.stack([10 * COLUMNS, 20 * ROWS, 7 + 0 * ROWS], -1).astype('uint8')


@pytest.mark.parametrize('image', [
    torch.from_numpy(PIXELS).permute(2, 0, 1),
    torch.from_numpy(PIXELS).permute(2, 0, 1).float(),
    torch.from_numpy(PIXELS),
    torch.from_numpy(PIXELS).long(),
    PIXELS])
def test_a_picture_is_shown_whatever_the_order_of_its_dimensions(image):
    d2lssd.display(image, torch.zeros(0, 6), 0.9)
    shown = plt.gca().images[0].get_array()
    assert np.array_equal(shown, PIXELS)
    grid = d2lssd.show_images([image], 1, 1)
    assert np.array_equal(grid[0].images[0].get_array(), PIXELS)


def test_a_picture_of_one_pixel_is_shown():
    for image in (torch.tensor([[[1, 2, 3]]]), torch.tensor([1, 2, 3]
                                                            ).reshape(3, 1,
                                                                      1)):
        d2lssd.display(image, torch.zeros(0, 6), 0.9)
        assert plt.gca().images[-1].get_array().tolist() == [[[1, 2, 3]]]


def test_values_outside_the_range_are_cut_off_not_wrapped_round():
    image = torch.tensor([-5, 100, 300.]).reshape(3, 1, 1).expand(3, 2, 2)
    d2lssd.display(image, torch.zeros(0, 6), 0.9)
    assert plt.gca().images[0].get_array()[0, 0].tolist() == [0, 100, 255]


def test_boxes_that_reach_the_threshold_are_drawn_into_pixels():
    output = torch.tensor([[0, 0.97, 0.1, 0.25, 0.5, 0.75],
                           [0, 0.75, 0, 0, 1, 1],
                           [0, 0.74, 0.5, 0.5, 1, 1]])
    d2lssd.display(torch.zeros(40, 20, 3), output, threshold=0.75)
    axes = plt.gca()
    assert [corners(p) for p in axes.patches] == [
        pytest.approx([2, 10, 10, 30]), [0, 0, 20, 40]]
    assert [t.get_text() for t in axes.texts] == ['0.97', '0.75']
    assert not axes.axison


def test_nothing_found_shows_the_picture_alone():
    for output in (torch.zeros(0, 6), torch.tensor([[0, 0.5, 0, 0, 1, 1]])):
        d2lssd.display(PIXELS, output, threshold=0.9)
        assert not plt.gca().patches
        plt.close('all')


def test_a_grid_has_a_place_for_each_picture_and_leaves_the_rest_empty():
    images = [torch.full((3, 8, 8), float(i)) for i in range(3)]
    axes = d2lssd.show_images(images, 2, 2, scale=2, titles=['a', 'b', 'c'])
    assert len(list(axes)) == 4
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 0]
    assert [ax.get_title() for ax in axes] == ['a', 'b', 'c', '']
    assert plt.gcf().get_size_inches().tolist() == [4, 4]
    assert [int(ax.images[0].get_array().max()) for ax in axes[:3]] == [0, 1,
                                                                        2]


# The curve.

def test_a_curve_grows_by_the_points_that_are_added():
    animator = d2lssd.Animator(xlabel='epoch', ylabel='error', xlim=[1, 5],
                               legend=['class error', 'bbox mae'])
    animator.add(1, (0.5, 0.25))
    animator.add(2, (0.4, None))
    animator.add(3, [None, 0.125])
    one, two = animator.axes.lines
    assert one.get_xydata().tolist() == [[1, 0.5], [2, 0.4]]
    assert two.get_xydata().tolist() == [[1, 0.25], [3, 0.125]]
    assert animator.axes.get_xlabel() == 'epoch'
    assert animator.axes.get_ylabel() == 'error'
    assert animator.axes.get_xlim() == (1, 5)
    labels = [t.get_text() for t in animator.axes.get_legend().get_texts()]
    assert labels == ['class error', 'bbox mae']
    # Not by colour alone.
    assert one.get_linestyle() != two.get_linestyle()


def test_a_curve_alone_needs_no_list_and_no_legend():
    animator = d2lssd.Animator(yscale='log')
    for x in range(3):
        animator.add(x, 10.0**x)
    assert animator.axes.lines[0].get_ydata().tolist() == [1, 10, 100]
    assert animator.axes.get_yscale() == 'log'
    assert animator.axes.get_legend() is None


@pytest.mark.parametrize('y', [
    torch.tensor(2., requires_grad=True), np.float32(2), np.array(2.),
    [torch.tensor(2., requires_grad=True)], torch.tensor([2.])])
def test_a_point_may_be_a_tensor(y):
    animator = d2lssd.Animator()
    animator.add(torch.tensor(1), y)
    line, = animator.axes.lines
    assert line.get_xydata().tolist() == [[1, 2]]


def test_precision_is_drawn_over_recall_with_a_dot_at_the_threshold():
    precision = torch.tensor([1, 0.5, 2 / 3])
    recall = torch.tensor([0.25, 0.25, 0.5])
    score = torch.tensor([0.9, 0.6, 0.4])
    axes = plt.figure().subplots()
    d2lssd.plot_precision_recall(axes, {'one': (precision, recall, score),
                                        'timid': (precision, recall,
                                                  score / 2)})
    one, dot, timid = axes.lines
    assert one.get_xdata().tolist() == recall.tolist()
    assert timid.get_ydata().tolist() == precision.tolist()
    assert (float(dot.get_xdata()[0]), float(dot.get_ydata()[0])) == (
        0.25, 0.5)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ['one', 'timid']
    assert one.get_linestyle() != timid.get_linestyle()
    empty = [part[:0] for part in (precision, recall, score)]
    d2lssd.plot_precision_recall(plt.figure().subplots(), {'none': empty})


def test_scores_are_drawn_over_ious_below_and_above_the_line_apart():
    axes = plt.figure().subplots()
    score, iou = torch.tensor([[0.9, 0.2, 0.8], [0.7, 0.5, 0.1]])
    d2lssd.plot_score_iou(axes, score, iou)
    bad, good = (part.get_offsets().tolist() for part in axes.collections)
    assert good == [pytest.approx([0.7, 0.9]), pytest.approx([0.5, 0.2])]
    assert bad == [pytest.approx([0.1, 0.8])]
    # `mistakes` calls only a part of the crosses badly placed.
    assert axes.get_legend_handles_labels()[1] == [
        'IoU below 0.5', 'IoU at least 0.5']
    axes = plt.figure().subplots()
    d2lssd.plot_score_iou(axes, score, iou, iou_threshold=0.75)
    bad, good = axes.collections
    assert (len(bad.get_offsets()), bad.get_label()) == (3, 'IoU below 0.75')
    assert len(good.get_offsets()) == 0


def test_in_a_notebook_a_plot_is_shown_once_and_then_replaced(monkeypatch):
    display = pytest.importorskip('IPython.display')
    calls = []

    class Handle:
        def update(self, figure):
            calls.append(('update', figure))

    def show(figure, display_id):
        calls.append(('display', figure))
        return Handle()

    monkeypatch.setitem(sys.modules, 'ipykernel', object())
    monkeypatch.setattr(display, 'display', show)
    animator = d2lssd.Animator()
    for x in range(3):
        animator.add(x, x)
    assert calls == [('display', animator.figure)] + [
        ('update', animator.figure)] * 2
    assert not plt.get_fignums()  # or the cell would show it once more


def test_a_name_that_would_be_a_broken_formula_is_drawn_as_it_is():
    name = r'$\frac{$'
    axes, = d2lssd.show_images([torch.zeros(4, 4, 3)], 1, 1, titles=[name])
    d2lssd.show_bboxes(axes, [[0, 0, 2, 2]], name)
    axes.figure.canvas.draw()
