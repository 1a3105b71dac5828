package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"updater/bmap"
	"updater/device/config"
	"updater/install"
	"updater/internal/atomicfile"
)

type bmapCreateOptions struct {
	output    string
	maxRange  string
	unwritten string
	checksum  string
	scanZeros bool
	update    bmap.Update
	expires   string

	imageChecksum, json bool
}

func newBmapCreate(env Env) *cobra.Command {
	var o bmapCreateOptions
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE",
		Short: "Make the bmap of an image",
		Long: `create asks the file system where IMAGE has data, hashes that on all CPUs, makes sure
that all else reads as zero, and prints the bmap (version 2.0, as bmaptool reads it).

The image must not change while the bmap is made, nor afterwards. A change during the
run is noticed by its size, mtime, ctime or inode and is an error that leaves no bmap
behind; a change of a mapped block after it makes every install fail. A byte that is
not zero in a hole is an error too.

On a block device, and on a file system that cannot tell where holes are, the blocks
that hold a byte other than zero are mapped, as --scan-zeros does everywhere.

--checksum is sha256, sha384 or sha512. sha1 and md5 can be made and are shown and
compared, but never installed from.

With SOURCE_DATE_EPOCH in the environment, an update element says that time as Created.
The same image and options give the same bytes.

Sign the bmap with plain gpg --armor --detach-sign FILE.bmap, or gpg --clearsign.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runBmapCreate(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (default: standard output)")
	f.StringVar(&o.maxRange, "max-range", sizeFlag(bmap.DefaultMaxRange), "split mapped runs into ranges of at most `SIZE` (K, M, G); 0 does not split")
	f.StringVar(&o.checksum, "checksum", "sha256", "hash `NAME` of the checksums")
	f.StringVar(&o.unwritten, "unwritten", "data", "what preallocated, never written extents are: `data` or hole")
	f.BoolVar(&o.scanZeros, "scan-zeros", false, "map what is not zero, whatever the file system says")
	f.StringVar(&o.update.Product, "product", "", "sign for this product `NAME` only")
	f.StringVar(&o.update.Version, "version", "", "version `TEXT` of the image, for people and records")
	f.Int64Var(&o.update.RollbackIndex, "rollback-index", 0, "rollback index `N`, which only grows")
	f.StringVar(&o.update.Role, "role", "", "sign for this partition role `NAME` only")
	f.StringVar(&o.expires, "expires", "", "last moment to install, RFC 3339 `TIME`")
	f.StringVar(&o.update.Unmapped, "unmapped", "", "what unmapped blocks become: `zero` (default) or keep")
	f.BoolVar(&o.json, "json", false, "with --output, print what bmap info does as JSON")
	f.BoolVar(&o.imageChecksum, "image-checksum", false, "sign the checksum of the whole image too; reads it once more")
	return cmd
}

func runBmapCreate(ctx context.Context, o bmapCreateOptions, image string, env Env) error {
	options, err := o.options()
	if err != nil {
		return err
	}
	if info, err := os.Stat(image); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return usagef("image %s is empty; build it before its block map", image)
	}
	progress, stop := newReport(env, false).Meter("reading")
	options.Progress = progress
	m, err := install.CreateMap(ctx, image, options, o.imageChecksum)
	stop()
	if err != nil {
		return err
	}
	if o.output == "" || o.output == "-" {
		_, err = env.data().Write(m.Encode())
		return err
	}
	err = atomicfile.Write(o.output, m.Encode(), 0o644)
	if err == nil && o.json {
		env.doneJSON(describeBmap(m, false))
	}
	return err
}

func (o bmapCreateOptions) options() (bmap.CreateOptions, error) {
	c := bmap.CreateOptions{ChecksumType: o.checksum, UnwrittenAsHole: o.unwritten == "hole", ScanZeros: o.scanZeros}
	n, err := config.ParseSize(o.maxRange)
	if err != nil {
		return c, usagef("--max-range: %w", err)
	}
	if c.MaxRange = n; n == 0 {
		c.MaxRange = -1
	}
	if o.unwritten != "data" && o.unwritten != "hole" {
		return c, usagef("--unwritten is %q, expected data or hole", o.unwritten)
	}
	if o.update.RollbackIndex < 0 {
		return c, usagef("--rollback-index is %d, expected no negative number", o.update.RollbackIndex)
	}
	if o.expires != "" {
		if o.update.Expires, err = time.Parse(time.RFC3339, o.expires); err != nil {
			return c, usagef("--expires: %w", err)
		}
	}
	if o.update != (bmap.Update{}) {
		if o.update.Created, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
			return c, err
		}
		c.Update = &o.update
	}
	if o.imageChecksum && !slices.Contains([]string{"sha256", "sha384", "sha512"}, o.checksum) {
		return c, usagef("--image-checksum needs a --checksum of sha256, sha384 or sha512")
	}
	if err := c.Check(); err != nil {
		return c, &usageError{err: err}
	}
	return c, nil
}

// sourceDate reads SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch): seconds since 1970. Without it
// there is no time, so that the same input always gives the same bytes.
func sourceDate(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 253402300799 { // the end of the year 9999, which RFC 3339 can still write
		return time.Time{}, usagef("SOURCE_DATE_EPOCH is %q, expected seconds since 1970", text)
	}
	return time.Unix(n, 0).UTC(), nil
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// sizeFlag writes a size as config.ParseSize reads it.
func sizeFlag(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%dM", n>>20)
	}
	return fmt.Sprintf("%dK", n>>10)
}
