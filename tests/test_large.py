"Large arrays: files are mapped, checks read once, what shrinks is compressed. Small sizes here; thresholds are lowered."
import io
import zipfile

import numpy as np
import pytest

from transfer_influence.basics.array_files import read_npz, write_npz
from transfer_influence.basics.errors import InputError


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
