"What was written is whole: two writers at once, deaths at every step, any order, two sessions that begin together."
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from transfer_influence.basics.recipe import Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec, to_toml
from transfer_influence.training.own_training import OwnTarget, OwnTraining, train_own
from transfer_influence.records.store import Store, chunk_path, committed, write_model
from transfer_influence.records.read_run import compact, read_predictions, read_rows, verify
from transfer_influence.fleet.engine import LocalEngine, shard_of
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.progress import Progress, run_status
from transfer_influence.fleet.worker import Task, work
from transfer_influence.fleet.fleet import train_all

TI_RUN = Path(sys.executable).parent/'ti-run'
LETTERS = tuple('OZSTBG')
spawn = multiprocessing.get_context('spawn')


def in_processes(*calls, seconds=200):
    "Run functions with their arguments in processes of their own, and give their exit codes."
    started = [spawn.Process(target=f, args=args) for f, *args in calls]
    for p in started: p.start()
    for p in started: p.join(seconds)
    for p in started: p.kill()
    return [p.exitcode for p in started]


# training that takes no time and loads no torch, so that the store is all there is to test

def train(notes, subset, seed, device):
    "The model is a number; a note is left of each attempt."
    (Path(notes)/f'{subset.model}-{uuid.uuid4().hex}').touch()
    return seed


def evaluate(model): return np.random.default_rng(model).normal(size=20)


def own(notes, train_fn=train, evaluate_fn=evaluate, n=20, scores=False, models=6):
    "An experiment that does not need the package's own training."
    target = OwnTarget(np.zeros(n, int), ('it',), scores)
    return OwnTraining(partial(train_fn, str(notes)), evaluate_fn, LETTERS, dict(it=target), run=RunSpec(models=models))


def task_for(training, out): return Task(str(out), own=cloudpickle.dumps(training), device='cpu')


def run_own(training, out):
    "What `Fleet.run` does, with workers that need not load torch."
    store = begin_run(training, out)
    with LocalEngine(2) as engine:
        failed, _ = train_all(store, engine, task_for(training, out), range(6), Progress(6, 2, quiet=True))
    return store, failed


def chunks(store, target): return {i: store.get_bytes(chunk_path(target, i)) for i in committed(store)}


def attempts(notes): return [sum(p.name.startswith(f'{i}-') for p in notes.iterdir()) for i in range(6)]


@pytest.fixture
def notes(tmp_path):
    (tmp_path/'notes').mkdir()
    return tmp_path/'notes'


# two writers

IMAGES, ROWS, REPEATS = 10_000, 40, 5


def large_row(i): return np.random.default_rng(i).normal(size=(5, IMAGES)).astype('f4')


def large_rows(models): return {i: dict(it=large_row(i)) for i in models}


def write_rows(folder, models, barrier, seconds):
    "Write rows into one run after the other, each time as soon as the other process is ready, too."
    rows = large_rows(models)
    for k in range(REPEATS):
        store = Store(f'{folder}/{k}')
        barrier.wait(100)
        start = time.perf_counter()
        for i, r in rows.items(): write_model(store, i, r, {})
        barrier.wait(100)
        seconds.put(time.perf_counter() - start)


@pytest.mark.timeout(200)
def test_two_writers(notes, tmp_path):
    "Two processes write every other row, five times: no row is lost."
    stores = [begin_run(own(notes, n=IMAGES, scores=True, models=ROWS), tmp_path/f'{k}') for k in range(REPEATS)]
    barrier, seconds = spawn.Barrier(2), spawn.SimpleQueue()
    assert in_processes(*[(write_rows, tmp_path, range(k, ROWS, 2), barrier, seconds) for k in (0, 1)]) == [0, 0]
    written = large_rows(range(ROWS))
    for store in stores:
        found, kept = verify(store), store.group('r')['target/it/pred'][:]
        assert found.ok and found.models == ROWS, found.damaged
        assert all(kept[i].tobytes() == written[i]['it'].tobytes() for i in range(ROWS))
    rates = [ROWS*IMAGES*5*4/1e6/seconds.get() for _ in range(2*REPEATS)]
    assert np.median(rates) >= 20, f'MB/s of two writers: {sorted(round(r) for r in rates)}'


def test_one_chunk_a_model(notes, tmp_path):
    "No chunk, and no shard of chunks, holds two models."
    store = begin_run(own(notes), tmp_path/'run')
    for i in range(3): write_model(store, i, dict(it=np.full((1, 20), i, 'f4')), {})
    array = store.group('r')['target/it/pred']
    assert array.chunks[0] == 1 and array.shards is None
    assert len(store.paths('data.zarr/target/it/pred/c')) == 3


# deaths

def die_once(notes):
    "The first process that comes here is killed."
    try: (notes/'died').open('x').close()
    except FileExistsError: return
    os.kill(os.getpid(), signal.SIGKILL)


class DiesBeforeCommit(Store):
    "Another process kills us when all chunks of a model are written."
    def put(self, path, value, create=True): os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(notes, subset, seed, device):
    model = train(notes, subset, seed, device)
    if subset.model == 2: die_once(Path(notes))
    return model


def work_and_die(when, notes, task, models):
    "`work`, in a process that is killed at a certain moment of model 2."
    if 2 not in models: return work(task, models)
    if when == 'between chunk and commit' and not (notes/'died').exists():
        (notes/'died').touch()
        training, store = cloudpickle.loads(task.own), DiesBeforeCommit(task.root)
        write_model(store, 2, train_own(training, store.group('r')['subset'][2], 2), {})
    ended = work(task, models)
    if when == 'after the commit': die_once(notes)
    return ended


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    store = begin_run(own(folder), folder/'run')
    work(task_for(own(folder), folder/'run'), range(6))
    return chunks(store, 'it')


@pytest.mark.timeout(120)
@pytest.mark.parametrize('when', ['before the chunk', 'between chunk and commit', 'after the commit'])
def test_worker_killed(undisturbed, notes, tmp_path, when):
    "Wherever a worker dies, the run ends as if nothing had happened, and only its own model is begun again."
    training = own(notes, train_and_die if when == 'before the chunk' else train)
    store = begin_run(training, tmp_path/'run')
    task = partial(work_and_die, when, notes, task_for(training, tmp_path/'run'))
    with LocalEngine(2) as engine: ended = [(m, error) for m, _, error in engine.tasks(task, [(i,) for i in range(6)])]
    assert sorted(ended) == [((i,), None) for i in range(6)] and (notes/'died').exists()
    assert chunks(store, 'it') == undisturbed and verify(store).ok
    assert attempts(notes) == [1, 1, 1 if when == 'after the commit' else 2, 1, 1, 1]


class DiesInSecondBlock(Store):
    "Reading, and the process, end after so many rows."
    reads = 0

    def get_bytes(self, path):
        self.reads += '/pred/c/' in path
        if self.reads > 300: os.kill(os.getpid(), signal.SIGKILL)
        return super().get_bytes(path)


def compact_and_die(root): compact(DiesInSecondBlock(root))


@pytest.mark.timeout(120)
def test_compaction_killed(notes, tmp_path):
    "Half a copy is never read; the next one is whole."
    store, rng = begin_run(own(notes, models=400, scores=True), tmp_path/'run'), np.random.default_rng(0)
    for i in range(400): write_model(store, i, dict(it=rng.normal(size=(5, 20)).astype('f4')), {})
    rows = read_rows(store, 'it', range(400), 20)
    assert in_processes((compact_and_die, store.root)) == [-signal.SIGKILL]
    begun = store.paths('compact')
    assert any('/c/0/0' in p for p in begun) and not any('done.json' in p for p in begun)
    assert read_predictions(store).output()[1].tobytes() == rows[:, 2].tobytes()
    path = compact(store)
    assert store.exists(f'{path}/done.json')
    for j, o in enumerate(('probability', 'logit', 'margin', 'correct', 'predicted')):
        assert read_predictions(store).outputs[o].tobytes() == rows[:, j].tobytes(), o


# numbers that are none

def train_nan(notes, subset, seed, device): return None if subset.model == 3 else train(notes, subset, seed, device)


def evaluate_nan(model): return np.full(20, np.nan) if model is None else evaluate(model)


def test_nan(notes, tmp_path):
    "A model that diverges has no commit; its failure is recorded, the others finish."
    store, failed = run_own(own(notes, train_nan, evaluate_nan), tmp_path/'run')
    assert committed(store) == [0, 1, 2, 4, 5] and list(failed) == [3] and 'not finite' in failed[3]
    assert store.get('failures/000003.json')['error'] == failed[3]
    assert run_status(store.root)['failed'] == {3: failed[3]}


def recipe(models=6, **training):
    "A real recipe, of six letters."
    return Recipe(source=SourceSpec(classes=LETTERS, size=10), targets=(TargetSpec('digits', epochs=3),),
                  training=TrainSpec(**dict(width=8, epochs=1) | training), run=RunSpec(models=models))


@pytest.mark.timeout(300)
def test_command_with_nan(tmp_path):
    "A recipe that diverges: the command says which models, and what to change."
    (tmp_path/'wild.toml').write_text(to_toml(recipe(2, epochs=0, steps=30, lr=100., weight_decay=10.)))
    r = subprocess.run([TI_RUN, tmp_path/'wild.toml', '--out', tmp_path/'run', '--workers', '1'], capture_output=True,
                       text=True, timeout=250)
    assert r.returncode == 1 and 'Traceback' not in r.stderr, r.stderr
    assert '2 models failed alike (0, 1)' in r.stderr and 'lower training.lr' in r.stderr, r.stderr


# any order, any number of workers

def train_in_parts(e, engine, out, parts):
    "Train some models after others, with the workers of an engine or in this process."
    store = begin_run(e, out)
    for part in parts:
        if engine: train_all(store, engine, Task(str(out), device='cpu'), part, Progress(6, 2, quiet=True))
        else: work(Task(str(out), device='cpu'), part)
    return chunks(store, 'digits')


@pytest.mark.timeout(300)
def test_same_bytes(tmp_path):
    "One worker or two, in shards or backwards: a model's bytes depend on its number alone."
    e, every = recipe(), list(range(6))
    one = train_in_parts(e, None, tmp_path/'one', [every])
    shards = [shard_of(every, f'{k}/3') for k in (2, 0, 1)]
    assert sorted(one) == every and sorted(sum(shards, [])) == every
    assert train_in_parts(e, None, tmp_path/'reversed', [every[::-1]]) == one
    with LocalEngine(2, module='transfer_influence.training.pipeline') as engine:
        assert train_in_parts(e, engine, tmp_path/'two', [every]) == one
        assert train_in_parts(e, engine, tmp_path/'shards', shards) == one
    longer = replace(e, run=RunSpec(models=7))
    assert {i: c for i, c in train_in_parts(longer, None, tmp_path/'longer', [range(7)]).items() if i < 6} == one


# two sessions at once

RUNS = 20

def begin_often(notes, folder, barrier, errors):
    "Begin a new run at the same instant as another process, again and again."
    for k in range(RUNS):
        barrier.wait(100)
        try: begin_run(own(notes, n=5000, scores=True), f'{folder}/{k}')
        except Exception as e: errors.put(f'{type(e).__name__}: {e}')
        else: errors.put('')


def begin_together(notes, folder):
    "Two processes begin the same new runs below a folder or an address; the runs, and the errors they met."
    barrier, errors = spawn.Barrier(2), spawn.SimpleQueue()
    assert in_processes(*[(begin_often, notes, folder, barrier, errors)]*2) == [0, 0]
    return [f'{folder}/{k}' for k in range(RUNS)], [e for e in (errors.get() for _ in range(2*RUNS)) if e]


def whole(notes, run, pattern):
    "Are all arrays of a run those of another one?"
    a, b = Store(run).group('r'), begin_run(own(notes, n=5000, scores=True), pattern).group('r')
    same = all(np.array_equal(a[x][:], b[x][:]) for x in ('subset', 'target/it/label', 'target/it/id', 'target/it/select'))
    return same and a['target/it/pred'].shape == (6, 5, 5000)


@pytest.mark.timeout(200)
def test_begin_together(notes, tmp_path):
    "Two sessions begin the same new run: both may go on, and what they made is whole."
    runs, errors = begin_together(notes, tmp_path)
    assert not errors, f'{len(errors)} of {2*RUNS} sessions could not begin: {set(e[:80] for e in errors)}'
    assert all(whole(notes, r, tmp_path/'alone') for r in runs)
