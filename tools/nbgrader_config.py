"""Settings of this course; https://nbgrader.readthedocs.io/en/stable/"""
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat.v4 import new_output
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    Execute,
    IgnorePattern,
    LimitOutput,
    SaveAutoGrades,
)

c = get_config()  # noqa: F821


class ExecuteToTheEnd(Execute):
    """Mark a notebook whose kernel died or hangs, instead of giving it up.

    nbgrader itself drops such a submission: no score and no feedback.
    """
    lost = False

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != 'code':
            return cell, resources
        message = 'Not run: an earlier cell ended the kernel.'
        if not self.lost:
            try:
                return super().preprocess_cell(cell, resources, index)
            except DeadKernelError:
                message = 'The kernel died while this cell ran.'
            except CellTimeoutError:
                message = ('This cell took too long and could not be '
                           'interrupted.')
            self.lost = True
        cell.outputs = [new_output(
            'error', ename='KernelLost', evalue=message,
            traceback=[f'KernelLost: {message}'])]
        return cell, resources


c.CourseDirectory.course_id = 'd2lssd'

# A deleted test comes back. (An edited one always does.)
c.OverwriteCells.add_missing_cells = True

# Seconds for a cell, and for starting the kernel. The checks stop an endless
# loop after ten, but importing everything takes long on a busy server.
SECONDS = 60
IMPORT_SECONDS = 300


def seconds(cell):
    imports = cell.metadata.get('nbgrader', {}).get('grade_id') == 'imports'
    return IMPORT_SECONDS if imports else SECONDS


c.Execute.timeout_func = seconds
c.Execute.startup_timeout = IMPORT_SECONDS
# Files handed in beside the notebook stand in for no module.
c.Execute.extra_arguments = ['--HistoryManager.hist_file=:memory:',
                             '--InteractiveShellApp.ignore_cwd=True']
# As usual, with another first step.
c.Autograde.autograde_preprocessors = [
    ExecuteToTheEnd, IgnorePattern, ClearMetadataPreprocessor, LimitOutput,
    SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
