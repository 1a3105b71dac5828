package device_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"updater/device"
	"updater/device/config"
)

const schemaFile = "../docs/config.schema.json"

// node is a part of the schema.
type node struct {
	Type       string          `json:"type"`
	Properties map[string]node `json:"properties"`
	Items      *node           `json:"items"`
	OneOf      []node          `json:"oneOf"`
	Additional any             `json:"additionalProperties"`
}

// keys lists the keys of a schema with their types.
func (n node) keys(prefix string) (list []string) {
	if n.Items != nil && n.Items.Properties != nil {
		n = *n.Items
	}
	for name, sub := range n.Properties {
		list = append(list, prefix+name+" "+sub.kind())
		list = append(list, sub.keys(prefix+name+".")...)
	}
	return list
}

func (n node) kind() string {
	switch {
	case len(n.OneOf) > 0:
		return "own"
	case n.Items != nil:
		return "array of " + n.Items.kind()
	case n.Type == "object" && n.Properties == nil:
		return "map"
	}
	return n.Type
}

// fields lists the keys of a type of the reader with their types.
func fields(t reflect.Type, prefix string) (list []string) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || kind(t) != "object" {
		return nil
	}
	for f := range t.Fields() {
		if name := f.Tag.Get("toml"); name != "-" {
			list = append(list, prefix+name+" "+kind(f.Type))
			list = append(list, fields(f.Type, prefix+name+".")...)
		}
	}
	return list
}

func kind(t reflect.Type) string {
	p := reflect.PointerTo(t)
	switch {
	case p.Implements(reflect.TypeFor[interface{ UnmarshalTOML(any) error }]()):
		return "own"
	case p.Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()):
		return "string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kind(t.Elem())
	case reflect.Slice:
		return "array of " + kind(t.Elem())
	case reflect.Struct:
		return "object"
	case reflect.Map:
		return "map"
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	}
	return "integer"
}

// TestSchemaHasTheKeysOfTheReader: every key of the reader is in the schema with its type, and the other way round.
func TestSchemaHasTheKeysOfTheReader(t *testing.T) {
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var schema node
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	want, got := fields(reflect.TypeFor[config.Config](), ""), schema.keys("")
	got = slices.DeleteFunc(got, func(k string) bool { return strings.HasPrefix(k, "boot.env.") || strings.HasPrefix(k, "state.") })
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 80 {
		t.Errorf("%d keys; the reader (-) and the schema (+):\n%s", len(want), diff)
	}
	var enum struct {
		Properties struct {
			Boot struct {
				Properties struct{ Backend struct{ Enum []string } }
			}
		}
	}
	if err := json.Unmarshal(text, &enum); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(device.Backends(), enum.Properties.Boot.Properties.Backend.Enum); diff != "" {
		t.Errorf("boot.backend: %s", diff)
	}
}

// valid reports whether the schema accepts a configuration.
func valid(t *testing.T, schema *jsonschema.Schema, text string) error {
	t.Helper()
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(parsed)
}

// TestSchema: it accepts every example, and refuses what the reader refuses for one key alone.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"../examples/*/*/*.toml", "../examples/*/*.toml", "../packaging/config.toml", "../internal/abdisk/files/*.toml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, schema, string(text)); err != nil && strings.Contains(string(text), "[boot]") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Each line belongs into the table of its key. Some values are right, to see that the schema is not the stricter of the two.
	for line, right := range map[string]bool{
		`product = "*"`: false, `hardware = 3`: false, `bogus = 1`: false, `state = { device = "x" }`: false, `state = { device = "x", size = 65536 }`: true, `state = ""`: false,
		`[disk]|engine = "fast"`: false, `[disk]|unmapped = "keep"`: true, `[boot]|tries = 10`: false, `[boot]|tries = 9`: true, `[boot]|prefix = "A"`: false,
		`[boot]|commands = { start = ["/x"] }`: false, `[boot]|variables = { order = "O R" }`: false, `[boot]|variables = { left = "L_{slot}" }`: true,
		`[boot]|variables = 3`: false, `[boot]|env = [ { device = "x" } ]`: false, `[boot]|env = [ { device = "x", size = 16384, offset = -1 } ]`: true, `[boot]|backend = "lilo"`: false,
		`[source]|timeout = "2h30m"`: true, `[source]|timeout = "-2h"`: false, `[source]|timeout = 3`: false, `[source]|max_size = "2GiB"`: true, `[source]|max_size = "2GB"`: false,
		`[source]|token_type = "Basic"`: false, `[trust]|min_signers = 17`: false, `[trust]|min_hash_bits = 384`: true, `[trust]|min_hash_bits = 128`: false, `[trust]|min_rsa_bits = 2048`: false,
		`[trust]|require = ["colour"]`: false, `[trust]|require = ["created"]`: true, `[trust]|role_signers = { rootfs = 17 }`: false, `[trust]|role_signers = 2`: false,
		`[[trust.key]]|documents = ["letter"]`: false, `[[trust.key]]|documents = []`: false, `[release]|rollback_index = -1`: false, `[recovery]|mode = "x"`: false,
		`[recovery]|urls = ["ftp://x"]`: false, `[recovery]|gpio = { chip = "a", line = 3, pull = "left" }`: false, `[recovery]|gpio = { chip = "a", line = 3, pull = "up" }`: true,
		`[hooks]|timeout = "90s"`: true, `[hooks]|initramfs = "yes"`: false, `[report]|url = "ftp://x"`: false, `[when]|windows = ["Mon-Fri,Sun 22:30-05:00"]`: true,
		`[when]|windows = ["noon"]`: false, `[when]|inhibit = ["x"]`: false, `[channel]|hawkbit = { url = "https://h/", tenant = "T" }`: true,
		`[channel]|hawkbit = { url = "h" }`: false,
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		text := "[boot]\nbackend = \"grub\"\n" + slots
		table, key, ok := strings.Cut(line, "|")
		switch {
		case !ok:
			text = line + "\n" + text
		case table == "[boot]":
			text = strings.Replace(text, `backend = "grub"`, "backend = \"grub\"\n"+key, 1)
			if strings.HasPrefix(key, "backend") {
				text = "[boot]\n" + key + "\n" + slots
			}
		default:
			text += table + "\n" + key + "\n"
		}
		if strings.HasPrefix(table, "[report]") || strings.HasPrefix(table, "[channel]") {
			text = "state = \"x\"\n" + text
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, loaded := device.LoadConfig(path, config.Build{})
		if err := valid(t, schema, text); (err == nil) != right || (loaded == nil) != right {
			t.Errorf("%s: the schema: %v; the reader: %v; want right: %t", line, err, loaded, right)
		}
	}
}
