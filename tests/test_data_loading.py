"""Data sets and minibatches, as training meets them."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import d2lssd
from d2lssd.data import archive, drawing

COUNTS = {'count': (10, 4), 'progress': False}


@pytest.fixture(autouse=True)
def sketches(monkeypatch, tmp_path):
    """Flat pictures, red by their number, in place of slow drawings."""
    def draw_scene(split, index, seed=0, style='plain', num_bananas=1):
        image = np.full((256, 256, 3), (index, split == 'val', 7), np.uint8)
        return image, np.full((1, 4), index / 100, np.float32)

    monkeypatch.setenv('D2LSSD_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr(drawing, 'draw_scene', draw_scene)


def test_the_default_source_is_drawn():
    images, labels = d2lssd.read_data_bananas(count=3, progress=False)
    assert (images.shape, images.dtype) == ((3, 3, 256, 256), torch.uint8)
    assert (labels.shape, labels.dtype) == ((3, 1, 5), torch.float32)
    assert (images[:, 1] == 0).all()
    images, _ = d2lssd.read_data_bananas(False, count=3, progress=False)
    assert (images[:, 1] == 1).all()


def test_the_archive_is_a_source(monkeypatch):
    monkeypatch.setattr(archive, 'original_bananas',
                        lambda split, **options: (split, options))
    assert d2lssd.read_data_bananas(False, 'd2l', url='u') == (
        'val', {'url': 'u'})


@pytest.mark.parametrize('kind', [str, Path])
def test_a_folder_is_a_source(tmp_path, kind):
    (tmp_path / 'images').mkdir()
    for i in range(3):
        Image.new('RGB', (8, 8)).save(tmp_path / 'images' / f'{i}.png')
    (tmp_path / 'label.csv').write_text(
        'img_name,label,xmin,ymin,xmax,ymax\n0.png,banana,0,0,4,4\n')
    train, val = (d2lssd.BananasDataset(
        is_train, kind(tmp_path), classes=d2lssd.BANANA_CLASSES,
        progress=False) for is_train in (True, False))
    assert len(train) + len(val) == 3


@pytest.mark.parametrize('source', ['bananas', '/no/such/folder', None, 3])
def test_an_unknown_source_is_refused_with_the_known_ones(source):
    with pytest.raises(ValueError, match="'drawn', 'd2l' or a folder"):
        d2lssd.read_data_bananas(True, source)


@pytest.mark.parametrize('is_train', ['val', None, 2])
def test_a_split_given_by_name_is_not_taken_for_training(is_train):
    with pytest.raises(ValueError, match='is_train = '):
        d2lssd.read_data_bananas(is_train)


def test_one_item_is_a_float_picture_and_its_labels():
    dataset = d2lssd.BananasDataset(True, count=5, progress=False)
    image, label = dataset[3]
    assert (image.shape, image.dtype) == ((3, 256, 256), torch.float32)
    assert (image[0] == 3).all()
    assert torch.allclose(label, torch.tensor([[0, .03, .03, .03, .03]]))
    assert len(dataset) == 5
    with pytest.raises(IndexError):
        dataset[5]


def test_many_items_at_once_are_the_items_stacked():
    dataset = d2lssd.BananasDataset(True, count=5, progress=False)
    for several in [4, 1], torch.tensor([4, 1]), slice(1, 3):
        images, labels = dataset[several]
        numbers = range(5)[several] if several == slice(1, 3) else [4, 1]
        assert torch.equal(images, torch.stack([dataset[i][0]
                                                for i in numbers]))
        assert torch.equal(labels, torch.stack([dataset[i][1]
                                                for i in numbers]))


def test_the_data_set_works_in_anyones_loader():
    dataset = d2lssd.BananasDataset(True, count=5, progress=False)
    shapes = [images.shape[0] for images, _ in DataLoader(dataset, 2)]
    assert shapes == [2, 2, 1]


def test_batches_have_the_shapes_that_the_book_states():
    train_iter, val_iter = d2lssd.load_data_bananas(4, **COUNTS)
    images, labels = next(iter(train_iter))
    assert (images.shape, images.dtype) == ((4, 3, 256, 256), torch.float32)
    assert (labels.shape, labels.dtype) == ((4, 1, 5), torch.float32)
    assert images.is_contiguous()
    assert [len(X) for X, _ in train_iter] == [4, 4, 2]
    assert (len(train_iter), len(val_iter)) == (3, 1)
    assert (len(train_iter.dataset), len(val_iter.dataset)) == (10, 4)


def order(loader):
    return [int(number) for X, _ in loader for number in X[:, 0, 0, 0]]


def test_training_is_shuffled_anew_each_time_and_validation_never():
    train_iter, val_iter = d2lssd.load_data_bananas(4, **COUNTS)
    torch.manual_seed(1)
    first, second = order(train_iter), order(train_iter)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert order(val_iter) == order(val_iter) == [0, 1, 2, 3]


def test_the_order_follows_the_seed_of_pytorch_or_its_own():
    orders = []
    for seed, own in (3, None), (3, None), (4, 9), (5, 9):
        torch.manual_seed(seed)
        train_iter, _ = d2lssd.load_data_bananas(4, shuffle_seed=own,
                                                 **COUNTS)
        orders.append(order(train_iter))
    assert orders[0] == orders[1] != orders[2] == orders[3]


def test_pictures_and_labels_stay_together():
    train_iter, _ = d2lssd.load_data_bananas(3, **COUNTS)
    for images, labels in train_iter:
        assert torch.allclose(images[:, 0, 0, 0] / 100, labels[:, 0, 1])


def test_changing_a_batch_leaves_the_data_alone():
    train_iter, _ = d2lssd.load_data_bananas(10, **COUNTS)
    images, labels = next(iter(train_iter))
    images.fill_(1), labels.fill_(1)
    assert sorted(order(train_iter)) == list(range(10))
    assert (train_iter.dataset.labels[:, :, 0] == 0).all()


@pytest.mark.parametrize('batch_size', [0, -1, 1.5, '32', None, True])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match='batch_size = .*1 or more'):
        d2lssd.load_data_bananas(batch_size)


def test_one_count_serves_both_splits():
    train_iter, val_iter = d2lssd.load_data_bananas(np.int64(2), count=3,
                                                    progress=False)
    assert len(train_iter.dataset) == len(val_iter.dataset) == 3


def test_importing_the_data_imports_neither_pytorch_nor_pillow():
    code = ('import sys, d2lssd.data; print(d2lssd.data.BANANA_CLASSES); '
            'print(sorted({"torch", "PIL", "numpy"} & set(sys.modules)))')
    output = subprocess.run([sys.executable, '-c', code], text=True,
                            capture_output=True, check=True,
                            cwd=Path(__file__).parents[1]).stdout
    assert output == "['banana']\n[]\n"


@pytest.mark.parametrize('index', [0, slice(0, 2), [0, 1]])
def test_what_a_data_set_gives_can_be_changed_without_changing_it(index):
    pictures = d2lssd.BananasDataset(True, count=3, progress=False)
    images, labels = pictures.images.clone(), pictures.labels.clone()
    for given in pictures[index]:
        given *= 256
    assert torch.equal(pictures.images, images)
    assert torch.equal(pictures.labels, labels)
