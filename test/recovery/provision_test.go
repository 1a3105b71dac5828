//go:build vm

package recovery

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
	"updater/provision/identity"
	"updater/provision/keys"
	"updater/provision/provisiontest"
	"updater/provision/record"
)

// vmPlan makes a device of a blank disk: GRUB, both slots, an identity with a certificate. BASE is the address of the
// line's server, SERIAL the source of the serial.
const vmPlan = `type = "plan"
rollback_index = 1
created = 2020-01-01T00:00:00Z
expires = 2099-01-01T00:00:00Z
name = "demo device"
product = "demo"
config = "/etc/updater/config.toml"
targets = ["/dev/vda"]
changes = ["esp"]
[disk]
min = "400M"
[[partition]]
name = "esp"
type = "esp"
size = "64M"
image = "esp.img.zst"
[[partition]]
name = "rootfs_a"
size = "96M"
image = "rootfs.img.zst"
[[partition]]
name = "rootfs_b"
size = "96M"
image = "rootfs.img.zst"
[[partition]]
name = "identity"
size = "40M"
[[partition]]
name = "state"
size = "rest"
[identity]
partition = "identity"
serial = SERIAL
[identity.key]
type = "ed25519"
file = "device.key"
request = "device.csr"
certificate = "device.crt"
issuer = "/etc/updater/issuer.pem"
ca = "BASE/sign"
[[identity.file]]
path = "name"
content = "demo-{serial}\n"
[record]
spool = "/run/spool"
station = "vm"
key = "/etc/updater/station.pem"
url = "BASE/records"
[server]
http = true
[latch]
factory_key = "/etc/updater/factory.pub"
`

// factory is the server of a line, with the requests that it got.
type factory struct {
	dir  string // of the spool, as the server keeps it
	www  string
	base string // its address as the guest sees it

	stall chan struct{} // closed when the guest reads the middle of a slot's image, which then stops; nil lets it pass
	hold  chan struct{} // closed when a certificate is asked for, which then never comes; nil lets it pass

	mu       sync.Mutex
	requests []*x509.CertificateRequest
	records  int
}

// newFactory makes keys, images and the server. The keys of the station stay in the builder: they are in the initramfs.
func newFactory(t *testing.T) (*helper, *factory) {
	t.Helper()
	rig := newRig(t)
	at := func(name string) string { return filepath.Join(rig.builder.Dir, name) }
	if _, err := os.Stat(at("factory.pub")); err != nil {
		run(t, "openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", at("station.pem"))
		run(t, "openssl", "pkey", "-in", at("station.pem"), "-pubout", "-out", at("station.pub"))
		run(t, "openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", at("factory.pem"))
		run(t, "openssl", "pkey", "-in", at("factory.pem"), "-pubout", "-out", at("factory.pub"))
	}
	if _, err := os.Stat(at("issuer.pem")); err != nil {
		issuer, _, err := lineAuthority()
		if err != nil {
			t.Fatal(err)
		}
		put(t, at("issuer.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Raw}))
	}
	certificate, err := rig.builder.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fpr := run(t, "sh", "-c", "gpg --with-colons --show-keys "+certificate+" 2>/dev/null | awk -F: '/^fpr/ { printf \"%s\", $10; exit }'")
	h := newHelper(t, "state = \"PARTLABEL=state\"\n"+anyDisk+"[recovery]\nprovision = true\n[[trust.key]]\nfingerprint = \""+fpr+
		"\"\ndocuments = [\"plan\", \"release\", \"bmap\"]\n", allSets, at("station.pem"), at("factory.pub"), at("issuer.pem"))
	f := &factory{dir: t.TempDir(), www: t.TempDir()}
	slot, err := h.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: abdisk.Small, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	esp := at("factory-esp.img")
	if err := h.builder.ESP(t.Context(), abdisk.DiskConfig{Path: esp, Blank: true, Append: "demo.act=poweroff"}); err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string]string{"esp.img": esp, "rootfs.img": slot} {
		files := h.update(t, image)
		for kind, from := range map[string]string{".zst": "image.zst", ".bmap": "image.bmap", ".bmap.asc": "image.bmap.asc"} {
			run(t, "cp", files[from], filepath.Join(f.www, name+kind))
		}
	}
	f.serve(t)
	return h, f
}

// plan writes the plan, and signs it.
func (f *factory) plan(t *testing.T, h *helper, serial string) map[string]string {
	t.Helper()
	path := filepath.Join(f.www, "plan.toml")
	put(t, path, []byte(strings.NewReplacer("SERIAL", serial, "BASE", f.base).Replace(vmPlan)))
	if _, err := h.builder.Sign(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	all, err := os.ReadDir(f.www)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		files[e.Name()] = filepath.Join(f.www, e.Name())
	}
	return files
}

func (f *factory) serve(t *testing.T) {
	t.Helper()
	serials := filepath.Join(f.dir, "serials.csv")
	put(t, serials, []byte("serial,color\nVM001,red\nVM002,blue\n"))
	mux := http.NewServeMux()
	mux.Handle("/serials/", provisiontest.ServeAllocator(identity.NewCSV(serials)))
	mux.HandleFunc("/sign", f.sign)
	mux.HandleFunc("/records", func(w http.ResponseWriter, r *http.Request) {
		line, err := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.records++
		if err != nil || os.WriteFile(filepath.Join(f.dir, fmt.Sprintf("%08d.json", f.records)), line, 0o644) != nil {
			http.Error(w, "not kept", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/rootfs.img.zst", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		stall := f.stall
		f.mu.Unlock()
		if stall != nil {
			w = &stalling{ResponseWriter: w, left: 8 << 20, reached: stall, until: r.Context()}
		}
		http.ServeFile(w, r, filepath.Join(f.www, "rootfs.img.zst"))
	})
	mux.Handle("/", http.FileServer(http.Dir(f.www)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go s.Serve(l) // until Close
	t.Cleanup(func() { s.Close() })
	f.base = fmt.Sprintf("http://%s:%d", host, l.Addr().(*net.TCPAddr).Port)
}

// stalling lets some bytes pass, then none until the request ends.
type stalling struct {
	http.ResponseWriter
	left    int
	reached chan struct{}
	until   context.Context
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		select {
		case <-s.reached:
		default:
			close(s.reached)
		}
		<-s.until.Done()
		return 0, s.until.Err()
	}
	return s.ResponseWriter.Write(p)
}

// sign is the line's certificate authority.
func (f *factory) sign(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	block, _ := pem.Decode(body)
	if block == nil {
		http.Error(w, "expected a certificate request", http.StatusBadRequest)
		return
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.requests = append(f.requests, request)
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		close(hold)
		<-r.Context().Done()
		return
	}
	issuer, key, err := lineAuthority()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: request.Subject.CommonName}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, cert, issuer, request.PublicKey, key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// lineAuthority is the certificate and the key of the line's authority, the same in every run.
func lineAuthority() (*x509.Certificate, crypto.Signer, error) {
	key, err := keys.Parse([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIBJzBEpyfHh7GJpZaFgBk7tULYrjzAxVJCRwMbqVIPVO\n-----END PRIVATE KEY-----\n"))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "line"}, NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// blank makes a disk with nothing on it.
func (h *helper) blank(t *testing.T) string {
	t.Helper()
	path := filepath.Join(h.dir, "blank.disk")
	put(t, path, nil)
	if err := os.Truncate(path, 512<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// inspect looks at a provisioned disk with the tools of its formats, and at the one record that the server has.
func (f *factory) inspect(t *testing.T, h *helper, disk, serial string) {
	t.Helper()
	if out := run(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	part := filepath.Join(h.dir, "identity.part")
	run(t, "dd", "if="+disk, "of="+part, "bs=1M", fmt.Sprintf("skip=%d", 1+64+96+96), "count=40", "status=none")
	run(t, "fsck.vfat", "-n", part)
	if got := run(t, "mtype", "-i", part, "::/name"); got != "demo-"+serial+"\n" {
		t.Errorf("the identity has %q", got)
	}
	wantEnv(t, disk, map[string]string{"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})
	public := filepath.Join(h.builder.Dir, "station.pub")
	out := run(t, h.builder.Updater, "provision", "records", "verify", "--spool", f.dir, "--key", public)
	t.Log(strings.TrimSpace(out))
	key, err := keys.ParsePublic(read(t, public))
	if err != nil {
		t.Fatal(err)
	}
	n, err := record.Verify(f.dir, []crypto.PublicKey{key}, func(r *record.Record) error {
		if r.Verdict != record.Pass || r.Identity == nil || r.Identity.Serial != serial || r.Unit.Disk.Serial != "unit-1" || !r.Unit.Strong || len(r.Images) != 3 || r.Latch == "" {
			t.Errorf("record: %+v", r)
		}
		for _, s := range r.Steps {
			t.Logf("%-10s %6.2f s  %5.1f MB/s", s.Name, s.Seconds, float64(s.BytesPerSecond)/1e6)
		}
		return nil
	})
	if n != 1 || err != nil {
		t.Errorf("the server has %d good records, %v", n, err)
	}
}

var firstBoot = []string{`GRUB: ORDER=A B A_OK=1 A_TRY=0 B_OK=1`, `GRUB: booting slot A`, `slot A is good`, `DEMO slot=A version=1 up`}

// bootsBy starts the disk by its own boot loader, and wants the patterns in turn.
func bootsBy(t *testing.T, h *helper, disk string, patterns ...string) {
	t.Helper()
	start := time.Now()
	m, err := qemu.Start(context.WithoutCancel(t.Context()), qemu.Config{Name: "own boot loader", Disks: []qemu.Disk{{Path: disk}}, OVMFVars: filepath.Join(h.dir, "vars.fd"), Timeout: 6 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer m.PowerCut()
	expect(t, m, patterns...)
	ends(t, m, qemu.PowerOff)
	t.Logf("the device boots in %.1f s", time.Since(start).Seconds())
}

// A blank disk becomes a device: plan, images, serial and certificate come over HTTP, the record goes back. The power
// fails while a slot is written, and again when the device's key was made: the next run has the same serial and another
// key, since the spool that attested the first one was in memory. Then the device boots by itself.
func TestProvisionVM(t *testing.T) {
	h, f := newFactory(t)
	f.plan(t, h, fmt.Sprintf(`{ from = "http", url = "%s/serials" }`, f.base))
	disk := h.blank(t)
	start := func(name string) *qemu.Machine {
		return h.start(t, qemu.Config{
			Name: name, Append: "updater.mode=provision updater.url=" + f.base + "/plan.toml", Disks: []qemu.Disk{{Path: disk, Serial: "unit-1"}},
			Args: []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"},
		})
	}
	reached := func(m *qemu.Machine, what string, c chan struct{}) {
		t.Helper()
		select {
		case <-c:
			t.Log(what)
		case <-time.After(3 * time.Minute):
			t.Fatalf("never came to: %s; console:\n%s", what, strings.Join(m.Lines(), "\n"))
		}
		m.PowerCut()
	}
	f.stall = make(chan struct{})
	m := start("cut in a slot")
	reached(m, "the power fails in the middle of a slot", f.stall)
	f.mu.Lock()
	f.stall, f.hold = nil, make(chan struct{})
	f.mu.Unlock()
	m = start("cut at the key")
	reached(m, "the power fails when the certificate is asked for", f.hold)
	f.mu.Lock()
	f.hold = nil
	f.mu.Unlock()
	m = start("provision")
	expect(t, m, `initramfs is up after`, `network: \w+ has`, `/dev/vda: writing`, `/dev/vda: reading back`, `/dev/vda: PASS, serial VM001, record 1`, `done after`)
	ends(t, m, qemu.Reset)
	f.inspect(t, h, disk, "VM001")
	if n := len(f.requests); n != 2 || f.requests[0].Subject.CommonName != "VM001" || f.requests[1].Subject.CommonName != "VM001" ||
		slices.Equal(f.requests[0].RawSubjectPublicKeyInfo, f.requests[1].RawSubjectPublicKeyInfo) {
		t.Errorf("%d certificates were asked for, expected two for VM001, each on its own key", n)
	}
	if journal := string(read(t, filepath.Join(f.dir, "serials.csv.journal"))); strings.Contains(journal, "VM002") || !strings.Contains(journal, `"used"`) {
		t.Errorf("a second serial was touched, or the first is not spent: %s", journal)
	}
	bootsBy(t, h, disk, firstBoot...)
}

// The same with plan and images on a second disk, which is mounted meanwhile and so is never a target.
func TestProvisionFromDiskVM(t *testing.T) {
	h, f := newFactory(t)
	second := filepath.Join(h.dir, "second.disk")
	if err := h.builder.Stick(t.Context(), second, f.plan(t, h, `{ from = "plan", value = "VM100" }`)); err != nil {
		t.Fatal(err)
	}
	disk := h.blank(t)
	m := h.start(t, qemu.Config{
		Name: "second disk", Append: "updater.mode=provision", Disks: []qemu.Disk{{Path: disk, Serial: "unit-1"}, {Path: second, ReadOnly: true}},
		Args: []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"},
	})
	expect(t, m, `plan on /dev/vdb`, `/dev/vda: PASS, serial VM100, record 1`, `done after`)
	ends(t, m, qemu.Reset)
	f.inspect(t, h, disk, "VM100")
	if os.Getenv("UPDATER_VM_LONG") != "" {
		bootsBy(t, h, disk, firstBoot...)
	}
}
