# shellcheck shell=bash disable=SC2034
# Common to the two arm64 boards. Their build.sh sources this file after setting -euo pipefail. It goes to the folder of the output, which is the
# first argument of build.sh. DEBIAN is a folder that keeps the packages.

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
out=${1:-$top/build/boards/$(basename "$here")}
mkdir -p "$out"
out=$(cd "$out" && pwd)
debian=${DEBIAN:-$out/debian}
updater=$top/bin/updater
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C.UTF-8
cd "$out" || exit

# pgp runs gpg on the folder gnupg, by a short name: the path of its socket has at most 108 bytes.
pgp() {
	local home
	home=$(mktemp -d)
	ln -s "$out/gnupg" "$home/h"
	GNUPGHOME=$home/h gpg -q --batch --yes "$@"
	GNUPGHOME=$home/h gpgconf --kill all
	rm -r "$home"
}

# root runs a command that sees the files as root's.
root() { if [ "$(id -u)" = 0 ]; then "$@"; else unshare --map-root-user "$@"; fi; }

# begin sends the output of the tools to build.log, so that the script prints only its steps, and builds the program, for this machine and the board.
begin() {
	exec 3>&1 >build.log
	step "the program, for this machine and for the board"
	make -s -C "$top" build
	make -s -C "$top" ARCH=arm64 bin/arm64/updater
}
step() { echo "build.sh: $*" >&3; }

# packages_for_arm64 OPTION... gives apt a state of its own, for arm64 only: the host's packages and lists stay as they are, and no arm64
# program runs here. The options for apt-get are in the array apt afterwards.
packages_for_arm64() {
	mkdir -p "$debian"/apt/{lists,cache/archives}/partial
	: >"$debian/apt/status"
	apt=(-q -o "Dir::State=$debian/apt" -o "Dir::State::status=$debian/apt/status" -o "Dir::Cache=$debian/apt/cache" -o APT::Sandbox::User=root
		-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Acquire::Languages=none "$@")
	apt-get "${apt[@]}" update
}
