package boottest

import (
	"debug/pe"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Image returns an EFI program without code (Microsoft, "PE Format") that has the sections of a unified kernel image which
// systemd-boot reads.
func Image(osRelease, cmdline string) string {
	const optional, headers = 112, 64 + 24 + 112 + 2*40
	le := binary.LittleEndian
	b := make([]byte, headers, 512)
	copy(b, "MZ")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	le.PutUint16(b[68:], 0x8664)
	le.PutUint16(b[70:], 2)
	le.PutUint16(b[84:], optional)
	le.PutUint16(b[88:], 0x20b)
	for i, s := range []struct{ name, text string }{{".osrel", osRelease}, {".cmdline", cmdline}} {
		h := b[64+24+optional+i*40:]
		copy(h[:8], s.name)
		le.PutUint32(h[8:], uint32(len(s.text)))
		le.PutUint32(h[12:], uint32(0x1000*(i+1)))
		le.PutUint32(h[16:], uint32(len(s.text)))
		le.PutUint32(h[20:], uint32(len(b)))
		b = append(b, s.text...)
	}
	return string(b)
}

// ImageFiles returns an ESP with unified kernel images: one entry and one template for each slot.
func ImageFiles() map[string]string {
	files := map[string]string{"loader/loader.conf": "timeout 0\n"}
	for i, s := range []string{"B", "A"} {
		image := Image("ID=demo\nNAME=\"Demo "+s+"\"\n", "updater.slot="+s)
		files["EFI/updater/"+s+".efi"] = image
		files[fmt.Sprintf("EFI/Linux/updater-%d-%s.efi", i+1, s)] = image
	}
	return files
}

// WriteFiles writes files below a folder.
func WriteFiles(dir string, files map[string]string) error {
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SystemdBootImages models systemd-boot with images in EFI/Linux. Images without boots left come last; then it orders by ID,
// by descending VERSION_ID, and by descending number in the name. It counts the boot in the name of the chosen image.
func SystemdBootImages(d *Disk) string {
	type image struct {
		name, id, slot            string
		version, generation, left int
		spent                     bool
	}
	var best *image
	before := func(a, b *image) bool {
		switch {
		case a.spent != b.spent:
			return !a.spent
		case a.id != b.id:
			return a.id < b.id
		case a.version != b.version:
			return a.version > b.version
		case a.generation != b.generation:
			return a.generation > b.generation
		case a.slot != b.slot:
			return a.slot > b.slot // the rest of the name, the later first
		}
		return a.left > b.left // up to version 257 a name with a counter comes before one without
	}
	for name, content := range d.Files {
		base, ok := strings.CutPrefix(name, "EFI/Linux/")
		base, isImage := strings.CutSuffix(base, ".efi")
		f, err := pe.NewFile(strings.NewReader(content))
		if !ok || !isImage || err != nil || f.Section(".osrel") == nil {
			continue
		}
		e := &image{name: name}
		release, _ := f.Section(".osrel").Data()
		for line := range strings.Lines(string(release)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "ID":
				e.id = strings.Trim(value, `"`)
			case "VERSION_ID":
				e.version, _ = strconv.Atoi(strings.Trim(value, `"`))
			}
		}
		cmdline, _ := f.Section(".cmdline").Data()
		_, _ = fmt.Sscanf(string(cmdline), "updater.slot=%s", &e.slot)
		_, number, _ := strings.Cut(base, "-")
		_, _ = fmt.Sscanf(number, "%d", &e.generation)
		if _, counter, counted := strings.Cut(base, "+"); counted {
			_, _ = fmt.Sscanf(counter, "%d", &e.left)
			e.spent = e.left == 0
		}
		if best == nil || before(e, best) {
			best = e
		}
	}
	if best == nil {
		return ""
	}
	if best.left > 0 {
		base, counter, _ := strings.Cut(strings.TrimSuffix(best.name, ".efi"), "+")
		done := 0
		_, _ = fmt.Sscanf(counter, "%d-%d", &best.left, &done)
		d.Files[fmt.Sprintf("%s+%d-%d.efi", base, best.left-1, done+1)] = d.Files[best.name]
		delete(d.Files, best.name)
	}
	return best.slot
}
