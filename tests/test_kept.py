"What a run folder keeps stays what it was: other labels, parts that are lost, foreign files, models that failed, places."
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.analysis.retrain import begin_child
from transfer_influence.basics.errors import InputError
from transfer_influence.fleet.begin import is_whole, mend_arrays
from transfer_influence.fleet.fleet import task_of
from transfer_influence.fleet.progress import run_status, status_lines
from transfer_influence.fleet.worker import Packed, Task, sent
from transfer_influence.records.read_run import compact, failures_of, read_predictions, verify
from transfer_influence.records.run_arrays import create_arrays
from transfer_influence.records.store import Store, StoreError, committed, open_run, row_crc, write_model

BIN = Path(sys.executable).parent
LABELS = np.array([0, 1, 0, 1, 0, 1])
NAMES = tuple('abcdef')


def train(subset, seed, device): return np.random.default_rng(seed).normal(size=6) + subset.mask[0]


def itself(model): return model


def own(models=6, labels=LABELS, target_names=('x', 'y'), names=NAMES, train_fn=train, target='t', **fields):
    t = ti.OwnTarget(labels, target_names, scores=False, **fields)
    return ti.OwnTraining(train_fn, itself, names, {target: t}, run=ti.RunSpec(models=models))


def run(training, out, **options): return ti.Fleet(training, out).run(**dict(engine='here', quiet=True) | options)


def files(out): return {p.relative_to(out): p.read_bytes() for p in Path(out).rglob('*') if p.is_file()}


def command(name, *args, **kwargs):
    return subprocess.run([BIN/name, *map(str, args)], capture_output=True, text=True, timeout=250, **kwargs)


def one_line(r, *words):
    assert r.returncode == 1 and 'Traceback' not in r.stderr and all(w in r.stderr for w in words), r.stderr
    assert len(r.stderr.strip().splitlines()) == 1, r.stderr


# other labels

CHANGED = [(dict(labels=1 - LABELS), "the labels of 't' are others"), (dict(target_names=('y', 'x')), "class_names of 't' are in another order"),
           (dict(names=NAMES[::-1]), 'class_names are in another order'), (dict(labels=np.arange(10) % 2), "images of 't' was 6 and is 10"),
           (dict(target='u'), 'targets was t and is u'), (dict(select=LABELS > 0), "the images to choose on of 't' are others"),
           (dict(names=tuple('abcdeg')), 'class_names was a, b, c, d, e, f and is a, b, c, d, e, g')]


@pytest.mark.parametrize('marks', ['new', 'old'])
@pytest.mark.parametrize('models', [6, 9], ids=['complete', 'more models'])
@pytest.mark.parametrize('change, words', CHANGED, ids=[w for _, w in CHANGED])
def test_other_labels(tmp_path, change, words, models, marks):
    "A run is not continued with other classes, labels or parts, and stays as it is; older runs have no checksums in the header."
    run(own(), tmp_path/'run')
    if marks == 'old':
        head = json.loads((tmp_path/'run/fleet.json').read_text())
        for d in head['targets'].values(): [d.pop(k) for k in ('images', 'label', 'select')]
        (tmp_path/'run/fleet.json').write_text(json.dumps(head))
    before = files(tmp_path/'run')
    with pytest.raises(InputError, match=None if marks == 'old' else words): run(own(models, **change), tmp_path/'run')
    after = files(tmp_path/'run')
    assert {p: after.get(p) for p in before if 'data.zarr' in str(p)} == {p: b for p, b in before.items() if 'data.zarr' in str(p)}
    with pytest.raises(InputError): begin_child(tmp_path/'run', 'curves', own(**change))
    assert run(own(9), tmp_path/'run').trained == 3
    p = ti.Fleet(own(9), tmp_path/'run').predictions()
    assert (p.labels == LABELS).all() and p.n_models == 9


def test_fill_refuses(tmp_path):
    "Labels that can be read are never written over; those that a dead session left unwritten are written."
    store = Store(tmp_path); store.put('fleet.json', dict(targets=dict(t={})))
    columns = LABELS, np.where(LABELS, 'select', 'report'), np.arange(6)
    create_arrays(store, dict(t=columns))
    with pytest.raises(InputError, match='differs from what is given in 6 of 6'): create_arrays(store, dict(t=(1 - LABELS, *columns[1:])))
    (tmp_path/'data.zarr/target/t/label/c/0').unlink()
    create_arrays(store, dict(t=columns))
    assert (store.group('r')['target/t/label'][:] == LABELS).all()


# parts that are lost

@pytest.fixture(scope='module')
def large(tmp_path_factory):
    "A run with two chunks of masks; its models are written without being trained."
    out = tmp_path_factory.mktemp('large')/'run'
    run(own(2), out)
    ti.Fleet(own(1300), out).run(engine='here', quiet=True, stop=lambda done: True)  # makes the arrays longer
    store = open_run(out); z = store.group('r')['subset'][:]; rng = np.random.default_rng(0)
    for i in set(range(1300)) - set(committed(store)):
        write_model(store, i, dict(t=rng.normal(size=(1, 6)).astype('f4') + z[i, 0]), dict(mask=row_crc(z[i])))
    return out


LOST = {'subset/c/1/0': '276 models, such as model 1024', 'subset/c/0/0': '1024 models, such as model 0',
        'target/t/label/c/0': "'label' of 't'", 'target/t/select/c/0': "'select' of 't'", 'subset/zarr.json': 'subset is missing',
        'zarr.json': 'data.zarr is missing', 'target/t/label/zarr.json': 'label is missing'}


@pytest.mark.slow
@pytest.mark.parametrize('path, copied, emptied', [*((p, False, e) for p in LOST for e in (False, True)), ('subset/c/1/0', True, False),
                                                   ('target/t/select/c/0', True, False)])
def test_lost_part(large, tmp_path, path, copied, emptied):
    "What an interrupted copy or a power failure leaves is one line; the command that made the run mends it without training."
    shutil.copytree(large, tmp_path/'run'); store, of = open_run(tmp_path/'run'), own(1300)
    before = read_predictions(store)
    if copied: compact(store)
    file = tmp_path/'run/data.zarr'/path
    file.write_bytes(b'') if emptied else file.unlink()
    with pytest.raises(StoreError, match='give the command that made the run again') as e: read_predictions(store)
    assert '\n' not in str(e.value) and (LOST[path] in str(e.value) or emptied), e.value
    with pytest.raises(StoreError, match='give the command that made the run again'): verify(store, repair=True)
    assert len(committed(store)) == 1300 # none is withdrawn for that
    report = run(of, tmp_path/'run')
    assert (report.done, report.trained) == (1300, 0)
    p = read_predictions(store)
    assert (p.masks == before.masks).all() and (p.output()[1] == before.output()[1]).all() and (p.split == before.split).all()
    assert verify(store).ok and is_whole(store, of)


def test_empty_mask(large, tmp_path):
    "A commit without the checksum of its mask, as foreign tools may write: a model that saw nothing is refused."
    shutil.copytree(large, tmp_path/'run'); commit = tmp_path/'run/commits/000005.json'
    commit.write_text(json.dumps({k: v for k, v in json.loads(commit.read_text()).items() if k != 'mask'}))
    assert ti.Fleet(own(1300), tmp_path/'run').predictions().n_models == 1300
    open_run(tmp_path/'run').group()['subset'][5] = False
    with pytest.raises(StoreError, match='masks of 1 models, such as model 5'): ti.Fleet(own(1300), tmp_path/'run').predictions()


def test_old_copy(large, tmp_path):
    "A compact copy that an older version made names no masks; they are looked up in the commits."
    shutil.copytree(large, tmp_path/'run'); store = open_run(tmp_path/'run')
    done = tmp_path/'run'/compact(store)/'done.json'
    done.write_text(json.dumps({k: v for k, v in json.loads(done.read_text()).items() if k != 'masks'}))
    assert read_predictions(store).n_models == 1300
    (tmp_path/'run/data.zarr/subset/c/1/0').unlink()
    with pytest.raises(StoreError, match='276 models'): read_predictions(store)


def test_complete_and_read_only(large):
    "A complete run is only read when it is asked for again."
    before = files(large)
    assert run(own(1300), large).trained == 0 and files(large) == before


# commands on damaged runs of a recipe

def recipe(models=6):
    return ti.Recipe(source=ti.SourceSpec(classes=tuple('OZSTBG'), size=10), targets=(ti.TargetSpec('digits', epochs=1),),
                     training=ti.TrainSpec(width=8, epochs=1), run=ti.RunSpec(models=models))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    from transfer_influence.basics.recipe import to_toml
    folder = tmp_path_factory.mktemp('trained')
    (folder/'r.toml').write_text(to_toml(recipe(12)))
    run(recipe(12), folder/'run')
    return folder


@pytest.mark.slow
@pytest.mark.timeout(250)
@pytest.mark.parametrize('path', ['data.zarr/subset/c/0/0', 'data.zarr/zarr.json'])
def test_commands(trained, tmp_path, path):
    "What the line names works: ti-run makes the run whole, and nothing is trained."
    shutil.copytree(trained/'run', tmp_path/'run'); (tmp_path/'run'/path).unlink()
    one_line(command('ti-influence', tmp_path/'run'), 'give the command that made the run again')
    done = command('ti-run', trained/'r.toml', '--out', tmp_path/'run', '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert command('ti-verify', tmp_path/'run').returncode == 0 and command('ti-influence', tmp_path/'run').returncode == 0
    assert {p: b for p, b in files(tmp_path/'run').items() if 'data.zarr' in str(p)} == {
        p: b for p, b in files(trained/'run').items() if 'data.zarr' in str(p)}


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_lost_outputs(trained, tmp_path):
    "Outputs that are lost are trained again; the line names the command, and it works."
    shutil.copytree(trained/'run', tmp_path/'run'); shutil.rmtree(tmp_path/'run/data.zarr/target')
    one_line(command('ti-influence', tmp_path/'run'), 'give the command that made the run again')
    mend_arrays(recipe(12), tmp_path/'run')
    one_line(command('ti-influence', tmp_path/'run'), f'ti-verify {tmp_path}/run --repair')
    assert command('ti-verify', tmp_path/'run', '--repair', '--workers', 1).returncode == 0
    a, b = (read_predictions(open_run(f/'run')).output()[1] for f in (trained, tmp_path))
    assert (a == b).all()


@pytest.mark.parametrize('path, words', [('fleet.json', 'copy it from where it is whole'), ('commits/000002.json', '--repair')])
def test_empty_files(trained, tmp_path, path, words):
    shutil.copytree(trained/'run', tmp_path/'run'); (tmp_path/'run'/path).write_bytes(b'')
    one_line(command('ti-influence', tmp_path/'run'), 'is damaged', words)


# files of file managers

@pytest.mark.slow
@pytest.mark.timeout(250)
def test_foreign_files(tmp_path):
    "Finder, Explorer and shared drives leave files in every folder of a run; all goes on as before."
    f = ti.Fleet(recipe(16), tmp_path/'run'); f.run(engine='here', quiet=True)
    curve = ti.removal_curve(tmp_path/'run', ks=[2], replicates=2, engine='here', quiet=True)
    p = f.predictions()
    for folder in sorted({q.parent for q in (tmp_path/'run').rglob('*') if q.is_file()}):
        inside = [q for q in folder.iterdir() if q.is_file()]
        for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini', *(f'._{q.name}' for q in inside[:3])): (folder/name).write_bytes(b'\0\5\26\7')
        for q in inside[:3]: shutil.copy(q, folder/f'{q.stem} (conflicted copy){q.suffix}')
    again = f.predictions()
    assert (again.output()[1] == p.output()[1]).all() and run_status(tmp_path/'run')['done'] == 16 and f.verify().ok
    assert ti.removal_curve(tmp_path/'run', ks=[2], replicates=2, engine='here', quiet=True).to_dataframe().equals(curve.to_dataframe())
    assert Path(ti.make_report(tmp_path/'run')).is_file()
    assert run(recipe(18), tmp_path/'run').trained == 2
    (tmp_path/'new').mkdir(); (tmp_path/'new/.DS_Store').touch(); (tmp_path/'new/Thumbs.db').touch()
    assert run(own(3), tmp_path/'new').done == 3


# models that failed

def fails_with_first(subset, seed, device):
    return np.full(6, np.nan) if subset.mask[0] and seed % 2 else np.random.default_rng(seed).normal(size=6) + subset.mask[1]


def test_failures(tmp_path):
    "Fifteen of forty models fail, all with class a: one warning says so, with the counts."
    f = ti.Fleet(own(40, train_fn=fails_with_first), tmp_path/'run')
    assert len(f.run(engine='here', quiet=True).failed) == 15
    with pytest.warns(UserWarning) as said: p = f.predictions()
    assert [str(w.message) for w in said] == ["15 of 40 models failed and are left out; all 15 had 'a', of the others 12 of 25: "
                                             'what is left is no fair sample of that class']
    found = failures_of(open_run(tmp_path/'run'))
    assert (found.failed, found.done, found.unit, found.had, found.others) == (15, 25, 'a', 15, int(p.masks[:, 0].sum()))
    r = command('ti-influence', tmp_path/'run')
    assert r.returncode == 0 and r.stderr.count('note: 15 of 40 models failed') == 1, r.stderr


def test_no_failures(tmp_path):
    run(own(), tmp_path/'run')
    with warnings.catch_warnings():
        warnings.simplefilter('error'); ti.Fleet(own(), tmp_path/'run').predictions()


# places

def test_home(tmp_path, monkeypatch):
    "~ is the home folder, wherever a path comes in."
    monkeypatch.setenv('HOME', str(tmp_path/'home')); monkeypatch.chdir(tmp_path); (tmp_path/'home').mkdir()
    run(own(), '~/run')
    assert (tmp_path/'home/run/fleet.json').is_file() and open_run('~/run').root == tmp_path/'home/run'
    p = ti.Fleet(own(), '~/run').predictions()
    ti.save_predictions(p, '~/new/p'); assert (ti.load_predictions('~/new/p').masks == p.masks).all()
    pictures = ti.ImageSet(np.zeros((4, 8, 8, 1), np.uint8), [0, 0, 1, 1], ['a', 'b'])
    ti.save_images(pictures, '~/more/images'); assert ti.load_images('~/more/images').class_names == ('a', 'b')
    assert not (tmp_path/'~').exists() and (tmp_path/'home/new/p.npz').is_file() and (tmp_path/'home/more/images.npz').is_file()


def goes_away(subset, seed, device): os.chdir('/'); return train(subset, seed, device)


@pytest.mark.parametrize('engine', ['here', 'local'])
def test_changed_folder(tmp_path, monkeypatch, engine):
    "A training that changes the working folder loses nothing, and the caller's folder stays."
    monkeypatch.chdir(tmp_path)
    report = run(own(train_fn=goes_away), 'run', engine=engine, **dict(workers=1) if engine == 'local' else {})
    assert report.done == 6 and Path.cwd() == tmp_path and (tmp_path/'run/fleet.json').is_file()
    fleet = ti.Fleet(own(), 'run'); (tmp_path/'other').mkdir(); monkeypatch.chdir(tmp_path/'other')
    assert fleet.predictions().n_models == 6 and not fleet.missing()


# versions

def test_versions(tmp_path):
    "A run that went on with other versions says so."
    run(own(), tmp_path/'run'); first = next((tmp_path/'run/runs').glob('*.json'))
    told = json.loads(first.read_text()); torch = told['versions']['torch']; told['versions']['torch'] = '1.13'
    first.write_text(json.dumps(told)); run(own(8), tmp_path/'run')
    status = run_status(tmp_path/'run')
    assert status['versions']['torch'] == ['1.13', torch] and len(status['versions']['numpy']) == 1
    assert f'its sessions had different versions: torch 1.13, {torch}' in status_lines(status)


# what is sent to workers

BIG = np.random.default_rng(0).normal(size=1_500_000)  # 12 MB


def holding(big):
    def train_fn(subset, seed, device): return big[:6] + train(subset, seed, device)
    return train_fn


@pytest.mark.timeout(120)
def test_large_training(tmp_path):
    "A training that holds a large array is sent once, with a note that says how to avoid it."
    with pytest.warns(UserWarning, match='hold 12 MB.*load data inside train_fn, or give images as source='):
        report = run(own(train_fn=holding(BIG)), tmp_path/'run', engine='local', workers=2)
    assert report.done == 6
    here = run(own(train_fn=holding(BIG)), tmp_path/'here')
    a, b = (read_predictions(open_run(tmp_path/d)).output()[1] for d in ('run', 'here'))
    assert here.done == 6 and (a == b).all()


def test_packed(tmp_path):
    "The task is small, its file is of this session alone, and no other bytes are ever unpacked."
    store = Store(tmp_path); store.put('fleet.json', {})
    task = task_of(own(train_fn=holding(BIG)), store)
    with pytest.warns(UserWarning), sent(task, 'local') as ready:
        assert len(pickle.dumps(ready)) < 2000 and Path(ready.own.path).parent.stat().st_mode & 0o777 == 0o700
        assert len(ready.own.read()) > 12e6
        Path(ready.own.path).write_bytes(pickle.dumps(print))
        with pytest.raises(InputError, match='was changed'): ready.own.read()
    assert not Path(ready.own.path).exists() and isinstance(ready.own, Packed)
    with sent(task, 'here') as ready: assert ready is task
    with sent(Task('run'), 'local') as ready: assert ready.own is None


def test_locks(tmp_path):
    "What cannot be sent is one line that names the function and the way out; in this process nothing is sent."
    lock = threading.Lock()
    def locked(subset, seed, device):
        with lock: return train(subset, seed, device)
    with pytest.raises(InputError, match="train_fn holds what cannot be sent .*_thread.lock.*engine='here'"):
        run(own(train_fn=locked), tmp_path/'run', engine='local', workers=1)
    with pytest.raises(InputError, match='evaluate_fn holds'):
        run(replace(own(), evaluate_fn=lambda m: lock and m), tmp_path/'other', engine='local', workers=1)
    assert run(own(train_fn=locked), tmp_path/'run').done == 6


def in_daemon(out, said):
    for engine in ('local', 'here'):
        try: said.put(str(run(own(3), f'{out}/{engine}', engine=engine).done))
        except InputError as e: said.put(str(e))


@pytest.mark.timeout(100)
def test_daemonic(tmp_path):
    "Where no workers can be started, the line names the engine that needs none."
    spawn = multiprocessing.get_context('spawn'); said = spawn.SimpleQueue()
    p = spawn.Process(target=in_daemon, args=(tmp_path, said), daemon=True); p.start(); p.join(90)
    assert "engine='here'" in said.get() and said.get() == '3'


# names and seeds

@pytest.mark.parametrize('name', ['.', '..', '\t', '', 'a/b', 'source', 3])
def test_target_names(name):
    with pytest.raises(InputError, match='cannot be called'): own(target=name)


def test_seeds():
    for seed in (np.int64(3), np.uint8(3)):
        spec = ti.RunSpec(models=np.int32(4), seed=seed)
        assert spec == ti.RunSpec(4, 3) and type(spec.seed) is int and json.dumps(vars(spec))
    assert type(ti.DesignSpec(alpha=np.float32(.5)).alpha) is float
