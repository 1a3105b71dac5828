package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fixturesOnce are the fixtures of all tests that only copy them, made once.
var fixturesOnce struct {
	once sync.Once
	dir  string
}

// rig is a device in a folder: a disk image with two slots, GRUB's environment and a state partition, a keyring, and a
// signed image. The built program runs on it.
type rig struct {
	*testing.T
	dir string
	env []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "grub-editenv", "mkenvimage", "gpg"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	fixturesOnce.once.Do(func() {
		dir, err := os.MkdirTemp("", "updater") // short: gpg's socket has a path of at most 108 bytes
		if err != nil {
			t.Fatal(err)
		}
		fixturesOnce.dir = dir
		buildFixtures(t, dir)
	})
	r := &rig{T: t, dir: t.TempDir()}
	r.env = append(os.Environ(), "GNUPGHOME="+filepath.Join(fixturesOnce.dir, "gnupg"), "LC_ALL=C")
	r.sh(`cp -r --sparse=always "$0"/image.img* "$0"/clear.bmap "$0"/other.sig "$0"/other.asc "$0"/image.sig "$0"/keys .
		cp --sparse=always "$0/grub.img" disk.img; cp --sparse=always "$0/grub.img" disk.orig`, fixturesOnce.dir)
	r.configure("", "")
	return r
}

// configure writes the configuration with further lines at its top and further tables at its end.
func (r *rig) configure(top, tables string) {
	r.Helper()
	r.write("config.toml", []byte(top+"\n"+configs["grub"]+tables))
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name string, data []byte) {
	r.Helper()
	if err := os.WriteFile(r.path(name), data, 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) read(name string) []byte {
	r.Helper()
	data, err := os.ReadFile(r.path(name))
	if err != nil {
		r.Fatal(err)
	}
	return data
}

// sh runs a script in the device's folder.
func (r *rig) sh(script string, args ...string) string {
	r.Helper()
	cmd := exec.Command("bash", append([]string{"-euc", script}, args...)...)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// command is the program, not yet started.
func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command("updater", args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	return cmd
}

// run runs the program and returns its exit code, its standard output, and its standard error.
func (r *rig) run(args ...string) (code int, out, errs string) {
	r.Helper()
	cmd := r.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		r.Fatal(err)
	}
	return code, stdout.String(), stderr.String()
}

// expect runs the program and wants an exit code and words in what it says.
func (r *rig) expect(want int, words string, args ...string) string {
	r.Helper()
	code, out, errs := r.run(args...)
	if said := out + errs; code != want || !strings.Contains(said, words) {
		r.Errorf("updater %s: exit %d; want %d with %q:\n%s", strings.Join(args, " "), code, want, words, said)
	}
	return out + errs
}

// install installs an image whose bmap has the given name.
func (r *rig) install(want int, words string, args ...string) string {
	r.Helper()
	return r.expect(want, words, append([]string{"install", "--config", "config.toml"}, args...)...)
}

// refused wants an install to be refused with nothing written.
func (r *rig) refused(want int, words string, args ...string) {
	r.Helper()
	r.install(want, words, args...)
	r.pristine()
}

// pristine wants the disk to be as it was.
func (r *rig) pristine() {
	r.Helper()
	if !bytes.Equal(r.read("disk.img"), r.read("disk.orig")) {
		r.Error("the disk has changed")
		r.sh("cp --sparse=always disk.orig disk.img")
	}
}

// next is the slot that GRUB boots next.
func (r *rig) next() string {
	r.Helper()
	vars := r.sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.cur && grub-editenv env.cur list`)
	order := regexp.MustCompile(`(?m)^ORDER=(.*)$`).FindStringSubmatch(vars)
	if order == nil {
		r.Fatalf("no ORDER in %q", vars)
	}
	for s := range strings.FieldsSeq(order[1]) {
		if strings.Contains(vars, s+"_OK=1") && strings.Contains(vars, s+"_TRY=0") {
			return s
		}
	}
	return ""
}

// sign signs a file with keys, detached and binary, beside it.
func (r *rig) sign(name string, keys ...string) {
	r.Helper()
	var args strings.Builder
	for _, k := range keys {
		args.WriteString(" -u " + k + "@example.com")
	}
	r.sh("rm -f $0.sig; gpg -q --batch"+args.String()+" --detach-sign -o $0.sig $0", name)
}

// bmap makes a signed bmap of image.img.
func (r *rig) bmap(name string, keys []string, flags ...string) {
	r.Helper()
	r.expect(0, "", append(append([]string{"bmap", "create", "--max-range", "256K", "-o", name}, flags...), "image.img")...)
	r.sign(name, keys...)
}

var release = []string{"release"}

// edited signs a changed copy of image.img.bmap, with the checksum of the file itself made right again.
func (r *rig) edited(name string, edit func(text string) string) {
	r.Helper()
	old := string(r.read("image.img.bmap"))
	text := edit(old)
	if text == old {
		r.Fatalf("%s: nothing was edited", name)
	}
	r.write(name, []byte(resum(text)))
	r.sign(name, release...)
}

// resum puts the right BmapFileChecksum into a bmap.
func resum(text string) string {
	field := regexp.MustCompile(`(<BmapFileChecksum>\s*)[0-9a-f]{64}`)
	text = field.ReplaceAllString(text, "${1}"+strings.Repeat("0", 64))
	sum := sha256.Sum256([]byte(text))
	return field.ReplaceAllString(text, "${1}"+hex.EncodeToString(sum[:]))
}

// files lists every file below the device's folder with its size and time.
func (r *rig) files() []string {
	r.Helper()
	var list []string
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().Format(time.RFC3339Nano)))
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	slices.Sort(list)
	return list
}
