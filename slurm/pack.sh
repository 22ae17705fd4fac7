#!/usr/bin/env bash
#SBATCH --job-name=pack
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
# Pack a data set: `sbatch slurm/pack.sh [RECIPE] [OPTIONS of stackgan_dist.pack]`, by default painted birds.
#
#   sbatch --cpus-per-task=16 slurm/pack.sh oxford102 --root /data/flowers --out s3://bucket/oxford102
#
# What is packed already stays as it is.
source "${SLURM_SUBMIT_DIR:?this is a job: sbatch slurm/pack.sh}/slurm/lib.sh"

case ${1:-} in
  '' | -*) set -- painted "$@" ;;
esac
exec "$PYTHON" -m stackgan_dist.pack "$@"
