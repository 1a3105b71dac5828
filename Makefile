# make help       this list
# make build      the static binary, bin/updater
# make initramfs  bin/initramfs.cpio.zst for ARCH and KERNEL, reproducibly
# make uki        the same and its kernel as one EFI program
# make test       all tests, with QEMU; installs what they need
# make boards     every board of docs/boards.md, built and run in QEMU
# make man        man pages and completions in build/package
# make demo       the A/B round trip in QEMU, step by step
# make size       binary and initramfs against their budget
# make site       the documentation as a web site in build/site
# make package    packages, tarballs, SBOM and SHA256SUMS in dist/
# make release    the same, signed: KEY=...
.DEFAULT_GOAL := build

export CGO_ENABLED := 0
export PATH := $(PATH):/usr/sbin:/sbin
export GOAMD64 := v1
COMMIT  ?= $(shell git describe --always --dirty --exclude='*' 2>/dev/null)
# The commit's time is the floor of the trusted clock, and makes the same bytes from the same commit.
STAMP   ?= $(shell git log -1 --format=%cI 2>/dev/null)
# These packages are not on the data path: without inlining they take 520 KiB less.
COLD    := net/http $(addprefix github.com/,spf13/... BurntSushi/... vishvananda/... insomniacslk/... mdlayher/...) \
	$(addprefix updater/,cmd/... boot/... device/... fleet/... initramfs/... install/... provision/... recovery/... release/... service/...)
# HTTP/2 is not needed and takes 350 KiB.
FLAGS   := -trimpath -buildvcs=false -tags nethttpomithttp2 $(COLD:%=-gcflags=%=-l)
# Aligning functions to 16 bytes, as on arm64, instead of 32 saves 120 KiB.
STRIP   = -s -w -buildid=$(if $(filter amd64,$(ARCH)), -funcalign=16)
LDFLAGS = $(STRIP) -X main.stampCommit=$(COMMIT) -X main.stampTime=$(STAMP)

.PHONY: help build release initramfs uki man deps test test-unit test-vm test-devices boards test-recovery test-browser test-man test-contrib test-package race fuzz proof mutate demo bench maxrange \
	size site drawings package reproduce format tidy vet lint clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

build: bin/updater
# Programs are replaced by a rename: other processes may run them, or build them at the same time.
bin/updater: FORCE
	go build $(FLAGS) -ldflags '$(LDFLAGS)' -o $@.$$$$ ./cmd/updater && mv $@.$$$$ $@
FORCE:

# For another architecture: amd64, arm64, arm or riscv64. GOARM is 7 by default.
ARCH ?= $(shell go env GOARCH)
export GOARM ?= 7
DEVICE := bin/$(ARCH)
$(DEVICE)/updater: FORCE
	GOARCH=$(ARCH) go build $(FLAGS) -ldflags '$(LDFLAGS)' -o $@.$$$$ ./cmd/updater && mv $@.$$$$ $@
# u-root's init.
$(DEVICE)/init: go.mod
	GOARCH=$(ARCH) go build $(FLAGS) -ldflags '$(STRIP)' -o $@.$$$$ github.com/u-root/u-root/cmds/core/init && mv $@.$$$$ $@
# The archiver, for the host.
bin/mkinitramfs: FORCE
	go build $(FLAGS) -ldflags '$(STRIP)' -o $@.$$$$ ./cmd/mkinitramfs && mv $@.$$$$ $@

# KERNEL is the kernel image that will run it, KERNEL_VERSION its release alone; without both no modules are packed. MODULES are names or sets
# (docs/initramfs.md), below MODULES_ROOT. COMPRESS is zstd, xz or none.
KERNEL         ?=
KERNEL_VERSION ?=
MODULES_ROOT   ?= /
MODULES        ?= virtio,storage,usb-storage,net,input,fs,watchdog
COMPRESS       ?= zstd
KEYRING        ?=
CONFIG         ?=
POLICY         ?=
INITRAMFS      ?= bin/initramfs.cpio.zst
initramfs: $(DEVICE)/updater $(DEVICE)/init bin/mkinitramfs
	bin/mkinitramfs -init $(DEVICE)/init -updater $(DEVICE)/updater $(foreach k,$(KEYRING),-keyring $(k)) $(if $(CONFIG),-config $(CONFIG)) $(foreach f,$(POLICY),-policy $(f)) \
		$(if $(KERNEL)$(KERNEL_VERSION),-modules-root $(MODULES_ROOT) -modules $(MODULES)) \
		$(if $(KERNEL),-kernel $(KERNEL)) $(if $(KERNEL_VERSION),-kernel-version $(KERNEL_VERSION)) \
		-compress $(COMPRESS) -report $(INITRAMFS).report -o $(INITRAMFS)

# One signable EFI program of KERNEL, the initramfs and CMDLINE, with systemd's stub.
CMDLINE ?= console=ttyS0
UKI     ?= bin/updater.efi
uki: initramfs
	scripts/uki.sh $(ARCH) $(KERNEL) $(INITRAMFS) "$(CMDLINE)" $(UKI)

man:
	go run -tags docs ./cmd/updater man-pages build/package

deps:
	scripts/deps.sh

test: deps build vet test-unit test-man test-contrib test-vm test-devices

# Tests in QEMU have the build tag vm. Their packages run as a whole with that tag, and are left out of test-unit.
VM_PACKAGES = $(addprefix ./,$(sort $(dir $(shell grep -rl '^//go:build vm' --include='*_test.go' internal test))))
test-unit: export PYTHON := $(or $(wildcard $(CURDIR)/build/python/bin/python3),python3)
test-unit: build
	scripts/gotest.sh $(filter-out $(shell go list $(VM_PACKAGES)),$(shell go list ./...))
# build/vm keeps kernels, root file systems and images; only one run at a time may use it. Whole devices have a folder of their own, so that
# they may run beside the others.
DEVICE_PACKAGES := $(addprefix ./test/,boards/ units/)
test-vm: export UPDATER_VM_DIR := $(CURDIR)/build/vm
test-vm: build
	scripts/gotest.sh -p 1 -count=1 -tags vm -timeout 45m $(filter-out $(DEVICE_PACKAGES),$(VM_PACKAGES))
test-devices: export UPDATER_VM_DIR := $(CURDIR)/build/devices
test-devices: build
	scripts/gotest.sh -p 1 -count=1 -tags vm -timeout 45m $(DEVICE_PACKAGES)
# The whole devices of examples/boards; test-vm runs those without the build tag boards.
boards: export UPDATER_VM_DIR := $(CURDIR)/build/devices
boards: deps build
	scripts/gotest.sh -p 1 -count=1 -tags vm,boards -timeout 3h ./test/boards
# The recovery and the units in QEMU with their longer tests.
test-recovery: export UPDATER_VM_LONG := 1
test-recovery: deps
	$(MAKE) test-vm VM_PACKAGES=./test/recovery
	$(MAKE) test-devices DEVICE_PACKAGES=./test/units
# The web page of the recovery in Chromium (packages chromium, nodejs, npm), with new screenshots for docs/web.md. CI leaves it out: a
# browser beside QEMU costs minutes, and the same requests are tested by Go's client.
test-browser: export SCREENSHOTS := $(CURDIR)/docs/img
test-browser: export UPDATER_VM_DIR := $(CURDIR)/build/vm
test-browser: build
	mkdir -p $(SCREENSHOTS) build/browser
	cp test/recovery/browser/* build/browser && cd build/browser && npm ci --ignore-scripts --no-audit --no-fund
	go test -count=1 -v -tags vm -timeout 45m -run RecoveryBrowser ./test/recovery
test-man:
	go test -count=1 -tags docs -run ManPages ./cmd/updater

# The packages where goroutines share data, or a fault costs a device.
RACE_PACKAGES := ./update ./blockdev ./boot/... ./state ./verify ./bmap ./source ./device/... ./provision/...
# TestFileSystems takes minutes with the detector, and runs no goroutine that other tests of bmap do not run.
race: export CGO_ENABLED := 1
race:
	scripts/gotest.sh -race -skip '^TestFileSystems$$' $(RACE_PACKAGES)

# FUZZTIME for each fuzz target.
FUZZTIME ?= 8s
fuzz:
	scripts/fuzz.sh $(FUZZTIME)

# The long form of the proof that no power cut bricks: PROOF_FAULTS, PROOF_SEEDS, PROOF_FUSE and PROOF_VM scale it.
proof: deps build
	scripts/proof.sh

# Mutation testing of the packages whose faults brick: MUTATE_BUDGET bounds the time, MUTATE_SEED selects what it leaves out. A survivor that
# test/mutate/survivors.txt does not list with a reason fails.
MUTATE_PACKAGES ?= update blockdev blockdev/gpt state verify boot $(addprefix boot/,android barebox efi gpt grub mtd scheme sdboot tryboot uboot)
MUTATE_BUDGET   ?= 100m
MUTATE_SEED     ?=
mutate:
	go build -o bin/mutate ./test/mutate
	nice -n 19 bin/mutate -budget $(MUTATE_BUDGET) -seed '$(MUTATE_SEED)' $(MUTATE_PACKAGES)

demo: deps build
	go run ./test/demo

# Comparisons with other programs, scripts/bench/*.sh; SUBJECTS selects some of them.
SUBJECTS ?=
bench:
	scripts/bench.sh $(SUBJECTS)
# Costs and gains of the largest range of a bmap on a Debian root file system, for docs/design.md.
maxrange:
	scripts/maxrange.sh

size: initramfs
	scripts/size.sh $(FLAGS)

# The pages as a static, searchable web site; needs python3-venv and, the first time, the network.
site:
	scripts/site.sh
# docs/drawings, of their sources and of a run of examples/try.sh.
drawings: build
	scripts/drawings.sh
	scripts/recording.sh

# dist/: .deb, .rpm, .apk and a tarball for each of ARCHES, with man pages, completions, pages, schemas and examples; the packed programs and the
# release document of them; an SBOM, SHA256SUMS.
ARCHES ?= amd64 arm64 arm riscv64
package:
	COMMIT=$(COMMIT) STAMP=$(STAMP) ARCHES="$(ARCHES)" scripts/package.sh

# dist/ with SHA256SUMS and the release document signed by gpg: make release KEY=release@example.com.
release:
	@test -n "$(KEY)" || { echo 'make release needs KEY=..., a key that gpg can sign with' >&2; exit 2; }
	KEY="$(KEY)" $(MAKE) package

# Checks dist/, and installs, uses, upgrades, removes and purges the .deb in a clean Debian; needs root.
test-package: deps package
	scripts/test-package.sh

# Builds twice, in two folders with two umasks, and compares the bytes; WHAT=initramfs or WHAT=package selects one.
reproduce:
	scripts/reproduce.sh

# contrib/: runs the release script on a small image and parses the files of the build systems, where their parser is installed.
test-contrib: deps build
	scripts/test-contrib.sh

format:
	@unformatted=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)) && test -z "$$unformatted" || { echo "gofmt: $$unformatted" >&2; exit 1; }
tidy:
	go mod tidy -diff
vet:
	go vet ./...
	go vet -tags vm,boards ./...
# golangci-lint as tools/go.mod pins it.
lint:
	go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners

clean:
	rm -rf bin build dist
