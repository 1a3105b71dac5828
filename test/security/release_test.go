package security

import (
	"strings"
	"testing"

	"updater/internal/rig"
)

// newSet is a device whose slots have a boot and a rootfs partition, with a signed release of version 7 in release.toml.
func newSet(t *testing.T) *rig.Rig {
	t.Helper()
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	r.Sh(`sgdisk -n5:0:+2M -c5:boot_a -n6:0:+2M -c6:boot_b disk.img >/dev/null; head -c 512K /dev/urandom > boot.img; cp image.img rootfs.img
		sed -i 's/rootfs = "PARTLABEL=rootfs_\(.\)"/boot = "PARTLABEL=boot_\1", rootfs = "PARTLABEL=rootfs_\1"/' config.toml
		cp disk.img disk.orig`)
	r.Expect(0, "", "release", "create", "--product", "demo", "--version", "7", "--rollback-index", "7", "boot=boot.img", "rootfs=rootfs.img")
	r.Sign("release.toml", "release")
	return r
}

// TestS19OneReleaseOneSet: a slot boots one set from one signed document. No part of it can be exchanged, left out or added, and nothing
// is written before all of it is accepted.
func TestS19OneReleaseOneSet(t *testing.T) {
	r := newSet(t)
	good := string(r.Read("release.toml"))
	image := good[strings.Index(good, "[[image]]"):]
	second := image[strings.LastIndex(image, "[[image]]"):]
	replace := func(old, now string) func() {
		return func() {
			text := strings.Replace(good, old, now, 1)
			if text == good {
				t.Fatalf("%q is not in the document:\n%s", old, good)
			}
			r.Write("release.toml", []byte(text))
			r.Sign("release.toml", "release")
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func()
		code  int
		want  string
	}{
		{"a map of another release, unsigned", func() {
			r.Sh(`sed -i 's/^bmap_sha256 = "[0-9a-f]*"/bmap_sha256 = "'$(sha256sum < rootfs.img.bmap | cut -c1-64)'"/' release.toml`)
		}, 10, "not over this document"},
		{"maps swapped between roles", func() { r.Sh(`mv boot.img.bmap x; mv rootfs.img.bmap boot.img.bmap; mv x rootfs.img.bmap`) }, 10, "the release says"},
		{"a map that is not the pinned one", func() { r.Sh(`echo >> rootfs.img.bmap`) }, 10, "the release says"},
		{"images swapped between roles", func() { r.Sh(`mv boot.img x; mv rootfs.img boot.img; mv x rootfs.img`) }, 10, "the bmap says"},
		{"a release of another product", replace(`"demo"`, `"other"`), 11, `for product "other"`},
		{"below the floor", func() {
			r.Sh(`printf '[release]\nrollback_index = 8\n' >> config.toml`)
		}, 12, "8"},
		{"a map for another role", func() {
			r.Expect(0, "", "bmap", "create", "--product", "demo", "--role", "rootfs", "-o", "new.bmap", "boot.img")
			r.Sh(`sed -i "s/$(sha256sum < boot.img.bmap | cut -c1-64)/$(sha256sum < new.bmap | cut -c1-64)/" release.toml; mv new.bmap boot.img.bmap`)
			r.Sign("release.toml", "release")
		}, 11, "Role"},
		{"a bare map as a release", func() { r.Sh(`cp rootfs.img.bmap release.toml`); r.Sign("release.toml", "release") }, 10, "type"},
		{"a channel as a release", replace(`type = "release"`, `type = "channel"`), 10, `"channel"`},
		{"a role twice", func() { replace(second, second+"\n"+second)() }, 1, "twice"},
		{"a role missing", replace(second, ""), 11, "rootfs"},
		{"no role", replace(`role = "boot"`, `role = ""`), 1, "role"},
		{"no image", replace(image, ""), 1, "image"},
		{"an unknown role", replace(`role = "boot"`, `role = "dtb"`), 11, "dtb"},
		{"an unknown key", replace("[[image]]\n", "[[image]]\nurl = \"x\"\n"), 1, "url"},
		{"an unknown feature", replace("format = 1\n", "format = 1\nrequires = [\"warp\"]\n"), 11, "newer updater"},
		{"more than 1 MiB", replace("format = 1\n", "format = 1\n#"+strings.Repeat("x", 1<<20)+"\n"), 10, "more than"},
		{"upwards", replace(`"boot.img"`, `"../boot.img"`), 1, ""},
		{"absolute", replace(`"boot.img"`, `"/etc/passwd"`), 1, ""},
		{"another host", replace(`"boot.img"`, `"//evil.example/x"`), 1, ""},
		{"another scheme", replace(`"boot.img"`, `"http://evil.example/x"`), 1, ""},
		{"escaped upwards", replace(`"boot.img"`, `"%2e%2e/boot.img"`), 1, ""},
		{"back slashes", replace(`"boot.img"`, `'..\boot.img'`), 1, ""},
		{"a control character", replace(`"boot.img"`, `"boot\u0000.img"`), 1, ""},
		{"a query", replace(`"boot.img"`, `"boot.img?x"`), 1, ""},
		{"a map upwards", replace(`"boot.img.bmap"`, `"../boot.img.bmap"`), 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &rig.Rig{T: t, Dir: r.Dir, Env: r.Env, Program: r.Program}
			r.Sh(`rm -rf kept; mkdir kept; cp --sparse=always *.toml *.sig *.bmap boot.img rootfs.img kept 2>/dev/null || cp --sparse=always *.toml *.bmap boot.img rootfs.img kept`)
			defer r.Sh(`cp --sparse=always kept/* .; cp --sparse=always disk.orig disk.img`)
			tc.spoil()
			r.Refused(tc.code, tc.want, "release.toml")
		})
	}
	r.Refused(2, "several roles", "rootfs.img")
	r.Refused(2, "excludes", "--role", "rootfs", "release.toml")

	// Two releases with one version are two releases.
	r.Install(0, "installed version 7", "release.toml")
	r.Install(3, "nothing to do", "release.toml")
	r.Sh(`printf x | dd of=boot.img conv=notrunc status=none; rm boot.img.bmap`)
	r.Expect(0, "", "release", "create", "--product", "demo", "--version", "7", "--rollback-index", "7", "boot=boot.img", "rootfs=rootfs.img")
	r.Sign("release.toml", "release")
	r.Install(0, "installed version 7", "release.toml")
}
