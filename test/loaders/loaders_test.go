//go:build vm

package loaders

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"updater/boot"
)

const (
	qemu     = "qemu-system-x86_64"
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// need skips the test if a tool or file is missing.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		if strings.HasPrefix(name, "/") {
			_, err = os.Stat(name)
		}
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// run runs a host tool in dir and returns its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	return run(t, dir, "bash", "-euc", "export PATH=$PATH:/usr/sbin:/sbin; "+script)
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?=]*[a-zA-Z]|[\r\x00]`)

// patience allows for a host with two busy cores. A boot that takes longer is tried once more.
const patience = 5 * time.Minute

// boots runs one boot in QEMU until a line matches want, and returns the match. A second try is made only
// after a time-out.
func boots(t *testing.T, want string, args ...string) []string {
	t.Helper()
	for range 2 {
		match, lines, err := bootOnce(t.Context(), regexp.MustCompile(want), args)
		if match != nil {
			return match
		}
		if err == nil {
			t.Fatalf("the machine ended without a line like %q; its console:\n%s", want, strings.Join(lines, "\n"))
		}
		t.Logf("%v; its console:\n%s", err, strings.Join(lines, "\n"))
	}
	t.Fatal("the machine took too long twice")
	return nil
}

func bootOnce(ctx context.Context, want *regexp.Regexp, args []string) (match, lines []string, err error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	args = append([]string{"-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-nic", "none"}, args...)
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	console := bufio.NewReader(out)
	for {
		line, rerr := console.ReadString('\n')
		line = strings.TrimSpace(escapes.ReplaceAllString(line, ""))
		if line != "" {
			lines = append(lines, line)
		}
		if m := want.FindStringSubmatch(line); m != nil && match == nil {
			match = m
		}
		if rerr != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, console)
	_ = cmd.Wait()
	return match, lines, ctx.Err()
}

// efiArgs boot OVMF with the disk; vars keeps its variables.
func efiArgs(t *testing.T, vars string) []string {
	t.Helper()
	if _, err := os.Stat(vars); err != nil {
		data, err := os.ReadFile(ovmfVars)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vars, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"-machine", "q35", "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + ovmfCode,
		"-drive", "if=pflash,format=raw,unit=1,file=" + vars,
	}
}

func disk(path string) []string { return []string{"-drive", "if=virtio,format=raw,file=" + path} }

// recorded is a disk whose writes QEMU logs.
func recorded(device, path, log string) []string {
	return []string{
		"-blockdev", "driver=file,node-name=f0,filename=" + path, "-blockdev", "driver=file,node-name=l0,filename=" + log,
		"-blockdev", "driver=blklogwrites,node-name=d0,file=f0,log=l0,log-sector-size=512", "-device", device + ",drive=d0",
	}
}

// workDir is the folder that keeps slow artefacts between runs.
func workDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("UPDATER_VM_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = t.TempDir()
		}
		dir = filepath.Join(cache, "updater-vm")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../examples/boot/" + name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// check compares the backend's forecast of the next three boots with the expected one.
func check(t *testing.T, b boot.Backend, when, want string) {
	t.Helper()
	st, err := b.State(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if got := strings.Join(st.Boots, " "); got != want {
		t.Errorf("%s: the next boots are %q; want %q (%+v)", when, got, want, st)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	run(t, "", "cp", "--sparse=always", from, to)
}
