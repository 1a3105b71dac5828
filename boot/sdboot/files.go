package sdboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"updater/boot"
)

// maxEntry is the largest Type #1 entry and the largest .osrel section, in bytes.
const maxEntry = 64 << 10

// files are the files on the ESP.
type files struct {
	kind
	own    []entry
	others []string // names of all other files
}

// files lists the ESP. It refuses entries or templates of both kinds at once.
func (b *Backend) files() (files, error) {
	names, err := b.Dir.List()
	if err != nil {
		return files{}, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	f, first := files{kind: type1}, ""
	for _, name := range names {
		var e entry
		own := false
		for _, k := range kinds {
			var isEntry bool
			isTemplate := slices.ContainsFunc(b.Slots, func(s string) bool { return name == k.template(s) })
			if e, isEntry = k.parseName(name, b.Prefix, b.Slots); !isEntry && !isTemplate {
				continue
			}
			if first != "" && f.kind != k {
				return f, fmt.Errorf("%w: the ESP has %s and %s; expected either %s or %s for every slot", boot.ErrState, first, name, type1.ext, uki.ext)
			}
			f.kind, first, own = k, name, isEntry
			break
		}
		if !own {
			f.others = append(f.others, name)
			continue
		}
		if err := b.inspect(f.kind, &e); err != nil {
			return f, err
		}
		f.own = append(f.own, e)
	}
	return f, nil
}

// inspect reads the fields by which the boot loader orders an entry, and why it does not start.
func (b *Backend) inspect(k kind, e *entry) error {
	if k == uki {
		t, fault, err := b.image(e.name)
		e.order, e.size, e.fault = t.order, t.size, fault
		return err
	}
	text, err := b.text(e.name)
	if err == nil {
		e.order, e.fault = conf(text)
	}
	return err
}

// image reads an image. fault is why it does not start, nil if it does.
func (b *Backend) image(name string) (t template, fault, err error) {
	t, err = b.readTemplate(uki, name)
	if errors.Is(err, errImage) || errors.Is(err, errCut) {
		return t, err, nil
	}
	return t, nil, err
}

// template is the source of a slot's entries.
type template struct {
	name  string
	text  string  // of Type #1
	size  int64   // of a unified kernel image
	order release // of a unified kernel image
}

// open lists the ESP and reads the template of a slot.
func (b *Backend) open(slot string) (files, template, error) {
	if err := boot.RefuseUnknown(slot, b.Slots); err != nil {
		return files{}, template{}, err
	}
	f, err := b.files()
	if err != nil {
		return f, template{}, err
	}
	t, err := b.template(f, slot)
	return f, t, err
}

// template reads the template of a slot.
func (b *Backend) template(f files, slot string) (template, error) {
	t, err := b.readTemplate(f.kind, f.template(slot))
	if errors.Is(err, fs.ErrNotExist) {
		return t, fmt.Errorf("%w: slot %s has no template %s on the ESP", boot.ErrState, slot, t.name)
	}
	return t, err
}

// readTemplate reads and validates a template.
func (b *Backend) readTemplate(k kind, name string) (template, error) {
	t := template{name: name}
	file, err := b.Dir.Open(name)
	if err != nil {
		return t, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	defer file.Close()
	if k == uki {
		if t.size, err = file.Seek(0, io.SeekEnd); err == nil {
			t.order, err = parseUKI(file, t.size)
		}
		if err != nil {
			return t, fmt.Errorf("%w: %s: %w", boot.ErrState, name, err)
		}
		return t, nil
	}
	if t.text, err = readText(file, name); err != nil {
		return t, err
	}
	if field(t.text, "linux") == "" || field(t.text, "version") != "" || field(t.text, "sort-key") != "" {
		return t, fmt.Errorf("%w: template %s: expected the key linux, and neither version nor sort-key, which the updater adds", boot.ErrState, name)
	}
	return t, nil
}

// text reads a text file.
func (b *Backend) text(name string) (string, error) {
	file, err := b.Dir.Open(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	defer file.Close()
	return readText(file, name)
}

func readText(r io.Reader, name string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxEntry+1))
	if err == nil && len(data) > maxEntry {
		err = fmt.Errorf("%s has more than %d bytes", name, maxEntry)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	return string(data), nil
}

// ordered refuses a template whose entries the boot loader would not order by generation.
func (f files) ordered(t template) error {
	if f.kind != uki {
		return nil
	}
	return ordered(t, f.own)
}

// ordered refuses an image that the boot loader would not order by name among the entries beside.
func ordered(t template, beside []entry) error {
	if t.order.key == "" {
		return fmt.Errorf("%w: %s: section .osrel has neither IMAGE_ID nor ID, by which the boot loader sorts", boot.ErrState, t.name)
	}
	for _, e := range beside {
		if !e.dead() && e.order != t.order {
			return fmt.Errorf("%w: %s has %s, and %s has %s; expected the same, so that the generation decides which one boots",
				boot.ErrState, t.name, t.order, e.name, e.order)
		}
	}
	return nil
}

// slack is the space in bytes that a file may need beyond its size: the last cluster, and its directory entry.
const slack = 128 << 10

// unfinished is the temporary name of an entry while it is written. It is fixed, so that power cuts leave at most one file.
func (b *Backend) unfinished(f files) string { return f.entries + b.Prefix + ".new" }

// size is the size of a file in bytes.
func (b *Backend) size(name string) (int64, error) {
	file, err := b.Dir.Open(name)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	defer file.Close()
	return file.Seek(0, io.SeekEnd)
}

// room refuses if the ESP has no room for n more copies of the image after the entries of slot without are removed.
func (b *Backend) room(f files, t template, without string, n int64) error {
	if f.kind != uki {
		return nil
	}
	free, err := b.Dir.Free()
	if err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	if tmp := b.unfinished(f); slices.Contains(f.others, tmp) {
		half, _, err := b.image(tmp)
		if err != nil {
			return err
		}
		free += half.size
	}
	if old, replaces := strings.CutSuffix(t.name, b.Beside); b.Beside != "" && replaces && slices.Contains(f.others, old) {
		size, err := b.size(old)
		if err != nil {
			return err
		}
		free += size
	}
	for _, e := range f.own {
		if e.slot == without {
			free += e.size
		}
	}
	if need := n * (t.size + slack); free < need {
		return fmt.Errorf("%w: %s: the ESP has %d bytes free; expected at least %d for copies of the image (the entry on trial and the good one)",
			boot.ErrState, t.name, free, need)
	}
	return nil
}

// create writes an entry under a temporary name, renames it and reads it back.
func (b *Backend) create(f files, t template, generation int, name string) error {
	if f.kind == type1 {
		return b.write(f, name, strings.NewReader(fill(t.text, b.Prefix, generation)))
	}
	image, err := b.Dir.Open(t.name)
	if err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	defer image.Close()
	return b.write(f, name, image)
}

func (b *Backend) write(f files, name string, content io.ReadSeeker) error {
	tmp := b.unfinished(f)
	for _, step := range []func() error{
		func() error { return b.Dir.Write(tmp, content) },
		b.Dir.Sync,
		func() error { return b.Dir.Rename(tmp, name) },
		b.Dir.Sync,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("%w: writing %s: %w", boot.ErrState, name, err)
		}
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	got, err := b.Dir.Open(name)
	if err != nil {
		return fmt.Errorf("%w: reading %s back: %w", boot.ErrState, name, err)
	}
	defer got.Close()
	if same, err := equal(got, content); !same {
		return errors.Join(fmt.Errorf("%w: %s reads back differently than written", boot.ErrState, name), err)
	}
	return nil
}

// equal compares the rest of two files. With an error it is false.
func equal(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		m, other := io.ReadFull(b, y)
		for _, err := range []error{err, other} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < len(x) {
			return true, nil
		}
	}
}

// remove removes the entries for which which is true, durably.
func (b *Backend) remove(own []entry, which func(entry) bool) error {
	for _, e := range own {
		if !which(e) {
			continue
		}
		if err := b.Dir.Remove(e.name); err != nil {
			return fmt.Errorf("%w: removing %s: %w", boot.ErrState, e.name, err)
		}
	}
	if err := b.Dir.Sync(); err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	return nil
}
