#!/usr/bin/env bash
# The whole project in a few minutes on two CPU cores: `bash launch/demo.sh` from a fresh clone.
#
# Painted birds -> Stage-I -> Stage-II -> scores -> pictures of sentences. Every step on two ranks (on one where there is
# one GPU), nothing to download but packages. Call it again after an interruption: it goes on where it was.
# How large and how long: the presets demo-stage1 and demo-stage2 in stackgan_dist/presets.py.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

inception_samples=500
colour_samples=1000
sentences=(
  "a small red bird with white wings and a yellow belly"
  "a large blue bird with orange wings and a long black beak"
  "this yellow bird has a black crown and green wings"
  "a green bird with a pink belly and purple wings, on a branch"
  "a purple bird whose crown is white and whose wings are yellow"
  "a small black bird at dusk, with a red breast and a short orange beak"
)

phase() { echo; echo "[$1/6] $2  (at $((SECONDS / 60)) min $((SECONDS % 60)) s)"; }
on_all_ranks() { .venv/bin/torchrun --standalone --nproc-per-node "$ranks" -m "$@"; }

# A score is recorded with the checkpoint it belongs to; what is there already is shown again.
measure() {
  local kind=$1 module=$2 run=$3 samples=$4 checkpoint
  checkpoint=$(find "$run/checkpoints" -name commit.json | sort | tail -n 1)
  checkpoint=${checkpoint%/commit.json}
  if grep -sq "\"score\": \"$kind\",.*\"samples\": $samples,.*\"checkpoint\": \"$checkpoint\"" "$run/scores.jsonl"; then
    echo "$module: measured before, see $run/scores.jsonl"
  else
    on_all_ranks "stackgan_dist.$module" "$run" --samples "$samples"
  fi
}

# One thread per rank; unset, torchrun would choose the same and warn about it.
export OMP_NUM_THREADS=1

phase 1 "environment"
bash launch/env.sh demo
# Every rank needs a GPU of its own, where torch finds any.
ranks=$(.venv/bin/python -c 'import torch; print(min(2, torch.cuda.device_count() or 2))')
layout="$ranks ranks"
[ "$ranks" != 1 ] || layout="1 rank"

phase 2 "painting and packing birds"
.venv/bin/python -m stackgan_dist.pack painted --sizes 76 152

phase 3 "Stage-I, 64 pixels, on $layout"
on_all_ranks stackgan_dist.train --preset demo-stage1

phase 4 "Stage-II, 128 pixels, on $layout"
on_all_ranks stackgan_dist.train --preset demo-stage2

phase 5 "scores on $layout: Inception Score (stand-in classifier), agreement of colours with captions"
measure inception inception_score runs/demo/stage2 "$inception_samples"
measure "colour agreement" colour_agreement runs/demo/stage1 "$colour_samples"
measure "colour agreement" colour_agreement runs/demo/stage2 "$colour_samples"

phase 6 "pictures of new sentences, Stage-I beside Stage-II"
.venv/bin/python -m stackgan_dist.generate --run runs/demo --count 3 --out runs/demo/samples --overwrite "${sentences[@]}"
cp runs/demo/samples/grid.png runs/demo/samples.png

echo
echo "done after $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "  pictures:  $PWD/runs/demo/samples.png"
echo "  scores:    $PWD/runs/demo/stage2/scores.jsonl"
echo "  curves:    .venv/bin/tensorboard --logdir runs"
