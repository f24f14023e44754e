"""Data sets as PyTorch wants them: a tensor, a Dataset, or minibatches."""
import os
from pathlib import Path

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
)

from .drawn import number_of_pictures


def read_data_bananas(is_train=True, source='drawn', **options):
    """All pictures of a split and their boxes.

    Args:
        is_train: True for the training pictures, False for validation.
        source: ``'drawn'``, bananas that the package draws; ``'d2l'``, the
            original archive, fetched when first asked for; or a folder with
            your own ``images/`` and ``label.csv`` or
            ``annotations.json`` (COCO).
        options: for drawn bananas ``count``, ``seed``, ``style``,
            ``num_bananas``, ``cache``; for the archive ``url``, ``sha1``; for
            a folder ``classes``, ``val_fraction``; for all ``progress``.

    Returns:
        uint8 tensor ``(N, 3, 256, 256)`` and float32 tensor ``(N, m, 5)`` of
        class and corner box relative to the picture; class -1 fills up.

    Raises:
        ValueError: an unknown source, or labels or pictures that are wrong.
        ConnectionError: the archive cannot be fetched.
    """
    if is_train not in (True, False):
        raise ValueError(f'is_train = {is_train!r}: True or False is needed')
    split = 'train' if is_train else 'val'
    if source == 'drawn':
        from .drawn import drawn_bananas
        return drawn_bananas(split, **options)
    if source == 'd2l':
        from .archive import original_bananas
        return original_bananas(split, **options)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        from .folder import read_folder
        return read_folder(Path(source), split, **options)
    raise ValueError(f"source = {source!r}: 'drawn', 'd2l' or a folder that "
                     'exists, with images and label.csv or annotations.json '
                     'in it, is needed')


class BananasDataset(Dataset):
    """Pictures with boxes, one at a time or many at once.

    ``dataset[i]`` is a float32 picture ``(3, 256, 256)``, 0 to 255, and its
    labels, float32 ``(m, 5)``. With a list or tensor of indices, or a slice,
    in place of ``i``, both have one more dimension in front.

    Args:
        is_train, source, options: as in ``read_data_bananas``.

    Attributes:
        images: uint8 tensor ``(N, 3, 256, 256)``.
        labels: float32 tensor ``(N, m, 5)``.
    """

    def __init__(self, is_train=True, source='drawn', **options):
        self.images, self.labels = read_data_bananas(is_train, source,
                                                     **options)

    def __getitem__(self, index):
        return self.images[index].float(), self.labels[index].clone()

    def __len__(self):
        return len(self.images)


def load_data_bananas(batch_size, source='drawn', shuffle_seed=None,
                      **options):
    """Minibatches for training and for validation.

    Args:
        batch_size: pictures in a batch; the last one may be smaller.
        source, options: as in ``read_data_bananas``; ``count`` may be a pair,
            for training and validation.
        shuffle_seed: a number fixes the order of the training pictures, which
            otherwise follows ``torch.manual_seed``.

    Returns:
        Two ``DataLoader`` that yield float32 images ``(batch, 3, 256, 256)``,
        0 to 255, and labels ``(batch, m, 5)``; training is shuffled anew each
        time through. Their ``dataset`` is a ``BananasDataset``.

    Raises:
        ValueError: a batch size that is no whole number above 0, and what
            ``read_data_bananas`` raises.
    """
    batch_size = number_of_pictures('batch_size', batch_size)
    count = options.pop('count', None)
    counts = count if isinstance(count, (tuple, list)) else (count, count)
    loaders = []
    for is_train, number in zip((True, False), counts, strict=True):
        more = {} if number is None else {'count': number}
        dataset = BananasDataset(is_train, source, **options, **more)
        sampler = SequentialSampler(dataset)
        if is_train:
            generator = None
            if shuffle_seed is not None:
                generator = torch.Generator().manual_seed(shuffle_seed)
            sampler = RandomSampler(dataset, generator=generator)
        # Without automatic batching the loader asks for a list of indices
        # and gets a whole batch in one copy: no stacking, no worker needed.
        batches = BatchSampler(sampler, batch_size, drop_last=False)
        loaders.append(DataLoader(dataset, sampler=batches, batch_size=None))
    return tuple(loaders)
