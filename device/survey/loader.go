package survey

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"updater/blockdev"
	"updater/boot/barebox"
	"updater/boot/uboot"
)

// loaders look for the traces of a boot loader, the surest first, and add what [boot] needs.
var loaders = []struct {
	backend string
	traces  func(l *look) bool
}{
	{"tryboot", (*look).tryboot}, {"systemd-boot", (*look).systemdBoot}, {"grub", (*look).grub}, {"android", (*look).android},
	{"barebox", (*look).barebox}, {"uboot", (*look).uboot}, {"gpt", (*look).gpt}, {"efi", (*look).efi},
}

// loader determines the boot loader.
func (l *look) loader() {
	for _, row := range loaders {
		if l.Backend != "" && l.Backend != row.backend {
			continue
		}
		if row.traces(l) {
			l.Backend = row.backend
			return
		}
	}
	if l.Backend != "" && l.Backend != "custom" {
		l.unknown("no trace of %s was found: the values of [boot] are a guess", l.Backend)
		l.guess()
		return
	}
	l.Backend = "custom"
	l.unknown("no boot loader was recognized: give --backend, or the programs that change its choice (docs/boot/custom.md)")
	l.guess()
}

// guess fills [boot] of a boot loader without traces with its usual places.
func (l *look) guess() {
	esp := "PARTLABEL=esp"
	for _, v := range l.vols {
		if !l.inSlot[v.part.Number] {
			esp = v.spec
		}
	}
	l.Boot = map[string][]string{
		"grub": {`dialect = "tries"`, "env = " + quote(esp+":/grub/grubenv")}, "uboot": {`fw_env_config = "/etc/fw_env.config"`},
		"systemd-boot": {"esp = " + quote(esp)}, "efi": {"esp = " + quote(esp)}, "tryboot": {"env = " + quote(esp+":/autoboot.txt")},
		"android": {`env = "PARTLABEL=misc"`},
		"barebox": {`env = [ { device = "PARTLABEL=barebox-state", offset = 0, size = 3072 } ]`, "barebox = { magic = 0x4d433230, stride = 1024 }"},
		"custom": {
			`commands.state = ["/usr/libexec/slots", "state"]`, `commands.invalidate = ["/usr/libexec/slots", "invalidate", "{slot}"]`,
			`commands.activate = ["/usr/libexec/slots", "activate", "{slot}", "{tries}"]`, `commands.good = ["/usr/libexec/slots", "good", "{slot}"]`,
		},
	}[l.Backend]
	l.dialect = map[string]string{"grub": "tries", "uboot": "rauc"}[l.Backend]
	for i := range l.Slots {
		switch l.Backend {
		case "efi":
			l.Slots[i].Lines = []string{fmt.Sprintf(`loader = '\EFI\slots\%s.efi'`, l.Slots[i].Name)}
		case "tryboot":
			l.Slots[i].Lines = []string{fmt.Sprintf("boot_partition = %d", i+2)}
		case "barebox":
			l.targets()
		}
	}
	l.kernelRole()
}

// rename gives the slots the names that the boot loader knows.
func (l *look) rename(names ...string) {
	if len(names) == len(l.Slots) {
		for i, n := range names {
			l.Slots[i].Name = n
		}
	}
}

// number matches the line of autoboot.txt that names a partition.
var number = regexp.MustCompile(`(?m)^boot_partition=(\d+)`)

func (l *look) tryboot() bool {
	for _, v := range l.vols {
		data, err := v.read("autoboot.txt")
		if err != nil || l.inSlot[v.part.Number] {
			continue
		}
		l.found("Raspberry Pi: autoboot.txt on partition %d", v.part.Number)
		l.Tries, l.Boot = 1, []string{"env = " + quote(v.spec+":/autoboot.txt")}
		var boots []int
		for _, m := range number.FindAllStringSubmatch(string(data), -1) {
			n, _ := strconv.Atoi(m[1])
			boots = append(boots, n)
		}
		l.Has = len(boots) > 1
		if !l.Has || boots[0] == boots[1] {
			boots = []int{2, 3}
			l.unknown("autoboot.txt does not name two boot partitions; 2 and 3 were assumed")
		}
		l.bootPartitions(boots)
		return true
	}
	return false
}

// rootName matches the values of root= that name a partition.
var rootName = regexp.MustCompile(`^(PARTLABEL=|PARTUUID=|/dev/)[A-Za-z0-9._/+-]+$`)

// bootPartitions gives the slots the partitions that the firmware boots, the lower number to slot A, and their root file systems as
// cmdline.txt names them.
func (l *look) bootPartitions(boots []int) {
	slices.Sort(boots)
	for i := range l.Slots {
		s := &l.Slots[i]
		s.Lines = append(s.Lines, fmt.Sprintf("boot_partition = %d", boots[i]))
		for _, v := range l.vols {
			if v.part.Number != boots[i] {
				continue
			}
			s.Partitions["boot"], l.inSlot[v.part.Number] = v.spec, true
			cmdline, _ := v.read("cmdline.txt")
			for word := range strings.FieldsSeq(string(cmdline)) {
				if root, ok := strings.CutPrefix(word, "root="); ok && rootName.MatchString(root) {
					s.Partitions["rootfs"] = root
					l.found("slot %s: cmdline.txt on partition %d has %s", s.Name, boots[i], word)
				}
			}
		}
	}
}

func (l *look) systemdBoot() bool {
	for _, v := range l.vols {
		if l.inSlot[v.part.Number] || !v.below("loader") && !v.below("EFI/systemd") {
			continue
		}
		l.found("systemd-boot: its files on partition %d", v.part.Number)
		l.Boot = []string{"esp = " + quote(v.spec)}
		l.Has = v.below("loader/updater") || v.below("EFI/updater")
		l.templates(v)
		return true
	}
	return false
}

func (l *look) grub() bool {
	for _, v := range l.vols {
		env := v.find("grubenv")
		if config := v.find("grub.cfg"); env == "" && config != "" {
			env = path.Join(path.Dir(config), "grubenv")
			l.unknown("%s has no grubenv: it needs one beside grub.cfg", v.spec)
		}
		if env == "" || l.inSlot[v.part.Number] {
			continue
		}
		data, _ := v.read(env)
		l.found("GRUB: /%s on partition %d", env, v.part.Number)
		rauc := strings.Contains(string(data), "_OK=") || v.find("rauc.cfg") != "" && !strings.Contains(string(data), "_LEFT=")
		l.Has = strings.Contains(string(data), "_OK=") || strings.Contains(string(data), "_LEFT=")
		if l.dialect = "tries"; rauc {
			l.dialect, l.Tries = "rauc", 1
		}
		if !l.Has {
			l.unknown("the environment block has no variables of slots: dialect %s was assumed, and grub.cfg needs %[1]s.cfg of examples/boot/grub", l.dialect)
		}
		l.rename(names(regexp.MustCompile(`(?m)^(\w+)_(?:OK|LEFT)=`), string(data))...)
		l.Boot = []string{"dialect = " + quote(l.dialect), "env = " + quote(v.spec+":/"+env)}
		l.templates(v)
		return true
	}
	return false
}

// names lists what a pattern captures, each once, sorted.
func names(pattern *regexp.Regexp, text string) []string {
	var list []string
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (l *look) android() bool {
	misc, err := l.disk.Find("PARTLABEL=misc")
	if err != nil {
		return false
	}
	var head [2048 + 32]byte
	at, err := l.reader(misc)
	if err == nil {
		_, err = at.ReadAt(head[:], 0)
	}
	l.Has = err == nil && binary.LittleEndian.Uint32(head[2048+4:]) == 0x42414342 // boot_ctrl's magic (AOSP, bootloader_message.h)
	if !l.Has && (len(l.Slots) < 2 || l.Slots[0].Partitions["boot"] == "") {
		return false
	}
	l.found("Android: partition %d is misc, with bootloader_control: %t", misc.Number, l.Has)
	l.Boot = []string{`env = "PARTLABEL=misc"`}
	l.rename("a", "b")
	return true
}

// reader opens a partition until the survey ends.
func (l *look) reader(p blockdev.Partition) (*blockdev.Device, error) {
	d, err := p.Open(blockdev.ReadOnly)
	if err == nil {
		l.devices = append(l.devices, d)
	}
	return d, err
}

func (l *look) barebox() bool {
	for _, p := range l.disk.Partitions() {
		d, err := l.reader(p)
		if err != nil || l.inSlot[p.Number] {
			continue
		}
		magic, stride, size, ok := barebox.Recognize(d)
		if !ok {
			continue
		}
		l.found("barebox: three buckets of state with %d bytes of data on partition %d", size, p.Number)
		l.Has = true
		l.Boot = []string{
			fmt.Sprintf("env = [ { device = %s, offset = 0, size = %d } ]", quote(l.spec(p)), 3*stride),
			fmt.Sprintf("barebox = { magic = %#x, stride = %d, attempts = 3 }", magic, stride),
		}
		l.unknown("offsets of attempts and priority: the disk does not name them; those of examples/boot/barebox/state.dtsi were assumed")
		l.targets()
		return true
	}
	return false
}

// targets gives the slots the offsets of examples/boot/barebox/state.dtsi.
func (l *look) targets() {
	l.rename("system0", "system1")
	for i := range l.Slots {
		l.Slots[i].Lines = []string{fmt.Sprintf("attempts = %d", i*8), fmt.Sprintf("priority = %d", i*8+4)}
	}
}

func (l *look) uboot() bool {
	areas, env := l.environments()
	configured := l.read("etc/fw_env.config") != ""
	if len(areas) == 0 && !configured {
		return false
	}
	l.dialect = "rauc"
	switch ab := names(regexp.MustCompile(`(?m)^BOOT_(\w+)_LEFT=`), env); {
	case len(ab) > 0:
		l.Has = true
		l.rename(ab...)
	case regexp.MustCompile(`(?m)^(bootlimit|upgrade_available)=`).MatchString(env):
		l.dialect, l.Has = "bootcount", strings.Contains("\n"+env, "\nactive=")
	default:
		l.unknown("U-Boot's environment has no variables of slots: dialect rauc was assumed, and the boot script needs examples/boot/uboot/rauc.env")
	}
	l.Boot = []string{"dialect = " + quote(l.dialect), "env = [ " + strings.Join(areas, ", ") + " ]"}
	if configured {
		l.found("U-Boot: /etc/fw_env.config")
		l.Boot[1] = `fw_env_config = "/etc/fw_env.config"`
	}
	return true
}

// front is how much of a disk is searched for U-Boot environments, in bytes.
const front = 16 << 20

// taken reports whether a byte of the disk belongs to a slot.
func (l *look) taken(at int64) bool {
	return slices.ContainsFunc(l.disk.Partitions(), func(p blockdev.Partition) bool {
		return l.inSlot[p.Number] && at >= p.Offset && at < p.Offset+p.Size
	})
}

// environments searches for U-Boot environments: in files on FAT, else in the first 16 MiB of the disk. It returns those of one environment as
// areas of boot.env, and its variables, a line each.
func (l *look) environments() (areas []string, env string) {
	for _, v := range l.vols {
		for _, name := range []string{"uboot.env", "uboot-redund.env"} {
			data, err := v.read(name)
			if e, ok := uboot.Recognize(data); err == nil && ok {
				l.found("U-Boot: an environment of %d bytes in /%s on partition %d", e.Size, name, v.part.Number)
				areas, env = append(areas, fmt.Sprintf("{ device = %s, size = %#x }", quote(v.spec+":/"+name), e.Size)), e.Text
			}
		}
	}
	if len(areas) > 0 {
		return areas, env
	}
	return l.rawEnvironments()
}

// rawEnvironments searches the beginning of the disk, outside the slots.
func (l *look) rawEnvironments() (areas []string, env string) {
	raw, err := blockdev.OpenPath(l.disk.Path(), 0, 0, blockdev.ReadOnly)
	if err != nil {
		return nil, ""
	}
	l.devices = append(l.devices, raw)
	var first uboot.Found
	buf := make([]byte, uboot.MaxRecognized)
	for at := int64(4096); at < min(front, raw.Size()); at += 4096 {
		if l.taken(at) {
			continue
		}
		n, _ := raw.ReadAt(buf[:min(int64(len(buf)), raw.Size()-at)], at)
		e, ok := uboot.Recognize(buf[:n])
		if !ok || len(areas) > 0 && (!first.Redundant || !e.Redundant || e.Size != first.Size) {
			continue
		}
		l.found("U-Boot: an environment of %d bytes at %#x of the disk", e.Size, at)
		areas, first, env = append(areas, l.area(at, e.Size)), e, e.Text
		if len(areas) == 2 || !e.Redundant {
			break
		}
	}
	if first.Redundant && len(areas) == 1 {
		l.unknown("the second copy of the redundant environment was not found: add its place to boot.env")
	}
	return areas, env
}

// area is a window of the disk as boot.env names it.
func (l *look) area(at int64, size int) string {
	for _, p := range l.disk.Partitions() {
		if at >= p.Offset && at+int64(size) <= p.Offset+p.Size {
			return fmt.Sprintf("{ device = %s, offset = %#x, size = %#x }", quote(l.spec(p)), at-p.Offset, size)
		}
	}
	node := l.disk.Path()
	if l.disk.IsFile() {
		node = "/dev/mmcblk0"
		l.unknown("the node of the disk that has U-Boot's environment: /dev/mmcblk0 was assumed")
	}
	return fmt.Sprintf("{ device = %s, offset = %#x, size = %#x }", quote(node), at, size)
}

func (l *look) gpt() bool {
	if l.kernels {
		l.found("GPT attributes: kernel partitions with the labels of ChromeOS")
		l.kernelRole()
	}
	return l.kernels
}

// kernelRole names the role whose partitions have the attributes.
func (l *look) kernelRole() {
	if len(l.Slots[0].Partitions) > 1 && l.Slots[0].Partitions["kernel"] != "" && (l.Backend == "gpt" || l.Backend == "") {
		l.Boot = append(l.Boot, `role = "kernel"`)
	}
}

func (l *look) efi() bool {
	_, err := os.Stat(filepath.Join(l.Root, "sys/firmware/efi"))
	for _, v := range l.vols {
		if l.inSlot[v.part.Number] || !v.below("EFI") {
			continue
		}
		l.templates(v)
		if l.Slots[0].Files["uki"] == "" && (l.Root == "" || err != nil) {
			continue
		}
		l.found("UEFI: an ESP on partition %d", v.part.Number)
		l.Tries, l.Boot = 1, []string{"esp = " + quote(v.spec)}
		for i := range l.Slots {
			s := &l.Slots[i]
			_, program, _ := strings.Cut(cmp.Or(s.Files["uki"], ":/EFI/slots/{slot}.efi"), ":/")
			s.Lines = []string{"loader = '\\" + strings.ReplaceAll(strings.ReplaceAll(program, "{slot}", s.Name), "/", `\`) + "'"}
			s.Files = nil
		}
		return true
	}
	return false
}

// own are folders of an ESP that belong to the boot loader.
var own = regexp.MustCompile(`(?i)^(loader|EFI/Linux|EFI/BOOT|EFI/systemd)/`)

// contents are the roles of files by the beginning or ending of their names.
var contents = []struct {
	pattern *regexp.Regexp
	role    string
}{
	{regexp.MustCompile(`(?i)\.efi$`), "uki"},
	{regexp.MustCompile(`(?i)^(vmlinuz|bzimage|zimage|image)`), "kernel"},
	{regexp.MustCompile(`(?i)^init(rd|ramfs)`), "initrd"},
}

// templates finds files of the slots: those whose path has the name of the slot as a folder, or as the name of the file.
func (l *look) templates(v volume) {
	for _, f := range v.files {
		if own.MatchString(f) || !plain.MatchString(strings.ReplaceAll(f, "/", "")) {
			continue
		}
		segments := strings.Split(f, "/")
		base := segments[len(segments)-1]
		for _, s := range l.Slots {
			template := slices.Clone(segments)
			for i, seg := range segments {
				stem := strings.TrimSuffix(seg, path.Ext(seg))
				if strings.EqualFold(stem, s.Name) {
					template[i] = "{slot}" + strings.TrimPrefix(seg, stem)
				}
			}
			if slices.Equal(template, segments) {
				continue
			}
			for _, c := range contents {
				if c.pattern.MatchString(base) {
					l.file(c.role, v.spec+":/"+strings.Join(template, "/"))
				}
			}
		}
	}
}

// file gives every slot a role that is a file.
func (l *look) file(role, place string) {
	if l.Slots[0].Files[role] != "" || l.Slots[0].Partitions[role] != "" {
		return
	}
	for i := range l.Slots {
		l.Slots[i].Files[role] = place
	}
	l.found("role %s: the file %s of each slot", role, place)
}
