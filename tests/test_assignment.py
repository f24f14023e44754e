"""The exercises as an nbgrader assignment, graded by nbgrader itself."""
import copy
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip('nbgrader')
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import assignment  # noqa: E402
import plain  # noqa: E402

# From MyST to plain Markdown

@pytest.fixture
def labels(monkeypatch):
    monkeypatch.setattr(plain, 'references',
                        lambda: {'liu2016ssd': 'Liu et al., 2016'})
    page = plain.Page(Path('blocks.ipynb'), 5, [
        new_markdown_cell('(chap-blocks)=\n# Blocks\n\n```{figure} a.svg\n'
                          ':name: fig-a\nA\n```\n\n$$\nx\n$$ (eq-x)'),
        new_code_cell('1', metadata={'mystnb': {'figure': {
            'caption': 'B', 'name': 'fig-b'}}})])
    return plain.Labels([page])


@pytest.mark.parametrize(('myst', 'markdown'), [
    ('See {numref}`fig-b` and {eq}`eq-x`.', 'See Figure 5.2 and (5.1).'),
    ('From {ref}`chap-blocks`, {ref}`here <chap-blocks>`.',
     'From Blocks, here.'),
    ('By {cite}`liu2016ssd`.', 'By (Liu et al., 2016).'),
    ('In [the text](blocks.ipynb), not [there](https://d2l.ai).',
     'In the text, not [there](https://d2l.ai).'),
    ('$$\ny\n$$ (eq-x)', '$$\ny\n$$'),
    (':::{dropdown} Hint\n$\\sigma^2 \\cdot a_1$, $x_{ij}$\n:::',
     '<details><summary><b>Hint</b> (click to open)</summary>\n\n'
     'σ² · a₁, $x_{ij}$\n\n</details>'),
    ('::::{admonition} Look\n:class: tip\nOne\n:::{note}\nTwo\n:::\n::::',
     '> **Look**\n>\n> One\n>\n> > **Note**\n> >\n> > Two'),
    ('```python\nx = "{ref}"\n:::{note}\n```',
     '```python\nx = "{ref}"\n:::{note}\n```'),
])
def test_a_text_becomes_plain_markdown(labels, myst, markdown):
    assert plain.plain(myst, labels) == markdown


# From the book to the instructor's notebook

def text(source, **data):
    return new_markdown_cell(source, metadata={'d2lssd': data})


def code(source, **data):
    return new_code_cell(source, metadata={'d2lssd': data})


def small_book(folder, exercise, *solution):
    page = plain.Page(Path('page.ipynb'), 1, [
        new_markdown_cell('# Page'),
        text(f'::::{{exercise}} Twice ★\n:label: {exercise["exercise"]}\n'
             'Write.\n::::\n\n:::{dropdown} Hint\nAdd.\n:::', **exercise)])
    path = folder / 'solutions.ipynb'
    nbformat.write(new_notebook(cells=[code('import torch'), *solution]),
                   path)
    return [page], path


def cells_by_name(notebook):
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells}


TWICE = {'exercise': 'twice', 'kind': 'code', 'points': 3}
SOLVED = [
    text('```{solution-start} twice\n```\nAdd it to itself.',
         solution='twice'),
    code('from math import pi\n\nTWO = 2\n\n\ndef helper(x):\n'
         '    return TWO * x\n\n\ndef twice(x):\n    """Double x."""\n'
         '    y = helper(x)\n    return y', solution='twice'),
    code('check.twice(twice)', check='twice')]


def test_a_function_keeps_its_first_lines_and_hides_the_rest(tmp_path):
    cells = cells_by_name(assignment.assemble(
        *small_book(tmp_path, TWICE, *SOLVED)))
    source = cells['twice-answer'].source
    shown, hidden = source.split('    ### BEGIN SOLUTION\n')
    assert shown == ('from math import pi\n\n\ndef twice(x):\n'
                     '    """Double x."""\n')
    assert 'return y' in hidden
    assert 'TWO = 2' in hidden
    assert hidden.endswith('    ### END SOLUTION')
    names = {}
    exec(source, names)
    assert names['twice'](4) == 8
    assert cells['twice'].metadata.nbgrader.points == 3
    assert cells['twice-text'].source == (
        '### Exercise 1.1: Twice ★ (3 points)\n\nWrite.\n\n'
        '<details><summary><b>Hint</b> (click to open)</summary>\n\n'
        'Add.\n\n</details>')


@pytest.mark.parametrize(('exercise', 'solution', 'message'), [
    (TWICE | {'kind': 'sing'}, SOLVED, "'twice': kind 'sing'"),
    (TWICE | {'points': 0}, SOLVED, 'points 0'),
    (TWICE, SOLVED[:2], "'twice' has no check"),
    (TWICE, SOLVED[2:], "'twice' has no solution"),
    (TWICE, [code('def other(): pass', solution='twice'), SOLVED[2]],
     "'twice' defines no twice"),
    (TWICE, [*SOLVED, code('1', solution='thrice')],
     "no chapter has an exercise 'thrice'"),
    (TWICE | {'kind': 'compute'},
     [code('half = 2', solution='twice'), SOLVED[2]],
     "'twice' assigns nothing to twice"),
    (TWICE, [code('%time twice = 3', solution='twice'), SOLVED[2]],
     "'twice': invalid syntax: '%time twice = 3'"),
])
def test_a_book_that_does_not_fit_is_refused(tmp_path, exercise, solution,
                                             message):
    with pytest.raises(assignment.AssignmentError,
                       match=re.escape(message)):
        assignment.assemble(*small_book(tmp_path, exercise, *solution))


@pytest.fixture
def two_versions(tmp_path, monkeypatch):
    """Two instructors' notebooks that differ, and a folder for a course."""
    def release(course, _, name, *options):
        folder = course / 'release' / name
        shutil.rmtree(folder, ignore_errors=True)  # as nbgrader does
        folder.mkdir(parents=True)
        (folder / f'{name}.ipynb').write_text('for students')
    monkeypatch.setattr(assignment, 'nbgrader', release)
    book = small_book(tmp_path, TWICE, *SOLVED)
    first, second = assignment.assemble(*book), assignment.assemble(*book)
    second.cells[0].source += ' Changed.'
    return first, second, tmp_path / 'my course'


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*')
            if path.is_file()}


def test_an_assignment_is_never_written_over(two_versions):
    first, second, course = two_versions
    assignment.write(first, course, 'week1')
    before = contents(course)
    with pytest.raises(assignment.AssignmentError, match='Take another name'):
        assignment.write(second, course, 'week1')
    assert contents(course) == before
    (course / 'release/week1/data.csv').write_text('handed out')
    before = contents(course)
    assignment.write(first, course, 'week1')
    assignment.write(second, course, 'week2')
    added = set(contents(course)) - set(before)
    assert {path.name for path in added} == {'week2.ipynb'}
    assert before.items() <= contents(course).items()
    (course / 'source/week1').rename(course / 'moved')
    before = contents(course)
    with pytest.raises(assignment.AssignmentError, match='handed out'):
        assignment.write(first, course, 'week1')
    assert contents(course) == before


def test_what_a_course_has_of_its_own_is_kept(two_versions, capsys):
    notebook, _, course = two_versions
    course.mkdir()
    (course / 'README.md').write_text('How we mark')
    (course / 'nbgrader_config.py').write_text('c = get_config()')
    assignment.write(notebook, course, 'week1')
    assert (course / 'README.md').read_text() == 'How we mark'
    assert (course / 'nbgrader_config.py').read_text() == 'c = get_config()'
    assert 'is yours and was kept' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['', '../x', 'a b', '-x', 'a+b'])
def test_a_name_that_makes_no_assignment_is_refused(two_versions, name):
    notebook, _, course = two_versions
    with pytest.raises(assignment.AssignmentError, match='letters, digits'):
        assignment.write(notebook, course, name)
    assert not course.exists()


def test_an_unknown_exercise_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(assignment.AssignmentError,
                       match='no exercise named nonsense; there are twice'):
        assignment.assemble(*small_book(tmp_path, TWICE, *SOLVED),
                            ['nonsense'])


def test_the_teachers_page_calls_exercises_by_their_numbers():
    pages = plain.book_pages()
    labels = plain.Labels(pages)
    titles = {re.sub(r'\s*[★☆]+$', '', exercise.title) for exercise in
              assignment.read_exercises(pages, labels).values()}
    page = (ROOT / 'book' / 'teaching.md').read_text('utf-8')
    named = re.findall(r'\*([^*\n]+)\* \((\d+\.\d+)\)', page)
    assert len(named) >= 10
    assert {f'Exercise {number}: {title}' for title, number in named} <= (
        titles)


# The book's own assignment, handed out, handed in and graded

NAME = 'detection'
SECONDS = 15

# What a student writes in place of right answers, and what the check says.
MISTAKES = {
    'smooth-l1': 'def smooth_l1(data, scalar):\n'
                 '    return torch.where(data.abs() < scalar**2,\n'
                 '                       (data / scalar)**2 / 2,\n'
                 '                       data.abs() - scalar**2 / 2)\n',
    'focal-loss-of-logits':
        'def focal_loss_of_logits(cls_preds, cls_labels, gamma):\n'
        '    p = cls_preds.softmax(-1).gather(\n'
        '        -1, cls_labels[..., None])[..., 0]\n'
        '    return -(1 - p)**gamma * p.log()\n',
    'mirror': 'def mirror(images, labels):\n'
              '    kind, x1, y1, x2, y2 = labels.unbind(-1)\n'
              '    return images.flip(-1), torch.stack(\n'
              '        [kind, 1 - x2, y1, 1 - x1, y2], -1)\n',
    'receptive-field': 'receptive_field = 12',
    'matching-by-hand': 'matching_by_hand = [1, 1, 0, -1, 0]',
}
MESSAGES = {
    'smooth-l1': 'σ and 1/σ² look swapped, everywhere',
    'focal-loss-of-logits': 'This is the log of 0',
    'mirror': 'Padding was mirrored like a box',
    'receptive-field': 'receptive_field: 12 is not it',
    'matching-by-hand': 'matching_by_hand: [1, 1, 0, -1, 0] is not it',
}
# The answers of the one who would rather have the points than the answers.
TRICK = '''
import sys
import types
from d2lssd import check
import d2lssd

def easy(answer):
    print('Right')

for name in dir(check):
    if not name.startswith('_'):
        setattr(check, name, easy)
fake = types.ModuleType('d2lssd.check')
fake.__getattr__ = lambda name: easy
sys.modules['d2lssd.check'] = d2lssd.check = fake
'''


def answered(notebook, answers):
    notebook = copy.deepcopy(notebook)
    cells = cells_by_name(notebook)
    for name, source in answers.items():
        cells[f'{name}-answer'].source = source
    return notebook


def tampered(notebook):
    """Every second test deleted, the others emptied, the checks replaced."""
    notebook = copy.deepcopy(notebook)
    tests = [cell for cell in notebook.cells if cell.cell_type == 'code'
             and cell.metadata.nbgrader.grade]
    for cell in tests[1::2]:
        cell.source = 'pass'
    notebook.cells = [cell for cell in notebook.cells
                      if not any(cell is test for test in tests[::2])]
    notebook.cells.insert(2, new_code_cell(TRICK))
    return notebook


@dataclass
class Course:
    folder: Path
    points: dict  # of the exercises that a machine can mark

    def notebook(self, step):
        return nbformat.read(self.folder / step / NAME / f'{NAME}.ipynb', 4)

    def feedback(self, student):
        page = self.folder / 'feedback' / student / NAME / f'{NAME}.html'
        return re.sub(r'<[^>]+>', '', page.read_text('utf-8'))


@pytest.fixture(scope='module')
def course(tmp_path_factory):
    """A course in which everyone has handed in and been graded."""
    folder = tmp_path_factory.mktemp('course')
    notebook = assignment.assemble(plain.book_pages(), assignment.SOLUTIONS)
    released = nbformat.read(assignment.write(notebook, folder, NAME), 4)
    config = folder / 'nbgrader_config.py'
    config.write_text(config.read_text('utf-8')
                      + f'\nSECONDS = {SECONDS}\n', 'utf-8')
    names = [name for name, cell in cells_by_name(notebook).items()
             if cell.cell_type == 'code' and cell.metadata.nbgrader.grade]
    submissions = {
        'blank': released,
        'reference': notebook,
        'mistaken': answered(notebook, MISTAKES),
        'crashing': answered(notebook, {
            names[0]: 'raise RuntimeError("not today")',
            names[2]: 'import os\nos._exit(1)'}),
        'looping': answered(notebook, {
            'mirror': 'def mirror(images, labels):\n    while True: pass',
            names[-1]: 'import time\nwhile True:\n    try:\n'
                       '        time.sleep(1)\n'
                       '    except KeyboardInterrupt:\n        pass'}),
        'tampering': tampered(released)}
    for student, handed_in in submissions.items():
        place = folder / 'submitted' / student / NAME
        place.mkdir(parents=True)
        nbformat.write(handed_in, place / f'{NAME}.ipynb')
    beside = folder / 'submitted' / 'tampering' / NAME / 'd2lssd.py'
    beside.write_text('raise ImportError("taken from the wrong place")')
    assignment.nbgrader(folder, 'autograde', NAME)
    assignment.nbgrader(folder, 'generate_feedback', NAME)
    return Course(folder, {
        name: cell.metadata.nbgrader.points
        for name, cell in cells_by_name(notebook).items() if name in names})


@pytest.fixture(scope='module')
def scores(course):
    """Student -> exercise -> score given by the machine."""
    from nbgrader.api import Gradebook
    with Gradebook(f'sqlite:///{course.folder}/gradebook.db') as book:
        return {submission.student.id: {
            grade.name: grade.auto_score
            for notebook in submission.notebooks
            for grade in notebook.grades}
            for submission in book.assignment_submissions(NAME)}


def marked(course, scores, student):
    """The scores of the exercises that a machine can mark."""
    return {name: scores[student][name] for name in course.points}


def test_the_assignment_holds_every_exercise_of_the_book(course):
    there = {cell.metadata.d2lssd.exercise
             for page in plain.book_pages() for cell in page.cells
             if 'exercise' in cell.metadata.get('d2lssd', {})}
    cells = cells_by_name(course.notebook('source'))
    graded = {name for name, cell in cells.items()
              if cell.metadata.nbgrader.grade}
    assert graded == there
    assert len(there) >= 38


def test_students_get_neither_answers_nor_directives(course):
    for cell in course.notebook('release').cells:
        assert 'SOLUTION' not in cell.source
        assert 'HIDDEN' not in cell.source
        assert not re.search(r'^[`:]{3,}\{|\{\w+\}`|^:\w+:', cell.source,
                             re.M), cell.source
        if cell.metadata.nbgrader.solution:
            assert re.search('YOUR (CODE|ANSWER) HERE', cell.source)


def test_a_blank_submission_scores_nothing(scores):
    assert set(scores['blank'].values()) == {0}


def test_the_reference_gets_all_points_that_a_machine_gives(course, scores):
    assert marked(course, scores, 'reference') == course.points


def test_answers_in_words_wait_for_a_person(course, scores):
    words = set(scores['reference']) - set(course.points)
    assert words
    assert {scores['reference'][name] for name in words} == {None}


def test_typical_mistakes_cost_their_points_and_no_others(course, scores):
    assert marked(course, scores, 'mistaken') == (
        course.points | dict.fromkeys(MISTAKES, 0))


@pytest.mark.parametrize('name', MISTAKES)
def test_a_typical_mistake_is_explained(course, name):
    assert MESSAGES[name] in course.feedback('mistaken')


def test_a_crash_costs_what_follows_and_is_explained(course, scores):
    names = list(course.points)
    got = marked(course, scores, 'crashing')
    assert got == {name: course.points[name] if name == names[1] else 0
                   for name in names}
    said = course.feedback('crashing')
    assert 'not today' in said
    assert 'The kernel died while this cell ran.' in said


def test_an_endless_loop_costs_its_exercise(course, scores):
    lost = {'mirror': 0, list(course.points)[-1]: 0}
    assert marked(course, scores, 'looping') == course.points | lost
    assert 'could not be interrupted' in course.feedback('looping')


def test_tests_cannot_be_deleted_edited_or_replaced(course, scores):
    assert set(marked(course, scores, 'tampering').values()) == {0}
    assert 'wrong place' not in course.feedback('tampering')
