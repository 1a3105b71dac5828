package main

import (
	"context"

	"github.com/spf13/cobra"

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
