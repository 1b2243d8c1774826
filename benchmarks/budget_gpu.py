"""On a GPU: a fleet of small ResNets, the order it gives, and what leaving classes out brings at one to eight passes.

    python benchmarks/budget_gpu.py --data FOLDER --out FOLDER [--seconds 460]

FOLDER has `tiny-imagenet.npz`, `cifar10-train.npz` and `cifar10-test.npz`. What is finished is written down at once,
the most wanted first; without a GPU the same code runs on a sliver of the work, as a rehearsal.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import torch

import transfer_influence as ti
import transfer_influence.fleet.fleet as fleet
from transfer_influence.analysis.budget import budget_to_dict
from transfer_influence.analysis.budget_curve import budget_curve
from transfer_influence.analysis.removal import influence_order
from transfer_influence.records.predictions import load_predictions, save_predictions
from natural import averaged, facts

GPU = torch.cuda.is_available()
ROOT = Path(__file__).resolve().parent.parent
START = time.time()
GROUP = 21 if GPU else 3   # models as one program: three that choose × seven points, 21 fresh replicates
MODELS, STEPS = (98*GROUP, 120) if GPU else (9, 4)
CHOOSING, FRESH = (3, 21) if GPU else (1, 3)
KS = (60, 100, 140) if GPU else (2, 4)
PASSES = 1, 8, 4, 2        # the most wanted first


def recipe_of(data):
    "Small ResNets on a tenth of the classes, briefly; a head on 250 labels a class."
    r = ti.load_recipe('tiny-imagenet-cifar10', models=MODELS)
    (t,) = r.targets
    t = replace(t, path=str(data/'cifar10-train.npz'), test_path=str(data/'cifar10-test.npz'),
                per_class=250 if GPU else 5)
    training = replace(r.training, net='small_resnet', width=16 if GPU else 4, epochs=0, steps=STEPS, lr=.1,
                       loop='batched', precision='bfloat16' if GPU else 'float32')
    source = replace(r.source, path=str(data/'tiny-imagenet.npz'))
    if not GPU: source = replace(source, classes=ti.load_images(data/'tiny-imagenet.npz').class_names[:8])
    design = replace(r.design, alpha=.1 if GPU else .5, repeats=0)
    return replace(r, source=source, targets=(t,), training=training, design=design)


def order_of_patch_nets(names):
    """The order of the committed fleet of patch nets, ridge on the probability, select images. For comparison only: with
    other images for the head the halves of the test images are others, too, so this order knows report images."""
    order = influence_order(load_predictions(ROOT/'results'/'cifar10_fleet.npz'), 'probability', 'ridge')
    return tuple(c for c in order if c in names)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--data', type=Path, required=True)
    p.add_argument('--out', type=Path, required=True)
    p.add_argument('--seconds', type=float, default=460)
    a = p.parse_args()
    run = Path(mkdtemp())/'run'
    def say(what): print(f'{time.time() - START:.0f} s: {what}', flush=True)
    fleet.COMPILED_FROM = 0 # the fleet's compiled step serves the curves, too
    f = ti.Fleet(recipe_of(a.data), run, at_once=GROUP)
    f.run(engine='here', quiet=True, stop=lambda n: time.time() - START > .5*a.seconds)
    say(f.status()['done'])
    predictions = f.predictions()
    save_predictions(averaged(predictions), a.out/'cifar10_resnets.npz')
    about = facts(run) | dict(card=torch.cuda.get_device_name() if GPU else 'none', steps=STEPS)
    (a.out/'cifar10_resnets.json').write_text(json.dumps(about, indent=1)); say('fleet written down')
    arms = {'most negative': influence_order(predictions, 'probability', 'ridge'),
            'by patch nets': order_of_patch_nets(predictions.class_names)}
    one = 391 if GPU else 8
    for n in PASSES:
        left, need = a.seconds - (time.time() - START), n*one*(5*FRESH + 7*CHOOSING)*.38e-3
        if GPU and left < need: say(f'{n} passes left out: {need:.0f} s needed, {left:.0f} left'); continue
        b = budget_curve(run, [n*one], arms, KS, FRESH, choosing=CHOOSING, engine='here', quiet=True, at_once=GROUP)
        (a.out/'budget_small_resnet.json').write_text(json.dumps(budget_to_dict(b))); say(f'{n} passes')
        print(b, flush=True)


if __name__ == '__main__': main()
