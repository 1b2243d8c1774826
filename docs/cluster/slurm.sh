#!/bin/bash
# A fleet as a Slurm job array: sbatch slurm.sh RECIPE.toml RUN
# RUN is a folder that all nodes see, or an address such as s3://bucket/run.
# Each task trains every K-th model. A task that was killed: submit the same line again, it does what is missing.
#SBATCH --job-name=influence
#SBATCH --array=0-15
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --requeue
# one GPU a task: uncomment the next line
##SBATCH --gpus-per-task=1
set -eu
recipe=$1 run=$2
workers=${SLURM_GPUS_ON_NODE:-${SLURM_CPUS_PER_TASK:-1}} # one a GPU, or one a core
exec ti-run "$recipe" --out "$run" --workers "$workers" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
