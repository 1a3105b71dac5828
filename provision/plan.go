package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxPlan bounds a plan, in bytes.
const MaxPlan = 1 << 20

// Plan says what a device becomes. [ParsePlan] makes it; it is complete and consistent then.
type Plan struct {
	Name    string   `toml:"name"`    // for the record
	Product string   `toml:"product"` // must equal a signed <Product>
	Keyring []string `toml:"keyring"` // files or folders of OpenPGP certificates that sign the images
	Config  string   `toml:"config"`  // the device's own configuration, which says where its boot state is; "" leaves the boot state alone
	Slot    string   `toml:"slot"`    // the slot that boots first; "" is the first of the configuration
	// file of U-Boot's initial environment as text, which is written before the boot state is set up; "" is none
	Environment string `toml:"environment"`

	Disk      DiskRule          `toml:"disk"`
	Image     *ImageRule        `toml:"image"`
	Partition []PartitionRule   `toml:"partition"`
	Changes   []string          `toml:"changes"` // names of partitions whose content changes after provisioning, such as the boot state: a later check skips them
	Identity  *IdentityRule     `toml:"identity"`
	Targets   []string          `toml:"targets"` // the only device paths that may be written; empty with no ports: what the command line names
	Ports     map[string]string `toml:"ports"`   // name of a port to its bus path, such as "usb-1-1.2"
	Record    RecordRule        `toml:"record"`
	Latch     *LatchRule        `toml:"latch"`
	LEDs      map[string]LED    `toml:"leds"` // by state: working, pass, fail

	Sum string `toml:"-"` // hex sha256 of the plan's bytes
}

// DiskRule is the window of sizes that a target may have.
type DiskRule struct {
	Min  Size   `toml:"min"`  // 0 is no limit
	Max  Size   `toml:"max"`  // 0 is no limit
	GUID string `toml:"guid"` // of the partition table; "" makes a new one for each disk
}

// ImageRule is a whole-disk image with its own partition table.
type ImageRule struct {
	Path      string `toml:"path"`      // file or URL
	Bmap      string `toml:"bmap"`      // "" is beside the image
	Signature string `toml:"signature"` // "" is beside the bmap
	Grow      bool   `toml:"grow"`      // the last partition takes the rest of the disk
}

// PartitionRule is one partition of a layout, and what goes into it.
type PartitionRule struct {
	Name       string `toml:"name"`
	Type       string `toml:"type"`       // esp, linux, swap, bios-boot, or a GUID; "" is linux
	GUID       string `toml:"guid"`       // "" makes a new one for each disk
	Attributes uint64 `toml:"attributes"` // attribute bits of the entry
	Size       Share  `toml:"size"`

	Image      string `toml:"image"` // file or URL, with its bmap and signature
	Bmap       string `toml:"bmap"`
	Signature  string `toml:"signature"`
	Role       string `toml:"role"`       // must equal a signed <Role>
	Filesystem string `toml:"filesystem"` // make an empty one: fat
}

// IdentityRule says what makes a device different from the others.
type IdentityRule struct {
	Partition string            `toml:"partition"` // name of the partition that holds it: FAT32
	Serial    SerialRule        `toml:"serial"`
	Variables map[string]string `toml:"variables"`
	Key       *KeyRule          `toml:"key"`
	File      []FileRule        `toml:"file"`
}

// SerialRule says where the serial number comes from.
type SerialRule struct {
	From    string `toml:"from"`    // plan, prompt, device-tree, dmi, csv or http
	Value   string `toml:"value"`   // plan
	File    string `toml:"file"`    // csv
	URL     string `toml:"url"`     // http
	Pattern string `toml:"pattern"` // a regular expression that the whole serial must match; "" allows letters, digits and . _ -
}

// KeyRule says which key the device gets.
type KeyRule struct {
	Type        string `toml:"type"`         // ed25519 or p256
	File        string `toml:"file"`         // in the identity partition, PKCS #8 PEM
	Request     string `toml:"request"`      // certificate request in the identity partition; "" keeps none
	Certificate string `toml:"certificate"`  // in the identity partition
	Subject     string `toml:"organization"` // organization of the subject; its common name is the serial
	CA          string `toml:"ca"`           // URL that takes the request and answers with the certificate
	Folder      string `toml:"folder"`       // folder at the station: SERIAL.csr goes out, SERIAL.crt comes in
}

// FileRule is a file of the identity partition.
type FileRule struct {
	Path    string `toml:"path"`
	Content string `toml:"content"` // with {serial} and {VARIABLE}
}

// RecordRule says where the record of each unit goes.
type RecordRule struct {
	Spool   string `toml:"spool"` // folder
	URL     string `toml:"url"`   // "" sends nothing
	Station string `toml:"station"`
	Key     string `toml:"key"` // PKCS #8 PEM of the station: Ed25519 or P-256
}

// LatchRule turns the latch on.
type LatchRule struct {
	FactoryKey string `toml:"factory_key"` // PEM public key that signs tokens
}

// LED is a light below /sys/class/leds and what it does.
type LED struct {
	Name       string `toml:"name"`
	Trigger    string `toml:"trigger"`    // such as timer or none
	Brightness int    `toml:"brightness"` // without a trigger
}

// ParsePlan reads a plan strictly: an unknown key, a missing one and a contradiction are errors that name the key.
func ParsePlan(data []byte) (*Plan, error) {
	if len(data) > MaxPlan {
		return nil, fmt.Errorf("the plan has %d bytes, expected at most %d", len(data), MaxPlan)
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

func (p *Plan) check() error {
	if p.Name == "" {
		return errors.New("name is missing")
	}
	if (p.Image == nil) == (len(p.Partition) == 0) {
		return errors.New("expected either one [image], which brings its own partition table, or [[partition]] tables")
	}
	if p.Image != nil && p.Image.Path == "" {
		return errors.New("image.path is missing")
	}
	if p.Disk.Max != 0 && p.Disk.Max < p.Disk.Min {
		return fmt.Errorf("disk.max is %d bytes, below disk.min of %d", p.Disk.Max, p.Disk.Min)
	}
	if err := checkGUID("disk.guid", p.Disk.GUID); err != nil {
		return err
	}
	if err := p.checkPartitions(); err != nil {
		return err
	}
	if err := p.checkIdentity(); err != nil {
		return err
	}
	if p.Record.Spool == "" || p.Record.Station == "" || p.Record.Key == "" {
		return errors.New("record: spool, station and key are needed, so that no unit goes without a signed record")
	}
	if p.Environment != "" && p.Config == "" {
		return errors.New("environment needs config, which says where it goes")
	}
	if p.Latch != nil && (p.Latch.FactoryKey == "" || p.Identity == nil) {
		return errors.New("latch: factory_key is needed, and an identity partition to keep the latch in")
	}
	for state, led := range p.LEDs {
		if !slices.Contains([]string{"working", "pass", "fail"}, state) || !fileName.MatchString(led.Name) {
			return fmt.Errorf("leds.%s: expected working, pass or fail with the name of a light", state)
		}
	}
	return nil
}

// Sources are the files and addresses of what needs no trust, or brings its signature: images, serials, certificates and
// the server of the records.
func (p *Plan) Sources() []string {
	list := []string{p.Record.URL}
	if p.Image != nil {
		list = append(list, p.Image.Path, p.Image.Bmap, p.Image.Signature)
	}
	for _, part := range p.Partition {
		list = append(list, part.Image, part.Bmap, part.Signature)
	}
	if id := p.Identity; id != nil {
		list = append(list, id.Serial.URL)
		if id.Key != nil {
			list = append(list, id.Key.CA)
		}
	}
	return list
}

func (p *Plan) checkPartitions() error {
	rests, percent := 0, int64(0)
	if len(p.Partition) > 128 {
		return fmt.Errorf("%d partitions, expected at most 128", len(p.Partition))
	}
	for i, part := range p.Partition {
		at := fmt.Sprintf("partition %d %q", i+1, part.Name)
		if !partitionName.MatchString(part.Name) {
			return fmt.Errorf("%s: name has to be 1 to 36 letters, digits and . _ -", at)
		}
		if slices.ContainsFunc(p.Partition[:i], func(o PartitionRule) bool { return o.Name == part.Name }) {
			return fmt.Errorf("%s is there twice", at)
		}
		if _, err := typeGUID(part.Type); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := checkGUID(at+": guid", part.GUID); err != nil {
			return err
		}
		if part.Image != "" && part.Filesystem != "" {
			return fmt.Errorf("%s: image and filesystem exclude each other", at)
		}
		if part.Filesystem != "" && part.Filesystem != "fat" {
			return fmt.Errorf("%s: filesystem is %q, expected fat; others come as an image", at, part.Filesystem)
		}
		if part.Size == (Share{}) {
			return fmt.Errorf("%s: size is missing", at)
		}
		if part.Size.Rest {
			rests++
		}
		percent += part.Size.Percent
	}
	if percent > 100 {
		return fmt.Errorf("the partitions take %d%% of the disk", percent)
	}
	if rests > 1 {
		return fmt.Errorf("%d partitions have the size rest, expected at most one", rests)
	}
	return nil
}

func (p *Plan) checkIdentity() error {
	id := p.Identity
	if id == nil {
		return nil
	}
	if !partitionName.MatchString(id.Partition) {
		return errors.New("identity.partition is missing")
	}
	if p.Image == nil {
		i := slices.IndexFunc(p.Partition, func(r PartitionRule) bool { return r.Name == id.Partition })
		if i < 0 || p.Partition[i].Image != "" || p.Partition[i].Filesystem != "" {
			return fmt.Errorf("identity.partition %q has to be a partition of the plan without image and filesystem", id.Partition)
		}
	}
	if err := id.Serial.check(); err != nil {
		return fmt.Errorf("identity.serial: %w", err)
	}
	if k := id.Key; k != nil {
		if k.Type != "ed25519" && k.Type != "p256" {
			return fmt.Errorf("identity.key.type is %q, expected ed25519 or p256", k.Type)
		}
		if k.File == "" || (k.Certificate == "") != (k.CA == "" && k.Folder == "") || k.CA != "" && k.Folder != "" {
			return errors.New("identity.key: file is needed, and certificate together with either ca or folder")
		}
	}
	return id.checkFiles()
}

// checkFiles holds that every path of the identity partition is plain, and there once.
func (id *IdentityRule) checkFiles() error {
	seen := map[string]bool{latchFile: true, serialFile: true}
	paths := []string{}
	for _, f := range id.File {
		paths = append(paths, f.Path)
	}
	if k := id.Key; k != nil {
		paths = append(paths, k.File)
		for _, name := range []string{k.Request, k.Certificate} {
			if name != "" {
				paths = append(paths, name)
			}
		}
	}
	for _, path := range paths {
		if !fileName.MatchString(path) {
			return fmt.Errorf("identity: file %q: expected a name of letters, digits and . _ -, in no folder", path)
		}
		if low := strings.ToLower(path); seen[low] {
			return fmt.Errorf("identity: file %q is there twice", path)
		} else {
			seen[low] = true
		}
	}
	known := map[string]string{"serial": ""}
	for name := range id.Variables {
		if !variableName.MatchString(name) || name == "serial" {
			return fmt.Errorf("identity.variables: %q is no name", name)
		}
		known[name] = ""
	}
	if id.Serial.From == "csv" || id.Serial.From == "http" {
		return nil // more variables come with the serial
	}
	for _, f := range id.File {
		if _, err := expand(f.Content, known); err != nil {
			return fmt.Errorf("identity: file %s: %w", f.Path, err)
		}
	}
	return nil
}

func (r SerialRule) check() error {
	needs := map[string]string{"plan": r.Value, "csv": r.File, "http": r.URL}
	switch r.From {
	case "plan", "csv", "http":
		if needs[r.From] == "" {
			return fmt.Errorf("from %s needs %s", r.From, map[string]string{"plan": "value", "csv": "file", "http": "url"}[r.From])
		}
	case "prompt", "dmi", "device-tree":
	default:
		return fmt.Errorf("from is %q, expected plan, prompt, device-tree, dmi, csv or http", r.From)
	}
	_, err := r.pattern()
	return err
}

var (
	partitionName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,36}$`)
	fileName      = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)
	variableName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
	plainSerial   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	guidForm      = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

func checkGUID(key, guid string) error {
	if guid != "" && !guidForm.MatchString(guid) {
		return fmt.Errorf("%s is %q, expected a GUID", key, guid)
	}
	return nil
}
