package docs

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"updater/boot"
	"updater/device"
	"updater/device/health"
	"updater/state"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReference: docs/reference.md has every member of the documents and events that programs read.
func TestReference(t *testing.T) {
	reference := read(t, "docs/reference.md")
	var schema struct {
		Properties map[string]struct {
			Enum []any `json:"enum"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(read(t, "docs/events.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var words []string
	for name, p := range schema.Properties {
		words = append(words, name)
		for _, value := range p.Enum {
			if word, ok := value.(string); ok && name != "hook" {
				words = append(words, word)
			}
		}
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[device.Status](), reflect.TypeFor[device.SlotStatus](), reflect.TypeFor[boot.Finding](), reflect.TypeFor[boot.Forecast](),
		reflect.TypeFor[state.Image](), reflect.TypeFor[device.History](), reflect.TypeFor[state.Event](), reflect.TypeFor[health.Report](), reflect.TypeFor[health.Check](),
	} {
		for f := range typ.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
				words = append(words, name)
			}
		}
	}
	for _, word := range words {
		if !strings.Contains(reference, "`"+word+"`") {
			t.Errorf("docs/reference.md does not have %q", word)
		}
	}
}

// TestClaims: the numbers of README.md are those of the pages that measured or counted them, and of the tests that limit them.
func TestClaims(t *testing.T) {
	readme, counts, performance := read(t, "README.md"), read(t, "docs/testing.md"), read(t, "docs/performance.md")
	digits := strings.NewReplacer(",", "")
	for _, claim := range regexp.MustCompile(`([\d,]+) (states that|installs with|runs on|live power cuts)`).FindAllStringSubmatch(readme, -1) {
		if !regexp.MustCompile(`(?m)^\|.*\| ` + digits.Replace(claim[1]) + ` \|`).MatchString(counts) {
			t.Errorf("README.md: %s: docs/testing.md has no row with this count", claim[0])
		}
	}
	speed := func(form, command string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^\| ` + form + ` \| ` + regexp.QuoteMeta(command) + ` \| \d+ \| ([\d.]+) \|`).FindStringSubmatch(performance)
		if m == nil {
			t.Fatalf("docs/performance.md has no row %q of %q", command, form)
		}
		ratio, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return ratio
	}
	forms := []string{"raw", "gz", "zst3", "packed", "lz4", "xz", "xzmulti"}
	for row, command := range map[string]string{
		"| `updater`, as bmaptool does it: not read back": "updater bmap copy --no-read-back",
		"| `updater`, everything read back":               "updater bmap copy, read back",
	} {
		_, cells, ok := strings.Cut(readme, row+" | ")
		if !ok {
			t.Fatalf("README.md has no row %q", row)
		}
		for i, cell := range strings.SplitN(cells, " | ", len(forms)+1)[:len(forms)] {
			got, err := strconv.ParseFloat(cell, 64)
			if want := speed(forms[i], command); err != nil || math.Abs(got-want) > 0.051 {
				t.Errorf("README.md: %s, %s: %s; docs/performance.md has %v", command, forms[i], cell, want)
			}
		}
	}
	for _, m := range regexp.MustCompile(`at most (\d+)\.(\d) MiB`).FindAllStringSubmatch(readme, -1) {
		limit := regexp.QuoteMeta(strings.TrimSuffix(m[1]+"."+m[2], ".0"))
		if !regexp.MustCompile(`(?m)^\s*row .* ` + limit + `$`).MatchString(read(t, "scripts/size.sh")) {
			t.Errorf("README.md: %s: scripts/size.sh has no such limit", m[0])
		}
	}
}

// TestQuotedMessages: the program has every message that docs/faq.md quotes as a symptom.
func TestQuotedMessages(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile(`(?m)^\*\*[^*"\n]*"([^"\n]+)"`).FindAllStringSubmatch(read(t, "docs/faq.md"), -1)
	if len(quoted) < 5 {
		t.Errorf("%d messages are quoted", len(quoted))
	}
	for _, m := range quoted {
		if !strings.Contains(sources.String(), m[1]) {
			t.Errorf("docs/faq.md quotes %q, which the program does not print", m[1])
		}
	}
}
