#!/usr/bin/env bash
#SBATCH --job-name=reproduce-cell
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# One cell of the paper's tables, trained and scored: `sbatch slurm/reproduce_cell.sh OPTIONS of stackgan_dist.reproduce`.
#
#   sbatch --nodes=4 --gpus-per-node=8 slurm/reproduce_cell.sh table2 --data data/cub --scale paper --cell stage1-64
#
# Or, with --show instead of --cell, the table. slurm/reproduce.sh submits all of that. A training requeues itself as
# stage1.sh does; what is finished stays.
# The checkout is where this script lies, of which Slurm runs a copy.
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is a job: sbatch slurm/reproduce_cell.sh" >&2; exit 2; }
here=$(scontrol show job "$SLURM_JOB_ID" | sed -nE 's|^ *Command=(.*)/slurm/[a-z0-9_]+\.sh.*|\1|p;T;q')
source "${here:-$SLURM_SUBMIT_DIR}/slurm/lib.sh"

case " $* " in
  *' --show '*) exec "$PYTHON" -m stackgan_dist.reproduce "$@" ;;
esac
plan=$("$PYTHON" -m stackgan_dist.reproduce "$@" --plan) || exit
mapfile -t lines <<<"$plan"
for line in "${lines[@]}"; do
  [[ $line == 'python -m '* ]] || continue
  eval "words=(${line#python -m })" # the plan is quoted for a shell
  if [ "${words[0]}" = stackgan_dist.train ]; then
    train "${words[@]:1}"
    trap '' USR1 # scores are soon made; the warning would only end them
  else
    on_every_node "${words[@]}" || exit
  fi
done
say "done: $*"
