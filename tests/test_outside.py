"Situations from public reports that no other test holds; what was tried, and what happened, is in outside_reports.md."
import copy
import json
import os
import pickle
import subprocess
import sys
import time
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import false_discovery_control

import transfer_influence as ti
from transfer_influence.design.masks import int_seed
from transfer_influence.fleet.progress import run_status
from transfer_influence.images.sources import load_source, load_target
from transfer_influence.influence.tails import q_values
from transfer_influence.influence.methods import InfluenceRegressor

NAMES = list('abcdef')


def drawn(m=60, K=6, n=12, seed=0, effects=None, sd=1.):
    rng = np.random.default_rng(seed); z = np.asarray(ti.sample_masks(m, NAMES[:K], seed=seed))
    return z, z @ (rng.normal(size=K) if effects is None else np.array(effects))[:, None] + sd*rng.normal(size=(m, n))


def said(f):
    "What a function gives, and what it warns of."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always'); found = f()
    return found, [str(w.message) for w in told if w.category is UserWarning]


def refused(f, words):
    with pytest.raises(ti.InputError, match=words) as e: f()
    assert '\n' not in str(e.value)


def pictures(folder, colour='RGB', size=20, n=3):
    folder.mkdir(parents=True, exist_ok=True); rng = np.random.default_rng(0)
    for i in range(n): Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).convert(colour).save(folder/f'{i}.png')


def own(models=6, names=NAMES, labels=(0, 1, 0, 1), evaluate=None, seed=0, **fields):
    def train(subset, seed, device): return np.random.default_rng(seed).normal(size=len(labels)) + subset.mask[0]
    target = ti.OwnTarget(labels, ('x', 'y'), **dict(scores=False) | fields)
    return ti.OwnTraining(train, evaluate or (lambda model: model), names, {'t': target}, run=ti.RunSpec(models=models, seed=seed))


def run(o, out, **options): return ti.Fleet(o, out).run(**dict(engine='here', quiet=True) | options)


# estimates

def test_models_that_share_a_subset():
    "Three trainings of each subset count as one: their mean gives the same table and the same errors; it is said."
    z = np.random.default_rng(3).random((100, 12)) < .5; y = np.random.default_rng(1).normal(size=(100, 3, 4))
    one = ti.class_influence(ti.from_arrays(z, y.mean(1)))
    three, told = said(lambda: ti.class_influence(ti.from_arrays(np.repeat(z, 3, 0), y.reshape(300, 4))))
    assert np.allclose(three.values, one.values) and np.allclose(three.stderr, one.stderr)
    assert any('300 models share 100 subsets' in t for t in told)


def test_classes_that_come_together():
    z, y = drawn(200, effects=[2, 0, 0, 0, 0, 0]); z[:, 1] = z[:, 0]
    _, told = said(lambda: ti.from_arrays(z, y, NAMES)); assert any('always together' in t and '(a, b)' in t for t in told)


def test_a_class_that_needs_another():
    "The difference in means gives it a part of the other's effect; a regression on all classes does not."
    z, _ = drawn(400); z[:, 1] &= z[:, 0]; y = 2*z[:, :1] + np.random.default_rng(1).normal(size=(400, 10))
    with pytest.warns(UserWarning, match="'a' and 'b' are mostly in the same models"): p = ti.from_arrays(z, y, NAMES)
    ridge = ti.class_influence(p, method='ridge').mean()
    assert abs(ridge['b', 0]) < ridge['a', 0]/3


def test_names_alike():
    z, y = drawn(80)
    for pair in (['Cat', 'cat'], ['dog', 'dog '], ['Caf\xe9', 'Cafe\u0301']):
        with pytest.warns(UserWarning, match='differ by case, spaces or the form of an accent only'): ti.from_arrays(z, y, [*pair, *NAMES[2:]])


def test_what_never_varies():
    z, y = drawn(80); flat = ti.from_arrays(z, np.full_like(y, 3)); y[:, 2] = 1
    r = ti.class_influence(ti.from_arrays(z, y)); assert (r.values[:, 2] == 0).all() and (r.qvalues[:, 2] == 1).all()
    assert np.isfinite(ti.lds(ti.from_arrays(z, y)).score)
    for f in (ti.class_influence, ti.lds, ti.split_half, ti.plan_models, ti.variance_report): refused(lambda: f(flat), 'the same for all models')


def test_groups_without_spread():
    "Few models that agree by chance prove nothing: no p-value is 0, and nothing is found where nothing is."
    rng = np.random.default_rng(0)
    for m in (6, 8, 10):
        z = np.asarray(ti.sample_masks(m, range(10), seed=m)); y = (rng.random((m, 300)) < .8).astype(int)
        r = ti.class_influence(ti.from_arrays(z, {'correct': y}), missing='mask')
        assert np.nanmin(r.pvalues) > 0 and not (r.qvalues < .1).any()
    z = rng.random((300, 6)) < .5; z[:, 0] = np.arange(300) < 3
    p = ti.class_influence(ti.from_arrays(z, {'correct': (rng.random((300, 400)) < .9).astype(int)})).pvalues[0]
    assert (p < .05).mean() < .1


def test_tools_of_scikit_learn():
    from sklearn.base import clone
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    z, y = drawn(n=1); r = InfluenceRegressor('ridge'); refused(lambda: r.predict(z), 'nothing is fitted yet')
    assert clone(r).method == 'ridge' and np.isclose(r.fit(z, y).score(z, y), r2_score(y, r.predict(z)))
    assert GridSearchCV(InfluenceRegressor(), {'method': ['ridge', 'dim']}, cv=3).fit(z, y[:, 0]).best_params_
    assert len(cross_val_score(InfluenceRegressor(), z, y[:, 0], cv=3)) == 3 and len(make_pipeline(r).fit(z, y).predict(z)) == 60
    refused(lambda: r.predict(z[:, :3]), 'a column for each of 6 classes')


def test_one_model_gone_wrong():
    z, y = drawn(); y[7] = 1e7
    assert any('model 7 is' in t and 'times as far from the others' in t for t in said(lambda: ti.from_arrays(z, y))[1])


def test_numbers_of_classes_are_no_scores(tmp_path):
    z, y = drawn(80); p = ti.from_arrays(z, {'margin': y, 'predicted': np.arange(y.size).reshape(y.shape) % 5})
    for f in (ti.class_influence, ti.lds, ti.split_half, ti.plan_models, ti.variance_report, lambda p, output: ti.make_report(p, tmp_path/'p.html', output)):
        refused(lambda: f(p, output='predicted'), 'numbers of classes')


def test_q_values_are_those_of_scipy():
    p = np.random.default_rng(0).random((40, 5)); p[:3] = p[3]; p[3, 2] = np.nan; ok = ~np.isnan(p)
    assert np.allclose(q_values(p)[ok], false_discovery_control(p[ok])) and np.isnan(q_values(p)[3, 2])


def test_sure_images_lose_no_digits():
    "Probabilities near 1 differ little, and that is no fault; numbers near a million do, and it is said."
    z, y = drawn(); y = (1/(1 + np.exp(-9*y))).astype(np.float32); y[:, 0] = 1 - y[:, 0]*1e-6
    assert not said(lambda: ti.from_arrays(z, {'probability': y}))[1]
    assert any('last digits only' in t for t in said(lambda: ti.from_arrays(z, y + np.float32(1e6)))[1])


# images and labels

SOURCE = ti.SourceSpec(name='s', path='?', size=20, channels=3)


def test_a_part_without_a_class(tmp_path):
    for c in 'abc': pictures(tmp_path/'train'/c); pictures(tmp_path/'test'/c) if c != 'b' else None
    refused(lambda: load_target(ti.TargetSpec('t', str(tmp_path)), SOURCE), r"only in the first \['b'\]")


def test_names_in_either_form():
    z, y = drawn(K=3); one, two = (unicodedata.normalize(f, 'Café') for f in ('NFC', 'NFD'))
    r = ti.class_influence(ti.from_arrays(z, y, [two, 'x', 'Bar'])); assert (r[one] == r[two]).all()


def test_names_that_are_no_text():
    "Latin letters of an old archive, which Python hides in half signs: refused before a page or a table is written."
    z, y = drawn(K=3, n=3); bad = 'caf\udce9'
    for more in (dict(class_names=[bad, 'b', 'c']), dict(labels=[bad, 'b', 'c']), dict(target=bad), dict(outputs={bad: y})):
        refused(lambda: ti.from_arrays(**dict(masks=z, outputs=y) | more), 'are not UTF-8')


def test_numbered_folders(tmp_path):
    "They are sorted as text, and each image keeps the name of its folder."
    for c in range(12): pictures(tmp_path/str(c), n=1)
    s = ti.image_folder(tmp_path, 20); assert s.class_names[2] == '10' and sorted(s.class_names, key=int)[10] == '10'


def test_the_first_image_is_not_the_set(tmp_path):
    for c in 'abc': pictures(tmp_path/c)
    def told(size, channels): return said(lambda: load_source(ti.SourceSpec(name='s', path=str(tmp_path), size=size, channels=channels)))[1]
    pictures(tmp_path/'a', 'L', n=1)
    assert '8 of 9 images' in told(20, 1)[0] and 'the colour is lost' in told(20, 1)[0] and not told(20, 3)
    pictures(tmp_path/'a', size=400, n=1); assert '8 of 9 images' in told(64, 3)[0] and 'enlarged' in told(64, 3)[0]


def test_labels_and_parts_of_an_own_target(tmp_path):
    for labels in ([1, 2, 1, 2], [0, 1, -1, 0]): refused(lambda: own(labels=labels), 'must lie between 0 and 1')
    refused(lambda: own(labels=[0, 1, .5, 0]), 'not such as 0.5')
    refused(lambda: own(select=[0, 3]), 'select must hold 0 and 1 only, not 3; a yes or no for each image, no row numbers')
    run(own(labels=['x', 'y', 'x', 'y']), tmp_path/'run'); assert ti.Fleet(own(), tmp_path/'run').predictions().labels.tolist() == [0, 1, 0, 1]


def test_lists_that_are_no_masks():
    z, y = drawn(); refused(lambda: ti.from_arrays([list(np.flatnonzero(r)) for r in z], y), 'must hold 0 and 1 only')
    refused(lambda: ti.from_arrays([list(np.flatnonzero(r))[:2 + i % 2] for i, r in enumerate(z)], y), 'rows of different lengths')
    refused(lambda: ti.from_arrays(z, [list(r)[:4 + i % 2] for i, r in enumerate(y)]), 'rows of different lengths')
    refused(lambda: ti.from_arrays([['a', 'b']]*60, y), 'masks are text')


# training and runs

def test_a_script_without_a_guard(tmp_path):
    "Workers do not run it again."
    (tmp_path/'script.py').write_text("""
from transfer_influence.fleet.engine import LocalEngine
print('once', flush=True)
with LocalEngine(1, gpus=0) as engine: print(len(list(engine.tasks(abs, [1, -2]))))
""")
    r = subprocess.run([sys.executable, tmp_path/'script.py'], capture_output=True, text=True, timeout=60)
    assert r.stdout.split() == ['once', '2'] and not r.stderr, r.stderr


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_scores_of_any_precision(tmp_path, dtype):
    scores = torch.tensor([[2., 0], [0, 2], [2, 0], [0, 2]], dtype=dtype, requires_grad=True)
    for k, given in enumerate((scores, list(scores), scores.tolist())):
        o = own(3, scores=True, evaluate=lambda model: given); assert run(o, tmp_path/str(k)).done == 3
        assert (ti.Fleet(o, tmp_path/str(k)).predictions().outputs['margin'] == 2).all()


def test_probabilities_are_not_taken_for_scores(tmp_path):
    p = np.array([[.9, .1], [.2, .8], [.9, .1], [.2, .8]])
    refused(lambda: run(own(3, scores=True, evaluate=lambda model: p), tmp_path/'a'), 'are probabilities')
    assert run(own(3, scores=True, evaluate=lambda model: np.log(p)), tmp_path/'b').done == 3


def test_a_clock_that_is_ahead(tmp_path):
    run(own(), tmp_path/'run')
    for f in (tmp_path/'run'/'commits').iterdir(): os.utime(f, (time.time() + 7200,)*2)
    s = run_status(tmp_path/'run'); assert s['done'] == 6 and not s['missing']


def test_two_seeds_put_together(tmp_path):
    p, q = (ti.Fleet(o, tmp_path/str(o.run.seed)) for o in (own(30), own(30, seed=1)))
    for f in (p, q): f.run(engine='here', quiet=True)
    p, q = p.predictions(), q.predictions()
    def joined(a, b): return ti.from_arrays(np.r_[a.masks, b.masks], np.r_[a.output()[1], b.output()[1]], NAMES)
    both, told = said(lambda: joined(p, q)); assert both.n_models == 60 and not any('the same masks and outputs' in t for t in told)
    assert any('30 models have the same masks and outputs' in t for t in said(lambda: joined(p, p))[1])


def test_seeds_of_neighbours(tmp_path):
    names = range(40); rows = {r.tobytes() for s in range(5) for r in ti.sample_masks(100, names, seed=s).values}
    assert len(rows) == 500 and len({int_seed(s, i, x) for s in range(20) for i in range(100) for x in ('init', 'order')}) == 4000
    assert [run(own(10), tmp_path/'run', shard=f'{k}/2').trained for k in (0, 1)] == [5, 5]
    refused(lambda: run(own(10), tmp_path/'run', shard='2/2'), 'k from 0 to K - 1')
    refused(lambda: run(own(10, seed=1), tmp_path/'run'), 'seed was 0 and is 1')


def test_another_function_of_the_same_name_goes_on(tmp_path):
    "As documented: code is not compared, only what it is called on."
    def other(subset, seed, device): return -np.ones(4)*seed
    o = own(8); object.__setattr__(o, 'train_fn', other); other.__name__, other.__qualname__ = own().train_fn.__name__, own().train_fn.__qualname__
    run(own(), tmp_path/'run'); assert run(o, tmp_path/'run').trained == 2


def test_a_moved_run(tmp_path):
    run(own(), tmp_path/'a'); os.rename(tmp_path/'a', tmp_path/'b')
    assert ti.Fleet(own(), tmp_path/'b').predictions().n_models == 6 and run(own(), tmp_path/'b').trained == 0


# results

def test_status_is_plain_json(tmp_path):
    def strict(text): return json.loads(text, parse_constant=lambda c: pytest.fail(f'{c} is no JSON'))
    run(own(), tmp_path/'run'); strict(json.dumps(run_status(tmp_path/'run')))
    for f in (tmp_path/'run').rglob('*.json'): f.name == 'zarr.json' or strict(f.read_text('utf-8'))


def test_places_to_save(tmp_path, monkeypatch):
    "A new folder is made, ~ is the home folder, a folder in the way is one line, and a name without its suffix is found again."
    monkeypatch.setenv('HOME', str(tmp_path/'home')); monkeypatch.chdir(tmp_path); z, y = drawn(); p = ti.from_arrays(z, y); r = ti.class_influence(p)
    for save, end in ((lambda x: ti.save_predictions(p, x), '.npz'), (r.save, '.npz'), (r.mean().save_csv, '.csv')):
        save(tmp_path/'new'/f'f{end}'); save(f'~/f{end}'); assert (tmp_path/'home'/f'f{end}').is_file() and not (tmp_path/'~').exists()
        (tmp_path/f'd{end}').mkdir(exist_ok=True); refused(lambda: save(tmp_path/f'd{end}'), 'name a file in it')
    ti.save_predictions(p, 'plain'); r.save('plain2'); assert ti.load_predictions('plain').n_models == ti.load_influence('plain2').n_models == 60


def test_places_of_pages(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path)); p = ti.from_arrays(*drawn(K=3, n=4)); (tmp_path/'d.html').mkdir()
    assert ti.make_report(p, '~/new/p.html') == str(tmp_path/'new'/'p.html') and (tmp_path/'new'/'p.html').is_file()
    refused(lambda: ti.make_report(p, tmp_path/'d.html'), 'must end in')


def test_copies_are_whole():
    z, y = drawn(); p = ti.from_arrays(z, y.astype('f4'), NAMES); r = ti.class_influence(p)
    for f in (copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))): assert (f(r)['a'] == r['a']).all() and f(r).mean().shape == (6, 1)
    z[:] = y[:] = 0; assert (ti.class_influence(p).values == r.values).all()


@pytest.mark.parametrize('seed', [None, '3', -1, 3., True, np.random.default_rng(0), np.random.RandomState(0)], ids=str)
def test_seeds_that_would_not_repeat(seed):
    p = ti.from_arrays(*drawn(80))
    for f in (lambda: ti.sample_masks(20, NAMES, seed=seed), lambda: ti.split_half(p, seed=seed), lambda: ti.lds(p, seed=seed)):
        refused(f, 'seed must be a whole number')
    assert (ti.sample_masks(20, NAMES, seed=np.int64(3)).values == ti.sample_masks(20, NAMES, seed=3).values).all()


def test_generators_and_single_texts():
    z, y = drawn(K=3, n=6)
    assert ti.from_arrays((r for r in z), (r for r in y), (c for c in 'abc'), labels=(j % 2 for j in range(6))).class_names == ('a', 'b', 'c')
    assert ti.select_classes(ti.glyphs(), (c for c in 'CAB')).class_names == ('C', 'A', 'B')
    for f in (lambda: ti.from_arrays(z, y, 'cat'), lambda: ti.sample_masks(9, 'abcdef')): refused(f, 'not the one text')
    refused(lambda: ti.from_arrays(z, y, split=['selekt', 'report']*3), "not 'selekt'")


def test_columns_by_name():
    z, y = drawn(80, 4, 1, effects=[5, 0, 0, 0], sd=.1); d = pd.DataFrame(z.astype(int), columns=NAMES[:4]); r = InfluenceRegressor().fit(d, y)
    assert np.allclose(r.predict(d), r.predict(d[NAMES[3::-1]])); refused(lambda: r.predict(d.rename(columns=dict(a='x'))), 'different names')
    assert ti.class_influence(ti.from_arrays(d, y, NAMES[3::-1])).mean().top(1)[0].name == 'a'


def test_outputs_that_are_missing():
    z, y = drawn(); y[3, 1] = np.nan
    for method in ('ridge', 'dim'): refused(lambda: InfluenceRegressor(method).fit(z, y), 'outputs of 1 models are NaN')


def test_trainings_of_a_curve_that_fail(tmp_path):
    labels = np.array([0, 1]*10)
    def train(subset, seed, device):
        x = np.eye(2)[labels]*2*subset.mask.mean() + np.random.default_rng(seed).normal(size=(20, 2))
        return x*np.nan if subset.mask.sum() <= 5 and seed % 3 else x
    o = ti.OwnTraining(train, lambda model: model, list('abcdefghijkl'), {'t': ti.OwnTarget(labels, ('a', 'b'))}, run=ti.RunSpec(models=40), design=ti.DesignSpec(alpha=.6))
    run(o, tmp_path/'run')
    refused(lambda: ti.removal_curve(tmp_path/'run', ks=[2, 8], replicates=4, engine='here', quiet=True, own=o), r'curves failed: .* the others are kept')
