//go:build vm

package powercut

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/crashdisk"
	"updater/internal/crashdisk/nbd"
	"updater/internal/qemu"
)

// The same model as the disk of a virtual machine, and a recording by QEMU: Debian's kernel, our initramfs.

// machine boots the initramfs, which installs from a stick.
type machine struct {
	*bench
	kernel, initramfs, stick string
	timeout                  time.Duration
}

func newMachine(t *testing.T, slot int64) *machine {
	t.Helper()
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	if missing := abdisk.Missing(); missing != nil {
		t.Skip("missing Debian packages: ", strings.Join(missing, " "))
	}
	m := &machine{bench: newBench(t, grubLoader(), slot), timeout: 10 * time.Minute}
	dir := os.Getenv("UPDATER_VM_DIR") // keeps the kernel between runs
	if dir == "" {
		dir = t.TempDir()
	}
	l := &abdisk.Builder{Dir: dir, Updater: filepath.Join(m.dir, "updater"), Log: t.Output()}
	kernel, err := l.Kernel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.kernel = kernel.Image
	config := filepath.Join(m.dir, "vm.toml")
	if err := os.WriteFile(config, []byte(m.config("/dev/vda", "auto", "/etc/updater/keys", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	m.initramfs = filepath.Join(m.dir, "initramfs.cpio.zst")
	out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", "../..", "initramfs", "KERNEL_VERSION="+kernel.Version, "MODULES_ROOT="+kernel.Root,
		"MODULES=virtio_pci,virtio_blk,vfat,nls_cp437,nls_iso8859-1,nls_ascii,ext4", "KEYRING="+filepath.Join(m.dir, "key.asc"), "CONFIG="+config, "INITRAMFS="+m.initramfs).CombinedOutput()
	if err != nil {
		t.Fatalf("make initramfs: %v\n%s", err, out)
	}
	files := map[string]string{}
	for _, f := range [][2]string{{"image.img", "image"}, {"image.img.bmap", "image.bmap"}, {"image.img.bmap.sig", "image.bmap.sig"}} {
		files[f[0]] = filepath.Join(m.dir, f[1])
	}
	m.stick = filepath.Join(m.dir, "stick.img")
	if err := l.Stick(t.Context(), m.stick, files); err != nil {
		t.Fatal(err)
	}
	return m
}

// start boots with the disk that the arguments describe as node "disk".
func (m *machine) start(t *testing.T, disk ...string) *qemu.Machine {
	t.Helper()
	args := append(disk, "-device", "virtio-blk-pci,drive=disk,write-cache=on,werror=report,rerror=report,request-merging=off,serial=device",
		"-drive", "if=none,id=stick,format=raw,readonly=on,file="+m.stick, "-device", "virtio-blk-pci,drive=stick,serial=stick")
	v, err := qemu.Start(t.Context(), qemu.Config{
		Name: "install", Kernel: m.kernel, Initrd: m.initramfs, Append: "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests",
		Args: args, Timeout: m.timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.PowerCut)
	return v
}

// onNBD installs on the disk, whose power fails at the command cutAt; 0 is never. slot is the one that was installed, "" for
// none.
func (m *machine) onNBD(t *testing.T, d *crashdisk.Disk, cutAt int) (slot string, commands int) {
	t.Helper()
	s, err := nbd.Serve(d, filepath.Join(t.TempDir(), "s"), cutAt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := m.start(t, "-blockdev", "driver=nbd,node-name=disk,discard=unmap,server.type=unix,server.path="+s.Path)
	ended := make(chan error, 1)
	go func() { ended <- v.Wait() }()
	select {
	case <-s.Cut:
		v.PowerCut()
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range v.Lines() {
		if _, rest, ok := strings.Cut(line, "slot "); ok && strings.Contains(rest, " boots next") {
			slot, _, _ = strings.Cut(rest, " ")
		}
	}
	return slot, s.Commands()
}

// TestVMCuts cuts the power of a machine while its initramfs installs, boots the disk by the loader's rule, and
// installs again on it.
func TestVMCuts(t *testing.T) {
	m := newMachine(t, 8)
	start := time.Now()
	whole := crashdisk.New(m.disk, crashdisk.Options{Seed: 1})
	installed, commands := m.onNBD(t, whole, 0)
	if installed != "B" {
		t.Fatalf("the install without a cut failed: %v", whole.Trace())
	}
	if err := m.check(whole.Medium(), "B"); err != nil {
		t.Fatal(err)
	}
	states := 0
	tally := func(d *crashdisk.Disk, updated string) {
		n, err := d.Crashes(crashdisk.Plan{Random: 1, Torn: 1, DropOne: 2, Limit: 1000}, func(s *crashdisk.State) error { return m.check(s.Image, "") })
		if states += n; err != nil {
			t.Fatal(err)
		}
		for n := range uint64(8) {
			if err := m.check(d.Cut(n), updated); err != nil {
				t.Fatal(err)
			}
		}
	}
	tally(whole, "B")
	t.Logf("an install has %d commands", commands)
	cuts := scale("UPDATER_PROOF_VM", 1)
	for i := range cuts {
		at := 1 + (i*2+1)*commands/(2*cuts)
		d := crashdisk.New(m.disk, crashdisk.Options{Seed: uint64(i)})
		installed, _ := m.onNBD(t, d, at)
		tally(d, installed)
		after := crashdisk.New(d.Cut(uint64(i)), crashdisk.Options{Seed: uint64(i)})
		again, _ := m.onNBD(t, after, 0) // into A if the switch to B was done
		if again == "" {
			t.Fatalf("cut at command %d of %d: the install on what is left failed", at, commands)
		}
		if err := m.check(after.Medium(), again); err != nil {
			t.Fatalf("cut at command %d of %d: %v", at, commands, err)
		}
	}
	count(t, "live power cuts of a virtual machine", int64(cuts), start)
	count(t, "crash states of the machine's disk", int64(states), start)
}

// TestVMRecording has QEMU record the install, and replays the log: a check of our own recorder by another.
func TestVMRecording(t *testing.T) {
	m := newMachine(t, 8)
	start := time.Now()
	disk, log := filepath.Join(m.dir, "recorded.img"), filepath.Join(m.dir, "log.img")
	for path, data := range map[string][]byte{disk: m.disk, log: nil} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := m.start(t, "-blockdev", "driver=file,node-name=f,discard=unmap,filename="+disk, "-blockdev", "driver=file,node-name=l,filename="+log,
		"-blockdev", "driver=blklogwrites,node-name=disk,file=f,log=l,log-sector-size=512,log-super-update-interval=1,discard=unmap")
	if err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	d := crashdisk.New(m.disk, crashdisk.Options{Seed: 1})
	entries, err := d.Replay(text)
	if err != nil {
		t.Fatal(err)
	}
	end, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(end, d.Content()) {
		t.Error("the replayed log is not the disk that QEMU left")
	}
	if err := m.check(d.Medium(), "B"); err != nil {
		t.Errorf("%v; console:\n%s", err, strings.Join(v.Lines(), "\n"))
	}
	states, err := d.Crashes(crashdisk.Plan{DropOne: 2, Random: 1, Torn: 1}, func(s *crashdisk.State) error { return m.check(s.Image, "") })
	if err != nil {
		t.Fatal(err)
	}
	if states < 1000 {
		t.Errorf("%d states of %d entries; want at least 1000", states, entries)
	}
	count(t, fmt.Sprintf("states of a recording by blklogwrites (%d entries)", entries), int64(states), start)
}
