"Numbers that leave the package: tables as files and frames, and notes that NumPy would make on small runs."
import csv
import re
import sys
from time import process_time

import numpy as np
import pandas as pd
import pytest

from transfer_influence.influence.tails import interval
from transfer_influence.influence.result import class_influence, table_rows
from transfer_influence.records.predictions import from_arrays

NAMES = 'ant', 'a, "b"', 'c\nd', 'é', ' e', 'f', 'g', 'h'


def fleet(m=60, n=3, seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.random((m, len(NAMES))) < .5; masks[:, 5] = True # no comparison: NaN
    return from_arrays(masks, rng.normal(size=(m, n)), NAMES, np.arange(n) % 3)

def rows_one_by_one(r):
    "What a table holds, said the long way."
    (low, high), shrunken = interval(r._estimate), r.method in ('ridge', 'dim_shrunk', 'mixed')
    tests = dict(q=np.full(r.values.shape, np.nan)) if not r.has_errors else dict(s=r.qvalues) if shrunken else dict(
        p=r.pvalues, q=r.qvalues)
    for j in range(len(r.columns)):
        for k in np.argsort(-r.values[:, j], kind='stable'):
            yield dict(source_class=r.class_names[k], target=r.columns[j], influence=float(r.values[k, j]),
                       stderr=float(r.stderr[k, j]), low=float(low[k, j]), high=float(high[k, j]), models=r.n_models,
                       ) | {t: float(np.asarray(x)[k, j]) for t, x in tests.items()}

def told(rows): # numbers bit by bit
    return [{k: float(v).hex() if k not in ('source_class', 'target', 'models') else str(v) for k, v in r.items()}
            for r in rows]


@pytest.mark.parametrize('method', ['dim', 'dim_shrunk', 'ridge', 'lasso'])
@pytest.mark.parametrize('installed', [True, False])
def test_csv_is_exact(method, installed, tmp_path, monkeypatch):
    "Header, order, quoting and every bit of every number, with pyarrow and without."
    r = class_influence(fleet(), method=method, missing='mask'); wanted = list(rows_one_by_one(r))
    if not installed: monkeypatch.setitem(sys.modules, 'pyarrow', None)
    r.save_csv(tmp_path/'new'/'t.csv')
    with open(tmp_path/'new'/'t.csv', newline='', encoding='utf-8') as f: read = list(csv.DictReader(f))
    assert list(read[0]) == list(wanted[0]) and told(read) == told(wanted) == told(table_rows(r))
    head = (tmp_path/'new'/'t.csv').read_bytes().split(b'\r\n')[0].decode()
    assert head == ','.join(wanted[0]) # no quotes where none are needed
    monkeypatch.undo()
    pd.testing.assert_frame_equal(r.to_dataframe(), pd.DataFrame(wanted).set_index('source_class'), check_exact=True)


def test_many_rows_in_time(tmp_path):
    "A tenth of the table of benchmark B13; the limit is for a busy machine and holds without pyarrow, too."
    rng = np.random.default_rng(0)
    r = class_influence(from_arrays(rng.random((100, 200)) < .5, rng.normal(size=(100, 1000))))
    start = process_time(); r.save_csv(tmp_path/'t.csv'); r.to_dataframe(); table_rows(r)
    assert process_time() - start < 6


def loss_fleet(output='loss', m=60, n=12, seed=0):
    "Twelve images of three classes; one source class raises the output."
    rng = np.random.default_rng(seed)
    masks = rng.random((m, len(NAMES))) < .5
    y = rng.normal(size=(m, n)) + 4*masks[:, :1] - 4*masks[:, 1:2]
    return from_arrays(masks, {output: y}, NAMES, np.arange(n) % 3)

VERDICTS = r'\b(helps?|helped|helpful|hurts?|harm|harmful|worse)\b'

@pytest.mark.parametrize('output', ['loss', 'output', 'margin'])
def test_no_verdict_on_an_unknown_output(output):
    "More of a loss is no help: what is shown of it says raise and lower."
    import matplotlib.pyplot as plt
    from transfer_influence.analysis.explore import project_labels
    from transfer_influence.influence.result import describe, extremes
    from transfer_influence.show.class_table import class_table
    from transfer_influence.show.grids import plot_projection
    from transfer_influence.show.plot import plot_heatmap, plot_ranking
    from transfer_influence.show.sections import leave_out
    r = class_influence(loss_fleet(output)); mean, by_class = r.mean(), r.by_target_class()
    figures = [plot_ranking(mean).figure, plot_heatmap(by_class).figure,
               plot_projection(project_labels(r, 'ant', 3), np.zeros((12, 8, 8), np.uint8))]
    texts = [t.get_text() for f in figures for t in f.findobj(plt.Text)]
    texts += [describe(mean), str(extremes(mean)), class_table(mean, by_class), leave_out(mean)[1]]
    plt.close('all')
    found = re.findall(VERDICTS, ' '.join(texts))
    assert bool(found) == (output == 'margin'), found
    assert bool(leave_out(mean)[0]) == (output == 'margin')


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('how', ['plain', 'constant column', 'one class in all models', 'two classes seen once', 'sizes vary'])
@pytest.mark.parametrize('m', [2, 3, 6, 8])
def test_no_note_of_numpy_on_tiny_runs(m, how, tmp_path):
    "What cannot be estimated is NaN, or one plain error; NumPy says nothing of empty slices or divisions."
    import matplotlib.pyplot as plt
    from transfer_influence.basics.errors import InputError
    from transfer_influence.influence.planning import plan_models
    from transfer_influence.influence.reliability import split_half
    from transfer_influence.show.class_table import class_table
    from transfer_influence.show.plot import plot_heatmap
    def tried(f, *args, **kw):
        try: return f(*args, **kw)
        except InputError as e: assert '\n' not in str(e)
    rng = np.random.default_rng(m); masks = np.stack([rng.permutation(4) < 2 for _ in range(m)])
    y = rng.normal(size=(m, 3))
    if how == 'constant column': y[:, 0] = 1
    if how == 'one class in all models': masks[:, 0] = True
    if how == 'two classes seen once': masks[:] = False; masks[0, :2] = True; masks[:m//2, 3] = True
    if how == 'sizes vary': masks = rng.random((m, 4)) < .5
    p = tried(from_arrays, masks, y, labels=[0, 0, 1], target_class_names=('a', 'b', 'empty'))
    if p is None: return
    for f in (split_half, plan_models): tried(f, p)
    for method in ('dim', 'dim_shrunk', 'ridge', 'mixed'):
        r = tried(class_influence, p, method=method, missing='mask')
        if r is None: continue
        mean, by_class = r.mean(), r.by_target_class()
        repr(mean), mean._repr_html_(), r.top(), tried(lambda: r.qvalues), tried(r.ci), r.to_dataframe()
        r.save_csv(tmp_path/'t.csv'); r.save(tmp_path/'t.npz'); tried(class_table, mean, by_class); tried(plot_heatmap, by_class)
        plt.close('all')


def least_seconds(f, times=3): # CPU-seconds
    def once(): start = process_time(); f(); return process_time() - start
    return min(once() for _ in range(times))

def test_large_tables_in_few_products():
    "Reliability, null, plan and variance of a large table in products of its masks and outputs; ridge in its decomposition."
    import transfer_influence as ti
    rng = np.random.default_rng(0); masks = rng.random((1000, 1000)) < .5; y = rng.random((1000, 2000)).astype(np.float32)
    product = least_seconds(lambda: masks.T.astype(np.float32) @ y)
    for classes in (1, 50):
        p = from_arrays(masks, y, labels=np.arange(2000) % classes)
        for f, most in ((ti.split_half, 10), (ti.null_band, 3), (ti.plan_models, 3), (ti.variance_report, 20)):
            assert least_seconds(lambda: f(p)) < most*product, (f.__name__, classes)
    square, wide = masks.T.astype(float) @ masks, masks.T.astype(float)
    bar = 2*least_seconds(lambda: (np.linalg.eigh(square), wide @ y, wide @ y))
    assert least_seconds(lambda: class_influence(p, method='ridge')) < bar


@pytest.mark.parametrize('keep', [slice(None), slice(0, 190), slice(0, 110)])
def test_pairs_in_time(keep):
    "Shares of a fleet in pairs, whole or not, need one decomposition for each fit, not one for each strength of the pairs."
    import transfer_influence as ti
    rng = np.random.default_rng(0); half = rng.random((300, 300)) < .5; masks = np.concatenate([half, ~half])
    order = rng.permutation(600)[:600 - (keep.stop or 0)]; p = from_arrays(masks[order], rng.normal(size=(len(order), 5)), labels=range(5))
    one = least_seconds(lambda: np.linalg.eigh(masks[order].T.astype(float) @ masks[order]))
    assert least_seconds(lambda: ti.variance_report(p), 1) < 250*one # 11 fits; it was some 30 decompositions for each


def test_a_half_that_shares_subsets():
    "Sums stand for an estimate only where about every model has a subset of its own."
    from transfer_influence.influence.reliability import _all_own, _subset_numbers, null_band, split_half
    rng = np.random.default_rng(0); few = rng.random((4, 6)) < .5; masks = few[rng.integers(0, 4, 60)] # 4 subsets
    p = from_arrays(rng.random((60, 6)) < .5, rng.normal(size=(60, 2)), labels=range(2))
    assert not _all_own(_subset_numbers(masks)) and _all_own(_subset_numbers(rng.random((60, 30)) < .5))
    assert np.isfinite(split_half(p).r) and null_band(p).shape == (20, 6, 2)


def by_hand(z, y):
    "Values, errors, degrees of freedom, each class by itself; a group without spread has the variance of its column."
    y = y.astype(np.longdouble); y = y - y.mean(0); whole, out = y.var(0, ddof=1), []
    def group(a): v = a.var(0, ddof=1); return a.mean(0), np.where(v > 1e-15*whole, v, whole)/len(a), len(a) - 1
    for k in z.T:
        (m1, e1, d1), (m0, e0, d0) = group(y[k]), group(y[~k])
        out.append((m1 - m0, np.sqrt(e1 + e0), (e1 + e0)**2/(e1**2/d1 + e0**2/d0)))
    return (np.stack(x).astype(np.float64) for x in zip(*out))


SHIFTED = {'as they are': lambda y: y.astype(np.float32), '+1e8': lambda y: y + 1e8, '-3e9': lambda y: y - 3e9, 'int64': lambda y: np.round(1e6*y).astype(np.int64) + 10**9,
           'right or wrong': lambda y: (y > -1).astype(np.float32), 'nearly always right': lambda y: y > -2.5, 'tiny': lambda y: 1e-20*y, 'huge': lambda y: 1e25*y,
           'all but told by a class': lambda y: y + 1e3*y[:, :1]}


@pytest.mark.parametrize('shift', SHIFTED)
def test_large_tables_are_exact(monkeypatch, shift):
    "Products in float32, as large tables have them, beside sums in extended precision; q-values beside those of scipy."
    from scipy.special import stdtr
    from scipy.stats import false_discovery_control
    from transfer_influence.influence import difference
    rng = np.random.default_rng(0); z = rng.random((400, 30)) < .5; z[:, 1] = rng.random(400) < .05
    y = SHIFTED[shift](z[:, :4].astype(float) @ rng.normal(0, .5, (4, 60)) + rng.normal(size=(400, 60)))
    monkeypatch.setattr(difference, 'SMALL', 0); y = y[:, (y != y[:1]).any(0)]
    r = class_influence(from_arrays(z, y)); v, se, dof = by_hand(z, np.asarray(y))
    assert r.values.dtype == np.float32
    assert (abs(r.values - v).max(0)/abs(v).max(0)).max() < 1e-6 and abs(r.stderr/se - 1).max() < 1e-5 and abs(r.dof/dof - 1).max() < 1e-5
    q = false_discovery_control(2*stdtr(dof, -abs(v)/se).ravel()).reshape(v.shape)
    assert abs(np.asarray(r.qvalues)/q - 1)[q > 1e-30].max() < 1e-4


def test_constant_columns_in_float32(monkeypatch):
    from transfer_influence.influence import difference
    monkeypatch.setattr(difference, 'SMALL', 0)
    rng = np.random.default_rng(0); y = rng.normal(size=(60, 4)).astype(np.float32); y[:, 1] = .1; y[:, 2] = 3e9
    r = class_influence(from_arrays(rng.random((60, 5)) < .5, y))
    assert (r.values[:, 1:3] == 0).all() and (r.stderr[:, 1:3] == 0).all() and (r.dof[:, 1:3] == 58).all() and np.isfinite(r.values).all()
