package security

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"updater/initramfs"
	"updater/internal/rig"
)

// startStalled starts an install whose image never comes, and returns when it holds the disk.
func startStalled(r *rig.Rig) (cmd *exec.Cmd, stdin io.WriteCloser) {
	r.Helper()
	cmd = r.Command("install", "--config", "config.toml", "--bmap", "image.img.bmap", "-")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 600 {
		if locks, err := os.ReadFile("/proc/locks"); err == nil && regexp.MustCompile(fmt.Sprintf(`FLOCK +ADVISORY +WRITE %d `, cmd.Process.Pid)).Match(locks) {
			return cmd, stdin
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.Fatalf("the install does not lock the disk: %s", stderr.String())
	return nil, nil
}

// TestS10NoListener: an install opens no socket.
func TestS10NoListener(t *testing.T) {
	r := rig.New(t)
	cmd, _ := startStalled(r)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
	if err != nil || len(links) < 4 {
		t.Fatalf("descriptors of the install: %v, %v", links, err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:") {
			t.Errorf("the install has %s open", to)
		}
	}
}

// TestS18OnlyTheConfigurationIsTrusted: the environment, files beside the image, and the command line of the program and
// of the kernel add no key, drop no check and lower no floor.
func TestS18OnlyTheConfigurationIsTrusted(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "\n[trust]\nrequire_metadata = true\n[release]\nrollback_index = 5\n")
	r.Sh("cp --sparse=always disk.img disk.orig")
	r.Bmap("good.bmap", rig.Release, "--product", "demo", "--rollback-index", "5")
	r.Bmap("forged.bmap", []string{"other"}, "--product", "demo", "--rollback-index", "9")
	r.Bmap("old.bmap", rig.Release, "--product", "demo", "--rollback-index", "4")

	// A stick with a keyring and a configuration of its own.
	r.Sh(`mkdir -p stick/updater/keys stick/etc/updater; cp image.img stick/updater/; cp forged.bmap stick/updater/image.img.bmap; cp forged.bmap.sig stick/updater/image.img.bmap.sig
		cp other.asc stick/updater/keys/; cp other.asc stick/updater/; cp other.asc stick/etc/updater/
		printf 'keyring = ["keys"]\nproduct = "demo"\n' > stick/updater/config.toml; cp stick/updater/config.toml stick/`)
	env := r.Env
	for _, set := range [][]string{
		nil,
		{"UPDATER_KEYRING=" + r.Path("other.asc"), "UPDATER_CONFIG=" + r.Path("stick/config.toml"), "UPDATER_FLOOR=0", "UPDATER_INSECURE=1", "UPDATER_STATE=none"},
		{"GNUPGHOME=" + r.Path("stick"), "HOME=" + r.Path("stick"), "XDG_CONFIG_HOME=" + r.Path("stick/etc"), "XDG_CONFIG_DIRS=" + r.Path("stick/etc"), "TMPDIR=" + r.Path("stick")},
		{"SSL_CERT_FILE=/dev/null", "GODEBUG=x509ignoreCN=0", "SOURCE_DATE_EPOCH=0", "TZ=Pacific/Kiritimati"},
	} {
		r.Env = append(append([]string{}, env...), set...)
		r.Refused(10, "not in the keyring", "stick/updater/image.img")
		r.Refused(12, "below 5", "--bmap", "old.bmap", "image.img")
		r.Refused(12, "below 5", "image.img")
	}
	r.Env = env

	// A keyring on the command line replaces the configured one and nothing else.
	r.Refused(12, "below 5", "--keyring=keys", "image.img")
	r.Refused(10, "not in the keyring", "--keyring=other.asc", "--bmap", "good.bmap", "image.img")
	// Options that would weaken it do not exist.
	for _, option := range []string{"--insecure", "--no-verify", "--force", "--floor=0", "--allow-downgrade", "--product=other", "--require=none", "--state=none", "--time=2020-01-01T00:00:00Z"} {
		r.Refused(2, "unknown flag", option, "--bmap", "forged.bmap", "stick/updater/image.img")
	}
	r.Install(0, "slot B boots next", "--bmap", "good.bmap", "image.img")
}

// TestKernelCommandLine: no updater.* parameter changes trust; unknown parameters are reported and ignored.
func TestKernelCommandLine(t *testing.T) {
	weaken := []string{
		"keyring=/run/media/keys", "key=ABCD", "config=/run/media/config.toml", "insecure=1", "verify=0", "noverify", "floor=0",
		"rollback_index=0", "allow_downgrade", "product=other", "state=none", "time=2020-01-01", "min_signers=0", "require_metadata=0", "force",
	}
	var line []string
	for _, w := range weaken {
		line = append(line, "updater."+w)
	}
	got := initramfs.ParseCmdline("quiet root=PARTLABEL=rootfs_a " + strings.Join(line, " "))
	want := initramfs.ParseCmdline("quiet root=PARTLABEL=rootfs_a")
	if len(got.Unknown) != len(weaken) {
		t.Errorf("%d of %d parameters were understood: %v", len(weaken)-len(got.Unknown), len(weaken), got.Unknown)
	}
	got.Unknown = nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("the parameters changed %+v into %+v", want, got)
	}
}

// TestSecondInstall: it reports at once who holds the disk and for how long; the first one is unharmed; and a lock does
// not outlive its process.
func TestSecondInstall(t *testing.T) {
	r := rig.New(t)
	first, stdin := startStalled(r)
	start := time.Now()
	said := r.Install(17, fmt.Sprintf("is locked by process %d, which has been running for ", first.Process.Pid), "image.img")
	took := time.Since(start)
	start = time.Now()
	r.Expect(0, "updater", "version")
	t.Logf("refused after %s; a program that does nothing takes %s", took, time.Since(start))
	if !strings.Contains(said, "updater: hint: ") {
		t.Errorf("no hint in %s", said)
	}
	r.Expect(17, strconv.Itoa(first.Process.Pid), "install", "--config", "config.toml", "--json", "image.img")
	if _, err := stdin.Write(r.Read("image.img")); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := first.Wait(); err != nil || r.Next() != "B" {
		t.Errorf("the first install: %v; slot %s boots next", err, r.Next())
	}

	r.Sh("cp --sparse=always disk.orig disk.img")
	killed, _ := startStalled(r)
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	r.Install(0, "slot B boots next", "image.img")
}

// TestClock: a board whose clock is behind installs valid documents, and refuses those that expired before it was built or
// before the last install; a clock that is far ahead does not lock it out.
func TestClock(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	year := time.Now().Year()
	at := func(y int) string { return fmt.Sprintf("%d-01-01T00:00:00Z", y) }
	r.Bmap("past.bmap", rig.Release, "--expires", at(year-1))
	r.Bmap("soon.bmap", rig.Release, "--expires", at(year+2))
	r.Bmap("far.bmap", rig.Release, "--expires", at(year+60))
	built := func(y int) {
		r.Program = r.Path(fmt.Sprint("updater-", y))
		rig.BuildStamped(t, r.Program, at(y))
	}

	// The system clock is years behind the build, as one of 1970 is.
	built(year + 4)
	r.Install(12, fmt.Sprintf("the trusted time is %d-01-01", year+4), "--bmap", "soon.bmap", "image.img")
	r.Install(0, "", "--bmap", "far.bmap", "image.img")
	r.Install(0, "", "image.img")

	// That install was remembered: an older program on the same device knows the time too.
	built(year - 3)
	r.Install(12, fmt.Sprintf("the trusted time is %d-01-01", year+4), "--bmap", "soon.bmap", "image.img")
	r.Install(0, "", "--bmap", "far.bmap", "image.img")

	// The system clock is far ahead of the build and of every signature: it is believed, and not remembered.
	r.Sh("cp --sparse=always disk.orig disk.img")
	built(year - 50)
	r.Install(12, "", "--bmap", "past.bmap", "image.img")
	r.Install(0, "", "--bmap", "soon.bmap", "image.img")
	_, out, _ := r.Run("status", "--config", "config.toml", "--json")
	if !strings.Contains(out, fmt.Sprintf(`"trusted_time":"%d-`, year)) {
		t.Errorf("the time of the last install is not remembered: %s", out)
	}
}

// TestStatePlaces: the state store works on a partition, a window of one or of the disk, and a file, which is made.
func TestStatePlaces(t *testing.T) {
	for place, line := range map[string]string{
		"partition":             `state = "PARTLABEL=state"`,
		"partition by number":   `state = "/dev/vda4"`,
		"window of a partition": `state = { device = "PARTLABEL=state", offset = 0x10000, size = 0x8000 }`,
		"window of the disk":    `state = { device = "/dev/vda", offset = -262144, size = 0x10000 }`,
		"file":                  `state = "memory"`,
		"window of a file":      `state = { device = "big", offset = 4096, size = 65536 }`,
	} {
		t.Run(place, func(t *testing.T) {
			r := rig.New(t)
			r.Configure(line, "")
			r.Sh("head -c 1M /dev/zero > big")
			r.Bmap("i.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
			r.Install(0, "", "--bmap", "i.bmap", "image.img")
			r.Expect(0, "rootfs 7 (installed ", "status", "--config", "config.toml")
			r.Sh(`sed -i 's/booted = "A"/booted = "B"/' config.toml; mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set B_TRY=1; mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
			r.Expect(0, "slot B is good", "mark", "good", "--config", "config.toml")
			r.Expect(0, "no rollback index below 7 is installed", "status", "--config", "config.toml")
			r.Expect(0, "slot A is bad", "mark", "bad", "A", "--config", "config.toml")
			r.Sh("sgdisk -v disk.img")
		})
	}
	r := rig.New(t)
	for line, words := range map[string]string{
		`state = ""`:                             "expected a file or a partition",
		`state = 7`:                              "expected a string or",
		`state = { device = "PARTLABEL=state" }`: "needs device and size",
		`state = { device = "x", size = 65536, mode = 1 }`:        `unknown key "mode"`,
		`state = "PARTLABEL=rootfs_b"`:                            "state store",
		`state = "PARTLABEL=nowhere"`:                             "is not on disk",
		`state = "/dev/vda"`:                                      "names no partition",
		`state = { device = "PARTLABEL=state", size = 4096 }`:     "expected at least 8192",
		`state = { device = "PARTLABEL=state", size = 99999999 }`: "are not inside",
		`state = "no/such/folder/memory"`:                         "no such file",
	} {
		r.Configure(line, "")
		code, out, errs := r.Run("install", "--config", "config.toml", "image.img")
		if code != 2 && code != 16 || !strings.Contains(out+errs, words) {
			t.Errorf("%s: exit %d; want %q:\n%s%s", line, code, words, out, errs)
		}
		r.Pristine()
	}
}
