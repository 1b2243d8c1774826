"""What leaving classes out brings at a fixed number of steps: the patch net on processors, five targets, two sources.

    python benchmarks/budget.py RUNS --data FOLDER [--steps fleets,curves,controls,export] [--workers 2]

FOLDER has the packs of Tiny-ImageNet, CIFAR-10, CIFAR-100, Caltech-101 and Flowers at 32 × 32. Every step can be
stopped and given again. `export` writes `results/budget_cifar10.json` and `results/targets.json`, with what
`budget_gpu.py` found on a GPU where its file `budget_small_resnet.json` lies in RUNS.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import transfer_influence as ti
from transfer_influence.records.predictions import load_predictions
from transfer_influence.records.read_run import read_predictions
from transfer_influence.records.store import open_run
from transfer_influence.fleet.begin import begin_run
from transfer_influence.analysis.budget import budget_from_dict, budget_rows, budget_to_dict
from transfer_influence.analysis.budget_curve import budget_curve, load_budget_curves
from transfer_influence.analysis.budget_plan import FRESH as FIRST_SEED
from transfer_influence.analysis.removal import influence_order
from natural import hand_picked

RESULTS = Path(__file__).resolve().parent.parent/'results'
CHOOSING, FRESH = 4, 20
KS = dict(tiny=(60, 100, 140, 170), cifar100=(30, 50, 70))
BUDGETS = dict(cifar10=(200, 391, 782, 1564), cifar100=(100, 156), targets=(391,))
FLEETS = dict(targets=600, cifar100=1500)
MANY = dict(per_class=0, epochs=40) # heads for many classes of few images
SUPERCLASSES = { # the twenty of CIFAR-100
    'aquatic mammals': 'beaver dolphin otter seal whale', 'fish': 'aquarium_fish flatfish ray shark trout',
    'flowers': 'orchid poppy rose sunflower tulip', 'food containers': 'bottle bowl can cup plate',
    'fruit and vegetables': 'apple mushroom orange pear sweet_pepper',
    'household electrical devices': 'clock keyboard lamp telephone television',
    'household furniture': 'bed chair couch table wardrobe', 'insects': 'bee beetle butterfly caterpillar cockroach',
    'large carnivores': 'bear leopard lion tiger wolf',
    'large man-made outdoor things': 'bridge castle house road skyscraper',
    'large natural outdoor scenes': 'cloud forest mountain plain sea',
    'large omnivores and herbivores': 'camel cattle chimpanzee elephant kangaroo',
    'medium-sized mammals': 'fox porcupine possum raccoon skunk',
    'non-insect invertebrates': 'crab lobster snail spider worm',
    'people': 'baby boy girl man woman', 'reptiles': 'crocodile dinosaur lizard snake turtle',
    'small mammals': 'hamster mouse rabbit shrew squirrel',
    'trees': 'maple_tree oak_tree palm_tree pine_tree willow_tree',
    'vehicles 1': 'bicycle bus motorcycle pickup_truck train', 'vehicles 2': 'lawn_mower rocket streetcar tank tractor'}


def superclass_view(pack:Path, out:Path) -> Path:
    "The images of CIFAR-100 under the names of its twenty superclasses."
    s, of = ti.load_images(pack), {c: k for k, v in enumerate(SUPERCLASSES.values()) for c in v.split()}
    if not out.exists(): ti.save_images(ti.ImageSet(s.images, np.array([of[s.class_names[i]] for i in s.labels]),
                                                    tuple(SUPERCLASSES)), out)
    return out


# recipes

def _recipe(data, source, models, targets, alpha, steps):
    r = ti.load_recipe('tiny-imagenet-cifar10', models=models)
    source, design = replace(r.source, name=source[0], path=str(data/source[1])), replace(r.design, alpha=alpha)
    training = replace(r.training, epochs=0, steps=steps)
    return replace(r, source=source, targets=targets, design=replace(design, repeats=0), training=training)

def recipes(runs:Path, data:Path) -> dict: # {name of the run: recipe}
    (cifar10,) = ti.load_recipe('tiny-imagenet-cifar10').targets
    cifar10 = replace(cifar10, path=str(data/'cifar10_train.npz'), test_path=str(data/'cifar10_test.npz'))
    view = superclass_view(data/'cifar100_test_50.npz', runs/'cifar100_20.npz')
    def target(name, path, metric='top1'):
        return replace(cifar10, name=name, path=str(path), test_path='', metric=metric, **MANY)
    others = (target('cifar100', data/'cifar100_test_50.npz'), target('cifar100-20', view),
              target('caltech101', data/'caltech101_32.npz', 'per_class'),
              target('flowers', data/'flowers_32.npz', 'per_class'))
    tiny, cifar100 = ('tiny-imagenet', 'travel_tinyimagenet200_32_250.npz'), ('cifar100-pack', 'cifar100_train_100.npz')
    return dict(cifar10=_recipe(data, tiny, 2, (cifar10,), .1, 312), # its order comes from the committed fleet
                cifar100=_recipe(data, cifar100, FLEETS['cifar100'], (cifar10,), .2, 156),
                targets=_recipe(data, tiny, FLEETS['targets'], others, .1, 200))


# what is trained

def fleets(runs, data, workers):
    for name, r in recipes(runs, data).items():
        if name in FLEETS: print(ti.Fleet(r, runs/name).run(workers=workers))

def committed_order() -> dict:
    "The order of the committed fleet of patch nets."
    return {'most negative': influence_order(load_predictions(RESULTS/'cifar10_fleet.npz'), 'probability', 'ridge')}

def curve_cifar10(runs, data, workers):
    "Tiny-ImageNet → CIFAR-10 in the order of the committed fleet; a list picked by hand at one pass."
    run = runs/'cifar10'
    begin_run(recipes(runs, data)['cifar10'], run)
    for steps in BUDGETS['cifar10']:
        more = dict(picked={'hand-picked': hand_picked()}) if steps == 391 else {}
        budget_curve(run, [steps], committed_order(), KS['tiny'], FRESH, choosing=CHOOSING, workers=workers, **more)

def curve_third(runs, data, workers):
    "A third net in the same order: strided convolutions."
    budget_curve(runs/'cifar10', [391], committed_order(), KS['tiny'], FRESH, choosing=CHOOSING, workers=workers,
                 training=dict(net='strided_cnn', width=24, lr=.1))

def own_curve(run, target, budgets, ks, workers):
    order = influence_order(read_predictions(open_run(run), target), 'probability', 'ridge')
    return budget_curve(run, budgets, {'most negative': order}, ks, FRESH, target, choosing=CHOOSING, workers=workers)

def curves(runs, data, workers):
    curve_cifar10(runs, data, workers)
    curve_third(runs, data, workers)
    print(own_curve(runs/'cifar100', 'cifar10', BUDGETS['cifar100'], KS['cifar100'], workers))
    for t in recipes(runs, data)['targets'].targets:
        print(own_curve(runs/'targets', t.name, BUDGETS['targets'], KS['tiny'], workers))


# what may explain a gain away

def controls(runs, data, workers):
    """Half and twice the learning rate, at one pass: is the full source only trained at a rate that suits fewer
    classes? And a head on a tenth of the labels."""
    how = dict(ks=[140], replicates=FRESH//2, choosing=1, workers=workers)
    for lr in (.1, .4): budget_curve(runs/'cifar10', [391], committed_order(), training=dict(lr=lr), **how)
    few = recipes(runs, data)['cifar10']
    begin_run(replace(few, targets=(replace(few.targets[0], per_class=100),)), runs/'few_labels')
    budget_curve(runs/'few_labels', [391], committed_order(), **how)


# what is kept

SOURCES = dict(cifar10='tiny-imagenet', few_labels='tiny-imagenet', targets='tiny-imagenet', cifar100='cifar100')

def order_models(name, arm, b):
    "How many models an order comes from."
    given = name in ('cifar10', 'few_labels') and b.about['net'].startswith('patch') or arm == 'by patch nets'
    return json.loads((RESULTS/'cifar10_fleet.json').read_text())['models'] if given else b.about['models']

def rows_of(b, name, target) -> list: # of dicts
    "Rows for tables, with the accuracy of random removal and what the numbers depend on."
    found = []
    for r in budget_rows(b):
        fresh, more = b.fresh[r['steps']], {}
        if r['k'] in fresh.accuracy.get('random', ()):
            random = fresh.of('random', r['k'])
            more = dict(random=random.mean().item(), random_sd=random.std(ddof=1).item())
        found.append(dict(target=target, source=SOURCES[name], net=b.about['net']) | r | more | dict(
            seeds=f"{FIRST_SEED}–{FIRST_SEED + r['replicates'] - 1}", choosing=b.chosen[r['steps']].replicates,
            order_models=order_models(name, r['arm'], b), device=b.about['device']))
    return found

def export(runs, data):
    "Rows and curves of all that is there."
    there = [name for name in SOURCES if (runs/name/'fleet.json').is_file()]
    curves = {(name, *k): b for name in there for k, b in load_budget_curves(runs/name).items()}
    gpu = runs/'budget_small_resnet.json'
    if gpu.is_file(): curves['cifar10', 'cifar10', 'small_resnet 16'] = budget_from_dict(json.loads(gpu.read_text()))
    def write(file, mine, **about):
        rows = [r for (name, target, _), b in mine.items() for r in rows_of(b, name, target)]
        kept = {f'{name}, {target}, {net}': budget_to_dict(b) for (name, target, net), b in mine.items()}
        about |= dict(made_by='python benchmarks/budget.py')
        (RESULTS/file).write_text(json.dumps(dict(about=about, rows=rows, curves=kept)))
    ours = {k: b for k, b in curves.items() if k[0] in ('cifar10', 'few_labels')}
    write('budget_cifar10.json', ours, order=json.loads((RESULTS/'cifar10_fleet.json').read_text()),
          resnets=json.loads((RESULTS/'cifar10_resnets.json').read_text()))
    write('targets.json', {k: b for k, b in curves.items() if k not in ours}, fleets=FLEETS)


def main():
    a = argparse.ArgumentParser()
    a.add_argument('runs', type=Path)
    a.add_argument('--data', type=Path, required=True)
    a.add_argument('--steps', default='fleets,curves,controls,export')
    a.add_argument('--workers', type=int)
    o = a.parse_args()
    o.runs.mkdir(parents=True, exist_ok=True)
    for step in o.steps.split(','):
        start = time.time()
        if step == 'fleets': fleets(o.runs, o.data, o.workers)
        if step == 'curve_cifar10': curve_cifar10(o.runs, o.data, o.workers)
        if step == 'curve_third': curve_third(o.runs, o.data, o.workers)
        if step == 'curves': curves(o.runs, o.data, o.workers)
        if step == 'controls': controls(o.runs, o.data, o.workers)
        if step == 'export': export(o.runs, o.data)
        print(f'{step}: {(time.time() - start)/60:.1f} min', flush=True)


if __name__ == '__main__': main()
