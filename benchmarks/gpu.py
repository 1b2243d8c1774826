"""What one GPU does: notebook cells for it, equality of the loops, models per hour of four nets by every loop, whole
runs, memory, the share of the card's own best. Without a GPU the same code runs on a thousandth of the work, as a
rehearsal."""
from common import check, load, machine, np, time # first: it sets the threads
from gpu_task import (ALPHA, CLOCK, DEVICE, GPU, NETS, PRECISION, best_rates, card, drawn, images, is_real, left,
                      recipe_of, source_rates)
from run import print_rows

from argparse import ArgumentParser
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
import json
import os
import subprocess
import sys
import traceback

import transfer_influence as ti
from transfer_influence.basics.recipe import OUTPUTS, to_toml
from transfer_influence.training.batched_loop import Batched, stacked
from transfer_influence.training.batched_transfer import stack_features
from transfer_influence.training.pipeline import load_workbench, train_models

WHOLE = dict(patch=5000, strided_cnn=256, small_resnet=160) if GPU else dict(patch=8) # models of the whole commands
SHARE = 1. # `--share` of these
BESIDE = .55 # share of the time in which what is not timed must end


# the cells that need a GPU

def run_cells(path:Path) -> str:
    "A notebook's code cells, top to bottom, those for a GPU too; empty if all is well."
    cells = [''.join(c['source']) for c in json.loads(path.read_text('utf-8'))['cells'] if c['cell_type'] == 'code']
    module = ModuleType(f'notebook_{path.stem}'); sys.modules[module.__name__] = module # torch looks names up there
    names = module.__dict__; names['display'] = lambda *_: None
    for s in cells:
        slow = '#| slow' in s or '#| eval: false' in s
        if 'nbdev_export' in s or slow or ('#| cuda' in s and not GPU): continue
        try: exec(compile(s, path.name, 'exec'), names)
        except Exception: return traceback.format_exc(limit=-1).strip().splitlines()[-1]
    return ''


# whole commands

def whole(recipe, folder:Path, name:str, loop:str, seconds:float=100) -> dict:
    "`ti-run` from nothing to its page, and models per hour in the second half of its commits."
    out, file, command = (folder/f'{name}-{loop}{end}' for end in ('', '.toml', '.py'))
    file.write_text(to_toml(recipe), 'utf-8')
    code, engine = 'from transfer_influence.cli.train import ti_run\nti_run()\n', ['--at-once', str(SIZES[name])]
    if loop == 'together': # the former way, for the ratio; in this very process, so that the change is seen
        code = f'import transfer_influence.training.pipeline as p\np.pick_loop = lambda *a: "together"\n{code}'
        engine = ['--engine', 'here']
    command.write_text('if __name__ == "__main__":\n    ' + code.strip().replace('\n', '\n    ') + '\n', 'utf-8')
    to_the_end = loop == 'batched' and name == 'patch' # from nothing compiled to the page
    place = dict(TORCHINDUCTOR_CACHE_DIR=str(folder/'compiled')) if to_the_end else {}
    start, most = time.time(), min(seconds, left())
    with (folder/'said').open('w') as said:
        command = [sys.executable, command, file, '--out', out, '--quiet', *engine]
        running = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | place)
        while running.poll() is None and time.time() < start + most:
            time.sleep(.2)
            if not to_the_end and len(list(out.glob('commits/*.json'))) == recipe.run.models: break
    found = dict(seconds=time.time() - start, to_its_page=running.poll() == 0)
    if running.poll() is None: running.kill(); running.wait()
    elif running.returncode: print((folder/'said').read_text()[-3000:], file=sys.stderr)
    return found | rates(out, start, SIZES[name] if loop == 'batched' else 4)

def rates(out:Path, start:float, size:int) -> dict:
    "What the times of the commits tell; they come in groups of `size`, of which the second half counts."
    times = sorted(f.stat().st_mtime for f in out.glob('commits/*.json')); groups = len(times)//size
    found = dict(models=len(times), groups=groups)
    if groups < 4: return found | dict(error=f'{len(times)} models: fewer than four groups of {size}')
    a, b = groups//2*size - 1, groups*size - 1
    return found | dict(until_first=times[0] - start, until_last=times[-1] - start,
                        models_per_hour=3600*(b - a)/(times[b] - times[a]),
                        from_the_first=3600*(len(times) - 1)/(times[-1] - times[0]))


# equality

def fleet(recipe, loop:str, models:int, most:float=1e9) -> dict:
    "Masks and outputs of as many models as are trained in `most` seconds."
    bench, end, done = load_workbench(recipe, device=DEVICE, loop=loop), time.time() + most, []
    masks = ti.sample_masks(recipe.run.models, bench.class_names, ALPHA).values
    for t in train_models(bench, masks, range(models), keep=False):
        done.append(t)
        if time.time() > end: break
    done.sort(key=lambda t: t.i); assert [t.i for t in done] == list(range(len(done)))
    return masks[:len(done)], np.stack([t.rows['digits'] for t in done])

def equality(models:int) -> dict:
    "The same models by both loops, and by one of them twice."
    r = ti.load_recipe('glyphs-digits', models=models)
    r = replace(r, design=replace(r.design, repeats=0), training=replace(r.training, precision=PRECISION))
    (_, a), (_, again), (masks, b) = (fleet(r, loop, models, 25 if GPU else 1e9)
                                      for loop in ('batched', 'batched', 'together'))
    models = min(len(a), len(again), len(b))
    masks, a, again, b = (t[:models] for t in (masks, a, again, b))
    gap = (a - b).mean(2) # of each model and output; the last output is a class, not a number
    shift = {k: dict(mean=float(g.mean()), stderr=float(g.std(ddof=1)/models**.5)) for k, g in zip(OUTPUTS[:-1], gap.T)}
    tables = [ti.class_influence(ti.from_arrays(masks, x[:, 2]), missing='mask').values for x in (a, b)]
    ok = np.isfinite(tables[0]).all(1)
    return dict(models=models, bit_by_bit=bool((a == again).all()), largest_repeat=float(abs(a - again).max()),
                shift=shift, correlation=float(np.corrcoef(tables[0][ok].ravel(), tables[1][ok].ravel())[0, 1]))


def tried(what:str, f, *args):
    "A part that fails is named and does not end the others."
    if left() < 20: return dict(error='no time left')
    t = time.time()
    try: found = f(*args)
    except Exception:
        traceback.print_exc()
        found = dict(error=traceback.format_exc(limit=-2).strip().splitlines()[-3:])
    print(f'{what}: {time.time() - t:.0f} s, {left():.0f} s left', file=sys.stderr, flush=True)
    return found

# models of a stack
SIZES = dict(patch=64, strided_cnn=32, small_resnet=32, airbench=8) if GPU else dict.fromkeys(NETS, 2)

def compiled(net:str, folder:Path):
    "Let torch compile what `source_rates` will need; its results lie in torch's own folder."
    bench = load_workbench(recipe_of(net, 2, folder), device=DEVICE, loop='batched')
    nets, plans = drawn(bench, SIZES[net]); state = stacked(nets, DEVICE)
    plans = [replace(p, rows=p.rows[:3], learning_rates=p.learning_rates[:3],
                     crop_boxes=None if p.crop_boxes is None else p.crop_boxes[:3]) for p in plans]
    b = Batched(bench.x, bench.y, SIZES[net])
    for _ in range(2): # as it comes, compiled
        stack = b.fit(nets[0], state, plans); stack_features(nets[0], stack.state, *bench.targets.values())

def parts_of(root:Path) -> dict: # {name: function of the folder with the images}
    "What is not timed: cells, equality, compiling."
    files = sorted(f for f in (root/'nbs').rglob('*.ipynb') if '"#| cuda' in f.read_text('utf-8'))
    return {f'cells of {f.stem}': lambda _, f=f: run_cells(f) for f in files} | {
        f'compile {net}': lambda folder, net=net: compiled(net, folder) for net in NETS if GPU and net != 'patch'} | {
        'equality': lambda _: equality(500 if GPU else 30)}

def all_beside(root:Path, folder:Path) -> dict: # {part: what it found}
    "Each of the parts in a process of its own: on a GPU all at once, else one after the other."
    def start(part): return subprocess.Popen([sys.executable, __file__, '--part', part, '--data', folder],
                                             stdout=(folder/f'{part}.json').open('w'))
    running, found = {}, {}
    for part in parts_of(root):
        running[part] = start(part)
        if not GPU: running[part].wait()
    for part, process in running.items():
        try: process.wait(max(20, left() - (1 - BESIDE)*CLOCK['limit'] if GPU else left()))
        except subprocess.TimeoutExpired: process.kill(); found[part] = dict(error='no time left')
        else: found[part] = json.loads((folder/f'{part}.json').read_text() or '{"error": "it ended early"}')
    return found

def measure(root:Path, data:Path, folder:Path, save) -> dict:
    "All of it, the most wanted first; `save` writes down what there is."
    sets = images(data)
    for k, s in sets.items(): ti.save_images(s, folder/f'{k}.npz')
    found = dict(card=card(), best=best_rates(), source={}, whole={}, made_up=not is_real(data))
    found['beside'] = tried('what is not timed', all_beside, root, folder); save(found)
    def source(net):
        found['source'][net] = tried(f'{net}, source alone', source_rates, recipe_of(net, 2, folder), SIZES[net])
        save(found)
    source('patch')
    for net, models in WHOLE.items():
        r = recipe_of(net, max(8, int(SHARE*models)), folder)
        found['whole'][net] = tried(f'ti-run, {net}', whole, r, folder, net, 'batched'); save(found)
    for net in ('airbench', 'strided_cnn', 'small_resnet'): source(net)
    few = recipe_of('patch', 96 if GPU else 4, folder)
    found['whole']['patch, side by side'] = tried('ti-run, side by side', whole, few, folder, 'patch', 'together')
    return save(found)

BARS = dict(patch=100_000, strided_cnn=20_000, small_resnet=12_000)

def checks_of(found) -> list:
    "Measured beside the bars: whole commands, and start to the first model."
    rates = {net: found['whole'].get(net, {}).get('models_per_hour', 0.) for net in BARS if net in WHOLE}
    checks = [check(f'{net}: models per hour of ti-run', rates[net], bar) for net, bar in BARS.items() if net in WHOLE]
    air = found['source'].get('airbench', {}); air = max([v for k, v in air.items() if k.startswith('batched')] or [0.])
    first = found['whole'].get('patch', {}).get('until_first', 1e9)
    return checks + [check('airbench: models per hour', air, 6000),
                     check('seconds to the first model', first, 30, False),
                     check('GB of 64 patch models', found['source']['patch'].get('GB', 1e9), 8, False)] if GPU else []

def source_rows(net, s, best):
    "A net's source training, and which floor is nearest."
    if 'error' in s: return [[net, str(s['error']), '']]
    rates = [[f'{net}, source alone, {k}: models/h', float(v), ''] for k, v in s.items()
             if k.startswith(('fastai', 'side', 'batched'))]
    floors = dict(arithmetic=s['flop_per_step']/best['flops'], memory=s['bytes_per_step']/best['bytes'])
    limit, step = max(floors, key=floors.get), float(s['seconds_per_model_step'])
    return rates + [[f'{net}: seconds a step of a model', step, f'{100*floors[limit]/step:.1f} % ({limit})'],
                    [f'{net}: seconds of the first group', float(s['seconds of the first group']),
                     f"second, compiled: {s['seconds of the second']:.0f}; {s['GB']:.1f} GB"]]

def stage_rows(source):
    "Milliseconds a model, one stage after the other."
    ms = {net: s['milliseconds_per_model'] for net, s in source.items() if 'error' not in s}
    return [['ms a model', *next(iter(ms.values()), ())]] + [[net, *map(float, v.values())] for net, v in ms.items()]

def whole_rows(what, w, source):
    if 'error' in w: return [[what, str(w['error']), '']]
    times = f"{w['until_first']:.0f} s to the first, {w['seconds']:.0f} s for {w['models']}"
    rows = [[f'ti-run, {what}: models/h once running', w['models_per_hour'], times]]
    ms = source.get('milliseconds_per_model', {})
    card = sum(ms.get(k, 0) for k in ('train', 'features', 'head', 'outputs'))
    waits = 100*(1 - card*w['models_per_hour']/3.6e6)
    return rows + [[f'ti-run, {what}: % of a model when the card waits', waits, '']]*bool(ms)

def table(found) -> list:
    "Rows for people."
    rows, beside = [['what', 'value', 'of the floor']], dict(found['beside']); e = beside.pop('equality')
    for net, s in found['source'].items(): rows += source_rows(net, s, found['best'])
    for k, w in found['whole'].items(): rows += whole_rows(k, w, found['source'].get(k, {}))
    if 'error' in e: rows.append(['equality', str(e['error']), ''])
    else: rows.append(['tables of both loops: correlation', e['correlation'], f"bit by bit: {e['bit_by_bit']}"])
    rows += [[k, str(v or 'pass'), ''] for k, v in beside.items()]
    return rows + [['seconds in all', float(found['seconds']), '']]

def one_part(root:Path, part:str, folder:Path):
    with redirect_stdout(sys.stderr): # cells print
        try: found = parts_of(root)[part](folder)
        except Exception:
            traceback.print_exc(); found = dict(error=traceback.format_exc(limit=-1).strip().splitlines()[-1])
    print(json.dumps(found or '', default=float))

def main():
    global SHARE
    p = ArgumentParser(description=__doc__)
    p.add_argument('--data', type=Path, default=Path('benchmarks/gpu/data'))
    p.add_argument('--out', type=Path, default=Path('results/benchmarks'))
    p.add_argument('--seconds', type=int, default=CLOCK['limit'], help='of the whole; what does not fit is left out')
    p.add_argument('--share', type=float, default=1, help='of the models of the whole commands')
    p.add_argument('--whole', nargs='*', default=list(WHOLE), help='nets of the whole commands')
    p.add_argument('--part', help='that alone (the script calls itself)')
    a, before = p.parse_args(), load(); root = Path(__file__).resolve().parent.parent
    CLOCK['limit'], SHARE = a.seconds, a.share
    for net in set(WHOLE) - set(a.whole): del WHOLE[net]
    if a.part: return one_part(root, a.part, a.data)
    a.out.mkdir(parents=True, exist_ok=True)
    def save(found):
        name = found['card']['name'].replace('NVIDIA ', '').replace(' ', '-') if GPU else 'rehearsal'
        result = dict(benchmark='B7', title='GPU: many models as one program', quick=not GPU, device=name, **found,
                      seconds=time.time() - CLOCK['start'], load=dict(before=before, after=load()), machine=machine())
        result |= dict(checks=checks_of(found) if 'patch' in found['source'] else [])
        (a.out/f'B7-{name}.json').write_text(json.dumps(result, indent=1, default=float) + '\n', 'utf-8')
        return result
    with TemporaryDirectory() as folder: found = measure(root, a.data, Path(folder), save)
    print(json.dumps(found['card']))
    print_rows(table(found)); print_rows(stage_rows(found['source'])); print(f'written into {a.out}')

if __name__ == '__main__': main()
