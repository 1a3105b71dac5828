package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/install"
	"updater/verify"
)

type verifyOptions struct {
	documentOptions
	role string
	json bool
}

// refusal states why a document is not trusted or must not be installed, and which signature that is about.
type refusal struct {
	Code   int       `json:"code"` // exit code
	Reason string    `json:"reason"`
	Hint   string    `json:"hint,omitempty"`
	KeyID  string    `json:"key_id,omitempty"`
	UserID string    `json:"user_id,omitempty"`
	Time   time.Time `json:"time,omitzero"` // creation time by the signature
}

// refused is the verdict of an error.
type verifyVerdict struct {
	install.Verdict
	Refused *refusal `json:"refused,omitempty"` // why it is not trusted
}

func refusalOf(err error) *refusal {
	r := &refusal{Reason: err.Error()}
	r.Code, r.Hint = classify(err)
	if s, ok := errors.AsType[*verify.SignatureError](err); ok {
		r.KeyID, r.UserID, r.Time = s.KeyID, s.UserID, s.Time
	}
	return r
}

func newVerify(env Env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [flags] [IMAGE]",
		Short: "Check the signature of a bmap, and an image against it; touches nothing",
		Args:  argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := runVerify(cmd.Context(), cmd.Flags().Changed("config"), o, first(args), env)
			switch {
			case err == nil:
				return newReport(env, o.json).verified(v)
			case !o.json || isUsage(err):
				return err
			}
			return errors.Join(&reportedError{err: err}, env.json(verifyVerdict{Refused: refusalOf(err)}))
		},
	}
	f := cmd.Flags()
	o.AddFlags(f)
	f.StringVar(&o.role, "role", "", "partition role `NAME` that the image is for (default: what the bmap says)")
	f.BoolVar(&o.json, "json", false, "print the verdict as JSON")
	return cmd
}

// benchError adds advice for a run without a configuration to the error of a missing one, unless it was named.
func benchError(err error, configNamed bool) error {
	if configNamed || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &config.Error{Err: err, Advice: "name the certificate with --keyring; on a device write the configuration, see updater.toml(5)"}
}

// runVerify needs the configuration only for what the command line does not say.
func runVerify(ctx context.Context, configNamed bool, o verifyOptions, image string, env Env) (*install.Verdict, error) {
	r := install.VerifyRequest{
		Config: env.bench(), Keyring: o.keyring, Documents: o.documents(), Image: image, Role: o.role,
		Device: len(o.keyring) == 0 || configNamed,
	}
	if image == "" && o.bmap == "" {
		return nil, usagef("nothing to verify; name an image or --bmap")
	}
	if r.Device {
		var err error
		if r.Config, err = env.config(o.config); err != nil {
			return nil, benchError(err, configNamed)
		}
	}
	return install.Verify(ctx, r, env.inputs(env.warn))
}
