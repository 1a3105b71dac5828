package install

import (
	"context"
	"fmt"

	"updater/bmap"
	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// CopyRequest is one copy of an image to a disk, a partition or a file. Config, Image and Dest are required.
type CopyRequest struct {
	Config      *config.Config // of a host: the zero value
	Keyring     []string
	Documents   Documents // Unsigned accepts a bmap without a signature; one that exists is checked all the same
	NoBmap      bool      // copy everything, with Documents.Unsigned only
	Image, Dest string
	Unmapped    string // policy for unmapped blocks; "" is that of the bmap, else zero
	NoReadBack  bool
	Rewrite     bool // write every block, also those that Dest already holds
	GrowLast    bool // let the last partition of a whole disk reach to its end
}

// CopyResult reports a copy.
type CopyResult struct {
	*update.CopyResult
	Signers []verify.Signer `json:"signers"`
	GPT     *TableChange    `json:"gpt,omitempty"` // when the partition table was changed
}

// TableChange is the change of the partition table of a whole disk by a copy.
type TableChange struct {
	BackupSector int64 `json:"backup_sector"` // where the backup header is now
	OldSector    int64 `json:"old_sector"`    // where the image had it
	Grown        int   `json:"grown,omitempty"`
	GrownBytes   int64 `json:"grown_bytes,omitempty"`
}

// Copy writes an image with the checks of an install: the signature of the bmap, every range before it is written, and all of it again, read
// back from the medium. A file gets its name only once it is complete. Errors: [config.RequestError], [CopyError], and those of update.Copy.
func Copy(ctx context.Context, r CopyRequest, in Inputs, events Events) (*CopyResult, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	known := remembered(r.Config, events.Warn)
	from := NewOrigins(r.Config, in, known.Time)
	defer from.Close()
	plan, err := r.plan(ctx, known, from, events)
	if err != nil {
		return nil, err
	}
	img, size, err := from.Open(ctx, r.Image)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if plan.m != nil {
		if size >= 0 && size != plan.m.ImageSize() {
			return nil, &update.ImageError{Err: fmt.Errorf("it has %d bytes, the bmap says %d", size, plan.m.ImageSize())}
		}
		size = plan.m.ImageSize()
	}
	to, err := openDestination(r.Dest, size, r.Image, r.Documents.Bmap)
	if err != nil {
		return nil, err
	}
	defer to.discard()
	if r.GrowLast && !to.whole {
		return nil, config.Requestf("--grow-last needs a whole disk, which %s is not", r.Dest)
	}
	if err := r.checkTable(ctx, from, plan.m, to); err != nil {
		return nil, err
	}
	if err := to.openWriter(r.Config.Disk.Engine); err != nil {
		return nil, err
	}
	job := update.CopyJob{
		Map: plan.m, Unmapped: plan.unmapped, Rewrite: r.Rewrite || to.file != nil, SkipReadBack: r.NoReadBack, Image: img, Target: to.w,
	}
	if r.Image != "-" {
		job.Reopen = from.reopen(r.Image)
	}
	events.Device(to.dev.Facts())
	progress, stop := events.Progress()
	job.Progress = progress
	res, err := update.Copy(ctx, job)
	stop()
	if err != nil {
		return nil, to.explain(err)
	}
	result := &CopyResult{CopyResult: res, Signers: plan.signers}
	if result.GPT, err = to.fitTable(r.GrowLast, events.Warn); err != nil {
		return nil, to.explain(err)
	}
	return result, to.commit(res.ImageBytes)
}

// Check refuses requests that contradict themselves. Errors: [config.RequestError], [verify.SignatureError].
func (r CopyRequest) Check() error {
	switch r.Unmapped {
	case "", update.UnmappedZero, update.UnmappedKeep, update.UnmappedDiscard:
	default:
		return config.Requestf("--unmapped is %q, expected zero, keep or discard", r.Unmapped)
	}
	switch {
	case r.NoBmap && (r.Documents.Bmap != "" || r.Documents.Signature != "" || r.Unmapped != ""):
		return config.Requestf("--no-bmap copies everything; it excludes --bmap, --sig and --unmapped")
	case r.NoBmap && !r.Documents.Unsigned:
		return &verify.SignatureError{Reason: "without a bmap nothing is signed; add --allow-unsigned"}
	case r.Documents.Unsigned && initramfs.Sealed():
		return &verify.SignatureError{Reason: "this program is sealed with its keyring and accepts nothing unsigned"}
	}
	return nil
}

// Remembered returns the content of the device's state store, read without any lock. Without a store the result is that of a new
// device, with a warning if one is configured.
func Remembered(c *config.Config, warn func(format string, a ...any)) state.State {
	return remembered(c, warn).State
}

func remembered(c *config.Config, warn func(format string, a ...any)) device.Known {
	none := device.Known{State: state.State{Floor: c.Release.RollbackIndex}}
	if c.State.Device == "" {
		return none
	}
	known, err := device.ReadState(c)
	if err != nil {
		warn("the device's floor and last time are unknown: %v", err)
		return none
	}
	for _, w := range known.Warnings {
		if !w.New {
			warn("%s", w.Text)
		}
	}
	return *known
}

// trusted returns the policy of a request, with a warning for a kept keyring that does not count.
func trusted(c *config.Config, keyring []string, known device.Known, warn func(format string, a ...any)) (device.Trust, error) {
	t, err := device.TrustOf(c, keyring, known)
	if t.Warning != "" {
		warn("%s", t.Warning)
	}
	return t, err
}

// copyPlan is the plan of a copy once the trust in the bmap was decided.
type copyPlan struct {
	m        *bmap.Map // nil copies everything
	signers  []verify.Signer
	unmapped string
}

// plan decides the trust, before anything is opened for writing.
func (r CopyRequest) plan(ctx context.Context, known device.Known, from *Origins, events Events) (*copyPlan, error) {
	if r.NoBmap {
		events.Warn("no bmap describes %s; only the end of its container and the medium are checked", ImageName(r.Image))
		return &copyPlan{unmapped: update.UnmappedZero}, nil
	}
	c := update.Conditions{Product: update.AnyProduct, Floor: known.Floor, Require: r.Config.Trust.Required()}
	if r.Config.Product != "" {
		c.Product = r.Config.Product
	}
	trust, keyringErr := trusted(r.Config, r.Keyring, known, events.Warn)
	from.Trust = trust.Trust
	files, err := r.Documents.Find(ctx, r.Image, from)
	if err != nil {
		return nil, err
	}
	if files.UnverifiedSig == nil && !verify.IsClearsigned(files.UnverifiedBmap) {
		events.Warn("the bmap is not signed")
		m, err := bmap.Parse(files.UnverifiedBmap)
		if err == nil {
			err = m.CheckSummed()
		}
		if err != nil {
			return nil, err
		}
		return r.withUnmapped(&copyPlan{m: m})
	}
	if keyringErr != nil {
		return nil, keyringErr
	}
	c.Policy = trust.Policy
	doc, err := update.Accept(files.UnverifiedBmap, files.UnverifiedSig, c)
	if err != nil {
		return nil, err
	}
	for _, w := range doc.Warnings {
		events.Warn("%s", w)
	}
	return r.withUnmapped(&copyPlan{m: doc.Map, signers: doc.Signers})
}

// withUnmapped combines the policies of the bmap and of the request for unmapped blocks.
func (r CopyRequest) withUnmapped(p *copyPlan) (*copyPlan, error) {
	signed, asked := "", r.Unmapped
	if u := p.m.Update(); u != nil {
		signed = u.Unmapped
	}
	switch {
	case signed == update.UnmappedZero && asked != "" && asked != signed:
		return nil, &update.IncompatibleError{Reason: fmt.Sprintf("the bmap wants unmapped blocks to be zero, which --unmapped %s contradicts", asked)}
	case asked != "":
		p.unmapped = asked
	case signed == update.UnmappedKeep:
		p.unmapped = signed
	default:
		p.unmapped = update.UnmappedZero
	}
	return p, nil
}
