"The trainers of the tutorial in a job of a cluster: quiet, and nothing is left behind."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# in words of Slurm, of which Lightning would make a cluster
JOB = dict(SLURM_JOB_ID='7', SLURM_JOB_NAME='fleet', SLURM_NTASKS='4', SLURM_PROCID='0', SLURM_LOCALID='0',
           SLURM_NODELIST='localhost', SLURM_NNODES='1', HF_HUB_OFFLINE='1')


def functions(notebook):
    "Its code up to the four fleets, of 8 models each, without a look at what they found."
    cells = [c for c in json.loads(notebook.read_text('utf-8'))['cells'] if c['cell_type'] == 'code']
    sources = [''.join(c['source']) for c in cells]
    last = next(i for i, s in enumerate(sources) if s.startswith('fig, ax'))
    code = '\n'.join(s for s in sources[:last] if '#| hide' not in s).replace('models=48', 'models=8')
    look, then = code.index('    p = fleet.predictions()'), code.index('def plain')
    return code[:look] + '    found[name] = fleet.complete\n' + code[then:]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quiet_in_a_cluster_job(root, tmp_path):
    for package in ('lightning', 'transformers', 'accelerate'): pytest.importorskip(package)
    script, here = tmp_path/'trainers.py', tmp_path/'here'
    here.mkdir()
    code = functions(root/'nbs'/'tutorials'/'10_trainers.ipynb')
    script.write_text(code + '\nprint("ended", *(name for name, complete in found.items() if complete))\n', 'utf-8')
    env = os.environ | JOB | dict(PYTHONPATH=str(root))
    p = subprocess.run([sys.executable, script], cwd=here, env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    assert p.stdout.splitlines()[8:] == ['ended PyTorch fastai Lightning transformers']  # after the eight domains
    assert p.stderr == ''
    assert not list(here.iterdir())
