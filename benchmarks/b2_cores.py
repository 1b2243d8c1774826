"The resident loop in one process with one thread, one with two, and two with one each; by the wall clock."
from common import check, in_processes, median # first: it sets the number of threads

from b1_fleet import resident_job

TITLE = 'cores: processes against threads'
WAYS = {'1 process, 1 thread': (1, 1), '1 process, 2 threads': (1, 2), '2 processes, 1 thread': (2, 1)}
BAR = 1.7

def measure(net:str, models:int, repeats:int) -> dict:
    "Every process trains `models` nets; the ways take turns. Median rates and their ratios."
    rounds = [{way: in_processes(resident_job, (net, models), *w) for way, w in WAYS.items()} for _ in range(repeats)]
    rates = {way: processes*models/median(r[way]['wall'] for r in rounds) for way, (processes, _) in WAYS.items()}
    one, threads, processes = rates.values()
    return dict(models_per_second=rates, processes_against_one=processes/one,
                processes_against_threads=processes/threads, wall_rounds=rounds)

def run(quick:bool) -> dict:
    models, repeats = (2, 1) if quick else (4, 3)
    nets = {net: measure(net, models, repeats) for net in ('patch', 'strided_cnn')}
    checks = [check(f'{k}: two processes / one, models per second', n['processes_against_one'], BAR)
              for k, n in nets.items()]
    return dict(nets=nets, checks=checks, repeats=repeats, models_a_process=models)

def table(result):
    nets = result['nets']
    rows = [['models per second', *nets]]
    rows += [[way, *(n['models_per_second'][way] for n in nets.values())] for way in WAYS]
    return rows + [[k.replace('_', ' '), *(n[k] for n in nets.values())]
                   for k in ('processes_against_one', 'processes_against_threads')]
