package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/install"
	"updater/internal/atomicfile"
	"updater/internal/printable"
	"updater/release"
	"updater/verify"
)

func newKeyring(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keyring",
		Short: "Change the keys that devices trust, in the field",
		Long: `A keyring document is the complete set of certificates that a device trusts, with their
revocations. Number N+1 replaces N whole: enough keys that may sign keyrings must have
signed it under the rules of N and under its own. The keyring that the configuration
names is number 0, or trust.keyring_number.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyringCreate(env), newKeyringInstall(env), newKeyringInfo(env))
	return cmd
}

type keyringCreateOptions struct {
	contents release.KeyringContents
	roles    []string
	output   string
}

func newKeyringCreate(env Env) *cobra.Command {
	var o keyringCreateOptions
	cmd := &cobra.Command{
		Use:   "create [flags] CERT[,documents=TYPE+...][,roles=ROLE+...]...",
		Short: "Make a keyring document of certificates",
		Long: `create writes keyring.toml from certificate files, as gpg --export writes them. documents
names the types of document that the keys of a file may sign (release, bmap, channel,
keyring, plan; default: release and bmap), roles the roles (default: every role). Name all
keys, also the revoked ones: a key that is missing is not trusted any more.

Sign the document with plain gpg --armor --detach-sign keyring.toml, with enough keys of
the keyring before it and of itself.`,
		Args: argsN(1, 64),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(args, env) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "keyring.toml", "write the document to `FILE`")
	f.Int64Var(&o.contents.Number, "number", 0, "number `N` of the keyring: one more than that of the keyring that it follows")
	f.Int64Var(&o.contents.MinSigners, "min-signers", 0, "distinct keys `N` that must sign a document (default: what the configuration says)")
	f.StringArrayVar(&o.roles, "role-signers", nil, "distinct keys that must sign for a role, `ROLE=N`; may be repeated")
	return cmd
}

func (o *keyringCreateOptions) run(args []string, env Env) (err error) {
	if o.contents.Created, err = creationTime(); err != nil {
		return err
	}
	for _, text := range o.roles {
		role, n, _ := strings.Cut(text, "=")
		signers, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return usagef("--role-signers is %q, expected ROLE=N", text)
		}
		o.contents.Roles = append(o.contents.Roles, release.RoleRule{Role: role, MinSigners: signers})
	}
	for _, arg := range args {
		certs, err := certificates(arg)
		if err != nil {
			return err
		}
		o.contents.Certificates = append(o.contents.Certificates, certs...)
	}
	k, err := release.NewKeyring(o.contents)
	if err != nil {
		return usagef("%w", err)
	}
	if err := atomicfile.Write(o.output, k.Encode(), 0o644); err != nil {
		return err
	}
	printKeyring(env.Stdout, k)
	env.done("written to %s; sign it: gpg --armor --detach-sign %s\n", o.output, o.output)
	return nil
}

// certificates reads the certificates of one argument and what they may sign.
func certificates(arg string) ([]release.Certificate, error) {
	parts := strings.Split(arg, ",")
	var may release.Certificate
	for _, p := range parts[1:] {
		key, list, _ := strings.Cut(p, "=")
		switch key {
		case "documents":
			may.Documents = strings.Split(list, "+")
		case "roles":
			may.Roles = strings.Split(list, "+")
		default:
			return nil, usagef("certificate %q: unknown word %q, expected documents= or roles=", parts[0], p)
		}
	}
	ring, err := verify.LoadKeyring(parts[0])
	if err != nil {
		return nil, err
	}
	var certs []release.Certificate
	for _, fingerprint := range ring.Fingerprints() {
		may.Fingerprint, may.OpenPGP = fingerprint, ring.Certificate(fingerprint)
		certs = append(certs, may)
	}
	return certs, nil
}

func newKeyringInstall(env Env) *cobra.Command {
	var o bootOptions
	var sig string
	cmd := o.command("install [flags] KEYRING", "Trust the next keyring from now on", argsN(1, 1), func(cmd *cobra.Command, args []string) error {
		return o.change(env, func(d *device.Device) (string, error) {
			now, installed, err := install.Keyring(cmd.Context(), d, args[0], sig, env.inputs(env.warn))
			text := "keyring %d is trusted now: %d keys"
			if !installed {
				text = "keyring %d was trusted before: %d keys"
			}
			if err != nil {
				return "", err
			}
			return fmt.Sprintf(text, now.Number, now.Policy.Keyring.Len()), nil
		})
	})
	cmd.Long = `install checks the keyring document KEYRING, a file or an address, against the keyring that
this device trusts, and keeps it in the state store. It needs a partition or a window of
a disk as state store. A device that loses its state store trusts the keyring of its
configuration again: only a new image and recovery make a revocation survive that.`
	cmd.Flags().StringVar(&sig, "sig", "", "detached signature `FILE` or address (default: beside the document, or in it)")
	return cmd
}

func newKeyringInfo(env Env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "info [flags] [KEYRING]",
		Short: "Show a keyring document, or what this device trusts now",
		Args:  argsN(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return showTrust(env, path)
			}
			k, err := install.ParseUnverified(args[0], release.TypeKeyring, release.ParseKeyring)
			if err != nil {
				return err
			}
			printKeyring(env.Stdout, k)
			_, err = fmt.Fprintln(env.Stdout, "the signature was not checked; updater keyring install does that")
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/updater/config.toml", "device configuration `FILE`")
	return cmd
}

func printKeyring(w io.Writer, k *release.Keyring) {
	c := k.Contents()
	printable.Fprintf(w, "keyring %d, created %s, %d signers\n", c.Number, timeText(c.Created), max(c.MinSigners, 1))
	for _, r := range c.Roles {
		printable.Fprintf(w, "role %s: %d signers\n", r.Role, r.MinSigners)
	}
	for _, cert := range c.Certificates {
		printKey(w, cert.Fingerprint, cert.Documents, cert.Roles)
	}
}

func printKey(w io.Writer, fingerprint string, documents, roles []string) {
	if len(documents) == 0 {
		documents = verify.DefaultDocuments()
	}
	text := "every role"
	if len(roles) > 0 {
		text = strings.Join(roles, ", ")
	}
	printable.Fprintf(w, "key %s signs %s for %s\n", fingerprint, strings.Join(documents, ", "), text)
}

// showTrust prints what the device trusts.
func showTrust(env Env, path string) error {
	c, err := env.config(path)
	if err != nil {
		return err
	}
	var known device.Known
	if c.State.Device != "" {
		k, err := device.ReadState(c)
		if err != nil {
			return err
		}
		known = *k
	}
	for _, w := range known.Warnings {
		env.warn("%s", w.Text)
	}
	trust, err := device.TrustOf(c, nil, known)
	if err != nil {
		return err
	}
	if trust.Warning != "" {
		env.warn("%s", trust.Warning)
	}
	printable.Fprintf(env.Stdout, "keyring %d, %d signers, at %s\n", trust.Number, max(trust.Policy.MinSigners, 1), trust.Policy.Time.UTC().Format(time.RFC3339))
	for _, fingerprint := range trust.Policy.Keyring.Fingerprints() {
		printKey(env.Stdout, fingerprint, trust.Policy.Documents[fingerprint], trust.Policy.Roles[fingerprint])
	}
	return nil
}
