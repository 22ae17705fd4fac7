#!/usr/bin/env bash
# N "nodes" on this machine, each with a torchrun of its own: `bash launch/nodes.sh N -m stackgan_dist.train ...`.
#
# What only several nodes show can be tried on one machine, without root, on its GPUs or, where these are too few, on
# its CPU. NPROC_PER_NODE and the other settings of launch/torchrun.sh apply; NNODES=MIN:N makes the group elastic: end
# one node's torchrun and see.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ && $# -gt 1 ]] || {
  echo "usage: bash launch/nodes.sh NODES -m MODULE [ARGUMENTS], e.g. bash launch/nodes.sh 3 -m stackgan_dist.train" >&2
  exit 2
}
shift

# Two ranks cannot share a GPU, so the GPUs are dealt out; where there are too few of them, all nodes take the CPU.
source "$root/launch/gpus.sh"
mapfile -t gpus < <(visible_gpus)
each=${NPROC_PER_NODE:-$((${#gpus[@]} / count))}
if [ ${#gpus[@]} -gt 0 ] && { [ "$each" -eq 0 ] || [ $((each * count)) -gt ${#gpus[@]} ]; }; then
  echo "nodes: ${#gpus[@]} GPU(s) are too few for $count nodes of ${NPROC_PER_NODE:-at least 1} rank(s): all take the CPU" >&2
  gpus=()
fi
gpus_of() { local IFS=,; [ ${#gpus[@]} = 0 ] || echo "${gpus[*]:$(($1 * each)):$each}"; }

# A free one of those that launch/torchrun.sh takes: one that the kernel hands out to connections could be in use again
# before torchrun has started.
free_port='
import contextlib, random, socket
for port in random.sample(range(20000, 30000), 200):
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        print(port)
        break
'
MASTER_PORT=${MASTER_PORT:-$("${PYTHON:-$root/.venv/bin/python}" -c "$free_port")}
export MASTER_ADDR=127.0.0.1 LOCAL_ADDR=127.0.0.1 MASTER_PORT NNODES=${NNODES:-$count}

agents=()
pass_on() { kill -s "$1" "${agents[@]}" 2>/dev/null || true; }
for signal in INT TERM HUP USR1; do trap "pass_on $signal" "$signal"; done
for ((node = 0; node < count; node++)); do
  CUDA_VISIBLE_DEVICES=$(gpus_of "$node") NODE_RANK=$node bash "$root/launch/torchrun.sh" "$@" > >(sed -u "s/^/[node $node] /") 2>&1 &
  agents+=($!)
  echo "[node $node] torchrun is process $!"
done

code=0
for agent in "${agents[@]}"; do
  # A trapped signal interrupts the wait, not the agent.
  while kill -0 "$agent" 2>/dev/null; do wait "$agent" || true; done
  wait "$agent" || code=$?
done
exit "$code"
