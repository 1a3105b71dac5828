package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"updater/boot/boottest"
	"updater/fleet"
	"updater/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Cleanly(m).Run()) }

// line is a device that follows a channel, with the publisher's folder and the server.
type line struct {
	*rig.Rig
	url    string
	follow string             // instead of the channel, in the configuration
	store  string             // instead of the partition
	schema *jsonschema.Schema // of reports

	mu       sync.Mutex
	anyone   bool             // reports come from other devices too
	gone     bool             // the server answers nothing but 503
	status   int              // of its answer to a report
	reports  []fleet.Report   // that it has accepted
	keys     []string         // of all deliveries
	onImage  func()           // called once, when an image is fetched
	requests map[string]int64 // by path
}

func newLine(t *testing.T) *line {
	l := &line{Rig: rig.New(t), status: http.StatusNoContent, requests: map[string]int64{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	l.url = server.URL
	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile("../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	l.schema = schema
	l.boots("A")
	l.Sh("mkdir pub")
	l.Expect(0, "", "channel", "create", "--product", "demo", "-f", "pub/channel.toml")
	l.Sign("pub/channel.toml", rig.Release...)
	return l
}

// boots makes a slot the running one.
func (l *line) boots(slot string) {
	l.Helper()
	fingerprint := strings.TrimSpace(l.Sh(`gpg --with-colons --list-keys release@example.com 2>/dev/null | awk -F: '/^fpr/ {print $10; exit}'`))
	follow := fmt.Sprintf(`
[channel]
url = "%[1]s/channel.toml"
identifier = "unit-1"
[report]
url = "%[1]s/report?token=secret"
[source]
give_up = "1s"
`, l.url)
	if l.follow != "" {
		follow = l.follow
	}
	store := "PARTLABEL=state"
	if l.store != "" {
		store = l.store
	}
	l.Configure(fmt.Sprintf("state = %q", store), follow+fmt.Sprintf(`
[[trust.key]]
fingerprint = "%s"
documents = ["release", "bmap", "channel", "keyring"]
`, fingerprint))
	l.Write("config.toml", []byte(strings.Replace(string(l.Read("config.toml")), `booted = "A"`, `booted = "`+slot+`"`, 1)))
}

// restart starts the device as the boot loader's script does, and returns the slot.
func (l *line) restart() string {
	l.Helper()
	l.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.now`)
	areas := [][]byte{l.Read("env.now")}
	slot := boottest.GRUBScript(areas)
	l.Write("env.now", areas[0])
	l.Sh(`mcopy -o -i disk.img@@1M env.now ::/grub/grubenv`)
	l.boots(slot)
	return slot
}

// publish makes a release and lists it in the channel.
func (l *line) publish(version string, index int, flags ...string) {
	l.Helper()
	dir := "pub/" + version
	if _, err := os.Stat(l.Path(dir)); err != nil {
		l.Sh(`mkdir "$0"; cp --sparse=always image.img "$0"/rootfs.img
			printf "$1" | dd of="$0"/rootfs.img bs=4096 seek=10 conv=notrunc status=none`, dir, version)
		l.Expect(0, "", "release", "create", "--product", "demo", "--version", version, "--rollback-index", fmt.Sprint(index),
			"-o", dir+"/release.toml", "rootfs="+dir+"/rootfs.img")
		l.Sign(dir+"/release.toml", rig.Release...)
	}
	l.channel(append(append([]string{"add"}, flags...), dir)...)
}

// channel changes the channel and signs it.
func (l *line) channel(args ...string) {
	l.Helper()
	l.Expect(0, "", append([]string{"channel", args[0], "-f", "pub/channel.toml"}, args[1:]...)...)
	l.Sign("pub/channel.toml", rig.Release...)
}

func (l *line) run(want int, words string, args ...string) string {
	l.Helper()
	return l.Expect(want, words, append(args, "--config", "config.toml")...)
}

// reported takes the outcomes that the server got since the last call.
func (l *line) reported() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, r := range l.reports {
		list = append(list, r.Version+" "+string(r.Outcome))
	}
	l.reports = nil
	return list
}

func (l *line) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests[r.URL.Path]++
	if hook := l.onImage; hook != nil && strings.HasSuffix(r.URL.Path, ".img") {
		l.onImage = nil
		hook()
	}
	switch {
	case l.gone:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodPost:
		var got fleet.Report
		body, _ := io.ReadAll(r.Body)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = l.schema.Validate(value)
		}
		if err != nil {
			l.Errorf("%s: %v", body, err)
		}
		if err := json.Unmarshal(body, &got); err != nil || r.Header.Get("Idempotency-Key") != got.Key || got.Identifier != "unit-1" && !l.anyone {
			l.Errorf("the report %s with the key %q: %v", body, r.Header.Get("Idempotency-Key"), err)
		}
		l.keys = append(l.keys, got.Key)
		if w.WriteHeader(l.status); l.status < 300 {
			l.reports = append(l.reports, got)
		}
	default:
		http.ServeFile(w, r, l.Path("pub"+r.URL.Path))
	}
}

// The life of a device in a fleet: nothing, an update, good, a release that falls back and is not tried again, a second attempt.
func TestLife(t *testing.T) {
	l := newLine(t)
	l.run(3, "nothing to do: channel stable has no release yet", "check")
	l.run(3, "nothing to do", "update")
	l.Pristine0()

	l.publish("1", 1)
	l.run(0, "version 1 is for this device", "check")
	l.run(0, "installed version 1 into slot B", "update")
	l.run(3, "version 1 is installed and boots next", "check")
	l.run(3, "version 1 is installed and boots next", "update")
	l.run(3, "nothing to do: no report waits", "report", "--now")
	if got := l.restart(); got != "B" {
		t.Fatalf("slot %s boots", got)
	}
	l.run(3, "nothing newer than the running release", "update") // on trial
	l.run(3, "no report waits", "report")
	l.run(0, "slot B is good", "mark", "good")
	l.run(0, "good  version 1, install 1", "report")
	l.run(0, "1 reports sent", "report", "--now")
	l.run(0, "slot B is good", "mark", "good")
	l.run(3, "no report waits", "report", "--now")
	if got := l.reported(); !slices.Equal(got, []string{"1 good"}) {
		t.Errorf("the server got %q", got)
	}
	l.run(3, "nothing newer than the running release", "check")

	// Version 2 falls back. It is remembered before anybody asks, and not tried again.
	l.publish("2", 2)
	l.run(0, "installed version 2 into slot A", "update")
	if a, b := l.restart(), l.restart(); a != "A" || b != "B" {
		t.Fatalf("slots %s and %s boot", a, b)
	}
	l.run(3, "version 2 failed here at attempt 1", "update")
	l.run(0, "", "mark", "good")
	l.run(3, `"why":"failed"`, "check", "--json")
	l.run(0, "1 reports sent", "report", "--now")
	l.run(3, "no report waits", "report", "--now")
	if got := l.reported(); !slices.Equal(got, []string{"2 fell-back"}) {
		t.Errorf("the server got %q", got)
	}

	// A second attempt: the slot still holds it, so that no image is fetched.
	l.publish("2", 2, "--attempt", "2")
	before := l.requests["/2/rootfs.img"]
	l.run(0, "0 bytes written", "update")
	if l.requests["/2/rootfs.img"] > before+1 {
		t.Errorf("the image was fetched %d times again", l.requests["/2/rootfs.img"]-before)
	}
	if a, b := l.restart(), l.restart(); a != "A" || b != "B" {
		t.Fatalf("slots %s and %s boot", a, b)
	}
	l.run(3, "version 2 failed here at attempt 2", "update")
	l.run(0, "", "mark", "good")
	// A hotfix of the same index is newer.
	l.publish("2a", 2)
	l.run(0, "installed version 2a into slot A", "update")
	l.restart()
	l.run(0, "", "mark", "good")
	l.run(0, "2 reports sent", "report", "--now")
	if got := l.reported(); !slices.Equal(got, []string{"2 fell-back", "2a good"}) {
		t.Errorf("the server got %q", got)
	}
}

// Pristine0 fails the test when a slot has changed.
func (l *line) Pristine0() {
	l.Helper()
	disk, orig := l.Read("disk.img"), l.Read("disk.orig")
	for _, slot := range []string{"A", "B"} {
		at := rig.SlotOffset("grub", slot)
		if string(disk[at:at+rig.SlotBytes]) != string(orig[at:at+rig.SlotBytes]) {
			l.Errorf("slot %s has changed", slot)
		}
	}
}

// A device that follows a channel also installs a release from a folder.
func TestInstallFromFolder(t *testing.T) {
	l := newLine(t)
	l.publish("2", 2)
	l.run(0, "slot B boots next", "install", "pub/2/release.toml")
}

// A release that was only downloaded is compared and activated, unless it was withdrawn or changed in between.
func TestDownloadOnly(t *testing.T) {
	l := newLine(t)
	l.publish("1", 1)
	l.run(2, "contradict", "update", "--download-only", "--reboot")
	l.run(0, "slot B waits; updater activate B switches to it", "update", "--download-only")
	if l.Next() != "A" {
		t.Error("a download has switched")
	}
	l.run(3, "in slot B; updater activate B switches to it", "update", "--download-only")

	l.channel("withdraw", "1")
	l.run(12, "version 1 was withdrawn", "activate", "B")
	l.set(func() { l.gone = true })
	l.run(13, "", "activate", "B")
	l.run(0, "slot B boots next", "activate", "--offline", "B")
	l.set(func() { l.gone = false })
	l.run(3, "version 1 boots next and was withdrawn since", "update", "--reboot")
	l.run(0, "slot A boots next", "activate", "A")
	l.run(3, "version 1 was withdrawn", "update")

	l.publish("2", 2)
	l.run(0, "slot B waits", "update", "--download-only")
	l.Sh(`dd if=/dev/urandom of=disk.img bs=4096 count=1 conv=notrunc status=none seek=$(($0 / 4096))`, fmt.Sprint(rig.SlotOffset("grub", "B")))
	l.run(14, "", "activate", "B")
	if l.Next() != "A" {
		t.Error("a changed slot was switched to")
	}
	l.run(0, "slot B boots next", "update") // it is repaired
	if l.restart() != "B" {
		t.Error("slot B does not boot")
	}
	// The reboot into a slot that was switched to by hand is a trial, too.
	l.run(0, "", "mark", "good")
	l.run(0, "good  version 2", "report")
}

// A withdrawal while the image is fetched prevents the switch; so does a server that goes away, and the update goes on later.
func TestWithdrawnWhileDownloading(t *testing.T) {
	l := newLine(t)
	l.publish("1", 1)
	l.set(func() { l.onImage = func() { l.channel("withdraw", "1") } })
	l.run(12, "version 1 was withdrawn from the channel; no slot was switched", "update")
	l.run(3, "version 1 was withdrawn", "update")
	l.run(3, "no report waits", "report")
	l.publish("2", 2)
	l.set(func() { l.onImage = func() { l.gone = true } })
	l.run(13, "", "update")
	if l.Next() != "A" {
		t.Error("the slot was switched")
	}
	l.set(func() { l.gone = false })
	l.run(0, "installed version 2 into slot B", "update")
	l.run(0, "reports sent", "report", "--now")
	if got := l.reported(); !slices.Contains(got, "2 failed") || slices.Contains(got, "2 good") {
		t.Errorf("the server got %q", got)
	}
}

// A channel is refused if it is not for the device, old, replayed, expired or not signed by its key.
func TestChannelRefused(t *testing.T) {
	l := newLine(t)
	l.publish("1", 1)
	l.Sh("cp pub/channel.toml old.toml; cp pub/channel.toml.sig old.sig")
	l.channel("withdraw", "1")
	l.run(3, "version 1 was withdrawn", "check")
	l.Sh("cp pub/channel.toml new.toml; cp pub/channel.toml.sig new.sig; cp old.toml pub/channel.toml; cp old.sig pub/channel.toml.sig")
	l.run(12, "this device has seen one of", "check")
	l.run(12, "this device has seen one of", "update")
	l.Sh("cp new.toml pub/channel.toml; echo '# other bytes' >>pub/channel.toml")
	l.run(10, "", "check")
	l.Sign("pub/channel.toml", rig.Release...)
	l.run(12, "which this device has seen", "check")
	l.Sign("pub/channel.toml", "other")
	l.run(10, "", "check")
	l.Sh("cp new.toml pub/channel.toml; sed -i 's/^product = .*/product = \"board\"/' pub/channel.toml")
	l.Sign("pub/channel.toml", rig.Release...)
	l.run(11, `the channel is for product "board"`, "check")
	l.Sh("cp new.toml pub/channel.toml; sed -i 's/^channel = .*/channel = \"beta\"/' pub/channel.toml")
	l.Sign("pub/channel.toml", rig.Release...)
	l.run(11, `this device follows "stable"`, "check")
	l.Sh("SOURCE_DATE_EPOCH=1700000000 updater channel create --product demo -f expired.toml; mv expired.toml pub/channel.toml")
	l.Sign("pub/channel.toml", rig.Release...)
	l.run(12, "", "check")
	l.set(func() { l.gone = true })
	l.run(13, "", "check")
	l.Pristine0()
}

// The report is kept until the server accepts it, and has the same key each time.
func TestReportIsKept(t *testing.T) {
	l := newLine(t)
	l.publish("1", 1)
	l.run(0, "", "update")
	l.restart()
	l.run(0, "", "mark", "good")
	l.set(func() { l.status = http.StatusInternalServerError })
	out := l.run(13, "answered 500", "report", "--now")
	if strings.Contains(out, "secret") {
		t.Errorf("the address is shown with its secret: %s", out)
	}
	l.set(func() { l.gone = true })
	l.run(13, "answered 503", "report", "--now")
	l.set(func() { l.gone, l.status = false, http.StatusOK })
	l.run(0, "1 reports sent", "report", "--now")
	if len(l.keys) != 2 || l.keys[0] != l.keys[1] {
		t.Errorf("the keys are %q", l.keys)
	}
}

// A release that was rolled back by a person is not installed again automatically.
func TestRollbackIsRemembered(t *testing.T) {
	l := newLine(t)
	l.publish("1", 1)
	l.run(0, "", "update")
	l.restart()
	l.run(0, "", "mark", "good")
	l.publish("1a", 1)
	l.run(0, "installed version 1a into slot A", "update")
	l.restart()
	l.run(0, "", "mark", "good")
	l.run(0, "slot B boots next", "rollback")
	l.restart()
	l.run(3, "version 1a failed here", "update")
}

// A scrub finds a damaged slot that is not running, marks it bad and reports it; an install writes it again.
func TestScrub(t *testing.T) {
	l := newLine(t)
	l.run(0, "slot B: unknown", "scrub")
	l.both()
	l.run(0, `{"slot":"B","result":"intact"}`, "scrub", "--json")
	damage := func(slot string) { l.damage(slot, 0) }
	damage("B")
	for range 2 {
		l.run(14, "slot B: damaged", "scrub")
	}
	l.run(0, "slot B  bad", "status")
	l.run(0, "reports sent", "report", "--now")
	if got := l.reported(); !slices.Equal(got, []string{"1 good", "2 good", "1 damaged"}) {
		t.Errorf("the server got %q", got)
	}
	damage("A") // it runs
	l.run(14, "slot A: damaged", "scrub")
	if l.Next() != "A" {
		t.Error("the running slot was marked bad")
	}
	l.publish("3", 3)
	l.run(0, "installed version 3 into slot B", "update")
	l.run(14, "slot B: intact", "scrub")
}

// both leaves version 1 in slot B, which is good and below the floor, and version 2 in slot A, which runs.
func (l *line) both() {
	l.Helper()
	for i, version := range []string{"1", "2"} {
		l.publish(version, i+1)
		l.run(0, "", "update")
		l.run(0, "slot A: ", "scrub")
		l.restart()
		l.run(0, "", "mark", "good")
	}
}

// damage changes one block of a slot. The versions differ in block 10.
func (l *line) damage(slot string, block int64) {
	l.Helper()
	l.Sh(`dd if=/dev/urandom of=disk.img bs=4096 count=1 conv=notrunc status=none seek="$0"`, fmt.Sprint(rig.SlotOffset("grub", slot)/4096+block))
}

// A damaged slot that was good is written again, from the running slot or its source, and is the fallback again without a switch. A slot
// that was not good, that runs, or whose image cannot be fetched is not restored.
func TestScrubRepairs(t *testing.T) {
	l := newLine(t)
	l.both()
	l.run(0, "slot B: intact", "scrub", "--repair")
	want := l.slot("B")
	good := func() {
		t.Helper()
		if !bytes.Equal(l.slot("B"), want) || l.Next() != "A" {
			t.Fatalf("slot B is another one, or slot %s boots next", l.Next())
		}
		l.run(0, "slot B  good", "status")
		l.run(0, "slot B: intact", "scrub", "--repair")
	}
	before := l.requests["/1/rootfs.img"]
	l.damage("B", 701)
	l.run(0, "slot B: repaired", "scrub", "--repair")
	good()
	if l.requests["/1/rootfs.img"] != before {
		t.Error("a block that the running slot holds was fetched")
	}
	l.damage("B", 10)
	l.set(func() { l.gone = true })
	l.run(14, "slot B: damaged", "scrub", "--repair")
	l.run(0, "slot B  bad", "status")
	l.set(func() { l.gone = false })
	l.run(0, "slot B: repaired", "scrub", "--repair")
	good()
	l.run(0, "3 reports sent", "report", "--now") // one damage of one install is one report
	if got := l.reported(); !slices.Equal(got, []string{"1 good", "2 good", "1 damaged"}) {
		t.Errorf("the server got %q", got)
	}
	l.damage("B", 10)
	l.Sh(`cp pub/1/rootfs.img good.img; printf wrong | dd of=pub/1/rootfs.img bs=4096 seek=10 conv=notrunc status=none`)
	l.run(14, "slot B: damaged", "scrub", "--repair")
	l.run(0, "", "mark", "bad", "B") // a person decides
	l.Sh("mv good.img pub/1/rootfs.img")
	l.run(14, "slot B: damaged", "scrub", "--repair")
	l.run(0, "slot B  bad", "status")
	l.publish("3", 3)
	l.run(0, "installed version 3 into slot B", "update")
	l.damage("B", 10) // on trial
	l.run(14, "slot B: damaged", "scrub", "--repair")
	l.damage("A", 10) // it runs
	l.run(14, "slot A: damaged", "scrub", "--repair")
	if l.Next() != "A" {
		t.Errorf("slot %q boots next; want A, which runs", l.Next())
	}
}

// slot is the content of a slot.
func (l *line) slot(name string) []byte {
	l.Helper()
	at := rig.SlotOffset("grub", name)
	return l.Read("disk.img")[at : at+rig.SlotBytes]
}

// The requests of a check and of an update are those of docs/ota.md. Here the signatures are .sig files, so that each is looked for as .asc before.
func TestRequests(t *testing.T) {
	l := newLine(t)
	count := func() (n int64) {
		for path, times := range l.requests {
			if !strings.HasSuffix(path, ".asc") {
				n += times
			}
		}
		l.requests = map[string]int64{}
		return n
	}
	l.run(3, "", "check")
	if n := count(); n != 2 {
		t.Errorf("a check without a result takes %d requests, want 2", n)
	}
	l.publish("1", 1)
	l.run(0, "", "check")
	if n := count(); n != 4 {
		t.Errorf("a check with a result takes %d requests, want 4", n)
	}
	l.run(0, "", "update")
	t.Logf("%v", l.requests)
	if image := l.requests["/1/rootfs.img"]; count()-image != 9 {
		t.Errorf("an update takes other requests than 9 and those of the image")
	}
}

// A mirror is asked when the server before is gone, or has an old channel, and has the files that the channel names beside it.
func TestMirrors(t *testing.T) {
	l := newLine(t)
	l.follow = fmt.Sprintf("[channel]\nurl = \"%[1]s/old/channel.toml\"\nmirrors = [\"http://127.0.0.1:9/channel.toml\", \"%[1]s/channel.toml\"]\nidentifier = \"unit-1\"\n"+
		"[source]\ngive_up = \"1s\"\n", l.url)
	l.boots("A")
	l.publish("1", 1)
	l.Sh("mkdir pub/old; cp -r pub/channel.toml* pub/1 pub/old")
	if out := l.run(0, "version 1 is for this device", "check"); strings.Contains(out, "asking") {
		t.Errorf("a mirror was asked without need: %s", out)
	}
	l.publish("2", 2)
	l.Sh("mv pub/old pub/away")
	l.run(0, "asking http://127.0.0.1:9/channel.toml", "update")
	l.Sh("mv pub/away pub/old")
	l.publish("3", 3)
	l.restart()
	l.run(0, "", "mark", "good")
	l.run(0, "this device has seen one of", "update")
	if got := l.restart(); got != "A" {
		t.Errorf("slot %s boots", got)
	}
	l.publish("4", 4)
	l.run(0, "", "mark", "good")
	l.Sh("cp pub/channel.toml* pub/old; rm -rf pub/old/4") // the mirror has the channel and not the release
	l.run(0, "asking "+l.url+"/4/release.toml", "update")
	l.Sh("rm -r pub/channel.toml* pub/old")
	l.run(13, "connection refused", "check")
}
