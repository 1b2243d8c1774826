"""Which languages help to spell others, and what leaving languages out brings at equal steps.

    python benchmarks/words.py RUNS

makes the fleets in the folder RUNS (they go on where they were stopped), `results/words_counted.npz`, `words_copies.npz`
and `words_trained.npz` (masks, and bits per character averaged over each target's words, by part), and
`results/words_removal.json`. The trained models take about a second each on a core.
"""
import json
import sys
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

import transfer_influence as ti
from transfer_influence.analysis.removal import influence_order
from transfer_influence.training.own_training import train_own
from transfer_influence.training.words import words_training

RESULTS = Path(__file__).resolve().parent.parent/'results'
FLEETS = dict(counted=dict(models=600), copies=dict(models=600, copies=True), trained=dict(model='trained', models=400))
TARGET, KS, REPLICATES = 'Portuguese', (10, 20, 30), 10
FRESH = 1_000_000 # seeds of the curve are none of the fleet's


def fleet(name, runs):
    f = ti.Fleet(words_training(**FLEETS[name]), runs/name)
    f.run('local' if name == 'trained' else 'here', **dict(gpus=0) if name == 'trained' else {})
    return f


def keep(f, name):
    read = {t: f.predictions(t) for t in f.recipe.targets}
    means = {part: np.stack([p.output()[1][:, p.split == part].mean(1) for p in read.values()], 1).astype(np.float32)
             for part in ('select', 'report')}
    p = next(iter(read.values()))
    np.savez_compressed(RESULTS/f'words_{name}.npz', masks=p.masks, class_names=np.array(p.class_names),
                        targets=np.array(list(read)), **means)


def one(own, mask, r, report):
    import torch
    torch.set_num_threads(1)
    return float(train_own(own, mask, FRESH + r)[TARGET][0][report].mean())


def removal(f):
    "All languages, without the k most harmful, without k at random; the target's own list is never left out."
    p = f.predictions(TARGET); names = np.array(p.class_names); others = np.flatnonzero(names != TARGET)
    order = [k for k in (list(p.class_names).index(c) for c in influence_order(p)) if k in others]
    arms = {('full', 0): [[]]*REPLICATES}
    for k in KS:
        arms['most harmful', k] = [order[:k]]*REPLICATES
        arms['random', k] = [np.random.default_rng(r).permutation(others)[:k] for r in range(REPLICATES)]
    jobs = [(a, k, r, ~np.isin(np.arange(len(names)), out)) for (a, k), rows in arms.items() for r, out in enumerate(rows)]
    found = Parallel(2)(delayed(one)(f.recipe, mask, r, p.split == 'report') for _, _, r, mask in jobs)
    rows = [dict(arm=a, k=k, replicate=r, bits=round(b, 5)) for (a, k, r, _), b in zip(jobs, found)]
    about = dict(target=TARGET, models=p.n_models, steps=f.recipe.train_fn.args[0].steps, order=[str(names[k]) for k in order])
    (RESULTS/'words_removal.json').write_text(json.dumps(dict(about=about, rows=rows)) + '\n', encoding='utf-8')


if __name__ == '__main__':
    runs = Path(sys.argv[1]); fleets = {name: fleet(name, runs) for name in FLEETS}
    for name, f in fleets.items(): keep(f, name)
    removal(fleets['trained'])
