"Data flows one way: a module imports only modules with a lower number; only the training floor imports torch at the top."
import ast
import re
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
order = [re.search(r'#\| default_exp (\w+)', f.read_text('utf-8'))[1] for f in sorted((root/'nbs').glob('[0-9]*.ipynb'))]
TORCH = {'inputs', 'models', 'outputs', 'train', 'resident', 'transfer', 'pipeline'}


def imports(tree):
    "All modules named in imports, at the top or inside functions."
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom): yield ('.' * node.level) + (node.module or '')
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)


def parsed(module): return ast.parse((root/'transfer_influence'/f'{module}.py').read_text('utf-8'))


@pytest.mark.parametrize('module', order)
def test_imports_only_lower_floors(module):
    own = {re.sub(r'^(\.|transfer_influence\.)', '', i) for i in imports(parsed(module)) if i.startswith(('.', 'transfer_influence.'))}
    # figures may be asked of a result: `InfluenceResult.plot` is the one call upwards, made at run time
    allowed = set(order[:order.index(module)]) | ({'plot'} if module == 'influence' else set())
    assert own <= allowed, f'{module} imports {sorted(own - allowed)}, which come after it'


@pytest.mark.parametrize('module', order)
def test_heavy_imports(module):
    body = [n for n in parsed(module).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    top = {i.split('.')[0] for n in body for i in imports(n)}
    assert 'fastai' not in top or module == 'train'
    assert 'torch' not in top or module in TORCH
    assert not top & {'pandas', 'sklearn', 'torchvision', 'mlxtend'}


def test_every_module_has_a_notebook():
    files = {f.stem for f in (root/'transfer_influence').glob('*.py')} - {'__init__', '_modidx'}
    assert files == set(order)
