//go:build docs

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestManPages: there is a page for every verb and for the pages of docs, well-formed and the same every time.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		env := Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: os.Stderr}
		if code := Run(t.Context(), []string{"man-pages", "--docs", "../../docs", dir}, env); code != ExitDone {
			t.Fatalf("man-pages: exit %d", code)
		}
	}
	want := []string{"updater.toml.5", "updater-bmap.5", "updater-initramfs.7"}
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		if !c.IsAvailableCommand() && c.HasParent() {
			return
		}
		want = append(want, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1")
		for _, sub := range c.Commands() {
			add(sub)
		}
	}
	add(newRoot(Env{}))
	_, err := exec.LookPath("mandoc")
	if err != nil {
		t.Log("NOT TESTED: mandoc is not installed, so nothing says whether the pages are well-formed")
	}
	for _, name := range want {
		page := filepath.Join(dirs[0], "man", name)
		text, readErr := os.ReadFile(page)
		if readErr != nil {
			t.Error(readErr)
			continue
		}
		if again, _ := os.ReadFile(filepath.Join(dirs[1], "man", name)); string(again) != string(text) {
			t.Errorf("%s differs when it is made again", name)
		}
		if strings.Contains(string(text), "\n.TS\n") {
			t.Errorf("%s has a table, which is as wide as its longest cell", name)
		}
		if err == nil {
			if out, err := exec.Command("mandoc", "-T", "lint", "-W", "error", page).CombinedOutput(); err != nil {
				t.Errorf("mandoc: %v: %s", err, out)
			}
		}
	}
	for _, name := range []string{"updater.bash", "_updater", "updater.fish"} {
		if text, err := os.ReadFile(filepath.Join(dirs[0], "completions", name)); err != nil || !strings.Contains(string(text), "updater") {
			t.Errorf("completion %s: %d bytes, %v", name, len(text), err)
		}
	}
}
