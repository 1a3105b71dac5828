package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"updater/bmap"
	"updater/pack"
)

// delta prints what an update from one root file system to another would fetch, for several lengths of ranges, and
// what RAUC's index of 4 KiB blocks would: for a new image that was made anew, and for one that was updated in place.
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
	fmt.Printf("\nNew image, erofs with lz4hc: %.1f MB, in place of a .zst.\n\n%s", mb(info.Size()), indexHead)
	if err := blocks(oldImg, newImg, info.Size()); err != nil {
		return err
	}
	if err := b.moved(oldImg, newImg, info.Size()); err != nil {
		return err
	}
	return b.deltas(oldImg, newImg, info.Size())
}

const indexHead = "| index | index MB | packed MB | found in the old image | fetched MB | of the .zst | requests |\n|---|--:|--:|--:|--:|--:|--:|\n"

// updated makes a copy of the old image and writes the files into it that differ in the new one.
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
	fmt.Print(indexHead)
	for _, size := range []string{"16K", "64K", "256K", "1M", "4M"} {
		if err := b.ranges(size, oldImg, newImg, plain.Size()); err != nil {
			return err
		}
	}
	if err := blocks(oldImg, newImg, plain.Size()); err != nil {
		return err
	}
	if err := b.moved(oldImg, newImg, plain.Size()); err != nil {
		return err
	}
	return b.deltas(oldImg, newImg, plain.Size())
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// ranges counts for one length of ranges. Parts closer than 64 KiB become one request, as the installer makes them.
func (b *bench) ranges(size, oldImg, newImg string, plain int64) error {
	mapFile, packed := newImg+"."+size+".bmap", newImg+"."+size+".zst"
	if err := b.run(b.updater, "bmap", "create", "--max-range", size, "-o", mapFile, newImg); err != nil {
		return err
	}
	if err := b.run(b.updater, "pack", "--bmap", mapFile, "-o", packed, newImg); err != nil {
		return err
	}
	xml, err := os.ReadFile(mapFile)
	if err != nil {
		return err
	}
	m, err := bmap.Parse(xml)
	if err != nil {
		return err
	}
	old, err := os.Open(oldImg)
	if err != nil {
		return err
	}
	defer old.Close()
	have := map[string]bool{}
	for _, r := range m.Ranges() {
		sum := m.NewHash()
		if _, err := io.Copy(sum, io.NewSectionReader(old, r.Offset, r.Length)); err != nil {
			return err
		}
		have[fmt.Sprintf("%x", sum.Sum(nil))] = true
	}
	var found, fetched int64
	missing := map[int64]bool{}
	for _, r := range m.Ranges() {
		if have[r.Checksum] {
			found += r.Length
			continue
		}
		missing[r.Offset] = true
	}
	f, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	frames, err := pack.ReadTable(f, info.Size(), pack.Frames(m.ImageSize(), m.Len()))
	if err != nil {
		return err
	}
	requests, end := 0, int64(-1<<20)
	for _, fr := range frames {
		if !inRange(m, missing, fr) {
			continue
		}
		if gap := fr.At - end; gap <= 64<<10 {
			fetched += gap + fr.Packed
		} else {
			fetched += fr.Packed
			requests++
		}
		end = fr.At + fr.Packed
	}
	table := int64(17 + 8*len(frames))
	fmt.Printf("| ranges of %s | %.2f + %.2f | %.1f | %.1f %% | %.1f | %.2f | %d |\n", size, mb(int64(len(xml))), mb(table), mb(info.Size()), 100*float64(found)/float64(m.MappedBytes()), mb(fetched), float64(fetched)/float64(plain), requests)
	return nil
}

// inRange reports whether a frame belongs to a missing range: one that begins with the frame, or one that continues in it.
func inRange(m *bmap.Map, missing map[int64]bool, f pack.Frame) bool {
	lo, hi := 0, m.Len()
	for lo < hi {
		if mid := (lo + hi) / 2; m.Range(mid).Offset+m.Range(mid).Length <= f.Offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < m.Len() && m.Range(lo).Offset <= f.Offset && missing[m.Range(lo).Offset]
}

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
