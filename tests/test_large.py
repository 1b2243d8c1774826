"Large arrays: files are mapped, checks read once, what shrinks is compressed. Small sizes here; thresholds are lowered."
import io
import pickle
import tracemalloc
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from transfer_influence.basics import precision
from transfer_influence.basics.array_files import read_npz, write_npz
from transfer_influence.basics.arrays import numbered
from transfer_influence.basics.errors import InputError
from transfer_influence.basics.precision import blocks, look_over
from transfer_influence.cli.train import open_predictions
from transfer_influence.influence.result import class_influence
from transfer_influence.records.importers import read_arrays_folder
from transfer_influence.records.predictions import from_arrays, load_predictions, save_predictions


def test_written_whole_or_not_at_all(tmp_path):
    rng = np.random.default_rng(0); file = tmp_path/'a.npz'
    noise, right = rng.normal(size=(300, 700)).astype(np.float32), (rng.random((300, 700)) < .7).astype(np.float32)
    arrays = dict(noise=noise, right=right, big=noise.astype('>f4'), turned=np.asfortranarray(noise), part=noise[::3, 1::2],
                  names=('cat', 'Ä'), target='digits', n=3, none=np.zeros((0, 5)), **{'naïve name': noise[:, :3]})
    write_npz(file, arrays)
    with np.load(file) as z, zipfile.ZipFile(file) as f:
        assert not f.testzip() and list(z) == list(arrays)
        for k, a in arrays.items():
            assert z[k].dtype == np.asarray(a).dtype; np.testing.assert_array_equal(z[k], a)
        kinds = {i.filename.removesuffix('.npy'): i.compress_type for i in f.infolist()}
        assert {k for k, t in kinds.items() if t == zipfile.ZIP_DEFLATED} == {'right', 'names', 'target'}
    with pytest.raises(ValueError): write_npz(file, dict(noise=right, odd=np.array([{}])))
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz']
    np.testing.assert_array_equal(np.load(file)['noise'], noise)


def test_written_to_an_open_file():
    file = io.BytesIO(); write_npz(file, dict(a=np.arange(7.)))
    np.testing.assert_array_equal(np.load(io.BytesIO(file.getvalue()))['a'], np.arange(7.))


def arrays_of_all_orders(rng):
    x = rng.normal(size=(60, 41)).astype(np.float32)
    return dict(x=x, big=x.astype('>f4'), wide=x.astype(float), big_wide=x.astype('>f8'), turned=np.asfortranarray(x),
                right=x > 0, numbers=np.arange(7), small=np.arange(9, dtype=np.int16), none=x[:0], one=np.float32(3),
                names=np.array(['cat', 'Ä']))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed, lambda f, **a: write_npz(f, a)], ids=['plain', 'small', 'ours'])
def test_mapped_is_the_same_as_read(tmp_path, save):
    arrays = arrays_of_all_orders(np.random.default_rng(0)); save(tmp_path/'a.npz', **arrays)
    read, mapped = read_npz(tmp_path/'a.npz', ''), read_npz(str(tmp_path/'a.npz'), '', mapped_from=0)
    assert list(read) == list(mapped) == list(arrays)
    for k, a in arrays.items():
        np.testing.assert_array_equal(mapped[k], a); np.testing.assert_array_equal(read[k], a)
        assert mapped[k].dtype == read[k].dtype and mapped[k].flags.f_contiguous == read[k].flags.f_contiguous
    large = ('x', 'big', 'wide', 'big_wide', 'turned', 'small')
    assert all(mapped[k].flags.writeable == (save is np.savez_compressed) for k in large[:5])
    assert all(read[k].flags.writeable for k in large)
    if save not in (np.savez, np.savez_compressed): assert all(mapped[k].ctypes.data % 64 == 0 for k in large[:5])


def test_replaced_while_mapped(tmp_path):
    file = tmp_path/'a.npz'; write_npz(file, dict(x=np.random.default_rng(0).normal(size=5000)))
    x = read_npz(file, '', mapped_from=0)['x']; before = x.copy()
    write_npz(file, dict(x=np.zeros(3)))
    np.testing.assert_array_equal(x, before); assert len(read_npz(file, '')['x']) == 3


def damaged(file, kind):
    data = bytearray(file.read_bytes()); at = data.index(b'\x93NUMPY')
    if kind == 'cut': data = data[:len(data)//2]
    if kind == 'no array': data[at:at + 6] = b'nonono'
    if kind == 'no member': data[:4] = b'nono'
    if kind == 'shape': data[at:at + 128] = data[at:at + 128].replace(b'(5000,)', b'(9000,)')
    if kind == 'header': data[at + 10:at + 16] = b'import'
    file.write_bytes(data)


@pytest.mark.parametrize('mapped_from', [0, 2**28], ids=['mapped', 'read'])
@pytest.mark.parametrize('kind', ['cut', 'no array', 'no member', 'shape', 'header'])
def test_damaged(tmp_path, kind, mapped_from):
    file = tmp_path/'a.npz'; np.savez(file, x=np.random.default_rng(0).normal(size=5000)); damaged(file, kind)
    with pytest.raises(InputError) as e: read_npz(file, 'save it again', mapped_from)
    assert str(e.value).startswith(f'cannot read {file} as plain arrays (') and str(e.value).endswith('; save it again')
    assert '\n' not in str(e.value)


def test_damaged_inside_a_compressed_array(tmp_path):
    file = tmp_path/'a.npz'; np.savez_compressed(file, x=np.arange(5000)); data = bytearray(file.read_bytes())
    data[100:300] = bytes(200); file.write_bytes(data)
    with pytest.raises(InputError, match='cannot read .* as plain arrays'): read_npz(file, 'save it again')


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path/'a.npz', x=np.array([{}]*5000))
    with pytest.raises(InputError, match='can run programs'): read_npz(tmp_path/'a.npz', '', mapped_from=0)


def arrays(m=60, n=900, K=5, seed=0):
    rng = np.random.default_rng(seed); z = rng.random((m, K)) < .5
    return z, (z @ rng.normal(size=(K, n)) + rng.normal(size=(m, n))).astype(np.float32)


def folder_of(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for k, x in arrays.items(): np.save(folder/f'{k}.npy', x)
    return folder


def in_file(x):
    while x is not None and not isinstance(x, np.memmap): x = x.base
    return x is not None


def test_folder_of_arrays(tmp_path):
    z, y = arrays(); kinds = np.array(['cat', 'owl'])[np.arange(900) % 2]; split = np.where(np.arange(900) < 300, 'select', 'report')
    known = dict(class_names=list('abcde'), labels=kinds, target_class_names=['owl', 'cat'], split=split, target='zoo')
    folder = folder_of(tmp_path/'zoo', masks=z, output_margin=y, output_right=y > 0, **known)
    p, q = load_predictions(folder), from_arrays(z, dict(margin=y, right=y > 0), **known)
    for k in ('masks', 'labels', 'split'): np.testing.assert_array_equal(getattr(p, k), getattr(q, k))
    for k in ('class_names', 'target_class_names', 'target'): assert getattr(p, k) == getattr(q, k)
    for k, x in q.outputs.items(): np.testing.assert_array_equal(p.outputs[k], x); assert p.outputs[k].dtype == x.dtype
    assert in_file(p.outputs['margin']) and repr(p) == repr(q)
    np.testing.assert_array_equal(open_predictions(str(folder)).masks, z)
    with pytest.raises(InputError, match="holds the target 'zoo', not 'digits'"): open_predictions(str(folder), 'digits')


@pytest.mark.parametrize('change, message', [
    (lambda f: (f/'outputs.npy').unlink(), r"has no array 'outputs' \(models × images\)"),
    (lambda f: (f/'masks.npy').unlink(), r"has no array 'masks' .*; it has \['.*outputs'"),
    (lambda f: (f/'outputs.npy').write_bytes(b'hello'), 'cannot read .*outputs.npy as a plain array'),
    (lambda f: (f/'outputs.npy').write_bytes((f/'outputs.npy').read_bytes()[:5000]), 'cannot read .*outputs.npy as a plain array'),
    (lambda f: (f/'outputs.npy').write_bytes(b''), 'cannot read .*outputs.npy as a plain array'),
    (lambda f: np.save(f/'class_names.npy', np.array([{}]*5)), 'cannot read .*class_names.npy as a plain array'),
    (lambda f: np.save(f/'outputs.npy', np.zeros((7, 3))), 'has 7 rows for 60 models')])
def test_folder_that_is_not_right(tmp_path, change, message):
    z, y = arrays(); folder = folder_of(tmp_path/'zoo', masks=z, outputs=y); change(folder)
    with pytest.raises(InputError, match=message) as e: load_predictions(folder)
    assert '\n' not in str(e.value)


def test_folder_of_the_paper_is_not_copied(tmp_path):
    z, y = arrays(); folder = folder_of(tmp_path/'cifar', masks=z, margins=y, _completed=np.ones(60, bool))
    assert in_file(read_arrays_folder(folder).output()[1])
    folder_of(folder, _completed=np.arange(60) > 4)
    with pytest.warns(UserWarning, match='5 of 60 models'): p = read_arrays_folder(folder)
    np.testing.assert_array_equal(p.output()[1], y[5:])


def test_mapped_predictions_are_used_like_others(tmp_path):
    z, y = arrays(); folder = folder_of(tmp_path/'zoo', masks=z, outputs=y); p = load_predictions(folder)
    q = pickle.loads(pickle.dumps(p)); np.testing.assert_array_equal(q.output()[1], y)
    np.testing.assert_array_equal(replace(p, target='zoo').output()[1], y)
    save_predictions(p, tmp_path/'p.npz'); again = load_predictions(tmp_path/'p.npz')
    save_predictions(again, tmp_path/'p.npz'); np.testing.assert_array_equal(load_predictions(tmp_path/'p.npz').output()[1], y)
    plain = from_arrays(z, y)
    np.testing.assert_array_equal(class_influence(p).values, class_influence(plain).values)


@pytest.mark.parametrize('kind', ['f4', 'f8', '>f4', '>f8'])
def test_large_file_stays_as_it_is(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(precision, 'LARGE', 1000)
    z, y = arrays(); y = y.astype(kind); p = load_predictions(folder_of(tmp_path/'zoo', masks=z, outputs=y))
    assert in_file(p.output()[1]) and p.output()[1].dtype == np.dtype(kind)
    expected = class_influence(from_arrays(z, y)); found = class_influence(p)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6*abs(expected.values).max())
    assert from_arrays(z, y).output()[1].dtype == np.float32
    save_predictions(p, tmp_path/'p.npz'); np.testing.assert_array_equal(load_predictions(tmp_path/'p.npz').output()[1], y.astype(np.float32))


def test_little_memory(tmp_path):
    z, y = arrays(200, 20_000); folder = folder_of(tmp_path/'zoo', masks=z, outputs=y); np.savez(tmp_path/'p.npz', masks=z, outputs=y)
    ways = dict(folder=lambda: load_predictions(folder), arrays=lambda: from_arrays(z, y), save=lambda: write_npz(tmp_path/'q.npz', dict(y=y[:, :9000])),
                npz=lambda: from_arrays(**read_npz(tmp_path/'p.npz', '', mapped_from=0)))
    for way in ways.values(): way()
    for name, limit in dict(folder=4, arrays=4, npz=4, save=20).items(): # numpy writes pieces of 16 MiB
        tracemalloc.start(); kept = ways[name](); peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
        assert peak < limit*2**20, f'{name}: {peak/2**20:.1f} MiB of {y.nbytes/2**20:.0f} MiB'
        del kept


def test_averages_take_little_memory():
    "Those of a page and of reliability, too, of one class of images or of several."
    from transfer_influence.influence.reliability import class_means
    z, y = arrays(200, 100_000)
    for labels in (np.zeros(100_000, int), np.arange(100_000) % 7):
        p = from_arrays(z, y, labels=labels)
        for way in (class_means, lambda p: class_influence(p, over='target'), lambda p: class_influence(p, over='classes')):
            tracemalloc.start(); way(p); peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
            assert peak < 20*2**20, f'{peak/2**20:.1f} MiB of {y.nbytes/2**20:.0f} MiB'
    means = class_means(p).output()[1]
    np.testing.assert_allclose(means, np.stack([y[:, labels == c].mean(1, dtype=float) for c in range(7)], 1), rtol=1e-12, atol=1e-12)


def test_arrays_of_ones_own_are_not_copied():
    z, y = arrays(); assert np.shares_memory(from_arrays(z, y).output()[1], y)
    y[3, 5] = np.nan; p = from_arrays(z, y, allow_partial=True)
    assert p.left_out == 1; np.testing.assert_array_equal(p.output()[1], np.delete(y, 3, 0))


def read_many_times(y):
    "The same facts, each from a reading of its own."
    low, high = y.min(0).astype(float), y.max(0).astype(float); spread, size = high - low, np.maximum(abs(low), abs(high))
    some = spread > 0
    return (size.max(), (some & ((size > 8*spread) | (size > 1e30) | (spread < 1e-30))).any(), (some & (spread < 1e-150)).sum(),
            (some & (size > 1e5*spread) & (size > 8*np.fmax.reduce(spread))).sum())


@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('m, n', [(3, 1), (2, 40_000), (300, 1000), (300_000, 2), (70, 16_385)])
def test_one_reading_finds_what_many_found(m, n, order):
    y = np.random.default_rng(m + n).normal(size=(m, n)).astype(float, order=order)
    covered = np.zeros((m, n), np.int8)
    for b in blocks(y): covered[b] += 1; assert covered[b].size <= 2**18
    assert (covered == 1).all()
    for k in range(4):
        if k == 1: y[:, -1] = 1e8 + np.arange(m)/m
        if k == 2: y[:, 0] = 1e-155*np.arange(m)
        if k == 3: y[m - 1, n - 1] = np.nan
        seen = look_over(y); np.testing.assert_array_equal(seen.sample, y[:, ::max(1, n//200)])
        np.testing.assert_equal((seen.top, seen.far, seen.tiny, seen.lost), read_many_times(y))


def test_nan_anywhere_is_found():
    z, y = arrays(40, 33_000)
    for i, j in [(0, 0), (39, 32_999), (17, 16_384), (20, 16_383)]:
        for bad in (np.nan, np.inf, -np.inf, 3.3e38):
            x = y.copy(); x[i, j] = bad
            with pytest.raises(InputError, match=f"output 'output' has NaN or infinite values in 1 models, such as number {i};"): from_arrays(z, x)


def test_copies_are_found_and_others_are_not():
    z, y = arrays(); z, y = z[[*range(60), 7, 8, 9, 9]], y[[*range(60), 7, 8, 9, 9]]
    with pytest.warns(UserWarning, match='^4 models have the same masks and outputs'): from_arrays(z, y)
    n = y.shape[1]; y[-1, -1] += 1; y[-3, 1] += 1 # columns that are in no sample: every 4th is
    assert n//200 == 4
    with pytest.warns(UserWarning, match='^2 models have the same masks and outputs'): from_arrays(z, y)
    y[60, 4] += 1; z[62, 0] ^= True # a column of the sample, a mask
    with warnings.catch_warnings(action='error'): from_arrays(z, y)


def test_many_labels_by_name():
    names = np.array(['cat', 'dog', 'emu']); labels = names[np.random.default_rng(0).integers(0, 3, 200_000)]
    numbers, known = numbered(labels); assert known == ('cat', 'dog', 'emu')
    np.testing.assert_array_equal(names[numbers], labels)
    labels[-1] = 'elk'
    with pytest.raises(InputError, match="the label 'elk' is none of"): numbered(labels, known)
