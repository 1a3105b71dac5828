//go:build vm

package recovery

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// releases are releases of two images for a device whose slots have two roles.
type releases struct {
	*helper
	disk   string
	server *httptest.Server
	sent   atomic.Int64 // bytes of root file systems
}

// ServeHTTP offers the releases, and sends images of apps with 4 MiB/s at most.
func (r *releases) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	http.FileServer(http.Dir(r.dir)).ServeHTTP(sending{w, path.Base(q.URL.Path), &r.sent}, q)
}

type sending struct {
	http.ResponseWriter
	name string
	sent *atomic.Int64 // of root file systems
}

func (s sending) Write(p []byte) (int, error) {
	switch s.name {
	case "rootfs.img.zst":
		s.sent.Add(int64(len(p)))
	case "app.img.zst":
		time.Sleep(time.Duration(len(p)) * time.Second / (4 << 20))
	}
	return s.ResponseWriter.Write(p)
}

// release makes a release with an app of its version, and returns its files for a stick.
func (r *releases) release(t *testing.T, version, rootfs string) map[string]string {
	t.Helper()
	app, err := r.builder.App(t.Context(), version)
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--product", "demo", "--version", version, "--rollback-index", version}
	files, err := r.builder.Release(t.Context(), filepath.Join(r.dir, version), flags, "rootfs="+rootfs, "app="+app)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// online boots the recovery with the address of a release.
func (r *releases) online(t *testing.T, version string) *qemu.Machine {
	t.Helper()
	port := r.server.Listener.Addr().String()[len("127.0.0.1:"):]
	return r.start(t, qemu.Config{
		Name: "online", MemMiB: 128, Append: fmt.Sprintf("updater.url=http://%s:%s/%s/release.toml", host, port, version), Disks: []qemu.Disk{{Path: r.disk}},
		Args: []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"},
	})
}

// TestRecoveryRelease: the power fails while the second image of a release comes from a server; the next recovery goes on from a stick. Both
// images boot, and the same release again has nothing to do. If only the second image of a release is new, the first is copied. If the first
// was made anew, a delta is fetched. Releases from the server are installed in 128 MiB of memory.
func TestRecoveryRelease(t *testing.T) {
	r := &releases{helper: newHelper(t, abdisk.AppConfig, "virtio,fs,watchdog")}
	r.disk = filepath.Join(r.dir, "device.disk")
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	rootfs, err := r.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: abdisk.Small, Version: "2", App: true})
	if err != nil {
		t.Fatal(err)
	}
	stick := r.stick(t, "second", r.release(t, "2", rootfs))
	r.release(t, "3", rootfs)
	c := abdisk.DiskConfig{Path: r.disk, SlotA: r.image(t, "old", 4, 99), FillB: 0xa5, Append: "demo.act=poweroff"}
	if err := r.builder.Disk(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	m := r.online(t, "2")
	expect(t, m, `writing rootfs`, `writing app [2-9][05]%`)
	m.PowerCut()
	wantEnv(t, r.disk, map[string]string{"A_OK": "1", "B_OK": "0"})

	offline := qemu.Config{Name: "stick", Disks: []qemu.Disk{{Path: r.disk}, {Path: stick, ReadOnly: true}}}
	m = r.start(t, offline)
	expect(t, m, `installed version 2 into slot B: (\d|10)\.\d MiB written, .* MiB there already`, `slot B boots next`)
	ends(t, m, qemu.Reset)
	wantEnv(t, r.disk, map[string]string{"ORDER": "B A", "B_OK": "1", "A_OK": "1"})
	bootsBy(t, r.helper, r.disk, `GRUB: booting slot B`, `slot B is good`, `DEMO slot=B version=2 app=2 up`)

	m = r.start(t, offline)
	expect(t, m, `nothing to do: this release, version 2, is installed in slot B, which boots next`)
	ends(t, m, qemu.Reset)
	wantEnv(t, r.disk, map[string]string{"ORDER": "B A", "B_OK": "1", "A_OK": "1"})

	r.sent.Store(0)
	m = r.online(t, "3")
	expect(t, m, `\d\d\.\d MiB copied from the other slot; fetching 0 bytes`, `installed version 3 into slot A`)
	ends(t, m, qemu.Reset)
	if n := r.sent.Load(); n > 1<<20 {
		t.Errorf("the server sent %d bytes of the root file system that slot B holds", n)
	}
	bootsBy(t, r.helper, r.disk, `GRUB: booting slot A`, `slot A is good`, `DEMO slot=A version=2 app=3 up`)

	if rootfs, err = r.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: abdisk.Small, Version: "4", App: true}); err != nil {
		t.Fatal(err)
	}
	r.release(t, "4", rootfs)
	run(t, r.builder.Updater, "delta", "create", "--from", filepath.Join(r.dir, "3/rootfs.img.zst"), filepath.Join(r.dir, "4/rootfs.img.zst"))
	r.sent.Store(0)
	m = r.online(t, "4")
	expect(t, m, `made out of the other slot and a delta, of which`, `installed version 4 into slot B`)
	ends(t, m, qemu.Reset)
	if n := r.sent.Load(); n > 1<<20 {
		t.Errorf("the server sent %d bytes of the root file system, beside its delta", n)
	}
	bootsBy(t, r.helper, r.disk, `GRUB: booting slot B`, `slot B is good`, `DEMO slot=B version=4 app=4 up`)
}
