package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/bmap"
)

type bmapCreateOptions struct {
	output   string
	maxRange string
	update   bmap.Update
	expires  string
}

func newBmapCreate(env Env) *cobra.Command {
	var o bmapCreateOptions
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE",
		Short: "Make the bmap of an image",
		Long: `create asks the file system where IMAGE has data, hashes that, makes sure that all
else reads as zero, and prints the bmap (version 2.0, as bmaptool reads it).

The image must not change while the bmap is made, nor afterwards: a change during
the run is noticed and refused, a later one makes every install fail. Sign the
bmap with plain gpg --armor --detach-sign FILE.bmap.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runBmapCreate(cmd.Context(), o, args[0], env) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (default: standard output)")
	f.StringVar(&o.maxRange, "max-range", "1M", "split mapped runs into ranges of at most `SIZE` (K, M, G); 0 does not split")
	f.StringVar(&o.update.Product, "product", "", "sign for this product `NAME` only")
	f.StringVar(&o.update.Version, "version", "", "version `TEXT` of the image, for people and records")
	f.Int64Var(&o.update.RollbackIndex, "rollback-index", 0, "rollback index `N`, which only grows")
	f.StringVar(&o.update.Role, "role", "", "sign for this partition role `NAME` only")
	f.StringVar(&o.expires, "expires", "", "last moment to install, RFC 3339 `TIME`")
	f.StringVar(&o.update.Unmapped, "unmapped", "", "what unmapped blocks become: `zero` (default) or keep")
	return cmd
}

func runBmapCreate(ctx context.Context, o bmapCreateOptions, image string, env Env) error {
	options, err := o.options()
	if err != nil {
		return err
	}
	f, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("opening the image: %w", err)
	}
	defer f.Close()
	m, err := bmap.Create(ctx, f, options)
	if err != nil {
		return err
	}
	if o.output == "" || o.output == "-" {
		_, err = env.Stdout.Write(m.Encode())
		return err
	}
	return writeFile(o.output, m.Encode())
}

func (o bmapCreateOptions) options() (bmap.CreateOptions, error) {
	var c bmap.CreateOptions
	n, err := parseSize(o.maxRange)
	if err != nil {
		return c, usagef("--max-range: %w", err)
	}
	if c.MaxRange = n; n == 0 {
		c.MaxRange = -1
	}
	if o.expires != "" {
		if o.update.Expires, err = time.Parse(time.RFC3339, o.expires); err != nil {
			return c, usagef("--expires: %w", err)
		}
	}
	if o.update != (bmap.Update{}) {
		c.Update = &o.update
	}
	return c, nil
}

// parseSize reads a number of bytes with an optional binary unit: K, M, G, or KiB, MiB, GiB.
func parseSize(s string) (int64, error) {
	short := strings.TrimSuffix(s, "iB")
	digits, unit := strings.TrimRight(short, "KMG"), int64(1)
	switch short[len(digits):] {
	case "":
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	default:
		return 0, fmt.Errorf("%q is no size; expected a number with K, M or G", s)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || short != s && unit == 1 || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is no size; expected a number with K, M or G", s)
	}
	return n * unit, nil
}

// writeFile puts data under name, whole or not at all: temporary file, fsync, rename, fsync of the folder.
func writeFile(name string, data []byte) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing %s: %w", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
