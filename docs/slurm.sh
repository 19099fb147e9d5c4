#!/usr/bin/env bash
# One training on all nodes of a Slurm job, from the repository, in a folder that all nodes see:
#
#   sbatch --nodes 2 --gpus-per-node 8 docs/slurm.sh trainer=fsdp model=transformer data=text
#
# What follows the script is what train.py takes, trainer=ddp or trainer=fsdp among it. The run folder goes by the
# number of the job, so that a job that is queued again (scontrol requeue, a lost node) goes on where it was. Two
# minutes before its time is up the run gets SIGTERM, and saves.
#SBATCH --job-name trimtab
#SBATCH --ntasks-per-node 1
#SBATCH --time 24:00:00
#SBATCH --signal TERM@120
#SBATCH --requeue
#SBATCH --open-mode append
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # head would end it early
folder=outputs/slurm-$SLURM_JOB_ID
arguments=("$@" "hydra.run.dir=$folder")
if [ -e "$folder/metrics.jsonl" ]; then
  arguments+=("resume=$folder")
fi
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" train.py "${arguments[@]}"
