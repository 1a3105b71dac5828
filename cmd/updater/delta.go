package main

import (
	"context"
	"path/filepath"
	"regexp"
	"runtime/debug"

	"github.com/spf13/cobra"

	"updater/delta"
	"updater/install"
	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/source"
)

func newDelta(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delta",
		Short: "Make and show deltas, which update a device that has an older image",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDeltaCreate(env), newDeltaInfo(env))
	return cmd
}

type deltaCreateOptions struct {
	from, fromBmap, bmap, output string
	json                         bool
}

func newDeltaCreate(env Env) *cobra.Command {
	var o deltaCreateOptions
	cmd := &cobra.Command{
		Use:   "create [flags] --from OLD NEW",
		Short: "Make the delta from one image to another",
		Long: `create writes what a device needs to make NEW from OLD in its running slot. Both are
raw or compressed; their bmaps are those that were signed, and the images are compared
with them. A compressed image is decoded into a temporary file (TMPDIR).

The delta belongs beside NEW, under the name that create gives it: NEW, the beginning of
the checksum of the bmap of OLD, .delta. Give NEW as it is published, for example
image.img.zst. Nothing has to be signed: every range that a device makes is compared with
the signed bmap of NEW. The same images and bmaps give the same bytes.

Ranges of more than 1 MiB are left out, as in a bmap that bmaptool made.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runDeltaCreate(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "old image `FILE`")
	f.StringVar(&o.fromBmap, "from-bmap", "", "its bmap `FILE` (default: beside it)")
	f.StringVar(&o.bmap, "bmap", "", "bmap `FILE` of the new image (default: beside it)")
	f.BoolVar(&o.json, "json", false, "print as JSON")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (default: beside NEW, as devices look for it)")
	return cmd
}

func runDeltaCreate(ctx context.Context, o deltaCreateOptions, path string, env Env) error {
	if o.from == "" {
		return usagef("--from is missing; expected the old image")
	}
	debug.SetGCPercent(25) // the tables of the encoders live long: with the default they count twice
	from, err := openMapped(ctx, o.from, o.fromBmap)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openMapped(ctx, path, o.bmap)
	if err != nil {
		return err
	}
	defer to.Close()
	if o.output == "" {
		o.output = delta.Name(path, from.Sum)
	}
	var encoded func(n int64)
	if progress, stop := newReport(env, false).Meter("encoding"); progress != nil {
		defer stop()
		var done int64
		encoded = func(n int64) { done += n; progress(done, to.MappedBytes()) }
	}
	t, err := install.CreateDelta(ctx, from, to, o.output, encoded)
	if err != nil {
		return err
	}
	v := t.Summary()
	if o.json {
		env.doneJSON(v)
	} else {
		env.done("%s of data in %d frames, made with %s of the old image, into %s, %s\n", terminal.Bytes(v.Made), v.Frames, terminal.Bytes(v.WindowBytes), o.output, terminal.Bytes(t.Size))
	}
	if left := to.MappedBytes() - v.Made; left > 0 {
		env.warn("%s are in ranges of more than %s, which are not in the delta; make the bmap with updater bmap create", terminal.Bytes(left), terminal.Bytes(delta.MaxRange))
	}
	return nil
}

func openMapped(ctx context.Context, path, mapPath string) (*install.MappedImage, error) {
	mapPath, err := mapOf(path, mapPath)
	if err != nil {
		return nil, err
	}
	return install.OpenMapped(ctx, path, mapPath)
}

// mapOf is the block map of an image: path, by default the one beside it.
func mapOf(image, path string) (string, error) {
	if path != "" {
		return path, nil
	}
	path, err := source.FindBmap(image)
	if err != nil {
		return "", &usageError{err: err}
	}
	return path, nil
}

type deltaInfoOptions struct {
	bmap, from, output string
	dictionary         int
	json               bool
}

func newDeltaInfo(env Env) *cobra.Command {
	var o deltaInfoOptions
	cmd := &cobra.Command{
		Use:   "info [flags] DELTA",
		Short: "Show what a delta needs and makes",
		Long: `info reads the table of a delta. It needs the bmap of the new image.

With --dictionary N it writes the dictionary of frame N, counted from 0, made of the raw
old image, and prints where the frame is: zstd -d -D DICTIONARY decodes those bytes.`,
		Args: argsN(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return runDeltaInfo(o, args[0], env) },
	}
	f := cmd.Flags()
	f.StringVar(&o.bmap, "bmap", "", "bmap `FILE` of the new image (default: beside the image that the delta belongs to)")
	f.IntVar(&o.dictionary, "dictionary", -1, "write the dictionary of frame `N`")
	f.StringVar(&o.from, "from", "", "raw old image `FILE`, for --dictionary")
	f.StringVarP(&o.output, "output", "o", "", "write the dictionary to `FILE`")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// deltaName matches the name of a delta beside its image.
var deltaName = regexp.MustCompile(`\.[0-9a-f]{16}\.delta$`)

func runDeltaInfo(o deltaInfoOptions, path string, env Env) error {
	if o.bmap == "" && !deltaName.MatchString(path) {
		return usagef("%s is not named as a delta beside its image; name the bmap of the new image with --bmap", filepath.Base(path))
	}
	if o.dictionary >= 0 && (o.from == "" || o.output == "") {
		return usagef("--dictionary needs --from and --output")
	}
	mapPath, err := mapOf(deltaName.ReplaceAllString(path, ""), o.bmap)
	if err != nil {
		return err
	}
	t, err := install.ReadDelta(path, mapPath)
	if err != nil {
		return err
	}
	if o.dictionary >= 0 {
		return writeDictionary(o, t, env)
	}
	v := t.Summary()
	if o.json {
		return env.json(v)
	}
	_, err = printable.Fprintf(env.Stdout, `from the image with bmap %s
to the image with bmap %s
%s: %d frames, table %s
makes %s of the new image
needs %d windows of the old image, %s
`, v.Base, v.Target, terminal.Bytes(v.Bytes), v.Frames, terminal.Bytes(v.TableBytes), terminal.Bytes(v.Made), v.Windows, terminal.Bytes(v.WindowBytes))
	return err
}

// writeDictionary writes the dictionary of one frame.
func writeDictionary(o deltaInfoOptions, t *delta.Table, env Env) error {
	if o.dictionary >= len(t.Frames) {
		return usagef("--dictionary is %d, expected a frame from 0 to %d", o.dictionary, len(t.Frames)-1)
	}
	frame := t.Frames[o.dictionary]
	if err := install.WriteDictionary(t, frame, o.from, o.output); err != nil {
		return err
	}
	_, err := printable.Fprintf(env.Stdout, "frame %d: %d bytes at %d of the delta, for %d ranges from %d on, %d bytes\n",
		o.dictionary, frame.Packed, frame.At, frame.Count, frame.First, frame.Length)
	return err
}
