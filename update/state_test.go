package update_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/release"
	"updater/update"
	"updater/verify"
)

// memory remembers in the device's journal. The real store runs in the tests of cmd/updater.
type memory struct {
	d       *device
	floor   int64
	records []update.Record
}

func (m *memory) Floor() int64 { return m.floor }

func (m *memory) Release(slot string) update.Record {
	for _, r := range slices.Backward(m.records) {
		if r.Slot == slot && (r.Outcome == update.OutcomeInstalled || r.Outcome == update.OutcomeBad) {
			return r
		} else if r.Slot == slot {
			break
		}
	}
	return update.Record{}
}

func (m *memory) Record(records ...update.Record) error {
	r := records[0]
	if err := m.d.op("record %s", r.Outcome); err != nil {
		return err
	}
	m.records = append(m.records, records...)
	return nil
}

func (m *memory) outcomes() string {
	var list []string
	for _, r := range m.records {
		list = append(list, string(r.Outcome))
	}
	return strings.Join(list, " ")
}

// TestRemembered: the release is recorded as being written before anything changes, and as whole before the switch.
func TestRemembered(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Product: "demo", Version: "7", RollbackIndex: 7}})
	d := newDevice(1 << 20)
	m := &memory{d: d, floor: 7}
	job := k.job(d)
	job.State = m
	res, err := update.Install(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	at := func(op string) int { return slices.Index(d.journal, op) }
	if w, i, b, a := at("record writing"), at("invalidate B"), at("record installed"), at("activate B 3"); w < 0 || i != w+1 || b < i || a != b+1 ||
		a != len(d.journal)-1 {
		t.Errorf("the order is %q", d.journal)
	}
	sum := sha256.Sum256(k.doc)
	last := m.records[len(m.records)-1]
	if m.outcomes() != "writing installed" || last.Slot != "B" || last.Role != "rootfs" || last.Version != "7" || last.RollbackIndex != 7 ||
		last.BmapChecksum != hex.EncodeToString(sum[:]) || !last.At.Equal(k.policy.Time) || time.Since(last.Signed) > time.Hour {
		t.Errorf("remembered is %+v", m.records)
	}
	if m.floor != 7 || res.Index != 7 || len(res.Warnings) != 0 {
		t.Errorf("floor %d, result %+v", m.floor, res)
	}
}

// TestRememberedFailures: an install that began is recorded as failed if any operation fails; one that cannot be recorded does
// not begin; and a slot that was read back whole stays recorded as whole.
func TestRememberedFailures(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for n := 1; ; n++ {
		d := newDevice(1 << 20)
		m := &memory{d: d}
		d.failAt = n
		job := k.job(d)
		job.State = m
		_, err := update.Install(t.Context(), job)
		if len(d.journal) < n {
			if err != nil || n < 10 {
				t.Fatalf("%d operations: %v", n-1, err)
			}
			return
		}
		failed := d.journal[n-1]
		if strings.HasPrefix(failed, "discard") {
			continue // advice; its error does not matter
		}
		if d.compares(n) {
			if err != nil || m.outcomes() != "writing installed" {
				t.Fatalf("the old content cannot be read: Install() = %v, remembered is %q", err, m.outcomes())
			}
			continue
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("%s failed: Install() = %v", failed, err)
		}
		want := "writing failed"
		switch {
		case strings.HasPrefix(failed, "open"), failed == "record writing":
			want = ""
			if slices.Contains(d.journal, "invalidate B") {
				t.Errorf("%s failed, and the slot was invalidated", failed)
			}
		case strings.HasPrefix(failed, "activate"):
			want = "writing installed"
		}
		if m.outcomes() != want {
			t.Errorf("%s failed: remembered is %q; want %q", failed, m.outcomes(), want)
		}
		if want == "writing failed" && !strings.Contains(m.records[1].Detail, "injected") {
			t.Errorf("%s failed: the detail is %q", failed, m.records[1].Detail)
		}
	}
}

// TestConditions: each field of the document against the device, and which error that is.
func TestConditions(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	full := bmap.Update{
		Product: "demo", Version: "7", RollbackIndex: 7, Role: "rootfs", Created: now.Add(-time.Hour), Expires: now.Add(time.Hour),
		Unmapped: bmap.UnmappedKeep, ImageChecksum: strings.Repeat("ab", 32),
	}
	for _, tc := range []struct {
		name string
		edit func(u *bmap.Update, c *update.Conditions)
		want string // type and part of the message
	}{
		{"all there", func(_ *bmap.Update, c *update.Conditions) { c.Require = update.Fields() }, ""},
		{"nothing there", func(u *bmap.Update, _ *update.Conditions) { *u = bmap.Update{} }, ""},
		{"nothing there, all required", func(u *bmap.Update, c *update.Conditions) { *u, c.Require = bmap.Update{}, update.Fields() },
			"incompatible: lacks Product, Version, RollbackIndex, Role, Created, Expires, Unmapped, ImageChecksum"},
		{"another product", func(u *bmap.Update, _ *update.Conditions) { u.Product = "other" }, `incompatible: for product "other"`},
		{"another role", func(u *bmap.Update, _ *update.Conditions) { u.Role = "kernel" }, `incompatible: its Role is "kernel"`},
		{"a device without a name", func(_ *bmap.Update, c *update.Conditions) { c.Product = "" }, `incompatible: this device is ""`},
		{"a host", func(u *bmap.Update, c *update.Conditions) {
			c.Product, c.Role, u.Product = update.AnyProduct, "", "other"
		}, ""},
		{"the last moment", func(u *bmap.Update, c *update.Conditions) { c.Policy.Time = u.Expires }, ""},
		{"expired", func(u *bmap.Update, c *update.Conditions) { c.Policy.Time = u.Expires.Add(time.Second) }, "expired: expired at"},
		{"expired, but in a slot already", func(u *bmap.Update, c *update.Conditions) { c.Policy.Time, c.Held = u.Expires.Add(time.Second), true }, ""},
		{"at the floor", func(_ *bmap.Update, c *update.Conditions) { c.Floor = 7 }, ""},
		{"below the floor", func(_ *bmap.Update, c *update.Conditions) { c.Floor = 8 }, "rollback: rollback index is 7; this device takes none below 8"},
		{"no index, a floor", func(u *bmap.Update, c *update.Conditions) { u.RollbackIndex, c.Floor = 0, 1 }, "rollback: has no rollback index"},
		{"a key for another role", func(_ *bmap.Update, c *update.Conditions) {
			c.Policy.Roles = map[string][]string{c.Policy.Keyring.Fingerprints()[0]: {"recovery"}}
		}, "signature: may sign only for recovery"},
		{"a key for this role", func(_ *bmap.Update, c *update.Conditions) {
			c.Policy.Roles = map[string][]string{c.Policy.Keyring.Fingerprints()[0]: {"recovery", "rootfs"}}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := full
			c := update.Conditions{Product: "demo", Role: "rootfs"}
			k := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &u})
			c.Policy = k.policy
			if tc.edit(&u, &c); u != full {
				edited := u
				policy := c.Policy
				k = newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &edited})
				c.Policy.Keyring, c.Policy.Roles = k.policy.Keyring, policy.Roles
			}
			doc, err := update.Accept(k.doc, k.sig, c)
			kind := ""
			switch {
			case as[*update.IncompatibleError](err), as[*release.MapError](err):
				kind = "incompatible"
			case as[*update.ExpiredError](err):
				kind = "expired"
			case as[*update.RollbackError](err):
				kind = "rollback"
			case as[*verify.SignatureError](err):
				kind = "signature"
			}
			wantKind, words, _ := strings.Cut(tc.want, ": ")
			if kind != wantKind || err != nil && (doc != nil || !strings.Contains(err.Error(), words)) {
				t.Fatalf("Accept() = %v; want %q", err, tc.want)
			}
			if err == nil && (len(doc.Warnings) == 0) != (u.RollbackIndex > 0) {
				t.Errorf("warnings are %q with index %d", doc.Warnings, u.RollbackIndex)
			}
		})
	}
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
