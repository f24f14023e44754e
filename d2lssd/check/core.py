"""How an answer is checked: compared with a right one on drawn inputs.

A wrong answer is not only refused. Each check knows what common mistakes
would give, and where the answer agrees with one of them, says its words.
"""
import contextlib
import contextvars
import copy
import ctypes
import inspect
import math
import numbers
import re
import textwrap
import threading
import time
import traceback

import torch
from torch.overrides import TorchFunctionMode

from d2lssd.check.compare import Raised, compare, outcome_of, plain, short

SECONDS = 10


class Miss(AssertionError):
    """An answer that is not right yet; its text says why.

    A notebook shows the text alone, without the traceback.
    """

    def _render_traceback_(self):
        return str(self).splitlines()


class _Stop(SystemExit):
    """Ends a thread; of all exceptions this one ends it without a word."""


class _Clock:
    """Runs an answer's code for so many seconds in all, and no longer.

    The code runs in a thread of its own, because that can be left behind:
    alarms exist neither on Windows nor outside the main thread, and neither
    they nor a trace function get past ``except:`` or a long sleep. Nothing
    in this process gets past a call into C that never lets others run.
    """

    def __init__(self):
        self.start = time.monotonic(), time.process_time()

    def over(self):
        """Whether time is up; on a busy machine it is not up so soon."""
        wall, work = time.monotonic(), time.process_time()
        wall, work = wall - self.start[0], work - self.start[1]
        return wall > SECONDS and (work > SECONDS / 2 or wall > 6 * SECONDS)

    def run(self, function, *args):
        outcome = {}

        def work():
            try:
                outcome['value'] = function(*args)
            except BaseException as error:  # SystemExit included
                outcome['error'] = error

        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(work,), daemon=True)
        thread.start()
        late = True
        try:
            passed = time.monotonic() - self.start[0]
            thread.join(max(0.1, SECONDS - passed))
            while (late := thread.is_alive()) and not self.over():
                thread.join(0.1)
        finally:  # an interrupt of the notebook leaves no thread either
            if late:
                _stop(thread)
        if late:
            raise TimeoutError
        if 'error' in outcome:
            raise outcome['error']
        return outcome['value']


def _stop(thread):
    """Raise `_Stop` in a thread, again and again where it is caught."""
    for _ in range(100):
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop))
        thread.join(0.01)


class _Count(TorchFunctionMode):
    """Counts calls into PyTorch."""

    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


class Check:
    """What all checks share: a name, a place in the book, what to say.

    Args:
        name: of the answer, as the exercise states it.
        page: path in the book of the page that explains it, without suffix.
        section: the heading there.
    """

    def __init__(self, name, page, section):
        self.name, self.page, self.section = name, page, section

    def miss(self, *lines):
        """Raise a `Miss` that says all this, then where to read on."""
        place = f'Read on: "{self.section}" in book/{self.page}.ipynb'
        raise Miss('\n'.join(
            textwrap.fill(' '.join(line.split()), 79, break_long_words=False,
                          break_on_hyphens=False)
            for line in [*lines, place] if line))


class Value(Check):
    """Checks a number or a list of whole numbers.

    Args:
        name, page, section: see `Check`.
        right: function without arguments: the right answer.
        kind: what is expected, in words, such as 'a number of pixels'.
        mistakes: dict from words to the wrong answer that they explain.
        think: a question to go on with, if none of them fits.
        tolerance: relative, of numbers.
    """

    def __init__(self, name, page, section, right, kind, mistakes, think,
                 tolerance=1e-9):
        super().__init__(name, page, section)
        self.right, self.kind, self.mistakes = right, kind, mistakes
        self.think, self.tolerance = think, tolerance
        self.__doc__ = (
            f'Check the exercise `{name}`.\n\nArgs:\n    answer: {kind}.\n\n'
            'Raises:\n    Miss: it is wrong; the text says more.')

    def __call__(self, answer):
        right = self.right()
        given = plain(answer)
        if answer is None or answer is ...:
            self.miss(f'{self.name} has no answer yet; expected {self.kind}.')
        if isinstance(right, list) != isinstance(given, list) or (
                type(given) in (bool, str)):
            self.miss(f'{self.name}: came {short(answer)}, expected '
                      f'{self.kind}.')
        if self._same(given, right):
            print(f'Right: {self.name} = {short(answer)}')
            return
        for words, wrong in self.mistakes.items():
            if self._same(given, wrong() if callable(wrong) else wrong):
                self.miss(f'{self.name}: {short(answer)} is not it.', words)
        self.miss(f'{self.name}: {short(answer)} is not it; expected '
                  f'{self.kind}.', self.think)

    def _same(self, given, right):
        given, right = (value if isinstance(value, list) else [value]
                        for value in (given, right))
        return len(given) == len(right) and all(
            isinstance(a, numbers.Real) and math.isclose(
                a, b, rel_tol=self.tolerance) for a, b in zip(given, right))


class Code(Check):
    """Checks a function on drawn inputs.

    Args:
        call: name and arguments of the answer, such as 'mirror(images,
            labels)'.
        page, section: see `Check`.
        right: the reference.
        inputs: function without arguments: list of tuples of arguments.
        mistakes: functions that are wrong in a common way; the docstring of
            each is what a student reads who made the mistake.
        gradient: numbers of the arguments through which one trains.
        larger: function without arguments: a small and a large input, for
            which a function without a loop makes as many calls.
        facts: function of the result and the arguments: what is compared, a
            dict whose keys are words. Without it the result itself is.
        devices: try another device; for tensors as first argument.
    """

    def __init__(self, call, page, section, right, inputs, mistakes,
                 gradient=(), larger=None, facts=None, devices=True):
        name, *names = re.findall(r'\w+', call)
        super().__init__(name, page, section)
        self.call, self.names = call, names
        self.right, self.inputs, self.mistakes = right, inputs, mistakes
        self.gradient, self.larger, self.facts = gradient, larger, facts
        self.devices = devices
        self.__doc__ = (
            f'Check the exercise `{self.name}`.\n\nArgs:\n    function: your '
            f'`{self.call}`.\n\nRaises:\n    Miss: it is wrong; the text says '
            'on which input, and how.')

    def __call__(self, function):
        self._callable(function)
        clock = _Clock()
        inputs = self.inputs()
        for args in inputs:
            self._values(clock, function, args)
        for args in inputs if self.gradient else ():
            self._gradient(clock, function, args)
        if self.devices:
            self._devices(clock, function, inputs[0])
        if self.larger:
            self._loop(clock, function)
        also = ', its gradient too' if self.gradient else ''
        print(f'Right: {self.name} agrees on {len(inputs)} inputs{also}')

    def _callable(self, function):
        if function is None or function is ...:
            self.miss(f'{self.name} has no answer yet; expected a function, '
                      f'{self.call}.')
        if not callable(function):
            self.miss(f'came {short(function)}, expected the function '
                      f'itself: check.{self.name}({self.name}), without '
                      'calling it.')

    def _values(self, clock, function, args):
        came = self._run(clock, function, args)
        right = outcome_of(self._view(self.right), copy.deepcopy(args))
        difference = compare(came, right)
        if not difference:
            return
        words = ''
        for mistake in self.mistakes:
            wrong = outcome_of(self._view(mistake), copy.deepcopy(args))
            if not isinstance(wrong, Raised) and compare(wrong, right) and (
                    not compare(came, wrong)):
                words = inspect.getdoc(mistake)
                break
        if isinstance(came, Raised) and not words:
            words = _where(came.error, function)
        self.miss(f'{self.name} misses on {self._said(args)}.',
                  _sentence(difference), words)

    def _view(self, function):
        if self.facts is None:
            return function
        return lambda *args: self.facts(function(*args), *args)

    def _run(self, clock, function, args, change=True):
        """The outcome of the answer; a `Miss` if it never comes."""
        given = copy.deepcopy(args)
        came = self._in_time(clock, self._view(function), given)
        if isinstance(came, Raised) and isinstance(came.error, Miss):
            self.miss(f'{self.name} misses on {self._said(args)}.',
                      str(came.error))
        for name, before, after in zip(self.names, args, given):
            if isinstance(before, torch.Tensor) and change and (
                    not torch.equal(before.nan_to_num(),
                                    after.nan_to_num())):
                self.miss(
                    f'{self.name} changes its input `{name}` in place, on '
                    f'{self._said(args)}.',
                    'The caller still needs it: work on a new tensor, or on '
                    f'`{name}.clone()`.')
        return came

    def _in_time(self, clock, function, args):
        try:
            return outcome_of(clock.run, (function, *args))
        except TimeoutError:
            self.miss(f'{self.name} did not come back within {SECONDS} '
                      f'seconds on {self._said(args)}.',
                      'Is there a loop that never ends? Check the condition '
                      'of each `while`, and that its variables change.')

    def _gradient(self, clock, function, args):
        args = list(args)
        for i in self.gradient:
            args[i] = args[i].detach().clone().requires_grad_()
        leaves = [args[i] for i in self.gradient]
        said = self._said(args)
        with torch.enable_grad():
            right = self.right(*args)
        came = self._in_time(clock, function, args)
        if not right.numel():
            return
        if isinstance(came, Raised) or not came.requires_grad:
            self.miss(
                f'{self.name} gives the right numbers, but no gradient gets '
                f'through, on {said}.',
                f'Came {short(came)}.' if isinstance(came, Raised) else '',
                'Nothing can be trained with it: `torch.tensor(…)` around '
                'results, `.item()`, `.tolist()`, `.numpy()`, `.detach()` and '
                '`no_grad` all cut the graph, and a leaf of it cannot be '
                'written to.')
        weights = torch.linspace(0.5, 1.5, right.numel()).to(right)

        def gradient(value):
            with torch.enable_grad():
                total = (value * weights.reshape(value.shape)).sum()
            return torch.autograd.grad(total, leaves, allow_unused=True)

        try:
            grads = gradient(came)
        except RuntimeError as error:
            self.miss(f'{self.name} gives the right numbers, but its gradient '
                      f'cannot be computed, on {said}.',
                      str(error).partition(';')[0],
                      'Do not change a tensor in place (`+=`, `x[i] = …`, '
                      '`clamp_`) once something was computed from it.')
        for i, mine, other in zip(self.gradient, grads, gradient(right)):
            mine = torch.zeros_like(other) if mine is None else mine
            if difference := compare(mine, other):
                words = self._words_for(args, i, right, mine, gradient)
                self.miss(f'{self.name} gives the right numbers but a wrong '
                          f'gradient for `{self.names[i]}`, on {said}.',
                          _sentence(difference), words)

    def _words_for(self, args, i, right, mine, gradient):
        """What explains a wrong gradient for argument i."""
        if not mine.isfinite().all():
            return ('A branch that is not taken still gives nan where its own '
                    'gradient is not finite: keep its input away from there.')
        for mistake in self.mistakes:
            with torch.enable_grad():
                wrong = outcome_of(mistake, args)
            if isinstance(wrong, Raised) or compare(wrong, right):
                continue
            if wrong.requires_grad:
                grads = dict(zip(self.gradient, gradient(wrong)))
                if grads[i] is not None and not compare(mine, grads[i]):
                    return inspect.getdoc(mistake)
        return 'Part of it may be cut off from the graph.'

    def _devices(self, clock, function, args):
        """A tensor without contents shows where others are made."""
        kinds = ['meta']
        if torch.cuda.is_available():
            kinds.append('cuda')
        for kind in kinds:
            moved = [arg.to(kind) if isinstance(arg, torch.Tensor) else arg
                     for arg in args]
            try:
                came = outcome_of(clock.run, (self._view(function), *moved))
            except TimeoutError:
                continue
            error = came.error if isinstance(came, Raised) else None
            stray = (isinstance(error, RuntimeError) and 'device' in
                     str(error) and not isinstance(error,
                                                   NotImplementedError))
            parts = came if isinstance(came, list | tuple) else [came]
            stray |= any(isinstance(part, torch.Tensor)
                         and part.device.type != kind for part in parts)
            if stray:
                self.miss(
                    f'{self.name} works on the CPU only.',
                    'A tensor that it makes does not go where its input is. '
                    f'Make it with `device={self.names[0]}.device`.')

    def _loop(self, clock, function):
        counts = []
        for args in self.larger():
            with_count = _Count()

            def counted(*args, mode=with_count):
                with mode:
                    return function(*args)
            try:
                clock.run(counted, *args)
            except TimeoutError:
                with_count.calls = math.inf
            counts.append(with_count.calls)
        if counts[1] > 2 * counts[0] + 10:
            small, large = (tuple(args[0].shape) for args in self.larger())
            self.miss(
                f'{self.name} is right but loops: {counts[0]} calls into '
                f'PyTorch for {self.names[0]} of shape {small}, '
                + (f'{counts[1]} for {large}.' if counts[1] < math.inf
                   else f'and no end for {large}.'),
                'Let shapes broadcast instead: write it for whole tensors, '
                'without a `for`.')

    def _said(self, args):
        return ', '.join(f'{name} = {short(arg)}'
                         for name, arg in zip(self.names, args))


def _where(error, function):
    """The line of the answer's own code at which it failed."""
    code = getattr(function, '__code__', None)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if code and frame.f_code.co_filename == code.co_filename:
            with contextlib.suppress(OSError, IndexError):
                source = inspect.findsource(frame.f_code)[0][line - 1]
                return f'It happened here: {source.strip()}'
    return ''


def _sentence(text):
    return f'{text[0].upper()}{text[1:]}.'
