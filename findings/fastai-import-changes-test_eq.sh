#!/usr/bin/env bash
# Guess:     whether a tensor and a numpy array of the same numbers are equal does not depend on what was imported before;
#            fastcore's `test_eq`, by which nbdev notebooks test themselves, says yes.
# Behaviour: it says yes until `fastai.torch_core` is imported. From then on the same line raises TypeError ("argument
#            'other' (position 2) must be Tensor, not numpy.ndarray"): the import adds `__array_eq__` to torch.Tensor
#            itself, and fastcore asks either side for that first, so it does not help to exchange them.
# Versions:  fastai 2.8.12, fastcore 2.2.41, torch 2.15.0, numpy 2.4.6, Python 3.11; seen 2026-11-28.
# Matters:   notebooks that train with fastai and others that do not share a test process; one that passes alone fails
#            after the other, and an order that was alphabetical hides it. Compare arrays with arrays.
set -euo pipefail
FASTAI=2.8.12 FASTCORE=2.2.41 TORCH=2.15.0 TORCHVISION=0.29.2 NUMPY=2.4.6
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
packages=("fastai==$FASTAI" "fastcore==$FASTCORE" "torch==$TORCH" "torchvision==$TORCHVISION" "numpy==$NUMPY")
if command -v uv >/dev/null; then uv pip install -q --python "$folder/env/bin/python" "${packages[@]}"
else "$folder/env/bin/pip" install -q "${packages[@]}"; fi
cd "$folder"
env -u PYTHONPATH "$folder/env/bin/python" -W ignore - <<'P'
import numpy as np, torch
from fastcore.test import test_eq

def said(a, b):
    try: test_eq(a, b); return 'equal'
    except Exception as e: return f'{type(e).__name__}: {e}'.splitlines()[0]

tensor, array = torch.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)
before = said(tensor, array), said(array, tensor)
import fastai.torch_core
after = said(tensor, array), said(array, tensor)
print('before the import:', *before, sep='\n  '); print('after it:', *after, sep='\n  ')
assert before == ('equal', 'equal') and all(a.startswith('TypeError') for a in after)
P
