package blockdev_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"updater/blockdev"
	"updater/bmap"
	"updater/update"
)

// benchBytes is the number of bytes that each engine and each peer writes.
const benchBytes = 256 << 20

// BenchmarkWrite writes the same bytes with every engine and with common tools, each until they are durable, on one loop device with
// direct I/O, in turn. It reports MB/s, the ratio to `dd bs=4M oflag=direct` and to `dd bs=4M conv=fsync`, and the peak of dirty pages.
func BenchmarkWrite(b *testing.B) {
	image, node, data := benchDevice(b)
	tool := func(name string, args ...string) func() error {
		return func() error { return exec.Command(name, args...).Run() }
	}
	rate := map[string]float64{}
	for _, c := range []struct {
		name  string
		write func() error
	}{
		{"dd conv=fsync", tool("dd", "if="+image, "of="+node, "bs=4M", "conv=fsync")},
		{"dd oflag=direct", tool("dd", "if="+image, "of="+node, "bs=4M", "oflag=direct", "conv=fsync")},
		{"bmaptool copy", tool("bmaptool", "-q", "copy", "--nobmap", image, node)},
		{"paced", func() error { return engine(node, blockdev.Paced, data) }},
		{"direct", func() error { return engine(node, blockdev.Direct, data) }},
		{"auto", func() error { return engine(node, blockdev.Auto, data) }},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			if c.name == "bmaptool copy" {
				if _, err := exec.LookPath("bmaptool"); err != nil {
					b.Skip("bmaptool is not installed")
				}
			}
			b.SetBytes(benchBytes)
			peak, best := int64(0), time.Duration(1<<62)
			for b.Loop() {
				stop := make(chan int64)
				done := make(chan struct{})
				go func() { stop <- peakDirty(done) }()
				start := time.Now()
				if err := c.write(); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(start))
				close(done)
				peak = max(peak, <-stop)
			}
			rate[c.name] = benchBytes / best.Seconds()
			b.ReportMetric(float64(peak)/(1<<20), "dirty-MiB")
			for _, peer := range []string{"dd oflag=direct", "dd conv=fsync", "bmaptool copy"} {
				if r := rate[peer]; r > 0 && c.write != nil && peer != c.name {
					b.ReportMetric(rate[c.name]/r, "x/"+strings.ReplaceAll(peer, " ", "_"))
				}
			}
		})
	}
}

// benchDevice makes a file of random bytes and a loop device with direct I/O, as large and without holes.
func benchDevice(b *testing.B) (image, node string, data []byte) {
	if os.Getuid() != 0 {
		b.Skip("loop devices need root")
	}
	dir := b.TempDir()
	image, backing := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	data = make([]byte, benchBytes)
	rand.NewChaCha8([32]byte{3}).Read(data)
	for _, name := range []string{image, backing} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	out, err := exec.Command("losetup", "--direct-io=on", "-f", "--show", backing).Output()
	if err != nil {
		b.Skipf("no loop device: %v", err)
	}
	node = strings.TrimSpace(string(out))
	b.Cleanup(func() { _ = exec.Command("losetup", "-d", node).Run() })
	return image, node, data
}

// BenchmarkReadBack reads a device back as an install does, without writing at the same time, and reports the ratio to the slower of its two
// limits: `dd iflag=direct` of the device, and hashing the same bytes in memory on every core. The three take turns, so that a disk whose
// speed changes is as fast for each, and their medians are compared.
func BenchmarkReadBack(b *testing.B) {
	image, node, data := benchDevice(b)
	f, err := os.Open(image)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	m, err := bmap.Create(b.Context(), f, bmap.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	turns := []struct {
		name string
		read func() error
	}{
		{"dd", func() error { return exec.Command("dd", "if="+node, "of=/dev/null", "bs=4M", "iflag=direct").Run() }},
		{"hash", func() error { return bmap.Verify(b.Context(), m, bytes.NewReader(data), nil) }},
		{"read-back", func() error { return compareDevice(b, node, m) }},
	}
	times := map[string][]time.Duration{}
	for b.Loop() {
		for _, c := range turns {
			start := time.Now()
			if err := c.read(); err != nil {
				b.Fatal(err)
			}
			times[c.name] = append(times[c.name], time.Since(start))
		}
	}
	rate := map[string]float64{}
	for name, t := range times {
		slices.Sort(t)
		rate[name] = benchBytes / t[len(t)/2].Seconds()
		b.ReportMetric(rate[name]/1e6, name+"-MB/s")
	}
	b.ReportMetric(rate["read-back"]/min(rate["dd"], rate["hash"]), "x/slower_limit")
}

// compareDevice is the read-back of an install once everything was written, with six readers.
func compareDevice(b *testing.B, node string, m *bmap.Map) error {
	d, err := blockdev.OpenPath(node, 0, 0, blockdev.ReadOnly)
	if err != nil {
		return err
	}
	defer d.Close()
	bad, err := update.ReadBack{Map: m, Readers: 6}.Compare(b.Context(), d)
	if err == nil && len(bad) > 0 {
		err = bad[0].Err
	}
	return err
}

func engine(node, name string, data []byte) error {
	d, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
	if err != nil {
		return err
	}
	w, err := d.NewWriter(blockdev.WriterOptions{Engine: name})
	if err != nil {
		return err
	}
	const chunk = 512 << 10
	for off := int64(0); off < int64(len(data)); off += chunk {
		if _, err := w.WriteAt(data[off:off+chunk], off); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return w.Close()
}

// peakDirty samples the dirty pages and those under write-out of the machine, less those at the start, in bytes.
func peakDirty(done <-chan struct{}) (peak int64) {
	sample := func() (n int64) {
		text, _ := os.ReadFile("/proc/meminfo")
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && (f[0] == "Dirty:" || f[0] == "Writeback:") {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				n += kib << 10
			}
		}
		return n
	}
	first := sample()
	for {
		select {
		case <-done:
			return peak
		case <-time.After(2 * time.Millisecond):
			peak = max(peak, sample()-first)
		}
	}
}
