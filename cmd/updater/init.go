package main

import (
	"github.com/spf13/cobra"

	"updater/device/survey"
)

// drafted is a configuration that was written.
type drafted struct {
	File  string   `json:"file"`
	Notes []string `json:"notes"` // findings, and facts that could not be known
}

func newInit(env Env) *cobra.Command {
	var o survey.Options
	var out, slot string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init [DISK]",
		Short: "Draft the configuration of a device from its disk",
		Long: `init looks at a disk, or a disk image file, and drafts its configuration: partitions, boot
loader and firmware. It writes the draft and, where the boot loader has none yet, its first state as
a file beside it, and prints what it found and what it could not know. It overwrites no file, and
changes no boot state without --first-state. Without DISK it looks at the disk that booted.`,
		Args: argsN(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Disk = first(args)
			s, lines, err := survey.Draft(o, out)
			if err != nil {
				return err
			}
			if asJSON {
				env.doneJSON(drafted{File: out, Notes: lines})
				lines = nil
			}
			for _, line := range lines {
				env.done("%s\n", line)
			}
			if slot == "" {
				return nil
			}
			c, err := env.config(out)
			if err != nil {
				return err
			}
			return survey.ApplyFirstState(cmd.Context(), c, s.Disk, slot)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "config.toml", "new configuration `FILE`")
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	f.StringVar(&o.Backend, "backend", "", "boot loader `NAME`, as in boot.backend")
	f.StringVar(&o.Product, "product", "", "`NAME` that releases for this device carry")
	f.StringVar(&slot, "first-state", "", "also make `SLOT` the boot loader's choice and the others no choice, on the disk")
	return cmd
}
