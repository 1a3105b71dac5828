package plan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxPartitions is the number of entries of the partition table that is written.
const maxPartitions = 128

var (
	partitionName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,36}$`)
	fileName      = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)
	variableName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
	plainSerial   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	guidForm      = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

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
	if err := p.checkRelease(); err != nil {
		return err
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
	if err := p.checkSteps(); err != nil {
		return err
	}
	return p.checkStation()
}

// checkStation checks what the station needs.
func (p *Plan) checkStation() error {
	if p.Record.Spool == "" || p.Record.Station == "" || p.Record.Key == "" {
		return errors.New("record: spool, station and key are required, so that every unit gets a signed record")
	}
	if p.Environment != "" && p.Config == "" {
		return errors.New("environment requires config, which locates U-Boot's environment")
	}
	if err := p.checkServers(); err != nil {
		return err
	}
	if p.Latch != nil && (p.Latch.FactoryKey == "" || p.Identity == nil) {
		return errors.New("latch: factory_key is required, and an identity partition that holds the latch")
	}
	for state, led := range p.LEDs {
		if !slices.Contains([]string{"working", "pass", "fail"}, state) || !fileName.MatchString(led.Name) {
			return fmt.Errorf("leds.%s: expected working, pass or fail with the name of an LED", state)
		}
	}
	return nil
}

// checkServers refuses servers of the line without TLS, unless the plan says so.
func (p *Plan) checkServers() error {
	s := p.Server
	if (s.TokenFile == "") != (s.TokenHost == "") || (s.ClientCert == "") != (s.ClientKey == "") {
		return errors.New("server: token_file and token_host need each other, and client_cert and client_key")
	}
	for _, url := range p.servers() {
		if strings.HasPrefix(strings.ToLower(url), "http:") && !s.HTTP {
			return fmt.Errorf("%.80q is no https address, so anybody on the line's network could answer for it; set http = true in [server] to allow that", url)
		}
	}
	return nil
}

// servers lists the addresses of the line's servers; some are "".
func (p *Plan) servers() []string {
	list := []string{p.Record.URL}
	if id := p.Identity; id != nil {
		list = append(list, id.Serial.URL)
		if id.Key != nil {
			list = append(list, id.Key.CA)
		}
	}
	return list
}

func (p *Plan) checkRelease() error {
	switch {
	case p.Type != "" && p.Type != "plan":
		return fmt.Errorf("type is %q, expected plan", p.Type)
	case p.RollbackIndex != nil && *p.RollbackIndex < 0:
		return fmt.Errorf("rollback_index is %d, expected 0 or more", *p.RollbackIndex)
	case p.Release == nil:
		return nil
	case p.Image != nil:
		return errors.New("release and image exclude each other: a whole-disk image holds its own slots")
	case p.Release.Path == "":
		return errors.New("release.path is missing")
	case p.Config == "":
		return errors.New("release requires config, which names the partitions of the slots")
	}
	return nil
}

// maxSkew is how much later than its signature a plan may claim to be created.
const maxSkew = 24 * time.Hour

// CheckSigned refuses a plan that must be signed and lacks its product, rollback index, or times of creation and expiry. signed is the
// time of its newest signature.
func (p *Plan) CheckSigned(signed time.Time) error {
	for _, need := range []struct {
		key     string
		missing bool
	}{
		{"product", p.Product == ""}, {"rollback_index", p.RollbackIndex == nil},
		{"created", p.Created.IsZero()}, {"expires", p.Expires.IsZero()},
	} {
		if need.missing {
			return fmt.Errorf("%s is missing, which a plan that must be signed has to carry", need.key)
		}
	}
	switch {
	case !p.Expires.After(p.Created):
		return errors.New("expires is not after created")
	case p.Created.After(signed.Add(maxSkew)):
		return fmt.Errorf("created is %s, more than %s after the signature", p.Created.UTC().Format(time.RFC3339), maxSkew)
	}
	return nil
}

func (p *Plan) checkPartitions() error {
	if len(p.Partition) > maxPartitions {
		return fmt.Errorf("%d partitions, expected at most %d", len(p.Partition), maxPartitions)
	}
	rests, percent := 0, int64(0)
	for i, part := range p.Partition {
		at := fmt.Sprintf("partition %d %q", i+1, part.Name)
		if slices.ContainsFunc(p.Partition[:i], func(o Partition) bool { return o.Name == part.Name }) {
			return fmt.Errorf("%s: duplicate name", at)
		}
		if err := part.check(at); err != nil {
			return err
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

func (p Partition) check(at string) error {
	if !partitionName.MatchString(p.Name) {
		return fmt.Errorf("%s: expected a name of 1 to 36 letters, digits and . _ -", at)
	}
	if partitionTypes[p.Type] == "" && !guidForm.MatchString(p.Type) {
		return fmt.Errorf("%s: type is %q, expected linux, esp, swap, bios-boot or a GUID", at, p.Type)
	}
	if err := checkGUID(at+": guid", p.GUID); err != nil {
		return err
	}
	if p.Image != "" && p.Filesystem != "" {
		return fmt.Errorf("%s: image and filesystem exclude each other", at)
	}
	if p.Filesystem != "" && p.Filesystem != "fat" {
		return fmt.Errorf("%s: filesystem is %q, expected fat; others come as an image", at, p.Filesystem)
	}
	if p.Size == (Share{}) {
		return fmt.Errorf("%s: size is missing", at)
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
		i := slices.IndexFunc(p.Partition, func(r Partition) bool { return r.Name == id.Partition })
		if i < 0 || p.Partition[i].Image != "" || p.Partition[i].Filesystem != "" {
			return fmt.Errorf("identity.partition is %q, expected a partition of the plan without image and filesystem", id.Partition)
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
			return errors.New("identity.key: file is required, and certificate together with either ca or folder")
		}
		if (k.Certificate == "") != (k.Issuer == "") {
			return errors.New("identity.key: certificate and issuer need each other: a certificate that leads to no issuer of the plan is refused")
		}
	}
	if err := id.checkPaths(); err != nil {
		return err
	}
	return id.checkVariables()
}

// checkPaths requires every path of the identity partition to be a plain name and to be unique, as FAT compares names.
func (id *Identity) checkPaths() error {
	var paths []string
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
	seen := map[string]bool{LatchFile: true, SerialFile: true}
	for _, path := range paths {
		if !fileName.MatchString(path) {
			return fmt.Errorf("identity: file %q: expected a name of letters, digits and . _ -, in no folder", path)
		}
		low := strings.ToLower(path)
		if seen[low] {
			return fmt.Errorf("identity: file %q: duplicate or reserved name", path)
		}
		seen[low] = true
	}
	return nil
}

// names are the variables of the plan; complete is false if others come with the serial. A plan without an identity has none.
func (id *Identity) names() (known map[string]string, complete bool) {
	known = map[string]string{}
	if id == nil {
		return known, true
	}
	known["serial"] = ""
	for name := range id.Variables {
		known[name] = ""
	}
	return known, id.Serial.From != "csv" && id.Serial.From != "http"
}

// checkVariables expands every file, unless variables come with the serial.
func (id *Identity) checkVariables() error {
	for name := range id.Variables {
		if !variableName.MatchString(name) || name == "serial" {
			return fmt.Errorf("identity.variables: %q is not a valid name", name)
		}
	}
	known, complete := id.names()
	if !complete {
		return nil
	}
	for _, f := range id.File {
		if _, err := Expand(f.Content, known); err != nil {
			return fmt.Errorf("identity: file %s: %w", f.Path, err)
		}
	}
	return nil
}

func (s Serial) check() error {
	for _, need := range []struct{ from, key, value string }{{"plan", "value", s.Value}, {"csv", "file", s.File}, {"http", "url", s.URL}} {
		if s.From == need.from && need.value == "" {
			return fmt.Errorf("from %s requires %s", need.from, need.key)
		}
	}
	if !slices.Contains([]string{"plan", "prompt", "dmi", "device-tree", "csv", "http"}, s.From) {
		return fmt.Errorf("from is %q, expected plan, prompt, device-tree, dmi, csv or http", s.From)
	}
	_, err := s.pattern()
	return err
}

// pattern matches a whole serial.
func (s Serial) pattern() (*regexp.Regexp, error) {
	if s.Pattern == "" {
		return plainSerial, nil
	}
	return regexp.Compile(`^(?:` + s.Pattern + `)$`)
}

// Check refuses a serial that does not match the plan's pattern, or that is unsafe in a file name or a subject.
func (s Serial) Check(serial string) error {
	re, err := s.pattern()
	if err != nil {
		return err
	}
	if !re.MatchString(serial) || !plainSerial.MatchString(serial) {
		return fmt.Errorf("serial %.80q does not match %s", serial, re)
	}
	return nil
}

func checkGUID(key, guid string) error {
	if guid != "" && !guidForm.MatchString(guid) {
		return fmt.Errorf("%s is %q, expected a GUID", key, guid)
	}
	return nil
}
