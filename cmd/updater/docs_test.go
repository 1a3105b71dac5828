package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/config"
	"updater/internal/docs"
	"updater/provision/plan"
	"updater/release"
)

func docPages(t *testing.T) []docs.Page {
	t.Helper()
	pages, err := docs.Pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestDocumentedCommands: every command line of the pages has existing verbs and options, and as many arguments as the
// verb takes. Within a sentence arguments may be left out.
func TestDocumentedCommands(t *testing.T) {
	verbs := map[string]bool{}
	for _, p := range docPages(t) {
		for _, c := range p.Code {
			for _, args := range c.Commands("updater") {
				cmd, err := parsed(args, !c.Inline)
				if err != nil {
					t.Errorf("%s: updater %s: %v", p.Path, strings.Join(args, " "), err)
					continue
				}
				verbs[cmd.CommandPath()] = true
			}
		}
	}
	var every func(c *cobra.Command)
	every = func(c *cobra.Command) {
		if c.Runnable() && c.HasParent() && !c.HasSubCommands() && c.IsAvailableCommand() && !verbs[c.CommandPath()] {
			t.Errorf("no page has an example of %s", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			every(sub)
		}
	}
	every(newRoot(Env{}))
}

// TestExamplesOfTheHelp: the help of every verb has examples, and they are right.
func TestExamplesOfTheHelp(t *testing.T) {
	var every func(c *cobra.Command)
	every = func(c *cobra.Command) {
		if c.Runnable() && c.HasParent() && !c.HasSubCommands() && c.IsAvailableCommand() && c.Example == "" {
			t.Errorf("the help of %s has no example", c.CommandPath())
		}
		for _, command := range (docs.Code{Info: "sh", Text: c.Example}).Commands("updater") {
			if cmd, err := parsed(command, true); err != nil || !strings.Contains(c.Example, cmd.CommandPath()) {
				t.Errorf("the help of %s: updater %s: %v", c.CommandPath(), strings.Join(command, " "), err)
			}
		}
		for _, sub := range c.Commands() {
			every(sub)
		}
	}
	every(newRoot(Env{}))
}

// parsed reads a command line as the program would, without running it.
func parsed(args []string, whole bool) (*cobra.Command, error) {
	root := newRoot(Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return nil, err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return nil, err
	}
	words := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(words) > 0 {
		return nil, usagef("there is no %q below %s", words[0], cmd.CommandPath())
	}
	if help, _ := cmd.Flags().GetBool("help"); help || !whole {
		return cmd, nil
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return nil, err
	}
	return cmd, cmd.ValidateArgs(words)
}

// The check itself finds errors.
func TestDocumentedCommandsCheck(t *testing.T) {
	for _, line := range []string{"instal x.img", "install --nosuch x.img", "install", "mark fine", "bmap copy x", "bmap nosuch", "status x"} {
		if _, err := parsed(strings.Fields(line), true); err == nil {
			t.Errorf("updater %s is taken as right", line)
		}
	}
	if _, err := parsed(strings.Fields("install"), false); err != nil {
		t.Error(err)
	}
}

// TestDocumentedTOML: every block of TOML in the pages is understood by the reader of the file that it shows; a part of
// a file has known keys.
func TestDocumentedTOML(t *testing.T) {
	files := 0
	for _, p := range docPages(t) {
		for _, c := range p.Code {
			if c.Info != "toml" {
				continue
			}
			var err error
			switch {
			case strings.HasPrefix(c.Text, "type = \"release\""):
				_, err = release.Parse([]byte(c.Text))
			case strings.HasPrefix(c.Text, "type = \"channel\""):
				_, err = release.ParseChannel([]byte(c.Text))
			case strings.Contains(c.Text, "[[slot]]"):
				path := filepath.Join(t.TempDir(), "config.toml")
				if err = os.WriteFile(path, []byte(c.Text), 0o600); err == nil {
					_, err = device.LoadConfig(path, config.Build{})
				}
			case strings.Contains(c.Text, "[record]"):
				_, err = plan.Parse([]byte(c.Text))
			default:
				if err = knownKeys(c.Text, new(config.Config)); err != nil && knownKeys(c.Text, new(plan.Plan)) == nil {
					err = nil
				}
			}
			if files++; err != nil {
				t.Errorf("%s: %v\n%s", p.Path, err, c.Text)
			}
		}
	}
	if files < 2 {
		t.Errorf("%d blocks were found", files)
	}
}

// TestFactoryExample: examples/factory has the plan of docs/factory.md, which TestProvisionSample carries out, and a
// configuration that has the partitions of the plan.
func TestFactoryExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/factory.md")
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile("../../examples/factory/plan.toml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "```toml\n"+string(sample)+"```\n") {
		t.Error("examples/factory/plan.toml is not the plan of docs/factory.md")
	}
	p, err := plan.Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := device.LoadConfig("../../examples/factory/device.toml", config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, part := range p.Partition {
		names["PARTLABEL="+part.Name] = true
	}
	for _, s := range conf.Slot {
		for role, spec := range s.Partitions {
			if !names[spec] {
				t.Errorf("slot %s: the plan has no %s for role %s", s.Name, spec, role)
			}
		}
	}
}

func knownKeys(text string, into any) error {
	meta, err := toml.Decode(text, into)
	if err == nil && len(meta.Undecoded()) > 0 {
		return usagef("unknown keys %v", meta.Undecoded())
	}
	return err
}

// TestDocumentedKeys: docs/config.md has a row for every key of the configuration.
func TestDocumentedKeys(t *testing.T) {
	text, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range configKeys() {
		table, name, inTable := strings.Cut(key, "` `")
		found := strings.Contains(string(text), "`"+key+"`")
		for line := range strings.Lines(string(text)) { // several keys of a table in one row
			found = found || inTable && strings.HasPrefix(line, "| `"+table+"`") && strings.Contains(line, "`"+name+"`")
		}
		if !found {
			t.Errorf("docs/config.md does not have %s", key)
		}
	}
}

// configKeys are the keys of the configuration, as docs/config.md writes them.
func configKeys() []string {
	var keys []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for f := range typ.Fields() {
			name := f.Tag.Get("toml")
			if name == "" || name == "-" {
				continue
			}
			switch elem := f.Type; {
			case elem.Kind() == reflect.Slice && elem.Elem().Kind() == reflect.Struct:
				walk("[["+prefix+name+"]]` `", elem.Elem())
			case elem.Kind() == reflect.Struct && elem.NumField() > 0 && elem.Field(0).Tag.Get("toml") != "" && prefix == "":
				walk(name+".", elem)
			default:
				keys = append(keys, prefix+name)
			}
		}
	}
	walk("", reflect.TypeFor[config.Config]())
	return keys
}

// TestDocumentedExits: the tables of exit codes are that of exit.go, and docs/operation.md has every next step that the
// program may name for a code.
func TestDocumentedExits(t *testing.T) {
	operation, err := os.ReadFile("../../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[int]string{}
	for _, s := range strings.Split(string(operation), "\n### ")[1:] {
		if m := regexp.MustCompile(`^Exit (\d+): `).FindStringSubmatch(s); m != nil {
			code, _ := strconv.Atoi(m[1])
			sections[code] = strings.Join(strings.Fields(s), " ")
		}
	}
	rows := regexp.MustCompile(`(?m)^ +(\d+)  (.*)$`).FindAllStringSubmatch(exitTable, -1)
	if len(rows) < 13 || len(rows) != len(sections) {
		t.Errorf("%d codes in the table, %d in docs/operation.md", len(rows), len(sections))
	}
	for _, row := range rows {
		code, _ := strconv.Atoi(row[1])
		if !strings.HasPrefix(sections[code], "Exit "+row[1]+": "+row[2]+" ") {
			t.Errorf("docs/operation.md: the heading of exit %d is %.60q; want %q", code, sections[code], row[2])
		}
		short := regexp.MustCompile(`\| ` + row[1] + ` \| ([^|]+?) \|`).FindStringSubmatch(string(readme))
		if short == nil || !strings.HasPrefix(row[2], short[1]) {
			t.Errorf("README.md: the table of exit codes says %q of %d; want %q", short, code, row[2])
		}
	}
	for code, hints := range hintsByCode(t) {
		for _, hint := range hints {
			if !strings.Contains(sections[code], hint) {
				t.Errorf("docs/operation.md: exit %d does not have %q", code, hint)
			}
		}
	}
}

// hintsByCode are the pairs of classify, read from its source.
func hintsByCode(t *testing.T) map[int][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "exit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes, hints := map[string]int{}, map[int][]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if len(n.Values) == 0 {
				return true
			}
			if lit, ok := n.Values[0].(*ast.BasicLit); ok && lit.Kind == token.INT {
				codes[n.Names[0].Name], _ = strconv.Atoi(lit.Value)
			}
		case *ast.ReturnStmt:
			if len(n.Results) != 2 {
				return true
			}
			code, ok := n.Results[0].(*ast.Ident)
			text, isText := n.Results[1].(*ast.BasicLit)
			if !ok || !isText {
				return true
			}
			if hint, err := strconv.Unquote(text.Value); err == nil && hint != "" {
				at := codes[code.Name]
				hints[at] = append(hints[at], strings.Join(strings.Fields(hint), " "))
			}
		}
		return true
	})
	if len(hints) < 9 {
		t.Fatalf("%d codes with a hint in exit.go", len(hints))
	}
	return hints
}
