"Results at the edges: of what float32 holds, of pairs that a class decides, of penalties at the end of their range."
from pathlib import Path
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit

from transfer_influence.design.masks import sample_masks
from transfer_influence.influence import difference, methods, regression
from transfer_influence.influence.difference import Estimate, shrink
from transfer_influence.influence.tails import interval, p_values
from transfer_influence.basics.errors import InputError
from transfer_influence.records.predictions import from_arrays, load_predictions
from transfer_influence.influence.many_columns import influence_to_folder
from transfer_influence.influence.result import class_influence


def drawn(m, K=8, design='exact'): return np.asarray(sample_masks(m, [f'c{k}' for k in range(K)], design=design, seed=1))

def both(monkeypatch, f):
    "What a function gives in double precision, and with products in float32."
    exact = f()
    for module in (difference, regression): monkeypatch.setattr(module, 'SMALL', 0)
    return exact, f()


@pytest.mark.parametrize('effect', [1.7, 1.3, .7, 1/3])
@pytest.mark.parametrize('noise', [0, 1e-4, 1e-3, .1])
def test_errors_of_pairs_that_a_class_decides_in_float32(monkeypatch, effect, noise):
    z, rng = drawn(40, design='antithetic'), np.random.default_rng(0)
    y = z[:, :1]*effect + noise*rng.normal(size=(40, 5))
    a, b = both(monkeypatch, lambda: methods.estimate(z, y))
    assert b.stderr.dtype == np.float32
    np.testing.assert_allclose(b.stderr, a.stderr, rtol=1e-5)

@pytest.mark.parametrize('scale', [1e37, 1e30, 1e-30])
@pytest.mark.parametrize('method', ['dim', 'dim_shrunk', 'ridge', 'mixed'])
def test_scales_that_float32_just_holds(monkeypatch, scale, method):
    z, rng = drawn(60), np.random.default_rng(0)
    y = z @ rng.normal(size=(8, 5)) + rng.normal(size=(60, 5))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        large = both(monkeypatch, lambda: methods.estimate(z, (y*scale).astype(np.float32), method))
    one = methods.estimate(z, y, method)
    for e in large:
        np.testing.assert_allclose(e.values/scale, one.values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(e.stderr/scale, one.stderr, rtol=1e-4)

def test_outputs_beyond_float32_have_tables_in_float64(monkeypatch):
    z, rng = drawn(60), np.random.default_rng(0)
    y = z @ rng.normal(size=(8, 5)) + rng.normal(size=(60, 5))
    for scale in (1e100, 1e-100):
        a, b = both(monkeypatch, lambda: methods.estimate(z, y*scale))
        np.testing.assert_allclose(b.values, a.values, rtol=1e-6)
        np.testing.assert_allclose(b.stderr, a.stderr, rtol=1e-5)

def test_a_difference_that_float32_does_not_hold_is_told(monkeypatch):
    z = drawn(60); y = np.where(z[:, :1], 3e38, -3e38).astype(np.float32)
    monkeypatch.setattr(difference, 'SMALL', 0)
    with pytest.raises(InputError, match='scale the outputs by a power of ten'): methods.estimate(z, y)

def test_a_class_decides_and_there_is_no_effect_of_pairs():
    rng = np.random.default_rng(0); z = np.zeros((60, 8), bool)
    for row in z: row[rng.permutation(8)[:4]] = True # some pairs by chance
    e = regression.mixed(z, z[:, :1]*1.7 + 1e-4*rng.normal(size=(60, 7)))
    assert e.about['pair_effect'] < 1e-6
    np.testing.assert_allclose(e.values[0], 1.7, atol=1e-4)

def estimate_of(*tables): return Estimate(*(np.array(t, float)[None] for t in tables))

def test_p_of_far_values_with_few_degrees_of_freedom():
    dof = np.array([.5, 1, 2, 3.]); t = np.array([1e8, 1e11, 1e14])
    for x in t: np.testing.assert_allclose(p_values(estimate_of(dof*0 + x, dof*0 + 1, dof))[0], 2*stdtr(dof, -x), rtol=1e-12)
    assert (p_values(estimate_of(dof*0 + 1, dof*0, dof)) == 0).all()

def test_intervals_of_levels_close_to_one():
    dof = np.array([20, 49, 51, 99, 101, 300, 1e4])
    for level in (.5, .95, .999, 1 - 1e-6, 1 - 1e-9):
        high = interval(estimate_of(dof*0, dof*0 + 1, dof), level)[1][0]
        np.testing.assert_allclose(high, stdtrit(dof, .5 + level/2), rtol=1e-6)

def test_shrinking_in_float32_is_that_in_float64():
    rng = np.random.default_rng(0); v, s = rng.normal(size=(20, 4)), rng.random((20, 4)) + .1
    for scale in (1e25, 1., 1e-25):
        e = Estimate(*(x.astype(np.float32) for x in (v*scale, s*scale, s*0 + 9)))
        got, want = shrink(e), shrink(Estimate(v, s, s*0 + 9))
        np.testing.assert_allclose(got.values/scale, want.values, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(got.stderr/scale, want.stderr, rtol=1e-5)

def command(*args):
    "Exit status and what a command prints; as it is installed."
    code = 'import sys; from transfer_influence.cli.tables import ti_influence\n'
    code += 'if __name__ == "__main__": sys.exit(ti_influence())'
    script = Path(args[0]).with_name('run_it.py'); script.write_text(code)
    done = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

def test_no_table_is_written_over_what_is_read(tmp_path):
    rng, z = np.random.default_rng(0), drawn(40); file = tmp_path/'a.npz'
    np.savez(file, masks=z, outputs=rng.normal(size=(40, 5)), labels=np.zeros(5, int)); before = file.read_bytes()
    (tmp_path/'link.csv').symlink_to(file)
    for csv in (file, tmp_path/'link.csv'):
        status, said = command(file, '--csv', csv)
        assert status and '--csv names the file that is read' in said and file.read_bytes() == before
    status, said = command(file, '--out', tmp_path/'table')
    assert not status and f"The influence file: {tmp_path/'table'}.npz" in said and (tmp_path/'table.npz').is_file()

def test_unused_arrays_are_told_in_one_order(tmp_path):
    rng, z = np.random.default_rng(0), drawn(40)
    np.savez(tmp_path/'a.npz', masks=z, outputs=rng.normal(size=(40, 5)), labels=np.zeros(5, int), zz=z, yy=z)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always'); load_predictions(tmp_path/'a.npz')
    said = [str(w.message) for w in told if 'is not used' in str(w.message)]
    assert [s.split("'")[1] for s in said] == ['yy', 'zz']
    assert all('better, class_names, labels, masks, sizes, split, target, target_class_names' in s for s in said)

@pytest.mark.parametrize('scale', [1e100, 1e-100])
def test_files_in_float32_refuse_what_they_do_not_hold(tmp_path, scale):
    rng, z = np.random.default_rng(0), drawn(40)
    p = from_arrays(z, (z @ rng.normal(size=(8, 5)) + rng.normal(size=(40, 5)))*scale); r = class_influence(p)
    for name in ('a.npz', 'folder/'):
        with pytest.raises(InputError, match='scale the outputs'): r.save(str(tmp_path/'x') + name)
    with pytest.raises(InputError, match='scale the outputs'): influence_to_folder(p, tmp_path/'blocks')
    r.save(tmp_path/'a.csv')
