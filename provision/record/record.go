package record

import (
	_ "embed"
	"fmt"
	"time"

	"updater/verify"
)

// Schema is the JSON schema of a record.
//
//go:embed record.schema.json
var Schema []byte

// Verdict is the outcome of a unit.
type Verdict string

// The verdicts. Only a device that passed may be shipped.
const (
	Pass       Verdict = "pass"
	Fail       Verdict = "fail"       // it may be tried again
	Quarantine Verdict = "quarantine" // the medium failed twice: put it aside
	Refused    Verdict = "refused"    // nothing was written
)

// Record is the permanent record of a unit. Times are UTC. See docs/factory.md.
type Record struct {
	Kind     string    `json:"kind"`     // record
	Format   int       `json:"format"`   // 1
	Sequence int64     `json:"sequence"` // from 1, without a gap, for each station
	Previous string    `json:"previous"` // sha256 of the station's last line, "" for the first
	Time     time.Time `json:"time"`
	Station  string    `json:"station"`
	Operator string    `json:"operator"`
	Updater  string    `json:"updater"` // version of the program
	Run      string    `json:"run"`     // provision or check
	Plan     Plan      `json:"plan"`

	Verdict Verdict `json:"verdict"`
	Code    int     `json:"code"`            // exit code of this unit
	Error   string  `json:"error,omitempty"` // one sentence

	Unit     Unit      `json:"unit"`
	Images   []Image   `json:"images"`
	Identity *Identity `json:"identity,omitempty"`
	// Discarded is an identity that the medium held though this station did not make it; another was made in its place.
	Discarded *Discarded `json:"discarded,omitempty"`
	Steps     []Step     `json:"steps"`
	Retries   []Retry    `json:"retries"`
	Latch     string     `json:"latch,omitempty"` // sha256 of the latch on the device
}

// String is the record on one line.
func (r *Record) String() string {
	serial := "-"
	if r.Identity != nil {
		serial = r.Identity.Serial
	}
	line := fmt.Sprintf("%d %s %s %s %s %s", r.Sequence, r.Time.Format("2006-01-02T15:04:05Z"), r.Run, r.Verdict, serial, r.Unit.Name)
	if r.Error != "" {
		line += ": " + r.Error
	}
	return line
}

// Plan names a plan.
type Plan struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Unit is the hardware.
type Unit struct {
	Name   string `json:"name"`   // of the port, or the path
	Key    string `json:"key"`    // identifies the hardware
	Strong bool   `json:"strong"` // the key belongs to this hardware alone
	Disk   Disk   `json:"disk"`
}

// Disk is a whole disk as sysfs describes it. A missing attribute is "".
type Disk struct {
	Path     string            `json:"path"` // device node
	Bus      string            `json:"bus"`  // its path in sysfs, below devices
	Size     int64             `json:"size"` // bytes
	Sector   int               `json:"sector"`
	Model    string            `json:"model,omitempty"`
	Vendor   string            `json:"vendor,omitempty"`
	Serial   string            `json:"serial,omitempty"`
	WWID     string            `json:"wwid,omitempty"`
	CID      string            `json:"cid,omitempty"` // of an eMMC or SD card
	Firmware string            `json:"firmware,omitempty"`
	Health   map[string]string `json:"health,omitempty"` // eMMC: life_time, pre_eol_info
}

// Image is an image as it was written and read back.
type Image struct {
	Name        string          `json:"name"`
	Partition   string          `json:"partition,omitempty"` // "" is the whole disk
	Product     string          `json:"product,omitempty"`
	Version     string          `json:"version,omitempty"`
	Bmap        string          `json:"bmap_sha256"`
	Image       string          `json:"image_sha256,omitempty"` // if the signed bmap has it
	ImageBytes  int64           `json:"image_bytes"`
	MappedBytes int64           `json:"mapped_bytes"`
	Signers     []verify.Signer `json:"signers"`
}

// Identity is the identity of a device without its secrets.
type Identity struct {
	Serial      string            `json:"serial"`
	Variables   map[string]string `json:"variables,omitempty"`
	Key         string            `json:"key_sha256,omitempty"`
	Certificate string            `json:"certificate,omitempty"`
	Files       map[string]string `json:"files,omitempty"` // path to sha256, without the private key
}

// Discarded is an identity that was found on a medium. Missing fields are "".
type Discarded struct {
	Serial      string `json:"serial,omitempty"`
	Key         string `json:"key_sha256,omitempty"`
	Certificate string `json:"certificate_sha256,omitempty"` // of the file
}

// Step is the time that a step took.
type Step struct {
	Name           string  `json:"name"`
	Seconds        float64 `json:"seconds"`
	Bytes          int64   `json:"bytes,omitempty"`
	BytesPerSecond int64   `json:"bytes_per_second,omitempty"`

	// Of a program of the plan; the record of an ordinary step has none of these.
	Argv    []string `json:"argv,omitempty"`
	Verdict Verdict  `json:"verdict,omitempty"` // [Pass] or [Fail]
	Output  string   `json:"output,omitempty"`  // the first 4 KiB of both outputs
	Cut     bool     `json:"output_cut,omitempty"`
}

// Retry is one retry and its reason.
type Retry struct {
	Step   string `json:"step"`
	Offset int64  `json:"offset,omitempty"` // bytes
	Error  string `json:"error"`
}
