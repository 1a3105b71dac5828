package abdisk

import (
	"context"
	"os"
	"path/filepath"
)

const userID = "Demo release key <release@demo.invalid>"

// Keys makes an ed25519 signing key in the GnuPG folder DIR/gnupg (without passphrase: for tests only) and returns the path of the
// exported public key (armoured).
func (b *Builder) Keys(ctx context.Context) (string, error) {
	public := b.path("release.asc")
	return public, b.cached(public, func() error {
		home := b.path("gnupg")
		if err := emptyDir(home); err != nil {
			return err
		}
		if err := os.Chmod(home, 0o700); err != nil {
			return err
		}
		if err := b.gpg(ctx, "--passphrase", "", "--quick-gen-key", userID, "ed25519", "sign", "never"); err != nil {
			return err
		}
		return b.gpg(ctx, "--armor", "--yes", "--output", public, "--export", userID)
	}, userID)
}

// Sign makes the detached armoured signature FILE.asc of a file (replacing an old one) with the key of Keys, and returns its path.
func (b *Builder) Sign(ctx context.Context, file string) (string, error) {
	if _, err := b.Keys(ctx); err != nil {
		return "", err
	}
	sig := file + ".asc"
	return sig, b.gpg(ctx, "--armor", "--yes", "--output", sig, "--local-user", userID, "--detach-sign", file)
}

// gpg runs GnuPG on our folder through a short path: the agent's socket must fit into 108 bytes. The agent is ended afterwards.
func (b *Builder) gpg(ctx context.Context, args ...string) error {
	tmp, err := os.MkdirTemp("/tmp", "gpg")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	home, err := filepath.Abs(b.path("gnupg"))
	if err != nil {
		return err
	}
	short := filepath.Join(tmp, "h")
	if err := os.Symlink(home, short); err != nil {
		return err
	}
	c := command{env: []string{"GNUPGHOME=" + short}}
	_, err = c.run(ctx, "gpg", append([]string{"--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"}, args...)...)
	c.run(context.WithoutCancel(ctx), "gpgconf", "--kill", "all")
	return err
}
