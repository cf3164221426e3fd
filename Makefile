# The two to begin with are demo and test.

GO      ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
LIB     := build/lib/libonnxruntime.so
FUZZTIME ?= 100000x
SOAK     ?= 60m
RECIPES  ?= nslkdd iot captures
export PICKET_ONNXRUNTIME ?= $(abspath $(LIB))

.PHONY: help build demo test lint fuzz bench measure soak nightly train train-test clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: build/picket $(LIB) ## build build/picket and get ONNX Runtime for it

build/picket: FORCE
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/picket

$(LIB): cross/onnxruntime.sh cross/onnxruntime.sha256
	@sh cross/onnxruntime.sh build/lib

demo: build ## scan a bundled capture with the bundled model
	@build/picket scan testdata/scan.pcap.gz; code=$$?; [ $$code -eq 1 ] || exit 1

test: $(LIB) ## run all tests
	$(GO) test ./...

lint: ## check format, vet and staticcheck
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: $(LIB) ## run each fuzz target FUZZTIME (100000x) times
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1000x $$p || exit 1; \
		done; \
	done

bench: $(LIB) ## measure every stage, beside a loop that only reads
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

measure: $(LIB) ## measure run on an interface: rates, CPU, memory, latency (root)
	PICKET_MEASURE=1 $(GO) test -count=1 -v -timeout 30m -run TestMeasure ./cmd/picket

soak: $(LIB) ## run for SOAK (60m) at 20,000 packets a second (root)
	PICKET_SOAK=$(SOAK) $(GO) test -count=1 -v -timeout 0 -run TestSoak ./cmd/picket

nightly: release ## what CI has no time for: virtual machines, FUZZTIME of fuzzing, 1,000 kills, a soak of SOAK (root)
	$(MAKE) vm-test ARCH=arm64
	$(MAKE) vm-test ARCH=armhf
	$(MAKE) fuzz
	PICKET_KILLS=1000 $(GO) test -count=1 -timeout 0 -run TestRunKilled ./cmd/picket
	$(MAKE) soak

train: build/venv/done build ## train every model anew (Python 3.11; see models/train/README.md)
	@for r in $(RECIPES); do \
		for v in explore train evaluate; do build/venv/bin/python -m picket_train $$v $$r $(TRAINFLAGS) || exit 1; done; \
		build/venv/bin/python -m picket_train export $$r --picket build/picket $(TRAINFLAGS) || exit 1; \
		build/venv/bin/python -m picket_train report $$r $(TRAINFLAGS) || exit 1; \
	done

train-test: build/venv/done build ## test the training package on small data
	cd models/train && ../../build/venv/bin/python -m pytest -q

build/venv/done: models/train/pyproject.toml
	python3 -m venv build/venv
	build/venv/bin/pip install --quiet --disable-pip-version-check -e 'models/train[test,dask]'
	@touch $@

clean: ## delete what was built
	rm -rf build

include cross/cross.mk
