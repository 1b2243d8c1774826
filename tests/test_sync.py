"What is made from notebooks is what the notebooks say."
import filecmp
import json
import re
import shutil
import subprocess
import sys

import pytest
from configparser import ConfigParser
import tomllib


@pytest.fixture
def copy(root, tmp_path):
    for name in ('nbs', 'transfer_influence', 'docs', 'results'):
        shutil.copytree(root/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'pyproject.toml', 'README.md'): shutil.copy(root/name, tmp_path/name)
    return tmp_path


def run(code, cwd): return subprocess.run([sys.executable, '-c', code], cwd=cwd, check=True, capture_output=True, text=True)


def differing(a, b):
    found = filecmp.dircmp(a, b, ignore=['__pycache__', '.ipynb_checkpoints'])
    changed = [f for f in found.common_files if (a/f).read_bytes() != (b/f).read_bytes()]
    return changed + found.left_only + found.right_only + [f'{d}/{x}' for d in found.common_dirs for x in differing(a/d, b/d)]


def test_export(root, copy):
    run('from nbdev import nbdev_export; nbdev_export()', copy)
    assert differing(root/'transfer_influence', copy/'transfer_influence') == [], 'run nbdev-export'


def test_clean(root, copy):
    run('from nbdev.clean import nbdev_clean; nbdev_clean()', copy)
    assert differing(root/'nbs', copy/'nbs') == [], 'run nbdev-clean'


def test_readme(root, tmp_path):
    subprocess.run([sys.executable, root/'docs'/'make_readme.py', tmp_path], check=True)
    assert (tmp_path/'README.md').read_text('utf-8') == (root/'README.md').read_text('utf-8'), 'run python docs/make_readme.py'
    assert differing(root/'docs'/'images', tmp_path/'docs'/'images') == []


def test_saved_outputs(root):
    "They hold no warnings and no paths of the machine that ran the notebook."
    here = re.compile(r'/(tmp|home|root|Users|var)/\w|\.venv|site-packages')
    for f in (root/'nbs').rglob('*.ipynb'):
        for output in (o for c in json.loads(f.read_text('utf-8'))['cells'] for o in c.get('outputs', [])):
            text = ''.join(output.get('text', []) or output.get('data', {}).get('text/plain', []))
            assert output.get('name') != 'stderr' and not here.search(text), f'{f.name}: {text[:200]}'


def test_settings_agree(root):
    ini = ConfigParser(delimiters=['=']); ini.read(root/'settings.ini', encoding='utf-8')
    toml = tomllib.loads((root/'pyproject.toml').read_text('utf-8'))['tool']['nbdev']
    for key in ('title', 'lib_path', 'nbs_path', 'doc_path', 'tst_flags'): assert toml[key] == ini['DEFAULT'][key]
    assert f'"{ini["DEFAULT"]["version"]}"' in (root/'transfer_influence'/'__init__.py').read_text()
    assert set(toml['strip_libs']) == {ini['DEFAULT']['lib_name']}


def test_cff_version(root):
    ini = ConfigParser(delimiters=['=']); ini.read(root/'settings.ini', encoding='utf-8')
    assert f'version: {ini["DEFAULT"]["version"]}' in (root/'CITATION.cff').read_text('utf-8')


HEADLINES = {'cifar10_1_top_classes': ('49 of 100 in the same category, 20.7 expected',), 'cifar10_alpha': ('20 times fewer seconds (at least 8)',),
             'cifar10_budget': ('391 steps, most negative, 100 left out: +5.66 ± 0.35 points', 'reaches after 409',),
             'targets': ('6 of 6 rows with a gain over all classes', '6 of 6 with a gain over random removal'),
             'cifar10_2_removal_curve': ('most positive, 80 removed, against 80 at random: -2.59', 'most negative, 80 removed, against 80 at random: +1.62')}


@pytest.mark.parametrize('name', HEADLINES)
def test_measured_numbers_of_the_readme(root, name):
    "The README's numbers stand in the outputs of the notebooks that it links to."
    assert f'{name}.ipynb' in (root/'README.md').read_text('utf-8')
    cells = json.loads((root/'nbs'/'figures'/f'{name}.ipynb').read_text('utf-8'))['cells']
    said = ''.join(''.join(o.get('text', '')) for c in cells for o in c.get('outputs', []))
    for words in HEADLINES[name]: assert words in said
