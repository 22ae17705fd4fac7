#!/usr/bin/env bash
# One node of many: call it on every node with the same settings, in any order.
#
#   NNODES=4 MASTER_ADDR=node1 bash launch/torchrun.sh -m stackgan_dist.train --preset oxford102-stage1
#   NNODES=2:4 MASTER_ADDR=node1 bash launch/torchrun.sh -m stackgan_dist.train     # elastic
#
# NNODES          number of nodes; MIN:MAX for a run that goes on while MIN of them are there       [1]
# MASTER_ADDR     node where they meet; in an elastic run the one node that must stay               [localhost]
# MASTER_PORT     free port on it                                                                   [29400]
# NODE_RANK       0 on MASTER_ADDR, another number elsewhere; needed only where a node cannot tell from its
#                 addresses that it is MASTER_ADDR                                                  [unset]
# RUN_ID          the same on all nodes, another for each group that meets at this port             [stackgan]
# NPROC_PER_NODE  ranks on this node                                                       [its GPUs, else 1]
# LOCAL_ADDR      this node's address, where its hostname is not one that the others can reach      [unset]
# JOIN_TIMEOUT_S  how long to wait for the other nodes                                              [900]
# STOP_TIMEOUT_S  how long ranks have, once stopped, to save their checkpoint; before torch 2.13 always 30 s  [120]
# MAX_RESTARTS    how often to start again after a rank was lost; the run resumes    [elastic: 10, else 0]
# PYTHON          interpreter                                                        [.venv/bin/python]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "error: there is no $python; make it with: bash launch/env.sh" >&2; exit 2; }
[ $# -gt 0 ] || { echo "error: nothing to run; e.g. bash launch/torchrun.sh -m stackgan_dist.train" >&2; exit 2; }

gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c . || true
  else
    { nvidia-smi --list-gpus 2>/dev/null || true; } | grep -c '^GPU' || true
  fi
}
ranks=${NPROC_PER_NODE:-$(gpus)}
[ "$ranks" -gt 0 ] || ranks=1

nodes=${NNODES:-1}
restarts=0
# Losing or gaining a node ends the ranks of all others, which must then be started again.
[[ $nodes == *:* ]] && restarts=10

# A node that dies is noticed after 3 missed signs of life; late ones have 15 s to join a group that could begin.
conf=join_timeout=${JOIN_TIMEOUT_S:-900},last_call_timeout=15,keep_alive_interval=5,keep_alive_max_attempt=3
[ -z "${NODE_RANK:-}" ] || conf+=,is_host=$([ "$NODE_RANK" = 0 ] && echo true || echo false)

# Otherwise one store serves all rounds of a rendezvous under the same keys: after a restart ranks read the addresses
# of the round before and never find each other ("Connection refused", torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${STOP_TIMEOUT_S:-120}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# SIGUSR1 is Slurm's early warning. torchrun would die of it; told to handle it, it passes it on to its ranks.
exec "$python" -m torch.distributed.run \
  --nnodes "$nodes" --nproc-per-node "$ranks" --max-restarts "${MAX_RESTARTS:-$restarts}" \
  --rdzv-backend c10d --rdzv-endpoint "${MASTER_ADDR:-localhost}:${MASTER_PORT:-29400}" \
  --rdzv-id "${RUN_ID:-stackgan}" --rdzv-conf "$conf" ${LOCAL_ADDR:+--local-addr "$LOCAL_ADDR"} \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  "$@"
