package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/internal/rig"
)

// TestS01 to TestS19 are the requirements from incidents of other updaters. They run the program on a disk
// image. This file has those about trust; input_test.go those about hostile input, host_test.go those
// about the device itself.

// TestS03EveryByteIsNamed: nothing is consumed that the signed document does not name, once, with a checksum.
func TestS03EveryByteIsNamed(t *testing.T) {
	r := rig.New(t)
	one := regexp.MustCompile(`(?m)^\s*<Range chksum="[0-9a-f]{64}">[^<]*</Range>\n`)
	checksum := regexp.MustCompile(`chksum="[0-9a-f]{64}"`)
	for _, tc := range []struct {
		name string
		edit func(text string) string
		code int
		want string
	}{
		{"no checksum", func(s string) string {
			return one.ReplaceAllStringFunc(s, func(l string) string { return strings.Replace(l, "chksum", "x", 1) })
		}, 1, "unknown attribute x"},
		{"one range without", func(s string) string { return strings.Replace(s, checksum.FindString(s), "", 1) }, 10, "a part of the image is not signed"},
		{"empty checksum", func(s string) string { return strings.Replace(s, checksum.FindString(s), `chksum=""`, 1) }, 1, "chksum"},
		{"short checksum", func(s string) string { return strings.Replace(s, checksum.FindString(s), `chksum="ab"`, 1) }, 1, "chksum"},
		{"a range twice", func(s string) string { l := one.FindString(s); return strings.Replace(s, l, l+l, 1) }, 1, "starts at block"},
		{"a range left out", func(s string) string { return strings.Replace(s, one.FindString(s), "", 1) }, 1, "MappedBlocksCount"},
		{"an unknown attribute", func(s string) string { return strings.Replace(s, `<Range `, `<Range file="x" `, 1) }, 1, "file"},
		{"an unknown field", func(s string) string {
			return strings.Replace(s, "<BlockMap>", "<Update><Path>../x</Path></Update>\n<BlockMap>", 1)
		}, 1, "Path"},
		{"weak checksums", func(s string) string {
			return checksum.ReplaceAllString(strings.Replace(s, "sha256", "sha1", 1), `chksum="`+strings.Repeat("a", 40)+`"`)
		}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &rig.Rig{T: t, Dir: r.Dir, Env: r.Env, Program: r.Program}
			r.Edited("x.bmap", tc.edit)
			r.Refused(tc.code, tc.want, "--bmap", "x.bmap", "image.img")
		})
	}
	r.Sh(`cp --sparse=always image.img long.img; printf x >> long.img; zstd -q long.img`)
	r.Install(10, "the bmap says", "--bmap", "image.img.bmap", "long.img")
	if r.Install(13, "continues after its expected end", "--bmap", "image.img.bmap", "long.img.zst"); r.Next() != "A" {
		t.Error("an image with a byte that is not signed was switched to")
	}
}

// TestS04MetadataIsSigned: no field of the document can be changed, added or removed under the same signature.
func TestS04MetadataIsSigned(t *testing.T) {
	r := rig.New(t)
	r.Bmap("m.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7", "--role", "rootfs", "--expires", "2090-01-01T00:00:00Z")
	good := string(r.Read("m.bmap"))
	for _, change := range [][2]string{
		{"<Product> demo", "<Product> Demo"}, {"<Version> 7", "<Version> 8"}, {"<RollbackIndex> 7", "<RollbackIndex> 8"}, {"rootfs", "kernel"},
		{"2090", "2099"}, {"<Update>", "<Update><Unmapped>keep</Unmapped>"}, {"<Update>", "<!-- --><Update>"}, {"\n", "\r\n"}, {"</bmap>\n", "</bmap>"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%q is not in the document", change[0])
		}
		r.Write("m.bmap", []byte(rig.Resum(text)))
		r.Refused(10, "not over this document", "--bmap", "m.bmap", "image.img")
	}
	r.Write("m.bmap", []byte(good))
	r.Install(0, "installed version 7", "--bmap", "m.bmap", "image.img")
}

// TestS05FailClosed: without a key, a keyring or a signature nothing is installed.
func TestS05FailClosed(t *testing.T) {
	r := rig.New(t)
	r.Sh(`mkdir empty hidden junk fifo; touch hidden/.release.asc none.gpg nosig.sig; cp keys/release.asc junk/; echo junk > junk/README; mkfifo fifo/pipe
		cp image.img.bmap bare.bmap`)
	for _, keyring := range []string{`[]`, `["empty"]`, `["hidden"]`, `["junk"]`, `["fifo"]`, `["none.gpg"]`, `["nowhere"]`, `["keys", "nowhere"]`, `["image.img.bmap.asc"]`, `["other.asc"]`} {
		text := strings.Replace(rig.Configs["grub"], `["keys"]`, keyring, 1)
		r.Write("config.toml", []byte(text))
		r.Refused(10, "updater: hint: ", "image.img")
	}
	r.Write("config.toml", []byte(strings.Replace(rig.Configs["grub"], `keyring = ["keys"]`, "", 1)))
	r.Refused(10, "no keyring is configured", "image.img")
	r.Configure("", "")
	for _, tc := range [][]string{
		{"is not signed", "--bmap", "bare.bmap", "image.img"},
		{"signature file is empty", "--sig", "nosig.sig", "image.img"},
		{"not in the keyring", "--sig", "other.sig", "image.img"},
		{"does not begin an OpenPGP packet", "--sig", "image.img", "image.img"},
	} {
		expectRefusal(r, tc[0], tc[1:]...)
	}
	r.Refused(1, "no such file", "--sig", "nowhere.sig", "image.img")
	if os.Getuid() != 0 { // root reads everything
		r.Sh("chmod 000 keys/release.asc")
		r.Refused(10, "permission denied", "image.img")
	}
}

// expectRefusal expects exit 10, or 1 for a signature that is too large to be read at all.
func expectRefusal(r *rig.Rig, words string, args ...string) {
	r.Helper()
	code, out, errs := r.Run(append([]string{"install", "--config", "config.toml"}, args...)...)
	if code != 10 && code != 1 || !strings.Contains(out+errs, words) && code == 10 {
		r.Errorf("install %v: exit %d; want a refusal with %q:\n%s%s", args, code, words, out, errs)
	}
	r.Pristine()
}

func fingerprint(r *rig.Rig, key string) string {
	r.Helper()
	return strings.TrimSpace(r.Sh(`gpg --batch --with-colons --list-keys $0@example.com 2>/dev/null | awk -F: '$1=="fpr"{print $10; exit}'`, key))
}

// TestS06PinnedKeys: full fingerprints, roles and a threshold of distinct primary keys.
func TestS06PinnedKeys(t *testing.T) {
	r := rig.New(t)
	r.Sh("cp other.asc keys/")
	rel, other := fingerprint(r, "release"), fingerprint(r, "other")
	key := func(fpr, roles string) string { return "\n[[trust.key]]\nfingerprint = \"" + fpr + "\"\n" + roles }
	r.Bmap("both.bmap", []string{"release", "other"})
	r.Bmap("rel.bmap", rig.Release)
	r.Bmap("other.bmap", []string{"other"})
	r.Sh("cat rel.bmap.sig rel.bmap.sig > twice.sig")
	for _, tc := range []struct {
		name, tables string
		code         int
		want         string
		args         []string
	}{
		{"another key than the pinned", key(rel, ""), 10, "not in the keyring", []string{"--bmap", "other.bmap"}},
		{"the pinned key", key(rel, ""), 0, "", []string{"--bmap", "rel.bmap"}},
		{"a pin that is not in the keyring", key(strings.Repeat("A", 40), ""), 10, "the keyring has no key", []string{"--bmap", "rel.bmap"}},
		{"a pin holds for --keyring too", key(rel, ""), 10, "the keyring has no key", []string{"--keyring", "other.asc", "--bmap", "other.bmap"}},
		{"a key ID as pin", key(rel[24:], ""), 2, "not a full fingerprint", []string{"--bmap", "rel.bmap"}},
		{"two must sign, one did", "\n[trust]\nmin_signers = 2\n", 10, "1 of the trusted keys signed, 2 must", []string{"--bmap", "rel.bmap"}},
		{"two must sign, one did twice", "\n[trust]\nmin_signers = 2\n", 10, "1 of the trusted keys signed, 2 must", []string{"--bmap", "rel.bmap", "--sig", "twice.sig"}},
		{"two must sign, two did", "\n[trust]\nmin_signers = 2\n", 0, "", []string{"--bmap", "both.bmap"}},
		{"more than the keyring has", "\n[trust]\nmin_signers = 3\n", 10, "asks for 3 signers, but the keyring has 2", []string{"--bmap", "both.bmap"}},
		{"a recovery key for rootfs", key(rel, "") + key(other, `roles = ["recovery"]`), 10, `may sign only for recovery`, []string{"--bmap", "other.bmap"}},
		{"a recovery key does not count for rootfs", "\n[trust]\nmin_signers = 2\n" + key(rel, "") + key(other, `roles = ["recovery"]`), 10, "1 of the keys that signed may sign for this role", []string{"--bmap", "both.bmap"}},
		{"a channel's key for a bare map", key(rel, "") + key(other, `documents = ["channel"]`), 10, `may sign only for channel`, []string{"--bmap", "other.bmap"}},
		{"a key for bare maps", key(rel, `documents = ["channel"]`) + key(other, `documents = ["bmap"]`), 0, "", []string{"--bmap", "other.bmap"}},
		{"an unknown type of document", key(rel, `documents = ["image"]`), 2, `documents has "image"`, []string{"--bmap", "rel.bmap"}},
		{"no type of document", key(rel, `documents = []`), 2, "documents is empty", []string{"--bmap", "rel.bmap"}},
		{"a role that two must sign", "\n[trust]\nrole_signers = { rootfs = 2 }\n", 10, "2 must", []string{"--bmap", "rel.bmap"}},
		{"two signers of a role", "\n[trust]\nrole_signers = { rootfs = 2 }\n", 0, "", []string{"--bmap", "both.bmap"}},
		{"no signer of a role", "\n[trust]\nrole_signers = { rootfs = 0 }\n", 2, "expected 1 to 16", []string{"--bmap", "rel.bmap"}},
		{"beside one that may", key(rel, `roles = ["rootfs"]`) + key(other, `roles = ["recovery"]`), 0, "", []string{"--bmap", "both.bmap"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &rig.Rig{T: t, Dir: r.Dir, Env: r.Env, Program: r.Program}
			r.Configure("", tc.tables)
			if r.Install(tc.code, tc.want, append(tc.args, "image.img")...); tc.code == 0 {
				r.Sh("cp --sparse=always disk.orig disk.img")
				return
			}
			r.Pristine()
		})
	}
}

// TestS07NoOtherProgram: a gpg in PATH is not run, and its home is not read.
func TestS07NoOtherProgram(t *testing.T) {
	r := rig.New(t)
	r.Sh(`mkdir bin; for p in gpg gpgv gpg2 sh dd fw_setenv grub-editenv; do printf '#!/bin/bash\ntouch "%s/ran"\necho "[GNUPG:] GOODSIG"\n' "$PWD" > bin/$p; chmod +x bin/$p; done`)
	for _, args := range [][]string{{"--sig", "other.sig", "image.img"}, {"image.img"}} {
		cmd := r.Command(append([]string{"install", "--config", "config.toml"}, args...)...)
		cmd.Env = []string{"PATH=" + r.Path("bin"), "GNUPGHOME=" + r.Path("nowhere")}
		if out, err := cmd.CombinedOutput(); (err == nil) != (len(args) == 1) {
			t.Errorf("install %v: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(r.Path("ran")); err == nil {
		t.Error("another program was run")
	}
}

// TestS08Clearsign: only the signed text is parsed; every byte around it and every other spelling is refused.
func TestS08Clearsign(t *testing.T) {
	r := rig.New(t)
	good := string(r.Read("clear.bmap"))
	evil := strings.Replace(string(r.Read("image.img.bmap")), "<ImageSize> 8", "<ImageSize> 7", 1)
	signature := good[strings.Index(good, "-----BEGIN PGP SIG"):]
	for name, doc := range map[string]string{
		"text before it":             evil + good,
		"a newline before it":        "\n" + good,
		"text after it":              good + evil,
		"two documents":              good + good,
		"text among its headers":     strings.Replace(good, "\n\n", "\n"+evil+"\n", 1),
		"a blank header":             strings.Replace(good, "\n\n", "\n \n\n", 1),
		"an unsigned part":           strings.Replace(good, "<?xml", evil+"<?xml", 1),
		"NUL":                        strings.Replace(good, "<bmap", "\x00<bmap", 1),
		"form feed":                  strings.Replace(good, "<bmap", "\f<bmap", 1),
		"CR":                         strings.Replace(good, "<bmap", "\r<bmap", 1),
		"CRLF":                       strings.ReplaceAll(good, "\n", "\r\n"),
		"a blank at a line's end":    strings.Replace(good, "?>\n", "?> \n", 1),
		"an escape without a reason": strings.Replace(good, "<?xml", "- <?xml", 1),
		"a dash that is not escaped": strings.Replace(good, "<?xml", "-<?xml", 1),
		"a weaker hash":              regexp.MustCompile(`Hash: SHA\d+`).ReplaceAllString(good, "Hash: SHA1"),
		"a detached signature in it": strings.Replace(good, signature, string(r.Read("image.img.bmap.asc")), 1),
		"no signature":               strings.Replace(good, signature, "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig.Rig{T: t, Dir: r.Dir, Env: r.Env, Program: r.Program}
			if doc == good {
				t.Fatal("nothing was changed")
			}
			r.Write("c.bmap", []byte(doc))
			r.Refused(10, "", "--bmap", "c.bmap", "image.img")
		})
	}
	r.Refused(10, "", "--bmap", "clear.bmap", "--sig", "image.sig", "image.img")
	r.Refused(10, "clearsigned document", "--sig", "clear.bmap", "image.img")
	r.Install(0, "", "--bmap", "clear.bmap", "image.img")
}

// TestS09Algorithms: weak, obsolete and unknown algorithms are refused, and the configuration only raises the minimum, with one exception.
func TestS09Algorithms(t *testing.T) {
	r := rig.New(t)
	r.Sh(`for a in rsa2048 rsa3072; do
			gpg -q --batch --passphrase '' --quick-generate-key "$a <$a@example.com>" $a sign never 2>/dev/null || true
			gpg -q --export $a@example.com > keys/$a.gpg
		done
		s() { gpg -q --batch -u $1@example.com "${@:3}" --detach-sign -o $2.sig image.img.bmap; }
		s release sha1 --digest-algo SHA1; s release sha224 --digest-algo SHA224; s release text --textmode
		s release critical --sig-notation '!x@example.com=y'; s release sha256 --digest-algo SHA256; s release sha512 --digest-algo SHA512
		s rsa2048 rsa2048; s rsa3072 rsa3072
		{ cat image.sig; head -c 65536 /dev/zero; } > long.sig`)
	for _, tc := range []struct {
		sig, trust string
		code       int
		want       string
	}{
		{"sha1", "", 10, "hash is sha1"},
		{"sha224", "", 10, "hash is sha224"},
		{"text", "", 10, "text-mode"},
		{"critical", "", 10, "critical notation"},
		{"long", "", 1, "longer than 65536 bytes"},
		{"rsa2048", "", 10, "RSA key of 2048 bits, expected at least 3072"},
		{"rsa2048", "allow_rsa2048 = true", 0, ""},
		{"rsa3072", "", 0, ""},
		{"rsa3072", "min_rsa_bits = 4096", 10, "expected at least 4096"},
		{"rsa3072", "min_rsa_bits = 2048", 2, "expected 3072 to 16384"},
		{"sha256", "min_hash_bits = 512", 10, "asks for 512 bits"},
		{"sha512", "min_hash_bits = 512", 0, ""},
		{"sha512", "min_hash_bits = 160", 2, "expected 256, 384 or 512"},
	} {
		t.Run(tc.sig+" "+tc.trust, func(t *testing.T) {
			r := &rig.Rig{T: t, Dir: r.Dir, Env: r.Env, Program: r.Program}
			r.Configure("", "\n[trust]\n"+tc.trust+"\n")
			if r.Install(tc.code, tc.want, "--sig", tc.sig+".sig", "image.img"); tc.code == 0 {
				r.Sh("cp --sparse=always disk.orig disk.img")
				return
			}
			r.Pristine()
		})
	}
}

// TestS14FreshAndForThisDevice: product, role, expiry and rollback index are enforced; the floor rises only when a slot is
// marked good, and survives the loss of either copy.
func TestS14FreshAndForThisDevice(t *testing.T) {
	r := rig.New(t)
	const stateLine = `state = "PARTLABEL=state"`
	r.Configure(stateLine, "")
	r.Bmap("product.bmap", rig.Release, "--product", "other")
	r.Bmap("role.bmap", rig.Release, "--role", "kernel")
	r.Bmap("expired.bmap", rig.Release, "--expires", "2020-01-01T00:00:00Z")
	for name, code := range map[string]int{"product": 11, "role": 11, "expired": 12} {
		r.Refused(code, "", "--bmap", name+".bmap", "image.img")
	}
	for i := 5; i <= 8; i++ {
		r.Bmap(fmt.Sprintf("i%d.bmap", i), rig.Release, "--product", "demo", "--version", fmt.Sprint("v", i), "--rollback-index", fmt.Sprint(i))
	}
	floor := func() int {
		t.Helper()
		var s struct {
			Floor int `json:"rollback_floor"`
		}
		_, out, errs := r.Run("status", "--config", "config.toml", "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("status: %v: %s%s", err, out, errs)
		}
		return s.Floor
	}
	wantFloor := func(want int, when string) {
		t.Helper()
		if got := floor(); got != want {
			t.Errorf("%s the floor is %d; want %d", when, got, want)
		}
	}
	r.Expect(0, "is new: nothing was installed by this program yet, and the floor is 0", "status", "--config", "config.toml")
	r.Install(0, "", "--bmap", "i6.bmap", "image.img")
	wantFloor(0, "after an install")
	r.Install(0, "", "--bmap", "i5.bmap", "image.img")
	r.Install(0, "", "--bmap", "i7.bmap", "image.img")
	r.Expect(0, "rootfs v7 (installed ", "status", "--config", "config.toml")
	r.Sh("grub-editenv /dev/null list >/dev/null 2>&1 || true; mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set B_TRY=1; mcopy -o -i disk.img@@1M e ::/grub/grubenv")
	r.Sh(`sed -i 's/booted = "A"/booted = "B"/' config.toml`) // it booted
	wantFloor(0, "after a boot")
	r.Expect(0, "slot B is good", "mark", "good", "--config", "config.toml")
	wantFloor(7, "after mark good")
	r.Expect(0, "rootfs v7 (good ", "status", "--config", "config.toml")
	r.Sh("cp --sparse=always disk.img disk.orig")
	r.Refused(12, "rollback index is 6; this device takes none below 7", "--bmap", "i6.bmap", "image.img")
	r.Refused(12, "has no rollback index; this device takes none below 7", "image.img")
	r.Expect(12, "below 7", "verify", "--config", "config.toml", "--bmap", "i6.bmap")
	r.Refused(3, "is running in slot B", "--bmap", "i7.bmap", "image.img")
	r.Install(0, "", "--bmap", "i8.bmap", "image.img")
	wantFloor(7, "after an install of 8")

	// Half of the state partition is lost, then the other half, then both.
	whole := r.Read("disk.img")
	at := bytes.Index(whole, []byte("UPDSTATE"))
	second := bytes.LastIndex(whole, []byte("UPDSTATE"))
	if at < 0 || second-at != 512<<10 {
		t.Fatalf("the copies lie at %d and %d", at, second)
	}
	for _, lost := range []int{at, second} {
		harmed := bytes.Clone(whole)
		copy(harmed[lost:], make([]byte, 4096))
		r.Write("disk.img", harmed)
		wantFloor(7, "with one copy lost")
		r.Expect(0, "the other one counts", "status", "--config", "config.toml")
		r.Install(12, "below 7", "--bmap", "i6.bmap", "image.img")
	}
	clear(whole[at : at+4096])
	copy(whole[second:], "noise")
	r.Write("disk.img", whole)
	r.Configure(stateLine, "\n[release]\nversion = \"v6\"\nrollback_index = 6\n")
	r.Sh(`sed -i 's/booted = "A"/booted = "B"/' config.toml`)
	r.Expect(0, "copies are lost", "status", "--config", "config.toml")
	wantFloor(6, "with both copies lost")
	r.Install(12, "below 6", "--bmap", "i5.bmap", "image.img")
	said := r.Install(0, "updater: warning: the state store", "--bmap", "i6.bmap", "image.img")
	if !strings.Contains(said, "slot A boots next") {
		t.Errorf("a device that lost its state does not update:\n%s", said)
	}
	wantFloor(6, "after it was written again")
}

// TestRequiredFields: by default a plain bmap is accepted with a warning; the configuration can require more.
func TestRequiredFields(t *testing.T) {
	r := rig.New(t)
	r.Bmap("full.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7", "--role", "rootfs", "--expires", "2090-01-01T00:00:00Z")
	for _, tc := range []struct {
		trust, bmap string
		code        int
		want        string
	}{
		{"", "image.img.bmap", 0, "no rollback protection applies"},
		{"require_metadata = true", "image.img.bmap", 11, "lacks Product, RollbackIndex"},
		{"require_metadata = true", "full.bmap", 0, "installed version 7"},
		{`require = ["expires"]`, "image.img.bmap", 11, "lacks Expires"},
		{`require = ["expires", "role", "version"]`, "full.bmap", 0, ""},
		{`require = ["image_checksum"]`, "full.bmap", 11, "lacks ImageChecksum"},
		{`require = ["colour"]`, "full.bmap", 2, `trust.require has "colour"`},
	} {
		r.Configure("", "\n[trust]\n"+tc.trust+"\n")
		r.Install(tc.code, tc.want, "--bmap", tc.bmap, "image.img")
		if tc.code != 0 {
			r.Pristine()
		}
		r.Sh("cp --sparse=always disk.orig disk.img")
	}
}

// TestWholeImageChecksum: the signed checksum of the whole image is compared before the switch.
func TestWholeImageChecksum(t *testing.T) {
	r := rig.New(t)
	sum := strings.Fields(r.Sh("sha256sum image.img"))[0]
	r.Bmap("good.bmap", rig.Release, "--image-checksum")
	if !strings.Contains(string(r.Read("good.bmap")), sum) {
		t.Errorf("bmap create --image-checksum did not sign %s", sum)
	}
	r.Edited("bad.bmap", func(s string) string {
		return strings.Replace(s, "<BlockMap>", "<Update><ImageChecksum> "+strings.Repeat("ab", 32)+" </ImageChecksum></Update>\n<BlockMap>", 1)
	})
	for name, want := range map[string]int{"good.bmap": 0, "bad.bmap": 10} {
		r.Install(want, "", "--bmap", name, "image.img")
		if got := r.Next(); (got == "B") != (want == 0) {
			t.Errorf("%s: slot %s boots next", name, got)
		}
		r.Expect(want, "", "verify", "--config", "config.toml", "--bmap", name, "image.img")
		r.Sh("cp --sparse=always disk.orig disk.img")
	}
	r.Expect(2, "needs a --checksum of", "bmap", "create", "--checksum", "sha1", "--image-checksum", "image.img")
}

// TestVerdict: verify reports the key and time of a signature, and the reason of a refusal, as text and as JSON, and changes nothing.
func TestVerdict(t *testing.T) {
	r := rig.New(t)
	before := r.Files()
	type verdictJSON struct {
		Trusted bool `json:"trusted"`
		Signers []struct {
			Fingerprint string `json:"fingerprint"`
			UserID      string `json:"user_id"`
			Time        string `json:"time"`
			Algorithm   string `json:"algorithm"`
		} `json:"signers"`
		Refused *struct {
			Code               int
			Reason, Hint, Time string
			KeyID              string `json:"key_id"`
		} `json:"refused"`
	}
	ask := func(want int, args ...string) (v verdictJSON) {
		t.Helper()
		code, out, errs := r.Run(append([]string{"verify", "--json", "--config", "config.toml"}, args...)...)
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != want {
			t.Fatalf("verify %v: exit %d, %v: %s%s", args, code, err, out, errs)
		}
		return v
	}
	v := ask(0, "--bmap", "image.img.bmap")
	if !v.Trusted || len(v.Signers) != 1 || v.Signers[0].Fingerprint != fingerprint(r, "release") || v.Signers[0].Algorithm != "ed25519" || v.Signers[0].Time == "" || v.Refused != nil {
		t.Errorf("verdict is %+v", v)
	}
	v = ask(10, "--bmap", "image.img.bmap", "--sig", "other.sig")
	if v.Trusted || len(v.Signers) != 0 || v.Refused == nil || v.Refused.Code != 10 || v.Refused.KeyID != fingerprint(r, "other")[24:] || v.Refused.Time == "" || v.Refused.Hint == "" {
		t.Errorf("verdict is %+v", v)
	}
	r.Expect(0, "release@example.com", "verify", "--config", "config.toml", "--bmap", "image.img.bmap")
	r.Expect(10, "not in the keyring", "verify", "--config", "config.toml", "--bmap", "image.img.bmap", "--sig", "other.sig")
	if after := r.Files(); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("verify changed files:\n%v\n%v", before, after)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "env.cur")); err == nil {
		t.Error("verify left a file")
	}
}
