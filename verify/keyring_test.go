package verify_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"updater/verify"
)

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoadKeyring(t *testing.T) {
	l := newLab(t)
	alice, bob := l.export(t, "alice"), l.export(t, "bob")
	armor := func(name string) []byte { return l.gpg(t, jan2025, nil, "--armor", "--export", l.fpr[name]) }
	secret := l.gpg(t, jan2025, nil, "--export-secret-keys", l.fpr["alice"])
	secretArmor := l.gpg(t, jan2025, nil, "--armor", "--export-secret-keys", l.fpr["alice"])
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	tests := []struct {
		name  string
		files map[string][]byte
		paths []string // default "."
		keys  string   // names of the keys that are there
		want  string   // part of the error
	}{
		{name: "binary file", files: map[string][]byte{"a.gpg": alice}, paths: []string{"a.gpg"}, keys: "alice"},
		{name: "two in one binary file", files: map[string][]byte{"a.gpg": join(alice, bob)}, paths: []string{"a.gpg"}, keys: "alice bob"},
		{name: "armored", files: map[string][]byte{"a.asc": armor("alice")}, paths: []string{"a.asc"}, keys: "alice"},
		{name: "several armored blocks", files: map[string][]byte{"a.asc": join(armor("alice"), []byte("\n\n"), armor("bob"))}, paths: []string{"a.asc"},
			keys: "alice bob"},
		{name: "folder", files: map[string][]byte{"a.asc": armor("alice"), "b.gpg": bob, ".hidden": []byte("junk"), "deeper/x": []byte("junk")},
			keys: "alice bob"},
		{name: "file and folder", files: map[string][]byte{"a.gpg": alice, "d/b.gpg": bob}, paths: []string{"a.gpg", "d"}, keys: "alice bob"},
		{name: "the same twice", files: map[string][]byte{"a.gpg": alice, "b.gpg": alice}, keys: "alice"},
		{name: "gpg's own keyring file", files: map[string][]byte{"pubring.kbx": read(t, filepath.Join(l.home, "pubring.kbx"))}, want: "keybox"},
		{name: "empty folder", files: map[string][]byte{"d/.hidden": nil}, paths: []string{"d"}, want: "no key file"},
		{name: "empty file", files: map[string][]byte{"a.gpg": {}}, want: "a.gpg: file is empty"},
		{name: "junk", files: map[string][]byte{"a.gpg": alice, "README": []byte("hello\n")}, want: "README: not an OpenPGP certificate"},
		{name: "junk after a key", files: map[string][]byte{"a.gpg": append(slices.Clone(alice), "junk"...)}, want: "not an OpenPGP certificate"},
		{name: "text before armor", files: map[string][]byte{"a.asc": join([]byte("Alice:\n"), armor("alice"))}, want: "not an OpenPGP certificate"},
		{name: "text between armor", files: map[string][]byte{"a.asc": join(armor("alice"), []byte("Bob:\n"), armor("bob"))},
			want: "does not begin an armored block"},
		{name: "truncated", files: map[string][]byte{"a.gpg": alice[:len(alice)-3]}, want: "truncated"},
		{name: "truncated armor", files: map[string][]byte{"a.asc": armor("alice")[:200]}, want: "truncated"},
		{name: "damaged armor", files: map[string][]byte{"a.asc": bytes.Replace(armor("alice"), []byte("mDMEZ"), []byte("mDMEa"), 1)}, want: "checksum"},
		{name: "secret key", files: map[string][]byte{"a.gpg": secret}, want: "a.gpg: file holds a secret key"},
		{name: "secret key, armored", files: map[string][]byte{"a.asc": secretArmor}, want: "secret key"},
		{name: "secret key after a public one", files: map[string][]byte{"a.gpg": join(bob, secret)}, want: "secret key"},
		{name: "secret block after a public one", files: map[string][]byte{"a.asc": join(armor("bob"), secretArmor)}, want: "secret key"},
		{name: "a signature", files: map[string][]byte{"a.sig": l.sign(t, "alice", jan2025, testDoc)}, want: "before any public key"},
		{name: "an armored signature", files: map[string][]byte{"a.asc": l.sign(t, "alice", jan2025, testDoc, "--armor")}, want: `"PGP SIGNATURE"`},
		{name: "lone revocation", files: map[string][]byte{"a.rev": l.revocation(t, "alice")}, want: "lone revocation certificate"},
		{name: "key without user ID", files: map[string][]byte{"a.gpg": alice[:2+int(alice[1])]}, want: "without any identities"},
		{name: "too large", files: map[string][]byte{"a.gpg": make([]byte, verify.MaxKeyringSize+1)}, want: "larger than"},
		{name: "too large in all", files: map[string][]byte{"a.gpg": alice, "b.gpg": make([]byte, verify.MaxKeyringSize)},
			want: "b.gpg: keyring is larger than"},
		{name: "too large in all paths", files: map[string][]byte{"a.gpg": alice, "d/b.gpg": make([]byte, verify.MaxKeyringSize)}, paths: []string{"a.gpg", "d"},
			want: "b.gpg: keyring is larger than"},
		{name: "missing", paths: []string{"nowhere"}, want: "nowhere"},
		{name: "one of two missing", files: map[string][]byte{"a.gpg": alice}, paths: []string{"a.gpg", "nowhere"}, want: "nowhere"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range tc.files {
				writeFile(t, filepath.Join(dir, name), data)
			}
			paths := []string{dir}
			if tc.paths != nil {
				paths = nil
			}
			for _, p := range tc.paths {
				paths = append(paths, filepath.Join(dir, p))
			}
			k, err := verify.LoadKeyring(paths...)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || k != nil {
					t.Fatalf("LoadKeyring() = %v, %v; want an error with %q", k, err, tc.want)
				}
				if !strings.Contains(err.Error(), dir) {
					t.Errorf("LoadKeyring() = %q; want the path in it", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for name := range strings.FieldsSeq(tc.keys) {
				want = append(want, l.fpr[name])
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, k.Fingerprints()); diff != "" || k.Len() != len(want) {
				t.Errorf("Fingerprints() differ (-want +got):\n%s", diff)
			}
		})
	}
}

// A certificate that cannot be read is not trusted in any of its copies; the others are, and the keyring is never empty.
func TestBadCertificate(t *testing.T) {
	l := newLab(t)
	alice, bob := l.export(t, "alice"), l.export(t, "bob")
	bare := alice[:2+int(alice[1])] // without user ID
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.gpg"), bytes.Join([][]byte{bare, bob}, nil))
	writeFile(t, filepath.Join(dir, "b.gpg"), alice)
	k, err := verify.LoadKeyring(dir)
	if err != nil || !slices.Equal(k.Fingerprints(), []string{l.fpr["bob"]}) {
		t.Fatalf("LoadKeyring() = %v, %v; want bob alone", k, err)
	}
	policy := verify.Policy{Keyring: k, Time: now2025}
	got, err := policy.Verify(testDoc, l.sign(t, "alice", jan2025, testDoc))
	checkVerdict(t, got, err, nil, "not in the keyring")
	if claimed, err := policy.Claimed(l.sign(t, "alice", jan2025, testDoc)); err == nil {
		t.Errorf("Claimed() = %v", claimed)
	}
	if p := k.Problems(); len(p) != 1 || !strings.Contains(p[0], l.fpr["alice"]) || !strings.Contains(p[0], "a.gpg") {
		t.Errorf("Problems() = %q", p)
	}
	if only, err := k.Only(l.fpr["alice"], l.fpr["bob"]); err != nil || only.Len() != 1 || len(only.Problems()) != 1 {
		t.Errorf("Only() = %v, %v; want bob", only, err)
	}
	if only, err := k.Only(l.fpr["alice"]); err == nil {
		t.Errorf("Only() of a bad certificate = %v; want an error", only)
	}
	if _, err := verify.NewKeyring(bob, bare); err == nil {
		t.Error("NewKeyring() of a bad certificate succeeded")
	}
}

func TestLoadKeyringOddFiles(t *testing.T) {
	if _, err := verify.LoadKeyring(); err == nil {
		t.Error("LoadKeyring() without a path succeeded")
	}
	if _, err := verify.LoadKeyring("/proc/self/mem"); !errors.Is(err, syscall.EIO) { // a regular file that cannot be read
		t.Errorf("LoadKeyring(file that cannot be read) = %v", err)
	}
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := verify.LoadKeyring(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("LoadKeyring(folder with a FIFO) = %v", err)
	}
	os.Remove(filepath.Join(dir, "pipe"))
	cert := filepath.Join(t.TempDir(), "cert")
	writeFile(t, cert, goExport(t, certOf(t, ed)))
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(cert, "cert")
	if k, err := verify.LoadKeyring(dir); err != nil || k.Len() != 1 {
		t.Errorf("LoadKeyring(folder with a link) = %v, %v", k, err)
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to == cert {
			t.Errorf("LoadKeyring() left %s open: %s", to, fd)
		}
	}
	if err != nil || len(fds) == 0 {
		t.Errorf("descriptors: %v, %v", fds, err)
	}
	link(t.TempDir(), "folder")
	if _, err := verify.LoadKeyring(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("LoadKeyring(folder with a link to a folder) = %v", err)
	}
	os.Remove(filepath.Join(dir, "folder"))
	link("nowhere", "link")
	if _, err := verify.LoadKeyring(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadKeyring(folder with a dangling link) = %v", err)
	}
	for _, path := range []string{cert, dir} {
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := verify.LoadKeyring(path); os.Geteuid() != 0 && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("LoadKeyring(%s without permission) = %v", path, err)
		}
		os.Chmod(path, 0o700)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
