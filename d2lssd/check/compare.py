"""Whether two outcomes agree, and how to say in few words how they do not."""
import contextlib
import math
import numbers

import torch

SHOWN = 12  # numbers of a tensor that are shown, at most


class Raised:
    """An outcome that is an exception."""

    def __init__(self, error):
        self.error = error


def outcome_of(function, args):
    """What a call gives, be it a value or an exception."""
    try:
        return function(*args)
    except (TimeoutError, KeyboardInterrupt):
        raise
    except BaseException as error:
        return Raised(error)


def compare(came, right):
    """Say how an outcome differs from the right one.

    Args:
        came: whatever came.
        right: tensor, number, bool, string, `Raised`, or a list, tuple or
            dict of these.

    Returns:
        str, empty if they agree; otherwise what came and what was expected.
    """
    if isinstance(right, Raised):
        kind = type(right.error)
        if isinstance(came, Raised) and isinstance(came.error, kind):
            return ''
        return f'came {short(came)}, expected a {kind.__name__}'
    if isinstance(came, Raised):
        expected = ('no error' if isinstance(right, dict)
                    else short(right, False))
        return f'came {short(came)}, expected {expected}'
    if isinstance(right, dict):
        for name, value in right.items():
            if difference := compare(came[name], value):
                return f'{name}: {difference}'
        return ''
    if isinstance(right, torch.Tensor):
        return _compare_tensors(came, right)
    if isinstance(right, list | tuple):
        if not isinstance(came, list | tuple):
            came = plain(came)
        if not isinstance(came, list | tuple) or len(came) != len(right):
            return f'came {short(came)}, expected {short(right, False)}'
        for i, (mine, other) in enumerate(zip(came, right)):
            if difference := compare(mine, other):
                return f'entry {i}: {difference}'
        return ''
    came = plain(came)
    if isinstance(right, float) and isinstance(came, numbers.Real):
        same = math.isclose(came, right, rel_tol=1e-4, abs_tol=1e-6)
    else:
        same = type(came) is type(right) and came == right
    return '' if same else f'came {short(came)}, expected {short(right)}'


def _compare_tensors(came, right):
    if came is None:
        return ('came None (is there a `return`?), expected '
                f'{short(right, False)}')
    if not isinstance(came, torch.Tensor):
        return f'came {short(came)}, expected {short(right, False)}'
    if came.shape != right.shape:
        return (f'came shape {tuple(came.shape)}, expected '
                f'{tuple(right.shape)}')
    if came.dtype != right.dtype:
        as_input = (right.is_floating_point() or right.dtype == torch.uint8)
        return (f'came {_kind(came)}, expected {_kind(right)}'
                + ', as the input is' * as_input)
    precise = right.dtype == torch.float64
    near = (came.detach() == right) if not right.is_floating_point() else (
        torch.isclose(came.detach(), right.detach(), equal_nan=True,
                      rtol=1e-6 if precise else 1e-4,
                      atol=1e-8 if precise else 1e-5))
    if near.all():
        return ''
    place = (~near).nonzero()[0].tolist()
    a, b = (value.detach()[tuple(place)].item() for value in (came, right))
    at = f' at {place}' if place else ''
    return (f'came {_number(a)}{at}, expected {_number(b)}; '
            f'{int((~near).sum())} of {near.numel()} numbers differ')


def plain(value):
    """A number, or lists of numbers, out of tensors, arrays and tuples."""
    with contextlib.suppress(Exception):
        if hasattr(value, 'tolist'):
            return value.tolist()
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
    return value


def _kind(tensor):
    return str(tensor.dtype).removeprefix('torch.')


def _number(value):
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def short(value, values=True):
    """A value in few words; its contents only where they are few."""
    if isinstance(value, Raised):
        first = str(value.error).strip().split('\n')[0][:200]
        return f'{type(value.error).__name__}: {first}'.removesuffix(': ')
    if isinstance(value, torch.Tensor):
        if values and 0 < value.numel() <= SHOWN and not value.is_meta:
            return f'{_rounded(value.tolist())} ({_kind(value)})'
        return f'a {_kind(value)} tensor {tuple(value.shape)}'
    if isinstance(value, torch.nn.Module):
        return f'a {type(value).__name__}'
    if isinstance(value, list | tuple) and not values:
        return f'a {type(value).__name__} of {len(value)}'
    text = repr(_rounded(value))
    return text if len(text) <= 120 else f'{text[:117]}...'


def _rounded(value):
    if isinstance(value, list | tuple):
        return type(value)(_rounded(v) for v in value)
    return round(value, 4) if isinstance(value, float) else value
