package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"updater/bmap"
	"updater/install"
	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/source"
	"updater/update"
)

// bmapVerdict is the result of bmap verify.
type bmapVerdict struct {
	Matches     bool       `json:"matches"`
	Ranges      int        `json:"ranges"`
	MappedBytes int64      `json:"mapped_bytes"`
	Bad         []badRange `json:"bad"`
}

// badRange is a range whose bytes do not match the map.
type badRange struct {
	Index  int    `json:"index"`
	First  int64  `json:"first_block"`
	Last   int64  `json:"last_block"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Got    string `json:"got"`
	Want   string `json:"want"`
}

func newBmapVerify(env Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [flags] BMAP IMAGE|DEVICE",
		Short: "Compare an image or a device with a bmap; does not check its signature",
		Long: `verify reads every mapped range of an image, or of a device that it was written to,
on all CPUs, and lists each one that differs. A device is read past the page cache. A
compressed image is decoded, and the first bad range ends the run. Unmapped blocks are
not looked at. A disk whose backup GPT was moved by bmap copy differs where its
partition table is.`,
		Args: argsN(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := newReport(env, asJSON)
			m, err := install.ReadUnverifiedMap(args[0])
			if err != nil {
				return out.failed(err)
			}
			err = compareImage(cmd.Context(), m.Map, args[1], env, out)
			return out.compared(args, m.Map, err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	return cmd
}

// compared prints the verdict, with every bad range on standard output.
func (r *report) compared(args []string, m *bmap.Map, err error) error {
	v := bmapVerdict{Matches: err == nil, Ranges: m.Len(), MappedBytes: m.MappedBytes(), Bad: []badRange{}}
	for _, bad := range mismatches(err) {
		v.Bad = append(v.Bad, badRange{bad.Index, bad.Range.First, bad.Range.Last, bad.Range.Offset, bad.Range.Length, bad.Got, bad.Range.Checksum})
	}
	switch {
	case r.asJSON && (err == nil || len(v.Bad) > 0):
		jsonErr := r.env.json(v)
		if err == nil {
			return jsonErr
		}
		r.env.unprinted(jsonErr)
		return &reportedError{err: err}
	case err == nil:
		_, err = printable.Fprintf(r.env.Stdout, "%s matches %s: %d ranges, %s\n", args[1], args[0], v.Ranges, terminal.Bytes(v.MappedBytes))
		return err
	}
	for _, bad := range mismatches(err) {
		printable.Fprintf(r.env.Stdout, "bad %v, %s at byte %d\n", bad, terminal.Bytes(bad.Range.Length), bad.Range.Offset)
	}
	return r.failed(err)
}

// mismatches are all bad ranges in an error.
func mismatches(err error) []*bmap.MismatchError {
	if all, ok := errors.AsType[*bmap.MismatchesError](err); ok {
		return all.Mismatches
	}
	if one, ok := errors.AsType[*bmap.MismatchError](err); ok {
		return []*bmap.MismatchError{one}
	}
	return nil
}

// compareImage compares an image with a map: a raw file or device in parallel, all else as a stream.
func compareImage(ctx context.Context, m *bmap.Map, path string, env Env, out *report) error {
	from := install.NewOrigins(env.bench(), env.inputs(out.Warn), time.Time{})
	defer from.Close()
	img, _, err := from.Open(ctx, path)
	if err != nil {
		return err
	}
	defer img.Close()
	if _, isURL, _ := source.ParseURL(path); img.Codec() != "raw" || path == "-" || isURL {
		if err := m.CheckSummed(); err != nil {
			return err
		}
		return update.CheckImage(ctx, m, img)
	}
	progress, stop := out.Meter("comparing")
	defer stop()
	return install.CompareRaw(ctx, m, path, progress)
}
