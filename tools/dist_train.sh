#!/usr/bin/env bash
# Train in several processes, one per GPU, or on CPUs:
#     tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
# On several machines run the same line on each, PROCESSES then being those of one machine:
#     NNODES=2 RDZV_ENDPOINT=first-machine:29400 tools/dist_train.sh CONFIG PROCESSES ...
#
# The processes choose a free port themselves. If one is lost, all end; with
# MAX_RESTARTS=3 and --resume they are restarted, up to three times. Exit codes are those of
# tools/train.py: 75 is a training that was asked to stop and has saved.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
if [ "${MAX_RESTARTS:-0}" -gt 0 ] && [[ " $* " != *" --resume"* ]]; then
    echo "error: MAX_RESTARTS=$MAX_RESTARTS would start the training from its beginning; add --resume" >&2
    exit 2
fi

if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(--nnodes "$NNODES" --rdzv-backend c10d --rdzv-id "${RDZV_ID:-mmtimesformer}"
        --rdzv-endpoint "${RDZV_ENDPOINT:?set it to first-machine:port, the same on each machine}")
else
    rendezvous=(--standalone)
fi
exec "${PYTHON:-python}" -m mmtimesformer.engine.launch.torchrun "${rendezvous[@]}" \
    --nproc-per-node "$processes" --max-restarts "${MAX_RESTARTS:-0}" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
