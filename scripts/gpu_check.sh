#!/usr/bin/env bash
# scripts/gpu_check.sh [OUT] [STEP...]: builds, tests and times this checkout on a machine with an NVIDIA GPU, without
# network.
#
# STEPs, in the order of the list below; without any, all of them. A machine that is lent for ten minutes a call takes them
# in several: the build is made again in each (a minute), everything else is independent.
#
#   scripts/gpu_check.sh values memcheck          # call 1: every operator's values and gradients, and out-of-bounds accesses
#   scripts/gpu_check.sh torch sweep              # call 2: graphs, compile, streams, no host sync; every operator timed
#   scripts/gpu_check.sh races fuzz benchmarks    # where there is more time: races, random calls, peers
#   scripts/gpu_check.sh large step
#
#   values      tests on cuda that compare values and gradients (the contract's, and those by hand)
#   torch       tests on cuda of what torch does with an operator: graphs, compile, export, autocast, host syncs, streams,
#               another device where there are several
#   large       tests on cuda of tensors past 2^31 elements, one after the other: up to 60 GB of GPU memory
#   memcheck    compute-sanitizer memcheck on random calls of every operator
#   races       racecheck, synccheck and initcheck on the same
#   fuzz        scripts/fuzz.py --device cuda
#   benchmarks  pytest benchmarks on cuda, as json, table and chart
#   sweep       benchmarks/sweep.py: every operator from batch 1 to 1024 in three dtypes, as json and chart
#   step        benchmarks/training_step.py: a hourglass' training step by part, on LSP below PYPOSE_OPS_DATA or on noise
#
# OUT (default out/gpu; a first word that is no STEP) gets gpu_check.log, benchmarks.{json,md,png}, sweep.{json,png} and
# training_step.{json,png}. A step that fails or runs out of its time makes the exit status 1; the steps after it still
# run. Of the tests only those on `cuda` run (-k cuda): the others need no GPU.
# LIMIT: seconds that all steps together may take (default 570); a step gets what is left of it, at most its own limit.
# PYTHON: the interpreter (default python3). PYPOSE_OPS_REQUIRE_CUDA=0: a rehearsal on a machine without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

ALL=(values torch large memcheck races fuzz benchmarks sweep step)
OUT=out/gpu
if (($#)) && [[ " ${ALL[*]} " != *" $1 "* ]]; then
  OUT=$1
  shift
fi
STEPS=("${@:-${ALL[@]}}")
for name in "${STEPS[@]}"; do
  if [[ " ${ALL[*]} " != *" $name "* ]]; then
    echo "gpu_check.sh: STEP must be one of ${ALL[*]}, got $name" >&2
    exit 2
  fi
done
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-570}
export PYPOSE_OPS_REQUIRE_CUDA=${PYPOSE_OPS_REQUIRE_CUDA:-1}
# The source folder has no _C: nothing may import pypose_ops from the current directory.
export PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"
LOG=$OUT/gpu_check.log
: >"$LOG"
SUMMARY=()
FAILED=0

# Whether a step was asked for.
wanted() {
  [[ " ${STEPS[*]} " == *" $1 "* ]]
}

# step NAME SECONDS COMMAND...: runs within the limit, shows the end of the output, records how it went.
step() {
  local name=$1 limit=$2 start=$SECONDS status text verdict=ok
  shift 2
  local left=$((LIMIT - SECONDS))
  if ((left < 5)); then
    SUMMARY+=("$(printf '%-22s         %s' "$name" "FAILED: no time left")")
    FAILED=1
    return
  fi
  ((limit > left)) && limit=$left
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
step build 150 "$PYTHON" -m pip install --no-build-isolation --no-deps --force-reinstall .
step import 20 "$PYTHON" -c 'import pypose_ops; print(pypose_ops.build_info())'

workers=()
"$PYTHON" -c 'import xdist' 2>>"$LOG" && workers=(-n 8)
# Seconds each: these would compile for CUDA graphs and inductor, thousands of times over all samples.
compiled="compile or export or opcheck or cuda_graph or autocast or no_host_sync or two_streams or other_device"
wanted values && step values 300 "$PYTHON" -m pytest tests -q "${workers[@]}" -k "cuda and not large_batch and not ($compiled)"
wanted torch && step torch 400 "$PYTHON" -m pytest tests -q "${workers[@]}" -k "cuda and ($compiled)"

wanted large && step large 200 "$PYTHON" -m pytest tests/ops/test_large.py -q -k cuda

device=cuda
[[ $PYPOSE_OPS_REQUIRE_CUDA == 0 ]] && device=cpu
# Under a checker, which slows kernels down by orders of magnitude: random small calls of every operator, with gradients.
checker=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>>"$LOG")
check() {
  if [[ -n $checker ]]; then
    # Without torch's caching allocator every tensor is an allocation of its own, with its own bounds.
    step "sanitizer-$1" "$2" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$checker" --tool "$1" --error-exitcode 1 \
      "$PYTHON" -W ignore scripts/fuzz.py --device "$device" --calls 400 --in-process
  else
    SUMMARY+=("$(printf '%-22s         %s' "sanitizer-$1" "compute-sanitizer not found")")
  fi
}
wanted memcheck && check memcheck 200
if wanted races; then
  for tool in racecheck synccheck initcheck; do
    check "$tool" 120
  done
fi

wanted fuzz && step fuzz 150 "$PYTHON" -W ignore scripts/fuzz.py --device "$device" --calls "${CALLS:-10000}" --in-process
if wanted benchmarks; then
  step benchmarks 350 "$PYTHON" -m pytest benchmarks -q -k "$device" --benchmark-json="$OUT/benchmarks.json"
  step report 12 "$PYTHON" benchmarks/report.py "$OUT/benchmarks.json" --out "$OUT"
  sed -n '1,/^## All rows/p' "$OUT/benchmarks.md" 2>>"$LOG"
fi
if wanted sweep; then
  # Without PYTHONSAFEPATH: a script's own folder holds what it imports.
  step sweep 400 env -u PYTHONSAFEPATH "$PYTHON" benchmarks/sweep.py --device "$device" --seconds 330 --out "$OUT"
fi
if wanted step; then
  step training-step 100 env -u PYTHONSAFEPATH "$PYTHON" benchmarks/training_step.py --device "$device" --steps 8 \
    --json "$OUT/training_step.json"
  [[ -f $OUT/training_step.json ]] &&
    step chart 12 "$PYTHON" docs/draw_training_step.py "$OUT/training_step.json" --out "$OUT/training_step.png"
fi

printf '%s\n' "${SUMMARY[@]}" | tee -a "$LOG"
exit $FAILED
