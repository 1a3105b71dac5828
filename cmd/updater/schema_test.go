package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"

	"updater/delta"
	"updater/device"
	"updater/device/health"
	"updater/fleet"
	"updater/internal/rig"
	"updater/provision/line"
	"updater/provision/record"
	"updater/release"
)

// results are the outputs of the verbs with --json, one object, or one for each line.
var results = map[string]any{
	"activate": changed{}, "bmap create": bmapInfo{}, "bmap info": bmapInfo{}, "bmap verify": bmapVerdict{}, "channel add": release.ChannelContents{},
	"channel create": release.ChannelContents{}, "channel info": release.ChannelContents{}, "channel renew": release.ChannelContents{},
	"channel verify": channelVerdict{}, "channel withdraw": release.ChannelContents{}, "check": fleet.Verdict{}, "config check": configVerdict{},
	"delta create": delta.Summary{}, "delta info": delta.Summary{}, "doctor": findings{}, "health": health.Report{}, "history": device.History{}, "init": drafted{},
	"keyring create": keyringView{}, "keyring info": keyringView{}, "keyring install": changed{}, "mark bad": changed{}, "mark good": changed{},
	"pack": bmapInfo{}, "provision": line.Result{}, "provision records export": record.Record{}, "provision records list": record.Record{},
	"provision records verify": recordsVerdict{}, "recover": changed{}, "release create": releaseView{}, "release info": releaseView{},
	"release verify": releaseVerdict{}, "report": fleet.Report{}, "rollback": changed{}, "scrub": device.Scrubbed{}, "status": device.Status{}, "verify": verifyVerdict{}, "version": versionInfo{},
}

// elsewhere are the verbs whose output is described otherwise, and where.
var elsewhere = map[string]string{
	"install": "docs/events.schema.json", "update": "docs/events.schema.json", "bmap copy": "docs/events.schema.json",
	"release tar": "the archive itself", "provision token": "the token itself", "provision records send": "nothing", "varlink": "service/io.updater.varlink", "serve": "nothing",
}

// TestJSONOfEveryVerb: every verb has --json, and a schema of that output.
func TestJSONOfEveryVerb(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "updater ")
		_, typed := results[name]
		has := c.Flags().Lookup("json") != nil
		switch {
		case elsewhere[name] == "" && !c.HasSubCommands() && (!has || !typed):
			t.Errorf("%s: --json is there: %v, with a schema: %v", name, has, typed)
		case typed && !has:
			t.Errorf("%s has a schema and no --json", name)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(Env{}))
}

const resultsFile = "../../docs/results.schema.json"

// TestResultSchema: docs/results.schema.json describes the types of the results; UPDATER_WRITE_SCHEMA=1 writes it.
func TestResultSchema(t *testing.T) {
	defs := map[string]map[string]any{}
	verbs := map[string]map[string]any{}
	for name, value := range results {
		verbs[name] = schemaOf(reflect.TypeOf(value), defs)
	}
	maps.Copy(defs, verbs)
	var want []byte // one definition on a line
	want = append(want, `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Results of updater's verbs with --json",
  "description": "Each verb is a definition, such as #/$defs/status. A verb with several results prints one object a line. A later version may add members.",
  "$defs": {
`...)
	for i, name := range slices.Sorted(maps.Keys(defs)) {
		text, err := json.Marshal(defs[name])
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			want = append(want, ",\n"...)
		}
		want = fmt.Appendf(want, "    %q: %s", name, text)
	}
	want = append(want, "\n  }\n}"...)
	if want = append(want, '\n'); os.Getenv("UPDATER_WRITE_SCHEMA") != "" {
		if err := os.WriteFile(resultsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(resultsFile); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/results.schema.json is not what the results are (%v); write it: UPDATER_WRITE_SCHEMA=1 go test -run TestResultSchema ./cmd/updater", err)
	}
}

// schemaOf is the JSON schema of a type, as encoding/json encodes it. Structs become definitions.
func schemaOf(t reflect.Type, defs map[string]map[string]any) map[string]any {
	typed := func(name string) map[string]any { return map[string]any{"type": name} }
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return typed("string")
	case t.Implements(reflect.TypeFor[json.Marshaler]()), t.Kind() == reflect.Interface:
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return map[string]any{"anyOf": []any{typed("null"), schemaOf(t.Elem(), defs)}}
	case reflect.Struct:
		name := strings.TrimPrefix(t.String(), "main.")
		if defs[name] == nil {
			properties, required := map[string]any{}, []string{}
			defs[name] = map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
			fieldsOf(t, defs, properties, &required)
			slices.Sort(required)
			defs[name]["required"] = required
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": schemaOf(t.Elem(), defs)}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return typed("string")
		}
		return map[string]any{"type": []string{"array", "null"}, "items": schemaOf(t.Elem(), defs)}
	case reflect.Bool:
		return typed("boolean")
	case reflect.String:
		return typed("string")
	case reflect.Float64:
		return typed("number")
	}
	return typed("integer")
}

// fieldsOf adds the members of a struct, with those of the structs that it embeds.
func fieldsOf(t reflect.Type, defs map[string]map[string]any, properties map[string]any, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			fieldsOf(f.Type, defs, properties, required)
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		properties[name] = schemaOf(f.Type, defs)
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// TestResultsFit: the output of the verbs matches their schema.
func TestResultsFit(t *testing.T) {
	c := jsonschema.NewCompiler()
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	r.Sh("cp keys/* cert.asc")
	r.Bmap("i.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
	r.Install(0, "slot B boots next", "--bmap", "i.bmap", "image.img")
	device := []string{"--config", "config.toml", "--json"}
	for verb, args := range map[string][]string{
		"status": device, "history": device, "doctor": device, "keyring info": device, "activate": append([]string{"B"}, device...),
		"mark good": append([]string{"A"}, device...), "version": {"--json"}, "bmap info": {"--json", "i.bmap"}, "config check": {"--json", "config.toml"},
		"bmap create": {"--json", "-o", "new.bmap", "image.img"}, "bmap verify": {"--json", "i.bmap", "image.img"},
		"verify": append([]string{"--bmap", "i.bmap", "image.img"}, device...), "keyring create": {"--json", "--number", "1", "cert.asc,documents=release"},
	} {
		schema, err := c.Compile(resultsFile + "#/$defs/" + strings.ReplaceAll(verb, " ", "%20"))
		if err != nil {
			t.Fatal(err)
		}
		_, out, errs := r.Run(append(strings.Fields(verb), args...)...)
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s%s", verb, err, out, errs)
		}
	}
}

// TestCompletion: the shell completes the names that the configuration of the device knows.
func TestCompletion(t *testing.T) {
	r := rig.New(t)
	for _, c := range []struct{ line, want string }{
		{"mark good --config config.toml ", "A\nB\n"},
		{"activate --config config.toml ", "A\nB\n"},
		{"install --config config.toml --slot ", "A\nB\n"},
		{"install --config config.toml --role ", "rootfs\n"},
		{"status --config config.toml --booted ", "A\nB\n"},
		{"init --backend ", "grub\n"},
		{"install --progress ", "plain\n"},
		{"mark good --config nothing ", ":4\n"},
	} {
		_, out, _ := r.Run(append([]string{"__complete"}, append(strings.Fields(c.line), "")...)...)
		if !strings.Contains(out, c.want) {
			t.Errorf("%q completes %q; want %q", c.line, out, c.want)
		}
	}
}
