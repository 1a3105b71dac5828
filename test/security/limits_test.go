package security

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"updater/internal/rig"
	"updater/pack"
)

// The budget for handling unsigned input.
const (
	peakMemory = 48 << 10 // KiB resident
	// KiB of private writable memory; Go's runtime reserves more addresses than that when it starts. 32 MiB are the entropy source's buffer of
	// Go's FIPS mode (crypto/internal/fips140/drbg), which counts here and is never touched.
	dataLimit  = (96 + 32) << 10
	cpuSeconds = 5
)

// limited runs the program within the budget and fails the test if it does not end by itself.
func limited(r *rig.Rig, args ...string) (code int, out string) {
	r.Helper()
	script := fmt.Sprintf(`ulimit -s 1024; ulimit -d %d; ulimit -t %d; exec "$0" "$@"`, dataLimit, cpuSeconds)
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"bash", "-c", script, "updater"}, args...)...)
	cmd.Dir, cmd.Env = r.Dir, append(r.Env, measured+"="+r.Path("peak"))
	text, err := cmd.CombinedOutput()
	code, name := cmd.ProcessState.ExitCode(), strings.Join(args, " ")
	if code < 0 || code > 100 || code == 2 && bytes.Contains(text, []byte("goroutine")) {
		r.Errorf("%s: %v:\n%.2000s", name, err, text)
	}
	var peak int64
	if _, err := fmt.Sscan(string(r.Read("peak")), &peak); err != nil || peak > peakMemory {
		r.Errorf("%s: peak memory of %d KiB, %v; want at most %d", name, peak, err, peakMemory)
	}
	r.Logf("%s: exit %d, %d KiB", name, code, peak)
	return code, string(text)
}

// measured is the variable that makes this program run its arguments and write their peak memory in KiB to a file. A process begins with
// the peak of the one that it was forked from, so the parent must be small.
const measured = "UPDATER_TEST_PEAK"

func measure(file string) int {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		return 127
	}
	peak := fmt.Sprint(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	if err := os.WriteFile(file, []byte(peak), 0o600); err != nil {
		return 127
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 126
}

// claims is a signature that names a trusted key and is over another document.
func claims(r *rig.Rig) []byte { return r.Read("image.sig") }

// TestUnsignedDocuments: a document without a trusted signature costs little, for any size and any claim of its signature.
func TestUnsignedDocuments(t *testing.T) {
	r := rig.New(t)
	const huge = 64 << 20
	foreign, trusted := r.Read("other.asc"), claims(r)
	armor := string(r.Read("image.img.bmap.asc"))
	comment := func(n int) []byte {
		return []byte("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n<!-- " + strings.Repeat("x", n) + " -->")
	}
	clear := func(body string) []byte {
		return []byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + body + armor)
	}
	toml := func(kind string, n int) []byte {
		return []byte("type = \"" + kind + "\"\n" + strings.Repeat("#x\n", n/3))
	}
	for _, tc := range []struct {
		name     string
		doc, sig []byte
		args     []string
	}{
		{"huge-foreign", comment(huge - 100), foreign, nil},
		{"huge-claimed", comment(huge - 100), trusted, nil},
		{"claimed", comment(4<<20 - 100), trusted, nil},
		{"depth-claimed", []byte(strings.Repeat("<a>", 1<<20)), trusted, nil},
		{"clear-huge", clear(strings.Repeat("<x>"+strings.Repeat("y", 60)+"</x>\n", huge/68)), nil, nil},
		{"clear", clear(strings.Repeat("<x>"+strings.Repeat("y", 60)+"</x>\n", 4<<20/68)), nil, nil},
		{"clear-lines", clear(strings.Repeat("\n", 4<<20)), nil, nil},
		{"clear-dashes", clear(strings.Repeat("- -\n", 1<<20)), nil, nil},
		{"clear-headers", []byte("-----BEGIN PGP SIGNED MESSAGE-----\n" + strings.Repeat("Hash: SHA512\n", 300<<10)), nil, nil},
		{"signature-huge", comment(100), bytes.Repeat([]byte{0x88}, huge), nil},
		{"signature-armor", comment(100), []byte("-----BEGIN PGP SIGNATURE-----\n\n" + strings.Repeat("iHUEABYIAB0WIQSrQ6dtMW6t66Xu\n", 2000)), nil},
		{"release-huge", toml("release", huge), trusted, []string{"release", "verify", "doc"}},
		{"release", toml("release", 1<<20-100), trusted, []string{"release", "verify", "doc"}},
		{"channel-huge", toml("channel", huge), trusted, []string{"channel", "verify", "--config", "config.toml", "--file", "doc"}},
		{"channel-clear", clear(string(toml("channel", 1<<20-100))), nil, []string{"channel", "verify", "--config", "config.toml", "--file", "doc"}},
	} {
		r.Sh("rm -f doc doc.asc doc.sig")
		r.Write("doc", tc.doc)
		args := tc.args
		if args == nil {
			args = []string{"verify", "--bmap", "doc"}
		}
		if tc.sig != nil {
			r.Write("doc.sig", tc.sig)
		}
		t.Log(tc.name)
		want := 10
		if len(tc.sig) > 64<<10 || len(tc.doc) > 5<<20 && tc.args == nil && !strings.HasSuffix(tc.name, "foreign") {
			want = 1
		}
		if code, out := limited(r, append(args, "--keyring", "keys")...); code != want {
			t.Errorf("%s: exit %d; want %d:\n%.500s", tc.name, code, want, out)
		}
	}
}

// TestUnsignedFiles: nor do the other files that are read before, or without, a check of a signature.
func TestUnsignedFiles(t *testing.T) {
	r := rig.New(t)
	const huge = 16 << 20
	member := func(h tar.Header, n int) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Size, h.Mode = int64(n), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(bytes.Repeat([]byte("#"), n))
		_ = w.Flush()
		return b.Bytes()
	}
	folders := bytes.Repeat(member(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, 0), 100_000)
	nested := []byte("type = \"release\"\n" + strings.Repeat("["+strings.Repeat("a.", 2000)+"a]\n", 200))
	tables := []byte("type = \"channel\"\n" + strings.Repeat("[[release]]\n", 1<<20/12-2))
	arrays := []byte("type = \"keyring\"\nx = " + strings.Repeat("[", 1<<20-100))
	ranges := []byte("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n<ImageSize> 4096 </ImageSize><BlockSize> 4096 </BlockSize><BlocksCount> 1 </BlocksCount>" +
		"<MappedBlocksCount> 1 </MappedBlocksCount><BlockMap>" + strings.Repeat("<Range> 0 </Range>\n", 4<<20/19-20))
	delta := make([]byte, huge)
	copy(delta[huge-16:], "\xff\xff\xff\x7f\x00\x00\x00\x00\x01\x00\x00\x00DLTA")
	certificates := bytes.Repeat(slices.Concat([]byte{0xcd, 100}, make([]byte, 100)), 10_000)
	r.Write("doc.sig", claims(r))
	for _, tc := range []struct {
		name string
		file []byte
		args []string
	}{
		{"tar, endless document", member(tar.Header{Name: "release.toml"}, huge), []string{"install", "--config", "config.toml", "FILE.tar"}},
		{"tar, folders", folders, []string{"install", "--config", "config.toml", "FILE.tar"}},
		{"tar, long name", member(tar.Header{Name: "release.toml", PAXRecords: map[string]string{"comment": strings.Repeat("x", 900<<10)}}, 0),
			[]string{"install", "--config", "config.toml", "FILE.tar"}},
		{"tar, junk", bytes.Repeat([]byte{'L'}, huge), []string{"install", "--config", "config.toml", "FILE.tar"}},
		{"keyring, huge", bytes.Repeat([]byte("#x\n"), huge/3), []string{"keyring", "install", "--config", "config.toml", "FILE"}},
		{"keyring, arrays", arrays, []string{"keyring", "info", "FILE"}},
		{"release, nested", nested, []string{"release", "info", "FILE"}},
		{"channel, tables", tables, []string{"channel", "info", "--file", "FILE"}},
		{"bmap, ranges", ranges, []string{"bmap", "info", "FILE"}},
		{"delta, table", delta, []string{"delta", "info", "--bmap", "image.img.bmap", "FILE"}},
		{"plan, huge", bytes.Repeat([]byte("#x\n"), huge/3), []string{"provision", "--plan", "FILE", "--target", "disk.img"}},
		{"plan, signed", nested, []string{"provision", "--plan", "FILE", "--config", "config.toml", "--target", "disk.img"}},
		{"certificates", certificates, []string{"verify", "--bmap", "image.img.bmap", "--keyring", "FILE"}},
		{"certificates, huge", bytes.Repeat(certificates, 64), []string{"verify", "--bmap", "image.img.bmap", "--keyring", "FILE"}},
	} {
		r.Write("doc", tc.file)
		r.Write("doc.tar", tc.file)
		for i, a := range tc.args {
			tc.args[i] = strings.Replace(a, "FILE", "doc", 1)
		}
		if code, out := limited(r, tc.args...); code == 0 || code > 13 {
			t.Errorf("%s: exit %d; want a refusal:\n%.500s", tc.name, code, out)
		} else {
			t.Logf("%s: %.200s", tc.name, out)
		}
	}
	r.Pristine()
}

// TestHostileMedia: a partition table and a file system that lie about their size, or whose chains are loops, end in an error.
func TestHostileMedia(t *testing.T) {
	r := rig.New(t)
	disk := r.Read("disk.orig")
	sealed := func(change func(header []byte)) func(b []byte) {
		return func(b []byte) {
			for _, h := range [][]byte{b[512:604], b[len(b)-512 : len(b)-512+92]} {
				change(h)
				clear(h[16:20])
				binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
			}
		}
	}
	for name, change := range map[string]func(b []byte){
		"GPT, 2 GiB of entries":    sealed(func(h []byte) { binary.LittleEndian.PutUint32(h[80:], 1<<24) }),
		"GPT, entries of 2 GiB":    sealed(func(h []byte) { binary.LittleEndian.PutUint32(h[84:], 1<<31) }),
		"GPT, no entries":          sealed(func(h []byte) { binary.LittleEndian.PutUint32(h[80:], 0) }),
		"GPT, entries at the end":  sealed(func(h []byte) { binary.LittleEndian.PutUint64(h[72:], 1<<63) }),
		"FAT, every chain a loop":  func(b []byte) { loops(b[1<<20:]) },
		"FAT, no sectors":          func(b []byte) { clear(b[1<<20+11 : 1<<20+13]) },
		"FAT, a table of 4 GiB":    func(b []byte) { clear(b[1<<20+22 : 1<<20+24]); copy(b[1<<20+36:], "\xff\xff\xff\x7f") },
		"FAT, 65,535 root entries": func(b []byte) { copy(b[1<<20+17:], "\xff\xff") },
	} {
		b := bytes.Clone(disk)
		change(b)
		r.Write("disk.img", b)
		for _, args := range [][]string{{"status"}, {"doctor"}, {"install", "image.img"}, {"mark", "good"}} {
			if code, out := limited(r, append(args, "--config", "config.toml")...); code == 0 && args[0] != "doctor" && !strings.Contains(name, "root entries") {
				t.Errorf("%s, %s: exit 0:\n%.500s", name, args[0], out)
			}
		}
	}
}

// loops makes each cluster of a FAT16 file system the next one of itself.
func loops(b []byte) {
	sector := int(binary.LittleEndian.Uint16(b[11:]))
	reserved, size := int(binary.LittleEndian.Uint16(b[14:])), int(binary.LittleEndian.Uint16(b[22:]))
	for i := range int(b[16]) * size * sector / 2 {
		binary.LittleEndian.PutUint16(b[reserved*sector+2*i:], uint16(i%(size*sector/2)))
	}
}

// TestUnsignedAnswers: an unknown issuer ends a request before the map is asked for, and no answer of a server is unbounded.
func TestUnsignedAnswers(t *testing.T) {
	r := rig.New(t)
	var asked []string
	endless := func(w http.ResponseWriter, begin string) {
		_, _ = w.Write([]byte(begin))
		for block := bytes.Repeat([]byte("x"), 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked = append(asked, q.URL.Path)
		switch q.URL.Path {
		case "/foreign.asc":
			_, _ = w.Write(r.Read("other.asc"))
		case "/claimed.sig":
			_, _ = w.Write(claims(r))
		case "/foreign", "/claimed":
			endless(w, "<bmap>")
		case "/bomb.sig":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"))
			endless(w, "")
		case "/headers.asc":
			for i := range 2000 {
				w.Header().Add(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		case "/loop.asc":
			http.Redirect(w, q, "/loop.asc", http.StatusFound)
		default:
			http.NotFound(w, q)
		}
	}))
	defer web.Close()
	r.Configure("", "[source]\ngive_up = \"1s\"\nstall_timeout = \"1s\"\n")
	for name, want := range map[string]int{"foreign": 10, "claimed": 13, "bomb": 13, "headers": 13, "loop": 13} {
		asked = nil
		code, out := limited(r, "install", "--config", "config.toml", "--bmap", web.URL+"/"+name, "image.img")
		if code != want {
			t.Errorf("%s: exit %d; want %d:\n%.500s", name, code, want, out)
		}
		if name == "foreign" && strings.Join(asked, " ") != "/foreign.asc" {
			t.Errorf("asked for %v; want the signature alone", asked)
		}
	}
	r.Pristine()
}

// seekTable is a zstd file whose seek table has n frames of a byte.
func seekTable(first []byte, n int) []byte {
	out := append(bytes.Clone(first), make([]byte, max(0, n-len(first)))...)
	put := func(v uint32) { out = binary.LittleEndian.AppendUint32(out, v) }
	put(0x184D2A5E)
	put(uint32(n*8 + 9))
	for range n {
		put(1)
		put(1)
	}
	put(uint32(n))
	out = append(out, 0)
	put(0x8F92EAB1)
	return out
}

// TestUnsignedImages: a container costs no more than the map that was signed for it, from a file and from a server.
func TestUnsignedImages(t *testing.T) {
	r := rig.New(t)
	r.Sh("zstd -q -f image.img -o one.zst; xz -k -9 --stdout image.img > nine.xz; gzip -k -1 image.img; head -c 400M /dev/zero | zstd -q > bomb.zst")
	r.Write("table.zst", seekTable(r.Read("one.zst"), 8<<20))
	r.Write("window.zst", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 4096 << 3 & 0xff, 4096 >> 5, 4096 >> 13}, make([]byte, 4096)...))
	r.Write("skips.zst", bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 1<<20))
	r.Write("blocks.lz4", append([]byte{4, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73}, bytes.Repeat([]byte{0xff, 0xff, 0x3f, 0}, 1<<10)...))
	web := httptest.NewServer(http.FileServer(http.Dir(r.Dir)))
	defer web.Close()
	for _, image := range []string{"table.zst", "window.zst", "skips.zst", "blocks.lz4", "nine.xz", "bomb.zst"} {
		for _, from := range []string{"", web.URL + "/"} {
			r.Sh("cp --sparse=always disk.orig disk.img")
			code, out := limited(r, "install", "--config", "config.toml", "--bmap", "image.img.bmap", from+image)
			if code == 0 || code > 13 {
				t.Errorf("%s: exit %d; want a refusal:\n%.500s", from+image, code, out)
			}
			if next := r.Next(); next != "A" {
				t.Errorf("%s: slot %s boots next", image, next)
			}
		}
	}
}

// TestHostileIndex: an index of blocks that is junk, or far too long, costs no more than the map allows, and the genuine image is installed.
func TestHostileIndex(t *testing.T) {
	r := rig.New(t)
	r.Sh("head -c 6M /dev/urandom > large.img")
	r.Expect(0, "packed", "pack", "large.img")
	r.Sign("large.img.bmap", rig.Release...)
	good := r.Read("large.img.zst")
	frames, err := pack.ReadTable(bytes.NewReader(good), int64(len(good)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	n := len(frames)
	last, table := frames[n-1], good[frames[n-1].At+frames[n-1].Packed:]
	web := httptest.NewServer(http.FileServer(http.Dir(r.Dir)))
	defer web.Close()
	for name, index := range map[string][]byte{
		"genuine": good[last.At:][:last.Packed], "junk": slices.Concat(good[last.At:][:12], bytes.Repeat([]byte("junk"), int(last.Packed-12)/4+1)[:last.Packed-12]),
		"another version": slices.Concat(good[last.At:][:8], bytes.Repeat([]byte("x"), int(last.Packed-8))), "64 MiB": slices.Concat(good[last.At:][:12], make([]byte, 64<<20)),
	} {
		file := slices.Concat(good[:last.At], index, table)
		binary.LittleEndian.PutUint32(file[len(file)-len(table)+8+8*(n-1):], uint32(len(index)))
		r.Write("large.img.zst", file)
		r.Sh("cp --sparse=always disk.orig disk.img")
		if code, out := limited(r, "install", "--config", "config.toml", web.URL+"/large.img.zst"); code != 0 || r.Next() != "B" {
			t.Errorf("%s: exit %d, slot %s boots next:\n%.500s", name, code, r.Next(), out)
		}
	}
}

// TestBootStateBeforeNetwork: an install that the boot state forbids is refused before a server is asked.
func TestBootStateBeforeNetwork(t *testing.T) {
	r := rig.New(t)
	asked := 0
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked++
		http.ServeFile(w, q, r.Path(q.URL.Path))
	}))
	defer web.Close()
	r.Sh("echo junk >grubenv; mcopy -o -i disk.img@@1M grubenv ::/grub/grubenv")
	if code, out, errs := r.Run("install", "--config", "config.toml", web.URL+"/image.img"); code == 0 || asked > 0 {
		t.Errorf("exit %d after %d requests; want a refusal before the first:\n%s%s", code, asked, out, errs)
	}
}

// TestGenuineDocumentsHostileImage: a server that has the genuine documents and no genuine image takes the fallback away from nobody.
func TestGenuineDocumentsHostileImage(t *testing.T) {
	r := rig.New(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.Contains(q.URL.Path, "bmap") {
			http.ServeFile(w, q, r.Path(q.URL.Path))
			return
		}
		w.Header().Set("Content-Length", "30000000")
		_, _ = w.Write(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x84}, make([]byte, 600)...))
		for w.(http.Flusher).Flush(); q.Context().Err() == nil; time.Sleep(100 * time.Millisecond) { // a byte at a time keeps it alive
			_, _ = w.Write([]byte{0})
			w.(http.Flusher).Flush()
		}
	}))
	defer web.Close()
	r.Configure("", "[source]\ngive_up = \"2s\"\n")
	r.Refused(13, "too slow", web.URL+"/image.img.zst")
}

// TestNothingBlocks: a FIFO, a device or a link to one in place of a document, a signature or an image ends at once.
func TestNothingBlocks(t *testing.T) {
	r := rig.New(t)
	r.Sh(`mkfifo fifo; ln -s fifo link; ln -s /dev/zero zero; mkdir folder
		for kind in fifo link zero folder; do
			cp image.img.bmap doc.$kind; ln -s $kind doc.$kind.asc
		done`)
	for _, kind := range []string{"fifo", "link", "zero", "folder"} {
		for _, args := range [][]string{
			{"verify", "--keyring", "keys", "--bmap", kind},
			{"verify", "--keyring", "keys", "--bmap", "doc." + kind},
			{"verify", "--keyring", "keys", "--bmap", "image.img.bmap", "--sig", kind},
			{"verify", "--keyring", "keys", "--bmap", "image.img.bmap", kind},
			{"verify", "--keyring", kind, "image.img"},
			{"install", "--config", "config.toml", "--bmap", "image.img.bmap", kind},
			{"release", "info", kind}, {"release", "verify", "--keyring", "keys", kind},
			{"channel", "info", "--file", kind}, {"keyring", "info", kind}, {"bmap", "info", kind},
			{"bmap", "verify", "image.img.bmap", kind}, {"provision", "--plan", kind, "--target", "disk.img"},
		} {
			cmd := r.Command(args...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			if !ended.Stop() {
				t.Errorf("updater %s: no end after 5 s:\n%.300s", strings.Join(args, " "), out.String())
			} else if cmd.ProcessState.ExitCode() == 0 {
				t.Errorf("updater %s: exit 0:\n%.300s", strings.Join(args, " "), out.String())
			}
		}
	}
	r.Pristine()
}

// TestSecretsOfAddresses: no error message has the user, the password or the query of an address.
func TestSecretsOfAddresses(t *testing.T) {
	r := rig.New(t)
	r.Configure("", "[source]\ngive_up = \"1s\"\n")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case strings.HasSuffix(q.URL.Path, ".bmap"):
			http.ServeFile(w, q, r.Path("image.img.bmap"))
		case strings.HasPrefix(q.URL.Path, "/loop"):
			http.Redirect(w, q, "/loop?X-Amz-Signature=SECRET", http.StatusFound)
		case strings.HasPrefix(q.URL.Path, "/ftp"):
			http.Redirect(w, q, "ftp://u:SECRET@h/", http.StatusFound)
		case q.URL.Path == "/signed/image.img.bmap.asc":
			http.ServeFile(w, q, r.Path("image.img.bmap.asc"))
		default:
			http.NotFound(w, q)
		}
	}))
	defer web.Close()
	base := strings.Replace(web.URL, "http://", "http://user:SECRET@", 1)
	const query = "?X-Amz-Signature=SECRET"
	for _, address := range []string{
		base + "/x.img" + query, base + "/loop" + query, base + "/ftp" + query, base + "/signed/image.img" + query, base + "/release.toml" + query,
		base + "/" + query, "http://user:SECRET/x@h/y", "http://user:SECRET@:80/" + query, "http://u:SECRET@h/%zz", "ftp://u:SECRET@h/" + query,
	} {
		for _, args := range [][]string{
			{"install", "--config", "config.toml", address}, {"install", "--config", "config.toml", "--progress", "json", address},
			{"install", "--config", "config.toml", "--bmap", address, "image.img"}, {"install", "--config", "config.toml", "--sig", address, "image.img"},
			{"verify", "--config", "config.toml", "--json", address}, {"bmap", "copy", "--allow-unsigned", "--no-bmap", address, "out.img"},
			{"release", "verify", "--keyring", "keys", address},
		} {
			if _, out, errs := r.Run(args...); strings.Contains(out+errs, "SECRET") {
				t.Errorf("updater %s:\n%s%s", strings.Join(args, " "), out, errs)
			}
		}
	}
}
