"A run whose models are trained as one program: the same as one at a time, and safe when it is killed."
from dataclasses import replace
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.basics.recipe import to_toml
from transfer_influence.records.read_run import read_commit, verify
from transfer_influence.records.store import Store, committed, open_run
from transfer_influence.fleet.fleet import compiled_if_many, task_of
from transfer_influence.fleet.worker import Task, block_of
from transfer_influence.cli.train import count_at_once

RUN = Path(sys.executable).parent/'ti-run'
MODELS = 30


@pytest.fixture(scope='module')
def recipe():
    return ti.Recipe(source=ti.SourceSpec(classes=tuple('OZSTBGAE'), size=10), design=ti.DesignSpec(alpha=.5),
                     targets=(ti.TargetSpec('digits', epochs=3),), run=ti.RunSpec(models=MODELS),
                     training=ti.TrainSpec(width=8, epochs=8, loop='batched'))


def start(folder, recipe, *args):
    (folder/'r.toml').write_text(to_toml(recipe), 'utf-8')
    return subprocess.Popen([RUN, folder/'r.toml', '--out', folder/'run', '--quiet', *map(str, args)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope='module')
def undisturbed(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp('batched')
    p = start(folder, recipe); _, err = p.communicate(timeout=250)
    assert p.returncode == 0, err
    return folder/'run'


@pytest.mark.timeout(300)
def test_killed_in_mid_group(recipe, undisturbed, tmp_path):
    "Committed models stay, the others are trained again, and the result is the same to the last byte."
    p = start(tmp_path, recipe, '--workers', 1)
    run, end = tmp_path/'run', time.time() + 100
    while not list(run.glob('commits/*.json')) and time.time() < end: time.sleep(.01)
    children = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(p.pid)], capture_output=True, text=True).stdout.split()
    for pid in (*map(int, children), p.pid): os.kill(pid, signal.SIGKILL)
    p.communicate()
    kept = {f.name: f.read_bytes() for f in run.glob('commits/*.json')}
    assert 0 < len(kept) < MODELS
    p = start(tmp_path, recipe, '--workers', 2); _, err = p.communicate(timeout=250)
    assert p.returncode == 0, err
    assert {f.name: f.read_bytes() for f in run.glob('commits/*.json')}.items() >= kept.items()
    assert (run/'influence.npz').read_bytes() == (undisturbed/'influence.npz').read_bytes() and verify(open_run(run)).ok


def test_like_one_at_a_time(recipe, undisturbed, tmp_path):
    "Outputs of the same models by the loop that trains one after the other."
    one = replace(recipe, training=replace(recipe.training, loop='resident'), run=ti.RunSpec(models=4))
    alone = ti.Fleet(one, tmp_path/'run'); alone.run(engine='here', quiet=True)
    a, b = alone.predictions(), ti.open_fleet(undisturbed).predictions()
    assert (a.masks == b.masks[:4]).all()
    for name in ('probability', 'margin'): np.testing.assert_allclose(a.outputs[name], b.outputs[name][:4], atol=5e-3)
    assert read_commit(open_run(undisturbed), 0)['loop'] == 'batched'


@pytest.mark.timeout(200)
def test_child_runs_and_kept_weights(recipe, tmp_path):
    "A curve, a target that is added, an extension: all that a run can have."
    r = replace(recipe, run=ti.RunSpec(models=8, keep_weights=True))
    fleet = ti.Fleet(r, tmp_path/'run'); fleet.run(engine='here', quiet=True)
    assert ti.removal_curve(fleet.out, ks=[2], replicates=2, quiet=True, engine='here').replicates == 2
    assert ti.add_target(fleet.out, ti.TargetSpec('digits', epochs=1), name='again', quiet=True, engine='here').complete
    longer = ti.Fleet(replace(r, run=replace(r.run, models=10)), fleet.out)
    assert longer.run(engine='here', quiet=True).trained == 2 and len(committed(open_run(fleet.out))) == 10


def test_blocks():
    "What a worker is given at a time: groups where they train as one program, else single models."
    assert block_of(Task('run', loop='batched'), on_gpu=False) == 4
    for loop in ('resident', 'fastai'): assert block_of(Task('run', loop=loop), on_gpu=False) == 1
    assert block_of(Task('run', loop='resident'), on_gpu=True) == 128
    assert block_of(Task('run', loop='resident', at_once=8), on_gpu=True) == 16
    for each, groups in ((200, 2), (2000, 3), (50_000, 8)):
        assert block_of(Task('run', loop='resident'), True, each) == 64*groups
    assert block_of(Task('run', loop='fastai'), on_gpu=True) == 4


def test_large_nets_come_in_short_blocks(recipe, tmp_path):
    "A ResNet fills a card by itself and takes long; progress should move all the same."
    def block(net):
        r = replace(recipe, training=replace(recipe.training, net=net, loop='resident'))
        return block_of(task_of(r, Store(tmp_path)), True, 7540)
    assert (block('patch'), block('resnet18')) == (512, 4)


def test_compiled_where_it_pays():
    "A task says so where a worker will train some hundreds of models; the cost of a run counts the same way."
    t = Task('run', loop='batched')
    assert [compiled_if_many(t, n, workers).compiled for n, workers in ((300, 1), (301, 1), (500, 2), (700, 2))] == [
        False, True, False, True]


def test_at_once():
    assert (count_at_once('auto'), count_at_once('16'), count_at_once(8)) == (0, 16, 8)
    for wrong in ('many', '0', '-2', '1.5'):
        with pytest.raises(ti.InputError, match='--at-once must be auto or a number'): count_at_once(wrong)
