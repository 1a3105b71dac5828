package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/internal/rig"
	"updater/provision/keys"
	"updater/provision/line"
	"updater/provision/record"
	"updater/recovery"
)

const benchPlan = `name = "gateway"
product = "acme-gw"
keyring = ["release.asc"]
config = "device.toml"
changes = ["esp"]
[[partition]]
name = "esp"
type = "esp"
size = "6M"
image = "esp.img"
[[partition]]
name = "rootfs_a"
size = "10M"
image = "rootfs.img.zst"
[[partition]]
name = "rootfs_b"
size = "10M"
[[partition]]
name = "identity"
size = "34M"
[[partition]]
name = "data"
size = "rest"
filesystem = "fat"
[identity]
partition = "identity"
serial = { from = "csv", file = "serials.csv", pattern = "AG[0-9]{3}" }
[identity.key]
type = "ed25519"
file = "device.key"
request = "device.csr"
[[identity.file]]
path = "network.txt"
content = "serial={serial} mac={mac}\n"
[record]
spool = "spool"
station = "bench 1"
key = "station.pem"
url = "URL"
[server]
http = true
[latch]
factory_key = "factory.pub"
`

const benchDevice = `product = "acme-gw"
keyring = ["release.asc"]
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"
tries = 1
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`

// bench is a station in a folder, with images made by the real tools.
type bench struct {
	t   *testing.T
	dir string
	got *received
}

// received holds the requests that the server of the line got.
type received struct {
	mu    sync.Mutex
	lines [][]byte
}

func (r *received) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var buf bytes.Buffer
	_, _ = buf.ReadFrom(req.Body)
	r.lines = append(r.lines, buf.Bytes())
}

func newBench(t *testing.T) *bench {
	t.Helper()
	for _, name := range []string{"openssl", "gpg", "mkfs.vfat", "mcopy", "mke2fs", "grub-editenv", "zstd", "sgdisk", "fsck.vfat", "e2fsck"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	b := &bench{t: t, dir: t.TempDir(), got: new(received)}
	server := httptest.NewServer(b.got)
	t.Cleanup(server.Close)
	b.sh(`mkdir -m 700 gnupg
		gpg -q --batch --passphrase '' --quick-generate-key "release <release@example.com>" ed25519 sign never 2>/dev/null
		gpg -q --armor --export release@example.com > release.asc
		openssl genpkey -quiet -algorithm ed25519 -out station.pem; openssl pkey -in station.pem -pubout -out station.pub
		openssl genpkey -quiet -algorithm ed25519 -out factory.pem; openssl pkey -in factory.pem -pubout -out factory.pub
		truncate -s 4M esp.img; mkfs.vfat esp.img >/dev/null; grub-editenv grubenv create
		grub-editenv grubenv set ORDER="A B" A_OK=0 A_TRY=0 B_OK=1 B_TRY=0
		mmd -i esp.img ::/grub; mcopy -i esp.img grubenv ::/grub/grubenv
		mkdir root; head -c 3000000 /dev/urandom > root/data; mke2fs -q -t ext4 -d root rootfs.img 8M
		{ echo serial,mac; for i in $(seq 100 119); do echo AG$i,02:00:00:00:01:${i#1}; done; } > serials.csv`)
	for _, img := range []string{"esp.img", "rootfs.img"} {
		b.run(ExitDone, "bmap", "create", "--max-range", "256K", "--product", "acme-gw", "--version", "2026.1", "-o", b.path(img+".bmap"), b.path(img))
		b.sh("gpg -q --batch -u release@example.com --armor --detach-sign " + img + ".bmap")
	}
	b.sh("zstd -q rootfs.img; gpgconf --kill all 2>/dev/null || true")
	b.write("plan.toml", strings.Replace(benchPlan, "URL", server.URL, 1))
	b.write("device.toml", benchDevice)
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) sh(script string) string {
	b.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "GNUPGHOME="+b.path("gnupg"), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// run runs a command line that has to end with a code, and returns what it prints.
func (b *bench) run(want int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	if got := Run(context.Background(), args, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, leds: b.path("leds")}); got != want {
		b.t.Fatalf("updater %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// loop attaches a file of some size, and detaches it at the end.
func (b *bench) loop(name string, mb int, args ...string) string {
	b.t.Helper()
	if os.Getuid() != 0 {
		b.t.Skip("loop devices need root")
	}
	b.sh(fmt.Sprintf("[ -e %s ] || truncate -s %dM %s", name, mb, name))
	out, err := exec.Command("losetup", append(args, "-f", "--show", b.path(name))...).Output()
	if err != nil {
		b.t.Skipf("no loop device: %v", err)
	}
	node := strings.TrimSpace(string(out))
	b.t.Cleanup(func() { _ = exec.Command("losetup", "-d", node).Run() })
	return node
}

// results runs provision with --json.
func (b *bench) results(want int, args ...string) map[string]line.Result {
	b.t.Helper()
	out, errs := b.run(want, append([]string{"provision", "--json", "--operator", "eve", "--plan", b.path("plan.toml")}, args...)...)
	b.t.Log(errs)
	results := map[string]line.Result{}
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var r line.Result
		if err := dec.Decode(&r); err != nil {
			b.t.Fatal(err)
		}
		results[r.Name] = r
	}
	return results
}

// TestProvision makes devices on a bench of eight loop devices, among them a mounted one, a slow one, one that fails at
// half, one that lies and one that is too small. It looks at the good ones with the tools of their formats, and reads
// the records as an auditor does.
func TestProvision(t *testing.T) {
	b := newBench(t)
	const mb = 130
	good, other := b.loop("good", mb, "-P"), b.loop("other", mb)
	small, mounted := b.loop("small", 50), b.loop("mounted", mb)
	b.sh("mke2fs -q -t ext4 " + mounted + "; mkdir mnt; mount " + mounted + " mnt")
	t.Cleanup(func() { _ = exec.Command("umount", b.path("mnt")).Run() })
	port := "loop-" + filepath.Base(other)
	args := []string{"--target", good, "--port", port + "=slot2", "--target", small, "--target", mounted, "--target", "/dev/null"}
	want := map[string]record.Verdict{
		good: record.Pass, "slot2": record.Pass, small: record.Refused, mounted: record.Refused, "/dev/null": record.Refused,
	}
	if faults := rig.FaultyFiles(t, mb<<20); faults != "" {
		for name, verdict := range map[string]record.Verdict{"slow": record.Pass, "fails": record.Quarantine, "lies": record.Quarantine} {
			out, err := exec.Command("losetup", "-f", "--show", filepath.Join(faults, name)).Output()
			if err != nil {
				t.Fatalf("losetup on %s: %v", name, err)
			}
			node := strings.TrimSpace(string(out))
			t.Cleanup(func() { _ = exec.Command("losetup", "-d", node).Run() })
			args, want[name] = append(args, "--port", "loop-"+filepath.Base(node)+"="+name), verdict
		}
	}
	plan, err := os.ReadFile(b.path("plan.toml"))
	if err != nil {
		t.Fatal(err)
	}
	b.write("plan.toml", string(plan)+`[leds.working]
name = "red"
trigger = "timer"
[leds.fail]
name = "red"
trigger = "none"
brightness = 1
[leds.pass]
name = "green"
brightness = 255
`)
	b.sh("mkdir -p leds/red leds/green; touch leds/{red,green}/{trigger,brightness}")
	got := b.results(ExitFailed, args...)
	if lit := b.sh("head leds/*/*"); lit != "==> leds/green/brightness <==\n\n==> leds/green/trigger <==\n\n"+
		"==> leds/red/brightness <==\n1\n==> leds/red/trigger <==\nnone" {
		t.Errorf("after a run in which some failed the lights are:\n%s", lit)
	}
	for name, verdict := range want {
		if got[name].Verdict != verdict || got[name].Record == 0 {
			t.Errorf("%s: %+v; want %s", name, got[name], verdict)
		}
	}
	if !strings.Contains(got[mounted].Error, "is mounted on "+b.path("mnt")) || got[mounted].Code != ExitBusy {
		t.Errorf("the mounted one: %+v", got[mounted])
	}
	if !strings.Contains(got[small].Error, "has 52428800 bytes, ") || got[small].Code != ExitIncompatible {
		t.Errorf("the small one: %+v", got[small])
	}
	for name, file := range map[string]string{good: "good", "slot2": "other"} {
		b.inspect(file, got[name].Serial)
	}
	if b.sh("umount mnt; e2fsck -fn "+mounted) == "" {
		t.Error("the mounted one was touched")
	}

	// The records: on disk, at the server, and as a table.
	n := len(got)
	b.run(ExitDone, "provision", "records", "verify", "--spool", b.path("spool"), "--key", b.path("station.pub"))
	if len(b.got.lines) != n {
		t.Errorf("the server got %d records of %d", len(b.got.lines), n)
	}
	public, err := os.ReadFile(b.path("station.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParsePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range b.got.lines {
		var r record.Record
		err := record.Unseal(line, "record", &r, []crypto.PublicKey{key}...)
		if err != nil || r.Operator != "eve" || r.Station != "bench 1" ||
			r.Verdict == record.Pass && (len(r.Images) != 2 || r.Images[0].Version != "2026.1" || r.Unit.Disk.Size != mb<<20) {
			t.Errorf("record: %v\n%s", err, line)
		}
	}
	list, _ := b.run(ExitDone, "provision", "records", "list", "--spool", b.path("spool"), "--key", b.path("station.pub"))
	table, _ := b.run(ExitDone, "provision", "records", "export", "--csv", "--spool", b.path("spool"), "--key", b.path("station.pub"))
	if strings.Count(list, "\n") != n || strings.Count(table, "\n") != n+1 || !strings.Contains(list, " pass "+got["slot2"].Serial+" slot2") {
		t.Errorf("list:\n%s\ntable:\n%s", list, table)
	}

	// Later: a check passes, a second run is refused, a token opens, the serial stays.
	if r := b.results(ExitDone, "--check", "--target", good)[good]; r.Verdict != record.Pass {
		t.Errorf("check: %+v", r)
	}
	if lit := b.sh("cat leds/green/brightness leds/red/trigger"); lit != "255timer" {
		t.Errorf("after a run in which all passed the lights are %s", lit)
	}
	if r := b.results(ExitTrust, "--target", good)[good]; r.Verdict != record.Refused || !strings.Contains(r.Error, "was provisioned before") {
		t.Errorf("again: %+v", r)
	}
	token, _ := b.run(ExitDone, "provision", "token", "--key", b.path("factory.pem"), "--serial", got[good].Serial)
	b.write("token", token)
	if r := b.results(ExitDone, "--target", good, "--token", b.path("token"))[good]; r.Verdict != record.Pass {
		t.Errorf("with a token: %+v", r)
	}
	b.inspect("good", "")
	b.sh("sed -i s/eve/bob/ spool/00000001.json")
	_, errs := b.run(ExitTrust, "provision", "records", "verify", "--spool", b.path("spool"), "--key", b.path("station.pub"))
	if !strings.Contains(errs, "good up to record 0") {
		t.Errorf("a forged record: %s", errs)
	}
}

// inspect looks at a provisioned disk with the tools of its formats.
func (b *bench) inspect(file, serial string) {
	b.t.Helper()
	if out := b.sh("sgdisk -v " + file); !strings.Contains(out, "No problems found") {
		b.t.Errorf("%s: sgdisk -v: %s", file, out)
	}
	b.sh(`field() { sgdisk -i$1 ` + file + ` | awk "/$2/{print \$3}"; }
		cut() { dd if=` + file + ` of=$1.part bs=512 skip=$(field $2 'First sector') count=$(field $2 'Partition size') status=none; }
		cut esp 1; cut rootfs_a 2; cut identity 4; cut data 5
		cmp -n $(stat -c %s rootfs.img) rootfs_a.part rootfs.img
		fsck.vfat -n esp.part; e2fsck -fn rootfs_a.part; fsck.vfat -n identity.part; fsck.vfat -n data.part`)
	text := b.sh(`mtype -i identity.part ::/network.txt; mtype -i identity.part ::/serial
		mtype -i identity.part ::/device.csr | openssl req -noout -verify -subject 2>&1
		mtype -i identity.part ::/device.key | openssl pkey -noout -text`)
	named := serial == "" || strings.Contains(text, "serial="+serial+" mac=02:00:00:00:01:"+serial[3:]) &&
		(strings.Contains(text, "CN = "+serial) || strings.Contains(text, "CN="+serial))
	if !named || !strings.Contains(text, "verify OK") {
		b.t.Errorf("%s: the identity is %s", file, text)
	}
	env := b.sh("mcopy -n -o -i esp.part ::/grub/grubenv env.cur; grub-editenv env.cur list")
	if !strings.Contains(env, "ORDER=A") || !strings.Contains(env, "A_OK=1") || !strings.Contains(env, "A_TRY=0") || !strings.Contains(env, "B_OK=0") {
		b.t.Errorf("%s: the boot state is %s", file, env)
	}
}

// samplePlan is the plan of docs/factory.md, with the servers of a test, and a disk in its only port.
func samplePlan(t *testing.T, server, loop string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/factory.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```toml\n")
	text, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/factory.md has no plan")
	}
	for old, now := range map[string]string{
		"https://line.example": server, `slot1 = "usb-1-1.1"`: `slot1 = "loop-` + filepath.Base(loop) + `"`, `slot2 = "usb-1-1.2"`: "",
	} {
		if !strings.Contains(text, old) {
			t.Errorf("the plan of docs/factory.md has no %s", old)
		}
		text = strings.ReplaceAll(text, old, now)
	}
	return text
}

// TestProvisionSample carries out the plan of the documentation, as it stands there.
func TestProvisionSample(t *testing.T) {
	b := newBench(t)
	b.sh(`mv rootfs.img rootfs.ext4; zstd -q esp.img
		{ echo serial,mac; echo GW000123,02:00:00:00:01:23; } > serials.csv; mkdir -p leds/green; touch leds/green/brightness`)
	for role, img := range map[string]string{"rootfs": "rootfs.ext4", "": "esp.img"} {
		b.run(ExitDone, "bmap", "create", "--role", role, "--product", "acme-gw", "-o", b.path(img+".bmap"), b.path(img))
		b.sh("gpg -q --batch -u release@example.com --armor --yes --detach-sign " + img + ".bmap")
	}
	b.sh("mv rootfs.img.zst rootfs.ext4.zst; gpgconf --kill all 2>/dev/null || true")
	mux := http.NewServeMux()
	mux.Handle("/records", b.got)
	mux.HandleFunc("/sign", b.signRequest)
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	b.write("line.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	b.sh("openssl req -x509 -newkey ed25519 -nodes -keyout ca.key -out issuer.pem -subj /CN=line -days 1 2>/dev/null")
	disk := b.loop("sample", 8<<10, "-P")
	b.write("plan.toml", samplePlan(t, server.URL, disk))
	if r := b.results(ExitDone)["slot1"]; r.Verdict != record.Pass || r.Serial != "GW000123" {
		t.Errorf("the sample: %+v", r)
	}
	got := b.sh("mtype -i " + disk + "p4 ::/network.txt; mtype -i " + disk + "p4 ::/device.crt | openssl x509 -noout -subject\n" +
		"cat leds/green/brightness; sgdisk -v sample; fsck.vfat -n " + disk + "p5")
	for _, want := range []string{"serial=GW000123 mac=02:00:00:00:01:23 line=2\n", "GW000123\n1", "No problems found"} {
		if !strings.Contains(got, want) {
			t.Errorf("the device has no %q:\n%s", want, got)
		}
	}
	if len(b.got.lines) != 1 {
		t.Errorf("the server has %d records", len(b.got.lines))
	}
}

// signRequest answers a certificate request as the line's authority does, by openssl.
func (b *bench) signRequest(w http.ResponseWriter, r *http.Request) {
	var request bytes.Buffer
	_, _ = request.ReadFrom(r.Body)
	b.write("unit.csr", request.String())
	b.sh(`openssl x509 -req -in unit.csr -CA issuer.pem -CAkey ca.key -set_serial 7 -days 1 -out unit.crt 2>/dev/null`)
	http.ServeFile(w, r, b.path("unit.crt"))
}

// TestProvisionUBoot: where the plan has an initial environment, a blank disk gets one, in both copies, with both slots.
func TestProvisionUBoot(t *testing.T) {
	b := newBench(t)
	if _, err := exec.LookPath("fw_printenv"); err != nil {
		t.Skip("fw_printenv is not installed")
	}
	const head = `name = "board"
product = "acme-gw"
keyring = ["release.asc"]
config = "device.toml"
slot = "B"
environment = "u-boot-initial-env"
`
	b.write("plan.toml", head+`
[[partition]]
name = "env"
size = "1M"
[[partition]]
name = "state"
size = "1M"
[[partition]]
name = "rootfs_a"
size = "10M"
image = "rootfs.img.zst"
[[partition]]
name = "rootfs_b"
size = "10M"
image = "rootfs.img.zst"
[record]
spool = "spool"
station = "bench 1"
key = "station.pem"
`)
	deviceText := strings.Replace(benchDevice, `backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"`, `backend = "uboot"
env = [{ device = "PARTLABEL=env", offset = 0, size = 8192 }, { device = "PARTLABEL=env", offset = 65536, size = 8192 }]`, 1)
	b.write("device.toml", "state = \"PARTLABEL=state\"\n"+deviceText)
	b.write("u-boot-initial-env", "bootcmd=run boot_slot\nbaudrate=115200\nBOOT_ORDER=A B\n")
	disk := b.loop("board", 64, "-P")
	if r := b.results(ExitDone, "--target", disk)[disk]; r.Verdict != record.Pass {
		t.Fatalf("%+v", r)
	}
	b.write("fw_env.config", fmt.Sprintf("%s %#x 0x2000\n%s %#x 0x2000\n", b.path("board"), 1<<20, b.path("board"), 1<<20+65536))
	got := b.sh("fw_printenv -c fw_env.config")
	for _, want := range []string{"bootcmd=run boot_slot\n", "BOOT_ORDER=B A\n", "BOOT_A_LEFT=1\n", "BOOT_B_LEFT=1\n", "baudrate=115200\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the environment has no %q:\n%s", want, got)
		}
	}
	// The device remembers its images, and a recovery can determine that its slots are whole.
	b.write("device.toml", "state = \"PARTLABEL=state\"\n"+strings.Replace(deviceText, "[boot]", "[disk]\npath = \""+disk+"\"\n[boot]", 1))
	if got, _ := b.run(ExitDone, "status", "--config", b.path("device.toml")); strings.Count(got, "rootfs 2026.1 (installed ") != 2 {
		t.Errorf("the device remembers:\n%s", got)
	}
	b.sh("fw_setenv -c fw_env.config BOOT_ORDER ''")
	conf, err := device.LoadConfig(b.path("device.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := &recovery.Device{Config: conf, Work: new(initramfs.Work), Say: func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }}
	if slot, err := d.Reactivate(t.Context()); slot == "" || err != nil || strings.Count(out.String(), "holds what was signed for it") != 2 {
		t.Errorf("a recovery of the device: %q, %v\n%s", slot, err, out.String())
	}
}

// signedHead begins a plan that must be signed. Its product is in the plan itself.
const signedHead = "type = \"plan\"\nrollback_index = 9\ncreated = 2020-01-01T00:00:00Z\nexpires = 2099-01-01T00:00:00Z\n"

// plansToo is the table of a configuration by which the key of the bench may sign plans.
func (b *bench) plansToo() string {
	fpr := strings.TrimSpace(b.sh("gpg --with-colons --list-keys release@example.com 2>/dev/null | awk -F: '/^fpr/ { print $10; exit }'"))
	return "[[trust.key]]\nfingerprint = \"" + fpr + "\"\ndocuments = [\"plan\", \"release\", \"bmap\"]\n"
}

const releaseDevice = `product = "acme-gw"
keyring = ["release.asc"]
state = "PARTLABEL=state"
[trust]
require_metadata = true
[disk]
path = "DISK"
[boot]
backend = "gpt"
role = "kernel"
[[slot]]
name = "A"
partitions = { kernel = "PARTLABEL=kernel_a", rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { kernel = "PARTLABEL=kernel_b", rootfs = "PARTLABEL=rootfs_b" }
`

// releasePlan lays the state store out before or behind the slots.
func (b *bench) releasePlan(name, product, path, slots string, stateFirst bool) {
	b.t.Helper()
	var parts strings.Builder
	state := "[[partition]]\nname = \"state\"\nsize = \"1M\"\n"
	if stateFirst {
		parts.WriteString(state)
	}
	for _, part := range []string{"kernel_a", "rootfs_a", "kernel_b", "rootfs_b"} {
		fmt.Fprintf(&parts, "[[partition]]\nname = %q\nsize = \"4M\"\n", part)
	}
	if !stateFirst {
		parts.WriteString(state)
	}
	b.write(name, signedHead+strings.NewReplacer("DIR", b.dir, "PRODUCT", product, "PATH", b.path(path)).Replace(`name = "gateway"
product = "PRODUCT"
config = "DIR/device.toml"
[release]
path = "PATH"
`+slots+parts.String()+`[[partition]]
name = "identity"
size = "34M"
[identity]
partition = "identity"
serial = { from = "plan", value = "GW1" }
[record]
spool = "DIR/spool"
station = "line"
key = "DIR/station.pem"
[latch]
factory_key = "DIR/factory.pub"
`))
	b.sh("gpg -q --batch --yes -u release@example.com --armor --detach-sign " + name)
}

// release makes a signed release of two roles in a folder.
func (b *bench) release(folder, version string, index int) {
	b.t.Helper()
	b.sh("mkdir " + folder + `; cd ` + folder + `; for i in kernel rootfs; do truncate -s 2M $i.img; head -c 1M /dev/urandom | dd of=$i.img conv=notrunc status=none; done`)
	b.run(ExitDone, "release", "create", "--product", "acme-gw", "--version", version, "--rollback-index", fmt.Sprint(index),
		"-o", b.path(folder+"/release.toml"), "kernel="+b.path(folder+"/kernel.img"), "rootfs="+b.path(folder+"/rootfs.img"))
	b.sh("gpg -q --batch -u release@example.com --armor --detach-sign " + folder + "/release.toml; gpgconf --kill all || true")
}

// TestProvisionRelease: a plan with a release writes every role of each slot, the device knows the whole release from its first boot on, and
// nothing that the plan says takes a device below its floor or to another product.
func TestProvisionRelease(t *testing.T) {
	b := newBench(t)
	disk := b.loop("device", 128)
	b.write("device.toml", strings.Replace(releaseDevice, "DISK", disk, 1)+b.plansToo())
	b.release("new", "9.0", 9)
	b.release("old", "1.0", 1)
	b.releasePlan("plan.toml", "acme-gw", "new", "", true)
	device := []string{"--config", b.path("device.toml")}
	args := append(device, "--target", disk)
	results := func(want int, args ...string) line.Result { t.Helper(); return b.results(want, args...)[disk] }
	if r := results(ExitDone, args...); r.Verdict != record.Pass {
		t.Fatalf("%+v", r)
	}
	status, _ := b.run(ExitDone, append([]string{"status", "--booted", "A"}, device...)...)
	if strings.Count(status, "9.0 (installed ") < 2 || !strings.Contains(status, "boots next slot A") {
		t.Errorf("the device remembers:\n%s", status)
	}
	b.run(ExitDone, append([]string{"mark", "good", "A", "--booted", "A"}, device...)...)

	// A device needs a token.
	if r := results(ExitTrust, args...); r.Verdict != record.Refused || !strings.Contains(r.Error, "a token of the factory key is required") {
		t.Errorf("without a token: %+v", r)
	}
	token, _ := b.run(ExitDone, "provision", "token", "--key", b.path("factory.pem"), "--serial", "GW1")
	b.write("token", token)
	args = append(args, "--token", b.path("token"))
	// Its floor holds, wherever the plan puts the state store.
	for _, stateFirst := range []bool{true, false} {
		b.releasePlan("plan.toml", "acme-gw", "old", "", stateFirst)
		if r := results(ExitTooOld, args...); r.Verdict != record.Refused || !strings.Contains(r.Error, "none below 9") {
			t.Errorf("an old release: %+v", r)
		}
	}
	b.releasePlan("plan.toml", "acme-gw", "new", "", true)
	b.sh("sed -i 's/^rollback_index = 9/rollback_index = 8/' plan.toml; gpg -q --batch --yes -u release@example.com --armor --detach-sign plan.toml")
	if r := results(ExitTooOld, args...); !strings.Contains(r.Error, "the plan: ") {
		t.Errorf("an old plan: %+v", r)
	}
	b.releasePlan("plan.toml", "other", "new", "", true)
	if _, errs := b.run(ExitIncompatible, append([]string{"provision", "--plan", b.path("plan.toml")}, args...)...); !strings.Contains(errs, `product "other"`) {
		t.Errorf("a plan of another product: %s", errs)
	}

	// The same release is written again, with slot B empty. The floor stays although the state store is another one.
	b.releasePlan("plan.toml", "acme-gw", "new", "slots = [\"A\"]\n", false)
	if r := results(ExitDone, args...); r.Verdict != record.Pass {
		t.Fatalf("the same release with a token: %+v", r)
	}
	status, _ = b.run(ExitDone, append([]string{"status", "--booted", "A"}, device...)...)
	if !strings.Contains(status, "no rollback index below 9") || strings.Count(status, "9.0 (installed ") == 0 || !strings.Contains(status, "slot B  bad") {
		t.Errorf("after it was provisioned again:\n%s", status)
	}
	if _, errs := b.run(ExitTooOld, append([]string{"install", "--booted", "A", "--force-from-bad", b.path("old")}, device...)...); !strings.Contains(errs, "none below 9") {
		t.Errorf("an old release by install: %s", errs)
	}
}

// TestProvisionPlan: an error in a plan or its trust ends a run before anything is opened.
func TestProvisionPlan(t *testing.T) {
	b := newBench(t)
	plan, err := os.ReadFile(b.path("plan.toml"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(b.dir)))
	defer server.Close()
	for name, c := range map[string]struct {
		old, new string
		args     []string
		code     int
		want     string
	}{
		"unknown key":      {`name = "gateway"`, "name = \"x\"\nsurprise = 1", nil, ExitUsage, `unknown key "surprise"`},
		"no target":        {"", "", nil, ExitUsage, "no target"},
		"nothing signs it": {`keyring = ["release.asc"]`, "", []string{"--target", "/dev/null"}, ExitTrust, "no keyring"},
		"unsigned image":   {`image = "esp.img"`, `image = "grubenv"`, []string{"--target", "/dev/null"}, ExitUsage, "no bmap beside"},
		"foreign product":  {`product = "acme-gw"`, `product = "other"`, []string{"--target", "/dev/null"}, ExitIncompatible, "acme-gw"},
		"unsigned address": {"", "", []string{"--config", b.path("device.toml"), "--target", "/dev/null"}, ExitTrust, "the plan is not signed"},
		"no key":           {`key = "station.pem"`, `key = "nothing.pem"`, nil, ExitFailed, "reading the key"},
	} {
		t.Run(name, func(t *testing.T) {
			b.write("plan.toml", strings.Replace(string(plan), c.old, c.new, 1))
			_, errs := b.run(c.code, append([]string{"provision", "--plan", b.path("plan.toml")}, c.args...)...)
			if !strings.Contains(errs, c.want) {
				t.Errorf("%s; want %q", errs, c.want)
			}
		})
	}
	// Over HTTP a plan is accepted only when it is signed and its local paths are absolute.
	unsigned := strings.Replace(string(plan), `keyring = ["release.asc"]`, "", 1)
	b.write("plan.toml", signedHead+strings.ReplaceAll(unsigned, `"station.pem"`, `"`+b.path("station.pem")+`"`))
	b.write("device.toml", benchDevice+b.plansToo())
	remote := []string{"provision", "--config", b.path("device.toml"), "--plan", server.URL + "/plan.toml", "--target", "/dev/null"}
	if _, errs := b.run(ExitTrust, remote...); !strings.Contains(errs, "the plan is not signed") {
		t.Error(errs)
	}
	b.sh("gpg -q --batch -u release@example.com --armor --detach-sign plan.toml; gpgconf --kill all || true")
	if _, errs := b.run(ExitUsage, remote...); !strings.Contains(errs, "expected an absolute path") {
		t.Error(errs)
	}
}

// TestProvisionMBR checks a whole-disk image with an MBR: the disk passes with its table, and fails once that is changed.
func TestProvisionMBR(t *testing.T) {
	b := newBench(t)
	b.sh(`truncate -s 40M disk.img; printf 'label: dos\nstart=1MiB,size=8MiB\nstart=9MiB,size=16MiB\n' | sfdisk -q disk.img
		dd if=root/data of=disk.img bs=1M seek=1 conv=notrunc status=none`)
	b.run(ExitDone, "bmap", "create", "--product", "acme-gw", "--version", "2026.1", "-o", b.path("disk.img.bmap"), b.path("disk.img"))
	b.sh("gpg -q --batch -u release@example.com --armor --detach-sign disk.img.bmap; gpgconf --kill all 2>/dev/null || true")
	b.write("plan.toml", `name = "card"
product = "acme-gw"
keyring = ["release.asc"]
[image]
path = "disk.img"
[record]
spool = "spool"
station = "bench 1"
key = "station.pem"
`)
	node := b.loop("card", 60)
	b.results(ExitDone, "--target", node)
	if got, want := b.sh("sfdisk -d card | grep start="), b.sh("sfdisk -d disk.img | grep start= | sed s/disk.img/card/"); got != want {
		t.Errorf("the card has the partitions\n%s, want\n%s", got, want)
	}
	b.results(ExitDone, "--check", "--target", node)
	b.sh("printf x | dd of=" + node + " bs=1 seek=450 conv=notrunc,fsync status=none")
	r := b.results(ExitWrite, "--check", "--target", node)[node]
	if r.Verdict != record.Quarantine || !strings.Contains(r.Error, "comparing: the medium differs from the image in the 4096 bytes at 0") {
		t.Errorf("with a changed table: %+v", r)
	}
}
