"""The book runs elsewhere and is published by a push: the files for that."""
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import colab  # noqa: E402
import notebooks  # noqa: E402
import pages  # noqa: E402

WORKFLOW = ROOT / '.github' / 'workflows' / 'book.yml'
BINDER = ROOT / 'binder'


# The workflow

@pytest.fixture(scope='module')
def workflow():
    text = WORKFLOW.read_text(encoding='utf-8')
    # YAML 1.1 takes the word "on" for true.
    return yaml.safe_load(re.sub(r'^on:', "'on':", text, flags=re.M))


def steps(workflow):
    return [step for job in workflow['jobs'].values()
            for step in job['steps']]


def test_a_push_checks_and_then_publishes(workflow):
    assert workflow['on']['push']['branches'] == [pages.repository()[1]]
    assert 'pull_request' in workflow['on']
    assert workflow['jobs']['publish']['needs'] == 'check'
    used = [step.get('uses', '') for step in
            workflow['jobs']['publish']['steps']]
    assert any(name.startswith('actions/deploy-pages@') for name in used)
    rights = workflow['jobs']['publish']['permissions']
    assert rights['pages'] == rights['id-token'] == 'write'
    # A change from a stranger's copy must not be able to write.
    assert workflow['permissions'] == {'contents': 'read'}


def test_the_workflow_calls_only_what_is_there(workflow):
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(),
                             re.M))
    called = []
    for step in steps(workflow):
        for line in step.get('run', '').splitlines():
            word, *rest = line.split()
            if word == 'make':
                called.append(rest[0])
                assert rest[0] in targets, line
            elif '/' in word:
                assert os.access(ROOT / word, os.X_OK), line
        if 'uses' in step:
            assert re.fullmatch(r'actions/[\w-]+@v\d+', step['uses'])
    assert {'test', 'book', 'pdf', 'colab'} <= set(called)


def test_the_workflow_keeps_what_is_slow_to_fetch(workflow):
    kept = [step for step in steps(workflow)
            if step.get('with', {}).get('cache') == 'pip']
    assert len(kept) == len(workflow['jobs'])
    for step in kept:
        assert (ROOT / step['with']['cache-dependency-path']).exists()


def test_the_workflow_uses_pythons_that_the_package_allows(workflow):
    wanted = workflow['jobs']['check']['strategy']['matrix']['python']
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    allowed = SpecifierSet(project['requires-python'])
    assert wanted
    assert all(Version(version) in allowed for version in wanted)


# Binder

def test_binder_installs_the_checked_versions_without_cuda():
    lines = [line.split('#')[0].strip() for line in
             (BINDER / 'requirements.txt').read_text('utf-8').splitlines()]
    for line in filter(None, lines):
        option, value = line.split()
        if option == '--extra-index-url':
            assert value == 'https://download.pytorch.org/whl/cpu'
        else:
            assert option in ('-r', '-c'), line
            assert (BINDER / value).resolve().exists(), line
    assert any(line.startswith('-c') for line in lines)
    runtime = (BINDER / 'runtime.txt').read_text('utf-8').strip()
    assert runtime in ('python-3.11', 'python-3.12', 'python-3.13')


def test_binder_gets_the_package_itself():
    path = BINDER / 'postBuild'
    assert os.access(path, os.X_OK)
    assert subprocess.run(['bash', '-n', path]).returncode == 0
    assert 'pip install --no-deps' in path.read_text('utf-8')


STEPS = """
import re, torch, d2lssd
from d2lssd.losses import calc_loss
torch.set_num_threads(1)
net = d2lssd.TinySSD(1).to(memory_format=torch.channels_last)
trainer = torch.optim.SGD(net.parameters(), lr=0.2)
X = torch.zeros(16, 3, 256, 256)
X = X.to(memory_format=torch.channels_last)
Y = torch.tensor([[[0, 0.1, 0.1, 0.4, 0.4]]]).repeat(16, 1, 1)
for _ in range(2):
    anchors, cls, box = net(X)
    offset, mask, label = d2lssd.multibox_target(anchors, Y)
    calc_loss(cls, label, box, offset, mask).mean().backward()
    trainer.step()
net = d2lssd.load_pretrained()
d2lssd.predict(X[:1], net)
# Not getrusage, whose peak is at least that of the process which started this.
status = open('/proc/self/status').read()
print(1024 * int(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='counts as Linux counts')
def test_training_as_its_note_says_and_prediction_fit_into_2_gb():
    """With all pictures in memory, and room for the notebook server."""
    ran = subprocess.run([sys.executable, '-c', STEPS], cwd=ROOT,
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    pictures = 1100 * 3 * 256**2
    server = 150 * 2**20
    assert json.loads(ran.stdout) + pictures + server < 2 * 2**30


# Colab

@pytest.mark.parametrize('path', notebooks.notebook_paths(),
                         ids=lambda path: path.stem)
def test_the_book_s_own_notebooks_hold_no_address_and_no_install(path):
    text = path.read_text(encoding='utf-8')
    assert 'pip install -q git+' not in text
    assert pages.repository()[0] not in text


def test_a_colab_notebook_installs_the_package_first():
    path = notebooks.BOOK / 'background' / 'boxes-and-anchors.ipynb'
    labels = colab.plain.Labels(colab.plain.book_pages())
    copy, original = colab.prepare(path, labels), nbformat.read(path, 4)
    nbformat.validate(copy)
    url, branch = pages.repository()
    install = next(cell for cell in copy.cells if cell.cell_type == 'code')
    assert f'git+{url}@{branch}' in install.source
    assert 'except ImportError' in install.source  # nothing to do elsewhere
    assert url.split('.com/')[1] + '/blob/colab/' in copy.cells[0].source
    # The code is that of the book, and its outputs.
    ours = [cell for cell in copy.cells if cell.cell_type == 'code'][1:]
    assert ours == [c for c in original.cells if c.cell_type == 'code']


def test_a_colab_notebook_needs_no_myst_and_no_file_beside_it():
    path = notebooks.BOOK / 'background' / 'boxes-and-anchors.ipynb'
    copy = colab.prepare(path, colab.plain.Labels(colab.plain.book_pages()))
    text = '\n'.join(cell.source for cell in copy.cells
                     if cell.cell_type == 'markdown')
    assert ':::' not in text
    assert '```{' not in text
    assert '{numref}' not in text
    pictures = re.findall(r'!\[[^\]]*\]\(([^)]*)\)', text)
    assert len(pictures) > 3
    assert all(link.startswith('https://') for link in pictures)


def test_a_colab_notebook_finds_the_records_that_it_reads(
        tmp_path, monkeypatch):
    raw = '{}/raw/{}/'.format(*pages.repository())

    def committed(address):
        """What GitHub would send, without a network."""
        assert address.startswith(raw)
        return io.BytesIO((ROOT / address.removeprefix(raw)).read_bytes())

    monkeypatch.setattr('urllib.request.urlopen', committed)
    labels = colab.plain.Labels(colab.plain.book_pages())
    readers = []
    for path in notebooks.notebook_paths():
        cells = colab.prepare(path, labels).cells
        here = tmp_path / path.stem / 'content'
        here.mkdir(parents=True)
        monkeypatch.chdir(here)
        setup, *code = (c.source for c in cells if c.cell_type == 'code')
        exec(TransformerManager().transform_cell(setup), {})
        for name in set(re.findall(r'[\w./-]*_data/[\w.-]+\.\w+',
                                   '\n'.join(code))):
            assert (path.parent / name).read_bytes() == (
                here / name).read_bytes(), f'{path.stem} reads {name}'
            readers.append(path.stem)
    assert {'average-precision', 'solutions', 'speed'} <= set(readers)


def test_a_record_that_is_not_there_stops_the_making_of_colab_notebooks():
    path = notebooks.BOOK / 'beyond' / 'speed.ipynb'
    cell = nbformat.v4.new_code_cell("open('../_data/none.json')")
    with pytest.raises(FileNotFoundError, match='speed.*none.json'):
        colab.records(path, nbformat.v4.new_notebook(cells=[cell]))


# Addresses and times

@pytest.mark.parametrize('url', [
    'https://github.com/me/book.git', 'https://github.com/me/book/',
    'git@github.com:me/book.git', 'https://gitlab.com/me/book',
    'https://github.com/me'])
def test_an_address_that_makes_broken_links_is_refused(
        url, monkeypatch, tmp_path):
    (tmp_path / '_config.yml').write_text(
        f'repository:\n  url: {url}\n  branch: main\n')
    monkeypatch.setattr(pages, 'ROOT', tmp_path)
    with pytest.raises(ValueError, match='https://github.com/OWNER/NAME'):
        pages.repository()


def test_the_site_s_address_follows_from_the_repository_s(monkeypatch):
    for url, site in [
            ('https://github.com/Ada/book', 'https://ada.github.io/book/'),
            ('https://github.com/ada/ada.github.io/',
             'https://ada.github.io/')]:
        monkeypatch.setattr(pages, 'repository', lambda url=url: (url, 'x'))
        assert pages.site_address() == site


def test_time_is_estimated_from_words_code_and_the_measured_run():
    v4 = nbformat.v4
    notebook = v4.new_notebook(cells=[
        v4.new_markdown_cell('word ' * 2000),
        v4.new_code_cell('x = 1\n' * 100),
        v4.new_code_cell('x = 1\n' * 900, metadata={'tags': ['remove-cell']}),
    ])
    assert pages.reading_minutes(notebook) == pytest.approx(10 + 5)
    assert pages.in_words(notebook) == ('15 min', None)
    notebook.metadata['running_time'] = {'seconds': 41.6, 'cores': 2}
    assert pages.in_words(notebook)[1] == '40 s on 2 processor cores'
    notebook.metadata['running_time'] = {'seconds': 170, 'cores': 1}
    assert pages.in_words(notebook)[1] == '3 min on 1 processor core'
