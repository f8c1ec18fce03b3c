#!/usr/bin/env bash
# scripts/gpu_check.sh [OUT]: builds, tests and times this checkout on a machine with an NVIDIA GPU, without network.
#
# OUT (default out/gpu) gets gpu_check.log and benchmarks.{json,md,png}. A step that fails or runs out of its time makes the
# exit status 1; the steps after it still run. All limits together stay under 9 minutes.
# PYTHON: the interpreter (default python3). PYPOSE_OPS_REQUIRE_CUDA=0: a rehearsal on a machine without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

OUT=${1:-out/gpu}
PYTHON=${PYTHON:-python3}
export PYPOSE_OPS_REQUIRE_CUDA=${PYPOSE_OPS_REQUIRE_CUDA:-1}
# The source folder has no _C: nothing may import pypose_ops from the current directory.
export PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"
LOG=$OUT/gpu_check.log
: >"$LOG"
SUMMARY=()
FAILED=0

# step NAME SECONDS COMMAND...: runs within the limit, shows the end of the output, records how it went.
step() {
  local name=$1 limit=$2 start=$SECONDS status text verdict=ok
  shift 2
  echo "== $name" | tee -a "$LOG"
  text=$(timeout --kill-after=5 "$limit" "$@" 2>&1)
  status=$?
  echo "$text" >>"$LOG"
  echo "$text" | tail -n 12
  if [[ $status == 124 || $status == 137 ]]; then
    verdict="FAILED: over $limit s"
  elif [[ $status != 0 ]]; then
    verdict="FAILED: exit status $status"
  fi
  # Some virtual machines refuse the checker the device: that says nothing about the kernels.
  if [[ $name == sanitizer* && $text == *"Device not supported"* ]]; then
    verdict="not available on this machine"
  fi
  [[ $verdict == FAILED* ]] && FAILED=1
  SUMMARY+=("$(printf '%-22s %4d s  %s' "$name" $((SECONDS - start)) "$verdict")")
}

nvidia-smi 2>&1 | tee -a "$LOG" | head -n 15
step build 90 "$PYTHON" -m pip install --no-build-isolation --no-deps --force-reinstall .
step import 20 "$PYTHON" -c 'import pypose_ops; print(pypose_ops.build_info())'

workers=()
"$PYTHON" -c 'import xdist' 2>>"$LOG" && workers=(-n 8)
step simt-build 40 env PYTHONPATH=tests "$PYTHON" -c 'import simt_device; print(simt_device.load())'
step tests 135 "$PYTHON" -m pytest tests -q "${workers[@]}"

# Every kernel once, on small tensors: the checker slows a kernel down by orders of magnitude.
selection="cuda and (matches_reference or gradients_match) and float32 and (people or joint or blobs or flip)"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>>"$LOG")
for tool in memcheck racecheck; do
  if [[ -n $sanitizer ]]; then
    # Without torch's caching allocator every tensor is an allocation of its own, with its own bounds.
    step "sanitizer-$tool" 45 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 1 \
      "$PYTHON" -m pytest tests -q -x -k "$selection"
  else
    SUMMARY+=("$(printf '%-22s         %s' "sanitizer-$tool" "compute-sanitizer not found")")
  fi
done

devices=cuda
[[ $PYPOSE_OPS_REQUIRE_CUDA == 0 ]] && devices=cpu
step benchmarks 150 "$PYTHON" -m pytest benchmarks -q -k "$devices" --benchmark-json="$OUT/benchmarks.json"
step report 12 "$PYTHON" benchmarks/report.py "$OUT/benchmarks.json" --out "$OUT"

sed -n '1,/^## All rows/p' "$OUT/benchmarks.md" 2>>"$LOG"
printf '%s\n' "${SUMMARY[@]}" | tee -a "$LOG"
exit $FAILED
