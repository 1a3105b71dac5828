package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are the command lines of the help of each verb; a test parses them.
var examples = map[string][]string{
	"install": {
		"updater install image.img.zst --reboot", "updater install https://updates.example.com/image.img.zst --progress json",
		"ssh host cat image.img | updater install --bmap image.img.bmap -",
	},
	"varlink":                  {"updater varlink --idle 5s"},
	"verify":                   {"updater verify image.img.zst", "updater verify --bmap image.img.bmap --json"},
	"status":                   {"updater status", "updater status --json"},
	"mark good":                {"updater mark good"},
	"mark bad":                 {"updater mark bad B"},
	"activate":                 {"updater activate B --tries 1"},
	"rollback":                 {"updater rollback"},
	"check":                    {"updater check", "updater check --json | jq -r .reason"},
	"update":                   {"updater update --reboot", "updater update --download-only"},
	"report":                   {"updater report", "updater report --now"},
	"scrub":                    {"updater scrub", "updater scrub --repair"},
	"serve":                    {"updater serve"},
	"recover":                  {"updater recover --reboot"},
	"history":                  {"updater history", "updater history -n 1 --json"},
	"health":                   {"updater health && updater mark good", "updater health --reboot", "updater health --watchdog --every 1m"},
	"doctor":                   {"updater doctor", `updater doctor --json | jq '.findings[] | select(.severity == "failure")'`},
	"bmap create":              {"updater bmap create -o image.img.bmap image.img", "updater bmap create --product board --version 2.1 --rollback-index 21 -o image.img.bmap image.img"},
	"bmap info":                {"updater bmap info image.img.bmap", "updater bmap info --json image.img.bmap"},
	"bmap verify":              {"updater bmap verify image.img.bmap /dev/sdb"},
	"bmap copy":                {"updater bmap copy image.wic.zst /dev/sdb", "updater bmap copy --allow-unsigned --grow-last image.wic /dev/sdb"},
	"release create":           {"updater release create --product board --version 2.1 --rollback-index 21 rootfs=rootfs.ext4 boot@A=boot-a.vfat boot@B=boot-b.vfat"},
	"release info":             {"updater release info", "updater release info --json dist/release.toml"},
	"release verify":           {"updater release verify --keyring release.asc dist", "updater release verify --documents"},
	"release tar":              {"updater release tar -o release.tar dist", "updater release tar dist | ssh host 'cat > release.tar'"},
	"channel create":           {"updater channel create --product board"},
	"channel add":              {"updater channel add 2.1", "updater channel add --percent 5 --hours 72 2.1/release.toml"},
	"channel withdraw":         {"updater channel withdraw 2.1"},
	"channel renew":            {"updater channel renew --valid 168h"},
	"channel info":             {"updater channel info", "updater channel info --json"},
	"channel verify":           {"updater channel verify --config config.toml"},
	"keyring create":           {"updater keyring create --number 2 release.asc,documents=release+bmap+keyring channel.asc,documents=channel"},
	"keyring install":          {"updater keyring install keyring.toml"},
	"keyring info":             {"updater keyring info", "updater keyring info keyring.toml"},
	"pack":                     {"updater pack image.img", "updater pack --level 19 -o image.img.zst image.img"},
	"delta create":             {"updater delta create --from 1.0/image.img.zst 1.1/image.img.zst"},
	"delta info":               {"updater delta info image.img.zst.4f1c09a2e77b3d58.delta"},
	"provision":                {"updater provision --plan plan.toml --target /dev/sdb --target /dev/sdc", "updater provision --plan plan.toml --target /dev/sdb --check"},
	"provision token":          {"updater provision token --key factory.pem --serial A1007"},
	"provision records verify": {"updater provision records verify --spool /var/spool/updater --key station.pub"},
	"provision records list":   {"updater provision records list --spool /var/spool/updater --key station.pub"},
	"provision records export": {"updater provision records export --csv --spool /var/spool/updater --key station.pub"},
	"provision records send":   {"updater provision records send --plan plan.toml"},
	"config check":             {"updater config check", "updater config check --json config.toml"},
	"init":                     {"updater init", "updater init --product acme-gw disk.img", "updater init --first-state A"},
	"version":                  {"updater version"},
}

// addExamples gives every verb its examples.
func addExamples(cmd *cobra.Command) {
	if lines := examples[strings.TrimPrefix(cmd.CommandPath(), "updater ")]; lines != nil {
		cmd.Example = "  " + strings.Join(lines, "\n  ")
	}
	for _, sub := range cmd.Commands() {
		addExamples(sub)
	}
}
