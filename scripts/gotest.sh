#!/bin/bash
# go test with its own closing lines, the whole log of packages that fail, and every skipped or failed test with its reason: the last
# line of its log, and the end of that line's text when it has several lines.
set -euo pipefail
go test -v -timeout 30m "$@" 2>&1 | LC_ALL=C awk '
	function why(test,  i, text) {
		text = reason[test]
		for (i = max(1, more[test] - 7); i <= more[test]; i++) text = text " | " line[test, i]
		return text
	}
	function max(a, b) { return a > b ? a : b }
	{ log_lines[n++] = $0 }
	/^=== (RUN|NAME|CONT) / { test = $3 }
	/^ +[^ ]+\.go:[0-9]+: / { reason[test] = $0; sub(/^ +/, "", reason[test]); more[test] = 0; next }
	/^        +[^ ]/ && !/ --- / { line[test, ++more[test]] = substr($0, 9); next }
	/--- SKIP:/ { skipped[s++] = "SKIPPED " $3 ": " reason[$3] }
	/--- FAIL:/ { failed[f++] = "FAILED " $3 ": " why($3) }
	/^(ok|\?) / { for (i = 0; i < s; i++) print skipped[i]; print; n = s = 0; next }
	/^FAIL\t/ { for (i = 0; i < n; i++) print log_lines[i]; for (i = 0; i < f; i++) print failed[i]; n = s = f = 0 }
	END { for (i = 0; i < n; i++) print log_lines[i]; for (i = 0; i < f; i++) print failed[i] }
'
