#!/usr/bin/env bash
# Write launch/constraints.txt: `bash launch/constraints.sh`, the versions that are installed in .venv.
#
# Nothing is upgraded: move a version with .venv/bin/pip install, run tests/run.sh, then call this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || { echo "error: there is no .venv; make it with: bash launch/env.sh dev" >&2; exit 2; }

# A version's local part (+cpu) names a build; which build is for the machine to choose.
pins=$(LC_ALL=C .venv/bin/python -m pip --disable-pip-version-check freeze --exclude-editable | sed 's/+[a-z0-9.]*$//')
for name in torch pytest; do
  grep -q "^$name==" <<<"$pins" ||
    { echo "error: .venv has no $name; complete it with: bash launch/env.sh dev" >&2; exit 2; }
done
{
  echo "# The versions that are tested together: what \`bash launch/env.sh dev\` installs, with what those packages need."
  echo "# Written by \`bash launch/constraints.sh\`; launch/env.sh installs torch from here first, so that nothing moves it."
  echo "$pins"
} >launch/constraints.txt.new
mv launch/constraints.txt.new launch/constraints.txt
