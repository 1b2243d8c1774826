"""Do errors, false discoveries, plans and gains mean what they say? Made-up fleets whose true influence is known:
class effects, interactions and seed noise in three settings (A 60/10/30, B 20/10/70, C 25/50/25 % of the variance)."""
from common import check, median, np # first: it sets the number of threads

from itertools import product

from transfer_influence.design.masks import sample_masks
from transfer_influence.design.simulate import SHARES, simulate_outputs
from transfer_influence.records.predictions import from_arrays
from transfer_influence.influence.tails import interval
from transfer_influence.influence.methods import METHODS
from transfer_influence.influence.result import class_influence
from transfer_influence.influence.reliability import split_half
from transfer_influence.influence.planning import expected_gain, plan_models

TITLE = 'statistics: coverage, false discoveries, errors, plans, gains'


def simulated(m, K, shares, alpha=.5, seed=0, n=1, design='exact', **options):
    "Masks, simulated outputs."
    z = sample_masks(m, range(K), alpha, design, seed).values
    return z, simulate_outputs(z, n, shares, seed=seed, **options)

def centred_error(e, truth) -> float:
    "Sum of squared errors over the sum of squares of the truth."
    return float(((e.values - truth)**2).sum()/(truth**2).sum())


# intervals

def covered(e, truth):
    lo, hi = interval(e)
    ok = np.isfinite(lo)
    return ((lo <= truth) & (truth <= hi))[ok].mean()

def coverage(fleets:int) -> dict: # {(K, m, alpha, setting): share of 95 % intervals that hold the truth}
    "Of `dim`, for single columns and for the mean over a target class of 20 images."
    cells = [(50, 60, .1), (50, 60, .5), (100, 200, .25), (100, 600, .5), (300, 200, .5), (300, 600, .1)]
    found = {}
    for (K, m, alpha), name in product(cells, SHARES):
        single, mean = [], []
        for f in range(fleets):
            z, s = simulated(m, K, name, alpha, f, n=20)
            p = from_arrays(z, s.outputs)
            single.append(covered(METHODS['dim'](z, s.outputs[:, :4]), s.relative[:, :4]))
            mean.append(covered(class_influence(p, missing='mask').mean()._estimate, s.relative.mean(1, keepdims=True)))
        found[f'K={K} m={m} alpha={alpha} {name}'] = dict(single=float(np.mean(single)), mean=float(np.mean(mean)))
    return found


# false discoveries

def discoveries(fleets:int) -> dict:
    "At q = 0.1, where 80 % of the classes are exactly average: the share of reported ones that are, and the power."
    found = {}
    for (K, m), name in product([(100, 200), (100, 500), (300, 600)], SHARES):
        wrong, power = [], []
        for f in range(fleets):
            z, s = simulated(m, K, name, seed=f, n=1, active=.2)
            reported, real = class_influence(from_arrays(z, s.outputs)).qvalues[:, 0] < .1, s.absolute[:, 0] != 0
            wrong.append((reported & ~real).sum()/max(reported.sum(), 1))
            power.append((reported & real).sum()/real.sum())
        found[f'K={K} m={m} {name}'] = dict(false=float(np.mean(wrong)), power=float(np.mean(power)))
    return found


# errors of the estimators

def errors(repeats:int) -> dict:
    "Squared error of the methods, in a grid of designs."
    found = {}
    for K, factor, alpha, name in product((50, 100, 300), (.5, 1, 2), (.1, .25, .5), SHARES):
        m = max(20, int(factor*K)); sums = dict(dim=0, dim_shrunk=0, ridge=0)
        for r in range(repeats):
            z, s = simulated(m, K, name, alpha, r, n=8)
            keep = np.minimum(z.sum(0), m - z.sum(0)) >= 2
            for k in sums:
                e = METHODS[k](z, s.outputs)
                sums[k] += ((e.values - s.relative)[keep]**2).sum()/(s.relative[keep]**2).sum()
        found[f'K={K} m={m} alpha={alpha} {name}'] = {k: v/repeats for k, v in sums.items()}
    return found


# how many models for the same ranks

def rank_correlation(e, truth) -> float:
    a, b = (np.argsort(np.argsort(x, 0), 0) for x in (e.values, truth))
    return float(np.mean([np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(truth.shape[1])]))

def ranks(m, K, name, design, method, repeats):
    cells = (simulated(m, K, name, seed=r, n=8, design=design) for r in range(repeats))
    return np.mean([rank_correlation(METHODS[method](z, s.outputs), s.relative) for z, s in cells])

def models_needed(K:int, repeats:int) -> dict:
    "The foldover's models over those that random halves with `dim` take for the same rank correlation."
    found = {}
    for name in SHARES:
        for copies in (1, 2):
            m = copies*2*(K + 3); goal = ranks(m, K, name, 'foldover', 'mixed', repeats)
            sizes = [int(m*f) for f in (.5, 1, 1.5, 2, 3, 4, 6, 8)]
            reached = [ranks(x, K, name, 'exact', 'dim', repeats) for x in sizes]
            needed = float(np.interp(goal, np.maximum.accumulate(reached), sizes))
            found[f'K={K} m={m} {name}'] = dict(rank_correlation=float(goal), halves_need=needed, ratio=m/needed)
    return found


# plans and gains

def plans(fleets:int) -> dict:
    "Pilots of a third of the models; a plan is right within 0.1 of the realised reliability."
    found = {}
    for (K, m), name in product([(50, 300), (100, 600)], SHARES):
        right, refused = [], 0
        for f in range(fleets):
            z, s = simulated(m, K, name, seed=f, n=5)
            p = from_arrays(z, s.outputs, labels=np.arange(5))
            plan = plan_models(from_arrays(z[:m//3], s.outputs[:m//3], labels=np.arange(5)))
            if plan.can_say: right.append(abs(plan.predict(m)[0] - split_half(p, splits=5).reliability) <= .1)
            else: refused += 1
        found[f'K={K} m={m} {name}'] = dict(right=float(np.mean(right)) if right else None, refused=refused/fleets)
    return found

def gains(fleets:int) -> dict:
    "Predicted over true effect of the estimated worst tenth of the classes."
    found = {}
    for (K, m), name in product([(100, 50), (100, 200), (300, 150), (300, 300), (1000, 500), (1000, 1000)], SHARES):
        sums = np.zeros(4)
        for f in range(max(4, fleets*1000//K if K < 1000 else fleets//2)): # small true gains need many fleets
            z, s = simulated(m, K, name, seed=f, n=1)
            p, numbers = from_arrays(z, s.outputs, class_names=range(K)), {}
            for method in ('dim', 'ridge'):
                g = expected_gain(class_influence(p, method=method, missing='mask'))
                numbers[method] = g.gain, -s.relative[[int(c) for c in g.classes], 0].sum()
            sums += *numbers['dim'], *numbers['ridge']
        found[f'K={K} m={m} {name}'] = dict(dim=sums[0]/sums[1], ridge=sums[2]/sums[3])
    return found


def run(quick:bool) -> dict:
    few = 4 if quick else 1
    c, d, e = coverage(200//few//4 if quick else 200), discoveries(100//few), errors(3)
    n, p, g = models_needed(60 if quick else 100, 4), plans(60//few), gains(100//few)
    ratio = [x['ridge']/x['dim'] for x in e.values()]
    checks = [check(f'coverage of {w}, lowest cell', min(x[w] for x in c.values()), .93) for w in ('single', 'mean')]
    checks += [check(f'coverage of {w}, highest cell', max(x[w] for x in c.values()), .97, False)
               for w in ('single', 'mean')]
    checks += [check('false discoveries at q = 0.1, worst cell', max(x['false'] for x in d.values()), .12, False),
               check('error of ridge / dim, worst cell', max(ratio), 1, False),
               check('the same, median', median(ratio), .4, False),
               check('error of ridge / dim_shrunk, worst cell',
                     max(x['ridge']/x['dim_shrunk'] for x in e.values()), 1.05, False),
               check('foldover + mixed: models / halves + dim, second best setting',
                     sorted(max(x['ratio'] for k, x in n.items() if k.endswith(s)) for s in SHARES)[1], .5, False),
               check('the same, worst', max(x['ratio'] for x in n.values()), 1, False),
               check('plans within 0.1, share of all that were made', np.average([x['right'] or 0 for x in p.values()],
                     weights=[1 - x['refused'] for x in p.values()]), .8),
               check('refused where classes are 25 % or more, worst cell',
                     max(x['refused'] for k, x in p.items() if k[-1] in 'AC'), .2, False),
               check('predicted / true gain, lowest cell', min(x['dim'] for x in g.values()), .8),
               check('predicted / true gain, highest cell', max(x['dim'] for x in g.values()), 1.25, False)]
    return dict(checks=checks, coverage=c, discoveries=d, errors=e, models_needed=n, plans=p, gains=g)

def table(result):
    rows = [['fleets', '', '', '']]
    for part in ('coverage', 'discoveries', 'errors', 'models_needed', 'plans', 'gains'):
        rows.append([part, '', '', ''])
        for cell, values in result[part].items():
            told = [f'{k} -' if v is None else f'{k} {v:.3g}' for k, v in values.items()]
            rows.append([cell, *told, *['']*(3 - len(told))])
    return rows
