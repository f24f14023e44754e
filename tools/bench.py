"""Measure the package beside the reference library, and write it down.

    python tools/bench.py [WORK ...] [--rounds N] [--list]

The reference is `d2l`, the library of *Dive into Deep Learning*, with the
training and prediction loops of its SSD section; it is installed into
_build/bench, away from the book's own environment. Every measurement is a
process of its own, the two sides take turns, and what counts is the median of
all rounds. Results go to book/_data/bench.json, beside those of other
machines, from where the chapter on speed reads them, and as a table and a
plot to _build/bench.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from notebooks import BOOK

ROOT = BOOK.parent
RECORD = BOOK / '_data' / 'bench.json'
FOLDER = ROOT / '_build' / 'bench'
REFERENCE = ['d2l==1.0.3', 'pandas>=3']  # what d2l imports and we do not have
BATCH = 32
# What training gained, in the order in which it was done.
STEPS = ['reference', 'targets', 'bfloat16', 'channels last', 'memory kept']
SIDES = ['reference', 'd2lssd']
SAME_MACHINE = 'processor', 'cores', 'bfloat16', 'system', 'gpu'


# What one process measures: each returns numbers by name, times in seconds.

def times_of(*functions, least=2.0, most=40):
    """Seconds of calls that take turns, a row each: many, at least three."""
    rows = []
    for function in functions:
        function()
    while len(rows) < 3 or (sum(map(sum, rows)) < least and len(rows) < most):
        rows.append([])
        for function in functions:
            start = time.perf_counter()
            function()
            rows[-1].append(time.perf_counter() - start)
    return rows


def timed(function):
    """Median seconds of a call."""
    return statistics.median(row[0] for row in times_of(function))


def reference():
    """The reference library, and a TinySSD whose anchors it makes."""
    sys.path.append(str(FOLDER / 'site'))
    import torch
    from d2l import torch as d2l

    import d2lssd

    class Net(d2lssd.TinySSD):
        def forward(self, X):
            parts = []
            for i in range(5):
                X = getattr(self, f'blk_{i}')(X)
                parts.append((
                    d2l.multibox_prior(X, d2lssd.sizes[i], d2lssd.ratios[i]),
                    getattr(self, f'cls_{i}')(X),
                    getattr(self, f'bbox_{i}')(X)))
            anchors, cls_preds, bbox_preds = zip(*parts)
            cls_preds = d2lssd.concat_preds(cls_preds)
            return (torch.cat(anchors, 1),
                    cls_preds.reshape(len(X), -1, self.num_classes + 1),
                    d2lssd.concat_preds(bbox_preds))
    return d2l, Net


def some_boxes(m):
    """Anchors of TinySSD, and labels with m boxes an image."""
    import torch

    import d2lssd
    anchors = torch.cat([
        d2lssd.multibox_prior(torch.zeros(n, n), size, ratio) for
        n, size, ratio in zip((32, 16, 8, 4, 1), d2lssd.sizes,
                              d2lssd.ratios)], 1)
    generator = torch.Generator().manual_seed(m)
    corner = 0.6 * torch.rand(BATCH, m, 2, generator=generator)
    side = 0.1 + 0.3 * torch.rand(BATCH, m, 2, generator=generator)
    return anchors, torch.cat([torch.zeros(BATCH, m, 1), corner,
                               corner + side], 2)


def targets(side, m):
    import d2lssd
    library = reference()[0] if side == 'reference' else d2lssd
    anchors, labels = some_boxes(m)
    return {'seconds': timed(lambda: library.multibox_target(anchors, labels))}


def detection(side, images):
    import torch

    import d2lssd
    library = reference()[0] if side == 'reference' else d2lssd
    anchors, _ = some_boxes(1)
    generator = torch.Generator().manual_seed(images)
    A = anchors.shape[1]
    probs = torch.rand(images, 2, A, generator=generator).softmax(1)
    offsets = torch.randn(images, 4 * A, generator=generator)
    return {'seconds': timed(
        lambda: library.multibox_detection(probs, offsets, anchors))}


def prediction(side):
    """From a picture file of 256×256 pixels to boxes with a score above 0.5,
    by the weights of the source's recipe."""
    import torch
    import torchvision
    from PIL import Image

    import d2lssd
    net = d2lssd.load_pretrained('source')
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'picture.png')
        Image.fromarray(d2lssd.draw_scene('val', 0)[0]).save(path)
        if side == 'd2lssd':
            X, _ = d2lssd.read_image(path)
            with torch.no_grad():
                rows = times_of(lambda: d2lssd.detect(path, net, tiles=False),
                                lambda: net(X))
            return {'seconds': statistics.median(row[0] for row in rows),
                    'outside the network': statistics.median(
                        1 - alone / whole for whole, alone in rows)}
        d2l, Net = reference()
        other = Net(num_classes=1)
        other.load_state_dict(net.state_dict())

        def predict():
            X = torchvision.io.read_image(path).unsqueeze(0).float()
            other.eval()
            anchors, cls_preds, bbox_preds = other(X)
            output = d2l.multibox_detection(
                cls_preds.softmax(2).permute(0, 2, 1), bbox_preds, anchors)
            return [row for row in output[0] if row[0] != -1 and row[1] > 0.5]
        return {'seconds': timed(predict)}


def minibatches(count):
    """Drawn pictures, as float minibatches that are made when asked for."""
    from torch.utils.data import DataLoader

    import d2lssd
    pictures = d2lssd.BananasDataset(True, count=count, progress=False)
    return DataLoader(pictures, BATCH, shuffle=True)


def listing(steps, device, count=6):
    """Steps of the source's training loop, with some changes; give seconds of
    the later ones."""
    import torch

    import d2lssd
    from d2lssd.memory import keep_memory
    from d2lssd.training import autocast
    torch.manual_seed(0)
    d2l, Net = reference()
    own = 'targets' in steps
    net = (d2lssd.TinySSD if own else Net)(num_classes=1).to(device)
    multibox_target = (d2lssd if own else d2l).multibox_target
    layout = torch.contiguous_format
    if 'channels last' in steps:
        layout = torch.channels_last
        net.to(memory_format=layout)
    if 'memory kept' in steps:
        keep_memory()
    trainer = torch.optim.SGD(net.parameters(), lr=0.2, weight_decay=5e-4)
    metric = d2lssd.Accumulator(4)
    net.train()
    times = []
    for X, Y in minibatches(BATCH * count):
        start = time.perf_counter()
        trainer.zero_grad()
        X, Y = X.to(device, memory_format=layout), Y.to(device)
        with (autocast(device) if 'bfloat16' in steps
              else torch.autocast(device.type, enabled=False)):
            anchors, cls_preds, bbox_preds = net(X)
        cls_preds, bbox_preds = cls_preds.float(), bbox_preds.float()
        bbox_labels, bbox_masks, cls_labels = multibox_target(anchors, Y)
        loss = d2lssd.calc_loss(cls_preds, cls_labels, bbox_preds,
                                bbox_labels, bbox_masks)
        loss.mean().backward()
        trainer.step()
        metric.add(d2lssd.cls_eval(cls_preds, cls_labels), cls_labels.numel(),
                   d2lssd.bbox_eval(bbox_preds, bbox_labels, bbox_masks),
                   bbox_labels.numel())
        if device.type == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def training(side, device=None):
    """Pictures a second. The package runs two epochs of its own `train`, and
    the second one counts."""
    import torch

    from d2lssd.training import train
    device = torch.device(device or 'cpu')
    if side == 'd2lssd':
        count = 12 * BATCH
        _, history = train('source', num_epochs=2, num_pictures=count,
                           device=device, progress=False)
        return {'pictures/s': count / history[-1]['seconds']}
    steps = STEPS[:STEPS.index(side) + 1]
    return {'pictures/s': BATCH / listing(steps, device)}


def memory(side, short=False):
    """Greatest memory of a process that trains: the package with all its
    pictures, 1000 and 100, the reference with no more than it is given; or
    the package as on a machine that is short of memory."""
    import torch

    import d2lssd
    from d2lssd import memory, training
    if short:
        memory._free_memory = lambda: 0
    if side == 'd2lssd':
        training.train('source', num_epochs=1, progress=False)
        d2lssd.read_data_bananas(False)
    else:
        listing([], torch.device('cpu'), 5)
    return {'bytes': peak()}


def peak():
    """Greatest memory of this process, in bytes."""
    if sys.platform == 'linux':  # ru_maxrss counts who started it, too
        status = Path('/proc/self/status').read_text()
        return 1024 * int(status.partition('VmHWM:')[2].split()[0])
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def importing(side):
    """The package imports a module when a name of it is first used; hence
    also the time until all names have been."""
    import torch  # noqa: F401
    start = time.perf_counter()
    if side == 'reference':
        reference()
        return {'seconds': time.perf_counter() - start}
    import d2lssd
    seconds = {'seconds': time.perf_counter() - start}
    for name in d2lssd.__all__:
        getattr(d2lssd, name)
    return {**seconds, 'all names': time.perf_counter() - start}


def drawing(side):
    import torch  # noqa: F401 - its import is measured by itself

    import d2lssd
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ['D2LSSD_HOME'] = folder
        for name in 'seconds', 'read back':
            start = time.perf_counter()
            for is_train in True, False:
                d2lssd.read_data_bananas(is_train, progress=False)
            seconds[name] = time.perf_counter() - start
    return seconds


def profile(side):
    """Where the time of a training step goes: shares by operator."""
    import torch
    from torch.profiler import ProfilerActivity
    steps = [] if side == 'reference' else STEPS[1:]
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        listing(steps, torch.device('cpu'), 4)
    times = {event.key.removeprefix('aten::'): event.self_cpu_time_total
             for event in found.key_averages()}
    whole = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)[:8]
    return {name: times[name] / whole for name in largest}


BOTH, OURS = SIDES, ['d2lssd']
WORKS = {  # name: what runs, with what, for which sides, and what to compare
    'training': (training, (), [*STEPS, 'd2lssd'], 'pictures/s'),
    'memory of training': (memory, (), BOTH, 'bytes'),
    'memory where it is short': (memory, (True,), OURS, 'bytes'),
    'targets, 1 box an image': (targets, (1,), BOTH, 'seconds'),
    'targets, 5 boxes an image': (targets, (5,), BOTH, 'seconds'),
    'targets, 20 boxes an image': (targets, (20,), BOTH, 'seconds'),
    'detection, 32 images': (detection, (32,), BOTH, 'seconds'),
    'detection, 1 image': (detection, (1,), BOTH, 'seconds'),
    'prediction, picture to boxes': (prediction, (), BOTH, 'seconds'),
    'import, beyond torch': (importing, (), BOTH, 'seconds'),
    'drawing 1100 pictures': (drawing, (), OURS, 'seconds'),
    'profile of a training step': (profile, (), BOTH, None),
    'training on a GPU': (training, ('cuda',), BOTH, 'pictures/s'),
}
ONCE = {'memory of training', 'memory where it is short',
        'profile of a training step'}  # hardly varies


# The parent process.

def measure(work, side):
    """Run one measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), '--run', work, side],
        capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f'bench: {work}, {side}:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def install_reference():
    """The reference library, without its dependencies, into _build/bench."""
    site = FOLDER / 'site'
    if (site / 'd2l').exists():
        return
    print(f'Installing {" and ".join(REFERENCE)} into {site}', flush=True)
    done = subprocess.run([
        sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
        '--disable-pip-version-check', '--target', site, *REFERENCE])
    if done.returncode:
        raise SystemExit('bench: pip could not fetch the reference library; '
                         'is the Python package index within reach?')


def machine():
    """What the numbers were measured on."""
    import torch

    from d2lssd.training import _has_bfloat16_units
    name = platform.processor() or platform.machine()
    memory = None
    if sys.platform == 'linux':
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.partition(': ')[2]
                break
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    facts = {'processor': name, 'cores': len(os.sched_getaffinity(0))
             if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
             'bfloat16': _has_bfloat16_units(),
             'threads': torch.get_num_threads(), 'memory': memory,
             'system': platform.system(), 'python':
             platform.python_version(), 'torch': torch.__version__}
    if torch.cuda.is_available():
        facts['gpu'] = torch.cuda.get_device_name()
    return facts


def record_of(facts, records):
    """The record of a machine; a new one, last in the list, if there is none.

    What is installed may change; then all is the same machine still."""
    for record in records:
        if all(record['machine'].get(fact) == facts.get(fact)
               for fact in SAME_MACHINE):
            return record
    records.append({'works': {}, 'commits': {}})
    return records[-1]


def named(facts):
    """A machine in words."""
    return (f'{facts["cores"]} cores of {facts["processor"]}, '
            f'with{"" if facts["bfloat16"] else "out"} units for bfloat16')


def commit():
    """The commit that is measured; with + if files differ from it."""
    def git(*words):
        return subprocess.run(['git', *words], cwd=ROOT, text=True,
                              capture_output=True).stdout.strip()
    changed = git('status', '--porcelain', '--', 'd2lssd', 'tools/bench.py')
    return git('rev-parse', 'HEAD') + '+' * bool(changed)


def summary(rounds):
    """Median of each number over the rounds, and all of them."""
    return {name: {'median': rounded(statistics.median(
        row[name] for row in rounds)),
        'all': [rounded(row[name]) for row in rounds]}
        for name in rounds[0] if all(name in row for row in rounds)}


def rounded(value):
    return float(f'{value:.4g}')


def ratio(work, sides):
    """How many times better than the reference; None without one."""
    key = WORKS[work][3]
    if key is None or 'reference' not in sides:
        return None
    ours, theirs = (sides[side][key]['median']
                    for side in ('d2lssd', 'reference'))
    return ours / theirs if key == 'pictures/s' else theirs / ours


def bench(works, rounds):
    """Measure some works; return a result for each."""
    results = {work: {side: [] for side in WORKS[work][2]} for work in works}
    for i in range(rounds):
        for work, sides in results.items():
            for side, rows in sides.items():
                if i and work in ONCE:
                    continue
                print(f'round {i + 1} of {rounds}: {work}, {side}',
                      flush=True)
                rows.append(measure(work, side))
    return {work: {side: summary(rows) for side, rows in sides.items()}
            for work, sides in results.items()}


UNITS = {'seconds': (1e3, 'ms'), 'read back': (1e3, 'ms'),
         'bytes': (1e-9, 'GB'), 'pictures/s': (1, 'pictures/s')}


def cell(numbers, key):
    factor, unit = UNITS[key]
    number = float(f'{numbers[key]["median"] * factor:.3g}')
    return f'{number:g} {unit}'


def table(works):
    """The results as Markdown."""
    lines = ['| work | reference | d2lssd | ratio |', '|---|--:|--:|--:|']
    for work, sides in works.items():
        key = WORKS[work][3]
        if key is None:
            continue
        cells = [cell(sides[side], key) if side in sides else '–'
                 for side in SIDES]
        times = ratio(work, sides)
        lines.append(f'| {work} | {cells[0]} | {cells[1]} | '
                     + (f'{times:.1f}× |' if times else '– |'))
        if 'read back' in sides['d2lssd']:
            lines.append('| reading them back | – | '
                         f'{cell(sides["d2lssd"], "read back")} | – |')
    return '\n'.join(lines)


def plot(works, path):
    """Bars of the ratios."""
    from d2lssd.plotting import plt
    ratios = {work: ratio(work, sides) for work, sides in works.items()}
    ratios = {work: value for work, value in ratios.items() if value}
    if not ratios:
        return
    plt.figure(figsize=(7, 0.4 * len(ratios) + 1))
    bars = plt.barh(list(ratios), list(ratios.values()))
    plt.bar_label(bars, [f' {value:.1f}×' for value in ratios.values()])
    plt.gca().invert_yaxis()
    plt.xscale('log')
    plt.axvline(1, color='gray')
    plt.xlabel('times as good as the reference')
    plt.margins(x=0.2)
    plt.savefig(path, dpi=110, bbox_inches='tight')
    plt.close()


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog='Close all else first: '
        'what runs beside it is measured, too.')
    parser.add_argument('works', nargs='*', metavar='WORK',
                        help='only these; the others keep what is recorded')
    parser.add_argument('--rounds', type=int, default=3, metavar='N',
                        help='(default: %(default)s)')
    parser.add_argument('--list', action='store_true',
                        help='print the works, and the record of each machine')
    parser.add_argument('--run', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f'--rounds {args.rounds}: at least 1 is needed')
    if unknown := [work for work in args.works if work not in WORKS]:
        parser.error(f'no work {", ".join(map(repr, unknown))}; there are '
                     + ', '.join(map(repr, WORKS)))
    return args


def read_records():
    """What was measured: a record for each machine."""
    try:
        return json.loads(RECORD.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return []


def main(argv=None):
    args = parse(argv)
    if args.run:
        work, side = args.run
        function, arguments = WORKS[work][:2]
        print(json.dumps(function(side, *arguments)))
        return
    records = read_records()
    if args.list:
        print('\n'.join(WORKS))
        for record in records:
            print(f'\n{named(record["machine"])}, {record["date"]}\n\n'
                  + table(record['works']))
        return
    import torch

    from d2lssd.data.files import replacing
    works = args.works or [
        work for work in WORKS
        if torch.cuda.is_available() or 'GPU' not in work
        if sys.platform != 'win32' or 'memory' not in work]
    install_reference()
    results = bench(works, args.rounds)
    facts = machine()
    record = record_of(facts, records)
    merged = {**record['works'], **results}
    record.update({
        'machine': facts, 'date': f'{datetime.date.today()}',
        'commits': {**record['commits'], **dict.fromkeys(results, commit())},
        'works': {work: merged[work] for work in WORKS if work in merged}})
    with replacing(RECORD) as temporary:
        temporary.write_text(
            json.dumps(records, indent=1, ensure_ascii=False) + '\n', 'utf-8')
    text = table(record['works'])
    (FOLDER / 'bench.md').write_text(text + '\n', encoding='utf-8')
    plot(record['works'], FOLDER / 'bench.png')
    print(f'\n{named(facts)}\n\n{text}\n\nwritten to '
          f'{RECORD.relative_to(ROOT)}, and with a plot to '
          f'{FOLDER.relative_to(ROOT)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped; nothing was recorded.')
