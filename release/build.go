package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"updater/bmap"
	"updater/verify"
)

// Part is one image for [Build].
type Part struct {
	Role, Slot string
	Image      string // file, raw or packed
}

// BuildOptions are the options of [Build].
type BuildOptions struct {
	Contents Contents // all but the images
	Dir      string   // folder of the release document; every file must be below it
	Parts    []Part
	// Progress, unless nil, is called from several goroutines, one at a time, with the bytes of all images. total grows
	// while images are opened.
	Progress func(done, total int64)
}

// Built is a release and the block maps that were made for it. Write the maps before the document.
type Built struct {
	Release *Release
	Maps    map[string][]byte // content by path; existing maps are not included
	// Warnings name maps whose ranges are longer than [bmap.HeldRange].
	Warnings []string
}

// packings are the endings of packed images.
var packings = []string{".zst", ".gz", ".xz", ".lz4", ".bz2"}

// Build makes a release of image files, several at a time. It writes nothing.
//
// The block map of an image is the file beside it: IMAGE.bmap, or for a packed image IMAGE.bmap without the ending of the
// packing. An existing map is used, and compared with the raw image if that exists: every range, and zeros in all unmapped blocks
// unless the map says keep. A missing map is made from the raw image, see [bmap.Create]; it has no update element, so that an
// unchanged image has the same map in every release. The same files and contents give the same release.
//
// Errors name the image. They are those of [New], [Release.Map], [bmap.Create] and [bmap.Verify].
func Build(ctx context.Context, o BuildOptions) (*Built, error) {
	p, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	if _, err := New(p.contents); err != nil { // before images are read, which takes long
		return nil, err
	}
	if err := runAll(ctx, p.jobs, o.Progress); err != nil {
		return nil, err
	}
	return p.finish()
}

// plan is a release whose block maps are still to be found or made.
type plan struct {
	contents Contents
	jobs     []*mapJob // one for each block map
	of       []*mapJob // of each image
}

func newPlan(o BuildOptions) (*plan, error) {
	p := &plan{contents: o.Contents}
	p.contents.Images = nil
	for _, part := range o.Parts {
		job, err := newMapJob(part.Image)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(p.jobs, func(j *mapJob) bool { return j.path == job.path }); i < 0 {
			p.jobs = append(p.jobs, job)
		} else if job = p.jobs[i]; job.image != part.Image {
			return nil, fmt.Errorf("images %s and %s have one block map, %s", job.image, part.Image, job.path)
		}
		image := Image{Role: part.Role, Slot: part.Slot, BmapSHA256: strings.Repeat("0", 64)} // until the map is there
		if image.File, err = Relative(o.Dir, part.Image); err != nil {
			return nil, err
		}
		if image.Bmap, err = Relative(o.Dir, job.path); err != nil {
			return nil, err
		}
		p.contents.Images = append(p.contents.Images, image)
		p.of = append(p.of, job)
	}
	return p, nil
}

// finish pins the maps.
func (p *plan) finish() (*Built, error) {
	b := &Built{Maps: map[string][]byte{}}
	for i, job := range p.of {
		sum := sha256.Sum256(job.data)
		p.contents.Images[i].BmapSHA256 = hex.EncodeToString(sum[:])
		if job.made {
			b.Maps[job.path] = job.data
		}
	}
	var err error
	if b.Release, err = New(p.contents); err != nil {
		return nil, err
	}
	for i, job := range p.of {
		m, err := b.Release.Map(p.contents.Images[i], job.data)
		if err != nil {
			return nil, err
		}
		if n := m.Longest(); n > bmap.HeldRange {
			b.Warnings = append(b.Warnings, fmt.Sprintf("block map %s has a range of %d bytes: devices write what is longer than %d before they compare it, "+
				"and copy none of it from the other slot; updater bmap create makes shorter ones", job.path, n, bmap.HeldRange))
		}
	}
	return b, nil
}

// Relative returns the name of a file in a document that lies in the folder dir. A file that is not below dir, or that no
// document can name, is an error.
func Relative(dir, file string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	full, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(dir, full)
	if err == nil {
		rel = filepath.ToSlash(rel)
		err = path(rel)
	}
	if err != nil {
		return "", fmt.Errorf("file %s cannot be named in a release in %s: its relative name %w", file, dir, err)
	}
	return rel, nil
}

// unpacked is the name of an image without the ending of its packing.
func unpacked(image string) string {
	if ext := filepath.Ext(image); slices.Contains(packings, ext) {
		return strings.TrimSuffix(image, ext)
	}
	return image
}

// mapPath returns the path of the block map of an image, which may not exist yet.
func mapPath(image string) string {
	if beside := image + ".bmap"; unpacked(image) == image || isThere(beside) {
		return beside
	}
	return unpacked(image) + ".bmap"
}

func isThere(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// mapJob finds or makes one block map.
type mapJob struct {
	image string
	raw   string // the image unpacked; "" when only the packed one is there
	path  string // of the map
	made  bool
	data  []byte // the map
}

func newMapJob(image string) (*mapJob, error) {
	j := &mapJob{image: image, raw: unpacked(image), path: mapPath(image)}
	if _, err := os.Stat(image); err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	if !isThere(j.raw) {
		j.raw = ""
	}
	if j.made = !isThere(j.path); j.made && j.raw == "" {
		return nil, fmt.Errorf("packed image %s has no block map %s, and %s is not there to make one of", image, j.path, unpacked(image))
	}
	return j, nil
}

// runAll runs the jobs, as many at a time as there are CPUs. The first error ends the others.
func runAll(ctx context.Context, jobs []*mapJob, report func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	meter := &meter{done: make([]int64, len(jobs)), total: make([]int64, len(jobs)), report: report}
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() {
			select {
			case free <- struct{}{}:
				defer func() { <-free }()
			case <-ctx.Done():
				return
			}
			if err := j.run(ctx, meter.of(i)); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// run sets the bytes of the map.
func (j *mapJob) run(ctx context.Context, progress func(done, total int64)) error {
	if !j.made {
		var err error
		if j.data, err = readMap(j.path); err != nil {
			return err
		}
		if j.raw == "" {
			return nil
		}
	}
	f, err := os.Open(j.raw)
	if err != nil {
		return fmt.Errorf("opening the image: %w", err)
	}
	defer f.Close()
	if !j.made {
		err = compare(ctx, j.data, f, progress)
		if err != nil {
			err = fmt.Errorf("comparing image %s with its block map %s: %w", j.raw, j.path, err)
		}
		return err
	}
	m, err := bmap.Create(ctx, f, bmap.CreateOptions{Progress: progress})
	if err == nil {
		err = sameFile(f, j.raw)
	}
	if err != nil {
		return fmt.Errorf("making the block map of %s: %w", j.raw, err)
	}
	j.data = m.Encode()
	return nil
}

func readMap(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening the block map: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, verify.MaxDocumentSize+1))
	if err == nil && len(data) > verify.MaxDocumentSize {
		err = fmt.Errorf("it has more than %d bytes", verify.MaxDocumentSize)
	}
	if err != nil {
		return nil, fmt.Errorf("reading block map %s: %w", name, err)
	}
	return data, nil
}

// sameFile checks that name still is the file that was read.
func sameFile(f *os.File, name string) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(name); err != nil || !os.SameFile(opened, now) {
		return fmt.Errorf("%w: another file has its name", bmap.ErrChanged)
	}
	return nil
}

// compare compares an image with a map that was there: size, ranges, and zeros in all unmapped blocks.
func compare(ctx context.Context, data []byte, f *os.File, progress func(done, total int64)) error {
	m, err := bmap.Parse(data)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size != m.ImageSize() {
		return fmt.Errorf("image has %d bytes, the block map says %d", size, m.ImageSize())
	}
	if err := bmap.Verify(ctx, m, f, progress); err != nil {
		return err
	}
	if u := m.Update(); u != nil && u.Unmapped == bmap.UnmappedKeep {
		return nil
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for gap := range m.Gaps() {
		for at, end := gap.Offset, gap.Offset+gap.Length; at < end; {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			p := buf[:min(end-at, int64(len(buf)))]
			if _, err := f.ReadAt(p, at); err != nil {
				return fmt.Errorf("reading at byte %d: %w", at, err)
			}
			if !bytes.Equal(p, zeros[:len(p)]) {
				return fmt.Errorf("bytes %d to %d hold data that the block map does not have", at, at+int64(len(p))-1)
			}
			at += int64(len(p))
		}
	}
	return nil
}

// meter adds up the progress of several images.
type meter struct {
	mu          sync.Mutex
	done, total []int64
	report      func(done, total int64)
}

// of returns the progress function of image i.
func (m *meter) of(i int) func(done, total int64) {
	if m.report == nil {
		return nil
	}
	return func(done, total int64) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.done[i], m.total[i] = done, total
		var sumDone, sumTotal int64
		for i := range m.done {
			sumDone, sumTotal = sumDone+m.done[i], sumTotal+m.total[i]
		}
		m.report(sumDone, sumTotal)
	}
}
