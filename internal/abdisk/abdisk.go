// Package abdisk builds the artefacts of an A/B device on a Debian host: a kernel with its modules, root file systems for the slots, signing
// keys, the disk with GRUB, and the update stick.
//
// It uses no loop devices and changes nothing else on the host: all files stay below Builder.Dir. Each artefact has a stamp of its inputs and is
// rebuilt only when they change, so that a second run takes seconds.
//
// The package is for tests and the demo. It calls host tools; Missing lists the packages that are not installed.
package abdisk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Builder builds artefacts in a work folder. Its methods are not safe for concurrent use.
type Builder struct {
	Dir     string    // work folder, created when missing; keep it between runs
	Updater string    // path of our static binary, which goes into every slot as /usr/bin/updater
	Log     io.Writer // gets one line per artefact that is built; nil discards them
}

// tools are the host programs in use and the Debian package of each.
var tools = [...][2]string{
	{"apt-get", "apt"}, {"dpkg-deb", "dpkg"}, {"depmod", "kmod"}, {"mmdebstrap", "mmdebstrap"}, {"mke2fs", "e2fsprogs"}, {"sgdisk", "gdisk"},
	{"mkfs.vfat", "dosfstools"}, {"mcopy", "mtools"}, {"grub-mkimage", "grub-common"}, {"grub-editenv", "grub-common"},
	{"gpg", "gnupg"}, {"zstd", "zstd"}, {"tar", "tar"}, {"qemu-system-x86_64", "qemu-system-x86"},
}

// files are files by which packages without a program are found.
var files = [...][2]string{
	{"/usr/lib/grub/x86_64-efi/normal.mod", "grub-efi-amd64-bin"}, {"/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"}, {busybox, "busybox-static"},
}

const busybox = "/bin/busybox"

// Missing returns the Debian packages that this package needs and that are not installed.
func Missing() []string {
	var out []string
	for _, t := range tools {
		if lookTool(t[0]) == "" {
			out = append(out, t[1])
		}
	}
	for _, f := range files {
		if _, err := os.Stat(f[0]); err != nil {
			out = append(out, f[1])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lookTool finds a program in PATH and in the sbin folders, which PATH lacks for plain users on Debian; "" when it is not installed.
func lookTool(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, d := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(d + name); err == nil {
			return d + name
		}
	}
	return ""
}

// command is one call of a host tool.
type command struct {
	dir   string   // working folder
	env   []string // added to the environment of the test
	stdin string
}

// run calls a tool and returns its standard output. The error includes the last 2000 bytes of its output.
func (c command) run(ctx context.Context, name string, args ...string) (string, error) {
	path := lookTool(name)
	if path == "" {
		return "", fmt.Errorf("running %s: program not found", name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH="+epochString, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	cmd.Env = append(cmd.Env, c.env...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &all), &all
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(all.String())
		return "", fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	return out.String(), nil
}

// asRoot runs a shell script as root, or as the root of a user namespace, in which files may belong to root.
func (b *Builder) asRoot(ctx context.Context, script string, args ...string) error {
	argv := append([]string{"sh", "-euc", script, "sh"}, args...)
	if os.Geteuid() != 0 {
		argv = append([]string{"mmdebstrap", "--unshare-helper"}, argv...)
	}
	c := command{dir: b.Dir, env: []string{"E2FSPROGS_FAKE_TIME=" + epochString, "EPOCH=" + epochString}}
	if _, err := c.run(ctx, argv[0], argv[1:]...); err != nil {
		if os.Geteuid() != 0 {
			err = fmt.Errorf("%w (needs root or unprivileged user namespaces with subordinate ids, see /etc/subuid)", err)
		}
		return err
	}
	return nil
}

// path returns a path below the work folder.
func (b *Builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.Dir}, elem...)...)
}
