"Source units of unequal size, and outputs of which lower is better, from the draw to the page."
from dataclasses import replace

import numpy as np
import pytest

import transfer_influence as ti

NAMES = [f'site {i}' for i in range(12)]
SIZES = np.array([900, 700, 500, 400, 300, 200, 150, 100, 60, 40, 20, 10.])
TRUE = np.r_[0., 1.5, -1.5, np.zeros(9)]  # per row: site 1 is good, site 2 is bad


def error_by_share(subset, seed, device):  # a training of equal length on rows in proportion to the sizes
    return 3 - subset.shares() @ TRUE + np.random.default_rng(seed).normal(0, .05)


def on_all(model): return np.full(40, model)


def own(design='equal_data', alpha=.4, models=120, **target):
    target = ti.OwnTarget(40, **(dict(output='squared error', better='lower') | target))
    return ti.OwnTraining(error_by_share, on_all, ti.SourceUnits(NAMES, SIZES, 'rows'), dict(task=target),
                          design=ti.DesignSpec(design=design, alpha=alpha), run=ti.RunSpec(models=models))


def test_a_fleet_of_unequal_units(tmp_path):
    fleet = ti.Fleet(own(), tmp_path/'run'); fleet.run(engine='here', quiet=True)
    p = fleet.predictions(); share = p.masks @ SIZES/SIZES.sum()
    assert abs(share.mean() - .4) < .02 and share.std() < .04 and p.masks.sum(1).std() > .5
    assert (p.sizes == SIZES).all() and p.direction() == 'lower'
    r = ti.class_influence(p).mean()
    assert r.zero == 'data' and 'in place of as much other data' in repr(r) and 'lower is better' in repr(r)
    assert [r.top(1)[0].name, r.bottom(1)[0].name] == ['site 1', 'site 2'] and r.top(1)[0].influence < 0
    with pytest.raises(ti.InputError, match='in place of as much other data'): ti.class_influence(p, zero='absent')
    ti.save_predictions(p, tmp_path/'p.npz'); again = ti.load_predictions(tmp_path/'p.npz')
    assert (again.sizes == SIZES).all() and repr(ti.class_influence(again).mean()) == repr(r)
    r.save(tmp_path/'t.npz'); assert repr(ti.load_influence(tmp_path/'t.npz')).split('\n')[1:] == repr(r).split('\n')[1:]


def test_a_run_goes_on_with_the_same_sizes_only(tmp_path):
    ti.Fleet(own(models=4), tmp_path/'run').run(engine='here', quiet=True)
    longer = ti.Fleet(own(models=6), tmp_path/'run'); longer.run(engine='here', quiet=True)
    assert longer.complete and longer.verify().ok
    other = replace(own(models=8), sizes=SIZES[::-1])
    with pytest.raises(ti.InputError, match='the sizes of the source units are others'):
        ti.Fleet(other, tmp_path/'run').run(engine='here', quiet=True)
    turned = own(models=8, better='higher')
    with pytest.raises(ti.InputError, match="better of 'task' was 'lower' and is 'higher'"):
        ti.Fleet(turned, tmp_path/'run').run(engine='here', quiet=True)


def test_a_unit_larger_than_a_subset(tmp_path):
    with pytest.raises(ti.InputError, match="'site 0' has 27% of all data, more than the 25% of a subset"):
        ti.Fleet(own(alpha=.25), tmp_path/'run').run(engine='here', quiet=True)
    assert not (tmp_path/'run').exists()


def test_classes_of_images_have_sizes_too(tmp_path):
    r = ti.load_recipe('glyphs-digits'); letters = r.source.classes[:12]
    r = replace(r, source=replace(r.source, classes=letters), design=replace(r.design, design='equal_data', alpha=.4),
                run=replace(r.run, models=4))
    fleet = ti.Fleet(r, tmp_path/'run'); fleet.run(engine='here', quiet=True)
    p = fleet.predictions(); assert len(p.sizes) == 12 and fleet.verify().ok
    groups = replace(r, design=replace(r.design, groups={'a': letters[:3], 'b': letters[3:6], 'c': letters[6:9],
                                                         'd': letters[9:]}, alpha=.5))
    fleet = ti.Fleet(groups, tmp_path/'groups'); fleet.run(engine='here', quiet=True)
    assert len(fleet.predictions().sizes) == 4


@pytest.mark.parametrize('wrong, said', [([5, 0], "such as 'b': leave them out"), ([5, np.nan], 'no data'), ([1], 'as many sizes'),
                                         (dict(a=5), "lack 1 of 2 units, such as 'b'"), (['x', 'y'], 'sizes')])
def test_sizes_that_are_none(wrong, said):
    with pytest.raises(ti.InputError, match=said): ti.SourceUnits(['a', 'b'], wrong)
