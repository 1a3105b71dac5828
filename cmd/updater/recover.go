package main

import (
	"github.com/spf13/cobra"

	"updater/device"
)

func newRecover(env Env) *cobra.Command {
	var o bootOptions
	reboot := false
	cmd := o.command("recover [flags]", "Have the boot loader start the recovery at the next boot", noArgs, func(cmd *cobra.Command, _ []string) error {
		err := o.change(cmd.Context(), env, func(d *device.Device) (string, error) {
			return "the recovery boots next, once", d.RequestRecovery(cmd.Context())
		})
		if err != nil || !reboot {
			return err
		}
		return device.Reboot()
	})
	cmd.Long = `recover sets the one-shot request that the boot loader's script looks for: next_entry=recovery in
GRUB's environment block, recovery=1 in U-Boot's environment. No slot changes.`
	cmd.Flags().BoolVar(&reboot, "reboot", false, "reboot into it now")
	return cmd
}
