import os
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_addoption(parser):
    parser.addoption('--nb-flags', default='', help='flagged notebook cells to run too, such as "slow cuda"')


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "The tests of a file share its fixtures, so one process runs them all; notebooks share nothing and fill the gaps."
    for item in items:
        if item.path.stem != 'test_notebooks': item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent
