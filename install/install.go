package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"updater/device"
	"updater/device/config"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// Request is one install. Config and Image are required.
type Request struct {
	Config    *config.Config
	Keyring   []string // instead of the configured one; empty is that one
	Documents Documents
	Image     string // path, address, or "-" for standard input
	Partition string // install this partition of a disk image, PARTLABEL=NAME or PARTUUID=UUID; "" is all of it

	Slot, Role, Booted string // "" is the inactive slot, the only role, the slot on the kernel command line
	Rewrite            bool   // write every block, also those that the slot already holds, and a release that is already installed
	IfNewer            bool   // install only a release newer than those of the running and of the next slot
	ForceFromBad       bool   // although the running slot was not marked good
	Initramfs          bool   // this is the recovery: hooks of the running system are not called, and the only slot may be written
	Identity           string // of the only release that is accepted; "" accepts every one

	Attempt      int64                           // of the channel by which the release is installed; 0 for a person
	NotFailed    bool                            // refuse a release that failed on this device
	DownloadOnly bool                            // leave the switch to a later activation
	Confirm      func(ctx context.Context) error // may refuse the switch after the read-back; nil accepts
}

// Run installs a release, or the signed image of a slot with one role, into the inactive slot. The order of the steps is that of update.Install. An
// update.NothingError means that the release is already installed. A result with an error is an install that succeeded and whose last hook failed:
// the new slot boots next. Errors: those of update.Install, of [device.Open], [HookError], [config.RequestError].
func Run(ctx context.Context, r Request, in Inputs, events Events) (*update.Result, error) {
	document, isRelease := releaseDocument(r.Image)
	if err := r.check(isRelease || r.isArchive()); err != nil {
		return nil, err
	}
	if r.Slot != "" && !slices.Contains(r.Config.SlotNames(), r.Slot) {
		return nil, r.Config.UnknownSlot(r.Slot)
	}
	dev, err := device.Open(r.Config, device.Options{Purpose: device.Install, Booted: r.Booted, Recovery: r.Initramfs}) // a second install ends here
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	for _, w := range dev.Warnings() {
		if !w.New {
			events.Warn("%s", w.Text)
		}
	}
	recorded := dev.State().Time
	trust, err := dev.Trust(r.Keyring)
	if err != nil {
		return nil, err
	}
	if trust.Warning != "" {
		events.Warn("%s", trust.Warning)
	}
	from := NewOrigins(r.Config, in, recorded)
	defer from.Close()
	from.Trust = trust.Trust
	dev.Source, dev.Opened, dev.Attempt = ImageName(r.Image), events.Device, r.Attempt
	if dev.OnlySlot() != "" && !r.Initramfs {
		return nil, r.handOver(ctx, dev, from)
	}
	progress, stop := events.Progress()
	defer stop()
	hooks := r.hooks(dev, events)
	job := jobOf(dev, trust.Policy)
	job.Identity, job.Slot, job.ForceFromBad, job.Progress = r.Identity, r.Slot, r.ForceFromBad, progress
	job.Rewrite, job.IfNewer, job.DownloadOnly = r.Rewrite, r.IfNewer, r.DownloadOnly
	job.PreInstall = r.remembering(dev, hooks.hook("pre-install", hooks.config.PreInstall))
	job.PostInstall = r.confirmed(hooks.hook(postInstall, hooks.config.PostInstall))
	open := r.openImage
	switch {
	case r.isArchive():
		open = r.openArchive
	case isRelease:
		open = r.openRelease(dev, document)
	}
	if _, err := dev.Slots(ctx); err != nil { // before anything is fetched
		return nil, &update.BootError{Slot: r.Slot, Doing: "reading it", Err: err}
	}
	closeImage, err := open(ctx, from, &job)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closeImage() }()
	if dev.Tries() < r.Config.Boot.Tries {
		events.Warn("the boot loader counts %d tries at most, not the configured %d", dev.Tries(), r.Config.Boot.Tries)
	}
	res, err := update.Install(ctx, job)
	if err != nil {
		return nil, err
	}
	r.keep(dev, job, res)
	if res.Downloaded {
		return res, nil
	}
	return res, hooks.activated(ctx, res)
}

// jobOf returns a job with the fields that the device decides.
func jobOf(dev *device.Device, trust verify.Policy) update.Job {
	c := dev.Config
	return update.Job{
		Boot: dev, Disk: dev, State: dev, Seed: dev.Seed, Policy: trust, Tries: dev.Tries(), Unmapped: c.Disk.Unmapped,
		Product: c.Product, Hardware: device.Hardware("/", c), Require: c.Trust.Required(), Layout: c.Layout(),
	}
}

type hook = func(context.Context, update.Planned) error

// remembering refuses a release that failed here, before a hook.
func (r Request) remembering(dev *device.Device, next hook) hook {
	if !r.NotFailed {
		return next
	}
	return func(ctx context.Context, p update.Planned) error {
		for _, f := range dev.State().Fleet.Failures {
			if f.Release == p.Identity && f.Attempt >= max(r.Attempt, 1) {
				return &update.IncompatibleError{Reason: fmt.Sprintf("version %s failed on this device: %s", f.Version, f.Detail)}
			}
		}
		return then(ctx, next, p)
	}
}

// confirmed asks Confirm after a hook.
func (r Request) confirmed(first hook) hook {
	if r.Confirm == nil {
		return first
	}
	return func(ctx context.Context, p update.Planned) error {
		if err := then(ctx, first, p); err != nil {
			return err
		}
		return r.Confirm(ctx)
	}
}

// then calls a hook; nil accepts.
func then(ctx context.Context, h hook, p update.Planned) error {
	if h == nil {
		return nil
	}
	return h(ctx, p)
}

// check refuses requests that contradict themselves or the configuration.
func (r Request) check(isRelease bool) error {
	roles := r.Config.Slot[0].Roles()
	switch {
	case r.IfNewer && r.Config.State.Device == "" && r.Config.Release == (config.Release{}):
		return &config.RequestError{
			Err:    errors.New("--if-newer: without a state store the installed release is unknown"),
			Advice: "set state to a small partition in the configuration, or leave --if-newer out",
		}
	case r.isArchive() && r.Documents.Signature != "":
		return config.Requestf("the signature of a release in a tar stream is in the stream; it excludes --sig")
	case isRelease && (r.Partition != "" || r.Role != "" || r.Documents.Bmap != ""):
		return config.Requestf("a release names its images and roles; it excludes --from-partition, --role and --bmap")
	case !isRelease && len(roles) > 1:
		return &config.RequestError{
			Err: fmt.Errorf("the slots have several roles (%s), which only a release installs together; %s is one image", strings.Join(roles, ", "), ImageName(r.Image)),
			Advice: "updater release create --product PRODUCT --version VERSION " + strings.Join(roles, "=IMAGE ") +
				"=IMAGE makes one; sign release.toml and install that",
		}
	}
	return errors.Join(r.Config.CheckInstallable(), checkPartition(r.Partition, r.Image))
}

func (r Request) hooks(dev *device.Device, events Events) hooks {
	h := hooks{config: r.Config.Hooks, dev: dev, events: events}
	if r.Initramfs && !h.config.Initramfs {
		h.config = config.Hooks{}
	}
	return h
}

// openRelease fills in the document of a release and the source of its images. update closes them.
func (r Request) openRelease(dev *device.Device, document string) func(context.Context, *Origins, *update.Job) (func() error, error) {
	return func(ctx context.Context, from *Origins, job *update.Job) (closeImage func() error, err error) {
		job.Images = &images{from: from, document: document, maps: map[string][]byte{}}
		job.Document, job.Signature, err = from.Document(ctx, release.TypeRelease, document, r.Documents.Signature)
		if err == nil && len(r.Keyring) == 0 {
			err = followKeyring(ctx, dev, from, document, job)
		}
		return func() error { return nil }, err
	}
}

// openImage fills in the signed bmap and the source of the image, and returns a function that closes the image.
func (r Request) openImage(ctx context.Context, from *Origins, job *update.Job) (closeImage func() error, err error) {
	if job.Role, err = r.Config.Role(r.Role); err != nil {
		return nil, err
	}
	signed, err := r.Documents.Find(ctx, r.Image, from)
	if err != nil {
		return nil, err
	}
	job.Document, job.Signature = signed.UnverifiedBmap, signed.UnverifiedSig
	if r.Partition != "" {
		p := &partition{spec: r.Partition, open: func() (*source.Image, error) { img, _, err := from.Open(ctx, r.Image); return img, err }}
		job.Image, job.ImageSize, job.Narrow, job.Part, job.Reopen = p, -1, p.narrow, r.Partition, p.again
		return p.Close, nil
	}
	img, size, err := from.Open(ctx, r.Image)
	if err != nil {
		return nil, err
	}
	job.Image, job.ImageSize = from.planned(img, r.Image), size
	if r.Image != "-" {
		job.Reopen = from.reopen(r.Image)
	}
	return img.Close, nil
}

// reopen opens an image once more, for ranges that read back wrong.
func (o *Origins) reopen(image string) func(context.Context) (update.ImageCloser, error) {
	return func(ctx context.Context) (update.ImageCloser, error) {
		img, _, err := o.Open(ctx, image)
		if err != nil {
			return nil, err
		}
		return o.planned(img, image), nil
	}
}

// keep keeps the signed documents for the recovery. A slot that boots next needs no more, so a failure is a warning.
func (r Request) keep(dev *device.Device, job update.Job, res *update.Result) {
	if res.Index > 0 && !dev.Remembers() {
		res.Warnings = append(res.Warnings, "no state store is configured: the rollback index is not remembered, and no rollback protection applies")
	}
	if r.Partition != "" {
		return // a whole-disk map cannot be used to verify one partition
	}
	var err error
	switch s := job.Images.(type) {
	case *images:
		err = dev.KeepRelease(res.Slot, job.Document, job.Signature, s.maps)
	case *archive:
		err = dev.KeepRelease(res.Slot, job.Document, job.Signature, s.maps)
	default:
		err = dev.KeepDocument(res.Slot, res.Role, job.Document, job.Signature)
	}
	if err != nil {
		res.Warnings = append(res.Warnings, fmt.Sprintf("a recovery cannot tell whether slot %s is intact: %v", res.Slot, err))
	}
}
