package initramfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace is set in a test binary that has mounts of its own.
const inNamespace = "UPDATER_TEST_NAMESPACE"

// again runs the test binary once more, with mounts of its own: those of the initramfs stay in there. It returns its exit status, or -1
// if this system has no such namespaces.
func again() int {
	runtime.LockOSThread() // Pdeathsig follows the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdin, os.Stdout, os.Stderr, append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return -1
	}
	_ = cmd.Wait() // its exit status is the result
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 2
}

// mountOver mounts a tmpfs over a folder, or binds a file over a file, for the test.
func mountOver(t *testing.T, source, target string) {
	t.Helper()
	fs, flags := "tmpfs", uintptr(0)
	if source != "tmpfs" {
		fs, flags = "", unix.MS_BIND
	}
	if err := unix.Mount(source, target, fs, flags, ""); err != nil {
		t.Fatalf("mounting over %s: %v", target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

// machine is a machine with disks of its own: its folder of block devices in /sys is empty, and there are no kernel modules.
type machine struct {
	t   *testing.T
	dir string // of nodes, images and folders
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs root, for mounts of its own")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("making the mounts private: %v", err)
	}
	mountOver(t, "tmpfs", "/sys/class/block")
	if _, err := os.Stat("/lib/modules"); err == nil {
		mountOver(t, "tmpfs", "/lib/modules")
	}
	for _, dir := range []string{"/dev", "/run"} { // the program mounts over these
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{t, t.TempDir()}
}

func (m *machine) write(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// image makes an ext4 file system with files, each a name.
func (m *machine) image(label string, files ...string) string {
	m.t.Helper()
	folder, err := os.MkdirTemp(m.dir, "content")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range files {
		m.write(filepath.Join(filepath.Base(folder), f), f)
	}
	image := folder + ".img"
	out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", folder, image, "1M").CombinedOutput()
	if err != nil {
		m.t.Skipf("mke2fs: %v: %s", err, out)
	}
	return image
}

// disk adds a block device that holds an image, "" for one that cannot be opened, and returns its node. in is the disk of a partition.
func (m *machine) disk(name, image, in string) string {
	m.t.Helper()
	major, minor := uint32(240), uint32(200)
	if image != "" {
		out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
		if err != nil {
			m.t.Skipf("losetup: %v: %s", err, out)
		}
		loop := strings.TrimSpace(string(out))
		m.t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
		var st unix.Stat_t
		if err := unix.Stat(loop, &st); err != nil {
			m.t.Fatal(err)
		}
		major, minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	node := filepath.Join(m.dir, name)
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		m.t.Fatal(err)
	}
	of := filepath.Join("sys", in, m.sysName(name))
	if in != "" {
		of = filepath.Join("sys", m.sysName(in), m.sysName(name))
		m.write(filepath.Join(of, "partition"), "1\n")
	}
	m.write(filepath.Join(of, "size"), "2048\n")
	m.write(filepath.Join(of, "diskseq"), "7\n")
	if err := os.Symlink(filepath.Join(m.dir, of), filepath.Join("/sys/class/block", m.sysName(name))); err != nil {
		m.t.Fatal(err)
	}
	return "/dev/.." + node
}

// unplug removes all disks but one.
func (m *machine) unplug(but string) {
	names, _ := filepath.Glob("/sys/class/block/*")
	for _, name := range names {
		if filepath.Base(name) == m.sysName(but) {
			continue
		}
		node := filepath.Join("/dev", strings.ReplaceAll(filepath.Base(name), "!", "/"))
		if err := os.Remove(name); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Remove(node); err != nil {
			m.t.Fatal(err)
		}
	}
}

// sysName is the name in /sys of a node, where ! stands for /.
func (m *machine) sysName(name string) string {
	return ".." + strings.ReplaceAll(filepath.Join(m.dir, name), "/", "!")
}

// TestBlocks: disks and their partitions, without empty and virtual ones.
func TestBlocks(t *testing.T) {
	m := newMachine(t)
	a, b := m.disk("sda", "", ""), m.disk("sdb", "", "")
	part := m.disk("sdb1", "", "sdb")
	m.write("sys/empty/size", "0\n")
	for name, to := range map[string]string{"sdc": "empty", "loop7": m.sysName("sda"), "gone": "gone"} {
		if err := os.Symlink(filepath.Join(m.dir, "sys", to), "/sys/class/block/"+name); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Blocks()
	if want := []Block{{a, a, "7"}, {b, b, "7"}, {part, b, ""}}; err != nil || !slices.EqualFunc(got, want, func(x, y Block) bool {
		return x.Node == y.Node && x.Disk == y.Disk
	}) {
		t.Errorf("Blocks() = %v, %v; want %v", got, err, want)
	}
}

// TestKexec: the kernel of a slot is loaded from the slot alone, which is not mounted afterwards.
func TestKexec(t *testing.T) {
	m := newMachine(t)
	mountOver(t, "tmpfs", "/run")
	image := m.image("", "boot/vmlinuz", "boot/initrd")
	if err := exec.Command("debugfs", "-w", "-R", "symlink /boot/out /etc/passwd", image).Run(); err != nil {
		t.Skipf("debugfs: %v", err)
	}
	node := m.disk("sda2", image, "")
	for _, c := range []struct {
		node, kernel, initrd, want string
	}{
		{node, "/boot/vmlinuz", "", "loading the kernel /boot/vmlinuz: kexec_file_load: "},
		{node, "/boot/vmlinuz", "/boot/initrd", "loading the kernel /boot/vmlinuz: kexec_file_load: "},
		{node, "/boot/vmlinuz", "/boot/none", "no such file"},
		{node, "/boot/none", "", "no such file"},
		{node, "../../etc/passwd", "", "escapes"},
		{node, "/boot/out", "", "escapes"},
		{m.dir, "/boot/vmlinuz", "", "mounting " + m.dir + ": ext4: "},
	} {
		err := LoadKexec(c.node, Kexec{Kernel: c.kernel, Initrd: c.initrd, Cmdline: "quiet"})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("LoadKexec of %s with %q = %v; want %q", c.kernel, c.initrd, err, c.want)
		}
		if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), kexecDir) {
			t.Errorf("the slot is mounted still: %v", err)
		}
	}
}

// TestEnd: the machine ends as asked. In a PID namespace the kernel notifies its parent by a signal, reboot(2).
func TestEnd(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs root")
	}
	for how, want := range map[string]syscall.Signal{"reboot": unix.SIGHUP, "poweroff": unix.SIGINT, "halt": unix.SIGINT} {
		cmd := exec.Command("/proc/self/exe", "end", how)
		cmd.Args[0] = "worker"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		out, err := cmd.CombinedOutput()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != want {
			t.Errorf("%s: %v %s; want the signal %v", how, err, out, want)
		}
	}
}

// endHere ends the PID namespace of this process, and never a machine.
func endHere(how string) {
	if os.Getpid() != 1 {
		fmt.Println("not in a PID namespace")
		os.Exit(3)
	}
	fmt.Println(end(how))
	os.Exit(4)
}
