package install_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"updater/bmap"
	"updater/delta"
	"updater/install"
	"updater/internal/rig"
	"updater/pack"
	"updater/update"
)

// patchKit is a device that runs slot B with an old image, installed by this program, and a server with a new one in which everything moved.
type patchKit struct {
	*testing.T
	dir, web string

	mu   sync.Mutex
	sent map[string]int64 // bytes by file
}

func newPatchKit(t *testing.T) *patchKit {
	k := &patchKit{T: t, dir: t.TempDir(), sent: map[string]int64{}}
	rig.Fixtures(t, k.dir)
	rng := rand.New(rand.NewPCG(1, 2))
	old := make([]byte, 5<<20)
	for i := range old {
		old[i] = 'a' + byte(rng.IntN(16))
	}
	moved := bytes.Join([][]byte{old[200_001:300_001], []byte("inserted"), old}, nil)
	shifted := slices.Concat(old[:1<<20], moved[:40_960], old[1<<20:3<<20], bytes.ToUpper(old[3<<20:3<<20+100]), old[3<<20+100:])
	for name, data := range map[string][]byte{"old.img": old, "new.img": moved, "shifted.img": shifted} {
		if err := os.WriteFile(k.in(name), append(data, make([]byte, 5632<<10-len(data))...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old", "new", "shifted"} {
		k.run("bmap", "create", "--scan-zeros", "-o", k.in(name+".img.bmap"), k.in(name+".img"))
		k.run("pack", k.in(name+".img"))
		k.sh("gpg -q --batch -u release@example.com --armor --detach-sign " + name + ".img.bmap")
	}
	k.sh(`zstd -q new.img -o plain.img.zst; cp new.img.bmap plain.img.bmap; cp new.img.bmap.asc plain.img.bmap.asc`)
	for _, name := range []string{"new.img", "new.img.zst", "plain.img.zst"} {
		k.run("delta", "create", "--from", k.in("old.img"), k.in(name))
	}
	k.run("release", "create", "--product", "demo", "--version", "2", "-o", k.in("release.toml"), "rootfs="+k.in("new.img.zst"))
	k.sh("gpg -q --batch -u release@example.com --armor --detach-sign release.toml")
	config := "state = \"PARTLABEL=state\"\n" + strings.Replace(rig.Configs["grub"], "disk.img", "grub.img", 1)
	if err := os.WriteFile(k.in("delta.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	k.run("install", "--config", k.in("delta.toml"), k.in("old.img.zst"))
	k.run("mark", "good", "--config", k.in("delta.toml"), "--booted", "B")
	k.sh("cp grub.img ready.img; mkdir orig; cp *.delta orig")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Base(r.URL.Path)
		http.ServeFile(&byName{ResponseWriter: w, k: k, name: name}, r, k.in(name))
	}))
	t.Cleanup(server.Close)
	k.web = server.URL
	return k
}

type byName struct {
	http.ResponseWriter
	k    *patchKit
	name string
}

func (b *byName) Write(p []byte) (int, error) {
	b.k.mu.Lock()
	b.k.sent[b.name] += int64(len(p))
	b.k.mu.Unlock()
	return b.ResponseWriter.Write(p)
}

func (k *patchKit) in(name string) string { return filepath.Join(k.dir, name) }

func (k *patchKit) sh(script string) string {
	k.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir, cmd.Env = k.dir, append(os.Environ(), "GNUPGHOME="+k.in("gnupg"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (k *patchKit) run(args ...string) string {
	k.Helper()
	code, out, errs := rig.Run(k.T, args...)
	if code != 0 {
		k.Fatalf("%v: exit %d:\n%s%s", args, code, out, errs)
	}
	return out
}

// delta is the name of the delta of the packed image.
func (k *patchKit) delta() string {
	k.Helper()
	names, err := filepath.Glob(k.in("new.img.zst.*.delta"))
	if err != nil || len(names) != 1 {
		k.Fatal(names, err)
	}
	return names[0]
}

// craft replaces the delta of the packed image by one whose groups all begin with noise.
func (k *patchKit) craft() {
	k.Helper()
	table, err := install.ReadDelta(k.delta(), k.in("new.img.bmap"))
	if err != nil {
		k.Fatal(err)
	}
	ranges := func(name string) []pack.Range {
		data, err := os.ReadFile(k.in(name))
		if err != nil {
			k.Fatal(err)
		}
		m, err := bmap.Parse(data)
		if err != nil {
			k.Fatal(err)
		}
		return install.PackRanges(m)
	}
	old, _ := os.ReadFile(k.in("old.img"))
	content, _ := os.ReadFile(k.in("new.img"))
	for noise, at := rand.NewChaCha8([32]byte{}), 0; at < len(content); at += 512 << 10 {
		_, _ = noise.Read(content[at : at+100<<10])
	}
	out, err := os.Create(k.delta())
	if err != nil {
		k.Fatal(err)
	}
	defer out.Close()
	if _, err := delta.Write(k.Context(), out, delta.Images{Identity: table.Identity, Old: bytes.NewReader(old), New: bytes.NewReader(content),
		OldRanges: ranges("old.img.bmap"), NewRanges: ranges("new.img.bmap")}); err != nil {
		k.Fatal(err)
	}
}

// install installs an image into slot A, and returns how it was fetched.
func (k *patchKit) install(image string) update.Fetch {
	k.Helper()
	k.sent = map[string]int64{}
	out := k.run("install", "--json", "--config", k.in("delta.toml"), "--booted", "B", image)
	disk, err := os.ReadFile(k.in("grub.img"))
	if err != nil {
		k.Fatal(err)
	}
	name := "new.img"
	if strings.Contains(image, "shifted") {
		name = "shifted.img"
	}
	want, err := os.ReadFile(k.in(name))
	if err != nil {
		k.Fatal(err)
	}
	if at := rig.SlotOffset("grub", "A"); !bytes.Equal(disk[at:at+int64(len(want))], want) {
		k.Error("the slot does not hold the image")
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last struct {
		Result struct{ Fetch *update.Fetch }
	}
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			k.Fatalf("%v: %s", err, line)
		}
	}
	if last.Result.Fetch == nil {
		k.Fatalf("the result does not say how the image was fetched:\n%s", out)
	}
	return *last.Result.Fetch
}

// TestPatch installs with a delta against the running slot, sound and not, from a server and from a medium: the slot always holds the image.
func TestPatch(t *testing.T) {
	kit := newPatchKit(t)
	whole := func(name string) int64 {
		info, err := os.Stat(kit.in(name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	drift := fmt.Sprintf("printf x | dd of=grub.img bs=1 seek=%d conv=notrunc status=none", rig.SlotOffset("grub", "B")+2_000_000)
	const frame = `for f in *.delta; do printf '\xff\xff' | dd of=$f bs=1 seek=30 conv=notrunc status=none; done`
	for _, c := range []struct {
		name, image string // "" is the packed image on the server
		damage      string // script
		made        bool   // all of it is made of the delta
		crafted     bool   // the delta is a valid one to other content
		check       func(t *testing.T, f update.Fetch)
	}{
		{name: "sound", made: true},
		{name: "a plain zst", image: "http:plain.img.zst", made: true},
		{name: "a release", image: "http:release.toml", made: true},
		{name: "a release on a medium", image: "release.toml", made: true},
		{name: "a raw image", image: "http:new.img", made: true},
		{name: "a medium", image: "new.img.zst", made: true},
		{name: "no delta for this base", damage: `rm *.delta`, check: func(t *testing.T, f update.Fetch) {
			if f.Delta != nil {
				t.Errorf("delta %+v", f.Delta)
			}
		}},
		{name: "drift of the base", damage: drift,
			check: func(t *testing.T, f update.Fetch) {
				if f.Delta == nil || f.Delta.Spoiled == 0 || f.Delta.Spoiled > 2<<20 || f.Delta.Again != 0 {
					t.Errorf("delta %+v", f.Delta)
				}
			}},
		{name: "drift of the base, a plain zst", image: "http:plain.img.zst",
			damage: drift,
			check: func(t *testing.T, f update.Fetch) {
				if f.Parts || f.Delta == nil || f.Delta.Made != 0 || f.Delta.Reason == "" {
					t.Errorf("fetch %+v, delta %+v", f, f.Delta)
				}
			}},
		{name: "a damaged frame", damage: frame,
			check: func(t *testing.T, f update.Fetch) {
				if f.Delta == nil || f.Delta.Again == 0 || f.Delta.Again > 1<<20 {
					t.Errorf("delta %+v", f.Delta)
				}
			}},
		{name: "a damaged frame on a medium", image: "new.img.zst", damage: frame,
			check: func(t *testing.T, f update.Fetch) {
				if f.Delta == nil || f.Delta.Again == 0 {
					t.Errorf("delta %+v", f.Delta)
				}
			}},
		{name: "frames that make something else", crafted: true,
			check: func(t *testing.T, f update.Fetch) {
				got := kit.sent[filepath.Base(kit.delta())]
				if f.Delta == nil || f.Delta.Again < 2<<20 || got > f.Whole/20 || got+f.Bytes > f.Whole+f.Whole/20 {
					t.Errorf("%d bytes of the delta were fetched, and %d of the image, of %d: %+v", got, f.Bytes, f.Whole, f.Delta)
				}
			}},
		{name: "a damaged table", damage: `for f in *.delta; do s=$(stat -c %s $f); printf '\xff' | dd of=$f bs=1 seek=$((s-60)) conv=notrunc status=none; done`,
			check: func(t *testing.T, f update.Fetch) {
				if f.Delta != nil {
					t.Errorf("delta %+v", f.Delta)
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &patchKit{T: t, dir: kit.dir, web: kit.web, sent: map[string]int64{}}
			k.sh("cp ready.img grub.img; cp orig/*.delta .")
			k.sh(c.damage)
			if c.crafted {
				k.craft()
			}
			image, remote := strings.CutPrefix(c.image, "http:")
			switch {
			case c.image == "":
				image, remote = k.web+"/new.img.zst", true
			case remote:
				image = k.web + "/" + image
			default:
				image = k.in(image)
			}
			f := k.install(image)
			if c.check != nil {
				c.check(t, f)
			}
			kit.mu.Lock()
			defer kit.mu.Unlock()
			var sent int64
			for name, n := range kit.sent {
				if strings.HasPrefix(name, filepath.Base(image)) {
					sent += n
				}
			}
			if most := whole(strings.Replace(filepath.Base(image), "release.toml", "new.img.zst", 1)); remote && !c.crafted && sent > most+most/20+(128<<10) {
				t.Errorf("%d bytes were fetched of a file of %d", sent, most)
			}
			if c.made && (f.Delta == nil || f.Delta.Made+f.Held+f.Copied < 5<<20 || f.Delta.Again != 0 || f.Bytes != 0 || f.Delta.Bytes > 40<<10) {
				t.Errorf("fetch %+v, delta %+v", f, f.Delta)
			}
			kit.sent = map[string]int64{}
		})
	}
}

// reindex replaces the index of blocks of the shifted image.
func (k *patchKit) reindex(change func(sums []byte)) {
	k.Helper()
	file, err := os.ReadFile(k.in("shifted.img.zst"))
	if err != nil {
		k.Fatal(err)
	}
	frames, err := pack.ReadTable(bytes.NewReader(file), int64(len(file)), 1000)
	if err != nil {
		k.Fatal(err)
	}
	last := frames[len(frames)-1]
	change(file[last.At:][:last.Packed][12:])
	if err := os.WriteFile(k.in("shifted.img.zst"), file, 0o600); err != nil {
		k.Fatal(err)
	}
}

// TestMoved installs an image without a delta, most of whose blocks moved in the running slot. The slot holds the image whatever its index
// claims, and no more is fetched than the file and a twentieth.
func TestMoved(t *testing.T) {
	kit := newPatchKit(t)
	kit.sh("cp shifted.img.zst sound.zst")
	info, err := os.Stat(kit.in("sound.zst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		change  func(sums []byte)
		drift   bool
		cut     bool // the slot holds the beginning of the image
		made    bool
		again   bool
		fetched int64
	}{
		{name: "sound", change: func([]byte) {}, made: true, fetched: 250 << 10},
		{name: "drift of the base", change: func([]byte) {}, drift: true, made: true, fetched: 270 << 10},
		{name: "after a cut", change: func([]byte) {}, cut: true, made: true, fetched: 250 << 10},
		{name: "junk", change: func(sums []byte) { rand.NewChaCha8([32]byte{}).Read(sums) }},
		{name: "each block is another one", change: func(sums []byte) { copy(sums, slices.Concat(sums[5:], sums[:5])) }, made: true, again: true},
		{name: "every tenth block is another one", change: func(sums []byte) {
			for i := 0; i+100 < len(sums); i += 50 {
				copy(sums[i:i+5], sums[i+50:])
			}
		}, made: true, again: true},
		{name: "all blocks are one", change: func(sums []byte) { copy(sums, bytes.Repeat(sums[:5], len(sums)/5)) }, made: true, again: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &patchKit{T: t, dir: kit.dir, web: kit.web, sent: map[string]int64{}}
			k.sh("cp ready.img grub.img; cp sound.zst shifted.img.zst")
			k.reindex(c.change)
			if c.drift {
				k.sh(fmt.Sprintf("printf x | dd of=grub.img bs=1 seek=%d conv=notrunc status=none", rig.SlotOffset("grub", "B")+2_000_000))
			}
			if c.cut {
				k.sh(fmt.Sprintf("dd if=shifted.img of=grub.img bs=1M count=2 oflag=seek_bytes seek=%d conv=notrunc status=none", rig.SlotOffset("grub", "A")))
			}
			kit.mu.Lock()
			kit.sent = map[string]int64{}
			kit.mu.Unlock()
			f := k.install(k.web + "/shifted.img.zst")
			kit.mu.Lock()
			sent := kit.sent["shifted.img.zst"]
			kit.mu.Unlock()
			if most := cmp.Or(c.fetched, info.Size()+info.Size()/20+256<<10); sent > most {
				t.Errorf("%d bytes were fetched, expected at most %d of %d: %+v, %+v", sent, most, info.Size(), f, f.Delta)
			}
			if want := f.Whole - f.Bytes; f.Delta != nil && f.Saved != want-f.Delta.Bytes || f.Delta == nil && f.Saved != want || c.cut != (f.Held == 2<<20) {
				t.Errorf("saved %d bytes: %+v, %+v", f.Saved, f, f.Delta)
			}
			if d := f.Delta; c.made != (d != nil && d.Index && d.Made > 1<<20) || c.again != (d != nil && d.Again > 0) {
				t.Errorf("fetch %+v, moved %+v", f, f.Delta)
			}
			t.Logf("%d of %d bytes: %+v %+v", sent, info.Size(), f, f.Delta)
		})
	}
}
