"""Build the pages into _build/html; every warning is an error.

    python tools/build.py
"""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from demo import make_demo
from notebooks import ROOT

PAGES = ROOT / '_build' / 'html'


def main():
    print('== pages, from the stored outputs (about a minute)', flush=True)
    start = time.monotonic()
    # Always from nothing: Sphinx repeats no warning of a page it has read,
    # so a second try would pass.
    for folder in (PAGES, ROOT / '_build' / '.doctrees',
                   ROOT / '_build' / '.jupyter_cache'):
        shutil.rmtree(folder, ignore_errors=True)
    program = Path(sys.executable).with_name('jupyter-book')
    result = subprocess.run(
        [program, 'build', '-q', '-W', '-n', '--keep-going', '--all', '.'],
        cwd=ROOT, env=dict(os.environ, PYTHONWARNINGS='ignore'),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        print(result.stdout)
        raise SystemExit('The pages were not built: each WARNING or ERROR '
                         'above is to be mended.')
    make_demo(PAGES / '_static' / 'demo')
    print(f'Built in {time.monotonic() - start:.0f} s. Open\n'
          f'  {(PAGES / "index.html").as_uri()}')


if __name__ == '__main__':
    main()
