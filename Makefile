# `make demo` runs the main job on the bundled clip, `make test` the tests. Both make their own .venv.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint system plugin clean

demo: $(VENV)/base
	$(VENV)/bin/python tools/demo.py out

test: $(VENV)/dev system
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	mkdir -p build/types/facestream
	ln -sfn $(CURDIR)/facestream/*.py $(CURDIR)/pipeline $(CURDIR)/engines $(CURDIR)/train $(CURDIR)/benchmarks build/types/facestream/
	$(VENV)/bin/mypy

$(VENV)/base: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# torch first and by its exact version, so that a CPU build which is at hand is taken instead of the newest CUDA build.
# trackeval brings opencv-python, whose cv2 lands on the headless one's and needs libGL.so.1: it goes, the other comes back.
$(VENV)/dev: $(VENV)/base
	$(PIP) torch==2.13.0
	$(PIP) -e '.[train,openvino,web,webrtc,window,evaluate,attack,dev]'
	$(VENV)/bin/python -m pip uninstall --quiet --yes opencv-python
	$(PIP) --force-reinstall --no-deps opencv-python-headless
	@# Builds real plans for NVIDIA GPUs, and needs none itself; those tests are skipped without it.
	$(PIP) -e '.[rtx]' || echo "TensorRT-RTX could not be installed: the tests that need it are skipped"
	touch $@

# Independent programs that some tests hold our files against; those tests are skipped without them.
system:
	@if ! { command -v ffprobe && command -v Xvfb && command -v chromium; } >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends ffmpeg xvfb xdotool chromium >/dev/null || \
		echo "ffmpeg, Xvfb and Chromium could not be installed: the tests that need them are skipped"; \
	fi

# The NMS plugin for programs that load TensorRT plans without Python: needs nvcc and the headers of TensorRT's SDK.
# Code for every supported GPU, and PTX for those to come.
TENSORRT ?= /usr/local/TensorRT
ARCHITECTURES ?= 75 80 86 89 90 100 120
PLUGIN ?= build/libfacestream_nms.so
plugin: $(PLUGIN)

$(PLUGIN): engines/cuda/nms_plugin.cu engines/cuda/nms.cu
	mkdir -p $(dir $@)
	nvcc -O3 -std=c++17 --fmad=false -shared -Xcompiler -fPIC,-fvisibility=hidden -isystem=$(TENSORRT)/include \
		$(foreach sm,$(ARCHITECTURES),-gencode=arch=compute_$(sm),code=sm_$(sm)) -gencode=arch=compute_120,code=compute_120 \
		-o $@ engines/cuda/nms_plugin.cu

clean:
	rm -rf $(VENV) out build
