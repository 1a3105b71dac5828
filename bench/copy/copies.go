package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"updater/bmap"
)

// forms are the compressed forms of an image.
var forms = map[string]struct{ ending, tool, script string }{
	"raw":     {"", "", ""},
	"gz":      {".gz", "gzip", `gzip -6 -c "$1"`},
	"zst3":    {".3.zst", "zstd", `zstd -q -3 -c "$1"`},
	"zst19":   {".19.zst", "zstd", `zstd -q -19 -T0 -c "$1"`},
	"packed":  {".packed.zst", "", ""},
	"lz4":     {".lz4", "lz4", `lz4 -q -c "$1"`},
	"xz":      {".xz", "xz", `xz -6 -T1 -c "$1"`},
	"xzmulti": {".multi.xz", "xz", `xz -6 -T2 -c "$1"`},
}

// job is one measured command.
type job struct {
	name string
	argv []string
	runs []sample
}

type sample struct {
	wall, cpu float64 // seconds
	rss       int64   // KiB
	memory    []int64 // pages that were resident, every 20 ms
}

// copies measures copying to a partition.
func (b *bench) copies(tar string) error {
	img, err := b.image(tar, "root.img")
	if err != nil {
		return err
	}
	if err := b.run(b.updater, "bmap", "create", "-o", img+".bmap", img); err != nil {
		return err
	}
	m, err := readMap(img + ".bmap")
	if err != nil {
		return err
	}
	loop, done, err := b.partition(m.ImageSize())
	if err != nil {
		return err
	}
	defer done()
	fmt.Printf("Image: %d MiB, %d MiB mapped in %d ranges; target: %s; median of %d runs in turns.\n\n", m.ImageSize()>>20, m.MappedBytes()>>20, m.Len(),
		map[bool]string{false: "a partition in memory", true: "a partition of 40 MB/s"}[b.slow], b.runs)
	fmt.Println("| form | command | MB/s of mapped data | of bmaptool | wall s | CPU s | RSS MiB |\n|---|---|--:|--:|--:|--:|--:|")
	memory := []string{"\n| form, read back | 0 | 10 | 20 | 30 | 40 | 50 | 60 | 70 | 80 | 90 | 100 % of the time |\n|---" + strings.Repeat("|--:", 11)}
	for _, form := range b.forms {
		jobs, err := b.jobs(form, img, loop, m)
		if err != nil {
			return err
		}
		for i := range b.runs {
			for j := range jobs {
				if err := b.measure(&jobs[(i+j)%len(jobs)]); err != nil {
					return err
				}
			}
		}
		b.print(form, jobs, m.MappedBytes())
		for _, j := range jobs {
			if j.name == readBack {
				memory = append(memory, "| "+form+" "+tenths(j.runs[0].memory))
			}
		}
	}
	fmt.Println(strings.Join(memory, "|\n") + "|")
	return nil
}

// readBack is the copy whose memory is shown over time.
const readBack = "updater bmap copy, read back"

// tenths prints the MiB at each tenth of the time.
func tenths(pages []int64) string {
	var row strings.Builder
	for i := range int64(11) {
		fmt.Fprintf(&row, "| %d ", pages[i*int64(len(pages)-1)/10]*int64(os.Getpagesize())>>20)
	}
	return row.String()
}

// watch samples the resident pages of a process until it ends; the first sample is 0.
func watch(pid int) []int64 {
	pages := []int64{0}
	for {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // absent, or all 0, behind the end
		var size, resident int64
		_, _ = fmt.Sscan(string(text), &size, &resident)
		if resident == 0 {
			return pages
		}
		pages = append(pages, resident)
		time.Sleep(20 * time.Millisecond)
	}
}

// jobs returns the commands for a form, first the peer that counts as 1.
func (b *bench) jobs(form, img, loop string, m *bmap.Map) ([]job, error) {
	f, ok := forms[form]
	if !ok {
		return nil, fmt.Errorf("form %q is not known", form)
	}
	file := img + f.ending
	if _, err := os.Stat(file); err != nil {
		make := b.sh
		if form == "packed" {
			err = b.run(b.updater, "pack", "-o", file, img)
		} else {
			err = make(f.script+` > "$2.part"; mv "$2.part" "$2"`, img, file)
		}
		if err != nil {
			return nil, err
		}
	}
	copy := []string{b.updater, "bmap", "copy", "--allow-unsigned", "--rewrite", "--unmapped", "keep", "--bmap", img + ".bmap"}
	var jobs []job
	add := func(tool, name string, argv ...string) {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is not installed; left out: %s\n", tool, name)
			return
		}
		jobs = append(jobs, job{name: name, argv: argv})
	}
	add("bmaptool", "bmaptool copy", "bmaptool", "-q", "copy", "--no-sig-verify", "--bmap", img+".bmap", file, loop)
	add(b.updater, "updater bmap copy --no-read-back", append(copy, "--no-read-back", file, loop)...)
	add(b.updater, readBack, append(copy, file, loop)...)
	if b.slow {
		return jobs, nil
	}
	switch form {
	case "raw":
		mapped, err := b.mapped(img, m)
		if err != nil {
			return nil, err
		}
		add("dd", "dd of the mapped bytes, direct, fsync", "dd", "if="+mapped, "of="+loop, "bs=4M", "oflag=direct", "conv=fsync", "status=none")
		count := fmt.Sprintf("count=%d", m.MappedBytes()>>22)
		add("dd", "dd of as many bytes, direct, reading alone", "dd", "if="+loop, "of=/dev/null", "bs=4M", "iflag=direct", count, "status=none")
		add(b.updater, "updater bmap verify, reading and hashing alone", "bash", "-euc", `"$0" bmap verify "$1" "$2" || [ $? = 14 ]`,
			b.updater, img+".bmap", loop) // dd has written something else
		add("sha256sum", "sha256sum of the mapped bytes", "sha256sum", mapped)
	case "packed":
		plain := img + forms["zst3"].ending
		if _, err := os.Stat(plain); err == nil {
			add(b.updater, "updater, plain zst -3, --no-read-back", append(copy, "--no-read-back", plain, loop)...)
		}
	}
	if err := b.updaters(form, file, loop, add); err != nil {
		return nil, err
	}
	if f.tool != "" {
		add(f.tool, f.tool+" -dc to dd, direct (whole image)", "bash", "-euc", f.tool+` -dc "$1" | dd of="$2" bs=4M iflag=fullblock oflag=direct conv=fsync status=none`, "bench", file, loop)
	}
	return jobs, nil
}

// mapped writes the mapped bytes of an image without the holes.
func (b *bench) mapped(img string, m *bmap.Map) (string, error) {
	path := filepath.Join(b.dir, "mapped")
	in, err := os.Open(img)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	for _, r := range m.Ranges() {
		buf := make([]byte, r.Length)
		if _, err := in.ReadAt(buf, r.Offset); err != nil {
			return "", err
		}
		if _, err := out.Write(buf); err != nil {
			return "", err
		}
	}
	return path, out.Sync()
}

// partition makes the target: the partition of a loop device in memory, with all its blocks allocated.
func (b *bench) partition(size int64) (node string, done func(), err error) {
	dir, err := os.MkdirTemp("/dev/shm", "updater-bench")
	if err != nil {
		return "", nil, err
	}
	undo := []func(){func() { _ = os.RemoveAll(dir) }}
	done = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	disk, size := filepath.Join(dir, "disk"), size+2<<20
	if err := b.sh(`head -c "$2" /dev/zero >"$1"; sgdisk -n 1:2048:0 "$1" >/dev/null`, disk, fmt.Sprint(size)); err != nil {
		return "", nil, err
	}
	if b.slow {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		if err != nil {
			return "", nil, err
		}
		at := filepath.Join(dir, "slow")
		if err = os.Mkdir(at, 0o700); err != nil {
			return "", nil, err
		}
		unmount, err := mountSlow(f, size, at)
		if err != nil {
			return "", nil, err
		}
		disk, undo = filepath.Join(at, "disk"), append(undo, unmount)
	}
	out, err := exec.CommandContext(b.ctx, "losetup", "--direct-io=on", "-P", "-f", "--show", disk).Output()
	if err != nil {
		return "", nil, fmt.Errorf("losetup: %w", err)
	}
	loop := strings.TrimSpace(string(out))
	undo = append(undo, func() { _ = exec.Command("losetup", "-d", loop).Run() })
	for name, value := range map[string]string{"strict_limit": "0", "max_ratio": "100"} { // a killed program may have left other values
		_ = os.WriteFile(filepath.Join("/sys/block", filepath.Base(loop), "bdi", name), []byte(value), 0)
	}
	_ = b.run("partx", "-a", loop) // where the kernel has not found it already
	_, err = os.Stat(loop + "p1")
	return loop + "p1", done, err
}

func (b *bench) run(argv ...string) error {
	if out, err := exec.CommandContext(b.ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}

// measure runs a command once.
func (b *bench) measure(j *job) error {
	cmd := exec.CommandContext(b.ctx, j.argv[0], j.argv[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	memory := make(chan []int64, 1)
	go func() { memory <- watch(cmd.Process.Pid) }()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%v: %w: %s", j.argv, err, errs.String())
	}
	s := sample{memory: <-memory, wall: time.Since(start).Seconds(), cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = u.Maxrss
	}
	j.runs = append(j.runs, s)
	return nil
}

func (b *bench) print(form string, jobs []job, mapped int64) {
	one := 0.0
	for _, j := range jobs {
		wall := median(j.runs, func(s sample) float64 { return s.wall })
		if j.name == "bmaptool copy" {
			one = wall
		}
		ratio := "-"
		if one > 0 {
			ratio = fmt.Sprintf("%.2f", one/wall)
		}
		fmt.Printf("| %s | %s | %.0f | %s | %.2f | %.2f | %.0f |\n", form, j.name, float64(mapped)/1e6/wall, ratio, wall,
			median(j.runs, func(s sample) float64 { return s.cpu }), median(j.runs, func(s sample) float64 { return float64(s.rss) / 1024 }))
	}
}

func median(runs []sample, of func(sample) float64) float64 {
	values := make([]float64, len(runs))
	for i, r := range runs {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
