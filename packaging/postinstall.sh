#!/bin/sh
# Runs after an installation or an upgrade of the package. No unit is enabled: the integrator decides whether a boot is marked good.
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
[ -e /etc/updater/config.toml ] || cat <<'T'
updater is installed, and nothing of it runs yet. As root:

  updater init -o /etc/updater/config.toml                    # drafts the configuration from this disk: read it
  gpg --armor --export KEY >/etc/updater/keys/release.asc     # the certificate that signs your releases
  updater config check && updater doctor

  systemctl enable updater-mark-good.service                  # always: marks a good boot good
  systemctl enable updater-health@health.d.service            # with checks in /etc/updater/health.d
  systemctl enable updater-update.timer                       # with channel.url in the configuration
  systemctl enable updater-report.service                     # with report.url
  systemctl enable updater-scrub.timer                        # reads both slots against their signed checksums, once a month

/usr/share/doc/updater has the pages, the schemas, and boot scripts in examples.
T
exit 0
