"A fleet on a real Ray cluster of two nodes: the same bytes, whatever is killed in its middle."
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

import pytest
from services import ray_cluster, read, users, wait_for

from transfer_influence.basics.recipe import Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec, to_toml
from transfer_influence.records.store import chunk_path, committed, open_run
from transfer_influence.records.read_run import verify
from transfer_influence.fleet.engine import WorkerDied, run_tasks
from transfer_influence.fleet.ray_engine import RayEngine
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.worker import Task, work
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.analysis.removal import removal_curve
from transfer_influence.show.report import write_influence

if not os.environ.get('TI_RAY'): pytest.skip('takes minutes: set TI_RAY=1, as .ci/run does', allow_module_level=True)
# not `importorskip`: once it is imported, Ray does not see the token of a cluster any more
if not find_spec('ray'): pytest.skip("needs Ray: pip install -e '.[ray]'", allow_module_level=True)
pytestmark = pytest.mark.timeout(400)
TI_RUN = Path(sys.executable).parent/'ti-run'
RECIPE = Recipe(source=SourceSpec(classes=tuple('OZSTBG'), size=10), targets=(TargetSpec('digits', epochs=3),),
                training=TrainSpec(width=8, epochs=1), run=RunSpec(models=16))
HERE = {'PYTHONPATH': str(Path(__file__).parent)}  # workers import this file


@pytest.fixture(scope='module')
def cluster():
    "Two nodes with a processor each, which this process and its children may join."
    with ray_cluster(env=HERE) as c, pytest.MonkeyPatch.context() as patch:
        for k, v in c.env.items(): patch.setenv(k, v)
        yield c


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    "The same run on this machine."
    out = tmp_path_factory.mktemp('local')/'run'
    begin_run(RECIPE, out)
    work(Task(str(out), device='cpu'), range(16))
    write_influence(out)
    return out


def chunks(out): return {i: open_run(out).get_bytes(chunk_path('digits', i)) for i in committed(open_run(out))}


def workers(cluster):
    "Process ids of the workers, on all nodes of this cluster: a test beside this one may have a cluster of its own."
    return [p for p in users(cluster.folder) if read(Path(f'/proc/{p}/cmdline')).startswith(b'ray::_Worker')]


def fleet(cluster, out, after_two=None):
    "Train on the cluster; something happens as soon as two models are done."
    def stop(done):
        if done == 2 and after_two: after_two()
        return False

    report = Fleet(RECIPE, out).run(engine='ray', address=cluster.address, quiet=True, stop=stop)
    assert report.complete and not report.failed and verify(open_run(out)).ok
    return chunks(out)


def gpu_of(x): return os.environ['CUDA_VISIBLE_DEVICES']


def test_share_of_a_gpu():
    "Two workers share a GPU (a pretended one), and see it."
    with ray_cluster(nodes=1, gpus=1, env=HERE) as c, pytest.MonkeyPatch.context() as patch:
        for k, v in c.env.items(): patch.setenv(k, v)
        with RayEngine(gpus=.5, address=c.address) as engine:
            assert engine.workers == 2 and engine.on_gpu
            assert [r for _, r, _ in run_tasks(engine, gpu_of, range(4))] == ['0']*4


def poison(x): return os._exit(1) if x == 3 else -x


def test_poison(cluster):
    "A task that always kills its worker is given up; the others end."
    with RayEngine(retries=1, address=cluster.address) as engine:
        assert engine.workers == 2
        ended = {item: (result, type(error)) for item, result, error in run_tasks(engine, poison, range(6))}
    assert ended == {x: (None, WorkerDied) if x == 3 else (-x, type(None)) for x in range(6)}


def test_same_bytes(cluster, local, tmp_path): assert fleet(cluster, tmp_path/'run') == chunks(local)


def test_curve(cluster, local, tmp_path):
    "A removal curve on the cluster: the same accuracies as on this machine."
    for name in ('here', 'there'): copytree(local, tmp_path/name)
    how = dict(ks=[1, 2], replicates=2, quiet=True)
    there = removal_curve(tmp_path/'there', engine='ray', address=cluster.address, **how)
    assert there.accuracy == removal_curve(tmp_path/'here', workers=1, **how).accuracy


def test_worker_killed(cluster, local, tmp_path):
    "A worker is killed: its model is trained by another."
    assert fleet(cluster, tmp_path/'run', lambda: os.kill(workers(cluster)[0], signal.SIGKILL)) == chunks(local)


def test_driver_killed(cluster, local, tmp_path):
    "The driver is killed: its workers end, too, and the same command goes on."
    out, toml = tmp_path/'run', tmp_path/'tiny.toml'
    toml.write_text(to_toml(RECIPE))
    command = [TI_RUN, toml, '--out', out, '--engine', 'ray', '--address', cluster.address, '--quiet']
    wait_for(lambda: not workers(cluster), what='the end of earlier workers')
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        wait_for(lambda: len(list((out/'commits').glob('*.json'))) >= 2 or p.poll() is not None, 200, 'the second model')
        assert workers(cluster)  # else their end would prove nothing
        p.kill()
    time.sleep(5)
    assert not workers(cluster), 'a worker outlived its driver by 5 seconds'
    first = {f: f.read_bytes() for f in (out/'commits').iterdir()}
    assert 2 <= len(first) < 16
    r = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr
    assert all(f.read_bytes() == commit for f, commit in first.items()), 'a commit was touched'
    assert (out/'influence.npz').read_bytes() == (local/'influence.npz').read_bytes()


def test_wrong_address(cluster, tmp_path):
    "No cluster there: a line says so."
    (tmp_path/'tiny.toml').write_text(to_toml(RECIPE))
    command = [TI_RUN, tmp_path/'tiny.toml', '--out', tmp_path/'run', '--engine', 'ray', '--address', '127.0.0.9:9']
    r = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert r.returncode == 1 and 'Traceback' not in r.stderr, r.stderr
    assert 'ti-run: cannot join the Ray cluster at 127.0.0.9:9' in r.stderr.splitlines()[-1], r.stderr


def test_node_killed(cluster, local, tmp_path):
    "A node is gone (this is the last test: it does not come back): its model is trained on another."
    assert fleet(cluster, tmp_path/'run', lambda: cluster.kill_node(1)) == chunks(local)
