package qemu

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "Linux version 6.1\n", "Linux version 6.1"},
		{"carriage return", "ok\r\r\n", "ok"},
		{"colour and cursor", "\x1b[2J\x1b[01;01H\x1b[=3h\x1b[0;32mOK\x1b[0m done", "OK done"},
		{"window title", "\x1b]0;title\x07text", "text"},
		{"NUL and bell", "a\x00b\x07c", "abc"},
		{"only control", "\x1b[K \r\n", ""},
		{"tab stays", "a\tb", "a\tb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := clean(tt.in); got != tt.want {
				t.Errorf("clean(%q) = %q; want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestEndOf(t *testing.T) {
	shutdown := func(reason string) event {
		e := event{Name: "SHUTDOWN"}
		e.Data.Reason = reason
		return e
	}
	for _, tt := range []struct {
		name   string
		events []event
		want   End
	}{
		{"no event", nil, Killed},
		{"reboot", []event{{Name: "RTC_CHANGE"}, shutdown("guest-reset")}, Reset},
		{"power-off", []event{shutdown("guest-shutdown")}, PowerOff},
		{"watchdog", []event{{Name: "WATCHDOG"}, shutdown("guest-reset")}, Watchdog},
		{"signal", []event{shutdown("host-signal")}, Killed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := endOf(tt.events); got != tt.want {
				t.Errorf("endOf = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestArgs(t *testing.T) {
	t.Setenv("UPDATER_VM_ACCEL", "kvm")
	got, err := Config{Kernel: "vmlinuz", Append: "quiet", Disks: []Disk{{Path: "a,b.img", Serial: "s1", ReadOnly: true}}, Args: []string{"-S"}}.args()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-kernel", "vmlinuz", "-append", "quiet", "-S",
		"-drive", "if=none,id=d0,format=raw,file=a,,b.img,readonly=on", "-device", "virtio-blk-pci,drive=d0,serial=s1",
	}
	if d := cmp.Diff(want, got[len(got)-len(want):]); d != "" {
		t.Errorf("arguments (-want +got):\n%s", d)
	}
	if i := slices.Index(got, "-accel"); i < 0 || got[i+1] != "kvm" {
		t.Errorf("acceleration of %v; want kvm", got)
	}
	if _, err := (Config{Kernel: "k", Disks: []Disk{{Path: "a", Bus: "floppy"}}}).args(); err == nil {
		t.Error("a disk on an unknown bus is accepted")
	}
	if _, err := (Config{Kernel: "k", Arch: "vax"}).args(); err == nil {
		t.Error("an unknown architecture is accepted")
	}
	if _, err := (Config{Name: "x"}).args(); err == nil {
		t.Error("a machine with nothing to boot from is accepted")
	}
}
