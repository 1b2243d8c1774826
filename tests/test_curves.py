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

from transfer_influence.basics.recipe import load_recipe
from transfer_influence.images.image_set import ImageSet
from transfer_influence.images.folders import save_images
from transfer_influence.records.store import open_run
from transfer_influence.records.read_run import verify
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.cli.train import ti_run, ti_verify
from transfer_influence.cli.curve import ti_curve
from transfer_influence.cli.use import ti_explore

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


def ti(command, *args): return subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, timeout=250)


@pytest.fixture
def refused(capsys):
    "A command, called in this process, ends with status 1 and one line that holds the words."
    def check(command, *args, words, **options):
        with pytest.raises(SystemExit) as end: command(*map(str, args), **options)
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert end.value.code == 1
        for w in words: assert w in last, last
    return check


def commits(child): return {p.name: p.read_bytes()
                            for p in (child/'commits').glob('*.json')} if (child/'commits').exists() else {}


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
    Fleet(load_recipe(folder/'r.toml'), folder/'run').run(engine='here', quiet=True)
    return folder/'run'


@pytest.fixture(scope='module')
def whole(run, tmp_path_factory):
    "The curve, undisturbed."
    out = tmp_path_factory.mktemp('whole')/'run'; shutil.copytree(run, out)
    done = ti('ti-curve', out, *CURVE, '--engine', 'here', '--save-keep', out/'keep.txt')
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
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


BUDGET = ('--steps', '10,20', '--ks', '2,4', '--replicates', '3', '--choosing', '2', '--quiet')

@pytest.mark.slow
def test_a_budget_killed_in_the_middle(run, tmp_path):
    "Killed in both of its rounds, a curve at fixed budgets ends as if nothing had been."
    place, curves = 'budgets_patch_8', []
    for kills in ((), (4, 16)):
        out = tmp_path/f'run{len(kills)}'; shutil.copytree(run, out)
        for n in kills:
            p, end = subprocess.Popen([BIN/'ti-curve', out, *BUDGET], stdout=subprocess.DEVNULL), time.time() + 60
            while len(commits(out/place)) < n and p.poll() is None and time.time() < end: time.sleep(.02)
            p.kill(); p.wait(); kept = commits(out/place); assert len(kept) >= n
        done = ti('ti-curve', out, *BUDGET, '--engine', 'here'); assert done.returncode == 0, done.stderr
        assert not kills or kept.items() <= commits(out/place).items()
        curves.append(json.loads((out/place/'summary/digits.json').read_text()))
    assert curves[0] == curves[1] and verify(open_run(out/place)).ok
    assert 'What it brings at a fixed budget' in (out/'report.html').read_text('utf-8')


def test_a_length_of_its_own(run):
    "A model of so many steps is the same whoever trains it: alone in a recipe of that length, or in a child run."
    from dataclasses import replace
    from transfer_influence.analysis.retrain import retrain
    r = load_recipe(run.parent/'r.toml'); short = replace(r, training=replace(r.training, epochs=0, steps=7))
    Fleet(short, run.parent/'short').run(engine='here', quiet=True)
    ask = np.ones((1, 8), bool), [3]
    a = retrain(run, *ask, 7, 'budgets_patch_8', quiet=True, engine='here').outputs('digits')
    b = retrain(run.parent/'short', *ask, quiet=True, engine='here').outputs('digits')
    assert all((a[k] == b[k]).all() for k in a)


def test_again_trains_nothing(whole, capsys):
    before = commits(whole/'curves')
    ti_curve(str(whole), ks='1,3', replicates=4, dry_run=True)
    assert ' 0 of them to train' in capsys.readouterr().out and commits(whole/'curves') == before


def test_curve_leaves_its_files(whole):
    page = (whole/'report.html').read_text('utf-8')
    assert 'Does removing classes help?' in page and 'What they do to single images' in page
    assert 2 <= len((whole/'keep.txt').read_text('utf-8').split()) <= 8
    assert verify(open_run(whole/'curves')).ok


def test_damage_in_a_curve(whole, tmp_path, refused, capsys):
    "A damaged row is found, withdrawn, and trained again by the command that made the curve."
    out = tmp_path/'run'; shutil.copytree(whole, out)
    row = out/'curves/data.zarr/target/digits/pred/c/3/0/0'
    data = bytearray(row.read_bytes()); data[100] ^= 255; row.write_bytes(data)
    again = dict(ks='1,3', replicates=4, quiet=True, engine='here')
    refused(ti_curve, out, **again, words=['damaged', 'ti-verify', 'curves --repair'])
    refused(ti_verify, out, words=['ti-verify --repair'])  # a run is checked with its child runs
    ti_verify(str(out), repair=True)
    assert 'ti-curve' in capsys.readouterr().out
    ti_curve(str(out), **again)
    assert json.loads((out/'curves/summary.json').read_text()) == json.loads((whole/'curves/summary.json').read_text())


def test_nothing_without_training(run, tmp_path, capsys):
    "A dry run trains nothing, and no model for the mappings either."
    out = tmp_path/'run'; shutil.copytree(run, out)
    ti_curve(str(out), ks='1,3', replicates=4, dry_run=True)
    assert '44 models in the curve' in capsys.readouterr().out and not (out/'curves').exists()
    ti_curve(str(out), ks='2', replicates=1, arms='random', csv=str(tmp_path/'c.csv'), quiet=True, engine='here')
    assert (tmp_path/'c.csv').is_file()  # one replicate: no test, but points


def lines(path, *names): path.write_text('\n'.join(names), 'utf-8'); return path


def test_wrong_questions(run, tmp_path, refused):
    names = tuple('OZSTBGAE')
    def curve(*words, **options): refused(ti_curve, run, words=words, **options)
    curve('7 of 8 classes cannot be removed', ks='7')
    curve('whole numbers', ks='a')
    curve('keep must be from 2 to 7', keep='1')
    curve("not in the source, 'X'", order=lines(tmp_path/'o', *names[:-1], 'X'), arms='random')
    curve("'O' more than once", order=lines(tmp_path/'o', *names, 'O'), arms='random')
    curve('no file at', order=tmp_path/'none', arms='random')
    curve('0 of the picked classes', picked=lines(tmp_path/'p', 'elephant'), arms='random')
    curve("did you mean 'most negative'", arms='most negativ')
    curve('replicates must be 1 or more', replicates=0)
    curve('--save-keep chooses the best k', replicates=1, save_keep=tmp_path/'k', arms='random')
    curve('no folder for', arms='random', csv='/nowhere/x.csv')
    curve("unknown engine 'rai'", engine='rai')
    refused(ti_curve, tmp_path, words=['no run folder'])


def test_wrong_budgets(run, tmp_path, refused):
    def curve(*words, **options): refused(ti_curve, run, words=words, **options)
    curve('less than one batch for each of 8 classes', steps='5')
    curve('not both', steps='20', passes='1')
    curve('--passes takes numbers above 0', passes='-1')
    curve('--net and --lr: only with --steps', net='cnn', lr=.1)
    curve('--choosing: only with --steps', choosing=3)
    curve('is a folder', steps='20', csv=tmp_path)
    curve("unknown net 'cn'", steps='20', net='cn')


def test_wrong_questions_about_images(run, refused):
    def explore(*words, **options): refused(ti_explore, run, words=words, **options)
    explore('say what to look for')
    explore('--k must be at least 1', failures=True, k=-1)
    explore("no source class 'o'", source_class='o')
    explore('--train-examples', 'of one worker', leaks=True)
    explore('at least 2 replicates', failures=True, confirm=True, replicates=1)
    explore('--csv goes with', source_class='O', csv='x.csv')
    explore('no folder for', leaks=True, csv='/nowhere/x.csv')
    explore('--within goes with', failures=True, within='3')


def test_target_too_small(tmp_path, refused):
    "A class with a single image for choosing and reporting is named."
    rng = np.random.default_rng(0)
    save_images(ImageSet(rng.integers(0, 255, (5, 10, 10), dtype=np.uint8), np.array([0, 0, 0, 1, 1]), ['a', 'b']),
                tmp_path/'t.npz')
    (tmp_path/'r.toml').write_text(RECIPE.replace('name = "digits"', f'name = "npz"\npath = "{tmp_path}/t.npz"'))
    refused(ti_run, tmp_path/'r.toml', out=str(tmp_path/'run'), engine='here', words=['needs at least 4 images'])


def test_images_gone(run, tmp_path, refused):
    "A grid needs the images; what has become of them is said in one line."
    out = tmp_path/'run'; shutil.copytree(run, out)
    for f in (out/'images').iterdir(): f.unlink()
    head = json.loads((out/'fleet.json').read_text())
    head['targets']['digits']['fingerprint'] = 'of another set'
    (out/'fleet.json').write_text(json.dumps(head))
    refused(ti_explore, out, source_class='O', words=['not those that the run began with'])
