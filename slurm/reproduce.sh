#!/usr/bin/env bash
# Submit one of the paper's tables, a job for each cell: `bash slurm/reproduce.sh OPTIONS of stackgan_dist.reproduce`.
#
#   bash slurm/reproduce.sh table2 --data data/cub --scale paper --seed 0 1
#   SBATCH_PARTITION=gpu SBATCH_GPUS_PER_NODE=8 bash slurm/reproduce.sh table1 --data data/oxford102 --scale paper
#
# A cell starts once the classifier, and the Stage-I that it needs, are done; the last job prints the table with what
# there is. Submitted again, what is finished is left out, and what was interrupted goes on.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
if [ -z "${PYTHON:-}" ]; then
  bash "$root/launch/env.sh" demo
  PYTHON=$root/.venv/bin/python
fi
export PYTHON PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

plan=$("$PYTHON" -m stackgan_dist.reproduce "$@" --plan)
declare -A job_of=()
all=
while IFS= read -r line; do
  [[ $line == '# job '* ]] || continue
  line=${line#'# job '}
  state=${line##*: }
  read -r name _ needs <<<"${line%: *}"
  case $state in made | scored) continue ;; esac
  after=
  for need in $needs; do
    [ -z "${job_of[$need]:-}" ] || after+=:${job_of[$need]}
  done
  options=(--cell "${name##*/}")
  [[ $name != */* ]] || options+=(--seed "${name%%/*}")
  job=$(sbatch --parsable ${after:+"--dependency=afterok$after"} --kill-on-invalid-dep=yes \
    "$root/slurm/reproduce_cell.sh" "$@" "${options[@]}")
  job_of[$name]=${job%%;*}
  all+=:${job_of[$name]}
  echo "job ${job_of[$name]}: $name${needs:+ after $needs}"
done <<<"$plan"

job=$(sbatch --parsable --nodes=1 ${all:+"--dependency=afterany$all"} "$root/slurm/reproduce_cell.sh" "$@" --show)
echo "job ${job%%;*}: the table"
