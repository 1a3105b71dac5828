package blockdev

import "fmt"

// WriteBlocksAt writes p like [Device.WriteAt], but past the page cache if p is made of whole logical blocks and there is
// O_DIRECT. It is for small structures: the page cache writes whole pages, and before it changes a part of one it reads the
// rest, which fails next to an unreadable sector, even if the write covers that sector and would repair it. [Device.Sync]
// makes the write durable. An error poisons the device.
func (d *Device) WriteBlocksAt(p []byte, off int64) (int, error) {
	if d.direct == nil || len(p) == 0 || (d.base+off)%d.align != 0 || int64(len(p))%d.align != 0 {
		return d.WriteAt(p, off)
	}
	if err := d.check("writing", off, int64(len(p))); err != nil {
		return 0, err
	}
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	done := 0
	for done < len(p) {
		n := copy(*buf, p[done:])
		got, err := pwrite(d.direct, (*buf)[:n], d.base+off+int64(done))
		done += got
		if err != nil {
			return done, d.poison(fmt.Errorf("writing %s at %d: %w", d.name, off+int64(done), err))
		}
	}
	return done, nil
}
