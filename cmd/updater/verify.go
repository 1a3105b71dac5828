package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"updater/bmap"
	"updater/source"
	"updater/update"
	"updater/verify"
)

type verifyOptions struct {
	trustOptions
	json bool
}

// verdict is the result of verify.
type verdict struct {
	Trusted       bool            `json:"trusted"`
	Signers       []verify.Signer `json:"signers"`
	Product       string          `json:"product,omitempty"`
	Version       string          `json:"version,omitempty"`
	ImageBytes    int64           `json:"image_bytes"`
	MappedBytes   int64           `json:"mapped_bytes"`
	Ranges        int             `json:"ranges"`
	ImageVerified bool            `json:"image_verified"` // the image was given, and every mapped range matches
}

func newVerify(env Env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [flags] [IMAGE]",
		Short: "Check the signature of a bmap, and an image against it; touches nothing",
		Args:  argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := newReport(env, o.json)
			v, err := runVerify(cmd.Context(), cmd.Flags().Changed("config"), o, args, env, out)
			if err != nil {
				return out.failed(err)
			}
			return out.verified(v)
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "print the verdict as JSON")
	return cmd
}

// runVerify needs the configuration only for what the command line does not say.
func runVerify(ctx context.Context, configNamed bool, o verifyOptions, args []string, env Env, out *report) (*verdict, error) {
	image := ""
	if len(args) == 1 {
		image = args[0]
	}
	if image == "" && o.bmap == "" {
		return nil, usagef("nothing to verify; name an image or --bmap")
	}
	config := new(Config)
	if len(o.keyring) == 0 || configNamed {
		var err error
		if config, err = LoadConfig(o.config); err != nil {
			return nil, err
		}
	}
	from, err := config.Source.origins(env, out.warn)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	trust, files, err := o.load(ctx, image, config.Keyring, from)
	if err != nil {
		return nil, err
	}
	product := config.Product
	if config.Boot.Backend == "" {
		product = update.AnyProduct
	}
	doc, err := update.Accept(files.unverifiedBmap, files.unverifiedSig, trust, product, "")
	if err != nil {
		return nil, err
	}
	v := &verdict{
		Trusted: true, Signers: doc.Signers, Ranges: doc.Map.Len(),
		ImageBytes: doc.Map.ImageSize(), MappedBytes: doc.Map.MappedBytes(),
	}
	if u := doc.Map.Update(); u != nil {
		v.Product, v.Version = u.Product, u.Version
	}
	if image == "" {
		return v, nil
	}
	img, _, err := from.open(ctx, image)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	v.ImageVerified = true
	return v, update.CheckImage(ctx, doc.Map, img)
}

func newBmap(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bmap",
		Short: "Make, show and check block maps",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBmapCreate(env), newBmapInfo(env), newBmapVerify(env))
	return cmd
}

type bmapInfo struct {
	Version      string       `json:"version"`
	ImageBytes   int64        `json:"image_bytes"`
	BlockBytes   int64        `json:"block_bytes"`
	Blocks       int64        `json:"blocks"`
	MappedBlocks int64        `json:"mapped_blocks"`
	MappedBytes  int64        `json:"mapped_bytes"`
	Ranges       int          `json:"ranges"`
	ChecksumType string       `json:"checksum_type"`
	Update       *bmap.Update `json:"update,omitempty"`
}

func newBmapInfo(env Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info [flags] BMAP",
		Short: "Show what a bmap says; does not check its signature",
		Args:  argsN(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := readBmap(args[0])
			if err != nil {
				return err
			}
			info := bmapInfo{
				Version: m.Version(), ImageBytes: m.ImageSize(), BlockBytes: m.BlockSize(), Blocks: m.BlocksCount(),
				MappedBlocks: m.MappedBlocks(), MappedBytes: m.MappedBytes(), Ranges: m.Len(), ChecksumType: m.ChecksumType(), Update: m.Update(),
			}
			if asJSON {
				return env.json(info)
			}
			_, err = fmt.Fprintf(env.Stdout, "bmap %s, checksums %s\nimage %s in %d blocks of %d bytes\nmapped %s in %d ranges\n",
				info.Version, info.ChecksumType, size(info.ImageBytes), info.Blocks, info.BlockBytes, size(info.MappedBytes), info.Ranges)
			if u := info.Update; u != nil && err == nil {
				_, err = fmt.Fprintf(env.Stdout, "update product %q, version %q, rollback index %d\n", u.Product, u.Version, u.RollbackIndex)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// readBmap parses a bmap, clearsigned or not, without judging its signature.
func readBmap(path string) (*bmap.Map, error) {
	data, err := readCapped(path, bmap.MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("reading the bmap: %w", err)
	}
	if verify.IsClearsigned(data) {
		return nil, usagef("%s is clearsigned; updater verify --bmap %s checks and shows it", path, path)
	}
	m, err := bmap.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func newBmapVerify(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "verify BMAP IMAGE",
		Short: "Compare an image with a bmap; does not check its signature",
		Args:  argsN(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := readBmap(args[0])
			if err != nil {
				return err
			}
			if err := compareImage(cmd.Context(), m, args[1], env); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "%s matches %s: %d ranges, %s\n", args[1], args[0], m.Len(), size(m.MappedBytes()))
			return err
		},
	}
}

// compareImage compares an image with a map. A raw file or device is read in parallel, and every bad range is
// reported; a compressed one is streamed, and the first bad range ends it.
func compareImage(ctx context.Context, m *bmap.Map, path string, env Env) error {
	from, err := SourceConfig{}.origins(env, env.warn)
	if err != nil {
		return err
	}
	defer from.Close()
	img, size, err := from.open(ctx, path)
	if err != nil {
		return err
	}
	defer img.Close()
	if _, isURL, _ := source.ParseURL(path); img.Codec() != "raw" || path == "-" || isURL {
		return update.CheckImage(ctx, m, img)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && size != m.ImageSize() {
		return &update.ImageError{Err: fmt.Errorf("%s has %d bytes, the bmap says %d", path, size, m.ImageSize())}
	}
	return bmap.Verify(ctx, m, f, nil)
}
