"""The same net, seeds, order and learning rates in three loops, on one core: plain fastai, fastai's `Learner` with the
resident loader, the resident loop. Then the resident loop on two cores against plain fastai on one."""
from common import (BATCH, check, flops_per_image, gemm_peak, in_processes, interleaved, letters, median, medians,
                    new_net, plan_for, tensors) # first: it sets the number of threads

from functools import partial

import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders, Datasets
from fastai.data.transforms import Categorize, IntToFloatTensor, ToTensor
from fastai.learner import Learner
from fastai.optimizer import SGD
from fastai.vision.core import PILImageBW
from PIL import Image
from torch import nn

from transfer_influence.training.nets import cut_patches
from transfer_influence.training.fastai_loop import PlannedLearningRate, fit_fastai
from transfer_influence.training.resident_loop import fit_resident

TITLE = 'fleet: plain fastai, fastai with the resident loader, resident loop'
BARS = dict(patch=dict(ratio=4, percent=25, two=7), strided_cnn=dict(ratio=2.5, percent=25, two=4.5))
EPOCHS = 3


# plain fastai: pictures in memory, a transform pipeline for each, a Learner

def picture_loaders() -> DataLoaders:
    "Loaders of in-memory PIL pictures, as in fastai's tutorials. Made once, like the tensors of the other loops."
    images, labels = letters()
    pictures = [Image.fromarray(x[..., 0]) for x in images]
    def picture(i): return pictures[i]
    def label(i): return labels[i]
    data = Datasets(range(len(pictures)), [[picture, PILImageBW.create], [label, Categorize]],
                    splits=[range(len(pictures)), []])
    return data.dataloaders(bs=BATCH, num_workers=0, after_item=[ToTensor()], after_batch=[IntToFloatTensor()],
                            device='cpu')

class Patches(nn.Module):
    "The patches of each picture: the resident loops cut them once, for all epochs."
    def forward(self, x): return cut_patches(x)

def fit_plain(net, dls:DataLoaders, plan):
    "Train `net` in place with a `Learner` and fastai's own SGD, in the plan's order."
    epochs = len(plan)//len(dls.train)
    orders = iter(plan.rows.reshape(epochs, -1).tolist())
    dls.train.shuffle_fn = lambda rows: next(orders)
    sgd = partial(SGD, mom=plan.momentum, wd=plan.weight_decay, decouple_wd=False)
    learner = Learner(dls, net, loss_func=F.cross_entropy, opt_func=sgd, wd_bn_bias=True, cbs=PlannedLearningRate(plan.learning_rates))
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs)


# the three loops on one core

def loops(name:str, models:int) -> tuple: # {loop: function of the round}, {(loop, round): nets of that round}
    "The paths to compare; each trains `models` nets a round and keeps them."
    dls, (x, y), kept = picture_loaders(), tensors(name), {}
    def plain(net, plan): fit_plain(nn.Sequential(Patches(), net) if name == 'patch' else net, dls, plan)
    def loader(net, plan): fit_fastai(net, x, y, plan)
    def resident(net, plan): fit_resident(net, x, y, plan)
    def path(fit, r):
        nets = kept[fit.__name__, r] = [new_net(name, models*r + i) for i in range(models)]
        for i, net in enumerate(nets): fit(net, plan_for(models*r + i, EPOCHS))
    return {f.__name__: partial(path, f) for f in (plain, loader, resident)}, kept

def weights(net) -> torch.Tensor:
    "All weights and running statistics in a row."
    return torch.cat([v.flatten() for v in net.state_dict().values() if v.is_floating_point()])

def deviation(nets, others) -> float:
    "The largest difference of a weight, relative to the largest weight."
    return max(float((weights(a) - weights(b)).abs().max()/weights(b).abs().max()) for a, b in zip(nets, others))

def agreement(nets, others, x) -> float:
    "The share of images that two nets put in the same class."
    def classes(net):
        with torch.no_grad(): return net.eval()(x).argmax(1)
    return sum(float((classes(a) == classes(b)).float().mean()) for a, b in zip(nets, others))/len(nets)

def equality(kept, rounds, x) -> dict:
    "How far the nets of the other loops are from the resident loop's."
    pairs = {loop: [(kept[loop, r], kept['resident', r]) for r in rounds] for loop in ('plain', 'loader')}
    return dict(max_weight_deviation={k: max(deviation(*p) for p in v) for k, v in pairs.items()},
                same_prediction={k: min(agreement(*p, x) for p in v) for k, v in pairs.items()})

def one_core(name:str, models:int, repeats:int) -> dict:
    "Times, rates and equality of the three loops."
    paths, kept = loops(name, models)
    peaks = [gemm_peak()]; times = interleaved(paths, repeats); peaks.append(gemm_peak())
    t, flops = medians(times), flops_per_image(name)
    rates = {k: models*plan_for(0, EPOCHS).rows.size/v for k, v in t.items()}
    return dict(ratio=t['plain']/t['resident'], ratio_resident_loader=t['loader']/t['resident'],
                ratio_range=[f(a/b for a, b in zip(times['plain'], times['resident'])) for f in (min, max)],
                percent_of_gemm_peak=1e-7*rates['resident']*flops/max(peaks),
                **equality(kept, range(repeats + 1), tensors(name)[0]), cpu_seconds=t, all_cpu_seconds=times,
                images_per_cpu_second=rates, mflop_per_image=flops/1e6, gemm_peak_gflops=max(peaks))


# two cores against one

def resident_job(name:str, models:int):
    "Get ready; return a function that trains `models` nets."
    x, y = tensors(name)
    def job(n=models):
        for i in range(n): fit_resident(new_net(name, i), x, y, plan_for(i, EPOCHS))
    job(1)
    return job

def plain_job(name:str, models:int):
    "The same with plain fastai."
    paths, _ = loops(name, 1)
    def job(n=models):
        for i in range(n): paths['plain'](i)
    job(1)
    return job

def two_cores(name:str, models:int, repeats:int) -> dict:
    "Models per second of wall time: the resident loop in two processes against plain fastai in one."
    many = 4*models
    rounds = [dict(plain=in_processes(plain_job, (name, models)),
                   resident=in_processes(resident_job, (name, many), processes=2)) for _ in range(repeats)]
    times = {k: [r[k]['wall'] for r in rounds] for k in ('plain', 'resident')}
    rates = dict(plain=models/median(times['plain']), resident=2*many/median(times['resident']))
    return dict(ratio_two_processes=rates['resident']/rates['plain'], models_per_second=rates, wall_rounds=rounds,
                models_in_a_process=dict(plain=models, resident=many))


def checks(nets:dict) -> list:
    "The pass lines."
    for name, n in nets.items():
        bars = BARS[name]
        yield check(f'{name}: plain fastai / resident, CPU-seconds', n['ratio'], bars['ratio'])
        yield check(f'{name}: % of GEMM peak', n['percent_of_gemm_peak'], bars['percent'])
        yield check(f'{name}: two processes / plain fastai, models per second', n['ratio_two_processes'], bars['two'])
        yield check(f'{name}: weights, resident loader against resident', n['max_weight_deviation']['loader'], 0, False)
    yield check('patch: weights, plain against resident', nets['patch']['max_weight_deviation']['plain'], 0, False)

def run(quick:bool) -> dict:
    models, repeats = (1, 1) if quick else (2, 3)
    nets = {name: {**one_core(name, models, repeats), **two_cores(name, models, repeats)} for name in BARS}
    return dict(nets=nets, checks=list(checks(nets)), repeats=repeats, models=models, epochs=EPOCHS, batch=BATCH,
                data='50 glyph classes, 50 images each, 28 x 28 x 1')

def table(result):
    "One column for each net."
    nets = result['nets']
    keys = ['ratio', 'ratio_resident_loader', 'ratio_two_processes', 'percent_of_gemm_peak', 'mflop_per_image']
    rows = [['', *nets]] + [[k, *(n[k] for n in nets.values())] for k in keys]
    for k in ('cpu_seconds', 'images_per_cpu_second', 'max_weight_deviation', 'same_prediction'):
        rows += [[f'{k}: {loop}', *(n[k][loop] for n in nets.values())] for loop in nets['patch'][k]]
    return rows
