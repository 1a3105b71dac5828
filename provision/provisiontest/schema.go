package provisiontest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"updater/provision/record"
)

// CheckSchema validates every record of a spool against the published schema with an independent validator.
func CheckSchema(t testing.TB, dir string) {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(record.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("record.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("record.json")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line, err := range record.Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("record %d: %v\n%s", n+1, err, line)
		}
		if n++; n > 1 {
			continue
		}
		// The schema refuses what it should.
		for old, bad := range map[string]string{`"station"`: `"stations"`, `"code":0`: `"code":3`, `"verdict":"pass"`: `"verdict":"passed"`,
			`"sequence":1`: `"sequence":0`} {
			broken := strings.Replace(string(line), old, bad, 1)
			if broken == string(line) {
				continue
			}
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(broken))
			if err != nil {
				t.Fatal(err)
			}
			if schema.Validate(value) == nil {
				t.Errorf("the schema accepts %s", bad)
			}
		}
	}
	if n == 0 {
		t.Error("the spool is empty")
	}
}
