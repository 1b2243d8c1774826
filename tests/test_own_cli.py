"A training of one's own from a shell: as a stranger meets it, with files, modules, shards, damage and mistakes."
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from services import ray_cluster, s3_server

import transfer_influence as ti
from transfer_influence.records.store import chunk_path, open_run

BIN = Path(sys.executable).parent
OWN = '''
import threading
import numpy as np
import transfer_influence as ti
from helper.more import SIZE

NAMES, TRUE = [f'unit {i}' for i in range(8)], np.array([1., -1, 0, 0, 0, 0, 0, 0])
def train(subset, seed, device): return subset.mask @ TRUE + np.random.default_rng(seed).normal(0, .1)
def evaluate(model): return np.full(SIZE, 2 - model)
own = ti.OwnTraining(train, evaluate, NAMES, dict(task=ti.OwnTarget(SIZE, output='error', better='lower')), run=ti.RunSpec(models=20))
'''


def cli(command, *args, cwd, env=None):
    return subprocess.run([BIN/command, *map(str, args)], cwd=cwd, env=os.environ | (env or {}), capture_output=True,
                          text=True, timeout=200)


def worked(result):
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(result, *words):
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    for w in words: assert w in last, last
    assert not result.stdout.strip()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a training, a package beside it, and a finished run."
    folder = tmp_path_factory.mktemp('own'); (folder/'helper').mkdir()
    (folder/'helper/__init__.py').touch(); (folder/'helper/more.py').write_text('SIZE = 12\n')
    (folder/'mine.py').write_text(OWN)
    worked(cli('ti-run', 'mine.py', '--out', 'run', '--workers', 2, '--quiet', cwd=folder))
    return folder


@pytest.mark.timeout(300)
def test_a_file_to_begin_with(tmp_path):
    said = worked(cli('ti-run', '--new', 'my_training.py', cwd=tmp_path))
    assert 'ti-run my_training.py --dry-run' in said and 'ti-run my_training.py --out run' in said
    code = [l for l in (tmp_path/'my_training.py').read_text().splitlines() if l.strip() and not l.strip().startswith('#')]
    assert len(code) <= 30 and max(map(len, code)) <= 120
    refused(cli('ti-run', '--new', 'my_training.py', cwd=tmp_path), 'is there already')
    cost = worked(cli('ti-run', 'my_training.py', '--dry-run', '--workers', 2, cwd=tmp_path))
    assert '200 models' in cost and 'MB of disk' in cost and not (tmp_path/'run').exists()
    said = worked(cli('ti-run', 'my_training.py', '--out', 'run', cwd=tmp_path))
    assert '1 class raises the squared error on target' in said and 'most of all site 3' in said
    assert (tmp_path/'run/report.html').is_file()
    curve = worked(cli('ti-curve', 'run', '--training', 'my_training.py', '--ks', '1,2', '--replicates', 4, cwd=tmp_path))
    assert 'squared error, which is better' in curve and 'most positive' in curve
    kept = json.loads((tmp_path/'run/training.json').read_text())
    assert kept[0]['name'] == 'my_training.py' and kept[0]['text'] == (tmp_path/'my_training.py').read_text()


def test_a_finished_run_is_read_without_the_file(place):
    assert 'unit 0' in worked(cli('ti-influence', 'run', cwd=place)) and '20' in worked(cli('ti-status', 'run', cwd=place))
    told = json.loads(worked(cli('ti-influence', 'run', '--json', cwd=place)))
    assert 'hurts' in told['sign'] and told['rows'][0]['source_class'] == 'unit 0' and told['rows'][0]['influence'] < 0
    worked(cli('ti-report', 'run', '--out', 'page.html', cwd=place)); worked(cli('ti-verify', 'run', cwd=place))
    assert '20' in worked(cli('ti-plan', 'run', cwd=place))


def test_the_same_numbers_whatever_trains(place):
    runs = [('here', ('--engine', 'here')), ('by name', ('--workers', 1, '--at-once', 5)),
            ('first', ('--shard', '0/2')), ('first', ('--shard', '1/2'))]
    for out, how in runs: worked(cli('ti-run', 'mine.py:own', '--out', out, '--quiet', *how, cwd=place))
    worked(cli('ti-run', 'mine:own', '--out', 'module', '--quiet', cwd=place))
    first = ti.class_influence(_read(place/'run')).values
    for out in ('here', 'by name', 'first', 'module'): assert (ti.class_influence(_read(place/out)).values == first).all(), out


def _read(run):
    from transfer_influence.records.read_run import read_predictions
    return read_predictions(open_run(run))


def test_longer_and_another_text(place):
    worked(cli('ti-run', 'mine.py', '--out', 'longer', '--models', 6, '--quiet', cwd=place))
    (place/'other.py').write_text(OWN.replace('models=20', 'models=9'))
    r = cli('ti-run', 'other.py', '--out', 'longer', '--quiet', cwd=place); worked(r)
    assert 'note: other.py, or a file beside it, has changed since 6 models of' in r.stderr
    assert len(json.loads((place/'longer/training.json').read_text())) == 2
    (place/'other.py').write_text(OWN.replace("'error', better='lower'", "'error', better='higher'"))
    refused(cli('ti-run', 'other.py', '--out', 'longer', cwd=place), "better of 'task' was 'lower' and is 'higher'")


def test_a_file_beside_it_that_has_changed(place, tmp_path):
    (tmp_path/'helper').mkdir(); (tmp_path/'helper/__init__.py').touch()
    (tmp_path/'helper/more.py').write_text('SIZE = 12\n'); (tmp_path/'mine.py').write_text(OWN)
    worked(cli('ti-run', 'mine.py', '--out', 'run', '--quiet', '--workers', 1, cwd=tmp_path))
    (tmp_path/'helper/more.py').write_text('SIZE = 12 # as before\n')
    r = cli('ti-curve', 'run', '--training', 'mine.py', '--dry-run', cwd=tmp_path); worked(r)
    assert r.stderr.count('mine.py, or a file beside it, has changed since 20 models of') == 1


def test_a_file_that_hides_a_module(tmp_path):
    for name in ('random.py', 'numpy.py'):
        (tmp_path/name).write_text(OWN); (tmp_path/'mine.py').write_text(OWN)
        refused(cli('ti-run', 'mine.py', '--out', 'x', cwd=tmp_path), f"{name} hides Python's own module of that name; rename it")
        (tmp_path/name).unlink()


def test_damage_is_mended_by_the_file(place):
    worked(cli('ti-run', 'mine.py', '--out', 'hurt', '--models', 6, '--quiet', cwd=place))
    chunk = place/'hurt'/chunk_path('task', 3); data = bytearray(chunk.read_bytes()); data[5] ^= 255; chunk.write_bytes(data)
    assert cli('ti-verify', 'hurt', cwd=place).returncode == 1
    refused(cli('ti-verify', 'hurt', '--repair', cwd=place), 'hurt --repair --training mine.py')
    worked(cli('ti-verify', 'hurt', '--repair', '--training', 'mine.py', '--quiet', cwd=place))
    worked(cli('ti-verify', 'hurt', cwd=place))


def test_until_it_is_reliable(place):
    r = cli('ti-run', 'mine.py', '--out', 'until', '--models', 400, '--until-reliability', .8, '--quiet', cwd=place)
    assert 'the reliability of 0.8 is reached' in worked(r) and 'models were not needed' in r.stdout


@pytest.mark.parametrize('args, said', [
    (('gone.py', '--out', 'x'), 'no file at gone.py; ti-run --new gone.py'),
    (('no_such:own', '--out', 'x'), "no module named 'no_such'"),
    (('mine.py',), 'say where the run goes'),
    (('mine.py', '--out', 'x', '--skip-bad', '--keep-weights'), '--keep-weights and --skip-bad: for recipes only'),
    (('mine.py:gone', '--out', 'x'), "mine.py has no 'gone'"),
    ((), 'say what to train'), (('mine.py', '--new', 'a.py'), '--new goes by itself'),
    (('--new', 'a.txt'), 'must end in .py')])
def test_mistakes(place, args, said): refused(cli('ti-run', *args, cwd=place), said)


@pytest.mark.parametrize('change, said', [
    (('own = ti', 'ti'), 'bad.py defines no OwnTraining'),
    (('def evaluate', 'again = 1/0\ndef evaluate'), 'bad.py, line 9: ZeroDivisionError: division by zero'),
    (('def evaluate', 'def evaluate('), 'bad.py, line 9: SyntaxError'),
    (('def evaluate', 'exit()\ndef evaluate'), 'bad.py, line 9: the file calls exit()'),
    (('NAMES, dict', "NAMES[:1] + ['unit 0'], dict"), 'bad.py, line 10: class_names'),
    (('def train', 'LOCK = threading.Lock()\ndef train'), None),
    (('return subset', 'LOCK.acquire(False); return subset'), "bad.py, line 8, in train"),
    (('def train(subset, seed, device): return', 'LOCK = threading.Lock()\ndef train(subset, seed, device): LOCK.acquire(False); return'),
     'train_fn holds what cannot be sent to workers')])
def test_files_with_mistakes(place, change, said):
    (place/'bad.py').write_text(OWN.replace(*change))
    r = cli('ti-run', 'bad.py', '--out', f'bad {abs(hash(change))}', '--models', 4, cwd=place)
    if said: refused(r, said)
    else: worked(r)  # what the functions do not use stays at home


def test_prints_of_the_file_are_no_answer(place):
    (place/'loud.py').write_text("print('hello')\n" + OWN)
    r = cli('ti-run', 'loud.py', '--dry-run', cwd=place)
    assert 'hello' not in worked(r) and 'hello' in r.stderr


def test_curves_need_the_file(place):
    refused(cli('ti-curve', 'run', cwd=place), 'was made with training of your own; give it again: ti-curve run --training mine.py')
    refused(cli('ti-curve', 'run', '--training', 'mine.py', '--steps', 50, cwd=place), 'your own training counts its steps itself')


def test_a_run_in_an_object_store(place):
    pytest.importorskip('moto')
    with s3_server() as server:
        worked(cli('ti-run', 'mine.py', '--out', server.url, '--models', 6, '--workers', 1, cwd=place, env=server.env))
        assert '6' in worked(cli('ti-status', server.url, cwd=place, env=server.env))


@pytest.mark.skipif(not (os.environ.get('TI_RAY') and find_spec('ray')), reason='TI_RAY=1, as .ci/run sets it')
@pytest.mark.timeout(300)
def test_on_a_cluster(place):
    with ray_cluster() as c:
        worked(cli('ti-run', 'mine.py', '--out', 'on ray', '--engine', 'ray', '--quiet', cwd=place, env=c.env))
    assert (ti.class_influence(_read(place/'on ray')).values == ti.class_influence(_read(place/'run')).values).all()


def test_light():
    code = ("import sys, time; t = time.perf_counter(); import transfer_influence.cli.train as c\n"
            "print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
