#!/bin/bash
# The long form of test/powercut, scaled by PROOF_FAULTS, PROOF_SEEDS, PROOF_FUSE and PROOF_VM; prints a table for docs/testing.md.
set -euo pipefail
export UPDATER_PROOF_FAULTS=${PROOF_FAULTS:-2} UPDATER_PROOF_SEEDS=${PROOF_SEEDS:-1500} UPDATER_PROOF_FUSE=${PROOF_FUSE:-5000} UPDATER_PROOF_VM=${PROOF_VM:-100}
mkdir -p build
echo "faults $UPDATER_PROOF_FAULTS, seeds $UPDATER_PROOF_SEEDS, runs on FUSE $UPDATER_PROOF_FUSE, cuts of a machine $UPDATER_PROOF_VM; the log is build/proof.log" >&2
status=0
go test -tags vm -count=1 -v -timeout "${PROOF_TIMEOUT:-48h}" ${PROOF_RUN:+-run "$PROOF_RUN"} ./test/powercut >build/proof.log 2>&1 || status=$?
echo '| date | commit | what | count | time |'
echo '|---|---|---|--:|--:|'
sed -n 's/^PROOF \(.*\)$/| \1 |/p' build/proof.log
grep -E '^ *--- (FAIL|SKIP)|^FAIL|panic:' build/proof.log >&2 || true
exit $status
