package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
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
	json     bool
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
	f.BoolVar(&o.json, "json", false, "print the keyring as JSON")
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
	if o.json {
		env.doneJSON(viewKeyring(k))
		return nil
	}
	viewKeyring(k).print(env.Stdout)
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
	return install.Certificates(parts[0], may)
}

func newKeyringInstall(env Env) *cobra.Command {
	var o bootOptions
	var sig string
	cmd := o.command("install [flags] KEYRING", "Trust the next keyring from now on", argsN(1, 1), func(cmd *cobra.Command, args []string) error {
		return o.change(cmd.Context(), env, func(d *device.Device) (string, error) {
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info [flags] [KEYRING]",
		Short: "Show a keyring document, or what this device trusts now",
		Args:  argsN(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return showTrust(env, path, asJSON)
			}
			k, err := install.ParseUnverified(args[0], release.TypeKeyring, release.ParseKeyring)
			if err != nil {
				return err
			}
			if asJSON {
				return env.json(viewKeyring(k))
			}
			viewKeyring(k).print(env.Stdout)
			_, err = fmt.Fprintln(env.Stdout, "the signature was not checked; updater keyring install does that")
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/updater/config.toml", "device configuration `FILE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// keyringView is a keyring document, or the trust of a device, for people and machines.
type keyringView struct {
	Number     int64            `json:"number"`
	At         string           `json:"at"` // when it was created; of a device, its trusted time
	MinSigners int64            `json:"min_signers"`
	Roles      map[string]int64 `json:"role_signers,omitempty"`
	Keys       []keyView        `json:"keys"`
}

type keyView struct {
	Fingerprint string   `json:"fingerprint"`
	Documents   []string `json:"documents"`
	Roles       []string `json:"roles,omitempty"` // none is every role
}

func viewKeyring(k *release.Keyring) keyringView {
	c := k.Contents()
	v := keyringView{Number: c.Number, At: timeText(c.Created), MinSigners: max(c.MinSigners, 1), Roles: map[string]int64{}}
	for _, r := range c.Roles {
		v.Roles[r.Role] = r.MinSigners
	}
	for _, cert := range c.Certificates {
		v.add(cert.Fingerprint, cert.Documents, cert.Roles)
	}
	return v
}

func (v *keyringView) add(fingerprint string, documents, roles []string) {
	if len(documents) == 0 {
		documents = verify.DefaultDocuments()
	}
	v.Keys = append(v.Keys, keyView{fingerprint, documents, roles})
}

func (v keyringView) print(w io.Writer) {
	printable.Fprintf(w, "keyring %d, %d signers, at %s\n", v.Number, v.MinSigners, v.At)
	for _, role := range slices.Sorted(maps.Keys(v.Roles)) {
		printable.Fprintf(w, "role %s: %d signers\n", role, v.Roles[role])
	}
	for _, k := range v.Keys {
		text := "every role"
		if len(k.Roles) > 0 {
			text = strings.Join(k.Roles, ", ")
		}
		printable.Fprintf(w, "key %s signs %s for %s\n", k.Fingerprint, strings.Join(k.Documents, ", "), text)
	}
}

// showTrust prints what the device trusts.
func showTrust(env Env, path string, asJSON bool) error {
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
	p := trust.Policy
	v := keyringView{Number: trust.Number, At: p.Time.UTC().Format(time.RFC3339), MinSigners: int64(max(p.MinSigners, 1)), Roles: map[string]int64{}}
	for role, n := range p.RoleSigners {
		v.Roles[role] = int64(n)
	}
	for _, fingerprint := range p.Keyring.Fingerprints() {
		v.add(fingerprint, p.Documents[fingerprint], p.Roles[fingerprint])
	}
	if asJSON {
		return env.json(v)
	}
	v.print(env.Stdout)
	return nil
}
