"""Real models: the demo's fleet, 2,100 models. Estimates from the first ones are held against the plain difference in
means of the last 1,400; what those miss of the truth by chance is taken off.
Needs a run: ti-demo --out RUN --models 2100, and TI_DEMO_RUN=RUN."""
from common import np # first: it sets the number of threads

import os

from transfer_influence.records.store import open_run
from transfer_influence.records.read_run import read_predictions
from transfer_influence.influence.methods import METHODS
from transfer_influence.influence.reliability import class_outputs

TITLE = 'real data: methods on the demo, held against models of their own'
LAST = 1400


def table_of(p, rows, method):
    return METHODS[method](p.masks[rows], p.output()[1][rows])

def held(e, truth) -> dict:
    "Rank correlation with the other models, and squared error relative to the true influence's squares."
    ranks = [np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1] for a, b in
             zip(e.values.T, truth.values.T)]
    chance = (truth.stderr**2).sum()
    return dict(rank_correlation=float(np.mean(ranks)),
                error=float((((e.values - truth.values)**2).sum() - chance)/((truth.values**2).sum() - chance)))

def run(quick:bool) -> dict:
    path = os.environ.get('TI_DEMO_RUN', 'demo-run')
    p = class_outputs(read_predictions(open_run(path)))
    truth = table_of(p, np.arange(p.n_models)[-LAST:], 'dim')
    methods = ('dim', 'dim_shrunk', 'ridge', 'mixed')
    found = {f'{m} models': {k: held(table_of(p, np.arange(m), k), truth) for k in methods} for m in (100, 350, 700)}
    return dict(checks=[], models=p.n_models, found=found)

def table(result):
    rows = [['models', 'method', 'rank correlation', 'squared error']]
    return rows + [[m, k, v['rank_correlation'], v['error']] for m, x in result['found'].items() for k, v in x.items()]
