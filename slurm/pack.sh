#!/usr/bin/env bash
#SBATCH --job-name=pack
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# Pack a data set: `sbatch slurm/pack.sh [RECIPE] [OPTIONS of stackgan_dist.pack]`, by default painted birds.
#
#   sbatch --cpus-per-task=16 slurm/pack.sh oxford102 --root /data/flowers --out s3://bucket/oxford102
#   sbatch --nodes=4 --cpus-per-task=16 slurm/pack.sh coco --root /data/coco                  4 parts in one job
#   sbatch --array=1-32 --cpus-per-task=16 slurm/pack.sh coco --root /data/coco --out URL     32 parts in 32 jobs
#
# What is packed already stays as it is: requeued or submitted again, a job goes on. Parts need not run at the same
# time; the last one to finish writes the index. The shards are the same bytes for any number of parts.
# The checkout is where this script lies, of which Slurm runs a copy.
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is a job: sbatch slurm/pack.sh" >&2; exit 2; }
here=$(scontrol show job "$SLURM_JOB_ID" | sed -nE 's|^ *Command=(.*)/slurm/[a-z0-9_]+\.sh.*|\1|p;T;q')
source "${here:-$SLURM_SUBMIT_DIR}/slurm/lib.sh"

case ${1:-} in
  '' | -*) set -- painted "$@" ;;
esac

# Arrays count in steps, from anywhere; an array that was submitted in pieces would leave out parts.
place=0 jobs=1
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  step=${SLURM_ARRAY_TASK_STEP:-1}
  jobs=$SLURM_ARRAY_TASK_COUNT
  place=$(((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / step))
  [ $((SLURM_ARRAY_TASK_MIN + (jobs - 1) * step)) = "$SLURM_ARRAY_TASK_MAX" ] ||
    fail "an array with gaps would leave parts out; submit --array=1-N whole, finished parts end at once"
fi

# One task on every node; srun does not take --cpus-per-task from the job by itself.
export PLACE=$place JOBS=$jobs
exec srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c '
  exec "$PYTHON" -m stackgan_dist.pack "$@" --part $((PLACE * SLURM_NTASKS + SLURM_PROCID + 1))/$((JOBS * SLURM_NTASKS))' pack "$@"
