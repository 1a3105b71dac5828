package release_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"updater/release"
)

// The golden bytes are the definition: a change here changes the identity of every release in the field.
func TestIdentityGolden(t *testing.T) {
	r := parse(t, string(readFile(t, "release.toml")))
	one, two, three := strings.Repeat("1", 64), strings.Repeat("2", 64), strings.Repeat("3", 64)
	text := "18:release identity 1,7:acme-gw,9:2026.11.1,2:17," +
		"4:boot,1:A,64:" + one + ",4:boot,1:B,64:" + two + ",6:rootfs,0:,64:" + three + ","
	sum := sha256.Sum256([]byte(text))
	const golden = "510f1081ba635a9ceba247a6c6370296c2929938b100f1746f14ec4390d27842"
	if got := r.Identity(); got != hex.EncodeToString(sum[:]) || got != golden {
		t.Errorf("Identity() = %s; want sha256 of the text, %x, and %s", got, sum, golden)
	}
}

func TestIdentity(t *testing.T) {
	doc := small() + image("boot", "A") + image("boot", "B")
	base := parse(t, doc).Identity()
	last := image("boot", "B")
	images := strings.SplitAfterN(doc, "\n[[image]]", 2)
	for name, same := range map[string]string{
		"other dates":      strings.Replace(doc, "01-01T00:00:00Z", "02-02T00:00:00Z\nexpires = 2026-03-03T00:00:00Z\nnotes = \"n\"", 1),
		"other file names": strings.NewReplacer("r.img", "q.img", "r.bmap", "q.bmap").Replace(doc),
		"meta and keyring": doc + "[meta]\na = \"1\"\n[keyring]\nnumber = 1\npath = \"k\"\nsha256 = \"" + sumA + "\"\n",
		"hardware":         strings.Replace(doc, "version", "hardware = [\"1\"]\nversion", 1),
		"another order":    strings.TrimSuffix(images[0], "[[image]]") + last + "[[image]]" + strings.TrimSuffix(images[1], last),
	} {
		if got := parse(t, same).Identity(); got != base {
			t.Errorf("%s: Identity() = %s; want %s", name, got, base)
		}
	}
	seen := map[string]string{base: "base"}
	for name, other := range map[string]string{
		"product":  strings.Replace(doc, `product = "p"`, `product = "q"`, 1),
		"version":  strings.Replace(doc, `version = "1"`, `version = "2"`, 1),
		"index":    strings.Replace(doc, "rollback_index = 1", "rollback_index = 2", 1),
		"role":     strings.Replace(doc, "rootfs", "rootfs2", 1),
		"slots":    strings.NewReplacer("slot = \"A\"", "slot = \"C\"").Replace(doc),
		"checksum": strings.Replace(doc, sumA, sumB[1:]+"a", 1),
		"no slots": small() + image("boot", ""),
		// Fields that would read alike if they were only joined.
		"shifted product": strings.Replace(doc, `product = "p"`, `product = "p1:1,"`, 1),
		"shifted version": strings.NewReplacer(`version = "1"`, `version = "1,1:1"`).Replace(doc),
	} {
		got := parse(t, other).Identity()
		if seen[got] != "" {
			t.Errorf("%s: the identity is that of %s", name, seen[got])
		}
		seen[got] = name
	}
}

func TestBareIdentity(t *testing.T) {
	m, data := mapOf(t, updateElement("p", "1", 1, "rootfs"))
	sum := sumOf(data)
	bare, err := release.Bare(m, sum, "rootfs")
	if err != nil {
		t.Fatal(err)
	}
	if want := parse(t, small(sumA, sum)).Identity(); bare.Identity() != want {
		t.Errorf("Identity() of the bare map = %s; want that of its release, %s", bare.Identity(), want)
	}
	if bare.Encode() != nil || bare.Product() != "p" || bare.Order().RollbackIndex != 1 {
		t.Errorf("Bare() = %+v", bare.Contents())
	}
	images, err := bare.ForSlot("B", release.Layout{Slots: []string{"A", "B"}, Roles: []string{"rootfs"}})
	if err != nil || len(images) != 1 || images[0].BmapSHA256 != sum {
		t.Errorf("ForSlot() = %v, %v", images, err)
	}
	again, err := bare.Map(images[0], data)
	if err != nil || !bytes.Equal(again.Encode(), m.Encode()) {
		t.Errorf("Map() = %v, %v", again, err)
	}

	plain, data := mapOf(t, nil)
	nameless, err := release.Bare(plain, sumOf(data), "rootfs")
	want := sha256.Sum256([]byte("18:release identity 1,0:,0:,1:0,6:rootfs,0:,64:" + sumOf(data) + ","))
	if err != nil || nameless.Identity() != hex.EncodeToString(want[:]) {
		t.Errorf("Bare() without an update element: %v, %v", nameless.Identity(), err)
	}
	if _, err := release.Bare(m, sum, "boot"); !sameError(err, new(release.MapError)) {
		t.Errorf("Bare() for another role: %T %v", err, err)
	}
}
