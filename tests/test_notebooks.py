"Every notebook runs from top to bottom."
from pathlib import Path
import os

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_nb

here = Path(__file__).resolve().parent
config = get_config(path=here)
LONG = ('02_scaling_up', '04_cleaning_a_source', '05_your_own_data', '08_train_less', '09_your_own_training', '10_trainers')  # a minute each: .ci/run runs them, with --nb-flags slow
notebooks = sorted(nbglob(config.nbs_path, as_path=True), key=lambda f: (f.stem not in LONG, f))  # the long ones first


def with_time(f): return pytest.param(f, marks=pytest.mark.timeout(600 if f.stem in LONG else 240), id=f'{f.parent.name}/{f.stem}')


@pytest.fixture
def environment():
    "A notebook may set variables; the next test has its own again."
    before = dict(os.environ); yield
    os.environ.clear(); os.environ.update(before)


@pytest.mark.parametrize('notebook', [with_time(f) for f in notebooks])
def test_notebook(notebook, request, monkeypatch, environment):
    flags = request.config.getoption('--nb-flags').split()
    if notebook.stem in LONG and 'slow' not in flags: pytest.skip('takes a minute: --nb-flags slow, as in .ci/run')
    if notebook.stem not in LONG: flags = [f for f in flags if f != 'slow']
    monkeypatch.chdir(notebook.parent)
    ok, _ = run_nb(notebook, skip_flags=config.tst_flags.split(), basepath=config.config_path, force_flags=flags)
    assert ok, 'the traceback is in the captured stderr'
