"""The benchmark: fair turns, right ratios, a record that loses nothing."""
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))
import bench  # noqa: E402

TARGETS, IMPORT = 'targets, 1 box an image', 'import, beyond torch'


@pytest.fixture
def record(monkeypatch, tmp_path):
    """Nothing is measured or installed, and the record is elsewhere."""
    monkeypatch.setattr(bench, 'RECORD', tmp_path / 'bench.json')
    monkeypatch.setattr(bench, 'ROOT', tmp_path)
    monkeypatch.setattr(bench, 'FOLDER', tmp_path)
    monkeypatch.setattr(bench, 'install_reference', lambda: None)
    monkeypatch.setattr(bench, 'measure', lambda work, side: {
        'seconds': 2.0 if side == 'reference' else 0.5})
    return bench.RECORD


def test_the_sides_take_turns(monkeypatch):
    calls = []

    def measure(work, side):
        calls.append((work, side))
        return {'seconds': len(calls)}
    monkeypatch.setattr(bench, 'measure', measure)
    result = bench.bench([TARGETS, IMPORT], 3)
    one_round = [(work, side) for work in (TARGETS, IMPORT)
                 for side in ('reference', 'd2lssd')]
    assert calls == one_round * 3
    assert result[IMPORT]['d2lssd']['seconds'] == {
        'median': 8, 'all': [4, 8, 12]}


@pytest.mark.parametrize(('work', 'key', 'expected'), [
    (TARGETS, 'seconds', 4), ('memory of training', 'bytes', 4),
    ('training', 'pictures/s', 0.25), ('drawing 1100 pictures', 'seconds',
                                       None)])
def test_a_ratio_above_one_is_always_better(work, key, expected):
    sides = {'reference': {key: {'median': 8.0}},
             'd2lssd': {key: {'median': 2.0}}}
    if expected is None:
        del sides['reference']
    assert bench.ratio(work, sides) == expected


def test_the_record_keeps_what_was_not_measured_again(record, capsys):
    bench.main([TARGETS, '--rounds', '2'])
    bench.main([IMPORT, '--rounds', '1'])
    [kept] = json.loads(record.read_text())
    assert set(kept['works']) == {TARGETS, IMPORT}
    assert kept['works'][TARGETS]['reference']['seconds'] == {
        'median': 2.0, 'all': [2.0, 2.0]}
    assert kept['machine']['cores'] >= 1
    out = capsys.readouterr().out
    assert f'| {TARGETS} | 2000 ms | 500 ms | 4.0× |' in out
    assert (record.parent / 'bench.png').stat().st_size > 1000
    bench.main(['--list'])
    assert '4.0×' in capsys.readouterr().out


def test_another_machine_has_a_record_of_its_own(record, monkeypatch, capsys):
    here = bench.machine()
    there = {**here, 'processor': 'Abacus', 'bfloat16': False}
    bench.main([TARGETS, '--rounds', '1'])
    monkeypatch.setattr(bench, 'machine', lambda: there)
    bench.main([IMPORT, '--rounds', '1'])
    monkeypatch.setattr(bench, 'machine', lambda: {**here, 'torch': '9'})
    bench.main([IMPORT, '--rounds', '1'])
    first, second = json.loads(record.read_text())
    assert set(first['works']) == set(first['commits']) == {TARGETS, IMPORT}
    assert set(second['works']) == set(second['commits']) == {IMPORT}
    assert first['machine']['torch'] == '9'
    assert second['machine'] == there
    bench.main(['--list'])
    assert ('cores of Abacus, without units for bfloat16'
            in capsys.readouterr().out)


def test_stopped_halfway_the_record_is_as_it_was(record, monkeypatch):
    record.write_text('[]')

    def stop(work, side):
        raise KeyboardInterrupt
    monkeypatch.setattr(bench, 'measure', stop)
    with pytest.raises(KeyboardInterrupt):
        bench.main([TARGETS])
    assert record.read_text() == '[]'


@pytest.mark.parametrize('words', [['nothing'], [TARGETS, '--rounds', '0']])
def test_bad_words_are_refused_with_those_that_are_known(words, capsys):
    with pytest.raises(SystemExit):
        bench.main(words)
    error = capsys.readouterr().err
    assert 'at least 1' in error or TARGETS in error


@pytest.mark.parametrize('work', [TARGETS, IMPORT])
def test_the_package_is_measured_in_a_process_of_its_own(work):
    assert bench.measure(work, 'd2lssd')['seconds'] > 0


def test_a_measurement_that_fails_says_why():
    with pytest.raises(SystemExit, match='bench: nothing, x:(.|\n)*KeyError'):
        bench.measure('nothing', 'x')


def test_the_chapter_has_what_it_reads():
    records = json.loads((ROOT / 'book/_data/bench.json').read_text())
    for record in records[:3]:  # those that follow are a reader's
        works = record['works']
        assert set(works['training']) == {*bench.STEPS, 'd2lssd'}
        for work in bench.WORKS:
            assert work in works or 'GPU' in work, f'make bench: {work}'
