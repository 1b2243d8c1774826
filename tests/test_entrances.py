"Whatever holds the same numbers gives the same table, or one line that says what to give instead."
import os
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
import xarray as xr
from hypothesis import given, settings, strategies as st

import transfer_influence as ti
from transfer_influence.influence.methods import InfluenceRegressor, estimate
from transfer_influence.influence.regression import ridge
from transfer_influence.records.importers import read_arrays_folder

EXAMPLES = int(os.environ.get('TI_EXAMPLES', 50))  # a long run takes 2,000
many = settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 50, database=None)
pytestmark = pytest.mark.filterwarnings('ignore')
NAMES = ['ant', 'bee', 'cat', 'dog', 'emu']


def one_line(error):
    "A message of one line that is not a dump."
    return '\n' not in str(error) and 10 < len(str(error)) < 400


def by_hand(z, y):
    "Influence as it is defined, in the longest floats there are."
    z, y = np.asarray(z, bool), np.asarray(y, np.longdouble)
    y = y - y.mean(0)
    return np.stack([y[c].mean(0) - y[~c].mean(0) for c in z.T]).astype(float)


def same(values, right): return np.abs(values - right).max() <= 1e-5*np.abs(right).max() + 1e-300


def drawn(seed, m, K, n, offset, scale, whole):
    "Masks in which every class is in some models and out of some, and outputs."
    rng = np.random.default_rng(seed)
    z = np.stack([rng.permutation(np.arange(m) < rng.integers(2, m - 1)) for _ in range(K)], 1)
    y = z @ rng.normal(size=(K, n)) + rng.normal(size=(m, n))
    return z, np.round(100*y).astype(np.int64) + int(offset) if whole else scale*y + offset


arrays = st.builds(drawn, st.integers(0, 10**6), st.integers(6, 20), st.integers(2, 5), st.integers(1, 4),
                   st.sampled_from([0, 0, 1, 1e6, 1e8, -3e9]), st.sampled_from([1, 1, 1e-3, 1e6]), st.booleans())


# containers that hold the same: (values, names of rows, names of columns, generator) -> object

class ColumnsOnly:
    "A generator that leaves the first thing it is asked to shuffle as it is."
    def __init__(self, rng): self.rng, self.asked = rng, 0

    def permutation(self, n):
        self.asked += 1
        return np.arange(n) if self.asked == 1 else self.rng.permutation(n)


def shuffled(a, rows, columns, rng):
    r, c = rng.permutation(len(rows)), rng.permutation(len(columns))
    return a[r][:, c], [rows[i] for i in r], [columns[i] for i in c]


def labelled(a, rows, columns, rng, dims=('model', 'column'), turn=False):
    a, rows, columns = shuffled(a, rows, columns, rng)
    x = xr.DataArray(a, dims=dims, coords=dict(zip(dims, (rows, columns))))
    return x.T if turn else x


PLAIN = dict(
    array=lambda a, *_: a, fortran=lambda a, *_: np.asfortranarray(a), strided=lambda a, *_: np.repeat(a, 2, 0)[::2],
    lists=lambda a, *_: a.tolist(), tuples=lambda a, *_: tuple(map(tuple, a.tolist())), rows=lambda a, *_: list(a),
    generator=lambda a, *_: (r for r in a.tolist()), objects=lambda a, *_: a.astype(object),
    unmasked=lambda a, *_: np.ma.masked_array(a), matrix=lambda a, *_: np.matrix(a),
    longdouble=lambda a, *_: a.astype(np.longdouble),
    torch=lambda a, *_: torch.from_numpy(a.copy()),
    graph=lambda a, *_: torch.from_numpy(a.astype(float)).requires_grad_(),
    tensors=lambda a, *_: [torch.from_numpy(r.copy()) for r in a], sparse=lambda a, *_: scipy.sparse.csr_matrix(a),
    sparse_array=lambda a, *_: scipy.sparse.coo_array(a), frame=lambda a, *_: pd.DataFrame(a),
    nullable=lambda a, *_: pd.DataFrame(a).convert_dtypes(), polars=lambda a, *_: pl.DataFrame(a),
    lazy=lambda a, *_: pl.DataFrame(a).lazy(), arrow=lambda a, *_: pa.table({str(k): c for k, c in enumerate(a.T)}),
    xarray=lambda a, *_: xr.DataArray(a))
def framed(a, rows, columns, rng): return pd.DataFrame(*shuffled(a, rows, columns, rng))


NAMED = dict(named=framed, labelled=labelled, turned=partial(labelled, turn=True))
WRONG = dict(complex=lambda a, *_: a + 1j, text=lambda a, *_: a.astype(str), bytes=lambda a, *_: a.astype('S9'),
             masked=lambda a, *_: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1),
             gone=lambda a, *_: [[None, *r[1:]] for r in a.tolist()],
             ragged=lambda a, *_: [*a.tolist()[:-1], [*a[-1].tolist(), 1.]],
             dates=lambda a, *_: a.astype('M8[s]'), sets=lambda a, *_: {1, 2}, nothing=lambda a, *_: None,
             word=lambda a, *_: 'masks',
             column=lambda a, *_: pd.DataFrame(a).assign(model='a'), records=lambda a, *_: np.zeros(len(a), 'i4,f4'))
kinds = st.sampled_from([*PLAIN]*2 + [*NAMED]*8 + [*WRONG])
ALL = PLAIN | NAMED | WRONG


def made(kind, a, columns, rng, other):
    "The values in a container; named ones in an order of their own, of rows where the `other` has names, too."
    rows, more = [f'run {i}' for i in range(len(a))], {}
    if kind in NAMED and other not in NAMED: rng = ColumnsOnly(rng)
    if kind in ('labelled', 'turned'): more = dict(dims=('model', 'class' if columns[0] in NAMES else 'image'))
    return ALL[kind](a, rows, columns, rng, **more)


def attempt(f, *given_kinds):
    "What a function gives, or None where it refuses in one line what it may refuse."
    try: return f()
    except ti.InputError as e:
        assert one_line(e), e
        axes = {'named': 'pandas', 'labelled': 'xarray', 'turned': 'xarray'}
        mixed = len({axes.get(k) for k in given_kinds}) > 1  # names, or what the axes are, on one side only
        assert mixed or any(k in WRONG for k in given_kinds), f'{given_kinds}: {e}'


def names_along(x):
    "The names of the models and of the columns of a labelled object, each in its order."
    if isinstance(x, pd.DataFrame): return list(x.index), list(x.columns)
    return [x.coords[d].values.tolist() for d in ('model', next(d for d in x.dims if d != 'model'))]


def pair(zy, kind_z, kind_y, seed):
    "Masks and outputs in containers; the arrays in the order of their models; where the columns stand in these."
    rng, known = np.random.default_rng(seed), [NAMES[:zy[0].shape[1]], [f'{j}.png' for j in range(zy[1].shape[1])]]
    Z, Y = made(kind_z, zy[0], known[0], rng, kind_y), made(kind_y, zy[1], known[1], rng, kind_z)
    order = [[usual.index(c) for c in names_along(x)[1]] if kind in NAMED else list(range(len(usual)))
             for x, usual, kind in ((Z, known[0], kind_z), (Y, known[1], kind_y))]
    models = [int(n.split()[1]) for n in names_along(Z)[0]] if kind_z in NAMED else slice(None)
    return Z, Y, [a[models] for a in zy], *order


def centred(y): return np.asarray(y - np.asarray(y, np.longdouble).mean(0), float)


@many
@given(arrays, kinds, kinds, st.integers(0, 99))
def test_from_arrays(zy, kind_z, kind_y, seed):
    Z, Y, (z, y), rows, columns = pair(zy, kind_z, kind_y, seed); names = NAMES[:z.shape[1]]
    p = attempt(lambda: ti.from_arrays(Z, Y, class_names=names if seed % 2 else None), kind_z, kind_y)
    if p is None: return
    if seed % 2: rows = range(len(names)) # the order asked for
    if kind_z in NAMED or seed % 2: assert p.class_names == tuple(names[k] for k in rows)
    assert same(ti.class_influence(p).values, by_hand(z, y)[rows][:, columns]), (kind_z, kind_y)


@many
@given(arrays, kinds, kinds, st.sampled_from(['dim', 'ridge', 'mixed', 'dim_shrunk']), st.integers(0, 99))
def test_estimate(zy, kind_z, kind_y, method, seed):
    Z, Y, (z, y), rows, columns = pair(zy, kind_z, kind_y, seed)
    e = attempt(lambda: estimate(Z, Y, method), kind_z, kind_y)
    if e is None: return
    assert same(e.values, estimate(z, centred(y), method).values[rows][:, columns]), (kind_z, kind_y, method)


@many
@given(arrays, kinds, kinds, st.integers(0, 99))
def test_regressor(zy, kind_z, kind_y, seed):
    Z, Y, (z, y), rows, columns = pair(zy, kind_z, kind_y, seed)
    r = attempt(lambda: InfluenceRegressor().fit(Z, Y), kind_z, kind_y)
    if r is not None: assert same(r.coef_, InfluenceRegressor().fit(z, centred(y)).coef_[columns][:, rows])


def listed(x): return [*x]


GOOD_NAMES = dict(list=listed, tuple=tuple, array=np.array, bytes=lambda x: np.array([n.encode() for n in x]),
                  objects=lambda x: np.array(x, object),
                  series=pd.Series, index=pd.Index, polars=lambda x: pl.Series(x), arrow=pa.array,
                  number_of=lambda x: {n: k for k, n in enumerate(x)},
                  name_of=lambda x: dict(enumerate(x)), json=lambda x: {str(k): n for k, n in enumerate(x)},
                  reversed=lambda x: dict([*enumerate(x)][::-1]),
                  generator=iter, keys=lambda x: dict.fromkeys(x).keys(), categories=pd.Categorical,
                  xarray=lambda x: xr.DataArray(x))
BAD_NAMES = dict(set=set, frozenset=frozenset, twice=lambda x: [x[0], *x[:-1]], empty=lambda x: ['', *x[1:]],
                 none=lambda x: [None, *x[1:]],
                 nan=lambda x: [np.nan, *x[1:]], short=lambda x: x[1:], text=lambda x: ''.join(n[0] for n in x),
                 number=len, latin=lambda x: [b'\xff', *x[1:]],
                 gap=lambda x: {k + 1: n for k, n in enumerate(x)}, weights=lambda x: {n: .5 for n in x})


@many
@given(st.lists(st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1).filter(str.strip),
                min_size=3, max_size=5, unique=True),
       st.sampled_from([*GOOD_NAMES, *BAD_NAMES]))
def test_names(names, kind):
    z, y = drawn(1, 9, len(names), 2, 0, 1, False)
    if kind == 'bytes' and any(n.endswith('\0') for n in names): return
    makers = [lambda x: ti.from_arrays(z, y, class_names=x), lambda x: ti.OwnTarget(np.arange(len(names)), x)]
    for make in makers + [lambda x: ti.sample_masks(9, x)]*(kind != 'short'): # which has no number to compare with
        x = (GOOD_NAMES | BAD_NAMES)[kind](names)
        try: found = make(x).class_names
        except ti.InputError as e: assert kind in BAD_NAMES and one_line(e), (kind, e)
        else: assert kind in GOOD_NAMES and found == tuple(names), kind


GOOD_LABELS = dict(numbers=listed, array=np.array, floats=lambda x: np.array(x, float),
                   objects=lambda x: np.array(x, object), torch=torch.tensor,
                   series=pd.Series, polars=pl.Series, column=lambda x: np.array(x)[:, None],
                   small=lambda x: np.array(x, np.uint8),
                   words=lambda x: [NAMES[k] for k in x],
                   categories=lambda x: pd.Series(pd.Categorical([NAMES[k] for k in x])),
                   bytes=lambda x: np.array([NAMES[k].encode() for k in x]),
                   bf16=lambda x: torch.tensor(x, dtype=torch.bfloat16))
BAD_LABELS = dict(half=lambda x: [.5, *x[1:]], none=lambda x: [None, *x[1:]], several=lambda x: [[k, k] for k in x],
                  ragged=lambda x: [[k]*(1 + i % 2) for i, k in enumerate(x)],
                  onehot=lambda x: np.eye(3)[x], complex=lambda x: np.array(x) + 0j,
                  masked=lambda x: np.ma.masked_array(x, np.arange(len(x)) == 0),
                  negative=lambda x: [-1, *x[1:]], large=lambda x: [99, *x[1:]],
                  word=lambda x: ['zebra', *(NAMES[k] for k in x[1:])], set=set,
                  mixed=lambda x: [NAMES[0], *x[1:]], short=lambda x: x[1:])


@many
@given(st.permutations([0, 1, 2, 0, 1, 2]), st.sampled_from([*GOOD_LABELS, *BAD_LABELS]))
def test_labels(labels, kind):
    z, y = drawn(1, 9, 3, 6, 0, 1, False); images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    for make in (lambda x: ti.from_arrays(z, y, labels=x, target_class_names=NAMES[:3]),
                 lambda x: ti.ImageSet(images, x, NAMES[:3]),
                 lambda x: ti.OwnTarget(x, NAMES[:3])):
        x = (GOOD_LABELS | BAD_LABELS)[kind](labels)
        try: found = make(x).labels
        except ti.InputError as e: assert kind in BAD_LABELS and one_line(e), (kind, e)
        else: assert kind in GOOD_LABELS and found.tolist() == labels or kind == 'short' and len(found) == 5, kind


@many
@given(st.integers(0, 999), st.sampled_from(['uint8', 'float', 'bool', 'int', 'torch', 'lists', 'masked', 'wide',
                                             'grey', 'short']))
def test_image_set(seed, kind):
    a = np.random.default_rng(seed).integers(0, 256, (6, 1 + seed % 4, 3, 1), np.uint8)
    x = dict(uint8=lambda: a, float=lambda: a/255, bool=lambda: a > 9, int=lambda: a.astype(int),
             torch=lambda: torch.from_numpy(a), lists=lambda: a.tolist(),
             masked=lambda: np.ma.masked_array(a, a < 99), wide=lambda: a.repeat(2, 3), grey=lambda: a[..., 0],
             short=lambda: a[:-1])[kind]()
    try: s = ti.ImageSet(x, [0, 1, 2]*2, NAMES[:3])
    except ti.InputError as e: assert one_line(e) and kind not in ('uint8', 'torch', 'grey')
    else: assert kind in ('uint8', 'torch', 'grey') and (s.images == a).all()


@many
@given(st.integers(0, 99), st.sampled_from(['list', 'series', 'dict', 'frame', 'polars', 'torch', 'complex', 'other',
                                            'text', 'nan', 'masked']))
def test_prior(seed, kind):
    z, y = drawn(seed, 20, 5, 3, 0, 1, False); rng = np.random.default_rng(seed); prior = rng.normal(size=5)
    order = rng.permutation(5)
    mixed_up = {NAMES[k]: prior[k] for k in order}
    x = dict(list=lambda: prior.tolist(), series=lambda: pd.Series(mixed_up), dict=lambda: mixed_up,
             frame=lambda: pd.DataFrame({j: mixed_up for j in range(3)}),
             polars=lambda: pl.Series(prior), torch=lambda: torch.tensor(prior), complex=lambda: prior + 1j,
             other=lambda: {n + '!': 1. for n in NAMES},
             text=lambda: NAMES, nan=lambda: [np.nan, *prior[1:]],
             masked=lambda: np.ma.masked_array(prior, [1, 0, 0, 0, 0]))[kind]()
    p = ti.from_arrays(z, y, NAMES); right = ti.class_influence(p, method='ridge', prior=prior)
    try: found = ti.class_influence(p, method='ridge', prior=x)
    except ti.InputError as e: assert one_line(e) and kind in ('complex', 'other', 'text', 'nan', 'masked'), (kind, e)
    else:
        assert np.allclose(found.values, right.values), kind
        assert np.allclose(found.mean().values, right.mean().values), kind


FILES = dict(bool=bool, int=int, uint8='u1', float='f8', half='f2', big='>f8', text='U5', bytes='S5', complex=complex)


@many
@given(arrays, st.sampled_from([*FILES]), st.sampled_from([*FILES]), st.booleans())
def test_files(tmp_path_factory, zy, kind_z, kind_y, folder):
    z, y = zy; path = tmp_path_factory.mktemp('arrays')
    with np.errstate(all='ignore'): a, b = z.astype(FILES[kind_z]), y.astype(FILES[kind_y])
    if folder: np.save(path/'masks.npy', a); np.save(path/'margins.npy', b)
    else: np.savez(path/'p.npz', masks=a, outputs=b, class_names=np.array([n.encode() for n in NAMES[:z.shape[1]]]))
    try: p = read_arrays_folder(path) if folder else ti.load_predictions(path/'p.npz')
    except ti.InputError as e: assert one_line(e), e; return
    assert kind_z not in ('text', 'bytes', 'complex') and kind_y not in ('text', 'bytes', 'complex')
    if not folder: assert p.class_names == tuple(NAMES[:z.shape[1]])
    right = by_hand(z, b)
    if np.isfinite(right).all() and (b != b[0]).any(): assert same(ti.class_influence(p).values, right)


# what outsiders met, one by one

def table(**arrays): return ti.class_influence(ti.from_arrays(**arrays)).values


@pytest.mark.parametrize('method', ['dim', 'ridge'])
@pytest.mark.parametrize('shift', [lambda y: y + 1e8, lambda y: y - 3e9, lambda y: (y + 1e6)*1e6,
                                   lambda y: np.round(1e4*y).astype(np.int64) + 10**9,
                                   lambda y: np.round(1e4*y).astype(np.int32) + 2_000_000_000])
def test_an_offset_changes_nothing(shift, method):
    z, y = drawn(3, 40, 4, 5, 0, 1, False)
    scale = 1e6 if shift(0.) == 1e12 else 1e4 if np.asarray(shift(y)).dtype.kind == 'i' else 1
    right = ti.class_influence(ti.from_arrays(z, np.round(1e4*y) if scale == 1e4 else scale*y), method=method)
    found = ti.class_influence(ti.from_arrays(z, shift(y)), method=method)
    assert same(found.values, right.values) and same(found.stderr, right.stderr)


def test_masked_outputs_are_not_averaged_in():
    z, y = drawn(4, 12, 3, 2, 0, 1, False); place = np.arange(24).reshape(12, 2) == 5
    gone = np.ma.masked_values(np.where(place, -999, y), -999)
    with pytest.raises(ti.InputError, match='NaN or infinite values in 1 models'): ti.from_arrays(z, gone)
    p = ti.from_arrays(z, gone, allow_partial=True); rest = np.arange(12) != 2
    assert p.left_out == 1 and same(ti.class_influence(p, missing='mask').values, by_hand(z[rest], y[rest]))
    masked = np.ma.masked_array(z, np.arange(36).reshape(12, 3) == 0), np.ma.masked_array([0, 1], [True, False])
    with pytest.raises(ti.InputError, match='masks lack 1 of 36'): ti.from_arrays(masked[0], y)
    with pytest.raises(ti.InputError, match='labels lack 1 of 2'): ti.from_arrays(z, y, labels=masked[1])


def test_shares_and_text_are_no_masks():
    z, y = drawn(5, 12, 3, 2, 0, 1, False)
    for make in (lambda x: ti.from_arrays(x, y), lambda x: InfluenceRegressor().fit(x, y), lambda x: estimate(x, y),
                 lambda x: ridge(x, y)):
        with pytest.raises(ti.InputError, match='shares such as 0.5'): make(z*.5)
        with pytest.raises(ti.InputError, match="compare it: (masks|X) == '1'"): make(z.astype(int).astype(str))
        with pytest.raises(ti.InputError, match="compare it: (masks|X) == 'True'"): make(z.astype(str))
    assert same(table(masks=z.astype(float), outputs=y), by_hand(z, y))


def test_named_axes():
    "Labels, a second output, class names, models and a prior are put in order by name."
    z, y = drawn(6, 12, 3, 4, 0, 1, False); images, runs = list('dcba'), [f'run {i}' for i in range(12)]
    frame, labels = pd.DataFrame(y, runs, images), pd.Series(['cat', 'dog', 'cat', 'cat'], images)
    p = ti.from_arrays(pd.DataFrame(z, runs, NAMES[:3]).sample(frac=1, random_state=0),
                       dict(a=frame, b=-frame[sorted(images)]), labels=labels[::-1],
                       class_names=NAMES[2::-1])
    assert p.class_names == ('cat', 'bee', 'ant') and [p.target_class_names[k] for k in p.labels] == list(labels)
    assert (p.outputs['a'] == -p.outputs['b']).all() and same(ti.class_influence(p, 'a').values, by_hand(z, y)[::-1])
    for wrong in (dict(class_names=['ant', 'bee', 'fly']), dict(labels=pd.Series(0, list('abcx'))),
                  dict(outputs=frame.rename(index={'run 0': 'run 99'}))):
        with pytest.raises(ti.InputError, match='different names'):
            ti.from_arrays(**dict(masks=pd.DataFrame(z, runs, NAMES[:3]), outputs=frame) | wrong)
    with pytest.raises(ti.InputError, match='numbered in another order'): ti.from_arrays(z, pd.DataFrame(y)[::-1])


def test_the_index_of_a_csv_file(tmp_path):
    z, y = drawn(7, 12, 3, 2, 0, 1, False); pd.DataFrame(y).to_csv(tmp_path/'y.csv')
    with pytest.warns(UserWarning, match=r"the first column \('Unnamed: 0'\) of output 'output' counts the rows"):
        ti.from_arrays(z, pd.read_csv(tmp_path/'y.csv'))


def test_names_of_models_are_no_output():
    z, y = drawn(8, 12, 3, 2, 0, 1, False)
    for frame in (pd.DataFrame(y).assign(model='a'), pl.DataFrame(y).with_columns(model=pl.lit('a')),
                  pa.table(dict(a=y[:, 0], model=['a']*12))):
        with pytest.raises(ti.InputError, match="the column 'model' of output 'output' holds no numbers"):
            ti.from_arrays(z, frame)


def trained(subset, seed, device): return 'A' in subset.names


def broken(model): raise ValueError('shapes (6,) and (7,)')


def test_a_mistake_in_own_code_ends_the_session(tmp_path):
    "Forty models are not trained to fail alike; the place in the user's code is named once."
    own = ti.OwnTraining(trained, broken, list('ABCD'),
                         dict(task=ti.OwnTarget(np.zeros(6, int), ['all'], scores=False)), run=ti.RunSpec(models=40))
    for engine in ('local', 'here'):
        place = r'\(.*test_entrances.py, line \d+, in broken\)'
        said = r'the first 3 models failed alike: ValueError: shapes \(6,\) and \(7,\) ' + place
        with pytest.raises(ti.UserError, match=said):
            ti.Fleet(own, tmp_path/engine).run(engine, workers=1 if engine == 'local' else None, quiet=True)


def test_classes_of_own_training_are_those_of_the_source():
    s = ti.ImageSet(np.zeros((4, 2, 2, 1), np.uint8), [0, 1, 2, 3], ['zebra', 'ant', 'bee', 'cat'])
    with pytest.raises(ti.InputError, match="in another order: number 0 is 'ant' here and 'zebra' there"):
        ti.OwnTraining(trained, broken, sorted(s.class_names), dict(task=ti.OwnTarget([0], ['all'], False)), s)
