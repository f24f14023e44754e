"""Run the notebooks in any order, and several at once.

    python tools/shuffle.py [--seed N] [--jobs N] [NOTEBOOK ...]

Twice one after another, each time in another random order, as a reader might
who jumps about in the book; then all at once, a process for each processor.
Each is compared with its stored outputs, as by `make notebooks`, and starts
without weights that another one trained.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from notebooks import ROOT, notebook_paths

LOGS = ROOT / '_build' / 'shuffle'
HOME = LOGS / 'home'


def check(path, home, log, **settings):
    """Run a notebook and compare; return whether all is well.

    Settings are variables of the environment.
    """
    start = time.monotonic()
    with open(log, 'w', encoding='utf-8') as file:
        status = subprocess.run(
            [sys.executable, '-m', 'pytest', '-p', 'tools.nbval_book',
             '--keep-data', str(path)], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, 'D2LSSD_BOOK_HOME': str(home),
                 **settings}).returncode
    name = os.path.relpath(path, ROOT)
    word = f'failed, see {os.path.relpath(log, ROOT)}' if status else 'ok'
    print(f'  {name}: {word} ({time.monotonic() - start:.0f} s)', flush=True)
    return status == 0


def own_home(number):
    """A home with the data drawn so far, but weights of its own."""
    home = LOGS / f'home-{number}'
    home.mkdir()
    for file in HOME.glob('*.safetensors'):
        try:
            os.link(file, home / file.name)
        except OSError:  # a file system without links
            shutil.copy(file, home / file.name)
    return home


def main():
    parser = argparse.ArgumentParser(
        description='Run the notebooks in random order, twice, and at once.')
    parser.add_argument('notebook', nargs='*', type=Path,
                        help='some of them (default: all)')
    parser.add_argument('--seed', type=int, default=random.randrange(1000),
                        help='of the orders, to repeat them')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(),
                        help='notebooks at once (default: one a processor)')
    args = parser.parse_args()
    paths = [path.resolve() for path in args.notebook] or notebook_paths()
    draw = random.Random(args.seed)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    failed = 0
    for turn in 1, 2:
        print(f'In random order, time {turn} (seed {args.seed})', flush=True)
        draw.shuffle(paths)
        failed += sum(not check(path, HOME, LOGS / f'{turn}-{path.stem}.log')
                      for path in paths)
    print(f'{args.jobs} at once', flush=True)
    draw.shuffle(paths)
    # Side by side they share the cores; threads that wait are slow.
    threads = str(max(1, os.cpu_count() // args.jobs))
    with ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(
            lambda job: check(job[1], own_home(job[0]),
                              LOGS / f'3-{job[1].stem}.log',
                              OMP_NUM_THREADS=threads),
            enumerate(paths))
        failed += sum(not good for good in results)
    if failed:
        raise SystemExit(f'{failed} of {3 * len(paths)} runs failed')
    print('All were as stored.')


if __name__ == '__main__':
    main()
