package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"updater/device"
	"updater/device/doctor"
	"updater/device/health"
	"updater/install"
	"updater/internal/progress"
	"updater/provision/line"
	"updater/provision/record"
	"updater/release"
	"updater/update"
)

// hostile is a possible name of a server, a medium, a disk or a key: it clears a terminal, begins a line of its own, reverses what follows.
const hostile = "x\x1b[2J\x1b]0;owned\x07\r\nupdater: installed, slot B boots next\t\x7f\u009b2J\u202egnp\u2066\u2028\u2029\xff"

// fill sets every string below v to hostile text, and makes one element of each list and map.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Interface:
		if v.Type() == reflect.TypeFor[error]() {
			v.Set(reflect.ValueOf(outside))
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() {
				fill(field)
			}
		}
	}
}

func filled[T any]() *T {
	v := new(T)
	fill(reflect.ValueOf(v).Elem())
	return v
}

// harmless reports what in a text would act on a terminal or begin a line with words from outside.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "updater: installed") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s prints %q", what, line)
		}
	}
}

// TestHostileText: text from outside acts on no terminal, whichever result it is part of, for people and for machines.
func TestHostileText(t *testing.T) {
	results := map[string]any{
		"status": filled[device.Status](), "doctor": filled[[]doctor.Finding](), "history": filled[device.History](), "install": filled[update.Result](),
		"copy": filled[install.CopyResult](), "verify": filled[install.Verdict](), "health": filled[health.Report](), "bmap info": filled[bmapInfo](),
		"release": filled[releaseView](), "channel": filled[release.ChannelContents](), "record": filled[record.Record](), "result": filled[line.Result](),
		"device": filled[device.Facts](), "fetch": filled[update.Fetch](),
	}
	for name, value := range results {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			env := Env{Stdout: &out, Stderr: &out}
			if err := showResult(newReport(env, false), value); err != nil {
				t.Fatal(err)
			}
			if out.Len() == 0 {
				t.Error("nothing is printed")
			}
			harmless(t, name, out.String())
			out.Reset()
			if err := env.json(value); err != nil {
				t.Fatal(err)
			}
			harmless(t, name+" --json", out.String())
			if !json.Valid(out.Bytes()) {
				t.Errorf("not JSON: %q", out.String())
			}
		})
	}
}

// showResult prints a result as its verb does.
func showResult(r *report, value any) error {
	env := r.env
	switch v := value.(type) {
	case *device.Status:
		return printStatus(env, v)
	case *[]doctor.Finding:
		return printFindings(env, *v)
	case *device.History:
		return printHistory(env, v)
	case *update.Result:
		return r.installed(v, nil)
	case *install.CopyResult:
		return r.copied([]string{hostile, hostile}, v)
	case *install.Verdict:
		return r.verified(v)
	case *health.Report:
		printHealth(env, v, false)
	case *bmapInfo:
		return v.print(env.Stdout)
	case *releaseView:
		v.print(env.Stdout)
	case *release.ChannelContents:
		printChannel(env.Stdout, *v)
	case *device.Facts:
		r.Device(*v)
	case *update.Fetch:
		r.Each(func(s progress.Sink) { s.Fetch(*v) })
	case *record.Record:
		r.Hook(hostile, v.String())
	case *line.Result:
		r.Warn("%v", *v)
	}
	return nil
}

// TestHostileArguments: text that was typed or pasted is repeated harmlessly, by the parser of the command line too.
func TestHostileArguments(t *testing.T) {
	for _, args := range [][]string{{hostile}, {"--" + hostile}, {"install", "--progress", hostile, "x"}, {"status", "--config", hostile}, {"verify", "--keyring", hostile, hostile}} {
		var out, errs bytes.Buffer
		if code := Run(t.Context(), args, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}); code == ExitDone {
			t.Errorf("%q: exit 0", args)
		}
		harmless(t, strings.Join(args, " "), out.String()+errs.String())
	}
}
