# make demo · make test · make build · make bench · make study · make sanitize · make clean · make format
BUILD := build/release
JOBS ?= $(shell nproc)
FUZZ ?= 3000

.PHONY: demo test build bench study sanitize setup clean format

setup:
	@scripts/setup.sh

build: setup
	@cmake -S . -B $(BUILD) -G Ninja > /dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target atelier

test: build
	@scripts/setup.sh test
	@cmake -S . -B $(BUILD) -DATELIER_PYTHON=ON > /dev/null
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

demo: build
	@scripts/demo.sh

bench: build
	@scripts/setup.sh bench
	@cmake -S . -B $(BUILD) -DATELIER_BENCHMARKS=ON > /dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target atelier around_the_network
	@.venv/bin/python benchmarks/bench.py

study: build
	@python3 scripts/study.py

# The rooms without torch under the address, undefined-behaviour and thread sanitizers; FUZZ malformed requests for the server.
sanitize: setup
	@for kinds in address,undefined thread; do \
	    cmake -S . -B build/sanitize-$$kinds -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DATELIER_SANITIZE=$$kinds > /dev/null && \
	    cmake --build build/sanitize-$$kinds -j $(JOBS) --target core_tests conditions_tests server_tests && \
	    ATELIER_FUZZ=$(FUZZ) UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    ctest --test-dir build/sanitize-$$kinds --output-on-failure -R '^(core|conditions|server)\.' || exit 1; \
	done

format:
	@clang-format -i $$(git ls-files 'src/*.h' 'src/*.cpp' 'apps/*.cpp' 'tests/*.h' 'tests/*.cpp')

clean:
	@rm -rf build
