#!/usr/bin/env bash
# One node of many: call it on every node with the same settings, in any order.
#
#   NNODES=4 MASTER_ADDR=node1 bash launch/torchrun.sh -m stackgan_dist.train --preset oxford102-stage1
#   NNODES=2:4 MASTER_ADDR=node1 bash launch/torchrun.sh -m stackgan_dist.train     # elastic
#
# It ends with 0 when the run is DONE, with 75 when it was stopped and is to be started again, with 2 for an error that
# you can mend, and with 1 for everything else. Paths count from the folder in which it is called.
#
# NNODES          number of nodes; MIN:MAX for a run that goes on while MIN of them are there       [1]
# MASTER_ADDR     node where they meet; in an elastic run the one node that must stay    [one node: localhost]
# MASTER_PORT     free port on it               [one node: any free one; several: 20000 to 29999, by RUN_ID]
# NODE_RANK       0 on MASTER_ADDR, another number elsewhere; needed only where a node cannot tell from its
#                 addresses that it is MASTER_ADDR                                                  [unset]
# RUN_ID          the same on all nodes, another for each group that meets there      [by the run's folder and name]
# NPROC_PER_NODE  ranks on this node                                                       [its GPUs, else 1]
# LOCAL_ADDR      this node's address, where its hostname is not one that the others can reach      [unset]
# JOIN_TIMEOUT_S  how long to wait for the other nodes                                              [900]
# STOP_TIMEOUT_S  how long ranks have, once stopped, to save their checkpoint; before torch 2.13 always 30 s  [120]
# MAX_RESTARTS    how often to start again after a rank was lost; the run resumes    [elastic: 10, else 0]
# PYTHON          interpreter                                            [that of the checkout's .venv]
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$(command -v "$python")" ] || { echo "error: there is no $python; make it with: bash $root/launch/env.sh" >&2; exit 2; }
[ $# -gt 0 ] || { echo "error: nothing to run; e.g. bash launch/torchrun.sh -m stackgan_dist.train" >&2; exit 2; }
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

source "$root/launch/gpus.sh"
ranks=${NPROC_PER_NODE:-$(visible_gpus | wc -l)}
[ "$ranks" -gt 0 ] || ranks=1

# What distinguishes this run from others on the same hosts: where it writes, or else the command itself.
identity() {
  if [ "$1 ${2:-}" = "-m stackgan_dist.train" ]; then
    "$python" -m stackgan_dist.runs folder "${@:3}" 2>/dev/null && return
  fi
  echo "$*"
}
nodes=${NNODES:-1}
restarts=0
# At localhost every node would wait for the others by itself.
[ "$nodes" = 1 ] || [ -n "${MASTER_ADDR:-}" ] || {
  echo "error: NNODES is $nodes and MASTER_ADDR is not set; give all nodes the name of one of them, e.g." \
    "NNODES=$nodes MASTER_ADDR=node1 bash launch/torchrun.sh ..." >&2
  exit 2
}
# Losing or gaining a node ends the ranks of all others, which must then be started again.
[[ $nodes == *:* ]] && restarts=10
if [ "$nodes" = 1 ] && [ -z "${MASTER_PORT:-}${RUN_ID:-}" ]; then
  # Alone it meets nobody: torchrun takes a free port and an id of its own.
  meeting=(--standalone)
else
  id=${RUN_ID:-stackgan-$(identity "$@" | cksum | cut -d ' ' -f 1)}
  port=${MASTER_PORT:-$((20000 + $(cksum <<<"$id" | cut -d ' ' -f 1) % 10000))}
  # A node that dies is noticed after 3 missed signs of life; late ones have 15 s to join a group that could begin.
  conf=join_timeout=${JOIN_TIMEOUT_S:-900},last_call_timeout=15,keep_alive_interval=5,keep_alive_max_attempt=3
  [ -z "${NODE_RANK:-}" ] || conf+=,is_host=$([ "$NODE_RANK" = 0 ] && echo true || echo false)
  meeting=(--rdzv-backend c10d --rdzv-endpoint "${MASTER_ADDR:-localhost}:$port" --rdzv-id "$id" --rdzv-conf "$conf")
  echo "launch: meeting $nodes node(s) at ${MASTER_ADDR:-localhost}:$port as $id; waiting for them for at most" \
    "${JOIN_TIMEOUT_S:-900} s (RUN_ID, MASTER_PORT and JOIN_TIMEOUT_S change that)"
fi

# Otherwise one store serves all rounds of a rendezvous under the same keys: after a restart ranks read the addresses
# of the round before and never find each other ("Connection refused", torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${STOP_TIMEOUT_S:-120}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec "$python" -m stackgan_dist.launcher \
  --nnodes "$nodes" --nproc-per-node "$ranks" --max-restarts "${MAX_RESTARTS:-$restarts}" \
  "${meeting[@]}" ${LOCAL_ADDR:+--local-addr "$LOCAL_ADDR"} "$@"
