#!/usr/bin/env bash
#SBATCH --job-name=stage1
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# Train Stage-I: `sbatch slurm/stage1.sh [OPTIONS of stackgan_dist.train]`, by default on painted birds.
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 --time=4:00:00 slurm/stage1.sh --preset oxford102-stage1
#
# The number of nodes does not change what is learned. Before the time limit (and when it is preempted) the job
# saves, requeues itself and goes on, until the run is done. Cancelled, it saves if KillWait allows, and stays away.
# The checkout is where this script lies, of which Slurm runs a copy.
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is a job: sbatch slurm/stage1.sh" >&2; exit 2; }
here=$(scontrol show job "$SLURM_JOB_ID" | sed -nE 's|^ *Command=(.*)/slurm/[a-z0-9_]+\.sh.*|\1|p;T;q')
source "${here:-$SLURM_SUBMIT_DIR}/slurm/lib.sh"

train "$@"  # by default the preset painted-stage1
