"Of a loss lower is better: pages, figures, the explorer and the table commands say so, and nothing else is turned."
from dataclasses import replace
from html import unescape
import json
from pathlib import Path
import re
import subprocess
import sys

from matplotlib.colors import to_rgb
import matplotlib.pyplot as plt
import numpy as np
import pytest

from browser import BROWSER, browser, watched
from transfer_influence.basics.recipe import DesignSpec, RunSpec
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.influence.result import class_influence
from transfer_influence.influence.table_files import load_influence
from transfer_influence.records.predictions import from_arrays
from transfer_influence.training.own_training import OwnTarget, OwnTraining

in_browser = pytest.mark.skipif(BROWSER is None, reason='no browser on this machine; apt-get install chromium')
NAMES = ('Spanish', 'French', 'Italian', 'German', 'Dutch', 'Russian', 'Polish', 'Finnish', 'Turkish', 'Basque', 'Czech', 'Greek')
GROUPS = np.arange(60) % 3


def effects(): # planted: Spanish lowers the loss of every group, Turkish raises it
    e = np.zeros((12, 3)); e[0], e[8], e[2] = (-.3, -.2, -.4), (.25, .3, .1), (-.05, -.15, 0)
    return e


def train(subset, seed, device): return subset.mask, np.random.default_rng(seed)


def evaluate(model):
    mask, rng = model
    return {'Portuguese': 2 + mask @ effects()[:, GROUPS] + .15*rng.normal() + .1*rng.normal(size=60),
            'prices': 5 - .4*mask[3] + .3*mask[9] + .3*rng.normal(size=40)}


def own_training(models=300):
    targets = {'Portuguese': OwnTarget(GROUPS, ('news', 'tales', 'speech'), output='bits per character', better='lower'),
               'prices': OwnTarget(40, output='squared error', better='lower')}
    return OwnTraining(train, evaluate, NAMES, targets, design=DesignSpec(alpha=.5), run=RunSpec(models=models))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    from transfer_influence.analysis.removal import removal_curve
    root = tmp_path_factory.mktemp('lower')/'run'
    Fleet(own_training(), root).run(engine='here', quiet=True)
    removal_curve(root, ks=[1, 2], replicates=6, target='Portuguese', own=own_training(), quiet=True, engine='here')
    return root


def mirrored(labels=GROUPS, names=('news', 'tales', 'speech'), what=('bits', 'score')):
    "One fleet twice: a loss of which lower is better, and its negative of which higher is."
    rng = np.random.default_rng(0); masks = rng.random((200, 12)) < .5
    y = masks @ effects()[:, GROUPS] + .1*rng.normal(size=(200, 60))
    about = dict(class_names=NAMES, labels=labels, target_class_names=names, target='Portuguese')
    return [from_arrays(masks, {o: s*y}, better=b, **about) for o, s, b in zip(what, (1, -1), ('lower', 'higher'))]


def page(p, path):
    from transfer_influence.show.report import report_arrays
    return open(report_arrays(p, path), encoding='utf-8').read()


def plain(html): # the sentences and cells of a page, as they are read
    html = re.sub(r'<(style|script).*?</\1>', '', html, flags=re.S)
    html = re.sub(r'<img alt="(.*?)"[^>]*>', r'\n\1\n', html); html = re.sub(r'</(p|h\d|tr|td|th|li|option|div|figure)>', '\n', html)
    return [s.strip() for s in re.split(r'[\n;]|\. ', unescape(re.sub(r'<[^>]+>', '', html))) if s.strip()]


def wrong_sentences(html):
    "Those that say that a raised loss helps, or that a lowered one hurts; and those of higher being better."
    wrong = r'rais\w* .*\b(helps?|better)\b|lower(s|ed)? .*\b(hurts?|worse)\b|(?<!that is )higher is better'
    return [s for s in plain(html) if re.search(wrong, s) and 'Lower is better' not in s]


def rows(html): return [re.findall(r'<td[^>]*>(.*?)</td>', r) for r in re.findall(r'<tr data-k.*?</tr>', html)]


def where(cell): return cell.split(' (')[0] # the target class, without its number


def test_mirror_has_the_same_order_and_words(tmp_path):
    low, high = (page(p, tmp_path/f'{k}.html') for k, p in enumerate(mirrored()))
    a, b = rows(low), rows(high)
    assert [r[:2] for r in a] == [r[:2] for r in b] and a[0][1] == 'Spanish' and a[-1][1] == 'Turkish'
    assert [[where(r[6]), where(r[7])] for r in a] == [[where(r[6]), where(r[7])] for r in b]
    assert [float(r[2]) for r in a] == [-float(r[2]) for r in b]  # numbers keep their sign
    heads = [re.findall(r'<th scope="col".*?<button type="button">(.*?)<', x)[6:] for x in (low, high)]
    assert heads[0] == heads[1] == ['helps most', 'hurts most']
    kinds = [re.findall(r'<option value="(.)">(.*?)<', x) for x in (low, high)]
    assert kinds == [[('-', 'surely helps'), ('+', 'surely hurts'), ('0', 'not sure')], [('+', 'surely helps'), ('-', 'surely hurts'), ('0', 'not sure')]]
    assert not wrong_sentences(low)
    assert wrong_sentences('<p>2 classes raise the bits, which is better: they help.</p><li>lowers it, it hurts</li>') # it sees some


def test_mirror_names_the_same_classes():
    from transfer_influence.show.report import find, strongest, verdict
    from transfer_influence.show.sections import leave_out
    low, high = map(find, mirrored())
    assert leave_out(low.mean)[0] == leave_out(high.mean)[0] and leave_out(low.mean)[0][0] == 'Turkish'
    said = [[re.findall('|'.join(NAMES), s) for s in verdict(f)] for f in (low, high)]
    assert said[0] == said[1] and said[0][0][0] == 'Spanish'
    assert verdict(low)[0].startswith('2 classes lower the bits on Portuguese') and 'which is better: they help' in verdict(low)[0]
    assert verdict(high)[0].startswith('2 classes raise the score on Portuguese') and 'help' not in verdict(high)[0]
    assert strongest(low.by_class).tolist() == strongest(high.by_class).tolist()


def test_mirror_looks_the_same(tmp_path):
    from transfer_influence.show.canvas import HELPS, HURTS
    from transfer_influence.show.plot import plot_heatmap
    low, high = (class_influence(p, over='classes') for p in mirrored())
    a, b = (plot_heatmap(t) for t in (low, high))
    for ax in (a, b): ax.figure.draw_without_rendering()
    assert np.allclose(a.collections[0].get_facecolor(), b.collections[0].get_facecolor(), atol=.02)
    assert [t.get_text() for t in a.get_yticklabels()] == [t.get_text() for t in b.get_yticklabels()]
    assert all('blue helps, orange hurts' in ax.figure.axes[1].get_ylabel() for ax in (a, b))
    a, b = (class_influence(p, over='target').plot(k=3) for p in mirrored())
    assert [t.get_text() for t in a.get_yticklabels()] == [t.get_text() for t in b.get_yticklabels()]
    def of(ax, name): return [to_rgb(l.get_color()) for l in ax.lines if [t.get_text() for t in ax.get_yticklabels()].index(name) in l.get_ydata()]
    assert to_rgb(HELPS) in of(a, 'Spanish') and to_rgb(HURTS) in of(a, 'Turkish') and to_rgb(HURTS) not in of(a, 'Spanish')
    assert 'left: the class helps, right: it hurts' in a.get_xlabel() and 'left: the class hurts, right: it helps' in b.get_xlabel()
    class_influence(mirrored()[0]).save(tmp_path/'t.npz'); again = load_influence(tmp_path/'t.npz')
    assert 'left: the class helps' in again.plot().get_xlabel() and '(they help)' in repr(again) and 'Spanish' in repr(again).splitlines()[1]
    plt.close('all')


def test_not_known_is_raised_and_lowered(tmp_path):
    p = mirrored()[0]; p.better.clear(); html = page(p, tmp_path/'p.html')
    assert 'surely raises it' in html and rows(html)[0][1] == 'Turkish'
    assert not re.search(r'\b(helps?|hurts?)\b', ' '.join(plain(html)))


def test_higher_is_better_as_ever(tmp_path):
    "The words that image users see."
    html = page(mirrored(what=('loss', 'margin'))[1], tmp_path/'p.html'); said = plain(html)
    for text in ('Positive: including the class raises the output on the target', 'negative: it lowers it, relative to leaving the class out.',
                 'The most positive and most negative classes, averaged over all images of the target, with 95 % intervals over models.',
                 'Each dot is a source class on a target class, estimated from two separate halves of the models.', 'Source class by target class'):
        assert any(text in s for s in said), text
    assert not any('examples' in s or 'ower is better' in s for s in said)


def test_page_of_a_run(run):
    from transfer_influence.show.report import make_report
    html = open(make_report(run), encoding='utf-8').read(); said = plain(html); text = ' '.join(said)
    assert not wrong_sentences(html) and 'image' not in text
    assert 'Lower is better. Positive: including the class raises the output on the target, so the class hurts' in html
    assert re.search('which is better: (it helps|they help), most of all Spanish', text)
    assert re.search('which is worse: (it hurts|they hurt), most of all Turkish', text)
    assert 'bits per character, lower is better' in text and 'squared error, lower is better' in text
    assert 'brings -' in text and 'which is better: a gain' in text and 'Mean bits per character: mean ± sd' in text
    assert [r for r in said if r.startswith('without the most positive')]
    by_group, alone = html.split('<section class="target"')[1:]
    assert 'Source class by target class' in by_group and 'Source class by target class' not in alone  # it has no classes
    assert by_group.count('role="tab"') == 4 and 'role="tab"' not in alone and 'helps most<' not in alone
    assert rows(by_group)[0][1] == 'Spanish' and (rows(alone)[0][1], rows(alone)[-1][1]) == ('German', 'Basque')
    assert all(f'aria-label="classes to leave out">{name}' in part for name, part in (('Turkish', by_group), ('Basque', alone)))
    assert 'ti-curve' not in text  # which has no training of one's own
    assert json.loads(re.search(r'<script type="application/json">(.*?)</script>', alone)[1])['better'] == 'lower'


def test_targets_of_both_directions():
    from transfer_influence.show.report import about_sign_of, about_zero, find
    low, high = map(find, mirrored())
    said = about_sign_of([high, low])
    assert said.startswith('<strong>Positive: including the class raises the output on the target; negative: it lowers it</strong>')
    assert said.endswith('Of the bits on Portuguese lower is better: there, a positive class hurts and a negative one helps.')
    assert about_zero([high]) == 'Zero is a class that changes nothing.'


def test_in_place_of_other_data():
    from transfer_influence.show.report import about_sign_of, about_zero, find, verdict
    from transfer_influence.show.sections import leave_out
    f = find(mirrored()[0]); f = replace(f, mean=replace(f.mean, zero='data'))
    assert 'on Portuguese in place of as much other data (q < 0.1), which is better: they help' in verdict(f)[0]
    assert about_sign_of([f]).endswith(', in place of as much other data.') and 'in place of as much other data' in f.mean.plot().get_xlabel()
    assert about_zero([f]).endswith('zero is as much other data: a class that is worse than it may add to the source all the same.')
    assert 'Positive is worse than as much other data, so leaving them out need not help' in leave_out(f.mean)[1]; plt.close('all')


def test_classes_without_an_estimate_are_left_out(tmp_path):
    p = mirrored()[0]; masks = p.masks.copy(); masks[:, 4] = True
    a = rows(page(replace(p, masks=masks), tmp_path/'p.html'))
    assert [r[1] for r in a][::10] == ['Spanish', 'Turkish'] and len(a) == 11 and not any('nan' in x for r in a for x in r)


def test_explorer_of_a_run(run):
    from transfer_influence.show.explorer import explore
    e = explore(run); html = e.static()
    assert re.findall('<h4>(.*?)<', html) == ['From a class to examples', 'From an example to classes: the one that classes move most clearly', 'From k to the curve']
    assert 'image' not in re.sub('data:image[^"]*', '', html) and 'lower is better' in html and 'most positive, 2 removed, against 2 at random' in html
    alone = explore(run, 'prices').static(); assert 'target_class' not in alone and ': all' not in alone


def command(name, *args): return subprocess.run([Path(sys.executable).parent/name, *map(str, args)], capture_output=True, text=True)


def test_commands(run, tmp_path):
    p = mirrored()[0]; names = dict(masks=p.masks, class_names=np.array(NAMES), output_bits=p.outputs['bits'], labels=p.labels)
    np.savez(tmp_path/'a.npz', **names)
    plainly, told = (json.loads(command('ti-influence', tmp_path/'a.npz', '--json', '--out', tmp_path/'t.npz', *more).stdout)
                     for more in ((), ('--better', 'lower')))
    assert (plainly['better'], told['better']) == ('', 'lower') and 'lower is better' in told['sign']
    assert (plainly['rows'][0]['source_class'], told['rows'][0]['source_class']) == ('Turkish', 'Spanish')
    assert load_influence(tmp_path/'t.npz').better == 'lower'
    r = command('ti-report', tmp_path/'a.npz', '--better', 'lower'); assert r.returncode == 0 and 'surely helps' in (tmp_path/'a.html').read_text('utf-8')
    r = command('ti-influence', run, '--json', '--by-target-class'); of = json.loads(r.stdout)
    assert [x['source_class'] for x in of['rows'] if x['target'] == 'speech'][0] == 'Spanish' and of['better'] == 'lower'
    for name in ('ti-influence', 'ti-report'):
        r = command(name, run, '--better', 'higher'); assert (r.returncode, len(r.stderr.splitlines())) == (1, 1), r.stderr
        assert "of the output 'bits per character' on Portuguese lower is better, not higher" in r.stderr
    assert command('ti-influence', run, '--better', 'lower').returncode == 0


@in_browser
@pytest.mark.timeout(120)
def test_by_mouse(run):
    from transfer_influence.show.report import make_report
    with browser() as b:
        p, wrong = watched(b); p.goto(f'file://{make_report(run)}')
        box = p.locator('section.target:not([hidden]) .classes'); shown = box.locator('tbody tr:visible')
        def names(): return [shown.nth(k).locator('td').nth(1).inner_text() for k in range(shown.count())]
        assert names()[0] == 'Spanish' and names()[-1] == 'Turkish'
        box.get_by_role('combobox').select_option('surely helps')
        assert names()[0] == 'Spanish' and 'Turkish' not in names() and len(names()) < len(NAMES)/2
        box.get_by_role('combobox').select_option('surely hurts'); assert names() == ['Turkish']
        box.get_by_role('combobox').select_option('all')
        box.get_by_role('tab', name='tales', exact=True).click()  # sorted anew, the most helpful first
        assert (names()[0], names()[-1]) == ('Spanish', 'Turkish') and box.locator('th[aria-sort=ascending]').count() == 1
        head = box.get_by_role('button', name='influence on the bits per character'); head.click(); assert names()[0] == 'Turkish'
        head.click(); assert names()[0] == 'Spanish'
        p.get_by_role('tab', name='prices', exact=True).click(); assert names()[0] == 'German' and not box.get_by_role('tab').count()
        box.get_by_role('button', name='class', exact=True).click()
        box.get_by_role('button', name='influence on the squared error').click(); assert names()[0] == 'German'
        assert p.evaluate('document.documentElement.scrollWidth') <= 1300 and not wrong
