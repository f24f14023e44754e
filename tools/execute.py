"""Run notebooks top to bottom and store their outputs.

    python tools/execute.py [NOTEBOOK ...]

Without a name it runs all of the book, in reading order. A notebook that
fails is left as it was. Each starts without trained weights of another one.
"""
import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from notebooks import (
    ROOT,
    forget_trained,
    notebook_paths,
    set_environment,
    tidy,
)

CELL_MINUTES = 15
STRAY = ('execution', 'ExecuteTime', 'collapsed', 'scrolled', 'trusted',
         'editable', 'outputId', 'id')


class ThisPython(KernelSpecManager):
    """The kernel is this interpreter, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name):
        from ipykernel.kernelspec import RESOURCES, get_kernel_dict
        return self.kernel_spec_class(resource_dir=RESOURCES,
                                      **get_kernel_dict())


def give_ids(notebook, name):
    """Every cell gets an id, once; the ones it has stay for life."""
    seen = set()
    for i, cell in enumerate(notebook.cells):
        if not cell.get('id') or cell.id in seen:
            text = f'{name} {i} {cell.source}'
            cell['id'] = hashlib.sha1(text.encode()).hexdigest()[:12]
        seen.add(cell.id)
    notebook.nbformat, notebook.nbformat_minor = 4, 5


def clean(notebook):
    """Leave nothing that tells of the machine or the hour."""
    for key in ('widgets', 'signature', 'toc', 'varInspector'):
        notebook.metadata.pop(key, None)
    notebook.metadata['kernelspec'] = {
        'display_name': 'Python 3 (ipykernel)', 'language': 'python',
        'name': 'python3'}
    notebook.metadata['language_info'] = {
        'name': 'python', 'file_extension': '.py',
        'mimetype': 'text/x-python', 'pygments_lexer': 'ipython3'}
    for cell in notebook.cells:
        for key in STRAY:
            cell.metadata.pop(key, None)
        if cell.cell_type != 'code':
            continue
        cell.outputs = tidy(cell.outputs)
        for output in cell.outputs:
            if 'metadata' in output:
                for of_type in output.metadata.values():
                    if isinstance(of_type, dict):
                        of_type.pop('needs_background', None)
                output['metadata'] = {
                    key: value for key, value in output.metadata.items()
                    if value not in ({}, None)}


def run(path):
    notebook = nbformat.read(path, as_version=4)
    give_ids(notebook, path.stem)
    forget_trained()
    manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
    client = NotebookClient(
        notebook, km=manager, timeout=60 * CELL_MINUTES,
        record_timing=False, store_widget_state=False,
        coalesce_streams=True,
        resources={'metadata': {'path': str(path.parent)}})
    start = time.monotonic()
    # What cells print comes as messages; this is the kernel's own talk.
    client.execute(stderr=subprocess.DEVNULL)
    clean(notebook)
    # Told to readers; rounded, so that it seldom changes for nothing.
    seconds = time.monotonic() - start
    notebook.metadata['running_time'] = {
        'seconds': max(5, 5 * round(seconds / 5)), 'cores': os.cpu_count()}
    nbformat.validate(notebook)
    scratch = path.with_suffix('.ipynb.tmp')
    nbformat.write(notebook, scratch)
    os.replace(scratch, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('notebook', nargs='*', type=Path)
    paths = parser.parse_args().notebook or notebook_paths()
    if sys.platform == 'win32':
        asyncio.set_event_loop_policy(
            asyncio.WindowsSelectorEventLoopPolicy())
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        set_environment(scratch)
        for path in map(Path.resolve, paths):
            name = os.path.relpath(path, ROOT)
            print(f'{name} ...', end=' ', flush=True)
            start = time.monotonic()
            try:
                run(path)
            except (CellExecutionError, CellTimeoutError, DeadKernelError,
                    OSError) as error:
                failed += 1
                print(f'failed, and is left as it was\n{error}', flush=True)
            else:
                print(f'{time.monotonic() - start:.0f} s', flush=True)
    if failed:
        raise SystemExit(f'{failed} of {len(paths)} notebooks failed')


if __name__ == '__main__':
    main()
