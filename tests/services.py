"Real services for tests, on the loopback device: an S3 store and a Ray cluster. Nothing survives the `with` block."
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port():
    "A port nobody listens on now."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


libc = ctypes.CDLL(None) if sys.platform == 'linux' else None


def end_with_parent():
    "Called in a child: the kernel kills it when the thread that started it ends, however that happens."
    if libc: libc.prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def wait_for(condition, seconds=60, what='the service'):
    "Wait until `condition()` holds, and give its value."
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end: raise TimeoutError(f'{what} was not there after {seconds} s')
        time.sleep(.1)
    return found


def serve_s3(port):
    "Moto's S3, a request at a time: its create-only writes look, then write; here that is one action, as in S3."
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple
    application, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(environ, start_response):
        with one_at_a_time: return list(application(environ, start_response))

    run_simple('127.0.0.1', port, answer, threaded=True, request_handler=MotoRequestHandler)


class S3Server:
    "A moto server that holds one bucket; `env` is what a process needs to reach it."
    bucket = 'bucket'

    def __init__(self, log):
        self.port = free_port()
        self.endpoint, self.url = f'http://127.0.0.1:{self.port}', f's3://{self.bucket}/prefix'
        self.env = {'AWS_ACCESS_KEY_ID': 'test', 'AWS_SECRET_ACCESS_KEY': 'test', 'AWS_REGION': 'us-east-1',
                    'AWS_ENDPOINT_URL': self.endpoint, 'AWS_ALLOW_HTTP': 'true'}
        self.process = subprocess.Popen([sys.executable, __file__, str(self.port)], stdout=log, stderr=log,
                                        env=os.environ | self.env | {'MOTO_PORT': str(self.port)},
                                        preexec_fn=end_with_parent)

    def answers(self):
        "Make the bucket: true once the server answers."
        if self.process.poll() is not None: raise RuntimeError('the S3 server ended at once')
        request = urllib.request.Request(f'{self.endpoint}/{self.bucket}', method='PUT')
        try: return urllib.request.urlopen(request, timeout=5).status == 200
        except (urllib.error.URLError, OSError): return False

    def kill(self):
        "The server dies without a word; its data is lost."
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server():
    "A real HTTP server that speaks S3."
    server = S3Server(subprocess.DEVNULL)
    try:
        wait_for(server.answers, what='the S3 server')
        yield server
    finally: server.kill()


SMALL = ['--include-log-monitor=false', '--disable-usage-stats', '--block',
         '--object-store-memory=80000000', '--min-worker-port=0', '--max-worker-port=0']
# a node that is gone is declared dead within 2 s, not half a minute, and what waits for it can go on
QUICK = {'RAY_health_check_initial_delay_ms': '1000', 'RAY_health_check_period_ms': '500',
         'RAY_health_check_timeout_ms': '1000', 'RAY_health_check_failure_threshold': '3'}
# one throwaway token for all: else each process looks for one of its own, and they may disagree; a process keeps
# the first it has seen, so all clusters of one test session share it
TOKEN = uuid.uuid4().hex


def read(path):
    "The bytes of a file that may be gone."
    try: return path.read_bytes()
    except OSError: return b''


def uses(process, folder):
    "Does this process (a folder in /proc) name `folder`, or hold a file in it open?"
    if str(folder).encode() in read(process/'cmdline'): return True
    try: return any(os.readlink(fd).startswith(str(folder)) for fd in (process/'fd').iterdir())
    except OSError: return False


def users(folder):
    "Process ids of all others that use a folder: Ray's processes leave their parents, but they log into their folder."
    pids = [int(p.name) for p in Path('/proc').glob('[0-9]*') if uses(p, f'{folder}/')]
    return [p for p in pids if p != os.getpid()]


def kill_users(folder, seconds=20):
    "Kill all processes that use a folder, also those that are just being started."
    end = time.monotonic() + seconds
    while pids := users(folder):
        if time.monotonic() > end: raise TimeoutError(f'processes {pids} do not end')
        for p in pids:
            with suppress(ProcessLookupError): os.kill(p, signal.SIGKILL)
        time.sleep(.05)


class RayNode:
    "A head (without an address) or a further node of a cluster, with a loopback address and a folder of its own."
    def __init__(self, folder, ip, options, env):
        self.folder, self.log = folder, folder/'start.log'
        folder.mkdir()
        command = [sys.executable, '-m', 'ray.scripts.scripts', 'start', f'--node-ip-address={ip}',
                   f'--temp-dir={folder}', *SMALL, *options]
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True,
                                            preexec_fn=end_with_parent)

    def started(self):
        "Is it up? Its log says so."
        if self.process.poll() is not None: raise RuntimeError(f'Ray did not start: {self.log.read_text()}')
        return b'Ray runtime started' in read(self.log)

    def raylet(self):
        "Process id of the raylet, the one process that makes this a node."
        return next((p for p in users(self.folder) if read(Path(f'/proc/{p}/comm')) == b'raylet\n'), None)


class RayCluster:
    "A cluster; `address` and `env` are what a driver needs."
    def __init__(self, folder, env):
        self.folder, self.nodes, self.port = folder, [], free_port()
        self.env = {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': TOKEN, 'RAY_USAGE_STATS_ENABLED': '0'}
        self.inherited = os.environ | self.env | QUICK | env
        self.address = f'127.0.0.2:{self.port}'  # 127.0.0.1 would be rewritten to an address of this machine's network

    @property
    def raylet_pids(self): return [n.raylet() for n in self.nodes]

    def add_node(self, cpus=1, gpus=0):
        "Start another node; the first is the head."
        i = len(self.nodes)
        where = [f'--address={self.address}'] if i else ['--head', f'--port={self.port}', '--include-dashboard=false']
        options = [*where, f'--num-cpus={cpus}', f'--num-gpus={gpus}']
        self.nodes.append(RayNode(self.folder/f'n{i}', f'127.0.0.{i + 2}', options, self.inherited))
        wait_for(self.nodes[i].started, 120, f'node {i} of the Ray cluster')

    def kill_node(self, i):
        "SIGKILL the raylet of node `i`, as when a machine is gone; it is noticed 1-2 s later."
        os.kill(self.nodes[i].raylet(), signal.SIGKILL)

    def close(self):
        "End all processes; a driver in this process lets go before, or Ray would end it for want of a head."
        try:
            if 'ray' in sys.modules: sys.modules['ray'].shutdown()
        finally:
            for n in self.nodes: n.process.kill()
            kill_users(self.folder)
            for n in self.nodes: n.process.wait()


@contextmanager
def ray_cluster(nodes=2, cpus=1, gpus=0, env={}):
    "A Ray cluster on this machine, of nodes with `cpus` and (only pretended) `gpus` each; `env` is for its workers."
    with tempfile.TemporaryDirectory(prefix='ray', ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(Path(folder), env)
        try:
            for _ in range(nodes): cluster.add_node(cpus, gpus)
            yield cluster
        finally: cluster.close()


if __name__ == '__main__': serve_s3(int(sys.argv[1]))
