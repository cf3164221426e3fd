#!/bin/sh
# Packs what an image builder needs, with the version and the hashes of the release in build/release filled in:
#
#	sh cross/integration.sh TARGET...	leaves build/release/picket-VERSION-integration.tar.gz
#
# In it are a layer for Yocto, an external tree for Buildroot and a feed for OpenWrt. They have no hash of a target that was
# not released.
set -eu
cd "$(dirname "$0")/.."

version=${VERSION:-devel}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
read -r numbers apknumbers <<-VERSIONS
	$(sh cross/package.sh version)
VERSIONS
name=picket-$version-integration
tmp=build/cross/integration
rm -rf "$tmp"
mkdir -p "$tmp"
cp -r cross/integration "$tmp/$name"
cd "$tmp"

for target in "$@"; do
	for kind in "$target" "$target-selfcontained"; do
		file=../../release/picket-$version-linux-$kind.tar.gz
		[ ! -e "$file" ] || echo "s/@SHA256_$kind@/$(sha256sum "$file" | cut -d' ' -f1)/"
	done
done >fill
cat >>fill <<-FILL
	s/@RELEASE@/$version/g
	s/@APKNUMBERS@/$apknumbers/g
	s/@LICENSE_MD5@/$(md5sum ../../../LICENSE | cut -d' ' -f1)/
	s/@LICENSE_SHA256@/$(sha256sum ../../../LICENSE | cut -d' ' -f1)/
	/@SHA256_/d
FILL
find "$name" -type f -exec sed -i -f fill {} +
recipes=$name/yocto/meta-picket/recipes-picket/picket
mv "$recipes/picket.bb" "$recipes/picket_$numbers.bb"
mkdir "$recipes/files"
cp "$name/buildroot/package/picket/S80picket" "$recipes/files/picket.init" # the same init script
cp ../../../LICENSE "$name/"
find "$name" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -c "$name" | gzip -9n >"../../release/$name.tar.gz"
