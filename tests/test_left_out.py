"Nothing is left out, replaced or kept old without a word: links, kinds of files, labels, columns, changed files."
import json
import os
import shutil
import struct
import sys
import unicodedata
import warnings
import zlib
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest
from PIL import Image
from test_commands import refused, ti

from transfer_influence.basics.errors import InputError
from transfer_influence.basics.recipe import SourceSpec, TargetSpec
from transfer_influence.images.folders import image_folder, list_folder, read_listing, rows_of
from transfer_influence.images.image_files import picture_suffixes
from transfer_influence.images.image_set import resize_set, select_classes
from transfer_influence.images.pack import (
    BLOCK, begin_pack, blocks_left, changed_images, make_pack, open_pack, pack_block, plan_pack)
from transfer_influence.images.sources import load_source, load_target, place_state

rng = np.random.default_rng(0)


def picture(path, shape=(20, 20, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


def said(f):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always'); result = f()
    return result, [str(w.message) for w in seen]


# links

def test_linked_folders_and_files(tmp_path):
    "Three images here, fifty behind links to folders, one behind a link to a file, one in a class that is a link."
    for c in 'ab':
        picture(tmp_path/'set'/c/'0.png')
        for i in range(25): picture(tmp_path/'store'/c/f'{i}.png')
        (tmp_path/'set'/c/'more').symlink_to(tmp_path/'store'/c)
    picture(tmp_path/'set'/'a'/'1.png'); picture(tmp_path/'one.png'); picture(tmp_path/'class c'/'0.png')
    (tmp_path/'set'/'b'/'one.png').symlink_to(tmp_path/'one.png')
    (tmp_path/'set'/'c').symlink_to(tmp_path/'class c')
    listed, words = said(lambda: list_folder(tmp_path/'set'))
    assert np.bincount(listed.labels).tolist() == [27, 27, 1] and not words
    assert len(read_listing(listed, 20)) == 55


def test_links_without_end_and_to_nothing(tmp_path):
    for c in 'ab':
        picture(tmp_path/'set'/c/'0.png')
        (tmp_path/'set'/c/'up').symlink_to(tmp_path/'set')      # back to all classes
        (tmp_path/'set'/c/'self').symlink_to(tmp_path/'set'/c)
    (tmp_path/'set'/'a'/'gone.png').symlink_to(tmp_path/'nowhere.png')
    listed, (words,) = said(lambda: list_folder(tmp_path/'set'))
    assert listed.keys == tuple(f'{c}/0.png {(tmp_path/"set"/c/"0.png").stat().st_size}' for c in 'ab')
    assert 'lead to no file (1), such as a/gone.png' in words and 'there already (4), such as a/' in words
    (tmp_path/'set'/'c').symlink_to(tmp_path/'nowhere')
    refused(ti('ti_pack', tmp_path/'set', tmp_path/'pack', '--size', 8), 'c is a link that leads nowhere')


# kinds of files

def test_kinds(tmp_path):
    "All that Pillow reads takes part; what it does not read is counted by kind; notes beside images are not."
    for c in 'ab':
        for s in ('png', 'jp2', 'tga', 'ppm'): picture(tmp_path/c/f'0.{s}')
        picture(tmp_path/c/'1.jpg'); (tmp_path/c/'1.jpg').rename(tmp_path/c/'1.JFIF')
        picture(tmp_path/c/'2.png'); (tmp_path/c/'2.png').rename(tmp_path/c/'2c5f') # no suffix at all
        picture(tmp_path/c/'3.png'); (tmp_path/c/'3.png').rename(tmp_path/c/'3.jpg') # a wrong one
        for f in ('1.nef', '2.nef', '3.npy', 'notes.txt', 'boxes.xml', 'README', '.hidden.nef'): (tmp_path/c/f).write_text('?')
    found, (words,) = said(lambda: image_folder(tmp_path, 8))
    assert len(found) == 14
    assert '4 of .nef, 2 of .npy: convert them' in words and words.count('of .') == 2 and 'such as a/1.nef' in words


def test_heic(tmp_path):
    "With pillow-heif it is read, without it is named, with the remedy."
    for c in 'ab': picture(tmp_path/c/'0.png')
    if '.heic' in picture_suffixes():
        for c in 'ab': picture(tmp_path/c/'1.heic', (32, 32, 3))
        assert len(image_folder(tmp_path, 8)) == 4
    else:
        for c in 'ab': (tmp_path/c/'1.heic').write_bytes(b'?')
        assert 'pip install pillow-heif' in said(lambda: list_folder(tmp_path))[1][0]


def test_only_unknown_kinds(tmp_path):
    for c in 'ab': picture(tmp_path/c/'0.png')
    (tmp_path/'c').mkdir()
    for i in range(12): (tmp_path/'c'/f'{i}.nef').write_bytes(b'?')
    with pytest.raises(InputError, match='c has no image that Pillow reads; it has 12 of .nef: convert'): list_folder(tmp_path)


# folders that are no classes

def classes(root, names, n=3):
    for c in names:
        for i in range(n): picture(root/c/f'{i}.png')


def test_parts_are_no_classes(tmp_path):
    "By `image_folder` as by a recipe; folders with other names are said to be perhaps above the classes."
    classes(tmp_path/'pets', [f'{part}/{c}' for part in ('train', 'val') for c in ('cat', 'dog')])
    pets, words = said(lambda: image_folder(tmp_path/'pets', 20))
    assert pets.class_names == ('cat', 'dog') and pets.train_part.tolist() == [True]*6 + [False]*6 and not words
    shutil.move(tmp_path/'pets'/'val', tmp_path/'pets'/'later')
    with pytest.raises(InputError, match='neither test/ nor val/; give .*/train itself'): image_folder(tmp_path/'pets', 20)
    shutil.move(tmp_path/'pets'/'train', tmp_path/'pets'/'sooner')
    _, (words,) = said(lambda: image_folder(tmp_path/'pets', 20))
    assert '(later, sooner) hold only folders: is there a level above the classes?' in words


def test_level_above_the_classes(tmp_path):
    "Letters are said; classes whose images lie in one folder more are not; a recipe and a command say the same."
    classes(tmp_path/'places', 'a/airfield a/alley b/bakery b/bank c/cafe/indoor'.split())
    places, (words,) = said(lambda: image_folder(tmp_path/'places', 20))
    assert places.class_names == ('a', 'b', 'c') and '(a, b, c) hold only folders' in words
    assert len(said(lambda: load_source(SourceSpec('s', str(tmp_path/'places'), size=20, channels=3)))[1]) == 1
    r = ti('ti_pack', tmp_path/'places', tmp_path/'pack', '--size', 8, '--workers', 1)
    assert r.returncode == 0 and r.stderr.count('note: ') == 1 and 'hold only folders' in r.stderr, r.stderr
    classes(tmp_path/'tiny', ['n01/images', 'n02/images']); assert not said(lambda: image_folder(tmp_path/'tiny', 20))[1]
    classes(tmp_path/'some', ['cat', 'dog/small', 'dog/large']); assert not said(lambda: image_folder(tmp_path/'some', 20))[1]
    classes(tmp_path/'yolo', ['images', 'labels', 'masks'])
    assert 'parts of a detection set' in said(lambda: image_folder(tmp_path/'yolo', 20))[1][0]


TOOLS = '@eaDir .ipynb_checkpoints __MACOSX $RECYCLE.BIN lost+found #recycle'.split() + ['System Volume Information']


def test_folders_of_tools(tmp_path):
    "Beside the classes, in a class, with images of their own or none; names that only begin so are classes."
    classes(tmp_path, ['cat', 'dog'])
    for tool in TOOLS:
        picture(tmp_path/tool/'cat'/'0.png'); (tmp_path/'cat'/tool).mkdir()
        picture(tmp_path/'dog'/tool/'0.png'/'thumb.jpg')
    (tmp_path/'cat'/'Thumbs.db').write_bytes(b'?'); (tmp_path/'lost+found'/'cat'/'0.png').unlink()
    for skip in (False, True):
        pets, words = said(lambda: image_folder(tmp_path, 20, skip_bad=skip))
        assert pets.class_names == ('cat', 'dog') and len(pets) == 6 and not words
    classes(tmp_path, ['@home', '$5', '#1', 'lost'])
    assert image_folder(tmp_path, 20).class_names == ('#1', '$5', '@home', 'cat', 'dog', 'lost')


# names of classes

NFC, NFD = (unicodedata.normalize(form, 'Café') for form in ('NFC', 'NFD'))


def looks_the_same(folder, name): # macOS and some disks keep the two forms apart no more
    picture(folder/name/'0.png')
    return name not in os.listdir(folder)


def test_two_forms_of_unicode(tmp_path):
    "The training part was copied by one system, the evaluation part by another."
    classes(tmp_path/'t'/'train', [NFC, 'Bar']); classes(tmp_path/'t'/'test', [NFD, 'Bar'])
    source = SourceSpec('s', '?', size=20, channels=3)
    whole, words = said(lambda: load_target(TargetSpec('t', str(tmp_path/'t')), source))
    assert whole.class_names == ('Bar', NFC) and whole.labels.tolist() == [0, 0, 0, 1, 1, 1]*2 and not words
    apart = load_target(TargetSpec('t', str(tmp_path/'t'/'train'), test_path=str(tmp_path/'t'/'test')), source)
    assert apart.class_names == ('Bar', NFC) and apart.labels.tolist() == whole.labels.tolist()
    for name in (NFC, NFD): assert select_classes(whole, [name]).class_names == (NFC,)
    if looks_the_same(tmp_path/'t'/'train', NFD): return
    with pytest.raises(InputError, match=r"look the same, 'Caf\\xe9' and 'Cafe\\u0301'"): image_folder(tmp_path/'t'/'train', 20)


def test_names_that_differ_by_case_or_a_space(tmp_path):
    classes(tmp_path, ['dog', 'dog s', 'dog  s', 'A', 'B'])
    _, (words,) = said(lambda: image_folder(tmp_path, 20))
    assert "'dog  s' and 'dog s' differ by case or spaces only and are two classes" in words
    if 'Dog' not in os.listdir(tmp_path) and not (tmp_path/'DOG').exists(): # the disk tells cases apart
        classes(tmp_path, ['Dog', 'a'])
        assert "'Dog' and 'dog' (and 1 more such pair)" in said(lambda: image_folder(tmp_path, 20))[1][0]


@pytest.mark.skipif(sys.platform != 'linux', reason='names are text there')
def test_names_that_are_no_text(tmp_path):
    "Class folders are refused by name; images and folders above them work, or are refused in one line."
    latin = os.fsdecode(b'caf\xe9')
    classes(tmp_path/'set', ['bar', 'inn', latin])
    for f in (lambda: image_folder(tmp_path/'set', 20), lambda: load_source(SourceSpec('s', str(tmp_path/'set'), size=20, channels=3))):
        with pytest.raises(InputError, match=r'/set/caf\\xe9 is not UTF-8.*rename it'): f()
    refused(ti('ti_pack', tmp_path/'set', tmp_path/'pack', '--size', 8), r'caf\xe9 is not UTF-8')
    shutil.move(tmp_path/'set'/latin, tmp_path/'set'/'pub')
    os.rename(tmp_path/'set'/'pub'/'0.png', tmp_path/'set'/'pub'/f'{latin}.png')
    assert ti('ti_pack', tmp_path/'set', tmp_path/'pack', '--size', 8, '--workers', 1).returncode == 0 and len(open_pack(tmp_path/'pack')) == 9
    shutil.move(tmp_path/'set', tmp_path/latin)
    assert len(image_folder(os.fsencode(tmp_path/latin), 20)) == 9
    with pytest.raises(InputError, match=r'caf\\xe9, is not UTF-8, so a run cannot'): load_source(SourceSpec('s', str(tmp_path/latin), size=20, channels=3))


# sizes that are none, folders that are locked

@pytest.mark.parametrize('size', [(16, 16), '16', 16., None, True, 0, -4, 100_000, float('nan')])
def test_sizes_that_are_none(tmp_path, size):
    classes(tmp_path, 'ab'); listed = list_folder(tmp_path); whole = read_listing(listed, 20)
    for f in (lambda: image_folder(tmp_path, size), lambda: read_listing(listed, size), lambda: resize_set(whole, size, 3),
              lambda: plan_pack(listed, 'pack', size), lambda: make_pack(listed, tmp_path/'pack', size)):
        with pytest.raises(InputError, match='size must be one whole number from 1 to 4096, the side of a square in pixels'): f()
    assert not (tmp_path/'pack').exists()


def test_channels_that_are_none(tmp_path):
    classes(tmp_path/'set', 'ab'); listed = list_folder(tmp_path/'set')
    for n in (4, 2, 0, '3', None, True):
        for f in (lambda: image_folder(tmp_path/'set', 20, n), lambda: resize_set(read_listing(listed, 20), 20, n), lambda: plan_pack(listed, 'pack', 8, n)):
            with pytest.raises(InputError, match='channels must be 1 .grey. or 3 .colour.'): f()
    assert make_pack(listed, tmp_path/'pack', np.int64(8), np.int16(1))['size'] == 8 and image_folder(tmp_path/'set', np.uint8(8)).images.shape[1] == 8


@contextmanager
def as_nobody(folder):
    "Without the rights of root, which opens whatever it likes."
    picture_suffixes(); import_module('torchvision.datasets') # the files of libraries may be locked too
    if os.geteuid(): yield; return
    for at, folders, files in os.walk(folder):
        for name in ('', *folders, *files): os.chown(os.path.join(at, name), 65534, 65534)
    above = [p for p in folder.parents if not p.stat().st_mode & 1]
    for p in above: p.chmod(p.stat().st_mode | 1)
    os.setegid(65534); os.seteuid(65534)
    try: yield
    finally: os.seteuid(0); os.setegid(0)


@pytest.mark.skipif(sys.platform == 'win32', reason='rights are others there')
@pytest.mark.parametrize('locked, mode', [('set', 0), ('set', 0o444), ('set/b', 0), ('set/b', 0o444), ('set/train', 0), ('', 0), ('set/b/bare', 0)])
def test_locked(tmp_path, locked, mode):
    "The top of a set, a class, a part, what lies above, and a file of which only its beginning would tell what it is."
    root = tmp_path/'above'
    classes(root/'set', 'abc'); (root/'set'/'b'/'0.png').rename(root/'set'/'b'/'bare')
    if 'train' in locked: classes(root/'set', ['train/a', 'train/b'])
    source = SourceSpec('s', str(root/'set'), size=20, channels=3)
    with as_nobody(root):
        (root/locked).chmod(mode)
        try:
            for f in (lambda: image_folder(root/'set', 20), lambda: load_source(source), lambda: load_target(TargetSpec('pets', str(root/'set')), source)):
                with pytest.raises(InputError, match=f'cannot look into {root/locked}[^ ]* .Permission denied.; change its rights or remove it'): f()
            if 'bare' not in locked:
                with pytest.raises(InputError, match=f'cannot look into {root/locked}'): place_state('s', str(root/'set'))
        finally: (root/locked).chmod(0o755)


@pytest.mark.skipif(sys.platform == 'win32', reason='rights are others there')
def test_locked_packs_and_files(tmp_path):
    root = tmp_path/'above'; classes(root/'set', 'ab'); listed = list_folder(root/'set')
    for mode in (0, 0o500): (root/str(mode)).mkdir()
    make_pack(listed, root/'pack', 8)
    with as_nobody(root):
        for mode, words in [(0, 'look into it .Permission denied.'), (0o500, 'cannot write .*begun.json .Permission denied.')]:
            (root/str(mode)).chmod(mode)
            with pytest.raises(InputError, match=words): make_pack(listed, root/str(mode), 8)
            (root/str(mode)).chmod(0o755)
        for name in ('images.npy', 'pack.json'):
            (root/'pack'/name).chmod(0)
            with pytest.raises(InputError, match=f'cannot look into .*/{name} '): open_pack(root/'pack')
            (root/'pack'/name).chmod(0o644)
        (root/'set'/'b'/'1.png').chmod(0)
        with pytest.raises(InputError, match='cannot read b/1.png .*; change its rights, or use --skip-bad'): image_folder(root/'set', 20)


# what comes out other than expected

def png48(path, x):
    "A colour PNG of sixteen bits a channel, which Pillow does not write. `x`: (h, w, 3 or, with transparency, 4) uint16."
    def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    h, w, _ = x.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in x)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 16, 2 if x.shape[2] == 3 else 6, 0, 0, 0))
                     + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def odd_folder(root):
    for c in 'ab':
        picture(root/c/'0.png')
        png48(root/c/'1.png', rng.integers(0, 4096, (20, 20, 3)).astype(np.uint16))
    Image.fromarray(np.linspace(0, 1000, 400).astype(np.uint16).reshape(20, 20)).save(root/'a'/'2.png')
    png48(root/'a'/'6.png', np.dstack([rng.integers(0, 4096, (20, 20, 3)), np.full((20, 20), 65535)]).astype(np.uint16))
    png48(root/'b'/'3.png', rng.integers(0, 65536, (20, 20, 3)).astype(np.uint16)) # as it should be
    picture(root/'b'/'4.png', (8, 2000, 3)); picture(root/'b'/'5.png', (20, 40, 3))


def test_dark_and_thin(tmp_path):
    odd_folder(tmp_path)
    _, words = said(lambda: image_folder(tmp_path, 8))
    assert len(words) == 2
    assert words[0].startswith('1 of 9 images with sides that differ more than 8 to 1') and 'b/4.png' in words[0]
    assert words[1].startswith('4 of 9 images with 16 bits') and 'values up to 4095' in words[1] and 'by 16 and' in words[1]


def test_pack_tells_the_same(tmp_path):
    odd_folder(tmp_path/'set')
    r = ti('ti_pack', tmp_path/'set', tmp_path/'pack', '--size', 8, '--workers', 2)
    assert r.returncode == 0 and '4 of 9 images with 16 bits' in r.stderr and 'b/4.png' in r.stderr, r.stderr


# packs

@pytest.fixture
def packed(tmp_path):
    for c in 'ab':
        for i in range(3): picture(tmp_path/'set'/c/f'{i}.bmp', (9, 9, 3))
    assert ti('ti_pack', tmp_path/'set', tmp_path/'pack', '--size', 8, '--workers', 1).returncode == 0
    return tmp_path


def test_changed_file_of_the_same_size(packed):
    args = 'ti_pack', packed/'set', packed/'pack', '--size', 8, '--workers', 1
    picture(packed/'set'/'b'/'1.bmp', (9, 9, 3))
    for more in ((), ('--check',)): refused(ti(*args, *more), 'from other files: 1 differ, such as b/1.bmp')
    shutil.rmtree(packed/'pack'); assert ti(*args).returncode == 0
    file = packed/'set'/'a'/'0.bmp'; then = file.stat(); picture(file, (9, 9, 3)); os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    refused(ti(*args, '--check'), '1 images are no longer those', 'a/0.bmp')


def test_copied_files_are_the_same(packed):
    shutil.copytree(packed/'set', packed/'copy', copy_function=shutil.copy) # with new times
    r = ti('ti_pack', packed/'copy', packed/'pack', '--size', 8, '--workers', 1, '--check')
    assert r.returncode == 0 and 'nothing was left to do' in r.stdout and 'as they were' in r.stdout, r.stderr


def test_pack_of_version_0_1(packed):
    "It has no table of its files: it opens and continues, and a check compares its pixels."
    (packed/'pack'/'files.jsonl').unlink()
    listed = list_folder(packed/'set')
    assert make_pack(listed, packed/'pack', 8)['images'] == len(open_pack(packed/'pack')) == 6
    assert changed_images(listed, packed/'pack') == []
    picture(packed/'set'/'b'/'1.bmp', (9, 9, 3))
    refused(ti('ti_pack', packed/'set', packed/'pack', '--size', 8, '--workers', 1, '--check'), 'b/1.bmp')


def test_pack_begun_by_version_0_1(tmp_path):
    "Its marks name files with several frames only, by bare row numbers."
    for c in 'ab':
        for i in range(BLOCK): picture(tmp_path/'set'/c/f'{i:03d}.bmp', (4, 4, 3))
    listed = list_folder(tmp_path/'set'); (tmp_path/'pack').mkdir()
    plan = plan_pack(listed, tmp_path/'pack', 4); begin_pack(plan, listed)
    pack_block(plan, (1, rows_of(listed, plan.rows(1))))
    mark = tmp_path/'pack'/'blocks'/'000001.json'
    mark.write_text(json.dumps(dict(sha256=json.loads(mark.read_text())['sha256'], bad=[], moving=[BLOCK + 3])))
    assert blocks_left(plan, listed) == [0]
    head, (words,) = said(lambda: make_pack(listed, tmp_path/'pack', 4))
    assert head['images'] == 2*BLOCK and '1 of 512 images with several frames' in words and 'b/003.bmp' in words
    assert changed_images(listed, tmp_path/'pack') == []


# Hugging Face

def test_unlabelled_images_join_no_class(tmp_path):
    "By a recipe's path, as a user gives it."
    datasets = pytest.importorskip('datasets')
    kinds = datasets.Features(img=datasets.Image(), left=datasets.Image(), fine=datasets.ClassLabel(names=['a', 'b', 'c']), coarse=datasets.ClassLabel(names=['x', 'y', 'z']))
    def part(labels):
        images = [Image.new('RGB', (8, 8), (50 + 50*k, 0, 0)) for k in range(len(labels))]
        return datasets.Dataset.from_dict(dict(img=images, left=images[::-1], fine=labels, coarse=labels[::-1]), features=kinds)
    datasets.DatasetDict(train=part([0, 1, 2]), test=part([-1]*3), validation=part([2, 1, 0])).save_to_disk(tmp_path/'set')
    source = SourceSpec('s', '?', size=8, channels=3)
    t, words = said(lambda: load_target(TargetSpec('t', f'{tmp_path}/set'), source))
    assert t.labels.tolist() == [0, 1, 2, 2, 1, 0] and t.train_part.tolist() == [True]*3 + [False]*3
    assert [any(w in x for x in words) for w in ("'img' is used, not 'left'", "'fine' is used, not 'coarse'", 'without labels: test')] == [True]*3
    t, words = said(lambda: load_target(TargetSpec('t', f'{tmp_path}/set@validation#left+coarse'), source))
    assert t.labels.tolist() == [2, 1, 0, 0, 1, 2] and t.images[0, 0, 0, 0] == 150 and t.class_names == ('x', 'y', 'z') and not words
    alone, words = said(lambda: load_source(SourceSpec('s', f'{tmp_path}/set@train#img+fine', size=8, channels=3)))
    assert len(alone) == 3 and not words
    with pytest.raises(InputError, match='3 of the 3 images'): load_target(TargetSpec('t', f'{tmp_path}/set@test#img+fine'), source)
    refused(ti('ti_pack', f'{tmp_path}/set@tset', tmp_path/'pack', '--size', 8), "no part 'tset'")


# runs

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
models = 6
"""


@pytest.mark.slow
def test_run_says_that_its_folder_changed(tmp_path):
    "One line, the run goes on with the images that it keeps."
    for c in 'abcd':
        for i in range(6): picture(tmp_path/'set'/c/f'{i}.png', (8, 8, 3))
    shutil.copytree(tmp_path/'set', tmp_path/'pets')
    (tmp_path/'r.toml').write_text(RECIPE)
    def go(models): return ti('ti_run', tmp_path/'r.toml', '--source-path', tmp_path/'set', '--target-path', tmp_path/'pets',
                              '--out', tmp_path/'run', '--workers', 1, '--models', models)
    r = go(6); assert r.returncode == 0 and 'since the run began' not in r.stderr, r.stderr
    assert 'since the run began' not in go(7).stderr
    shutil.rmtree(tmp_path/'set'/'d'); shutil.rmtree(tmp_path/'pets')
    r = go(8)
    assert r.returncode == 0 and r.stderr.count('since the run began') == 1, r.stderr
    line = next(l for l in r.stderr.splitlines() if 'since the run began' in l)
    assert line.startswith('note: ') and f'other files lie in {tmp_path}/set' in line and f'{tmp_path}/pets is gone' in line
