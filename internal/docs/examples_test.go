package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/boot/uboot"
	"updater/device"
	"updater/device/config"
)

// TestExamplesAreNamed: every example for a boot loader is named in a page.
func TestExamplesAreNamed(t *testing.T) {
	var text strings.Builder
	for _, p := range pages(t) {
		text.WriteString(p.Text)
	}
	all := text.String()
	entries, err := filepath.Glob(filepath.Join(root, "examples/boot/*/*"))
	if err != nil || len(entries) < 15 {
		t.Fatalf("%d examples, %v", len(entries), err)
	}
	for _, e := range entries {
		name := strings.TrimPrefix(e, root+"/")
		if !strings.Contains(all, name) && !strings.Contains(all, "`"+filepath.Base(name)+"`") {
			t.Errorf("no page names %s", name)
		}
	}
}

// TestExamplesParse: examples that no test runs on the loader itself pass a parser of their format.
func TestExamplesParse(t *testing.T) {
	tool := func(name string, stdin string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("NOT TESTED: %s is not installed", name)
			return
		}
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %v: %v: %s", name, args, err, out)
		}
	}
	read := func(name string) string { return read(t, "examples/boot/"+name) }
	for _, name := range []string{"grub.cfg", "tries.cfg", "rauc.cfg"} {
		tool("grub-script-check", read("grub/"+name))
	}
	// On a board, backend points to a node of its device tree.
	tool("dtc", "/dts-v1/;\n"+read("barebox/state.dtsi")+"/ { backend_state: flash { }; };\n", "-q", "-O", "dtb", "-o", os.DevNull, "-")

	areas, err := uboot.ParseFWEnvConfig(strings.NewReader(read("uboot/fw_env.config")))
	if err != nil || len(areas) != 2 {
		t.Errorf("uboot/fw_env.config: %d areas, %v; want the two of a redundant environment", len(areas), err)
	}
	const want = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
	if autoboot := read("tryboot/autoboot.txt"); len(autoboot) > 512 || autoboot != want {
		t.Errorf("tryboot/autoboot.txt is %q; the firmware reads 512 bytes, one digit for each partition", autoboot)
	}
}

// TestExampleConfigurations: the configuration for each use is complete, and docs/integration.md names it.
func TestExampleConfigurations(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "examples/use/*.toml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	guide := read(t, "docs/integration.md")
	for _, file := range append(files, filepath.Join(root, "packaging/config.toml")) {
		if _, err := device.LoadConfig(file, config.Build{}); err != nil {
			t.Error(err)
		}
		if name := strings.TrimPrefix(file, root+"/"); !strings.Contains(guide, "`"+name+"`") {
			t.Errorf("docs/integration.md does not name %s", name)
		}
	}
}
