#!/usr/bin/env bash
# All that needs a GPU, in one command: the cells of the notebooks that are marked `cuda`, equality of the loops, rates, memory,
# a roofline. For a machine with Python, torch, torchvision and a GPU; it needs no network and no installed package of ours.
# usage: benchmarks/gpu.sh [FOLDER]       wheels/*.whl and data/*.npz come from FOLDER (benchmarks/gpu); what is not there is
#                                         taken from the machine, or made up
#        benchmarks/gpu.sh --pack FOLDER  on a machine with network: put the wheels there (PYTHON=3.12 names the other Python)
# The result: ${OUT:-results/benchmarks}/B7-<card>.json, and a table on the last lines.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
WHEELS=(fastai fastcore fastprogress==1.0.3 fasttransform plum-dispatch beartype fastdownload tomli-w zarr donfig numcodecs
        obstore google-crc32c lazy-loader)

pack() {   # only what torch does not bring
  mkdir -p "$1/wheels" "$1/data"
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON:-3.12}" --implementation cp \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform any -d "$1/wheels" "${WHEELS[@]}"
  echo "$1: $(ls "$1/wheels" | wc -l) wheels, $(du -sm "$1" | cut -f1) MB; put tiny-imagenet.npz, cifar10-train.npz and cifar10-test.npz into $1/data to measure on real images"
}

if [ "${1:-}" = --pack ]; then pack "${2:?a folder}"; exit; fi
folder=${1:-benchmarks/gpu}; site=$(mktemp -d); trap 'rm -rf "$site"' EXIT
for w in "$folder"/wheels/*.whl; do [ -e "$w" ] && python3 -m zipfile -e "$w" "$site"; done
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1 MPLBACKEND=Agg
python3 benchmarks/gpu.py --data "$folder/data" --out "${OUT:-results/benchmarks}"
