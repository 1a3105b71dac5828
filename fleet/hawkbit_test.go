package fleet_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hawk is a hawkBit server with one target, by the documentation of its Direct Device Integration API.
type hawk struct {
	*line
	id                       int // of the action; 0 means none
	closed, canceling        bool
	download, update, window string
	dir                      string            // of the artifacts, below pub
	refuse                   map[string]int    // statuses to answer, by the end of the path, once each
	onArtifact               func()            // called once, when an image is fetched
	log                      []string          // requests of the API
	foreign                  string            // instead of the own address in links
	ended                    string            // how the action ended
	data                     map[string]string // attributes
}

const hawkBase = "/DEFAULT/controller/v1/unit-1"

func newHawk(t *testing.T) *hawk {
	h := &hawk{line: newLine(t), refuse: map[string]int{}}
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	h.Write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	h.Write("token", []byte("s3cret\n"))
	h.url = server.URL
	h.follow = fmt.Sprintf("[channel]\nidentifier = \"unit-1\"\nhawkbit = { url = %q }\n[source]\ngive_up = \"1s\"\nca = \"ca.pem\"\n"+
		"token_file = \"token\"\ntoken_host = %q\ntoken_type = \"TargetToken\"\n", server.URL, strings.TrimPrefix(server.URL, "https://"))
	h.boots("A")
	return h
}

// assign gives the target a new action for a release.
func (h *hawk) assign(id int, dir string) {
	h.set(func() {
		h.id, h.dir, h.closed, h.canceling, h.download, h.update, h.window, h.ended = id, dir, false, false, "forced", "forced", "", ""
	})
}

func (h *hawk) device() *line { return h.line }

func (h *hawk) offer(dir string, how manner) int64 {
	h.assign(h.id+1, dir)
	h.set(func() {
		switch how {
		case downloadOnly:
			h.update = "skip"
		case outOfWindow:
			h.update, h.window = "skip", "unavailable"
		}
	})
	return int64(h.id)
}

func (h *hawk) cancel() { h.set(func() { h.canceling = true }) }

func (h *hawk) state() string {
	if h.ended == "" {
		return "running"
	}
	return h.ended
}

func (h *hawk) attributes() map[string]string { return h.data }

func TestHawkbitScenarios(t *testing.T) {
	runScenarios(t, true, func(t *testing.T) ddi { return newHawk(t) })
}

func (h *hawk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Header.Get("Authorization") != "TargetToken s3cret" {
		h.Errorf("%s %s with the authorization %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}
	path, found := strings.CutPrefix(r.URL.Path, hawkBase)
	if !found {
		h.Errorf("%s %s is of another device", r.Method, r.URL)
	}
	if file, ok := strings.CutPrefix(path, "/softwaremodules/1/artifacts/"); ok {
		if hook := h.onArtifact; hook != nil && strings.HasSuffix(file, ".img") {
			h.onArtifact = nil
			hook()
		}
		http.ServeFile(w, r, h.Path("pub/"+h.dir+"/"+file))
		return
	}
	body, _ := io.ReadAll(r.Body)
	entry := strings.TrimSpace(r.Method + " " + path)
	var message struct {
		Data   map[string]string `json:"data"`
		Status struct {
			Execution string                    `json:"execution"`
			Result    struct{ Finished string } `json:"result"`
			Details   []string                  `json:"details"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &message); len(body) > 0 && err != nil {
		h.Errorf("%s: %q: %v", entry, body, err)
	}
	if s := message.Status; s.Execution != "" {
		entry += " " + s.Execution + " " + s.Result.Finished + ": " + s.Details[0]
	}
	for end, status := range h.refuse {
		if strings.HasSuffix(path, end) {
			delete(h.refuse, end)
			h.log = append(h.log, fmt.Sprintf("%s -> %d", entry, status))
			w.WriteHeader(status)
			return
		}
	}
	h.log = append(h.log, entry)
	if message.Data != nil {
		h.data = message.Data
	}
	was := h.closed
	h.answer(w, r.Method+" "+path, message.Status.Execution)
	switch s := message.Status; {
	case was || !h.closed:
	case strings.HasPrefix(path, "/cancelAction/"):
		h.ended = "canceled"
	case s.Execution == "downloaded":
		h.ended = "downloaded"
	case s.Result.Finished == "failure":
		h.ended = "error"
	default:
		h.ended = "finished"
	}
}

// answer does what the server does for one request.
func (h *hawk) answer(w http.ResponseWriter, request, execution string) {
	own := h.url + hawkBase
	if h.foreign != "" {
		own = h.foreign
	}
	id := strconv.Itoa(h.id)
	link := func(s string) map[string]any { return map[string]any{"href": own + s} }
	var answer any
	switch request {
	case "GET ":
		links := map[string]any{"configData": link("/configData")}
		switch {
		case h.canceling:
			links["cancelAction"] = link("/cancelAction/" + id)
		case h.id > 0 && !h.closed:
			links["deploymentBase"] = link("/deploymentBase/" + id + "?c=-5")
		}
		answer = map[string]any{"config": map[string]any{"polling": map[string]any{"sleep": "00:05:00"}}, "_links": links}
	case "PUT /configData", "POST /cancelAction/" + id + "/feedback":
		h.canceling, h.closed = h.canceling && execution != "rejected" && execution != "closed", h.closed || execution == "closed"
	case "GET /cancelAction/" + id:
		answer = map[string]any{"id": "99", "cancelAction": map[string]any{"stopId": id}}
	case "GET /deploymentBase/" + id:
		if h.closed {
			h.Errorf("a closed action was fetched, which reopens it")
		}
		artifact := func(name string) any {
			return map[string]any{"filename": name, "size": 1, "hashes": map[string]any{}, "_links": map[string]any{"download": link("/softwaremodules/1/artifacts/" + name)}}
		}
		d := map[string]any{"download": h.download, "update": h.update, "chunks": []any{map[string]any{
			"part": "os", "version": "1", "name": "fw", "artifacts": []any{artifact("rootfs.img"), artifact("release.toml")},
		}}}
		if h.window != "" {
			d["maintenanceWindow"] = h.window
		}
		answer = map[string]any{"id": id, "deployment": d}
	case "POST /deploymentBase/" + id + "/feedback":
		if h.closed {
			h.Errorf("feedback %q for a closed action", execution)
		}
		h.closed = execution == "closed" || execution == "downloaded"
	default:
		w.WriteHeader(http.StatusGone)
	}
	if answer != nil {
		w.Header().Set("Content-Type", "application/hal+json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// said compares the requests since the last call with a transcript.
func (h *hawk) said(want ...string) {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var got []string
	for _, line := range h.log {
		if line != "GET" && line != "PUT /configData" { // every run polls
			got = append(got, line)
		}
	}
	h.log = nil
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("the requests differ (-want +got):\n%s", diff)
	}
}

// The life of a target: nothing, an action that is closed after the boot, one that falls back, and the messages that the server gets.
func TestHawkbit(t *testing.T) {
	h := newHawk(t)
	h.run(3, "the server has nothing for this device", "check")
	h.said()
	h.publish("1", 1)
	h.assign(5, "1")
	h.run(0, "version 1 is for this device", "check")
	h.said("GET /deploymentBase/5")
	h.run(0, "installed version 1 into slot B", "update")
	h.said("GET /deploymentBase/5", "POST /deploymentBase/5/feedback proceeding none: version 1 is being installed")
	h.run(3, "version 1 is installed and boots next", "update")
	h.restart()
	h.run(3, "version 1 runs and was not marked good yet", "update")
	h.run(3, "no report waits", "report", "--now")
	h.said("GET /deploymentBase/5", "GET /deploymentBase/5")
	h.run(0, "slot B is good", "mark", "good")
	h.run(3, "version 1 was tried for action 5", "check")
	h.set(func() { h.refuse["/feedback"] = http.StatusTooManyRequests })
	h.run(0, "1 reports sent", "report", "--now")
	h.run(3, "the server has nothing", "check")
	h.said("GET /deploymentBase/5", "POST /deploymentBase/5/feedback closed success: version 1: good  -> 429",
		"POST /deploymentBase/5/feedback closed success: version 1: good ")

	// A release that runs already closes its action.
	h.assign(6, "1")
	h.run(3, "version 1 runs", "update")
	h.said("GET /deploymentBase/6", "POST /deploymentBase/6/feedback closed success: version 1 runs")

	// A fallback, and a new action for the same release.
	h.publish("2", 2)
	for id := 7; id <= 8; id++ {
		h.assign(id, "2")
		h.run(0, "version 2 into slot A", "update")
		if a, b := h.restart(), h.restart(); a != "A" || b != "B" {
			t.Fatalf("slots %s and %s boot", a, b)
		}
		h.run(3, fmt.Sprintf("version 2 was tried for action %d", id), "update")
		h.run(0, "1 reports sent", "report", "--now")
		h.run(0, "", "mark", "good")
		at := fmt.Sprintf("/deploymentBase/%d", id)
		h.said("GET "+at, "POST "+at+"/feedback proceeding none: version 2 is being installed", "GET "+at,
			"POST "+at+"/feedback closed failure: version 2: fell-back its tries are spent")
	}
}

// Cancels, windows, downloads without a switch, and releases that the device never accepts.
func TestHawkbitActions(t *testing.T) {
	h := newHawk(t)
	h.publish("1", 1)
	h.assign(1, "1")
	h.set(func() { h.onArtifact = func() { h.canceling = true } })
	h.run(12, "of action 1 was withdrawn", "update")
	h.said("GET /deploymentBase/1", "POST /deploymentBase/1/feedback proceeding none: version 1 is being installed",
		"GET /cancelAction/1", "POST /cancelAction/1/feedback closed success: cancelled before the switch")
	h.assign(2, "1")
	h.set(func() { h.update, h.window = "skip", "unavailable" })
	h.run(0, "slot B waits", "update")
	h.said("GET /deploymentBase/2", "POST /deploymentBase/2/feedback proceeding none: version 1 is being installed")
	h.set(func() { h.update = "skip"; h.window = "" })
	h.run(3, "updater activate B switches to it", "update")
	h.said("GET /deploymentBase/2", "POST /deploymentBase/2/feedback proceeding none: version 1 is being installed",
		"POST /deploymentBase/2/feedback downloaded none: version 1 is downloaded and waits for its activation")
	h.assign(3, "1")
	h.set(func() { h.download = "skip" })
	h.run(3, "holds back the download of action 3", "update")
	h.set(func() { h.download = "attempt"; h.update = "attempt" })
	h.run(0, "0 bytes written", "update")
	h.set(func() { h.canceling = true })
	h.run(3, "has cancelled action 3", "check")
	h.said("GET /deploymentBase/3", "GET /deploymentBase/3", "POST /deploymentBase/3/feedback proceeding none: version 1 is being installed",
		"GET /cancelAction/3", "POST /cancelAction/3/feedback rejected none: the release boots next or runs already")
	h.restart()
	h.run(0, "", "mark", "good")

	h.Sh("mkdir pub/none")
	h.assign(4, "none") // the file is missing, which may change
	h.run(13, "", "check")
	h.said("GET /deploymentBase/4")
	h.publish("other", 5)
	h.Sign("pub/other/release.toml", "other")
	h.assign(4, "other")
	h.run(10, "", "check")
	h.mu.Lock()
	if last := h.log[len(h.log)-1]; !strings.HasPrefix(last, "POST /deploymentBase/4/feedback closed failure: ") {
		t.Errorf("the server hears %q", last)
	}
	h.mu.Unlock()

	h.assign(5, "1")
	h.set(func() { h.foreign = "http://169.254.169.254" })
	h.run(1, "expected an address on", "check")
	h.set(func() { h.foreign = "" })
	h.set(func() { h.refuse[""] = http.StatusUnauthorized })
	h.run(13, "the server answered 401", "check")
}
