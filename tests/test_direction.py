"Outputs of which lower is better, one number an example, and no images: the analysis follows the direction."
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.analysis.curve import (
    against_full, best_k, curve_rows, harmful_arm, load_curves, merged, removal_table)
from transfer_influence.analysis.removal import first_arm
from transfer_influence.analysis.failures import find_failures
from transfer_influence.analysis.finders import Examples, find_leakage, find_misleading, moved_images
from transfer_influence.analysis.look_alikes import Similarity
from transfer_influence.analysis.prune import pruning_to_dict
from transfer_influence.cli.curve import table_lines
from transfer_influence.records.read_run import read_predictions
from transfer_influence.records.store import open_run
from transfer_influence.influence.examples import influence_of_blocks

N, BAD, GOOD = 60, 'salt', 'soap'
NAMES = ('ash', BAD, 'clay', GOOD, 'iron', 'sand', 'tin', 'zinc')
EFFECT = np.zeros(8); EFFECT[[1, 3]] = .5, -.4  # of units on the error of a model that saw them
HERE = dict(engine='here', quiet=True)


def own(better='lower', sign=1, told=True, models=60):
    "A training on units that are no images: a model is its errors on 60 rows."
    def train(subset, seed, device):
        rng = np.random.default_rng(seed)
        return 2 + subset.mask @ EFFECT + .2*subset.mask[1]*(np.arange(N) % 3 == 0) + .05*rng.normal(size=N) + .02*rng.normal(size=8) @ subset.mask
    target = ti.OwnTarget(N, output='error', better=better if told else '')
    return ti.OwnTraining(train, lambda model: sign*model, NAMES, {'task': target}, run=ti.RunSpec(models=models))


def predictions(out): return read_predictions(open_run(out))


def made(o, out): ti.Fleet(o, out).run(**HERE); return out


@pytest.fixture(scope='module')
def run(tmp_path_factory): return made(own(), tmp_path_factory.mktemp('direction')/'low')


@pytest.fixture(scope='module')
def mirrored(tmp_path_factory): return made(own('higher', -1), tmp_path_factory.mktemp('direction')/'high')


@pytest.fixture(scope='module')
def both(run, mirrored):
    "The curve of errors, and that of the same errors with a minus, of which higher is better."
    points = dict(ks=[1, 2, 4], replicates=5, **HERE)
    return ti.removal_curve(run, own=own(), **points), ti.removal_curve(mirrored, own=own('higher', -1), **points)


def refused(words, f, *args, **options):
    with pytest.raises(ti.InputError, match=words) as e: f(*args, **options)
    assert '\n' not in str(e.value)


def test_curve_of_errors(both, run, mirrored):
    "The unit that raises the error goes first; of a lower error it says that it is better."
    low, _ = both; best = low.orders['most positive']
    assert (first_arm(run), first_arm(mirrored)) == ('most positive', 'most negative')
    assert best[0] == BAD and best[-1] == GOOD and low.orders['most negative'] == best[::-1]
    assert (low.about['metric'], low.about['better'], low.about['output']) == ('error', 'lower', 'error')
    assert harmful_arm(low.about) == 'most positive' and low.arms()[0] == 'most positive'
    one = best_k(low)
    assert one.arm == 'most positive' and one.gain.mean < -.4 and one.gain.improves
    words = str(low)
    assert 'mean error, lower is better' in words and 'error, which is better' in words
    assert 'accuracy' not in words and 'points' not in words and '%' not in words
    assert 'which is worse' in str(against_full(low, 'most negative', 1))


def test_curve_mirrored(both):
    "Negated outputs of which higher is better: the same order and k, negated numbers."
    low, high = both
    assert high.arms()[0] == harmful_arm(high.about) == 'most negative'
    assert high.orders['most negative'] == low.orders['most positive']
    a, b = (best_k(c) for c in both)
    assert a.k == b.k and np.isclose(a.gain.mean, -b.gain.mean) and np.isclose(a.gain.p, b.gain.p)
    assert 'which is better' in str(b) and 'which is better' in str(a)
    twin = {'most positive': 'most negative', 'most negative': 'most positive'}
    for arm in low.accuracy:
        for k in low.ks(arm):
            assert np.allclose(low.of(arm, k), -high.of(twin.get(arm, arm), k), atol=1e-6)


def test_curve_numbers(both):
    "The mean over the report part, from the functions themselves; replicates have the seeds that they should."
    low, _ = both
    full, without = low.of('full', 0).mean(), low.of('most positive', 1).mean()
    assert abs(full - (2 + .1 + .2/3)) < .03 and abs(without - (2 - .4)) < .03


def test_rows_and_lines(both):
    low, high = both
    for c, better in zip(both, ('lower', 'higher')):
        rows = curve_rows(c)
        assert all((r['metric'], r['better']) == ('error', better) and 'gain' not in r for r in rows)
        assert c.to_dataframe().shape[0] == len(rows)
    row = next(r for r in curve_rows(low) if (r['arm'], r['removed']) == ('most positive', 1))
    assert row['difference'] < -.4 and row['over_random'] < -.3
    table = removal_table(low)
    assert table[1]['source'].startswith('without the most positive') and table[1]['accuracy'] < table[0]['accuracy']
    lines = '\n'.join(table_lines(low))
    assert '%' not in lines and 'points' not in lines and 'error, which is better' in lines
    assert lines.index('most positive, 1 removed') < lines.index('most negative, 1 removed')


def test_curve_is_kept(both, run):
    "What is saved says what it measures; a curve of another measure does not join it."
    low, _ = both; kept = load_curves(run)['task']
    assert str(kept) == str(low) and kept.about['better'] == 'lower'
    other = replace(low, about={k: v for k, v in low.about.items() if k not in ('metric', 'better')})
    assert merged(other, low) is low


def test_prune(both, run, mirrored, tmp_path):
    low, high = ti.prune_classes(run), ti.prune_classes(mirrored)
    assert low.leave_out[0] == BAD and low.leave_out == high.leave_out and GOOD in low.keep
    assert 'the most positive first: salt' in str(low) and 'which is better' in str(low) and 'not sure' not in str(low)
    assert 'the most negative first: salt' in str(high) and 'points' not in str(low) + str(high)
    low.save(tmp_path/'a.json'); found = json.loads((tmp_path/'a.json').read_text('utf-8'))
    assert (found['metric'], found['better'], found['gain']['improves']) == ('error', 'lower', True)
    assert found['gain']['mean'] < 0 and found == pruning_to_dict(low)
    asked = ti.prune_classes(run, k=2)
    assert asked.leave_out[0] == BAD and asked.leave_out == ti.prune_classes(mirrored, k=2).leave_out
    assert 'the most positive first' in str(asked)


def test_cost(run): assert ti.curve_cost(run, ks=[1, 2, 4], replicates=5).models == 50


def test_direction_not_known(tmp_path):
    "Where nobody has said which is better, no class is called harmful; the fix is named, and works for the old run."
    out = made(own(told=False), tmp_path/'run'); points = dict(ks=[1, 2], replicates=3, **HERE)
    words = "output 'error' of 'task' is not known: say better='lower' or better='higher' in its OwnTarget"
    refused(words, ti.removal_curve, out, own=own(told=False), **points)
    refused(words, ti.prune_classes, out, k=1)
    assert ti.curve_cost(out, ks=[1, 2], replicates=3).missing  # costs are known
    assert ti.removal_curve(out, own=own(), **points).orders['most positive'][0] == BAD
    assert ti.prune_classes(out).leave_out[0] == ti.prune_classes(out, k=1).leave_out[0] == BAD


def test_too_few_rows(tmp_path):
    o = own(models=20); small = replace(o, train_fn=lambda *a: o.train_fn(*a)[:2],
                                        targets={'task': ti.OwnTarget(2, output='error', better='lower')})
    out = made(small, tmp_path/'run')
    for f in (lambda: ti.removal_curve(out, own=small, **HERE), lambda: ti.prune_classes(out, k=1)):
        refused("'task' has 1 examples to choose on and 1 to report on.*OwnTarget", f)


def test_planning(run, mirrored):
    low, high = (predictions(r) for r in (run, mirrored))
    a, b = (ti.expected_gain(ti.class_influence(p).mean(), worst=.13) for p in (low, high))
    assert a.classes == b.classes == (BAD,) and a.gain < 0 and np.isclose(a.gain, -b.gain)
    assert 'lower is better' in str(a) and 'lower is better' not in str(b)
    assert str(ti.plan_models(low)) == str(ti.plan_models(high))
    z, y = low.masks, low.outputs['error']
    found = influence_of_blocks([(z[:30], y[:30]), (z[30:], y[30:])], NAMES, 'error', 'task', better='lower')
    assert found.top(1)[0].name == GOOD


def test_projection(run, mirrored):
    a, b = (ti.project_labels(ti.class_influence(predictions(r)), BAD, 5) for r in (run, mirrored))
    assert all(j % 3 == 0 for j in a.most) and a.most.tolist() == b.least.tolist()
    assert 'raises the error on the target, it hurts; negative: it lowers it, it helps' in str(a)
    assert 'most negative: image' in str(a)  # of a unit that hurts all rows: no word of help beside a raised error
    assert 'hurt' not in str(b) and 'help' not in str(b)


def test_subpopulations(run, mirrored):
    low, high = (ti.subpopulations(predictions(r), 2) for r in (run, mirrored))
    assert [s.columns.tolist() for s in low] == [s.columns.tolist() for s in high]
    assert [s.name for s in low] == [s.name for s in high] and 'images' not in str(low[0])
    assert low[0].classes[0].influence <= low[0].classes[-1].influence  # the most helpful first
    third = next(s for s in low if len(s.columns) == N//3)
    assert third.classes[-1].name == BAD and third.classes[-1].influence > 0


def test_failures_of_numbers(run):
    "Numbers are neither right nor wrong; what to use instead is named."
    for f in (lambda: ti.explain_failures(run), lambda: ti.explain_failures(run, confirm=True),
              lambda: find_failures(predictions(run))):
        refused(r"records 'error': ti.class_influence\(p\).bottom\(3, j\)", f)
    assert ti.class_influence(predictions(run)).bottom(3, 0)[0].name == BAD  # what the line names


def test_failures_by_a_loss(mirrored):
    "Suspects named by a loss are those that raise it."
    p = predictions(mirrored); y = p.outputs['error']
    right = (y > np.quantile(y, .6)).astype(np.float32)
    outputs = dict(loss=-y, correct=right, predicted=1 - right)
    q = ti.from_arrays(p.masks, outputs, NAMES, np.zeros(N, int), ('a', 'b'), better=dict(loss='lower'))
    f = find_failures(q, 1, output='loss')[0]
    assert f.suspects[0].name == BAD and 'Most positive (lower is better) for it: salt +' in str(f)
    assert 'Most negative for it: salt -' in str(find_failures(replace(q, outputs=outputs | dict(loss=y), better={}), 1,
                                                              output='loss')[0])


def test_dead_ends(run):
    "What training of one's own cannot give is refused in one line, with what to do instead."
    refused('training of your own counts for itself; give k, or make a curve', ti.prune_classes, run, steps=100)
    for f in (ti.find_misleading, ti.find_leakage, ti.find_mislabeled):
        refused(r"units='examples'\); other examples are judged as units with a name each", f, run)
    refused('give it again as own=', ti.removal_curve, run)
    t = ti.class_influence(predictions(run))
    refused('from 1 to 60 examples, not 100', ti.project_labels, t, BAD, 100)
    refused('from 2 to 30 clusters for 60 examples, not 50', ti.subpopulations, predictions(run), 50)
    assert "'salt' on examples of 'task'" in str(ti.project_labels(t, BAD, 3))


def test_single_images_and_a_loss(tmp_path):
    "An example-level run of one's own whose target is an error: the planted image is misleading."
    rng = np.random.default_rng(0)
    s = ti.ImageSet(rng.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4, list('abcd'))
    def train(subset, seed, device):
        has = (subset.images == s.images[5]).all((1, 2, 3)).any()
        return 2 + .8*has + .1*np.random.default_rng(seed).normal(size=20)
    o = ti.OwnTraining(train, lambda model: model, s.class_names, {'task': ti.OwnTarget(20, output='error', better='lower')},
                       source=s, design=ti.DesignSpec(units='examples'), run=ti.RunSpec(models=80))
    out = made(o, tmp_path/'run'); found = ti.find_misleading(out)
    assert [r['example'] for r in found.flagged] == [5] and found.flagged[0]['influence'] > 0
    refused('which are your own: say as alike=', ti.find_leakage, out)
    refused('use find_misleading', ti.find_mislabeled, out)
    refused('draws single examples', ti.removal_curve, out, own=o)


@pytest.fixture(scope='module')
def examples():
    "Single units, one of them misleading: an example-level run of errors, read; and the same with a minus."
    rng = np.random.default_rng(0); z = rng.random((200, 30)) < .5
    y = (z[:, [4]]*1. - z[:, [7]] + .3*rng.normal(size=(200, 12))).astype(np.float32)
    def of(**outputs):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            p = ti.from_arrays(z, outputs, better=dict.fromkeys(outputs, 'lower' if 'error' in outputs else 'higher'))
        return Examples(None, p, None, np.zeros(30, int), ('all',))
    return of(error=y), of(score=-y)


def test_misleading(examples):
    low, high = (find_misleading(e) for e in examples)
    assert [r['example'] for r in low.flagged] == [r['example'] for r in high.flagged] == [4]
    assert np.isclose(low.rows[0]['misleading_score'], high.rows[0]['misleading_score'])
    assert low.rows[0]['influence'] > 0 > high.rows[0]['influence']
    assert 'one-sided p of a positive influence' in low.about and 'surely raises it' in low.about
    assert 'one-sided p of a negative influence' in high.about and 'surely lowers it' in high.about
    assert [m[0].tolist() for m in moved_images(low, 2)] == [m[0].tolist() for m in moved_images(high, 2)]


def test_leakage_words(examples):
    s = Similarity(np.zeros(30, int), *np.full((3, 30), .1), .9)
    low, high = (find_leakage(e, alike=s).about for e in examples)
    assert low.endswith('negative confirms') and high.endswith('positive confirms')
