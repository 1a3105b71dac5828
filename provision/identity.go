package provision

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/diskfs/go-diskfs/filesystem"
)

// certificatePatience is how long a certificate may take to come into the folder of the station.
const certificatePatience = 60 * time.Second

// serialFile holds the serial in every identity partition, so that a run finds what an earlier one gave.
const serialFile = "serial"

// held is what an earlier run left in an identity partition.
type held struct {
	Serial string
	Key    []byte // PEM
	Latch  []byte
	Files  map[string][]byte
}

// readHeld reads an identity partition as an earlier run left it. Anything unreadable counts as not there: a blank
// medium is the usual case.
func (id *IdentityRule) readHeld(w Window) held {
	from, err := openFilesystem(w)
	if err != nil {
		return held{}
	}
	get := func(name string) []byte {
		data, err := getFile(from, name)
		if err != nil {
			return nil
		}
		return data
	}
	h := held{Latch: get(latchFile), Files: map[string][]byte{}}
	if serial := string(get(serialFile)); id.Serial.Check(serial) == nil {
		h.Serial = serial
	}
	if id.Key != nil {
		h.Key = get(id.Key.File)
		h.Files[id.Key.File] = h.Key
		if name := id.Key.Certificate; name != "" {
			h.Files[name] = get(name)
		}
	}
	return h
}

// Identity is what a device got.
type Identity struct {
	Serial      string
	Variables   map[string]string
	Key         string // fingerprint of its public key, "" without one
	Certificate string // serial number of its certificate, hex, "" without one
	Files       map[string][]byte
}

// write gives a device its identity: file system, key, certificate and files, durable and read back. A key that an
// interrupted run left for the same serial is kept, and so is its certificate. The private key is made here and goes
// nowhere else.
func (id *IdentityRule) write(ctx context.Context, web *Web, w Window, r Reservation, before held) (*Identity, error) {
	out := &Identity{Serial: r.Serial, Variables: r.Variables, Files: map[string][]byte{serialFile: []byte(r.Serial)}}
	if before.Serial != r.Serial {
		before = held{}
	}
	var key crypto.Signer
	if id.Key != nil {
		var err error
		if key, err = id.key(out, before); err != nil {
			return nil, err
		}
	}
	if err := id.expandFiles(out); err != nil {
		return nil, err
	}
	fs, err := id.place(w, out.Files, before)
	if err != nil {
		return nil, err
	}
	// The key is on stable storage before anyone certifies it.
	if err := w.Medium.Sync(); err != nil {
		return nil, err
	}
	if id.Key != nil && id.Key.Certificate != "" {
		cert, err := id.certify(ctx, web, out, key, before)
		if err != nil {
			return nil, err
		}
		if err := putFiles(fs, map[string][]byte{id.Key.Certificate: cert}); err != nil {
			return nil, err
		}
		if err := w.Medium.Sync(); err != nil {
			return nil, err
		}
	}
	return out, compareFiles(w, out.Files)
}

// place makes the file system with its files. One that holds the device's key is kept, and only what differs is written,
// so that the next power cut does not cost the key either. An old latch stays until the new one replaces it.
func (id *IdentityRule) place(w Window, files map[string][]byte, before held) (filesystem.FileSystem, error) {
	if before.Key != nil {
		if fs, err := openFilesystem(w); err == nil && id.update(fs, files) == nil {
			return fs, nil
		}
	}
	fs, err := makeFilesystem(w, "IDENTITY")
	if err != nil {
		return nil, err
	}
	return fs, putFiles(fs, files)
}

// update makes the files of a file system those that are planned; the certificate comes later. A file that is none of
// them is an error.
func (id *IdentityRule) update(fs filesystem.FileSystem, files map[string][]byte) (err error) {
	defer guard(&err)
	entries, err := fs.ReadDir(".")
	if err != nil {
		return err
	}
	changed := maps.Clone(files)
	for _, e := range entries {
		name := e.Name()
		data, err := getFile(fs, name)
		want, planned := files[name]
		switch {
		case !planned && name != id.Key.Certificate && name != latchFile:
			return fmt.Errorf("%s is not planned", name)
		case err == nil && planned && bytes.Equal(data, want):
			delete(changed, name)
		}
	}
	return putFiles(fs, changed)
}

// key takes the key that is there, or makes one.
func (id *IdentityRule) key(out *Identity, before held) (crypto.Signer, error) {
	pem := before.Key
	key, err := ParseKey(pem)
	if err != nil {
		if pem, err = newKey(id.Key.Type); err != nil {
			return nil, fmt.Errorf("making the device's key: %w", err)
		}
		if key, err = ParseKey(pem); err != nil {
			return nil, err
		}
	}
	out.Files[id.Key.File] = pem
	out.Key = Fingerprint(key.Public())
	return key, nil
}

// certify keeps a certificate that fits, or gets a new one.
func (id *IdentityRule) certify(ctx context.Context, web *Web, out *Identity, key crypto.Signer, before held) ([]byte, error) {
	pem := before.Files[id.Key.Certificate]
	cert, err := checkCertificate(pem, key, out.Serial)
	if err != nil {
		request, err := certificateRequest(key, out.Serial, id.Key.Subject)
		if err != nil {
			return nil, err
		}
		if pem, err = id.Key.certificate(ctx, web, request, out.Serial, certificatePatience); err != nil {
			return nil, err
		}
		if cert, err = checkCertificate(pem, key, out.Serial); err != nil {
			return nil, fmt.Errorf("the certificate of %s: %w", out.Serial, err)
		}
	}
	out.Certificate = cert.SerialNumber.Text(16)
	out.Files[id.Key.Certificate] = pem
	return pem, nil
}

// expandFiles makes the planned files, and the certificate request that stays on the device.
func (id *IdentityRule) expandFiles(out *Identity) error {
	vars := maps.Clone(id.Variables)
	if vars == nil {
		vars = map[string]string{}
	}
	maps.Copy(vars, out.Variables)
	out.Variables = maps.Clone(vars)
	vars["serial"] = out.Serial
	for _, f := range id.File {
		text, err := expand(f.Content, vars)
		if err != nil {
			return fmt.Errorf("file %s of the identity: %w", f.Path, err)
		}
		out.Files[f.Path] = []byte(text)
	}
	if id.Key == nil || id.Key.Request == "" {
		return nil
	}
	key, err := ParseKey(out.Files[id.Key.File])
	if err != nil {
		return errors.New("internal error: the device's key was lost")
	}
	request, err := certificateRequest(key, out.Serial, id.Key.Subject)
	out.Files[id.Key.Request] = request
	return err
}
