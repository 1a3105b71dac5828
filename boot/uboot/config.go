package uboot

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// AreaConfig is the location of one copy of the environment.
type AreaConfig struct {
	Device string // device node, partition or file
	Offset int64  // bytes; a negative one counts from the end
	Size   int64  // bytes
	Blocks int64  // of flash: erase blocks that it may use, so that bad ones can be skipped; 0 means as many as it needs
}

// maxConfig is the largest fw_env.config in bytes.
const maxConfig = 64 << 10

// ParseFWEnvConfig parses a fw_env.config in its classic or its YAML form, with numbers as libubootenv reads them. One copy,
// or two different ones, are expected.
func ParseFWEnvConfig(r io.Reader) ([]AreaConfig, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("has more than %d bytes", maxConfig)
	}
	parse := parseClassic
	if isYAML(string(text)) {
		parse = parseYAML
	}
	areas, err := parse(string(text))
	if err != nil {
		return nil, err
	}
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%d copies of the environment, expected 1 or 2", len(areas))
	}
	for _, a := range areas {
		if a.Size <= 0 || a.Size > maxEnv {
			return nil, fmt.Errorf("size of %s is %d, expected 1 to %d", a.Device, a.Size, maxEnv)
		}
	}
	if len(areas) == 2 && overlap(areas[0], areas[1]) {
		return nil, fmt.Errorf("both copies of the environment use the same bytes of %s", areas[0].Device)
	}
	return areas, nil
}

// overlap reports whether two copies share bytes. Offsets from the end are only compared with each other.
func overlap(a, b AreaConfig) bool {
	return a.Device == b.Device && (a.Offset < 0) == (b.Offset < 0) && a.Offset < b.Offset+b.Size && b.Offset < a.Offset+a.Size
}

// parseClassic parses lines "device offset size [sector-size [sectors [disable-lock]]]". As in sscanf with "%ms %lli %zx %zx
// %lx %d" (libubootenv, src/uboot_env.c; U-Boot, tools/env/fw_env.c), only the offset is decimal without 0x; sizes are
// always hexadecimal. The sector size is not needed: the flash reports it.
func parseClassic(text string) ([]AreaConfig, error) {
	var areas []AreaConfig
	n := 0
	for line := range strings.Lines(text) {
		n++
		w := strings.Fields(line)
		for i := range w {
			if strings.HasPrefix(w[i], "#") {
				w = w[:i]
				break
			}
		}
		if len(w) == 0 {
			continue
		}
		if len(w) < 3 || len(w) > 6 {
			return nil, fmt.Errorf("line %d: %d fields, expected device, offset, size and up to three more", n, len(w))
		}
		numbers := make([]int64, 5)
		for i, s := range w[1:] {
			base := 16
			if i == 0 || i == 4 {
				base = 0
			}
			var err error
			if numbers[i], err = number(s, base); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		a := AreaConfig{Device: w[0], Offset: numbers[0], Size: numbers[1], Blocks: numbers[3]}
		if a.Blocks < 0 || a.Blocks > maxEnv {
			return nil, fmt.Errorf("line %d: %d sectors, expected 0 to %d", n, a.Blocks, maxEnv)
		}
		areas = append(areas, a)
	}
	return areas, nil
}

// number parses a number as strtoll(3) does, all of s. Base 0 is 16 after 0x, 8 after 0, and 10 otherwise.
func number(s string, base int) (int64, error) {
	digits := strings.TrimLeft(s, "+-")
	hex, isHex := strings.CutPrefix(strings.ToLower(digits), "0x")
	switch {
	case isHex:
		digits, base = hex, 16
	case base == 0 && strings.HasPrefix(digits, "0"):
		base = 8
	case base == 0:
		base = 10
	}
	sign := s[:len(s)-len(strings.TrimLeft(s, "+-"))]
	v, err := strconv.ParseInt(strings.TrimPrefix(sign, "+")+digits, base, 64)
	if err != nil || len(sign) > 1 {
		return 0, fmt.Errorf("%.40q is not a number", s)
	}
	return v, nil
}
