#!/usr/bin/env bash
# Train on a Slurm cluster, in this terminal, or with BATCH=1 without one:
#     GPUS=16 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG ...
#     BATCH=1 GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG --resume ...
# and then any options of tools/train.py.
#
# GPUS (8)            processes in all, one per GPU
# GPUS_PER_NODE (8)   processes on a machine
# CPUS_PER_TASK (5)   CPU cores for each process
# GRES                what to ask Slurm for, gpu:GPUS_PER_NODE unless set; empty on CPU machines
# SRUN_ARGS           further options of srun, or with BATCH=1 of sbatch: --time=4:00:00 --qos=...
# MAX_RESTARTS (0)    how often lost processes are restarted, with --resume
# BATCH               1 submits the job by sbatch; it is queued again until it is done: when its
#                     time is over, when another job preempts it, and when a machine is lost
# STOP_SECONDS (120)  with BATCH=1: how long before its end a job is asked to stop and save
#
# Slurm starts one torchrun on each machine. The rendezvous is on the first one, at a port computed
# from the number of the job, so that two jobs on a machine do not collide. If one ends, the others
# end within a minute.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
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
if [[ -n "${BATCH:-}" || ${MAX_RESTARTS:-0} -gt 0 ]] && [[ " ${*:4} " != *" --resume"* ]]; then
    echo "error: a job that is started again must resume; add --resume" >&2
    exit 2
fi
gres=${GRES-gpu:$per_node}
machines=(--job-name="$job_name" --nodes=$((gpus / per_node)) --ntasks-per-node=1
    ${gres:+--gres="$gres"} --cpus-per-task=$((per_node * ${CPUS_PER_TASK:-5})))

if [ -n "${BATCH:-}" ] && [ "$BATCH" != begun ]; then
    # shellcheck disable=SC2086  # SRUN_ARGS is several words
    BATCH=begun exec sbatch --partition="$partition" "${machines[@]}" --requeue \
        --signal="USR1@${STOP_SECONDS:-120}" --open-mode=append ${SRUN_ARGS:-} \
        --wrap "bash ${BASH_SOURCE[0]@Q} ${*@Q}"
fi

# shellcheck disable=SC2016  # expanded on the machines
step=(--wait=60 bash -c '
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    exec "${PYTHON:-python}" -m mmtimesformer.engine.launch.torchrun \
        --nnodes "$SLURM_NNODES" --nproc-per-node "$1" --max-restarts "${MAX_RESTARTS:-0}" \
        --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
        --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" \
        --rdzv-conf "is_host=$((SLURM_NODEID == 0))" \
        "${@:2}" --launcher pytorch
' bash "$per_node" "$tools/train.py" "${@:3}")

if [ -z "${BATCH:-}" ]; then
    # shellcheck disable=SC2086
    exec srun --partition="$partition" "${machines[@]}" ${SRUN_ARGS:-} "${step[@]}"
fi

code=0
srun "${machines[@]}" "${step[@]}" || code=$?
case $code in
    75 | 138 | 143) # asked to stop: it has saved, or was starting (128 + SIGUSR1, 128 + SIGTERM)
        # A job that was cancelled, or that Slurm queues again itself, is not running any more.
        if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
            scontrol requeue "$SLURM_JOB_ID"
        fi
        ;;
esac
exit "$code"
