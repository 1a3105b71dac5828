#!/bin/bash
# go test with its own closing lines, the whole log of packages that fail, and every skipped or failed test with the last line of its reason.
set -euo pipefail
go test -v -timeout 30m "$@" 2>&1 | awk '
	{ log_lines[n++] = $0 }
	/^=== (RUN|NAME|CONT) / { test = $3 }
	/^ +[^ ]+\.go:[0-9]+: / { reason[test] = $0 }
	/--- SKIP:/ { sub(/^ +/, "", reason[$3]); skipped[s++] = "SKIPPED " $3 ": " reason[$3] }
	/--- FAIL:/ { sub(/^ +/, "", reason[$3]); failed[f++] = "FAILED " $3 ": " reason[$3] }
	/^(ok|\?) / { for (i = 0; i < s; i++) print skipped[i]; print; n = s = 0; next }
	/^FAIL\t/ { for (i = 0; i < n; i++) print log_lines[i]; for (i = 0; i < f; i++) print failed[i]; n = s = f = 0 }
	END { for (i = 0; i < n; i++) print log_lines[i]; for (i = 0; i < f; i++) print failed[i] }
'
