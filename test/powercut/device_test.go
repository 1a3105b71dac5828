package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/boot"
	"updater/internal/crashdisk"
	"updater/release"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// The disk: boot state in the first 32 KiB, slot A, slot B, and room for a partition table at the end.
const (
	slotsAt  = 32 << 10
	diskSize = slotsAt + 2*slotSize + 20<<10
)

func slotOffset(name string) int64 { return slotsAt + int64(slices.Index(slotNames, name))*slotSize }

// device is an A/B device: a disk with a boot loader, and the images that its slots may hold.
type device struct {
	loader   *loader
	policy   verify.Policy
	images   []*image // 0 and 1 are in slots B and A at first, 2 and 3 are the updates
	o        crashdisk.Options
	w        blockdev.WriterOptions
	sizes    update.Sizes
	progress *update.Progress
	files    blockdev.Files // its Chunk and Zeroing are those of the slots
	disk     *crashdisk.Disk
	booted   string
	delta    bool  // of one role: the image comes as a delta against the running slot
	fixed    bool  // the medium is built in: it is read back while it is written
	early    int64 // bytes read back so
	roles    int   // of each slot
	file     bool  // the first of several roles is a file
	hooks    hooks
	memo     map[string][]string    // boot state to the loader's chain
	stores   map[string]state.State // by their bytes
}

// hooks put something between the parts of an install. nil is nothing.
type hooks struct {
	files  func(blockdev.Files) blockdev.Files // of the slot
	target func(update.Target) update.Target
	file   func(*roleFile, update.Target) update.Target // instead of target
	state  func(update.State) update.State
	// unsynced leaves the folder of a file role as the page cache has it.
	unsynced bool
	boot     func(update.Boot) update.Boot
	areas    func([]boot.Area) []boot.Area
}

// newDevice draws a device by its seed: images, sector size, engine, windows.
func newDevice(t testing.TB, l *loader, seed uint64) *device {
	t.Helper()
	list, policy := pool(t)
	rng := rand.New(rand.NewPCG(seed, 77))
	d := &device{loader: l, policy: policy, booted: "A", roles: []int{1, 2, 1, 3}[seed%4], memo: map[string][]string{}, stores: map[string]state.State{}}
	d.file = d.roles > 1 && seed%8 > 4
	d.fixed, d.delta = seed%3 > 0, seed%4 == 2
	for _, i := range rng.Perm(len(list))[:4] {
		d.images = append(d.images, list[i])
	}
	slices.SortFunc(d.images, func(a, b *image) int { return int(a.index - b.index) }) // the floor rises
	d.o = crashdisk.Options{Sector: []int64{512, 4096}[rng.IntN(2)], MaxIO: int64(4096 << rng.IntN(3)), Seed: seed}
	engines := []string{blockdev.Paced, blockdev.Direct, blockdev.Auto}
	switch rng.IntN(8) { // features that a kernel or a file system may lack
	case 0:
		d.o.NoDirect, engines = true, []string{blockdev.Paced, blockdev.Auto}
	case 1:
		d.o.NoZero = true
	case 2:
		d.o.NoSyncRange = true
	}
	if !d.o.NoDirect {
		d.o.Damage = d.damaged
	}
	d.w = blockdev.WriterOptions{
		Engine: engines[rng.IntN(len(engines))],
		Window: int64(4096 << rng.IntN(3)), Checkpoint: int64(16384 << rng.IntN(3)), InFlight: 1,
	}
	if rng.IntN(4) == 0 { // the order of the commands is then not the seed's alone
		d.w.InFlight = 3
	}
	small := func(least int64) int64 { return []int64{0, least, least << 1, least << 2, least << 3}[rng.IntN(5)] } // 0 is the default
	d.w.Buffer, d.files.Chunk, d.files.Zeroing = small(4096), int(small(4096)), small(4096)
	d.sizes = update.Sizes{Chunk: small(512), Held: small(4096), Gap: small(4096), Piece: small(4096), Read: small(512), Budget: small(4096)}
	content := bytes.Repeat([]byte{0xa5}, diskSize)
	if d.roles > 1 {
		content = append(content, make([]byte, moreSize)...)
	}
	for i, a := range l.fresh() {
		copy(content[l.areas[i].off:], a)
	}
	copy(content[slotOffset("B"):], d.images[0].data)
	copy(content[slotOffset("A"):], d.images[1].data)
	if d.file {
		fill(content, "B", d.images[0].sets[d.roles].parts[fileRole])
		fill(content, "A", d.images[1].sets[d.roles].parts[fileRole])
	}
	d.power(content)
	if got := l.start(content); got != "A" {
		t.Fatalf("the fresh device boots %q", got)
	}
	d.power(content)
	return d
}

// damaged reports whether a power cut or a failed write may leave a sector unreadable: any of a slot, and of boot state with a
// second copy, where the sectors are those that the boot loader was made for.
func (d *device) damaged(off int64) bool {
	if off >= slotsAt && off < slotsAt+2*slotSize {
		return true
	}
	return off < diskSize && len(survives[d.loader.name]) > 0 && d.o.Sector == boot.Sector
}

// newGoodDevice is a device whose running slot was marked good, as an install requires.
func newGoodDevice(t testing.TB, l *loader, seed uint64) *device {
	t.Helper()
	d := newDevice(t, l, seed)
	if err := d.good(t); err != nil {
		t.Fatal(err)
	}
	d.power(d.disk.Medium())
	return d
}

// power switches the device on with the content of its medium.
func (d *device) power(content []byte) { d.disk = crashdisk.New(content, d.o) }

func (d *device) backend() (boot.Backend, error) {
	node := d.disk.Node() // a partition of its own
	var areas []boot.Area
	for i, a := range d.loader.areas {
		areas = append(areas, node.Device(fmt.Sprintf("boot state %d", i+1), a.off, a.size))
	}
	if d.hooks.areas != nil {
		areas = d.hooks.areas(areas)
	}
	return d.loader.open(areas, d.booted)
}

// install runs the real install of an image.
func (d *device) install(ctx context.Context, img *image) (res *update.Result, err error) {
	defer func() {
		if res != nil {
			d.early += res.OverlapBytes
		}
	}()
	backend, err := d.backend()
	if err != nil {
		return nil, err
	}
	var state update.Boot = bootState{backend}
	if d.hooks.boot != nil {
		state = d.hooks.boot(state)
	}
	job := update.Job{Boot: state, Disk: d, Policy: d.policy, Product: "demo", Tries: 1, Sizes: d.sizes, Progress: d.progress}
	if s := img.sets[d.roles]; s != nil {
		if job.State, err = d.memory(); err != nil {
			return nil, err
		}
		if d.hooks.state != nil {
			job.State = d.hooks.state(job.State)
		}
		job.Document, job.Signature, job.Images = s.doc, s.sig, s
		job.Layout = release.Layout{Slots: slotNames, Roles: roleNames[:d.roles]}
		return update.Install(ctx, job)
	}
	job.Document, job.Signature, job.Role = img.doc, img.sig, "rootfs"
	job.Image, job.ImageSize = stream{bytes.NewReader(img.data)}, -1
	job.Reopen = func(context.Context) (update.ImageCloser, error) { return stream{bytes.NewReader(img.data)}, nil }
	if d.delta {
		if err := d.byDelta(&job, img); err != nil {
			return nil, err
		}
	}
	return update.Install(ctx, job)
}

// bootState adapts a backend as cmd/updater does.
type bootState struct{ boot.Backend }

func (b bootState) Slots(ctx context.Context) ([]update.Slot, error) {
	st, err := b.State(ctx)
	if err != nil {
		return nil, err
	}
	var slots []update.Slot
	for _, s := range st.Slots {
		slots = append(slots, update.Slot{Name: s.Name, Booted: s.Name == st.Booted, Next: s.Name == st.Next, Bootable: s.Bootable, Good: s.Good})
	}
	return slots, nil
}

// SlotSize implements update.Disk.
func (d *device) SlotSize(_, role string) (int64, error) {
	_, size := extent(d.roles, role)
	return size, nil
}

// OpenSlot implements update.Disk.
func (d *device) OpenSlot(slot, role string) (update.Target, error) {
	if d.file && role == fileRole {
		return d.roleFile(slot), nil
	}
	off, size := extent(d.roles, role)
	files := d.disk.Files(slotOffset(slot)+off, size)
	files.Chunk, files.Zeroing, files.Fixed = d.files.Chunk, d.files.Zeroing, d.fixed
	if d.hooks.files != nil {
		files = d.hooks.files(files)
	}
	w, err := blockdev.New("slot "+slot, files).NewWriter(d.w)
	if err != nil || d.hooks.target == nil {
		return w, err
	}
	return d.hooks.target(w), nil
}

// holds names the complete image in a slot, "" when there is none.
func (d *device) holds(disk []byte, slot string) string {
	content, end := disk[slotOffset(slot):], int64(0)
	var file []byte
	if d.file {
		_, end = extent(d.roles, fileRole)
		_, file = found(disk, slot)
	}
	for _, img := range d.images {
		if bytes.Equal(content[end:len(img.data)], img.data[end:]) && bytes.Equal(file, img.data[:end]) {
			return img.name
		}
	}
	return ""
}

// promise is the meaning of a mark in the record: from then on the loader's choice is this slot with this image.
func promise(slot string, img *image) string { return "slot " + slot + " holds " + img.name }

// check is the invariant: the loader finds a slot, every slot that it would ever choose holds a complete image, and
// the last promise is kept.
func (d *device) check(s *crashdisk.State) error {
	key := make([]byte, 0, 4096)
	for _, a := range d.loader.areas {
		key = append(key, s.Image[a.off:a.off+a.size]...)
	}
	chain, ok := d.memo[string(key)]
	if !ok {
		chain = d.loader.chain(s.Image)
		d.memo[string(key)] = chain
	}
	first := slices.IndexFunc(chain, func(slot string) bool { return slot != "" })
	if first < 0 {
		return errors.New("the boot loader finds no slot")
	}
	checked := ""
	for _, slot := range chain[first:] {
		if slot == "" || strings.Contains(checked, slot) {
			continue
		}
		checked += slot
		if d.holds(s.Image, slot) == "" {
			return fmt.Errorf("the boot loader tries %q; slot %s holds no complete image", chain, slot)
		}
	}
	if d.roles > 1 {
		if err := d.remembered(s.Image, chain[first]); err != nil {
			return err
		}
	}
	if len(s.Marks) == 0 {
		return nil
	}
	want := s.Marks[len(s.Marks)-1]
	if got := "slot " + chain[0] + " holds " + d.holds(s.Image, chain[0]); chain[0] == "" || got != want {
		return fmt.Errorf("it was promised that %s; the boot loader chooses %q, and %s", want, chain[0], got)
	}
	return nil
}

// crashes tries the states of everything since the device was switched on.
func (d *device) crashes(p crashdisk.Plan) (int, error) {
	p.Seed = d.o.Seed
	n, err := d.disk.Crashes(p, d.check)
	if err != nil {
		err = fmt.Errorf("%s, seed %d, revision %s, %s engine, sectors of %d: %w", d.loader.name, d.o.Seed, revision(), d.w.Engine, d.o.Sector, err)
	}
	return n, err
}
