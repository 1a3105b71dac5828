package release_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"updater/release"
)

func newChannel(t testing.TB) *release.Channel {
	t.Helper()
	c, err := release.NewChannel(release.ChannelContents{Product: "p", Channel: "stable", Created: signedAt, Expires: signedAt.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChannelLife(t *testing.T) {
	first, second := parse(t, small()), parse(t, small(`version = "1"`, `version = "2"`, "rollback_index = 1", "rollback_index = 2"))
	half := &release.Rollout{Start: signedAt, Percent: 50, Hours: 24}
	c := newChannel(t)
	step := func(next *release.Channel, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c = next
	}
	step(c.With(first, release.Publication{Path: "1/release.toml"}))
	step(c.With(second, release.Publication{Path: "2/release.toml", FromIndex: 1, Rollout: half}))
	withdrawn, n, err := c.Withdraw("2")
	if n != 1 {
		t.Errorf("Withdraw() of a version = %d", n)
	}
	step(withdrawn, err)
	entries := c.Contents().Releases
	want := []release.Entry{
		{Identity: first.Identity(), Version: "1", RollbackIndex: 1, Path: "1/release.toml", Attempt: 1},
		{Identity: second.Identity(), Version: "2", RollbackIndex: 2, Path: "2/release.toml", FromIndex: 1, Attempt: 1, Withdrawn: true, Rollout: half},
	}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("releases (-want +got):\n%s", diff)
	}
	// The same release again: another attempt, the same place and rollout, no longer withdrawn.
	step(c.With(second, release.Publication{Path: "2b/release.toml", Attempt: 2}))
	want[1].Path, want[1].Attempt, want[1].Withdrawn = "2b/release.toml", 2, false
	if diff := cmp.Diff(want, c.Contents().Releases); diff != "" {
		t.Errorf("releases (-want +got):\n%s", diff)
	}
	for i, r := range []*release.Release{first, second} {
		if err := c.Check(want[i], r); err != nil {
			t.Errorf("Check() = %v", err)
		}
	}
	if _, n, err := c.Withdraw("3"); n != 0 || err != nil {
		t.Errorf("Withdraw() of an unknown version = %d, %v", n, err)
	}
	if _, n, _ := c.Withdraw(first.Identity()); n != 1 {
		t.Errorf("Withdraw() of an identity = %d", n)
	}
}

func TestChannelChecksReleases(t *testing.T) {
	r := parse(t, small())
	c, err := newChannel(t).With(r, release.Publication{Path: "r"})
	if err != nil {
		t.Fatal(err)
	}
	e := c.Contents().Releases[0]
	for field, doc := range map[string]string{
		"product":        small(`product = "p"`, `product = "q"`),
		"version":        small(`version = "1"`, `version = "2"`),
		"rollback index": small("rollback_index = 1", "rollback_index = 2"),
		"identity":       small(sumA, sumB),
	} {
		err := c.Check(e, parse(t, doc))
		if got, ok := errors.AsType[*release.EntryError](err); !ok || got.Field != field {
			t.Errorf("Check() of another %s = %T %v", field, err, err)
		}
	}
	if _, err := c.With(parse(t, small(`product = "p"`, `product = "q"`)), release.Publication{Path: "r"}); !sameError(err, new(release.EntryError)) {
		t.Errorf("With() of another product = %T %v", err, err)
	}
	for name, p := range map[string]release.Publication{
		"path upwards": {Path: "../r"}, "no path": {}, "stepping stone above itself": {Path: "r", FromIndex: 2},
		"rollout": {Path: "r", Rollout: &release.Rollout{Start: signedAt, Percent: 101}},
	} {
		if _, err := c.With(r, p); !sameError(err, new(release.SyntaxError)) {
			t.Errorf("%s: With() = %T %v", name, err, err)
		}
	}
}

func TestRenew(t *testing.T) {
	c := newChannel(t)
	for _, tc := range []struct{ now, want time.Time }{
		{signedAt.Add(90*time.Minute + time.Millisecond), signedAt.Add(90 * time.Minute)},
		{signedAt, signedAt.Add(time.Second)},
		{signedAt.AddDate(-1, 0, 0), signedAt.Add(time.Second)},
	} {
		got, err := c.Renew(tc.now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if s := got.Contents(); !s.Created.Equal(tc.want) || !s.Expires.Equal(tc.want.Add(time.Hour)) {
			t.Errorf("Renew(%s) is created %s, expires %s; want %s", tc.now, s.Created, s.Expires, tc.want)
		}
	}
	if _, err := c.Renew(signedAt, 0); err == nil || !strings.Contains(err.Error(), "expires") {
		t.Errorf("Renew() for no time = %v", err)
	}
}
