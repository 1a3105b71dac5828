//go:build vm

package loaders

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"updater/boot/uboot"
	"updater/internal/abdisk"
	"updater/internal/crashdisk"
)

// card makes the card a disk with two slots of 4 MiB, an old image in both, and updates one and two beside it, with their maps.
const card = `truncate -s 16M sd.img
sgdisk -a 8 -n1:2048:+1M -c1:boot -n2:0:+4M -c2:rootfs_a -n3:0:+4M -c3:rootfs_b sd.img >/dev/null
for name in old one two; do
	truncate -s 3M $name
	for at in 0 1500 2900; do head -c 150K /dev/urandom | dd of=$name bs=1K seek=$at conv=notrunc status=none; done
	./updater -q bmap create --max-range 64K -o $name.bmap $name
done
for at in 2 6; do dd if=old of=sd.img bs=1M seek=$at conv=notrunc status=none; done
for at in 256 272; do dd if=env.bin of=sd.img bs=4096 seek=$at conv=notrunc status=none; done
for slot in A B; do cat >$slot.toml <<C
product = "demo"
keyring = ["release.asc"]
[disk]
path = "card"
[boot]
backend = "uboot"
env = [ { device = "PARTLABEL=boot", offset = 0, size = 0x4000 }, { device = "PARTLABEL=boot", offset = 0x10000, size = 0x4000 } ]
tries = 2
booted = "$slot"
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
C
done
`

// ubootLife is a card of which QEMU records every write: the program's, through a file that qemu-storage-daemon serves,
// and U-Boot's.
type ubootLife struct {
	*ubootRig
	disk   *crashdisk.Disk // with the recordings replayed on it
	images map[string][]byte
}

// TestUBootRecordedLife records installs, boots and mark-good, an update that does not boot, and the fallback. It cuts the
// power at every point, with any loss of unflushed writes: every slot that U-Boot would try is complete.
func TestUBootRecordedLife(t *testing.T) {
	need(t, "qemu-storage-daemon", "gpg", "sgdisk", "go")
	l := &ubootLife{ubootRig: newUBoot(t, uboot.RAUC, environment(t, "uboot/rauc.env", "slot")), images: map[string][]byte{}}
	sh(t, ".", `CGO_ENABLED=0 go build -o "`+l.dir+`/updater" ../../cmd/updater`)
	sh(t, l.dir, card)
	content := l.read(t, l.sd)
	l.disk = crashdisk.New(content, crashdisk.Options{Seed: 1})
	signer := abdisk.Builder{Dir: l.dir}
	for _, name := range []string{"old", "one", "two"} {
		l.images[name] = l.read(t, filepath.Join(l.dir, name))
		_, err := signer.Sign(t.Context(), filepath.Join(l.dir, name+".bmap"))
		must(t, err)
	}
	l.starts(t, "A", "A")
	l.program(t, "A", "mark", "good", "--config", "A.toml")
	l.program(t, "B", "install", "--config", "A.toml", "one")
	l.starts(t, "B", "B")
	l.program(t, "B", "mark", "good", "--config", "B.toml")
	l.program(t, "A", "install", "--config", "B.toml", "two")
	l.starts(t, "A", "A")
	l.starts(t, "A", "B") // the last try
	l.starts(t, "B", "B")
	l.program(t, "B", "mark", "good", "--config", "B.toml")
	cuts := func() (int, error) {
		return l.disk.Crashes(crashdisk.Plan{Random: 2, Torn: 2, DropOne: 4}, func(s *crashdisk.State) error {
			_, err := l.chain(s.Image)
			return err
		})
	}
	states, err := cuts()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states of %d operations", states, l.disk.Operations())
	if states < 1000 {
		t.Errorf("%d states; want at least 1000", states)
	}
	l.images["one"][len(l.images["one"])-1] ^= 1 // the check must find a planted mistake
	if _, err := cuts(); err == nil {
		t.Error("one bit of an image is wrong, and no state was")
	}
}

func (l *ubootLife) read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

// starts boots U-Boot, which must choose want; from then on it would choose next after any power cut.
func (l *ubootLife) starts(t *testing.T, want, next string) {
	t.Helper()
	log := newLog(t, filepath.Join(l.dir, "log"))
	if got := boots(t, `CHOICE (\w*)`, l.args(recorded("sd-card", l.sd, log)...)...); got[1] != want {
		t.Fatalf("U-Boot chose %q; want %s", got[1], want)
	}
	l.replay(t, "U-Boot starts "+want, log, next)
}

// program runs the program on the card.
func (l *ubootLife) program(t *testing.T, next string, args ...string) {
	t.Helper()
	log, served := newLog(t, filepath.Join(l.dir, "log")), filepath.Join(l.dir, "card")
	must(t, os.WriteFile(served, nil, 0o600))
	daemon := exec.Command("qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=f,filename="+l.sd, "--blockdev", "driver=file,node-name=l,filename="+log,
		"--blockdev", "driver=blklogwrites,node-name=d,file=f,log=l,log-sector-size=512", "--export", "type=fuse,id=e,node-name=d,writable=on,mountpoint="+served)
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	daemon.Stderr = &said
	must(t, daemon.Start())
	end := sync.OnceValue(func() error {
		return errors.Join(daemon.Process.Signal(syscall.SIGTERM), daemon.Wait())
	})
	t.Cleanup(func() { _ = end() })
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(served); err == nil && info.Size() == l.disk.Size() {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the card is not served: %s", &said)
		}
	}
	out := run(t, l.dir, "./updater", args...)
	must(t, end())
	l.replay(t, fmt.Sprint(args, ": ", out), log, next)
}

// replay executes a recording and compares the result with the card.
func (l *ubootLife) replay(t *testing.T, when, log, next string) {
	t.Helper()
	if n, err := l.disk.Replay(l.read(t, log)); err != nil || n == 0 {
		t.Fatalf("%s: %d entries, %v", when, n, err)
	}
	if !bytes.Equal(l.disk.Content(), l.read(t, l.sd)) {
		t.Fatalf("%s: the replayed log is not the card that QEMU left", when)
	}
	for seed := range uint64(8) {
		if chain, err := l.chain(l.disk.Cut(seed)); err != nil || chain[0] != next {
			t.Fatalf("%s: after a cut U-Boot would try %q, %v; want %s first", when, chain, err, next)
		}
	}
}

// chain returns the slots that U-Boot would try when no system boots, by its own rules: the whole copy of the environment with the
// newer flag, and in it the slots of BOOT_ORDER that have tries left. Each must hold a complete image.
func (l *ubootLife) chain(disk []byte) ([]string, error) {
	var env []byte
	for _, off := range []int{env1, env2} {
		c := disk[off : off+envSize]
		if binary.LittleEndian.Uint32(c) == crc32.ChecksumIEEE(c[5:]) && (env == nil || c[4]-env[4] < 128) {
			env = c
		}
	}
	if env == nil {
		return nil, errors.New("no copy of the environment is whole")
	}
	vars := map[string]string{}
	for v := range bytes.SplitSeq(env[5:], []byte{0}) {
		if k, value, ok := strings.Cut(string(v), "="); ok {
			vars[k] = value
		}
	}
	var chain []string
	for s := range strings.FieldsSeq(vars["BOOT_ORDER"]) {
		if n, err := strconv.ParseUint(vars["BOOT_"+s+"_LEFT"], 16, 8); err != nil || n == 0 {
			continue
		}
		chain = append(chain, s)
		slot := disk[map[string]int{"A": 2 << 20, "B": 6 << 20}[s]:]
		if !slices.ContainsFunc([]string{"old", "one", "two"}, func(name string) bool { return bytes.HasPrefix(slot, l.images[name]) }) {
			return chain, fmt.Errorf("U-Boot would try %q, and slot %s holds no complete image", chain, s)
		}
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("U-Boot has no slot: BOOT_ORDER=%q", vars["BOOT_ORDER"])
	}
	return chain, nil
}
