"""Make an nbgrader assignment of the book's exercises.

    python tools/assignment.py [--course FOLDER] [--name NAME] [EXERCISE ...]

Reads the exercises from the chapters and their answers and checks from the
solutions page, writes the instructor's notebook to FOLDER/source/NAME and
lets nbgrader make the students' one in FOLDER/release/NAME. Without an
exercise's name it takes them all.
"""
import argparse
import ast
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebooks import BOOK, ROOT
from plain import Labels, book_pages, plain, split

COURSE = ROOT / '_build' / 'assignment'
SOLUTIONS = BOOK / 'beyond' / 'solutions.ipynb'
KINDS = ('reason', 'compute', 'code')

FRONT = """\
# Single shot detection: exercises

{count} exercises, {points} points. They come from the chapters of the book;
"this page" is the chapter in the heading above, and numbers of figures and
equations are those of the book.

- Run the cells from top to bottom, the one with the imports first.
- Put your answers where it says `YOUR CODE HERE` or `YOUR ANSWER HERE`.
- After most answers stands a cell that checks it. Run it as often as you
  like: a miss says what came and what was expected.
- Leave those cells as they are; marking uses the original ones.
- Before you hand in: *Kernel → Restart Kernel and Run All Cells…*.
"""

# A name that an earlier cell gave another meaning must not decide a mark.
FRESH = """\
### BEGIN HIDDEN TESTS
import sys
for _name in [n for n in sys.modules if n.split('.')[0] == 'd2lssd']:
    del sys.modules[_name]
### END HIDDEN TESTS
"""

README = """\
# Course folder for nbgrader

NAME is an assignment's name: `{name}`, or what you called others.

    source/NAME/        your version, with answers and all tests
    release/NAME/       the students' version: hand out this one
    submitted/          put what you collect here (see below)
    nbgrader_config.py  settings; the comments say why
    gradebook.db        nbgrader's database

Keep this folder elsewhere if it lies in `_build`: `make clean` removes that.

1. Hand out `release/NAME/NAME.ipynb`. Students need the environment of
   the book.
2. Collect. Without nbgrader's exchange, put each notebook by hand to
   `submitted/STUDENT/NAME/NAME.ipynb`.
3. In this folder, in the environment of the book:

       nbgrader autograde NAME
       nbgrader generate_feedback NAME
       nbgrader export            # grades.csv

   Answers in words wait for you: `jupyter lab` here, then *Nbgrader →
   Formgrader*. Generate the feedback after that; it lies in
   `feedback/STUDENT/NAME/`.

Student code runs with your rights while it is marked. Do that in a container
or under an account that has nothing to lose.
"""


@dataclass
class Exercise:
    """An exercise of a chapter with what the solutions page says to it."""
    name: str
    kind: str
    points: int
    chapter: str
    title: str
    text: str
    solution: list = field(default_factory=list)  # cells
    check: str = ''

    @property
    def variable(self):
        return self.name.replace('-', '_')


# The cell below an answer does it here.
CHECK_IT = re.compile(r' ?Check it:\s*```python\nfrom d2lssd import check\n'
                      r'[^`]*```\n?')


class AssignmentError(Exception):
    """The book cannot be turned into an assignment; says where and why."""


def read_exercises(pages, labels):
    """The exercises of all pages, in reading order."""
    found = {}
    for page in pages:
        for cell in page.cells:
            data = cell.metadata.get('d2lssd', {})
            if 'exercise' not in data:
                continue
            name, kind, points = (data.get(key) for key in
                                  ('exercise', 'kind', 'points'))
            where = f'{page.path.name}, exercise {name!r}'
            if kind not in KINDS:
                raise AssignmentError(
                    f'{where}: kind {kind!r}, expected one of {KINDS}')
            if not isinstance(points, int) or points < 1:
                raise AssignmentError(
                    f'{where}: points {points!r}, expected 1 or more')
            if name in found:
                raise AssignmentError(f'{where}: the name is taken')
            parts = split(cell.source)
            inner = [part for part in parts if not isinstance(part, str)
                     and part.name == 'exercise']
            if len(inner) != 1:
                raise AssignmentError(
                    f'{where}: {len(inner)} exercise directives in the '
                    'cell, expected 1')
            label = inner[0].options.get('label', '')
            number = labels[label] if label in labels.words else 'Exercise'
            text = [CHECK_IT.sub('', plain(inner[0].body, labels))]
            text += [plain(f'```{{dropdown}} {part.argument}\n{part.body}\n'
                           '```', labels)
                     for part in parts if not isinstance(part, str)
                     and part.folded]
            found[name] = Exercise(
                name, kind, points, page.title,
                f'{number}: {plain(inner[0].argument, labels)}',
                '\n\n'.join(text))
    return found


def read_solutions(path, exercises):
    """Give each exercise its solution and check; return the import cell."""
    cells = nbformat.read(path, as_version=4).cells
    imports = None
    for cell in cells:
        data = cell.metadata.get('d2lssd', {})
        if imports is None and cell.cell_type == 'code':
            imports = cell.source
        name = data.get('solution') or data.get('check')
        if name is None:
            continue
        if name not in exercises:
            raise AssignmentError(f'{path.name}, cell {cell.id}: no chapter '
                                  f'has an exercise {name!r}')
        if 'check' in data:
            exercises[name].check = cell.source
        else:
            exercises[name].solution.append(cell)
    for exercise in exercises.values():
        where = f'{path.name}: exercise {exercise.name!r}'
        if not exercise.solution:
            raise AssignmentError(f'{where} has no solution')
        if exercise.kind != 'reason' and not exercise.check:
            raise AssignmentError(f'{where} has no check')
    return imports


def solved_code(exercise):
    """The solution's code, its answer marked as nbgrader wants it.

    Imports and the first lines of the function that the check calls stay
    visible; its body and all helpers are the answer.
    """
    source = '\n\n\n'.join(cell.source.strip() for cell in exercise.solution
                           if cell.cell_type == 'code')
    lines = source.splitlines()
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise AssignmentError(
            f'solution of {exercise.name!r}: {error.msg}: '
            f'{(error.text or "").strip()!r}; only plain Python can be turned '
            'into an answer cell') from None
    starts = [first_line(node) - 1 for node in nodes]
    named = {target.id for node in nodes for target in ast.walk(node)
             if isinstance(target, ast.Name)
             and isinstance(target.ctx, ast.Store)}
    imports, rest, main = [], [], None
    for node, start, end in zip(nodes, starts, [*starts[1:], len(lines)]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports += lines[start:node.end_lineno]
        elif (isinstance(node, ast.FunctionDef | ast.ClassDef)
                and node.name == exercise.variable):
            documented = ast.get_docstring(node) is not None
            body = node.body[documented:][0]
            if body.lineno == node.lineno:
                raise AssignmentError(
                    f'solution of {exercise.name!r}: the body of '
                    f'{exercise.variable} stands on the line of its def')
            indent = ' ' * body.col_offset
            main = [*lines[start:body.lineno - 1],
                    f'{indent}### BEGIN SOLUTION',
                    *lines[body.lineno - 1:node.end_lineno]]
        else:
            rest += lines[start:end]
    rest = '\n'.join(rest).strip('\n').splitlines()
    if exercise.kind == 'code':
        if main is None:
            raise AssignmentError(f'solution of {exercise.name!r} defines no '
                                  f'{exercise.variable}')
        helpers = ['', '', *rest] if rest else []
        answer = [*main, *helpers, f'{indent}### END SOLUTION']
        imports += ['', ''] if imports else []
    else:
        if exercise.variable not in named:
            raise AssignmentError(f'solution of {exercise.name!r} assigns '
                                  f'nothing to {exercise.variable}')
        answer = [f'# Assign your answer to {exercise.variable}.',
                  '### BEGIN SOLUTION', *rest, '### END SOLUTION']
    return '\n'.join([*imports, *answer])


def first_line(node):
    """Where a statement starts, decorators included."""
    return min([node.lineno, *(d.lineno for d in
                               getattr(node, 'decorator_list', []))])


def solved_text(exercise, labels):
    """The solution in words, from sphinx-exercise's directives."""
    texts = []
    for cell in exercise.solution:
        if cell.cell_type == 'markdown':
            texts += [part if isinstance(part, str) else part.body
                      for part in split(cell.source)
                      if isinstance(part, str)
                      or not part.name.startswith('solution-')]
    return '\n\n'.join(plain(text, labels).strip() for text in texts)


def graded(cell, name, **roles):
    """A cell with nbgrader's metadata; its id is the name of its part."""
    roles = {'grade': False, 'solution': False, 'locked': False,
             'task': False, 'schema_version': 3, 'grade_id': name} | roles
    cell['id'] = re.sub(r'[^\w-]', '-', name)[:64]
    cell.metadata['nbgrader'] = roles
    if roles['locked']:
        cell.metadata.update(editable=False, deletable=False)
    return cell


def exercise_cells(exercise, labels):
    """Text, answer and, where there is one, the test."""
    name, points = exercise.name, exercise.points
    unit = 'point' if points == 1 else 'points'
    yield graded(new_markdown_cell(
        f'### {exercise.title} ({points} {unit})\n\n{exercise.text}'),
        f'{name}-text', locked=True)
    if exercise.kind == 'reason':
        yield graded(new_markdown_cell(
            '### BEGIN SOLUTION\n' + solved_text(exercise, labels)
            + '\n### END SOLUTION'), name, grade=True, solution=True,
            points=points)
        return
    yield graded(new_code_cell(solved_code(exercise)), f'{name}-answer',
                 solution=True)
    check = exercise.check.strip()
    if not re.search(r'^from d2lssd import check$', check, re.M):
        check = f'from d2lssd import check\n\n{check}'
    yield graded(new_code_cell(FRESH + check), name, grade=True, locked=True,
                 points=points)


def assemble(pages, solutions, only=()):
    """The instructor's notebook.

    Args:
        pages: pages of the book (`plain.Page`) in reading order.
        solutions: path of the solutions notebook.
        only: names of exercises; none means all.
    Returns:
        A notebook with nbgrader's metadata.
    Raises:
        AssignmentError: with the place in the book that does not fit.
    """
    labels = Labels(pages)
    exercises = read_exercises(pages, labels)
    imports = read_solutions(solutions, exercises)
    unknown = sorted(set(only) - set(exercises))
    if unknown:
        raise AssignmentError(
            f"no exercise named {', '.join(unknown)}; there are "
            f"{', '.join(exercises) or 'none at all'}")
    chosen = [exercise for name, exercise in exercises.items()
              if not only or name in only]
    if not chosen:
        raise AssignmentError('the book has no exercises')
    cells = [
        graded(new_markdown_cell(FRONT.format(
            count=len(chosen), points=sum(e.points for e in chosen))),
            'front', locked=True),
        graded(new_code_cell(imports), 'imports', locked=True)]
    chapter = None
    for exercise in chosen:
        if exercise.chapter != chapter:
            chapter = exercise.chapter
            cells.append(graded(new_markdown_cell(f'## {chapter}'),
                                f'chapter-{exercise.name}', locked=True))
        cells += exercise_cells(exercise, labels)
    return new_notebook(cells=cells, metadata={
        'kernelspec': {'display_name': 'Python 3 (ipykernel)',
                       'language': 'python', 'name': 'python3'},
        'language_info': {'name': 'python'}})


def nbgrader(course, *arguments):
    """Run an nbgrader command in a course folder; its log if it fails."""
    # It calls alembic by name, which lies beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent),
                            os.environ.get('PATH', '')])
    done = subprocess.run(
        [sys.executable, '-m', 'nbgrader', *arguments], cwd=course,
        env=dict(os.environ, PATH=path, PYDEVD_DISABLE_FILE_VALIDATION='1'),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssignmentError(
            f"nbgrader {' '.join(arguments)} failed:\n{done.stdout}")
    return done.stdout


def write(notebook, course, name):
    """Put the notebook into a course folder, make the students' version.

    Nothing that is there already is written over; prints what was kept."""
    if not re.fullmatch(r'\w[\w.-]*', name):
        raise AssignmentError(f'the name {name!r}: letters, digits, _, . and '
                              '- are what nbgrader takes')
    path, released = (course / version / name / f'{name}.ipynb'
                      for version in ('source', 'release'))
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + '\n'
    if path.exists() and path.read_text('utf-8') != text:
        raise AssignmentError(
            f'{path} is there and differs from what would be written: it has '
            'other exercises, or was edited, or the book has changed since. '
            'Take another name (NAME=... of make assignment), or move that '
            f'folder and {released.parent} away')
    if released.parent.exists() and not path.exists():
        raise AssignmentError(
            f'{released.parent} is there, and may have been handed out. Take '
            'another name (NAME=... of make assignment), or move that folder '
            'away')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, 'utf-8')
    settings = Path(__file__).with_name('nbgrader_config.py')
    for file, new in (('nbgrader_config.py', settings.read_text('utf-8')),
                      ('README.md', README.format(name=name))):
        if not (course / file).exists():
            (course / file).write_text(new, 'utf-8')
        elif (file == settings.name
              and (course / file).read_text('utf-8') != new):
            print(f'{course / file} is yours and was kept. What the marking '
                  f'of these exercises needs stands in {settings}.')
    if not released.exists():
        nbgrader(course, 'generate_assignment', name, '--force')
    return released


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=textwrap.dedent(__doc__.split('\n\n', 2)[2]))
    parser.add_argument('exercise', nargs='*', help='such as receptive-field')
    parser.add_argument('--course', type=Path, default=COURSE,
                        help='folder to write to (%(default)s)')
    parser.add_argument('--name', default='detection',
                        help="the assignment's name (%(default)s)")
    options = parser.parse_args()
    try:
        notebook = assemble(book_pages(), SOLUTIONS, options.exercise)
        released = write(notebook, options.course.expanduser().resolve(),
                         options.name)
    except (AssignmentError, OSError) as error:
        raise SystemExit(f'No assignment made: {error}') from None
    tests = [cell.metadata.nbgrader.points for cell in notebook.cells
             if cell.metadata.nbgrader.grade]
    print(f'{len(tests)} exercises, {sum(tests)} points\n'
          f'  teacher   {options.course / "README.md"}\n'
          f'  students  {released}')


if __name__ == '__main__':
    main()
