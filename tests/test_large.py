"Large arrays: files are mapped, checks read once, what shrinks is compressed. Small sizes here; thresholds are lowered."
import io
import zipfile

import numpy as np
import pytest

from transfer_influence.basics.array_files import write_npz
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
