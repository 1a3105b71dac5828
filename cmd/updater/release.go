package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/install"
	"updater/internal/atomicfile"
	"updater/internal/printable"
	"updater/release"
	"updater/verify"
)

func newRelease(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Make, show and check releases: all images of a slot in one signed document",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newReleaseCreate(env), newReleaseInfo(env), newReleaseVerify(env), newReleaseTar(env))
	return cmd
}

type releaseCreateOptions struct {
	contents release.Contents
	expires  string
	keyring  string
	meta     []string
	output   string
	json     bool
}

func newReleaseCreate(env Env) *cobra.Command {
	var o releaseCreateOptions
	cmd := &cobra.Command{
		Use:   "create [flags] ROLE[@SLOT]=IMAGE...",
		Short: "Make the block maps of images and the document that pins them",
		Long: `create writes release.toml, which names the image of each role of a slot and pins the
block map of each by sha256. ROLE@SLOT=IMAGE is a variant for one slot; such a role needs
one for every slot. The images and maps stay where they are, below the folder of the
document.

A block map beside an image (IMAGE.bmap, without .zst, .gz, .xz, .lz4 or .bz2) is taken and
compared with the raw image where that is there; delete it after the image has changed.
Without one it is made of the raw image and written beside it.

With SOURCE_DATE_EPOCH in the environment, the release says that time as created. The same
images and options give the same bytes then.

Sign the document with plain gpg --armor --detach-sign release.toml, or gpg --clearsign.`,
		Args: argsN(1, 128),
		RunE: func(cmd *cobra.Command, args []string) error { return runReleaseCreate(cmd.Context(), o, args, env) },
	}
	f, c := cmd.Flags(), &o.contents
	f.StringVarP(&o.output, "output", "o", release.DocumentName, "write the document to `FILE`")
	f.StringVar(&c.Product, "product", "", "product `NAME` of the devices it is for")
	f.StringArrayVar(&c.Hardware, "hardware", nil, "hardware revision `NAME` it is for; may be repeated (default: every revision)")
	f.StringVar(&c.Version, "version", "", "version `TEXT`, for people and records")
	f.Int64Var(&c.RollbackIndex, "rollback-index", 0, "rollback index `N`, which only grows")
	f.StringVar(&o.expires, "expires", "", "last moment to install, RFC 3339 `TIME`")
	f.StringVar(&c.Notes, "notes", "", "notes for people, `TEXT` or an address")
	f.StringVar(&o.keyring, "carry", "", "keyring document `FILE` that devices install first, below the folder of the document")
	f.StringArrayVar(&o.meta, "meta", nil, "string for hooks and reports, `KEY=VALUE`; may be repeated")
	f.BoolVar(&o.json, "json", false, "print the release as JSON")
	return cmd
}

func runReleaseCreate(ctx context.Context, o releaseCreateOptions, args []string, env Env) error {
	options, err := o.options(args)
	if err != nil {
		return err
	}
	progress, stop := newReport(env, o.json).Meter("reading")
	options.Progress = progress
	built, err := release.Build(ctx, options)
	stop()
	if e, ok := errors.AsType[*release.SyntaxError](err); ok {
		return usagef("%w", e)
	}
	if err != nil {
		return err
	}
	for _, w := range built.Warnings {
		env.warn("%s", w)
	}
	for _, path := range slices.Sorted(maps.Keys(built.Maps)) {
		if err := atomicfile.Write(path, built.Maps[path], 0o644); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(o.output, built.Release.Encode(), 0o644); err != nil {
		return err
	}
	view := viewRelease(built.Release)
	if o.json {
		return env.json(view)
	}
	view.print(env.Stdout)
	env.done("written to %s; sign it: gpg --armor --detach-sign %s\n", o.output, o.output)
	return nil
}

func (o releaseCreateOptions) options(args []string) (release.BuildOptions, error) {
	b := release.BuildOptions{Contents: o.contents, Dir: filepath.Dir(o.output)}
	for _, arg := range args {
		label, image, ok := strings.Cut(arg, "=")
		role, slot, variant := strings.Cut(label, "@")
		if !ok || role == "" || image == "" || variant && slot == "" {
			return b, usagef("image is %q, expected ROLE=IMAGE or ROLE@SLOT=IMAGE", arg)
		}
		b.Parts = append(b.Parts, release.Part{Role: role, Slot: slot, Image: image})
	}
	for _, pair := range o.meta {
		key, value, ok := strings.Cut(pair, "=")
		if _, twice := b.Contents.Meta[key]; !ok || twice {
			return b, usagef("--meta is %q, expected KEY=VALUE with each key once", pair)
		}
		if b.Contents.Meta == nil {
			b.Contents.Meta = map[string]string{}
		}
		b.Contents.Meta[key] = value
	}
	var err error
	if o.expires != "" {
		if b.Contents.Expires, err = time.Parse(time.RFC3339, o.expires); err != nil {
			return b, usagef("--expires: %w", err)
		}
	}
	if o.keyring != "" {
		if b.Contents.Keyring, err = install.RefToKeyring(o.output, o.keyring); err != nil {
			return b, err
		}
	}
	b.Contents.Created, err = creationTime()
	return b, err
}

// releaseView is a release for people and machines.
type releaseView struct {
	Identity string `json:"identity"`
	release.Contents
}

func viewRelease(r *release.Release) releaseView { return releaseView{r.Identity(), r.Contents()} }

// print relies on the texts of a release being printable.
func (v releaseView) print(w io.Writer) {
	printable.Fprintf(w, "release %s of %s, rollback index %d, created %s\n", v.Version, v.Product, v.RollbackIndex, timeText(v.Created))
	printable.Fprintf(w, "identity %s\n", v.Identity)
	if len(v.Hardware) > 0 {
		printable.Fprintf(w, "hardware %s\n", strings.Join(v.Hardware, ", "))
	}
	if !v.Expires.IsZero() {
		printable.Fprintf(w, "expires %s\n", timeText(v.Expires))
	}
	if v.Notes != "" {
		printable.Fprintf(w, "notes %s\n", v.Notes)
	}
	for _, i := range v.Images {
		label := i.Role
		if i.Slot != "" {
			label += "@" + i.Slot
		}
		printable.Fprintf(w, "image %s %s, block map %s\n", label, i.File, i.Bmap)
	}
	for _, key := range slices.Sorted(maps.Keys(v.Meta)) {
		printable.Fprintf(w, "meta %s = %s\n", key, v.Meta[key])
	}
	if k := v.Keyring; k.Number != 0 {
		printable.Fprintf(w, "keyring %d %s\n", k.Number, k.Path)
	}
}

// releasePath is the document that an argument names: the file, or release.toml in a folder. Without an argument it is release.toml in the
// current folder.
func releasePath(args []string) string {
	path := "."
	if len(args) == 1 {
		path = args[0]
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, release.DocumentName)
	}
	return path
}

func newReleaseInfo(env Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info [flags] [RELEASE]",
		Short: "Show what a release says; does not check its signature",
		Long: `info shows RELEASE, a document or a folder that holds release.toml (default: the current
folder). It reads a clearsigned document too.`,
		Args: argsN(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := releasePath(args)
			r, err := install.ParseUnverified(path, release.TypeRelease, release.Parse)
			if err != nil {
				return err
			}
			if asJSON {
				return env.json(viewRelease(r))
			}
			viewRelease(r).print(env.Stdout)
			_, err = fmt.Fprintln(env.Stdout, "the signature was not checked; updater release verify does that")
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func newReleaseTar(env Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "tar [flags] [RELEASE]",
		Short: "Write a release and all its files as one tar stream",
		Long: `tar writes RELEASE, a document or a folder that holds release.toml (default: the current
folder), with its signature, block maps and images, in the order in which a device can
take them from a stream. The same files give the same bytes. The signature is not checked.`,
		Args: argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, document := cmd.Context(), releasePath(args)
			if output == "" || output == "-" {
				return release.WriteArchive(ctx, env.data(), document)
			}
			return atomicfile.WriteFunc(output, 0o644, func(w io.Writer) error { return release.WriteArchive(ctx, w, document) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` (default: standard output)")
	return cmd
}

type releaseVerifyOptions struct {
	config    string
	sig       string
	keyring   []string
	documents bool
	json      bool
}

// releaseVerdict is the result of release verify as JSON.
type releaseVerdict struct {
	Trusted        bool            `json:"trusted"`
	Signers        []verify.Signer `json:"signers,omitempty"`
	TrustedTime    time.Time       `json:"trusted_time,omitzero"` // the clock that it was judged by
	Release        *releaseView    `json:"release,omitempty"`
	ImagesVerified bool            `json:"images_verified"`
	Refused        *refusal        `json:"refused,omitempty"` // why it is not trusted
}

func newReleaseVerify(env Env) *cobra.Command {
	var o releaseVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify [flags] [RELEASE]",
		Short: "Check the signature of a release, its block maps and images; touches nothing",
		Long: `verify checks RELEASE, a document or a folder that holds release.toml (default: the current
folder): the signature by the keys of the configuration or of --keyring, the checksum of
each block map, and every mapped byte of each image. With a configuration it also checks
that the release is for this device and all roles of its slots, and not below its floor.`,
		Args: argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := runReleaseVerify(cmd.Context(), cmd.Flags().Changed("config"), o, releasePath(args), env)
			switch {
			case err == nil && o.json:
				return env.json(releaseVerdict{
					Trusted: true, Signers: v.Signers, TrustedTime: v.TrustedTime, Release: new(viewRelease(v.Release)), ImagesVerified: v.ImagesVerified,
				})
			case err == nil:
				return printReleaseVerdict(env.Stdout, v)
			case !o.json || isUsage(err):
				return err
			}
			return errors.Join(&reportedError{err: err}, env.json(releaseVerdict{Refused: refusalOf(err)}))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", config.DefaultPath, "device configuration `FILE`")
	f.StringVar(&o.sig, "sig", "", "detached signature `FILE` (default: RELEASE.asc, RELEASE.sig, or inside the document)")
	f.StringArrayVar(&o.keyring, "keyring", nil, "certificate file or folder `PATH`, instead of the configured ones; may be repeated")
	f.BoolVar(&o.documents, "documents", false, "check the document and the block maps, without reading the images")
	f.BoolVar(&o.json, "json", false, "print the verdict as JSON")
	return cmd
}

func printReleaseVerdict(w io.Writer, v *install.ReleaseVerdict) error {
	printable.Fprintf(w, "trusted: signed by %s\n", signers(v.Signers))
	viewRelease(v.Release).print(w)
	checked := "the block maps match"
	if v.ImagesVerified {
		checked = "the block maps and images match"
	}
	_, err := fmt.Fprintln(w, checked)
	return err
}

// runReleaseVerify needs the configuration only for what the command line does not say.
func runReleaseVerify(ctx context.Context, configNamed bool, o releaseVerifyOptions, path string, env Env) (*install.ReleaseVerdict, error) {
	r := install.VerifyReleaseRequest{
		Config: &config.Config{Build: env.build()}, Device: len(o.keyring) == 0 || configNamed,
		Keyring: o.keyring, Path: path, Signature: o.sig, Documents: o.documents,
	}
	if r.Device {
		var err error
		if r.Config, err = env.config(o.config); err != nil {
			return nil, err
		}
	}
	return install.VerifyRelease(ctx, r, env.inputs(env.warn))
}
