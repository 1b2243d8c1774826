import os
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_addoption(parser):
    parser.addoption('--nb-flags', default='', help='flagged notebook cells to run too, such as "slow cuda"')


@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent
