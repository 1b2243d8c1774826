"Images from everywhere: every public set by torchvision's own loaders, every shipped recipe, packs that were interrupted."
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import public_sets
from test_commands import BIN, refused, ti

from transfer_influence.basics.errors import InputError
from transfer_influence.basics.recipe import SourceSpec, TargetSpec, load_recipe, shipped_recipes, to_toml
from transfer_influence.images.public_sets import KNOWN, list_known
from transfer_influence.images.pack import check_pack, open_pack
from transfer_influence.images.sources import load_source, load_target, place_recipe
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.fleet import Fleet


@pytest.fixture
def everything(tmp_path, monkeypatch):
    public_sets.write_all(tmp_path, monkeypatch)
    return tmp_path


def test_real_loaders_read_every_set(everything):
    source = SourceSpec('letters', '?', size=16, channels=3)
    for name, known in KNOWN.items():
        root = everything/name if name in ('imagenet', 'birdsnap') else everything
        listed = list_known(name, root)
        assert len(listed.class_names) == 3, (name, listed.class_names)
        s = load_target(TargetSpec(name, str(root)), source)
        assert s.images.shape[1:] == (16, 16, 3) and set(s.labels) == {0, 1, 2}, name
        has_parts = name == 'birdsnap' or bool(known.train)
        assert (s.train_part is not None) == has_parts, name
        if has_parts:
            for part in (True, False): assert set(s.labels[s.train_part == part]) == {0, 1, 2}, name
        assert s.images.std() > 10, name


def test_labels_are_the_right_ones(everything):
    "Against what the loader itself gives, item by item."
    from torchvision import datasets
    for name in ('aircraft', 'food101', 'pets', 'stanford_cars', 'cifar10'):
        known, listed = KNOWN[name], list_known(name, everything)
        for part, arguments in [(True, known.train), (False, known.test)]:
            theirs = sorted((np.asarray(x.convert('RGB')).tobytes(), y) for x, y in getattr(datasets, known.loader)(str(everything), **arguments))
            rows = np.flatnonzero(listed.train_part == part)
            ours = sorted((np.asarray(listed.open(i).convert('RGB')).tobytes(), listed.labels[i]) for i in rows)
            assert ours == theirs, name


def test_imagenet_names(everything):
    listed = list_known('imagenet', everything/'imagenet')
    assert listed.class_names == ('tench', 'crane (n02012849)', 'crane (n03126707)')
    assert len(load_source(SourceSpec('imagenet', str(everything/'imagenet'), size=8, channels=3))) == 6 # the training part alone


def test_what_is_missing_is_told(tmp_path):
    for name, words in [('stanford_cars', 'by hand'), ('imagenet', 'image-net.org'), ('cifar10', 'download = true'), ('sun397', '--download')]:
        with pytest.raises(InputError, match=words): list_known(name, tmp_path)


@pytest.mark.parametrize('name', shipped_recipes())
def test_recipes(name, tmp_path):
    r = load_recipe(name)
    assert r.about and load_recipe(_written(tmp_path, to_toml(r))) == r
    if name != 'glyphs-digits': # which comes along with its images
        with pytest.raises(InputError, match='--source-path'): load_source(r.source)


def _written(folder, text): path = folder/'r.toml'; path.write_text(text); return path


def test_the_papers_table():
    "The recipe's targets are used as the table of public sets says."
    targets = {t.name: t for t in load_recipe('imagenet-paper').targets}
    assert set(targets) == set(KNOWN) - {'imagenet'} and len(targets) == 11
    for name, t in targets.items():
        k = KNOWN[name]
        assert (t.metric, t.per_class, t.normalise) == (k.metric, k.per_class, k.normalise), name
        assert t.protocol == 'paper' and t.batch_size == 1024


@pytest.mark.timeout(300)
def test_imagenet_paper_end_to_end(everything):
    "The paper's recipe on three classes of two images: fewer epochs, smaller images, everything else as it is."
    r = place_recipe(load_recipe('imagenet-paper'), str(everything/'imagenet'), str(everything))
    r = replace(r, source=replace(r.source, size=32), run=replace(r.run, models=2),
                training=replace(r.training, small=24, epochs=2, precision='float32'),
                targets=tuple(replace(t, size=32, epochs=1, per_class=2 if t.per_class else 0) for t in r.targets))
    fleet = Fleet(r, everything/'run')
    assert fleet.run(engine='here', quiet=True).complete
    for t in r.targets:
        p = fleet.predictions(t.name)
        assert p.n_models == 2 and all(np.isfinite(x).all() for x in p.outputs.values()), t.name


# packs

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for c in ('cat', 'cow', 'dog', 'emu'):
        (root/c).mkdir()
        base = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((500, 375))
        for i in range(400): base.rotate(i).save(root/c/f'{i}.jpg')
    return root


def contents(path): return {f.name: f.read_bytes() for f in sorted(path.iterdir())}


def test_pack_killed_and_resumed(photos, tmp_path):
    "Killed in the midst of the work, continued with other workers: the same folder, byte for byte."
    assert ti('ti_pack', photos, tmp_path/'whole', '--size', 32).returncode == 0
    p = subprocess.Popen([BIN/'ti-pack', photos, tmp_path/'cut', '--size', '32', '--workers', '1'], stderr=subprocess.PIPE)
    blocks = tmp_path/'cut'/'blocks'
    while not blocks.is_dir() or len(list(blocks.glob('*.json'))) < 2: time.sleep(.01); assert p.poll() is None
    p.send_signal(signal.SIGKILL); p.wait()
    assert not (tmp_path/'cut'/'pack.json').exists()
    refused(ti('ti_run', 'tiny-imagenet-cifar10', '--source-path', tmp_path/'cut', '--target-path', tmp_path, '--out', tmp_path/'r'), 'is not finished')
    r = ti('ti_pack', photos, tmp_path/'cut', '--size', 32, '--workers', 2)
    assert r.returncode == 0, r.stderr
    assert int(r.stdout.split('; ')[1].split()[0]) < 1600 # some were done already
    assert contents(tmp_path/'cut') == contents(tmp_path/'whole') and not check_pack(tmp_path/'cut')
    assert len(open_pack(tmp_path/'cut')) == 1600


def test_pack_refuses(photos, tmp_path):
    for c in ('a', 'b', 'c'): (tmp_path/'mine'/c).mkdir(parents=True); Image.new('L', (9, 9)).save(tmp_path/'mine'/c/'x.png')
    assert ti('ti_pack', tmp_path/'mine', tmp_path/'p', '--size', 8).returncode == 0
    refused(ti('ti_pack', photos, tmp_path/'p', '--size', 8), 'from other files')
    (tmp_path/'mine'/'a'/'y.jpg').write_bytes((photos/'cat'/'0.jpg').read_bytes()[:2000])
    refused(ti('ti_pack', tmp_path/'mine', tmp_path/'q', '--size', 8), 'a/y.jpg', '--skip-bad')
    assert ti('ti_pack', tmp_path/'mine', tmp_path/'q', '--size', 8, '--skip-bad').returncode == 0
    assert len(open_pack(tmp_path/'q')) == 3


RECIPE = """
[source]
name = "photos"
path = "?"
size = 8
channels = 3
[[targets]]
name = "pets"
path = "?"
epochs = 1
[training]
net = "cnn"
width = 4
steps = 2
epochs = 0
[run]
models = 4
"""


def test_run_from_a_pack(tmp_path):
    "A pack as the source, folders in two parts as the target; the class lists of the parts must agree."
    public_sets.class_folders(tmp_path/'photos', ('ape', 'bee', 'cow', 'dog'), n=4)
    for part in ('train', 'val'): public_sets.class_folders(tmp_path/'pets'/part, n=4)
    r, where = _written(tmp_path, RECIPE), ('--source-path', tmp_path/'pack', '--target-path', tmp_path/'pets')
    assert ti('ti_pack', tmp_path/'photos', tmp_path/'pack', '--size', 8).returncode == 0
    done = ti('ti_run', r, '--out', tmp_path/'run', *where, '--workers', 1)
    assert done.returncode == 0 and 'too few' in done.stdout, done.stderr
    public_sets.class_folders(tmp_path/'pets'/'val', ('fox',), 2)
    refused(ti('ti_run', r, '--out', tmp_path/'other', *where), 'different classes', "['fox']")
    for places, words in [(dict(target='x'), '--source-path'), (dict(source='x', target='pats=x'), "did you mean 'pets'")]:
        with pytest.raises(InputError, match=words): load_source(place_recipe(load_recipe(r), **places).source)


def test_continue_elsewhere(tmp_path, monkeypatch):
    "Relative paths, another working directory, a path with a slash at its end, fetching allowed or not: one run."
    for name in ('photos', 'pets'): public_sets.class_folders(tmp_path/name, n=12)
    r = load_recipe(_written(tmp_path, RECIPE))
    monkeypatch.chdir(tmp_path); begin_run(place_recipe(r, 'photos', 'pets'), tmp_path/'run')
    monkeypatch.chdir(tmp_path/'pets')
    again = place_recipe(replace(r, run=replace(r.run, models=6)), f'{tmp_path}/photos/', '../pets', download=True)
    assert begin_run(again, tmp_path/'run').group('r')['subset'].shape[0] == 6


def test_pack_public_sets(everything, tmp_path):
    "CIFAR's images lie in arrays, not in files; ImageNet's training part alone is a source."
    from transfer_influence.images.pack import make_pack
    from transfer_influence.images.sources import list_images
    listed = list_images('cifar10', str(everything))
    make_pack(listed, tmp_path/'cifar', 32)
    s, direct = open_pack(tmp_path/'cifar'), load_target(TargetSpec('cifar10', str(everything)), SourceSpec('x', '?', size=32, channels=3))
    assert (s.images == direct.images).all() and (s.train_part == direct.train_part).all() and s.class_names == direct.class_names
    r = ti('ti_pack', everything/'imagenet', tmp_path/'in', '--name', 'imagenet', '--part', 'train', '--size', 16)
    assert r.returncode == 0, r.stderr
    s = open_pack(tmp_path/'in')
    assert len(s) == 6 and s.train_part is None and s.class_names[0] == 'tench'
    refused(ti('ti_pack', everything/'birdsnap'/'train', everything/'birdsnap'/'train'/'pack', '--size', 8), 'lies inside')


def test_two_sessions_at_once(photos, tmp_path):
    "The second is told; the pack is right."
    first = subprocess.Popen([BIN/'ti-pack', photos, tmp_path/'p', '--size', '32', '--workers', '1'], stderr=subprocess.PIPE)
    while not (tmp_path/'p'/'blocks').is_dir(): time.sleep(.01); assert first.poll() is None
    refused(ti('ti_pack', photos, tmp_path/'p', '--size', 32), 'another ti-pack is at work')
    assert first.wait() == 0 and not check_pack(tmp_path/'p')
