"Tables of influence as files: every form keeps the numbers, names and facts; a killed session goes on; one line says what is wrong."
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import transfer_influence as ti
from transfer_influence.basics.errors import InputError
from transfer_influence.influence import table_files, table_stores
from transfer_influence.influence.lookup import Numbered
from transfer_influence.influence.table_files import load_influence, save_influence
from transfer_influence.influence.table_stores import FOLDERS
from transfer_influence.influence.table_writer import TableWriter, crc, part_of, read_done, table_facts

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
FORMS = '.npz', '/', '.zarr'
ALL = *FORMS, '.parquet', '.csv'


def predictions(K=7, n=30, m=60):
    rng = np.random.default_rng(0); masks = rng.random((m, K)) < .5
    y = masks @ rng.normal(size=(K, n)) + rng.normal(size=(m, n))
    names = ['ant', 'Bär', 'cow, calf', '狗', 'elk "x"', *(f'c{k}' for k in range(5, K))]
    return ti.from_arrays(masks, dict(margin=y), names, rng.integers(0, 2, n), ('cat', 'dog'))


@pytest.fixture(scope='module')
def p(): return predictions()


def same(a, b):
    for k in ('values', 'stderr', 'dof'): np.testing.assert_array_equal(np.asarray(getattr(a, k), np.float32), np.asarray(getattr(b, k), np.float32))
    for k in ('class_names', 'n_models', 'method', 'output', 'target', 'zero'): assert getattr(a, k) == getattr(b, k)
    assert tuple(a.columns) == tuple(b.columns)


@pytest.mark.parametrize('suffix', FORMS)
@pytest.mark.parametrize('method', ['dim', 'dim_shrunk', 'lasso'])
def test_kept(p, tmp_path, suffix, method):
    "Numbers, NaN where a method has no errors, names and facts; also of a table that was read from a file."
    r = ti.class_influence(p, method=method)
    for table in (r, r.by_target_class(), r.mean()):
        table.save(f'{tmp_path}/t{suffix}'); again = load_influence(str(f'{tmp_path}/t{suffix}'))
        same(again, table); assert again.has_errors == table.has_errors
        assert (again.labels == p.labels).all() and again.target_class_names == ('cat', 'dog')
        save_influence(again, tmp_path/'copy.npz'); copy = load_influence(tmp_path/'copy.npz'); same(copy, table)
        np.testing.assert_allclose(copy.about['mean_influence'], r.mean().values[:, 0], rtol=1e-6); assert (copy.about['split'] == p.split).all()
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted({'copy.npz', f't{suffix}'.rstrip('/')})


def test_members_of_npz(p, tmp_path):
    "The names that files have had all along; columns only where they are not just numbered; digits that are noise are not compressed."
    names = ['influence', 'stderr', 'qvalue', 'dof', 'mean_influence', 'mean_stderr', 'mean_dof', 'mean_qvalue', 'n_models', 'method', 'output',
             'target', 'zero', 'labels', 'class_names', 'target_class_names', 'split', 'kind_of_q']
    r = ti.class_influence(p); r.save(tmp_path/'a.npz'); r.by_target_class().save(tmp_path/'b.npz')
    with np.load(tmp_path/'a.npz', allow_pickle=False) as z:
        assert set(z.files) == set(names)
        assert {z[k].dtype for k in names[:7]} == {np.dtype(np.float32)} and str(z['kind_of_q']) == 'q'
        np.testing.assert_allclose(z['qvalue'], r.qvalues, rtol=1e-6)
        assert {z.zip.getinfo(f'{k}.npy').compress_type for k in ('influence', 'stderr')} == {0}
    with np.load(tmp_path/'b.npz') as z: assert set(z.files) == {*names, 'columns'} and list(z['columns']) == ['cat', 'dog']


@pytest.mark.parametrize('file, K', [('tests/written_by_0_1/influence.npz', 6), ('results/demo_influence_digits.npz', 49)])
def test_old_files(file, K, tmp_path):
    r = load_influence(ROOT/file)
    assert r.shape[0] == K and r.values.dtype == r.stderr.dtype == r.dof.dtype == np.float64
    with np.load(ROOT/file) as z: assert (r.values == z['influence']).all() and (r.dof == z['dof']).all() and list(r.class_names) == list(z['class_names'])
    for suffix in FORMS: r.save(tmp_path/f'new{suffix}'); same(load_influence(tmp_path/f'new{suffix}'), r)


@pytest.mark.parametrize('method', ['dim', 'dim_shrunk', 'lasso'])
def test_parquet_is_the_long_table(p, tmp_path, monkeypatch, method):
    r = ti.class_influence(p, method=method); r.save(tmp_path/'t.parquet'); r.save(tmp_path/'t.csv')
    found = pd.read_parquet(tmp_path/'t.parquet'); frame = r.to_dataframe().reset_index(); text = pd.read_csv(tmp_path/'t.csv')
    assert list(found) == list(frame) == list(text) and len(found) == 7*30
    for c in ('source_class', 'target'): assert found[c].dtype == 'category' and (found[c] == frame[c]).all() and (text[c] == frame[c]).all()
    for c in list(found)[2:]: np.testing.assert_array_equal(found[c], frame[c])
    facts = pq.read_schema(tmp_path/'t.parquet').metadata
    assert facts[b'method'] == method.encode() and b'lowers it' in facts[b'sign'] and facts[b'n_models'] == b'60' and facts[b'output'] == b'margin'
    assert {b'target', b'zero', b'version'} <= set(facts)


def test_parquet_in_blocks(p, tmp_path, monkeypatch):
    "Several row groups, and float32 where the table is."
    r = ti.class_influence(p); r.save(f'{tmp_path}/t/'); small = load_influence(tmp_path/'t')
    real = table_files.blocks; monkeypatch.setattr(table_files, 'blocks', lambda a, b, step, *w: real(a, b, 4, *w))
    small.save(tmp_path/'t.parquet'); file = pq.ParquetFile(tmp_path/'t.parquet')
    assert file.num_row_groups == 8 and str(file.schema_arrow.field('influence').type) == 'float'
    found = file.read().to_pandas(); frame = small.to_dataframe().reset_index()
    assert (found.target.astype(str) == frame.target).all() and (found.source_class.astype(str) == frame.source_class).all()
    np.testing.assert_allclose(found.influence, frame.influence, rtol=1e-6)
    np.testing.assert_allclose(found.q, frame.q, rtol=1e-5)


@pytest.mark.parametrize('suffix', ('/', '.zarr'))
def test_stays_in_the_file(p, tmp_path, suffix):
    "What is asked of a table in a folder is what is asked of one in memory."
    r = ti.class_influence(p); r.save(f'{tmp_path}/t{suffix}'); again = load_influence(f'{tmp_path}/t{suffix}')
    assert again.values.dtype == np.float32
    if suffix == '/': assert isinstance(again.values.base, np.memmap) and not again.values.flags.writeable
    assert again['ant', 'image 3'] == pytest.approx(r['ant', 'image 3'], rel=1e-6)
    np.testing.assert_allclose(again[['ant', '狗']], r[['ant', '狗']], rtol=1e-6)
    np.testing.assert_allclose(again[:, 'image 5':'image 2':-1], r[:, 'image 5':'image 2':-1], rtol=1e-6)
    np.testing.assert_allclose(again[np.arange(7) % 2 == 0, 4], r[np.arange(7) % 2 == 0, 4], rtol=1e-6)
    np.testing.assert_allclose(again.qvalues, r.qvalues, rtol=1e-4); np.testing.assert_allclose(again.ci()[0], r.ci()[0], rtol=1e-4, atol=1e-5)
    assert [x.name for x in again.top(7, 3)] == [x.name for x in r.top(7, 3)] and repr(again).splitlines()[0] == repr(r).splitlines()[0]
    np.testing.assert_allclose(np.mean(again), r.values.mean(), rtol=1e-4)
    assert len(again.to_dataframe()) == 210


def test_large_npz_stays_float32(p, tmp_path, monkeypatch):
    ti.class_influence(p).save(tmp_path/'t.npz'); assert load_influence(tmp_path/'t.npz').values.dtype == np.float64
    monkeypatch.setattr(table_files, 'LARGE', 1000); assert load_influence(tmp_path/'t.npz').values.dtype == np.float32


def test_many_columns():
    names = Numbered(10**7)
    assert (len(names), names[-1], names[2:4], names.index('image 77')) == (10**7, 'image 9999999', ('image 2', 'image 3'), 77)
    assert 'image 9999999' in names and 'image 10000000' not in names and 'image 01' not in names
    with pytest.raises(IndexError): names[10**7]


def test_labels_of_one_kind(tmp_path):
    "Labels that are all 0 are no missing piece of zarr."
    p = ti.from_arrays(np.eye(8, 4) + np.eye(8, 4, -4) > 0, np.arange(16.).reshape(8, 2)**2); r = ti.class_influence(p); r.save(tmp_path/'t.zarr')
    assert load_influence(tmp_path/'t.zarr').labels.tolist() == [0, 0]


def test_names_without_suffix(p, tmp_path):
    r = ti.class_influence(p); r.save(tmp_path/'old.npz'); same(load_influence(tmp_path/'old'), r)  # as a file without its suffix
    r.save(tmp_path/'plain'); assert (tmp_path/'plain.npz').is_file(); same(load_influence(tmp_path/'plain'), r)
    r.save(f'{tmp_path}/of npy/'); r.save(tmp_path/'of npy'); assert not (tmp_path/'of npy.npz').exists(); same(load_influence(tmp_path/'of npy'), r)
    r.save(f'{tmp_path}/v0.5/'); assert (tmp_path/'v0.5/influence.npy').is_file(); same(load_influence(f'{tmp_path}/v0.5/'), r)


def test_written_whole_or_not_at_all(p, tmp_path, monkeypatch):
    r = ti.class_influence(p); ridge = ti.class_influence(p, method='ridge')
    for s in ALL: r.save(f'{tmp_path}/t{s}'); ridge.save(f'{tmp_path}/t{s}')  # in the place of the former
    assert {load_influence(f'{tmp_path}/t{s}').method for s in FORMS} == {'ridge'}
    before = {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()}
    def fails(*_, **__): raise OSError('no space')
    monkeypatch.setattr(table_stores.NpyTable, 'put', fails); monkeypatch.setattr(table_stores.ZarrTable, 'put', fails)
    monkeypatch.setattr(table_files, 'long_part', fails); monkeypatch.setattr(ti.InfluenceResult, 'save_csv', fails)
    for s in ALL[1:]:
        with pytest.raises(OSError, match='no space'): r.save(f'{tmp_path}/t{s}')
    assert {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()} == before


def refused(f, *words):
    with pytest.raises(InputError) as e: f()
    assert all(w in str(e.value) for w in words) and '\n' not in str(e.value), str(e.value)


def test_where_no_table_goes(p, tmp_path, monkeypatch):
    r = ti.class_influence(p); (tmp_path/'photos').mkdir(); (tmp_path/'photos/a.txt').write_text('mine'); (tmp_path/'file').write_text('mine')
    refused(lambda: r.save(tmp_path/'t.xlsx'), "'.xlsx'", '.npz, .zarr, .parquet, .csv')
    refused(lambda: r.save(tmp_path/'photos'), 'something else'); refused(lambda: r.save(f'{tmp_path}/file/'), 'is a file')
    refused(lambda: r.save('s3://bucket/t.zarr'), 'give a path')
    (tmp_path/'photos/about.json').write_text('{"name": "holiday"}'); refused(lambda: r.save(tmp_path/'photos'), 'something else')
    (tmp_path/'photos.npz').mkdir(); refused(lambda: r.save(tmp_path/'photos.npz'), 'is a folder')
    assert (tmp_path/'photos/a.txt').read_text() == (tmp_path/'file').read_text() == 'mine'
    monkeypatch.setitem(sys.modules, 'pyarrow', None); refused(lambda: r.save(tmp_path/'t.parquet'), "pip install 'transfer_influence[parquet]'")
    r.save(tmp_path/'t.csv'); r.save(tmp_path/'t.zarr')


def test_what_is_not_read(p, tmp_path):
    r = ti.class_influence(p)
    for s in ALL: r.save(f'{tmp_path}/t{s}')
    refused(lambda: load_influence(tmp_path/'t.parquet'), '.npz, .zarr and folders', 'pandas.read_parquet')
    refused(lambda: load_influence(tmp_path/'t.csv'), 'pandas.read_csv'); refused(lambda: load_influence(tmp_path/'gone'), 'no file')
    np.savez(tmp_path/'objects.npz', influence=np.array([{}])); refused(lambda: load_influence(tmp_path/'objects.npz'), 'Python objects')
    np.savez(tmp_path/'other.npz', a=1); refused(lambda: load_influence(tmp_path/'other.npz'), "'influence'")
    (tmp_path/'cut.npz').write_bytes((tmp_path/'t.npz').read_bytes()[:900]); refused(lambda: load_influence(tmp_path/'cut.npz'), 'cut.npz')
    (tmp_path/'e').mkdir(); refused(lambda: load_influence(tmp_path/'e'), 'no table')
    file = tmp_path/'t/stderr.npy'; good = file.read_bytes()
    for bad, word in ((good[:-5], 'file size'), (b'', ''), (b'\x93NUMPY', '')):
        file.write_bytes(bad); refused(lambda: load_influence(tmp_path/'t'), 'cannot read', 'stderr.npy', word)
    np.save(file, np.array([{}] * 210).reshape(7, 30)); refused(lambda: load_influence(tmp_path/'t'), 'cannot read', 'Python objects')
    file.unlink(); refused(lambda: load_influence(tmp_path/'t'), 'cannot read', 'stderr.npy')
    piece = tmp_path/'t.zarr/stderr/c/0/0'; piece.write_bytes(piece.read_bytes()[:-3]); t = load_influence(tmp_path/'t.zarr')
    refused(lambda: t.ci(), 'stderr is damaged'); piece.unlink(); refused(lambda: load_influence(tmp_path/'t.zarr'), '1 of the 1 pieces')
    r.save(tmp_path/'t.zarr'); (tmp_path/'t.zarr/dof/zarr.json').write_text('{'); refused(lambda: load_influence(tmp_path/'t.zarr'), 'not an influence file')


WRITER = '''
import sys, time
import numpy as np
from transfer_influence.influence.table_writer import TableWriter
def block(part): return (np.arange(part.start, part.stop) + 1000.*np.arange(5)[:, None]).astype(np.float32)
facts = dict(n_models=9, method=sys.argv[2], output='margin', target='digits', zero='average')
with TableWriter(sys.argv[1], list('abcde'), 40_000, facts) as w:
    w.at = -1e9 # noted after every block, not once a second
    for i, part in enumerate(w.missing(1000)):
        w.put(part, block(part), block(part)/2, block(part)*0 + 7); w.at = -1e9
        print(i, flush=True)
        if i > 2 and sys.argv[3:]: time.sleep(9)
'''


@pytest.mark.parametrize('suffix', ('/', '.zarr'))
def test_killed_and_gone_on(tmp_path, suffix):
    "A process that is killed leaves a table that another one completes; nothing is there under its name before."
    path = Path(f'{tmp_path}/t{suffix}'); start = lambda *args: subprocess.Popen([sys.executable, '-c', WRITER, path, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = start('dim', 'slowly'); next(first.stdout); next(first.stdout); first.kill(); first.wait()
    done = read_done(part_of(path), 40_000); assert 0 < done.sum() < 40_000 and not path.exists()
    refused(lambda: load_influence(path), 'not complete', f'{done.sum()} of 40000')
    other = start('ridge'); _, said = other.communicate(); assert other.returncode and 'differs in method' in said.splitlines()[-1]
    second = start('dim'); written = second.communicate()[0].splitlines(); assert second.returncode == 0
    assert path.exists() and not part_of(path).exists() and not (path/'done.txt').exists()
    table = load_influence(path); whole = np.arange(40_000) + 1000.*np.arange(5)[:, None]
    np.testing.assert_array_equal(table.values, whole.astype(np.float32)); np.testing.assert_array_equal(table.stderr, (whole/2).astype(np.float32))
    assert (np.asarray(table.dof) == 7).all() and table.columns[:2] == ('image 0', 'image 1') and table.method == 'dim'
    step = 1000 if suffix == '/' else 8000
    assert len(written) == -(-(40_000 - done.sum())//step)


def test_writer_refuses(p, tmp_path):
    facts = table_facts(p, 'dim', 'margin', 'average'); names = p.class_names; block = np.ones((7, 10), np.float32)
    with TableWriter(tmp_path/'t', names, 30, facts) as w: w.put(slice(10, 20), block, block, block)
    assert [(s.start, s.stop) for s in TableWriter(tmp_path/'t', names, 30, facts).missing(8)] == [(0, 8), (8, 10), (20, 28), (28, 30)]
    fewer = ti.from_arrays(p.masks[:-1], {k: y[:-1] for k, y in p.outputs.items()}, names, p.labels, ('cat', 'dog'))
    for other, word in ((table_facts(fewer, 'dim', 'margin', 'average'), 'n_models, masks'), (facts | dict(output='logit'), 'output'),
                        (facts | dict(masks=crc(~p.masks)), 'masks'), (facts | dict(labels=1 - p.labels), 'labels')):
        refused(lambda: TableWriter(tmp_path/'t', names, 30, other), 'another table', word)
    refused(lambda: TableWriter(tmp_path/'t', names, 31, facts), 'differs in n'); refused(lambda: TableWriter(tmp_path/'t', names[::-1], 30, facts), 'class_names')
    refused(lambda: TableWriter(tmp_path/'t.parquet', names, 30, facts), 'to a folder or .zarr'); refused(lambda: TableWriter(tmp_path/'u', names, 30, {}), 'lack n_models')
    refused(lambda: w.put(slice(0, 9), block, block, block), '(7, 9)'); refused(lambda: w.put(slice(25, 35), block, block, block), 'not among the 30')
    with TableWriter(tmp_path/'t', names, 30, facts) as w:
        for s in w.missing(): w.put(s, *[np.ones((7, s.stop - s.start))]*3)
    refused(lambda: TableWriter(tmp_path/'t', names, 30, facts).put(slice(0, 10), block, block, block), 'is complete')
    t = load_influence(tmp_path/'t'); assert (t.labels == p.labels).all() and t.n_models == 60 and (t.about['split'] == p.split).all()
    (part_of(tmp_path/'v')).mkdir(); refused(lambda: TableWriter(tmp_path/'v', names, 30, facts), 'something else')
    assert table_stores.read_about(tmp_path/'t')['masks'] == crc(p.masks) and list(FOLDERS) == ['', '.zarr']


def test_command(tmp_path, p):
    ti.save_predictions(p, tmp_path/'own.npz'); run = lambda *args: subprocess.run([BIN/'ti-influence', tmp_path/'own.npz', *args], capture_output=True, text=True)
    code = f'import sys; from transfer_influence.cli.tables import ti_influence as f; [f({str(tmp_path/"own.npz")!r}, x) for x in sys.argv[1:]]'
    r = subprocess.run([sys.executable, '-c', code, *(f'{tmp_path}/t{s}' for s in ALL)], capture_output=True, text=True); assert r.returncode == 0, r.stderr
    for s in FORMS: same(load_influence(f'{tmp_path}/t{s}'), ti.class_influence(p))
    assert len(pd.read_parquet(tmp_path/'t.parquet')) == len(pd.read_csv(tmp_path/'t.csv')) == 210
    for out, words in ((tmp_path/'t.xlsx', '.npz, .zarr, .parquet, .csv'), (tmp_path/'own.npz', 'the file that is read'), (tmp_path, 'something else')):
        start = time.time(); r = run('--out', out, '--method', 'no such method')
        assert r.returncode == 1 and words in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr  # before the method is looked at


def test_two_writers(p, tmp_path):
    "A second process that writes the same table is told so; an unfinished table is not opened, under either name."
    from transfer_influence.influence.table_writer import table_facts
    facts, block = table_facts(p, 'dim', 'margin', 'average'), np.ones((7, 10))
    with TableWriter(tmp_path/'t', p.class_names, 30, facts) as w:
        w.put(slice(0, 10), block, block, block)
        code = 'import sys\nfrom transfer_influence.influence.table_writer import _lock\nfrom pathlib import Path\n_lock(Path(sys.argv[1]))'
        r = subprocess.run([sys.executable, '-c', code, str(tmp_path/'t.part')], capture_output=True, text=True)
        assert 'another process writes' in r.stderr.splitlines()[-1]
    for name in ('t', 't.part'): refused(lambda: load_influence(tmp_path/name), 'not complete', 'goes on with it')


def test_command_says_what_it_does(tmp_path):
    "A folder before a file of its stem, models that are left out, the name that a file got, text files that end as such."
    rng = np.random.default_rng(0); y = rng.normal(size=(60, 40)); y[5, 3] = np.nan; z = rng.random((60, 4)) < .5
    np.savez(tmp_path/'a.npz', masks=z[:20], outputs=y[20:40]); (tmp_path/'a').mkdir()
    np.save(tmp_path/'a/masks.npy', z); np.save(tmp_path/'a/outputs.npy', y)
    def run(*args):
        return subprocess.run([Path(sys.executable).parent/'ti-influence', *map(str, args)], capture_output=True, text=True, cwd=tmp_path)
    r = run('a', '--allow-partial', '--out', 't'); assert '1 of 60 models are left out' in r.stderr and '59 models' in r.stdout, r
    assert r.stdout.splitlines()[-1].endswith('t.npz') and (tmp_path/'t.npz').is_file()
    assert 'end it with .csv' in run('a.npz', '--csv', 't.parquet').stderr and not (tmp_path/'t.parquet').exists()
    assert 'read it with load_influence' in run('t.npz').stderr
    (tmp_path/'b').mkdir(); np.save(tmp_path/'b/mask.npy', z); assert "no array 'masks'" in run('b').stderr
