"""Make the environment in .venv, once: python3 tools/environment.py

Runs on the machine's own Python, so it uses the standard library only. It
does nothing when .venv already holds what the requirements ask for.
"""
import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
STAMP = VENV / 'd2lssd-installed'
LOG = VENV / 'install.log'
ASKED_FOR = ['requirements.txt', 'constraints.txt', 'pyproject.toml']
OLDEST, NEWEST = (3, 11), (3, 13)

# What pip writes -> what went wrong, and what to do about it.
TROUBLES = [
    ('No space left on device|Errno 28|Disk quota exceeded',
     'The disk is full. Make room, or clone the repository to a larger '
     'disk, and run the command again.'),
    ('Failed to establish a new connection|NameResolutionError'
     '|Temporary failure in name resolution|Network is unreachable'
     '|ConnectTimeout|Read timed out|ProxyError|Connection broken',
     'The Python package index (pypi.org) did not answer. Check the network '
     '(behind a proxy, set HTTPS_PROXY) and run the command again; what has '
     'arrived is kept.'),
    ('No matching distribution found|Could not find a version',
     'The package index has no such version for this machine (system, '
     'processor, Python). constraints.txt holds the versions last tested: '
     'take the line of that package out of it to get the nearest one.'),
    ('ResolutionImpossible',
     'A version in constraints.txt is not for this Python '
     f'({platform.python_version()}). Take the line of the package that "The '
     'user requested (constraint)" names in .venv/install.log out of it, or '
     'name another Python: make book PYTHON=python3.13'),
    ('Permission denied',
     'A file could not be written. Does the folder belong to you?'),
]


def stop(*lines):
    print('\n'.join(('',) + lines), file=sys.stderr)
    raise SystemExit(1)


def dotted(version):
    return '.'.join(str(part) for part in version[:2])


def minutes(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def venv_python():
    folder = 'Scripts' if os.name == 'nt' else 'bin'
    return VENV / folder / ('python.exe' if os.name == 'nt' else 'python')


def venv_version():
    """The Python version of .venv, such as (3, 11), or None; also None if it
    was made elsewhere, for its programs name their Python by its path."""
    try:
        text = (VENV / 'pyvenv.cfg').read_text(encoding='utf-8')
    except OSError:
        return None
    found = re.search(r'^version\w* = (\d+)\.(\d+)', text, re.M)
    made = re.search(r'^command = .* -m venv (.*)$', text, re.M)
    moved = made is not None and not made.group(1).endswith(str(VENV))
    if found is None or moved or not venv_python().exists():
        return None
    return int(found.group(1)), int(found.group(2))


def fingerprint(version):
    digest = hashlib.sha256(dotted(version).encode())
    for name in ASKED_FOR:
        digest.update((ROOT / name).read_bytes())
    # An editable install points at this folder, so a moved one is redone.
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def check_python():
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        stop(f'Python {dotted(OLDEST)} to {dotted(NEWEST)} is needed; '
             f'{sys.executable} is {platform.python_version()}.',
             'If another one is installed, name it: '
             f'make book PYTHON=python{dotted(NEWEST)}')
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop('This Python cannot make virtual environments: its venv module '
             'is not installed.',
             'On Debian or Ubuntu: '
             f'sudo apt install python{dotted(sys.version_info)}-venv')


def check_room(new):
    # PyTorch, once it is there, is hardly ever fetched again.
    if not new and any(VENV.glob('[Ll]ib/**/site-packages/torch')):
        return
    # PyTorch for Linux brings the CUDA libraries along, unless it is asked for
    # from an index that has it without.
    large = (sys.platform == 'linux' and platform.machine() == 'x86_64'
             and '/whl/cpu' not in os.environ.get('PIP_ARGS', ''))
    needed = 11 if large else 4
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < needed:
        stop(f'{free:.1f} GB are free where this folder is; installing needs '
             f'about {needed} GB for a while.',
             'Make room, or clone the repository to a larger disk.',
             *['PyTorch without CUDA takes far less; README.md says how to '
               'get it.'] * large)


class Progress:
    """One line that is kept up to date; on no terminal, one now and then."""

    def __init__(self):
        self.start = time.monotonic()
        self.live = sys.stdout.isatty()
        self.text = 'starting'
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.tick, daemon=True)
        self.thread.start()

    def tick(self):
        while not self.over.wait(0.5 if self.live else 30):
            line = f'  {minutes(time.monotonic() - self.start)}  {self.text}'
            if self.live:
                width = shutil.get_terminal_size().columns - 1
                print('\r\033[K' + line[:width], end='', flush=True)
            else:
                print(line[:79], flush=True)

    def done(self, text):
        self.over.set()
        self.thread.join()
        print(('\r\033[K' if self.live else '') + text, flush=True)


def pip(*arguments, progress):
    """Run pip, with all that it says in the log; stop if it fails."""
    command = [str(venv_python()), '-m', 'pip', '--no-input',
               '--disable-pip-version-check', *arguments]
    # Wheels are unpacked here too: /tmp is a small RAM disk on some systems.
    scratch = VENV / 'tmp'
    scratch.mkdir(exist_ok=True)
    environment = dict(os.environ, TMPDIR=str(scratch))
    output = []
    with open(str(LOG), 'a', encoding='utf-8') as log:
        process = subprocess.Popen(
            command, cwd=str(ROOT), env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding='utf-8', errors='replace')
        for line in process.stdout:
            log.write(line)
            output.append(line)
            step = re.match(r'\s*(Collecting|Downloading|Building|Installing)'
                            r'\s+([^\s,(]+)', line)
            if step:
                word, what = step.groups()
                if word == 'Installing':
                    what = 'everything that has arrived'
                progress.text = f'{word.lower()} {what}'
        process.wait()
    shutil.rmtree(str(scratch), ignore_errors=True)
    if process.returncode:
        progress.done('')
        text = ''.join(output)
        errors = [line for line in output if line.startswith('ERROR')]
        advice = [words for pattern, words in TROUBLES
                  if re.search(pattern, text)]
        stop(*[line.rstrip()[:300] for line in errors[-3:] or output[-5:]],
             advice[0] if advice else 'pip could not finish.',
             f'All that pip said is in {LOG.relative_to(ROOT)}')


def make(version):
    new = venv_version() != version
    check_room(new)
    if new:
        print(f'Making .venv with Python {dotted(version)}', flush=True)
        subprocess.run([sys.executable, '-m', 'venv', '--clear', str(VENV)],
                       check=True)
    print('Installing what requirements.txt asks for (once; 3 to 15 minutes, '
          'by the network)', flush=True)
    STAMP.unlink(missing_ok=True)
    LOG.unlink(missing_ok=True)
    progress = Progress()
    pip('install', '-r', 'requirements.txt', '-c', 'constraints.txt',
        *os.environ.get('PIP_ARGS', '').split(), progress=progress)
    pip('install', '--no-deps', '--no-build-isolation', '--editable', '.',
        progress=progress)
    STAMP.write_text(fingerprint(version) + '\n', encoding='utf-8')
    took = minutes(time.monotonic() - progress.start)
    progress.done(f'Environment ready in .venv after {took} minutes')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--keep', action='store_true',
        help='keep a .venv of another supported Python version')
    keep = parser.parse_args().keep
    version = venv_version()
    if keep and version is not None and OLDEST <= version <= NEWEST:
        wanted = version
    else:
        check_python()
        wanted = tuple(sys.version_info[:2])
    try:
        installed = STAMP.read_text(encoding='utf-8').strip()
    except OSError:
        installed = None
    if version != wanted or installed != fingerprint(wanted):
        make(wanted)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        stop('Interrupted. The same command goes on from here.')
