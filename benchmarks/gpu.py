"""What one GPU does: notebook cells for it, equality of the loops, models per hour of four nets by every loop, whole runs,
memory, the share of the card's own best. Without a GPU the same code runs on a thousandth of the work, as a rehearsal."""
from common import check, flop_count, load, machine, np, time, torch # first: it sets the threads
from b7_gpu import pictures
from run import print_rows

from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
import json
import platform
import subprocess
import sys
import traceback

import transfer_influence as ti
from transfer_influence.fleet.fleet import versions
from transfer_influence.images.folders import load_images
from transfer_influence.basics.recipe import to_toml
from transfer_influence.training.batched_loop import Batched, stacked
from transfer_influence.training.pipeline import load_workbench, new_model, train_models
from transfer_influence.training.fastai_loop import fit_fastai

GPU = torch.cuda.is_available()
DEVICE = 'cuda' if GPU else 'cpu'
LIMIT = 340 if GPU else 600 # seconds of the whole; what does not fit is left out, and named
NETS = dict(patch=dict(width=48, batch_size=128, lr=.2), strided_cnn=dict(width=24, batch_size=128, lr=.1),
            small_resnet=dict(width=16, batch_size=128, lr=.1),
            airbench=dict(width=64, batch_size=1000, lr=.05, augment='flip-crop'))
STEPS, ALPHA, CLASSES, EACH = (312, .1, 200, 250) if GPU else (4, .5, 8, 12)
WHOLE = dict(patch=3000, strided_cnn=600, small_resnet=400) if GPU else dict(patch=8) # models of the whole commands
START = time.time()

def left() -> float: return LIMIT - (time.time() - START)


# the card

def smi(*keys):
    try: out = subprocess.run(['nvidia-smi', f'--query-gpu={",".join(keys)}', '--format=csv,noheader'], capture_output=True,
                              text=True, timeout=20).stdout.split('\n')[0]
    except OSError: return {}
    return dict(zip(keys, map(str.strip, out.split(','))))

def card() -> dict:
    "What the numbers depend on."
    name = torch.cuda.get_device_name() if GPU else 'none'
    return dict(name=name, cuda=torch.version.cuda, load=load(), versions=versions(), system=platform.platform(),
                **smi('driver_version', 'clocks.sm', 'clocks.max.sm', 'clocks.mem', 'power.limit', 'memory.total'))

def best_rates() -> dict: # FLOP/s and bytes/s
    "The card's own best on a large product and a large copy."
    n, dtype = (8192, torch.bfloat16) if GPU else (256, torch.float32)
    a, b = torch.randn(n, n, device=DEVICE, dtype=dtype), torch.empty(2**30 if GPU else 2**20, device=DEVICE, dtype=torch.uint8)
    c = torch.empty_like(b)
    return dict(flops=2*n**3/seconds(lambda: a@a), bytes=2*b.numel()/seconds(lambda: c.copy_(b)))

def seconds(f, repeats=5) -> float:
    "The least of several, the first not counted."
    times = []
    for _ in range(repeats + 1):
        if GPU: torch.cuda.synchronize()
        t = time.perf_counter(); f()
        if GPU: torch.cuda.synchronize()
        times.append(time.perf_counter() - t)
    return min(times[1:])


# the cells that need a GPU

def run_cells(path:Path) -> str:
    "A notebook's code cells, top to bottom, those for a GPU too; empty if all is well."
    cells = [''.join(c['source']) for c in json.loads(path.read_text('utf-8'))['cells'] if c['cell_type'] == 'code']
    names = dict(__name__='__main__', display=lambda *_: None)
    for s in cells:
        slow = '#| slow' in s or '#| eval: false' in s
        if 'nbdev_export' in s or slow or ('#| cuda' in s and not GPU): continue
        try: exec(compile(s, path.name, 'exec'), names)
        except Exception: return traceback.format_exc(limit=-1).strip().splitlines()[-1]
    return ''

def cuda_cells(root:Path) -> dict: # {notebook: '' or what went wrong}
    files = sorted(f for f in (root/'nbs').rglob('*.ipynb') if '"#| cuda' in f.read_text('utf-8'))
    return {f.stem: run_cells(f) if left() > 200 or not GPU else 'no time left' for f in files}


# the task: source, target, recipe

def images(folder:Path) -> dict: # {'source', 'cifar10', 'test': ImageSet}
    "The real sets where their packs are there, else pictures of the same shape."
    files = dict(source='tiny-imagenet.npz', cifar10='cifar10-train.npz', test='cifar10-test.npz')
    if GPU and all((folder/f).is_file() for f in files.values()):
        return {k: load_images(folder/f) for k, f in files.items()}
    n = 1000 if GPU else 40
    return dict(source=pictures(CLASSES, EACH), cifar10=pictures(10, n), test=pictures(10, n))

def recipe_of(net:str, models:int, folder:Path) -> ti.Recipe:
    "Patches, 312 steps on a tenth of 200 classes, a head on 10,000 images."
    r = ti.load_recipe('tiny-imagenet-cifar10', models=models)
    return replace(r, source=replace(r.source, path=str(folder/'source.npz')),
                   targets=tuple(replace(t, path=str(folder/'cifar10.npz'), test_path=str(folder/'test.npz'), per_class=0,
                                         epochs=24 if GPU else 1) for t in r.targets),
                   design=replace(r.design, alpha=ALPHA, repeats=0),
                   training=replace(r.training, net=net, epochs=0, steps=STEPS, precision='bfloat16' if GPU else 'float32',
                                    **NETS[net]))


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
    net = nets[0].to(DEVICE); fit_fastai(net, bench.x, bench.y, plans[0])
    t = time.perf_counter(); fit_fastai(net, bench.x, bench.y, plans[0]); found['fastai'] = 3600/(time.perf_counter() - t)
    nets, plans = drawn(bench, 4); bench.together.fit(nets, plans)
    found['side by side, 4'] = 4*3600/seconds(lambda: bench.together.fit(nets, plans), 2)
    found |= batched_rate(load_workbench(recipe, device=DEVICE, loop='batched'), size)
    x, y = bench.x[torch.arange(32, device=DEVICE) % len(bench.labels)].float(), bench.y[:32]
    return found | dict(flop_per_step=flop_count(nets[0].to(DEVICE), x, y)/32*plans[0].rows.shape[1])

def batched_rate(bench, size:int) -> dict:
    if GPU: torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    nets, plans = drawn(bench, size); state, b = stacked(nets, DEVICE), Batched(bench.x, bench.y, size)
    t = time.perf_counter(); stack = b.fit(nets[0], state, plans); first = time.perf_counter() - t
    once = seconds(lambda: b.fit(nets[0], state, plans), 3 if left() > 60 else 1)
    memory = torch.cuda.max_memory_allocated()/1e9 if GPU else 0.
    plan, parts = plans[0], dict(weights=stack.flat.numel()*4, step=once/len(plans[0])/size)
    return {f'batched, {size}': size*3600/once, 'seconds until the first group': first, 'GB': memory, 'models': size,
            'seconds_per_model_step': parts['step'], 'sgd_bytes': 9*parts['weights']/size}


# whole commands

def whole(recipe, folder:Path, name:str, loop:str) -> dict:
    "`ti-run` from nothing to its page, and models per hour between the first commit and the last."
    out, file, command = (folder/f'{name}-{loop}{end}' for end in ('', '.toml', '.py'))
    file.write_text(to_toml(recipe), 'utf-8')
    code, engine = 'from transfer_influence.cli.train import ti_run\nti_run()\n', []
    if loop == 'together': # the former way, for the ratio; in this very process, so that the change is seen
        code = f'import transfer_influence.training.pipeline as p\np.pick_loop = lambda *a: "together"\n{code}'
        engine = ['--engine', 'here']
    command.write_text(f'if __name__ == "__main__":\n    ' + code.strip().replace('\n', '\n    ') + '\n', 'utf-8')
    t = time.time()
    done = subprocess.run([sys.executable, command, file, '--out', out, '--quiet', *engine], capture_output=True, text=True,
                          timeout=max(30, left()))
    end = time.time()
    if done.returncode: return dict(error=done.stderr.strip().splitlines()[-1:])
    times = sorted(f.stat().st_mtime for f in (out/'commits').glob('*'))
    session = json.loads(next((out/'runs').glob('*.json')).read_text())
    return dict(models=recipe.run.models, seconds=end - t, until_first=times[0] - t, until_last=times[-1] - t,
                models_per_hour=3600*(len(times) - 1)/max(times[-1] - times[0], 1e-9), session=session['ended'] - session['started'])


# equality

def fleet(recipe, loop:str, models:int) -> dict:
    bench = load_workbench(recipe, device=DEVICE, loop=loop)
    masks = ti.sample_masks(recipe.run.models, bench.class_names, ALPHA).values
    done = sorted(train_models(bench, masks, range(models), keep=False), key=lambda t: t.i)
    return masks[:models], np.stack([t.rows['digits'] for t in done])

def equality(models:int) -> dict:
    "The same models by both loops, and by one of them twice."
    r = ti.load_recipe('glyphs-digits', models=models)
    r = replace(r, design=replace(r.design, repeats=0), training=replace(r.training, precision='bfloat16' if GPU else 'float32'))
    masks, a = fleet(r, 'batched', models); _, again = fleet(r, 'batched', models); _, b = fleet(r, 'together', models)
    kinds = dict(zip(('probability', 'logit', 'margin', 'correct', 'predicted'), range(5)))
    shift = {k: dict(mean=float((a[:, j] - b[:, j]).mean()), stderr=float((a[:, j] - b[:, j]).mean(1).std(ddof=1)/models**.5))
             for k, j in kinds.items() if k != 'predicted'}
    tables = [ti.class_influence(ti.from_arrays(masks, x[:, 2]), missing='mask').values for x in (a, b)]
    ok = np.isfinite(tables[0]).all(1)
    return dict(models=models, bit_by_bit=bool((a == again).all()), largest_repeat=float(abs(a - again).max()), shift=shift,
                correlation=float(np.corrcoef(tables[0][ok].ravel(), tables[1][ok].ravel())[0, 1]))


def tried(f, *args):
    "A part that fails is named and does not end the others."
    if left() < 20: return dict(error='no time left')
    t = time.time()
    try: found = f(*args)
    except Exception as e: found = dict(error=traceback.format_exc(limit=-2).strip().splitlines()[-3:])
    print(f'{getattr(f, "__name__", "part")} {args[:1] if isinstance(args[:1], str) else ""}: {time.time() - t:.0f} s, {left():.0f} s left', file=sys.stderr, flush=True)
    return found

def measure(root:Path, data:Path, folder:Path) -> dict:
    "All of it, the most wanted first."
    sets = images(data)
    for k, s in sets.items(): ti.save_images(s, folder/f'{k}.npz')
    sizes = dict(patch=64, strided_cnn=32, small_resnet=32, airbench=8) if GPU else dict.fromkeys(NETS, 2)
    found = dict(card=card(), best=best_rates(), source={}, whole={}, made_up=len(sets['source']) != 50_000 or not (data/'tiny-imagenet.npz').is_file())
    for net in NETS: found['source'][net] = tried(source_rates, recipe_of(net, 2, folder), sizes[net])
    for net, models in WHOLE.items(): found['whole'][net] = tried(whole, recipe_of(net, models, folder), folder, net, 'batched')
    found['whole']['patch, side by side'] = tried(whole, recipe_of('patch', 96 if GPU else 4, folder), folder, 'patch', 'together')
    found['equality'] = tried(equality, 500 if GPU else 30)
    found['cells'] = tried(cuda_cells, root)
    return found | dict(checks=checks_of(found), seconds=time.time() - START)

BARS = dict(patch=100_000, strided_cnn=20_000, small_resnet=12_000)

def checks_of(found) -> list:
    "Measured beside the bars: whole commands, and start to the first model."
    checks = [check(f'{net}: models per hour of ti-run', found['whole'].get(net, {}).get('models_per_hour', 0.), bar) for net, bar in BARS.items()]
    air = found['source']['airbench']; air = max([v for k, v in air.items() if k.startswith('batched')] or [0.])
    return checks + [check('airbench: models per hour', air, 6000),
                     check('seconds to the first model', found['whole']['patch'].get('until_first', 1e9), 30, False),
                     check('GB of 64 patch models', found['source']['patch'].get('GB', 1e9), 8, False)] if GPU else []

def table(found) -> list:
    "Rows for people."
    rows, best = [['what', 'value', 'of the floor']], found['best']
    for net, s in found['source'].items():
        for k, v in s.items():
            if k.startswith(('fastai', 'side', 'batched')): rows.append([f'{net}, source alone, {k}: models/h', float(v), ''])
        if 'seconds_per_model_step' in s:
            floors = dict(arithmetic=s['flop_per_step']/best['flops'], memory=s['sgd_bytes']/best['bytes'])
            limit = max(floors, key=floors.get)
            rows.append([f'{net}: seconds a step of a model', float(s['seconds_per_model_step']),
                         f"{100*floors[limit]/s['seconds_per_model_step']:.1f} % ({limit})"])
            rows.append([f"{net}: until the first group, s; memory, GB", float(s['seconds until the first group']), f"{s['GB']:.1f}"])
        elif 'error' in s: rows.append([net, str(s['error']), ''])
    for k, w in found['whole'].items():
        rows.append([f'ti-run, {k}: models/h once running', float(w.get('models_per_hour', 0)), f"{w.get('until_first', 0):.0f} s to the first"] if 'error' not in w else [k, str(w['error']), ''])
    e = found['equality']; rows.append(['tables of both loops: correlation', float(e['correlation']), f"bit by bit: {e['bit_by_bit']}"] if 'correlation' in e else ['equality', str(e), ''])
    return rows + [[f'cells of {k}', v or 'pass', ''] for k, v in (found['cells'].items())] + [['seconds in all', float(found['seconds']), '']]

def main():
    p = ArgumentParser(description=__doc__)
    p.add_argument('--data', type=Path, default=Path('benchmarks/gpu/data')); p.add_argument('--out', type=Path, default=Path('results/benchmarks'))
    a, before = p.parse_args(), load(); root = Path(__file__).resolve().parent.parent
    with TemporaryDirectory() as folder: found = measure(root, a.data, Path(folder))
    name = found['card']['name'].replace('NVIDIA ', '').replace(' ', '-') if GPU else 'rehearsal'
    a.out.mkdir(parents=True, exist_ok=True); file = a.out/f'B7-{name}.json'
    result = dict(benchmark='B7', title='GPU: many models as one program', quick=not GPU, device=name, **found,
                  load=dict(before=before, after=load()), machine=machine())
    file.write_text(json.dumps(result, indent=1, default=float) + '\n', 'utf-8')
    print(json.dumps(found['card'])); print_rows(table(found)); print(f'written: {file}')

if __name__ == '__main__': main()
