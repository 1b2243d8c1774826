"What people see: figures that keep their names, whatever the script, the style and the backend; tables that are quick to look at."
import json
import pickle
import os
import re
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from transfer_influence.records.predictions import from_arrays
from transfer_influence.influence.result import class_influence

ODD = [r'$\foo$', 'a$b$c', '50% off', r'C:\new\$x$', 'two\nlines', 'x\ty', '_under_', '\\$', 'a & b']


def arrays(names=tuple('abcdef'), m=80, n=12, labels=(), seed=0, **kwargs):
    rng = np.random.default_rng(seed); masks = rng.random((m, len(names))) < .5
    y = masks @ rng.normal(size=(len(names), 1)) + rng.normal(size=(m, n))
    labels = [labels[j % len(labels)] for j in range(n)] if labels else None
    return from_arrays(masks, {kwargs.pop('output', 'margin'): y}, list(names), labels, **kwargs)


def page(p, path):
    from transfer_influence.show.report import make_report
    return Path(make_report(p, path)).read_text('utf-8')


def test_page_leaves_matplotlib_alone(tmp_path):
    "The backend, the settings and the open figures are the user's; the page is the same under any of them."
    import matplotlib
    import matplotlib.pyplot as plt
    p = arrays(labels=['x', 'y'])
    before = matplotlib.get_backend()
    try:
        matplotlib.use('svg'); mine = plt.figure()
        first = page(p, tmp_path/'a.html')
        assert matplotlib.get_backend() == 'svg' and plt.get_fignums() == [mine.number] and plt.gcf() is mine
        for mode in ({'text.usetex': True}, {'font.size': 24}, {'figure.constrained_layout.use': True}, 'dark_background'):
            with plt.style.context(mode):
                assert page(p, tmp_path/'b.html') == first
                assert plt.rcParams['figure.facecolor'] == ('black' if mode == 'dark_background' else 'white')
    finally: plt.close(mine); matplotlib.use(before)


def test_pages_in_threads(tmp_path):
    import matplotlib.pyplot as plt
    p = arrays(); page(p, tmp_path/'0.html'); failed = []
    def make(k):
        try: page(p, tmp_path/f'{k}.html')
        except BaseException as e: failed.append(e)
    with plt.style.context('dark_background'):
        threads = [threading.Thread(target=make, args=(k,)) for k in (1, 2, 3)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert plt.rcParams['figure.facecolor'] == 'black' and not failed
    assert len({(tmp_path/f'{k}.html').read_text('utf-8') for k in range(4)}) == 1


@pytest.mark.timeout(120)
def test_figures_still_appear_in_a_notebook(tmp_path, monkeypatch):
    "Before and after a page is made."
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    monkeypatch.delenv('MPLBACKEND', raising=False)
    cells = ['import numpy as np, transfer_influence as ti, matplotlib.pyplot as plt\n'
             'rng = np.random.default_rng(0); z = rng.random((60, 5)) < .5; p = ti.from_arrays(z, z[:, [0]] + rng.normal(size=(60, 4)))',
             f'ti.make_report(p, {str(tmp_path/"r.html")!r});', 'plt.plot([1, 2]);', 'ti.class_influence(p).mean().plot();']
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(nb, timeout=100, kernel_name='python3').execute()
    assert [sum('image/png' in o.get('data', {}) for o in c.outputs) for c in nb.cells] == [0, 0, 1, 1]


@pytest.mark.slow
def test_names_are_not_mathematics(tmp_path):
    "Of classes, target classes, targets and outputs, in the page and in each figure."
    import matplotlib.pyplot as plt
    from transfer_influence.show.plot import plot_heatmap
    for k, name in enumerate(ODD):
        p = arrays([name, *'bcd'], labels=[name, 'y'], output=name, target=f'on {name.strip()}')
        text = page(p, tmp_path/'odd.html'); assert '<img' in text
        if k > 2: continue
        for ax in (class_influence(p).mean().plot(), plot_heatmap(class_influence(p).by_target_class())):
            ax.figure.savefig(BytesIO()); shown = [t.get_text() for t in ax.get_yticklabels()]
            assert name.replace('$', r'\$') in shown
        plt.close('all')


def outside(fig):
    "How far, in inches, what is drawn reaches beyond a figure."
    fig.canvas.draw(); box, (w, h) = fig.get_tightbbox(), fig.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - w, box.y1 - h)


def test_long_names_stay_in_the_figure():
    "A plain savefig, without bbox_inches, keeps them; axes that are given stay as they are."
    import matplotlib.pyplot as plt
    from transfer_influence.analysis.explore import project_labels
    from transfer_influence.analysis.failures import Confirmed, Failure
    from transfer_influence.influence.result import Ranked
    from transfer_influence.show.grids import plot_failures, plot_projection
    from transfer_influence.show.plot import plot_heatmap, plot_null, plot_ranking
    names = [f'n{k:08d} yellow-bellied something or other, Latinus maximus, and further synonyms {k}' for k in range(6)]
    p = arrays(names, labels=names[:3], output='an output with quite a long name that goes on'); r = class_influence(p)
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 1), np.uint8)
    failure = Failure(3, names[0], .2, [Ranked(names[1], -.4, .05, .001)], {names[2]: .7}, {names[0]: .6}, (9, 9),
                      Confirmed({names[2]: .8}, {names[0]: .7}, (.2, .7), .06, 10))
    figures = [r.mean().plot(), r.plot(images={n: images[0] for n in names}), plot_heatmap(r.by_target_class()),
               plot_null(r.values, r.values, 'an output with quite a long name that goes on and on and on'),
               plot_projection(project_labels(r, names[0], 2), images, [p.target_class_names[c] for c in p.labels]),
               plot_failures([failure], images)]
    for made in figures: assert outside(made.figure) <= .01, made
    ax = figures[0]; assert 3.8 < ax.get_position().width*ax.figure.get_figwidth() < 4
    fig, ax = plt.subplots(figsize=(3, 2)); plot_ranking(r, ax=ax); assert tuple(fig.get_size_inches()) == (3, 2)
    plt.close('all')


CJK = '''
import sys, json, warnings
told = []; warnings.showwarning = lambda m, *a, **k: told.append(str(m)); warnings.simplefilter('always')
import numpy as np, transfer_influence as ti
rng = np.random.default_rng(0); z = rng.random((40, 4)) < .5
p = ti.from_arrays(z, z[:, [0]] + rng.normal(size=(40, 6)), class_names=['\\U000F1234', 'קот', '\\U000F5678', 'cat \\U000F5678'])
ti.make_report(p, sys.argv[1])
ax = ti.class_influence(p).mean().plot()
from transfer_influence.basics.fonts import more_families
print(json.dumps([told, more_families('\\U000F1234 x'), sorted({f for t in ax.get_yticklabels() for f in t.get_fontfamily()})]))
'''


def test_other_scripts(tmp_path):
    "A font that was installed after matplotlib made its list is used; what no font has is told once."
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    (tmp_path/'data/fonts').mkdir(parents=True)
    pen = TTGlyphPen(None); pen.moveTo((0, 0)); pen.lineTo((0, 700)); pen.lineTo((500, 700)); pen.closePath()
    b = FontBuilder(1000, isTTF=True); b.setupGlyphOrder(['.notdef', 'A']); b.setupCharacterMap({0xF1234: 'A'})
    b.setupGlyf(dict.fromkeys(('.notdef', 'A'), pen.glyph())); b.setupHorizontalMetrics(dict.fromkeys(('.notdef', 'A'), (600, 0)))
    b.setupHorizontalHeader(ascent=800, descent=-200); b.setupNameTable(dict(familyName='One Sign', styleName='Regular')); b.setupOS2(); b.setupPost()
    b.save(tmp_path/'data/fonts/one.ttf')
    import matplotlib.font_manager  # its list of fonts is made, without this one
    env = dict(os.environ, XDG_DATA_HOME=str(tmp_path/'data'))
    done = subprocess.run([sys.executable, '-c', CJK, str(tmp_path/'p.html')], env=env, capture_output=True, text=True, check=True)
    told, found, families = json.loads(done.stdout)
    assert found == ['One Sign'] and 'One Sign' in families
    assert [t[:2] for t in told] == ['2 ', '2 '] and all('no installed font has' in t for t in told), told  # of the page, of the plot


def test_a_second_look_is_free():
    "q-values of a table are computed once and handed out as copies; another table has its own."
    from transfer_influence.influence.tails import q_values
    r = class_influence(arrays(n=30)); repr(r), r._repr_html_(), r.top(3)
    assert '_q' not in vars(r) and '_mean' in vars(r)  # shown are those of the mean; of rows only those that are looked at
    text = str(r.top(3, 0)); kept = vars(r)['_q']
    r.bottom(2, 4); r.qvalues[:] = 9
    assert [str(x) for x in r.top(3)] == [str(x) for x in r.mean().top(3)] and text == str(r.top(3, 0)) and pickle.loads(pickle.dumps(r.top(1, 0)[0])) == r.top(1, 0)[0]
    assert vars(r)['_q'] is kept and np.array_equal(r.qvalues, q_values(np.asarray(r.pvalues)))
    assert r.mean().qvalues.shape == (6, 1)


def test_habits_from_pandas_and_numpy():
    from transfer_influence import InputError
    r = class_influence(arrays(labels=['x', 'y'])).by_target_class()
    assert r['a':'c'].shape == (3, 2) and r['a':'c', 'y'].shape == (3,) and r[0:2].shape == (2, 2)
    assert r.qvalues['b':'d', 'x'].shape == (3,) and float(r.mean()['a']) == r.mean()['a', 0]
    assert np.isclose(np.mean(r), r.values.mean()) and np.median(r, axis=0).shape == (2,)
    for wrong in (lambda: r - r, lambda: r*2, lambda: 1 - r, lambda: -r, lambda: r > 0, lambda: abs(r)):
        with pytest.raises(InputError, match=r'\.values'): wrong()
    with pytest.raises(InputError, match='2 numbers are not one'): float(r['a'])


def own_run(folder, train, m=40, **kwargs):
    import transfer_influence as ti
    targets = {'t': ti.OwnTarget(np.arange(40) % 4, tuple('abcd'), **kwargs)}
    o = ti.OwnTraining(train, lambda model: {'t': model}, [f'c{k}' for k in range(6)], targets, run=ti.RunSpec(models=m))
    ti.Fleet(o, folder).run(engine='here', quiet=True); return folder


def scores(subset, seed, device): return np.eye(4)[np.arange(40) % 4]*4*(1 + subset.mask[0]) + np.random.default_rng(seed).normal(size=(40, 4))


@pytest.mark.parametrize('order, said', [('kept', False), ('own', True), ('common', True)])
def test_page_says_that_accuracy_is_chance(tmp_path, order, said):
    from transfer_influence.show.report import make_report
    def train(subset, seed, device):
        rng = np.random.default_rng(3 if order == 'common' else seed)
        return scores(subset, seed, device)[np.arange(40) if order == 'kept' else rng.permutation(40)]
    text = Path(make_report(own_run(tmp_path/'run', train))).read_text('utf-8')
    assert ('no more than chance for its 4 classes' in text) == said


def test_page_names_failures_and_all_versions(tmp_path):
    from transfer_influence.show.report import make_report
    def train(subset, seed, device): return scores(subset, seed, device)*(np.nan if subset.mask[0] and seed % 2 else 1)
    run = own_run(tmp_path/'run', train)
    for f in (run/'runs').glob('*.json'): f.write_text(f.read_text().replace('"torch": "', '"torch": "1.13+'))
    own_run(run, train, 44)
    text = re.sub('<[^>]*>', ' ', Path(make_report(run)).read_text('utf-8'))
    failed = len(list((run/'failures').glob('*.json')))
    assert f'{failed} of 44 models failed and are left out' in text
    assert re.search(r'torch 1\.13\+\S+ and \d', text)
