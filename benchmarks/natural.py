"""The paper's experiment at 32 × 32, from the packs of Tiny-ImageNet and CIFAR-10 to the arrays in `results/`.

    python benchmarks/natural.py RUNS --source-path … --target-path … --test-path … [--steps fleet,curves,…]

Every step can be stopped and given again: fleets and curves continue, the arrays are written anew. Steps:
fleet (alpha .1), half (alpha .5, the paper's), twentieth and quarter (pilots), small and tiny (nets with little room,
trained longer), groups (WordNet superclasses as units), curves, curves_small, curves_tiny (removal in the order of the
fleet), examples (a fleet on single images), leaks (what it finds, beside a plain search), copies (of test images, changed
in many ways and put into the source: how many are found, and what is flagged beside them), export.
"""
import argparse
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from transfer_influence.basics.recipe import from_dict, load_recipe
from transfer_influence.images.sources import place_recipe
from transfer_influence.records.predictions import Predictions, save_predictions
from transfer_influence.records.store import committed, open_run
from transfer_influence.records.read_run import read_commit, read_predictions
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.influence.result import class_influence
from transfer_influence.analysis.removal import removal_curve, usual_orders
from transfer_influence.analysis.explore import project_labels, source_images, target_images
from transfer_influence.analysis import look_alikes
from transfer_influence.analysis.look_alikes import nearest_pairs, similar_images
from transfer_influence.analysis.finders import (
    ALIKE, find_leakage, find_misleading, find_mislabeled, read_examples, train_examples)

RESULTS = Path(__file__).resolve().parent.parent/'results'
# alpha, models, pairs of models that share a subset
FLEETS = dict(fleet=(.1, 2500, 50), half=(.5, 80, 0), twentieth=(.05, 200, 0), quarter=(.25, 80, 0),
              small=(.1, 100, 0), tiny=(.1, 40, 0))
SMALL = dict(small=dict(width=8, epochs=24), tiny=dict(width=4, epochs=24))
SEEN = 3   # replicates whose select accuracies had a say in the choice of these nets
FRESH = 20 # more replicates of a small net, for one number of classes to remove
SHOWN = (('school bus', 'truck'), ('lifeboat', 'ship'), ('golden retriever', 'dog'), ('sports car', 'automobile'),
         ('seashore', None)) # source classes that the figures project on images, of one target class or of all
KS, KEEP, KS_SMALL = (40, 80, 120), (20,), (80, 100, 120, 140)
ARMS = 'most negative', 'most positive', 'random'


def wordnet() -> list: # of dicts: wnid, class, group, hypernyms
    head, *rows = (RESULTS/'tiny_imagenet_wordnet.tsv').read_text('utf-8').splitlines()
    return [dict(zip(head.split('\t'), r.split('\t'))) for r in rows]


def hand_picked() -> list:
    "What a person would keep for CIFAR-10, by WordNet alone: all animals with bones, all vehicles."
    return [r['class'] for r in wordnet() if {'vertebrate', 'conveyance'} & set(r['hypernyms'].split(';'))]


def recipe_of(step, places):
    "The recipe of a fleet."
    r = place_recipe(load_recipe('tiny-imagenet-cifar10'), **places)
    if step == 'groups':
        groups = {}
        for row in wordnet(): groups.setdefault(row['group'], []).append(row['class'])
        design = replace(r.design, alpha=.1, groups=groups, repeats=0)
        return replace(r, design=design, run=replace(r.run, models=150))
    alpha, models, replicates = FLEETS[step]
    r = replace(r, training=replace(r.training, **SMALL.get(step, {})))
    return replace(r, design=replace(r.design, alpha=alpha, repeats=replicates), run=replace(r.run, models=models))


def train(step, runs, places, workers): Fleet(recipe_of(step, places), runs/step).run(workers=workers)


def curves(run, workers, replicates):
    "Removal and keep-only in three orders, and a list that was picked by hand."
    orders = usual_orders(run, 'cifar10', 'probability', 'ridge', ARMS)
    print(removal_curve(run, orders, KS, replicates, keep=KEEP, picked={'hand-picked': hand_picked()},
                        output='probability', method='ridge', workers=workers))


def curves_small(run, fleet, workers, replicates):
    "The fleet's order, tried on the small net."
    orders = usual_orders(fleet, 'cifar10', 'probability', 'ridge', ARMS)
    how = dict(output='probability', method='ridge', workers=workers)
    print(removal_curve(run, orders, KS_SMALL, replicates + SEEN, **how))
    # 100 is what the select part favours so far; is it a gain for FRESH models, which had no say in that?
    curve_fresh(run, fleet, 100, workers, replicates + SEEN + FRESH)


def curve_fresh(run, fleet, k, workers, replicates):
    "One number of classes to remove, against none and against random ones."
    orders = usual_orders(fleet, 'cifar10', 'probability', 'ridge', ('most negative', 'random'))
    print(removal_curve(run, orders, [k], replicates, output='probability', method='ridge', workers=workers))


# single images

def plain_search(score, column, source, p, rows=60) -> list: # of dicts, the most alike first
    "What a search without any training of fleets puts first."
    return [dict(example=int(i), source_class=source.class_names[source.labels[i]], target_image=int(column[i]),
                 target_class=p.target_class_names[p.labels[column[i]]], similarity=float(score[i]))
            for i in np.argsort(-score, kind='stable')[:rows]]


def leaks(run):
    "Pairs that are alike in features and pixels, in pixels, in features; tables of the other finders; few thumbnails."
    e, source, target = read_examples(run), source_images(run), target_images(run, 'cifar10')
    alike = similar_images(e.store.root, 'cifar10'); column, cosine = nearest_pairs(source.images, [target])
    both = replace(alike, score=np.minimum(alike.features, alike.pixels))
    tables = dict(features_and_pixels=find_leakage(e, alike=both).rows[:60],
                  pixels=plain_search(cosine, column, source, e.predictions),
                  features=plain_search(alike.features, alike.column, source, e.predictions),
                  mislabeled=find_mislabeled(e).rows[:20], misleading=find_misleading(e).rows[:20])
    about = facts(e.store.root) | dict(usual=alike.usual, images=len(e.labels))
    (RESULTS/'cifar10_leaks.json').write_text(json.dumps(dict(about=about) | tables, indent=1))
    examples, columns = thumbnails(tables)
    np.savez_compressed(RESULTS/'cifar10_leaks.npz', examples=examples, source=source.images[examples],
                        columns=columns, target=target[columns])


def thumbnails(tables, rows=6) -> tuple: # numbers of source images, of target images
    "The images that figures show of each table."
    first = [r for t in tables.values() for r in t[:rows]]; pairs = [r for r in first if 'target_image' in r]
    return np.unique([r['example'] for r in first]), np.unique([r['target_image'] for r in pairs])


# copies of test images, changed and planted

def changes(rng) -> dict:
    "What is done to a copy."
    def sized(x, n, how=Image.Resampling.BICUBIC): return np.asarray(Image.fromarray(x).resize((n, n), how))
    def jpeg(x, quality):
        data = io.BytesIO(); Image.fromarray(x).save(data, 'JPEG', quality=quality); return np.asarray(Image.open(data))
    def lit(x): return np.clip((x - x.mean())*rng.uniform(.7, 1.3) + x.mean() + rng.uniform(-25, 25), 0, 255).astype('u1')
    def cut(x): i, j = rng.integers(0, 4, 2); return sized(x[i:i + 29, j:j + 29], 32)
    def moved(x): return look_alikes.shifted(x[None], [(a, b) for a in (-2, 0, 1) for b in (-1, 2)][rng.integers(6)])[0]
    return dict(exact=lambda x: x, lit=lit, cut=cut, mirrored=lambda x: x[:, ::-1], jpeg50=lambda x: jpeg(x, 50),
                jpeg30=lambda x: jpeg(x, 30), moved=moved, blurred=lambda x: sized(sized(x, 16, Image.Resampling.BOX), 32))


def copies(run, each=200):
    "Copies of test images among the source's: how many are flagged with their originals, and what else is."
    rng, source, target = np.random.default_rng(0), source_images(run), target_images(run, 'cifar10')
    how = changes(rng); of = rng.permutation(len(target))[:each*len(how)].reshape(len(how), each)
    planted = np.stack([f(target[i]) for f, row in zip(how.values(), of) for i in row])
    rest = target_images(run, 'cifar10', evaluated=False)[:5000]
    images, moved = np.concatenate([source.images, planted]), look_alikes.views(target)
    f = look_alikes._net_features(run, from_dict(open_run(run).get('fleet.json')['recipe']), [images, rest, *moved])
    s = look_alikes.similarity(look_alikes.Features((f[0], images), (f[2:], moved), (f[1], rest)))
    flag, n = s.score > max(s.usual, ALIKE), len(source.images)
    found = (flag[n:] & (s.column[n:] == of.ravel())).reshape(of.shape).mean(1)
    first = plain_search(s.score[:n], s.column[:n], source, read_predictions(open_run(run), 'cifar10'))
    about = dict(images=n, evaluated=len(target), each=each, usual=s.usual, flagged=int(flag[:n].sum()))
    (RESULTS/'cifar10_copies.json').write_text(json.dumps(dict(
        about=about, found=dict(zip(how, found.tolist())), pairs=first), indent=1))
    i, j = ([r[k] for r in first[:6]] for k in ('example', 'target_image'))
    np.savez_compressed(RESULTS/'cifar10_copies.npz', source=source.images[i], target=target[j])


# what is kept

def facts(run) -> dict:
    "What a run's results were made with."
    store = open_run(run); head, done = store.get('fleet.json'), committed(store)
    commits = [read_commit(store, i) for i in done]
    seconds = [c.get('cpu_seconds', np.nan) for c in commits] # the machine had other work at times
    session = store.get(sorted(store.paths('runs'))[0])
    d = head['recipe']
    t = d['training']
    return dict(models=len(done), alpha=d['design']['alpha'], seed=d['run']['seed'], net=f"{t['net']} {t['width']}",
                epochs=t['epochs'], precision=t['precision'], device=commits[0].get('device', 'cpu'),
                seconds=float(np.median(seconds)), core_minutes=float(np.nansum(seconds)/60),
                versions=session.get('versions', {}), hash=head['recipe_hash'])


def averaged(p:Predictions) -> Predictions: # a column for each target class and part
    "Outputs averaged over the 500 images of each class and part: all that class tables and orders need."
    cells = [(c, part) for part in ('select', 'report') for c in range(len(p.target_class_names))]
    chosen = [(p.labels == c) & (p.split == part) for c, part in cells]
    outputs = {o: np.stack([p.outputs[o][:, j].mean(1, dtype=np.float64) for j in chosen], 1).astype(np.float32)
               for o in ('margin', 'probability', 'correct')}
    return replace(p, outputs=outputs, labels=np.array([c for c, _ in cells]), split=np.array([s for _, s in cells]))


def export_fleet(step, runs):
    "Averages of a fleet's outputs, and what they were made with."
    p = read_predictions(open_run(runs/step), 'cifar10')
    save_predictions(averaged(p), RESULTS/f'cifar10_{step}.npz')
    (RESULTS/f'cifar10_{step}.json').write_text(json.dumps(facts(runs/step), indent=1))
    if step == 'fleet': export_images(p, runs/step)


def export_images(p, run):
    "Influence on single images; their mean colours, and the few thumbnails that figures show."
    infl = class_influence(p, 'margin', missing='mask')
    # as it is kept, so that the figures show the same images
    infl = replace(infl, values=infl.values.astype(np.float16).astype(np.float32))
    images, source = target_images(run, 'cifar10'), source_images(run)
    ends = [project_labels(infl, name, 8, within) for name, within in SHOWN]
    shown = np.unique([j for q in ends for j in (*q.most, *q.least)])
    colours = np.stack([source.images[source.labels == k].mean((0, 1, 2)) for k in range(len(source.class_names))])
    np.savez_compressed(RESULTS/'cifar10_images.npz', influence=infl.values.astype(np.float16),
                        stderr=infl.stderr.mean(0).astype(np.float16), class_names=np.array(p.class_names),
                        labels=p.labels.astype(np.uint8), target_class_names=np.array(p.target_class_names),
                        n_models=p.n_models,
                        colours=images.mean((1, 2)).round().astype(np.uint8),
                        source_colours=colours.round().astype(np.uint8),
                        shown=shown, thumbnails=images[shown])


def export_curves(runs):
    "The curves of the fleets that have some."
    for name in ('fleet', 'small', 'tiny'):
        path = runs/name/'curves'/'summary'/'cifar10.json'
        if not path.is_file(): continue
        curve = json.loads(path.read_text()); curve['about']['models'] = len(committed(open_run(runs/'fleet'))) # its order
        (RESULTS/f'cifar10_curves_{name}.json').write_text(json.dumps(curve))


def main():
    "The steps that were asked for, in order."
    a = argparse.ArgumentParser(); a.add_argument('runs', type=Path)
    for o in ('source', 'target', 'test'): a.add_argument(f'--{o}-path', dest=o, default='')
    a.add_argument('--steps', default='fleet,half,twentieth,quarter,small,tiny,groups,curves,curves_small,curves_tiny,'
                                      'examples,leaks,copies,export')
    a.add_argument('--workers', type=int)
    a.add_argument('--replicates', type=int, default=10)
    o = a.parse_args(); places = dict(source=o.source, target=o.target, test=o.test)
    for step in o.steps.split(','):
        start = time.time()
        if step in (*FLEETS, 'groups'): train(step, o.runs, places, o.workers)
        if step == 'curves': curves(o.runs/'fleet', o.workers, o.replicates)
        if step == 'curves_small': curves_small(o.runs/'small', o.runs/'fleet', o.workers, o.replicates)
        if step == 'curves_tiny': curve_fresh(o.runs/'tiny', o.runs/'fleet', 120, o.workers, SEEN + FRESH)
        if step == 'examples': train_examples(o.runs/'fleet', 100, .25, workers=o.workers)
        if step == 'leaks': leaks(o.runs/'fleet')
        if step == 'copies': copies(o.runs/'fleet')
        if step == 'export':
            for s in (*FLEETS, 'groups'):
                if (o.runs/s/'fleet.json').is_file(): export_fleet(s, o.runs)
            export_curves(o.runs)
        print(f'{step}: {(time.time() - start)/60:.1f} min')


if __name__ == '__main__': main()
