# ARM, 64 bit: Raspberry Pi 3 and later, i.MX 8, Rockchip, most gateways of today.
# shellcheck shell=sh disable=SC2034
goarch=arm64 goarm=
cc="aarch64-linux-gnu.2.28"
debian=arm64 multiarch=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 rpm=aarch64 apk=aarch64
machine=aarch64
cpu=cortex-a53
library=onnxruntime.sh # as for amd64
xz="--lzma2=preset=9e,dict=8MiB,lc=2,lp=2,pb=2"
