#!/usr/bin/env bash
# Submit a whole experiment, each job behind the one before: `bash slurm/pipeline.sh [NAME] [OPTIONS of pack]`.
#
#   bash slurm/pipeline.sh                                          painted birds at the paper's size
#   bash slurm/pipeline.sh demo                                     painted birds, small, minutes on CPUs
#   bash slurm/pipeline.sh oxford102 --root /data/flowers           presets oxford102-stage1 and -stage2
#   SBATCH_PARTITION=gpu SBATCH_GPUS_PER_NODE=8 bash slurm/pipeline.sh
#
# pack -> Stage-I -> Stage-II -> Inception Score. If one fails, those behind it leave the queue.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${1:-painted}
shift $(($# > 0))

recipe=$name
run=runs/$name-stage2
if [ "$name" = demo ]; then
  recipe=painted
  run=runs/demo
  set -- --sizes 76 152 "$@"
fi

last=
submit() {
  last=$(sbatch --parsable ${last:+--dependency=afterok:$last} --kill-on-invalid-dep=yes "$@")
  last=${last%%;*}
  echo "job $last: $*"
}
submit slurm/pack.sh "$recipe" "$@"
submit slurm/stage1.sh --preset "$name-stage1"
submit slurm/stage2.sh --preset "$name-stage2"
submit slurm/inception_score.sh "$run"
