"""The difference in means: the package's estimator (with standard errors), one streaming float32 product without them,
and two products of a matrix with a vector for each target, as in the code published with Jain et al. (2023)."""
from common import check, gemm_peak, median, seconds # first: it sets the number of threads

from dataclasses import dataclass
from time import process_time
import resource

import numpy as np
import torch

from transfer_influence.influence.difference import difference_in_means

TITLE = 'estimator: one product, two products, the package'
BARS = dict(ratio=30, error=1e-6, percent=50)
PART = 1024, 100 # models and targets on which the meter is timed; it is then scaled to all

@dataclass(frozen=True, eq=False)
class Fleet:
    "Made-up masks and probabilities."
    masks:np.ndarray   # (m, K) bool
    outputs:np.ndarray # (m, n) float32

def make_fleet(m:int, K:int, n:int) -> Fleet:
    rng = np.random.default_rng(0)
    return Fleet(rng.random((m, K), np.float32) < .5, rng.random((m, n), np.float32))

def streaming(fleet:Fleet, block:int=512) -> np.ndarray: # (K, n) float32
    "Sums over the models that have a class, block by block; the other models' sums are what is left of the total."
    centre, (K, n) = fleet.outputs[:block].mean(0), (fleet.masks.shape[1], fleet.outputs.shape[1])
    sums, total, count, m = np.zeros((K, n), np.float32), np.zeros(n), np.zeros(K), len(fleet.masks)
    for i in range(0, m, block):
        z, p = fleet.masks[i:i + block].astype(np.float32), fleet.outputs[i:i + block] - centre
        sums += z.T @ p; total += p.sum(0, dtype=np.float64); count += z.sum(0, dtype=np.float64)
    count, total = count[:, None].astype(np.float32), total.astype(np.float32)
    return sums/count - (total - sums)/(m - count)

def meter(masks:torch.Tensor, outputs:torch.Tensor) -> torch.Tensor: # (n, K)
    """For each target two products, (K, m) by (m, 1): over the models that have a class, and over the others.
    All operands are laid out densely first, which the published code leaves out: it is the quicker for it."""
    inside = masks.float().T.contiguous(); outside = 1 - inside
    y = outputs.T.unsqueeze(-1).float().contiguous()
    mean = [(z @ y).squeeze(-1)/z.sum(1) for z in (inside, outside)]
    return mean[0] - mean[1]

def by_groups(fleet:Fleet, targets:int) -> np.ndarray: # (K, targets) float64
    "Each class by itself, in float64: what the others are compared with."
    y = fleet.outputs[:, :targets].astype(np.float64)
    return np.stack([y[z].mean(0) - y[~z].mean(0) for z in fleet.masks.T])

def meter_scale(fleet:Fleet) -> float:
    "How often the timed part of the meter goes into the whole."
    return len(fleet.masks)/min(PART[0], len(fleet.masks))*fleet.outputs.shape[1]/min(PART[1], fleet.outputs.shape[1])

def measure(fleet:Fleet, repeats:int, targets:int=100) -> tuple: # {way: [CPU-seconds]}, {way: largest error}
    "The three ways in turns; the meter's part is measured without scaling its result."
    exact = by_groups(fleet, targets)
    part = torch.from_numpy(fleet.masks[:PART[0]]), torch.from_numpy(fleet.outputs[:PART[0], :PART[1]])
    part_exact = by_groups(Fleet(part[0].numpy(), part[1].numpy()), PART[1])
    ways = dict(streaming=(lambda: streaming(fleet), exact), meter=(lambda: meter(*part).T.numpy(), part_exact),
                package=(lambda: difference_in_means(fleet.masks, fleet.outputs).values, exact))
    times, errors = {w: [] for w in ways}, {}
    for _ in range(repeats):
        for way, (f, truth) in ways.items():
            out = []; times[way].append(seconds(process_time, lambda: out.append(f()[:, :truth.shape[1]].copy())))
            errors[way] = float(abs(out[0] - truth).max())
    return times, errors

def run(quick:bool) -> dict:
    (m, K, n), repeats = ((2048, 200, 1000), 1) if quick else ((7540, 1000, 10000), 3)
    fleet = make_fleet(m, K, n)
    times, errors = measure(fleet, repeats)
    t = {way: median(x) for way, x in times.items()}; t['meter'] *= meter_scale(fleet)
    ratios = dict(meter_over_streaming=t['meter']/t['streaming'], meter_over_package=t['meter']/t['package'],
                  package_over_streaming=t['package']/t['streaming'])
    peak = gemm_peak(); percent = 4e-7*m*K*n/t['package']/peak # two products: sums, and sums of squares
    checks = [check('two-product meter / package, CPU-seconds', ratios['meter_over_package'], BARS['ratio']),
              check('two-product meter / streaming, CPU-seconds', ratios['meter_over_streaming'], BARS['ratio']),
              check('package: % of the GEMM rate, two products', percent, BARS['percent']),
              check('streaming: largest error', errors['streaming'], BARS['error'], False),
              check('package: largest error', errors['package'], BARS['error'], False)]
    return dict(m=m, K=K, n=n, cpu_seconds=t, max_error=errors, **ratios, all_cpu_seconds=times, checks=checks,
                meter_timed_on=PART, meter_scaled_by=meter_scale(fleet), repeats=repeats, gemm_peak_gflops=peak,
                streaming_percent_of_peak=2e-7*m*K*n/t['streaming']/peak,
                peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6)

def table(result):
    names = dict(streaming='streaming float32 product', meter='two-product meter (scaled)', package='the package')
    rows = [['way', 'CPU-s', '/ streaming', 'largest error']]
    return rows + [[name, t, t/result['cpu_seconds']['streaming'], result['max_error'][k]]
                   for k, name in names.items() for t in [result['cpu_seconds'][k]]]
