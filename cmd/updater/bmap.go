package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"updater/bmap"
	"updater/install"
	"updater/internal/printable"
	"updater/internal/terminal"
)

func newBmap(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bmap",
		Short: "Make, copy by, show and check block maps",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBmapCreate(env), newBmapCopy(env), newBmapInfo(env), newBmapVerify(env))
	return cmd
}

// bmapInfo is the result of bmap info.
type bmapInfo struct {
	Version       string          `json:"version"`
	ImageBytes    int64           `json:"image_bytes"`
	BlockBytes    int64           `json:"block_bytes"`
	Blocks        int64           `json:"blocks"`
	MappedBlocks  int64           `json:"mapped_blocks"`
	MappedBytes   int64           `json:"mapped_bytes"`
	Ranges        int             `json:"ranges"`
	NoChecksum    int             `json:"ranges_without_checksum"`
	MaxRangeBytes int64           `json:"max_range_bytes"` // of the longest range
	ChecksumType  string          `json:"checksum_type"`
	Clearsigned   bool            `json:"clearsigned"` // the signature was not checked
	Update        *bmapInfoFields `json:"update,omitempty"`
}

// bmapInfoFields is the update element of a bmap.
type bmapInfoFields struct {
	Product       string `json:"product,omitempty"`
	Version       string `json:"version,omitempty"`
	RollbackIndex int64  `json:"rollback_index,omitempty"`
	Role          string `json:"role,omitempty"`
	Created       string `json:"created,omitempty"`
	Expires       string `json:"expires,omitempty"`
	Unmapped      string `json:"unmapped,omitempty"`
	ImageChecksum string `json:"image_checksum,omitempty"`
}

func newBmapInfo(env Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info [flags] BMAP",
		Short: "Show what a bmap says; does not check its signature",
		Args:  argsN(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := install.ReadUnverifiedMap(args[0])
			if err != nil {
				return err
			}
			info := describeBmap(m.Map, m.Clearsigned)
			if asJSON {
				return env.json(info)
			}
			return info.print(env.Stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func describeBmap(m *bmap.Map, clearsigned bool) bmapInfo {
	info := bmapInfo{
		Version: m.Version(), ImageBytes: m.ImageSize(), BlockBytes: m.BlockSize(), Blocks: m.BlocksCount(),
		MappedBlocks: m.MappedBlocks(), MappedBytes: m.MappedBytes(), Ranges: m.Len(), ChecksumType: m.ChecksumType(), Clearsigned: clearsigned,
	}
	for _, r := range m.Ranges() {
		info.MaxRangeBytes = max(info.MaxRangeBytes, r.Length)
		if r.Checksum == "" {
			info.NoChecksum++
		}
	}
	if u := m.Update(); u != nil {
		info.Update = &bmapInfoFields{
			Product: u.Product, Version: u.Version, RollbackIndex: u.RollbackIndex, Role: u.Role,
			Created: timeText(u.Created), Expires: timeText(u.Expires), Unmapped: u.Unmapped, ImageChecksum: u.ImageChecksum,
		}
	}
	return info
}

func (i bmapInfo) print(w io.Writer) error {
	weak := ""
	if i.ChecksumType == "sha1" || i.ChecksumType == "md5" {
		weak = ", which are too weak to install from"
	}
	printable.Fprintf(w, "bmap %s, checksums %s%s\nimage %s in %d blocks of %d bytes\nmapped %s in %d ranges of up to %s\n",
		i.Version, i.ChecksumType, weak, terminal.Bytes(i.ImageBytes), i.Blocks, i.BlockBytes, terminal.Bytes(i.MappedBytes), i.Ranges, terminal.Bytes(i.MaxRangeBytes))
	if i.NoChecksum > 0 {
		printable.Fprintf(w, "%d ranges have no checksum, so this bmap is of no use to install from\n", i.NoChecksum)
	}
	if i.Clearsigned {
		fmt.Fprintln(w, "clearsigned; the signature was not checked, updater verify does that")
	}
	if i.Update == nil {
		return nil
	}
	for _, f := range []struct{ name, text string }{
		{"product", i.Update.Product}, {"version", i.Update.Version}, {"role", i.Update.Role}, {"created", i.Update.Created},
		{"expires", i.Update.Expires}, {"unmapped blocks", i.Update.Unmapped}, {"image checksum", i.Update.ImageChecksum},
	} {
		if f.text != "" {
			printable.Fprintf(w, "update %s %s\n", f.name, f.text)
		}
	}
	if n := i.Update.RollbackIndex; n != 0 {
		printable.Fprintf(w, "update rollback index %d\n", n)
	}
	return nil
}
