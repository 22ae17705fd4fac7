#!/usr/bin/env bash
# Submit a whole experiment, each job behind the one before: `bash slurm/pipeline.sh [NAME] [OPTIONS of pack]`.
#
#   bash slurm/pipeline.sh                                          painted birds at the paper's size
#   bash slurm/pipeline.sh demo                                     painted birds, small, minutes on CPUs
#   bash slurm/pipeline.sh oxford102 --root /data/flowers           presets oxford102-stage1 and -stage2
#   SBATCH_PARTITION=gpu SBATCH_GPUS_PER_NODE=8 bash slurm/pipeline.sh
#   DATA=s3://bucket/painted RUNS=s3://bucket/runs bash slurm/pipeline.sh
#
# DATA           where the shards go; default: data/RECIPE
# RUNS           where the runs go; default: runs
# TRAIN_OPTIONS  further options of both stages, e.g. "--training.epochs 100 --training.seed 1"
# SCORE_OPTIONS  further options of the score, e.g. "--classifier inception_v3.pth"
#
# pack -> Stage-I -> Stage-II -> Inception Score. If one fails, those behind it leave the queue. Paths count from the
# folder in which it is called.
set -euo pipefail
jobs=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
name=${1:-painted}
shift $(($# > 0))
read -ra train_options <<<"${TRAIN_OPTIONS:-}"
read -ra score_options <<<"${SCORE_OPTIONS:-}"

recipe=$name
stage1=$name-stage1
stage2=$name-stage2
if [ "$name" = demo ]; then
  recipe=painted
  stage1=demo/stage1
  stage2=demo/stage2
  set -- --sizes 76 152 "$@"
fi
data=${DATA:-data/$recipe}
runs=${RUNS:-runs}
train_options=(--data.url "$data" --run.folder "$runs" ${train_options[@]+"${train_options[@]}"})

last=
submit() {
  last=$(sbatch --parsable ${last:+--dependency=afterok:$last} --kill-on-invalid-dep=yes "$@")
  last=${last%%;*}
  echo "job $last: $*"
}
submit "$jobs"/pack.sh "$recipe" --out "$data" "$@"
submit "$jobs"/stage1.sh --preset "$name-stage1" "${train_options[@]}"
submit "$jobs"/stage2.sh --preset "$name-stage2" --stage1 "$runs/$stage1" "${train_options[@]}"
submit "$jobs"/inception_score.sh "$runs/$stage2" ${score_options[@]+"${score_options[@]}"}
