package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// delta prints the bytes that an update from one root file system to another would fetch, by the index of blocks, by RAUC's, and by deltas: for a
// new image that was made anew, for one that was updated in place, and for erofs.
func (b *bench) delta(oldTar, newTar string) error {
	oldImg, err := b.image(oldTar, "old.img")
	if err != nil {
		return err
	}
	newImg, err := b.image(newTar, "new.img")
	if err != nil {
		return err
	}
	if err := b.fetches("made anew", oldImg, newImg); err != nil {
		return err
	}
	if _, err := exec.LookPath("rsync"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: rsync is not installed; left out: an image that was updated in place")
	} else if updated, err := b.updated(oldImg, newImg); err != nil {
		return err
	} else if err := b.fetches("updated in place", oldImg, updated); err != nil {
		return err
	}
	return b.erofs(oldTar, newTar)
}

// erofs prints the deltas between two compressed images.
func (b *bench) erofs(oldTar, newTar string) error {
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: mkfs.erofs is not installed; left out: erofs")
		return nil
	}
	oldImg, err := b.image(oldTar, "old.erofs")
	if err != nil {
		return err
	}
	newImg, err := b.image(newTar, "new.erofs")
	if err != nil {
		return err
	}
	info, err := os.Stat(newImg)
	if err != nil {
		return err
	}
	fmt.Printf("\nNew image, erofs with lz4hc: %.1f MB.\n\n", mb(info.Size()))
	return b.compare(oldImg, newImg, info.Size())
}

// updated makes a copy of the old image and writes into it the files that differ in the new one.
func (b *bench) updated(oldImg, newImg string) (string, error) {
	path := filepath.Join(b.dir, "updated.img")
	return path, b.sh(`[ -e "$1" ] && exit; mkdir -p from to; cp --sparse=always "$2" "$1.part"
		trap 'umount from to 2>/dev/null || true' EXIT
		mount -o loop,ro,noload "$3" from; mount -o loop,noatime "$1.part" to
		rsync -aHX --checksum --delete --inplace from/ to/; umount from to; mv "$1.part" "$1"`, path, oldImg, newImg)
}

// fetches prints one table.
func (b *bench) fetches(how, oldImg, newImg string) error {
	if err := b.sh(`[ -e "$1.zst" ] || zstd -q -3 -T1 "$1"`, newImg); err != nil {
		return err
	}
	plain, err := os.Stat(newImg + ".zst")
	if err != nil {
		return err
	}
	fmt.Printf("\nNew image, %s; as one .zst -3 stream: %.1f MB.\n\n", how, mb(plain.Size()))
	return b.compare(oldImg, newImg, plain.Size())
}

// compare prints the tables of a pair whose new image has plain bytes as one .zst stream.
func (b *bench) compare(oldImg, newImg string, plain int64) error {
	fmt.Print("| index | index MB | packed MB | found in the old image | fetched MB | of the new image | requests |\n|---|--:|--:|--:|--:|--:|--:|\n")
	if err := blocks(oldImg, newImg, plain); err != nil {
		return err
	}
	if err := b.moved(oldImg, newImg, plain); err != nil {
		return err
	}
	return b.deltas(oldImg, newImg, plain)
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// blocks counts the 4 KiB blocks, except zeros, that the old image does not hold. RAUC reads them uncompressed from its
// bundle.
func blocks(oldImg, newImg string, plain int64) error {
	const block = 4096
	have := map[[32]byte]bool{sha256.Sum256(make([]byte, block)): true}
	each := func(name string, do func(sum [32]byte)) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, block)
		for {
			if _, err := io.ReadFull(f, buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			do(sha256.Sum256(buf))
		}
	}
	if err := each(oldImg, func(sum [32]byte) { have[sum] = true }); err != nil {
		return err
	}
	var n, all int64
	if err := each(newImg, func(sum [32]byte) {
		all++
		if !have[sum] {
			n++
		}
	}); err != nil {
		return err
	}
	fmt.Printf("| RAUC, blocks of 4 KiB, raw | %.2f | - | %.1f %% | %.1f | %.2f | - |\n", mb(all*32), 100*float64(all-n)/float64(all), mb(n*block), float64(n*block)/float64(plain))
	return nil
}
