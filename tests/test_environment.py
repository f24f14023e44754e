"""Room is asked for where much is going to be installed, and only there."""
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
import environment  # noqa: E402


def test_a_moved_environment_is_made_anew(monkeypatch, tmp_path):
    here, there = tmp_path / 'my book' / '.venv', tmp_path / 'moved'
    monkeypatch.setattr(environment, 'VENV', here)
    venv.create(here, with_pip=False)
    assert environment.venv_version() == sys.version_info[:2]
    here.rename(there)
    monkeypatch.setattr(environment, 'VENV', there)
    assert environment.venv_version() is None


@pytest.mark.parametrize(('new', 'there', 'refused'), [
    (True, True, True), (False, False, True), (False, True, False)])
def test_an_update_needs_no_room_for_pytorch_again(
        monkeypatch, tmp_path, capsys, new, there, refused):
    monkeypatch.setattr(environment, 'VENV', tmp_path)
    monkeypatch.setattr(environment.shutil, 'disk_usage',
                        lambda path: SimpleNamespace(free=2e9))
    packages = tmp_path / 'lib' / 'python3.11' / 'site-packages'
    (packages / ('torch' if there else 'pip')).mkdir(parents=True)
    if refused:
        with pytest.raises(SystemExit):
            environment.check_room(new)
        assert '2.0 GB are free' in capsys.readouterr().err
    else:
        environment.check_room(new)
