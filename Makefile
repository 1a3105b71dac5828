# make build      the static binary, bin/updater
# make initramfs  bin/initramfs.cpio.zst for KERNEL_VERSION, reproducibly
# make test       everything, with the QEMU round trip; installs what it needs
# make demo       the whole story in QEMU
# make size       binary and initramfs against their budget
.DEFAULT_GOAL := build

export CGO_ENABLED := 0
export PATH := $(PATH):/usr/sbin:/sbin
export GOAMD64 := v1
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unreleased)
# The commit's time is the floor of the trusted clock, and makes the same bytes from the same commit.
STAMP   ?= $(shell git log -1 --format=%cI 2>/dev/null)
FLAGS   := -trimpath -buildvcs=false
STRIP   := -s -w -buildid=
LDFLAGS := $(STRIP) -X main.stampVersion=$(VERSION) -X main.stampTime=$(STAMP)

.PHONY: build host initramfs deps test race fuzz demo size reproduce lint vet clean

build: bin/updater
bin/updater: FORCE
	go build $(FLAGS) -ldflags '$(LDFLAGS)' -o $@ ./cmd/updater
FORCE:

# u-root's init, and our host-side archiver.
bin/init: go.mod
	go build $(FLAGS) -ldflags '$(STRIP)' -o $@ github.com/u-root/u-root/cmds/core/init
bin/mkinitramfs: FORCE
	go build $(FLAGS) -ldflags '$(STRIP)' -o $@ ./cmd/mkinitramfs

# Modules of KERNEL_VERSION below MODULES_ROOT, with what they depend on; empty packs none.
KERNEL_VERSION ?=
MODULES_ROOT   ?= /
MODULES        ?= virtio_pci,virtio_blk,virtio_scsi,sd_mod,nvme,ahci,usb_storage,uas,xhci_pci,mmc_block,sdhci_pci,ext4,vfat,nls_cp437,nls_iso8859-1,nls_ascii
KEYRING        ?=
CONFIG         ?=
INITRAMFS      ?= bin/initramfs.cpio.zst
initramfs: bin/updater bin/init bin/mkinitramfs
	bin/mkinitramfs -init bin/init -updater bin/updater $(foreach k,$(KEYRING),-keyring $(k)) $(if $(CONFIG),-config $(CONFIG)) \
		$(if $(KERNEL_VERSION),-modules-root $(MODULES_ROOT) -kernel-version $(KERNEL_VERSION) -modules $(MODULES)) \
		-o $(INITRAMFS)

deps:
	scripts/deps.sh

test: deps build
	go vet ./... && go vet -tags vm ./...
	scripts/gotest.sh ./...
	UPDATER_LAB_DIR=$(CURDIR)/build/lab go test -p 1 -count=1 -tags vm -timeout 40m -v -run 'RoundTrip|FallBack|Recovery|Debian|Boot|Reproducible' ./internal/lab ./internal/vm ./internal/demo
race: export CGO_ENABLED := 1
race:
	go test -race ./...

# FUZZTIME for each fuzz target.
FUZZTIME ?= 60s
fuzz:
	scripts/fuzz.sh $(FUZZTIME)

demo: deps build
	go run ./internal/demo

size: initramfs
	scripts/size.sh

# Builds twice, from two folders, and compares.
reproduce:
	scripts/reproduce.sh

lint:
	golangci-lint run
vet:
	go vet ./...

clean:
	rm -rf bin build
