BUILD := build/release
JOBS ?= $(shell nproc)
FUZZ ?= 3000
RUNS ?= 100000
READERS ?= png jpeg webp zip tar npz npy safetensors idx pickle toml json text captions
PREFIX ?= /opt/atelier

.PHONY: help demo test nightly coverage build bench study sanitize fuzz setup install deb clean format tidy
.DEFAULT_GOAL := help

help:  ## say what there is (this list)
	@echo 'make TARGET, on Debian 12:'
	@echo
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'
	@echo
	@echo 'make TARGET NAME=VALUE:'
	@echo '  CUDA=1     for a machine with an NVIDIA GPU: all libraries of NVIDIA that LibTorch uses (3 GB more to download)'
	@echo '  TORCH_INDEX=https://download.pytorch.org/whl/cpu     a smaller LibTorch, for CPUs alone (0.2 GB instead of 0.5)'
	@echo '  JOBS=N     compile N files at once; as many as cores without it'
	@echo '  PACKAGES=no     leave Debian packages alone, where other systems have them by other names'

# Every option of CMakeLists.txt that a target cares about, each time, since the cache keeps what another target asked for.
# $(call configure,tests,Python module,benchmarks)
configure = cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DATELIER_LIBTORCH= -DATELIER_SANITIZE=OFF -DATELIER_COVERAGE=OFF \
    -DATELIER_TESTS=$(1) -DATELIER_PYTHON=$(2) -DATELIER_BENCHMARKS=$(3) > /dev/null

setup:  ## install Debian packages that building needs, and LibTorch and OpenVINO into .venv
	@scripts/setup.sh

# What `cmake --install` installs is built, too, so that it can follow.
build: setup  ## compile the program, build/release/atelier, and the library
	@$(call configure,OFF,OFF,OFF)
	@cmake --build $(BUILD) -j $(JOBS) --target atelier atelier_installed atelier_library_installed

demo:  ## build, train a 2-D toy (teacher, K=1, 2, 4, 8), sample the shipped models, write one HTML report
	@scripts/setup.sh data
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

test:  ## build everything and run every test
	@scripts/setup.sh test
	@$(call configure,ON,ON,OFF)
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) -LE nightly

nightly:  ## run the tests that make test leaves out: they take long and judge what training came to
	@scripts/setup.sh test
	@$(call configure,ON,ON,OFF)
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) -L nightly

coverage:  ## print the share of lines of each module that its tests and those of the program reach
	@scripts/setup.sh test
	@cmake -S . -B build/coverage -G Ninja -DCMAKE_BUILD_TYPE=Debug -DATELIER_LIBTORCH= -DATELIER_SANITIZE=OFF -DATELIER_COVERAGE=ON \
	    -DATELIER_TESTS=ON -DATELIER_PYTHON=OFF -DATELIER_BENCHMARKS=OFF > /dev/null
	@cmake --build build/coverage -j $(JOBS)
	@.venv/bin/python scripts/coverage.py build/coverage -j $(JOBS) $(TESTS)

bench:  ## measure speed, beside what one would use otherwise (docs/performance.md)
	@scripts/setup.sh test
	@scripts/setup.sh bench
	@$(call configure,ON,OFF,ON)
	@cmake --build $(BUILD) -j $(JOBS) --target atelier around_the_network pretend_device
	@.venv/bin/python benchmarks/bench.py

study:  ## train and measure what docs/results.md shows; days on two cores
	@scripts/setup.sh data
	@$(MAKE) --no-print-directory build
	@python3 scripts/study.py
	@python3 scripts/choosing_k.py

install: build  ## put program, C++ library and all libraries that they load under PREFIX (/opt/atelier), e.g. for deploy/atelier.service
	@cmake --install $(BUILD) --prefix $(PREFIX) --strip > /dev/null
	@echo "$(PREFIX)/bin/atelier is installed"

deb: build  ## a Debian package of the same, build/release/atelier_*.deb
	@cd $(BUILD) && cpack -G DEB > /dev/null
	@ls $(BUILD)/atelier_*.deb

sanitize: setup  ## run the tests of code without LibTorch under address, undefined-behaviour and thread sanitizers; FUZZ=N malformed requests
	@scripts/setup.sh test
	@for kinds in address,undefined thread; do \
	    cmake -S . -B build/sanitize-$$kinds -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DATELIER_LIBTORCH= -DATELIER_SANITIZE=$$kinds -DATELIER_COVERAGE=OFF \
	        -DATELIER_TESTS=ON -DATELIER_PYTHON=OFF -DATELIER_BENCHMARKS=OFF > /dev/null && \
	    cmake --build build/sanitize-$$kinds -j $(JOBS) --target core_tests conditions_tests graph_tests server_tests && \
	    ATELIER_FUZZ=$(FUZZ) UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    ctest --test-dir build/sanitize-$$kinds --output-on-failure -R '^(core|conditions|graph|server)\.' || exit 1; \
	done

fuzz:  ## try the readers of outside files under libFuzzer and sanitizers, RUNS inputs for each of READERS
	@scripts/setup.sh fuzz
	@cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++-19 -DATELIER_LIBTORCH= \
	    -DATELIER_SANITIZE=fuzzer-no-link,address,undefined -DATELIER_COVERAGE=OFF -DATELIER_TESTS=ON -DATELIER_PYTHON=OFF -DATELIER_BENCHMARKS=OFF > /dev/null
	@cmake --build build/fuzz -j $(JOBS) --target fuzz_readers
	@for reader in $(READERS); do scripts/fuzz.sh $$reader $(RUNS) || exit 1; done

format:  ## lay out C++ files by .clang-format
	@scripts/setup.sh form
	@.venv/bin/clang-format -i $$(git ls-files '*.h' '*.cpp')

tidy:  ## run clang-tidy (.clang-tidy) over all sources; about an hour on two cores
	@scripts/setup.sh form
	@.venv/bin/python tests/form/check.py tidy --all

clean:  ## remove build/
	@rm -rf build
