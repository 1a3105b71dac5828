package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/update"
)

// documentOptions name the signed document, and the keys that count.
type documentOptions struct {
	config, bmap, sig string
	keyring           []string
}

func (o *documentOptions) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "config", config.DefaultPath, "device configuration `FILE`")
	f.StringVar(&o.bmap, "bmap", "", "block map `FILE` or address (default: beside the image)")
	f.StringVar(&o.sig, "sig", "", "detached signature `FILE` or address of the block map (default: BMAP.asc, BMAP.sig, or inside the bmap)")
	f.StringArrayVar(&o.keyring, "keyring", nil, "certificate file or folder `PATH`, instead of the configured ones; may be repeated")
}

func (o *documentOptions) documents() install.Documents {
	return install.Documents{Bmap: o.bmap, Signature: o.sig}
}

type installOptions struct {
	documentOptions
	slot, role, booted string
	partition          string // of the image
	rewrite, ifNewer   bool
	forceFromBad       bool
	reboot, json       bool
}

func newInstall(env Env) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install [flags] IMAGE | RELEASE",
		Short: "Write a signed image to the inactive slot and switch to it",
		Long: `install verifies the signed bmap of IMAGE, marks the inactive slot bad, writes the
mapped blocks, zeroes the others, flushes, reads everything back from the medium,
and only then makes the slot the boot loader's next choice. IMAGE may be raw or
compressed by gzip, zstd, xz, lz4 or bzip2: a file, an http:// or https:// address,
or "-", standard input. A bmap and its signature may be addresses too.

RELEASE is release.toml, a folder that holds one, or the address of either; or a tar stream
as updater release tar writes it, as FILE.tar or from standard input, "-" without --bmap. It
installs every image of a slot with several roles, or none.

What runs, or is installed and boots next, is not installed again: exit 3. A release that
another slot still holds is compared with its signed checksums and activated. --slot NAME
looks at that slot alone. A state store is needed for this.

A device with one slot and a recovery accepts the documents and hands the address to the
recovery, which boots next, once (--reboot restarts into it), and installs it.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runInstall(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	o.AddFlags(f)
	f.StringVar(&o.slot, "slot", "", "slot `NAME` to write (default: the inactive one)")
	f.StringVar(&o.role, "role", "", "partition role `NAME` to write (default: the only one)")
	f.StringVar(&o.partition, "from-partition", "", "install this partition of a disk image, `PARTLABEL=NAME` or PARTUUID=UUID, with the bmap of the disk")
	f.StringVar(&o.booted, "booted", "", "slot `NAME` that counts as running, for a disk that no kernel booted from")
	f.BoolVar(&o.rewrite, "rewrite", false, "write every block, also what the slot holds already (for a medium that cannot be read), also of a release that is installed")
	f.BoolVar(&o.ifNewer, "if-newer", false, "install only what is newer than the running release and the next one, by rollback index and then by its time; else exit 3")
	f.BoolVar(&o.forceFromBad, "force-from-bad", false, "install although the running slot was not marked good")
	f.BoolVar(&o.reboot, "reboot", false, "reboot after success, or when the release is installed and boots next already")
	f.BoolVar(&o.json, "json", false, "print events and the result as JSON lines on standard output")
	env.out.addProgress(f)
	return cmd
}

func runInstall(ctx context.Context, o installOptions, image string, env Env) error {
	out := newReport(env, o.json)
	c, err := env.config(o.config)
	if err != nil {
		return out.failed(err)
	}
	res, err := install.Run(ctx, install.Request{
		Config: c, Keyring: o.keyring, Documents: o.documents(), Image: image, Partition: o.partition,
		Slot: o.slot, Role: o.role, Booted: o.booted, Rewrite: o.rewrite, IfNewer: o.ifNewer, ForceFromBad: o.forceFromBad,
	}, env.inputs(out.Warn), out)
	return finish(out, res, err, o.reboot, env)
}

// finish reports the end of an install, and restarts if that is asked for and something waits for it.
func finish(out *report, res *update.Result, err error, reboot bool, env Env) error {
	nothing, ok := errors.AsType[*update.NothingError](err)
	handed, toRecovery := errors.AsType[*install.HandedOver](err)
	switch {
	case toRecovery:
		out.waits(handed)
	case ok && reboot && nothing.Held == update.HeldNext:
		out.waits(nothing)
	case res == nil:
		return out.failed(err)
	default:
		if err := out.installed(res, err); err != nil {
			return err
		}
	}
	return restart(reboot, env)
}

// restart restarts the machine if that is asked for.
func restart(reboot bool, env Env) error {
	switch {
	case !reboot:
		return nil
	case env.reboot != nil:
		return env.reboot()
	}
	return device.Reboot()
}
