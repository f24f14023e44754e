"""The package as a whole: its public names, its imports, its promises."""
import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import d2lssd

SOURCE = Path(d2lssd.__file__).parent
FILES = sorted(SOURCE.rglob('*.py'))
SPEC = """
    cls_predictor bbox_predictor forward flatten_pred concat_preds
    down_sample_blk base_net get_blk blk_forward sizes ratios num_anchors
    TinySSD load_data_bananas calc_loss cls_eval bbox_eval predict display
    smooth_l1 focal_loss multibox_prior multibox_target multibox_detection
    box_iou nms offset_boxes offset_inverse box_corner_to_center
    box_center_to_corner show_bboxes bbox_to_rect set_figsize try_gpu Timer
    Accumulator Animator read_data_bananas BananasDataset load_pretrained
""".split()

# From the ground up. A file may use what stands on a lower floor.
FLOORS = [{'boxes', 'distributed'}, {'anchors', 'plotting'},
          {'detection', 'model'}, {'losses', 'memory', 'metrics'},
          {'judge'}, {'tiles'}, {'data'}, {'classes'}, {'evaluation'},
          {'training'}, {'prediction', 'export'}, {'check'}, {'widgets'},
          {'__main__'}]


def floor(module):
    """Height of a top-level module of the package."""
    for height, modules in enumerate(FLOORS):
        if module in modules:
            return height
    pytest.fail(f'd2lssd.{module} stands on no floor; give it one above')


def module_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix('.py')


def functions():
    """Public functions and classes that the package itself defines."""
    for name in d2lssd.__all__:
        try:
            value = getattr(d2lssd, name)
        except ImportError:
            continue  # another test says so
        if (inspect.isfunction(value) or inspect.isclass(value)) and (
                value.__module__.startswith('d2lssd')):
            yield pytest.param(value, id=name)


def test_importing_the_package_imports_no_heavy_library():
    code = 'import sys, d2lssd; print(*sys.modules)'
    loaded = subprocess.run([sys.executable, '-c', code], check=True,
                            text=True, capture_output=True).stdout
    roots = {name.partition('.')[0] for name in loaded.split()}
    assert 'd2lssd' in roots
    assert not roots & {'torch', 'torchvision', 'torchmetrics', 'matplotlib',
                        'skimage', 'sklearn', 'numpy', 'PIL', 'cv2', 'scipy',
                        'pycocotools', 'pooch', 'tqdm', 'IPython'}


@pytest.mark.parametrize('name', d2lssd.__all__)
def test_every_public_name_can_be_had(name):
    assert getattr(d2lssd, name) is not None


def test_every_name_of_the_specification_is_public():
    assert set(SPEC) <= set(d2lssd.__all__)
    assert set(d2lssd.__all__) <= set(dir(d2lssd))
    assert len(set(d2lssd.__all__)) == len(d2lssd.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match='tiny_sdd'):
        d2lssd.tiny_sdd  # noqa: B018
    assert not hasattr(d2lssd, 'train_ssd')


@pytest.mark.parametrize('value', list(functions()))
def test_every_public_function_says_what_it_takes_and_gives(value):
    text = inspect.getdoc(value)
    assert text, 'no docstring'
    first, *rest = text.splitlines()
    assert first.endswith('.'), first
    assert not (rest and rest[0]), 'no empty line after the first'
    if inspect.isclass(value):
        methods = [m for n, m in vars(value).items() if inspect.isfunction(m)
                   and not n.startswith('_') and n != 'forward']
        assert all(inspect.getdoc(m) for m in methods)
        return
    names = inspect.signature(value).parameters
    if len(names) < 2 and not rest:
        return  # one line says it all
    if names:
        assert 'Args:' in text
        for name in names:
            assert name in text, f'{name} is not explained'
    tree = ast.parse(inspect.getsource(value).lstrip())
    if any(isinstance(node, ast.Return) and node.value
           for node in ast.walk(tree)):
        assert 'Returns:' in text


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(
    p.relative_to(SOURCE)))
def test_no_file_imports_what_stands_above_it(path):
    own = module_of(path)
    if own == '__init__':
        return
    here = ['d2lssd', *path.relative_to(SOURCE).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level:
            root = [*here[:-node.level], *(node.module or '').split('.')]
            names = ['.'.join([*filter(None, root), alias.name])
                     for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition('.')
            if package == 'd2lssd' and rest:
                used = rest.partition('.')[0]
                assert used == own or floor(used) < floor(own), name


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(
    p.relative_to(SOURCE)))
def test_no_file_relies_on_a_bare_assert(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f'line {node.lineno}'


def test_the_version_is_the_one_that_is_installed():
    project = Path(__file__).parents[1] / 'pyproject.toml'
    project = tomllib.loads(project.read_text())['project']
    if 'version' in project.get('dynamic', ()):
        assert 'version' not in project  # read from the package
    else:
        assert project['version'] == d2lssd.__version__
