"Languages that help to spell others: the command, its refusals, and that a held-out word is in no list."
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.basics.errors import InputError
from transfer_influence.training.own_training import train_own
from transfer_influence.training.words import RELATIVES, TARGETS, split_words, usable_words, word_lists, words_training

DEMO = 'from transfer_influence.cli.demo import ti_demo\nti_demo()\n'


def demo(folder, *args):
    (folder/'demo.py').write_text(DEMO)
    return subprocess.run([sys.executable, folder/'demo.py', *map(str, args)], capture_output=True, text=True, timeout=200)


@pytest.fixture
def no_wordfreq(monkeypatch):
    word_lists.cache_clear(); monkeypatch.setitem(sys.modules, 'wordfreq', None); yield
    word_lists.cache_clear()


def test_demo(tmp_path):
    r = demo(tmp_path, '--words', '--quick', '--quiet', '--out', tmp_path/'run')
    assert r.returncode == 0, r.stderr
    assert 'Who helps most to spell' in r.stdout and 'Portuguese: Spanish' in r.stdout
    assert (tmp_path/'run'/'report.html').stat().st_size > 100_000
    assert ti.load_influence(tmp_path/'run'/'influence.npz').better == 'lower'


@pytest.mark.parametrize('args', [('--classes', 'all'), ('--plant',), ('--curve',), ('--replicates', '3')])
def test_options_that_do_not_go_together(tmp_path, args):
    r = demo(tmp_path, '--words', *args, '--out', tmp_path/'run')
    assert r.returncode == 1 and r.stderr.count('\n') == 1 and f'does not go with {args[0]}' in r.stderr
    assert not (tmp_path/'run').exists()


def test_without_the_extra(no_wordfreq):
    with pytest.raises(InputError, match=r"pip install 'transfer_influence\[words\]'"): words_training()


@pytest.mark.parametrize('copies', (False, True))
def test_held_out_words(copies):
    s = split_words(word_lists(), copies=copies)
    for t, asked in s.held.items():
        assert not set(asked) & set(s.sources[t]) and len(asked) == 500
        found = set(asked) & set(chain(*s.sources.values()))
        assert bool(found) == copies
        assert not set(asked) & set(s.base) or copies
    assert {len(w) for w in s.sources.values()} == {2500}


@pytest.mark.parametrize('model', ('counted', 'trained'))
def test_same_seed_same_bits(model):
    own = words_training(('Danish', 'Czech'), model, 4, **dict(steps=20) if model == 'trained' else {})
    mask = np.arange(len(own.class_names)) % 3 == 0
    a, b = (train_own(own, mask, 5) for _ in range(2))
    for t in ('Danish', 'Czech'): np.testing.assert_array_equal(a[t], b[t])


def test_a_relative_costs_fewer_bits():
    own = words_training(('Danish',)); names = np.array(own.class_names)
    def bits(*with_): return train_own(own, np.isin(names, ['Greek', 'Tamil', *with_]), 0)['Danish'].mean()
    assert bits('Danish') < bits('Norwegian') < bits('Arabic') - .1


def test_own_lists():
    "Any lists do: here two alphabets that have nothing in common, and one that is near the target."
    rng = np.random.default_rng(0)
    def words(letters): return tuple(dict.fromkeys(''.join(rng.choice(list(letters), 7)) for _ in range(3500)))
    lists = dict(target=words('abcdeab'), near=words('abcde'), far=words('uvwxyz'), other=words('mnopqr'))
    own = words_training('target', lists=lists, models=12, alpha=.5)
    rows = {n: train_own(own, np.array([n == k or k == 'other' for k in own.class_names]), 0)['target'].mean() for n in ('near', 'far')}
    assert rows['near'] < rows['far']


@pytest.mark.parametrize('wrong, said', [(dict(model='count'), "did you mean 'counted'"), (dict(steps=3), 'takes no steps'),
                                         (dict(targets='Portugese'), "did you mean 'Portuguese'")])
def test_refused(wrong, said):
    with pytest.raises(InputError, match=said): words_training(**wrong)


def test_short_lists_are_refused():
    with pytest.raises(InputError, match="at least 3200 words, and that of 'A' has 2"): words_training('A', lists=dict(A=('one', 'two'), B=('three',), C=('four',)))


def test_words_in_capitals_and_other_scripts():
    assert usable_words(['Rome', 'the', 'off', 'ΑΒΓ', 'και', 'a1b']) == ('the', 'off')
    assert set(RELATIVES) == set(TARGETS)
