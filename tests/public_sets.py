"The smallest files that torchvision's loaders accept: three classes, a few pictures each."
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
import torch

CLASSES = ('A320', 'Boeing 707', 'Cessna 172')
rng = np.random.default_rng(0)


def picture(path, size=(40, 30)):
    "A coloured JPEG of random blocks."
    path = Path(path); path.parent.mkdir(parents=True, exist_ok=True)
    blocks = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    blocks.resize(size).save(path, quality=90)


def text(path, lines): path.parent.mkdir(parents=True, exist_ok=True); path.write_text('\n'.join(lines) + '\n')


def aircraft(root, n=2):
    data = root/'fgvc-aircraft-2013b'/'data'
    for part in ('trainval', 'test'):
        ids = [(f'{part}{i}{k}', c) for k, c in enumerate(CLASSES) for i in range(n)]
        for name, _ in ids: picture(data/'images'/f'{name}.jpg')
        text(data/f'images_variant_{part}.txt', [f'{i} {c}' for i, c in ids])
    text(data/'variants.txt', CLASSES)


def class_folders(root, names=('cat', 'dog', 'emu'), n=2, suffix='jpg'):
    for c in names:
        for i in range(n): picture(root/c/f'{i}.{suffix}')


def birdsnap(root, n=2):
    for part in ('train', 'test'): class_folders(root/'birdsnap'/part, ('auk', 'finch', 'gull'), n)


def caltech101(root, n=4):
    for c in ('BACKGROUND_Google', 'accordion', 'airplanes', 'anchor'):
        for i in range(n): picture(root/'caltech101'/'101_ObjectCategories'/c/f'image_{i + 1:04d}.jpg')
    (root/'caltech101'/'Annotations').mkdir()


def caltech256(root, n=4):
    for k, c in enumerate(('ak47', 'american-flag', 'backpack'), 1):
        for i in range(n): picture(root/'caltech256'/'256_ObjectCategories'/f'{k:03d}.{c}'/f'{k:03d}_{i + 1:04d}.jpg')


def stanford_cars(root, n=2):
    base = root/'stanford_cars'; (base/'devkit').mkdir(parents=True)
    savemat(base/'devkit'/'cars_meta.mat', dict(class_names=np.array(['Audi S6', 'BMW X5', 'Fiat 500'], object)))
    for part, file in [('train', 'devkit/cars_train_annos.mat'), ('test', 'cars_test_annos_withlabels.mat')]:
        rows = [(f'{i:05d}.jpg', i % 3 + 1) for i in range(3*n)]
        for name, _ in rows: picture(base/f'cars_{part}'/name)
        savemat(base/file, dict(annotations=np.array(rows, dtype=[('fname', object), ('class', object)])))


def flowers102(root, n=2):
    base = root/'flowers-102'
    for i in range(1, 9*n + 1): picture(base/'jpg'/f'image_{i:05d}.jpg')
    ids = np.arange(1, 9*n + 1)
    savemat(base/'imagelabels.mat', dict(labels=(ids - 1) % 3 + 1))
    savemat(base/'setid.mat', dict(trnid=ids[:3*n], valid=ids[3*n:6*n], tstid=ids[6*n:]))


def food101(root, n=2):
    files = {c: [f'{c}/{i}' for i in range(2*n)] for c in ('pizza', 'ramen', 'waffles')}
    for f in sum(files.values(), []): picture(root/'food-101'/'images'/f'{f}.jpg')
    for part, keep in [('train', slice(0, n)), ('test', slice(n, None))]:
        text(root/'food-101'/'meta'/f'{part}.json', [json.dumps({c: f[keep] for c, f in files.items()})])


def pets(root, n=2):
    base = root/'oxford-iiit-pet'
    for at, part in enumerate(('trainval', 'test')):
        rows = [(f'{c}_{at*n + i + 1}', k + 1) for k, c in enumerate(('Abyssinian', 'american_bulldog', 'pug')) for i in range(n)]
        for name, _ in rows: picture(base/'images'/f'{name}.jpg')
        text(base/'annotations'/f'{part}.txt', [f'{name} {k} 1 1' for name, k in rows])


def sun397(root, n=4):
    names = ('/a/abbey', '/b/bar', '/c/cave/indoor')
    for c in names:
        for i in range(n): picture(root/'SUN397'/c[1:]/f'sun_{i}.jpg')
    text(root/'SUN397'/'ClassName.txt', names)


def imagenet(root, n=2):
    wnids = {'n01440764': ('tench', 'Tinca tinca'), 'n02012849': ('crane',), 'n03126707': ('crane',)}
    for part in ('train', 'val'):
        for w in wnids:
            for i in range(n): picture(root/part/w/f'{part}_{i}.JPEG')
    torch.save((wnids, [w for w in wnids for _ in range(n)]), root/'meta.bin')


def _batch(path, labels, key):
    with open(path, 'wb') as f: pickle.dump({'data': rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8), key: labels}, f)
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar(root, monkeypatch, which, n=2):
    "CIFAR's files are checked against their hashes: the loader is told those of ours."
    from torchvision import datasets
    loader = getattr(datasets, which); base = root/loader.base_folder; base.mkdir(parents=True)
    key = 'labels' if which == 'CIFAR10' else 'fine_labels'
    for attribute in ('train_list', 'test_list'):
        labels = [k for k in range(3) for _ in range(n)]
        monkeypatch.setattr(loader, attribute, [[f[0], _batch(base/f[0], labels, key)] for f in getattr(loader, attribute)])
    meta = dict(loader.meta)
    with open(base/meta['filename'], 'wb') as f: pickle.dump({meta['key']: ['cat', 'dog', 'ship']}, f)
    monkeypatch.setattr(loader, 'meta', meta | dict(md5=hashlib.md5((base/meta['filename']).read_bytes()).hexdigest()))


def write_all(root, monkeypatch):
    "Every public set under one root, as `--target-path ROOT` expects them."
    from torchvision import datasets
    for write in (aircraft, birdsnap, caltech101, caltech256, stanford_cars, flowers102, food101, pets, sun397): write(root)
    for which in ('CIFAR10', 'CIFAR100'): cifar(root, monkeypatch, which)
    monkeypatch.setattr(datasets.Flowers102, '_check_integrity', lambda self: True) # it compares hashes, too
    monkeypatch.setattr(datasets.Flowers102, 'classes', ['pink primrose', 'rose', 'tulip'], raising=False)
    imagenet(root/'imagenet')
