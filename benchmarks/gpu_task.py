"""The task of `gpu.py`: the card and its own best, source, target and recipe, source training alone and its stages."""
from common import flop_count, load, time, torch # first: it sets the threads
from b7_gpu import pictures

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
import platform
import subprocess

import transfer_influence as ti
from transfer_influence.fleet.progress import versions
from transfer_influence.images.folders import load_images
from transfer_influence.training.batched_loop import Batched, stacked
from transfer_influence.training.batched_transfer import stack_features, transfer_stack
from transfer_influence.training.outputs import record_outputs
from transfer_influence.training.pipeline import load_workbench, new_model
from transfer_influence.records.store import Store, write_model
from transfer_influence.training.fastai_loop import fit_fastai

GPU = torch.cuda.is_available()
DEVICE, PRECISION = ('cuda', 'bfloat16') if GPU else ('cpu', 'float32')
NETS = dict(patch=dict(width=48, batch_size=128, lr=.2), strided_cnn=dict(width=24, batch_size=128, lr=.1),
            small_resnet=dict(width=16, batch_size=128, lr=.1),
            airbench=dict(width=64, batch_size=1000, lr=.05, augment='flip-crop'))
STEPS, ALPHA, CLASSES, EACH = (312, .1, 200, 250) if GPU else (4, .5, 8, 12)
CLOCK = dict(start=time.time(), limit=340 if GPU else 600) # seconds of the whole; what does not fit is left out

def left() -> float: return CLOCK['limit'] - (time.time() - CLOCK['start'])


# the card

def smi(*keys):
    "What the driver says of the first card."
    query = ['nvidia-smi', f'--query-gpu={",".join(keys)}', '--format=csv,noheader']
    try: said = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    except OSError: return {}
    return dict(zip(keys, map(str.strip, said.split('\n')[0].split(','))))

def card() -> dict:
    "What the numbers depend on."
    name = torch.cuda.get_device_name() if GPU else 'none'
    return dict(name=name, cuda=torch.version.cuda, load=load(), versions=versions(), system=platform.platform(),
                **smi('driver_version', 'clocks.sm', 'clocks.max.sm', 'clocks.mem', 'power.limit', 'memory.total'))

def best_rates() -> dict: # FLOP/s and bytes/s
    "The card's own best on a large product and a large copy."
    n, dtype = (8192, torch.bfloat16) if GPU else (256, torch.float32)
    a = torch.randn(n, n, device=DEVICE, dtype=dtype)
    b = torch.empty(2**30 if GPU else 2**20, device=DEVICE, dtype=torch.uint8)
    c = torch.empty_like(b)
    return dict(flops=2*n**3/seconds(lambda: a@a), bytes=2*b.numel()/seconds(lambda: c.copy_(b)))

def seconds(f, repeats=5, unmeasured=1) -> float:
    "The least of several; the first ones may be left out."
    times = []
    for _ in range(repeats + unmeasured):
        if GPU: torch.cuda.synchronize()
        t = time.perf_counter(); f()
        if GPU: torch.cuda.synchronize()
        times.append(time.perf_counter() - t)
    return min(times[unmeasured:])


# the task: source, target, recipe

PACKS = dict(source='tiny-imagenet.npz', cifar10='cifar10-train.npz', test='cifar10-test.npz')

def is_real(folder:Path) -> bool: return GPU and all((folder/f).is_file() for f in PACKS.values())

def images(folder:Path) -> dict: # {'source', 'cifar10', 'test': ImageSet}
    "The real sets where their packs are there, else pictures of the same shape."
    if is_real(folder): return {k: load_images(folder/f) for k, f in PACKS.items()}
    n = 1000 if GPU else 40
    return dict(source=pictures(CLASSES, EACH), cifar10=pictures(10, n), test=pictures(10, n))

def recipe_of(net:str, models:int, folder:Path) -> ti.Recipe:
    "Patches, 312 steps on a tenth of 200 classes, a head on 10,000 images."
    r = ti.load_recipe('tiny-imagenet-cifar10', models=models); (target,) = r.targets
    target = replace(target, path=str(folder/'cifar10.npz'), test_path=str(folder/'test.npz'), per_class=0,
                     epochs=24 if GPU else 1)
    training = replace(r.training, net=net, epochs=0, steps=STEPS, precision=PRECISION, **NETS[net])
    return replace(r, source=replace(r.source, path=str(folder/'source.npz')), targets=(target,), training=training,
                   design=replace(r.design, alpha=ALPHA, repeats=0))


# source training alone

def drawn(bench, n:int, first:int=0) -> tuple:
    masks = ti.sample_masks(max(2, first + n), bench.class_names, ALPHA).values
    nets, plans = zip(*[new_model(bench, masks[i], i) for i in range(first, first + n)])
    return list(nets), list(plans)

def source_rates(recipe, size:int) -> dict:
    "Models per hour of each loop; drawing and starting are not counted."
    found = {}
    bench = load_workbench(recipe, device=DEVICE, loop='together')
    nets, plans = drawn(bench, 1)
    net = nets[0].to(DEVICE)
    found['fastai'] = 3600/seconds(lambda: fit_fastai(net, bench.x, bench.y, plans[0]), 1)
    nets, plans = drawn(bench, 4)
    found['side by side, 4'] = 4*3600/seconds(lambda: bench.together.fit(nets, plans), 1)
    found |= batched_rate(load_workbench(recipe, device=DEVICE, loop='batched'), size)
    x, y = bench.x[torch.arange(32, device=DEVICE) % len(bench.labels)].float(), bench.y[:32]
    net, images = nets[0].to(DEVICE), plans[0].rows.shape[1]
    return found | dict(flop_per_step=flop_count(net, x, y)/32*images, bytes_per_step=step_bytes(net, x, images))

def step_bytes(net, x, images:int) -> float:
    """What a step of a model must move at the least: each layer's outputs and their gradients written and read once,
    the inputs read twice; nine passes of SGD over the weights in float32."""
    sizes, leaves = [], [m for m in net.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda m, given, out: sizes.append(out.numel())) for m in leaves]
    with torch.no_grad(): net(x)
    for h in hooks: h.remove()
    weights = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return (2 if GPU else 4)*images*(4*sum(sizes) + 2*x.numel())/len(x) + 9*4*weights

def batched_rate(bench, size:int) -> dict:
    if GPU: torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    nets, plans = drawn(bench, size); state, b = stacked(nets, DEVICE), Batched(bench.x, bench.y, size)
    first, second = (seconds(lambda: b.fit(nets[0], state, plans), 1, 0) for _ in range(2)) # as it comes; compiled
    times = sorted(seconds(lambda: b.fit(nets[0], state, plans), 1, 0) for _ in range(3 if second < 20 and GPU else 1))
    (stack,) = b.stacks.values()
    memory = torch.cuda.max_memory_allocated()/1e9 if GPU else 0.
    once = times[len(times)//2]
    return {f'batched, {size}': size*3600/once, 'seconds of the first group': first, 'seconds of the second': second,
            'GB': memory, 'models': size,
            'seconds_per_model_step': once/len(plans[0])/size,
            'milliseconds_per_model': {'train': 1000*once/size} | stages(bench, nets, plans, stack)}

def stages(bench, nets, plans, stack) -> dict: # {stage: ms a model}
    "What else a group of models goes through; in a run, drawing and writing are done beside."
    (name, data), = bench.targets.items(); size = len(nets)
    def ms(f, unmeasured=0): return 1000*seconds(f, 1, unmeasured)/size
    found = {'draw': ms(lambda: drawn(bench, size)), 'stack': ms(lambda: stacked(nets, DEVICE)),
             'load': ms(lambda: stack.load(stack.state, list(plans))),
             'features': ms(lambda: stack_features(nets[0], stack.state, data), 2)} # as it comes, compiled, measured
    scores = transfer_stack(nets[0], stack.state, data, None, size) # records the head's steps
    found['head'] = ms(lambda: transfer_stack(nets[0], stack.state, data, None, size)) - found['features']
    found['outputs'] = ms(lambda: record_outputs(scores, data.y_eval), 1)
    rows = record_outputs(scores, data.y_eval)
    with TemporaryDirectory() as folder:
        store = Store(folder)
        found['write'] = ms(lambda: [write_model(store, i, {name: r}, {}) for i, r in enumerate(rows)])
    return found
