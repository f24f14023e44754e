"""What each process of `test_distributed.py` does; torchrun starts it.

    torchrun --nproc-per-node=2 distributed_worker.py FOLDER
"""
import sys

import numpy as np
import torch

import d2lssd
from d2lssd import distributed, training
from d2lssd.data.files import load_state, save_state

PICTURES = 10


def pictures():
    """Ten small noisy pictures, each with one to three boxes."""
    rng = torch.Generator().manual_seed(3)
    images = torch.randint(256, (PICTURES, 3, 128, 128), generator=rng,
                           dtype=torch.uint8)
    corners = torch.rand(PICTURES, 3, 2, generator=rng) / 2
    sides = 0.1 + torch.rand(PICTURES, 3, 2, generator=rng) / 3
    boxes = torch.cat([corners, corners + sides], 2)
    labels = torch.cat([torch.zeros(PICTURES, 3, 1), boxes], 2)
    for i in range(PICTURES):
        labels[i, 1 + i % 3:] = -1
    return images, labels


def prepare():
    """Let one process and two add up the same numbers."""
    torch.set_num_threads(1)
    training.read_pictures = lambda *args: pictures()
    # Rounded to bfloat16, another order of a sum is another number.
    training.autocast = lambda *args: torch.autocast('cpu', enabled=False)


def first_gradient(**changes):
    """Gradients and state after a step on all ten pictures.

    In double precision: rounding may else choose another maximum to pool.
    """
    torch.manual_seed(0)
    net = d2lssd.TinySSD(1).double()
    enlarge, training.enlarge = training.enlarge, lambda X, side: X.double()
    try:
        history = training.train(
            'source', net, num_epochs=1, batch_size=PICTURES, progress=False,
            device=torch.device('cpu'), **changes)[1]
    finally:
        training.enlarge = enlarge
    return {'gradient': {name: p.grad for name, p in net.named_parameters()},
            'state': net.state_dict(), 'loss': history[0]['loss']}


def whole_run(**changes):
    """State and history after two epochs of minibatches of 5, 5."""
    net, history = training.train(
        'balanced', pictures='plain', num_epochs=2, batch_size=5, average=0.9,
        progress=False, device=torch.device('cpu'), **changes)
    return {'state': net.state_dict(), 'history': history}


def stored_numbers():
    """Which stored pictures this process reads, minibatch by minibatch."""
    numbers = torch.arange(PICTURES)
    recipe = training.find_recipe('source', num_epochs=2, batch_size=4)
    return [[Y.tolist() for _, Y in epoch] for epoch in training.batches(
        recipe, pictures=(torch.zeros(PICTURES, 1), numbers))]


def fresh_numbers():
    """Which pictures it draws: none twice."""
    asked = []

    def draw_chunks(indices, recipe, share):
        asked.extend(indices)
        yield np.zeros((len(indices), 1)), [np.zeros((0, 4))] * len(indices)

    training.EPOCH = 12
    training.draw_chunks = draw_chunks
    recipe = training.find_recipe('balanced', num_epochs=2, batch_size=4)
    read_pictures, training.read_pictures = training.read_pictures, (
        lambda *args: None)
    try:
        for epoch in training.batches(recipe):
            list(epoch)
    finally:
        training.read_pictures = read_pictures
    return asked


def measured():
    """The first process measures a perfect detector; the other does not."""
    if distributed.rank() == 0:
        labels = list(pictures()[1][:, :1])
        rows = [torch.cat([each[:, :1], torch.ones(1, 1), each[:, 1:]], 1)
                for each in labels]
        result = d2lssd.average_precision(rows, labels)
        return float(result['AP'])


def strangers(folder):
    """Each process goes on from a checkpoint of its own."""
    with distributed.one_goes_first():  # who has written it by now
        state = load_state(f'{folder}/run.checkpoint', training.CHECKPOINT)
    next(iter(state['parts']['net'].values())).add_(distributed.rank())
    own = f'{folder}/{distributed.rank()}.checkpoint'
    save_state(own, state, training.CHECKPOINT)
    try:
        whole_run(checkpoint=own)
    except ValueError as error:
        return str(error)


def refusal():
    try:
        distributed.check_share(3, PICTURES)
    except ValueError as error:
        return str(error)


def main():
    prepare()
    distributed.join()
    results = {
        'world_size': distributed.world_size(), 'refusal': refusal(),
        'stored': stored_numbers(), 'fresh': fresh_numbers(),
        'measured': measured(), 'mean': first_gradient(loss='mean'),
        'balanced': first_gradient(loss='balanced'),
        'whole': whole_run(checkpoint=f'{sys.argv[1]}/run.checkpoint'),
        'strangers': strangers(sys.argv[1])}
    torch.save(results, f'{sys.argv[1]}/{distributed.rank()}.pt')


if __name__ == '__main__':
    main()
