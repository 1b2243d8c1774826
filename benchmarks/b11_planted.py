"""Do removal curves and finders find what was planted, and nothing where nothing was planted? Real images, real
training:
printed characters as source, handwritten digits as target; what is hidden is known (notebook 12_planted)."""
from common import check, np # first: it sets the number of threads

from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from transfer_influence.basics.recipe import DesignSpec, RunSpec, SourceSpec, TargetSpec, load_recipe
from transfer_influence.images.image_set import (
    DEMO_LETTERS, digits, glyphs, resize_set, select_classes, split_target)
from transfer_influence.images.folders import save_images
from transfer_influence.images.planted import plant_crossed, plant_leaks, plant_mislabeled, plant_mixed
from transfer_influence.design.masks import pack_masks, sample_masks
from transfer_influence.records.predictions import from_arrays
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.influence.difference import Estimate, difference_in_means
from transfer_influence.influence.tails import p_values, q_values
from transfer_influence.influence.result import class_influence, rank_of
from transfer_influence.influence.examples import example_influence
from transfer_influence.analysis.curve import against_full, against_random
from transfer_influence.analysis.removal import influence_order, removal_curve
from transfer_influence.analysis.explore import project_labels
from transfer_influence.analysis.finders import (
    auc, find_leakage, find_mislabeled, find_misleading, mean_effects, read_examples)

TITLE = 'planted truths: harmful classes, helpful classes, leaks, wrong labels, a hidden sub-population, nulls'
BASE = load_recipe('glyphs-digits')


def printed(names): return resize_set(select_classes(glyphs(), tuple(names)), 14, 1)
def handwritten(): return resize_set(digits(), 14, 1)

def trained(folder:Path, source, models:int, target=None, **design):
    "A run on a source of one's own, trained."
    folder.mkdir(); save_images(source, folder/'source.npz')
    targets = BASE.targets
    if target is not None:
        save_images(target, folder/'target.npz')
        targets = (replace(BASE.targets[0], name='npz', path=str(folder/'target.npz')),)
    r = replace(BASE, source=SourceSpec('npz', path=str(folder/'source.npz')), targets=targets,
                design=DesignSpec(**design),
                run=RunSpec(models))
    fleet = Fleet(r, folder/'run'); fleet.run(quiet=True)
    return fleet

def said(d) -> dict: return dict(points=100*d.mean, stderr=100*d.stderr, p=d.p, p_welch=d.p_welch,
                                 repeats=d.repeats)


# classes

def harmful(root, models, replicates) -> dict:
    "Three classes that mix all ten printed digits at random, beside the ten true ones."
    p = plant_mixed(printed(DEMO_LETTERS[:7] + tuple('0123456789')), printed('0123456789'), '0123456789', each=400)
    fleet = trained(root/'harmful', p.images, models, alpha=.75)
    table = class_influence(fleet.predictions()).by_target_class()
    curve = removal_curve(fleet.out, {'the block': p.classes + tuple(c for c in table.class_names
                                                                     if c not in p.classes),
                                      'most negative': influence_order(fleet.predictions()), 'random': None,
                                      'by margin': influence_order(fleet.predictions(), 'margin'),
                                      'by being right': influence_order(fleet.predictions(), 'correct')}, [3],
                          replicates, quiet=True)
    return dict(lowest=[r.name for r in table.mean().bottom(5)], among_the_lowest_3={c: sum(r.name in p.classes
                                                                                            for r in table.bottom(3, c))
                for c in table.columns}, order_first_5=list(curve.orders['most negative'][:5]),
                by_margin_first_5=list(curve.orders['by margin'][:5]),
                by_right_first_5=list(curve.orders['by being right'][:5]), by_right=said(against_full(curve, 'by '
                                                                                                      'being right',
                                                                                                      3)),
                block=said(against_full(curve, 'the block', 3)), by_order=said(against_full(curve, 'most negative',
                                                                                            3)),
                by_margin=said(against_full(curve, 'by margin', 3)),
                by_order_against_random=said(against_random(curve, 'most negative', 3)))

def helpful(root, models, replicates) -> dict:
    "The ten true digits among 30 letters."
    own = tuple('0123456789')
    letters = DEMO_LETTERS[:30]
    targets = BASE.targets + (TargetSpec('mnist5k', epochs=8, weight_decay=.05),)
    fleet = Fleet(replace(BASE, source=replace(BASE.source, classes=letters + own), targets=targets,
                          design=DesignSpec(alpha=.25),
                          run=RunSpec(models)), root/'helpful')
    fleet.run(quiet=True); ranks = {}
    for t, o in product(('digits', 'mnist5k'), ('probability', 'margin')):
        table = class_influence(fleet.predictions(t), o).by_target_class()
        ranks[f'{t}, {o}'] = [rank_of(table, d, d) for d in own]
    curve = removal_curve(fleet.out, {'the digits': own + letters, 'random': None}, [10], replicates, quiet=True)
    return dict(ranks=ranks, first={k: r.count(1) for k, r in ranks.items()},
                removed=said(against_random(curve, 'the digits', 10)))

def hidden(root, models) -> dict:
    "Half of the target's sevens are crossed, and labelled 7 like the others."
    target, source = plant_crossed(printed('0123456789ABEZSGTP'), handwritten())
    fleet = trained(root/'hidden', source.images, models, target.images, alpha=.5)
    p = fleet.predictions(); infl = class_influence(p)
    rows = split_target(target.images, BASE.targets[0].train_share, 0).evaluate
    sevens = np.flatnonzero(p.labels == 7); crossed = target.is_planted[rows][sevens]
    values = infl.values[infl.class_names.index('7 crossed')][sevens]
    first = project_labels(infl, '7 crossed', int(crossed.sum()), within='7').most
    return dict(auc=auc(values, crossed), sevens=len(sevens), crossed=int(crossed.sum()),
                among_first=float(target.is_planted[rows][first].mean()))


# single images

def planted_images():
    "Printed characters with 20 exact and 20 changed copies of evaluation images, and one label in twenty wrong."
    leaks = plant_leaks(printed('0123456789ABEZSGTP'), handwritten(), split_target(handwritten(),
                                                                                   BASE.targets[0].train_share, 0))
    wrong = plant_mislabeled(leaks.images)
    labels = wrong.images.labels.copy(); labels[leaks.rows] = leaks.images.labels[leaks.rows]
    return leaks, np.setdiff1d(wrong.rows, leaks.rows), replace(wrong.images, labels=labels)

def first_models(e, m):
    def cut(p): return replace(p, masks=p.masks[:m], outputs={o: y[:m] for o, y in p.outputs.items()})
    return replace(e, predictions=cut(e.predictions), source=cut(e.source))

def signals(e, truth) -> dict:
    "AUC of each signal for wrong labels."
    t = find_mislabeled(e).to_dataframe().sort_values('example')
    return dict(opinion=auc(1 - t.mislabeled_score, truth), memorization=auc(t.memorization, truth),
                negative_influence=auc(-t.influence, truth))

def leak_figures(e, leaks) -> dict:
    "How many copies are found, and what influence says of them."
    of = dict(zip(leaks.rows, leaks.of)); table = find_leakage(e)
    hits = {r['example'] for r in table.rows[:40] if of.get(r['example']) == r['target_image']}
    share = lambda rows: float(np.mean([i in hits for i in rows]))
    true = np.array([of.get(r['example']) == r['target_image'] for r in table.rows])
    z = np.array([r['influence']/r['stderr'] for r in table.rows]); effect = np.array([r['influence']
                                                                                       for r in table.rows])
    return dict(exact=share(leaks.rows[:20]), changed=share(leaks.rows[20:]), flagged=len(table.flagged),
                influence_of_leaks=float(effect[true].mean()), influence_of_other_pairs=float(effect[~true].mean()),
                confirmed=float(np.mean([r['q'] < .1 and r['influence'] > 0 for r, t in zip(table.rows, true) if t])),
                auc_of_influence_among_pairs=auc(z, true), **alone(e, leaks))

def alone(e, leaks) -> dict:
    "Influence without similarity: every source image on every target image."
    found = difference_in_means(e.predictions.masks, e.predictions.output()[1])
    z = found.values/found.stderr; column, first = z.argmax(1), np.argsort(-z.max(1), kind='stable')[:40]
    return dict(alone_in_first_40=float(np.mean([i in first and column[i] == j for i, j in zip(leaks.rows, leaks.of)])),
                alone_auc=auc(z.max(1), leaks.is_planted))

def single(root, sizes) -> dict:
    "Leaks, wrong labels and misleading images, by fleets of several sizes."
    leaks, wrong, source = planted_images()
    fleet = trained(root/'single', source, max(sizes), units='examples', alpha=.5)
    e, truth = read_examples(fleet.out), np.isin(np.arange(len(source)), wrong)
    flags = find_mislabeled(e).flagged
    return dict(images=len(source), wrong_labels={m: signals(first_models(e, m), truth) for m in sizes},
                flagged=len(flags), flagged_and_wrong=sum(r['example'] in set(wrong) for r in flags), wrong=len(wrong),
                leaks={m: leak_figures(first_models(e, m), leaks) for m in sizes if m >= 200},
                misleading=len(find_misleading(e).flagged), sd_of_influence=float(np.nanstd(mean_effects(e).values)))


# nothing planted

def findings(p) -> dict:
    "How many entries are reported at q = 0.1 of the mean over the target, and of the table of target classes."
    infl = class_influence(p)
    return dict(mean=int((infl.mean().qvalues < .1).sum()), by_class=int((infl.by_target_class().qvalues < .1).sum()))

def made_up_images(seed) -> bool:
    "Is any of 1000 single images reported as misleading, where none does anything?"
    rng = np.random.default_rng([seed, 33]); masks = rng.random((300, 1000)) < .5
    e = example_influence(pack_masks(masks), rng.normal(size=300))
    p = p_values(Estimate(e.values[:, None], e.stderr[:, None], np.full((1000, 1), 298.)))
    return bool((q_values(p) < .1).any())

def made_up_null(seed) -> dict:
    "A made-up fleet in which no class does anything."
    rng = np.random.default_rng([seed, 31])
    luck = rng.normal(size=(200, 1)) # of a model, on all images
    y = .7*luck + rng.normal(size=(200, 60))
    return findings(from_arrays(sample_masks(200, range(50), .25, seed=seed).values, y, labels=np.arange(60) % 10))

def real_null(root, seed, models) -> dict:
    "Real models, held against masks that are not theirs."
    r = replace(BASE, design=DesignSpec(alpha=.25), run=RunSpec(models, seed))
    fleet = Fleet(r, root/f'null {seed}'); fleet.run(quiet=True)
    p = fleet.predictions()
    shuffled = np.random.default_rng([seed, 32]).permutation(models)
    return findings(replace(p, masks=p.masks[shuffled])) | dict(unshuffled=findings(p))

def upper(runs:int, share:float=.1) -> float:
    "The largest share of findings that 95 % of such series stay below, if the true share is `share`."
    from scipy.stats import binom
    return float(binom.ppf(.95, runs, share)/runs)

def nulls(root, runs, real) -> dict:
    "Findings where nothing is planted."
    made = [made_up_null(s) for s in range(runs)]
    return dict(runs=runs, any_image=float(np.mean([made_up_images(s) for s in range(runs)])),
                any_mean=float(np.mean([x['mean'] > 0 for x in made])), any_by_class=float(np.mean([x['by_class'] > 0
                                                                                                    for x in made])),
                bound=upper(runs), real=[real_null(root, s, 200) for s in range(real)])


def run(quick:bool) -> dict:
    "All plants; `quick` only shows that it works."
    m, reps = (120, 5) if quick else (700, 30)
    with TemporaryDirectory() as d:
        root = Path(d)
        found = dict(harmful=harmful(root, m, max(reps, 5)), helpful=helpful(root, m, reps),
                     hidden=hidden(root, m//2 if quick else 400),
                     single=single(root, (50, 200) if quick else (25, 50, 100, 200, 500, 1000, 3000)),
                     nulls=nulls(root, 40 if quick else 200, 1 if quick else 5))
    return found | dict(models=m, replicates=reps, seed=0, checks=checks(found))

def checks(f) -> list:
    "The bars."
    h, g, s, n = f['harmful'], f['helpful'], f['single'], f['nulls']
    top = max(s['leaks'])
    return [check('harmful block: of the three most negative classes for the ten digits, in the block',
                  sum(c.startswith('mixed') for c in h['lowest'][:3]), 3),
            check('harmful block: gain of removing it, points on the report part', h['block']['points'], 0),
            check('harmful block: p of that gain', h['block']['p'], .01, False),
            check('harmful block: of the first three of the usual order, in the block',
                  sum(c.startswith('mixed') for c in h['order_first_5'][:3]), 3),
            *(check(f'true digits: first for their own digit ({k})', v, 8) for k, v in g['first'].items()),
            check('true digits: loss against random removal, points', -g['removed']['points'], 0),
            check('true digits: p of that loss', g['removed']['p'], .01, False),
            check('leaks: exact copies in the first 40 rows, with their image', s['leaks'][top]['exact'], .8),
            check('leaks: changed copies in the first 40 rows, with their image', s['leaks'][top]['changed'], .5),
            check('wrong labels: AUC of the opinion of models that did not see it', s['wrong_labels'][top]['opinion'],
                  .8),
            check('crossed sevens: AUC of the influence of the printed ones', f['hidden']['auc'], .8),
            check('nothing planted: share of made-up runs with a finding, mean over the target', n['any_mean'],
                  n['bound'], False),
            check('nothing planted: share of made-up runs with a finding, target classes', n['any_by_class'],
                  n['bound'], False),
            check('nothing planted: share of made-up runs with a misleading image', n['any_image'], n['bound'], False)]

def table(r) -> list:
    "What is printed."
    s = r['single']; top = max(s['leaks'])
    rows = [['what', 'figure'], ['most negative classes with the block', ', '.join(r['harmful']['lowest'])],
            ['first of the order, by probability, by margin, by being right',
             '; '.join(', '.join(r['harmful'][k]) for k in ('order_first_5', 'by_margin_first_5', 'by_right_first_5'))],
            ['block among the lowest three, by digit', str(r['harmful']['among_the_lowest_3'])]]
    rows += [[f'{k}', f"{v['points']:+.2f} ± {v['stderr']:.2f} points, p {v['p']:.2g}, Welch {v['p_welch']:.2g}"]
             for k, v in r['harmful'].items() if isinstance(v, dict) and 'points' in v]
    v = r['helpful']['removed']
    rows += [['ranks of the true digits', str(r['helpful']['ranks'])], ['true digits removed, against random',
                                                                        f"{v['points']:+.2f} ± {v['stderr']:.2f} "
                                                                        f"points, p {v['p']:.2g}"],
             ['crossed sevens', str(r['hidden'])]]
    rows += [[f'wrong labels, AUC at {m} models', ', '.join(f'{k} {a:.3f}' for k, a in x.items())] for m,
             x in s['wrong_labels'].items()]
    rows += [[f'leaks at {m} models', ', '.join(f'{k} {a:.3g}' for k, a in x.items())] for m, x in s['leaks'].items()]
    rows += [['flagged as mislabelled', f"{s['flagged']}, of them wrong {s['flagged_and_wrong']} of {s['wrong']}"],
             ['findings in real null runs', str(r['nulls']['real'])]]
    return rows
