// Package docs reads the project's Markdown pages, so that tests can compare them with the program.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Page is one Markdown file.
type Page struct {
	Path    string          // from the root of the tree
	Text    string          // the source
	Links   []string        // destinations, also of images
	Anchors map[string]bool // names that #... may refer to
	Code    []Code          // in the order of the page
}

// Code is a block of code, or a span of it within a line.
type Code struct {
	Info   string // the word after the fence
	Text   string
	Inline bool
}

// Pages reads every .md file below root that belongs to the tree.
func Pages(root string) ([]Page, error) {
	var pages []Page
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch rel {
			case ".git", "bin", "build", "dist":
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pages = append(pages, Parse(rel, source))
		return nil
	})
	return pages, err
}

// Parse reads one page.
func Parse(path string, source []byte) Page {
	p := Page{Path: path, Text: string(source), Anchors: map[string]bool{}}
	root := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			p.Links = append(p.Links, string(n.Destination))
		case *ast.Image:
			p.Links = append(p.Links, string(n.Destination))
		case *ast.Heading:
			p.anchor(words(n, source))
		case *ast.CodeSpan:
			p.Code = append(p.Code, Code{Text: words(n, source), Inline: true})
		case *ast.FencedCodeBlock:
			p.Code = append(p.Code, Code{Info: string(n.Language(source)), Text: string(n.Lines().Value(source))})
		case *ast.CodeBlock:
			p.Code = append(p.Code, Code{Text: string(n.Lines().Value(source))})
		}
		return ast.WalkContinue, nil
	})
	return p
}

// words is the text below a node without its markup.
func words(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(source))
			if t.SoftLineBreak() {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// anchor adds the name that code hosts give a heading: lower-case letters, digits, hyphens for blanks; the second heading of a
// name gets -1.
func (p *Page) anchor(heading string) {
	name := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
	unique := name
	for i := 1; p.Anchors[unique]; i++ {
		unique = name + "-" + strconv.Itoa(i)
	}
	p.Anchors[unique] = true
}

var continued = regexp.MustCompile(`\s*\\\n\s*`)

// Commands returns the commands of a page that begin with the given word, each as its arguments. In a block of code with
// prompts only the lines with a prompt are commands.
func (c Code) Commands(name string) [][]string {
	var found [][]string
	block := continued.ReplaceAllString(c.Text, " ")
	prompts := strings.HasPrefix(block, "$ ") || strings.Contains(block, "\n$ ")
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		rest, prompt := strings.CutPrefix(line, "$ ")
		if prompts && !prompt {
			continue
		}
		for _, command := range split(rest) {
			for len(command) > 0 && (command[0] == "!" || command[0] == "sudo" || strings.Contains(command[0], "=")) {
				command = command[1:]
			}
			if len(command) > 0 && command[0] == name {
				found = append(found, command[1:])
			}
		}
	}
	return found
}

// split cuts a shell line into commands and these into words. It knows the syntax that the examples use: quotes, comments,
// redirections, and separators of commands. A line with columns is the output of a program, not a command.
func split(line string) [][]string {
	var (
		commands [][]string
		words    []string
		word     strings.Builder
		inWord   bool
		quote    rune
		skip     bool // the next word is the file of a redirection
	)
	endWord := func() {
		if inWord && !skip {
			words = append(words, word.String())
		}
		if inWord {
			skip = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words, skip = nil, false
	}
	blanks := 0
scan:
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
			continue
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			break scan
		case r == ' ':
			blanks++
			endWord()
			continue
		case r == '|' || r == ';' || r == '&':
			endCommand()
		case r == '>' || r == '<':
			if fd := word.String(); fd == "1" || fd == "2" {
				word.Reset()
				inWord = false
			}
			endWord()
			skip = true
		default:
			if blanks > 1 {
				return nil
			}
			inWord = true
			word.WriteRune(r)
		}
		blanks = 0
	}
	endCommand()
	return commands
}
