"""Sums over models for very many source examples, with one vector `v` of outputs: tables of bytes against unpacking.
The masks are packed along the models: a byte holds eight models."""
from common import check, interleaved, medians # first: it sets the number of threads

import numpy as np

TITLE = 'bits: byte tables against unpackbits'
BAR = 15
N_EXAMPLES = 131072

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) # (256, 8)

# The package's module on examples will take this function over; until then it lives here.
def packed_sums(packed:np.ndarray, # (models/8, K) uint8, as `np.packbits(masks, axis=0)` gives
                v:np.ndarray,      # (models,) a number for each model
                tile:int=16384,    # examples at a time, so that their sums stay in the cache
               ) -> np.ndarray:    # (K,) float32: for each example the sum of `v` over the models that have it
    "For each group of eight models, look the sum of each byte up in a table of 256."
    tables, out = v.reshape(-1, 8).astype(np.float32) @ BITS.T, np.zeros(packed.shape[1], np.float32)
    for i in range(0, len(out), tile):
        part = out[i:i + tile]
        for table, group in zip(tables, packed[:, i:i + tile]): part += table.take(group, mode='wrap')
    return out

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

def run(quick:bool) -> dict:
    repeats = 1 if quick else 3
    sizes = {m: measure(m, repeats) for m in ((256,) if quick else (1024, 2048))}
    names = dict(unpack_all='unpackbits + matrix-vector', unpack_tiles='the same in tiles')
    checks = [check(f'm={m}: {name} / byte tables', s['ratio'][k], BAR)
              for m, s in sizes.items() for k, name in names.items()]
    return dict(K=N_EXAMPLES, models=sizes, checks=checks, repeats=repeats)

def table(result):
    rows = [['models', 'way', 'CPU-s', '/ byte tables', 'largest error']]
    return rows + [[str(m), way.replace('_', ' '), s['cpu_seconds'][way], s['ratio'][way], s['max_error'][way]]
                   for m, s in result['models'].items() for way in s['ratio']]
