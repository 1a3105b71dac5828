package security

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"updater/internal/rig"
)

// TestS01OneBuffer: the document is read once, and the hashed bytes are the ones that are parsed and written.
func TestS01OneBuffer(t *testing.T) {
	r := rig.New(t)
	// The server has the attacker's documents for every request but the first.
	r.Bmap("evil.bmap", []string{"other"}, "--version", "evil")
	var mu sync.Mutex
	asked := map[string]int{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		name := map[string]string{"/doc.bmap": "image.img.bmap", "/doc.sig": "image.sig"}[q.URL.Path]
		if asked[q.URL.Path]++; asked[q.URL.Path] > 1 {
			name = "evil.bmap" + strings.TrimPrefix(path.Ext(q.URL.Path), ".bmap")
		}
		http.ServeFile(w, q, r.Path(name))
	}))
	defer web.Close()
	r.Install(0, "slot B boots next", "--bmap", web.URL+"/doc.bmap", "--sig", web.URL+"/doc.sig", "image.img")
	if asked["/doc.bmap"] != 1 || asked["/doc.sig"] != 1 {
		t.Errorf("the documents were asked for %v times", asked)
	}
	r.Sh("cp --sparse=always disk.orig disk.img")

	// The image changes after it was verified.
	r.Expect(0, "the image matches", "verify", "--config", "config.toml", "image.img")
	r.Sh("printf x | dd of=image.img bs=1 seek=5000 conv=notrunc status=none")
	r.Install(10, "bmap says", "image.img")
	if got := r.Next(); got != "A" {
		t.Errorf("slot %s boots next", got)
	}
	offset := rig.SlotOffset("grub", "B") + 5000
	if disk := r.Read("disk.img"); disk[offset] == 'x' {
		t.Error("a byte that was not signed reached the slot")
	}
}

// TestS02Sizes: lengths around 2 and 4 GiB are those of the signed map.
func TestS02Sizes(t *testing.T) {
	r := rig.New(t)
	for _, size := range []int64{1<<31 - 1, 1<<31 + 1, 1<<32 - 1, 1<<32 + 1} {
		r.Sh(`rm -f large.img; truncate -s $0 large.img; printf begin | dd of=large.img conv=notrunc status=none
			printf e | dd of=large.img bs=1 seek=$(($0-1)) conv=notrunc status=none`, strconv.FormatInt(size, 10))
		r.Write("large.bmap", []byte(sparseBmap(size, "begin", "e")))
		r.Sign("large.bmap", rig.Release...)
		for _, harm := range []struct {
			name, script string
			codes        []int
		}{
			{"whole", `true`, []int{0}},
			{"its last byte", `printf E | dd of=large.img bs=1 seek=$(($0-1)) conv=notrunc status=none`, []int{10}},
			{"a byte more", `printf ex | dd of=large.img bs=1 seek=$(($0-1)) conv=notrunc status=none`, []int{10, 13}},
			{"a byte less", `truncate -s $(($0-1)) large.img`, []int{10, 13}},
		} {
			r.Sh(harm.script, strconv.FormatInt(size, 10))
			code, out, errs := r.Run("verify", "--config", "config.toml", "--bmap", "large.bmap", "large.img")
			if !slices.Contains(harm.codes, code) {
				t.Errorf("%d bytes, %s: exit %d; want one of %v:\n%s%s", size, harm.name, code, harm.codes, out, errs)
			}
		}
		r.Install(11, "does not fit slot B", "--bmap", "large.bmap", "image.img")
	}
}

// sparseBmap is the map of an image that begins and ends with some bytes and is a hole between.
func sparseBmap(size int64, begin, end string) string {
	last := (size - 1) / 4096
	first := make([]byte, 4096)
	copy(first, begin)
	tail := make([]byte, size-last*4096)
	copy(tail[len(tail)-len(end):], end)
	return rig.Resum(fmt.Sprintf(`<?xml version="1.0" ?>
<bmap version="2.0">
  <ImageSize> %d </ImageSize>
  <BlockSize> 4096 </BlockSize>
  <BlocksCount> %d </BlocksCount>
  <MappedBlocksCount> 2 </MappedBlocksCount>
  <ChecksumType> sha256 </ChecksumType>
  <BmapFileChecksum> %064d </BmapFileChecksum>
  <BlockMap>
    <Range chksum="%x"> 0 </Range>
    <Range chksum="%x"> %d </Range>
  </BlockMap>
</bmap>
`, size, last+1, 0, sha256.Sum256(first), sha256.Sum256(tail), last))
}

// linked lists the packages of the device's program.
func linked(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// TestS11NoArchives: an install reads no archive format, and hostile tables and environments are refused.
func TestS11NoArchives(t *testing.T) {
	for _, dep := range linked(t) {
		for _, no := range []string{"archive/", "/cpio", "/tar", "/zip", "/squashfs"} {
			if strings.Contains(dep+"/", no+"/") || strings.HasPrefix(dep, "archive/") {
				t.Errorf("%s is linked into the program", dep)
			}
		}
	}
	r := rig.New(t)
	for name, script := range map[string]string{
		"no partition table":       `dd if=/dev/urandom of=disk.img bs=1K count=34 conv=notrunc status=none; dd if=/dev/urandom of=disk.img bs=1K seek=$((48*1024-34)) count=34 conv=notrunc status=none`,
		"a partition past the end": `truncate -s 30M disk.img`,
		"no boot state":            `dd if=/dev/zero of=disk.img bs=1M seek=1 count=8 conv=notrunc status=none`,
		"noise as boot state":      `head -c 1024 /dev/urandom > e; mcopy -o -i disk.img@@1M e ::/grub/grubenv`,
	} {
		r.Sh("cp --sparse=always disk.orig disk.img; " + script)
		before := r.Read("disk.img")
		code, out, errs := r.Run("install", "--config", "config.toml", "image.img")
		if code == 0 || strings.Contains(out+errs, "panic") || !bytes.Equal(before, r.Read("disk.img")) {
			t.Errorf("%s: exit %d:\n%s%s", name, code, out, errs)
		}
	}
}

// TestS12HostileMaps: signed or not, a map that is not strictly one is refused, in little time and memory.
func TestS12HostileMaps(t *testing.T) {
	r := rig.New(t)
	for name, edit := range map[string]func(string) string{
		"DOCTYPE": func(s string) string { return strings.Replace(s, "<bmap", "<!DOCTYPE bmap>\n<bmap", 1) },
		"entities": func(s string) string {
			return strings.Replace(s, "<bmap", "<!DOCTYPE b [<!ENTITY a \"b\">]>\n<bmap", 1)
		},
		"an unknown version": func(s string) string { return strings.Replace(s, `version="2.0"`, `version="3.0"`, 1) },
		"past the image":     func(s string) string { return strings.Replace(s, " 2048 ", " 9048 ", 1) },
		"a negative size":    func(s string) string { return strings.Replace(s, "<ImageSize> ", "<ImageSize> -", 1) },
		"a huge size":        func(s string) string { return strings.Replace(s, "<ImageSize> ", "<ImageSize> 99999999999", 1) },
		"another count":      func(s string) string { return strings.Replace(s, "<MappedBlocksCount> ", "<MappedBlocksCount> 1", 1) },
		"two sizes": func(s string) string {
			return strings.Replace(s, "<BlockSize>", "<ImageSize> 4096 </ImageSize>\n<BlockSize>", 1)
		},
		"depth": func(s string) string {
			return strings.Replace(s, "<BlockMap>", strings.Repeat("<a>", 100000)+"<BlockMap>", 1)
		},
		"something after it": func(s string) string { return s + "<bmap/>" },
	} {
		r.Edited("x.bmap", edit)
		start := time.Now()
		r.Refused(1, "bmap", "--bmap", "x.bmap", "image.img")
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%s: refused after %s", name, d)
		}
	}
	r.Sh(`truncate -s 65M x.bmap`)
	r.Refused(1, "longer than", "--bmap", "x.bmap", "image.img")
}

// TestS13NothingUnverifiedStays: a refused install leaves no file behind, anywhere it may write.
func TestS13NothingUnverifiedStays(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "memory"`, "")
	r.Sh("mkdir tmp home; head -c 65536 /dev/zero > memory")
	r.Env = append(r.Env, "TMPDIR="+r.Path("tmp"), "HOME="+r.Path("home"), "XDG_CACHE_HOME="+r.Path("home"))
	r.Bmap("old.bmap", rig.Release, "--expires", "2020-01-01T00:00:00Z")
	before := r.Files()
	for _, args := range [][]string{{"--sig", "other.sig", "image.img"}, {"--bmap", "old.bmap", "image.img"}, {"--sig", "image.img.bmap", "image.img"}} {
		if code, _, _ := r.Run(append([]string{"install", "--config", "config.toml"}, args...)...); code == 0 {
			t.Errorf("install %v succeeded", args)
		}
		if after := r.Files(); strings.Join(after, "\n") != strings.Join(before, "\n") {
			t.Errorf("install %v changed files:\nbefore %v\nafter %v", args, before, after)
		}
	}
}

// TestS15NoPatches: there is no interpreter for binary patches, and no bytes come from an address that is not hashed.
func TestS15NoPatches(t *testing.T) {
	for _, dep := range linked(t) {
		for _, no := range []string{"bsdiff", "bspatch", "xdelta", "vcdiff", "rsync", "librsync", "puffin"} {
			if strings.Contains(strings.ToLower(dep), no) {
				t.Errorf("%s is linked into the program", dep)
			}
		}
	}
}

// TestS16Bombs: output is bounded by the signed lengths, memory by caps on the codecs' windows.
func TestS16Bombs(t *testing.T) {
	r := rig.New(t)
	for _, tool := range []string{"zstd", "xz", "gzip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	r.Sh(`head -c 300M /dev/zero > zeros; gzip -1 < zeros > bomb.gz; zstd -q < zeros > bomb.zst; rm zeros`)
	// One raw block in a frame with a window of 2 GiB (RFC 8878 section 3.1.1).
	r.Write("window.zst", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 4096 << 3 & 0xff, 4096 >> 5, 4096 >> 13}, make([]byte, 4096)...))
	for _, tc := range []struct {
		image string
		codes []int
	}{
		{"bomb.gz", []int{10, 13}},
		{"bomb.zst", []int{10, 13}},
		{"window.zst", []int{10, 13}},
	} {
		// A program that needs more memory than this does not fail as it should. With cgo, each thread has a stack of ulimit -s in it.
		cmd := exec.Command("bash", "-c", `ulimit -s 1024; ulimit -d 131072; exec updater install --config config.toml --bmap image.img.bmap "$0"`, tc.image)
		cmd.Dir, cmd.Env = r.Dir, r.Env
		out, _ := cmd.CombinedOutput()
		code := cmd.ProcessState.ExitCode()
		if code != tc.codes[0] && code != tc.codes[1] || r.Next() != "A" {
			t.Errorf("%s: exit %d, slot %s boots next:\n%s", tc.image, code, r.Next(), out)
		}
	}
}

// droppingWriter drops the connection behind its first bytes.
type droppingWriter struct {
	http.ResponseWriter
	left int
}

func (w *droppingWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	n, err := w.ResponseWriter.Write(p[:n])
	if w.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// TestS17TransportIsNotTrusted: a slot is activated only with the signed image, for any answer of a server.
func TestS17TransportIsNotTrusted(t *testing.T) {
	r := rig.New(t)
	image := r.Read("image.img")
	flipped, late := bytes.Clone(image), bytes.Clone(image)
	flipped[100] ^= 1
	late[700*4096+100] ^= 1 // behind where the connection drops
	var answer func(w http.ResponseWriter, q *http.Request)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if name := filepath.Base(q.URL.Path); name != "image.img" {
			http.ServeFile(w, q, r.Path(name))
			return
		}
		answer(w, q)
	}))
	defer web.Close()
	full := func(data []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data)
		}
	}
	// cut serves a first look correctly, then drops the connection behind a MiB; the rest is asked for anew.
	cut := func(then func(w http.ResponseWriter, q *http.Request)) func(http.ResponseWriter, *http.Request) {
		dropped := false
		return func(w http.ResponseWriter, q *http.Request) {
			if dropped {
				then(w, q)
				return
			}
			w.Header().Set("ETag", `"one"`)
			if asked := q.Header.Get("Range"); asked == "" || strings.HasSuffix(asked, "-") {
				dropped = true
				w = &droppingWriter{ResponseWriter: w, left: 1 << 20}
			}
			http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(image))
		}
	}
	// part answers with the rest from an offset; -1 is the one that was asked for.
	part := func(data []byte, tag string, from int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, q *http.Request) {
			from := from
			if from < 0 {
				if _, err := fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &from); err != nil {
					t.Error(err)
				}
			}
			w.Header().Set("ETag", tag)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[from:])
		}
	}
	r.Configure("", "\n[source]\ngive_up = \"1s\"\nstall_timeout = \"2s\"\n")
	r.Sh("cp --sparse=always disk.img disk.orig")
	fresh := func() { r.Sh("cp --sparse=always disk.orig disk.img") } // without the ranges that the last run has written
	for name, a := range map[string]func(http.ResponseWriter, *http.Request){
		"a changed byte":                full(flipped),
		"truncated":                     full(image[:len(image)-4096]),
		"a byte too long":               full(append(bytes.Clone(image), 0)),
		"cut for ever":                  cut(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"the wrong range":               cut(part(image, `"one"`, 1<<19)),
		"the range of another file":     cut(part(late, `"two"`, -1)),
		"the whole of another, not 206": cut(full(late)),
		"an error":                      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"a sign-in page in its place":   full([]byte("<html>please sign in</html>")),
	} {
		answer = a
		fresh()
		code, out, errs := r.Run("install", "--config", "config.toml", web.URL+"/image.img")
		if next := r.Next(); code == 0 || next != "A" {
			t.Errorf("%s: exit %d, slot %s boots next:\n%s%s", name, code, next, out, errs)
		}
		t.Logf("%s: exit %d", name, code)
	}
	for name, a := range map[string]func(http.ResponseWriter, *http.Request){
		"resumed":                       cut(part(image, `"one"`, -1)),
		"resumed from a node beside it": cut(part(image, `"two"`, -1)),
		"called compressed, but not": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(image)
		},
	} {
		answer = a
		fresh()
		if code, out, errs := r.Run("install", "--config", "config.toml", web.URL+"/image.img"); code != 0 || r.Next() != "B" {
			t.Errorf("%s: exit %d:\n%s%s", name, code, out, errs)
		}
		at := rig.SlotOffset("grub", "B")
		if !bytes.Equal(r.Read("disk.img")[at:at+int64(len(image))], image) {
			t.Errorf("%s: the slot does not hold the image", name)
		}
	}
}
