import os
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_addoption(parser):
    parser.addoption('--nb-flags', default='', help='flagged notebook cells to run too, such as "slow cuda"')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes long; runs with --nb-flags slow, as in .ci/run')


def pytest_collection_modifyitems(config, items):
    if 'slow' in config.getoption('--nb-flags').split(): return
    skip = pytest.mark.skip(reason='takes long: --nb-flags slow, as in .ci/run')
    for item in items:
        if item.get_closest_marker('slow'): item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    "The tests of a file share its fixtures, so one process runs them all; notebooks share nothing and fill the gaps."
    from xdist.scheduler import LoadScopeScheduling
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split('::')[0]
            return nodeid if file.endswith('test_notebooks.py') else file
    return ByFile(config, log)


@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent
