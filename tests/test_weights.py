"""The shipped weights are the ones that their cards describe."""
import pytest
from safetensors.torch import load_file

import d2lssd
from d2lssd.data.files import checksum
from d2lssd.prediction import SHIPPED

NAMES = sorted(path.stem for path in SHIPPED.glob('*.safetensors'))


def test_both_recipes_are_shipped():
    assert NAMES == ['balanced', 'source']


@pytest.mark.parametrize('name', NAMES)
def test_no_weight_differs_from_what_was_trained(name):
    state = load_file(SHIPPED / f'{name}.safetensors')
    assert checksum(state) == d2lssd.weights_card(name)['crc32']


@pytest.mark.parametrize('name', NAMES)
def test_the_card_tells_how_to_train_the_same_again(name):
    card = d2lssd.weights_card(name)
    recipe = d2lssd.Recipe(**{
        key: tuple(value) if isinstance(value, list) else value
        for key, value in card['recipe'].items()})
    assert recipe == d2lssd.RECIPES[name]
    assert len(card['history']) == recipe.num_epochs


@pytest.mark.parametrize(('name', 'exam'), [
    ('balanced', 'one banana'), ('balanced', 'no banana'),
    ('source', 'one banana')])
def test_the_card_states_what_the_weights_reach(name, exam):
    """Measured again, up to what another processor rounds differently."""
    stated = d2lssd.weights_card(name)['exams'][exam]
    result = d2lssd.examine(d2lssd.load_pretrained(name), [exam])[exam]
    for key in ('AP', 'AP50', 'AP75'):
        assert result[key] == pytest.approx(stated[key], abs=0.01, nan_ok=True)
    assert abs(result['false_alarms'] - stated['false_alarms']) <= 2


def test_the_default_finds_what_the_source_recipe_misses():
    balanced, source = (d2lssd.weights_card(name)['exams']['one banana']
                        for name in ('balanced', 'source'))
    assert balanced['AP50'] > 0.95
    assert balanced['AP50'] > source['AP50']
