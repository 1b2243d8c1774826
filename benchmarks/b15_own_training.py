"""What the command adds to a training of one's own: 40 trainings of one CPU-second each by two workers, against a plain
loop in as many processes; the start of the processes apart."""
from common import check, np, time # first: it sets the number of threads

from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
import os
import subprocess
import sys

from transfer_influence.records.store import Store, committed
from transfer_influence.records.read_run import read_commit

TITLE = "own training: the command's wall time against a plain loop's"
WORKERS, BARS = 2, dict(overhead=.03)
FILE = '''import time
import numpy as np
import transfer_influence as ti
def train(subset, seed, device):
    start = time.process_time()
    while time.process_time() - start < {seconds}: pass
    return subset.mask
def evaluate(model): return model@np.arange(8.)**2 + np.arange(1000.)
training = ti.OwnTraining(train, evaluate, list('ABCDEFGH'), dict(task=ti.OwnTarget(1000)), run=ti.RunSpec(models={models}))
'''

def burn(seconds):
    "What a training is made of; its beginning and its end."
    began, start = time.time(), time.process_time()
    while time.process_time() - start < seconds: pass
    return began, time.time()

def process(_):
    time.sleep(.05); return os.getpid()

def plain(models, seconds) -> float: # seconds from the first begin to the last end
    with get_context('spawn').Pool(WORKERS) as pool:
        while len(set(pool.map(process, range(WORKERS), chunksize=1))) < WORKERS: pass # until all processes are there
        ended = pool.map(burn, [seconds]*models, chunksize=1)
    return max(e for _, e in ended) - min(b for b, _ in ended)

def command(models, seconds) -> dict:
    "The same by `ti-run`; what it took from the first begin to the last commit, and in all."
    with TemporaryDirectory() as d:
        (Path(d)/'my_own.py').write_text(FILE.format(seconds=seconds, models=models))
        asked = [Path(sys.executable).parent/'ti-run', 'my_own.py', '--out', 'run', '--workers', str(WORKERS), '--quiet']
        start = time.time(); subprocess.run(asked, cwd=d, check=True, capture_output=True); total = time.time() - start
        store = Store(Path(d)/'run'); records = [read_commit(store, i) for i in committed(store)]
        began = min(r['finished'] - r['seconds'] for r in records); ended = max(r['finished'] for r in records)
        return dict(training=ended - began, before=began - start, after=start + total - ended, total=total)

def run(quick:bool) -> dict:
    models, seconds, repeats = (8, .25, 1) if quick else (40, 1., 3)
    loops, runs = zip(*((plain(models, seconds), command(models, seconds)) for _ in range(repeats)))
    loop, mid = float(np.median(loops)), {k: float(np.median([r[k] for r in runs])) for k in runs[0]}
    overhead = mid['training']/loop - 1
    help_ = []
    for _ in range(5):
        start = time.time(); subprocess.run([Path(sys.executable).parent/'ti-run', '--help'], capture_output=True)
        help_.append(time.time() - start)
    return dict(models=models, seconds=seconds, workers=WORKERS, plain=loop, command=mid, overhead=overhead,
                help=float(np.median(help_)), raw=dict(plain=loops, command=runs),
                checks=[check('overhead of the command, share', overhead, BARS['overhead'], at_least=False),
                        check('ti-run --help, seconds', float(np.median(help_)), .4, at_least=False)])

def table(result) -> list:
    c = result['command']
    return [('seconds', 'plain loop', 'ti-run'), ('training', result['plain'], c['training']),
            ('before the first training', '', c['before']), ('after the last', '', c['after']),
            ('ti-run --help', '', result['help'])]
