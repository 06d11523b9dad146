# make demo · make test · make build · make bench · make study · make clean · make format
BUILD := build/release
JOBS ?= $(shell nproc)

.PHONY: demo test build bench study setup clean format

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

format:
	@clang-format -i $$(git ls-files 'src/*.h' 'src/*.cpp' 'apps/*.cpp' 'tests/*.h' 'tests/*.cpp')

clean:
	@rm -rf build
