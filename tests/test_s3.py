"A run in an object store is like one in a folder: a real S3 server, one that dies, and ones that answer nonsense."
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from services import s3_server, wait_for
from test_store import begin_together, whole

from transfer_influence.basics.recipe import Recipe, RunSpec, SourceSpec, TargetSpec, TrainSpec, to_toml
from transfer_influence.records.store import Store, StoreError, chunk_path, commit_path, committed
from transfer_influence.records.read_run import read_predictions
from transfer_influence.fleet.begin import begin_run
from transfer_influence.fleet.progress import run_status
from transfer_influence.fleet.worker import Task, work
from transfer_influence.fleet.fleet import Fleet, open_fleet

pytest.importorskip('moto', reason="a real S3 server needs moto: pip install -e '.[dev]'")
pytestmark = pytest.mark.timeout(300)
BIN = Path(sys.executable).parent
RECIPE = Recipe(source=SourceSpec(classes=tuple('OZSTBG'), size=10), targets=(TargetSpec('digits', epochs=3),),
                training=TrainSpec(width=8, epochs=1), run=RunSpec(models=6, seed=1))  # each class in 2 to 4 models


def ti(command, *args, **kwargs):
    "Run an installed command."
    return subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, timeout=200, **kwargs)


def worked(result):
    assert result.returncode == 0, result.stderr
    return result.stdout


def one_line(error):
    "The error is a line that names the address."
    text = str(error.value)
    assert '\n' not in text and 's3://' in text and len(text) < 500, text
    return text


@pytest.fixture(scope='module')
def server():
    "The server, which this process and its children know from the environment."
    with s3_server() as s, pytest.MonkeyPatch.context() as patch:
        for k, v in s.env.items(): patch.setenv(k, v)
        yield s


@pytest.fixture(scope='module')
def toml(tmp_path_factory):
    path = tmp_path_factory.mktemp('recipe')/'tiny.toml'
    path.write_text(to_toml(RECIPE))
    return path


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    "The outputs of a run on disk."
    out = tmp_path_factory.mktemp('local')/'run'
    store = begin_run(RECIPE, out)
    work(Task(str(out), device='cpu'), range(6))
    return read_predictions(store)


@pytest.fixture(scope='module')
def run(server, toml):
    "A run in the store: it was stopped, and continued by the command."
    url = f'{server.url}/run'
    stopped = Fleet(RECIPE, url).run(workers=2, quiet=True, stop=lambda done: done >= 2)
    assert 2 <= stopped.done < 6 and not stopped.complete
    first = {p: Store(url).get_bytes(p) for p in Store(url).paths('commits')}
    assert f'The page: {url}/report.html' in worked(ti('ti-run', toml, '--out', url, '--workers', 1, '--quiet'))
    assert all(Store(url).get_bytes(p) == commit for p, commit in first.items()), 'a commit was touched'
    return url


def same(a, b): return all(a.outputs[o].tobytes() == b.outputs[o].tobytes() for o in a.outputs | b.outputs)


# as in a folder

def test_same_bytes(run, local):
    assert open_fleet(run).complete and same(read_predictions(Store(run)), local)
    assert np.array_equal(read_predictions(Store(run)).masks, local.masks)


def test_nothing_left_to_do(run): assert Fleet(RECIPE, run).run(quiet=True).trained == 0


def test_repair(run, local):
    "One chunk is garbage, one is gone, one commit is garbled: found, named, trained again."
    store = Store(run)
    good = {i: store.get_bytes(chunk_path('digits', i)) for i in range(6)}
    store.put_bytes(chunk_path('digits', 1), os.urandom(len(good[1])))
    store.delete([chunk_path('digits', 2)])
    store.put_bytes(commit_path(3), b'{"model": 3, "crc32c"')
    with pytest.raises(StoreError, match='ti-verify s3://'): read_predictions(store)
    found = Fleet(RECIPE, run).verify(repair=True, workers=1, quiet=True)
    assert sorted(found.damaged) == [1, 2, 3] and found.repaired
    assert Fleet(RECIPE, run).verify().ok and len(store.paths('withdrawn')) == 3
    assert {i: store.get_bytes(chunk_path('digits', i)) for i in range(6)} == good
    assert same(read_predictions(store), local)


def test_compact(run, local):
    "What is read after `ti-compact` is the copy, even where a chunk is damaged."
    store, chunk = Store(run), chunk_path('digits', 0)
    assert 'compact/' in worked(ti('ti-compact', run))
    good = store.get_bytes(chunk)
    store.put_bytes(chunk, b'damaged')
    try: assert same(read_predictions(store), local)
    finally: store.put_bytes(chunk, good)


def test_status(run):
    s = run_status(run)
    assert (s['run'], s['planned'], s['done'], s['missing'], s['failed']) == (run, 6, 6, 0, {})
    assert f'{run}: 6 of 6 models are done' in worked(ti('ti-status', run))


def test_influence(run, tmp_path):
    "The command writes the file here; it is the one that the run holds."
    worked(ti('ti-influence', run, '--out', tmp_path/'i.npz'))
    assert (tmp_path/'i.npz').read_bytes() == Store(run).get_bytes('influence.npz')


def test_report(run, tmp_path):
    assert worked(ti('ti-report', run)).strip() == f'{run}/report.html'
    assert Store(run).get_bytes('report.html').startswith(b'<!')
    worked(ti('ti-report', run, '--out', tmp_path/'page.html'))
    assert (tmp_path/'page.html').stat().st_size > 10_000


# at once

@pytest.mark.parametrize('where', ['folder', 'server'])
def test_commit_race(server, tmp_path, where):
    "Eight threads commit the same model: one wins, and its commit stays."
    store = Store(tmp_path if where == 'folder' else f'{server.url}/race')
    ready = threading.Barrier(8)

    def commit(thread, key):
        ready.wait(60)
        return store.put(commit_path(key), dict(model=key, thread=thread))

    with ThreadPoolExecutor(8) as pool:
        for key in range(10):
            won = list(pool.map(lambda t: commit(t, key), range(8)))
            assert won.count(True) == 1 and store.get(commit_path(key))['thread'] == won.index(True), won


def test_begin_together(server, tmp_path):
    "Two sessions begin the same new run at the same instant: both may go on."
    runs, errors = begin_together(tmp_path, f'{server.url}/together')
    assert not errors, f'{len(errors)} of {2*len(runs)} sessions could not begin: {set(e[:80] for e in errors)}'
    assert all(whole(tmp_path, r, tmp_path/'alone') for r in runs)


# when the store is not well

def test_server_dies(toml, monkeypatch):
    "The command ends soon, with a line, when the store is gone in the middle of a fleet."
    with s3_server() as s:
        for k, v in s.env.items(): monkeypatch.setenv(k, v)
        monkeypatch.setenv('TI_STORE_TIMEOUT', '3')
        command = [BIN/'ti-run', toml, '--out', f'{s.url}/run', '--models', '200', '--workers', '1', '--quiet']
        p = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        store = Store(f'{s.url}/run')
        wait_for(lambda: len(committed(store)) >= 2 or p.poll() is not None, 120, 'the second commit')
        s.kill()
        start = time.monotonic()
        _, err = p.communicate(timeout=100)
    assert p.returncode == 1 and 'Traceback' not in err, err
    assert len(err.strip().splitlines()) == 1 and 'ti-run: cannot' in err and 's3://' in err, err
    assert time.monotonic() - start < 60


def test_no_bucket(server, toml):
    "A bucket that does not exist is named, by functions and by the command."
    with pytest.raises(StoreError) as error: Store('s3://nobody/run').put('fleet.json', {})
    assert 's3://nobody/run' in one_line(error)
    r = ti('ti-run', toml, '--out', 's3://nobody/run', '--workers', 1, '--quiet')
    assert r.returncode == 1 and 'Traceback' not in r.stderr, r.stderr
    assert r.stderr.startswith('ti-run: cannot') and len(r.stderr.splitlines()) == 1, r.stderr


@contextmanager
def answering(answer, monkeypatch):
    "A server that answers each request with what `answer(method, path, headers, body)` gives: a status, a body."
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
            status, data = answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for k, v in {'Content-Length': len(data), 'ETag': '"1"', 'Last-Modified': self.date_time_string()}.items():
                self.send_header(k, v)
            self.end_headers()
            if self.command != 'HEAD': self.wfile.write(data)

        do_PUT = do_HEAD = do_POST = do_DELETE = do_GET
        def log_message(self, *_): pass

    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    env = {'ACCESS_KEY_ID': 'test', 'SECRET_ACCESS_KEY': 'test', 'REGION': 'us-east-1', 'ALLOW_HTTP': 'true',
           'ENDPOINT_URL': f'http://127.0.0.1:{http.server_port}'}
    for k, v in env.items(): monkeypatch.setenv(f'AWS_{k}', v)
    monkeypatch.setenv('TI_STORE_TIMEOUT', '2')
    try: yield
    finally: http.shutdown(); http.server_close()


@pytest.mark.parametrize('status', [403, 500])
def test_refusal(monkeypatch, status):
    "No right to the bucket, or a server that is broken: one line from everything that reads or writes."
    calls = [lambda s: s.put('fleet.json', {}), lambda s: s.get('fleet.json'), lambda s: s.exists('fleet.json'),
             lambda s: s.paths('commits'), lambda s: s.delete(['a']), lambda s: s.group('r'),
             lambda s: Fleet(RECIPE, s.root).run(quiet=True)]
    with answering(lambda *_: (status, b'<Error><Code>AccessDenied</Code></Error>'), monkeypatch):
        for call in calls:
            start = time.monotonic()
            with pytest.raises(StoreError) as error: call(Store('s3://bucket/run'))
            one_line(error)
            assert time.monotonic() - start < 30


class Flaky:
    "A store in memory; of so many requests it does, or does not do, what it is asked, and says 500."
    def __init__(self, faults, after): self.files, self.faults, self.after = {}, faults, after

    def __call__(self, method, path, headers, body):
        fault, self.faults = self.faults > 0, self.faults - 1
        if fault and not self.after: return 500, b''
        status, data = self.do(method, path, headers, body)
        return (500, b'') if fault else (status, data)

    def do(self, method, path, headers, body):
        if method == 'PUT':
            if headers.get('If-None-Match') == '*' and path in self.files: return 412, b''
            self.files[path] = body
            return 200, b''
        return (200, self.files[path]) if path in self.files else (404, b'')


@pytest.mark.parametrize('after', [False, True], ids=['refused', 'done-but-not-said'])
def test_bad_line(monkeypatch, after):
    "Two errors, then a proper answer: a commit is written once, is ours, and is known to be ours."
    server = Flaky(2, after)
    with answering(server, monkeypatch):
        store = Store('s3://bucket/run')
        assert store.put(commit_path(0), dict(model=0))
        server.faults = 2
        assert store.get(commit_path(0)) == dict(model=0)
        assert not store.put(commit_path(0), dict(model=0, by='another'))


def test_curve_and_examples(server):
    "Child runs beside a run in an object store: a curve, and single images, as in a folder."
    from transfer_influence.analysis.curve import load_curves
    from transfer_influence.analysis.removal import removal_curve
    from transfer_influence.analysis.finders import find_mislabeled, train_examples
    out = f'{server.url}/curved'
    Fleet(RECIPE, out).run(engine='here', quiet=True)
    curve = removal_curve(out, {'random': None}, [1], 2, engine='here', quiet=True)
    assert load_curves(out)['digits'].accuracy == curve.accuracy
    assert train_examples(out, 8, engine='here', quiet=True).complete
    assert len(find_mislabeled(out)) == 480
