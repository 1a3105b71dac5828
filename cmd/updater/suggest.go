package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unknownCommand reports an unknown command and suggests the closest one.
func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	err := &usageError{err: usagef("unknown command %q", strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name())+" "+word))}
	if name := nearest(word, names); name != "" {
		err.hint = "did you mean " + cmd.CommandPath() + " " + name + "?"
	}
	return err
}

// bmaptoolNames are the options of bmaptool that mean the same as one here, under bmaptool's name.
var bmaptoolNames = map[string]string{"nobmap": "no-bmap", "bmap-sig": "sig", "psplash-pipe": "psplash"}

// asBmaptool lets the options of a command be given under bmaptool's names.
func asBmaptool(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(cmp.Or(bmaptoolNames[name], name))
}

// bmaptool are the options of bmaptool that mean something else here.
var bmaptool = map[string]string{
	"no-sig-verify":    "--allow-unsigned comes closest to bmaptool's --no-sig-verify; a signature that is there is checked all the same",
	"no-verify":        "--no-read-back leaves out the read-back; the checksums of bmaptool's --no-verify are always checked",
	"fingerprint":      "--keyring with the one certificate does what bmaptool's --fingerprint does",
	"removable-device": "name the device as DEST; one that is mounted or in use is refused, as with bmaptool's --removable-device",
	"no-checksum":      "every range gets a checksum; an image without them cannot be installed",
}

// flagError reports an unknown option and suggests the closest one.
func flagError(cmd *cobra.Command, err error) error {
	u := &usageError{err: err, hint: "see " + cmd.CommandPath() + " --help"}
	if word, unknown := strings.CutPrefix(err.Error(), "unknown flag: --"); unknown {
		if own := bmaptool[word]; own != "" && cmd.Parent().Name() == "bmap" {
			u.hint = own
			return u
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if name := nearest(word, names); name != "" {
			u.hint = "did you mean --" + name + "?"
		}
	}
	return u
}

// nearest is the name closest to a misspelt word, "" when none is close. Of several at the same distance it is the first in the alphabet.
func nearest(word string, names []string) string {
	best, least := "", max(1, min(2, len(word)/3))+1
	slices.Sort(names)
	for _, name := range names {
		if d := distance(word, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, change or swap with the next (optimal string alignment).
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[(i+1)%3], rows[(i+2)%3], rows[i%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
