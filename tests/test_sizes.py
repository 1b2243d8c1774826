"The sizes of the house: small cells, small functions, small notebooks."
import ast
import json
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
modules = sorted(f for f in (root/'transfer_influence').rglob('*.py') if f.stem != '_modidx')
notebooks = sorted(f for f in (root/'nbs').rglob('*.ipynb') if 'checkpoints' not in str(f))


def code(text): return [l for l in text.splitlines() if l.strip() and not l.lstrip().startswith('#')]


@pytest.mark.parametrize('path', modules, ids=lambda f: f'{f.parent.name}.{f.stem}')
def test_module(path):
    text = path.read_text('utf-8')
    assert len(code(text)) <= 250
    written = [l for l in text.splitlines() if not l.startswith('__all__')]  # which is generated
    assert max(map(len, written), default=0) <= 120
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef): assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.ExceptHandler): assert node.type is not None, 'bare except'
        if isinstance(node, ast.ImportFrom): assert all(a.name != '*' for a in node.names)
        if not isinstance(node, ast.FunctionDef): continue
        doc = ast.get_docstring(node, clean=False) or ''
        assert node.end_lineno - node.lineno + 1 - len(doc.splitlines()) <= 25, node.name
        params = [a for a in node.args.args + node.args.kwonlyargs + node.args.posonlyargs if a.arg != 'self']
        assert len(params) <= 8 or node.name.startswith('ti_'), node.name  # a parameter of a command is an option


@pytest.mark.parametrize('path', notebooks, ids=lambda f: f'{f.parent.name}.{f.stem}')
def test_notebook(path):
    cells = json.loads(path.read_text('utf-8'))['cells']
    assert path.stat().st_size <= 500_000 and len(cells) <= 60
    prose = sum(c['cell_type'] == 'markdown' for c in cells)/len(cells)
    most = .9 if path.parent.name == 'background' else .6  # pages to read
    assert path.stem == 'index' or .2 <= prose <= most  # the index is the README
    for c in cells:
        source = ''.join(c['source'])
        if source.startswith('#| export'): assert len(code(source)) <= 25, source[:80]
        assert not any(o['output_type'] == 'error' for o in c.get('outputs', []))


def test_readme(root):
    text = (root/'README.md').read_text('utf-8')
    assert len(text.split()) <= 400
    assert any(l.startswith('```') for l in text.splitlines()[:20]), 'code by line 20'
