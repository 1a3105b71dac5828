package uboot

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// AreaConfig is one line of a fw_env.config: where a copy of the environment lies.
type AreaConfig struct {
	Device string // device node, partition or file
	Offset int64  // bytes; negative counts from the end
	Size   int64  // bytes
	Blocks int64  // of flash: erase blocks that it may use, so that bad ones can be passed over; 0 is as many as it needs
}

// ParseFWEnvConfig reads the classic form of fw_env.config(5): "device offset size [sector-size [sectors
// [disable-lock]]]", one line a copy, # begins a comment. The sector size is that of the flash, which
// tells it itself.
func ParseFWEnvConfig(r io.Reader) ([]AreaConfig, error) {
	var areas []AreaConfig
	lines := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		w := strings.Fields(text)
		if len(w) == 0 {
			continue
		}
		if len(w) < 3 || len(w) > 6 {
			return nil, fmt.Errorf("line %d: %d fields, expected device, offset, size and up to three more", n, len(w))
		}
		numbers := make([]int64, len(w)-1)
		for i, s := range w[1:] {
			v, err := strconv.ParseInt(s, 0, 64)
			if err != nil {
				return nil, fmt.Errorf("line %d: %q is no number", n, s)
			}
			numbers[i] = v
		}
		if numbers[1] <= 0 || numbers[1] > maxEnv {
			return nil, fmt.Errorf("line %d: size is %d, expected 1 to %d", n, numbers[1], maxEnv)
		}
		a := AreaConfig{Device: w[0], Offset: numbers[0], Size: numbers[1]}
		if len(numbers) > 3 {
			if a.Blocks = numbers[3]; a.Blocks < 0 || a.Blocks > maxEnv {
				return nil, fmt.Errorf("line %d: %d sectors", n, a.Blocks)
			}
		}
		areas = append(areas, a)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%d copies of the environment, expected 1 or 2", len(areas))
	}
	return areas, nil
}
