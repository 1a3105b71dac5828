package docs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

func pages(t *testing.T) []Page {
	t.Helper()
	all, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("%d pages were found", len(all))
	}
	return all
}

// TestLinks: every link of a page to another one leads to a file, and to a heading of it.
func TestLinks(t *testing.T) {
	byPath := map[string]Page{}
	for _, p := range pages(t) {
		byPath[p.Path] = p
	}
	checked := 0
	for _, p := range byPath {
		for _, link := range p.Links {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			checked++
			file, anchor, _ := strings.Cut(link, "#")
			target := p.Path
			if file != "" {
				target = filepath.Join(filepath.Dir(p.Path), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil || filepath.IsAbs(file) {
				t.Errorf("%s: link %s: no such file", p.Path, link)
				continue
			}
			if anchor != "" && !byPath[target].Anchors[anchor] {
				t.Errorf("%s: link %s: %s has no heading %q", p.Path, link, target, anchor)
			}
		}
	}
	if checked < 40 {
		t.Errorf("%d links were found", checked)
	}
}

// TestIndex: every page can be reached by links from docs/README.md.
func TestIndex(t *testing.T) {
	byPath := map[string]Page{}
	for _, p := range pages(t) {
		byPath[p.Path] = p
	}
	seen := map[string]bool{}
	var follow func(path string)
	follow = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		for _, link := range byPath[path].Links {
			file, _, _ := strings.Cut(link, "#")
			if target := filepath.Join(filepath.Dir(path), file); file != "" && byPath[target].Path != "" {
				follow(target)
			}
		}
	}
	follow("docs/README.md")
	for path := range byPath {
		if !seen[path] {
			t.Errorf("%s cannot be reached from docs/README.md", path)
		}
	}
}

// fileName matches a file of the tree that a page names, in code or in the text.
var fileName = regexp.MustCompile(`(?:^|[^\w./-])((?:examples|docs|scripts|packaging|contrib|cmd|internal|\.ci)/[\w./*{},-]*[\w*/}])`)

// TestFiles: the files that pages name exist.
func TestFiles(t *testing.T) {
	checked := 0
	for _, p := range pages(t) {
		for _, m := range fileName.FindAllStringSubmatch(p.Text, -1) {
			checked++
			name := strings.TrimSuffix(m[1], "/...")
			if found, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(found) == 0 {
				t.Errorf("%s names %s: no such file", p.Path, m[1])
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d names were found", checked)
	}
}

// TestDrawings: every drawing was made from its source, and a page shows it.
func TestDrawings(t *testing.T) {
	shown := map[string]bool{}
	for _, p := range pages(t) {
		for _, link := range p.Links {
			shown[filepath.Base(link)] = true
		}
	}
	sources, err := filepath.Glob(filepath.Join(root, "docs/drawings/*.dot"))
	if err != nil || len(sources) < 7 {
		t.Fatalf("%d sources, %v", len(sources), err)
	}
	for _, path := range sources {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		svg := strings.TrimSuffix(path, ".dot") + ".svg"
		drawn, err := os.ReadFile(svg)
		if err != nil || !strings.HasSuffix(string(drawn), fmt.Sprintf("<!-- %x  %s -->\n", sha256.Sum256(source), filepath.Base(path))) {
			t.Errorf("%s was not made of this %s (%v); run make drawings", svg, filepath.Base(path), err)
		}
		if !shown[filepath.Base(svg)] {
			t.Errorf("no page shows %s", svg)
		}
	}
}

// TestPlots: the plots show the tables of the page.
func TestPlots(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command(filepath.Join(root, "scripts/plots.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"copy.svg", "delta.svg", "memory.svg"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "docs/drawings", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not of this page (%v); run scripts/plots.sh", name, err)
		}
	}
}

// TestMake: the make targets that pages name exist.
func TestMake(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{"u-boot-initial-env": true} // of other projects
	for _, m := range regexp.MustCompile(`(?m)^([a-z][\w-]*):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	checked := 0
	for _, p := range pages(t) {
		for _, c := range p.Code {
			for _, args := range c.Commands("make") {
				for _, a := range args {
					if strings.ContainsAny(a, "=/$") || strings.HasPrefix(a, "-") {
						continue
					}
					checked++
					if !targets[a] && !strings.HasSuffix(a, "_defconfig") { // Buildroot's
						t.Errorf("%s: make %s: no such target", p.Path, a)
					}
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d targets were found", checked)
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       [][]string
	}{
		{"words", "updater mark good", [][]string{{"mark", "good"}}},
		{"quotes and a comment", `updater x "a b" 'c' # updater y`, [][]string{{"x", "a b", "c"}}},
		{"comment in a column", "updater mark good      # on every boot", [][]string{{"mark", "good"}}},
		{"columns", "updater amd64      11 MiB", nil},
		{"redirection", "updater x > file 2> x | updater y", [][]string{{"x"}, {"y"}}},
		{"before", "! A=1 sudo updater x && updater y; updater z", [][]string{{"x"}, {"y"}, {"z"}}},
		{"continued", "updater x \\\n  y\n", [][]string{{"x", "y"}}},
		{"prompts", "$ updater x\nupdater is the output\n", [][]string{{"x"}}},
		{"other names", "updater: error\nupdater.mode=x\nmyupdater x", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Code{Text: tt.text}.Commands("updater")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	p := Parse("x.md", []byte("# A `b` c!\n\n## A b c\n\n[l](y.md#z) `code`\n\n```toml\nx = 1\n```\n\n    indented\n"))
	want := Page{
		Path: "x.md", Text: p.Text, Links: []string{"y.md#z"}, Anchors: map[string]bool{"a-b-c": true, "a-b-c-1": true},
		Code: []Code{{Text: "b", Inline: true}, {Text: "code", Inline: true}, {Info: "toml", Text: "x = 1\n"}, {Text: "indented\n"}},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

// TestChangelog: CHANGELOG.md has a section for the version of the tree: Unreleased while it ends in -pre, its own afterwards.
func TestChangelog(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "cmd/updater/version.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^const version = "(\d+\.\d+\.\d+)(-pre)?"$`).FindSubmatch(source)
	if m == nil {
		t.Fatal("cmd/updater/version.go has no version of the form 1.2.3 or 1.2.3-pre")
	}
	section := "[" + string(m[1]) + "]"
	if len(m[2]) > 0 {
		section = "[Unreleased]"
	}
	changelog, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	first := regexp.MustCompile(`(?m)^## (\[.*?\])`).FindSubmatch(changelog)
	if first == nil || string(first[1]) != section {
		t.Errorf("first section of CHANGELOG.md = %q; want %s, for the version in cmd/updater/version.go", first, section)
	}
}

// TestRecording: the recording in README.md has the commands that examples/try.sh runs, in their order.
func TestRecording(t *testing.T) {
	recording, commands := read(t, "docs/drawings/try.svg"), 0
	for line := range strings.Lines(read(t, "examples/try.sh")) {
		command, ok := strings.CutPrefix(line, "step ")
		if !ok {
			continue
		}
		commands++
		var found bool
		if _, recording, found = strings.Cut(recording, ">$ "+strings.Replace(strings.TrimSpace(command), `"$updater"`, "updater", 1)+"<"); !found {
			t.Errorf("docs/drawings/try.svg does not show %q here; run make drawings", command)
		}
	}
	if commands < 5 {
		t.Errorf("%d commands were found", commands)
	}
}
