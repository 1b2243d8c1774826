"What the benchmarks share: one thread, clocks, interleaved repeats, the machine, the training task."
import os
for _v in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[_v] = '1' # before numpy and torch
from datetime import date
from functools import cache
from pathlib import Path
from statistics import median
import multiprocessing
import platform
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from transfer_influence.fleet.progress import versions
from transfer_influence.images.image_set import glyphs
from transfer_influence.training.nets import build_net, prepare
from transfer_influence.training.schedule import TrainingPlan, triangular_learning_rates

torch.set_num_threads(1)


# clocks and repeats

def seconds(clock, f, *args) -> float:
    "What `f` takes, by `clock`."
    start = clock(); f(*args)
    return clock() - start

def interleaved(paths:dict,  # {name: function of the number of the repeat}
                repeats:int, # measured rounds; round 0 is run and not counted
                clock=time.process_time,
               ) -> dict:    # {name: [seconds of each round]}
    "Time several paths in turns, so that a change of the machine's load meets all of them."
    times = {name: [] for name in paths}
    for r in range(repeats + 1):
        for name, f in paths.items():
            t = seconds(clock, f, r)
            if r: times[name].append(t)
    return times

def medians(times:dict) -> dict: return {name: median(t) for name, t in times.items()}

def load() -> list:
    "The load averages of 1, 5 and 15 minutes."
    return [round(x, 2) for x in os.getloadavg()]

def gemm_peak(sizes=(256, 512, 1024), repeats:int=3) -> float: # GFLOP per CPU-second
    "The best rate of square float32 products on one thread."
    best = 0
    for n in sizes:
        a = torch.randn(n, n); b = a@a; k = max(1, 2**30//n**3)
        for _ in range(repeats): best = max(best, 2e-9*k*n**3/seconds(time.process_time, _products, a, b, k))
    return best

def _products(a, b, k):
    for _ in range(k): torch.mm(a, a, out=b)


# the machine

def cpu_name() -> str:
    "The processor's name."
    info = Path('/proc/cpuinfo')
    names = [l.split(':')[1].strip() for l in info.read_text().splitlines() if l.startswith('model name')] \
        if info.is_file() else []
    return names[0] if names else platform.processor()

def cores() -> int:
    "Cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()

def machine() -> dict:
    "What the numbers depend on."
    return dict(cpu=cpu_name(), cores=cores(), instructions=torch.backends.cpu.get_cpu_capability(),
                system=platform.system(), date=date.today().isoformat(),
                versions={k: v for k, v in versions().items() if k != 'transfer_influence'})

def check(what:str, value:float, bar:float, at_least:bool=True) -> dict:
    "A measured value beside its pass line."
    return dict(what=what, value=value, bar=bar, at_least=at_least, passed=value >= bar if at_least else value <= bar)


# the training task: 50 printed letters, 50 pictures each, as tensors

N_CLASSES, BATCH = 50, 128
WIDTHS = dict(patch=32, strided_cnn=16, cnn=16, small_resnet=16)

@cache
def letters() -> tuple: # (2500, 28, 28, 1) uint8, (2500,) labels
    "The first 50 pictures of the first 50 glyph classes."
    s = glyphs()
    rows = np.concatenate([np.flatnonzero(s.labels == k)[:50] for k in range(N_CLASSES)])
    return s.images[rows], s.labels[rows]

def tensors(net:str): return prepare(net, letters()[0]), torch.from_numpy(letters()[1])

def new_net(name:str, seed:int): return build_net(name, N_CLASSES, 28, 1, WIDTHS[name], seed)

def plan_for(seed:int, epochs:int, batch:int=BATCH) -> TrainingPlan:
    "Every epoch a fresh order without its incomplete last batch, as fastai has it."
    rng, n = np.random.default_rng(seed), len(letters()[1])
    steps = n//batch
    rows = np.concatenate([rng.permutation(n)[:steps*batch].reshape(steps, batch) for _ in range(epochs)])
    return TrainingPlan(rows, triangular_learning_rates(len(rows), .1, .25), .9, 5e-4)

def flops_per_image(name:str, batch:int=BATCH) -> float:
    "Floating point operations of a forward and a backward pass, for each image."
    x, y = tensors(name)
    return flop_count(new_net(name, 0), x[:batch], y[:batch])/batch

def flop_count(net, x, y) -> float:
    "Floating point operations of a forward and a backward pass of a batch."
    with FlopCounterMode(display=False) as counter: F.cross_entropy(net(x), y).backward()
    return counter.get_total_flops()


# several processes

def busy_seconds() -> float:
    "CPU-seconds that all processes of this machine have used, where Linux tells them."
    stat = Path('/proc/stat')
    if not stat.is_file(): return 0.
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal)/os.sysconf('SC_CLK_TCK')

def _child(start, answers, make_job, args, threads):
    torch.set_num_threads(threads)
    job = make_job(*args)
    start.wait()
    wall, cpu, busy = time.monotonic(), time.process_time(), busy_seconds()
    job()
    answers.put((wall, time.monotonic(), time.process_time() - cpu, busy, busy_seconds()))

def _together(make_job, args, processes, threads):
    "Run the job once in each process; they start together."
    spawn = multiprocessing.get_context('spawn')
    start, answers = spawn.Barrier(processes), spawn.Queue()
    children = [spawn.Process(target=_child, args=(start, answers, make_job, args, threads)) for _ in range(processes)]
    for c in children: c.start()
    begin, end, cpu, busy, busy_end = zip(*[answers.get(timeout=900) for _ in children])
    for c in children: c.join()
    wall = max(end) - min(begin)
    return dict(wall=wall, cpu=sum(cpu), cores_of_others=max(0., max(busy_end) - min(busy) - sum(cpu))/wall)

def in_processes(make_job,   # called in each process, not measured: gets ready, returns the function to measure
                 args:tuple, # of `make_job`
                 processes:int=1, threads:int=1,
                 tries:int=4) -> dict: # wall seconds, CPU-seconds, cores that others used, cores that were too few
    """Run the same job in several processes that start together; their start and imports are not measured.
    Where other programs take a tenth of a core or more away it is repeated, and the least disturbed run counts."""
    best = None
    for _ in range(tries):
        run = _together(make_job, args, processes, threads)
        run['cores_short'] = max(0., run['cores_of_others'] + processes*threads - cores())
        if best is None or run['cores_short'] < best['cores_short']: best = run
        if best['cores_short'] < .1: break
    return best
