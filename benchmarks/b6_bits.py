"""Sums over models for very many source examples, with one vector `v` of outputs: tables of bytes against unpacking.
The masks are packed along the models: a byte holds eight models."""
from common import check, interleaved, medians, time # first: it sets the number of threads

import resource

import numpy as np

from transfer_influence.influence.examples import example_influence, packed_sums

TITLE = 'bits: byte tables against unpackbits'
BAR = 15
N_EXAMPLES = 131072

def unpack_all(packed, v):
    "Unpack everything, then one product."
    return v @ np.unpackbits(packed, axis=0).astype(np.float32)

def unpack_tiles(packed, v, tile=512):
    "The same in tiles of examples that stay in the cache."
    return np.concatenate([v @ np.unpackbits(packed[:, i:i + tile], axis=0).astype(np.float32)
                           for i in range(0, packed.shape[1], tile)])

def unpack_rows(rows, v):
    "Masks packed along the examples instead, a row for each model: add up unpacked rows."
    out = np.zeros(8*rows.shape[1], np.float32)
    for row, weight in zip(rows, v): out += weight*np.unpackbits(row)
    return out

def measure(m:int, repeats:int) -> dict:
    "CPU-seconds and largest differences from float64 sums."
    rng = np.random.default_rng(0)
    packed, v = rng.integers(0, 256, (m//8, N_EXAMPLES), np.uint8), rng.standard_normal(m).astype(np.float32)
    masks = np.unpackbits(packed, axis=0)
    rows, exact = np.packbits(masks, axis=1), np.zeros(N_EXAMPLES)
    for mask, weight in zip(masks, v.astype(np.float64)): exact += weight*mask
    del masks
    ways = dict(byte_tables=lambda: packed_sums(packed, v), unpack_all=lambda: unpack_all(packed, v),
                unpack_tiles=lambda: unpack_tiles(packed, v), unpack_rows=lambda: unpack_rows(rows, v))
    errors = {way: float(abs(f() - exact).max()) for way, f in ways.items()}
    times = interleaved({way: lambda r, f=f: f() for way, f in ways.items()}, repeats)
    t = medians(times)
    return dict(cpu_seconds=t, ratio={way: t[way]/t['byte_tables'] for way in ways}, max_error=errors,
                all_cpu_seconds=times)

def full_size(N:int=1_281_167, m:int=7540) -> dict:
    "Influence of every image of ImageNet's training set on one number, with counts and standard errors."
    rng = np.random.default_rng(0)
    packed, y = rng.integers(0, 256, (-(-m//8), N), np.uint8), rng.standard_normal(m)
    packed[-1] &= 0xF0 # 7540 is not a multiple of 8
    wall, cpu = time.perf_counter(), time.process_time()
    example_influence(packed, y)
    return dict(N=N, models=m, wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu,
                peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6)

def run(quick:bool) -> dict:
    full = None if quick else full_size() # first: the peak of memory is that of the whole process
    repeats = 1 if quick else 3
    sizes = {m: measure(m, repeats) for m in ((256,) if quick else (1024, 2048))}
    names = dict(unpack_all='unpackbits + matrix-vector')
    checks = [check(f'm={m}: {names[k]} / byte tables', s['ratio'][k], BAR) for m, s in sizes.items() for k in names]
    if full: checks += [check('N = 1,281,167, m = 7,540: seconds', full['wall_seconds'], 10, False),
                        check('the same: GB at most', full['peak_gb'], 4, False)]
    return dict(K=N_EXAMPLES, models=sizes, full_size=full, checks=checks, repeats=repeats)

def table(result):
    rows = [['models', 'way', 'CPU-s', '/ byte tables', 'largest error']]
    return rows + [[str(m), way.replace('_', ' '), s['cpu_seconds'][way], s['ratio'][way], s['max_error'][way]]
                   for m, s in result['models'].items() for way in s['ratio']]
