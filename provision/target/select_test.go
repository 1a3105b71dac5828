package target_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/provision/plan"
	"updater/provision/target"
)

// tree makes a host: a system disk sda, USB media on three ports, an eMMC with its boot areas, a volume on sdc, swap on
// sdd, a mounted sde2, a read-only sdf and a reader without a card sdg, btrfs on sdh.
func tree(t *testing.T) target.Host {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, to), path); err != nil {
			t.Fatal(err)
		}
	}
	disk := func(name, bus, dev string, size string, parts ...string) {
		dir := "sys/devices/" + bus + "/block/" + name
		write(dir+"/size", size)
		write(dir+"/dev", dev)
		write(dir+"/queue/logical_block_size", "512\n")
		link(dir, "sys/block/"+name)
		link(dir, "sys/class/block/"+name)
		link("sys/devices/"+bus, dir+"/device")
		write("dev/"+name, "")
		for i, p := range parts {
			write(dir+"/"+p+"/partition", string(rune('1'+i)))
			write(dir+"/"+p+"/dev", dev[:strings.Index(dev, ":")+1]+string(rune('1'+i)))
			link(dir+"/"+p, "sys/class/block/"+p)
			write("dev/"+p, "")
		}
	}
	const pci, usb = "pci0000:00/0000:00:1f.2", "pci0000:00/0000:00:14.0/usb1/1-1/"
	disk("sda", pci+"/ata1/host0/target0:0:0/0:0:0:0", "8:0", "1000", "sda1", "sda2")
	disk("sdb", usb+"1-1.2/1-1.2:1.0/host4/target4:0:0/4:0:0:0", "9:0", "62333952", "sdb1")
	disk("sdc", usb+"1-1.3/1-1.3:1.0/host5/target5:0:0/5:0:0:0", "10:0", "1000", "sdc1")
	disk("sdd", usb+"1-1.4/1-1.4:1.0/host6/target6:0:0/6:0:0:0", "11:0", "1000", "sdd1")
	disk("sde", usb+"1-1.4/1-1.4:1.0/host6/target6:0:0/6:0:0:1", "12:0", "1000", "sde1", "sde2")
	disk("sdf", "virtual/f", "13:0", "1000")
	disk("sdg", "virtual/g", "14:0", "0")
	disk("sdh", "virtual/h", "15:0", "1000")
	disk("mmcblk1", "platform/soc/fe340000.mmc/mmc_host/mmc1/mmc1:0001", "179:0", "15269888")
	disk("mmcblk1boot0", "platform/soc/fe340000.mmc/mmc_host/mmc1/mmc1:0001", "179:8", "8192")
	disk("dm-0", "virtual/dm", "253:0", "900")
	write("sys/block/sdf/ro", "1")
	write("sys/devices/platform/soc/fe340000.mmc/mmc_host/mmc1/mmc1:0001/cid", "150100424a4e4234520a1b2c3d4e5f00\n")
	write("sys/devices/platform/soc/fe340000.mmc/mmc_host/mmc1/mmc1:0001/name", "BJNB4R\n")
	write("sys/devices/platform/soc/fe340000.mmc/mmc_host/mmc1/mmc1:0001/life_time", "0x01 0x02\n")
	write("sys/devices/"+usb+"1-1.2/1-1.2:1.0/host4/target4:0:0/4:0:0:0/model", "Ultra Fit       \n")
	write("sys/devices/"+usb+"1-1.2/1-1.2:1.0/host4/target4:0:0/4:0:0:0/wwid", "t10.Generic STORAGE DEVICE 0821\n") // the reader's
	write("sys/devices/"+usb+"1-1.2/1-1.2:1.0/host4/target4:0:0/4:0:0:0/block/sdb/removable", "1\n")
	write("sys/class/block/sdc1/holders/dm-0", "")
	write("proc/self/mountinfo", `22 1 8:2 / / rw - ext4 `+root+`/dev/sda2 rw
30 22 12:2 / /media/my\040stick rw - vfat `+root+`/dev/sde2 rw
31 22 0:44 /@ /srv rw - btrfs `+root+`/dev/sdh rw
`)
	write("proc/swaps", "Filename\tType\tSize\n"+root+"/dev/sdd1 partition 1 0 -2\n")
	write("sys/card.img", "disk")
	write("sys/card.txt", "text")
	write("sys/held.img", "disk")
	write("sys/folder.img/x", "")
	write("sys/block/loop3/loop/backing_file", root+"/sys/held.img\n")
	return target.Host{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc"), Dev: filepath.Join(root, "dev")}
}

// choose splits what Select returns.
func choose(p *plan.Plan, h target.Host, paths, ports []string) (targets []target.Target, refused []error) {
	for _, t := range target.Select(h, p, paths, ports) {
		if t.Refused != nil {
			refused = append(refused, t.Refused)
		} else {
			targets = append(targets, t)
		}
	}
	return targets, refused
}

func TestSelect(t *testing.T) {
	h := tree(t)
	dev := func(name string) string { return filepath.Join(h.Dev, name) }
	for _, c := range []struct {
		name        string
		plan        plan.Plan
		path, port  string
		disk, error string
	}{
		{name: "by path", path: dev("sdb"), disk: "sdb"},
		{name: "by port", port: "usb-1-1.2=slot3", disk: "sdb"},
		{name: "eMMC without its boot areas", port: "mmc-mmc1", disk: "mmcblk1"},
		{name: "platform", port: "platform-fe340000.mmc=soldered", disk: "mmcblk1"},
		{name: "system disk", path: dev("sda"), error: "it is the system disk: " + dev("sda2") + " is mounted on /"},
		{name: "system disk by port", port: "ata-ata1", error: "it is the system disk"},
		{name: "held", path: dev("sdc"), error: dev("sdc1") + " is held by dm-0"},
		{name: "swap", path: dev("sdd"), error: dev("sdd1") + " is swapped on"},
		{name: "mounted", path: dev("sde"), error: dev("sde2") + " is mounted on /media/my stick"},
		{name: "mounted btrfs", path: dev("sdh"), error: dev("sdh") + " is mounted on /srv"},
		{name: "read-only", path: dev("sdf"), error: "is read-only"},
		{name: "no medium", path: dev("sdg"), error: "has no medium"},
		{name: "partition", path: dev("sdb1"), error: "it is a partition"},
		{name: "no disk", path: dev("sdz"), error: "finding the target"},
		{name: "disk image", path: filepath.Join(h.Sys, "card.img"), disk: "card.img"},
		{name: "disk image in use", path: filepath.Join(h.Sys, "held.img"), error: "is held by loop3"},
		{name: "other file", path: filepath.Join(h.Sys, "card.txt"), error: "no file whose name ends in .img"},
		{name: "folder", path: filepath.Join(h.Sys, "folder.img"), error: "no file whose name ends in .img"},
		{name: "elsewhere", path: "/proc/self/exe", error: "it is not in /dev"},
		{name: "two on one port", port: "usb-1-1.4=slot4", error: "is ambiguous"},
		{name: "a hub is no port of a medium", port: "usb-1-1=hub", error: "is ambiguous"},
		{name: "empty port", port: "usb-1-1.9=slot9", error: "slot9: no disk at port usb-1-1.9"},
		{name: "part of a name", port: "usb-1-1.=x", error: "no disk at port"},
		{name: "no port", port: "slot3", error: `"slot3" is not a port`},
		{name: "not listed", plan: plan.Plan{Targets: []string{dev("sdc")}}, path: dev("sdb"), error: "is in neither targets nor ports of the plan"},
		{name: "not listed by port", plan: plan.Plan{Ports: map[string]string{"slot3": "usb-1-1.3"}}, port: "usb-1-1.2",
			error: "is in neither targets nor ports of the plan"},
		{name: "listed by path", plan: plan.Plan{Targets: []string{dev("sdb")}}, port: "usb-1-1.2=x", disk: "sdb"},
		{name: "listed by port", plan: plan.Plan{Ports: map[string]string{"slot3": "usb-1-1.2"}}, path: dev("sdb"), disk: "sdb"},
		{name: "the plan's own targets", plan: plan.Plan{Ports: map[string]string{"slot3": "usb-1-1.2"}}, disk: "sdb"},
		{name: "a list does not allow the system disk", plan: plan.Plan{Targets: []string{dev("sda")}}, error: "it is the system disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var paths, ports []string
			if c.path != "" {
				paths = []string{c.path}
			}
			if c.port != "" {
				ports = []string{c.port}
			}
			targets, refused := choose(&c.plan, h, paths, ports)
			if c.error != "" {
				if len(targets) != 0 || len(refused) != 1 || !strings.Contains(refused[0].Error(), c.error) {
					t.Fatalf("Select = %+v, %v; want %q", targets, refused, c.error)
				}
				return
			}
			if len(targets) != 1 || len(refused) != 0 || filepath.Base(targets[0].Disk.Path) != c.disk {
				t.Fatalf("Select = %+v, %v; want %s", targets, refused, c.disk)
			}
		})
	}
	targets, refused := choose(new(plan.Plan), h, []string{dev("sdb"), dev("sda"), dev("mmcblk1")}, []string{"usb-1-1.2=slot3"})
	if len(targets) != 2 || len(refused) != 2 || !strings.Contains(refused[1].Error(), "is named as") {
		t.Errorf("Select of several = %+v, %v", targets, refused)
	}
	emmc := targets[1].Disk
	key, strong := emmc.Key("slot1")
	if key != "cid:150100424a4e4234520a1b2c3d4e5f00" || !strong || emmc.Size != 15269888*512 || emmc.Health["life_time"] != "0x01 0x02" ||
		emmc.Model != "BJNB4R" {
		t.Errorf("eMMC is %+v, key %s", emmc, key)
	}
	if key, strong := targets[0].Disk.Key("slot3"); key != "place:slot3" || strong || targets[0].Disk.Model != "Ultra Fit" {
		t.Errorf("stick is %+v, key %s", targets[0].Disk, key)
	}
	if targets, refused := choose(new(plan.Plan), h, nil, nil); len(targets)+len(refused) != 0 {
		t.Error("without a name something was chosen")
	}
}
