package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/initramfs/build"
)

const plain = `product = "demo"
keyring = ["keys"]
[disk]
path = "/dev/vda"
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`

// TestCheck: an initramfs that would trust nobody, or could not reach a slot or its state, is not built.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "release.asc")
	gpg := exec.Command("sh", "-c", `mkdir -m 700 g; export GNUPGHOME=$PWD/g
		gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never 2>err && gpg -q --armor --export >release.asc; gpgconf --kill all`)
	gpg.Dir = dir
	if err := gpg.Run(); err != nil {
		t.Skip("gpg: ", err)
	}
	broken := filepath.Join(dir, "broken.asc")
	if err := os.WriteFile(broken, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := func(fs string) string {
		return "state = \"PARTLABEL=state\"\n" + strings.ReplaceAll(plain, `rootfs_a" }`, `rootfs_a" }`+"\nfiles = { kernel = \""+fs+":/a.efi\" }")
	}
	for _, c := range []struct {
		name, config string
		keyring      []string
		want         string // of the error; "" means none
	}{
		{"as it should be", plain, []string{key}, ""},
		{"by its absolute path", strings.Replace(plain, `"keys"`, `"/etc/updater/keys"`, 1), []string{key}, ""},
		{"no keyring packed", plain, nil, "/etc/updater/keys is not in the archive"},
		{"another name", strings.Replace(plain, `"keys"`, `"release.asc"`, 1), []string{key}, "/etc/updater/release.asc is not in the archive; KEYRING is packed as keys"},
		{"no certificate", plain, []string{broken}, "this recovery would trust nobody"},
		{"no keyring configured", strings.Replace(plain, `keyring = ["keys"]`, "", 1), []string{key}, "no keyring is configured"},
		{"a certificate of a server", plain + "[source]\nca = \"ca.pem\"\n", []string{key}, "/etc/updater/ca.pem is not in the archive"},
		{"an unknown key", plain + "[source]\nno = 1\n", []string{key}, "unknown key"},
		{"one slot", plain[:strings.LastIndex(plain, "[[slot]]")], []string{key}, "one [[slot]], expected 2"},
		{"a file on a partition", files("PARTLABEL=esp"), []string{key}, ""},
		{"a file below a mount point", files("/boot/efi"), []string{key}, "name the partition: PARTLABEL=NAME:/a.efi"},
		{"the state in a file", "state = \"/var/lib/updater/state\"\n" + plain, []string{key}, "state is the file /var/lib/updater/state of the running system"},
		{"the boot state in a file", strings.Replace(plain, "PARTLABEL=esp:", "/boot", 1), []string{key}, "boot.env is the file /boot/grub/grubenv of the running system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			err := check(build.Options{Config: path, Keyring: c.keyring})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || err != nil && strings.Contains(err.Error(), "mkinitramfs-") {
				t.Errorf("check = %v; want %q", err, c.want)
			}
		})
	}
}
