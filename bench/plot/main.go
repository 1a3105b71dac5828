// Command plot draws a table of a benchmark as bars: it reads Markdown, takes the rows whose columns -group, -bar and -value name, and
// prints an SVG. Rows without a number are left out.
//
//	go run ./bench/plot -title Copying -group form -bar command -value 'MB/s of mapped data' <build/bench/copy.md >docs/copy.svg
package main

import (
	"bufio"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

type row struct {
	group, bar string
	value      float64
}

func main() {
	title := flag.String("title", "", "title of the drawing")
	group, bar, value := flag.String("group", "", "column of the groups"), flag.String("bar", "", "column of the bars"), flag.String("value", "", "column of the lengths")
	only := flag.String("only", "", "names of bars, separated by ;, empty for all")
	flag.Parse()
	rows := read(os.Stdin, *group, *bar, *value)
	if *only != "" {
		rows = slices.DeleteFunc(rows, func(r row) bool { return !slices.Contains(strings.Split(*only, ";"), r.bar) })
	}
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, "plot: no rows")
		os.Exit(1)
	}
	draw(os.Stdout, *title+", "+*value, rows)
}

// read takes the rows of every table that has the columns; group may be "".
func read(in io.Reader, group, bar, value string) (rows []row) {
	var head []string
	for s := bufio.NewScanner(in); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "|") {
			head = nil
			continue
		}
		var cells []string
		for c := range strings.SplitSeq(strings.Trim(s.Text(), "| "), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(c), "*"))
		}
		if head == nil {
			head = cells
			continue
		}
		cell := func(name string) string {
			if i := slices.Index(head, name); i >= 0 && i < len(cells) {
				return cells[i]
			}
			return ""
		}
		if v, err := strconv.ParseFloat(cell(value), 64); err == nil {
			rows = append(rows, row{cell(group), cell(bar), v})
		}
	}
	return rows
}

// draw prints horizontal bars, scaled to the longest.
func draw(w io.Writer, title string, rows []row) {
	const line, left, width = 18, 330, 460
	longest := slices.MaxFunc(rows, func(a, b row) int { return int(a.value - b.value) }).value
	colors, names := []string{"#888", "#2a6f97", "#52b788", "#e9c46a", "#b56576"}, []string{}
	var body strings.Builder
	y, last := 40, ""
	for _, r := range rows {
		if r.group != last {
			y, last = y+line/2, r.group
			fmt.Fprintf(&body, "<text x=\"8\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y+13, html.EscapeString(r.group))
		}
		if !slices.Contains(names, r.bar) {
			names = append(names, r.bar)
		}
		color := colors[slices.Index(names, r.bar)%len(colors)]
		length := r.value / longest * width
		fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left-6, y+13, html.EscapeString(r.bar))
		fmt.Fprintf(&body, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y+2, length, line-4, color)
		fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%d\">%g</text>\n", left+length+4, y+13, r.value)
		y += line
	}
	fmt.Fprintf(w, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", y+10)
	fmt.Fprintf(w, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"8\" y=\"24\" font-size=\"15\">%s</text>\n%s</svg>\n", html.EscapeString(title), body.String())
}
