#!/usr/bin/env bash
# Test in several processes, one per GPU, or on CPUs:
#     tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
#
# On several machines run the same line on each, PROCESSES then being those of one machine:
#     NNODES=2 RDZV_ENDPOINT=first-machine:29400 tools/dist_test.sh CONFIG CHECKPOINT PROCESSES ...
#
# The processes choose a free port themselves.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3

if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(--nnodes "$NNODES" --rdzv-backend c10d --rdzv-id "${RDZV_ID:-mmtimesformer}"
        --rdzv-endpoint "${RDZV_ENDPOINT:?set it to first-machine:port, the same on each machine}")
else
    rendezvous=(--standalone)
fi
exec "${PYTHON:-python}" -m mmtimesformer.engine.launch.torchrun "${rendezvous[@]}" \
    --nproc-per-node "$processes" --max-restarts "${MAX_RESTARTS:-0}" \
    "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
