#!/usr/bin/env bash
#SBATCH --job-name=stage2
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# Train Stage-II: `sbatch slurm/stage2.sh [OPTIONS of stackgan_dist.train]`, by default on painted birds.
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 --time=4:00:00 slurm/stage2.sh --preset oxford102-stage2
#
# Starts from the preset's Stage-I run, or from another one (--stage1 runs/NAME). Requeues itself as stage1.sh does.
# The checkout is where this script lies, of which Slurm runs a copy.
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is a job: sbatch slurm/stage2.sh" >&2; exit 2; }
here=$(scontrol show job "$SLURM_JOB_ID" | sed -nE 's|^ *Command=(.*)/slurm/[a-z0-9_]+\.sh.*|\1|p;T;q')
source "${here:-$SLURM_SUBMIT_DIR}/slurm/lib.sh"

case " $*" in
  *" --preset"* | *" --config"*) ;;
  *) set -- --preset painted-stage2 "$@" ;;
esac
train "$@"
