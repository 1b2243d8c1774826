"Commands as a user meets them: exit status, one line for each mistake, nothing lost."
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BIN = Path(sys.executable).parent
COMMANDS = ('ti_demo', 'ti_run', 'ti_recipes', 'ti_influence', 'ti_report', 'ti_curve', 'ti_explore')
TINY = '''
[source]
name = "glyphs"
classes = ["O", "Z", "S", "T", "B", "G"]
size = 10
[[targets]]
name = "digits"
epochs = 2
[design]
alpha = 0.5
[training]
width = 8
epochs = 1
[run]
models = 12
'''


def ti(command, *args, **kwargs):
    "Run the installed command."
    return subprocess.run([BIN/command.replace('_', '-'), *map(str, args)], capture_output=True, text=True, timeout=200, **kwargs)


def refused(result, *words):
    "One line on stderr that holds the words, a status that is not 0, no traceback."
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    for w in words: assert w in last, last


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    (folder/'tiny.toml').write_text(TINY)
    done = ti('ti_run', folder/'tiny.toml', '--out', folder/'run', '--workers', 1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize('command', COMMANDS)
def test_help(command):
    r = ti(command, '--help')
    assert r.returncode == 0 and 'usage: ti-' in r.stdout


def test_light_import():
    code = 'import sys, transfer_influence.cli.train, transfer_influence.cli.demo; print([m for m in ("torch", "fastai", "numpy", "zarr") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


def test_own_arrays_need_no_torch():
    code = '''
import sys, numpy as np
from transfer_influence.records.predictions import from_arrays
from transfer_influence.influence.result import class_influence
m = np.random.default_rng(0).random((40, 3)) < .5
class_influence(from_arrays(m, m @ np.ones((3, 5)))).mean()
print('torch' in sys.modules, 'zarr' in sys.modules)'''
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'False False'


@pytest.mark.parametrize('name, slow', [('influence', 'matplotlib zarr PIL pandas scipy.stats torch'), ('report', 'zarr pandas scipy.stats scipy.ndimage torch')])
def test_arrays_need_few_imports(tmp_path, name, slow):
    masks = np.random.default_rng(0).random((60, 3)) < .5
    np.savez(tmp_path/'mine.npz', masks=masks, outputs=masks @ np.ones((3, 5)) + np.random.default_rng(1).normal(size=(60, 5)))
    out = tmp_path/('page.html' if name == 'report' else 'influence.npz')
    words = [sys.executable, '-X', 'importtime', BIN/f'ti-{name}', tmp_path/'mine.npz', '--out', out]
    r = subprocess.run(words, capture_output=True, text=True)
    imported = {line.split('|')[-1].strip() for line in r.stderr.splitlines()}
    assert out.is_file() and 'numpy' in imported and not imported & set(slow.split()), r


def test_run_leaves_its_files(run):
    for name in ('fleet.json', 'influence.npz', 'influence/digits.npz', 'report.html', 'commits/000003.json', 'images/source.npz'):
        assert (run/'run'/name).is_file(), name
    with np.load(run/'run'/'influence.npz') as z:
        assert z['influence'].shape == (6, len(z['labels'])) and z['influence'].dtype == np.float32
        assert set(z['split']) == {'select', 'report'} and len(z['mean_qvalue']) == 6


def test_run_again_changes_nothing(run):
    before = {p: p.stat().st_mtime_ns for p in (run/'run').rglob('commits/*.json')}
    r = ti('ti_run', run/'tiny.toml', '--out', run/'run', '--workers', 1)
    assert r.returncode == 0 and {p: p.stat().st_mtime_ns for p in before} == before


def test_extend(run, tmp_path):
    shutil.copytree(run/'run', tmp_path/'run')
    before = {p.name: p.read_bytes() for p in (tmp_path/'run'/'commits').iterdir()}
    assert ti('ti_run', run/'tiny.toml', '--out', tmp_path/'run', '--models', 14, '--workers', 1).returncode == 0
    after = {p.name: p.read_bytes() for p in (tmp_path/'run'/'commits').iterdir()}
    assert len(after) == 14 and before.items() <= after.items()


def test_influence_and_report_of_a_run(run, tmp_path):
    r = ti('ti_influence', run/'run', '--out', tmp_path/'i.npz', '--csv', tmp_path/'t.csv', '--output', 'probability')
    assert r.returncode == 0 and 'positive: including the class raises' in r.stdout
    assert len((tmp_path/'t.csv').read_text('utf-8').splitlines()) == 7
    assert ti('ti_report', run/'run', '--out', tmp_path/'p.html').returncode == 0 and (tmp_path/'p.html').stat().st_size > 10_000


def test_own_training_images_may_move(run, tmp_path):
    "A run that was made from folders can be continued and drawn without them."
    rng = np.random.default_rng(0)
    for c in 'abcd':
        (tmp_path/'src'/c).mkdir(parents=True)
        for i in range(12): Image.fromarray(rng.integers(0, 255, (14, 12, 3), dtype=np.uint8)).save(tmp_path/'src'/c/f'{i}.png')
    text = TINY.replace('name = "glyphs"\nclasses = ["O", "Z", "S", "T", "B", "G"]', f'name = "folder"\npath = "{tmp_path}/src"')
    (tmp_path/'r.toml').write_text(text)
    assert ti('ti_run', tmp_path/'r.toml', '--out', tmp_path/'run', '--workers', 1).returncode == 0
    shutil.rmtree(tmp_path/'src')
    assert ti('ti_run', tmp_path/'r.toml', '--out', tmp_path/'run', '--workers', 1, '--models', 14).returncode == 0


@pytest.mark.parametrize('change, words', [
    (('alpha = 0.5', 'alhpa = 0.5'), ("'alhpa'", "'alpha'")),
    (('alpha = 0.5', 'alpha = 1.0'), ('alpha', 'between 0 and 1')),
    (('alpha = 0.5', 'alpha = 0.1'), ('leaves 1 of 6',)),
    (('models = 12', 'models = 1'), ('models', 'from 2')),
    (('width = 8', 'net = "pacth"'), ("did you mean 'patch'",)),
    (('epochs = 2', 'protocol = "papre"'), ("did you mean 'paper'",)),
    (('"O", "Z"', '"O", "ZZ"'), ("no class 'ZZ'",)),
    (('name = "digits"', 'name = "folder"'), ('needs a path',)),
    (('name = "digits"', 'name = "folder"\npath = "nowhere"'), ('no folder at', 'nowhere')),
    (('[run]', '[run'), ('not valid TOML',)),
])
def test_bad_recipes(tmp_path, change, words):
    (tmp_path/'r.toml').write_text(TINY.replace(*change))
    refused(ti('ti_run', tmp_path/'r.toml', '--out', tmp_path/'run'), *words)
    assert not (tmp_path/'run'/'commits').exists()


def test_other_mistakes(run, tmp_path):
    refused(ti('ti_run', 'glyph-digits', '--out', tmp_path/'x'), "did you mean 'glyphs-digits'")
    refused(ti('ti_run', run/'tiny.toml', '--out', tmp_path/'x', '--workers', 0), 'workers must be at least 1')
    refused(ti('ti_report', tmp_path), 'no run folder')
    refused(ti('ti_influence', run/'run', '--out', tmp_path/'i.npz', '--target', 'mnist'), "no target 'mnist'")
    refused(ti('ti_influence', run/'run', '--out', tmp_path/'i.npz', '--method', 'dimm'), "did you mean 'dim'")
    refused(ti('ti_influence', run/'run', '--out', tmp_path/'i.xlsx'), 'not written as', '.npz, .zarr, .parquet, .csv')
    refused(ti('ti_demo', '--classes', 'some'), 'letters or all')


def test_another_recipe_is_refused(run, tmp_path):
    (tmp_path/'r.toml').write_text(TINY.replace('epochs = 1', 'epochs = 3'))
    before = sorted((run/'run'/'commits').iterdir())
    refused(ti('ti_run', tmp_path/'r.toml', '--out', run/'run'), 'training.epochs was 1 and is 3')
    assert sorted((run/'run'/'commits').iterdir()) == before


def save(path, **arrays): np.savez(path, **arrays); return path


@pytest.mark.parametrize('arrays, words', [
    (dict(masks=np.ones((9, 3), bool)), ("no array 'outputs'",)),
    (dict(outputs=np.ones((9, 3))), ("no array 'masks'",)),
    (dict(masks=np.full((9, 3), 2), outputs=np.ones((9, 3))), ('0 and 1 only',)),
    (dict(masks=np.ones((9, 3)), outputs=np.ones((9, 3))), ('saw the same classes',)), # 0. and 1. are clear
    (dict(masks=np.full((9, 3), .5), outputs=np.ones((9, 3))), ('hold shares such as 0.5',)),
    (dict(masks=np.eye(9, 3, dtype=int), outputs=np.ones((4, 9))), ('transpose it',)),
    (dict(masks=np.eye(9, 3, dtype=int), outputs=np.full((9, 2), np.nan)), ('NaN',)),
    (dict(masks=np.eye(9, 3, dtype=int), outputs=np.ones((9, 2)), class_names=['a']), ('as many class names',)),
    (dict(masks=np.ones((9, 2), bool), outputs=np.ones((9, 2)), class_names=['all', 'too']),
     ("class 'all' is in 9 of 9", 'saw the same classes')),
    (dict(masks=np.c_[np.ones(9, bool), np.arange(9) % 2 == 0], outputs=np.ones((9, 2)), class_names=['all', 'too']),
     ("class 'all' is in 9 of 9",)),
    (dict(masks=np.array([{}], dtype=object), outputs=np.ones((9, 2))), ('plain arrays',)),
])
def test_bad_arrays(tmp_path, arrays, words):
    refused(ti('ti_influence', save(tmp_path/'a.npz', **arrays), '--out', tmp_path/'i.npz'), *words)
    assert not (tmp_path/'i.npz').exists()


def folders(root, **classes):
    for name, n in classes.items():
        (root/name).mkdir(parents=True)
        for i in range(n): Image.fromarray(np.full((9, 9), 40*i % 255, np.uint8)).save(root/name/f'{i}.png')
    return root


def test_bad_folders(tmp_path):
    recipe = lambda src: TINY.replace('name = "glyphs"\nclasses = ["O", "Z", "S", "T", "B", "G"]', f'name = "folder"\npath = "{src}"')
    def tried(src, *args):
        (tmp_path/'r.toml').write_text(recipe(src))
        return ti('ti_run', tmp_path/'r.toml', '--out', tmp_path/f'run-{src.name}', '--workers', 1, '--models', 2, *args)
    refused(tried(folders(tmp_path/'one', a=3)), 'at least 2')
    refused(tried(folders(tmp_path/'empty', a=3, b=0)), 'has no image')
    bad = folders(tmp_path/'bad', a=6, b=6, c=6, d=6)
    data = (bad/'a'/'0.png').read_bytes(); (bad/'a'/'cut.png').write_bytes(data[:len(data)//2])
    refused(tried(bad), 'cut.png', '--skip-bad')
    r = tried(bad, '--skip-bad')
    assert 'left out 1 unreadable image' in r.stderr
