package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// trustOptions say where the signed document is, and whose signature counts.
type trustOptions struct {
	config   string
	bmap     string
	sig      string
	keyring  []string
	unsigned bool // find may find no signature
}

func (o *trustOptions) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "config", DefaultConfig, "device configuration `FILE`")
	f.StringVar(&o.bmap, "bmap", "", "block map `FILE` or address (default: beside the image)")
	f.StringVar(&o.sig, "sig", "", "detached signature `FILE` or address of the block map (default: BMAP.asc, BMAP.sig, or inside the bmap)")
	f.StringArrayVar(&o.keyring, "keyring", nil, "certificate file or folder `PATH`, instead of the configured ones; may be repeated")
}

// signedFiles are the bmap and its signature as they were found, unverified.
type signedFiles struct{ unverifiedBmap, unverifiedSig []byte }

// find reads the bmap and its signature, discovering what was not named.
func (o *trustOptions) find(ctx context.Context, image string, from *origins) (signedFiles, error) {
	const maxBmap = verify.MaxDocumentSize + verify.MaxSignatureSize // it may be clearsigned
	var files signedFiles
	path := o.bmap
	var err error
	switch {
	case path != "":
		files.unverifiedBmap, err = from.read(ctx, path, maxBmap)
	case image == "" || image == "-":
		return files, usagef("a bmap cannot be looked for beside standard input; name it with --bmap")
	default:
		path, files.unverifiedBmap, err = from.findBmap(ctx, image, maxBmap)
	}
	if err != nil {
		return files, fmt.Errorf("reading the bmap: %w", err)
	}
	switch {
	case o.sig != "":
		files.unverifiedSig, err = from.read(ctx, o.sig, verify.MaxSignatureSize)
	case !verify.IsClearsigned(files.unverifiedBmap):
		var found bool
		if files.unverifiedSig, found, err = from.findSignature(ctx, path, verify.MaxSignatureSize); err == nil && !found && !o.unsigned {
			return files, &verify.SignatureError{Reason: fmt.Sprintf("%s is not signed: it is not clearsigned, and there is no %s.asc or %s.sig", path, path, path)}
		}
	}
	if err != nil {
		return files, fmt.Errorf("reading the signature: %w", err)
	}
	return files, nil
}

// readCapped reads a file of at most limit bytes.
func readCapped(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, err
}

type installOptions struct {
	trustOptions
	slot, role, booted string
	rewrite            bool
	partition          string // of the image
	reboot, json       bool
	forceFromBad       bool
	inside             bool // the initramfs
}

func newInstall(env Env) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install [flags] IMAGE",
		Short: "Write a signed image to the inactive slot and switch to it",
		Long: `install verifies the signed bmap of IMAGE, marks the inactive slot bad, writes the
mapped blocks, zeroes the others, flushes, reads everything back from the medium,
and only then makes the slot the boot loader's next choice. IMAGE may be raw or
compressed by gzip, zstd, xz, lz4 or bzip2: a file, an http:// or https:// address,
or "-", standard input. A bmap and its signature may be addresses too.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runInstall(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	o.AddFlags(f)
	f.StringVar(&o.slot, "slot", "", "slot `NAME` to write (default: the inactive one)")
	f.StringVar(&o.role, "role", "", "partition role `NAME` to write (default: the only one)")
	f.StringVar(&o.partition, "from-partition", "", "install this partition of a disk image, `PARTLABEL=NAME` or PARTUUID=UUID; the bmap is that of the disk")
	f.StringVar(&o.booted, "booted", "", "slot `NAME` that counts as running, for a disk that no kernel booted from")
	f.BoolVar(&o.rewrite, "rewrite", false, "write every block, also what the slot holds already (for a medium that cannot be read)")
	f.BoolVar(&o.forceFromBad, "force-from-bad", false, "install although the running slot was not marked good")
	f.BoolVar(&o.reboot, "reboot", false, "reboot after success")
	f.BoolVar(&o.json, "json", false, "print events and the result as JSON lines on standard output")
	env.out.addProgress(f)
	return cmd
}

func runInstall(ctx context.Context, o installOptions, image string, env Env) error {
	out := newReport(env, o.json)
	res, err := install(ctx, o, image, env, out)
	if res == nil {
		return out.failed(err)
	}
	if err := out.installed(res, err); err != nil {
		return err
	}
	if o.reboot {
		return askReboot()
	}
	return nil
}

// askReboot asks the running system to restart in good order: SIGINT is to init what Ctrl-Alt-Del is, for
// systemd, SysV init and busybox (signal(7), reboot(2) on LINUX_REBOOT_CMD_CAD_OFF).
func askReboot() error {
	if err := unix.Kill(1, unix.SIGINT); err != nil {
		return fmt.Errorf("asking init to reboot: %w; the new slot boots next whenever you do", err)
	}
	return nil
}

// install wires a job and runs it.
func install(ctx context.Context, o installOptions, image string, env Env, out *report) (*update.Result, error) {
	if o.partition != "" {
		if err := checkPartition(o.partition, image); err != nil {
			return nil, err
		}
	}
	config, err := LoadConfig(o.config)
	if err != nil {
		return nil, err
	}
	role, err := config.role(o.role)
	if err != nil {
		return nil, err
	}
	dev, err := openDevice(config, o.booted, blockdev.Exclusive) // the lock first: whoever is second is told at once
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	for _, w := range dev.warnings {
		out.warn("%s", w)
	}
	trust, err := config.policy(o.keyring, dev.state().Time)
	if err != nil {
		return nil, err
	}
	from, err := config.Source.origins(env, out.warn, dev.state().Time)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	files, err := o.find(ctx, image, from)
	if err != nil {
		return nil, err
	}
	job := update.Job{
		Boot: dev, Disk: dev, State: dev,
		Bmap: files.unverifiedBmap, Signature: files.unverifiedSig, Policy: trust,
		Product: config.Product, Role: role, Require: config.Trust.required(),
		Slot: o.slot, Tries: dev.tries(), ForceFromBad: o.forceFromBad,
		Unmapped: config.Disk.Unmapped, Rewrite: o.rewrite, Progress: out.progress(),
	}
	defer out.stop()
	dev.source = imageName(image)
	hooks := hooks{config: config.Hooks, dev: dev, source: dev.source, out: out}
	if o.inside && !config.Hooks.Initramfs {
		hooks.config = HooksConfig{}
	}
	job.PreInstall, job.PostInstall = hooks.hook("pre-install", hooks.config.PreInstall), hooks.hook("post-install", hooks.config.PostInstall)
	if o.partition != "" {
		p := &partition{spec: o.partition, open: func() (*source.Image, error) { img, _, err := from.open(ctx, image); return img, err }}
		defer p.Close()
		job.Image, job.ImageSize, job.Narrow, job.Reopen = p, -1, p.narrow, p.again
	} else {
		img, size, err := from.open(ctx, image)
		if err != nil {
			return nil, err
		}
		defer img.Close()
		job.Image, job.ImageSize = img, size
		if _, remote, _ := source.ParseURL(image); remote {
			job.Image, job.Seed = sparse{img}, dev.seed
		}
		if image != "-" {
			job.Reopen = func(ctx context.Context) (update.ImageCloser, error) {
				img, _, err := from.open(ctx, image)
				return img, err
			}
		}
	}
	if dev.tries() < config.Boot.Tries {
		out.warn("the boot loader counts %d tries at most, not the configured %d", dev.tries(), config.Boot.Tries)
	}
	dev.opened = out.device
	res, err := update.Install(ctx, job)
	if err == nil && res.Index > 0 && dev.store == nil {
		res.Warnings = append(res.Warnings, "no state store is configured: the rollback index is not remembered, and no rollback protection applies")
	}
	if err == nil && o.partition == "" { // the map of a whole disk does not tell what one partition of it holds
		if bad := dev.maps.Put(res.Slot+"/"+role, files.unverifiedBmap, files.unverifiedSig); bad != nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("a recovery cannot tell whether slot %s is intact: %v", res.Slot, bad))
		}
	}
	if err == nil {
		err = hooks.activated(ctx, res)
	}
	return res, err
}

// interruptible ends a blocked Read of standard input when ctx ends; the read itself goes on until the
// process ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done, own := make(chan result, 1), make([]byte, len(p))
	go func() {
		n, err := i.r.Read(own)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, own[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}

// buildTime is when the program was built, the floor of the trusted clock; zero when it was not stamped.
func buildTime() time.Time {
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(stampTime))
	if err != nil {
		return time.Time{}
	}
	return t
}
