# Cross builds, packages and their tests; the Makefile includes it. See cross/README.md.

TARGETS := amd64 arm64 armv7 riscv64
# The commit's time is the time of all that is packed.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
CROSSENV = VERSION='$(VERSION)' SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)'

.PHONY: cross $(TARGETS:%=cross-%) release apt-repo oci cross-test sizes reproducible vm-test

cross: $(TARGETS:%=cross-%) ## build for amd64, arm64, armv7 and riscv64; cross-arm64 and so on build one

$(TARGETS:%=cross-%): cross-%:
	@$(CROSSENV) sh cross/build.sh $*

export MINISIGN_KEY
release: cross ## build, pack, list and sign what is delivered, into build/release
	@$(CROSSENV) sh cross/release.sh $(TARGETS)

export APT_KEY APT_URL
apt-repo: ## put what release made into a signed apt repository, build/apt (APT_KEY=KEYID, APT_URL=https://…)
	@sh cross/apt-repo.sh

oci: ## make an OCI image for all architectures of what release made, build/oci
	@$(CROSSENV) sh cross/oci.sh $(TARGETS)

cross-test: ## test what release made, each target under emulation
	@VERSION='$(VERSION)' bash cross/test.sh $(TARGETS)
	@VERSION='$(VERSION)' bash cross/test-integration.sh $(TARGETS)

ARCH ?= arm64
VM   ?= long
vm-test: ## install release's .deb in a virtual machine of ARCH (arm64, armhf, amd64; VM=short: a power cut only; root)
	@bash cross/vm.sh $(ARCH) $(VM)

sizes: ## sizes, start times and memory of what release made, against their budgets
	@VERSION='$(VERSION)' bash cross/sizes.sh $(TARGETS)

reproducible: ## build arm64 twice in different folders and compare
	@$(CROSSENV) sh cross/reproducible.sh arm64
