# Installs Picket as it was released. Building it here would need a Go newer than most branches have, and ONNX Runtime,
# for which OpenEmbedded's own layers have no recipe.
SUMMARY = "Says what is anomalous in a gateway's traffic"
DESCRIPTION = "Picket watches the traffic of an IoT or telecom gateway, scores it with ONNX models and publishes \
               what is anomalous over MQTT."
HOMEPAGE = "https://github.com/picket-ids/picket"
BUGTRACKER = "https://github.com/picket-ids/picket/issues"
SECTION = "net"
# THIRD-PARTY, beside LICENSE, has the texts. The C library and libstdc++ only where they come along.
LICENSE = "Apache-2.0 & MIT & BSD-2-Clause & BSD-3-Clause & EPL-2.0${PICKET_LIBRARIES_LICENSE}"
PICKET_LIBRARIES_LICENSE = ""
PICKET_LIBRARIES_LICENSE:arm = " & LGPL-2.1-or-later & GPL-3.0-with-GCC-exception & Zlib"
PICKET_LIBRARIES_LICENSE:riscv64 = " & LGPL-2.1-or-later & GPL-3.0-with-GCC-exception & Zlib"
PICKET_LIBRARIES_LICENSE:libc-musl:x86-64 = " & LGPL-2.1-or-later & GPL-3.0-with-GCC-exception"
PICKET_LIBRARIES_LICENSE:libc-musl:aarch64 = " & LGPL-2.1-or-later & GPL-3.0-with-GCC-exception"
LIC_FILES_CHKSUM = "file://LICENSE;md5=@LICENSE_MD5@"

# Where the release's files are: PICKET_RELEASES = "https://files.example/picket/1.2.3". Files that are on this machine
# belong into DL_DIR or come from PREMIRRORS: of a file:// in SRC_URI BitBake compares no hash.
PICKET_RELEASES ?= ""
PICKET_TARGET = "unknown"
PICKET_TARGET:x86-64 = "amd64"
PICKET_TARGET:aarch64 = "arm64"
PICKET_TARGET:arm = "armv7"
PICKET_TARGET:riscv64 = "riscv64"
# With musl the C library comes with the program; for armv7 and riscv64 it always does.
PICKET_KIND = ""
PICKET_KIND:libc-musl:x86-64 = "-selfcontained"
PICKET_KIND:libc-musl:aarch64 = "-selfcontained"
PICKET_NAME = "picket-@RELEASE@-linux-${PICKET_TARGET}${PICKET_KIND}"
PICKET_UNPACKED = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

SRC_URI = "${PICKET_RELEASES}/${PICKET_NAME}.tar.gz;name=${PICKET_TARGET}${PICKET_KIND} \
           file://picket.init \
           "
SRC_URI[amd64.sha256sum] = "@SHA256_amd64@"
SRC_URI[amd64-selfcontained.sha256sum] = "@SHA256_amd64-selfcontained@"
SRC_URI[arm64.sha256sum] = "@SHA256_arm64@"
SRC_URI[arm64-selfcontained.sha256sum] = "@SHA256_arm64-selfcontained@"
SRC_URI[armv7.sha256sum] = "@SHA256_armv7@"
SRC_URI[riscv64.sha256sum] = "@SHA256_riscv64@"

S = "${PICKET_UNPACKED}/${PICKET_NAME}"

inherit systemd update-rc.d useradd

# A device's own picket.toml and SYSTEMD_AUTO_ENABLE = "enable" belong into picket_%.bbappend.
SYSTEMD_SERVICE:${PN} = "picket.service"
SYSTEMD_AUTO_ENABLE ?= "disable"
INITSCRIPT_NAME = "picket"
INITSCRIPT_PARAMS = "defaults 80 20"
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir ${localstatedir}/lib/picket --shell /bin/false picket"

COMPATIBLE_HOST = "(x86_64|aarch64|arm|riscv64).*-linux.*"
INHIBIT_DEFAULT_DEPS = "1"
FILES:${PN} += "${nonarch_libdir}/picket"
RDEPENDS:${PN}:x86-64 = "libstdc++"
RDEPENDS:${PN}:aarch64 = "libstdc++"
RDEPENDS:${PN}:libc-musl:x86-64 = ""
RDEPENDS:${PN}:libc-musl:aarch64 = ""

python () {
    features = (d.getVar("TUNE_FEATURES") or "").split()
    if not d.getVar("PICKET_RELEASES"):
        raise bb.parse.SkipRecipe("PICKET_RELEASES does not say where Picket's release files are")
    if d.getVar("PICKET_RELEASES").startswith("file:"):
        raise bb.parse.SkipRecipe("PICKET_RELEASES is a file: URL, of which BitBake compares no hash: use PREMIRRORS")
    if d.getVar("TARGET_ARCH") == "arm":
        if "callconvention-hard" not in features or {"armv4", "armv5", "armv6"} & set(features):
            raise bb.parse.SkipRecipe("32-bit ARM needs ARMv7 with hard float; TUNE_FEATURES has %s" % " ".join(features))
}

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${bindir} ${D}${nonarch_libdir}/picket
    install -m 0755 picket ${D}${bindir}/picket
    if [ -d lib ]; then
        cp -R --no-preserve=ownership lib/. ${D}${nonarch_libdir}/picket/
    else
        install -m 0644 libonnxruntime.so libonnxruntime.so.sha256 ${D}${nonarch_libdir}/picket/
    fi
    install -D -m 0644 picket.toml ${D}${sysconfdir}/picket/picket.toml
    install -D -m 0644 THIRD-PARTY ${D}${docdir}/${PN}/THIRD-PARTY
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -D -m 0644 picket.service ${D}${systemd_system_unitdir}/picket.service
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -D -m 0755 ${PICKET_UNPACKED}/picket.init ${D}${sysconfdir}/init.d/picket
    fi
}

CONFFILES:${PN} = "${sysconfdir}/picket/picket.toml"

# What was released stays as it is: the library's hash is beside it, and is compared at every start. Its libraries are
# its own; other packages must not be linked against them.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
EXCLUDE_FROM_SHLIBS = "1"
INSANE_SKIP:${PN} = "already-stripped ldflags file-rdeps libdir 32bit-time"
