#!/usr/bin/env bash
# All that needs a GPU, in one command: the cells of the notebooks that are marked `cuda`, equality of the loops, rates, memory,
# a roofline. For a machine with Python, torch, torchvision and a GPU; it needs no network and no installed package of ours.
# usage: benchmarks/gpu.sh [FOLDER [OPTION…]]  wheels/*.whl and data/*.npz come from FOLDER (benchmarks/gpu); what is not there is
#                                         taken from the machine, or made up
#        benchmarks/gpu.sh --pack FOLDER  on a machine with network: put the wheels there (PYTHON=3.12 names the other Python)
# SCRIPT=budget_gpu.py runs that instead.
# The result: ${OUT:-results/benchmarks}/B7-<card>.json, and a table on the last lines.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
WHEELS=(fastai fastcore fastprogress==1.0.3 tomli-w zarr obstore google-crc32c lazy-loader)
THERE=(torch torchvision numpy pillow scipy matplotlib pandas scikit-learn pyyaml requests packaging typing-extensions
       cloudpickle spacy setuptools pip) # on the machine already, or never imported

fetch() {  # FOLDER WHEEL…
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON:-3.12}" --implementation cp \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform any -d "$1/wheels" "${@:2}"
}

missing() { # FOLDER: what its wheels need and is neither beside them nor on the machine
  python3 - "$1/wheels" "${THERE[@]}" <<'END'
import email, os, sys, zipfile
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
folder, there = sys.argv[1], set(sys.argv[2:])
about = [email.message_from_bytes(z.read(n)) for f in os.listdir(folder) for z in [zipfile.ZipFile(f'{folder}/{f}')]
         for n in z.namelist() if n.endswith('.dist-info/METADATA')]
there |= {canonicalize_name(a['Name']) for a in about}
needs = [Requirement(r) for a in about for r in a.get_all('Requires-Dist', [])]
place = dict(extra='', sys_platform='linux', python_version=os.environ.get('PYTHON', '3.12'))
print(*{canonicalize_name(r.name) for r in needs if not r.marker or r.marker.evaluate(place)} - there)
END
}

pack() {   # and what these need in their turn
  mkdir -p "$1/wheels" "$1/data"; fetch "$1" "${WHEELS[@]}"
  while more=$(missing "$1"); [ -n "$more" ]; do echo "also $more"; fetch "$1" $more; done
  echo "$1: $(ls "$1/wheels" | wc -l) wheels, $(du -sm "$1" | cut -f1) MB; put tiny-imagenet.npz, cifar10-train.npz and cifar10-test.npz into $1/data to measure on real images"
}

if [ "${1:-}" = --pack ]; then pack "${2:?a folder}"; exit; fi
folder=${1:-benchmarks/gpu}; shift || true; site=$(mktemp -d); trap 'rm -rf "$site"' EXIT
for w in "$folder"/wheels/*.whl; do [ -e "$w" ] && python3 -m zipfile -e "$w" "$site"; done
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1 MPLBACKEND=Agg
python3 "benchmarks/${SCRIPT:-gpu.py}" --data "$folder/data" --out "${OUT:-results/benchmarks}" "$@"
