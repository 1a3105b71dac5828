//go:build vm

package loaders

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestBootManagerPowerCuts cuts the power inside the firmware's variable store: QEMU records the writes to its flash while Linux activates B,
// the firmware consumes BootNext, and Linux marks B good. From a sample of the prefixes the firmware boots again, and a
// slot comes up: this is OVMF's fault tolerant write. UPDATER_VM_CUTS is the number of cuts for each recording.
func TestBootManagerPowerCuts(t *testing.T) {
	m := newBootManager(t)
	cuts, err := strconv.Atoi(os.Getenv("UPDATER_VM_CUTS"))
	if err != nil {
		cuts = 2
	}
	plain := m.flash
	m.linux(t, "A", [2]string{"repair", "A A A / A"}, [2]string{"invalidate B", "A A A / A"})
	for i, part := range []struct {
		what  string
		write func()
		end   string // slot that boots without a cut
	}{
		{"activate", func() { m.linux(t, "A", [2]string{"activate B", "B A A / B A"}) }, "B"},
		{"BootNext", func() { m.choose(t, "B") }, "A"},
		{"mark good", func() { m.linux(t, "B", [2]string{"good B", "B B B / B A"}) }, "B"},
	} {
		before, err := os.ReadFile(m.vars())
		must(t, err)
		var log string
		m.flash = func() []string { // for each boot
			log = newLog(t, filepath.Join(m.dir, fmt.Sprintf("log-%d", i)))
			return recordedFlash(m.vars(), log)
		}
		part.write()
		m.flash = plain
		end, err := os.ReadFile(m.vars())
		must(t, err)
		flash := filepath.Join(m.dir, "replayed.fd")
		must(t, os.WriteFile(flash, before, 0o600))
		sectors := replay(t, flash, log, func(int) {})
		if got, err := os.ReadFile(flash); err != nil || sectors == 0 || !bytes.Equal(got, end) {
			t.Fatalf("%s: a log of %d sectors is not what the firmware did (%v)", part.what, sectors, err)
		}
		for k := range cuts {
			from, at := (2*k+1)*sectors/(2*cuts), 0 // at is the first write from there that changes something
			must(t, os.WriteFile(flash, before, 0o600))
			replay(t, flash, log, func(n int) {
				if at == 0 && n >= from {
					at = n
					copyFile(t, flash, m.vars())
				}
			})
			t.Logf("%s: cut after write %d of %d", part.what, at, sectors)
			m.choose(t, "A", "B")
		}
		must(t, os.WriteFile(m.vars(), end, 0o600))
		if part.what != "activate" { // which the next recording boots
			m.choose(t, part.end)
		}
	}
}

// recordedFlash has QEMU log the writes to the firmware's variables.
func recordedFlash(vars, log string) []string {
	return []string{
		"-machine", "q35,pflash0=code,pflash1=vars", "-blockdev", "driver=file,node-name=code,read-only=on,filename=" + ovmfCode,
		"-blockdev", "driver=file,node-name=vf,filename=" + vars, "-blockdev", "driver=file,node-name=vl,filename=" + log,
		"-blockdev", "driver=blklogwrites,node-name=vars,file=vf,log=vl,log-sector-size=512",
	}
}
