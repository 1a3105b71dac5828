# Draws a column of a Markdown table as horizontal bars: awk -v table='| form | command' -v labels=2 -v title=... -f plot.awk PAGE
# table is how the table begins, the first labels columns name a bar, the next one is its length. Bars of updater have another color.
index($0, table) == 1 { inside = 1; next }
inside && !/^\|/ { inside = 0 }
inside && !/^\|-/ {
	split($0, cell, / *\| */)
	name = cell[2]
	for (i = 3; i < labels + 2; i++) name = name "  " cell[i]
	value = cell[labels + 2]
	if (value !~ /^[0-9.]+$/) next
	gsub(/`/, "", name); gsub(/&/, "\\&amp;", name); gsub(/</, "\\&lt;", name)
	names[++n] = name; values[n] = value
	if (value + 0 > most) most = value + 0
}
END {
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 %d\" font-family=\"Helvetica,Arial,sans-serif\" font-size=\"12\">\n", n * 18 + 34
	printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/><text x=\"8\" y=\"18\" font-weight=\"bold\">%s</text>\n", title
	for (i = 1; i <= n; i++) {
		y = 26 + 18 * (i - 1)
		printf "<text x=\"340\" y=\"%d\" text-anchor=\"end\">%s</text>", y + 12, names[i]
		printf "<rect x=\"348\" y=\"%d\" width=\"%d\" height=\"13\" fill=\"%s\"/>", y + 1, 440 * values[i] / most + 1, names[i] ~ /updater/ ? "#2e7d32" : "#9aa5b1"
		printf "<text x=\"%d\" y=\"%d\">%s</text>\n", 354 + 440 * values[i] / most, y + 12, values[i]
	}
	print "</svg>"
	if (!n) { print "no table " table > "/dev/stderr"; exit 1 }
}
