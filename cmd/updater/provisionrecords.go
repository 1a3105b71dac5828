package main

import (
	"crypto"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"updater/internal/printable"
	"updater/provision/keys"
	"updater/provision/record"
	"updater/provision/station"
)

type recordsOptions struct {
	spool string
	keys  []string
}

func (o *recordsOptions) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.spool, "spool", "", "spool `FOLDER` of the station")
	f.StringArrayVar(&o.keys, "key", nil, "public key `FILE` of the station, PEM; may be repeated")
}

// read verifies the whole spool and returns its records.
func (o *recordsOptions) read() ([]*record.Record, error) {
	if o.spool == "" || len(o.keys) == 0 {
		return nil, usagef("--spool and --key are required")
	}
	var trusted []crypto.PublicKey
	for _, path := range o.keys {
		key, err := keys.LoadPublic(path)
		if err != nil {
			return nil, err
		}
		trusted = append(trusted, key)
	}
	var records []*record.Record
	_, err := record.Verify(o.spool, trusted, func(r *record.Record) error {
		records = append(records, r)
		return nil
	})
	return records, err
}

func newProvisionRecords(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "records",
		Short: "Check, list and export the records of a station",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := func(name, short string, show func(records []*record.Record, asJSON bool) error) *cobra.Command {
		var o recordsOptions
		asJSON := false
		sub := &cobra.Command{Use: name, Short: short, Args: noArgs, RunE: func(*cobra.Command, []string) error {
			records, err := o.read()
			if err != nil {
				return err
			}
			return show(records, asJSON)
		}}
		o.AddFlags(sub.Flags())
		sub.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
		cmd.AddCommand(sub)
		return sub
	}
	add("verify", "Check the signature of every record and the chain between them", func(records []*record.Record, asJSON bool) error {
		if asJSON {
			return env.json(recordsVerdict{len(records)})
		}
		_, err := fmt.Fprintf(env.Stdout, "%d records, all signed and in one chain\n", len(records))
		return err
	})
	add("list", "Show a line for each record", func(records []*record.Record, asJSON bool) error {
		if asJSON {
			return exportJSON(env, records)
		}
		for _, r := range records {
			if _, err := printable.Fprintf(env.Stdout, "%v\n", r); err != nil {
				return err
			}
		}
		return nil
	})
	var asCSV bool
	export := add("export", "Write all records as a table, or as JSON lines", func(records []*record.Record, _ bool) error {
		if asCSV {
			return record.ExportCSV(env.Stdout, records)
		}
		return exportJSON(env, records)
	})
	export.Flags().BoolVar(&asCSV, "csv", false, "write comma-separated values")
	cmd.AddCommand(newRecordsSend(env))
	return cmd
}

// recordsVerdict is a spool whose records are all signed and in one chain.
type recordsVerdict struct {
	Records int `json:"records"`
}

func exportJSON(env Env, records []*record.Record) error {
	for _, r := range records {
		if err := env.json(r); err != nil {
			return err
		}
	}
	return nil
}

// newRecordsSend sends the records that could not be sent during the runs.
func newRecordsSend(env Env) *cobra.Command {
	var o station.Options
	cmd := &cobra.Command{
		Use:   "send --plan PLAN",
		Short: "Send the records that the server does not have yet",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Plan == "" {
				return usagef("--plan is missing")
			}
			s, err := station.Open(cmd.Context(), env.at(o))
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Send(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.Plan, "plan", "", "plan `FILE`")
	return cmd
}
