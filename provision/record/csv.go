package record

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
)

var columns = []string{
	"sequence", "time", "station", "operator", "run", "verdict", "code", "serial", "unit", "key", "model", "disk_serial", "cid", "size",
	"plan", "version", "image_bmap_sha256", "seconds", "retries", "error",
}

// ExportCSV writes verified records as a table with a header, one line each. Cells that a spreadsheet would take for a formula are
// quoted: models and serials come from the hardware.
func ExportCSV(w io.Writer, records []*Record) error {
	out := csv.NewWriter(w)
	if err := out.Write(columns); err != nil {
		return err
	}
	for _, r := range records {
		row := r.row()
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				row[i] = "'" + cell
			}
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// row is the record in the order of columns.
func (r *Record) row() []string {
	serial, version, bmaps, seconds := "", "", []string{}, 0.0
	if r.Identity != nil {
		serial = r.Identity.Serial
	}
	for _, i := range r.Images {
		version, bmaps = i.Version, append(bmaps, i.Bmap)
	}
	for _, s := range r.Steps {
		seconds += s.Seconds
	}
	d := r.Unit.Disk
	return []string{
		strconv.FormatInt(r.Sequence, 10), r.Time.Format(time.RFC3339), r.Station, r.Operator, r.Run, string(r.Verdict), strconv.Itoa(r.Code),
		serial, r.Unit.Name, r.Unit.Key, d.Model, d.Serial, d.CID, strconv.FormatInt(d.Size, 10),
		r.Plan.Name, version, strings.Join(bmaps, " "), strconv.FormatFloat(seconds, 'f', 1, 64), strconv.Itoa(len(r.Retries)), r.Error,
	}
}
