//go:build docs

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// pages maps a file of docs to the name and section of its man page.
var pages = []struct{ file, name, section, title string }{
	{"config.md", "updater.toml", "5", "configuration of updater"},
	{"bmap.md", "updater-bmap", "5", "the signed block map"},
	{"initramfs.md", "updater-initramfs", "7", "updater as installer and recovery in an initramfs"},
}

// addManPages adds the command that writes man pages and completions. It exists only in a program built with -tags docs.
func addManPages(root *cobra.Command) {
	var docs string
	cmd := &cobra.Command{
		Use:    "man-pages DIR",
		Short:  "Write man pages and completions",
		Hidden: true,
		Args:   argsN(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			return writeManPages(root, docs, args[0])
		},
	}
	cmd.Flags().StringVar(&docs, "docs", "docs", "`FOLDER` with the Markdown pages")
	root.AddCommand(cmd)
}

func writeManPages(root *cobra.Command, docs, dir string) error {
	date, err := manDate()
	if err != nil {
		return err
	}
	man, completions := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	for _, d := range []string{man, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	root.InitDefaultCompletionCmd()
	header := &doc.GenManHeader{Title: "UPDATER", Section: "1", Date: &date, Source: "updater", Manual: "updater"}
	if err := doc.GenManTree(root, header, man); err != nil {
		return err
	}
	for _, p := range pages {
		text, err := os.ReadFile(filepath.Join(docs, p.file))
		if err != nil {
			return err
		}
		// The heading of a Markdown page becomes the NAME of a man page; the others become its sections.
		_, body, _ := strings.Cut(string(text), "\n")
		page := fmt.Sprintf("%% %q %q %q \"updater\" \"updater\"\n\n# NAME\n\n%s - %s\n\n# DESCRIPTION\n%s",
			strings.ToUpper(p.name), p.section, date.Format("January 2006"), p.name, p.title, forMan(body))
		if err := os.WriteFile(filepath.Join(man, p.name+"."+p.section), md2man.Render([]byte(page)), 0o644); err != nil {
			return err
		}
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"updater.bash": func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"_updater":     func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"updater.fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(completions, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// link is a link of Markdown; a man page keeps its text.
var link = regexp.MustCompile(`\[([^\]]+)\]\([^)]*\)`)

// forMan prepares a Markdown page for a man page: links become their text, sections move up a level, and the rows of a table, which would be
// as wide as their longest cell, become a list of terms.
func forMan(text string) string {
	var out strings.Builder
	rows := 0
	for line := range strings.Lines(link.ReplaceAllString(text, "$1")) {
		cells, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !isRow {
			rows = 0
			if rest, isHeading := strings.CutPrefix(line, "##"); isHeading {
				line = "#" + rest
			}
			out.WriteString(line)
			continue
		}
		if rows++; rows <= 2 { // the heading and the rule below it
			continue
		}
		term, meaning, _ := strings.Cut(strings.TrimSuffix(cells, "|"), "|")
		fmt.Fprintf(&out, "\n%s\n: %s\n", strings.TrimSpace(term), strings.TrimSpace(strings.ReplaceAll(meaning, " | ", "; ")))
	}
	return out.String()
}

// manDate is SOURCE_DATE_EPOCH, so that the same tree gives the same pages.
func manDate() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, usagef("SOURCE_DATE_EPOCH is %q, expected seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
