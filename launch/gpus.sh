# Sourced by the scripts of this folder.

# The GPUs that processes started from here would see, one a line, by the names that CUDA_VISIBLE_DEVICES takes.
visible_gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep . || true
  else
    { nvidia-smi --list-gpus 2>/dev/null || true; } | sed -nE 's/^GPU ([0-9]+):.*/\1/p'
  fi
}
