"Runs, arrays files and influence files that version 0.1 wrote are read, continued and extended. (Its code made the files of `written_by_0_1`.)"
from pathlib import Path
import shutil
import subprocess
import sys

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.analysis.curve import load_curves
from transfer_influence.records.read_run import read_predictions, verify
from transfer_influence.records.store import open_run

FILES = Path(__file__).resolve().parent/'written_by_0_1'


@pytest.fixture
def run(tmp_path):
    shutil.unpack_archive(FILES/'run.zip', tmp_path)
    return tmp_path/'run'


@pytest.fixture(scope='module')
def expected():
    with np.load(FILES/'expected.npz') as f: return dict(f)


def test_run(run, expected):
    p = read_predictions(open_run(run))
    assert (p.outputs['margin'] == expected['margin']).all()
    e = ti.class_influence(p)
    for k in ('values', 'stderr'):  # sums in another order: the last digits of float64
        np.testing.assert_allclose(getattr(e, k), expected[k], rtol=1e-12, atol=1e-13*abs(expected[k]).max())
    assert verify(open_run(run)).ok


def test_curve(run):
    curve = load_curves(run)['digits']
    assert curve.replicates == 2 and curve.ks('most negative') == [1]
    again = ti.removal_curve(run, ks=[1], replicates=2, quiet=True, engine='here')  # nothing is trained again
    assert again.to_dataframe().equals(curve.to_dataframe())


def test_extended(run, expected):
    "The new models join the old ones, which stay as they are."
    fleet = ti.open_fleet(run)
    assert fleet.missing() == []
    longer = ti.Fleet(fleet.recipe.__class__(**{**vars(fleet.recipe), 'run': ti.RunSpec(models=14)}), run)
    longer.run(workers=1, quiet=True)
    p = read_predictions(open_run(run))
    assert p.n_models == 14 and (p.outputs['margin'][:12] == expected['margin']).all()


def test_influence_file(expected):
    e = ti.load_influence(FILES/'influence.npz')
    assert np.allclose(e.values, expected['values'], rtol=0, atol=1e-7) and set(e.class_names) == set('ABSZ23')


def test_arrays_file():
    p = ti.load_predictions(FILES/'arrays.npz')
    assert (p.n_models, p.class_names, tuple(p.target_class_names)) == (12, ('a', 'b', 'c'), ('x', 'y'))


def test_command(run):
    r = subprocess.run([Path(sys.executable).parent/'ti-influence', run], capture_output=True, text=True)
    assert r.returncode == 0 and '12 models' in r.stdout, r.stderr
