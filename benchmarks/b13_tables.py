"""What people wait for with arrays of their own: the estimate, whole commands, words and files of a large table, in
units of the matrix products that the difference in means needs. One thread; commands count all of their process."""
from common import check, median, np # first: it sets the number of threads

from pathlib import Path
from subprocess import run as start
from tempfile import TemporaryDirectory
from time import process_time
from unittest.mock import patch
import csv
import os
import sys
import time

import torch
import transfer_influence as ti
from b5_estimator import meter

TITLE = 'tables: the estimate, commands, words, files'
SCRIPTS = Path(sys.executable).parent


# the same arrays for all

def fleet(m:int, K:int, n:int, classes:int=1, seed:int=0) -> dict:
    "Random halves; what single classes do to each target class, and noise."
    rng = np.random.default_rng(seed)
    z, of = rng.random((m, K), np.float32) < .5, rng.integers(0, classes, n)
    y = (z.astype(np.float32) @ rng.normal(0, .1, (K, classes)).astype(np.float32))[:, of]
    y += rng.normal(size=(m, n)).astype(np.float32)
    return dict(masks=z, outputs=y, labels=of)

def cpu(f, repeats:int=3) -> float:
    "Median CPU-seconds of a call."
    def once(): t = process_time(); f(); return process_time() - t
    return median([once() for _ in range(repeats)])

def product(z, y, repeats:int=7) -> float:
    "CPU-seconds of one product in float32, with the masks laid out for it."
    zt = np.ascontiguousarray(z.T).astype(np.float32)
    return cpu(lambda: zt @ y, repeats)


# the estimate and what is asked of it

def eigen(K:int) -> float:
    "CPU-seconds of one decomposition of a symmetric matrix in float64."
    x = np.random.default_rng(0).normal(size=(K, K)); square = x @ x.T
    return cpu(lambda: np.linalg.eigh(square), 3)

def calls(a:dict) -> dict: # {name: CPU-seconds}, with the product's
    p = ti.from_arrays(a['masks'], a['outputs'], labels=a['labels'])
    z, y = p.masks, p.outputs['output']; exact = y.astype(np.float64)
    zt = np.ascontiguousarray(z.T).astype(np.float64)
    one, parts = product(z, y), (torch.from_numpy(z), torch.from_numpy(y[:, :100]))
    def of(f, repeats=3): return cpu(lambda: f(p), repeats)
    t = dict(product=one, product64=cpu(lambda: zt @ exact), eigen=eigen(z.shape[1]),
             from_arrays=cpu(lambda: ti.from_arrays(**a)), class_influence=of(ti.class_influence, 7),
             authors=cpu(lambda: meter(*parts))*y.shape[1]/100,
             ridge=of(lambda p: ti.class_influence(p, method='ridge'), 7), split_half=of(ti.split_half),
             null_band=of(ti.null_band), plan=of(ti.plan_models), variance=of(ti.variance_report, 1))
    r = ti.class_influence(p); mean = r.mean()
    return t | dict(gain=cpu(lambda: ti.expected_gain(mean)))


# exactness: against float64 throughout

def by_hand(z, y) -> tuple: # values, errors, degrees of freedom (K, n)
    """The two groups of each class from sums in float64, of outputs that were centred in extended precision where the
    machine has it; a group without spread has the variance of its column."""
    y = y.astype(np.longdouble); y = (y - y.mean(0)).astype(np.float64); whole = y.var(0, ddof=1)
    def group(z):
        n = z.sum(0, dtype=np.float64)[:, None]; mean = z.T.astype(np.float64) @ y/n
        v = (z.T.astype(np.float64) @ y**2/n - mean**2)*n/(n - 1)
        return mean, np.where(v > 1e-12*whole, v, whole)/n, n - 1
    (m1, e1, d1), (m0, e0, d0) = group(z), group(~z)
    return m1 - m0, np.sqrt(e1 + e0), (e1 + e0)**2/(e1**2/d1 + e0**2/d0)

def shifted(y) -> dict: # {name: outputs}
    y = y.astype(np.float64)
    return {'as they are': y.astype(np.float32), '+1e8': y + 1e8, '-3e9': y - 3e9,
            'int64': np.round(1e6*y).astype(np.int64) + 10**9, 'right or wrong': (y > -1).astype(np.float32)}

def errors_of(z, y) -> dict:
    "Largest errors: of values by the largest of a column; relative ones of errors, and of q-values above 1e-30."
    from scipy.special import stdtr
    from scipy.stats import false_discovery_control
    r = ti.class_influence(ti.from_arrays(z, y)); v, se, dof = by_hand(z, y)
    q = false_discovery_control(2*stdtr(dof, -abs(v)/se).ravel()).reshape(v.shape); ok = q > 1e-30
    return dict(value=float((abs(r.values - v).max(0)/abs(v).max(0)).max()), stderr=float(abs(r.stderr/se - 1).max()),
                q=float(abs(np.asarray(r.qvalues)/q - 1)[ok].max()))


# commands, as processes

def command(*args) -> dict: # CPU-seconds, wall seconds, peak memory
    "A command of the package, from its start to its end."
    wall = time.monotonic()
    env = os.environ | dict(MPLBACKEND='Agg')
    code = ('import resource, sys, subprocess; r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); '
            'u = resource.getrusage(resource.RUSAGE_CHILDREN); '
            'print(r.returncode, u.ru_utime + u.ru_stime, u.ru_maxrss)')
    out = start([sys.executable, '-c', code, str(SCRIPTS/args[0]), *map(str, args[1:])], env=env, check=True,
                capture_output=True, text=True).stdout.split()
    assert out[-3] == '0', args
    return dict(cpu=float(out[-2]), wall=time.monotonic() - wall, mb=float(out[-1])/1000)

def middle(runs:list) -> dict: return {k: median(r[k] for r in runs) for k in runs[0]}

STAGES = '''
import json, sys, time
marks = [('start', 0.)]
def mark(name): marks.append((name, time.process_time()))
from transfer_influence.cli.train import open_predictions
from transfer_influence.influence.result import class_influence
from transfer_influence.influence.table_files import save_influence
mark('imports')
p = open_predictions(sys.argv[1]); mark('reading and checks')
r = class_influence(p); mark('estimate')
repr(r.mean()); mark('mean and its words')
r.qvalues; mark('q-values')
save_influence(r, sys.argv[2]); mark('writing')
print(json.dumps({b: t - s for (_, s), (b, t) in zip(marks, marks[1:])}))
'''

def stages(source, out) -> dict: # {stage: CPU-seconds}
    import json
    found = [json.loads(start([sys.executable, '-c', STAGES, str(source), str(out)], check=True, capture_output=True,
                              text=True).stdout) for _ in range(3)]
    return middle(found)


# words of a large table

def words(a) -> dict: # {name: CPU-seconds of the first look}
    p = ti.from_arrays(a['masks'], a['outputs'], labels=a['labels'])
    def first(look):
        r = ti.class_influence(p); t = process_time(); look(r)
        return process_time() - t
    looks = dict(repr=repr, html=lambda r: r._repr_html_(), top=lambda r: str(r.top()),
                 top_of_an_image=lambda r: str(r.top(10, 0)), row=lambda r: r['class 3'], qvalues=lambda r: r.qvalues)
    return {k: median([first(f) for _ in range(3)]) for k, f in looks.items()}


# a table of two million rows as CSV

def made_up(n:int):
    "A table of 200 classes on n images, of 100 made-up models."
    return ti.class_influence(ti.from_arrays(**fleet(100, 200, n)))

def both(f, *args) -> dict:
    "Wall and CPU-seconds of a call."
    wall, t = time.monotonic(), process_time(); f(*args)
    return dict(wall=time.monotonic() - wall, cpu=process_time() - t)

def read_back(path, t) -> int: # cells of the first 1,000 rows that differ from the table
    "Names and influences, bit by bit."
    number, place = ({c: i for i, c in enumerate(names)} for names in (t.class_names, t.columns))
    with open(path, newline='', encoding='utf-8') as f:
        rows = [r for r, _ in zip(csv.DictReader(f), range(1000))]
    return sum(float(r['influence']) != t.values[number[r['source_class']], place[r['target']]] for r in rows)

def as_csv(folder, n) -> tuple: # {way: seconds}, cells that differ
    t, path = made_up(n), Path(folder)/'t.csv'
    arrow = middle([both(t.save_csv, path) for _ in range(3)]); wrong = read_back(path, t)
    with patch.dict(sys.modules, pyarrow=None): plain = both(t.save_csv, path)
    frame = middle([both(t.to_dataframe) for _ in range(3)])
    return dict(arrow=arrow, plain=plain, frame=frame), wrong + read_back(path, t)


# ten million columns

def plain_writing(folder, K, n, width=65536):
    "Three tables of noise, row by row of a block, as a table of many columns is written, and kept by the disk."
    folder.mkdir(); block = np.random.default_rng(0).random((K, width), np.float32); at = time.monotonic()
    files = [open(folder/str(i), 'wb') for i in range(3)]
    for f in files: f.truncate(4*K*n)
    for j in range(0, n, width):
        for f in files:
            for k in range(K): f.seek(4*(k*n + j)); f.write(block[k, :n - j])
        if time.monotonic() - at > 1 or j + width >= n:
            for f in files: f.flush(); os.fsync(f.fileno())
            at = time.monotonic()
    for f in files: f.close()

def many_columns(folder, m:int, K:int, n:int) -> dict:
    "A file larger than the memory that may be used: reading it, three products of its size, and the whole command."
    z = np.random.default_rng(0).random((m, K)) < .5; path = Path(folder)/'many'; path.mkdir()
    np.save(path/'masks.npy', z); rng = np.random.default_rng(1)
    y = np.lib.format.open_memmap(path/'outputs.npy', 'w+', np.float32, (m, n))
    part = rng.normal(size=(m, min(n, 100_000))).astype(np.float32)
    for j in range(0, n, part.shape[1]):
        y[:, j:j + part.shape[1]] = part[:, :min(part.shape[1], n - j)] + z[:, :1]*(j % 7)/50
    y.flush(); del y
    stored = np.load(path/'outputs.npy', mmap_mode='r'); step = 8192; buffer = np.empty((m, step), np.float32)
    def read():
        for j in range(0, n, step): np.copyto(buffer[:, :min(step, n - j)], stored[:, j:j + step])
    reading, one = cpu(read, 3), product(z, part)*n/part.shape[1]
    averages, found = command('ti-influence', path), command('ti-influence', path, '--out', f'{path}/table/')
    writing = cpu(lambda: plain_writing(Path(folder)/'plain', K, n), 1)
    return dict(m=m, K=K, n=n, gigabytes=4e-9*m*n, reading=reading, product=one, writing=writing, averages=averages,
                command=found)


def arrays_file(folder, big:dict) -> Path:
    path, K = Path(folder)/'big.npz', big['masks'].shape[1]
    np.savez(path, **big, class_names=np.array([f'class {k}' for k in range(K)]))
    return path

def commands(quick:bool, big:dict) -> dict: # what processes take
    "Whole commands on a file of arrays, the stages of one of them, a CSV file, and ten million columns."
    with TemporaryDirectory() as folder:
        source, out = arrays_file(folder, big), Path(folder)/'table.npz'
        infl = middle([command('ti-influence', source, '--out', out) for _ in range(3)])
        page = middle([command('ti-report', source, '--out', Path(folder)/'page.html') for _ in range(3)])
        parts = stages(source, out)
        frames, wrong = as_csv(folder, 500 if quick else 10_000)
        many = many_columns(folder, 200, 50, 100_000 if quick else 10_000_000)
    return dict(ti_influence=infl, ti_report=page, stages=parts, csv=frames, csv_wrong=wrong, many=many)

def run(quick:bool) -> dict:
    m, K, n = (300, 200, 400) if quick else (1000, 1000, 2000)
    c = fleet(m, K, n, 50); t, t50 = calls(fleet(m, K, n)), calls(c)
    exact = {f'{k}{K}': errors_of(c['masks'][:, :K], y) for K, n in ((100, 300), (400, 1000))
             for k, y in shifted(c['outputs'][:, :n]).items()} # products in float64, and in float32
    big = fleet(*(400, 200, 1000) if quick else (2000, 1000, 10000), 50)
    sizes = dict(calls=(m, K, n), command=(*big['masks'].shape, big['outputs'].shape[1])) # models, classes, images
    r = dict(sizes=sizes, calls=t, calls_50_classes=t50, exact=exact, words=words(big),
             two_products=2*product(big['masks'], big['outputs'], 3)) | commands(quick, big)
    return r | dict(checks=call_checks(r) + command_checks(r) + exact_checks(r))

def call_checks(r) -> list:
    t, t50 = r['calls'], r['calls_50_classes']; one = t['product']
    def most(name): return max(t[name]/one, t50[name]/t50['product'])
    two = t['eigen'] + 2*t['product64']
    return [check('class_influence / its product', t['class_influence']/one, 4, False),
            check('two-product meter / class_influence', t['authors']/t['class_influence'], 25),
            check('ridge / (one decomposition + two products in float64)', t['ridge']/two, 2, False),
            check('split_half(20) / product', most('split_half'), 10, False),
            check('null_band(20) / product', most('null_band'), 10, False)]

def command_checks(r) -> list:
    infl, many = r['ti_influence'], r['many']; may = many['reading'] + 3*many['product']
    ours, averages, kept = many['command']['cpu'], many['averages']['cpu'], may + many['writing']
    return [check('ti-influence --out, all of the process / two products', infl['cpu']/r['two_products'], 6, False),
            check('ti-influence: peak memory, MB', infl['mb'], 700, False),
            check('ti-report, CPU-seconds', r['ti_report']['cpu'], 3, False),
            *[check(f'{k} of the large table, CPU-seconds', r['words'][k], .05, False)
              for k in ('repr', 'html', 'top')],
            check('ten million columns: averages / (reading + 3 products)', averages/may, 1, False),
            check('ten million columns: the table, too / (reading + 3 products)', ours/may, 1, False),
            check('the same / (reading + 3 products + writing 3 tables)', ours/kept, 1, False),
            check('ten million columns: peak memory, MB (mapped pages count)', many['command']['mb'], 2000, False),
            check('CSV of two million rows, CPU-seconds', r['csv']['arrow']['cpu'], 3, False),
            check('influences that do not read back', r['csv_wrong'], 0, False)]

def exact_checks(r) -> list:
    largest = {k: max(e[k] for e in r['exact'].values()) for k in ('value', 'stderr', 'q')}
    return [check('values: largest error / largest value of the column', largest['value'], 1e-6, False),
            check('errors: largest relative error', largest['stderr'], 1e-5, False),
            check('q-values above 1e-30: largest relative error', largest['q'], 1e-4, False)]

def table(r):
    t, t50, two = r['calls'], r['calls_50_classes'], r['two_products']
    rows = [['what', 'CPU-seconds', 'in products']]
    rows += [[k, x, x/t['product']] for k, x in t.items()]
    rows += [[f'{k}, 50 target classes', t50[k], t50[k]/t50['product']]
             for k in ('split_half', 'null_band', 'plan', 'variance')]
    rows += [[f'ti-influence: {k}', x, 2*x/two] for k, x in r['stages'].items()]
    rows += [[k, r[k]['cpu'], 2*r[k]['cpu']/two] for k in ('ti_influence', 'ti_report')]
    rows += [[f'large table: {k}', x, 2*x/two] for k, x in r['words'].items()]
    rows += [[f'CSV or frame: {k}', x['cpu'], ''] for k, x in r['csv'].items()]
    m = r['many']
    took = dict(reading=m['reading'], product=m['product'], **{'writing alone': m['writing']},
                averages=m['averages']['cpu'], command=m['command']['cpu'])
    return rows + [[f'many columns: {k}', x, x/m['product']] for k, x in took.items()]
