#!/usr/bin/env bash
#SBATCH --job-name=inception-score
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
# Inception Score of a run: `sbatch slurm/inception_score.sh [RUN] [OPTIONS of stackgan_dist.inception_score]`.
#
#   sbatch --nodes=4 --gpus-per-node=8 slurm/inception_score.sh runs/oxford102-stage2 --classifier inception_v3.pth
#
# The number of nodes does not change the score.
# The checkout is where this script lies, of which Slurm runs a copy.
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is a job: sbatch slurm/inception_score.sh" >&2; exit 2; }
here=$(scontrol show job "$SLURM_JOB_ID" | sed -nE 's|^ *Command=(.*)/slurm/[a-z0-9_]+\.sh.*|\1|p;T;q')
source "${here:-$SLURM_SUBMIT_DIR}/slurm/lib.sh"

case ${1:-} in
  '' | -*) set -- runs/painted-stage2 "$@" ;;
esac
on_every_node stackgan_dist.inception_score "$@"
