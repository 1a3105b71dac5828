package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"updater/verify"
)

// Source is [source]: how images are fetched and decoded.
type Source struct {
	Proxy        string   `toml:"proxy"`         // address; the environment is ignored
	CA           string   `toml:"ca"`            // PEM file of the only roots to trust
	ClientCert   string   `toml:"client_cert"`   // PEM files
	ClientKey    string   `toml:"client_key"`    //
	TokenFile    string   `toml:"token_file"`    //
	TokenType    string   `toml:"token_type"`    // of the Authorization header; "" is Bearer
	TokenHost    string   `toml:"token_host"`    // the only host that gets it
	StallTimeout Duration `toml:"stall_timeout"` // such as "30s"
	GiveUp       Duration `toml:"give_up"`
	Timeout      Duration `toml:"timeout"`
	RateLimit    ByteSize `toml:"rate_limit"`  // of all downloads together, per second; 0 means none
	MaxSize      ByteSize `toml:"max_size"`    // such as "2G"
	MaxBmap      ByteSize `toml:"max_bmap"`    // of a block map, 64M at most; 0 is 4M
	ZstdWindow   ByteSize `toml:"zstd_window"` //
	XZDict       ByteSize `toml:"xz_dict"`     //
}

// minRateLimit is well above the rate below which a download ends, in bytes per second.
const minRateLimit = 4 << 10

// Duration is a positive time in the form of time.ParseDuration.
type Duration time.Duration

// UnmarshalText parses it.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a positive time such as 30s or 2h", text)
	}
	*d = Duration(v)
	return nil
}

// ByteSize is a positive number of bytes in the form of [ParseSize].
type ByteSize int64

// UnmarshalText parses it.
func (b *ByteSize) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil || v == 0 {
		return fmt.Errorf("%q is not a positive size such as 64M", text)
	}
	*b = ByteSize(v)
	return nil
}

// resolve makes relative paths count from the folder of the configuration.
func (c *Source) resolve(dir string) {
	for _, p := range []*string{&c.CA, &c.ClientCert, &c.ClientKey, &c.TokenFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// Check reports keys that need each other.
func (c *Source) Check() error {
	var errs []error
	if (c.TokenFile == "") != (c.TokenHost == "") {
		errs = append(errs, errors.New("source.token_file and source.token_host need each other: a token is sent to one host only"))
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		errs = append(errs, errors.New("source.client_cert and source.client_key need each other"))
	}
	errs = append(errs, oneOf("source.token_type", c.TokenType, "", "Bearer", "TargetToken", "GatewayToken"))
	if c.RateLimit != 0 && c.RateLimit < minRateLimit {
		errs = append(errs, fmt.Errorf("source.rate_limit is %d bytes per second, expected at least %d", c.RateLimit, minRateLimit))
	}
	if c.MaxBmap > verify.MaxDocumentSize {
		errs = append(errs, fmt.Errorf("source.max_bmap is %d bytes, expected at most %d", c.MaxBmap, verify.MaxDocumentSize))
	}
	return errors.Join(errs...)
}

// ParseSize reads a number of bytes with an optional binary unit: K, M, G, or KiB, MiB, GiB.
func ParseSize(s string) (int64, error) {
	short := strings.TrimSuffix(s, "iB")
	digits := strings.TrimRight(short, "KMG")
	unit, ok := map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[short[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || short != s && unit == 1 || n < 0 || n > (1<<63-1)/unit {
		return 0, fmt.Errorf("%q is not a size; expected a number with K, M or G", s)
	}
	return n * unit, nil
}
