"Nothing is left out, replaced or kept old without a word: links, kinds of files, labels, columns, changed files."
import json
import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from test_commands import refused, ti

from transfer_influence.basics.errors import InputError
from transfer_influence.basics.recipe import SourceSpec, TargetSpec
from transfer_influence.images.folders import image_folder, list_folder, read_listing, rows_of
from transfer_influence.images.image_files import picture_suffixes
from transfer_influence.images.pack import (
    BLOCK, begin_pack, blocks_left, changed_images, make_pack, open_pack, pack_block, plan_pack)
from transfer_influence.images.sources import load_source, load_target

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
