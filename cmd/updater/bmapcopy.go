package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"updater/bmap"
	"updater/initramfs"
	"updater/state"
	"updater/update"
	"updater/verify"
)

type bmapCopyOptions struct {
	trustOptions
	noBmap, allowUnsigned, noReadBack, rewrite, growLast, json bool
	unmapped                                                   string
}

func newBmapCopy(env Env) *cobra.Command {
	var o bmapCopyOptions
	cmd := &cobra.Command{
		Use:   "copy [flags] IMAGE DEST",
		Short: "Write a signed image to a disk, a partition or a file",
		Long: `copy writes IMAGE to DEST as bmaptool copy does, with the checks of an install: the
signature of the bmap, every range before it is written, and all of it again, read
back from the medium. The bmap and its signature are looked for beside IMAGE
(IMAGE.bmap, then with the endings of IMAGE taken off; BMAP.asc, BMAP.sig, or a
clearsigned bmap). IMAGE may be raw or compressed by gzip, zstd, xz, lz4 or bzip2: a
file, an http:// or https:// address, or "-", standard input.

A device is opened exclusively, and refused before anything is written when it is
mounted, in use or too small. Nothing is created below /dev. A file gets the size of
the image, with its holes, under its name only once it is whole.

On a whole disk that is larger than the image, the backup GPT moves to the end of the
disk, and both headers get their new places and checksums.

Without --unmapped, unmapped blocks become zero unless the signed bmap says keep; what
the bmap says cannot be weakened.`,
		Args: argsN(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := newReport(env, o.json)
			res, err := runBmapCopy(cmd.Context(), cmd.Flags().Changed("config"), o, args[0], args[1], env, out)
			if err != nil {
				return out.failed(err)
			}
			return out.copied(args, res)
		},
	}
	f := cmd.Flags()
	o.AddFlags(f)
	f.BoolVar(&o.noBmap, "no-bmap", false, "copy everything; then there is nothing that could be signed, so with --allow-unsigned only")
	f.BoolVar(&o.allowUnsigned, "allow-unsigned", false, "take a bmap without a signature; one that is there is checked all the same")
	f.StringVar(&o.unmapped, "unmapped", "", "what unmapped blocks become: `zero`, keep or discard")
	f.BoolVar(&o.noReadBack, "no-read-back", false, "do not read the medium back")
	f.BoolVar(&o.rewrite, "rewrite", false, "write every block, also what DEST holds already")
	f.BoolVar(&o.growLast, "grow-last", false, "let the last partition of a whole disk reach to its end")
	f.BoolVar(&o.json, "json", false, "print events and the result as JSON lines on standard output")
	env.out.addProgress(f)
	return cmd
}

// copyResult is the result of bmap copy.
type copyResult struct {
	*update.CopyResult
	Signers []verify.Signer `json:"signers"`
	GPT     *gptResult      `json:"gpt,omitempty"` // when the partition table was changed
}

type gptResult struct {
	BackupSector int64 `json:"backup_sector"` // where the backup header is now
	OldSector    int64 `json:"old_sector"`    // where the image had it
	Grown        int   `json:"grown,omitempty"`
	GrownBytes   int64 `json:"grown_bytes,omitempty"`
}

// copyPlan is what a copy may do, after the trust in the bmap was decided.
type copyPlan struct {
	m        *bmap.Map // nil copies everything
	signers  []verify.Signer
	unmapped string
}

func runBmapCopy(ctx context.Context, configNamed bool, o bmapCopyOptions, image, dest string, env Env, out *report) (*copyResult, error) {
	config, err := o.check(configNamed)
	if err != nil {
		return nil, err
	}
	known := remembered(config, env)
	from, err := config.Source.origins(env, out.warn, known.Time)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	plan, err := o.plan(ctx, image, config, known, from, out)
	if err != nil {
		return nil, err
	}
	img, size, err := from.open(ctx, image)
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
	to, err := openDestination(dest, size, image, o.bmap)
	if err != nil {
		return nil, err
	}
	defer to.discard()
	if o.growLast && !to.whole {
		return nil, usagef("--grow-last needs a whole disk; %s is none", dest)
	}
	if err := to.openWriter(config.Disk.Engine); err != nil {
		return nil, err
	}
	job := update.CopyJob{
		Map: plan.m, Unmapped: plan.unmapped, Rewrite: o.rewrite || to.temp != "", SkipReadBack: o.noReadBack,
		Image: img, Target: to.w, Progress: out.progress(),
	}
	if image != "-" {
		job.Reopen = func(ctx context.Context) (update.ImageCloser, error) {
			img, _, err := from.open(ctx, image)
			return img, err
		}
	}
	out.device(to.dev.Facts())
	res, err := update.Copy(ctx, job)
	out.stop()
	if err != nil {
		return nil, to.explain(err)
	}
	result := &copyResult{CopyResult: res, Signers: plan.signers}
	if result.GPT, err = to.fitTable(o.growLast, out); err != nil {
		return nil, to.explain(err)
	}
	return result, to.commit(res.ImageBytes)
}

// check refuses what cannot be meant, and loads the configuration when it is needed.
func (o bmapCopyOptions) check(configNamed bool) (*Config, error) {
	switch o.unmapped {
	case "", update.UnmappedZero, update.UnmappedKeep, update.UnmappedDiscard:
	default:
		return nil, usagef("--unmapped is %q, expected zero, keep or discard", o.unmapped)
	}
	switch {
	case o.noBmap && (o.bmap != "" || o.sig != "" || o.unmapped != ""):
		return nil, usagef("--no-bmap copies everything, so it does not go with --bmap, --sig or --unmapped")
	case o.noBmap && !o.allowUnsigned:
		return nil, &verify.SignatureError{Reason: "without a bmap nothing is signed; say --allow-unsigned too"}
	case o.allowUnsigned && initramfs.Sealed():
		return nil, &verify.SignatureError{Reason: "this program is sealed with its keyring, and takes nothing unsigned"}
	case o.noBmap || len(o.keyring) > 0 && !configNamed:
		return new(Config), nil
	}
	config, err := LoadConfig(o.config)
	if o.allowUnsigned && !configNamed && errors.Is(err, os.ErrNotExist) {
		return new(Config), nil
	}
	return config, err
}

// plan decides the trust, before anything is opened for writing.
func (o bmapCopyOptions) plan(ctx context.Context, image string, config *Config, known state.State, from *origins, out *report) (*copyPlan, error) {
	if o.noBmap {
		out.warn("nothing says what %s should hold; only its container's end and the medium are checked", image)
		return &copyPlan{unmapped: update.UnmappedZero}, nil
	}
	o.unsigned = o.allowUnsigned
	files, err := o.find(ctx, image, from)
	if err != nil {
		return nil, err
	}
	if files.unverifiedSig == nil && !verify.IsClearsigned(files.unverifiedBmap) {
		out.warn("the bmap is not signed")
		m, err := bmap.Parse(files.unverifiedBmap)
		if err != nil {
			return nil, err
		}
		return o.withUnmapped(&copyPlan{m: m}, m.CheckSummed())
	}
	c := update.Conditions{Product: update.AnyProduct, Floor: known.Floor, Require: config.Trust.required()}
	if config.Product != "" {
		c.Product = config.Product
	}
	if c.Policy, err = config.policy(o.keyring, known.Time); err != nil {
		return nil, err
	}
	doc, err := update.Accept(files.unverifiedBmap, files.unverifiedSig, c)
	if err != nil {
		return nil, err
	}
	for _, w := range doc.Warnings {
		out.warn("%s", w)
	}
	return o.withUnmapped(&copyPlan{m: doc.Map, signers: doc.Signers}, nil)
}

// withUnmapped combines what the bmap and the command line say of unmapped blocks.
func (o bmapCopyOptions) withUnmapped(p *copyPlan, err error) (*copyPlan, error) {
	said, asked := "", o.unmapped
	if u := p.m.Update(); u != nil {
		said = u.Unmapped
	}
	switch {
	case err != nil:
		return nil, err
	case said == update.UnmappedZero && asked != "" && asked != said:
		return nil, &update.IncompatibleError{Reason: fmt.Sprintf("the bmap wants unmapped blocks to be zero, which --unmapped %s does not give", asked)}
	case asked != "":
		p.unmapped = asked
	case said == update.UnmappedKeep:
		p.unmapped = said
	default:
		p.unmapped = update.UnmappedZero
	}
	return p, nil
}
