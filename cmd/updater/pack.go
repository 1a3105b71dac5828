package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"updater/install"
	"updater/internal/terminal"
	"updater/pack"
	"updater/source"
)

type packOptions struct {
	bmap, output string
	level        int
	json         bool
}

func newPack(env Env) *cobra.Command {
	var o packOptions
	cmd := &cobra.Command{
		Use:   "pack [flags] IMAGE",
		Short: "Compress an image so that it decodes in parallel and in parts",
		Long: `pack writes IMAGE.zst: a zstd file with one frame for each range of the image's bmap,
and a seek table. It is an ordinary .zst for zstd -d and bmaptool; the installer
decodes its frames in parallel and fetches only those that it needs.

The image is compared with its bmap first; without one beside it, IMAGE.bmap is made
as bmap create does. Sign the bmap as ever. The same image, bmap and level give the
same bytes.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runPack(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	f.StringVar(&o.bmap, "bmap", "", "block map `FILE` (default: IMAGE.bmap, made when it is not there)")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (default: IMAGE.zst)")
	f.BoolVar(&o.json, "json", false, "print the bmap of the image as JSON")
	f.IntVar(&o.level, "level", pack.DefaultLevel, fmt.Sprintf("zstd `LEVEL`, %d to %d; there are four strengths: 1-2, 3-5, 6-9, 10-%d", pack.MinLevel, pack.MaxLevel, pack.MaxLevel))
	return cmd
}

func runPack(ctx context.Context, o packOptions, path string, env Env) (err error) {
	if o.level < pack.MinLevel || o.level > pack.MaxLevel {
		return usagef("--level is %d, expected %d to %d", o.level, pack.MinLevel, pack.MaxLevel)
	}
	if o.output == "" {
		o.output = path + ".zst"
	}
	img, err := source.Open(path, nil, source.Limits{})
	if err != nil {
		return err
	}
	codec := img.Codec()
	img.Close()
	if codec != "raw" {
		return usagef("%s is compressed (%s) already; pack needs the raw image", path, codec)
	}
	m, err := install.Pack(ctx, path, o.bmap, o.output, o.level)
	if err != nil {
		return err
	}
	info, err := os.Stat(o.output)
	if err != nil {
		return err
	}
	if o.json {
		env.doneJSON(describeBmap(m, false))
		return nil
	}
	env.done("packed %s of data in %d ranges into %s, %s\n", terminal.Bytes(m.MappedBytes()), m.Len(), o.output, terminal.Bytes(info.Size()))
	return nil
}
