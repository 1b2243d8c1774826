"""Decoding once: 10,000 photographs of 500 × 375 into a pack of 64 pixels by two processes, interrupted and not; and
what a batch costs that is looked up in the mapped file instead of in memory."""
from common import check, interleaved, medians, np, time # first: it sets the number of threads

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
import hashlib

from PIL import Image
import torch

from transfer_influence.images.folders import list_folder
from transfer_influence.images.pack import make_pack, open_pack
from transfer_influence.training.inputs import batches, net_inputs
from transfer_influence.training.schedule import draw_crop_boxes
from transfer_influence.fleet.engine import LocalEngine

TITLE = 'pack: images a second, resumed = uninterrupted, mapped batches'
SIZE, BARS = 64, dict(rate=150, different=0)


class Enough(Exception): "Stops a session in the midst of its work."

def noise(height, rng):
    "Random colours, `height` of them from top to bottom, blurred into a photograph's size."
    small = rng.integers(0, 256, (height, height*4//3, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((500, 375), Image.BICUBIC)

def photographs(root, images:int) -> float: # kilobytes a file
    "Files with the detail of photographs: blurred noise of several scales; 100 different ones, again and again."
    rng, made = np.random.default_rng(0), []
    for _ in range(100):
        coarse, middle, fine = (noise(h, rng) for h in (6, 24, 96)); data = BytesIO()
        Image.blend(Image.blend(coarse, middle, .4), fine, .25).save(data, 'JPEG', quality=90)
        made.append(data.getvalue())
    for i in range(images):
        path = root/f'class {i % 20:02d}'/f'{i}.jpg'; path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[i % 100])
    return sum(map(len, made))/len(made)/1e3

def packed(root, out, stop_after:int=0) -> float: # seconds
    "Make a pack with two processes, or stop in the midst of it."
    done = [0]
    def step(images, todo):
        done[0] += images
        if stop_after and done[0] >= stop_after: raise Enough
    start = time.perf_counter()
    with LocalEngine(2, gpus=0, module='transfer_influence.images.pack') as engine:
        try: make_pack(list_folder(root), out, SIZE, engine=engine, step=step)
        except Enough: pass
    return time.perf_counter() - start

def digest(out): return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in Path(out).iterdir()}

def steps(x, rows, boxes):
    for _ in batches(x, rows, boxes, [0]*len(rows)): pass

def run(quick:bool) -> dict:
    images = 1000 if quick else 10_000
    with TemporaryDirectory() as folder:
        root = Path(folder)/'photographs'; kb = photographs(root, images)
        whole = packed(root, Path(folder)/'whole')
        cut = packed(root, Path(folder)/'cut', images//3); rest = packed(root, Path(folder)/'cut')
        differ = sum(a != b for a, b in zip(digest(Path(folder)/'whole').items(), digest(Path(folder)/'cut').items()))
        mapped = open_pack(Path(folder)/'whole').images
        rows = torch.from_numpy(np.random.default_rng(0).integers(0, images, (40, 128)))
        boxes = draw_crop_boxes('flip-crop', tuple(rows.shape), SIZE, np.random.default_rng(1))
        inputs = dict(mapped=net_inputs('strided_cnn', mapped, 'flip-crop'),
                      memory=net_inputs('strided_cnn', np.array(mapped), 'flip-crop'))
        times = interleaved({k: lambda r, x=x: steps(x, rows, boxes) for k, x in inputs.items()}, 2 if quick else 5)
    checks = [check('images a second with 2 processes, start included', images/whole, BARS['rate']),
              check('files that differ after an interruption', differ, BARS['different'], False)]
    return dict(checks=checks, images=images, kilobytes_a_file=kb, seconds=whole, seconds_cut=cut, seconds_rest=rest,
                batches=times)

def table(result):
    m = medians(result['batches'])
    return [['', 'value'], ['images', result['images']], ['kB a file', result['kilobytes_a_file']],
            ['seconds, all at once', result['seconds']],
            ['seconds until interrupted', result['seconds_cut']], ['seconds for the rest', result['seconds_rest']],
            ['a batch from the mapped file / from memory', m['mapped']/m['memory']]]
