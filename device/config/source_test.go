package config_test

import (
	"testing"

	"updater/device/config"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "64K": 64 << 10, "64KiB": 64 << 10, "1M": 1 << 20, "3GiB": 3 << 30,
		"": -1, "K": -1, "-1": -1, "1KK": -1, "1MB": -1, "1iB": -1, "9999999999G": -1, "0x10": -1, "1.5M": -1,
	} {
		got, err := config.ParseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}
