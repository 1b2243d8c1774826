"""How long does a full table take to write? 200 source classes, 10,000 images: two million rows of nine columns, with
intervals, p and q; q-values included. Wall seconds are given, too: they depend on who else uses the machine."""
from common import check, median, np # first: it sets the number of threads

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
import csv
import sys
import time

from transfer_influence.influence.result import class_influence
from transfer_influence.records.predictions import from_arrays

TITLE = 'csv: a table of two million rows, with pyarrow and without'


def made_up(n:int):
    "A table of 200 classes on n images, of 100 made-up models."
    rng = np.random.default_rng(0)
    return class_influence(from_arrays(rng.random((100, 200)) < .5, rng.normal(size=(100, n))))

def both(f, *args) -> dict:
    "Wall and CPU-seconds of a call."
    wall, cpu = time.monotonic(), time.process_time(); f(*args)
    return dict(wall=time.monotonic() - wall, cpu=time.process_time() - cpu)

def middle(times) -> dict: return {k: median(t[k] for t in times) for k in times[0]}

def read_back(path, t) -> int: # cells of the first 1,000 rows that differ from the table
    "Names and influences, bit by bit."
    number, place = ({c: i for i, c in enumerate(names)} for names in (t.class_names, t.columns))
    with open(path, newline='', encoding='utf-8') as f:
        rows = [r for r, _ in zip(csv.DictReader(f), range(1000))]
    return sum(float(r['influence']) != t.values[number[r['source_class']], place[r['target']]] for r in rows)

def run(quick:bool) -> dict:
    t = made_up(500 if quick else 10_000)
    with TemporaryDirectory() as folder:
        path = Path(folder)/'t.csv'
        arrow = [both(t.save_csv, path) for _ in range(3)]
        wrong = read_back(path, t)
        with patch.dict(sys.modules, pyarrow=None): plain = [both(t.save_csv, path)]
        wrong += read_back(path, t)
        frame = [both(t.to_dataframe) for _ in range(3)]
    found = {k: middle(v) for k, v in dict(arrow=arrow, plain=plain, frame=frame).items()}
    return dict(rows=t.values.size, times=dict(arrow=arrow, plain=plain, frame=frame), **found, checks=[
        check('CPU-seconds to a CSV file, with pyarrow', found['arrow']['cpu'], 3, at_least=False),
        check('the same without', found['plain']['cpu'], 12, at_least=False),
        check('CPU-seconds to a frame', found['frame']['cpu'], 3, at_least=False),
        check('influences that do not read back', wrong, 0, at_least=False)])

def table(r): return [['what', 'CPU-seconds', 'wall seconds'], *([name, r[k]['cpu'], r[k]['wall']] for k, name in (
    ('arrow', 'CSV, pyarrow'), ('plain', 'CSV, without'), ('frame', 'frame')))]
