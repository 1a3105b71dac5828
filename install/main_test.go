package install_test

import (
	"os"
	"testing"

	"updater/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Cleanly(m).Run()) }
