"Designs, groups and plans in real runs, by the commands."
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer_influence.basics.errors import InputError
from transfer_influence.basics.recipe import (
    DesignSpec, Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec, to_toml)
from transfer_influence.records.store import committed, open_run
from transfer_influence.records.read_run import read_predictions
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.fleet import open_fleet

BIN = Path(sys.executable).parent
GROUPS = dict(round=['O', 'G', 'B'], straight=['T', 'I', 'Z'], other=['S', 'q'], more=['H', 'N'])
RECIPE = Recipe(source=SourceSpec(classes=tuple('OGBTIZSqHN'), size=10), targets=(TargetSpec('digits', epochs=3),),
                training=TrainSpec(width=8, epochs=1), run=RunSpec(models=12, seed=1))


def ti(command, *args):
    "Run an installed command; it must work."
    r = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, timeout=200)
    assert r.returncode == 0, r.stderr
    return r.stdout


def file(folder, recipe):
    (folder/'recipe.toml').write_text(to_toml(recipe), encoding='utf-8')
    return folder/'recipe.toml'


def test_groups(tmp_path):
    "Groups of classes are the units, from the recipe to the influence file."
    recipe = replace(RECIPE, design=DesignSpec(alpha=.5, groups=GROUPS))
    ti('ti-run', file(tmp_path, recipe), '--out', tmp_path/'run', '--workers', 1, '--quiet')
    store = open_run(tmp_path/'run')
    trained = store.group('r')['subset'][:]
    assert (trained[:, :3] == trained[:, :1]).all() and set(read_predictions(store).masks.sum(1)) == {2}
    with np.load(tmp_path/'run/influence.npz') as z: assert list(z['class_names']) == list(GROUPS)
    assert 'straight' in (tmp_path/'run/report.html').read_text('utf-8')
    assert open_fleet(tmp_path/'run').recipe == recipe


def test_groups_that_do_not_fit(tmp_path):
    "A class without a group is named before anything is trained."
    recipe = replace(RECIPE, design=DesignSpec(groups={k: v for k, v in GROUPS.items() if k != 'more'}))
    with pytest.raises(InputError, match="2 classes have no group, such as 'H'"): begin_run(recipe, tmp_path/'run')


def test_auto_stays(tmp_path):
    "What `auto` stood for when a run began, it stands for when the run grows."
    few = replace(RECIPE, design=DesignSpec(design='auto'), run=RunSpec(models=8))
    first = begin_run(few, tmp_path/'run').group('r')['subset'][:]
    store = begin_run(replace(few, run=RunSpec(models=60)), tmp_path/'run')
    assert store.get('fleet.json')['design'] == 'exact'
    assert np.array_equal(store.group('r')['subset'][:8], first)


def test_repeats(tmp_path):
    "The first subsets are there twice."
    masks = begin_run(replace(RECIPE, design=DesignSpec(repeats=4)), tmp_path/'run').group('r')['subset'][:]
    assert np.array_equal(masks[:4], masks[4:8])


def test_until_reliability(tmp_path):
    "The fleet ends when its table is reliable enough; asked again, it has nothing to do."
    clear = replace(RECIPE, design=DesignSpec(alpha=.3), training=replace(RECIPE.training, width=16, epochs=4))
    command = file(tmp_path, clear), '--out', tmp_path/'run', '--models', 300, '--until-reliability', .5, '--quiet'
    said = ti('ti-run', *command)
    done = len(committed(open_run(tmp_path/'run')))
    assert 25 <= done < 300 and 'the reliability of 0.5 is reached' in said and 'were not needed' in said
    assert 'is reached already' in ti('ti-run', *command) and len(committed(open_run(tmp_path/'run'))) == done
    plan = json.loads(ti('ti-plan', tmp_path/'run', '--json'))
    assert plan['plan']['pilot'] == done and plan['variance']['n_models'] == done


def test_methods(tmp_path):
    "All methods from the command line, and without torch."
    rng = np.random.default_rng(0)
    masks = rng.random((80, 6)) < .5
    np.savez(tmp_path/'own.npz', masks=masks, outputs=masks @ rng.normal(size=(6, 5)) + rng.normal(size=(80, 5)))
    for method in ('dim', 'dim_shrunk', 'ridge', 'mixed', 'lasso'):
        said = ti('ti-influence', tmp_path/'own.npz', '--out', tmp_path/'i.npz', '--method', method, '--csv', tmp_path/'t.csv')
        assert f'method {method}' in said
        with np.load(tmp_path/'i.npz') as z: assert np.isfinite(z['influence']).all() and str(z['method']) == method
    code = '''if 1:
        import numpy as np, sys
        from transfer_influence.records.predictions import load_predictions
        from transfer_influence.influence.result import class_influence
        from transfer_influence.influence.lds import lds
        from transfer_influence.influence.reliability import split_half, variance_report
        from transfer_influence.influence.planning import expected_gain, plan_models
        p = load_predictions(sys.argv[1])
        for m in ('dim', 'ridge', 'mixed', 'lasso'): print(class_influence(p, method=m).mean())
        print(split_half(p), variance_report(p), plan_models(p), lds(p), expected_gain(class_influence(p).mean()))
        assert 'torch' not in sys.modules and 'fastai' not in sys.modules'''
    subprocess.run([sys.executable, '-c', code, tmp_path/'own.npz'], check=True, timeout=100)


def test_bad_methods(tmp_path):
    "One line each."
    rng = np.random.default_rng(0); masks = rng.random((30, 4)) < .5
    np.savez(tmp_path/'own.npz', masks=masks, outputs=rng.normal(size=(30, 3)))
    for args, word in [(('--method', 'ols'), 'known: dim'), (('--zero', 'none'), "must be 'average' or 'absent'")]:
        r = subprocess.run([BIN/'ti-influence', tmp_path/'own.npz', '--out', tmp_path/'i.npz', *args], capture_output=True, text=True)
        assert r.returncode == 1 and word in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr
    r = subprocess.run([BIN/'ti-design', '10', '30', '--alpha', '.2', '--design', 'foldover'], capture_output=True, text=True)
    assert r.returncode == 1 and 'for alpha = .5' in r.stderr
