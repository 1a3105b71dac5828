package line_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"updater/blockdev"
	"updater/bmap"
	"updater/provision/fan"
	"updater/provision/fat"
	"updater/provision/identity"
	"updater/provision/keys"
	"updater/provision/line"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/provisiontest"
	"updater/provision/record"
	"updater/provision/target"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// fault changes how a target behaves; the zero value is a good one.
type fault struct {
	slow    time.Duration // each write of the bulk takes so long
	failAt  int64         // writes from there on fail; 0 is never
	dropAt  int64         // writes of the bulk from there on are confirmed and lost; 0 is never
	drops   int           // only so many are lost; 0 is all
	hangAt  int64         // a write from there on never returns; 0 is never
	cutAt   int64         // nothing returns from that operation on, as when the power is cut; 0 is never
	busy    bool
	noRead  bool          // nothing can be read
	lateAt  int64         // that read-back takes late; 0 is never
	late    time.Duration //
	reads   atomic.Int64
	ops     atomic.Int64
	dropped atomic.Int64
}

// target is a disk image file behind a fault.
type device struct {
	*blockdev.Device
	w *blockdev.Writer
	f *fault
}

type bulk struct {
	*blockdev.Writer
	t *device
}

// op counts an operation; the power is cut at one of them.
func (t *device) op() {
	if n := t.f.ops.Add(1); t.f.cutAt > 0 && n >= t.f.cutAt {
		if n == t.f.cutAt {
			_ = t.Close()
		}
		select {}
	}
}

func (t *device) WriteAt(p []byte, off int64) (int, error) {
	t.op()
	return t.Device.WriteAt(p, off)
}

func (t *device) ReadBackAt(p []byte, off int64) (int, error) {
	if t.f.noRead {
		return 0, &os.PathError{Op: "read", Path: "disk", Err: syscall.EIO}
	}
	n, err := t.Device.ReadBackAt(p, off)
	if t.f.reads.Add(1) == t.f.lateAt {
		time.Sleep(t.f.late)
	}
	return n, err
}

func (t *device) Sync() error { t.op(); return t.Device.Sync() }
func (t *device) Zero(off, n int64) error {
	t.op()
	return t.Device.Zero(off, n)
}
func (t *device) FitTable(sector int, grow bool) (bool, error) {
	t.op()
	fit, err := blockdev.FitGPT(t.Device, blockdev.GPTOptions{SectorSize: int64(sector), GrowLast: grow})
	return fit.Found, err
}
func (t *device) Writer() medium.Writer { return &bulk{t.w, t} }

func (b *bulk) WriteAt(p []byte, off int64) (int, error) {
	f := b.t.f
	b.t.op()
	time.Sleep(f.slow)
	end := off + int64(len(p))
	switch {
	case f.failAt > 0 && end > f.failAt:
		return 0, &os.PathError{Op: "write", Path: "disk", Err: syscall.EIO}
	case f.hangAt > 0 && end > f.hangAt:
		select {}
	case f.dropAt > 0 && end > f.dropAt && (f.drops == 0 || f.dropped.Add(1) <= int64(f.drops)):
		return len(p), nil
	}
	return b.Writer.WriteAt(p, off)
}

// station has one image, its serials and its spool.
type station struct {
	t        testing.TB
	dir      string
	plan     *plan.Plan
	key      crypto.Signer
	payloads []*medium.Payload
	image    []byte
	faults   map[string]*fault
	token    []byte
	factory  crypto.PublicKey
	opens    atomic.Int64 // of the image
	fan      fan.Options
	stall    time.Duration
	earlier  line.Earlier // of a target that has a partition table
	mu       sync.Mutex
	floors   []int64 // that Earlier was called with
}

const linePlan = `name = "gateway"
[[partition]]
name = "rootfs_a"
size = "24M"
image = "rootfs.img"
[[partition]]
name = "identity"
size = "34M"
[identity]
partition = "identity"
serial = { from = "csv", file = "serials.csv" }
[identity.key]
type = "ed25519"
file = "device.key"
[[identity.file]]
path = "mac"
content = "{mac}"
[record]
spool = "spool"
station = "bench"
key = "station.pem"
`

const latchedPlan = linePlan + "[latch]\nfactory_key = \"factory.pub\"\n"

// newLine makes an image of size bytes, with data in its first and last third.
func newLine(t testing.TB, text string, size int64) *station {
	t.Helper()
	l := &station{t: t, dir: t.TempDir(), faults: map[string]*fault{}, image: make([]byte, size)}
	var err error
	if l.plan, err = plan.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	l.key = provisionKey(t)
	rnd := rand.New(rand.NewSource(1))
	rnd.Read(l.image[:size/3])
	rnd.Read(l.image[size/3*2 : size-size/8])
	name := filepath.Join(l.dir, "rootfs.img")
	if err := os.WriteFile(name, l.image, 0o600); err != nil {
		t.Fatal(err)
	}
	l.payloads = []*medium.Payload{l.payload(name, "rootfs_a")}
	return l
}

// payload accepts an image file with a bmap of ranges of 256 KiB.
func (l *station) payload(name, partition string) *medium.Payload {
	l.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	m, err := bmap.Create(context.Background(), f, bmap.CreateOptions{MaxRange: 256 << 10})
	if err != nil {
		l.t.Fatal(err)
	}
	return &medium.Payload{
		Name: filepath.Base(name), Partition: partition,
		Doc: &update.Document{Map: m, Checksum: strings.Repeat("0", 64), Signers: []verify.Signer{{Fingerprint: strings.Repeat("A", 40),
			Time: time.Unix(1, 0).UTC()}}},
		Open: func(context.Context) (update.ImageCloser, error) {
			l.opens.Add(1)
			return source.Open(name, nil, source.Limits{})
		},
	}
}

const stationKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIBJzBEpyfHh7GJpZaFgBk7tULYrjzAxVJCRwMbqVIPVO
-----END PRIVATE KEY-----
`

func provisionKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := keys.Parse([]byte(stationKey))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// target makes a disk image file of size bytes with a fault; one that is there stays.
func (l *station) target(name string, size int64, f *fault) target.Target {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if _, err := os.Stat(path); err != nil {
		file, err := os.Create(path)
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := file.WriteAt(bytes.Repeat([]byte("old"), 1<<16), 1<<20); err != nil {
			l.t.Fatal(err)
		}
		if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
			l.t.Fatal(err)
		}
	}
	l.faults[path] = f
	return target.Target{Name: name, Disk: &target.Disk{Disk: record.Disk{Path: path, Size: size, Sector: 512, CID: "cid-of-" + name}}}
}

// Earlier implements line.Host.
func (l *station) Earlier(_ target.Medium, old []plan.Placed, floor int64) (line.Earlier, error) {
	l.mu.Lock()
	l.floors = append(l.floors, floor)
	l.mu.Unlock()
	if len(old) > 0 {
		return l.earlier, nil
	}
	return line.Earlier{Floor: floor}, nil
}

// Boot implements line.Host.
func (l *station) Boot(context.Context, *target.Disk, []plan.Placed, int64) error { return nil }

// Open implements line.Host.
func (l *station) Open(_ context.Context, d *target.Disk) (medium.Device, error) {
	f := l.faults[d.Path]
	if f.busy {
		return nil, &blockdev.BusyError{Device: d.Path, By: "mounted on /mnt"}
	}
	dev, err := blockdev.OpenPath(d.Path, 0, 0, blockdev.Exclusive)
	if err != nil {
		return nil, err
	}
	w, err := dev.NewWriter(blockdev.WriterOptions{Engine: blockdev.Paced})
	if err != nil {
		return nil, err
	}
	return &device{dev, w, f}, nil
}

func (l *station) spool() *record.Spool {
	s, err := record.OpenSpool(filepath.Join(l.dir, "spool"), l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *station) job() line.Job {
	serials := filepath.Join(l.dir, "serials.csv")
	if _, err := os.Stat(serials); err != nil {
		var b strings.Builder
		b.WriteString("serial,mac\n")
		for i := range 20 {
			fmt.Fprintf(&b, "AG%03d,02:00:00:00:00:%02x\n", i, i)
		}
		if err := os.WriteFile(serials, []byte(b.String()), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	return line.Job{
		Plan: l.plan, Host: l, Payloads: l.payloads,
		Allocator: identity.NewCSV(serials), Spool: l.spool(), Key: l.key, Operator: "eve", Version: "test", Now: time.Now(),
		Code: func(error) int { return 14 }, Token: l.token, Factory: l.factory, Fan: l.fan, Stall: l.stall,
	}
}

func (l *station) run(targets ...target.Target) map[string]line.Result {
	l.t.Helper()
	results, err := line.Run(context.Background(), l.job(), targets)
	if err != nil {
		l.t.Fatal(err)
	}
	byName := map[string]line.Result{}
	for _, r := range results {
		byName[r.Name] = r
	}
	return byName
}

// records are the verified records, by their number less one.
func (l *station) records() []*record.Record {
	l.t.Helper()
	var all []*record.Record
	if _, err := record.Verify(filepath.Join(l.dir, "spool"), []crypto.PublicKey{l.key.Public()}, func(r *record.Record) error {
		all = append(all,
			r)
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// TestDevice: a disk that has the slots of a device is written again only with a token, unless this station began it and was cut off.
func TestDevice(t *testing.T) {
	for name, weak := range map[string]bool{"with a CID": false, "identified by its place": true} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, latchedPlan, 1<<20)
			factory := provisiontest.P256Key(t)
			l.factory = factory.Public()
			l.earlier = line.Earlier{Device: true, Floor: 7}
			latch := l.plan.Latch
			once := func(f *fault) line.Result {
				d := l.target("unit", 130<<20, f)
				if weak {
					d.Disk.CID = ""
				}
				return l.run(d)["unit"]
			}
			if r := once(&fault{failAt: 1<<20 + 200<<10}); r.Verdict != record.Quarantine {
				t.Fatalf("a failing disk: %+v", r)
			}
			l.plan.Latch = nil
			if r := once(new(fault)); r.Verdict != record.Pass {
				t.Fatalf("a unit that this station began: %+v", r)
			}
			r := once(new(fault))
			if _, ok := errors.AsType[*record.LatchedError](r.Err); !ok || r.Verdict != record.Refused {
				t.Fatalf("a device: %+v", r)
			}
			l.plan.Latch = latch
			var err error
			l.token, err = record.Seal(record.Token{Kind: "token", Serial: "AG000", Expires: time.Now().Add(time.Hour)}, factory)
			if err != nil {
				t.Fatal(err)
			}
			if r := once(&fault{failAt: 1<<20 + 200<<10}); r.Verdict != record.Quarantine {
				t.Fatalf("a device with a token that fails: %+v", r)
			}
			// The state store is gone by now. The spool knows the floor.
			l.token, l.earlier.Floor = nil, 0
			if r := once(new(fault)); r.Verdict != record.Pass || l.floors[len(l.floors)-1] != 7 {
				t.Errorf("a device that this station began: %+v, floors %d", r, l.floors)
			}
		})
	}
}

// holds compares a target's first partition with the image.
func (l *station) holds(name string) {
	l.t.Helper()
	got := make([]byte, len(l.image))
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, l.image) {
		l.t.Errorf("%s does not hold the image: %v", name, err)
	}
}

// journal is the last state of every serial.
func (l *station) journal() map[string]string {
	l.t.Helper()
	data, err := os.ReadFile(filepath.Join(l.dir, "serials.csv.journal"))
	if err != nil {
		l.t.Fatal(err)
	}
	states := map[string]string{}
	for text := range strings.Lines(string(data)) {
		serial, rest, _ := strings.Cut(strings.TrimPrefix(text, `{"serial":"`), `"`)
		_, rest, _ = strings.Cut(rest, `"state":"`)
		states[serial], _, _ = strings.Cut(rest, `"`)
	}
	return states
}

const diskSize = 64 << 20

// TestRun is a rack of eight with every way to go wrong: each gets its own verdict and record, and no target harms another.
func TestRun(t *testing.T) {
	l := newLine(t, linePlan, 20<<20)
	l.fan.Patience = 200 * time.Millisecond
	l.stall = time.Second
	targets := []target.Target{
		l.target("good1", diskSize, &fault{}),
		l.target("good2", diskSize, &fault{}),
		l.target("slow", diskSize, &fault{slow: 100 * time.Millisecond}),
		l.target("fails", diskSize, &fault{failAt: 10 << 20}),
		l.target("lies", diskSize, &fault{dropAt: 4 << 20}),
		l.target("small", 40<<20, &fault{}),
		l.target("mounted", diskSize, &fault{busy: true}),
		l.target("dead", diskSize, &fault{hangAt: 8 << 20}),
		l.target("once", diskSize, &fault{dropAt: 2 << 20, drops: 2}),
	}
	results := l.run(targets...)
	for name, want := range map[string]struct {
		verdict record.Verdict
		error   string
	}{
		"good1":   {record.Pass, ""},
		"good2":   {record.Pass, ""},
		"slow":    {record.Pass, ""},
		"once":    {record.Pass, ""},
		"fails":   {record.Quarantine, "fails: writing: write disk: input/output error"},
		"lies":    {record.Quarantine, "lies: repairing: reading back at "},
		"small":   {record.Refused, "small has 41943040 bytes, expected at least 61890560 for the partitions rootfs_a 24 MiB, identity 34 MiB"},
		"mounted": {record.Refused, "mounted on /mnt"},
		"dead":    {record.Quarantine, "the device does not answer"},
	} {
		got := results[name]
		if got.Verdict != want.verdict || !strings.Contains(got.Error, want.error) || (got.Verdict == record.Pass) != (got.Code == 0) {
			t.Errorf("%s: %s, code %d, %q; want %s, %q", name, got.Verdict, got.Code, got.Error, want.verdict, want.error)
		}
		if got.Verdict == record.Pass {
			l.holds(name)
		}
	}
	records := l.records()
	if len(records) != len(targets) {
		t.Errorf("%d records of %d units", len(records), len(targets))
	}
	provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))
	retries := map[string]int{}
	serials := map[string]bool{}
	for _, r := range records {
		retries[r.Unit.Name] = len(r.Retries)
		if r.Verdict == record.Pass {
			if serials[r.Identity.Serial] {
				t.Errorf("serial %s was given twice", r.Identity.Serial)
			}
			serials[r.Identity.Serial] = true
			var names []string
			for _, s := range r.Steps {
				names = append(names, s.Name)
			}
			if r.Unit.Name == "good1" && !slices.Equal(names, []string{"prepare", "table", "write", "flush", "readback", "identity", "kernel"}) {
				t.Errorf("steps are %v", names)
			}
		}
		if r.Identity != nil && r.Identity.Files["device.key"] != "" {
			t.Error("the record has the private key")
		}
	}
	// Retries: the slow one was left behind, the one that lost writes once was repaired, the bad ones tried again.
	if retries["good1"] != 0 || retries["slow"] == 0 || retries["once"] == 0 || retries["fails"] != 1 || retries["lies"] < 3 {
		t.Errorf("retries are %v", retries)
	}
	used := 0
	for serial, state := range l.journal() {
		if state == "used" {
			used++
		}
		if state == "reserved" || serials[serial] != (state == "used") {
			t.Errorf("serial %s is %s", serial, state)
		}
	}
	if used != 4 {
		t.Errorf("%d serials were spent on 4 units", used)
	}
	// The last step of a pass is on the medium: table, file system, key.
	path := filepath.Join(l.dir, "good1")
	if out := provisiontest.Tool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
}

// TestWholeDisk writes an image with a partition table of its own to larger disks: the backup table is at the end of
// each, the last partition has grown, the identity is in the image's own partition. It refuses a smaller disk.
func TestWholeDisk(t *testing.T) {
	text := strings.Replace(linePlan, `[[partition]]
name = "rootfs_a"
size = "24M"
image = "rootfs.img"
[[partition]]
name = "identity"
size = "34M"
`, "changes = [\"boot\"]\n[image]\npath = \"disk.wic\"\ngrow = true\n", 1)
	l := newLine(t, text, 4<<20)
	wic := filepath.Join(l.dir, "disk.wic")
	f, err := os.Create(wic)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(48<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	provisiontest.Tool(t, "sgdisk", "-n1:2048:+4M", "-c1:boot", "-t1:ef00", "-n2:0:+34M", "-c2:identity", "-n3:0:+4M", "-c3:rootfs_a",
		"-u3:11111111-2222-3333-4444-555555555555", wic)
	if f, err = os.OpenFile(wic, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	const rootfs = 1<<20 + 4<<20 + 34<<20
	if _, err := f.WriteAt(l.image, rootfs); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.payloads = []*medium.Payload{l.payload(wic, "")}
	targets := []target.Target{l.target("same", 48<<20, &fault{}), l.target("large", 200<<20, &fault{}), l.target("odd", 100<<20+512*7, &fault{}),
		l.target("small", 47<<20, &fault{})}
	results := l.run(targets...)
	for _, tg := range targets[:3] {
		if r := results[tg.Name]; r.Verdict != record.Pass {
			t.Errorf("%s: %+v", tg.Name, r)
		}
		path := filepath.Join(l.dir, tg.Name)
		if out := provisiontest.Tool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("%s: sgdisk -v: %s", tg.Name, out)
		}
		d, err := blockdev.OpenDisk(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Find("PARTLABEL=rootfs_a")
		if err != nil || p.Offset != rootfs || p.UUID != "11111111-2222-3333-4444-555555555555" || tg.Name != "same" &&
			(p.Offset+p.Size < tg.Disk.Size-2<<20) {
			t.Errorf("%s: the last partition is %+v, %v", tg.Name, p, err)
		}
		if got := make([]byte, len(l.image)); func() bool { part, _ := os.ReadFile(path); copy(got, part[rootfs:]); return !bytes.Equal(got, l.image) }() {
			t.Errorf("%s does not hold the image", tg.Name)
		}
		d.Close()
	}
	if r := results["small"]; r.Verdict != record.Refused || r.Error != "small has 49283072 bytes, expected at least 50331648 for image disk.wic" {
		t.Errorf("small: %+v", r)
	}
	flip(t, filepath.Join(l.dir, "large"), 2<<20) // boot may change
	job := l.job()
	job.Check = true
	checked, err := line.Run(t.Context(), job, targets[:3])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range checked {
		if r.Verdict != record.Pass {
			t.Errorf("check: %+v", r)
		}
	}
	provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))
}

// TestFanReadsOnce checks that eight targets cost one read of the image.
func TestFanReadsOnce(t *testing.T) {
	l := newLine(t, linePlan, 8<<20)
	var targets []target.Target
	for i := range 8 {
		targets = append(targets, l.target(fmt.Sprintf("t%d", i), diskSize, &fault{}))
	}
	for name, r := range l.run(targets...) {
		if r.Verdict != record.Pass {
			t.Errorf("%s: %+v", name, r)
		}
		l.holds(name)
	}
	if n := l.opens.Load(); n != 1 {
		t.Errorf("the image was opened %d times", n)
	}
}

// TestImageFails: an image that is not the signed one fails every unit, quarantines none, and spends nothing.
func TestImageFails(t *testing.T) {
	l := newLine(t, linePlan, 8<<20)
	l.image[1<<20] ^= 1
	if err := os.WriteFile(filepath.Join(l.dir, "rootfs.img"), l.image, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, r := range l.run(l.target("a", diskSize, &fault{}), l.target("b", diskSize, &fault{})) {
		if r.Verdict != record.Fail || !strings.Contains(r.Error, "checking the image") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for serial, state := range l.journal() {
		if state != "free" {
			t.Errorf("serial %s is %s", serial, state)
		}
	}
}

// TestPowerCut cuts the power at many operations of a run, and runs again: the second run completes with the serial of
// the first, and no other serial is touched.
func TestPowerCut(t *testing.T) {
	if _, err := exec.LookPath("mtype"); err != nil {
		t.Skip("mtools is not installed")
	}
	l := newLine(t, latchedPlan, 2<<20)
	first := &fault{}
	l.run(l.target("whole", diskSize, first))
	total := first.ops.Load()
	if total < 30 {
		t.Fatalf("a run has only %d operations", total)
	}
	step := max(total/16, 1)
	if testing.Short() {
		step = total / 4
	}
	var cuts []int64
	for n := int64(1); n <= total; n += step {
		cuts = append(cuts, n)
	}
	kept := false
	for _, cut := range append(cuts, total-1, total) {
		l := newLine(t, latchedPlan, 2<<20)
		f := &fault{cutAt: cut}
		tg := l.target("disk", diskSize, f)
		go func() { _, _ = line.Run(context.Background(), l.job(), []target.Target{tg}) }()
		for deadline := time.Now().Add(30 * time.Second); f.ops.Load() < cut; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("operation %d never came", cut)
			}
		}
		time.Sleep(5 * time.Millisecond) // the close is under way
		made := l.deviceKey("disk")
		r := l.run(l.target("disk", diskSize, &fault{}))["disk"]
		if r.Verdict != record.Pass || r.Serial != "AG000" {
			t.Errorf("cut at operation %d of %d: %+v", cut, total, r)
		}
		l.holds("disk")
		if key := l.deviceKey("disk"); key == "" || made != "" && key != made {
			t.Errorf("cut at operation %d of %d: the device's key was %q, and is %q", cut, total, made, key)
		}
		kept = kept || made != ""
		if j := l.journal(); len(j) != 1 || j["AG000"] != "used" {
			t.Errorf("cut at operation %d of %d: the journal is %v", cut, total, j)
		}
	}
	if !kept {
		t.Error("no cut came after the device's key was made")
	}
}

// TestPowerCuts cuts the power when the identity is complete, and then at many operations of the next run: the device's
// key, which somebody may have certified, stays.
func TestPowerCuts(t *testing.T) {
	if _, err := exec.LookPath("mtype"); err != nil {
		t.Skip("mtools is not installed")
	}
	l := newLine(t, linePlan, 2<<20)
	tg := l.target("disk", diskSize, &fault{})
	l.run(tg)
	key := l.deviceKey("disk")
	for cut := int64(1); ; cut += 5 {
		f := &fault{cutAt: cut}
		tg, ended := l.target("disk", diskSize, f), make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = line.Run(context.Background(), l.job(), []target.Target{tg})
		}()
		for f.ops.Load() < cut {
			select {
			case <-ended:
			case <-time.After(time.Millisecond):
				continue
			}
			break
		}
		if f.ops.Load() < cut {
			if cut < 20 {
				t.Errorf("a run has only %d operations", cut)
			}
			break
		}
		time.Sleep(5 * time.Millisecond)
		if r := l.run(l.target("disk", diskSize, &fault{}))["disk"]; r.Verdict != record.Pass || r.Serial != "AG000" {
			t.Fatalf("cut at operation %d: %+v", cut, r)
		}
		if now := l.deviceKey("disk"); key == "" || now != key {
			t.Fatalf("cut at operation %d: the device's key was %q, and is %q", cut, key, now)
		}
	}
}

// deviceKey is the device's key in the identity partition of a target, as mtools reads it; "" as long as the identity is
// not complete.
func (l *station) deviceKey(name string) string {
	l.t.Helper()
	file := func(of string) string {
		out, err := exec.Command("mtype", "-i", fmt.Sprintf("%s@@%d", filepath.Join(l.dir, name), 25<<20), "::/"+of).Output()
		if err != nil {
			return ""
		}
		return string(out)
	}
	if !strings.HasPrefix(file("serial"), "AG") {
		return ""
	}
	return file("device.key")
}

// TestLatched: a provisioned device is refused, a token of the factory key opens it, and it keeps serial and key.
func TestLatched(t *testing.T) {
	l := newLine(t, latchedPlan, 2<<20)
	factory := provisiontest.Ed25519Key(t)
	l.factory = factory.Public()
	tg := l.target("disk", diskSize, &fault{})
	first := l.run(tg)["disk"]
	if first.Verdict != record.Pass {
		t.Fatalf("first run: %+v", first)
	}
	before, err := os.ReadFile(filepath.Join(l.dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	again := l.run(tg)["disk"]
	if again.Verdict != record.Refused || !strings.Contains(again.Error, "was provisioned before ("+first.Serial+")") {
		t.Errorf("second run: %+v", again)
	}
	if after, err := os.ReadFile(filepath.Join(l.dir, "disk")); err != nil || !bytes.Equal(before, after) {
		t.Error("the refused device has changed")
	}
	token, err := record.Seal(record.Token{Kind: "token", Serial: first.Serial, Expires: time.Now().Add(time.Hour)}, factory)
	if err != nil {
		t.Fatal(err)
	}
	l.token = token
	if third := l.run(tg)["disk"]; third.Verdict != record.Pass || third.Serial != first.Serial {
		t.Errorf("with a token: %+v", third)
	}
	records := l.records()
	if a, b := records[0].Identity, records[2].Identity; a.Key != b.Key || records[0].Latch == records[2].Latch {
		t.Errorf("identities are %+v and %+v", a, b)
	}
	if records[1].Identity == nil || records[1].Identity.Serial != first.Serial {
		t.Errorf("the refusal does not name the device: %+v", records[1])
	}
	provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))

	// A new station with an empty spool does not open it either.
	l.token = nil
	if err := os.RemoveAll(filepath.Join(l.dir, "spool")); err != nil {
		t.Fatal(err)
	}
	if r := l.run(tg)["disk"]; r.Verdict != record.Refused {
		t.Errorf("with a lost spool: %+v", r)
	}
}

// TestCheck compares provisioned devices later, and finds a byte that has changed.
func TestCheck(t *testing.T) {
	l := newLine(t, linePlan, 4<<20)
	a, b := l.target("a", diskSize, &fault{}), l.target("b", diskSize, &fault{})
	l.run(a, b)
	check := func() map[string]line.Result {
		job := l.job()
		job.Check = true
		results, err := line.Run(t.Context(), job, []target.Target{a, b})
		if err != nil {
			t.Fatal(err)
		}
		return map[string]line.Result{results[0].Name: results[0], results[1].Name: results[1]}
	}
	for name, r := range check() {
		if r.Verdict != record.Pass {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, off := range []int64{1<<20 + 100, 1<<20 + 2<<20, 1024 + 60, 25<<20 + 3<<20} { // data, a hole, the table, the identity
		flip(t, filepath.Join(l.dir, "b"), off)
		got := check()
		if got["a"].Verdict != record.Pass {
			t.Errorf("a: %+v", got["a"])
		}
		if got["b"].Verdict == record.Pass && off != 25<<20+3<<20 { // the identity partition is compared by its files
			t.Errorf("a changed byte at %d was not found", off)
		}
		flip(t, filepath.Join(l.dir, "b"), off)
	}
	if got := check(); got["b"].Verdict != record.Pass {
		t.Errorf("b: %+v", got["b"])
	}
	provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, off); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 0x10
	if _, err := f.WriteAt(one, off); err != nil {
		t.Fatal(err)
	}
}

// TestLateAnswer: a disk that was given up and answers its last operation later does not pass, and does not get a second record.
func TestLateAnswer(t *testing.T) {
	l := newLine(t, linePlan, 2<<20)
	check := func(f *fault) line.Result {
		job := l.job()
		job.Check = true
		results, err := line.Run(t.Context(), job, []target.Target{l.target("disk", diskSize, f)})
		if err != nil || len(results) != 1 {
			t.Fatalf("Run = %+v, %v", results, err)
		}
		return results[0]
	}
	l.run(l.target("disk", diskSize, &fault{}))
	whole := &fault{}
	if r := check(whole); r.Verdict != record.Pass {
		t.Fatalf("check: %+v", r)
	}
	l.stall = 300 * time.Millisecond
	f := &fault{lateAt: whole.reads.Load(), late: 1200 * time.Millisecond}
	if r := check(f); r.Verdict != record.Quarantine || !errors.Is(r.Err, medium.ErrStalled) {
		t.Errorf("a disk that answered late: %+v", r)
	}
	time.Sleep(f.late)
	if n := len(l.records()); n != 3 {
		t.Errorf("%d records of three runs", n)
	}
}

// TestCancelled: at whatever point a run is cancelled, no unit passes and no serial is spent.
func TestCancelled(t *testing.T) {
	l := newLine(t, linePlan, 8<<20)
	f := &fault{slow: 10 * time.Millisecond}
	tg := l.target("disk", diskSize, f)
	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("the operator went home")
	go func() {
		for f.ops.Load() < 12 {
			time.Sleep(time.Millisecond)
		}
		stop(why)
	}()
	results, err := line.Run(ctx, l.job(), []target.Target{tg})
	if err != nil || len(results) != 1 || results[0].Verdict != record.Fail || !errors.Is(results[0].Err, why) {
		t.Errorf("Run = %+v, %v", results, err)
	}
	if j := l.journal(); j["AG000"] != "free" {
		t.Errorf("the journal is %v", j)
	}
}

// TestLoopedFAT: a card whose identity file system is a loop costs only itself time: the good card beside it passes, and so does it, since
// its identity is made anew.
func TestLoopedFAT(t *testing.T) {
	l := newLine(t, linePlan, 2<<20)
	good, bad := l.target("good", diskSize, &fault{}), l.target("bad", diskSize, &fault{})
	l.run(bad)
	path := filepath.Join(l.dir, "bad")
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	part := disk[25<<20:]
	reserved, size := int(binary.LittleEndian.Uint16(part[14:]))*512, int(binary.LittleEndian.Uint32(part[36:]))*512
	for n := range 2 {
		binary.LittleEndian.PutUint32(part[reserved+n*size+4*2:], 2) // cluster 2, the root directory, is followed by itself
	}
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	results, err := line.Run(ctx, l.job(), []target.Target{good, bad})
	if err != nil || len(results) != 2 {
		t.Fatalf("Run = %+v, %v", results, err)
	}
	for _, r := range results {
		if r.Verdict != record.Pass {
			t.Errorf("%+v", r)
		}
		l.holds(r.Name)
	}
}

// TestLatchWithoutToken: neither an empty file in a fresh spool nor a medium that cannot be read opens a latched device.
func TestLatchWithoutToken(t *testing.T) {
	l := newLine(t, latchedPlan, 2<<20)
	factory := provisiontest.Ed25519Key(t)
	l.factory = factory.Public()
	tg := l.target("disk", diskSize, &fault{})
	if r := l.run(tg)["disk"]; r.Verdict != record.Pass {
		t.Fatalf("first run: %+v", r)
	}
	latch := l.records()[0].Latch
	spool := filepath.Join(l.dir, "spool")
	if err := errors.Join(os.Rename(spool, spool+".old"), os.Mkdir(spool, 0o700),
		os.WriteFile(filepath.Join(spool, "latching-"+latch), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(l.dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if r := l.run(tg)["disk"]; r.Verdict != record.Refused {
		t.Errorf("with an empty file in a fresh spool: %+v", r)
	}
	r := l.run(l.target("disk", diskSize, &fault{noRead: true}))["disk"]
	if r.Verdict != record.Quarantine || !errors.Is(r.Err, syscall.EIO) {
		t.Errorf("a medium that cannot be read: %+v", r)
	}
	if after, err := os.ReadFile(filepath.Join(l.dir, "disk")); err != nil || !bytes.Equal(before, after) {
		t.Error("the latched device has changed")
	}
}

// TestPreparedMedium: serial and key that someone put on a medium do not become those of a device, and the record reports them. Nor do
// those that this station made for another unit, or can no longer attest.
func TestPreparedMedium(t *testing.T) {
	l := newLine(t, linePlan, 2<<20)
	tg := l.target("disk", diskSize, &fault{})
	path := filepath.Join(l.dir, "disk")
	provisiontest.Tool(t, "sgdisk", "-n1:2048:+34M", "-c1:identity", path)
	stranger, pem, err := keys.New("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	files := []fat.File{{Name: "serial", Data: []byte("AG013")}, {Name: "device.key", Data: pem}}
	if err := errors.Join(fat.Write(fat.Window{Medium: dev, Offset: 1 << 20, Length: 34 << 20}, "IDENTITY", files), dev.Sync(), dev.Close()); err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{keys.Fingerprint(stranger.Public()): true}
	run := func(name string, want record.Discarded) *record.Record {
		t.Helper()
		r := l.run(tg)[tg.Name]
		records := l.records()
		got := records[len(records)-1]
		if r.Verdict != record.Pass || r.Serial == want.Serial {
			t.Fatalf("%s: %+v", name, r)
		}
		if got.Discarded == nil || *got.Discarded != want {
			t.Errorf("%s: the record reports %+v, want %+v", name, got.Discarded, want)
		}
		if made[got.Identity.Key] {
			t.Errorf("%s: the device has a key that was made for another", name)
		}
		made[got.Identity.Key] = true
		return got
	}
	first := run("prepared", record.Discarded{Serial: "AG013", Key: keys.Fingerprint(stranger.Public())})

	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "clone"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	tg = l.target("clone", diskSize, &fault{})
	second := run("clone", record.Discarded{Serial: first.Identity.Serial, Key: first.Identity.Key})
	provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))

	attested, err := filepath.Glob(filepath.Join(l.dir, "spool", "attested-*"))
	if err != nil || len(attested) != 2 {
		t.Fatalf("attestations are %v, %v", attested, err)
	}
	for _, name := range attested { // an attestation without a signature does not count
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := l.run(tg)[tg.Name]; r.Verdict != record.Pass || r.Serial != second.Identity.Serial {
		t.Errorf("with a lost attestation: %+v", r) // the list of serials knows the unit
	}
	if last := l.records()[2]; last.Discarded == nil || made[last.Identity.Key] {
		t.Errorf("with a lost attestation: the record reports %+v", last.Discarded)
	}
	if r := l.run(tg)[tg.Name]; r.Verdict != record.Pass {
		t.Errorf("%+v", r)
	}
	if a, b := l.records()[2], l.records()[3]; a.Identity.Key != b.Identity.Key || b.Discarded != nil {
		t.Errorf("an attested key was not kept: %+v", b.Discarded)
	}
}
