package delta_test

import (
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// TestMain holds that no goroutine of the package outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	left := running()
	for i := 0; i < 100 && left != ""; i++ {
		time.Sleep(20 * time.Millisecond)
		left = running()
	}
	if left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s", left)
		code = 1
	}
	os.Exit(code)
}

// running lists the stacks of the goroutines in the package.
func running() (stacks string) {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(stack, "updater/delta.") {
			stacks += stack + "\n\n"
		}
	}
	return stacks
}
