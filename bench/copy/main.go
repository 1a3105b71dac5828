// Command copy copies a root file system to a partition in memory with updater and with its peers, in turns, and prints
// the medians as tables. It needs root. Peers that are not installed are listed and skipped.
//
//	go run ./bench/copy -updater bin/updater ROOT.tar
//	go run ./bench/copy -updater bin/updater -delta OLD.tar NEW.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"updater/bmap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	ctx     context.Context
	dir     string // of images, kept between runs
	updater string
	runs    int
	sizeMiB int
	forms   []string
	slow    bool // the target has slowRate
}

func run(ctx context.Context) error {
	b := bench{ctx: ctx}
	flag.StringVar(&b.dir, "dir", "build/bench", "folder of the images, kept between runs")
	flag.StringVar(&b.updater, "updater", "bin/updater", "the binary to measure")
	flag.IntVar(&b.runs, "runs", 5, "runs of every command, in turns")
	flag.IntVar(&b.sizeMiB, "size", 1024, "MiB of the image")
	forms := flag.String("forms", "raw,gz,zst3,zst19,packed,lz4,xz,xzmulti", "forms of the image")
	flag.BoolVar(&b.slow, "slow", false, "copy to a device of 40 MB/s, with bmaptool and updater only")
	delta := flag.Bool("delta", false, "compare two root file systems instead: what an update would fetch")
	flag.Parse()
	b.forms = strings.Split(*forms, ",")
	if os.Getuid() != 0 {
		return errors.New("loop devices and the owners of files need root")
	}
	var err error
	if b.updater, err = filepath.Abs(b.updater); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if *delta && flag.NArg() == 2 {
		return b.delta(flag.Arg(0), flag.Arg(1))
	}
	if *delta || flag.NArg() != 1 {
		return errors.New("usage: bench ROOT.tar, or bench -delta OLD.tar NEW.tar")
	}
	return b.copies(flag.Arg(0))
}

// sh runs a script with arguments in the folder of the images.
func (b *bench) sh(script string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, "bash", append([]string{"-euc", script, "bench"}, args...)...)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// image makes an image of a root file system, the same bytes from the same archive: erofs if the name ends in erofs, else ext4.
func (b *bench) image(tar, name string) (string, error) {
	path := filepath.Join(b.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	tar, err := filepath.Abs(tar)
	if err != nil {
		return "", err
	}
	return path, b.sh(`rm -rf root "$2.part"; mkdir root; tar -C root --numeric-owner -xf "$1"
		find root -newermt @1700000000 -print0 | xargs -0r touch -h -d @1700000000
		case $2 in *.erofs)
			mkfs.erofs --quiet -zlz4hc -T1700000000 -U 11111111-2222-3333-4444-555555555555 "$2.part" root
			rm -rf root; mv "$2.part" "$2"; exit ;;
		esac
		truncate -s "$3M" "$2.part"
		E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -t ext4 -U 11111111-2222-3333-4444-555555555555 -E hash_seed=11111111-2222-3333-4444-555555555555,lazy_itable_init=0 -d root "$2.part"
		rm -rf root; cp --sparse=always "$2.part" "$2"; rm "$2.part"`, tar, name, fmt.Sprint(b.sizeMiB))
}

func readMap(path string) (*bmap.Map, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bmap.Parse(data)
}
