package fleet_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// console is a hawkBit server and its management API.
type console struct {
	*testing.T
	address    string // of the program
	front      *httptest.Server
	targets    int // that were made
	sets       int // distribution sets that were made
	targetType int
}

// TestHawkbitServer: Eclipse hawkBit's update server itself goes through the scenarios. HAWKBIT names its jar.
func TestHawkbitServer(t *testing.T) {
	jar := os.Getenv("HAWKBIT")
	if jar == "" {
		t.Skip("HAWKBIT does not name the jar of hawkBit's update server")
	}
	c := startConsole(t, jar)
	tokens := 0
	runScenarios(t, true, func(t *testing.T) ddi {
		tokens++ // the first target registers itself by the token of the tenant
		return c.target(t, tokens == 1)
	})
}

// startConsole starts a server with a database in memory, and TLS before it: tokens are sent over nothing else.
func startConsole(t *testing.T, jar string) *console {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &console{T: t, address: l.Addr().String()}
	l.Close()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("java", "-Xmx512m", "-XX:MaxMetaspaceSize=320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Djava.io.tmpdir="+dir, "-jar", jar,
		"--server.address=127.0.0.1", "--server.port="+strings.TrimPrefix(c.address, "127.0.0.1:"), "--server.forward-headers-strategy=framework",
		"--hawkbit.dmf.enabled=false",
		"--org.eclipse.hawkbit.artifact.fs.path="+dir+"/artifacts", "--hawkbit.server.security.dos.filter.enabled=false")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		t.Skipf("java: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s", text[max(0, len(text)-8000):])
		}
		_ = log.Close()
	})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: c.address})
		r.SetXForwarded()
	}}
	c.front = httptest.NewTLSServer(proxy)
	t.Cleanup(c.front.Close)
	for begin := time.Now(); c.ask(http.MethodGet, "targets", nil, nil) != nil; time.Sleep(time.Second) {
		if time.Since(begin) > 10*time.Minute {
			t.Fatal("the server does not come up")
		}
	}
	for key, value := range map[string]any{"targettoken.enabled": true, "gatewaytoken.enabled": true, "gatewaytoken.key": "t3nant"} {
		c.call(http.MethodPut, "system/configs/authentication."+key, map[string]any{"value": value}, nil)
	}
	var types struct{ Content []struct{ ID int } }
	c.call(http.MethodGet, "distributionsettypes?q="+url.QueryEscape("key==os"), nil, &types)
	var made []struct{ ID int }
	c.call(http.MethodPost, "targettypes", []any{map[string]any{
		"name": "board", "key": "board", "compatibledistributionsettypes": []any{map[string]any{"id": types.Content[0].ID}},
	}}, &made)
	c.targetType = made[0].ID
	return c
}

// ask sends a request to the management API, with JSON or a form as its body.
func (c *console) ask(method, path string, body, into any) error {
	kind, data := "application/json", []byte(nil)
	if f, ok := body.(form); ok {
		kind, data = f.kind, f.data
	} else if body != nil {
		data, _ = json.Marshal(body)
	}
	q, err := http.NewRequest(method, "http://"+c.address+"/rest/v1/"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	q.SetBasicAuth("admin", "admin")
	q.Header.Set("Content-Type", kind)
	q.Header.Set("Accept", "application/json")
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode > 299 {
		return fmt.Errorf("%s %s: %d %s: %w", method, path, answer.StatusCode, text, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (c *console) call(method, path string, body, into any) {
	c.Helper()
	if err := c.ask(method, path, body, into); err != nil {
		c.Fatal(err)
	}
}

// form is a body that is not JSON.
type form struct {
	kind string
	data []byte
}

// target is a device of the server.
type target struct {
	*line
	c    *console
	name string
}

// target makes a device with a token of its own, or one that the server does not know, with the token of the tenant.
func (c *console) target(t *testing.T, stranger bool) *target {
	c.targets++
	r := &target{newLine(t), c, fmt.Sprintf("unit-%d", c.targets)}
	r.Write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.front.Certificate().Raw}))
	kind, token := "GatewayToken", "t3nant"
	if !stranger {
		kind, token = "TargetToken", fmt.Sprintf("s3cret%d", c.targets)
		c.call(http.MethodPost, "targets", []any{map[string]any{
			"controllerId": r.name, "name": r.name, "securityToken": token, "targetType": c.targetType,
		}}, nil)
	}
	r.Write("token", []byte(token+"\n"))
	r.follow = fmt.Sprintf("[channel]\nidentifier = %q\nhawkbit = { url = %q }\n[source]\ngive_up = \"5s\"\nca = \"ca.pem\"\n"+
		"token_file = \"token\"\ntoken_host = %q\ntoken_type = %q\n", r.name, c.front.URL, strings.TrimPrefix(c.front.URL, "https://"), kind)
	r.boots("A")
	return r
}

func (r *target) device() *line { return r.line }

// offer makes a software module of the files, a distribution set of it, and assigns it.
func (r *target) offer(dir string, how manner) int64 {
	r.Helper()
	r.c.sets++
	version := fmt.Sprint(r.c.sets)
	var made []struct{ ID int }
	r.c.call(http.MethodPost, "softwaremodules", []any{map[string]any{"name": "system", "version": version, "type": "os"}}, &made)
	files, err := filepath.Glob(r.Path("pub/" + dir + "/*"))
	if err != nil || len(files) < 3 {
		r.Fatalf("the release has the files %q: %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		r.c.call(http.MethodPost, fmt.Sprintf("softwaremodules/%d/artifacts", made[0].ID), upload(name, r.Read("pub/"+dir+"/"+name)), nil)
	}
	set := map[string]any{"name": "system", "version": version, "type": "os", "modules": []any{map[string]any{"id": made[0].ID}}}
	r.c.call(http.MethodPost, "distributionsets", []any{set}, &made)
	assignment := map[string]any{"id": r.name, "type": how}
	if how == outOfWindow {
		assignment["type"] = "forced"
		assignment["maintenanceWindow"] = map[string]any{
			"schedule": time.Now().UTC().Add(12 * time.Hour).Format("0 4 15 ? * *"), "duration": "00:01:00", "timezone": "+00:00",
		}
	}
	r.c.call(http.MethodPost, fmt.Sprintf("distributionsets/%d/assignedTargets", made[0].ID), []any{assignment}, nil)
	id, _ := r.last()
	return id
}

func upload(name string, data []byte) form {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, _ := w.CreateFormFile("file", name)
	_, _ = part.Write(data)
	_ = w.Close()
	return form{w.FormDataContentType(), b.Bytes()}
}

// last is the newest action of the target, and its newest status.
func (r *target) last() (id int64, state string) {
	r.Helper()
	var actions struct{ Content []struct{ ID int64 } }
	r.c.call(http.MethodGet, "targets/"+r.name+"/actions?limit=1&sort=id:DESC", nil, &actions)
	id = actions.Content[0].ID
	var seen struct{ Content []struct{ Type string } }
	r.c.call(http.MethodGet, fmt.Sprintf("targets/%s/actions/%d/status?limit=50&sort=id:DESC", r.name, id), nil, &seen)
	for _, s := range seen.Content {
		r.Logf("action %d: %s", id, s.Type)
	}
	return id, seen.Content[0].Type
}

func (r *target) state() string {
	r.Helper()
	_, state := r.last()
	switch state {
	case "retrieved", "download", "cancel_rejected": // notes of a running action
		return "running"
	}
	return state
}

func (r *target) cancel() {
	r.Helper()
	id, _ := r.last()
	r.c.call(http.MethodDelete, fmt.Sprintf("targets/%s/actions/%d", r.name, id), nil, nil)
}

func (r *target) attributes() map[string]string {
	r.Helper()
	var list map[string]string
	r.c.call(http.MethodGet, "targets/"+r.name+"/attributes", nil, &list)
	return list
}
