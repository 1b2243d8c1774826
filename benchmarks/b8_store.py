"""The store on this disk: two processes write rows of 10,000 images × 5 outputs, five times; the compacted copy is read
in blocks; and what engine and store cost a model whose training takes no time."""
from common import check, median, np, seconds, time # first: it sets the number of threads

from pathlib import Path
from tempfile import TemporaryDirectory
import multiprocessing

import cloudpickle

from transfer_influence.basics.recipe import RunSpec
from transfer_influence.training.own_training import OwnTarget, OwnTraining
from transfer_influence.records.store import Store, write_model
from transfer_influence.records.read_run import compact, read_blocks, read_predictions, verify
from transfer_influence.fleet.engine import LocalEngine
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.progress import Progress
from transfer_influence.fleet.worker import Task
from transfer_influence.fleet.fleet import train_all

TITLE = 'store: two writers, reading, cost per model'
IMAGES, BARS = 10_000, dict(lost=0, write=100, read=.5, percent=2)


def train(subset, seed, device): return seed

def evaluate(model): return np.random.default_rng(model).normal(size=(IMAGES, 10)).astype(np.float32)

def instant(models:int) -> OwnTraining:
    "Models that are random scores: what remains is the store and the engine."
    target = OwnTarget(np.arange(IMAGES) % 10, tuple('0123456789'))
    return OwnTraining(train, evaluate, list('ABCDEFGH'), dict(it=target), run=RunSpec(models=models))

def large_row(i): return np.random.default_rng(i).normal(size=(5, IMAGES)).astype(np.float32)

def write(root, models, start, answers):
    "What one of the two writers does."
    store, rows = Store(root), {i: large_row(i) for i in models}
    start.wait(); began = time.time()
    for i, row in rows.items(): write_model(store, i, dict(it=row), {})
    answers.put((began, time.time()))

def two_writers(root, models:int) -> tuple: # MB/s of both, rows lost
    "Every other row each; then every row is read back and compared."
    spawn = multiprocessing.get_context('spawn')
    store, start, answers = begin_run(instant(models), root), spawn.Barrier(2), spawn.SimpleQueue()
    writers = [spawn.Process(target=write, args=(root, range(k, models, 2), start, answers)) for k in (0, 1)]
    for w in writers: w.start()
    began, ended = zip(*[answers.get() for _ in writers])
    for w in writers: w.join()
    kept = read_predictions(store).outputs
    right = sum(all(np.array_equal(y[i], r) for y, r in zip(kept.values(), large_row(i))) for i in range(models))
    return 20e-6*IMAGES*models/(max(ended) - min(began)), models - right + len(verify(store).damaged)

def read_all(store): return sum(y.nbytes for _, y in read_blocks(store))

def reading(root) -> float: # GB/s of one output, blocks of models, from the compacted copy
    store = Store(root); compact(store)
    n = read_all(store)
    return 1e-9*n/median(seconds(time.perf_counter, read_all, store) for _ in range(5))

def per_model(root, models:int) -> dict: # milliseconds of wall time
    "One worker: all that is not training, and the part of it that makes and scores random numbers."
    own = instant(models); store = begin_run(own, root)
    task = Task(str(root), own=cloudpickle.dumps(own), device='cpu')
    with LocalEngine(1, module='transfer_influence.training.pipeline') as engine:
        list(train_all(store, engine, task, [0], Progress(1, 1, True))) # the worker has started and read the run
        todo = list(range(1, models))
        whole = seconds(time.perf_counter, train_all, store, engine, task, todo, Progress(len(todo), 1, True))
    from transfer_influence.training.own_training import own_rows
    alone = median(seconds(time.perf_counter, lambda i: own_rows(own, evaluate(i)), i) for i in range(20))
    return dict(all=1e3*whole/len(todo), model_itself=1e3*alone, engine_and_store=1e3*(whole/len(todo) - alone))

def run(quick:bool) -> dict:
    runs, models = (1, 64) if quick else (5, 512)
    with TemporaryDirectory() as folder:
        written = [two_writers(Path(folder)/f'{k}', models) for k in range(runs)]
        gb, ms = reading(Path(folder)/'0'), per_model(Path(folder)/'instant', models)
    rates, lost = [r for r, _ in written], sum(n for _, n in written)
    checks = [check(f'rows lost in {runs} runs', lost, BARS['lost'], False),
              check('two processes write, MB/s', median(rates), BARS['write']),
              check('blocks from the compacted copy, GB/s', gb, BARS['read']),
              check('engine and store, % of a model of 1 s', ms['engine_and_store']/10, BARS['percent'], False)]
    return dict(checks=checks, write_mb_s=rates, rows_lost=lost, read_gb_s=gb, ms_a_model=ms, models=models,
                images=IMAGES)

def table(result):
    rows = [['', 'value'], ['two writers, MB/s', median(result['write_mb_s'])], ['rows lost', result['rows_lost']],
            ['read from the compacted copy, GB/s', result['read_gb_s']]]
    return rows + [[f"ms a model: {k.replace('_', ' ')}", v] for k, v in result['ms_a_model'].items()]
