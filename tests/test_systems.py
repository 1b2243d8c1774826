"Machines unlike the one at home: consoles, containers, disks without locks or links, no installed package, a lost parent."
import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

import transfer_influence
from transfer_influence.basics.machine import Room, core_limits, gpus_here, worker_room
from transfer_influence.basics.places import is_address
from transfer_influence.images.sources import _places

BIN = Path(sys.executable).parent
RECIPE = '''
[source]
name = "glyphs"
classes = ["O", "Z", "S", "T", "Б", "З"]
size = 10
[[targets]]
name = "digits"
epochs = 2
[design]
alpha = 0.5
[training]
width = 8
epochs = 1
[run]
models = 24
'''


def run(*command, env=None, **kwargs):
    return subprocess.run([*map(str, command)], capture_output=True, timeout=200, env=os.environ | (env or {}), **kwargs)


def python(code, *args, **kwargs): return run(sys.executable, '-c', code, *args, **kwargs)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    (folder/'r.toml').write_text(RECIPE, 'utf-8')
    r = run(BIN/'ti-run', folder/'r.toml', '--out', folder/'run', '--workers', 1)
    assert r.returncode == 0, r.stderr.decode()
    return folder


# A console that has no Cyrillic, no ± and no ×

ASKED = (('ti-run', 'r.toml', '--out', 'run'), ('ti-recipes',), ('ti-recipes', '--show', 'glyphs-digits'), ('ti-status', 'run'),
         ('ti-influence', 'run'), ('ti-influence', 'run', '--json'), ('ti-report', 'run'), ('ti-plan', 'run'),
         ('ti-design', '10', '40'), ('ti-verify', 'run'), ('ti-compact', 'run'), ('ti-explore', 'run', '--source-class', 'Б'),
         ('ti-curve', 'run', '--ks', '2', '--replicates', '2', '--dry-run'))


def console(charset): return dict(PYTHONUTF8='0', PYTHONIOENCODING=charset)


@pytest.mark.parametrize('command', ASKED, ids=' '.join)
def test_console(trained, command):
    r = run(BIN/command[0], *command[1:], env=console('ascii'), cwd=trained)
    assert r.returncode == 0, r.stderr.decode()
    r.stderr.decode('ascii')
    if '--show' in command: assert 'Б' in tomllib.loads(r.stdout.decode('utf-8'))['source']['classes']  # it goes to a file
    else: r.stdout.decode('ascii')


def test_console_of_windows(trained):
    r = run(BIN/'ti-influence', 'run', env=console('cp1252'), cwd=trained)
    assert r.returncode == 0 and r'\u0411' in (said := r.stdout.decode('cp1252')) and '±' in said
    assert (trained/'run'/'report.html').read_text('utf-8').count('Б')
    refused = run(BIN/'ti-explore', 'run', '--source-class', 'Ж', env=console('ascii'), cwd=trained)
    assert refused.returncode == 1 and rb'\u0416' in refused.stderr and b'Traceback' not in refused.stderr


@pytest.mark.parametrize('command', sorted(re.findall(r'(ti-\w+)=', (Path(__file__).parent.parent/'settings.ini').read_text('utf-8'))))
def test_help_is_ascii(command):
    r = run(BIN/command, '--help', env=console('ascii'))
    assert r.returncode == 0, r.stderr.decode()


def test_files_do_not_depend_on_the_locale(trained):
    r = run(BIN/'ti-influence', 'run', '--csv', 'x.csv', env=console('ascii') | dict(PYTHONWARNDEFAULTENCODING='1'), cwd=trained)
    assert r.returncode == 0 and 'Б' in (trained/'x.csv').read_text('utf-8')
    assert str(Path(transfer_influence.__file__).parent).encode() not in r.stderr, 'a file was opened without encoding='


# A part of a machine

COUNT = 'from transfer_influence.fleet.engine import default_workers; print(default_workers())'
CORES = os.cpu_count() or 1


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity') or CORES < 2, reason='one core, or no affinity')
def test_workers_of_an_affinity_mask():
    code = f'import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n' \
           'from transfer_influence.basics.machine import worker_room; print(worker_room())'
    assert python(code).stdout.decode().strip() == str(Room(1, f'affinity allows 1 of {CORES} cores'))


@pytest.mark.parametrize('variable', ['SLURM_CPUS_PER_TASK', 'NSLOTS', 'LOKY_MAX_CPU_COUNT'])
def test_workers_of_a_job(variable):
    assert python(COUNT, env={variable: '1'}).stdout.split() == [b'1']
    assert core_limits(env={variable: ''}).keys() <= {'affinity', 'cgroup'}


def new_group(controller):
    "A control group that this process may make; `None` without the right to."
    top = Path('/sys/fs/cgroup')
    two = (top/'cgroup.controllers').is_file()
    if two and controller not in (top/'cgroup.subtree_control').read_text('utf-8').split(): return None
    folder = (top if two else top/controller)/f'ti-test-{os.getpid()}'
    try: folder.mkdir(); return folder
    except OSError: return None


def in_group(controller, limits, code):
    "What a process prints that runs in a control group with limits; `None` where there can be none."
    if (folder := new_group(controller)) is None: return None
    try:
        for name, value in limits.items():
            if (folder/name).exists(): (folder/name).write_text(value, 'utf-8')
        join = f'import os; open({str(folder/"cgroup.procs")!r}, "w", encoding="utf-8").write(str(os.getpid()))\n'
        return python(join + code).stdout.decode().strip()
    except OSError: return None
    finally: folder.rmdir()


@pytest.mark.skipif(CORES < 2, reason='one core')
def test_workers_of_a_quota():
    "A real control group with the time of one core."
    quota = {'cpu.max': '100000 100000', 'cpu.cfs_quota_us': '100000'}
    said = in_group('cpu', quota, 'from transfer_influence.basics.machine import worker_room; print(worker_room())')
    if said is None: pytest.skip('no right to make a control group')
    assert said == str(Room(1, f'cgroup allows 1 of {CORES} cores'))


@pytest.mark.skipif(CORES < 2, reason='one core')
def test_workers_of_a_memory_limit():
    "A real control group with 900 MB."
    limit = {'memory.max': '900000000', 'memory.limit_in_bytes': '900000000'}
    said = in_group('memory', limit, 'from transfer_influence.basics.machine import worker_room; print(worker_room())')
    if said is None: pytest.skip('no right to make a control group')
    assert said == str(Room(1, 'memory for no more'))


@pytest.mark.slow
@pytest.mark.skipif(CORES < 2, reason='one core')
def test_the_line_before_training_says_why(trained, tmp_path):
    r = run(BIN/'ti-run', trained/'r.toml', '--out', tmp_path/'run', '--models', 4, env=dict(SLURM_CPUS_PER_TASK='1', CUDA_VISIBLE_DEVICES=''))
    assert f'4 models to train with 1 workers (local; SLURM_CPUS_PER_TASK allows 1 of {CORES} cores)' in r.stderr.decode()
    r = run(BIN/'ti-run', trained/'r.toml', '--out', tmp_path/'new', '--dry-run', env=dict(SLURM_CPUS_PER_TASK='1', CUDA_VISIBLE_DEVICES=''))
    assert len(r.stdout.splitlines()) == 1 and f'1 worker (SLURM_CPUS_PER_TASK allows 1 of {CORES} cores) on cpu' in r.stdout.decode()


@pytest.mark.parametrize('name', ['slurm.sh', 'kubernetes.yaml'])
def test_cluster_files_name_their_workers(root, name):
    line = next(l for l in (root/'docs'/'cluster'/name).read_text('utf-8').splitlines() if 'exec ti-run' in l)
    assert '--workers "$' in line


# What the kernel refuses. A filter of system calls makes it refuse them here, with the errors of such disks and systems.

NUMBERS = {'x86_64': dict(link=86, linkat=265, flock=73, pidfd_open=434), 'aarch64': dict(linkat=37, flock=32, pidfd_open=434)}
FILTER = '''
import ctypes, struct, sys
def refuse(numbers, error):
    "From now on, this process and its children get `error` for these system calls (seccomp)."
    jumps = [(0x15, len(numbers) - k, 0, n) for k, n in enumerate(numbers)]
    program = [(0x20, 0, 0, 0), *jumps, (0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x50000 | error)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *i) for i in program))
    head = ctypes.create_string_buffer(struct.pack('HP', len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, head, 0, 0): sys.exit(77)
'''


def refusing(calls, error, code):
    "What becomes of our code where the kernel refuses system calls."
    known = NUMBERS.get(platform.machine()) if sys.platform == 'linux' else None
    if known is None: pytest.skip('needs the system call filter of Linux')
    r = python(f'{FILTER}\nrefuse({[known[c] for c in calls if c in known]}, {error})\n{code}')
    if r.returncode == 77: pytest.skip('the kernel allows no filter here')
    return r


@pytest.mark.parametrize('error', [errno.EPERM, errno.EOPNOTSUPP])
def test_disk_without_hard_links(trained, tmp_path, error):
    "As exFAT and some FUSE and SMB mounts."
    r = refusing(('link', 'linkat'), error, f'from transfer_influence.cli.train import ti_run\n'
                 f'ti_run({str(trained/"r.toml")!r}, out={str(tmp_path/"run")!r}, engine="here", quiet=True)')
    last = r.stderr.decode().strip().splitlines()[-1]
    assert r.returncode == 1 and 'no hard links' in last and 'another disk' in last and b'Traceback' not in r.stderr
    assert not [p for p in (tmp_path/'run').rglob('*') if p.is_file()]


def test_container_without_semaphores(tmp_path):
    "As without /dev/shm; the C library makes them by link, too."
    r = refusing(('link', 'linkat'), errno.ENOSYS, 'from transfer_influence.cli.train import ti_run\n'
                 f'ti_run("glyphs-digits", models=2, out={str(tmp_path/"run")!r}, workers=1)')
    assert r.returncode == 1 and b'use --engine here' in r.stderr.splitlines()[-1] and b'Traceback' not in r.stderr, r.stderr.decode()


@pytest.mark.parametrize('error', [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_disk_without_locks(tmp_path, error):
    "As NFS without its lock server and some FUSE mounts."
    from PIL import Image
    for k in range(8):
        (tmp_path/'photos'/'ab'[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (9, 9), (k, 20, 30)).save(tmp_path/'photos'/'ab'[k % 2]/f'{k}.png')
    r = refusing(('flock',), error, f'from transfer_influence.cli.pack import ti_pack\n'
                 f'ti_pack({str(tmp_path/"photos")!r}, {str(tmp_path/"p")!r}, size=8, workers=1, quiet=True)')
    assert r.returncode == 0 and r.stderr.decode().count('has no locks') == 1, r.stderr.decode()
    assert json.loads((tmp_path/'p'/'pack.json').read_text('utf-8'))['images'] == 8


def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text('utf-8').rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False


DRIVER = '''
import time
from transfer_influence.fleet.engine import LocalEngine
with LocalEngine(2, gpus=0) as engine:
    list(engine.tasks(abs, [1, 2])); print(*engine.pids(), flush=True); time.sleep(100)
'''


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='looks at processes through /proc')
@pytest.mark.parametrize('refused', [False, True], ids=['pidfd', 'no pidfd'])
def test_workers_leave_with_their_parent(refused):
    "Also on systems without pidfd_open, which are all but newer Linux."
    before = f'{FILTER}\nrefuse([{NUMBERS.get(platform.machine(), {}).get("pidfd_open", 434)}], {errno.ENOSYS})\n' if refused else ''
    p = subprocess.Popen([sys.executable, '-c', before + DRIVER], stdout=subprocess.PIPE, text=True)
    pids = [*map(int, p.stdout.readline().split())]
    if not pids and p.wait() == 77: pytest.skip('the kernel allows no filter here')
    assert len(pids) == 2 and all(map(alive, pids))
    p.kill(); p.wait(); end = time.time() + 5
    while any(map(alive, pids)) and time.time() < end: time.sleep(.05)
    assert not any(map(alive, pids))


# A folder of sources that nobody installed

@pytest.mark.slow
def test_sources_without_installed_package(trained, tmp_path):
    site, sources = tmp_path/'site', tmp_path/'sources'
    site.mkdir()
    for path in {Path(p).resolve() for p in sys.path if p.endswith('site-packages')}:
        for f in path.iterdir():
            if 'transfer_influence' not in f.name and f.suffix != '.pth' and not (site/f.name).exists(): (site/f.name).symlink_to(f)
    shutil.copytree(Path(transfer_influence.__file__).parent, sources/'transfer_influence', ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path/'go.py').write_text('''
from importlib.metadata import PackageNotFoundError, version
from transfer_influence.cli.train import ti_run
if __name__ == '__main__':
    try: version('transfer_influence')
    except PackageNotFoundError: ti_run('r.toml', out='run', workers=1, models=4)
''', 'utf-8')
    shutil.copy(trained/'r.toml', tmp_path)
    r = run(sys.executable, '-S', 'go.py', env=dict(PYTHONPATH=f'{sources}{os.pathsep}{site}'), cwd=tmp_path)
    assert r.returncode == 0 and b'Traceback' not in r.stderr, r.stderr.decode()
    record, = (json.loads(f.read_text('utf-8')) for f in (tmp_path/'run'/'runs').glob('*.json'))
    assert record['versions']['transfer_influence'] == transfer_influence.__version__


# Paths of Windows

@pytest.mark.parametrize('path', [r'C:\data', 'C:/data', 'C://data', 'd:run', r'\\server\share'])
def test_drives_are_no_addresses(path):
    assert not is_address(path)
    assert _places(f'digits={path},mnist=s3://b/x', ['digits', 'mnist'])['mnist'] == 's3://b/x'
    assert _places(f'digits={path}', ['digits'])['digits'].endswith(os.path.normpath(path))


# A part of the graphics cards

def test_container_with_one_of_several_cards(tmp_path):
    (tmp_path/'dev').mkdir(); (tmp_path/'dev'/'nvidia5').touch(); (tmp_path/'dev'/'nvidiactl').touch()
    assert gpus_here(tmp_path) == ['0']  # as CUDA calls it there


def test_path_without_nvidia_smi(tmp_path):
    (tmp_path/'dev').mkdir(); (tmp_path/'dev'/'dxg').touch()
    assert gpus_here(tmp_path, str(tmp_path)) == [] and gpus_here(tmp_path, str(tmp_path), windows=True) == []
    assert worker_room(tmp_path).workers >= 1


# What else machines do

@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='closes outputs in a shell')
@pytest.mark.parametrize('closed', ['2>&-', '>&- 2>&- <&-'])
def test_closed_outputs(trained, tmp_path, closed):
    line = f'{BIN}/ti-run {trained/"r.toml"} --out {tmp_path/"run"} --workers 1 --models 4 {closed}'
    assert run('sh', '-c', line).returncode == 0
    assert len(list((tmp_path/'run'/'commits').iterdir())) == 4


def test_errors_of_the_system_are_one_line(trained, tmp_path):
    r = run(BIN/'ti-run', trained/'r.toml', '--out', tmp_path/('y'*300))
    assert r.returncode == 1 and b'name too long' in r.stderr and b'Traceback' not in r.stderr


def test_python_without_checks(trained):
    r = run(BIN/'ti-status', trained/'run', env=dict(PYTHONOPTIMIZE='1'))
    r = r if r.returncode else run(BIN/'ti-influence', trained/'run', env=dict(PYTHONOPTIMIZE='1'))
    assert r.returncode == 1 and b'PYTHONOPTIMIZE' in r.stderr and b'Traceback' not in r.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='has no ulimit')
def test_few_open_files(tmp_path):
    r = run('sh', '-c', f'ulimit -n 50; {BIN}/ti-run glyphs-digits --models 6 --out {tmp_path/"run"} --workers 9 --quiet')
    assert r.returncode == 1 and b'oo many open files' in r.stderr and b'Traceback' not in r.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='names that Windows does not allow')
def test_names_of_run_folders(trained, tmp_path):
    folder = tmp_path/'a%20b#c?d&e'/'ä ö/Ж n'/'/'.join(['x'*100]*8)
    shutil.copytree(trained/'run', folder)
    for command in ('ti-verify', 'ti-compact', 'ti-report'):
        r = run(BIN/command, folder)
        assert r.returncode == 0, r.stderr.decode()
    assert run(BIN/'ti-influence', folder).stdout == run(BIN/'ti-influence', trained/'run').stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='variables of POSIX systems')
def test_odd_surroundings(trained, tmp_path):
    "No home, no temporary folder, few rights for others, a list of thread numbers, a run folder behind a link."
    (tmp_path/'real').mkdir(); (tmp_path/'link').symlink_to(tmp_path/'real')
    line = f'umask 077; unset HOME; exec {BIN}/ti-run {trained/"r.toml"} --out {tmp_path/"link"} --engine here --models 4 --quiet'
    r = run('sh', '-c', line, env=dict(TMPDIR='/nowhere', OMP_NUM_THREADS='4,2', CUDA_VISIBLE_DEVICES=' '))
    assert r.returncode == 0, r.stderr.decode()
    assert len(list((tmp_path/'real'/'commits').iterdir())) == 4
    assert not (tmp_path/'real'/'fleet.json').stat().st_mode & 0o077


# The workflow

def test_workflow(root):
    "It names what there is: files, extras, and floors of notebooks; no step may write to the repository."
    flow = yaml.safe_load((root/'.github'/'workflows'/'tests.yml').read_text('utf-8'))
    assert flow['permissions'] == {'contents': 'read'} and flow['concurrency']['cancel-in-progress'] is True
    assert set(flow['jobs']) == {'linux', 'light', 'docs'} and all(j['timeout-minutes'] <= 60 for j in flow['jobs'].values())
    assert {m['os'].split('-')[0] for m in flow['jobs']['light']['strategy']['matrix']['include']} == {'ubuntu', 'macos', 'windows'}
    commands = '\n'.join(s['run'] for j in flow['jobs'].values() for s in j['steps'] if 'run' in s)
    for file in re.findall(r'(?:\.ci/|docs/|tests/)[\w./]+', commands): assert (root/file).is_file(), file
    assert os.access(root/'.ci'/'run', os.X_OK)
    extras = {e for found in re.findall(r"-e '\.\[([\w,]+)\]'", commands) for e in found.split(',')}
    assert extras and all(f'{e}_requirements' in (root/'settings.ini').read_text('utf-8') for e in extras)
    floors = re.findall(r'\d\d_\w+', commands)
    assert len(floors) >= 5 and all((root/'nbs'/f).is_dir() for f in floors)
