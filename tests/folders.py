"""What the tests of both formats of one's own pictures share."""
import pytest
import torch

from d2lssd.data.folder import check_folder, read_folder


def read_all(folder, **options):
    """Both splits of a folder, as one."""
    parts = [read_folder(folder, split, progress=False, **options)
             for split in ('train', 'val')]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def problem_of(folder, **options):
    """The one problem of a folder, which reading must report too."""
    problems = check_folder(folder, **options)
    assert len(problems) == 1, problems
    with pytest.raises(ValueError, match='1 problem') as caught:
        read_all(folder, **options)
    assert str(problems[0]) in str(caught.value)
    return problems[0]


def assert_read_or_refused(folder, file, data):
    """Two pictures whose annotations are any bytes: a ValueError that the
    check foretells, or boxes that lie inside the pictures."""
    (folder / file).write_bytes(data)
    problems = check_folder(folder)
    try:
        images, labels = read_all(folder)
    except ValueError:
        assert problems
        return
    assert problems == []
    assert len(images) == 2
    boxes = labels[labels[:, :, 0] >= 0][:, 1:]
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
