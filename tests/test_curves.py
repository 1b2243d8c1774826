"Removal curves and finders as a user meets them: killed in the middle, asked wrongly, with planted truths in small."
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from transfer_influence.data import ImageSet
from transfer_influence.sources import save_images

BIN = Path(sys.executable).parent
KILLS = int(os.environ.get('TI_KILLS', 1))  # .ci/run asks for more
RECIPE = '''
[source]
name = "glyphs"
classes = ["O", "Z", "S", "T", "B", "G", "A", "E"]
size = 10
[[targets]]
name = "digits"
epochs = 3
[training]
width = 8
epochs = 1
[run]
models = 16
'''
CURVE = ('--ks', '1,3', '--replicates', '4', '--quiet')


def ti(command, *args): return subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True,
                                              timeout=250)


def refused(result, *words):
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    for w in words: assert w in last, last


def commits(child): return {p.name: p.read_bytes()
                            for p in (child/'commits').glob('*')} if (child/'commits').exists() else {}


def alive(pid):
    try: return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False


def children(pid):
    return [int(p) for p in subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True,
                                           text=True).stdout.split()]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('curves')
    (folder/'r.toml').write_text(RECIPE)
    done = ti('ti-run', folder/'r.toml', '--out', folder/'run', '--quiet')
    assert done.returncode == 0, done.stderr
    return folder/'run'


@pytest.fixture(scope='module')
def whole(run, tmp_path_factory):
    "The curve, undisturbed."
    out = tmp_path_factory.mktemp('whole')/'run'; shutil.copytree(run, out)
    done = ti('ti-curve', out, *CURVE, '--save-keep', out/'keep.txt')
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.timeout(600)
def test_killed_in_the_middle(run, whole, tmp_path):
    "Killed again and again, a curve ends as if nothing had been; no worker stays, no commit is touched."
    out, rng = tmp_path/'run', random.Random(1); shutil.copytree(run, out)
    for _ in range(KILLS):
        p = subprocess.Popen([BIN/'ti-curve', out, *CURVE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, end = commits(out/'curves'), time.time() + 100
        while len(commits(out/'curves')) < len(before) + 3 and p.poll() is None and time.time() < end: time.sleep(.02)
        time.sleep(rng.uniform(0, .3)); workers = children(p.pid)
        p.kill(); p.wait(); time.sleep(2)
        assert not [w for w in workers if alive(w)], 'a worker outlived its driver by 2 seconds'
        assert before.items() <= commits(out/'curves').items(), 'a commit was touched'
    kept = commits(out/'curves')
    done = ti('ti-curve', out, *CURVE)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= commits(out/'curves').items()
    assert json.loads((out/'curves/summary.json').read_text()) == json.loads((whole/'curves/summary.json').read_text())


def test_again_trains_nothing(whole):
    before = commits(whole/'curves')
    r = ti('ti-curve', whole, *CURVE, '--dry-run')
    assert r.returncode == 0 and ' 0 of them to train' in r.stdout, r.stdout + r.stderr
    assert commits(whole/'curves') == before


def test_curve_leaves_its_files(whole):
    page = (whole/'report.html').read_text('utf-8')
    assert 'Does removing classes help?' in page and 'What they do to single images' in page
    assert 2 <= len((whole/'keep.txt').read_text('utf-8').split()) <= 8
    verify = ti('ti-verify', whole/'curves')
    assert verify.returncode == 0 and '0 damaged' in verify.stdout


def test_damage_in_a_curve(whole, tmp_path):
    "A damaged row is found, withdrawn, and trained again by the command that made the curve."
    out = tmp_path/'run'; shutil.copytree(whole, out)
    row = out/'curves/data.zarr/target/digits/pred/c/3/0/0'
    data = bytearray(row.read_bytes()); data[100] ^= 255; row.write_bytes(data)
    refused(ti('ti-curve', out, *CURVE), 'damaged', 'ti-verify', 'curves --repair')
    assert ti('ti-verify', out).returncode == 1  # a run is checked with its child runs
    r = ti('ti-verify', out, '--repair')
    assert r.returncode == 0 and 'ti-curve' in r.stdout, r.stderr
    assert ti('ti-curve', out, *CURVE).returncode == 0
    assert json.loads((out/'curves/summary.json').read_text()) == json.loads((whole/'curves/summary.json').read_text())


def test_nothing_without_training(run, tmp_path):
    "A dry run trains nothing, and no model for the mappings either."
    out = tmp_path/'run'; shutil.copytree(run, out)
    r = ti('ti-curve', out, *CURVE, '--dry-run')
    assert r.returncode == 0 and '44 models in the curve, 44 of them to train' in r.stdout, r.stdout + r.stderr
    assert not (out/'curves').exists()
    r = ti('ti-curve', out, '--ks', 2, '--replicates', 1, '--arms', 'random', '--csv', tmp_path/'c.csv', '--quiet')
    assert r.returncode == 0 and (tmp_path/'c.csv').is_file(), r.stderr  # one replicate: no test, but points


def lines(path, *names): path.write_text('\n'.join(names), 'utf-8'); return path


def test_wrong_questions(run, tmp_path):
    names = tuple('OZSTBGAE')
    refused(ti('ti-curve', run, '--ks', 7), '7 of 8 classes cannot be removed')
    refused(ti('ti-curve', run, '--ks', 'a'), 'whole numbers')
    refused(ti('ti-curve', run, '--keep', 1), 'keep must be from 2 to 7')
    refused(ti('ti-curve', run, '--order', lines(tmp_path/'o', *names[:-1], 'X')), "not in the source, 'X'")
    refused(ti('ti-curve', run, '--order', lines(tmp_path/'o', *names, 'O')), "'O' more than once")
    refused(ti('ti-curve', run, '--order', tmp_path/'none'), 'no file at')
    refused(ti('ti-curve', run, '--picked', lines(tmp_path/'p', 'elephant')), '0 of the picked classes')
    refused(ti('ti-curve', run, '--arms', 'most negativ'), "did you mean 'most negative'")
    refused(ti('ti-curve', run, '--replicates', 0), 'replicates must be 1 or more')
    refused(ti('ti-curve', tmp_path), 'no run folder')
    refused(ti('ti-curve', run, '--replicates', 1, '--save-keep', tmp_path/'k'), '--save-keep chooses the best k')
    refused(ti('ti-explore', run), 'say what to look for')
    refused(ti('ti-explore', run, '--failures', '--k', -1), '--k must be at least 1')
    refused(ti('ti-explore', run, '--source-class', 'o'), "no source class 'o'")
    refused(ti('ti-explore', run, '--leaks'), '--train-examples', 'of one worker')
    refused(ti('ti-explore', run, '--failures', '--confirm', '--replicates', 1), 'at least 2 replicates')
    refused(ti('ti-explore', run, '--source-class', 'O', '--csv', 'x.csv'), '--csv goes with')


def test_target_too_small(tmp_path):
    "A class with a single image for choosing and reporting is named."
    rng = np.random.default_rng(0)
    save_images(ImageSet(rng.integers(0, 255, (5, 10, 10), dtype=np.uint8), np.array([0, 0, 0, 1, 1]), 'ab'),
                tmp_path/'t.npz')
    (tmp_path/'r.toml').write_text(RECIPE.replace('name = "digits"', f'name = "npz"\npath = "{tmp_path}/t.npz"'))
    refused(ti('ti-run', tmp_path/'r.toml', '--out', tmp_path/'run'), 'needs at least 4 images')


def test_images_gone(run, tmp_path):
    "A grid needs the images; what has become of them is said in one line."
    out = tmp_path/'run'; shutil.copytree(run, out)
    for f in (out/'images').iterdir(): f.unlink()
    head = json.loads((out/'fleet.json').read_text())
    head['targets']['digits']['fingerprint'] = 'of another set'
    (out/'fleet.json').write_text(json.dumps(head))
    refused(ti('ti-explore', out, '--source-class', 'O'), 'not those that the run began with')
