# Draws the rows of a Markdown table as lines: awk -v table='| form, read back' -v title=... -f plotlines.awk PAGE
# table is how the table begins; the first column names a line, the others are its points.
index($0, table) == 1 { inside = 1; next }
inside && !/^\|/ { inside = 0 }
inside && !/^\|-/ {
	points = split($0, cell, / *\| */) - 3
	names[++n] = cell[2]
	for (i = 0; i < points; i++) {
		value[n, i] = cell[i + 3] + 0
		if (value[n, i] > most) most = value[n, i]
	}
}
END {
	if (!n) { print "no table " table > "/dev/stderr"; exit 1 }
	split("#2e7d32 #1565c0 #c62828 #6a1b9a #ef6c00 #00838f #5d4037 #37474f", color, " ")
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 300\" font-family=\"Helvetica,Arial,sans-serif\" font-size=\"12\">\n"
	printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/><text x=\"8\" y=\"18\" font-weight=\"bold\">%s</text>\n", title
	for (y = 0; y <= most; y += 10)
		printf "<path d=\"M40 %d H700\" stroke=\"#ddd\"/><text x=\"34\" y=\"%d\" text-anchor=\"end\">%d</text>\n", 280 - 250 * y / most, 284 - 250 * y / most, y
	for (k = 1; k <= n; k++) {
		printf "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", color[k]
		for (i = 0; i < points; i++) printf "%d,%d ", 40 + 660 * i / (points - 1), 280 - 250 * value[k, i] / most
		printf "\"/><text x=\"710\" y=\"%d\" fill=\"%s\">%s</text>\n", 30 + 18 * k, color[k], names[k]
	}
	print "</svg>"
}
