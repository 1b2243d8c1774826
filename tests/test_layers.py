"Data flows one way: a module imports earlier modules of its floor and lower floors; only the training floor imports torch."
import ast
import re
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = sorted((root/'nbs').glob('[0-9]*/[0-9]*.ipynb'))
order = [re.search(r'#\| default_exp ([\w.]+)', f.read_text('utf-8'))[1] for f in notebooks]
FLOORS = 'basics', 'images', 'design', 'training', 'records', 'fleet', 'influence', 'analysis', 'show', 'cli'
KEPT_APART = {('fleet', 'influence'), ('influence', 'fleet')}  # they meet in records only


def imports(tree, package):
    "All modules named in imports, at the top or inside functions; relative ones from `package`."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        if not isinstance(node, ast.ImportFrom): continue
        above = ['transfer_influence', *package][:2 - node.level + 1] if node.level else []
        base = '.'.join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f'{base}.{a.name}' for a in node.names if base.count('.') < 2)  # `from ..basics import recipe`


def parsed(module): return ast.parse((root/'transfer_influence'/f'{module.replace(".", "/")}.py').read_text('utf-8'))


def own_imports(module):
    names = {i.removeprefix('transfer_influence.') for i in imports(parsed(module), [module.split('.')[0]])
             if i.startswith('transfer_influence')}
    front = {i.split('.')[1] for i in imports(parsed(module), [module.split('.')[0]]) if i.count('.') == 1 and i.startswith('transfer_influence.')}
    assert front <= {*FLOORS, '__version__'}, f'{module} takes {front} from the front door, which is for users'
    return names & set(order)


@pytest.mark.parametrize('module', order)
def test_imports_only_lower_floors(module):
    own = own_imports(module)
    assert own <= set(order[:order.index(module)]), f'{module} imports {sorted(own - set(order[:order.index(module)]))}: not below it'
    floor = module.split('.')[0]
    assert not {(floor, m.split('.')[0]) for m in own} & KEPT_APART


@pytest.mark.parametrize('module', order)
def test_heavy_imports(module):
    body = [n for n in parsed(module).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    top = {i.split('.')[0] for n in body for i in imports(n, [module.split('.')[0]])}
    assert 'fastai' not in top or module == 'training.fastai_loop'
    assert 'torch' not in top or module.startswith('training.')
    assert not top & {'pandas', 'sklearn', 'torchvision', 'mlxtend'}


def test_floors_and_numbers():
    "Ten floors; folder and subpackage have one name, notebook and module too; no number stands twice in a folder."
    folders = sorted(d.name for d in (root/'nbs').glob('[0-9]*') if d.is_dir())
    assert [d[3:] for d in folders] == list(FLOORS) and not list((root/'nbs').glob('[0-9]*.ipynb'))
    assert [f'{f.parent.name[3:]}.{f.stem[3:]}' for f in notebooks] == order
    assert len({(f.parent, f.name[:2]) for f in notebooks}) == len(notebooks)
    assert len({d[:2] for d in folders}) == len(folders)


def test_every_module_has_a_notebook():
    files = {f'{f.parent.name}.{f.stem}' for f in (root/'transfer_influence').glob('*/*.py')} - {f'{x}.__init__' for x in FLOORS}
    assert files == set(order)
    assert {f.name for f in (root/'transfer_influence').glob('*.py')} == {'__init__.py', '_modidx.py'}


def test_only_pages_beside_the_floors():
    "Tutorials, figures and background export nothing."
    for f in (root/'nbs').rglob('*.ipynb'):
        if f not in notebooks and 'checkpoints' not in str(f): assert 'default_exp' not in f.read_text('utf-8'), f.name
