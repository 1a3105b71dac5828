package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// maxSize is the largest size in a plan, so that the sum of all partitions cannot overflow.
const maxSize = 1 << 50

// Size is a number of bytes, written as an integer or as a string with K, M, G or T.
type Size int64

// UnmarshalTOML accepts 1048576 and "1M".
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 || v > maxSize {
			return fmt.Errorf("%d is not a size, expected 0 to 1024T", v)
		}
		*s = Size(v)
		return nil
	case string:
		n, err := parseSize(v)
		*s = Size(n)
		return err
	}
	return fmt.Errorf("%v is not a size", v)
}

// Share is the size of a partition: bytes, per cent of the usable disk, or the rest that the others leave.
type Share struct {
	Bytes   int64
	Percent int64
	Rest    bool
}

// UnmarshalTOML accepts 1048576, "64M", "25%" and "rest".
func (s *Share) UnmarshalTOML(v any) error {
	text, ok := v.(string)
	switch {
	case ok && text == "rest":
		s.Rest = true
		return nil
	case ok && strings.HasSuffix(text, "%"):
		n, err := strconv.ParseInt(strings.TrimSuffix(text, "%"), 10, 64)
		if err != nil || n < 1 || n > 100 {
			return fmt.Errorf("%q is not a share, expected 1%% to 100%%", text)
		}
		s.Percent = n
		return nil
	}
	var n Size
	if err := n.UnmarshalTOML(v); err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%v is not the size of a partition", v)
	}
	s.Bytes = int64(n)
	return nil
}

func parseSize(text string) (int64, error) {
	digits, unit := strings.TrimSuffix(text, "iB"), int64(1)
	if i := strings.IndexAny(digits, "KMGT"); i == len(digits)-1 && i > 0 {
		unit = int64(1) << (10 * (1 + strings.Index("KMGT", digits[i:])))
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > maxSize/unit {
		return 0, fmt.Errorf("%q is not a size, expected a number with K, M, G or T, up to 1024T", text)
	}
	return n * unit, nil
}
