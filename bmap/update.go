package bmap

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Values of Update.Unmapped.
const (
	UnmappedZero = "zero" // unmapped blocks must read as zero
	UnmappedKeep = "keep" // unmapped blocks keep the content of the device
)

// maxUpdateText bounds the free texts of an update element, in bytes.
const maxUpdateText = 255

// An Update is the optional element that describes the purpose of the image. Other readers of a bmap ignore it. A field with
// its zero value is absent from the map; which fields must be present is the installer's policy.
type Update struct {
	Product string // the device this image is for
	Version string // for display and records
	// RollbackIndex grows with releases; a device refuses an index below its floor. 0 is the same as absent, so a map without
	// one is below every floor.
	RollbackIndex int64
	Role          string    // partition of the slot
	Created       time.Time // UTC
	Expires       time.Time // UTC, after Created
	Unmapped      string    // UnmappedZero or UnmappedKeep
	ImageChecksum string    // lower-case hex, ChecksumType over the whole image with unmapped blocks as zero
}

// updateField is one child of <Update>: how its text is read and written.
type updateField struct {
	name string
	set  func(u *Update, text string) error
	get  func(u *Update) string // "" when absent
}

// updateFields lists the children in the order they are written. No other child is known.
func updateFields() []updateField {
	return []updateField{
		{"Product", setText(func(u *Update) *string { return &u.Product }), func(u *Update) string { return u.Product }},
		{"Version", setText(func(u *Update) *string { return &u.Version }), func(u *Update) string { return u.Version }},
		{"RollbackIndex", setRollbackIndex, getRollbackIndex},
		{"Role", setText(func(u *Update) *string { return &u.Role }), func(u *Update) string { return u.Role }},
		{"Created", setTime(func(u *Update) *time.Time { return &u.Created }), func(u *Update) string { return timeText(u.Created) }},
		{"Expires", setTime(func(u *Update) *time.Time { return &u.Expires }), func(u *Update) string { return timeText(u.Expires) }},
		{"Unmapped", setUnmapped, func(u *Update) string { return u.Unmapped }},
		{"ImageChecksum", setImageChecksum, func(u *Update) string { return u.ImageChecksum }},
	}
}

// checkUpdate checks the rules over more than one value. The error names the field.
func checkUpdate(u *Update, a algorithm) (field string, err error) {
	if n := len(u.ImageChecksum); n != 0 && n != 2*a.size {
		return "ImageChecksum", fmt.Errorf("has %d hex digits, expected %d (%s)", n, 2*a.size, a.name)
	}
	if !u.Created.IsZero() && !u.Expires.IsZero() && !u.Expires.After(u.Created) {
		return "Expires", fmt.Errorf("is %s, expected a time after Created %s", timeText(u.Expires), timeText(u.Created))
	}
	return "", nil
}

// cleanUpdate returns u as Parse would read it back, or the reason why it would not.
func cleanUpdate(u Update, a algorithm) (*Update, error) {
	var clean Update
	for _, f := range updateFields() {
		if text := f.get(&u); text != "" {
			if err := f.set(&clean, text); err != nil {
				return nil, fmt.Errorf("update field %s: %w", f.name, err)
			}
		}
	}
	if field, err := checkUpdate(&clean, a); err != nil {
		return nil, fmt.Errorf("update field %s: %w", field, err)
	}
	return &clean, nil
}

func setText(field func(*Update) *string) func(*Update, string) error {
	return func(u *Update, text string) error {
		if len(text) > maxUpdateText {
			return fmt.Errorf("has %d bytes, expected at most %d", len(text), maxUpdateText)
		}
		notPlain := func(r rune) bool { return !unicode.IsGraphic(r) || strings.ContainsRune("<>&", r) }
		if !utf8.ValidString(text) || strings.ContainsFunc(text, notPlain) || strings.TrimSpace(text) != text {
			return fmt.Errorf("is %q, expected one line of plain text without <, > and &", text)
		}
		*field(u) = text
		return nil
	}
}

func setTime(field func(*Update) *time.Time) func(*Update, string) error {
	return func(u *Update, text string) error {
		var t time.Time
		if err := t.UnmarshalText([]byte(text)); err != nil || t.IsZero() {
			return fmt.Errorf("is %q, expected a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z", text)
		}
		*field(u) = t.UTC()
		return nil
	}
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func setRollbackIndex(u *Update, text string) (err error) {
	u.RollbackIndex, err = parseDecimal([]byte(text))
	return err
}

func getRollbackIndex(u *Update) string {
	if u.RollbackIndex == 0 {
		return ""
	}
	return strconv.FormatInt(u.RollbackIndex, 10)
}

func setUnmapped(u *Update, text string) error {
	if text != UnmappedZero && text != UnmappedKeep {
		return fmt.Errorf("is %q, expected %s or %s", text, UnmappedZero, UnmappedKeep)
	}
	u.Unmapped = text
	return nil
}

func setImageChecksum(u *Update, text string) error {
	if _, err := hex.DecodeString(text); err != nil {
		return fmt.Errorf("is %q, expected hex digits", text)
	}
	u.ImageChecksum = strings.ToLower(text)
	return nil
}
