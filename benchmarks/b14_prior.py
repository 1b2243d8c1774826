"""What does a guess of the influences bring to `ridge`, and what can it cost? Made-up fleets of many kinds: squared
error with `prior=` over that without, means over replications with their standard errors."""
from common import check, np # first: it sets the number of threads

from itertools import cycle, product
from unittest.mock import patch

from transfer_influence.design.masks import sample_masks
from transfer_influence.influence import regression

TITLE = 'prior: what a guess brings to ridge, and what it can cost'
SIZES = [(20, 100), (20, 400), (100, 100), (100, 150), (100, 250), (100, 400), (100, 1000), (300, 250), (300, 1000),
         (1000, 400), (1000, 2500)] # classes, models
SHARED = [(0, 0), (.5, .5), (.95, .95), (0, .95), (.95, 0)] # of the effects, of the noise: correlation of two outputs
SIGNAL = [.05, .2, .6, .02, .9] # share of the outputs' variance that single classes explain
DESIGNS = ['exact', 'bernoulli', 'foldover']
USELESS = {'noise', 'heavy-tailed noise', 'one class', 'constant', 'each noise'}

def cells(quick) -> list: # (K, m, n, signal, (shared effects, shared noise), design)
    "Each size with 1, 10 and 500 outputs, twice; the other settings go round, so that each meets each."
    signal, shared, design = cycle(SIGNAL), cycle(SHARED*3 + SHARED[1:]), cycle(DESIGNS + ['exact'])
    sizes = [(K, m, n) for (K, m), n in product(SIZES, (1, 10, 500)) if K*n < 200_000 and (K < 1000 or n*m < 5000)]
    sizes = [s for s in sizes for _ in range(1 if s[0]*s[2] > 50_000 or s[0] == 1000 else 2)]
    return [(*s, next(signal), next(shared), next(design)) for s in (sizes[:4] if quick else sizes)]

def unit(a): return (a - a.mean(0))/a.std(0)

def fleet(K, m, n, signal, shared, design, rng):
    "Masks, outputs, true influences."
    z = sample_masks(m, range(K), .5, design, int(rng.integers(1 << 30))).values
    def parts(rows, share): # (rows, n), of which two columns correlate by `share`
        return share**.5*rng.standard_normal((rows, 1)) + (1 - share)**.5*rng.standard_normal((rows, n))
    w = unit(parts(K, shared[0]))*2*(signal/K)**.5
    return z, z @ w + (1 - signal)**.5*parts(m, shared[1]), regression._factor(z)*(w - w.mean(0))

def guesses(w, rng) -> dict:
    "Helpful ones, wrong ones, useless ones."
    (K, n), each, mean = w.shape, unit(w), unit(w.mean(1))
    def like(t, c): return c*t + (1 - c*c)**.5*unit(rng.standard_normal(t.shape))
    found = {f'common {c}'.replace('0.', '.'): like(mean, c) for c in (.1, .3, .6, .9)}
    found |= {'common -.6': like(mean, -.6), 'noise': rng.standard_normal(K), 'heavy-tailed noise': rng.standard_cauchy(K),
              'one class': np.eye(K)[0], 'one output': each[:, 0], 'constant': np.ones(K)}
    if n == 1: return found
    sign = np.where(np.arange(n) % 2, 1, -1)
    return found | {'each .3': like(each, .3), 'each .6': like(each, .6), 'each noise': rng.standard_normal((K, n)),
                    'half wrong': like(each*sign, .9), 'shuffled': each[:, rng.permutation(n)]}

def replication(cell, rng) -> dict: # {guess: (squared error, that without, correlation gained, share of the weight used)}
    z, y, w = fleet(*cell, rng)
    x = z - z.mean(0); sp = regression.spectrum(x, y, regression._covariates(z))
    def fit(prior):
        with patch.object(regression, 'spectrum', lambda *_: sp): e = regression.ridge(z, y, prior=prior) # made once
        return ((e.values - w)**2).sum(), alike(e.values, w), e.about.get('prior_share', 0)
    def alike(a, b): return np.corrcoef(a.ravel(), b.ravel())[0, 1] if a.any() else 0.
    error, r, _ = fit(None)
    return {k: (f[0], error, f[1] - r, f[2]) for k, p in guesses(w, rng).items() for f in [fit(p)]}

def summary(runs) -> dict:
    "Ratio of mean squared errors, its standard error, the mean gain in correlation, the mean share."
    a, b, gain, share = np.array(runs).T; ratio = a.mean()/b.mean()
    return dict(ratio=ratio, stderr=float(np.std(a - ratio*b, ddof=1)/b.mean()/len(a)**.5), gain=gain.mean(),
                share=share.mean())

def run(quick:bool) -> dict:
    found = {}
    for i, cell in enumerate(cells(quick)):
        rng = np.random.default_rng(i); runs = [replication(cell, rng) for _ in range(5 if quick else 50)]
        K, m, n, signal, shared, design = cell
        name = f'K={K} m={m} n={n} signal {signal:.0%} shared {shared[0]}/{shared[1]} {design}'
        found[name] = dict(m=m, signal=signal, guesses={k: summary([r[k] for r in runs]) for k in runs[0]})
        print(name, {k: f"{v['ratio']:.3f}±{v['stderr']:.3f}" for k, v in found[name]['guesses'].items()}, flush=True)
    return dict(cells=found, checks=checks(found))

def ratios(found, kinds, some=lambda c: True):
    return [(v['ratio'], v['stderr'], v['gain']) for c in found.values() if some(c)
            for k, v in c['guesses'].items() if k in kinds]

def checks(found) -> list:
    clear = lambda c: c['signal'] >= .2 and 150 <= c['m'] <= 400
    kinds = {k for c in found.values() for k in c['guesses']}
    third = ratios(found, {'common .3', 'each .3'}, clear); most = ratios(found, kinds)
    return [check('squared error with any guess / without, worst cell', max(r for r, *_ in most), 1.05, at_least=False),
            check('the same, mean over cells, useless guesses', np.mean(
                [r for r, *_ in ratios(found, USELESS)]), 1.005, at_least=False)] + ([
            check('the same, a guess of correlation .3, 150 to 400 models, mean', np.mean([r for r, *_ in third]), .99,
                  at_least=False),
            check('the same, worst cell', max(r for r, *_ in third), 1.005, at_least=False),
            check('what it adds to the correlation with the truth, mean', np.mean([g for *_, g in third]), 0)]
            if third else [])

def table(r):
    "The mean over cells, the worst cell, the mean at 150 to 400 models."
    kinds = dict.fromkeys(k for c in r['cells'].values() for k in c['guesses'])
    def row(k):
        every, few = ratios(r['cells'], {k}), ratios(r['cells'], {k}, lambda c: 150 <= c['m'] <= 400) or [(np.nan,)*3]
        worst = max(every)
        return [k, np.mean([e[0] for e in every]), worst[0], worst[1], np.mean([e[0] for e in few]),
                np.mean([e[2] for e in few])]
    return [['guess', 'error with / without', 'worst cell', '±', '150-400 models', 'correlation gained'], *map(row, kinds)]
