#!/bin/bash
# Upgrades a deb by dpkg where nobody can answer a question, from one that had the whole sample for a conffile: an
# edited config stays as it is, whatever the defaults of the new one are.
#
#	bash cross/upgrade.sh NEW.deb ROOT SAMPLE
#
# ROOT has a shell and coreutils, and no packages; it is left without picket.
set -euo pipefail

new=$1 root=$2 sample=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() {
	echo "FAIL upgrade: $*" >&2
	exit 1
}
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
[ -e "$root/var/lib/dpkg/status" ] || : >"$root/var/lib/dpkg/status"
config=$root/etc/picket/picket.toml

# dpkg_in NAME ARGUMENT...: without a terminal.
dpkg_in() {
	local name=$1
	shift
	setsid dpkg --root="$root" --log=/dev/null --force-depends --force-architecture "$@" </dev/null >"$work/dpkg" 2>&1 ||
		die "$name: dpkg $*: $(tail -n 5 "$work/dpkg")"
}
# deb VERSION CONFFILE: the new one as another version; without CONFFILE it has none.
deb() {
	rm -rf "$work/tree"
	dpkg-deb -R "$new" "$work/tree"
	sed -i "s/^Version: .*/Version: $1/" "$work/tree/DEBIAN/control"
	rm -f "$work/tree/DEBIAN/md5sums"
	if [ -n "${2:-}" ]; then
		rm -r "$work/tree/usr/share/picket"
		cp "$2" "$work/tree/etc/picket/picket.toml"
		echo /etc/picket/picket.toml >"$work/tree/DEBIAN/conffiles"
	fi
	dpkg-deb -Znone --root-owner-group -b "$work/tree" "$work/$1.deb" >/dev/null
}
deb 0.0.1 "$sample"
deb 1000.1
printf '# of a later version\n' >>"$work/tree/usr/share/picket/picket.toml"
sed -i 's/^Version: .*/Version: 1000.2/' "$work/tree/DEBIAN/control"
dpkg-deb -Znone --root-owner-group -b "$work/tree" "$work/1000.2.deb" >/dev/null

dpkg_in "a new install" -i "$work/1000.1.deb"
cmp -s "$config" "$root/usr/share/picket/picket.toml" || die "a new install has another config"
[ "$(stat -c %a "$config")" = 644 ] || die "the config of a new install has mode $(stat -c %a "$config")"
[ -d "$root/etc/picket/conf.d" ] || die "a new install has no conf.d"
echo 'interface = "lan0"' >"$config"
dpkg_in "an upgrade, the config edited" -i "$work/1000.2.deb"
[ "$(cat "$config")" = 'interface = "lan0"' ] || die "an upgrade changes an edited config"
rm "$config"
dpkg_in "an upgrade, the config deleted" -i "$work/1000.1.deb"
[ -e "$config" ] || die "an upgrade does not make a config where there is none"
echo 'port = 1' >"$root/etc/picket/conf.d/site.toml"
dpkg_in "a purge" -P picket
[ "$(find "$root/etc/picket" -type f)" = "$root/etc/picket/conf.d/site.toml" ] ||
	die "a purge leaves $(find "$root/etc/picket")"
rm -r "$root/etc/picket"

for edit in edited none deleted; do
	dpkg_in "the old one" -i "$work/0.0.1.deb"
	case $edit in
	edited) echo 'interface = "lan0"' >>"$config" ;;
	deleted) rm "$config" ;;
	esac
	want=$(cat "$config" 2>/dev/null) || :
	dpkg_in "from the old one, its config $edit" -i "$work/1000.1.deb"
	[ $edit != deleted ] || want=$(cat "$root/usr/share/picket/picket.toml")
	[ "$(cat "$config")" = "$want" ] || die "from the old one, its config $edit: the config is another"
	dpkg_in "again, its config $edit" -i "$work/1000.2.deb"
	[ "$(cat "$config")" = "$want" ] || die "once more, its config $edit: the config is another"
	dpkg_in "a purge" -P picket
	[ ! -e "$root/etc/picket" ] || die "a purge leaves $(find "$root/etc/picket")"
done
