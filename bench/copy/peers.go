package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// updaters adds the jobs of the peers that install bundles: rauc, which packs with squashfs, and swupdate, which reads
// the raw, the zlib and the zstd form. Both check the signature of the bundle, unlike bmaptool and updater here.
func (b *bench) updaters(form, file, loop string, add func(tool, name string, argv ...string)) error {
	compressed := map[string]string{"raw": "", "gz": "zlib", "zst3": "zstd", "zst19": "zstd"}
	kind, ok := compressed[form]
	if !ok {
		return nil
	}
	if err := b.sh(`[ -e bench.key ] || openssl req -x509 -newkey rsa:2048 -nodes -keyout bench.key -out bench.crt -subj /CN=bench -days 3650 \
		-addext extendedKeyUsage=emailProtection -addext keyUsage=digitalSignature 2>/dev/null`); err != nil {
		return err
	}
	if _, err := exec.LookPath("swupdate"); err == nil {
		if err := b.swu(file, form+".swu", kind, loop); err != nil {
			return err
		}
	}
	add("swupdate", "swupdate, raw handler", "swupdate", "-k", b.path("bench.crt"), "-H", "bench:1", "-M", "-m", "-l", "1", "-i", b.path(form+".swu"))
	if form != "raw" {
		return nil
	}
	if _, err := exec.LookPath("rauc"); err == nil {
		if err := b.raucb(file, loop); err != nil {
			return err
		}
	}
	// The service runs for this one installation; its time and memory are counted with those of the client.
	add("rauc", "rauc install, plain bundle", "dbus-run-session", "--", "bash", "-euc", `export DBUS_STARTER_BUS_TYPE=session
		rauc -c "$1/rauc/system.conf" --override-boot-slot=A service >"$1/rauc/log" 2>&1 & service=$!
		until rauc status >/dev/null 2>&1; do sleep 0.02; done
		rauc install "$1/rauc/root.raucb" >/dev/null; kill $service; wait $service || true`, "bench", b.dir)
	return nil
}

// swu makes a signed bundle of swupdate.
func (b *bench) swu(file, bundle, kind, loop string) error {
	if kind != "" {
		kind = fmt.Sprintf("compressed = %q;", kind)
	}
	return b.sh(`rm -rf swu; mkdir swu; ln "$1" swu/root.img
		cat >swu/sw-description <<-TEXT
			software = { version = "1"; hardware-compatibility: [ "1" ];
			  images: ( { filename = "root.img"; device = "$4"; type = "raw"; installed-directly = true; $3 sha256 = "$(sha256sum "$1" | cut -d' ' -f1)"; } ); }
		TEXT
		cd swu; openssl cms -sign -in sw-description -out sw-description.sig -signer ../bench.crt -inkey ../bench.key -outform DER -nosmimecap -binary
		printf '%s\n' sw-description sw-description.sig root.img | cpio -o -H crc -L >"../$2" 2>/dev/null; rm -r ../swu`, file, bundle, kind, loop)
}

// raucb makes a bundle of rauc and the configuration of a system with two raw slots and a boot loader that does nothing.
func (b *bench) raucb(file, loop string) error {
	return b.sh(`rm -rf rauc; mkdir -p rauc/in rauc/data rauc/mnt; ln "$1" rauc/in/root.img; cd rauc
		printf '[update]\ncompatible=bench\nversion=1\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=root.img\n' >in/manifest.raucm
		rauc --cert ../bench.crt --key ../bench.key bundle in root.raucb 2>/dev/null >/dev/null; rm -r in
		truncate -s 1M other.img
		printf '#!/bin/sh\ncase $1 in get-primary|get-current) echo A;; get-state) echo good;; esac\n' >backend; chmod +x backend
		cat >system.conf <<-TEXT
			[system]
			compatible=bench
			bootloader=custom
			bundle-formats=+plain
			data-directory=$PWD/data
			mountprefix=$PWD/mnt
			[handlers]
			bootloader-custom-backend=$PWD/backend
			[keyring]
			path=$PWD/../bench.crt
			check-purpose=any
			[slot.rootfs.0]
			device=$PWD/other.img
			type=raw
			bootname=A
			[slot.rootfs.1]
			device=$2
			type=raw
			bootname=B
		TEXT`, file, loop)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
