package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"updater/install"
)

type bmapCopyOptions struct {
	documentOptions
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
			r, err := o.request(cmd.Flags().Changed("config"), args[0], args[1], env)
			if err != nil {
				return out.failed(err)
			}
			res, err := install.Copy(cmd.Context(), r, env.inputs(out.Warn), out)
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
	f.SetNormalizeFunc(asBmaptool)
	return cmd
}

// request loads the configuration when it is needed.
func (o bmapCopyOptions) request(configNamed bool, image, dest string, env Env) (install.CopyRequest, error) {
	r := install.CopyRequest{
		Config: env.bench(), Keyring: o.keyring, Documents: o.documents(), NoBmap: o.noBmap, Image: image, Dest: dest,
		Unmapped: o.unmapped, NoReadBack: o.noReadBack, Rewrite: o.rewrite, GrowLast: o.growLast,
	}
	r.Documents.Unsigned = o.allowUnsigned
	if err := r.Check(); err != nil || o.noBmap || len(o.keyring) > 0 && !configNamed {
		return r, err
	}
	c, err := env.config(o.config)
	if o.allowUnsigned && !configNamed && errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	r.Config = c
	return r, benchError(err, configNamed)
}
