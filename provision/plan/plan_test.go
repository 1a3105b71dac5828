package plan_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/provision/plan"
)

const layoutPlan = `name = "gateway"
product = "acme-gw"
[disk]
min = "200M"
[[partition]]
name = "esp"
type = "esp"
size = "40M"
filesystem = "fat"
[[partition]]
name = "rootfs_a"
size = "25%"
image = "rootfs.img"
[[partition]]
name = "identity"
size = "40M"
[[partition]]
name = "data"
type = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
size = "rest"
filesystem = "fat"
[identity]
partition = "identity"
serial = { from = "plan", value = "AG1" }
variables = { batch = "7" }
[identity.key]
type = "ed25519"
file = "device.key"
request = "device.csr"
[[identity.file]]
path = "serial.txt"
content = "{serial} {batch} {{\n"
[record]
spool = "spool"
station = "bench"
key = "station.pem"
`

const step = "[[step]]\nname = \"s\"\nargv = [\"/s\"]\n"

func TestPlan(t *testing.T) {
	p, err := plan.Parse([]byte(layoutPlan))
	if err != nil {
		t.Fatal(err)
	}
	if p.Partition[1].Size.Percent != 25 || !p.Partition[3].Size.Rest || p.Disk.Min != 200<<20 || len(p.Sum) != 64 {
		t.Errorf("plan is %+v", p)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", `product`, `produkt`, `unknown key "produkt"`},
		{"unknown key below", `size = "rest"`, "size = \"rest\"\nsise = 1", `unknown key "partition.sise"`},
		{"no name", `name = "gateway"`, ``, "name is missing"},
		{"image beside partitions", `[disk]`, "[image]\npath = \"x\"\n[disk]", "expected either one [image]"},
		{"twice", `name = "data"`, `name = "esp"`, `"esp": duplicate name`},
		{"type", `type = "esp"`, `type = "efi"`, `type is "efi", expected linux, esp`},
		{"two rests", `size = "25%"`, `size = "rest"`, "2 partitions have the size rest"},
		{"share", `size = "25%"`, `size = "250%"`, "is not a share"},
		{"size", `size = "40M"`, `size = "40X"`, `"40X" is not a size`},
		{"negative", `size = "40M"`, `size = -1`, "is not a size"},
		{"no size", `size = "25%"`, ``, "size is missing"},
		{"image and file system", `image = "rootfs.img"`, "image = \"r\"\nfilesystem = \"fat\"", "exclude each other"},
		{"identity elsewhere", `partition = "identity"`, `partition = "identify"`, `identity.partition is "identify", expected a partition`},
		{"identity on an image", `partition = "identity"`, `partition = "rootfs_a"`, "without image and filesystem"},
		{"variable", `{batch}`, `{lot}`, "{lot is not a variable, expected one of batch, serial"},
		{"path", `serial.txt`, `..`, "expected a name of letters"},
		{"folder", `serial.txt`, `etc/serial`, "in no folder"},
		{"path of the latch", `serial.txt`, `latch.json`, "duplicate or reserved name"},
		{"serial", `from = "plan"`, `from = "luck"`, `from is "luck"`},
		{"serial without value", `, value = "AG1"`, ``, "from plan requires value"},
		{"key", `type = "ed25519"`, `type = "rsa"`, `identity.key.type is "rsa"`},
		{"certificate from nowhere", `file = "device.key"`, "file = \"device.key\"\ncertificate = \"c\"", "together with either ca or folder"},
		{"certificate without issuer", `file = "device.key"`, "file = \"device.key\"\ncertificate = \"c\"\nfolder = \"ca\"", "certificate and issuer need each other"},
		{"line without TLS", `spool = "spool"`, "spool = \"spool\"\nurl = \"http://line.example/\"", "set http = true in [server]"},
		{"token without host", `[record]`, "[server]\ntoken_file = \"t\"\n[record]", "token_file and token_host need each other"},
		{"release without configuration", `[record]`, "[release]\npath = \"r\"\n[record]", "release requires config"},
		{"release of nothing", `[record]`, "[release]\n[record]", "release.path is missing"},
		{"other document", `name = "gateway"`, "type = \"release\"\nname = \"gateway\"", `type is "release", expected plan`},
		{"no record", `spool = "spool"`, ``, "record: spool, station and key are required"},
		{"latch without key", `[record]`, "[latch]\n[record]", "latch: factory_key is required"},
		{"guid", `min = "200M"`, `guid = "1-2"`, "expected a GUID"},
		{"step without name", `[record]`, "[[step]]\nargv = [\"/s\"]\n[record]", `step 1 "": expected a name`},
		{"step twice", `[record]`, step + step + "[record]", `step 2 "s": duplicate name`},
		{"step without program", `[record]`, "[[step]]\nname = \"s\"\n[record]", `step 1 "s": argv is missing`},
		{"step at no time", `[record]`, step + "when = \"during\"\n[record]", "when is \"during\", expected before or after"},
		{"step without unit of time", `[record]`, step + "limit = 30\n[record]", "limit is 30ns, expected 1s to 24h"},
		{"step for ever", `[record]`, step + "limit = \"25h\"\n[record]", "limit is 25h0m0s, expected 1s to 24h"},
		{"variable of a step", `[record]`, "[[step]]\nname = \"s\"\nargv = [\"/s\", \"{mac}\"]\n[record]",
			"{mac is not a variable, expected one of batch, serial, target, unit"},
		{"many steps", `[record]`, strings.Repeat("[[step]]\n", 17) + "[record]", "17 steps, expected at most 16"},
		{"leds", `[record]`, "[leds.done]\nname = \"x\"\n[record]", "expected working, pass or fail"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := strings.Replace(layoutPlan, c.old, c.new, 1)
			if changed == layoutPlan {
				t.Fatal("the case changes nothing")
			}
			if _, err := plan.Parse([]byte(changed)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want %q in it", err, c.want)
			}
		})
	}
}

// TestSteps: a step has defaults, its program is a path of the plan, and its arguments are expanded for each unit.
func TestSteps(t *testing.T) {
	p, err := plan.Parse([]byte(layoutPlan + "[[step]]\nname = \"label\"\nargv = [\"bin/label\", \"{serial}-{batch}\", \"{unit}={target}\"]\n" +
		"[[step]]\nname = \"fuse\"\nargv = [\"/fuse\"]\nwhen = \"before\"\nlimit = \"90s\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	label, fuse := p.Step[0], p.Step[1]
	if label.When != plan.After || label.Limit != time.Minute || fuse.When != plan.Before || fuse.Limit != 90*time.Second {
		t.Errorf("steps are %+v", p.Step)
	}
	for _, path := range p.LocalPaths() {
		*path = "/station/" + *path
	}
	vars := map[string]string{"serial": "AG1", "batch": "{unit}", "unit": "slot1", "target": "/dev/sdb"}
	for range 2 {
		argv, err := p.Step[0].Command(vars)
		if want := []string{"/station/bin/label", "AG1-{unit}", "slot1=/dev/sdb"}; err != nil || !slices.Equal(argv, want) {
			t.Errorf("Command = %q, %v; want %q", argv, err, want)
		}
	}
}

func TestPlace(t *testing.T) {
	p, err := plan.Parse([]byte(layoutPlan))
	if err != nil {
		t.Fatal(err)
	}
	placed, err := p.Place("/dev/x", 400<<20+777)
	if err != nil {
		t.Fatal(err)
	}
	// 400 MiB less one at the front, and one at the end that the backup table makes unusable: 398; a quarter is 99.
	want := [][2]int64{{1, 40}, {41, 99}, {140, 40}, {180, 219}}
	for i, p := range placed {
		if p.Offset != want[i][0]<<20 || p.Length != want[i][1]<<20 || p.Number != i+1 {
			t.Errorf("partition %d %s at %d of %d MiB; want at %d of %d", p.Number, p.Name, p.Offset>>20, p.Length>>20, want[i][0], want[i][1])
		}
	}
	for size, want := range map[int64]string{
		100 << 20: "/dev/x has 104857600 bytes, expected at least 209715200 for disk.min of the plan",
		0:         "expected at least",
		1 << 62:   "",
	} {
		if _, err := p.Place("/dev/x", size); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Place(%d): %v; want %q", size, err, want)
		}
	}
	p.Disk.Min = 0
	_, err = p.Place("/dev/x", 90<<20)
	small := "/dev/x has 94371840 bytes, expected at least 108027904 for the partitions esp 40 MiB, rootfs_a 21 MiB, " +
		"identity 40 MiB, data 1 MiB and the partition tables"
	if err == nil || err.Error() != small {
		t.Errorf("Place: %v; want %s", err, small)
	}
	p.Disk.Max = 1 << 30
	if _, err = p.Place("/dev/x", 1<<31); err == nil || !strings.Contains(err.Error(), "the plan allows at most 1073741824") {
		t.Errorf("Place on a large disk: %v", err)
	}
}

// FuzzPlan checks that a plan from elsewhere never breaks the parser, and that an accepted plan is refused or laid out
// inside the disk without overlap.
func FuzzPlan(f *testing.F) {
	seeds, _ := os.ReadDir("testdata/fuzz/FuzzPlan")
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	f.Add([]byte(layoutPlan), int64(1<<30))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		p, err := plan.Parse(data)
		if err != nil || p.Image != nil || size < 0 {
			return
		}
		placed, err := p.Place("disk", size)
		if err != nil {
			return
		}
		end := int64(1 << 20)
		for _, q := range placed {
			if q.Offset < end || q.Length <= 0 || q.Offset+q.Length > size-6*4096 {
				t.Fatalf("partition %s at %d of %d bytes, after %d on a disk of %d", q.Name, q.Offset, q.Length, end, size)
			}
			end = q.Offset + q.Length
		}
	})
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"serial": "AG1", "x": "{serial}"}
	for text, want := range map[string]string{
		"": "", "a{serial}b{serial}": "aAG1bAG1", "{{serial}": "{serial}", "{x}": "{serial}", "}": "}", "{y}": "error", "{serial": "error", "{}": "error",
	} {
		got, err := plan.Expand(text, maps.Clone(vars))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("Expand(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestSerialCheck: a serial that is unsafe in a file name is refused whatever the pattern.
func TestSerialCheck(t *testing.T) {
	for serial, rule := range map[string]plan.Serial{"": {}, "a/b": {}, "AG1": {Pattern: "AG[0-9]{3}"}, "AG1234": {Pattern: "AG[0-9]{3}"},
		"../x": {Pattern: ".*"}} {
		if rule.Check(serial) == nil {
			t.Errorf("Check(%q) with pattern %q accepts it", serial, rule.Pattern)
		}
	}
	if err := (plan.Serial{Pattern: "AG[0-9]{3}"}).Check("AG123"); err != nil {
		t.Error(err)
	}
}
