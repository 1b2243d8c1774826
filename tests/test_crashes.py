"Whatever dies, nothing is lost: killed drivers and workers, Ctrl-C, a full disk, two drivers at once."
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get('TI_KILLS', 1))  # .ci/run asks for more
DEMO = Path(sys.executable).parent/'ti-demo'
MODELS = 16


def start(out, *args):
    return subprocess.Popen([DEMO, '--out', str(out), '--models', str(MODELS), *map(str, args)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            # a shell starts what is in its background with Ctrl-C ignored, and that is inherited
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def children(pid):
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True, text=True).stdout.split()
    return [int(p) for p in found]


def alive(pid):
    try: return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False


def commits(out): return {p.name: p.read_bytes() for p in (out/'commits').glob('*.json')} if (out/'commits').exists() else {}


def wait_for(condition, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited too long'
        time.sleep(.05)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp('clean')/'run'
    p = start(out, '--quiet'); text, err = p.communicate(timeout=300)
    assert p.returncode == 0, err
    return out


def finished(out):
    p = start(out, '--quiet'); _, err = p.communicate(timeout=300)
    assert p.returncode == 0, err
    return (out/'influence.npz').read_bytes()


@pytest.mark.timeout(900)
def test_driver_killed(undisturbed, tmp_path):
    out, rng = tmp_path/'run', random.Random(0)
    for _ in range(KILLS):
        p = start(out, '--quiet'); before = commits(out)
        wait_for(lambda: len(commits(out)) > len(before) or p.poll() is not None)
        time.sleep(rng.uniform(0, 1))
        workers = children(p.pid)
        p.kill(); p.communicate(); time.sleep(2)
        assert not [w for w in workers if alive(w)], 'a worker outlived its driver by 2 seconds'
        assert before.items() <= commits(out).items(), 'a commit was touched'
    kept = commits(out)
    assert finished(out) == (undisturbed/'influence.npz').read_bytes()
    assert kept.items() <= commits(out).items()


@pytest.mark.timeout(300)
def test_worker_killed(undisturbed, tmp_path):
    out = tmp_path/'run'
    p = start(out, '--quiet', '--workers', 2)
    wait_for(lambda: len(commits(out)) >= 3)
    at = len(commits(out))
    for w in children(p.pid)[-1:]:
        try: os.kill(w, signal.SIGKILL)
        except ProcessLookupError: pass
    _, err = p.communicate(timeout=200)
    assert p.returncode == 0 and at < MODELS, err
    assert (out/'influence.npz').read_bytes() == (undisturbed/'influence.npz').read_bytes()


@pytest.mark.timeout(300)
def test_ctrl_c(tmp_path):
    out = tmp_path/'run'
    p = start(out, '--models', 80)  # so many that it is in their midst, also on a machine that is busy
    wait_for(lambda: len(commits(out)) >= 2)
    workers = children(p.pid)
    p.send_signal(signal.SIGINT); _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and 'give the same command again' in err and 'Traceback' not in err
    time.sleep(2)
    assert not [w for w in workers if alive(w)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM], ids=['Ctrl-C', 'terminated'])
@pytest.mark.parametrize('seconds', [0, 1])
def test_stopped_while_it_starts(tmp_path, sign, seconds):
    "Before a worker is ready, too, a stopped driver leaves none behind, and no traceback."
    p = start(tmp_path/'run', '--models', 80); wait_for(lambda: children(p.pid)); time.sleep(seconds)
    workers = children(p.pid)
    p.send_signal(sign); _, err = p.communicate(timeout=60)
    assert p.returncode == (130 if sign == signal.SIGINT else -sign) and 'Traceback' not in err, err
    time.sleep(2)
    assert not [w for w in workers if alive(w)]


@pytest.mark.timeout(300)
def test_two_drivers(undisturbed, tmp_path):
    out = tmp_path/'run'
    a = start(out, '--quiet', '--workers', 1); wait_for(lambda: (out/'fleet.json').exists())
    b = start(out, '--quiet', '--workers', 1)
    for p in (a, b): _, err = p.communicate(timeout=280); assert p.returncode == 0, err
    assert (out/'influence.npz').read_bytes() == (undisturbed/'influence.npz').read_bytes()


@pytest.mark.timeout(120)
def test_poison(tmp_path):
    "A task that always kills its worker is given up; the others end, and the exit status says so."
    code = '''
import os, sys
from transfer_influence.fleet.engine import LocalEngine, run_tasks
if __name__ == '__main__':
    with LocalEngine(2, retries=1) as e:
        given_up = [type(error).__name__ for _, _, error in run_tasks(e, os._exit, [3])]
        others = sorted(r for _, r, _ in run_tasks(e, abs, [-1, -2]))
    print(given_up, others)'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert r.stdout.strip() == "['WorkerDied'] [1, 2]", r.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('mount'), reason='needs the right to mount a small disk')
@pytest.mark.timeout(200)
@pytest.mark.parametrize('size', ['1400k', '2500k'])  # full while models are written, and when the results are
def test_full_disk(undisturbed, tmp_path, size):
    disk = tmp_path/'disk'; disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', disk]).returncode: pytest.skip('cannot mount a small disk here')
    try:
        p = start(disk/'run', '--quiet', '--workers', 1); _, err = p.communicate(timeout=150)
        assert p.returncode == 1 and 'no space' in err and 'Traceback' not in err, err
        kept = commits(disk/'run')
        subprocess.run(['mount', '-o', 'remount,size=60m', disk], check=True)
        assert finished(disk/'run') == (undisturbed/'influence.npz').read_bytes()
        assert kept.items() <= commits(disk/'run').items()
    finally: subprocess.run(['umount', '-l', disk])
