package bmap

import (
	"fmt"
	"strconv"
)

// parseDecimal reads a number written in plain decimal: digits only, no sign, no leading zero (which some readers take
// for octal), no overflow of int64.
func parseDecimal(text string) (int64, error) {
	if text == "" {
		return 0, fmt.Errorf("is empty, expected a decimal number")
	}
	for i := range len(text) {
		if c := text[i]; c < '0' || c > '9' {
			return 0, fmt.Errorf("is %.40q, expected a decimal number", text)
		}
	}
	if text[0] == '0' && len(text) > 1 {
		return 0, fmt.Errorf("is %.40q, expected a decimal number without leading zeros", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("is %.40q, expected a number below 2^63", text)
	}
	return n, nil
}
