package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"updater/initramfs"
	"updater/release"
	"updater/update"
	"updater/verify"
)

// DefaultPath is where the configuration of a device is.
const DefaultPath = "/etc/updater/config.toml"

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// Config is the configuration of a device. The zero value is that of a host without one: no keyring, no slots, every default.
type Config struct {
	Product  string   `toml:"product"`  // must equal a signed <Product>
	Hardware string   `toml:"hardware"` // revision of the device, which a release may be limited to; "" is that of the device tree
	Keyring  []string `toml:"keyring"`  // files or folders of OpenPGP certificates
	State    State    `toml:"state"`    // where the state store is; empty: nothing is remembered
	Disk     Disk     `toml:"disk"`
	Boot     Boot     `toml:"boot"`
	Slot     []Slot   `toml:"slot"`
	Source   Source   `toml:"source"`
	Trust    Trust    `toml:"trust"`
	Release  Release  `toml:"release"`
	Recovery Recovery `toml:"recovery"`
	Hooks    Hooks    `toml:"hooks"`
	Channel  Channel  `toml:"channel"`
	Report   Report   `toml:"report"`
	When     When     `toml:"when"`
	Serve    Serve    `toml:"serve"`

	File  string `toml:"-"` // that was read; "" without one
	Build Build  `toml:"-"` // of the program that loaded it
}

// Disk is [disk].
type Disk struct {
	Path     string `toml:"path"`     // block device or disk image file; "" is the disk that booted
	Engine   string `toml:"engine"`   // how slots are written: auto, paced or direct; "" is auto
	Unmapped string `toml:"unmapped"` // treatment of unmapped blocks when the image sets none: zero, keep or discard; "" is zero
}

// Slot is one [[slot]]: its name to the boot loader, and its partitions and files by role.
type Slot struct {
	Name       string            `toml:"name"`
	Partitions map[string]string `toml:"partitions"`
	Files      map[string]string `toml:"files"` // see [Place]

	Loader        string `toml:"loader"`         // efi: the EFI program on the ESP
	BootPartition int    `toml:"boot_partition"` // tryboot: number of the partition that the firmware boots
	Attempts      *int   `toml:"attempts"`       // barebox: offset of the variables in the state's data
	Priority      *int   `toml:"priority"`
}

// Roles lists the roles of the slot in alphabetical order.
func (s Slot) Roles() []string {
	roles := slices.AppendSeq(slices.Collect(maps.Keys(s.Partitions)), maps.Keys(s.Files))
	slices.Sort(roles)
	return roles
}

// Release is [release]: version and index of the image that contains this configuration. It counts where the state store
// cannot be read.
type Release struct {
	Version       string `toml:"version"`
	RollbackIndex int64  `toml:"rollback_index"`
}

// Load reads and checks the configuration of this device. backends are the known values of boot.backend. Errors: [Error], and
// verify.SignatureError from a sealed program.
func Load(path string, backends []string) (*Config, error) {
	if err := checkSealed(path); err != nil {
		return nil, err
	}
	c, err := LoadOther(path, backends)
	if err == nil && initramfs.Sealed() {
		if outside := c.OutsideSeal(filepath.Dir(path)); len(outside) > 0 {
			return nil, &verify.SignatureError{Reason: fmt.Sprintf("%s names files outside of the seal, %s", strings.Join(outside, ", "), filepath.Dir(path)), Advice: sealedAdvice}
		}
	}
	return c, err
}

// LoadOther reads and checks the configuration of another device, such as the one that a factory plan names: the seal of this program
// does not cover it. Errors: [Error].
func LoadOther(path string, backends []string) (*Config, error) {
	c, err := read(path)
	if err == nil {
		c.resolve(filepath.Dir(path))
		if errs := c.check(backends); len(errs) > 0 {
			err = errs[0]
		}
	}
	if err != nil {
		advice := ""
		if e, ok := errors.AsType[*Error](err); ok {
			advice = e.Advice
		}
		return nil, &Error{Err: fmt.Errorf("configuration %s: %w", path, err), Advice: advice}
	}
	c.File = path
	return c, nil
}

// files are the files that the configuration trusts or shows to servers, by their keys.
func (c *Config) files() map[string][]string {
	s := c.Source
	return map[string][]string{
		"keyring": c.Keyring, "source.ca": {s.CA}, "source.client_cert": {s.ClientCert}, "source.client_key": {s.ClientKey}, "source.token_file": {s.TokenFile},
	}
}

// OutsideSeal returns the keys of the configuration that name files outside a folder, which a seal of that folder does not cover, sorted.
func (c *Config) OutsideSeal(dir string) []string {
	var outside []string
	for key, paths := range c.files() {
		for _, path := range paths {
			if rel, err := filepath.Rel(dir, path); path != "" && (err != nil || !filepath.IsLocal(rel)) {
				outside = append(outside, key)
			}
		}
	}
	slices.Sort(outside)
	return slices.Compact(outside)
}

func read(path string) (*Config, error) {
	c, _, errs := parse(path)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return c, nil
}

// parse reads the file strictly, and returns its text, which has the lines of the errors.
func parse(path string) (*Config, string, []error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", []error{errors.Unwrap(err)}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("longer than %d bytes", maxConfig)
	}
	c := new(Config)
	var meta toml.MetaData
	if err == nil {
		meta, err = toml.Decode(string(data), c)
	}
	if err != nil {
		return nil, "", []error{err}
	}
	var errs []error
	for _, key := range meta.Undecoded() {
		if len(key) > 2 && key[0] == "boot" && key[1] == "env" || len(key) > 1 && key[0] == "state" {
			continue // Env and State check their own keys
		}
		errs = append(errs, fmt.Errorf("unknown key %q", key))
	}
	// A value that is not a table is silently dropped where a map is expected.
	keys := meta.Keys()
	for i, key := range keys {
		if !slices.Contains(tables, key.String()) || i+1 < len(keys) && slices.Equal(keys[i+1][:min(len(key), len(keys[i+1]))], key) {
			continue
		}
		errs = append(errs, fmt.Errorf("%s is empty or no table", key))
	}
	return c, string(data), errs
}

// tables are the keys with tables whose own keys are free.
var tables = []string{"boot.variables", "boot.commands", "trust.role_signers", "slot.partitions", "slot.files"}

// resolve makes relative paths count from the folder of the file.
func (c *Config) resolve(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if !c.Disk.described() {
		abs(&c.Disk.Path)
	}
	c.Source.resolve(dir)
	c.Hooks.resolve(dir)
	if !strings.Contains(c.Channel.URL, "://") {
		abs(&c.Channel.URL)
	}
	for i := range c.Keyring {
		abs(&c.Keyring[i])
	}
	if !strings.Contains(c.State.Device, "=") {
		abs(&c.State.Device)
	}
}

// described reports whether the disk is described by SERIAL= or BUS= instead of named by a path.
func (d Disk) described() bool {
	return strings.HasPrefix(d.Path, "SERIAL=") || strings.HasPrefix(d.Path, "BUS=")
}

// Described returns the description of the disk, SERIAL=... or BUS=..., and false when it is a path or empty.
func (d Disk) Described() (string, bool) { return d.Path, d.described() }

// check returns everything that is wrong with the values. The text of each begins with its key, or with its slot.
func (c *Config) check(backends []string) (errs []error) {
	wrong := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	wrong(c.Product == update.AnyProduct, "product is %q, which every update would match; name the product of this device", c.Product)
	wrong(c.Hardware == update.AnyHardware, "hardware is %q, which every release would match; name the revision of this device", c.Hardware)
	wrong(c.Release.RollbackIndex < 0, "release.rollback_index is %d, expected 0 or more", c.Release.RollbackIndex)
	errs = append(errs, c.Source.Check(), c.Trust.check(),
		oneOf("disk.engine", c.Disk.Engine, "", "auto", "paced", "direct"),
		oneOf("disk.unmapped", c.Disk.Unmapped, "", update.UnmappedZero, update.UnmappedKeep, update.UnmappedDiscard),
		c.Boot.check(backends), c.checkFleet(), c.checkSlots(), c.Recovery.check())
	if len(c.Slot) > 0 {
		if roles := c.Slot[0].Roles(); c.Trust.RequireMetadata && len(roles) > 1 && !slices.Contains(c.Trust.Require, "role") {
			c.Trust.Require = append(c.Trust.Require, "role") // else an image may go into any of them
		}
		wrong(c.Boot.Booted != "" && !slices.Contains(c.SlotNames(), c.Boot.Booted), "boot.booted is %q; the slots are %s", c.Boot.Booted, strings.Join(c.SlotNames(), ", "))
		errs = append(errs, c.checkKexec())
	}
	return flatten(errs)
}

// flatten lists the errors that are not nil, and each error of a join.
func flatten(errs []error) (list []error) {
	for _, err := range errs {
		if join, ok := err.(interface{ Unwrap() []error }); ok {
			list = append(list, flatten(join.Unwrap())...)
		} else if err != nil {
			list = append(list, err)
		}
	}
	return list
}

func (c *Config) checkSlots() error {
	if len(c.Slot) == 0 {
		return errors.New("[[slot]] is missing")
	}
	var errs []error
	owner := map[string]string{}
	for i, s := range c.Slot {
		if !validSlotName(s.Name) {
			errs = append(errs, fmt.Errorf("slot %d: name is %q, expected letters, digits and underscores", i+1, s.Name))
			continue
		}
		if len(s.Roles()) == 0 {
			errs = append(errs, fmt.Errorf("slot %s: partitions is missing", s.Name))
		}
		if slices.Contains(c.SlotNames()[:i], s.Name) {
			errs = append(errs, fmt.Errorf("slot %s is defined twice", s.Name))
		}
		for _, role := range slices.Sorted(maps.Keys(s.Partitions)) {
			p := s.Partitions[role]
			if c.State.Size == 0 && p == c.State.Device {
				errs = append(errs, fmt.Errorf("slot %s: partition %s of role %s is the state store", s.Name, p, role))
			} else if other, taken := owner[p]; taken {
				errs = append(errs, fmt.Errorf("slot %s: partition %s of role %s belongs to slot %s too", s.Name, p, role, other))
			}
			owner[p] = s.Name
		}
	}
	for _, s := range c.Slot {
		errs = append(errs, c.checkFiles(s, owner))
	}
	return errors.Join(errs...)
}

// CheckInstallable refuses installs into slots of several roles without a state store: only the store knows whether the roles of a slot
// are of one release. Reading such a device is allowed. Errors: [Error].
func (c *Config) CheckInstallable() error {
	if roles := c.Slot[0].Roles(); c.State.Device == "" && len(roles) > 1 {
		return &Error{
			Err:    fmt.Errorf("the slots have several roles (%s), which needs a state store: it knows whether they are of one release", strings.Join(roles, ", ")),
			Advice: `add a partition of 1 MiB or more and state = "PARTLABEL=state", or the path of a file on a partition that no slot has`,
		}
	}
	return nil
}

// oneOf checks a value of a fixed set.
func oneOf(key, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	words := slices.DeleteFunc(allowed, func(s string) bool { return s == "" })
	last := len(words) - 1
	return fmt.Errorf("%s is %q, expected %s or %s", key, value, strings.Join(words[:last], ", "), words[last])
}

// validSlotName: the name becomes part of a boot loader's variable names.
func validSlotName(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// SlotNames lists the slots in their order.
func (c *Config) SlotNames() []string {
	names := make([]string, len(c.Slot))
	for i, s := range c.Slot {
		names[i] = s.Name
	}
	return names
}

// RoleNames lists the roles of all slots, sorted.
func (c *Config) RoleNames() []string {
	var names []string
	for _, s := range c.Slot {
		names = append(names, s.Roles()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SlotParts names every role of every slot as SLOT/ROLE, in a fixed order.
func (c *Config) SlotParts() []string {
	var parts []string
	for _, s := range c.Slot {
		for _, role := range s.Roles() {
			parts = append(parts, s.Name+"/"+role)
		}
	}
	return parts
}

// Layout is the slots of the device and the roles of each, which a release has to match.
func (c *Config) Layout() release.Layout {
	l := release.Layout{Slots: c.SlotNames()}
	if len(c.Slot) > 0 {
		l.Roles = c.Slot[0].Roles()
	}
	return l
}

// Labels lists the partitions of all slots that are configured by a label or UUID. A node is on one disk only.
func (c *Config) Labels() []string {
	var list []string
	for _, s := range c.Slot {
		for _, role := range s.Roles() {
			if p := s.Partitions[role]; strings.Contains(p, "=") {
				list = append(list, p)
			}
		}
	}
	return list
}

// Partition is the partition that is configured for a role of a slot. Errors: [RequestError].
func (c *Config) Partition(slot, role string) (string, error) {
	for _, s := range c.Slot {
		if s.Name != slot {
			continue
		}
		if p, ok := s.Partitions[role]; ok {
			return p, nil
		}
		if p, ok := c.FileRole(slot, role); ok {
			return "", Requestf("role %s of slot %s is the file %s, not a partition", role, slot, p)
		}
		return "", Requestf("slot %s has no partition for role %q; its roles are %s", slot, role, strings.Join(s.Roles(), ", "))
	}
	return "", c.UnknownSlot(slot)
}

// UnknownSlot is the error for a slot that is not configured.
func (c *Config) UnknownSlot(slot string) error {
	return Requestf("slot %q is not configured; the slots are %s", slot, strings.Join(c.SlotNames(), ", "))
}

// Role is the role to write: the one asked for, or the only one. Errors: [RequestError].
func (c *Config) Role(asked string) (string, error) {
	if asked != "" {
		if _, isFile := c.FileRole(c.Slot[0].Name, asked); isFile {
			return asked, nil
		}
		_, err := c.Partition(c.Slot[0].Name, asked)
		return asked, err
	}
	if roles := c.Slot[0].Roles(); len(roles) == 1 {
		return roles[0], nil
	}
	return "", Requestf("the slots have several partitions (%s); name one with --role", strings.Join(c.Slot[0].Roles(), ", "))
}
