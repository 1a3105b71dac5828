package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"updater/bmap"
	"updater/device"
	"updater/device/config"
	"updater/device/health"
	"updater/fleet"
	"updater/install"
	"updater/internal/rig"
	"updater/provision/identity"
	"updater/provision/line"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// outside is an error with text from outside; with joins it has several lines.
var outside = errors.Join(errors.New(hostile), errors.New(hostile))

func pathError(errno error) error { return &fs.PathError{Op: "open", Path: hostile, Err: errno} }

// classified has an error of every kind that exit.go knows, by the name that it has there, with the code that it gets.
var classified = []struct {
	name string
	err  error
	code int
}{
	{"", errors.New(hostile), ExitFailed},
	{"*interruptedError", &interruptedError{cause: outside, began: true}, ExitInterrupted},
	{"*interruptedError", &interruptedError{cause: outside}, ExitInterrupted},
	{"*usageError", &usageError{err: outside}, ExitUsage},
	{"*reportedError", &reportedError{err: filled[update.ImageError]()}, ExitTrust},
	{"*line.FailedError", &line.FailedError{Failed: 1, All: 2, Code: ExitWrite}, ExitWrite},
	{"*doctorError", &doctorError{code: ExitBootState}, ExitBootState},
	{"*config.Error", filled[config.Error](), ExitUsage},
	{"*config.Error", &config.Error{Err: outside}, ExitUsage},
	{"*config.RequestError", filled[config.RequestError](), ExitUsage},
	{"*config.RequestError", config.Requestf("%w", outside), ExitUsage},
	{"*install.CopyError", &install.CopyError{Err: &update.WriteError{Err: outside}, Left: hostile}, ExitWrite},
	{"*install.CopyError", &install.CopyError{Err: outside, Left: hostile}, ExitFailed},
	{"*source.TooLongError", filled[source.TooLongError](), ExitFailed},
	{"*install.HookError", filled[install.HookError](), ExitFailed},
	{"*install.HookError", &install.HookError{Hook: hostile, Switched: true, Err: outside}, ExitFailed},
	{"*health.UnhealthyError", filled[health.UnhealthyError](), ExitFailed},
	{"*source.SchemeError", filled[source.SchemeError](), ExitUsage},
	{"*source.KindError", filled[source.KindError](), ExitUsage},
	{"*source.FetchError", filled[source.FetchError](), ExitSource},
	{"*source.ContainerError", filled[source.ContainerError](), ExitSource},
	{"*source.LimitError", filled[source.LimitError](), ExitSource},
	{"*source.LimitError", &source.LimitError{What: "zstd window", Limit: 8 << 20}, ExitSource},
	{"*source.CorruptError", filled[source.CorruptError](), ExitSource},
	{"*source.TrailingError", filled[source.TrailingError](), ExitSource},
	{"*update.SourceError", filled[update.SourceError](), ExitSource},
	{"*update.NothingError", filled[update.NothingError](), ExitNothing},
	{"*fleet.NothingError", &fleet.NothingError{Verdict: &fleet.Verdict{Choice: fleet.Choice{Reason: hostile}}}, ExitNothing},
	{"fleet.ErrNoReports", fleet.ErrNoReports, ExitNothing},
	{"*fleet.StaleError", filled[fleet.StaleError](), ExitTooOld},
	{"*fleet.WithdrawnError", filled[fleet.WithdrawnError](), ExitTooOld},
	{"*fleet.RefusedError", filled[fleet.RefusedError](), ExitSource},
	{"*update.WriteError", filled[update.WriteError](), ExitWrite},
	{"*update.ReadBackError", filled[update.ReadBackError](), ExitWrite},
	{"*update.ActiveError", filled[update.ActiveError](), ExitBusy},
	{"*update.NotGoodError", filled[update.NotGoodError](), ExitBootState},
	{"*update.BootError", filled[update.BootError](), ExitBootState},
	{"*update.ImageError", filled[update.ImageError](), ExitTrust},
	{"*update.IncompatibleError", filled[update.IncompatibleError](), ExitIncompatible},
	{"*update.HardwareError", filled[update.HardwareError](), ExitIncompatible},
	{"*update.ExpiredError", filled[update.ExpiredError](), ExitTooOld},
	{"*update.RollbackError", filled[update.RollbackError](), ExitTooOld},
	{"*device.BusyError", filled[device.BusyError](), ExitBusy},
	{"*device.ChangedError", filled[device.ChangedError](), ExitBootState},
	{"*device.LockedError", filled[device.LockedError](), ExitLocked},
	{"*device.StoreError", filled[device.StoreError](), ExitBootState},
	{"*device.PartitionError", filled[device.PartitionError](), ExitIncompatible},
	{"*device.TableError", filled[device.TableError](), ExitIncompatible},
	{"device.ErrState", fmt.Errorf("%w: %w", device.ErrState, outside), ExitBootState},
	{"device.ErrRefused", fmt.Errorf("%w: %w", device.ErrRefused, outside), ExitBootState},
	{"*bmap.MismatchError", filled[bmap.MismatchError](), ExitWrite},
	{"*bmap.MismatchesError", filled[bmap.MismatchesError](), ExitWrite},
	{"*bmap.NotZeroError", filled[bmap.NotZeroError](), ExitFailed},
	{"*bmap.SyntaxError", filled[bmap.SyntaxError](), ExitFailed},
	{"bmap.ErrChanged", fmt.Errorf("%s: %w", hostile, bmap.ErrChanged), ExitFailed},
	{"bmap.ErrNoChecksum", fmt.Errorf("%s: %w", hostile, bmap.ErrNoChecksum), ExitFailed},
	{"*release.SlotError", filled[release.SlotError](), ExitIncompatible},
	{"*release.MapError", filled[release.MapError](), ExitIncompatible},
	{"*release.UnsupportedError", filled[release.UnsupportedError](), ExitIncompatible},
	{"*release.TypeError", filled[release.TypeError](), ExitTrust},
	{"*release.PinError", filled[release.PinError](), ExitTrust},
	{"*release.EntryError", filled[release.EntryError](), ExitTrust},
	{"*release.ArchiveError", filled[release.ArchiveError](), ExitUsage},
	{"*release.SyntaxError", filled[release.SyntaxError](), ExitFailed},
	{"*verify.SignatureError", filled[verify.SignatureError](), ExitTrust},
	{"*verify.SignatureError", &verify.SignatureError{Reason: hostile, Err: outside}, ExitTrust},
	{"*verify.MismatchError", filled[verify.MismatchError](), ExitTrust},
	{"*medium.Error", filled[medium.Error](), ExitWrite},
	{"*plan.TooSmallError", filled[plan.TooSmallError](), ExitIncompatible},
	{"*plan.RefusedError", filled[plan.RefusedError](), ExitBusy},
	{"*record.LatchedError", filled[record.LatchedError](), ExitTrust},
	{"*record.ChainError", filled[record.ChainError](), ExitTrust},
	{"*identity.AnswerError", filled[identity.AnswerError](), ExitSource},
	{"identity.ErrNoSerial", fmt.Errorf("%s: %w", hostile, identity.ErrNoSerial), ExitFailed},
	{"syscall.EPIPE", pathError(syscall.EPIPE), ExitFailed},
	{"syscall.EIO", pathError(syscall.EIO), ExitWrite},
	{"syscall.ENODATA", pathError(syscall.ENODATA), ExitWrite},
	{"syscall.EREMOTEIO", pathError(syscall.EREMOTEIO), ExitWrite},
	{"syscall.EILSEQ", pathError(syscall.EILSEQ), ExitWrite},
	{"syscall.EROFS", pathError(syscall.EROFS), ExitFailed},
	{"fs.ErrPermission", pathError(syscall.EACCES), ExitFailed},
	{"syscall.ENOSPC", pathError(syscall.ENOSPC), ExitFailed},
	{"syscall.EDQUOT", pathError(syscall.EDQUOT), ExitFailed},
	{"syscall.ENOMEDIUM", pathError(syscall.ENOMEDIUM), ExitFailed},
	{"syscall.ENXIO", pathError(syscall.ENXIO), ExitFailed},
	{"syscall.ENODEV", pathError(syscall.ENODEV), ExitFailed},
	{"fs.ErrNotExist", pathError(syscall.ENOENT), ExitFailed},
	{"fs.ErrNotExist", &fs.PathError{Op: "open", Path: "/dev/" + hostile, Err: syscall.ENOENT}, ExitFailed},
}

// TestEveryError: every kind of error has its exit code and is two lines, the error and a hint, for people; one harmless line for machines.
func TestEveryError(t *testing.T) {
	for _, c := range classified {
		for _, err := range []error{c.err, fmt.Errorf("%s: %w", hostile, c.err)} {
			var out bytes.Buffer
			if code := (Env{Stdout: &out, Stderr: &out}).fail(err); code != c.code {
				t.Errorf("%s: exit %d, want %d", c.name, code, c.code)
			}
			lines := strings.SplitAfter(out.String(), "\n")
			if c.code == ExitNothing { // a result
				if len(lines) != 2 {
					t.Errorf("%s: want one line, got %q", c.name, out.String())
				}
			} else if len(lines) != 3 || !strings.HasPrefix(lines[0], "updater: error: ") || !strings.HasPrefix(lines[1], "updater: hint: ") || len(lines[1]) < 25 {
				t.Errorf("%s: want an error and a hint, got %q", c.name, out.String())
			}
			harmless(t, c.name, out.String())
			out.Reset()
			_ = newReport(Env{Stdout: &out, Stderr: &out}, true).failed(err)
			harmless(t, c.name+" --json", out.String())
			out.Reset()
			if err := (Env{Stdout: &out}).json(verifyVerdict{Refused: refusalOf(err)}); err != nil {
				t.Error(err)
			}
			harmless(t, c.name+" as a verdict", out.String())
		}
	}
}

// TestEveryErrorIsListed: the table above has every kind that exit.go asks for.
func TestEveryErrorIsListed(t *testing.T) {
	listed := map[string]bool{}
	for _, c := range classified {
		listed[c.name] = true
	}
	file, err := parser.ParseFile(token.NewFileSet(), "exit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IndexExpr:
			if star, ok := n.Index.(*ast.StarExpr); ok {
				asked["*"+dotted(star.X)] = true
			}
		case *ast.CallExpr:
			if dotted(n.Fun) == "errors.Is" {
				asked[dotted(n.Args[1])] = true
			}
		}
		return true
	})
	delete(asked, "*fs.PathError") // decides nothing by itself
	for name := range asked {
		if !listed[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
	if len(asked) < 50 {
		t.Errorf("only %d kinds were found: %v", len(asked), asked)
	}
}

// dotted is a name or a qualified name.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	}
	return ""
}

// TestInterruptedEarly: an install that waits for a server has written nothing, and reports that.
func TestInterruptedEarly(t *testing.T) {
	r := rig.New(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		cancel(errors.New("terminated"))
		<-q.Context().Done()
	}))
	defer server.Close()
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"install", "--config", r.Path("config.toml"), server.URL + "/image.img"}, Env{Stdout: &out, Stderr: &errs})
	if code != ExitInterrupted || !strings.Contains(errs.String(), "updater: hint: nothing was written; run it again\n") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if !bytes.Equal(r.Read("disk.img"), r.Read("disk.orig")) {
		t.Error("the disk has changed")
	}
}
