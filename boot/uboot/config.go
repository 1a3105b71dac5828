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
}

// ParseFWEnvConfig reads the classic form of fw_env.config(5): "device offset size [sector-size [sectors
// [disable-lock]]]", one line a copy, # begins a comment. Further fields concern flash and are checked for
// form only.
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
		areas = append(areas, AreaConfig{Device: w[0], Offset: numbers[0], Size: numbers[1]})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%d copies of the environment, expected 1 or 2", len(areas))
	}
	return areas, nil
}
