#!/usr/bin/env bash
# One training on several machines that all see this folder. On each of them, in the repository, with the name of
# the first:
#
#   bash docs/several_machines.sh HOST 2 trainer=fsdp model=transformer data=text
#
# 2 is how many machines there are; what follows is what train.py takes, trainer=ddp or trainer=fsdp among it.
# Each machine starts a process per GPU, or one where there is none. Should a process be lost, all start again from
# the last checkpoint, up to three times. A machine that is lost ends the others within some minutes: start all of
# them again, with resume=<the run folder> added.
set -euo pipefail
first=${1:?the name of the first machine}
machines=${2:?how many machines there are}
shift 2
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || gpus=0
exec torchrun --nnodes "$machines" --nproc-per-node "$((gpus > 0 ? gpus : 1))" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id trimtab train.py "$@"
