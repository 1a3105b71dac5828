//go:build vm

package recovery

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/crashdisk"
	"updater/internal/qemu"
)

// chapter is one start of the machine, with the log of its writes.
type chapter struct {
	name, log string
	next      string // the slot that boots next at its end, after any power cut
}

// life is a device whose disk QEMU records: one log for each start, in their order.
type life struct {
	*helper
	disk     string
	chapters []chapter
}

// recorded adds the arguments of the recorded disk to a configuration, runs it to an end, and keeps the log.
func (l *life) recorded(t *testing.T, c qemu.Config, device string, end qemu.End, next string, patterns ...string) {
	t.Helper()
	log := filepath.Join(l.dir, fmt.Sprintf("log-%d", len(l.chapters)))
	put(t, log, nil)
	c.Args = []string{
		"-blockdev", "driver=file,node-name=f,discard=unmap,filename=" + l.disk, "-blockdev", "driver=file,node-name=l,filename=" + log,
		"-blockdev", "driver=blklogwrites,node-name=disk,file=f,log=l,log-sector-size=512,discard=unmap",
		"-device", "virtio-blk-pci,drive=disk,write-cache=on,werror=report,rerror=report,serial=device" + device,
	}
	c.Timeout = 8 * time.Minute
	var m *qemu.Machine
	if c.OVMFVars == "" {
		m = l.start(t, c)
	} else {
		var err error
		if m, err = qemu.Start(context.WithoutCancel(t.Context()), c); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.PowerCut)
	}
	expect(t, m, patterns...)
	ends(t, m, end)
	l.chapters = append(l.chapters, chapter{c.Name, log, next})
}

// install has the initramfs install an image from a stick.
func (l *life) install(t *testing.T, image, slot string) {
	t.Helper()
	stick := l.stick(t, "stick-"+slot, l.update(t, image))
	l.recorded(t, qemu.Config{Name: "install into " + slot, Disks: []qemu.Disk{{Path: stick, ReadOnly: true}}}, "", qemu.Reset, slot,
		`installed .* into slot `+slot, `slot `+slot+` boots next`)
}

// boot starts the disk by its own boot loader, which must choose what the last chapter promised.
func (l *life) boot(t *testing.T, end qemu.End, next string, patterns ...string) {
	t.Helper()
	slot := l.chapters[len(l.chapters)-1].next
	l.recorded(t, qemu.Config{Name: "GRUB boots " + slot, OVMFVars: filepath.Join(l.dir, "vars.fd")}, ",bootindex=0", end, next,
		append([]string{`GRUB: booting slot ` + slot}, patterns...)...)
}

// TestVMRecordedLife has QEMU record all writes to a device's disk in its life: the initramfs installs into B,
// GRUB spends the try and boots it, it marks itself good; an update into A does not load, and GRUB falls back. Then the
// power is cut after every sector of the recording, with any selection of the sectors that were not flushed by then.
func TestVMRecordedLife(t *testing.T) {
	h := newHelper(t, anyDisk, "virtio,fs,watchdog")
	small := func(version string) string {
		image, err := h.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: abdisk.Small, Version: version})
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	first, second, third := small("1"), small("2"), h.image(t, "third", 4, 7)
	l := &life{helper: h, disk: h.dir + "/device.disk"}
	if err := h.builder.Disk(t.Context(), abdisk.DiskConfig{Path: l.disk, SlotA: first, Append: "demo.act=poweroff"}); err != nil {
		t.Fatal(err)
	}
	base := l.disk + ".base"
	run(t, "cp", "--sparse=always", l.disk, base)

	l.install(t, second, "B")
	l.boot(t, qemu.PowerOff, "B", `slot B is good`, `DEMO slot=B version=2 up`)
	l.install(t, third, "A")
	l.boot(t, qemu.Reset, "B", `GRUB: slot A does not load`)
	l.boot(t, qemu.PowerOff, "B", `slot B is good`, `DEMO slot=B version=2 up`)

	l.cuts(t, base, map[string][]string{"A": {first, third}, "B": {second}})
}

// cuts replays the recordings, and then with a mistake in them.
func (l *life) cuts(t *testing.T, base string, images map[string][]string) {
	t.Helper()
	start := time.Now()
	m := newMedium(t, base, images)
	if err := m.replay(t, l.chapters, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sectors in %d entries, %d boot states, replayed in %.1f s", m.sectors, m.entries, len(m.chains), time.Since(start).Seconds())
	if m.sectors < 10000 || len(m.chains) < 6 {
		t.Errorf("%d sectors and %d boot states; the recording is not whole", m.sectors, len(m.chains))
	}
	m.same(t, l.disk)
	m.tools(t)

	// The check finds the mistake.
	for name, spoil := range map[string]func(*crashdisk.LogEntry){
		"no flush":             func(e *crashdisk.LogEntry) { e.Flush = false },
		"a write of B is lost": spoilOnce("B"),
		"a write of A is lost": spoilOnce("A"),
	} {
		err := newMedium(t, base, images).replay(t, l.chapters, spoil)
		if err == nil {
			t.Errorf("%s, and no state was wrong", name)
		}
		t.Logf("%s: %v", name, err)
	}
}

// spoilOnce changes the first write with content into a slot.
func spoilOnce(slot string) func(*crashdisk.LogEntry) {
	start, length := abdisk.SlotRange(slot)
	done := false
	return func(e *crashdisk.LogEntry) {
		if done || e.Off < start || e.Off >= start+length || len(bytes.Trim(e.Data, "\x00")) == 0 {
			return
		}
		e.Data = bytes.Repeat([]byte{0x77}, len(e.Data))
		done = true
	}
}

// tools has grub-editenv read every boot state that there was.
func (m *medium) tools(t *testing.T) {
	t.Helper()
	for env, chain := range m.chains {
		file := filepath.Join(t.TempDir(), "grubenv")
		if err := os.WriteFile(file, []byte(env), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := tool(t, "grub-editenv", file, "list"); !strings.Contains(out, "ORDER=") {
			t.Errorf("a boot state that chooses %v: grub-editenv lists\n%s", chain, out)
		}
	}
}

// same compares the replayed disk with the one that QEMU left.
func (m *medium) same(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.flush()
	for _, r := range m.regions {
		got := make([]byte, len(r.have))
		if _, err := f.ReadAt(got, r.off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, r.have) {
			t.Errorf("%s: the replayed log is not the disk that QEMU left", r.name)
		}
	}
}
