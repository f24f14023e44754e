"""The package installs as one would expect, from a wheel built here."""
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ['pyproject.toml', 'README.md', 'LICENSE', 'LICENSE-text',
           'd2lssd']


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel, built in a copy so that no earlier build gets into it."""
    folder = tmp_path_factory.mktemp('wheel')
    tree = folder / 'tree'
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, tree)
    built = subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-index',
         '--no-build-isolation', '--wheel-dir', folder, tree],
        capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob('*.whl'))


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist()
                  if name.startswith('d2lssd/')}
        top = {name.split('/')[0] for name in archive.namelist()}
    there = {path.relative_to(ROOT).as_posix()
             for path in (ROOT / 'd2lssd').rglob('*')
             if path.is_file() and '__pycache__' not in path.parts}
    assert packed == there
    assert len(top) == 2, f'besides the package and its metadata: {top}'


def test_every_pinned_version_is_for_the_first_release_of_each_python():
    """Debian's Python is a 3.11.2, and pip takes a pin at its word."""
    unfit, pins = [], 0
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        name, _, version = line.partition('==')
        try:
            known = metadata.distribution(name)
        except (ValueError, metadata.PackageNotFoundError):
            continue  # a comment, or a package for another system
        assert known.version == version, line
        pins += 1
        wants = SpecifierSet(known.metadata['Requires-Python'] or '')
        unfit += [f'{line} wants {wants}' for first in (
            '3.11.0', '3.12.0', '3.13.0') if first not in wants]
    assert pins > 100
    assert not unfit


def test_the_wheel_predicts_with_the_shipped_weights(wheel, tmp_path):
    """Unpacked away from the repository, with an empty home."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    program = (
        'import d2lssd, torch\n'
        f'assert d2lssd.__file__.startswith({str(tmp_path)!r})\n'
        'net = d2lssd.load_pretrained()\n'
        'rows = d2lssd.predict(torch.zeros(1, 3, 256, 256), net)\n'
        'assert rows.shape[-1] == 6, rows.shape\n')
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / 'site'),
                       D2LSSD_HOME=str(tmp_path / 'home'))
    ran = subprocess.run([sys.executable, '-c', program], cwd=tmp_path,
                         env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_requirements_and_package_ask_for_the_same():
    """requirements.txt repeats the package's ranges and adds the book's."""
    lines = [re.sub(r'\s*#.*', '', line) for line in
             (ROOT / 'requirements.txt').read_text('utf-8').splitlines()]
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))
    asked = project['project']['dependencies']
    assert set(asked) <= set(lines)
    assert set(project['build-system']['requires']) <= set(lines)


def test_every_requirement_is_held_to_one_version():
    def plain(name):
        return re.sub(r'[-_.]+', '-', name).lower()
    held = {plain(line.split('==')[0]) for line in
            (ROOT / 'constraints.txt').read_text('utf-8').splitlines()
            if '==' in line}
    asked = {plain(re.split(r'[<>=!~\s]', line)[0]) for line in
             (ROOT / 'requirements.txt').read_text('utf-8').splitlines()
             if line and not line.startswith('#')}
    assert asked <= held
