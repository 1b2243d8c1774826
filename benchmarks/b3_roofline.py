"Which share of the processor's best float32 rate the resident loop reaches, for every small net and batch size."
from common import (WIDTHS, check, flops_per_image, gemm_peak, interleaved, medians, new_net, plan_for,
                    tensors) # first: it sets the number of threads

from dataclasses import replace
from functools import partial

from transfer_influence.training.resident_loop import fit_resident

TITLE = 'roofline: share of the GEMM peak'
BATCHES = (64, 128, 256)
IMAGES = dict(patch=4608, strided_cnn=2304, cnn=768, small_resnet=768) # a round, so that it takes about half a second
BARS = dict(patch=30, strided_cnn=25, cnn=25, small_resnet=25)

def short_plan(net:str, batch:int):
    "A plan of as many steps as `IMAGES` asks for."
    plan, steps = plan_for(0, 3, batch), IMAGES[net]//batch
    return replace(plan, rows=plan.rows[:steps], learning_rates=plan.learning_rates[:steps])

def paths() -> dict: # {(net, batch): function that trains}
    "What is timed in turns."
    def train(net, x, y, plan, _): fit_resident(new_net(net, 0), x, y, plan)
    data = {net: tensors(net) for net in WIDTHS}
    return {(net, b): partial(train, net, *data[net], short_plan(net, b)) for net in WIDTHS for b in BATCHES}

def measure(repeats:int) -> tuple: # {net: {batch: facts}}, peak
    "Rates and shares of the peak."
    peaks = [gemm_peak()]; times = medians(interleaved(paths(), repeats)); peaks.append(gemm_peak())
    flops, nets = {net: flops_per_image(net) for net in WIDTHS}, {net: {} for net in WIDTHS}
    for (net, b), t in times.items():
        rate = short_plan(net, b).rows.size/t
        nets[net][b] = dict(images_per_cpu_second=rate, gflops=1e-9*rate*flops[net],
                            percent_of_gemm_peak=1e-7*rate*flops[net]/max(peaks))
    return {net: dict(mflop_per_image=flops[net]/1e6, batches=nets[net]) for net in WIDTHS}, max(peaks)

def run(quick:bool) -> dict:
    repeats = 1 if quick else 3
    nets, peak = measure(repeats)
    checks = [check(f'{net}: % of GEMM peak, best batch size', best(n), BARS[net]) for net, n in nets.items()]
    return dict(nets=nets, gemm_peak_gflops=peak, widths=WIDTHS, checks=checks, repeats=repeats)

def best(n): return max(b['percent_of_gemm_peak'] for b in n['batches'].values())

def table(result):
    rows = [['net', 'MFLOP an image', *(f'images/CPU-s, b={b}' for b in BATCHES),
             *(f'% of peak, b={b}' for b in BATCHES)]]
    for net, n in result['nets'].items():
        facts = [[n['batches'][b][k] for b in BATCHES] for k in ('images_per_cpu_second', 'percent_of_gemm_peak')]
        rows.append([net, n['mflop_per_image'], *facts[0], *facts[1]])
    return rows
