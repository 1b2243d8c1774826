"""Transfer to digits. A: head by SGD through the frozen backbone, batch norm moving (`paper`).
A': the same from another head seed, in another order.
B: batch norm recalibrated, features cached, the same SGD on them (`frozen`)."""
from common import WIDTHS, check, interleaved, medians # first: it sets the number of threads

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from transfer_influence.basics.recipe import TargetSpec, TrainSpec
from transfer_influence.images.image_set import DEMO_LETTERS, digits, glyphs, select_classes
from transfer_influence.design.masks import sample_masks
from transfer_influence.training.nets import build_net, prepare
from transfer_influence.training.outputs import record_outputs
from transfer_influence.training.schedule import make_plan
from transfer_influence.training.resident_loop import fit_resident
from transfer_influence.training.transfer import target_data, transfer

TITLE = 'transfer: SGD through the backbone against cached features'
BAR, SLACK = 5, .01

def pretrained(net:str, models:int) -> list:
    "Nets trained on half of the demo's letters each, at 28 × 28 pixels."
    s, spec = select_classes(glyphs(), DEMO_LETTERS), TrainSpec(net=net, width=WIDTHS[net], epochs=4)
    x, y, nets = prepare(net, s.images), torch.from_numpy(s.labels), []
    for i, mask in enumerate(sample_masks(models, s.class_names)):
        nets.append(build_net(net, len(s.class_names), 28, 1, spec.width, i))
        fit_resident(nets[-1], x, y, make_plan(spec, np.flatnonzero(mask[s.labels]), np.random.default_rng(i)))
    return nets

def targets(net:str) -> dict: # {way: (protocol, TargetData)}
    "The three ways; A and B share head seed and order."
    spec = TargetSpec(name='digits', epochs=15)
    data = target_data(digits(), spec, net, 0)
    other = replace(data, head_seed=1, plan=make_plan(spec, np.arange(len(data.x_train)), np.random.default_rng(1)))
    return {'A': ('paper', data), "A'": ('paper', other), 'B': ('frozen', data)}

def transfer_all(net:str, models:int, repeats:int) -> tuple: # {way: (models, n) probabilities}, {way: [seconds]}
    "Probability of the correct class on the evaluation images, and what each way takes for all models."
    nets, out = pretrained(net, models), {}
    def path(way, protocol, data, _):
        scores = [transfer(n, data, protocol, fit_resident) for n in nets]
        out[way] = np.stack([record_outputs(s, data.y_eval)[0] for s in scores])
    times = interleaved({way: partial(path, way, *t) for way, t in targets(net).items()}, repeats)
    return out, times

def correlations(a, b) -> dict:
    "Over models and images; and after each image's mean over models, which influence does not use, is taken away."
    def corr(u, v): return float(np.corrcoef(u.ravel(), v.ravel())[0, 1])
    return dict(all=corr(a, b), centred=corr(a - a.mean(0), b - b.mean(0)))

def measure(net:str, models:int, repeats:int) -> dict:
    "Cost and agreement."
    out, times = transfer_all(net, models, repeats)
    t = medians(times)
    return dict(ratio=t['A']/t['B'], all_ratios=[a/b for a, b in zip(times['A'], times['B'])],
                cpu_ms_a_model={k: 1e3*v/models for k, v in t.items()},
                correlation_A_B=correlations(out['A'], out['B']),
                correlation_A_other_seed=correlations(out['A'], out["A'"]),
                mean_probability={k: float(v.mean()) for k, v in out.items()})

def run(quick:bool) -> dict:
    models, repeats = (3, 1) if quick else (6, 3)
    nets, checks = {net: measure(net, models, repeats) for net in ('patch', 'strided_cnn')}, []
    for k, n in nets.items():
        checks.append(check(f'{k}: A / B, CPU-seconds', n['ratio'], BAR))
        for c in ('all', 'centred'):
            checks.append(check(f"{k}: corr(A, B), {c}", n['correlation_A_B'][c],
                                n['correlation_A_other_seed'][c] - SLACK))
    return dict(nets=nets, checks=checks, repeats=repeats, models=models)

def table(result):
    nets = result['nets'].values()
    rows = [['', *result['nets']], ['A / B, CPU-seconds', *(n['ratio'] for n in nets)]]
    rows += [[f'CPU-ms a model, {w}', *(n['cpu_ms_a_model'][w] for n in nets)] for w in ('A', "A'", 'B')]
    for k in ('correlation_A_B', 'correlation_A_other_seed'):
        rows += [[f"{k.replace('_', ' ')}, {c}", *(n[k][c] for n in nets)] for c in ('all', 'centred')]
    return rows
