package boottest

import (
	"os"
	"strconv"
	"testing"
)

// Rounds is how many inputs a differential test generates; UPDATER_DIFFERENTIAL sets another number.
func Rounds(t testing.TB, short int) int {
	t.Helper()
	text := os.Getenv("UPDATER_DIFFERENTIAL")
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
