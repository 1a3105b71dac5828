#!/bin/bash
# Runs examples/try.sh and makes docs/drawings/try.svg of its output: each line appears when it was printed, and stays. A command
# waits for a second before it appears, so that the lines can be read.
set -euo pipefail
cd "$(dirname "$0")/.."
{ echo "\$ examples/try.sh"; examples/try.sh 2>&1; } | while IFS= read -r line; do
	printf '%s\t%s\n' "$EPOCHREALTIME" "$line"
done | awk -F '\t' '
	{
		text = $2
		if (NR == 1) first = $1
		if (text ~ /^\$ /) wait += 1
		wait += 0.15
		gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
		class = text ~ /^\$ / ? "command" : text ~ /warning:/ ? "warning" : text ~ /next, with/ ? "result" : ""
		lines = lines sprintf("<text x=\"16\" y=\"%d\" class=\"%s\" style=\"animation-delay:%.2fs\">%s</text>\n", 36 + 17 * NR, class, $1 - first + wait, text)
	}
	END {
		height = 36 + 17 * NR + 16
		print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 " height "\" width=\"900\" height=\"" height "\">"
		print "<style>text { font: 13px \"DejaVu Sans Mono\", Menlo, Consolas, monospace; fill: #d8d8d8; white-space: pre; animation: appear 0.01s both }"
		print ".command { fill: #ffffff; font-weight: bold } .warning { fill: #f4bf75 } .result { fill: #a6e22e }"
		print "@keyframes appear { from { opacity: 0 } to { opacity: 1 } } @media (prefers-reduced-motion: reduce) { text { animation: none } }</style>"
		print "<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#22252a\"/>"
		printf "%s</svg>\n", lines
	}' >docs/drawings/try.svg
