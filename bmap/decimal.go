package bmap

import "fmt"

// maxDecimal is the largest int64.
const maxDecimal = "9223372036854775807"

// parseDecimal reads a number written in plain decimal: digits only, no sign, no leading zero (which some readers take
// for octal), no overflow of int64.
func parseDecimal(text []byte) (int64, error) {
	if len(text) == 0 {
		return 0, fmt.Errorf("is empty, expected a decimal number")
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("is %.40q, expected a decimal number", text)
		}
	}
	if text[0] == '0' && len(text) > 1 {
		return 0, fmt.Errorf("is %.40q, expected a decimal number without leading zeros", text)
	}
	if len(text) > len(maxDecimal) || len(text) == len(maxDecimal) && string(text) > maxDecimal {
		return 0, fmt.Errorf("is %.40q, expected a number below 2^63", text)
	}
	n := int64(0)
	for _, c := range text {
		n = n*10 + int64(c-'0')
	}
	return n, nil
}
