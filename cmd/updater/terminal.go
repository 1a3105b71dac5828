package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/bmap"
	"updater/update"
	"updater/verify"
)

// This file is the only one that formats for people. Results go to standard output; all else goes to
// standard error with the prefix "updater:", in lower case and without a period. A bar is drawn only on a
// terminal; elsewhere there is a line per phase, and within one for every 5 % or 10 s, never a carriage return.

// report tells people and machines how a command goes.
type report struct {
	env    Env
	asJSON bool
	start  time.Time

	facts *blockdev.Facts // of the device that is written

	mu     sync.Mutex // of the output
	seq    int
	ticker chan struct{}
	done   sync.WaitGroup
	bars   *mpb.Progress
	bar    *mpb.Bar
	splash *splash

	current update.Phase
	began   time.Time // of the current phase
	said    time.Time // the last line about it
	last    int64     // steps of plainStep that were printed
}

// plainStep and plainEvery are how much must be done, in percent, or how long it must take, for another line.
const (
	plainStep  = 5
	plainEvery = 10 * time.Second
)

func newReport(env Env, asJSON bool) *report {
	if env.out == nil {
		env.out = &output{psplash: defaultSplash}
	}
	return &report{env: env, asJSON: asJSON || env.out.progress == "json", start: time.Now(), splash: openSplash("")}
}

// event is one line of --json.
type event struct {
	TS     string          `json:"ts"`
	Seq    int             `json:"seq"`
	Event  string          `json:"ev"` // device | phase | fetch | progress | hook | warn | result
	Phase  update.Phase    `json:"phase,omitempty"`
	Bytes  int64           `json:"bytes,omitempty"`
	Total  int64           `json:"total,omitempty"`
	Rate   int64           `json:"rate,omitempty"` // bytes a second, since the phase began
	ETA    int64           `json:"eta,omitempty"`  // seconds to its end at that rate
	Code   *int            `json:"code,omitempty"`
	Hook   string          `json:"hook,omitempty"` // that has printed msg
	Msg    string          `json:"msg,omitempty"`
	Hint   string          `json:"hint,omitempty"`
	Ranges []bmap.Span     `json:"ranges,omitempty"` // that read back wrong
	Device *blockdev.Facts `json:"device,omitempty"` // that was written
	Fetch  *update.Fetch   `json:"fetch,omitempty"`
	Result *update.Result  `json:"result,omitempty"`
	Copy   *copyResult     `json:"copy,omitempty"`
}

func (r *report) emit(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	e.TS, e.Seq = time.Now().UTC().Format(time.RFC3339Nano), r.seq
	_ = r.env.json(e)
}

func (r *report) warn(format string, a ...any) {
	if r.asJSON {
		r.emit(event{Event: "warn", Msg: fmt.Sprintf(format, a...)})
		return
	}
	r.env.warn(format, a...)
}

// device tells what will be written, before it is.
func (r *report) device(f blockdev.Facts) {
	r.facts = &f
	if r.asJSON {
		r.emit(event{Event: "device", Device: r.facts})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bar == nil && !r.env.out.quiet {
		fmt.Fprintf(r.env.Stderr, "updater: device %s\n", f)
	}
}

// fetch tells how an image on a server is fetched, before it is.
func (r *report) fetch(f update.Fetch) {
	if r.asJSON {
		r.emit(event{Event: "fetch", Fetch: &f})
		return
	}
	how := fmt.Sprintf("the whole file of %s, because %s", size(f.Whole), f.Reason)
	if f.Parts {
		how = fmt.Sprintf("%s of %s in %d requests", size(f.Bytes), size(f.Whole), f.Requests)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bar == nil && !r.env.out.quiet {
		fmt.Fprintf(r.env.Stderr, "updater: %s are there already, %s are copied from the other slot; fetching %s\n", size(f.Held), size(f.Copied), how)
	}
}

// hook passes on a line that a hook has printed.
func (r *report) hook(name, line string) {
	if r.asJSON {
		r.emit(event{Event: "hook", Hook: name, Msg: line})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.env.Stderr, "updater: %s: %.900s\n", name, printable(line))
}

// phaseWords are what people read.
var phaseWords = map[update.Phase]string{
	update.PhaseCheck:    "checking the signature",
	update.PhasePlan:     "comparing the slots",
	update.PhaseWrite:    "writing",
	update.PhaseFlush:    "flushing the device",
	update.PhaseReadBack: "reading back",
	update.PhaseRepair:   "writing again what reads back wrong",
	update.PhaseSwitch:   "switching the boot slot",
}

// progress returns the counters that an install fills, and draws them until stop.
func (r *report) progress() *update.Progress {
	p := new(update.Progress)
	p.OnPhase = func(phase update.Phase, total int64) { r.phase(phase, total) }
	p.OnFetch = r.fetch
	r.splash = openSplash(r.env.out.psplash)
	if r.draws() {
		r.bars = mpb.New(mpb.WithOutput(r.env.Stderr), mpb.WithWidth(48))
	}
	r.ticker = make(chan struct{})
	r.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.sample(p.Sample())
			case <-r.ticker:
				return
			}
		}
	})
	return p
}

// meter draws one step that tells its own progress, until stop. It is nil where nobody would see it.
func (r *report) meter(doing string) (progress func(done, total int64), stop func()) {
	if !r.draws() {
		return nil, func() {}
	}
	bars := mpb.New(mpb.WithOutput(r.env.Stderr), mpb.WithWidth(48))
	var bar *mpb.Bar
	progress = func(done, total int64) {
		if bar == nil {
			bar = r.addBar(bars, doing, total)
		}
		bar.SetCurrent(done)
	}
	return progress, func() {
		if bar != nil {
			bar.Abort(false)
		}
		bars.Wait()
	}
}

// draws reports whether there is a bar.
func (r *report) draws() bool {
	o := r.env.out
	return !r.asJSON && !o.quiet && (o.progress == "" || o.progress == "auto") && isTerminal(r.env.Stderr)
}

// silent reports whether phases and their progress are not told.
func (r *report) silent() bool { return r.env.out.quiet || r.env.out.progress == "none" }

// stop ends the drawing. It may be called once after progress.
func (r *report) stop() {
	defer r.splash.close()
	close(r.ticker)
	r.done.Wait()
	if r.bars != nil {
		if r.bar != nil {
			r.bar.Abort(false)
		}
		r.bars.Wait()
	}
}

func (r *report) phase(phase update.Phase, total int64) {
	r.took()
	r.mu.Lock()
	r.current, r.began, r.said, r.last = phase, time.Now(), time.Now(), 0
	r.mu.Unlock()
	if r.splash.tell("MSG %s", phaseWords[phase]); phase == update.PhaseSwitch {
		r.splash.sample(update.PhaseReadBack, 1, 1) // all of it
	}
	if r.asJSON {
		r.emit(event{Event: "phase", Phase: phase, Total: total})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent() {
		return
	}
	if r.bars == nil || total == 0 {
		if r.bar == nil {
			fmt.Fprintf(r.env.Stderr, "updater: %s\n", phaseWords[phase])
		}
		return
	}
	if r.bar != nil {
		r.bar.SetCurrent(r.bar.Current())
		r.bar.EnableTriggerComplete()
		r.bar.Abort(false)
	}
	r.bar = r.addBar(r.bars, phaseWords[phase], total)
}

// took says how long the phase took that ends, when more is asked for.
func (r *report) took() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.env.out.verbose && !r.asJSON && r.current != "" && r.bar == nil {
		fmt.Fprintf(r.env.Stderr, "updater: %s took %.2f s\n", phaseWords[r.current], time.Since(r.began).Seconds())
	}
}

func (r *report) addBar(bars *mpb.Progress, doing string, total int64) *mpb.Bar {
	return bars.AddBar(total,
		mpb.PrependDecorators(decor.Name(doing, decor.WC{W: 16, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.CurrentKibiByte("% .1f"), decor.Name(" "),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
}

// sample draws or prints what is done of the current phase.
func (r *report) sample(phase update.Phase, done, total int64) {
	if total == 0 {
		return
	}
	r.splash.sample(phase, done, total)
	rate, left := r.rate(done, total)
	if r.asJSON {
		r.emit(event{Event: "progress", Phase: phase, Bytes: done, Total: total, Rate: rate, ETA: int64(left.Seconds())})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bar != nil {
		r.bar.SetCurrent(done)
		return
	}
	step, percent := done*100/total/plainStep, done*100/total
	if r.silent() || step <= r.last && time.Since(r.said) < plainEvery {
		return
	}
	if step > r.last {
		r.last, percent = step, step*plainStep
	}
	r.said = time.Now()
	how := size(done)
	if rate > 0 {
		how += fmt.Sprintf(", %s/s, %s left", size(rate), left)
	}
	fmt.Fprintf(r.env.Stderr, "updater: %s %d%% (%s)\n", phaseWords[phase], percent, how)
}

// rate is how fast the current phase is, in bytes a second, and how long it will take at that rate; 0 is not known yet.
func (r *report) rate(done, total int64) (int64, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	spent := time.Since(r.began)
	if done <= 0 || spent < time.Second {
		return 0, 0
	}
	left := time.Duration(float64(spent) * float64(total-done) / float64(done))
	return int64(float64(done) / spent.Seconds()), left.Round(time.Second)
}

// failed reports an error as the last event, and passes it on.
func (r *report) failed(err error) error {
	if !r.asJSON {
		return err
	}
	code, hint := classify(err)
	e := event{Event: "result", Code: &code, Msg: err.Error(), Hint: hint, Device: r.facts}
	if bad, ok := errors.AsType[*update.ReadBackError](err); ok {
		e.Ranges = bad.Ranges
	}
	r.emit(e)
	return &reportedError{err: err}
}

// installed reports a slot that boots next, and passes on late, which is what failed after the switch.
func (r *report) installed(res *update.Result, late error) error {
	r.took()
	if r.asJSON {
		code := ExitDone
		e := event{Event: "result", Code: &code, Device: r.facts, Result: res}
		if late == nil {
			r.emit(e)
			return nil
		}
		code, e.Hint = classify(late)
		e.Msg = late.Error()
		r.emit(e)
		return &reportedError{err: late}
	}
	for _, w := range res.Warnings {
		r.env.warn("%s", w)
	}
	what := "image"
	if res.Version != "" {
		what = "version " + res.Version
	}
	held := ""
	if res.SkippedBytes > 0 {
		held = fmt.Sprintf("%s there already, ", size(res.SkippedBytes))
	}
	if res.RepairedBytes > 0 {
		held += fmt.Sprintf("%s written twice, ", size(res.RepairedBytes))
	}
	_, err := fmt.Fprintf(r.env.Stdout, "installed %s into slot %s: %s written, %s%s zeroed, all read back, in %.1f s\nsigned by %s\nslot %s boots next, with %s\n",
		what, res.Slot, size(res.WrittenBytes), held, size(res.ZeroedBytes), time.Since(r.start).Seconds(), signers(res.Signers), res.Slot, tries(res.Tries))
	return errors.Join(err, late)
}

func (r *report) copied(args []string, res *copyResult) error {
	if r.asJSON {
		code := ExitDone
		r.emit(event{Event: "result", Code: &code, Copy: res})
		return nil
	}
	w, back := r.env.Stdout, "all read back"
	if !res.ReadBack {
		back = "not read back"
	}
	held := ""
	if res.SkippedBytes > 0 {
		held = size(res.SkippedBytes) + " held already, "
	}
	what := map[string]string{update.UnmappedZero: "zeroed", update.UnmappedKeep: "kept", update.UnmappedDiscard: "discarded"}[res.Unmapped]
	_, err := fmt.Fprintf(w, "copied %s to %s: %s written, %s%s %s, %s, in %.1f s\n",
		args[0], args[1], size(res.WrittenBytes), held, size(res.ImageBytes-res.MappedBytes), what, back, time.Since(r.start).Seconds())
	if len(res.Signers) > 0 {
		fmt.Fprintf(w, "signed by %s\n", signers(res.Signers))
	}
	if g := res.GPT; g != nil {
		fmt.Fprintf(w, "the backup GPT moved from sector %d to %d, the end of the disk\n", g.OldSector, g.BackupSector)
		if g.Grown > 0 {
			fmt.Fprintf(w, "partition %d grew to %s\n", g.Grown, size(g.GrownBytes))
		}
	}
	return err
}

func (r *report) verified(v *verdict) error {
	if r.asJSON {
		return r.env.json(v)
	}
	for _, w := range v.Warnings {
		r.env.warn("%s", w)
	}
	if _, err := fmt.Fprintf(r.env.Stdout, "trusted: signed by %s\nimage of %s, %s mapped in %d ranges\n",
		signers(v.Signers), size(v.ImageBytes), size(v.MappedBytes), v.Ranges); err != nil {
		return err
	}
	if v.ImageVerified {
		_, err := fmt.Fprintln(r.env.Stdout, "the image matches")
		return err
	}
	return nil
}

func signers(list []verify.Signer) string {
	var names []string
	for _, s := range list {
		names = append(names, fmt.Sprintf("%s (%s) on %s", s.Fingerprint, s.UserID, s.Time.UTC().Format(time.DateOnly)))
	}
	return strings.Join(names, ", ")
}

func tries(n int) string {
	if n == 1 {
		return "1 try"
	}
	return fmt.Sprintf("%d tries", n)
}

// size formats bytes in the largest binary unit that keeps the number at 1 or more.
func size(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// printable replaces what must not reach a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
