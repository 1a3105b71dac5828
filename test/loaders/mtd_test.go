//go:build vm

package loaders

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/internal/abdisk"
)

// TestFlash keeps U-Boot's environment in flash that the kernel simulates: mtdram is NOR without bad blocks, nandsim NAND.
func TestFlash(t *testing.T) {
	need(t, qemu, "cpio", "modprobe")
	kernel, err := (&abdisk.Builder{Dir: workDir(t), Log: t.Output()}).Kernel(t.Context())
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	sh(t, dir, `mkdir -p root/modules; n=10
		for m in mtdram nandsim; do modprobe -d `+kernel.Root+` -S `+kernel.Version+` --show-depends $m; done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' |
			while read -r ko; do cp "$ko" root/modules/$((n++))-$(basename "$ko"); done; ls root/modules`)
	run(t, "", "go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "root/init"), "./mtdprobe")
	sh(t, dir, `cd root; find . | cpio -o -H newc --quiet >../initrd`)
	_, lines, err := bootOnce(t.Context(), regexp.MustCompile(`PROBE done`), []string{
		"-kernel", kernel.Image, "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",
	})
	console := strings.Join(lines, "\n")
	must(t, err)
	for _, node := range []string{"/dev/mtd0", "/dev/mtd1"} {
		for _, want := range []string{"repair: A A A, 0 damaged", "invalidate: A A A, 0 damaged", "activate: B B A, 0 damaged"} {
			if !strings.Contains(console, "PROBE "+node+" "+want) {
				t.Errorf("%s: no line %q on the console:\n%s", node, want, console)
			}
		}
	}
	t.Log(regexp.MustCompile(`PROBE .* bytes in .*`).FindAllString(console, -1))
}
