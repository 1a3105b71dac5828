package install_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/rig"
)

// lab makes files with real tools in a folder of its own.
type copyLab struct {
	t   *testing.T
	dir string
}

func newCopyLab(t *testing.T) *copyLab {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	for _, tool := range []string{"losetup", "sgdisk", "mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	return &copyLab{t, t.TempDir()}
}

func (l *copyLab) sh(script string) string {
	l.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = l.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// device attaches a file full of a pattern as a block device, with partition nodes.
func (l *copyLab) device(size string) string {
	l.t.Helper()
	l.sh(`yes pattern | head -c ` + size + ` > back`)
	out, err := exec.Command("losetup", "-P", "-f", "--show", filepath.Join(l.dir, "back")).Output()
	if err != nil {
		l.t.Skipf("no loop device: %v", err)
	}
	node := strings.TrimSpace(string(out))
	l.t.Cleanup(func() { l.sh("losetup -d " + node) })
	return node
}

func (l *copyLab) run(want int, args ...string) (stdout, stderr string) {
	l.t.Helper()
	code, out, errs := rig.Run(l.t, args...)
	if code != want {
		l.t.Fatalf("updater %s: exit %d, want %d:\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

func wantText(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q is not in:\n%s", want, text)
	}
}

// TestCopyToDisk writes a disk image to larger block devices: the backup GPT moves, the last partition grows on request, unmapped
// blocks follow the requested policy, and a disk in use is refused.
func TestCopyToDisk(t *testing.T) {
	l := newCopyLab(t)
	image := filepath.Join(l.dir, "image")
	l.sh(`truncate -s 40M image; sgdisk -n1:2048:+8M -c1:boot -n2:0:+20M -c2:root image >/dev/null
		truncate -s 20M fs; mkfs.ext4 -q fs; dd if=fs of=image bs=1M seek=9 conv=notrunc,sparse status=none; sync image`)
	l.run(0, "bmap", "create", "-o", image+".bmap", image)
	node := l.device("90M")
	same := func(count string) string {
		return "cmp -n " + count + " image back && cmp -i 17408 -n 20000000 image back"
	}

	out, _ := l.run(0, "bmap", "copy", "--allow-unsigned", image, node)
	wantText(t, out, "the backup GPT moved from sector 81919 to 184319, the end of the disk")
	wantText(t, l.sh("sync; sgdisk -v "+node), "No problems found")
	l.sh(same("446")) // all but the protective MBR's size, and the table

	out, _ = l.run(0, "bmap", "copy", "--allow-unsigned", "--grow-last", image, node)
	wantText(t, out, "partition 2 grew to 80.0 MiB")
	wantText(t, l.sh("sgdisk -v "+node), "No problems found")

	l.run(0, "bmap", "copy", "--allow-unsigned", "--no-bmap", image, node)
	wantText(t, l.sh("sgdisk -v "+node), "No problems found")

	l.sh("yes pattern | dd of=" + node + " bs=1M count=90 iflag=fullblock conv=fsync status=none")
	l.run(0, "bmap", "copy", "--allow-unsigned", "--unmapped", "keep", image, node)
	l.run(0, "bmap", "verify", image+".bmap", image)
	wantText(t, l.sh("head -c 8000000 "+node+" | tail -c 8"), "pattern")

	l.run(0, "bmap", "copy", "--allow-unsigned", "--unmapped", "discard", image, node)
	wantText(t, l.sh("sgdisk -v "+node), "No problems found")

	l.sh("mkdir -p mnt; partx -u " + node + " 2>/dev/null || true; mount " + node + "p2 mnt || mount -o offset=9437184 " + node + " mnt")
	_, errs := l.run(15, "bmap", "copy", "--allow-unsigned", image, node)
	wantText(t, errs, "is busy")
	l.sh("umount mnt")
}

// TestCopyRefusesSmallDevice changes nothing on a device that is too small.
func TestCopyRefusesSmallDevice(t *testing.T) {
	l := newCopyLab(t)
	image := filepath.Join(l.dir, "image")
	l.sh("truncate -s 10M image; echo x | dd of=image conv=notrunc status=none; sync image")
	l.run(0, "bmap", "create", "-o", image+".bmap", image)
	node := l.device("9M")
	before := l.sh("sha256sum < back")
	_, errs := l.run(11, "bmap", "copy", "--allow-unsigned", image, node)
	wantText(t, errs, "does not fit")
	if after := l.sh("sha256sum < back"); after != before {
		t.Error("the device was changed")
	}
}

// TestCopyRefusesTables changes nothing on a disk with sectors that the image is not made for, or on which no partition can grow.
func TestCopyRefusesTables(t *testing.T) {
	l := newCopyLab(t)
	l.sh(`truncate -s 40M gpt mbr none; sgdisk -n1:2048:+8M gpt >/dev/null; printf 'label: dos\nstart=1MiB,size=8MiB\n' | sfdisk -q mbr
		printf x | dd of=none bs=1 seek=5000 conv=notrunc status=none; sync gpt mbr none`)
	for _, tt := range []struct{ image, sector, option, want string }{
		{"gpt", "4096", "--quiet", "made for sectors of 512 bytes, the disk has 4096"},
		{"mbr", "512", "--grow-last", "MBR found, expected a GUID partition table"},
		{"none", "512", "--grow-last", "no partition table found"},
	} {
		for _, no := range []string{"--rewrite", "--no-bmap"} {
			image := filepath.Join(l.dir, tt.image)
			l.run(0, "bmap", "create", "-o", image+".bmap", image)
			l.sh("yes pattern | head -c 60M > disk; sync disk")
			node := strings.TrimSpace(l.sh("losetup -b " + tt.sector + " -f --show disk"))
			before := l.sh("sha256sum < disk")
			_, errs := l.run(11, "bmap", "copy", "--allow-unsigned", no, tt.option, image, node)
			wantText(t, errs, tt.want)
			l.sh("losetup -d " + node)
			if after := l.sh("sha256sum < disk"); after != before {
				t.Errorf("%s %s: the disk was changed", tt.image, no)
			}
		}
	}
}

// TestLimitsComeBack interrupts a copy in its middle: the kernel's limits on dirty pages are restored. After a copy that was killed, the
// next one restores them.
func TestLimitsComeBack(t *testing.T) {
	l := newCopyLab(t)
	l.sh(`head -c 24M /dev/urandom > image`)
	node := l.device("24M")
	bdi := filepath.Join("/sys/block", filepath.Base(node), "bdi")
	l.sh(`cd ` + bdi + `; echo 100 > max_ratio; [ ! -e strict_limit ] || echo 0 > strict_limit`) // the values of a new loop device
	limits := func() string {
		return l.sh(`cd ` + bdi + `; cat max_ratio; cat strict_limit max_ratio_fine 2>/dev/null || true`)
	}
	before := limits()
	halfway := func(end os.Signal) {
		t.Helper()
		cmd := exec.Command(rig.Build(t), "bmap", "copy", "--no-bmap", "--allow-unsigned", "-", node)
		w, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			data, _ := os.ReadFile(filepath.Join(l.dir, "image"))
			_, _ = w.Write(data[:12<<20]) // and then nothing
		}()
		for range 100 {
			if limits() != before {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if limits() == before {
			t.Logf("this kernel lets no limit be set: %q", before)
		}
		if err := cmd.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 && end == os.Interrupt {
			t.Errorf("%v; want exit 130", err)
		}
	}
	halfway(os.Interrupt)
	if got := limits(); got != before {
		t.Errorf("the limits are %q after an interrupt; want %q", got, before)
	}
	halfway(os.Kill)
	l.run(0, "bmap", "copy", "--no-bmap", "--allow-unsigned", filepath.Join(l.dir, "image"), node)
	if got := limits(); got != before {
		t.Errorf("the limits are %q after a copy that was killed and another one; want %q", got, before)
	}
	l.sh(`! [ -e /run/updater/bdi-` + filepath.Base(node) + `-$(cat ` + filepath.Dir(bdi) + `/diskseq) ]`)
}

// TestCompareReadsTheMedium changes a device below its page cache: bmap verify finds the change that a read of the device does not see.
func TestCompareReadsTheMedium(t *testing.T) {
	l := newCopyLab(t)
	image := filepath.Join(l.dir, "image")
	l.sh(`head -c 2M /dev/urandom > image; sync image`)
	l.run(0, "bmap", "create", "-o", image+".bmap", image)
	node := l.device("2M")
	l.sh("dd if=image of=" + node + " bs=1M conv=fsync status=none")
	l.run(0, "bmap", "verify", image+".bmap", node)
	f, err := os.Open(node) // pages of an open device stay cached
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.sh("cmp image " + node)
	l.sh("printf changed | dd of=back bs=1 seek=70000 conv=notrunc,fsync status=none")
	l.sh("cmp image " + node) // fails if the kernel dropped the pages
	out, _ := l.run(14, "bmap", "verify", image+".bmap", node)
	wantText(t, out, "at byte")
}
