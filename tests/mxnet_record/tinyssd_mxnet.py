"""TinySSD once more, in MXNet 1.9: what the appendix shows, and what ran."""
import matplotlib.pyplot as plt
from mxnet import autograd, gluon, image, np, npx
from mxnet.gluon import nn

npx.set_np()

sizes = [[0.2, 0.272], [0.37, 0.447], [0.54, 0.619], [0.71, 0.79],
         [0.88, 0.961]]
ratios = [[1, 2, 0.5]] * 5
num_anchors = len(sizes[0]) + len(ratios[0]) - 1


def cls_predictor(num_anchors, num_classes):
    """Class prediction layer; its input channels are found at first use."""
    return nn.Conv2D(num_anchors * (num_classes + 1), kernel_size=3,
                     padding=1)


def bbox_predictor(num_anchors):
    """Bounding box prediction layer: four offsets an anchor."""
    return nn.Conv2D(num_anchors * 4, kernel_size=3, padding=1)


def forward(x, block):
    """Give a new block its weights, and run it."""
    block.initialize()
    return block(x)


def flatten_pred(pred):
    """``(B, c, h, w) → (B, h·w·c)``: what belongs to a unit stays together."""
    return npx.batch_flatten(np.transpose(pred, (0, 2, 3, 1)))


def concat_preds(preds):
    """Join the flattened prediction maps of all scales."""
    return np.concatenate([flatten_pred(p) for p in preds], axis=1)


def down_sample_blk(num_channels):
    """``(B, c, h, w) → (B, num_channels, h/2, w/2)``."""
    blk = nn.Sequential()
    for _ in range(2):
        blk.add(nn.Conv2D(num_channels, kernel_size=3, padding=1),
                nn.BatchNorm(), nn.Activation('relu'))
    blk.add(nn.MaxPool2D(2))
    return blk


def base_net():
    """``(B, 3, h, w) → (B, 64, h/8, w/8)``."""
    blk = nn.Sequential()
    blk.add(*[down_sample_blk(channels) for channels in (16, 32, 64)])
    return blk


def get_blk(i):
    """Block i of five; no block is told how many channels come in."""
    if i == 0:
        return base_net()
    return nn.GlobalMaxPool2D() if i == 4 else down_sample_blk(128)


def blk_forward(X, blk, size, ratio, cls_predictor, bbox_predictor):
    """Run one block; anchors and predictions of the map it gives."""
    Y = blk(X)
    anchors = npx.multibox_prior(Y, sizes=size, ratios=ratio)
    return Y, anchors, cls_predictor(Y), bbox_predictor(Y)


class TinySSD(nn.Block):
    """Five blocks, each with two predictors.

    Args:
        num_classes: object classes, background not counted.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        for i in range(5):
            setattr(self, f'blk_{i}', get_blk(i))
            setattr(self, f'cls_{i}', cls_predictor(num_anchors, num_classes))
            setattr(self, f'bbox_{i}', bbox_predictor(num_anchors))

    def forward(self, X):
        anchors, cls_preds, bbox_preds = [None] * 5, [None] * 5, [None] * 5
        for i in range(5):
            X, anchors[i], cls_preds[i], bbox_preds[i] = blk_forward(
                X, getattr(self, f'blk_{i}'), sizes[i], ratios[i],
                getattr(self, f'cls_{i}'), getattr(self, f'bbox_{i}'))
        cls_preds = concat_preds(cls_preds)
        return (np.concatenate(anchors, axis=1),
                cls_preds.reshape(len(cls_preds), -1, self.num_classes + 1),
                concat_preds(bbox_preds))


def examples():
    """Run each piece once; a dict of the shapes that come out."""
    Y1 = forward(np.zeros((2, 8, 20, 20)), cls_predictor(5, 10))
    Y2 = forward(np.zeros((2, 16, 10, 10)), cls_predictor(3, 10))
    small, image = np.zeros((2, 3, 20, 20)), np.zeros((2, 3, 256, 256))
    anchors, cls_preds, bbox_preds = forward(image, TinySSD(num_classes=1))
    outputs = {
        'Y1': Y1, 'Y2': Y2, 'both': concat_preds([Y1, Y2]),
        'down_sample_blk': forward(small, down_sample_blk(10)),
        'base_net': forward(image, base_net()), 'anchors': anchors,
        'cls_preds': cls_preds, 'bbox_preds': bbox_preds}
    return {name: Y.shape for name, Y in outputs.items()}


cls_loss = gluon.loss.SoftmaxCrossEntropyLoss()
bbox_loss = gluon.loss.L1Loss()


def calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks):
    """Loss of each image ``(B,)``; both losses average over the anchors."""
    return cls_loss(cls_preds, cls_labels) + bbox_loss(
        bbox_preds * bbox_masks, bbox_labels * bbox_masks)


def cls_eval(cls_preds, cls_labels):
    """Number of anchors with the right class."""
    guess = cls_preds.argmax(axis=-1).astype(cls_labels.dtype)
    return float((guess == cls_labels).sum())


def bbox_eval(bbox_preds, bbox_labels, bbox_masks):
    """Summed absolute error of the offsets that count."""
    return float(np.abs((bbox_labels - bbox_preds) * bbox_masks).sum())


def new_trainer(net, lr, wd):
    """Plain SGD; ``wd`` is PyTorch's ``weight_decay``."""
    return gluon.Trainer(net.collect_params(), 'sgd',
                         {'learning_rate': lr, 'wd': wd})


def train_epoch(net, train_iter, trainer):
    """Train on every batch once; yield loss and both measures of each."""
    device = next(iter(net.collect_params().values())).list_ctx()[0]
    for features, target in train_iter:
        X, Y = features.as_in_ctx(device), target.as_in_ctx(device)
        with autograd.record():
            anchors, cls_preds, bbox_preds = net(X)
            bbox_labels, bbox_masks, cls_labels = npx.multibox_target(
                anchors, Y, cls_preds.transpose(0, 2, 1))
            loss = calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels,
                             bbox_masks)
        loss.backward()
        trainer.step(len(X))
        yield (loss, cls_eval(cls_preds, cls_labels),
               bbox_eval(bbox_preds, bbox_labels, bbox_masks))


def read_image(path):
    """A picture as the network takes it, ``(1, 3, 256, 256)``."""
    img = image.imresize(image.imread(path), 256, 256).astype('float32')
    return np.expand_dims(img.transpose(2, 0, 1), axis=0)


def predict(X, net):
    """Rows ``(class, score, box)`` found in the first image of X."""
    anchors, cls_preds, bbox_preds = net(X)
    cls_probs = npx.softmax(cls_preds).transpose(0, 2, 1)
    output = npx.multibox_detection(cls_probs, bbox_preds, anchors,
                                    clip=False, force_suppress=True)
    return output[0][output[0, :, 0] != -1]


def display(img, output, threshold):
    """Draw the boxes whose score reaches the threshold; return the axes."""
    axes = plt.figure(figsize=(5, 5)).gca()
    axes.imshow(img.asnumpy())
    h, w = img.shape[:2]
    for row in output:
        score = float(row[1])
        if score >= threshold:
            box = row[2:] * np.array((w, h, w, h), ctx=row.ctx)
            x1, y1, x2, y2 = box.tolist()
            axes.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1,
                                         fill=False, edgecolor='w'))
            axes.text(x1, y1, f'{score:.2f}', va='center', ha='center')
    return axes


def smooth_l1(data, scalar):
    """L1 loss, rounded off around 0; an operator of MXNet's own."""
    return npx.smooth_l1(data, scalar=scalar)


def focal_loss(gamma, x):
    """Loss at probability x of the true class, less where x is high."""
    return -(1 - x) ** gamma * np.log(x)
