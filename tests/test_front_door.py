"`import transfer_influence as ti`: every name is there, each is loaded when first used, nothing heavy before."
import ast
import subprocess
import sys

import pytest

import transfer_influence as ti

HEAVY = 'torch', 'torchvision', 'fastai', 'pandas', 'matplotlib', 'zarr', 'numpy', 'scipy', 'sklearn'


def stub(root): return ast.parse((root/'transfer_influence'/'__init__.pyi').read_text('utf-8'))


@pytest.mark.parametrize('name', sorted(ti.__all__))
def test_name(name):
    thing = getattr(ti, name)
    assert thing.__name__ == name and (thing.__doc__ or '').strip()
    assert name in sys.modules[thing.__module__].__all__


def test_listed(root):
    "`dir` and completion show all names, and those only."
    written = {a.asname for n in stub(root).body for a in n.names}
    assert set(dir(ti)) == set(ti.__all__) == written


def test_unknown_name():
    with pytest.raises(AttributeError, match='class_influense'): ti.class_influense


def test_light():
    code = f'import sys, transfer_influence; print([m for m in {HEAVY} if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_deep_imports_do_not_hide_names():
    "A subpackage never takes the place of a name, in whatever order they are imported."
    code = 'import transfer_influence as ti, transfer_influence.analysis.explore, transfer_influence.influence; print(callable(ti.explore), callable(ti.digits))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'True True'
