#!/bin/sh
# Runs before the package is removed; upgrades leave the units as they are.
case ${1:-0} in
upgrade | 1) exit 0 ;;
esac
command -v systemctl >/dev/null || exit 0
systemctl --quiet disable updater-mark-good.service updater-health@health.d.service updater-update.timer updater-report.service updater-scrub.timer updater-serve.service 2>/dev/null
exit 0
