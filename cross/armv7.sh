# ARM, 32 bit with hard float and VFPv3: i.MX 6 and 7, AM335x, BeagleBone, Raspberry Pi 2 and later with a 32-bit system.
# shellcheck shell=sh disable=SC2034
goarch=arm goarm=7
cc="arm-linux-gnueabihf.2.28"
debian=armhf multiarch=arm-linux-gnueabihf loader=ld-linux-armhf.so.3 rpm=armv7hl apk=armv7
machine=armv7l
cpu=cortex-a7
library=debian # libonnxruntime1.21 of Debian 13, with every library it needs
sha256=3cdacd65befccc6980959b093f5eb150d8992e9d56af374edcddfdf8e0b7684a
xz="--armthumb --lzma2=preset=9e,dict=8MiB,lc=2,lp=1,pb=2"
