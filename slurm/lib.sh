# Shared by the jobs of this folder, which source it. They may be submitted from any folder; paths count from there.
#
# PYTHON       interpreter on every node; default: the checkout's .venv, made by the first job that misses it
# MASTER_PORT  free port on the first node; default: derived from the job's id
set -uo pipefail

fail() { echo "error: $*" >&2; exit 2; }

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
[ -f "$root/stackgan_dist/train/__main__.py" ] || fail "$root is no checkout of stackgan_dist; submit slurm/NAME.sh of one"
if [ -z "${PYTHON:-}" ]; then
  bash "$root/launch/env.sh" demo || exit
  PYTHON=$root/.venv/bin/python
fi
export PYTHON root PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

say() { echo "[$(date '+%F %T') job ${SLURM_JOB_ID} start $((${SLURM_RESTART_COUNT:-0} + 1))] $*"; }

# The address by which Slurm itself reaches a node; names need not resolve on compute nodes.
node_address() { scontrol --oneliner show node "$1" | sed -E 's/.* NodeAddr=([^ ]+).*/\1/'; }

# Run a module with torchrun on every node of the job; the exit code says little, markers and results do.
on_every_node() {
  local code
  MASTER_ADDR=$(node_address "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)")
  # Ports and ids of another start of this job must not be met again.
  MASTER_PORT=${MASTER_PORT:-$((20000 + (SLURM_JOB_ID * 10 + ${SLURM_RESTART_COUNT:-0}) % 10000))}
  RUN_ID=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
  export MASTER_ADDR MASTER_PORT RUN_ID NNODES=$SLURM_NNODES
  export -f node_address
  # srun does not take --cpus-per-task from the job by itself, and gives one core where none are asked for. A job has as
  # many on each node as SLURM_JOB_CPUS_PER_NODE says, "64(x2),32".
  local cores gpus
  cores=${SLURM_CPUS_PER_TASK:-$(tr ',' '\n' <<<"${SLURM_JOB_CPUS_PER_NODE:-1}" | sed 's/(.*//' | sort -n | head -n 1)}
  gpus=${SLURM_GPUS_ON_NODE:-$(source "$root/launch/gpus.sh"; visible_gpus | wc -l)}
  [ "$cores" -ge $((4 * gpus)) ] ||
    say "note: $cores core(s) for $gpus GPU(s) on a node; loaders and NCCL want 4 for each: sbatch --cpus-per-task=$((4 * gpus))"
  srun --kill-on-bad-exit=0 --cpus-per-task="$cores" bash -c '
    export NODE_RANK=$SLURM_NODEID LOCAL_ADDR=$(node_address "$SLURMD_NODENAME")
    exec bash "$root/launch/torchrun.sh" -m "$@"' torchrun "$@" &
  step=$!
  # A trapped signal interrupts the wait, not the step.
  while kill -0 "$step" 2>/dev/null; do wait "$step"; done
  wait "$step"
  code=$?
  step=
  return "$code"
}

# What is written in the marker $2 of the run $1, which may lie on an object store; fails when there is none.
marker() { "$PYTHON" -m stackgan_dist.runs ending "$@"; }

# Train, with these arguments for the trainer, until the run is DONE: however often this job has to be requeued. Returns
# only then.
train() {
  local run code reached before
  run=$("$PYTHON" -m stackgan_dist.runs folder "$@") || exit

  # What an earlier start left behind must not speak for this one: a run that fails at once would be requeued for ever.
  # DONE stays, for the run is done also where this start is refused; a new one has another time in it.
  before=$(marker "$run" DONE) || before=
  "$PYTHON" -m stackgan_dist.runs forget "$run" PREEMPTED || exit
  step=
  # Slurm warns the batch script alone (--signal=B:USR1) before the time limit; srun passes it on to torchrun. SIGTERM
  # (preemption, scancel) reaches everybody anyway; it is caught to stay here until the checkpoint is written.
  trap 'say "warned by Slurm: saving"; [ -z "$step" ] || kill -USR1 "$step"' USR1
  trap 'say "told to end"' TERM

  say "training $run on $SLURM_NNODES node(s): $SLURM_JOB_NODELIST"
  on_every_node stackgan_dist.train "$@"
  code=$?

  if reached=$(marker "$run" DONE) && [ "$reached" != "$before" ]; then
    say "$run is done: $reached"
    return 0
  fi
  if ! reached=$(marker "$run" PREEMPTED); then
    say "$run failed (exit code $code); what went wrong is above. Submitted again, it resumes"
    exit $((code ? code : 1))
  fi
  # A cancelled job has left this state; requeueing would bring it back to life.
  if [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" != RUNNING ]; then
    say "$run was stopped at $reached; submitted again, it resumes"
    exit 143
  fi
  say "$run was stopped at $reached; back to the queue"
  scontrol requeue "$SLURM_JOB_ID" || fail "Slurm does not requeue this job; submit it again, the run resumes"
  sleep 60 # Slurm ends this start of the job meanwhile
}
