package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"updater/state"
	"updater/update"
	"updater/verify"
)

type verifyOptions struct {
	trustOptions
	role string
	json bool
}

// verdict is the result of verify.
type verdict struct {
	Trusted       bool            `json:"trusted"`
	Signers       []verify.Signer `json:"signers"`
	TrustedTime   time.Time       `json:"trusted_time,omitzero"` // the clock that it was judged by
	Product       string          `json:"product,omitempty"`
	Version       string          `json:"version,omitempty"`
	Role          string          `json:"role,omitempty"`
	RollbackIndex int64           `json:"rollback_index,omitempty"`
	ImageBytes    int64           `json:"image_bytes"`
	MappedBytes   int64           `json:"mapped_bytes"`
	Ranges        int             `json:"ranges"`
	ImageVerified bool            `json:"image_verified"` // the image was given, and every mapped range matches
	Warnings      []string        `json:"warnings,omitempty"`
	Refused       *refusal        `json:"refused,omitempty"` // why it is not trusted
}

// refusal says why a document is not trusted or must not be installed, and which signature that is about.
type refusal struct {
	Code   int       `json:"code"` // exit code
	Reason string    `json:"reason"`
	Hint   string    `json:"hint,omitempty"`
	KeyID  string    `json:"key_id,omitempty"`
	UserID string    `json:"user_id,omitempty"`
	Time   time.Time `json:"time,omitzero"` // when the signature says it was made
}

// refused is the verdict of an error.
func refused(err error) *verdict {
	r := &refusal{Reason: err.Error()}
	r.Code, r.Hint = classify(err)
	if s, ok := errors.AsType[*verify.SignatureError](err); ok {
		r.KeyID, r.UserID, r.Time = s.KeyID, s.UserID, s.Time
	}
	return &verdict{Refused: r}
}

func newVerify(env Env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [flags] [IMAGE]",
		Short: "Check the signature of a bmap, and an image against it; touches nothing",
		Args:  argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := runVerify(cmd.Context(), cmd.Flags().Changed("config"), o, args, env)
			switch {
			case err == nil:
				return newReport(env, o.json).verified(v)
			case !o.json || is[*usageError](err):
				return err
			}
			return errors.Join(&reportedError{err: err}, env.json(refused(err)))
		},
	}
	f := cmd.Flags()
	o.AddFlags(f)
	f.StringVar(&o.role, "role", "", "partition role `NAME` that the image is for (default: what the bmap says)")
	f.BoolVar(&o.json, "json", false, "print the verdict as JSON")
	return cmd
}

// runVerify needs the configuration only for what the command line does not say.
func runVerify(ctx context.Context, configNamed bool, o verifyOptions, args []string, env Env) (*verdict, error) {
	image := ""
	if len(args) == 1 {
		image = args[0]
	}
	if image == "" && o.bmap == "" {
		return nil, usagef("nothing to verify; name an image or --bmap")
	}
	c := update.Conditions{Product: update.AnyProduct, Role: o.role}
	config := new(Config)
	var known state.State
	if len(o.keyring) == 0 || configNamed {
		var err error
		if config, err = LoadConfig(o.config); err != nil {
			return nil, err
		}
		known = remembered(config, env)
		c.Product, c.Require, c.Floor = config.Product, config.Trust.required(), known.Floor
	}
	var err error
	if c.Policy, err = config.policy(o.keyring, known.Time); err != nil {
		return nil, err
	}
	from, err := config.Source.origins(env, env.warn, known.Time)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	files, err := o.find(ctx, image, from)
	if err != nil {
		return nil, err
	}
	doc, err := update.Accept(files.unverifiedBmap, files.unverifiedSig, c)
	if err != nil {
		return nil, err
	}
	v := &verdict{
		Trusted: true, Signers: doc.Signers, TrustedTime: c.Policy.Time.UTC(), Warnings: doc.Warnings,
		Ranges: doc.Map.Len(), ImageBytes: doc.Map.ImageSize(), MappedBytes: doc.Map.MappedBytes(),
	}
	if u := doc.Map.Update(); u != nil {
		v.Product, v.Version, v.Role, v.RollbackIndex = u.Product, u.Version, u.Role, u.RollbackIndex
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

// remembered is what the device's state store holds, read without any claim. A host that checks for a device has none;
// the verdict then is that of a new device, with a warning.
func remembered(config *Config, env Env) state.State {
	if config.State.Device == "" {
		return state.State{Floor: config.Release.RollbackIndex}
	}
	m, err := readMemory(config)
	if err != nil {
		env.warn("the device's floor and last time are not known: %v", err)
		return state.State{Floor: config.Release.RollbackIndex}
	}
	for _, w := range m.warnings {
		env.warn("%s", w)
	}
	return m.state()
}
