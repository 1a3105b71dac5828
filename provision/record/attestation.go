package record

import (
	"os"
	"path/filepath"
	"time"

	"updater/internal/atomicfile"
)

// attestation states that this station made an object of a unit's identity. The station seals it. It lies in the spool, in a file of its own.
type attestation struct {
	Kind   string    `json:"kind"` // attestation
	Unit   string    `json:"unit"`
	Serial string    `json:"serial"`
	SHA256 string    `json:"sha256"` // of the object, "" for the serial alone
	Time   time.Time `json:"time"`
}

// Witness attests the objects of one unit's identity: an object on a medium was made by this station only if the spool attests it.
type Witness struct {
	s    *Spool
	unit string
}

// Witness returns the witness of a unit.
func (s *Spool) Witness(unit string) Witness { return Witness{s, unit} }

func (w Witness) path(serial, sum string) string {
	return filepath.Join(w.s.dir, "attested-"+Digest([]byte(w.unit+"\x00"+serial+"\x00"+sum)))
}

// Attest records durably that this station made the object with a sha256 for the unit with a serial. It comes before the object is used.
func (w Witness) Attest(serial, sum string) error {
	if w.Attested(serial, sum) {
		return nil
	}
	line, err := Seal(attestation{Kind: "attestation", Unit: w.unit, Serial: serial, SHA256: sum, Time: time.Now().UTC()}, w.s.key)
	if err != nil {
		return err
	}
	return atomicfile.Write(w.path(serial, sum), line, 0o644)
}

// Attested reports whether [Witness.Attest] has recorded this. An attestation that is damaged or signed by another key does not count.
func (w Witness) Attested(serial, sum string) bool {
	line, err := os.ReadFile(w.path(serial, sum))
	if err != nil {
		return false
	}
	var a attestation
	err = Unseal(line, "attestation", &a, w.s.key.Public())
	return err == nil && a.Unit == w.unit && a.Serial == serial && a.SHA256 == sum
}
