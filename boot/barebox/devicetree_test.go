package barebox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The example device tree compiles and agrees with the example configuration on magic, stride and offsets.
func TestDeviceTree(t *testing.T) {
	for _, tool := range []string{"dtc", "fdtget"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	node, err := os.ReadFile("../../examples/boot/barebox/state.dtsi")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("../../examples/boot/barebox/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, tree := filepath.Join(dir, "board.dts"), filepath.Join(dir, "board.dtb")
	board := "/dts-v1/;\n/ { backend_state: partition { }; };\n" + string(node)
	if err := os.WriteFile(source, []byte(board), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dtc", "-I", "dts", "-O", "dtb", "-o", tree, source).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("dtc: %v: %s", err, out)
	}
	get := func(kind, node, property string) string {
		t.Helper()
		out, err := exec.Command("fdtget", "-t", kind, tree, node, property).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v: %s", node, property, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	var want []string
	want = append(want, fmt.Sprintf("magic = 0x%s, stride = %s", get("x", "/state", "magic"), get("u", "/state", "backend-stridesize")))
	for slot, at := range map[string][2]string{"system0": {"0", "4"}, "system1": {"8", "c"}} {
		attempts, _, _ := strings.Cut(get("u", "/state/bootstate/"+slot+"/remaining_attempts@"+at[0], "reg"), " ")
		priority, _, _ := strings.Cut(get("u", "/state/bootstate/"+slot+"/priority@"+at[1], "reg"), " ")
		want = append(want, fmt.Sprintf("name = %q\nattempts = %s\npriority = %s\n", slot, attempts, priority))
	}
	for _, w := range want {
		if !strings.Contains(string(config), w) {
			t.Errorf("config.toml has no %q, which the device tree says", w)
		}
	}
}
