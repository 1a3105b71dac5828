package main

import (
	"context"

	"github.com/spf13/cobra"

	"updater/boot"
)

func newRecover(env Env) *cobra.Command {
	var o bootOptions
	reboot := false
	cmd := o.command("recover [flags]", "Have the boot loader start the recovery at the next boot", noArgs, func(cmd *cobra.Command, _ []string) error {
		err := o.change(cmd.Context(), env, func(ctx context.Context, d *device) (string, error) {
			return "the recovery boots next, once", bootError("", "asking for the recovery", boot.RequestRecovery(ctx, d.backend))
		})
		if err != nil || !reboot {
			return err
		}
		return askReboot()
	})
	cmd.Long = `recover sets the one-shot request that the boot loader's script looks for: next_entry=recovery in
GRUB's environment block, recovery=1 in U-Boot's environment. No slot changes.`
	cmd.Flags().BoolVar(&reboot, "reboot", false, "reboot into it now")
	return cmd
}
