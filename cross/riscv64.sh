# RISC-V, 64 bit (rv64gc): VisionFive 2, Milk-V.
# shellcheck shell=sh disable=SC2034
goarch=riscv64 goarm=
cc="riscv64-linux-gnu.2.28"
debian=riscv64 multiarch=riscv64-linux-gnu loader=ld-linux-riscv64-lp64d.so.1 rpm=riscv64 apk=riscv64
machine=riscv64
cpu=rv64,v=false # without vector instructions
library=debian
sha256=78e669777b9d99abc88cf467ae76d11a41221cae1fa28303ca976b9e430fbbe0
xz="--lzma2=preset=9e,dict=8MiB,lc=3,lp=1,pb=1"
