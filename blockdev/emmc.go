package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EMMC is the part of an eMMC's extended CSD register that concerns durability and wear (JESD84-B51, 7.4).
type EMMC struct {
	Revision int   `json:"revision"`              // EXT_CSD_REV; 8 is 5.1
	Cache    int64 `json:"cache_bytes,omitempty"` // size of the volatile cache, 0 for none
	CacheOn  bool  `json:"cache_on"`              // data is on the medium only after a flush
	Reliable bool  `json:"write_reliability"`     // in all partitions a power cut damages only the data being written
	Used     int   `json:"life_used_percent"`     // the higher of both estimates, rounded up to tens; 0 is unknown
	PreEOL   int   `json:"pre_eol,omitempty"`     // reserved blocks: 1 normal, 2 80 % used, 3 90 % used
}

// extCSDSize is the length of the register in bytes.
const extCSDSize = 512

// ParseExtCSD reads an extended CSD register of 512 bytes.
func ParseExtCSD(b []byte) (EMMC, error) {
	if len(b) != extCSDSize {
		return EMMC{}, fmt.Errorf("parsing the extended CSD: %d bytes, expected %d", len(b), extCSDSize)
	}
	const (
		cacheCtrl, wrRelSet, rev, cacheSize, preEOL, lifeA, lifeB = 33, 167, 192, 249, 267, 268, 269
		allPartitions                                             = 0x1f // the user area and four general purpose ones
	)
	e := EMMC{Revision: int(b[rev]), PreEOL: int(b[preEOL])}
	e.Cache = (int64(b[cacheSize]) | int64(b[cacheSize+1])<<8 | int64(b[cacheSize+2])<<16 | int64(b[cacheSize+3])<<24) * 1024 / 8 // kilobits
	e.CacheOn = e.Cache > 0 && b[cacheCtrl]&1 != 0
	e.Reliable = b[wrRelSet]&allPartitions == allPartitions
	if used := max(b[lifeA], b[lifeB]); used <= 11 {
		e.Used = int(used) * 10
	}
	return e, nil
}

// String formats the register for one line of a log.
func (e EMMC) String() string {
	words := []string{"eMMC"}
	if e.CacheOn {
		words = append(words, fmt.Sprintf("with a cache of %d KiB", e.Cache>>10))
	}
	if !e.Reliable {
		words = append(words, "without write reliability")
	}
	if e.Used > 0 {
		words = append(words, fmt.Sprintf("%d %% of its life used", e.Used))
	}
	return strings.Join(words, " ")
}

// emmc reads the register of an eMMC, nil if the disk is not an eMMC or the request fails: only root may read it, and only from
// the whole disk (drivers/mmc/core/block.c, mmc_blk_check_blkdev).
func emmc(sysfs string) *EMMC {
	if sysText(sysfs, "device/type") != "MMC" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(sysfs)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, extCSDSize)
	// struct mmc_ioc_cmd of include/uapi/linux/mmc/ioctl.h, the same on all architectures.
	cmd := struct {
		write, acmd int32
		opcode, arg uint32
		response    [4]uint32
		flags       uint32
		size, count uint32
		sleep       [2]uint32
		timeoutNs   uint32
		timeoutMs   uint32
		_           uint32
		data        uint64
	}{
		opcode: 8,    // SEND_EXT_CSD
		flags:  0xb5, // R1 with data to the host
		size:   extCSDSize, count: 1,
		data: uint64(uintptr(unsafe.Pointer(&b[0]))),
	}
	const mmcIocCmd = 3<<30 | unsafe.Sizeof(cmd)<<16 | 179<<8 // _IOWR(MMC_BLOCK_MAJOR, 0, struct mmc_ioc_cmd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), mmcIocCmd, uintptr(unsafe.Pointer(&cmd)))
	runtime.KeepAlive(b)
	if errno != 0 {
		return nil
	}
	e, err := ParseExtCSD(b)
	if err != nil {
		return nil
	}
	return &e
}
