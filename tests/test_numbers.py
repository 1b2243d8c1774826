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
