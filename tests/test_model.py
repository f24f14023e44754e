"""TinySSD: its blocks, its predictors, and the order of its predictions."""
import pytest
import torch
from torch import nn

import d2lssd


def fill(layer, weight=0.0, bias=0.0):
    """Set all weights and all biases of a layer."""
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)


# The predictors and the concatenation, with the numbers of the chapters.

def test_prediction_maps_and_their_concatenation_have_the_books_shapes():
    Y1 = d2lssd.forward(torch.zeros(2, 8, 20, 20),
                        d2lssd.cls_predictor(8, 5, 10))
    Y2 = d2lssd.forward(torch.zeros(2, 16, 10, 10),
                        d2lssd.cls_predictor(16, 3, 10))
    assert Y1.shape == (2, 55, 20, 20)
    assert Y2.shape == (2, 33, 10, 10)
    assert d2lssd.concat_preds([Y1, Y2]).shape == (2, 25300)
    boxes = d2lssd.forward(torch.zeros(2, 8, 20, 20),
                           d2lssd.bbox_predictor(8, 5))
    assert boxes.shape == (2, 20, 20, 20)


def test_flattening_puts_the_channels_of_a_unit_side_by_side():
    pred = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    slowly = [[int(pred[b, c, y, x]) for y in range(2) for x in range(4)
               for c in range(3)] for b in range(2)]
    assert d2lssd.flatten_pred(pred).tolist() == slowly


def test_concatenation_keeps_the_order_of_the_scales():
    one, two = torch.rand(2, 3, 4, 5), torch.rand(2, 6, 1, 2)
    joined = d2lssd.concat_preds([one, two])
    assert torch.equal(joined[:, :60], d2lssd.flatten_pred(one))
    assert torch.equal(joined[:, 60:], d2lssd.flatten_pred(two))


@pytest.mark.parametrize('q', [1, 3])
def test_channel_i_q_plus_1_plus_j_scores_class_j_of_anchor_i(q):
    net = d2lssd.TinySSD(q).eval()
    for scale in range(5):
        layer = getattr(net, f'cls_{scale}')
        fill(layer)
        with torch.no_grad():
            for i in range(4):
                for j in range(q + 1):
                    layer.bias[i * (q + 1) + j] = 100 * scale + 10 * i + j
        layer = getattr(net, f'bbox_{scale}')
        fill(layer)
        with torch.no_grad():
            for i in range(4):
                for k in range(4):
                    layer.bias[i * 4 + k] = 100 * scale + 10 * i + k
    anchors, cls_preds, bbox_preds = net(torch.zeros(1, 3, 128, 128))
    expected = [[100 * scale + 10 * i for i in range(4)]
                for scale, units in enumerate((256, 64, 16, 4, 1))
                for _ in range(units)]
    expected = torch.tensor(expected).float().reshape(-1, 1)
    assert torch.equal(cls_preds[0], expected + torch.arange(q + 1))
    assert torch.equal(bbox_preds.reshape(-1, 4),
                       expected + torch.arange(4))
    # The third anchor of a unit, i = 2, is the one that lies flat.
    wide = (anchors[0, :, 2] - anchors[0, :, 0]) > 1.5 * (
        anchors[0, :, 3] - anchors[0, :, 1])
    assert torch.equal(wide, expected[:, 0] % 100 == 20)


def test_a_prediction_belongs_to_the_anchor_around_its_own_unit():
    # The only channel counts the units, and the predictors hand it through.
    h, w = 3, 5
    X = torch.arange(h * w).float().reshape(1, 1, h, w)
    layers = d2lssd.cls_predictor(1, 4, 1), d2lssd.bbox_predictor(1, 4)
    for layer in layers:
        fill(layer)
        with torch.no_grad():
            layer.weight[:, 0, 1, 1] = 1
    Y, anchors, cls_preds, bbox_preds = d2lssd.blk_forward(
        X, nn.Identity(), [0.2, 0.3], [1, 2, 0.5], *layers)
    assert torch.equal(Y, X)
    unit = d2lssd.flatten_pred(cls_preds).reshape(-1, 2)[:, 0]
    assert torch.equal(unit,
                       d2lssd.flatten_pred(bbox_preds).reshape(-1, 4)[:, 3])
    center = d2lssd.box_corner_to_center(anchors[0])[:, :2]
    expected = torch.stack([(unit % w + 0.5) / w, (unit // w + 0.5) / h], 1)
    torch.testing.assert_close(center, expected)


# The blocks.

def test_blocks_have_the_books_shapes():
    block = d2lssd.down_sample_blk(3, 10)
    assert d2lssd.forward(torch.zeros(2, 3, 20, 20),
                          block).shape == (2, 10, 10, 10)
    assert d2lssd.forward(torch.zeros(2, 3, 256, 256),
                          d2lssd.base_net()).shape == (2, 64, 32, 32)
    X = torch.zeros(2, 3, 256, 256)
    for i, shape in enumerate([(64, 32, 32), (128, 16, 16), (128, 8, 8),
                               (128, 4, 4), (128, 1, 1)]):
        X = d2lssd.get_blk(i)(X)
        assert X.shape == (2, *shape)


def test_a_downsampling_block_is_two_convolutions_and_a_pooling():
    kinds = [type(layer) for layer in d2lssd.down_sample_blk(3, 10)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.MaxPool2d]


def test_the_last_block_takes_the_greatest_value_of_each_channel():
    X = torch.randn(2, 7, 4, 3)
    assert torch.equal(d2lssd.get_blk(4)(X)[..., 0, 0], X.amax((2, 3)))


def test_a_unit_of_a_downsampling_block_sees_six_by_six_units():
    # A gradient passes through the largest of four units only, so the sight
    # of one is gathered over many random inputs.
    generator = torch.Generator().manual_seed(0)
    block = d2lssd.down_sample_blk(1, 1).eval()
    for layer in block:
        if isinstance(layer, nn.Conv2d):
            fill(layer, weight=1.0)
    X = torch.rand(64, 1, 16, 16, generator=generator, requires_grad=True)
    block(X)[:, 0, 3, 4].sum().backward()
    seen = (X.grad != 0).any(0)[0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:10, 6:12] = True  # from 2·3-2 and 2·4-2 on
    assert torch.equal(seen, expected)


# The whole.

def test_the_network_has_the_books_output_shapes_and_parameters():
    net = d2lssd.TinySSD(num_classes=1)
    with torch.no_grad():
        anchors, cls_preds, bbox_preds = net(torch.zeros(32, 3, 256, 256))
    assert anchors.shape == (1, 5444, 4)
    assert cls_preds.shape == (32, 5444, 2)
    assert bbox_preds.shape == (32, 21776)
    assert sum(p.numel() for p in net.parameters()) == 1_010_376


@pytest.mark.parametrize('q', [1, 3, 20])
def test_the_parameters_add_up_layer_by_layer(q):
    def convolution(a, b):
        return 9 * a * b + b

    def block(a, b):
        return convolution(a, b) + convolution(b, b) + 4 * b

    total = sum(block(a, b) for a, b in ((3, 16), (16, 32), (32, 64),
                                         (64, 128), (128, 128), (128, 128)))
    total += sum(convolution(c, 4 * (q + 1)) + convolution(c, 16)
                 for c in (64, 128, 128, 128, 128))
    net = d2lssd.TinySSD(q)
    assert sum(p.numel() for p in net.parameters()) == total


@pytest.mark.parametrize(('height', 'width', 'units'), [
    (128, 128, 16**2 + 8**2 + 4**2 + 2**2 + 1),
    (300, 200, 37 * 25 + 18 * 12 + 9 * 6 + 4 * 3 + 1),
    (128, 320, 16 * 40 + 8 * 20 + 4 * 10 + 2 * 5 + 1)])
def test_other_input_sizes_work(height, width, units):
    net = d2lssd.TinySSD(2).eval()
    anchors, cls_preds, bbox_preds = net(torch.rand(2, 3, height, width))
    assert anchors.shape == (1, 4 * units, 4)
    assert cls_preds.shape == (2, 4 * units, 3)
    assert bbox_preds.shape == (2, 16 * units)
    center = d2lssd.box_corner_to_center(anchors)[..., :2]
    assert 0 < center.min() < center.max() < 1


def test_the_anchors_are_those_of_the_five_scales():
    anchors = d2lssd.TinySSD(1).eval()(torch.zeros(1, 3, 256, 256))[0]
    scales = [d2lssd.multibox_prior(torch.zeros(n, n), size, ratio)
              for n, size, ratio in zip((32, 16, 8, 4, 1), d2lssd.sizes,
                                        d2lssd.ratios)]
    assert torch.equal(anchors, torch.cat(scales, 1))


def test_a_network_may_have_anchors_of_other_sizes():
    net, usual = d2lssd.TinySSD(1).eval(), d2lssd.TinySSD(1).eval()
    net.load_state_dict(usual.state_dict())
    net.sizes = [[0.1, 0.136], *d2lssd.sizes[:-1]]
    X = torch.rand(1, 3, 256, 256) * 255
    anchors, *preds = net(X)
    expected, *usual_preds = usual(X)
    scales = [d2lssd.multibox_prior(torch.zeros(n, n), size, ratio)
              for n, size, ratio in zip((32, 16, 8, 4, 1), net.sizes,
                                        d2lssd.ratios)]
    assert torch.equal(anchors, torch.cat(scales, 1))
    assert not torch.equal(anchors, expected)
    assert all(map(torch.equal, preds, usual_preds))
    assert d2lssd.TinySSD(1).sizes == d2lssd.sizes


def test_sizes_split_a_range_in_five_with_geometric_means_between():
    small = torch.tensor([s[0] for s in d2lssd.sizes] + [1.05])
    torch.testing.assert_close(small, torch.linspace(0.2, 1.05, 6))
    for i, (low, between) in enumerate(d2lssd.sizes):
        assert between == pytest.approx((low * float(small[i + 1]))**0.5,
                                        abs=1e-3)
    assert d2lssd.ratios == [[1, 2, 0.5]] * 5
    assert d2lssd.num_anchors == 4


def test_the_names_in_the_state_dict_are_those_that_saved_weights_carry():
    layers = {}
    for block in ('blk_0.0', 'blk_0.1', 'blk_0.2', 'blk_1', 'blk_2', 'blk_3'):
        for i in (0, 3):
            layers[f'{block}.{i}'] = ['weight', 'bias']
            layers[f'{block}.{i + 1}'] = [
                'weight', 'bias', 'running_mean', 'running_var',
                'num_batches_tracked']
    for i in range(5):
        layers[f'cls_{i}'] = layers[f'bbox_{i}'] = ['weight', 'bias']
    expected = {f'{layer}.{name}' for layer, names in layers.items()
                for name in names}
    assert set(d2lssd.TinySSD(1).state_dict()) == expected


def test_in_evaluation_mode_an_image_does_not_depend_on_its_minibatch():
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1).eval()
    X = 255 * torch.rand(3, 3, 128, 128)
    with torch.no_grad():
        together = net(X)
        alone = net(X[1:2])
        shuffled = net(X[[2, 0, 1]])
    assert torch.equal(together[0], alone[0])
    for k in (1, 2):
        torch.testing.assert_close(together[k][1:2], alone[k], rtol=1e-4,
                                   atol=1e-4)
        torch.testing.assert_close(together[k][[2, 0, 1]], shuffled[k],
                                   rtol=1e-4, atol=1e-4)


def test_the_memory_format_does_not_change_the_predictions():
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1).eval()
    X = 255 * torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        plain = net(X)
        net.to(memory_format=torch.channels_last)
        other = net(X.to(memory_format=torch.channels_last))
    for one, two in zip(plain, other):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_every_parameter_that_matters_gets_a_gradient():
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1)
    _, cls_preds, bbox_preds = net(torch.rand(2, 3, 128, 128))
    (cls_preds.square().mean() + bbox_preds.square().mean()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith(('0.bias', '3.bias')):  # batch norm undoes them
            assert parameter.grad.any(), name


# Evaluation, and back.

def test_evaluating_builds_no_graph_and_puts_every_layer_back():
    net = d2lssd.TinySSD(1)
    net.blk_2.eval()  # frozen by hand, say
    modes = {name: layer.training for name, layer in net.named_modules()}
    assert len(set(modes.values())) == 2
    with d2lssd.evaluating(net) as inner:
        assert inner is net
        assert not any(layer.training for layer in net.modules())
        assert not net(torch.zeros(1, 3, 128, 128))[1].requires_grad
    assert modes == {name: layer.training
                     for name, layer in net.named_modules()}
    assert torch.is_grad_enabled()


def test_evaluating_puts_every_layer_back_after_an_error():
    net = d2lssd.TinySSD(1)
    with pytest.raises(KeyError), d2lssd.evaluating(net):
        raise KeyError
    assert all(layer.training for layer in net.modules())
    assert torch.is_grad_enabled()
