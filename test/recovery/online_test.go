//go:build vm

package recovery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/qemu"
)

// host is the host's loopback as QEMU's user network shows it to the guest.
const host = "10.0.2.2"

// authority makes a certificate authority in dir, and a certificate for the host that it signed.
func authority(t *testing.T, dir, name string) (ca, cert, key string) {
	t.Helper()
	save := func(file, kind string, der []byte) string {
		path := filepath.Join(dir, name+file)
		put(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		return path
	}
	make := func(c, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, signer = c, k
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, k
	}
	from, to := time.Now().AddDate(-5, 0, 0), time.Now().AddDate(5, 0, 0)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := make(root, nil, nil)
	leafDER, leafKey := make(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.ParseIP(host)}}, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return save("-ca.pem", "CERTIFICATE", rootDER), save(".pem", "CERTIFICATE", leafDER), save(".key", "PRIVATE KEY", keyDER)
}

// freePort finds a port of the loopback without a listener.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// nginx serves a folder over HTTPS and returns its port.
func nginx(t *testing.T, dir, root, cert, key string) int {
	t.Helper()
	tool, err := exec.LookPath("nginx")
	if err != nil {
		if tool = "/usr/sbin/nginx"; !exists(tool) {
			t.Skip("nginx is not installed")
		}
	}
	port := freePort(t)
	conf := filepath.Join(dir, fmt.Sprintf("nginx-%d.conf", port))
	put(t, conf, fmt.Appendf(nil, `daemon off; worker_processes 1; pid %[1]s/nginx-%[2]d.pid; error_log stderr;
events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 127.0.0.1:%[2]d ssl; ssl_certificate %[3]s; ssl_certificate_key %[4]s; root %[5]s; } }
`, dir, port, cert, key, root))
	cmd := exec.Command(tool, "-c", conf, "-p", dir, "-e", "stderr")
	cmd.Stderr = t.Output()
	if os.Geteuid() == 0 { // its workers run as nobody, which cannot read a test's folder
		put(t, conf, append([]byte("user root;\n"), read(t, conf)...))
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
	for range 100 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			return port
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("nginx does not listen")
	return 0
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// badLink passes connections on to a port, and cuts every one after some bytes of the answer.
func badLink(t *testing.T, to int, bytes int64) (port int, cuts func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	count := make(chan int, 1)
	count <- 0
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				up, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
				if err != nil {
					return
				}
				defer up.Close()
				go io.Copy(up, c)
				if n, _ := io.CopyN(c, up, bytes); n == bytes {
					count <- <-count + 1
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, func() int { n := <-count; count <- n; return n }
}

// strange are servers as they occur in the field.
func strange(t *testing.T, files map[string]string) int {
	t.Helper()
	serve := func(w http.ResponseWriter, r *http.Request) string { return files[filepath.Base(r.URL.Path)] }
	mux := http.NewServeMux()
	// A captive portal answers everything with its page.
	mux.HandleFunc("/portal/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html><html><body>Please accept the terms</body></html>")
	})
	// A server without ranges, whose connection breaks in the middle.
	mux.HandleFunc("/norange/", func(w http.ResponseWriter, r *http.Request) {
		name := serve(w, r)
		if name == "" {
			http.NotFound(w, r)
			return
		}
		data, err := os.ReadFile(name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Header().Set("Etag", `"1"`)
		_, _ = w.Write(data[:len(data)/2])
		if len(data) < 100000 {
			_, _ = w.Write(data[len(data)/2:])
			return
		}
		panic(http.ErrAbortHandler)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go s.Serve(l) // until Close
	t.Cleanup(func() { s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// A device with nothing to boot and no stick finds its update at the last of four addresses, over HTTPS with a private authority and a
// link that breaks again and again; the faults of the others are reported.
func TestRecoveryOnline(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := authority(t, dir, "own")
	_, foreignCert, foreignKey := authority(t, dir, "foreign")
	www := filepath.Join(dir, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		t.Fatal(err)
	}
	good, foreign := nginx(t, dir, www, cert, key), nginx(t, dir, www, foreignCert, foreignKey)
	link, cuts := badLink(t, good, 2<<20)
	own := filepath.Join(www, "SN 7/52-54-00-00-00-07") // for this device alone
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	other := strange(t, files)
	config := anyDisk + fmt.Sprintf(`
[source]
ca = "own-ca.pem"
give_up = "20s"

[recovery]
mode = "recover"
urls = ["http://%[1]s:%[2]d/portal/image.zst", "https://%[1]s:%[3]d/image.zst", "http://%[1]s:%[2]d/norange/image.zst", "https://%[1]s:%[4]d/{serial}/{mac}/image.zst"]
`, host, other, foreign, link)
	h := newHelper(t, config, allSets, ca)
	image := h.image(t, "image", 8, 6)
	for name, file := range h.update(t, image) {
		files[name] = file
		put(t, filepath.Join(www, name), read(t, file))
		put(t, filepath.Join(own, name), read(t, file))
	}
	disk := h.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")
	m := h.start(t, qemu.Config{
		Name: "online", Disks: []qemu.Disk{{Path: disk}}, Args: []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:07", "-smbios", "type=1,serial=SN 7"},
	})
	expect(t, m, `no slot is bootable`, `network: \w+ has 10\.0\.2\.15/24, gateway 10\.0\.2\.2`,
		`warning: fetching http://.*/portal/image.zst.bmap .*web page`, `error: installing from http://.*/portal/image.zst: `,
		`error: installing from https://.*certificate`,
		`error: installing from http://.*/norange/.*range`,
		`installed .* into slot A`)
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "A", image)
	if n := cuts(); n < 2 {
		t.Errorf("the link was cut %d times; want some", n)
	}
}
