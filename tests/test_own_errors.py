"Training of one's own from a shell: a file to begin with, what goes wrong in it, what it prints, in real processes."
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import transfer_influence as ti
from transfer_influence.fleet.fleet import Fleet
from transfer_influence.fleet.training_file import load_training

BIN = Path(sys.executable).parent
HEAD = '''import os, sys, warnings, threading
import numpy as np
import transfer_influence as ti
names = list('ABCDEF')
effects = np.array([3., 1, 0, 0, -1, -3])
def train(subset, seed, device): return effects@subset.mask + .1*np.random.default_rng(seed).normal()
def evaluate(model): return model + np.arange(5.)
'''
TAIL = "training = ti.OwnTraining(train, evaluate, names, dict(task=ti.OwnTarget(5)), run=ti.RunSpec(models=8))\n"


def command(name, *args, cwd):
    "Run the installed command; its exit status, what it printed, what it told."
    r = subprocess.run([BIN/f'ti-{name}', *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in r.stderr, r.stderr
    return r.returncode, r.stdout, r.stderr


def run_own(folder, functions, *options, tail=TAIL, workers=1):
    "`ti-run` on a file with these functions in place of the plain ones."
    (folder/'my_own.py').write_text(HEAD + functions + '\n' + tail)
    return command('run', 'my_own.py', '--out', 'run', '--quiet', '--workers', workers, *options, cwd=folder)


def test_a_file_to_begin_with(tmp_path):
    "It runs as it stands; the planted unit is first; the commands that it names work; a second file is refused."
    status, out, _ = command('run', '--new', 'my_training.py', cwd=tmp_path)
    assert status == 0 and 'ti-run my_training.py --out run' in out
    lines = [l for l in (tmp_path/'my_training.py').read_text().splitlines() if l.strip() and not l.lstrip().startswith('#')]
    assert len(lines) <= 35
    assert command('run', '--new', 'my_training.py', cwd=tmp_path)[::2][0] == 1
    status, out, told = command('run', 'my_training.py', '--out', 'run', '--quiet', cwd=tmp_path)
    assert status == 0, told
    own = load_training(tmp_path/'my_training.py')
    mean = ti.class_influence(Fleet(own, tmp_path/'run').predictions(), over='target')
    assert mean.class_names[mean.values[:, 0].argmax()] == 'site 3'  # it raises the error most
    assert command('report', 'run', cwd=tmp_path)[0] == 0
    assert '200 of 200' in command('status', 'run', cwd=tmp_path)[1]
    asked = 'run', '--training', 'my_training.py', '--ks', '1', '--replicates', '2', '--quiet'
    status, out, told = command('curve', *asked, cwd=tmp_path)
    assert status == 0 and 'better' in out, told
    status, _, told = command('curve', 'run', cwd=tmp_path)
    assert status == 1 and '--training my_training.py' in told
    status, _, told = command('curve', *asked, '--steps', '300', cwd=tmp_path)
    assert status == 1 and '--steps' in told


BROKEN = {  # functions: what is said
    'def evaluate(model): return np.zeros(4)': r'model \d: evaluate_fn gave an array of \(4,\) for .*not \(5,\)',
    'def evaluate(model): return None': r'model \d: .*',
    'def evaluate(model): return "text"': r'model \d: .*',
    'def evaluate(model): return dict(other=np.zeros(5))': r"model \d: evaluate_fn gave targets \['other'\], not \['task'\]",
    'def evaluate(model): raise ValueError(f"no {model}")': r'the first 3 models failed alike: ValueError: no .*'
                                                            r'\(my_own.py, line 8, in evaluate\)',
    'def evaluate(model): exit(3)': r'failed alike: SystemExit: it called exit\(\).*\(my_own.py, line 8, in evaluate\)',
    'def train(subset, seed, device): os._exit(3)': r'failed alike: WorkerDied: .*does train_fn end the process',
    'lock = threading.Lock()\ndef evaluate(model):\n    with lock: return np.zeros(5)': r'evaluate_fn holds what cannot '
                                                                                   r'be sent .*--engine here',
    'def train(subset, seed, device):\n    import nothing_there': r"failed alike: ModuleNotFoundError: No module named "
                                                                  r"'nothing_there' \(my_own.py, line 9, in train\)",
    'def train(subset, seed, device): return 1.': 'all 8 models give exactly the same outputs.*subset.mask or subset.names',
}


@pytest.mark.parametrize('functions', BROKEN)
def test_a_broken_function_is_one_line(tmp_path, functions):
    status, out, told = run_own(tmp_path, functions, '--retries', 0)
    assert status == 1 and re.search(BROKEN[functions], told), told
    assert len(told.strip().splitlines()) == 1, told


def test_some_models_fail(tmp_path):
    "Others go on; failures that are alike are told once, with their number and place; the same command goes on."
    some = '''def train(subset, seed, device):
    if subset.model in (4, 9, 11): raise ValueError(f'{-2.5*subset.model} is too low')
    return effects@subset.mask
'''
    status, out, told = run_own(tmp_path, some, '--models', 20)
    lines = [l for l in told.splitlines() if not l.startswith('note')]
    assert status == 1 and len(lines) == 2, told
    assert re.search(r'3 models failed alike \(4, 9, 11\), such as model 4: ValueError: -10.0 is too low \(my_own.py, line 9, in '
                     r'train\)', lines[0]), told
    assert re.search(r'3 models failed alike', command('status', 'run', cwd=tmp_path)[1])


def test_some_models_have_another_shape(tmp_path):
    "Once models are trained, one of another shape is a failure of its own."
    some = 'def train(subset, seed, device): return subset.model\ndef evaluate(model): return model + np.zeros(4 if model == 6 else 5)'
    status, _, told = run_own(tmp_path, some)
    assert status == 1 and 'model 6 failed: evaluate_fn gave an array of (4,)' in told, told
    assert '7 of 8 models' in told


def test_numbers_of_any_kind(tmp_path):
    "Integers, half precision, tensors with gradients: all are recorded."
    for k, made in enumerate(('np.round(x).astype(int)', 'x.astype(np.float16)', 'torch.tensor(x, requires_grad=True)',
                              'torch.tensor(x).to(torch.bfloat16)', 'list(x)')):
        folder = tmp_path/str(k); folder.mkdir()
        f = f'import torch\ndef evaluate(model):\n    x = model + np.arange(5.)\n    return {made}'
        status, out, told = run_own(folder, f)
        assert status == 0, (made, told)
        y = Fleet(load_training(folder/'my_own.py'), folder/'run').predictions().output()[1]
        assert np.allclose(np.diff(y, axis=1), 1, atol=.1), made


def test_outputs_that_are_no_numbers(tmp_path):
    status, _, told = run_own(tmp_path, 'def evaluate(model): return np.full(5, np.nan)', '--models', 20)
    assert status == 1 and 'not finite' in told and len(told.strip().splitlines()) == 1, told


def test_prints_and_warnings(tmp_path):
    "Of the first model prints are shown, on standard error; a warning is told once, however many workers meet it."
    says = '''def evaluate(model):
    print('training took', 3); print('told', file=sys.stderr); os.system('echo from a shell')
    warnings.warn(f'loss {model:.3f} is high'); return model + np.arange(5.)'''
    status, out, told = run_own(tmp_path, says, workers=2)
    assert status == 0 and 'training took' not in out and 'from a shell' not in out
    assert told.count('training took 3') == 1 and told.count('\ntold') == 1, told
    assert told.count('is shown of model 0 only') == 1
    assert told.count('UserWarning') == 1 and 'is high (my_own.py, line 10)' in told
    status, out, told = run_own(tmp_path, 'print("at import")' + '\n' + says, '--models', 10)
    assert status == 0 and 'at import' in told and 'at import' not in out
    assert 'UserWarning' not in told  # it is known to the run


@pytest.mark.parametrize('engine', ['here'])
def test_in_this_process(tmp_path, engine):
    "What cannot be sent is trained here; prints stay apart from the results."
    f = 'lock = threading.Lock()\ndef evaluate(model):\n    print("hello")\n    with lock: return model + np.arange(5.)'
    (tmp_path/'my_own.py').write_text(HEAD + f + '\n' + TAIL)
    status, out, told = command('run', 'my_own.py', '--out', 'run', '--engine', engine, '--quiet', cwd=tmp_path)
    assert status == 0 and 'hello' not in out and 'hello' in told
    status, out, told = command('run', 'my_own.py', '--dry-run', '--engine', engine, cwd=tmp_path)
    assert status == 0 and '8 models, about' in out


def test_outputs_that_only_vary_by_chance(tmp_path):
    "A training that never looks at its subset is noticed at the end."
    f = 'def train(subset, seed, device): return np.random.default_rng(seed).normal(size=5)\ndef evaluate(model): return model'
    status, _, told = run_own(tmp_path, f, '--models', 60)
    assert status == 0 and told.count('Does train_fn use subset.mask or subset.names?') == 1, told
    status, _, told = run_own(tmp_path, '', '--models', 60, '--out', 'other')
    assert status == 0 and 'Does train_fn' not in told, told


def test_modules_beside_the_file(tmp_path):
    "They go to the workers with the file, also where the command is given elsewhere."
    (tmp_path/'deep').mkdir(); (tmp_path/'deep'/'my_parts.py').write_text('def shift(): return 2.\n')
    f = 'from my_parts import shift\nimport my_parts\ndef evaluate(model): return model + shift()*np.arange(5.) + 0*my_parts.shift()'
    (tmp_path/'deep'/'my_own.py').write_text(HEAD + f + '\n' + TAIL)
    status, _, told = command('run', 'deep/my_own.py', '--out', 'run', '--quiet', '--workers', 1, cwd=tmp_path)
    assert status == 0, told
    status, _, told = command('run', 'deep.my_own:training', '--out', 'run', '--quiet', '--models', 9, '--workers', 1, cwd=tmp_path)
    assert status == 1 and 'my_parts' in told  # beside the module, and not where the command is given
    moved = tmp_path/'deep'/'my_own.py'; moved.write_text(moved.read_text() + '# changed\n')
    status, _, told = command('run', 'deep/my_own.py', '--out', 'run', '--quiet', '--models', 10, '--at-once', 2, cwd=tmp_path)
    assert status == 0 and told.count('has changed since') == 1, told


def test_repair_with_the_file(tmp_path):
    assert run_own(tmp_path, '')[0] == 0
    chunk = next(p for p in (tmp_path/'run'/'data.zarr').rglob('c/3/*/*') if p.is_file()); good = chunk.read_bytes()
    chunk.write_bytes(good[:-1])
    status, _, told = command('verify', 'run', '--repair', cwd=tmp_path)
    assert status == 1 and '--training my_own.py' in told
    status, out, told = command('verify', 'run', '--repair', '--training', 'my_own.py', '--quiet', cwd=tmp_path)
    assert status == 0 and chunk.read_bytes() == good, told


def test_options_of_recipes(tmp_path):
    status, _, told = run_own(tmp_path, '', '--download', '--skip-bad')
    assert status == 1 and '--download and --skip-bad' in told
    record = tmp_path/'run'; assert not record.exists()


def test_help_is_quick():
    code = 'import sys, time; t = time.time()\nfrom transfer_influence.cli.train import ti_run\nassert "torch" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
