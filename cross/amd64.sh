# PCs, 64 bit.
# shellcheck shell=sh disable=SC2034
goarch=amd64 goarm=
cc="x86_64-linux-gnu.2.28" # zig's name, and the oldest glibc the program is to run on
debian=amd64 multiarch=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 rpm=x86_64 apk=x86_64
machine=x86_64 # uname -m and qemu
cpu=qemu64     # the oldest processor promised, by qemu's name: here one without AVX and SSE4
library=onnxruntime.sh # Microsoft's build, glibc 2.27 and libstdc++ of GCC 8; hash in onnxruntime.sha256
xz="--x86 --lzma2=preset=9e,dict=8MiB"
