"""What all tests share: no network, no user's files, no window."""
import collections
import os
import socket

# Before anything imports matplotlib.
os.environ['MPLBACKEND'] = 'agg'
if 'PYTEST_XDIST_WORKER' in os.environ:
    # One process a core: threads that wait for each other are slow.
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A slow machine is no failure, and CI draws the same inputs each time.
settings.register_profile('here', deadline=None)
settings.register_profile('ci', deadline=None, derandomize=True)
settings.load_profile('ci' if os.environ.get('CI') else 'here')


# Begun first, so that no process is left alone with one of them at the end.
LONG = ('test_weights.py', 'test_assignment.py', 'test_training.py',
        'test_training_faults.py', 'test_distributed.py')


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))
    for item in items:  # goes with the report, to whichever process prints it
        item.user_properties += [('fault', mark.args[0]) for mark
                                 in item.iter_markers('fault')]


def pytest_terminal_summary(terminalreporter):
    """List the faults that were caused on purpose, and how often it went well.
    """
    faults = collections.defaultdict(collections.Counter)
    for outcome in 'passed', 'failed', 'error', 'skipped':
        for report in terminalreporter.stats.get(outcome, []):
            for key, fault in getattr(report, 'user_properties', []):
                if key == 'fault':
                    faults[fault][outcome] += 1
    if not faults:
        return
    terminalreporter.section('faults caused on purpose')
    for fault, outcomes in sorted(faults.items()):
        counts = ', '.join(f'{n} {outcome}'
                           for outcome, n in outcomes.items())
        terminalreporter.line(f'{fault}: {counts}')


@pytest.fixture(autouse=True, scope='session')
def _own_home(tmp_path_factory):
    """Tests that need a cache folder share a new one; subprocesses too."""
    before = os.environ.get('D2LSSD_HOME')
    os.environ['D2LSSD_HOME'] = str(tmp_path_factory.mktemp('home'))
    yield
    if before is None:
        del os.environ['D2LSSD_HOME']
    else:
        os.environ['D2LSSD_HOME'] = before


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """A test may talk to this machine only."""
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else 'localhost'
        if host not in ('localhost', '127.0.0.1', '::1'):
            raise OSError(f'a test tried to reach {host}')
        return connect(self, address)
    monkeypatch.setattr(socket.socket, 'connect', local_only)


@pytest.fixture(autouse=True)
def _figures_closed():
    yield
    import matplotlib.pyplot as plt
    plt.close('all')
