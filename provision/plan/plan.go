package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/BurntSushi/toml"
)

// MaxSize is the largest plan that is read, in bytes.
const MaxSize = 1 << 20

// The files of an identity partition that the factory writes itself.
const (
	SerialFile = "serial"     // the serial, so that a later run finds it
	LatchFile  = "latch.json" // the signed latch
)

// Plan defines a device. [Parse] makes a complete and consistent one.
type Plan struct {
	Type    string   `toml:"type"`    // plan; required of a plan that must be signed, as the first key
	Name    string   `toml:"name"`    // for the record
	Product string   `toml:"product"` // must equal a signed <Product>
	Keyring []string `toml:"keyring"` // files or folders of OpenPGP certificates that sign the images
	Config  string   `toml:"config"`  // the device's configuration, which locates its boot state; "" leaves the boot state alone
	Slot    string   `toml:"slot"`    // boots first; "" is the first slot of the configuration that the plan writes
	// Environment is a file with U-Boot's initial environment as text, written before the boot state is set up; "" means none.
	Environment string `toml:"environment"`

	// A plan that must be signed carries these, see [Plan.CheckSigned].
	RollbackIndex *int64    `toml:"rollback_index"` // a device whose floor is higher is not written
	Created       time.Time `toml:"created"`
	Expires       time.Time `toml:"expires"`

	Release   *Release          `toml:"release"`
	Disk      Disk              `toml:"disk"`
	Image     *Image            `toml:"image"`
	Partition []Partition       `toml:"partition"`
	Step      []Step            `toml:"step"`
	Changes   []string          `toml:"changes"` // partitions whose content changes after provisioning, such as the boot state: a check skips them
	Identity  *Identity         `toml:"identity"`
	Targets   []string          `toml:"targets"` // the only device paths that may be written; with no ports either, the command line names them
	Ports     map[string]string `toml:"ports"`   // name of a port to its bus path, such as "usb-1-1.2"
	Record    Record            `toml:"record"`
	Server    Server            `toml:"server"`
	Latch     *Latch            `toml:"latch"`
	LEDs      map[string]LED    `toml:"leds"` // by state: working, pass, fail

	Sum string `toml:"-"` // hex sha256 of the plan's bytes
}

// Disk restricts the targets by size.
type Disk struct {
	Min  Size   `toml:"min"`  // 0 is no limit
	Max  Size   `toml:"max"`  // 0 is no limit
	GUID string `toml:"guid"` // of the partition table; "" makes a new one for each disk
}

// Release fills the slots of a layout with one signed release.
type Release struct {
	Path      string   `toml:"path"`      // document, folder or address
	Signature string   `toml:"signature"` // "" is beside the document
	Slots     []string `toml:"slots"`     // to be written; none is every slot of the configuration
}

// Image is a whole-disk image with its own partition table.
type Image struct {
	Path      string `toml:"path"`      // file or address
	Bmap      string `toml:"bmap"`      // "" is beside the image
	Signature string `toml:"signature"` // "" is beside the bmap
	Grow      bool   `toml:"grow"`      // the last partition takes the rest of the disk
}

// Partition is one partition of a layout and its content.
type Partition struct {
	Name       string `toml:"name"`
	Type       string `toml:"type"`       // esp, linux, swap, bios-boot, or a GUID; "" is linux
	GUID       string `toml:"guid"`       // "" makes a new one for each disk
	Attributes uint64 `toml:"attributes"` // attribute bits of the entry
	Size       Share  `toml:"size"`

	Image      string `toml:"image"` // file or address, with its bmap and signature
	Bmap       string `toml:"bmap"`
	Signature  string `toml:"signature"`
	Role       string `toml:"role"`       // must equal a signed <Role>
	Filesystem string `toml:"filesystem"` // an empty one is made: fat
}

// Identity is the data that distinguishes a device from the others.
type Identity struct {
	Partition string            `toml:"partition"` // name of the partition that holds it: FAT32
	Serial    Serial            `toml:"serial"`
	Variables map[string]string `toml:"variables"`
	Key       *Key              `toml:"key"`
	File      []File            `toml:"file"`
}

// Serial is the source of the serial number.
type Serial struct {
	From    string `toml:"from"`    // plan, prompt, device-tree, dmi, csv or http
	Value   string `toml:"value"`   // plan
	File    string `toml:"file"`    // csv
	URL     string `toml:"url"`     // http
	Pattern string `toml:"pattern"` // regular expression for the whole serial; "" allows letters, digits and . _ -
}

// Key is the device's private key and its certificate.
type Key struct {
	Type        string `toml:"type"`         // ed25519 or p256
	File        string `toml:"file"`         // in the identity partition, PKCS #8 PEM
	Request     string `toml:"request"`      // certificate request in the identity partition; "" keeps none
	Certificate string `toml:"certificate"`  // in the identity partition
	Subject     string `toml:"organization"` // organization of the subject; its common name is the serial
	Issuer      string `toml:"issuer"`       // PEM file of the certificates that a certificate must lead to
	CA          string `toml:"ca"`           // address that answers a request with the certificate
	Folder      string `toml:"folder"`       // folder of the station: SERIAL.csr goes out, SERIAL.crt comes in
}

// File is a file of the identity partition.
type File struct {
	Path    string `toml:"path"`
	Content string `toml:"content"` // with {serial} and {VARIABLE}, see [Expand]
}

// Record is the destination of the records of the units.
type Record struct {
	Spool   string `toml:"spool"` // folder
	URL     string `toml:"url"`   // "" sends nothing
	Station string `toml:"station"`
	Key     string `toml:"key"` // PKCS #8 PEM of the station: Ed25519 or P-256
}

// Server configures the connection to the servers of the line: of serials, certificates and records. The keys are those of [source] in a
// device's configuration.
type Server struct {
	HTTP       bool   `toml:"http"` // allows http: addresses, over which anybody on the line's network reads and answers
	CA         string `toml:"ca"`   // PEM file of the only roots to trust
	ClientCert string `toml:"client_cert"`
	ClientKey  string `toml:"client_key"`
	TokenFile  string `toml:"token_file"`
	TokenHost  string `toml:"token_host"`
}

// Latch turns the latch on.
type Latch struct {
	FactoryKey string `toml:"factory_key"` // PEM public key that signs tokens
}

// LED is an LED below /sys/class/leds and its setting.
type LED struct {
	Name       string `toml:"name"`
	Trigger    string `toml:"trigger"`    // such as timer or none
	Brightness int    `toml:"brightness"` // without a trigger
}

// Parse reads a plan. Unknown keys, missing keys and contradictions are errors that name the key.
func Parse(data []byte) (*Plan, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("the plan has %d bytes, expected at most %d", len(data), MaxSize)
	}
	p := new(Plan)
	meta, err := toml.Decode(string(data), p)
	if err != nil {
		return nil, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("unknown key %q", unknown[0])
	}
	sum := sha256.Sum256(data)
	p.Sum = hex.EncodeToString(sum[:])
	return p, p.check()
}

// Sources lists the files and addresses of inputs that need no trust or carry their own signature: images, serials,
// certificates and the server of the records. Some are "".
func (p *Plan) Sources() []string {
	list := p.servers()
	if p.Release != nil {
		list = append(list, p.Release.Path, p.Release.Signature)
	}
	if p.Image != nil {
		list = append(list, p.Image.Path, p.Image.Bmap, p.Image.Signature)
	}
	for _, part := range p.Partition {
		list = append(list, part.Image, part.Bmap, part.Signature)
	}
	return list
}

// LocalPaths lists the paths that count from the plan's folder and are read as they are, so that they are only as trusted as
// the plan itself. The caller may change them through the pointers.
func (p *Plan) LocalPaths() []*string {
	list := []*string{
		&p.Config, &p.Environment, &p.Record.Spool, &p.Record.Key,
		&p.Server.CA, &p.Server.ClientCert, &p.Server.ClientKey, &p.Server.TokenFile,
	}
	if p.Latch != nil {
		list = append(list, &p.Latch.FactoryKey)
	}
	if id := p.Identity; id != nil {
		list = append(list, &id.Serial.File)
		if id.Key != nil {
			list = append(list, &id.Key.Folder, &id.Key.Issuer)
		}
	}
	for i := range p.Keyring {
		list = append(list, &p.Keyring[i])
	}
	for i := range p.Step {
		list = append(list, &p.Step[i].Argv[0])
	}
	return list
}
