"""The book's sources keep the promises that its pages make."""
import ast
import difflib
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import d2lssd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import notebooks  # noqa: E402

MACHINE_PATH = re.compile(
    r'(?<![\w.:/])/(?:root|home|work|tmp|Users|usr|opt|var|mnt)/[\w./-]+'
    r'|\b[A-Z]:\\\w+')
MARKDOWN_IMAGE = re.compile(r'!\[(?P<alt>[^\]]*)\]\(')
DIRECTIVE = re.compile(
    r'^(?P<fence>[`:]{3,})\{(?:figure|image)\}[^\n]*\n(?P<body>.*?)'
    r'^(?P=fence)', re.M | re.S)
ALT = re.compile(r'^:alt:[ \t]*\S', re.M)

# What each chapter teaches: names that it defines as the package does.
TAUGHT = {
    'background/boxes-and-anchors': [
        'box_center_to_corner', 'box_corner_to_center', 'multibox_prior',
        'offset_boxes', 'offset_inverse'],
    'predictors': ['bbox_predictor', 'cls_predictor'],
    'concatenation': ['concat_preds', 'flatten_pred', 'forward'],
    'blocks': ['TinySSD', 'base_net', 'blk_forward', 'down_sample_blk',
               'get_blk', 'num_anchors', 'ratios', 'sizes'],
    'training': ['bbox_eval', 'calc_loss', 'cls_eval'],
    'prediction': ['display', 'predict'],
    'exercises': ['focal_loss', 'smooth_l1'],
}

# Written here so that they can be followed, and in the package so that they
# are fast; a test below holds them to each other.
PLAINER = {'match_anchors', 'multibox_detection', 'multibox_target',
           'vote_boxes'}

# The values that the book reproduces, where a chapter's outputs show them.
SHOWN = {
    'concatenation': [r'2, 55, 20, 20', r'2, 33, 10, 10', r'2, 25300'],
    'blocks': [r'2, 10, 10, 10', r'2, 64, 32, 32', r'1, 5444, 4',
               r'32, 5444, 2', r'32, 21776', r'\b1[, _\u202f]?010[, _]?376'],
    'training': [r'\b1[, _]?000\b', r'\b100\b', r'32, 3, 256, 256',
                 r'[Cc]lass err', r'MAE'],
}


def pages():
    """All pages of the book as they lie in the folder."""
    paths = [*ROOT.glob('book/**/*.md'), *ROOT.glob('book/**/*.ipynb')]
    return sorted(path for path in paths
                  if '.ipynb_checkpoints' not in path.parts)


@functools.cache
def read(path):
    """A notebook as JSON; cell sources and texts joined."""
    notebook = json.loads(path.read_text(encoding='utf-8'))
    for cell in notebook['cells']:
        cell['source'] = ''.join(cell['source'])
    return notebook


def code_cells(path):
    return [(i, cell) for i, cell in enumerate(read(path)['cells'])
            if cell['cell_type'] == 'code' and cell['source'].strip()]


def output_text(output):
    data = output.get('data', {})
    parts = [output.get('text', ''), output.get('traceback', ''),
             *(data[kind] for kind in data if kind.startswith('text/'))]
    return ''.join(''.join(part) for part in parts)


NOTEBOOKS = notebooks.notebook_paths()
each_notebook = pytest.mark.parametrize(
    'path', NOTEBOOKS,
    ids=[path.relative_to(ROOT / 'book').as_posix() for path in NOTEBOOKS])
each_page = pytest.mark.parametrize(
    'path', pages(),
    ids=[path.relative_to(ROOT / 'book').as_posix() for path in pages()])


# Chapter code is package code

def parsed(source):
    """The syntax tree of a cell, magic commands left out."""
    lines = ['pass' if re.match(r'\s*[%!]', line) else line
             for line in source.splitlines()]
    return ast.parse('\n'.join(lines))


def definitions(tree):
    """Top-level functions, classes and constants as (name, node)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node
                elif isinstance(target, ast.Tuple):
                    for name, value in zip(
                            target.elts, getattr(node.value, 'elts', []),
                            strict=False):
                        yield name.id, ast.Assign(
                            [name], value, lineno=node.lineno)


def bare(node):
    """Source without docstrings and comments, in one normal form."""
    node = ast.parse(ast.unparse(node))
    for inner in ast.walk(node):
        body = getattr(inner, 'body', None)
        if (isinstance(inner, ast.FunctionDef | ast.ClassDef)
                and ast.get_docstring(inner) is not None):
            inner.body = body[1:] or [ast.Pass()]
    return ast.unparse(node)


@functools.cache
def package_definitions():
    """Every top-level definition of the package: {name: {module: source}}."""
    found = {}
    for path in sorted((ROOT / 'd2lssd').rglob('*.py')):
        module = path.relative_to(ROOT).with_suffix('').as_posix()
        module = module.replace('/', '.').removesuffix('.__init__')
        tree = ast.parse(path.read_text(encoding='utf-8'))
        for name, node in definitions(tree):
            found.setdefault(name, {})[module] = bare(node)
    return found


def package_source(name):
    """The definition behind `d2lssd.name`."""
    candidates = package_definitions()[name]
    module = getattr(getattr(d2lssd, name), '__module__', None)
    return candidates.get(module) or next(iter(candidates.values()))


def public(name):
    return name in dir(d2lssd) and name in package_definitions()


@each_notebook
def test_a_chapter_defines_public_names_as_the_package_does(path):
    for i, cell in code_cells(path):
        for name, node in definitions(parsed(cell['source'])):
            if not public(name) or name in PLAINER:
                continue
            here, there = bare(node), package_source(name)
            assert here == there, (
                f'cell {i}: {name} is not what d2lssd.{name} is\n'
                + '\n'.join(difflib.unified_diff(
                    there.splitlines(), here.splitlines(), 'package',
                    'chapter', lineterm='')))


@pytest.mark.parametrize('chapter', TAUGHT)
def test_a_chapter_teaches_what_it_promises(chapter):
    defined = {name for _, cell in
               code_cells(ROOT / 'book' / f'{chapter}.ipynb')
               for name, _ in definitions(parsed(cell['source']))}
    assert set(TAUGHT[chapter]) <= defined
    assert all(public(name) for name in TAUGHT[chapter])


@pytest.mark.parametrize('m', [0, 1, 7])
def test_what_a_chapter_writes_more_plainly_gives_the_same(m):
    names = {'torch': torch, 'F': torch.nn.functional, **{
        name: getattr(d2lssd, name) for name in (
            'box_iou', 'check_labels', 'nms', 'offset_boxes',
            'offset_inverse')}}
    for page in 'background/boxes-and-anchors', 'beyond/average-precision':
        for _, cell in code_cells(ROOT / 'book' / f'{page}.ipynb'):
            for name, _ in definitions(parsed(cell['source'])):
                if name in PLAINER:
                    exec(cell['source'], names)
    assert names.keys() >= PLAINER
    generator = torch.Generator().manual_seed(m)
    corner = 0.6 * torch.rand(8, m, 2, generator=generator)
    side = 0.1 + 0.3 * torch.rand(8, m, 2, generator=generator)
    labels = torch.cat([torch.zeros(8, m, 1), corner, corner + side], 2)
    labels[::2, m // 2:] = -1
    anchors = d2lssd.multibox_prior(torch.zeros(16, 16), [0.2, 0.3], [1, 2])
    if m:
        assert torch.equal(names['match_anchors'](anchors[0], labels),
                           d2lssd.match_anchors(anchors[0], labels))
    for plain, fast in zip(names['multibox_target'](anchors, labels),
                           d2lssd.multibox_target(anchors, labels),
                           strict=True):
        assert torch.equal(plain, fast)
    A = anchors.shape[1]
    inputs = (torch.randn(4, 3, A, generator=generator).softmax(1),
              torch.randn(4, 4 * A, generator=generator), anchors)
    for per_class in False, True:
        options = {'pos_threshold': 0.2, 'per_class': per_class}
        plain = names['multibox_detection'](*inputs, **options)
        fast = d2lssd.multibox_detection(*inputs, **options)
        assert torch.equal(plain, fast)
        assert 0 < (fast[..., 0] >= 0).sum() < 3 * A
        for rows in fast:
            torch.testing.assert_close(names['vote_boxes'](rows),
                                       d2lssd.vote_boxes(rows))


def test_definitions_are_compared_without_docstrings_and_comments():
    documented = ast.parse(
        'def f(x):\n    """Say."""\n    # why\n    return (x + 1)')
    assert bare(documented) == bare(ast.parse('def f(x): return x+1'))
    assert bare(documented) != bare(ast.parse('def f(x): return x+2'))
    pair = dict(definitions(ast.parse('a, b = [1, 2], 3')))
    assert bare(pair['a']) == 'a = [1, 2]'
    assert bare(pair['b']) == 'b = 3'


# A notebook is committed as it ran

@each_notebook
def test_cells_ran_in_order_without_error_or_warning(path):
    for expected, (i, cell) in enumerate(code_cells(path), start=1):
        assert cell['execution_count'] == expected, f'cell {i}'
        for output in cell['outputs']:
            assert output['output_type'] != 'error', f'cell {i}'
            assert output.get('name') != 'stderr', (
                f'cell {i} wrote to stderr: {output_text(output)}')
            assert not re.search(r'\b\w*Warning\b', output_text(output)), (
                f'cell {i}: {output_text(output)}')


@each_notebook
def test_outputs_name_no_path_of_the_machine_they_ran_on(path):
    for i, cell in code_cells(path):
        for output in cell['outputs']:
            found = MACHINE_PATH.search(output_text(output))
            assert found is None, f'cell {i}: {found.group()}'


@each_notebook
def test_code_lines_fit_into_79_columns(path):
    for i, cell in code_cells(path):
        for line in cell['source'].splitlines():
            assert len(line) <= 79, f'cell {i}: {line}'


@each_notebook
def test_cells_have_ids_of_their_own(path):
    notebook = read(path)
    ids = [cell.get('id') for cell in notebook['cells']]
    assert notebook['nbformat_minor'] >= 5
    assert all(ids)
    assert len(set(ids)) == len(ids)


@each_notebook
def test_a_notebook_is_at_most_3_mb(path):
    assert path.stat().st_size <= 3 * 2**20


@each_notebook
def test_a_cell_whose_output_is_not_compared_has_a_cell_that_asserts(path):
    """What varies stands next to a check of what must hold."""
    cells = [cell for _, cell in code_cells(path)]
    for i, cell in enumerate(cells):
        if 'nbval-ignore-output' in cell['metadata'].get('tags', []):
            near = cells[max(0, i - 1):i + 3]
            assert any(re.search(r'^\s*assert\b', c['source'], re.M)
                       for c in near), cell['source']


# Pictures can be read out

@each_notebook
def test_every_stored_picture_has_alt_text_and_caption(path):
    for i, cell in code_cells(path):
        pictures = [kind for output in cell['outputs']
                    for kind in output.get('data', {})
                    if kind.startswith('image/')]
        if not pictures:
            continue
        options = cell['metadata'].get('mystnb', {})
        alt = options.get('image', {}).get('alt', '')
        assert len(alt) >= 20, f'cell {i}: alt text {alt!r}'
        if len(pictures) == 1:
            figure = options.get('figure', {})
            assert figure.get('caption'), f'cell {i}: no caption'
            assert figure.get('name', '').startswith('fig-'), f'cell {i}'
        else:
            assert 'figure' not in options, (
                f'cell {i}: one name for {len(pictures)} pictures')


@each_page
def test_every_picture_in_the_text_has_alt_text(path):
    if path.suffix == '.ipynb':
        texts = [cell['source'] for cell in read(path)['cells']
                 if cell['cell_type'] == 'markdown']
    else:
        texts = [path.read_text(encoding='utf-8')]
    for text in texts:
        for image in MARKDOWN_IMAGE.finditer(text):
            assert image['alt'].strip(), image.group()
        for directive in DIRECTIVE.finditer(text):
            assert ALT.search(directive['body']), directive.group()


# Exercises

SOLUTIONS = ROOT / 'book' / 'beyond' / 'solutions.ipynb'


def marked(path, kind):
    """Cells that carry such a mark: {the exercise's name: [cells]}."""
    found = {}
    for cell in read(path)['cells']:
        if name := cell['metadata'].get('d2lssd', {}).get(kind):
            found.setdefault(name, []).append(cell)
    return found


EXERCISES = {name: (path, cells) for path in NOTEBOOKS
             for name, cells in marked(path, 'exercise').items()}


@pytest.mark.parametrize('chapter', [
    'background/banana-data', *TAUGHT, 'beyond/average-precision',
    'beyond/speed', 'beyond/your-own-data'])
def test_a_chapter_asks_to_reason_to_compute_and_to_code(chapter):
    path = ROOT / 'book' / f'{chapter}.ipynb'
    kinds = [cell['metadata']['d2lssd']['kind']
             for _, cells in marked(path, 'exercise').items()
             for cell in cells]
    assert {'reason', 'compute', 'code'} == set(kinds)


@pytest.mark.parametrize('name', EXERCISES)
def test_an_exercise_says_what_to_hand_in_and_has_hint_and_solution(name):
    _, (cell,) = EXERCISES[name]
    directive, _, hint = cell['source'].partition('\n::::\n\n')
    assert re.match(r'::::\{exercise\} .+ (★☆☆|★★☆|★★★)\n:label: '
                    + name + r'\n\n', directive)
    assert '*Hand in:* ' in directive
    assert re.fullmatch(r':::\{dropdown\} Hint\n.+\n:::', hint, re.S)
    first = marked(SOLUTIONS, 'solution')[name][0]['source']
    assert re.match(r'[:`]+\{solution(-start)?\} ' + name + '\n', first)
    assert ':class: dropdown' in first
    assert cell['metadata']['d2lssd']['points'] > 0


@pytest.mark.parametrize('name', EXERCISES)
def test_an_exercise_has_the_check_that_it_names(name):
    _, (cell,) = EXERCISES[name]
    own = name.replace('-', '_')
    if cell['metadata']['d2lssd']['kind'] == 'reason':
        assert 'check.' not in cell['source']
        assert not hasattr(d2lssd.check, own)
        return
    call = f'check.{own}({own})'
    assert call in cell['source']
    assert own in d2lssd.check.__all__
    (test,) = marked(SOLUTIONS, 'check')[name]
    assert test['source'] == call
    assert output_text(test['outputs'][0]).startswith('Right: ')


def test_every_check_belongs_to_an_exercise():
    names = {name.replace('-', '_') for name in EXERCISES}
    assert set(d2lssd.check.__all__) - {'Miss'} <= names
    assert set(marked(SOLUTIONS, 'solution')) == set(EXERCISES)


@pytest.mark.parametrize('name', sorted(set(d2lssd.check.__all__) - {'Miss'}))
def test_a_check_points_to_a_section_that_exists(name):
    task = getattr(d2lssd.check, name)
    headings = re.findall(
        r'^#+ (.+)$', '\n'.join(
            cell['source']
            for cell in read(ROOT / 'book' / f'{task.page}.ipynb')['cells']
            if cell['cell_type'] == 'markdown'), re.M)
    assert task.section in headings


# The book is whole

def test_the_table_of_contents_lists_every_page_once():
    listed = notebooks.toc_pages()
    there = [path.relative_to(ROOT).with_suffix('').as_posix()
             for path in pages()]
    assert sorted(listed) == sorted(there)


def test_the_page_on_the_package_has_every_public_name_once():
    listed = re.findall(r'^\.\. (?:autofunction|autoclass|py:data):: (\w+)$',
                        (ROOT / 'book' / 'package.md').read_text('utf-8'),
                        re.M)
    modules = {'check', 'data', 'widgets'}
    assert sorted([*listed, *modules]) == sorted(d2lssd.__all__)


@pytest.mark.parametrize('chapter', SHOWN)
def test_a_chapter_shows_the_values_that_the_book_reproduces(chapter):
    text = '\n'.join(
        output_text(output)
        for _, cell in code_cells(ROOT / 'book' / f'{chapter}.ipynb')
        for output in cell['outputs'])
    for value in SHOWN[chapter]:
        assert re.search(value, text), value


def test_the_address_of_the_repository_has_one_home():
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    address = config['repository']['url'].split('://')[1]
    files = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=ROOT,
        capture_output=True, text=True, check=True).stdout.split('\0')
    homes = [name for name in files if (ROOT / name).is_file()
             and address.encode() in (ROOT / name).read_bytes()]
    assert homes == ['_config.yml']
