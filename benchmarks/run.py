"Run one benchmark: `python benchmarks/run.py B1 [--json FILE] [--quick]`, or `--list` to see which there are."
from common import load, machine # first: it sets the number of threads before numpy and torch are imported

from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
import json
import sys

from transfer_influence.basics.errors import nearest


def known() -> dict: # {'B1': 'b1_fleet', …}
    "A benchmark is a file b<number>_<name>.py with TITLE, run(quick) -> dict and table(result) -> rows."
    files = Path(__file__).parent.glob('b[0-9]*_*.py')
    return {f.stem.split('_')[0].upper(): f.stem for f in sorted(files)}

def print_rows(rows):
    "A table with aligned columns; the first row is its head."
    cells = [[c if isinstance(c, str) else f'{c:.4g}' for c in r] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for r in cells: print('  '.join(c.ljust(w) for c, w in zip(r, widths)).rstrip())

def print_checks(checks):
    for c in checks:
        sign = '>=' if c['at_least'] else '<='
        print(f"{'pass' if c['passed'] else 'MISS'}  {c['what']}: {c['value']:.4g} (bar {sign} {c['bar']:.4g})")

def run(name:str, quick:bool) -> dict:
    "Run a benchmark, print its table and its checks."
    module = import_module(known()[name])
    before = load()
    result = module.run(quick)
    result = dict(benchmark=name, title=module.TITLE, quick=quick, **result,
                  load=dict(before=before, after=load()), machine=machine())
    print(f'{name} {module.TITLE}'); print_rows(module.table(result)); print_checks(result.get('checks', []))
    print(f"load {result['load']}\n{result['machine']}")
    return result

def as_markdown(result:dict) -> str:
    "A section of RESULTS.md."
    checks = [[c['what'], f"{c['value']:.4g}", ('≥ ' if c['at_least'] else '≤ ') + f"{c['bar']:.4g}",
               'yes' if c['passed'] else '**no**'] for c in result.get('checks', [])]
    rows = [['what', 'measured', 'bar', 'reached'], ['---']*4] + checks
    m, l = result['machine'], result['load']
    about = (f"{m['cpu']} with {m['instructions']}, {m['cores']} cores, {m['date']}; load {l['before'][0]} before, "
             f"{l['after'][0]} after; " + ', '.join(f'{k} {v}' for k, v in m['versions'].items()))
    device = '' if result.get('device', 'cpu') == 'cpu' else f", {result['device']}"
    lines = ['| ' + ' | '.join(r) + ' |' for r in rows]
    return '\n'.join([f"## {result['benchmark']} {result['title']}", '', *lines, '', f'{about}{device}.', ''])

def write_summary(folder:Path, out:Path):
    "RESULTS.md, from the JSON files of whole runs."
    results = [json.loads(f.read_text('utf-8')) for f in sorted(folder.glob('B*.json'))]
    head = ('# What was measured where\n\nMade by `python benchmarks/run.py --summary` from '
            '`results/benchmarks/*.json`; those files hold every single time. Seconds are CPU-seconds on one thread, medians of runs in turn, '
            'unless a line says otherwise.\n')
    out.write_text('\n'.join([head, *(as_markdown(r) for r in results if not r['quick'])]), 'utf-8')

def parse_args():
    p = ArgumentParser(description=__doc__)
    p.add_argument('name', nargs='?', help='such as B1')
    p.add_argument('--json', type=Path, help='file to write the result to')
    p.add_argument('--quick', action='store_true', help='a short run: a look, not a measurement')
    p.add_argument('--list', action='store_true', help='list the benchmarks')
    p.add_argument('--summary', action='store_true', help='write RESULTS.md from results/benchmarks/*.json')
    return p.parse_args()

def main():
    a, here = parse_args(), Path(__file__).resolve().parent
    if a.summary: return write_summary(here.parent/'results/benchmarks', here/'RESULTS.md')
    if a.list or not a.name: return print('\n'.join(f'{k}  {import_module(m).TITLE}' for k, m in known().items()))
    name = a.name.upper()
    if name not in known(): sys.exit(f"no benchmark '{a.name}'{nearest(name, known())}")
    result = run(name, a.quick)
    if a.json: a.json.write_text(json.dumps(result, indent=1, default=float) + '\n', 'utf-8')

if __name__ == '__main__': main()
