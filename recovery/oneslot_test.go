package recovery_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/install"
	"updater/internal/rig"
	"updater/recovery"
	"updater/update"
)

// events ignores the progress of an install.
type events struct{}

func (events) Device(device.Facts)                       {}
func (events) Warn(string, ...any)                       {}
func (events) Hook(string, string)                       {}
func (events) Progress() (*update.Progress, func())      { return new(update.Progress), func() {} }
func (events) Failed(error)                              {}
func (events) Installed(_ *update.Result, e error) error { return e }

// cutting calls cut after some bytes, and sends no more.
type cutting struct {
	http.ResponseWriter
	left int
	cut  func()
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		c.cut()
		return 0, io.ErrClosedPipe
	}
	return c.ResponseWriter.Write(p)
}

// TestOneSlot: a device with one slot and a recovery hands an install to it, the recovery carries it out, and goes on after a cut.
func TestOneSlot(t *testing.T) {
	r := rig.New(t)
	r.Sh("cp --sparse=always image.img up.img")
	r.Bmap("up.img.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
	var cut func() // ends the install in the middle of the image
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if cut != nil && strings.HasSuffix(q.URL.Path, ".img") {
			w = &cutting{ResponseWriter: w, left: 400 << 10, cut: cut}
		}
		http.ServeFile(w, q, r.Path(q.URL.Path))
	}))
	defer server.Close()
	text := strings.Replace(string(r.Read("config.toml")), "[boot]\n", "[boot]\ndialect = \"tries\"\n", 1)
	text, _, _ = strings.Cut(text, "[[slot]]\nname = \"B\"")
	r.Write("config.toml", []byte("state = \"PARTLABEL=state\"\n"+text))
	r.Sh(`sgdisk -c 2:only_slot disk.img >/dev/null; sed -i s/rootfs_a/only_slot/ config.toml # no other test has this label
		mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set ORDER=A A_LEFT=g; mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
	url := server.URL + "/up.img"

	r.Expect(2, "expected an http:// or https:// address", "install", "--config", "config.toml", "image.img")
	r.Expect(0, "the recovery boots next, once, and installs it into slot A", "install", "--config", "config.toml", url)
	if env := r.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e list`); !strings.Contains(env, "next_entry=recovery\n") ||
		!strings.Contains(env, "A_LEFT=g\n") {
		t.Errorf("the boot loader's state is\n%s", env)
	}
	r.Expect(0, "the recovery is asked to install version 7 from "+url, "status", "--config", "config.toml")
	r.Expect(0, "slot A is the only one", "doctor", "--config", "config.toml")

	// In the recovery no slot is running.
	r.Sh(`sed -i '/^booted/d' config.toml`)
	conf, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	d := &recovery.Device{
		Config: conf, Work: new(initramfs.Work), Say: t.Logf, Events: func() recovery.Events { return events{} },
		Inputs: install.Inputs{Warn: t.Logf},
	}
	if got := d.Requested(); got != url {
		t.Fatalf("requested is %q, want %q", got, url)
	}
	bootable := func() bool {
		s, err := device.ReadStatus(t.Context(), conf, "")
		if err != nil {
			t.Fatal(err)
		}
		return s.Primary != ""
	}
	// Another release than the one that was accepted is not installed, and the slot stays.
	before := r.Read("up.img.bmap")
	sig := r.Read("up.img.bmap.sig")
	r.Bmap("up.img.bmap", rig.Release, "--product", "demo", "--version", "8", "--rollback-index", "8")
	if err := d.InstallURL(t.Context(), url); err == nil || !strings.Contains(err.Error(), "another one than was requested") || !bootable() {
		t.Errorf("another release: %v", err)
	}
	r.Write("up.img.bmap", before)
	r.Write("up.img.bmap.sig", sig)
	// The power fails in the middle: only the recovery boots, and it goes on.
	ctx, stop := context.WithCancel(t.Context())
	cut = func() { // once the first range has arrived, and the slot is marked bad
		for range 200 {
			if s, err := device.ReadStatus(ctx, conf, ""); err == nil && s.Primary == "" {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		stop()
	}
	if err := d.InstallURL(ctx, d.Requested()); err == nil || bootable() {
		t.Errorf("an install that is cut: %v; want one without a bootable slot", err)
	}
	cut = nil
	if err := d.InstallURL(t.Context(), d.Requested()); err != nil {
		t.Fatal(err)
	}
	if got := d.Requested(); got != "" || !bootable() {
		t.Errorf("after the install %q is requested", got)
	}
	s, err := device.ReadStatus(t.Context(), conf, "")
	if err != nil || s.Slots[0].Version != "7" || s.Slots[0].State != "trying" {
		t.Errorf("after the install the status is %+v, %v", s, err)
	}
	// The running system does not request the release that it runs.
	_, err = install.Run(t.Context(), install.Request{Config: conf, Image: url, Booted: "A"}, install.Inputs{Warn: t.Logf}, events{})
	if _, ok := errors.AsType[*update.NothingError](err); !ok {
		t.Errorf("the same release again: %v", err)
	}
}
