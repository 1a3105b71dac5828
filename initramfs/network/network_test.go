package network

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var compare = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestParseIP(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		in   string
		want Setting
		err  string
	}{
		{in: "dhcp", want: Setting{Method: "dhcp"}},
		{in: "on", want: Setting{Method: "any"}},
		{in: "auto6", want: Setting{Method: "dhcp6"}},
		{in: "off", want: Setting{Method: "off"}},
		{in: ":::::eth1:dhcp", want: Setting{Method: "dhcp", Device: "eth1"}},
		{in: ":::::eth1", want: Setting{Method: "any", Device: "eth1"}},
		{in: "192.168.1.20::192.168.1.1:255.255.255.0::eth0:off:9.9.9.9:1.1.1.1:192.168.1.5", want: Setting{
			Device: "eth0", Method: "static", Address: netip.MustParsePrefix("192.168.1.20/24"), Gateway: addr("192.168.1.1"),
			DNS: []netip.Addr{addr("9.9.9.9"), addr("1.1.1.1")}, NTP: []netip.Addr{addr("192.168.1.5")},
		}},
		{in: "10.0.0.2:::8", want: Setting{Method: "static", Address: netip.MustParsePrefix("10.0.0.2/8")}},
		{in: "[fd00::2]::[fd00::1]:64::eth0:none", want: Setting{
			Device: "eth0", Method: "static", Address: netip.MustParsePrefix("fd00::2/64"), Gateway: addr("fd00::1"),
		}},
		{in: "bootp", err: "expected dhcp"},
		{in: "", err: "expected dhcp"},
		{in: "10.0.0.2::10.0.0.1", err: "invalid netmask"},
		{in: "10.0.0.2::10.0.0.1:255.0.255.0", err: "invalid netmask"},
		{in: "10.0.0.2::10.0.0.1:33", err: "invalid netmask"},
		{in: "10.0.0.2::[fd00::1]:8", err: "different families"},
		{in: "300.0.0.2:::8", err: "ParseAddr"},
		{in: ":::::eth0:static", err: "unknown method"},
		{in: "a:b:c:d:e:f:g:h:i:j:k", err: "11 fields"},
	} {
		got, err := ParseIP(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseIP(%q) = %+v, %v; want %q", c.in, got, err, c.err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got, compare, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("ParseIP(%q): %v (-want +got):\n%s", c.in, err, diff)
		}
	}
}

// The kernel command line is untrusted.
func FuzzParseIP(f *testing.F) {
	for _, s := range []string{"dhcp", "10.0.0.2::10.0.0.1:255.0.0.0::eth0:off", "[fd00::2]::[fd00::1]:64", "[[]]::", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseIP(s)
		if err == nil && set.Method == "static" && (!set.Address.IsValid() || set.Address.Bits() < 0) {
			t.Errorf("ParseIP(%q) = %+v", s, set)
		}
	})
}

func TestPick(t *testing.T) {
	all := []Setting{{Method: "dhcp"}, {Device: "eth1", Method: "static"}}
	for device, want := range map[string]string{"eth0": "dhcp", "eth1": "static"} {
		if got := pick(all, device); len(got) != 1 || got[0].Method != want {
			t.Errorf("pick(%s) = %+v; want %s", device, got, want)
		}
	}
	if got := pick(nil, "eth0"); len(got) != 1 || got[0].Method != "any" {
		t.Errorf("without settings: %+v; want DHCP", got)
	}
	if got := pick(all[1:], "eth0"); len(got) != 0 {
		t.Errorf("an interface that is not named gets %+v", got)
	}
}

func TestFromLease(t *testing.T) {
	lease := func(ip string, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		p, err := dhcpv4.New(append(options, dhcpv4.WithYourIP(net.ParseIP(ip)))...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	l, err := fromLease(lease("10.1.2.3", dhcpv4.WithNetmask(net.CIDRMask(20, 32)), dhcpv4.WithRouter(net.IPv4(10, 1, 0, 1)),
		dhcpv4.WithDNS(net.IPv4(10, 1, 0, 2)), dhcpv4.WithLeaseTime(600)))
	if err != nil || l.address.String() != "10.1.2.3/20" || l.gateway.String() != "10.1.0.1" || len(l.dns) != 1 || l.validFor != 10*time.Minute {
		t.Errorf("lease = %+v, %v", l, err)
	}
	if l, err = fromLease(lease("10.1.2.3")); err != nil || l.address.Bits() != 8 || l.gateway.IsValid() {
		t.Errorf("without options: %+v, %v", l, err)
	}
	for _, ip := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1"} {
		if l, err := fromLease(lease(ip)); err == nil {
			t.Errorf("the address %s was taken: %+v", ip, l)
		}
	}
}

func TestAskTime(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	answers := make(chan func(ask []byte) []byte, 1)
	go func() {
		for answer := range answers {
			ask := make([]byte, 100)
			n, from, err := server.ReadFromUDP(ask)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDP(answer(ask[:n]), from)
		}
	}()
	defer close(answers)
	good := func(seconds uint32) func([]byte) []byte {
		return func(ask []byte) []byte {
			a := make([]byte, 48)
			a[0], a[1] = 4<<3|4, 2
			copy(a[24:32], ask[40:48])
			binary.BigEndian.PutUint32(a[40:], seconds)
			return a
		}
	}
	change := func(i int, b byte) func([]byte) []byte {
		return func(ask []byte) []byte {
			a := good(3974000000)(ask)
			a[i] = b
			return a
		}
	}
	for _, c := range []struct {
		name   string
		answer func([]byte) []byte
		want   int64 // 0 is an error
	}{
		{"2025", good(3974000000), 3974000000 - ntpEpoch},
		{"2040", good(124000000), 124000000 + 1<<32 - ntpEpoch},
		{"alarm", change(0, 3<<6|4<<3|4), 0},
		{"a client", change(0, 4<<3|3), 0},
		{"kiss of death", change(1, 0), 0},
		{"another question", change(25, 1), 0},
		{"short", func([]byte) []byte { return []byte{1} }, 0},
	} {
		answers <- c.answer
		got, err := askTime(t.Context(), netip.MustParseAddrPort(server.LocalAddr().String()))
		if c.want == 0 && err == nil || c.want != 0 && got.Unix() != c.want {
			t.Errorf("%s: %v, %v; want %d", c.name, got, err, c.want)
		}
	}
}

// A real server, dnsmasq, at the other end of a cable: the carrier comes late, both families get an address, and the lease is reported.
func TestUp(t *testing.T) {
	if os.Getenv("NETWORK_TEST_INSIDE") != "" {
		inside(t)
		return
	}
	for _, tool := range []string{"dnsmasq", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			if _, err := os.Stat("/usr/sbin/" + tool); err != nil {
				t.Skipf("%s is not installed", tool)
			}
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	cmd := exec.CommandContext(t.Context(), lookPath("unshare"), "-n", "--", os.Args[0], "-test.run", "^TestUp$", "-test.v")
	cmd.Env = append(os.Environ(), "NETWORK_TEST_INSIDE=1", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func lookPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return "/usr/sbin/" + name
	}
	return path
}

func inside(t *testing.T) {
	dir := t.TempDir()
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(lookPath("ip"), args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	o := Options{Log: t.Logf, ResolvConf: filepath.Join(dir, "resolv.conf"), Nameservers: []netip.Addr{netip.MustParseAddr("10.9.0.53")}}
	if _, err := Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no network interface") {
		t.Errorf("without interfaces: %v", err)
	}
	// The server's namespace is that of a sleeping process; it ends with us.
	peer := exec.Command(lookPath("unshare"), "-n", "--", "sleep", "120")
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Process.Kill(); _ = peer.Wait() }()
	time.Sleep(500 * time.Millisecond)
	pid := strconv.Itoa(peer.Process.Pid)
	ip("link", "add", "eth0", "type", "veth", "peer", "name", "up0")
	ip("link", "set", "up0", "netns", pid)
	server := func(args ...string) *exec.Cmd {
		return exec.Command(lookPath("nsenter"), append([]string{"-t", pid, "-n"}, args...)...)
	}
	for _, args := range [][]string{
		{lookPath("ip"), "addr", "add", "10.9.0.1/24", "dev", "up0"},
		{lookPath("ip"), "-6", "addr", "add", "fd09::1/64", "dev", "up0", "nodad"},
	} {
		if out, err := server(args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	dnsmasq := server(lookPath("dnsmasq"), "-d", "-C", "/dev/null", "--port=0", "--interface=up0", "--bind-dynamic",
		"--dhcp-range=10.9.0.100,10.9.0.109,255.255.255.0,10m", "--dhcp-range=fd09::100,fd09::110,64,10m", "--enable-ra",
		"--dhcp-option=option:dns-server,10.9.0.1", "--dhcp-option=option:ntp-server,10.9.0.1", "--dhcp-leasefile="+filepath.Join(dir, "leases"),
		"--user=root", "--pid-file="+filepath.Join(dir, "pid"))
	var log strings.Builder
	dnsmasq.Stderr = &log
	if err := dnsmasq.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dnsmasq.Process.Kill(); _ = dnsmasq.Wait() }()
	go func() {
		time.Sleep(time.Second)
		_ = server(lookPath("ip"), "link", "set", "up0", "up").Run() // the cable
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	st, err := Up(ctx, o)
	if err != nil {
		t.Fatalf("Up: %v\n%s", err, log.String())
	}
	if left := time.Until(st.Valid); left < 5*time.Minute || left > 10*time.Minute {
		t.Errorf("the lease holds for %s; want 10 min", left)
	}
	if len(st.NTP) != 1 || st.NTP[0].String() != "10.9.0.1" {
		t.Errorf("time servers %v", st.NTP)
	}
	conf, err := os.ReadFile(o.ResolvConf)
	if err != nil || !strings.HasPrefix(string(conf), "nameserver 10.9.0.53\nnameserver 10.9.0.1\n") {
		t.Errorf("resolv.conf = %q, %v", conf, err)
	}
	addrs, err := exec.Command(lookPath("ip"), "addr", "show", "eth0").Output()
	if err != nil || !strings.Contains(string(addrs), "inet 10.9.0.10") || !strings.Contains(string(addrs), "inet6 fd09::1") {
		t.Errorf("addresses: %v\n%s", err, addrs)
	}
	routes, err := exec.Command(lookPath("ip"), "route").Output()
	if err != nil || !strings.Contains(string(routes), "default via 10.9.0.1 dev eth0") {
		t.Errorf("routes: %v\n%s", err, routes)
	}
	// Static: another address on top, without asking anybody.
	o.Settings = []Setting{{Method: "static", Device: "eth0", Address: netip.MustParsePrefix("10.9.0.77/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}
	if st, err := Up(ctx, o); err != nil || !st.Valid.IsZero() {
		t.Errorf("static: %+v, %v", st, err)
	}
	// Nobody answers, and the cable is out.
	if err := server(lookPath("ip"), "link", "set", "up0", "down").Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(ctx, o); err == nil || !strings.Contains(err.Error(), "no carrier on eth0") {
		t.Errorf("without a carrier: %v", err)
	}
}
