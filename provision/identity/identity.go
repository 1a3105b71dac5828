package identity

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"updater/provision/fat"
	"updater/provision/keys"
	"updater/provision/plan"
)

// Witness knows what this station made for one unit. [updater/provision/record.Witness] is one.
type Witness interface {
	// Attest records durably that this station made an object of the identity with a serial, by its sha256 (hex), "" for the serial alone.
	Attest(serial, sum string) error
	Attested(serial, sum string) bool
}

// Held is the content of an identity partition. The zero value is an empty partition.
type Held struct {
	Latch   []byte // nil means none, empty is one that cannot be read
	Claimed string // the serial, made by this station or not
	Foreign Found  // identity that this station did not make

	// Made by this station for this unit, as the witness attests.
	Serial string
	Key    []byte // PEM
	cert   []byte // PEM
}

// Found is an identity that does not count. Fields that the medium does not hold are "".
type Found struct {
	Serial      string
	Key         string // fingerprint of the public key
	Certificate string // sha256 of the file, hex
}

// Read returns the content of an identity partition. Serial, key and certificate count only if the witness attests them: someone may
// have prepared the medium. Anything unreadable but the latch counts as missing: a blank medium is the usual case.
func Read(rule *plan.Identity, w fat.Window, witness Witness) (h Held) {
	from, err := fat.Open(w)
	if err != nil {
		return Held{}
	}
	get := func(name string) []byte {
		data, err := from.Get(name)
		if err != nil {
			return nil
		}
		return data
	}
	if h.Latch, err = from.Get(plan.LatchFile); err != nil {
		h.Latch = []byte{}
	}
	if serial := string(get(plan.SerialFile)); rule.Serial.Check(serial) == nil {
		h.Claimed = serial
	}
	var key, cert []byte
	found := Found{Serial: h.Claimed}
	if rule.Key != nil {
		key, found.Key = parsed(get(rule.Key.File))
		if rule.Key.Certificate != "" {
			cert = get(rule.Key.Certificate)
		}
	}
	if cert != nil {
		found.Certificate = digest(cert)
	}
	if h.Claimed == "" || (rule.Key != nil && key == nil) || !witness.Attested(h.Claimed, found.Key) {
		h.Foreign = found
		return h
	}
	h.Serial, h.Key = h.Claimed, key
	if cert != nil && witness.Attested(h.Claimed, found.Certificate) {
		h.cert = cert
	} else {
		h.Foreign.Certificate = found.Certificate
	}
	return h
}

// parsed returns a private key and its fingerprint, nothing if pem is not a key.
func parsed(pem []byte) (key []byte, fingerprint string) {
	signer, err := keys.Parse(pem)
	if err != nil {
		return nil, ""
	}
	return pem, keys.Fingerprint(signer.Public())
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Spec is the identity of one device.
type Spec struct {
	Rule        *plan.Identity
	Window      fat.Window  // the identity partition
	Reservation Reservation // the serial and its variables
	Before      Held        // kept if it is of the same serial
	Witness     Witness
	Web         *Web // for a certificate from an address

	Issuers []*x509.Certificate // that a certificate must lead to
	Now     time.Time           // trusted; the certificate must be valid then
}

// Identity is the identity that was written to a device.
type Identity struct {
	Serial      string
	Variables   map[string]string
	Key         string            // fingerprint of the public key, "" without one
	Certificate string            // serial number of the certificate, hex, "" without one
	Files       map[string][]byte // of the identity partition
	Secret      string            // name of the file that holds the private key, "" without one

	request, certificate string // names of files, "" without them
}

// Write makes the identity partition: file system, key, certificate and files. They are on stable storage and were read back
// once it returns nil. A key and a certificate that an interrupted run left for the same serial are kept. Each is attested before it is
// written.
func Write(ctx context.Context, s Spec) (*Identity, error) {
	if s.Before.Serial != s.Reservation.Serial {
		s.Before = Held{}
	}
	w := &writer{Spec: s, id: &Identity{
		Serial: s.Reservation.Serial, Variables: s.Reservation.Variables,
		Files: map[string][]byte{plan.SerialFile: []byte(s.Reservation.Serial)},
	}}
	if err := w.makeKey(); err != nil {
		return nil, err
	}
	if err := w.makeFiles(); err != nil {
		return nil, err
	}
	if err := s.Witness.Attest(w.id.Serial, w.id.Key); err != nil { // before the key is anywhere but in memory
		return nil, fmt.Errorf("attesting the identity: %w", err)
	}
	certified := w.keepCertificate()
	if err := w.place(s.Before.Latch); err != nil { // the key is durable before it is certified
		return nil, err
	}
	if !certified {
		if err := w.certify(ctx); err != nil {
			return nil, err
		}
		if err := w.place(s.Before.Latch); err != nil {
			return nil, err
		}
	}
	return w.id, fat.Compare(s.Window, w.id.Files)
}

// writer is a Write under way.
type writer struct {
	Spec
	id  *Identity
	key crypto.Signer // nil without one
}

// makeKey keeps the key that is there, or makes one.
func (w *writer) makeKey() error {
	rule := w.Rule.Key
	if rule == nil {
		return nil
	}
	pem := w.Before.Key
	key, err := keys.Parse(pem)
	if err != nil || keys.Kind(key.Public()) != rule.Type {
		if key, pem, err = keys.New(rule.Type); err != nil {
			return fmt.Errorf("making the device's key: %w", err)
		}
	}
	w.key, w.id.Key, w.id.Secret = key, keys.Fingerprint(key.Public()), rule.File
	w.id.request, w.id.certificate = rule.Request, rule.Certificate
	w.id.Files[rule.File] = pem
	return nil
}

// makeFiles expands the planned files and makes the certificate request that stays on the device.
func (w *writer) makeFiles() error {
	vars := map[string]string{}
	maps.Copy(vars, w.Rule.Variables)
	maps.Copy(vars, w.id.Variables)
	w.id.Variables = maps.Clone(vars)
	vars["serial"] = w.id.Serial
	for _, f := range w.Rule.File {
		text, err := plan.Expand(f.Content, vars)
		if err != nil {
			return fmt.Errorf("expanding file %s: %w", f.Path, err)
		}
		w.id.Files[f.Path] = []byte(text)
	}
	if w.key == nil || w.Rule.Key.Request == "" {
		return nil
	}
	request, err := certificateRequest(w.key, w.id.Serial, w.Rule.Key.Subject)
	w.id.Files[w.Rule.Key.Request] = request
	return err
}

// place writes the file system durably. An old latch stays until the new one replaces it.
func (w *writer) place(latch []byte) error {
	if err := fat.Write(w.Window, "IDENTITY", w.id.files(latch)); err != nil {
		return err
	}
	return w.Window.Medium.Sync()
}

// files are those of the identity partition in an order in which a power cut does not lose the key: key and serial, which are the same in
// every run, then the others, the request, whose length varies, and the later files: certificate and latch.
func (id *Identity) files(latch []byte) []fat.File {
	rank := func(name string) int {
		switch name {
		case id.Secret:
			return 0
		case plan.SerialFile:
			return 1
		case id.request:
			return 3
		case id.certificate:
			return 4
		}
		return 2
	}
	var all []fat.File
	for _, name := range slices.SortedFunc(maps.Keys(id.Files), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	}) {
		all = append(all, fat.File{Name: name, Data: id.Files[name]})
	}
	if latch != nil {
		all = append(all, fat.File{Name: plan.LatchFile, Data: latch})
	}
	return all
}
