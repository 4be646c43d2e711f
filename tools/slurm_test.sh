#!/usr/bin/env bash
# Test on a Slurm cluster:
#     GPUS=16 GPUS_PER_NODE=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT ...
# and then any options of tools/test.py.
#
# GPUS (8)           processes in all, one per GPU
# GPUS_PER_NODE (8)  processes on a machine
# CPUS_PER_TASK (5)  CPU cores for each process
# GRES               what to ask Slurm for, gpu:GPUS_PER_NODE unless set; empty on CPU machines
# SRUN_ARGS          further options of srun
#
# Slurm starts one torchrun on each machine. The rendezvous is on the first one, at a port computed
# from the number of the job, so that two jobs on a machine do not collide. If one ends, the others
# end within a minute.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
partition=$1 job_name=$2
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
if [ $((gpus % per_node)) -ne 0 ]; then
    echo "error: GPUS=$gpus is not a multiple of GPUS_PER_NODE=$per_node; change one" >&2
    exit 2
fi
gres=${GRES-gpu:$per_node}

# shellcheck disable=SC2016,SC2086  # expanded on the machines; SRUN_ARGS is several words
exec srun --partition="$partition" --job-name="$job_name" \
    --nodes=$((gpus / per_node)) --ntasks-per-node=1 ${gres:+--gres="$gres"} \
    --cpus-per-task=$((per_node * ${CPUS_PER_TASK:-5})) --wait=60 ${SRUN_ARGS:-} \
    bash -c '
        first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
        exec "${PYTHON:-python}" -m mmtimesformer.engine.launch.torchrun \
            --nnodes "$SLURM_NNODES" --nproc-per-node "$1" \
            --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" \
            --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" \
            --rdzv-conf "is_host=$((SLURM_NODEID == 0))" \
            "${@:2}" --launcher pytorch
    ' bash "$per_node" "$tools/test.py" "${@:3}"
